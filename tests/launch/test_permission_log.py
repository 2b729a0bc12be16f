"""``--permission-log``: one line for each denial, by whoever saw it, which the program can neither forge nor erase."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.record import wire
from tests import support

if TYPE_CHECKING:
    from typing import Any

    from tests.support import Need, Run

KEYS = ["time", "pid", "permission", "resource", "path", "call", "event", "flag", "file", "line", "source", "enforced"]
WAYS = pytest.mark.parametrize("way", [[], ["-B"]], ids=["fork", "exec"])
SHUT = "def shut(call, *words):\n try: call(*words)\n except OSError as error: print(type(error).__name__)\n"
NATIVE = SHUT + (
    "import ctypes, os\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "def raw(name, *words):\n"
    " if getattr(libc, name)(*words) < 0: print(os.strerror(ctypes.get_errno()))\n"
)


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


@pytest.fixture
def secret(folder: str) -> str:
    """Return a file in a folder of its own."""
    os.mkdir(f"{folder}/out")
    path = f"{folder}/out/secret"
    with open(path, "w", encoding="utf-8") as file:
        file.write("secret")
    return path


def lines(path: str) -> list[dict[str, Any]]:
    """Return what a log holds."""
    with open(path, encoding="ascii") as file:
        return [json.loads(line) for line in file]


def about(path: str, place: str) -> list[dict[str, Any]]:
    """Return the lines about one place."""
    return [line for line in lines(path) if line["path"] == place]


@WAYS
def test_what_the_hook_denies(sandbox: Run, folder: str, secret: str, way: list[str]) -> None:
    program = f"{folder}/p.py"
    with open(program, "w", encoding="utf-8") as file:
        file.write(f"{SHUT}\nshut(open, 'out/secret')\n")
    words = [*way, f"--permission-log={folder}/log", program]
    ended = sandbox(*words, cwd=folder)
    assert ended.stdout == "AccessDeniedError\n", ended.said
    (line,) = about(f"{folder}/log", secret)
    assert list(line)[: len(KEYS)] == KEYS
    assert line["permission"] == "FileSystemRead"
    # The supervisor has seen how the hook looked where the path leads.
    assert (line["resource"], line["event"], line["source"]) == ("out/secret", "open", "supervisor")
    assert (line["file"], line["line"]) == (program, 2)
    assert (line["flag"], line["enforced"]) == ("--allow-fs-read", True)
    told = dt.datetime.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert abs(told.timestamp() - time.time()) < 100
    os.unlink(f"{folder}/log")
    ended = sandbox(*words, f"--allow-fs-read={folder}/out", cwd=folder)
    assert ended.stdout == "AccessDeniedError\n", "options after the program are its own"
    os.unlink(f"{folder}/log")
    ended = sandbox(f"--allow-fs-read={folder}/out", *words, cwd=folder)
    assert ended.stdout == ""
    assert about(f"{folder}/log", secret) == []


@WAYS
def test_what_native_code_is_denied(sandbox: Run, folder: str, secret: str, way: list[str]) -> None:
    code = NATIVE + f"raw('stat', {secret!r}.encode(), b' ' * 200)\nraw('chmod', {secret!r}.encode(), 0o777)\n"
    words = [*way, "--allow-ffi", f"--permission-log={folder}/log", "-c", code]
    with support.unchanged(f"{folder}/out"):
        ended = sandbox(*words)
    assert ended.stdout == "Permission denied\n" * 2, ended.said
    found = about(f"{folder}/log", secret)
    assert [(line["permission"], line["resource"], line["source"]) for line in found] == [
        ("FileSystemRead", secret, "supervisor"),
        ("FileSystemWrite", secret, "supervisor"),
    ]
    assert [line["flag"] for line in found] == ["--allow-fs-read", "--allow-fs-write"]
    assert all(line["event"] is None and line["call"] and line["enforced"] for line in found)
    os.unlink(f"{folder}/log")
    ended = sandbox(f"--allow-fs-read={folder}/out", f"--allow-fs-write={folder}/out", *words)
    assert ended.stdout == "", ended.said
    assert about(f"{folder}/log", secret) == []


def test_what_both_saw_is_one_line(sandbox: Run, folder: str, secret: str) -> None:
    code = f"{SHUT}\nimport os\nshut(os.stat, {secret!r})\nshut(os.readlink, {secret!r})\nos.path.exists({secret!r})"
    sandbox(f"--permission-log={folder}/log", "-c", code)
    found = about(f"{folder}/log", secret)
    assert [(line["event"], line["source"], line["file"]) for line in found] == [
        (f"os.{name}", "supervisor", "<string>") for name in ("stat", "readlink", "stat")
    ]
    assert [line["line"] for line in found] == [2, 2, 8]
    assert all(line["call"] for line in found)
    # What the hook looks at on the way is counted there, and has no lines of its own.
    assert not [line for line in lines(f"{folder}/log") if line["path"] == folder]
    assert all(line["also"] for line in found)


def test_asking_is_told_apart(sandbox: Run, folder: str, secret: str) -> None:
    code = f"import sys; sys.permission.has('fs.read', {secret!r}); sys.permission.has('net')"
    sandbox(f"--permission-log={folder}/log", "-c", code)
    told = [(line["permission"], line["resource"], line["event"], line["enforced"]) for line in lines(f"{folder}/log")]
    assert told == [("FileSystemRead", secret, "permission.has", False), ("Net", "", "permission.has", False)]
    os.unlink(f"{folder}/log")
    sandbox("--allow-net", f"--allow-fs-read={folder}/out", f"--permission-log={folder}/log", "-c", code)
    assert lines(f"{folder}/log") == []


def test_the_program_can_not_write_the_log(sandbox: Run, folder: str, secret: str) -> None:
    """It has no descriptor of it, and no way to its name; what it says over the wire is told apart."""
    report = {"permission": "Net", "resource": "forged", "path": secret, "event": "os.stat", "file": "f", "line": 1}
    code = f"""
{NATIVE}
import json
for descriptor in range(3, 1000):
    try: os.write(descriptor, b"forged by a descriptor")
    except OSError: pass
for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
    raw("open", {folder + "/log"!r}.encode(), flags)
raw("unlink", {folder + "/log"!r}.encode())
raw("truncate", {folder + "/log"!r}.encode(), 0)
raw("stat", {secret!r}.encode(), b" " * 200)
report = {report!r}
for permission in ("Net", "FileSystemRead"):
    os.setxattr({wire.WIRE}, {wire.DENIAL!r}, json.dumps(dict(report, permission=permission)).encode())
"""
    ended = sandbox("--allow-ffi", f"--permission-log={folder}/log", "-c", code)
    assert ended.stdout == "Permission denied\n" * 5, ended.said
    found = about(f"{folder}/log", secret)
    seen = [line for line in found if line["source"] == "supervisor"]
    said = [line for line in found if line["source"] == "hook"]
    assert [(line["permission"], line["path"]) for line in seen] == [("FileSystemRead", secret)]
    assert [(line["permission"], line["resource"]) for line in said] == [("Net", "forged")]
    with open(f"{folder}/log", encoding="ascii") as file:
        assert "by a descriptor" not in file.read()


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"{}", b"[]", b'{"permission": "Nothing"}', b'{"permission": ["Net"]}', b"[" * 60000, b"\xff" * 65536],
    ids=["empty", "text", "object", "list", "unknown", "unhashable", "nested", "binary"],
)
def test_malformed_reports_do_nothing(sandbox: Run, folder: str, message: bytes) -> None:
    code = (
        f"import os\ntry: os.setxattr({wire.WIRE}, {wire.DENIAL!r}, {message[:1]!r} * {len(message)} "
        f"if {len(set(message))} < 2 else {message[:99]!r})\nexcept OSError as error: print(error.errno)"
    )
    ended = sandbox(f"--permission-log={folder}/log", "-c", code)
    assert (ended.stdout, ended.stderr) == ("22\n", ""), ended.said
    assert lines(f"{folder}/log") == []


def test_without_a_log_nobody_listens(sandbox: Run) -> None:
    code = (
        f"import os\ntry: os.setxattr({wire.WIRE}, {wire.DENIAL!r}, b'x')\nexcept OSError as error: print(error.errno)"
    )
    assert sandbox("-c", code).stdout == "22\n"


def test_processes_and_threads_of_the_program(sandbox: Run, folder: str, secret: str) -> None:
    code = f"""
{SHUT}
import os, threading
thread = threading.Thread(target=shut, args=(os.stat, {secret!r}))
thread.start()
thread.join()
if os.fork() == 0:
    shut(os.stat, {secret!r})
    os._exit(0)
os.wait()
print(os.getpid())
"""
    ended = sandbox("--allow-child-process", "--allow-worker", f"--permission-log={folder}/log", "-c", code)
    own = int(ended.stdout.splitlines()[-1])
    found = about(f"{folder}/log", secret)
    assert [line["pid"] == own for line in found] == [True, False], ended.said


@pytest.mark.parametrize("mode", ["--permission", "--permission-audit"])
def test_pythons_that_the_program_starts(run: Run, folder: str, secret: str, mode: str) -> None:
    """They have the hook, which tells the supervisor, too."""
    inner = f"try: open({secret!r})\nexcept PermissionError as error: print(type(error).__name__)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])"
    ended = run(mode, "--allow-child-process", f"--permission-log={folder}/log", "-c", code)
    assert ended.stdout == ("AccessDeniedError\n" if mode == "--permission" else ""), ended.said
    (line,) = about(f"{folder}/log", secret)
    assert (line["event"], line["file"], line["line"]) == ("open", "<string>", 1)
    os.unlink(f"{folder}/log")
    run(mode, "--allow-child-process", f"--allow-fs-read={secret}", f"--permission-log={folder}/log", "-c", code)
    assert about(f"{folder}/log", secret) == []


def test_the_result_counts_and_the_log_tells(sandbox: Run, folder: str, secret: str) -> None:
    code = f"{NATIVE}raw('stat', {secret!r}.encode(), b' ' * 200)"
    sandbox("--allow-ffi", f"--result={folder}/result", f"--permission-log={folder}/log", "-c", code)
    assert len(about(f"{folder}/log", secret)) == 1
    with open(f"{folder}/result", encoding="utf-8") as file:
        assert json.load(file)["denials"]["by_permission"]["FileSystemRead"] >= 1


# Where it goes


def test_to_a_descriptor(folder: str, secret: str) -> None:
    """One that the command has inherited: its own stdout, or another, which the program doesn't get."""
    with open(f"{folder}/log", "w+b") as log:
        for number in (1, log.fileno()):
            code = f"import os\nos.path.exists({secret!r})\nprint(os.path.exists({secret!r}))\n"
            code += f"try: os.write({log.fileno()}, b'forged')\nexcept OSError: print('closed')"
            log.seek(0)
            log.truncate()
            done = subprocess.run(
                [*support.installed(), "--permission", f"--permission-log=fd:{number}", "-c", code],
                check=True,
                stdout=log if number == 1 else subprocess.PIPE,
                pass_fds=[log.fileno()],
                env=support.clean_environment(),
            )
            log.seek(0)
            text = log.read().decode()
            assert (done.stdout or text.encode()).count(b"closed\n") == 1
            assert text.count(secret) == 4
            assert "forged" not in text


def test_to_stderr(sandbox: Run, secret: str) -> None:
    ended = sandbox("--permission-log=-", "-c", f"import os; os.path.exists({secret!r})")
    assert [json.loads(line)["path"] for line in ended.stderr.splitlines()] == [secret]


def test_from_the_environment(sandbox: Run, folder: str, secret: str) -> None:
    sandbox(
        "-c",
        f"import os; os.path.exists({secret!r})",
        env={"SANDBOXED_PYTHON_OPTIONS": "--permission-log=log"},
        cwd=folder,
    )
    assert about(f"{folder}/log", secret)


def one_line(ended: support.Finished, code: int) -> str:
    assert (ended.code, ended.stdout) == (code, ""), ended.said
    assert ended.stderr.count("\n") == 1, ended.said
    return ended.stderr


def test_where_it_can_not_go(sandbox: Run, folder: str) -> None:
    hello = ("-c", "print('ran')")
    os.mkdir(f"{folder}/in")
    os.symlink("target", f"{folder}/link")
    with open(f"{folder}/twice", "wb"):
        os.link(f"{folder}/twice", f"{folder}/in/twice")
    grant = f"--allow-fs-write={folder}/in"
    assert "could erase it" in one_line(sandbox(grant, f"--permission-log={folder}/in/log", *hello), 9)
    assert "could erase it" in one_line(
        sandbox(f"--allow-fs-write={folder}/l*", "--permission-log=log", *hello, cwd=folder), 9
    )
    assert "other names" in one_line(sandbox(grant, f"--permission-log={folder}/twice", *hello), 9)
    assert "it is a link" in one_line(sandbox(f"--permission-log={folder}/link", *hello), 125)
    assert "Is a directory" in one_line(sandbox(f"--permission-log={folder}", *hello), 125)
    assert "No such file" in one_line(sandbox(f"--permission-log={folder}/no/log", *hello), 125)
    assert "fd:77" in one_line(sandbox("--permission-log=fd:77", *hello), 9)
    assert not os.path.lexists(f"{folder}/target")
    ended = sandbox(grant, f"--permission-log={folder}/log", *hello)
    assert (ended.stdout, ended.stderr) == ("ran\n", "")


# Trouble


def test_a_full_disk_stops_nothing(sandbox: Run, secret: str) -> None:
    code = f"{SHUT}\nfor _ in range(3): shut(open, {secret!r})\nprint('done')"
    ended = sandbox("--permission-log=/dev/full", "-c", code)
    assert ended.stdout == "AccessDeniedError\n" * 3 + "done\n"
    assert ended.stderr.count("No space left on device") == 1
    assert ended.stderr.count("\n") == 2, ended.said


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["closed", "sleeping"])
def test_nobody_who_reads_stops_nothing(folder: str, secret: str, reader: str) -> None:
    source, sink = os.pipe()
    if reader == "closed":
        os.close(source)
    code = f"import os\nfor _ in range(2000): os.path.exists({secret!r})\nprint('done')"
    words = [*support.installed(), "--permission", f"--permission-log=fd:{sink}", "-c", code]
    ended = support.execute(words, pass_fds=[sink], timeout=60)
    assert ended.stdout == "done\n", ended.said
    assert ended.stderr.count("a denial could not be written down") == 1, ended.said
    assert "denials could not be written down" in ended.stderr
    assert folder


@pytest.mark.slow
def test_a_flood_makes_nothing_grow(sandbox: Run, folder: str, secret: str) -> None:
    """The supervisor's memory after many denials is what it was after some."""
    code = f"""
import os
def grown():
    return int(open(f"/proc/{{os.getppid()}}/statm").read().split()[1])
for _ in range(300): os.path.exists({secret!r})
before = grown()
for _ in range(3000): os.path.exists({secret!r})
print(grown() - before)
"""
    ended = sandbox("--allow-fs-read=/proc", f"--permission-log={folder}/log", "-c", code)
    assert int(ended.stdout) < 200, ended.said  # pages
    assert len(about(f"{folder}/log", secret)) == 3300


def test_nothing_is_loaded_for_it_unless_asked(sandbox: Run) -> None:
    code = "import gc, sys; print([m.__name__ for m in gc.get_objects() if type(m) is type(sys)])"
    ended = sandbox("-c", f"import gc; gc.unfreeze(); {code}")
    for name in ("record.log", "record.events", "child.publish", "broker.sightings"):
        assert name not in ended.stdout
    assert sys.version_info >= (3, 10)


MANY = """
import os, sys
for number in range(150):
    try: os.stat(f"out/none{number}")
    except PermissionError: pass
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "lost"), [(signal.SIGKILL, 64), (signal.SIGTERM, 0), (None, 0)], ids=["killed", "SIGTERM", "a limit"]
)
def test_what_is_lost_with_the_supervisor(folder: str, secret: str, end: signal.Signals | None, lost: int) -> None:
    """Lines that wait for their other half, at most 64, and only by SIGKILL."""
    words = [*support.installed(), "--permission", f"--permission-log={folder}/log", "--limit-time=5", "-c", MANY]
    job = subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        if end is not None:
            job.send_signal(end)
        assert job.wait(30) == (-end if end is not None else 124)
    places = {line["path"] for line in lines(f"{folder}/log")}
    there = [f"{os.path.dirname(secret)}/none{number}" in places for number in range(150)]
    assert all(there[: 150 - lost]), there.index(False)
