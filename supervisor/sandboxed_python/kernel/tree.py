"""A tree of processes, seen from outside: who is in it, and what it uses.

Runs in: supervisor. Sources: proc_pid_stat(5), proc_tid_children(5), proc_pid_smaps(5), proc_pid_io(5). A process that
ends meanwhile is left out; so is what can't be read.
"""

from __future__ import annotations

import os

TICKS = os.sysconf("SC_CLK_TCK")  # per second
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Process:
    """What proc_pid_stat(5) says of a process.

    Attributes:
        pid: its number.
        ended: it is a zombie.
        began: when it was started, in ticks: tells it from another one that has its number later.
        own: ticks of processor time that it has used.
        waited: ticks that its ended descendants have used, as far as they were waited for.
        resident: bytes.
        faults: pages that it was given without reading from a disk: new ones, and copies of shared ones.
    """

    __slots__ = ("began", "ended", "faults", "own", "pid", "resident", "waited")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        # From field 3 on: minflt is 10, utime is 14, stime 15, cutime 16, cstime 17, starttime 22, rss 24.
        self.pid = pid
        self.ended = fields[0] == b"Z"
        self.faults = int(fields[7])
        self.own = int(fields[11]) + int(fields[12])
        self.waited = int(fields[13]) + int(fields[14])
        self.began = int(fields[19])
        self.resident = int(fields[21]) * PAGE


def read(pid: int) -> Process | None:
    """Return what is known of a process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return Process(pid, file.read(4096).rpartition(b")")[2].split())
    except (OSError, IndexError, ValueError):
        return None


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies too; none where the kernel doesn't list them."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", 0) as file:
                found += [int(child) for child in (file.readall() or b"").split()]
        except OSError:  # a thread that has ended meanwhile
            continue
    return found


def with_descendants(first: Iterable[int], most: int) -> list[int]:
    """Return these processes and what they have started, but not many more than ``most``."""
    found = list(first)
    for pid in found:  # grows meanwhile
        if len(found) > most:
            break
        found += children(pid)
    return found


def anonymous(pid: int) -> int:
    """Return the bytes of a process's own making that are in memory (proc_pid_statm(5)); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", 0) as file:
            _size, resident, mapped = (file.readall() or b"").split()[:3]  # mapped: files and shared memory
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(mapped)) * PAGE


def held(pid: int) -> tuple[int, int] | None:
    """Return the bytes that a process holds in memory and in swap: its share of every page (PSS).

    The kernel walks all its pages for that, and waits while they change. None when it is gone, or closed to us.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", 0) as file:
            lines = (file.readall() or b"").split(b"\n")
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith((b"Pss:", b"SwapPss:"))]
    pss, swap = [int(number) << 10 for number in found] if len(found) == 2 else (0, 0)  # nothing: it is ending
    return pss, swap


def numbers_agree() -> bool:
    """Tell whether /proc numbers processes as this one does: it is mounted, and for this pid namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


# What read_io returns, as proc_pid_io(5) calls it.
IO = ("rchar", "wchar", "read_bytes", "write_bytes")


def others_io() -> list[int] | None:
    """Return what this process's ended children and threads have read and written, in bytes (``IO``).

    That is what the process has on its account without what its own thread has: descendants that were waited for count
    for who waited. None where the kernel keeps no account.
    """
    try:
        own, read = _read_io("/proc/thread-self/io")
        whole, _ = _read_io("/proc/self/io")
    except (OSError, KeyError, ValueError):
        return None
    own[0] += read  # which "whole" has, too
    return [all_ - mine for all_, mine in zip(whole, own, strict=True)]


def _read_io(path: str) -> tuple[list[int], int]:
    """Return what an account says, and how many bytes that were."""
    with open(path, "rb", 0) as file:
        text = file.readall() or b""
    rows = dict([line.split(b": ") for line in text.splitlines()])
    return [int(rows[name.encode()]) for name in IO], len(text)
