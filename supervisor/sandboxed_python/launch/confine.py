"""Confining the child: the steps, in order, readable aloud. The only code that locks anything.

Runs in: child, before the program's first instruction.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.errors import KernelError, LaunchError
from sandboxed_python.kernel import fstat, landlock, process, seccomp, uapi
from sandboxed_python.kernel.calls import close_range, send_descriptor, syscall
from sandboxed_python.plan.filters import load, notify_variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Iterable

    from sandboxed_python.launch import inner
    from sandboxed_python.launch.session import Session
    from sandboxed_python.plan.model import PathRule, Plan
else:
    import _signal  # the signal module on top of it imports enum

ON_A_DIRECTORY = ~0


class Prepared:
    """What is made ready while everything can still be opened.

    Attributes:
        ruleset: descriptor of the Landlock ruleset, or -1.
        rules: the plan's rules that are in it.
        static_filters: the static filter's program, if there is one.
        notify_filter: the notifying filter's program, or ``b""``.
        resource_limits: names and values of the resource limits.
    """

    def __init__(self, plan: Plan) -> None:
        """Open every path of the plan, fill the ruleset and read the filters.

        Raises:
            LaunchError: a granted path can't be opened; the message names it.
            KernelError: the kernel refused a Landlock call.
        """
        self.ruleset, self.rules = make_ruleset(plan.ruleset, plan.abi, plan.rules) if plan.abi else (-1, ())
        self.static_filters = (load(plan.static_filter, plan.machine),) if plan.static_filter else ()
        self.notify_filter = load(notify_variant(plan.notify_parts), plan.machine) if plan.notify_parts else b""
        if self.notify_filter and plan.policy.limits.processes is not None and plan.policy.granted("child"):
            from sandboxed_python.plan.forks import counting

            self.notify_filter = counting(self.notify_filter, plan.machine)
        if plan.fstat_passes and (address := fstat.seal_empty_path()):
            self.notify_filter = fstat.pass_fstat(self.notify_filter, address)
        self.resource_limits = resource_limits(plan)

    def close(self) -> None:
        """Close the ruleset, in the supervisor."""
        if self.ruleset >= 0:
            os.close(self.ruleset)

    def finish(self) -> None:
        """Do what comes last: nothing, but in another sandbox (``launch.inner``)."""


def resource_limits(plan: Plan) -> list[tuple[str, int]]:
    """Return names and values of the resource limits of a plan, and make ready what setting them takes."""
    limits = plan.policy.limits
    rows = (("RLIMIT_NOFILE", limits.open_files), ("RLIMIT_FSIZE", limits.file_size))
    found = [(name, value) for name, value in rows if value is not None]
    if found:
        import resource  # noqa: F401 - while it can be opened
    return found


def make_ruleset(
    handled: landlock.Ruleset, abi: int, rules: Iterable[PathRule], *, tolerant: bool = False
) -> tuple[int, tuple[PathRule, ...]]:
    """Create a Landlock ruleset.

    Args:
        handled: what it handles.
        abi: the Landlock ABI.
        rules: what it allows.
        tolerant: a path that can't be opened gets no rule.

    Returns:
        Its descriptor, and the rules that are in it: those whose paths exist.

    Raises:
        LaunchError: a granted path can't be opened.
        KernelError: the kernel refused a Landlock call.
    """
    attributes = landlock.pack_ruleset(handled, abi)
    ruleset = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        told = [rule for rule in rules if _add_rule(ruleset, rule, handled.fs, tolerant=tolerant or rule.optional)]
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset, tuple(told)


def _add_rule(ruleset: int, rule: PathRule, handled: int, *, tolerant: bool) -> bool:
    """Add a rule to a ruleset that handles these rights; tell whether it could be done.

    Raises:
        LaunchError: the path is there, and can't be opened.
        KernelError: the kernel refused a Landlock call.
    """
    try:
        descriptor = open_in_place(rule.path)
    except OSError as error:
        if tolerant or error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False  # nothing there to tie a rule to: the broker's, or denied
        message = f"grant of {rule.path!r}: {os.strerror(error.errno or 0)}"
        raise LaunchError(message) from error
    try:
        is_directory = os.stat(descriptor).st_mode & 0o170000 == 0o040000
        rights = rule.rights & handled & (ON_A_DIRECTORY if is_directory else landlock.ON_A_FILE)
        if rights:
            packed = landlock.pack_path_rule(rights, descriptor)
            syscall("landlock_add_rule", ruleset, uapi.LANDLOCK_RULE_PATH_BENEATH, packed, 0)
        return bool(rights)
    finally:
        os.close(descriptor)


def open_in_place(path: str) -> int:
    """Open a resolved path without following any link: one that came there since it was resolved was not granted.

    Raises:
        OSError: it can't be opened; ``ELOOP``: there is a link on the way now.
    """
    how = (uapi.O_PATH | os.O_CLOEXEC).to_bytes(8, "little") + bytes(8) + uapi.RESOLVE_NO_SYMLINKS.to_bytes(8, "little")
    try:
        return syscall("openat2", uapi.AT_FDCWD & 0xFFFFFFFFFFFFFFFF, os.fsencode(path) + b"\0", how, len(how))
    except KernelError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    # A service manager's filter refuses openat2(2), whose flags it can't see (systemd.exec(5), RestrictSUIDSGID=).
    here = os.open("/", uapi.O_PATH | os.O_CLOEXEC)
    for name in path.split("/"):
        if not name:
            continue
        try:
            there = os.open(name, uapi.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)
        here = there
        if os.stat(here).st_mode & 0o170000 == 0o120000:
            os.close(here)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return here


def confine(plan: Plan, prepared: Prepared | inner.Prepared, session: Session, keep: tuple[int, ...]) -> None:
    """Give up everything that the plan does not grant, for good.

    Args:
        plan: the plan.
        prepared: what was made ready.
        session: the child's side of it: ``session.channel`` takes the listener.
        keep: descriptors that stay open besides 0 to 2 and the channel.

    Raises:
        LaunchError: the message names the step and the errno. The caller must end the child.
    """
    step = "signals"
    try:
        session.restore_signals()
        step = "parent-death signal"
        if not process.die_with_parent(session.supervisor, _signal.SIGKILL):
            os._exit(1)
        if session.relay is not None:
            session.relay.enter()
        step = "close descriptors"
        close_all_but({session.channel, prepared.ruleset, *keep})
        step = "core dumps"
        process.stop_core_dumps()
        step = "environment"
        for name in plan.unset:
            os.environ.pop(name, None)
        step = "no_new_privs"
        process.set_no_new_privs()
        if prepared.ruleset >= 0:
            step = "Landlock"
            syscall("landlock_restrict_self", prepared.ruleset, 0)
            os.close(prepared.ruleset)
        if prepared.notify_filter:
            step = "seccomp notifications"
            listener = seccomp.load_notifying_filter(prepared.notify_filter)
            send_descriptor(session.channel, listener, b"L")
            os.close(listener)
        step = "seccomp"
        for program in prepared.static_filters:
            seccomp.load_filter(program)
        step = "supervisor"
        prepared.finish()
        step = "resource limits"  # at the end: they are for the program, not for what goes before
        for name, value in prepared.resource_limits:
            process.lower_limit(name, value)
    except (KernelError, OSError) as error:
        message = f"{step}: {error}"
        raise LaunchError(message) from error


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor from 3 up but those in ``keep``."""
    first = 3
    for descriptor in sorted(keep):
        if descriptor >= first:
            close_range(first, descriptor - 1)
            first = descriptor + 1
    close_range(first)
