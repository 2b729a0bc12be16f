"""Opening through the broker: what may not block it, what Landlock decides, whose terminal, whose descriptors."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.broker import later
from sandboxed_python.kernel.uapi import AT_SYMLINK_FOLLOW
from tests.broker.harness import EVERYTHING, bare, grant, policy, serve
from tests.broker.raw import AT_FDCWD, Refused, call, outcome

if TYPE_CHECKING:
    import pathlib

DENIED = Refused(errno.EACCES)
ALL = policy(EVERYTHING, grant("/"))


@pytest.mark.parametrize(("mine", "theirs"), [(os.O_RDONLY, os.O_WRONLY), (os.O_WRONLY, os.O_RDONLY)])
def test_a_pipe_waits_for_its_other_end(mine: int, theirs: int, tmp_path: pathlib.Path) -> None:
    """The child waits as it would; the broker goes on answering others meanwhile."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def work() -> Any:
        began = time.monotonic()
        other = os.fork()
        if not other:
            for _ in range(50):
                os.stat(tmp_path)
            time.sleep(0.3)
            os.close(os.open(pipe, theirs))
            os._exit(0)
        descriptor = os.open(pipe, mine)
        waited = time.monotonic() - began
        blocking = os.get_blocking(descriptor)
        os.waitpid(other, 0)
        return waited, blocking

    served = serve(ALL, work, timeout=20)
    waited, blocking = served.value
    assert served.errors == []
    assert waited >= 0.3
    assert blocking
    assert threading.active_count() == 1


def test_a_killed_child_leaves_no_thread_behind(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def work() -> Any:
        for _ in range(3):
            other = os.fork()
            if not other:
                os.open(pipe, os.O_RDONLY)
                os._exit(0)
            time.sleep(0.2)
            os.kill(other, 9)
            os.waitpid(other, 0)
        return "done"

    assert serve(ALL, work, timeout=20).value == "done"
    assert len(later._waiting) <= 1  # the last one's is ended by the next that waits
    for _request, path in list(later._waiting.values()):
        later._poke(path)
    for _ in range(100):
        if not later._waiting:
            break
        time.sleep(0.02)
    assert not later._waiting


def test_pipes_without_waiting_and_sockets(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    os.mknod(tmp_path / "socket", 0o140600)

    def work() -> list[Any]:
        found = [
            outcome(lambda: os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)),
            outcome(lambda: os.open(tmp_path / "socket", os.O_RDWR)),
            outcome(lambda: os.open(tmp_path / "socket", os.O_RDWR | os.O_CREAT)),
        ]
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        return [*found, os.read(reading, 1), os.get_blocking(reading)]

    assert serve(ALL, work).value == bare(work)


def test_devices() -> None:
    def work() -> list[Any]:
        found: list[Any] = []
        for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/full"):
            descriptor = os.open(path, os.O_RDWR)
            found.append((path, os.fstat(descriptor).st_rdev, os.get_blocking(descriptor)))
            os.close(descriptor)
        return found

    devices = grant("/dev/null", "/dev/zero", "/dev/urandom", "/dev/full", kind="path")
    assert serve(policy(devices, devices), work).value == bare(work)


def test_the_terminal_is_the_callers(tmp_path: pathlib.Path) -> None:
    """/dev/tty is the terminal of whoever opens it: a caller in another session doesn't get the supervisor's."""

    def work() -> Any:
        os.setsid()
        return outcome(lambda: os.open("/dev/tty", os.O_RDWR))

    assert serve(policy(EVERYTHING, grant("/dev/tty", kind="path")), work).value == Refused(errno.ENXIO)


def test_what_landlock_decides_is_let_through(tmp_path: pathlib.Path) -> None:
    """CONTINUE for it, and only for it; here, where no Landlock is, that is seen by the caller's own side effects."""
    (tmp_path / "f").write_text("x")
    asked: list[str] = []

    def reads(path: str) -> bool:
        asked.append(path)
        return path.startswith(str(tmp_path))

    def work() -> list[Any]:
        return [
            outcome(lambda: os.read(os.open(tmp_path / "f", os.O_RDONLY), 5)),
            outcome(lambda: os.open(tmp_path / "f", os.O_RDWR)),
            outcome(lambda: os.open("/etc/passwd", os.O_RDONLY)),
            call("open", str(tmp_path / "f").encode(), os.O_PATH, 0),
        ]

    got = serve(policy(), work, kernel_reads=reads).value
    assert got == [b"x", DENIED, DENIED, DENIED]
    assert asked == [str(tmp_path / "f"), str(tmp_path / "f"), "/etc/passwd"]


def test_o_path_gives_what_can_be_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    (tmp_path / "d").mkdir()

    def work() -> list[Any]:
        def look(name: str, flags: int = 0) -> Any:
            descriptor = outcome(lambda: os.open(tmp_path / name, os.O_PATH | flags))
            return descriptor if isinstance(descriptor, Refused) else os.fstat(descriptor).st_mode & 0o170000

        return [
            look("f"), look("d"), look("d", os.O_DIRECTORY), look("f", os.O_DIRECTORY), look("l"),
            look("l", os.O_NOFOLLOW), look("p"), look("missing"), look("f", os.O_TRUNC),
            outcome(lambda: os.open("/etc", os.O_PATH)),
            outcome(lambda: os.open(tmp_path.parent, os.O_PATH)),
        ]  # fmt: skip

    regular, folder = 0o100000, 0o040000
    got = serve(policy(grant(tmp_path)), work).value
    assert got == [
        regular, folder, folder, Refused(errno.ENOTDIR), regular, Refused(errno.ELOOP), DENIED, Refused(errno.ENOENT),
        regular, DENIED, DENIED,
    ]  # fmt: skip
    assert (tmp_path / "f").read_text() == "x"


def test_a_full_table_is_the_callers_own_trouble(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("")

    def work() -> Any:
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        while True:
            got = outcome(lambda: os.open(tmp_path / "f", os.O_RDONLY))
            if isinstance(got, Refused):
                return got

    before = len(os.listdir("/proc/self/fd"))
    assert serve(ALL, work).value == Refused(errno.EMFILE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_our_own_full_table_is_a_denial(tmp_path: pathlib.Path) -> None:
    """Denied and reported, without a leak; afterwards everything works again."""
    (tmp_path / "f").write_text("")
    old = resource.getrlimit(resource.RLIMIT_NOFILE)

    def work() -> Any:
        return [outcome(lambda: os.stat(tmp_path / "f").st_size), outcome(lambda: os.open(tmp_path / "f", os.O_RDONLY))]

    before = len(os.listdir("/proc/self/fd"))
    from sandboxed_python.broker import answer

    one = answer.serve_one

    def scarce(context: Any) -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, old[1]))
        try:
            return one(context)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)

    answer.serve_one = scarce
    try:
        served = serve(ALL, work)
    finally:
        answer.serve_one = one
    assert served.value == [DENIED, DENIED]
    assert len(os.listdir("/proc/self/fd")) == before


def test_nameless_files(tmp_path: pathlib.Path) -> None:
    """O_TMPFILE: judged as a new name in the folder; its file gets a name by linkat(2)."""
    (tmp_path / "d").mkdir()

    def work() -> list[Any]:
        descriptor = os.open(tmp_path / "d", os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(descriptor, b"content")
        link, name = f"/proc/self/fd/{descriptor}".encode(), str(tmp_path / "d" / "named").encode()
        linked = call("linkat", AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW)
        return [
            os.fstat(descriptor).st_mode & 0o777, linked,
            outcome(lambda: os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o640)),
        ]  # fmt: skip

    tree = grant(tmp_path / "d")
    got = serve(policy(tree, tree), work).value
    assert got == [0o640, 0, DENIED]
    assert (tmp_path / "d" / "named").read_text() == "content"


def test_pipes_and_removed_files_by_proc(tmp_path: pathlib.Path) -> None:
    """/dev/fd/N is the caller's own descriptor: what has no path is left to Landlock, the rest is judged by its place."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    inherited = os.open(secret, os.O_RDONLY)

    def work() -> list[Any]:
        reading, writing = os.pipe()
        os.write(writing, b"x")
        again = os.open(f"/dev/fd/{reading}", os.O_RDONLY)
        removed = os.open(tmp_path / "in" / "gone", os.O_CREAT | os.O_RDWR)
        os.write(removed, b"gone")
        os.unlink(tmp_path / "in" / "gone")
        return [
            os.read(again, 1), os.stat(f"/proc/self/fd/{reading}").st_mode & 0o170000,
            os.read(os.open(f"/proc/self/fd/{removed}", os.O_RDONLY), 9),
            outcome(lambda: os.open(f"/dev/fd/{inherited}", os.O_RDONLY)),
            outcome(lambda: os.stat(f"/dev/fd/{inherited}")),
            os.fstat(inherited).st_size,
        ]  # fmt: skip

    (tmp_path / "in").mkdir()
    tree = grant(tmp_path / "in")
    got = serve(policy(tree, tree), work, landlock=True).value
    os.close(inherited)
    assert got == [b"x", 0o010000, b"gone", DENIED, DENIED, 6]


def test_creating_what_a_descriptor_means(tmp_path: pathlib.Path) -> None:
    """``> /dev/stderr``, ``tee /dev/fd/2``: pipes are left to Landlock, files are judged by where they are."""
    (tmp_path / "in").mkdir()
    for name in ("in/there", "secret"):
        (tmp_path / name).write_text("content")
    inherited = os.open(tmp_path / "secret", os.O_RDWR)
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC

    def work() -> list[Any]:
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.symlink("/dev/stderr", tmp_path / "in" / "link")
        for spelled in ("/dev/stderr", "/dev/fd/2", f"/proc/{os.getpid()}/fd/2", tmp_path / "in" / "link"):
            os.write(os.open(spelled, flags, 0o666), b"x")
        granted = os.open(tmp_path / "in" / "there", os.O_RDWR)
        folder = os.open(tmp_path / "in", os.O_RDONLY)
        return [
            os.read(reading, 9),
            outcome(lambda: os.write(os.open(f"/dev/fd/{granted}", flags), b"new")),
            outcome(lambda: os.open(f"/dev/fd/{inherited}", flags)),
            outcome(lambda: os.open(f"/dev/fd/{folder}", flags)),
            outcome(lambda: os.open(f"/dev/fd/{folder}", os.O_CREAT | os.O_RDONLY)),
            outcome(lambda: os.open("/proc/self/root", flags)),
            outcome(lambda: os.open(f"/dev/fd/{granted}", flags | os.O_EXCL)),
            outcome(lambda: os.open(f"/dev/fd/{granted}", flags | os.O_NOFOLLOW)),
        ]

    tree = grant(tmp_path / "in")
    got = serve(policy(tree, tree), work, landlock=True).value
    os.close(inherited)
    is_folder = Refused(errno.EISDIR)
    assert got == [b"xxxx", 3, DENIED, is_folder, is_folder, DENIED, DENIED, DENIED]
    assert (tmp_path / "in" / "there").read_text() == "new"
    assert (tmp_path / "secret").read_text() == "content"


def test_own_proc_under_its_name(tmp_path: pathlib.Path) -> None:
    """A grant of /proc/self is a grant of the caller's own directory, and of nobody else's."""
    parent = os.getpid()

    def work() -> list[Any]:
        return [
            outcome(lambda: os.read(os.open("/proc/self/status", os.O_RDONLY), 5)),
            outcome(lambda: os.read(os.open(f"/proc/{os.getpid()}/status", os.O_RDONLY), 5)),
            outcome(lambda: os.open(f"/proc/{parent}/status", os.O_RDONLY)),
            outcome(lambda: os.readlink("/proc/self") == str(os.getpid())),
            outcome(lambda: os.readlink("/proc/self/cwd") == os.getcwd()),
            outcome(lambda: os.readlink(f"/proc/{parent}/cwd")),
            outcome(lambda: os.open("/proc/self/mem", os.O_RDWR)),
        ]

    got = serve(policy(grant("/proc/self")), work).value
    assert got == [b"Name:", b"Name:", DENIED, True, True, DENIED, DENIED]
    got = serve(policy(grant("/proc")), work).value
    assert got == [b"Name:", b"Name:", DENIED, True, True, DENIED, DENIED]


def test_a_limit_on_file_sizes_holds(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("abc")

    def work() -> list[Any]:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        return [outcome(partial(os.truncate, tmp_path / "f", size)) for size in (10, 11, 2)]

    assert serve(ALL, work).value == [None, Refused(errno.EFBIG), None]
    assert (tmp_path / "f").stat().st_size == 2


def test_creating_through_links(tmp_path: pathlib.Path) -> None:
    (tmp_path / "to-new").symlink_to("new")
    (tmp_path / "loop").symlink_to("loop")

    def work() -> list[Any]:
        def create(name: str, flags: int = 0) -> Any:
            return outcome(lambda: os.close(os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY | flags)))

        return [
            create("to-new", os.O_NOFOLLOW), create("to-new", os.O_EXCL), create("loop"), create("to-new"),
            create("to-new"), create("new/"), create("new/x"), create("."), create("no/x"),
        ]  # fmt: skip

    twin = bare(work)
    os.unlink(tmp_path / "new")
    assert serve(ALL, work).value == twin
    assert (tmp_path / "new").exists()
