"""What the import system asks about files, in the default policy, the kernel answers alone, and as it would outside."""

from __future__ import annotations

import select
import signal
import subprocess
import sys

from sandboxed_python.kernel import fstat
from tests import support

LOOK = """
import importlib, os, sys
theirs, heard = importlib._bootstrap_external._os.stat, []
folder = os.path.dirname(os.__file__)
sys.addaudithook(lambda event, arguments: heard.append(event))
for name in ("os.py", "", "/", "json", "nothing", "os.py/x", "nothing/x", "x\\0y", "json/../os.py"):
    path = f"{folder}/{name}" if name != "" else folder
    del heard[:]
    try:
        found = theirs(path)
        row = [found.st_mode, found.st_ino, found.st_size, found.st_mtime, found == theirs(path, follow_symlinks=True)]
    except (OSError, ValueError) as error:
        row = [type(error).__name__, getattr(error, "errno", None), getattr(error, "filename", None)]
    print(name, row, heard)
"""


def test_as_outside(sandbox: support.Run) -> None:
    """The same answers and the same audit events as in plain python: of a stat, none."""
    plain = subprocess.run([sys.executable, "-c", LOOK], check=True, timeout=60, stdout=subprocess.PIPE, text=True)
    assert len(plain.stdout.splitlines()) == 9
    for flags in ((), ("--allow-fs-metadata",), ("--allow-child-process", "--no-warnings")):
        ended = sandbox(*flags, "-c", LOOK)
        assert (ended.stdout, ended.code) == (plain.stdout, 0), flags


WAIT = """
import importlib, os
ask = importlib._bootstrap_external._os.stat if {theirs} else os.stat
print("ready", flush=True)
input()
print(ask(os.__file__).st_size > 0, ask(os.path.dirname(os.__file__)).st_size > 0, flush=True)
input()
"""


def answered_by_a_stopped_supervisor(*, theirs: bool) -> bool:
    """Tell whether stat gets an answer while the supervisor is stopped."""
    command = [*support.installed(), "--permission", "-c", WAIT.format(theirs=theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        try:
            assert job.stdout.readline() == b"ready\n"
            job.send_signal(signal.SIGSTOP)
            job.stdin.write(b"\n")
            answered = bool(select.select([job.stdout], [], [], 20 if theirs else 0.5)[0])
            job.send_signal(signal.SIGCONT)
            assert job.stdout.readline() == b"True True\n"
            job.stdin.write(b"\n")
            assert job.wait(60) == 0
        finally:
            job.kill()
    return answered


def test_nobody_is_asked() -> None:
    support.need()
    if not fstat.seal_empty_path():
        support.refuse("a kernel and a libc whose fstat() can pass", "none")
    assert answered_by_a_stopped_supervisor(theirs=True)
    assert not answered_by_a_stopped_supervisor(theirs=False)
