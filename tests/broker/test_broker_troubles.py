"""What goes wrong in the supervisor itself: every call is answered all the same, and denied; nothing leaks or ends."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import pathlib
import resource
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.broker import answer, calls_read
from sandboxed_python.broker.answer import MODULES
from tests.broker.harness import EVERYTHING, PATH_CALLS, grant, policy, serve
from tests.broker.raw import NUMBERS, Refused, call, outcome
from tests.launch.plain import started
from tests.support import clean_environment, execute, installed

if TYPE_CHECKING:
    from sandboxed_python.broker.request import Answer, Request
    from tests.support import Need

DENIED = Refused(errno.EACCES)
ALL = policy(EVERYTHING, grant("/"))
CALLS = (*PATH_CALLS, *MODULES["calls_socket"])
SAID = 5  # lines


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# In the broker


def everything(folder: pathlib.Path) -> list[Any]:
    """Use each way that an answer takes to descriptors: straight paths, links, magic links, new names, pairs."""
    (link, new, pipe) = (folder / "link", folder / "new", folder / "pipe")
    pair = os.pipe()
    return [
        outcome(work)
        for work in (
            lambda: os.stat(folder / "f").st_size,
            lambda: os.stat(link).st_size,
            lambda: os.stat(folder / "d" / ".." / "link").st_size,
            lambda: os.readlink("/proc/self/cwd"),
            lambda: os.close(os.open(f"/dev/fd/{pair[1]}", os.O_WRONLY | os.O_CREAT)),
            lambda: os.close(os.open(new, os.O_WRONLY | os.O_CREAT)),
            lambda: os.close(os.open(link, os.O_WRONLY | os.O_CREAT)),
            lambda: os.close(os.open(folder, os.O_WRONLY | os.O_TMPFILE)),
            lambda: os.close(os.open(folder / "f", os.O_PATH)),
            lambda: os.close(os.open(pipe, os.O_RDWR)),
            lambda: os.rename(new, folder / "d" / "moved"),
            lambda: os.rename(folder / "d" / "moved", new),
            lambda: os.link(folder / "f", folder / "again"),
            lambda: os.unlink(folder / "again"),
            lambda: os.mkdir(folder / "made"),
            lambda: os.rmdir(folder / "made"),
            lambda: os.truncate(folder / "f", 1),
            lambda: os.statvfs(folder).f_namemax,
            lambda: socket.socket(socket.AF_UNIX).bind(str(folder / "socket")),
            lambda: socket.socket(socket.AF_UNIX).connect(str(folder / "socket")),
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(str(folder / "datagrams")),
            lambda: os.unlink(folder / "socket"),
        )
    ]


def prepare(folder: pathlib.Path) -> None:
    (folder / "f").write_text("x")
    (folder / "link").symlink_to("f")
    (folder / "d").mkdir()
    os.mkfifo(folder / "pipe")


@pytest.mark.parametrize("free", range(9))
def test_a_full_table_of_descriptors(free: int, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    """With so many free descriptors, each call is answered as it should be or denied, and all of them are free again."""
    prepare(tmp_path)
    before = descriptors()
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "datagrams"))
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    one = answer.serve_one

    def scarce(context: Any) -> bool:
        taken = {int(name) for name in os.listdir("/proc/self/fd")}
        limit = next(number for number in range(1 << 10) if len(set(range(number)) - taken) == free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, old[1]))
        try:
            return one(context)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)

    monkeypatch.setattr(answer, "serve_one", scarce)
    served = serve(ALL, partial(everything, tmp_path), names=CALLS, timeout=20, landlock=True)
    receiver.close()
    deadline = time.monotonic() + 5  # threads that close
    while descriptors() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert descriptors() == before
    refused = [one for one in served.value if isinstance(one, Refused)]
    assert {one.number for one in refused} <= {errno.EACCES, errno.ENOENT, errno.EISCONN, errno.ECONNREFUSED}, refused
    assert bool(served.errors) == (DENIED in refused)
    assert all(f"Errno {errno.EMFILE}" in told for told in served.errors), served.errors
    if free == 0:
        assert served.value[:4] == [DENIED] * 4
    if free == 8:
        assert refused == [Refused(errno.ECONNREFUSED)]  # the server is gone


def test_unreadable_arguments(tmp_path: pathlib.Path) -> None:
    """Addresses that nobody may read: EFAULT as from the kernel, and no trouble of ours."""
    (tmp_path / "f").write_text("x")

    def work() -> list[Any]:
        page = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(page))
        libc = ctypes.CDLL(None)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert libc.mprotect(start + mmap.PAGESIZE, mmap.PAGESIZE, 0) == 0
        page[mmap.PAGESIZE - 4 : mmap.PAGESIZE] = b"/tmp"  # its end is unreadable
        bad = (1, start + mmap.PAGESIZE, start + mmap.PAGESIZE - 4, 1 << 47, (1 << 64) - 4096)
        names = ("newfstatat", "faccessat", "readlinkat", "mkdirat", "unlinkat", "openat", "fchmodat")
        got = {
            (name, call(name, -100, address, 0o100 if name == "openat" else 0, 9 * (name == "readlinkat")))
            for address in bad
            for name in names
        }
        kept = os.stat(tmp_path / "f").st_size
        return [{one for one in got if one[1] != Refused(errno.EFAULT)}, kept]

    served = serve(ALL, work)
    assert served.value == [set(), 1]
    assert served.errors == []


def test_memory_that_is_closed(tmp_path: pathlib.Path) -> None:
    if not os.geteuid():
        return  # root may look into every process that has no more capabilities
    (tmp_path / "f").write_text("x")

    def work() -> list[Any]:
        libc = ctypes.CDLL(None)
        before = os.stat(tmp_path / "f").st_size
        assert libc.prctl(4, 0) == 0  # PR_SET_DUMPABLE
        return [before, outcome(lambda: os.stat(tmp_path / "f").st_size)]

    assert serve(ALL, work).value == [1, DENIED]


def test_a_caller_that_is_killed_while_it_waits(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    """Before the work and before the answer: nothing is done in its name any more, and the others are served."""
    (tmp_path / "f").write_text("x")
    original = answer.load

    def load(names: Any) -> Any:
        found = original(names)
        for name in ("mkdir", "mkdirat", "openat", "stat", "newfstatat"):
            number = NUMBERS.get(name)
            if number in found:
                found[number] = (name, partial(killing, found[number][1]))
        return found

    def killing(handler: Any, request: Request) -> Answer:
        if request.task == request.context.child:
            return handler(request)  # type: ignore[no-any-return]
        if request.name == "openat":  # the descriptor is there, and nobody to take it
            given: Answer = handler(request)
            kill(request.task)
            return given
        kill(request.task)
        return handler(request)  # type: ignore[no-any-return]

    def kill(task: int) -> None:
        os.kill(task, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):  # waited for already
            while b") Z " not in pathlib.Path(f"/proc/{task}/stat").read_bytes():
                time.sleep(0.001)

    def work() -> list[Any]:
        ended = []
        for act in (
            lambda: os.mkdir(tmp_path / "made"),
            lambda: os.open(tmp_path / "f", os.O_RDONLY),
            lambda: os.stat(tmp_path / "f"),
        ):
            pid = os.fork()
            if not pid:
                act()
                os._exit(0)
            ended.append(os.waitpid(pid, 0)[1])
        return [ended, os.stat(tmp_path / "f").st_size, outcome(lambda: os.mkdir(tmp_path / "own"))]

    monkeypatch.setattr(answer, "load", load)
    before = descriptors()
    served = serve(ALL, work)
    assert served.value == [[signal.SIGKILL] * 3, 1, None]
    assert sorted(os.listdir(tmp_path)) == ["f", "own"]
    assert served.errors == []
    assert descriptors() == before


def test_an_answer_that_can_t_be_delivered(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    (tmp_path / "f").write_text("x")

    def fail(*_arguments: object) -> None:
        message = "no delivery"
        raise RuntimeError(message)

    monkeypatch.setattr(answer, "hand_over", fail)
    served = serve(ALL, lambda: [outcome(lambda: os.open(tmp_path / "f", 0)), os.stat(tmp_path / "f").st_size])
    assert served.value == [DENIED, 1]
    assert len(served.errors) == 1


def test_a_failing_answer_is_a_denial(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    (tmp_path / "f").write_text("x")
    before = descriptors()
    for error in (RuntimeError("x"), MemoryError(), RecursionError(), KeyError(1), OSError(0, ""), OSError("no errno")):

        def fail(_request: Request, error: Exception = error) -> Answer:
            raise error

        monkeypatch.setitem(calls_read.HANDLERS, "newfstatat", fail)
        monkeypatch.setitem(calls_read.HANDLERS, "stat", fail)
        served = serve(ALL, lambda: [outcome(lambda: os.stat(tmp_path / "f")), os.path.islink(tmp_path / "f")])
        assert served.value[0] == DENIED
        assert len(served.errors) >= 1
    assert descriptors() == before


# In the command


DRIVER = """
import sys
baseline = frozenset(sys.modules)
from sandboxed_python.broker import calls_read
def broken(request):
    raise RuntimeError("broken\\n\\x1b[31mon purpose" + "x" * 500)
calls_read.HANDLERS["statfs"] = broken
from sandboxed_python.cli.main import main
main(baseline)
"""
PROGRAM = """
import os, sys
failed = 0
for _ in range(int(sys.argv[1])):
    try:
        os.statvfs(sys.argv[2])
    except PermissionError:
        failed += 1
print(failed, os.stat(sys.argv[2]).st_nlink > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, SAID, 4 * SAID])
def test_troubles_are_told_of_in_a_line_each(needs: Need, tmp_path: pathlib.Path, times: int) -> None:
    """The first few; then they are counted. The program goes on."""
    needs()
    words = ["--permission", f"--allow-fs-read={tmp_path}/", "-c", PROGRAM, str(times), str(tmp_path)]
    python = os.path.join(os.path.dirname(installed()[0]), "python3")
    ended = execute([python if os.path.exists(python) else sys.executable, "-c", DRIVER, *words])
    assert (ended.code, ended.stdout) == (0, f"{times} True\n"), ended.said
    lines = ended.stderr.splitlines()
    first = "sandboxed-python: statfs was denied, since the supervisor failed to answer it: RuntimeError('broken"
    count = f"sandboxed-python: {times} calls in all were denied, since the supervisor failed to answer them"
    assert [line for line in lines if not line.startswith(first)] == ([count] if times > SAID else []), ended.said
    assert len(lines) == min(times, SAID) + (times > SAID), ended.said
    assert ended.stderr.isascii()
    assert "\x1b" not in ended.stderr
    assert max(map(len, lines)) < 500
    words[words.index("-c") + 1] = PROGRAM.replace("statvfs", "stat")
    twin = execute([python if os.path.exists(python) else sys.executable, "-c", DRIVER, *words])
    assert (twin.stdout, twin.stderr) == ("0 True\n", ""), twin.said


def test_the_command_with_a_full_table(needs: Need, tmp_path: pathlib.Path) -> None:
    """The supervisor's limit is lowered while it runs: denials that it tells of; raised again, it serves again."""
    needs()
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").write_text("x")
    code = (
        "import os, sys\n"
        "for _ in range(3):\n"
        "    try: print(os.stat(sys.argv[1] + '/link').st_size, flush=True)\n"
        "    except OSError as error: print(error.errno, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    words = [*installed(), "--permission", f"--allow-fs-read={tmp_path}", "-c", code, str(tmp_path)]
    with started(words, stdin=-1, env=clean_environment()) as program:
        assert program.process.stdin is not None
        assert program.line() == "1"
        old = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        for limit, expected in (((3, old[1]), str(errno.EACCES)), (old, "1")):
            resource.prlimit(program.pid, resource.RLIMIT_NOFILE, limit)
            program.process.stdin.write(b"\n")
            program.process.stdin.flush()
            assert program.line() == expected
        program.process.stdin.write(b"\n")
        ended = program.end()
    assert ended.code == 0
    told = ended.stderr.splitlines()
    assert told, "nothing was said"
    end = " was denied, since the supervisor failed to answer it: Too many open files"
    assert [line for line in told[:SAID] if not line.endswith(end)] == []
