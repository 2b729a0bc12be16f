"""The guard: whatever becomes of the supervisor, nothing of the job outlives it.

Runs in: supervisor, and in a process of its own that it forks.

A parent-death signal reaches the child alone, and is lost when the child changes its ids. So where a job may have
descendants or other ids, supervisor and job share an outer Landlock domain that scopes signals and nothing else. In it,
``kill(-1, SIGKILL)`` means the processes of this job and no others (landlock(7), LANDLOCK_SCOPE_SIGNAL), and the kernel
sends it to all of them at once: a process that is just forking is killed before its child is there (fork(2) looks for a
deadly signal under the same lock). The job itself is in a domain further in and can't signal its guard.

The guard waits for the end of a pipe that only the supervisor holds open.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import KernelError, LaunchError
from sandboxed_python.kernel import landlock, process
from sandboxed_python.kernel.calls import close_range, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from sandboxed_python.launch.cgroup import MemoryGroup
    from sandboxed_python.plan.model import Plan
else:
    import _signal  # the signal module on top of it imports enum

TITLE = "sandbox-guard"
SCOPE_SIGNAL = landlock.Ruleset(scoped=next(bit for name, bit, *_ in landlock.SCOPES if name == "SIGNAL"))


class Guard:
    """The supervisor's side.

    Attributes:
        scoped: this process is in the outer domain, so that ``end_all`` can be used.
        pid: of the guard; 0 while there is none.
    """

    def __init__(self, plan: Plan, group: MemoryGroup | None = None) -> None:
        """Enter the outer domain if the job of this plan may need it, and start the guard if it surely does.

        In another sandbox, what is around it sees to the end of all.

        Args:
            plan: of the job.
            group: that the job will be in: the guard removes it. None if there is none.

        Raises:
            LaunchError: the kernel refused.
            OSError: no process or descriptor left.
        """
        self.scoped = False
        self.pid = 0
        self._alive = -1
        self._group = group
        many = plan.policy.granted("child") or group is not None
        if plan.inner or not (many or any(process.get_capabilities())) or landlock.downgrade(SCOPE_SIGNAL, plan.abi)[1]:
            return
        try:
            process.set_no_new_privs()
            packed = landlock.pack_ruleset(SCOPE_SIGNAL, plan.abi)
            ruleset = syscall("landlock_create_ruleset", packed, len(packed), 0)
            syscall("landlock_restrict_self", ruleset, 0)
        except KernelError as error:
            message = f"Landlock: the guard's domain: {error}"
            raise LaunchError(message) from error
        os.close(ruleset)
        self.scoped = signals_stay_inside()
        if many:
            self.start()

    def start(self) -> None:
        """Start the guard if it isn't running.

        Raises:
            OSError: no process or descriptor left.
        """
        if not self.scoped or self.pid:
            return
        waiting, alive = os.pipe()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                stand_guard(waiting, self._group)
        except OSError:
            os.close(alive)
            raise
        finally:
            os.close(waiting)
        self._alive = alive

    def replace(self) -> None:
        """Start another guard in the place of one that somebody has killed.

        Raises:
            OSError: no process or descriptor left.
        """
        os.close(self._alive)
        self.pid, self._alive = 0, -1
        self.start()

    def end_all(self) -> bool:
        """Kill everything in the outer domain but this process: the job, its descendants and the guard.

        Returns:
            False if that is impossible; nothing was killed.
        """
        if not self.scoped:
            return False
        kill_the_domain()
        return True

    @staticmethod
    def reaches(pid: int) -> bool:
        """Tell whether ``end_all`` kills a process, where it is possible: whether it is of this job."""
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True


def signals_stay_inside() -> bool:
    """Tell whether a signal to the process that started this one is refused: else ``kill(-1)`` must never be used."""
    parent = os.getppid()
    if parent == 0:
        return True  # it is outside of this pid namespace, out of every signal's reach
    try:
        os.kill(parent, 0)
    except PermissionError:
        return True
    except ProcessLookupError:  # it has just ended
        return signals_stay_inside()
    return False


def stand_guard(waiting: int, group: MemoryGroup | None = None) -> None:
    """Wait for the supervisor's end, and end what is left of its job. Does not return.

    Args:
        waiting: the reading end of the supervisor's pipe.
        group: the control group that the job is in, or None.
    """
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        os.setsid()  # a signal to the supervisor's group is not for the guard
        os.chdir("/")
        close_range(0, waiting - 1)
        close_range(waiting + 1)
        process.set_title(TITLE)
        while os.read(waiting, 1):
            pass
    finally:
        try:
            kill_the_domain()
            if group is not None:
                group.remove()
        finally:
            os._exit(0)


def kill_the_domain() -> None:
    """Send SIGKILL to every process that this one may signal, but itself. Only ever called in the outer domain."""
    try:
        os.kill(-1, _signal.SIGKILL)
    except OSError:  # there is nobody
        return
