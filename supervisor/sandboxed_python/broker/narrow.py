"""What single processes have given up at run time, beyond what the whole tree is granted.

Runs in: supervisor.

Which process has given up what, the kernel itself remembers: the supervisor marks the process with a number, as its
limit ``RLIMIT_LOCKS``. That means nothing to Linux since 2.4.25 (getrlimit(2)); all threads of a process share it,
and what the process starts inherits it from that moment on, whoever its parents are later. The static filter lets no
confined task change it. So nothing has to be found out about ancestry, and no process number can come to mean another
process; what was forked before the mark doesn't have it.
"""

from __future__ import annotations

import errno
import os
import resource

from sandboxed_python.broker.remote import read_file
from sandboxed_python.broker.request import GoneError, Granted, rule_places
from sandboxed_python.kernel import landlock, uapi
from sandboxed_python.policy.narrow import DEEPEST, narrowed
from sandboxed_python.policy.patterns import Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Context, Request
    from sandboxed_python.plan.model import MapGate, PathRule
    from sandboxed_python.policy.model import Policy

MOST = 1024
"""Different narrowings in one tree, at most; the same one from the same state counts once. More are refused."""
ROOM = 8 << 20
"""Bytes of all their messages, at most."""


class Narrowed(Granted):
    """What is granted after a narrowing.

    Attributes:
        rules: those of the Landlock ruleset that was made for it; None: none was, so Landlock decides as before.
    """

    __slots__ = ("outer", "rules")

    def __init__(self, outer: Granted, policy: Policy) -> None:
        """Narrow ``outer`` to ``policy``, which is within its policy."""
        gate = None if outer.gate is None else narrowed_gate(outer.gate, policy)
        super().__init__(policy, outer.kernel_reads, outer.kernel_writes, gate)
        self.outer = outer
        self.rules: set[PathRule] | None = None

    def tell(self, rules: tuple[PathRule, ...]) -> None:
        """Learn what Landlock is told besides; of several rulesets, only what all were told counts."""
        known = self.rules = set(rules) if self.rules is None else self.rules & set(rules)
        reads, writes = rule_places(known, landlock.READ_FILE), rule_places(known, landlock.WRITE_FILE)
        outer_reads, outer_writes = self.outer.kernel_reads, self.outer.kernel_writes
        self.kernel_reads = lambda path: reads(path) and outer_reads(path)
        self.kernel_writes = lambda path: writes(path) and outer_writes(path)


class Narrowings:
    """The narrowings of one tree of confined tasks."""

    def __init__(self, context: Context) -> None:
        """Know none."""
        self._base: Granted = context.granted
        self._of: dict[int, Narrowed] = {}
        self._room = ROOM
        self._marks: dict[tuple[int, bytes], int] = {}
        # Every mark is below all earlier ones, and below what the tasks have without a mark: limits can only go down.
        _soft, hard = resource.getrlimit(uapi.RLIMIT_LOCKS)
        self._next = (1 << 62) - 1 if hard == resource.RLIM_INFINITY else min(hard, 1 << 62) - 1

    def of(self, task: int) -> Granted:
        """Return what a task's process is granted.

        Raises:
            GoneError: the task is gone.
            OSError: it can't be asked.
        """
        return self._of.get(mark_of(task), self._base) if self._of else self._base

    def prepare(self, request: Request, asked: Policy, message: bytes) -> Narrowed:
        """Make ready to narrow the caller's process to what ``asked`` grants, too; nothing is narrowed yet.

        Args:
            request: of the caller.
            asked: the policy that it has sent.
            message: what it has sent: the same message from the same state means the same narrowing.

        Raises:
            OSError: ``E2BIG``: it has been narrowed too often; ``ENOSPC``: the tree has.
        """
        key = mark_of(request.task), message
        mark = self._marks.get(key)
        if mark is not None:
            return self._of[mark]
        outer: Granted = self._of.get(key[0], self._base)
        policy = narrowed(outer.policy, asked)
        if len(policy.layers) > DEEPEST:
            raise OSError(errno.E2BIG, "")
        if len(self._of) >= MOST or self._room < len(message) or self._next <= 0:
            raise OSError(errno.ENOSPC, "")
        self._room -= len(message)
        mark = self._marks[key] = self._next
        self._next -= 1
        self._of[mark] = made = Narrowed(outer, policy)
        return made

    def narrow(self, request: Request, message: bytes) -> None:
        """Narrow the caller's process for good, as was prepared for this message.

        Raises:
            OSError: ``EINVAL``: it wasn't prepared; ``EPERM``: we may not.
            GoneError: the caller is gone.
        """
        mark = self._marks.get((mark_of(request.task), message))
        if mark is None:
            raise OSError(errno.EINVAL, "")
        request.confirm()
        resource.prlimit(request.task, uapi.RLIMIT_LOCKS, (mark, mark))


def mark_of(task: int) -> int:
    """Return the mark of a task's process: its hard limit ``RLIMIT_LOCKS``.

    Raises:
        GoneError: the task is gone.
        OSError: it can't be asked.
    """
    try:
        return resource.prlimit(task, uapi.RLIMIT_LOCKS)[1]
    except ProcessLookupError as error:
        raise GoneError from error
    except PermissionError:  # it has other ids: proc_pid_limits(5) tells everybody
        for line in read_file(f"/proc/{task}/limits").split(b"\n"):
            if line.startswith(b"Max file locks"):
                hard = line.split()[4]
                return resource.RLIM_INFINITY if hard == b"unlimited" else int(hard)
        raise


def is_alone(task: int) -> bool:
    """Tell whether a task's process has no other threads.

    Raises:
        OSError: it is gone.
    """
    return os.stat(f"/proc/{task}/task").st_nlink == 3  # ".", "..", and one thread


def narrowed_gate(gate: MapGate, policy: Policy) -> MapGate:
    """Return what is left of a gate under a narrower policy.

    What only the user's own grants put there goes with --allow-ffi: what comes without a flag covers the rest.
    """
    if not policy.granted("ffi"):
        own = Matcher([grant for layer in policy.layers[-1:] for grant in layer.read if grant.implicit])
        gate = gate.replace(
            trees=tuple([path for path in gate.trees if own.matches(path)]),
            files=tuple([path for path in gate.files if own.matches(path)]),
        )
    return gate if policy.granted("wasi") else gate.replace(open_to=())
