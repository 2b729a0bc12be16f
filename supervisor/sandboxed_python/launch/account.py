"""What a job has used: adding up processes that come and go.

Runs in: supervisor. Loaded only with ``launch.watch``. Sources: getrusage(2), proc_pid_stat(5), proc_pid_io(5).
"""

from __future__ import annotations

import resource

from sandboxed_python.kernel import tree


class Used:
    """Processor time and bytes of a tree whose processes come and go.

    Attributes:
        ticks: of processor time.
    """

    def __init__(self) -> None:
        self.ticks = 0
        # This process may have had children before it became this command.
        self._before = _rusage()
        self._io_before = tree.others_io()
        self._seen: dict[tuple[int, int], int] = {}
        self._gone = 0

    @property
    def seconds(self) -> float:
        """Processor time in seconds."""
        return self.ticks / tree.TICKS

    def add(self, found: list[tree.Process]) -> None:
        """Count what these processes, all that there are now, have used, and what ended ones have.

        The kernel adds an ended process to who waits for it, and orphans to this process; but not one whose parent
        ignores SIGCHLD. So what was last seen of the ended ones is added up besides, and the larger sum is right.
        """
        seen = {(one.pid, one.began): one.own for one in found}
        for key, own in self._seen.items():
            if key not in seen:
                self._gone += own
        self._seen = seen
        own = sum(seen.values())
        user, system, _largest = self.at_last()
        waited = int((user + system) * tree.TICKS) + sum([one.waited for one in found])
        self.ticks = max(self.ticks, own + waited, own + self._gone)

    def at_last(self) -> tuple[float, float, int]:
        """Return what the ended processes have used: seconds as user, seconds in the kernel, bytes of the largest."""
        now, before = _rusage(), self._before
        largest = now.ru_maxrss if now.ru_maxrss > before.ru_maxrss else 0
        return now.ru_utime - before.ru_utime, now.ru_stime - before.ru_stime, largest << 10

    def io(self) -> dict[str, int] | None:
        """Return the bytes that the ended processes have read and written, or None."""
        now, before = tree.others_io(), self._io_before
        if now is None or before is None:
            return None
        names = ("read_bytes", "written_bytes", "storage_read_bytes", "storage_written_bytes")
        return {name: new - old for name, new, old in zip(names, now, before, strict=True)}


def _rusage() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)
