"""The limit on memory, held by the kernel as well: a control group of the job's own, where one can be made.

Runs in: supervisor, and in its guard. Loaded only with ``--limit-memory``. Source:
Documentation/admin-guide/cgroup-v2.rst.

What is watched can be outrun for a moment; what the kernel counts can't. It counts more: files in memory, buffers, its
own tables. What files have in the page cache is counted, too, but given up before anything is killed.
"""

from __future__ import annotations

from sandboxed_python.kernel.cgroup import Group, UnusableError, check, own_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxed_python.plan.model import Plan

CONTROLLER = "memory"


def find() -> tuple[str, str]:
    """Return the folder below which a job's group can be made, or "", and why it can't. Nothing is changed."""
    try:
        folder = own_folder()
        check(folder, CONTROLLER)
    except UnusableError as error:
        return "", str(error)
    return folder, ""


def make(plan: Plan) -> MemoryGroup | None:
    """Make the group of a plan's job, or None: its memory is watched in any case."""
    limit = plan.policy.limits.memory
    if limit is None or not plan.cgroup:
        return None
    try:
        return MemoryGroup(plan.cgroup, limit)
    except (UnusableError, OSError):
        return None


def settings(limit: int) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is written to the group's files, and to those that a kernel may not have.

    With ``memory.oom.group`` the whole job is killed at once.
    """
    return {"memory.max": str(limit), "memory.oom.group": "1"}, {"memory.swap.max": "0"}


class MemoryGroup(Group):
    """A job's group.

    Attributes:
        limit: bytes.
    """

    def __init__(self, home: str, limit: int) -> None:
        """Make it. When that fails, everything is as before.

        Args:
            home: the folder below which it will be.
            limit: bytes that the job may have.

        Raises:
            UnusableError: there can be none.
            OSError: the kernel refused.
        """
        self.limit = limit
        super().__init__(home, CONTROLLER, *settings(limit))

    @property
    def overrun(self) -> bool:
        """Tell whether the job wanted more than its limit and nothing could be given up for it.

        Not whether something of it was killed: that is counted, too, where a group around it has reached its own limit.
        """
        return (self.number("memory.events", "oom") or 0) > 0

    @property
    def used(self) -> int:
        """Bytes that an overrun job had: no less than its limit."""
        return max(self.number("memory.peak") or 0, self.limit)  # Linux 5.19

    def data(self) -> dict[str, Any]:
        """Return it for the result."""
        return {
            "folder": self.folder,
            "memory_max": self.number("memory.max"),
            "memory_peak": self.number("memory.peak"),
            "overruns": self.number("memory.events", "oom"),
        }
