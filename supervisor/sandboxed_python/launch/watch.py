"""Watching what a job uses: its limits, its result, its progress.

Runs in: supervisor. Loaded only when one of them is asked for. The supervisor's loop asks how long it may wait; a look
is taken when it is due. How soon the next one is due depends on how much the job could use until then, and on whether
it does anything at all.
"""

from __future__ import annotations

import os
import time

from sandboxed_python.errors import LaunchError
from sandboxed_python.frozen import Frozen
from sandboxed_python.kernel import process, tree
from sandboxed_python.launch.account import Used
from sandboxed_python.launch.weigh import Weight
from sandboxed_python.policy.limits import GRACE, LIMITS
from sandboxed_python.policy.units import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any

    from sandboxed_python.broker.serve import Broker
    from sandboxed_python.launch.output import Relay
    from sandboxed_python.launch.progress import Progress
    from sandboxed_python.launch.session import Session
    from sandboxed_python.plan.model import Plan
    from sandboxed_python.record.denials import Denials
else:
    import _signal  # the signal module on top of it imports enum

# Seconds between two looks: at most; at least; after a new process; at most where new processes aren't notified.
_OFTEN, _SOONEST, _SETTLED, _COUNT = 0.25, 0.002, 0.05, 0.05
# A look may cost such a part of one processor; and while the job does nothing, with what it costs to wake up for it (in
# seconds): so that nobody pays for watching a job that waits.
_SHARE, _CALM, _WAKE = 0.05, 0.0007, 0.00005
# Bytes per second that one thread can fill, and a bit: what is above a limit at the end is what was filled meanwhile.
_RATE = 4e9
_FIRST = 0.01  # seconds until the first look

FLAG = {field: flag for field, flag, *_ in LIMITS}
KIND = {field: kind for field, _flag, kind, *_ in LIMITS}
TOOK = {
    "memory": "its processes held {} of memory together",
    "cpu": "it used {} of processor time",
    "time": "it ran for {}",
    "processes": "it wanted to have {} processes at once",
    "output": "it wrote more than {} to stdout and stderr",
}


class Ending(Frozen):
    """Why the supervisor ended a job.

    Attributes:
        field: of ``Limits``.
        allowed: its value.
        used: what was seen when it was noticed, in the same unit.
    """

    field: str
    allowed: float
    used: float

    @property
    def text(self) -> str:
        """Say it in one line."""
        kind = KIND[self.field]
        allowed = f"{FLAG[self.field]}={words(kind, self.allowed)}"
        return f"the job was ended: {TOOK[self.field].format(words(kind, self.used))}; the limit is {allowed}"

    @property
    def data(self) -> dict[str, Any]:
        """Return it for the result."""
        return {"flag": FLAG[self.field], "allowed": self.allowed, "used": self.used}


class Watch:
    """Looks at one job, and ends it at its limits.

    Attributes:
        session: the job.
        ending: why it was ended, or None.
        processes: how many it has; peak_processes: had at once.
        denials: counts them, or None.
        held: what the job's control group says at the end, or None.
        progress: the line to draw, or None.
        relay: copies the output, or None.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        *,
        record: bool = False,
        denials: Denials | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Begin.

        Args:
            session: the job, just started.
            plan: of the job.
            record: a result is wanted.
            denials: see above.
            progress: see above.

        Raises:
            LaunchError: /proc doesn't show the job, or there can't be a thread that copies its output.
        """
        self.session = session
        self._group = session.group
        self.held: dict[str, Any] | None = None
        self.denials = denials
        self.progress = progress
        self.relay: Relay | None = session.relay
        self.limits = limits = plan.policy.limits
        self.ending: Ending | None = None
        self.processes = self.peak_processes = 1
        self.began = time.monotonic()
        self._alone = not plan.policy.granted("child")
        self._deadline = self.began + limits.time if limits.time is not None else None
        self._kill_at: float | None = None
        self._used = Used()
        self._processors = len(os.sched_getaffinity(0))
        self._record = record or progress is not None
        self._weight = Weight(limits.memory, always=self._record)
        self._counts = not self._alone and limits.processes is not None
        self._told = bool(plan.notify_parts)  # of new processes
        self._looks = self._record or self._counts or limits.memory is not None or limits.cpu is not None
        if self._looks and not tree.numbers_agree():
            message = "limits, --result and --progress need a /proc that shows this process"
            raise LaunchError(message)
        self._due = self.began + _FIRST if self._looks else float("inf")
        self._forks = 0  # since the last count
        self._thread_time = 0.0  # of this thread, at the beginning of a look
        self._over = False
        self._calm = 0.0
        self._ours: dict[tuple[int, int], bool] = {}
        if self.relay is not None:
            try:
                self.relay.copy(self._wake)
            except RuntimeError as error:
                message = f"--limit-output: {error} (in another sandbox that takes --allow-worker there)"
                raise LaunchError(message) from error

    def join(self, broker: Broker) -> None:
        """Have the broker count denials and ask about new processes."""
        if self.denials is not None:
            broker.context.on_denied += (self.denials.seen,)
        if self._counts:
            broker.count_forks(self._may_fork)

    def _may_fork(self) -> bool:
        """Tell whether the job may have one process more; if not, it is ended at the next look, which is due then.

        Between two counts every new process is counted as one that stays. What was let through a moment before a count
        may not be there yet: the next look sees it.
        """
        most = self.limits.processes or 0
        self._forks += 1
        if self.processes + self._forks > most:
            self._count()
            self._forks = 1
        self._due = min(self._due, time.monotonic() + _SETTLED)
        if self.processes < most:
            return True
        self._over = True
        return False

    def wait(self, timeout: int) -> int:
        """Wait as ``Poller.wait`` does, and take the looks that are due before and meanwhile."""
        poller = self.session.poller
        while True:
            wait = self._look_if_due(timeout)
            ready = poller.wait(wait)
            if ready or wait == timeout:
                return ready
            if timeout > 0:
                timeout -= wait

    def _look_if_due(self, timeout: int) -> int:
        """Take a look if one is due; return the milliseconds until the next, ``timeout`` at most."""
        now = time.monotonic()
        due = self._next_due()
        if now >= due:
            self._look(now)
            now = time.monotonic()
            due = self._next_due()
        if due == float("inf"):
            return timeout
        wait = max(int((due - now) * 1000) + 1, 1)
        return wait if timeout < 0 else min(wait, timeout)

    def _next_due(self) -> float:
        if self._kill_at is not None:
            return self._kill_at
        if self.ending is not None:
            return float("inf")
        if self._over or (self.relay is not None and self.relay.exceeded):
            return 0.0
        if self._deadline is not None:
            return min(self._due, self._deadline)
        return self._due

    def _wake(self) -> None:
        """Have a look taken at once, from another thread: the loop sees a signal that changes nothing."""
        os.kill(os.getpid(), _signal.SIGCHLD)

    def _look(self, now: float) -> None:
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._kill()
        if self.ending is not None:
            return
        if self._deadline is not None and now >= self._deadline:
            self._end("time", now - self.began)
        elif self._over:
            self._end("processes", self.processes + 1)
        elif self.relay is not None and self.relay.exceeded:
            self._end("output", self.limits.output or 0)
        elif self._looks:
            self._take_census(now)

    def _count(self) -> list[int]:
        """Count the job's processes, but not many more than are allowed; return them."""
        most = self.limits.processes or 1 << 30
        pids = [self.session.pid] if self._alone else tree.with_descendants(self._first(most), most)
        self.processes = len(pids)
        self.peak_processes = max(self.peak_processes, self.processes)
        self._forks = 0
        return pids

    def _take_census(self, now: float) -> None:
        limits = self.limits
        self._thread_time = time.thread_time()
        pids = self._count()
        if limits.processes is not None and self.processes > limits.processes:
            self._end("processes", self.processes)
            return
        found = [one for pid in pids if (one := tree.read(pid)) is not None]
        before = self._used.ticks
        self._used.add(found)
        busy = self._used.ticks != before
        self._weight.look(found, now, busy=busy)
        if limits.memory is not None and self._weight.bound > limits.memory:
            self._end("memory", self._weight.bound)
        elif self._group is not None and self._group.overrun:
            self._end("memory", self._group.used)
        elif limits.cpu is not None and self._used.seconds > limits.cpu:
            self._end("cpu", self._used.seconds)
        else:
            self._plan_next(busy=busy)
        if self.progress is not None and now - self.began > _OFTEN:
            self.progress.draw(self._line(now))

    def _plan_next(self, *, busy: bool) -> None:
        limits = self.limits
        wait = _OFTEN if self._record or limits.memory is not None else 4 * _OFTEN
        if limits.memory is not None:
            wait = min(wait, max((limits.memory - max(self._weight.bound, self._weight.worst)) / _RATE, _SOONEST))
        if limits.cpu is not None:
            wait = min(wait, max((limits.cpu - self._used.seconds) / self._processors, 5 * _SOONEST))
        if self._counts and not self._told:
            wait = min(wait, _COUNT)
        cost = time.thread_time() - self._thread_time - self._weight.cost
        self._calm = 0.0 if busy else min(max(2 * self._calm, _SOONEST), (max(cost, 0.0) + _WAKE) / _CALM)
        self._due = time.monotonic() + max(wait, self._calm, cost / _SHARE)

    def _first(self, most: int) -> list[int]:
        """Return this process's children that are of the job, but not many more than ``most``: the program, orphans.

        What has ended and this process hasn't waited for yet is none.
        """
        found = [self.session.pid]
        own = -1
        for pid in process.children():
            if pid != self.session.pid and (one := tree.read(pid)) is not None and not one.ended:
                key = pid, one.began
                if key not in self._ours:
                    own = process.count_filters(self.session.supervisor) if own < 0 else own
                    self._ours[key] = process.count_filters(pid) > own
                if self._ours[key]:
                    found.append(pid)
            if len(found) > most:
                break
        return found

    def _end(self, field: str, used: float) -> None:
        self.ending = Ending(field=field, allowed=getattr(self.limits, field), used=used)
        if field in ("time", "cpu"):
            grace = GRACE if self.limits.grace is None else self.limits.grace
            self._kill_at = time.monotonic() + grace
            # It ends a stopped job only when that goes on (as timeout(1) does).
            os.kill(self.session.pid, _signal.SIGTERM)
            os.kill(self.session.pid, _signal.SIGCONT)
        else:
            self._kill()

    def _kill(self) -> None:
        """End the whole job at once where a domain holds it together, else its first process, and the loop the rest."""
        if self._group is not None:
            self._group.kill()
        if not self.session.guard.end_all():
            os.kill(self.session.pid, _signal.SIGKILL)

    def _line(self, now: float) -> str:
        parts = [
            f"{_clock(now - self.began)}",
            f"memory {words('size', self._weight.bound)}",
            f"processor time {self._used.seconds:.1f}s",
            f"processes {self.processes}",
        ]
        if self.denials is not None:
            parts.append(f"denials {self.denials.total}")
        return "   ".join(parts)

    def pause(self) -> None:
        """Leave the terminal to others while this process is stopped."""
        if self.progress is not None:
            self.progress.hide()

    def close(self) -> None:
        """Stop when the job has ended and nothing of it is left: pass on its last output, and clear the line.

        What the kernel has killed for its memory has ended by itself: only now it is known why.
        """
        if self._group is not None:
            self.held = self._group.data()
            if self.ending is None and self._group.overrun:
                self.ending = Ending(field="memory", allowed=self._group.limit, used=self._group.used)
        if self.relay is not None:
            self.relay.finish(self.session.signals)
        self.pause()

    def usage(self) -> dict[str, Any]:
        """Return what the job has used, when nothing of it is left, for the result."""
        user, system, largest = self._used.at_last()
        io = self._used.io()
        return {
            "wall_seconds": round(time.monotonic() - self.began, 3),
            "cpu_user_seconds": round(user, 3),
            "cpu_system_seconds": round(system, 3),
            "cpu_seconds": round(max(user + system, self._used.seconds), 3),
            "memory_peak_bytes": max(self._weight.peak, largest),
            "processes_peak": self.peak_processes,
            "io": io,
        }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
