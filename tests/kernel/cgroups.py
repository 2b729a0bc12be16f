"""Control groups for tests: a place to make them, where nobody else's are touched.

Runs in: tests only, as root, on a machine whose control groups nobody manages.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sandboxed_python.kernel.cgroup import UnusableError, own_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "group-of-a-test"


class Ground(NamedTuple):
    """Where tests make groups.

    Attributes:
        root: folder of the whole hierarchy.
        controller: one that groups may have.
        home: folder of an empty group whose groups below may have it.
    """

    root: str
    controller: str
    home: str

    def state(self) -> tuple[list[str], str, list[str]]:
        """Return what tests compare: groups below ``root``, what it gives to them, its extended attributes."""
        return folders(self.root), read(self.root, "cgroup.subtree_control"), os.listxattr(self.root)


def read(folder: str, name: str) -> str:
    """Return what is in a file of a group, without white space at its ends."""
    with open(f"{folder}/{name}", encoding="ascii") as file:
        return file.read().strip()


def write(folder: str, name: str, text: str) -> None:
    """Write to a file of a group."""
    with open(f"{folder}/{name}", "w", encoding="ascii") as file:
        file.write(text)


def folders(folder: str) -> list[str]:
    """Return the names of the groups below one."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def group_of(pid: int) -> str:
    """Return the group that a process is in, as /proc has it."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return next(line[3:] for line in file.read().splitlines() if line.startswith("0::"))


@contextlib.contextmanager
def ground(controller: str = "") -> Iterator[Ground]:
    """Prepare a place for the block, one test at a time; skip where there is none.

    Also with ``SANDBOX_MUST_WORK``: which controllers version 1 has taken, is a machine's own choice.

    Args:
        controller: that is needed; by default any.
    """
    needed = f"needs root in the root of a cgroup v2 hierarchy with the controller {controller or 'memory or hugetlb'}"
    if os.geteuid() != 0 or os.path.exists("/run/systemd/system"):
        pytest.skip(f"{needed}; found user {os.geteuid()}, systemd: {os.path.exists('/run/systemd/system')}")
    root = ""
    try:
        root = own_folder()
    except UnusableError as error:
        pytest.skip(f"{needed}; found: {error}")
    found = read(root, "cgroup.controllers").split()
    wanted = next((name for name in (controller, "memory", "hugetlb") if name in found), "")
    if os.path.exists(f"{root}/cgroup.type") or (controller and wanted != controller) or not wanted:
        pytest.skip(f"{needed}; found {root} with {', '.join(found) or 'no controllers'}")
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        was_on = wanted in read(root, "cgroup.subtree_control").split()
        home = f"{root}/{NAME}.{os.getpid()}"
        os.mkdir(home)
        write(root, "cgroup.subtree_control", f"+{wanted}")
        try:
            yield Ground(root, wanted, home)
        finally:
            eventually(lambda: emptied(home))
            if not was_on:
                write(root, "cgroup.subtree_control", f"-{wanted}")
    finally:
        os.close(descriptor)


def emptied(folder: str) -> bool:
    """Kill what is in a group and below, and remove them; tell whether that has been done."""
    try:
        write(folder, "cgroup.kill", "1")
        for name in folders(folder):
            os.rmdir(f"{folder}/{name}")
        os.rmdir(folder)
    except OSError:
        return not os.path.exists(folder)
    return True


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, true
        time.sleep(0.01)
