"""Counting from outside what a command leaves behind: processes, zombies, files, groups.

Runs in: tests only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import tempfile
from typing import TYPE_CHECKING

from tests.launch.plain import eventually
from tests.support import NOBODY, USER_COMMAND, installed, reachable, refuse, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = bool(os.environ.get("SANDBOX_LONG"))
PR_SET_CHILD_SUBREAPER = 36
LEFT = "processes are left"


def sandboxed(*words: str) -> list[str]:
    """Return the words of a job that may start children."""
    return [*installed(), "--permission", "--no-warnings", "--allow-child-process", *words]


def times(short: int, long: int) -> int:
    """Return how often something is repeated: in the long form with ``SANDBOX_LONG``."""
    return long if LONG else short


def state(pid: int) -> str:
    """Return the state of a process (proc_pid_stat(5)); "" when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def children(pid: int) -> set[int]:
    """Return the pids of the children of all threads of a process, zombies too."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="utf-8")
                found |= {int(word) for word in text.split()}
    return found


def with_room_for(processes: int) -> tuple[int, list[str]]:
    """Return a user who is nobody else, and the words that start the command as him with so many processes."""
    command = installed(USER_COMMAND) if os.environ.get(USER_COMMAND) else installed()
    if not reachable(NOBODY, command[0]):
        refuse(f"a command that user {NOBODY} can execute ({USER_COMMAND})", command[0])
    user = 50000 + os.getpid() % 9000
    setpriv = [tool("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return user, [*setpriv, tool("prlimit"), f"--nproc={processes}", *command]


def processes_of(user: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                found.append(int(name))
    return found


def guard_of(pid: int) -> int:
    """Return the pid of a supervisor's guard; 0 while there is none."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sandbox-guard\0"):
                return child
    return 0


class Census:
    """While it is taken this process inherits every orphan: whatever a command leaves, dead or alive, comes here."""

    def __init__(self) -> None:
        """Begin: who is here now was here before."""
        self.before = children(os.getpid())

    def left(self) -> list[str]:
        """Return who has come since then: pid, state and arguments."""
        told = []
        for pid in children(os.getpid()) - self.before:
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                told.append(f"{pid} {state(pid)} {words.decode(errors='replace')[:80]}")
        return told

    def nobody(self) -> None:
        """Assert that nobody has come: the command has ended all that it started, and waited for it."""
        assert self.left() == [], LEFT

    def soon_nobody(self) -> None:
        """Assert that whoever comes, now that the command was killed and can't wait for anybody, is dead or dies."""

        def bury() -> bool:
            for pid in children(os.getpid()) - self.before:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            return not self.left()

        eventually(bury, LEFT)


@contextlib.contextmanager
def census() -> Iterator[Census]:
    """Take a census for the block; whoever is left at its end is killed."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    taken = Census()
    try:
        yield taken
    finally:
        while left := children(os.getpid()) - taken.before:  # the children of those come, too
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def files_of_ours() -> set[str]:
    """Return the names in the temporary folders, and of the control groups, that a run could leave behind."""
    folders = {tempfile.gettempdir(), "/tmp", "/dev/shm", "/var/tmp", "/run"}
    found = {f"{folder}/{name}" for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
    found = {name for name in found if "sandbox" in os.path.basename(name)}
    for folder, names, _files in os.walk("/sys/fs/cgroup"):
        found |= {f"{folder}/{name}" for name in names if "sandbox" in name}
    return found
