"""Something is used up or missing: disk, descriptors, processes, memory, the standard streams.

The job fails as it does under plain Python, and what fails in the sandbox itself is one clear line and exit code 125.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.census import LONG, census, processes_of, sandboxed, with_room_for
from tests.launch.plain import eventually, plain_python, started
from tests.support import execute, installed, tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support import Finished, Need

WAYS = pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
ALONE = ["--permission", "--no-warnings"]


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def both(before: Sequence[str], grants: Sequence[str], option: Sequence[str], code: str, *rest: str) -> list[Finished]:
    """Run a program under plain Python and confined, after ``before``; nobody is left."""
    found = []
    for command in ([plain_python()], [*installed(), *ALONE, *grants]):
        with census() as counted:
            found.append(execute([*before, *command, *option, "-c", code, *rest]))
            counted.nobody()
    return found


def limit(words: str) -> list[str]:
    """Return the words that set a limit by the shell's ``ulimit`` and become what follows."""
    return ["/bin/sh", "-c", f'ulimit {words}; exec "$@"', "sh"]


# Disk


@pytest.fixture
def small_disk(needs: Need) -> Iterator[str]:
    """Return a folder on a disk of 1 MB of its own."""
    needs(root=True)
    with tempfile.TemporaryDirectory() as folder:
        mounted = execute([tool("mount"), "-t", "tmpfs", "-o", "size=1m", "none", folder])
        if mounted.code:
            pytest.skip(f"needs mount(2) of a tmpfs; found {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            execute([tool("umount"), "-l", folder])


FILL = """
import errno, os, sys
with open(sys.argv[1] + "/file", "wb", 0) as file:
    try:
        for _ in range(1000): file.write(bytes(65536))
    except OSError as error:
        print(errno.errorcode[error.errno], os.fstat(file.fileno()).st_size)
print(os.stat(sys.argv[1] + "/file").st_size)
os.unlink(sys.argv[1] + "/file")
sys.exit(4)
"""


@WAYS
def test_a_full_disk(small_disk: str, option: list[str]) -> None:
    plainly, confined = both(
        [], [f"--allow-fs-write={small_disk}/", f"--allow-fs-read={small_disk}/"], option, FILL, small_disk
    )
    assert plainly.code == confined.code == 4
    assert plainly.stdout.startswith("ENOSPC 1048576")
    assert (confined.stdout, confined.stderr) == (plainly.stdout, plainly.stderr)


@WAYS
def test_a_limit_on_the_size_of_files(folder: str, option: list[str]) -> None:
    grants = [f"--allow-fs-write={folder}/", f"--allow-fs-read={folder}/"]
    plainly, confined = both(limit("-f 512"), grants, option, FILL, folder)
    assert plainly.stdout.startswith("EFBIG "), plainly.said
    assert (confined.code, confined.stdout, confined.stderr) == (plainly.code, plainly.stdout, plainly.stderr)


@WAYS
@pytest.mark.parametrize("code", ["print('x' * 100000)", "print(1)", "import os; os.write(1, b'x')"])
def test_a_full_device_as_stdout(option: list[str], code: str) -> None:
    plainly, confined = both(["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh"], [], option, code)
    assert "No space left on device" in plainly.stderr
    assert (confined.code, confined.stdout, confined.stderr) == (plainly.code, plainly.stdout, plainly.stderr)


def test_a_full_device_as_stderr() -> None:
    """Where the line can't be printed, the exit code still tells."""
    full = ["/bin/sh", "-c", 'exec "$@" 2>/dev/full', "sh"]
    plainly, confined = both(full, [], [], "1 / 0")
    assert confined.code == plainly.code
    assert execute([*full, *installed(), "--no-such-option"]).code == 9
    assert execute([*full, *few_descriptors(6)]).code == 125


# Descriptors


@WAYS
def test_a_job_that_takes_all_descriptors(option: list[str]) -> None:
    """They are its own: the supervisor has what it needs."""
    code = """
import errno, os
taken = []
try:
    while True: taken.append(os.dup(0))
except OSError as error:
    print(errno.errorcode[error.errno], len(taken) > 200)
print(os.path.exists("/nowhere"))
try: os.stat("/etc/passwd")
except OSError as error: print(error.errno == errno.EACCES)
os.close(taken.pop())
print(os.open("/dev/null", os.O_RDONLY) > 0)
"""
    _plainly, confined = both(limit("-n 256"), [], option, code)
    assert (confined.code, confined.stderr) == (0, "")
    assert confined.stdout.split("\n")[:2] == ["EMFILE True", "False"]
    assert confined.stdout.split("\n")[2:4] == ["True", "True"]


def few_descriptors(limit: int) -> list[str]:
    """Return the words that start the command without its shell part, which needs more of them than Python."""
    command = installed()
    if len(command) > 1:
        pytest.skip(f"needs the command's file; found {command}")
    words = [tool("prlimit"), f"--nofile={limit}", plain_python(), *command, *ALONE, "--allow-child-process"]
    return [*words, "-c", "print('ran')"]


def test_no_descriptors_for_the_start() -> None:
    ends = [execute(few_descriptors(limit)) for limit in range(5, 14)]
    too_few = [ended for ended in ends if ended.code]
    assert 2 <= len(too_few) < len(ends)
    for ended in too_few:
        assert (ended.code, ended.stdout) == (125, ""), ended.said
        assert ended.stderr.startswith("sandboxed-python: "), ended.said
        assert "Too many open files" in ended.stderr
        assert ended.stderr.count("\n") == 1, ended.said


# Processes


def test_no_processes_for_the_start(needs: Need) -> None:
    needs(root=True)
    user, words = with_room_for(1)
    with census() as counted:
        ended = execute([*words, *ALONE, "-c", "pass"])
        counted.nobody()
    assert (ended.code, ended.stdout) == (125, "")
    assert ended.stderr == (
        "sandboxed-python: the program can't be started: Resource temporarily unavailable: no more processes (ulimit -u)\n"
    )
    assert processes_of(user) == []


def test_a_job_that_takes_all_processes(needs: Need) -> None:
    """It is told so, goes on, gets its answers, and ends with its own code; all that it started ends."""
    needs(root=True)
    user, words = with_room_for(20)
    code = """
import errno, os, sys, time
count = 0
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
        count += 1
except OSError as error:
    print(errno.errorcode[error.errno], 10 < count < 20)
print(os.path.exists("/nowhere"), flush=True)
time.sleep(0.3)  # so long that the supervisor would like to start a process, too
sys.exit(8)
"""
    with census() as counted:
        ended = execute([*words, *ALONE, "--allow-child-process", "-c", code])
        counted.nobody()
    assert (ended.code, ended.stdout, ended.stderr) == (8, "EAGAIN True\nFalse\n", "")
    assert processes_of(user) == []


# Memory


@pytest.mark.slow
@WAYS
def test_a_job_that_takes_all_memory(option: list[str]) -> None:
    code = """
import os
taken, size = [], 1 << 24
while size > 1 << 12:
    try: taken.append(bytearray(size))
    except MemoryError: size //= 2
taken.clear()
print(os.path.exists("/nowhere"))
bytearray(1 << 30)
"""
    plainly, confined = both(limit("-v 400000"), [], option, code)
    assert plainly.stderr.endswith("MemoryError\n"), plainly.said
    assert (confined.code, confined.stdout, confined.stderr) == (plainly.code, "False\n", plainly.stderr)


def test_a_job_that_is_killed_for_its_memory(needs: Need) -> None:
    """As the kernel does when there is none: SIGKILL. The command ends the same way."""
    code = "import os, subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nos.kill(os.getpid(), 9)"
    with census() as counted:
        assert execute(sandboxed("-c", code)).code == -9
        counted.nobody()


# Standard streams


STREAMS = """
import os, sys
open_ones = []
for fd in 0, 1, 2:
    try: open_ones.append(os.fstat(fd).st_rdev)
    except OSError: open_ones.append(None)
with open(sys.argv[1], "w") as file:
    print([stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)], [number is None for number in open_ones], file=file)
print("to stdout")
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


@WAYS
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(folder: str, option: list[str], closed: str) -> None:
    """Nothing of the supervisor's takes their place, and what it would say goes to no file of the program's."""
    before = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh"]
    told, ends = [], []
    for name, ended in zip(("plain", "confined"), _with_file(before, folder, option), strict=True):
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            told.append(file.read())
        ends.append(ended)
    assert told[0] == told[1]
    assert (ends[1].code, ends[1].stdout, ends[1].stderr) == (ends[0].code, ends[0].stdout, ends[0].stderr)


def _with_file(before: Sequence[str], folder: str, option: Sequence[str]) -> Iterator[Finished]:
    yield execute([*before, plain_python(), *option, "-c", STREAMS, f"{folder}/plain"])
    grant = f"--allow-fs-write={folder}/"
    yield execute([*before, *installed(), *ALONE, grant, *option, "-c", STREAMS, f"{folder}/confined"])


@WAYS
def test_gigabytes_go_through(option: list[str]) -> None:
    """All of them, and at the speed of a pipe: nothing of ours stands between."""
    megabytes = 4096 if LONG else 1024
    code = f"import os\nblock = bytes(1 << 20)\nfor _ in range({megabytes}):\n    at = 0\n    while at < 1 << 20: at += os.write(1, block[at:])"
    with started([*installed(), *ALONE, *option, "-c", code]) as program:
        assert program.process.stdout is not None
        count = 0
        while data := program.process.stdout.read(1 << 20):
            count += len(data)
        assert program.process.wait(60) == 0
    assert count == megabytes << 20


@pytest.mark.parametrize("full", [False, True], ids=["before", "full"])
@WAYS
def test_a_reader_that_goes_away(option: list[str], *, full: bool) -> None:
    """Python turns SIGPIPE into an error; a program with the signal's default dies of it, and so does the command.

    The reader goes before the first byte, or when the pipe is full. In between it is chance how much of the last write
    was done, and so whether something is left to be flushed at the end, which turns Python's exit code 1 into 120.
    """
    loop = "import sys; sys.stdin.read()\nwhile True: print('y' * 1000)"
    deadly = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    for code, expected in ((loop, (1, 120)), (deadly + loop, (-13,))):
        ends = []
        for command in ([plain_python()], [*installed(), *ALONE]):
            reading, writing = os.pipe()
            with (
                open(reading, "rb") as reader,
                open(writing, "wb") as writer,
                subprocess.Popen(
                    [*command, *option, "-c", code], stdin=subprocess.PIPE, stdout=writer, stderr=subprocess.PIPE
                ) as process,
            ):
                assert process.stdin is not None
                assert process.stderr is not None
                if full:
                    process.stdin.close()
                    eventually(lambda at=writing: not select.select([], [at], [], 0)[1])
                reader.close()
                process.stdin.close()
                ends.append((process.stderr.read(), process.wait(60)))
        assert ends[1] == ends[0]
        assert ends[1][1] in expected


def test_a_stderr_that_nobody_reads(folder: str) -> None:
    """A pipe that is full doesn't hold the supervisor up: the job's end is told."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    try:
        words = [
            *installed(),
            *ALONE,
            "--allow-child-process",
            "-c",
            "import os; os.path.exists('/nowhere'); os._exit(5)",
        ]
        began = time.monotonic()
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=writing) as process:
            assert process.wait(30) == 5
        assert time.monotonic() - began < 20
    finally:
        os.close(reading)
        os.close(writing)
