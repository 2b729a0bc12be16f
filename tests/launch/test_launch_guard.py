"""Whatever becomes of the supervisor, and whenever, nothing of its job is left.

Every process of a job holds the writing end of its stdout; the reader's end of file tells, from outside, that all of them
are gone, daemons and grandchildren, too.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.launch.plain import PATIENCE, alive, eventually, started
from tests.support import NOBODY, USER_COMMAND, clean_environment, installed, reachable, refuse, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Need

GRANTS = ("--permission", "--allow-child-process", "--no-warnings")
# Daemons of all kinds, and a chain in which every process lives for a moment; the job itself goes on.
FAMILY = """
import os, signal, subprocess, time
os.write(1, b"up\\n")
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; sleep 1000 & sleep 1000"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1000)
    os._exit(0)
stopped = subprocess.Popen(["sleep", "1000"])
os.kill(stopped.pid, signal.SIGSTOP)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork(): os._exit(0)
os.write(1, b"all\\n")
time.sleep({seconds})
"""


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


@contextlib.contextmanager
def job(code: str, *grants: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job in a session of its own for the block; whoever holds its stdout at the end is killed."""
    with subprocess.Popen(
        [*installed(), *(grants or GRANTS), "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def gone(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> bool:
    """Tell whether everybody who holds the job's stdout ends within ``patience`` seconds."""
    assert process.stdout is not None
    deadline = time.monotonic() + patience
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(process.stdout.fileno(), 4096):
            return True
    return False


def line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def test_all_end_with_a_killed_supervisor() -> None:
    with job(FAMILY.format(seconds=1000)) as process:
        assert (line(process), line(process)) == (b"up\n", b"all\n")
        assert not gone(process, 0.5)  # nothing ends by itself
        process.kill()
        assert gone(process)


def test_all_end_with_the_job() -> None:
    with job(FAMILY.format(seconds=0)) as process:
        assert gone(process)
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_all_end_whenever_the_supervisor_is_killed() -> None:
    """200 times, at any moment from the first instruction of the command on."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    left = 200
    while left:
        batch = min(left, 5)
        left -= batch
        with contextlib.ExitStack() as stack:
            jobs = [stack.enter_context(job(FAMILY.format(seconds=1000))) for _ in range(batch)]
            for process in jobs:
                time.sleep(moments.random() * 0.1)
                process.kill()
            assert all(gone(process) for process in jobs), f"seed {seed}"


def test_a_job_that_is_somebody_else_ends_with_a_killed_supervisor(needs: Need) -> None:
    """A change of ids takes the parent-death signal away."""
    needs(root=True)
    code = "import os, time; os.setuid(65534); os.write(1, b'changed\\n'); time.sleep(1000)"
    with job(code, "--permission") as process:
        assert line(process) == b"changed\n"
        time.sleep(0.05)
        process.kill()
        assert gone(process)


def test_ids_do_not_change_without_a_guard(needs: Need) -> None:
    """A job that leaves no room for another process can't make itself the one that survives."""
    needs(root=True)
    command = installed(USER_COMMAND) if os.environ.get(USER_COMMAND) else installed()
    if not reachable(NOBODY, command[0]):
        refuse(f"a command that user {NOBODY} can execute ({USER_COMMAND})", command[0])
    user = 60000 + os.getpid() % 5000  # nobody's: its processes are counted
    code = """
import os, time
try:
    os.setuid(65534)
except OSError as error:
    print(error.strerror, flush=True)
else:
    print("changed", flush=True)
time.sleep(1000)
"""
    for room, said in ((2, "Resource temporarily unavailable"), (30, "changed")):
        words = [tool("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        words += ["--inh-caps=+setuid,+kill", "--ambient-caps=+setuid,+kill", tool("prlimit"), f"--nproc={room}"]
        with started([*words, *command, "--permission", "-c", code]) as program:
            assert program.line() == said
            assert alive(program.pid)
            program.process.kill()
            assert gone(program.process)


def test_a_job_cannot_kill_its_guard_or_supervisor() -> None:
    code = """
import os, signal, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
os.kill(-1, signal.SIGKILL)
print(child.wait(), flush=True)
subprocess.Popen(["sleep", "1000"])
time.sleep(1000)
"""
    with job(code) as process:
        assert line(process) == b"-9\n"
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="utf-8") as file:
            assert len(file.read().split()) == 2  # the guard and the job
        process.kill()
        assert gone(process)


def test_nobody_else_is_killed() -> None:
    """A process of the same user, outside: it outlives the end of a job and of a supervisor."""
    with started(["sleep", "1000"]) as outside:
        for seconds in (0, 1000):
            with job(FAMILY.format(seconds=seconds)) as process:
                assert (line(process), line(process)) == (b"up\n", b"all\n")
                if seconds:
                    process.kill()
                assert gone(process)
        assert alive(outside.pid)
        outside.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("grant", [[], ["--allow-child-process"]], ids=["alone", "children"])
def test_children_from_before_are_neither_killed_nor_waited_for(grant: list[str]) -> None:
    """As in a script that starts something else, and then becomes the command by ``exec``."""
    code = "import os; os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '1000')" if grant else "pass"
    script = """
sleep 1000 >/dev/null 2>&1 & echo $!
sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'
exec "$@"
"""
    words = ["sh", "-c", script, "sh", *installed(), "--permission", "--no-warnings", *grant, "-c", code]
    with started(words) as program:
        pids = [int(program.line()) for _ in range(2)]
        try:
            ended = program.end()
            assert ended.code == 0, ended.said
            assert all(alive(pid) for pid in pids)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def title(pid: str) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().partition(b"\0")[0]


def test_the_guard_can_be_told_from_the_others() -> None:
    with job("print('up', flush=True); import time; time.sleep(1000)") as process:
        assert line(process) == b"up\n"
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="utf-8") as file:
            pids = file.read().split()
        assert len(pids) == 2
        eventually(lambda: [title(pid) for pid in pids].count(b"sandbox-guard") == 1)
