"""Races: strings, links, folders and descriptors are swapped while calls are being answered.

The swapping is done by processes outside of the sandbox, which are faster than any thread in it, and by a thread that
swaps descriptors. Nothing outside of the grants may be read, written or created.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.broker.harness import LONG, grant, policy, serve, start
from tests.broker.raw import AT_FDCWD, Refused, call, outcome
from tests.support import unchanged

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

SECONDS = 20 if LONG else 3
SECRET = b"the secret of the outside"


def swapping(step: Callable[[int], None]) -> Callable[[], None]:
    """Do a step again and again in another process; return what stops it."""

    def run() -> None:
        number = 0
        while True:
            outcome(partial(step, number))
            number += 1

    child = start(run)

    def stop() -> None:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.pipe)

    return stop


def exchange(one: os.PathLike[str], two: os.PathLike[str]) -> None:
    call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), 2)


class Caller:
    """Makes brokered calls on paths that are being swapped: in memory at ``at``, and below ``inside``."""

    def __init__(self, inside: pathlib.Path, at: int) -> None:
        self.inside = str(inside).encode()
        self.at = at
        self.read: set[bytes] = set()
        self.sizes: set[int] = set()

    def work(self) -> tuple[int, set[bytes], set[int]]:
        """Return how often everything was tried, what was read, which sizes were told."""
        names = ("l", "l2", "d/f", "d2/f", "p/sub/../../f", "q/sub/f")
        places = [self.at, *(self.inside + b"/" + name.encode() for name in names)]
        done = 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for path in places:
                self.on_files(path)
                done += 1
            for folder in (b"/d/", b"/d2/", b"/l/", b"/p/sub/../"):
                self.on_names(self.inside + folder + b"new")
        return done, self.read, self.sizes

    def opened(self, path: Any, flags: int) -> None:
        got = call("openat", AT_FDCWD, path, flags, 0o600)
        if not isinstance(got, Refused):
            if flags & os.O_ACCMODE == os.O_RDONLY:
                self.read.add(os.read(got, 100))
            else:
                os.write(got, b"inside")
            os.close(got)

    def on_files(self, path: Any) -> None:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            self.opened(path, flags)
        buffer = ctypes.create_string_buffer(256)
        if call("newfstatat", AT_FDCWD, path, buffer, 0) == 0:
            self.sizes.add(int.from_bytes(bytes(buffer)[48:56], "little"))
        call("fchmodat", AT_FDCWD, path, 0o600)
        call("utimensat", AT_FDCWD, path, b"\1" + bytes(31), 0)
        call("fchownat", AT_FDCWD, path, 12345, 12345, 0)

    def on_names(self, new: bytes) -> None:
        call("mkdirat", AT_FDCWD, new, 0o700)
        call("unlinkat", AT_FDCWD, new, 0x200)
        self.opened(new, os.O_WRONLY | os.O_CREAT)
        call("linkat", AT_FDCWD, self.at, AT_FDCWD, new + b"2", 0)
        call("renameat2", AT_FDCWD, self.at, AT_FDCWD, new + b"3", 0)
        call("symlinkat", b"x", AT_FDCWD, new + b"4")
        for number in (b"", b"2", b"4"):
            call("unlinkat", AT_FDCWD, new + number, 0)
        call("renameat2", AT_FDCWD, new + b"3", AT_FDCWD, self.inside + b"/f", 0)


def test_paths_links_and_folders(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "in_", tmp_path / "out"
    for folder in (inside, outside):
        (folder / "sub").mkdir(parents=True)
        for name in ("f", "sub/f"):
            (folder / name).write_bytes(b"inside" if folder == inside else SECRET)
    (inside / "l").symlink_to("f")
    (inside / "l2").symlink_to(outside / "f")
    (inside / "d").mkdir()
    (inside / "d" / "f").write_bytes(b"inside")
    (inside / "d2").symlink_to(outside)
    (inside / "p").mkdir()
    (inside / "p" / "sub").mkdir()
    (inside / "p" / "sub" / "f").write_bytes(b"inside")
    shared = mmap.mmap(-1, 4096)
    good, bad = os.fsencode(inside / "f"), os.fsencode(outside / "f")
    assert len(good) == len(bad)
    shared[: len(good)] = good
    at = ctypes.addressof(ctypes.c_char.from_buffer(shared))

    def strings(_number: int) -> None:
        for _ in range(200):
            shared[: len(bad)] = bad
            shared[: len(good)] = good

    def parents(number: int) -> None:
        os.rename(inside / ("p" if number % 2 == 0 else "q"), inside / ("q" if number % 2 == 0 else "p"))

    stops = [
        swapping(strings),
        swapping(lambda _number: exchange(inside / "l", inside / "l2")),
        swapping(lambda _number: exchange(inside / "d", inside / "d2")),
        swapping(parents),
    ]

    tree = grant(inside)
    try:
        with unchanged(outside):
            served = serve(policy(tree, tree), Caller(inside, at).work, timeout=SECONDS + 60)
    finally:
        for stop in stops:
            stop()
    done, read, sizes = served.value
    assert served.errors == []
    assert done > 100 * SECONDS / 3
    assert SECRET not in read
    assert len(SECRET) not in sizes
    assert {b"inside"} <= read  # the calls did work, too
    assert any(path.startswith(str(outside)) for _name, _need, path in served.denied)


def test_descriptors(tmp_path: pathlib.Path) -> None:
    """A thread puts another file in a descriptor's place: fchmod and its like act on what they judged."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for file in (mine, theirs):
        file.write_text("")
        file.chmod(0o644)

    def work() -> int:
        sys.setswitchinterval(1e-6)
        one, two = os.open(mine, os.O_RDONLY), os.open(theirs, os.O_RDONLY)
        target = os.dup(one)
        over = False

        def swap() -> None:
            while not over:
                os.dup2(two, target)
                os.dup2(one, target)

        thread = threading.Thread(target=swap)
        thread.start()
        done = 0
        end = time.monotonic() + SECONDS / 3
        while time.monotonic() < end:
            call("fchmod", target, 0o600)
            call("fsetxattr", target, b"user.x", b"1", 1, 0)
            call("utimensat", target, None, b"\1" + bytes(31), 0)
            done += 1
        over = True
        thread.join()
        return done

    granted = policy(grant(mine, theirs, kind="path"), grant(mine, kind="path"))
    with unchanged(theirs):
        served = serve(granted, work)
    assert served.errors == []
    assert served.value > 10
    assert mine.stat().st_mode & 0o777 == 0o600


def test_killed_in_the_middle(tmp_path: pathlib.Path) -> None:
    """Tasks that die while their calls are being answered: no exception, no descriptor left behind."""
    (tmp_path / "f").write_text("")
    before = len(os.listdir("/proc/self/fd"))

    def work() -> int:
        for number in range(150):
            child = os.fork()
            if not child:
                while True:
                    outcome(lambda: os.close(os.open(tmp_path / "f", os.O_RDONLY)))
                    outcome(lambda: os.stat(tmp_path / "f"))
            time.sleep(number % 7 / 2000)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return 1

    served = serve(policy(grant(tmp_path)), work)
    assert served.errors == []
    assert served.value == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_signals_do_not_end_calls(tmp_path: pathlib.Path) -> None:
    """With WAIT_KILLABLE_RECV a signal doesn't end a call that was taken; one before that gives EINTR, as always."""
    (tmp_path / "f").write_text("")

    def work() -> tuple[int, int]:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        good = bad = 0
        for _ in range(3000):
            got = call("newfstatat", AT_FDCWD, str(tmp_path / "f").encode(), buffer, 0)
            good += got == 0
            bad += got != 0 and got != Refused(4)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return good, bad

    buffer = ctypes.create_string_buffer(256)
    good, bad = serve(policy(grant(tmp_path)), work).value
    assert bad == 0
    assert good > 2000
