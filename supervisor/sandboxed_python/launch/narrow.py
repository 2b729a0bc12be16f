"""Giving up permissions at run time: what ``permission.drop()`` has the kernel and the supervisor do.

Runs in: child, in the program itself, and only when it drops something.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.errors import KernelError, SandboxError
from sandboxed_python.kernel import seccomp, uapi
from sandboxed_python.kernel.calls import syscall
from sandboxed_python.kernel.landlock import MAX_LAYERS
from sandboxed_python.kernel.wire import say
from sandboxed_python.plan.build import filter_scopes
from sandboxed_python.plan.filters import NO_MAP, load, variant
from sandboxed_python.record import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.policy.model import Policy

# What the errnos of each step mean.
_REASONS = {
    ("supervisor", errno.EBADF): "there is no supervisor that could see to it (--best-effort)",
    ("supervisor", errno.EOPNOTSUPP): "Landlock is not in use (--best-effort)",
    (
        "supervisor",
        errno.EBUSY,
    ): f"other threads are running, and this kernel's Landlock restricts one thread at a time "
    f"before ABI {wire.THREADS_ABI} (Linux 7.0): drop it before any thread starts",
    ("supervisor", errno.E2BIG): "the policy is too long, or was narrowed too often",
    ("supervisor", errno.ENOSPC): "too much was dropped in this sandbox",
    ("Landlock", errno.E2BIG): f"the {MAX_LAYERS} layers that Landlock has for a process are used up",
    ("seccomp", errno.ENOMEM): "the kernel has no room for a further seccomp filter",
}


def narrow(before: Policy, after: Policy, load_own: Callable[[], None]) -> None:
    """Have a narrower policy enforced on this process, and on what it starts from now on.

    Files: Landlock, all threads at once with ABI 8. Switches: a further static filter, on all threads at once. Both:
    the supervisor, which judges by both policies afterwards.

    Args:
        before: what is granted.
        after: what will be, within it.
        load_own: loads the interpreter's own libraries; called if none can be loaded afterwards.

    Raises:
        RuntimeError: it can't be enforced. Nothing has changed.
    """
    message = wire.narrowing(after.to_data(), inner=False)
    files = (before.read, before.write) != (after.read, after.write)
    step = "supervisor"
    ruleset = -1
    try:
        if before.mode == "audit":  # what nothing enforces, nothing has to take away
            say(wire.WIRE, wire.PREPARE, message)
        elif files:
            ruleset = say(wire.WIRE, wire.RULESET, message)
            step = "Landlock"
            restrict(ruleset)
        else:
            say(wire.WIRE, wire.PREPARE, message)
            step = "seccomp"
            _add_filters(before, after, load_own)
        step = "supervisor"
        say(wire.WIRE, wire.NARROW, message)
    except (OSError, SandboxError) as error:
        number = error.errno if isinstance(error, OSError) else 0
        reason = f"the permission can't be dropped: {_REASONS.get((step, number or 0)) or f'{step}: {error}'}"
        raise RuntimeError(reason) from None
    finally:
        if ruleset >= 0:
            os.close(ruleset)


def restrict(ruleset: int) -> None:
    """Put a ruleset on all threads of this process; where the kernel can't do that, the supervisor gives none to many.

    Raises:
        KernelError: ``E2BIG``: too many layers.
    """
    try:
        syscall("landlock_restrict_self", ruleset, uapi.LANDLOCK_RESTRICT_SELF_TSYNC)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
        syscall("landlock_restrict_self", ruleset, 0)


def _add_filters(before: Policy, after: Policy, load_own: Callable[[], None]) -> None:
    """Load the filters that refuse what only ``before`` grants."""
    names = []
    if before.granted("addon") and not after.granted("addon"):
        names.append(NO_MAP)
    if filter_scopes(before) != filter_scopes(after):
        names.append(variant(filter_scopes(after)))
    programs = [load(name, os.uname().machine) for name in names]
    if NO_MAP in names:
        load_own()
    for program in programs:
        seccomp.load_for_all_threads(program)
