"""What a handler is given and what it returns: context, request, answer, and the ways to stop.

Runs in: supervisor.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.kernel import notify, uapi
from sandboxed_python.kernel.calls import Block
from sandboxed_python.policy.patterns import Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from sandboxed_python.broker.datagrams import Sender
    from sandboxed_python.broker.narrow import Narrowings
    from sandboxed_python.plan.model import MapGate, PathRule, Plan
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.record.events import Report

    Key = TypeVar("Key")
    Value = TypeVar("Value")
    Restrict = Callable[[Policy, bool], tuple[int, tuple[PathRule, ...]]]
    """Makes a Landlock ruleset of a policy, which scopes signals and sockets or not; returns it with its rules."""
    Handler = Callable[["Request"], "Answer"]
    """Does the work of one call and says what to answer. It may raise OSError (the errno is answered, so only after the
    judgement), Stopped, Denied or Gone; anything else is answered as a denial."""


class StoppedError(Exception):
    """The resolution of a path ended early, as the kernel's would.

    Whether the caller may learn the errno is judged by ``path`` and ``rest``.

    Attributes:
        number: the errno.
        path: real path of the component that it failed at.
        rest: what was still to be walked after it, without leading or trailing slash.
    """

    def __init__(self, number: int, path: str, rest: bytes) -> None:
        super().__init__(number, path)
        self.number = number
        self.path = path
        self.rest = rest


class DeniedError(Exception):
    """The answer is EACCES, whatever else may be true."""


class GoneError(Exception):
    """The caller has died or been interrupted: there is nobody to answer."""


class Answer:
    """What to tell the kernel.

    Attributes:
        kind: ``REPLY``, ``CONTINUE``, ``DESCRIPTOR`` or ``NOTHING``.
        error: errno, positive, of a reply; 0 for success.
        value: the result of a successful reply.
        descriptor: for ``DESCRIPTOR``: ours, to be handed over and then closed.
        close_on_exec: the caller's copy has ``FD_CLOEXEC``.
        replace: the caller's descriptor to put it in the place of; the call then returns 0. -1: a new one, whose number
            the call returns.
    """

    REPLY, CONTINUE, DESCRIPTOR, NOTHING = range(4)
    __slots__ = ("close_on_exec", "descriptor", "error", "kind", "replace", "value")

    def __init__(  # noqa: PLR0913
        self,
        kind: int = REPLY,
        *,
        error: int = 0,
        value: int = 0,
        descriptor: int = -1,
        close_on_exec: bool = False,
        replace: int = -1,
    ) -> None:
        self.kind = kind
        self.error = error
        self.value = value
        self.descriptor = descriptor
        self.close_on_exec = close_on_exec
        self.replace = replace


OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errnos that are troubles of the supervisor's own, and not what the caller would have got."""

DONE = Answer()
DENIED = Answer(error=errno.EACCES)
CONTINUE = Answer(Answer.CONTINUE)
NOTHING = Answer(Answer.NOTHING)
_failures = {number: Answer(error=number) for number in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR, errno.EEXIST)}


def failure(number: int) -> Answer:
    """Return the answer that the call fails with ``number``; EACCES for 0, which would be a success."""
    return _failures.get(number) or (Answer(error=number) if number > 0 else DENIED)


def no(_path: str) -> bool:
    """Say no: the default of ``Granted.kernel_reads`` and ``Granted.kernel_writes``."""
    return False


def rule_places(rules: Iterable[PathRule], right: int) -> Callable[[str], bool]:
    """Return a function that tells whether Landlock's rules give a right to the file at a path.

    Only what lies in a tree counts: the file that a rule of its own is tied to may have been replaced meanwhile.
    """
    below = tuple([rule.path if rule.path == "/" else rule.path + "/" for rule in rules if rule.rights & right])
    return lambda path: path.startswith(below)


class Granted:
    """What a policy means to the answers.

    Attributes:
        policy: the policy.
        checks: need -> the policy's question.
        roots: the granted directories themselves: they can't be removed or moved, like mount points.
        named: every path that a grant names: no link may be put there, or the next run would be granted what it names.
        above: tells whether a path is a folder above one that a grant names: no link may be put there either, and the
            folder neither be moved nor another be moved there, which could bring a link along.
        kernel_reads: tells whether Landlock alone lets the file at a path be opened for reading.
        kernel_writes: likewise for writing and creating.
        gate: which files may be mapped executable, where the supervisor is asked; see ``gate``.
    """

    __slots__ = ("above", "checks", "gate", "kernel_reads", "kernel_writes", "named", "policy", "roots")

    def __init__(
        self,
        policy: Policy,
        kernel_reads: Callable[[str], bool] = no,
        kernel_writes: Callable[[str], bool] = no,
        gate: MapGate | None = None,
    ) -> None:
        self.policy = policy
        self.kernel_reads = kernel_reads
        self.kernel_writes = kernel_writes
        self.gate = gate
        given = [grant for layer in policy.layers for grant in (*layer.read, *layer.write) if not grant.implicit]
        self.roots = frozenset([path for grant in given if grant.kind == "tree" for path in grant.paths])
        self.named = frozenset([path for grant in given for path in grant.exact])
        self.above = Matcher(given).above
        read = policy.reader.matches if policy.within is None else policy.readable
        self.checks = {"read": read, "write": policy.writable, "stat": policy.statable}


class Context:
    """What the answers for one tree of confined tasks rest on.

    Attributes:
        listener: the notifying filter's descriptor.
        granted: what is granted to the whole tree.
        narrowings: what single processes have given up; None as long as none has.
        plan: what is enforced, for what a narrowing needs of it; None: nobody can narrow anything.
        restrict: makes a Landlock ruleset for a narrowed policy; see ``narrow``.
        child: pid of the tree's first process.
        landlock: the tasks are in a Landlock domain that handles every right to files' contents, so that an open which
            is let through is judged there again.
        identity: ``"fixed"`` while no task can have changed its ids or capabilities, else ``"unknown"``: then they are
            looked at for every call. The identity calls' handlers switch to ``"unknown"``; ``identity.at_first`` tells
            what to start with.
        on_change: called before a task may change its ids or capabilities; an OSError of it is the call's failure.
        on_denied: called with (request, need, path) at each denial: the need as in ``checks``, or a scope; the path, or
            None where there is none or it couldn't be resolved.
        on_report: called with (request, report) when the hook tells of a denial.
        on_error: called with (request, exception) when a handler failed in a way it should not.
        handlers: number of a system call -> (name, handler); from ``answer.load``.
        reachable: (device, inode) of directories known to be where their path says.
        rooted: threads known to have our root directory.
        straight: path -> its text if it is spelled like a real path, "" if it isn't one.
        sockets: inode -> type of the Unix sockets that were handed out as placeholders.
        held: inode -> our descriptor of a placeholder.
        abstract: abstract socket names that were bound inside the sandbox, in the order of binding; no values.
        datagrams: inode -> our half of the connected Unix datagram sockets.
        processors: those that the serving thread may run on, while it stays on the caller's; else empty.
        bound: inode -> the address, as the caller spelled it, of sockets that were bound to a path.
    """

    __slots__ = (
        "abstract", "bound", "child", "datagrams", "granted", "handlers", "held", "identity", "landlock", "listener",
        "narrowings", "on_change", "on_denied", "on_error", "on_report", "plan", "processors", "reachable", "restrict",
        "rooted", "sockets", "straight",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913
        self,
        *,
        listener: int,
        policy: Policy,
        child: int,
        landlock: bool = False,
        kernel_reads: Callable[[str], bool] = no,
        kernel_writes: Callable[[str], bool] = no,
        plan: Plan | None = None,
        restrict: Restrict | None = None,
        identity: str = "unknown",
        on_change: Callable[[], None] | None = None,
        on_denied: tuple[Callable[[Request, str, str | None], None], ...] = (),
        on_report: Callable[[Request, Report], None] | None = None,
        on_error: Callable[[Request, Exception], None] | None = None,
    ) -> None:
        self.listener = listener
        self.granted = Granted(policy, kernel_reads, kernel_writes, plan.map_gate if plan else None)
        self.narrowings: Narrowings | None = None
        self.plan = plan
        self.restrict = restrict
        self.child = child
        self.landlock = landlock
        self.identity = identity
        self.on_change = on_change
        self.on_denied = on_denied
        self.on_report = on_report
        self.on_error = on_error
        self.handlers: dict[int, tuple[str, Handler]] = {}
        self.reachable: set[tuple[int, int]] = set()
        self.straight: dict[bytes, str] = {}
        self.rooted: set[int] = set()
        self.sockets: dict[int, int] = {}
        self.held: dict[int, int] = {}
        self.datagrams: dict[int, Sender] = {}
        self.abstract: dict[bytes, None] = {}
        self.bound: dict[int, bytes] = {}
        self.processors: set[int] = set()


REMEMBERED = 65536
"""Sockets, and names of sockets, at most. The oldest are forgotten: they can't be connected, or show another name."""


def remember(known: dict[Key, Value], key: Key, value: Value) -> None:
    """Add to what is known about the sandbox's sockets, of which a program can make as many as it likes."""
    known.pop(key, None)
    if len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[key] = value


def roam(context: Context) -> None:
    """Let this thread run wherever the supervisor may: a new thread starts with the processor of the serving one."""
    if context.processors:
        try:
            os.sched_setaffinity(0, context.processors)
        except OSError:
            return  # they were taken from us meanwhile


class Request:
    """One notified call.

    Attributes:
        context: what to judge and act by.
        granted: what the caller's process is granted.
        id: the kernel's cookie.
        task: thread id of the caller.
        arguments: the six registers, unsigned.
        name: of the call.
        needs: what the path that is being handled must be granted: ``"read"``, ``"write"``, ``"stat"``.
        resource: the path as the caller spelled it.
        stranger: the caller has ids that we can't take.
        status: lines of ``/proc/<task>/status`` once they were read.
    """

    __slots__ = ("arguments", "context", "granted", "id", "name", "needs", "resource", "status", "stranger", "task")

    def __init__(self, context: Context, cookie: int, task: int, arguments: list[int] | tuple[int, ...]) -> None:
        self.context = context
        self.granted = context.granted
        self.id = cookie
        self.task = task
        self.arguments = arguments
        self.name = ""
        self.needs: tuple[str, ...] = ()
        self.resource = b""
        self.stranger = False
        self.status: dict[bytes, bytes] | None = None

    def read_path(self, address: int) -> bytes:
        """Read a path from the caller's memory, once.

        Raises:
            OSError: ``EFAULT``, ``ENAMETOOLONG``.
            notify.ClosedError: the memory is closed to us.
            notify.VanishedError: the caller is gone.
        """
        path = self.resource = notify.read_string(self.task, address, uapi.PATH_MAX, errno.ENAMETOOLONG)
        return path

    def write_memory(self, address: int, source: int, size: int) -> None:
        """Copy ``size`` bytes from our address ``source`` to the caller's memory, if it still waits.

        Raises:
            OSError: ``EFAULT``.
            GoneError: the caller is gone.
        """
        if not notify.id_valid(self.context.listener, self.id):
            raise GoneError
        notify.write_memory(self.task, address, source, size)

    def write_bytes(self, address: int, data: bytes) -> None:
        """Write ``data`` to the caller's memory, as ``write_memory``."""
        if data:
            block = Block(data)
            self.write_memory(address, block.address, len(data))

    def wrong(self, error: Exception) -> Answer:
        """Report what should not happen, and return the denial that it is answered with. Never raises."""
        report = self.context.on_error
        if report is not None:
            try:
                report(self, error)
            except Exception:  # noqa: BLE001 - the law
                return DENIED
        return DENIED

    def failed(self, error: OSError) -> Answer:
        """Return the answer for a system call of ours that failed: its errno, unless that is trouble of our own."""
        number = error.errno or 0
        return self.wrong(error) if number <= 0 or number in OURS else failure(number)

    def denied(self, need: str, path: str | None) -> None:
        """Tell whom it concerns that this call is denied; see ``Context.on_denied``. Never raises."""
        for tell in self.context.on_denied:
            try:
                tell(self, need, path)
            except Exception as error:  # noqa: BLE001 - the denial stays one
                self.wrong(error)

    def confirm(self) -> None:
        """Make sure that the caller still waits, so that what was read of it by its number was its own.

        Raises:
            GoneError: it does not.
        """
        if not notify.id_valid(self.context.listener, self.id):
            raise GoneError


def int32(register: int) -> int:
    """Return the ``int`` in a register, as the kernel takes it: the low half, signed."""
    low = register & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def real_path(descriptor: int) -> str:
    """Return where a descriptor's file is.

    Raises:
        DeniedError: the kernel can't say: the path is longer than a page.
    """
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        raise DeniedError from error
