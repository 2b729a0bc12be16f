"""A program that makes calls on paths, links, folders and descriptors while threads of its own swap them.

Runs in: tests only; in the sandbox, too, and in processes of their own. What is good lies in ``inside``, what is evil in
``outside``; every name is swapped between the two, and nothing else names the evil.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.broker.raw import AT_FDCWD, Refused, call, outcome

if TYPE_CHECKING:
    from collections.abc import Callable

INSIDE = b"inside"
LEAST = 30  # rounds of one kind, on a busy machine


def lay_out(inside: str, outside: str, secret: bytes) -> None:
    """Make what is swapped."""
    for folder in (inside, outside):
        os.makedirs(folder + "/sub")
        for name in ("f", "sub/f"):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(INSIDE if folder == inside else secret)
    os.symlink("f", inside + "/l")
    os.symlink(outside + "/f", inside + "/l2")
    os.symlink(outside, inside + "/d2")
    os.makedirs(inside + "/p/sub")
    os.mkdir(inside + "/d")
    for name in ("d/f", "p/sub/f"):
        with open(f"{inside}/{name}", "wb") as file:
            file.write(INSIDE)


def exchange(one: str, two: str) -> None:
    """Swap two names in one step."""
    call("renameat2", AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), 2)


class Swaps:
    """What is swapped: one step of each.

    Attributes:
        at: address of a path that is ``inside``'s file in one moment and ``outside``'s in the next.
        folder: a descriptor that is ``inside`` in one moment and ``other`` in the next, once ``open`` was called.
        file: likewise for the file ``f`` in them.
    """

    def __init__(self, inside: str, outside: str) -> None:
        self.inside = inside
        self.good, self.bad = os.fsencode(inside + "/f"), os.fsencode(outside + "/f")
        assert len(self.good) == len(self.bad)
        self.memory = mmap.mmap(-1, 4096)
        self.memory[: len(self.good)] = self.good
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.folder = self.file = -1
        self.pairs: list[tuple[int, int, int]] = []

    def open(self, other: str) -> None:
        """Open the descriptors; ``other`` may be read and not written."""
        for name in ("", "/f"):
            good, bad = (os.open(folder + name, os.O_RDONLY) for folder in (self.inside, other))
            self.pairs.append((good, bad, os.dup(good)))
        self.folder, self.file = self.pairs[0][2], self.pairs[1][2]

    def strings(self, number: int = 0) -> None:
        self.memory[: len(self.bad)] = self.bad if number % 2 else self.good

    def links(self, _number: int = 0) -> None:
        exchange(self.inside + "/l", self.inside + "/l2")

    def folders(self, _number: int = 0) -> None:
        exchange(self.inside + "/d", self.inside + "/d2")

    def parents(self, number: int = 0) -> None:
        old, new = ("p", "q") if number % 2 == 0 else ("q", "p")
        os.rename(f"{self.inside}/{old}", f"{self.inside}/{new}")

    def descriptors(self, number: int = 0) -> None:
        for good, bad, target in self.pairs:
            os.dup2(bad if number % 2 else good, target)


# The swaps that lead outside, each with the paths that they make do so.
KINDS = {"strings": (), "links": ("l",), "folders": ("d/f",), "descriptors": ()}


class Caller:
    """Makes brokered calls on what is being swapped, and notes what was read and told.

    Attributes:
        kind: one of ``KINDS``: only what that swap makes lead outside; "" for everything.
        done: how often everything was tried.
        read: contents that were read.
        sizes: sizes of files that were told.
    """

    def __init__(self, swaps: Swaps, seconds: float, kind: str = "") -> None:
        self.swaps = swaps
        self.inside = os.fsencode(swaps.inside)
        self.seconds = seconds
        self.kind = kind
        self.read: set[bytes] = set()
        self.sizes: set[int] = set()
        self.done = 0

    def work(self) -> tuple[int, set[bytes], set[int]]:
        """Make the calls for as long as it was asked for; return done, read and sizes."""
        names = KINDS.get(self.kind, ("l", "l2", "d/f", "d2/f", "p/sub/../../f", "q/sub/f"))
        places: list[Any] = [self.swaps.at] if self.kind in ("", "strings") else []
        places += [self.inside + b"/" + name.encode() for name in names]
        folders = {"folders": (b"/d/",), "": (b"/d/", b"/d2/", b"/l/", b"/p/sub/../")}.get(self.kind, ())
        end = time.monotonic() + self.seconds
        least = LEAST if self.kind else 1
        while time.monotonic() < end or self.done < least:
            for path in places:
                self.on_files(AT_FDCWD, path)
            for folder in folders:
                self.on_names(AT_FDCWD, self.inside + folder + b"new")
            if self.swaps.folder >= 0 and self.kind in ("", "descriptors"):
                self.on_files(self.swaps.folder, b"f")
                self.on_names(self.swaps.folder, b"new")
                self.on_descriptor(self.swaps.file)
            self.done += 1
        return self.done, self.read, self.sizes

    def opened(self, at: int, path: Any, flags: int) -> None:
        got = call("openat", at, path, flags, 0o600)
        if not isinstance(got, Refused):
            if flags & os.O_ACCMODE == os.O_RDONLY:
                self.read.add(os.read(got, 100))
            else:
                os.write(got, INSIDE)
            os.close(got)

    def on_files(self, at: int, path: Any) -> None:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            self.opened(at, path, flags)
        buffer = ctypes.create_string_buffer(256)
        if call("newfstatat", at, path, buffer, 0) == 0:
            self.sizes.add(int.from_bytes(bytes(buffer)[48:56], "little"))
        call("fchmodat", at, path, 0o600)
        call("utimensat", at, path, b"\1" + bytes(31), 0)
        call("fchownat", at, path, 12345, 12345, 0)

    def on_names(self, at: int, new: bytes) -> None:
        call("mkdirat", at, new, 0o700)
        call("unlinkat", at, new, 0x200)
        self.opened(at, new, os.O_WRONLY | os.O_CREAT)
        call("linkat", AT_FDCWD, self.swaps.at, at, new + b"2", 0)
        call("renameat2", AT_FDCWD, self.swaps.at, at, new + b"3", 0)
        call("symlinkat", b"x", at, new + b"4")
        for number in (b"", b"2", b"4"):
            call("unlinkat", at, new + number, 0)
        call("renameat2", at, new + b"3", AT_FDCWD, self.inside + b"/f", 0)

    @staticmethod
    def on_descriptor(file: int) -> None:
        call("fchmod", file, 0o600)
        call("fsetxattr", file, b"user.x", b"1", 1, 0)
        call("utimensat", file, None, b"\1" + bytes(31), 0)


def main(inside: str, outside: str, other: str, seconds: float, kind: str) -> None:
    """Swap in threads and call; print how often it was done, and what was read."""
    sys.setswitchinterval(1e-5)
    swaps = Swaps(inside, outside)
    swaps.open(other)
    over = False

    def again(step: Callable[[int], None]) -> None:
        number = 0
        while not over:
            outcome(partial(step, number))
            number += 1

    every = (swaps.strings, swaps.descriptors, swaps.links, swaps.folders, swaps.parents)
    steps = [step for step in every if kind in ("", step.__name__)]
    threads = [threading.Thread(target=again, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    done, read, sizes = Caller(swaps, seconds, kind).work()
    over = True
    for thread in threads:
        thread.join()
    print({"done": done, "read": sorted(read), "sizes": sorted(sizes)})
