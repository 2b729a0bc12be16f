"""The broker: takes notifications from the listener and has each one answered.

Runs in: supervisor.
"""

from __future__ import annotations

import _thread
import errno
import os

from sandboxed_python.broker.answer import MODULES, answer, close, deliver, load
from sandboxed_python.broker.gate import may_map, tell_mapping
from sandboxed_python.broker.identity import at_first
from sandboxed_python.broker.request import CONTINUE, DENIED, Answer, Context, Request, failure, roam, rule_places
from sandboxed_python.kernel import landlock, notify, seccomp, tables
from sandboxed_python.plan.filters import AUDIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Handler, Restrict
    from sandboxed_python.broker.sightings import Sightings
    from sandboxed_python.plan.model import PathRule, Plan


FOLLOW_EVERY = 64
PATIENCE = 0.5  # seconds that the end waits for the last lines
SAID = 5  # troubles that are told of one by one; the others are counted


class Troubles:
    """What should not have happened in the broker, told in one line each on stderr.

    A program that finds a way to cause them must not fill the user's screen, nor keep the supervisor from its work by a
    stderr that nobody reads: a thread of its own writes the lines.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lines: list[bytes] = []
        self._changing = _thread.allocate_lock()
        self._writing = _thread.allocate_lock()

    def tell(self, request: Request, error: Exception) -> None:
        """Tell that a call was denied because its answer failed; for ``Context.on_error``."""
        self.count += 1
        if self.count <= SAID:
            text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ascii(error)
            self._say(f"{request.name or 'a call'} was denied, since the supervisor failed to answer it: {text:.300}")

    def sum_up(self) -> None:
        """Tell at the end how many there were."""
        if self.count > SAID:
            self._say(f"{self.count} calls in all were denied, since the supervisor failed to answer them")
        if self.count and self._writing.acquire(timeout=PATIENCE):
            self._writing.release()

    def _say(self, text: str) -> None:
        with self._changing:
            self._lines.append(f"sandboxed-python: {text}\n".encode("ascii", "backslashreplace"))
            if not self._writing.acquire(blocking=False):
                return  # the thread that is writing will come to it
        try:
            _thread.start_new_thread(self._write, ())
        except RuntimeError:  # no more threads
            self._writing.release()

    def _write(self) -> None:
        while True:
            with self._changing:
                if not self._lines:
                    self._writing.release()
                    return
                line = self._lines.pop(0)
            try:
                os.write(2, line)
            except OSError:
                continue  # nobody listens


class Broker:
    """Answers the seccomp notifications of one tree of confined tasks.

    Law: whatever goes wrong, the answer is a denial.
    """

    def __init__(  # noqa: PLR0913
        self,
        listener: int,
        plan: Plan,
        rules: tuple[PathRule, ...],
        first: int,
        *,
        on_change: Callable[[], None],
        restrict: Restrict,
        sightings: Sightings | None = None,
    ) -> None:
        """Take over the listener.

        Args:
            listener: the notifying filter's descriptor.
            plan: what to enforce.
            rules: those of the plan that Landlock was told of; for the others the answers are given here.
            first: pid of the child, whose first execve is the supervisor's own (the exec way).
            on_change: see ``Context``.
            restrict: see ``Context``.
            sightings: where denials are noted.
        """
        self.plan = plan
        self.sightings = sightings
        self.troubles = Troubles()
        self._served = 0
        self._processor = -1
        self._execs_left = 1 if plan.way == "exec" and not plan.policy.granted("child") else 0
        readable = rule_places(rules, landlock.READ_FILE)
        writable = rule_places(rules, landlock.WRITE_FILE)
        self.context = Context(
            listener=listener,
            policy=plan.policy,
            child=first,
            landlock=plan.abi >= 3,
            kernel_reads=readable,
            kernel_writes=writable,
            plan=plan,
            restrict=restrict,
            # The notified identity calls switch it; audits follow nobody.
            identity="fixed" if plan.policy.mode == "audit" else at_first(),
            on_change=on_change,
            on_denied=(sightings.seen,) if sightings else (),
            on_report=sightings.told if sightings else None,
            on_error=self.troubles.tell,
        )
        self.context.handlers = self._handlers()
        seccomp.set_sync_wake_up(listener)

    def count_forks(self, may_fork: Callable[[], bool]) -> None:
        """Answer the calls that make a process, where they are notified (``plan.forks``).

        Args:
            may_fork: called for each; False refuses it with EAGAIN, as fork(2) does at a limit.
        """
        from sandboxed_python.plan.forks import numbers

        def counting(handler: Handler) -> Handler:
            return lambda request: handler(request) if may_fork() else failure(errno.EAGAIN)

        handlers = self.context.handlers
        for number in numbers(self.plan.machine):
            name, handler = handlers.get(number, ("fork", lambda _request: CONTINUE))
            handlers[number] = (name, counting(handler))

    def serve(self) -> None:
        """Take one notification and answer it."""
        try:
            words = notify.receive(self.context.listener)
        except OSError:
            return  # the last task is gone: poll(2) says so next
        if words is None:
            return
        request = Request(self.context, words[0], words[1], words[3:])
        deliver(request, answer(request, words[2]))
        self._served += 1
        if not self._served % FOLLOW_EVERY:
            self._follow(request.task)

    def _follow(self, task: int) -> None:
        """Go on on the processor that the caller runs on: an answer there takes a tenth of the time.

        The caller waits while we work, so nothing is lost. Where it runs is field 39 of proc_pid_stat(5).
        """
        context = self.context
        try:
            with open(f"/proc/{task}/stat", "rb", 0) as file:
                processor = int(file.read(1024).rpartition(b")")[2].split()[36])
            if processor == self._processor:
                return
            allowed = context.processors or os.sched_getaffinity(0)
            if processor in allowed:
                context.processors = allowed
                os.sched_setaffinity(0, {processor})
                self._processor = processor
        except (OSError, ValueError, IndexError):
            return  # it has ended, or that processor isn't ours

    def rest(self) -> bool:
        """Take back the processors that ``_follow`` gave up: nobody calls, or another process is to be started.

        Returns:
            Whether there is more to be done soon, even if nobody calls: denials to be written down.
        """
        context = self.context
        if context.processors:
            roam(context)
            context.processors = set()
            self._processor = -1
        return self.sightings is not None and self.sightings.write_old()

    def close(self) -> None:
        """Let go, when the last confined task is gone."""
        self.rest()
        if self.sightings is not None:
            self.sightings.close()
        self.troubles.sum_up()
        close(self.context)
        os.close(self.context.listener)

    def _handlers(self) -> dict[int, tuple[str, Handler]]:
        """Return number -> (name, handler) of what this plan's filter notifies."""
        parts = self.plan.notify_parts
        if self.plan.policy.mode == "audit":
            from sandboxed_python.broker import audit

            return audit.handlers(listening=AUDIT in parts, way=self.plan.way)
        names = [name for part in parts for name in PART_CALLS.get(part, ())]
        handlers = load(names)
        if "map" in parts:
            handlers[tables.NOTIFIED["mmap"][_COLUMN]] = ("mmap", self._map)
        if "exec" in parts:
            for name in ("execve", "execveat"):
                handlers[tables.NOTIFIED[name][_COLUMN]] = (name, self._exec)
        return handlers

    def _map(self, request: Request) -> Answer:
        """mmap(2) with PROT_EXEC: see ``gate``. Only registers decide, so the kernel may carry it out itself."""
        gate = request.granted.gate
        descriptor = request.arguments[4] & 0xFFFFFFFF
        if gate and may_map(gate, request.granted.policy, request.task, descriptor):
            return CONTINUE
        if self.context.on_denied:
            tell_mapping(request, descriptor)
        return DENIED

    def _exec(self, request: Request) -> Answer:
        """execve(2): the supervisor's own exec of the interpreter; the child runs nobody else's code before it."""
        if self._execs_left and request.task == self.context.child:
            self._execs_left -= 1
            return CONTINUE
        request.denied("child", None)
        return DENIED


_COLUMN = 0 if os.uname().machine == "x86_64" else 1
# What each part of the notifying filter brings here (plan.seccomp.NOTIFY_PARTS).
PART_CALLS = {
    "stat": (*(name for name in MODULES["calls_read"] if name != "chdir" and "xattr" not in name), "open", "openat"),
    "change": (
        *(name for name in MODULES["calls_read"] if "xattr" in name),  # what they tell is content
        *(name for name in MODULES["calls_change"] if name not in ("fchmodat2", "truncate")),
        *MODULES["identity"],
    ),
    "names": (*MODULES["calls_names"], "truncate"),
    "write": MODULES["calls_open"],
    "open": MODULES["calls_open"],
    "unix": MODULES["calls_socket"],
}
