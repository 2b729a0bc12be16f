"""Starting the child: fork, confine, run the program.

Runs in: both.
"""

from __future__ import annotations

import errno
import os
import sys

from sandboxed_python.child import boot
from sandboxed_python.errors import KernelError, LaunchError, SandboxError
from sandboxed_python.kernel import process
from sandboxed_python.kernel.calls import reading_opener, script_compiler
from sandboxed_python.launch.confine import Prepared, confine
from sandboxed_python.launch.guard import Guard
from sandboxed_python.launch.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.launch import inner
    from sandboxed_python.launch.cgroup import MemoryGroup
    from sandboxed_python.plan.model import Plan
    from sandboxed_python.policy.model import Policy

FAILED = b"E"
NAME = "sandbox-super"  # of the supervisor in ps(1) and pstree(1); the job is called as under plain python


def start(
    plan: Plan, baseline: frozenset[str], *, reports: bool = False, group: MemoryGroup | None = None
) -> Session | None:
    """Fork the child of a plan; it confines itself and runs the program.

    Args:
        plan: what to enforce and run.
        baseline: names in ``sys.modules`` before ours were imported; the program will find no others.
        reports: the hook is to tell the supervisor of denials.
        group: that the child is to be in, or None.

    Returns:
        The session in the supervisor. In the child, None, after the program has ended: the caller returns to the
        bottom of its stack, and the interpreter ends as after any program.

    Raises:
        SandboxError: nothing was started.
        SystemExit: in the child: the program's own.
    """
    try:
        closed = occupy_standard()
        prepared = prepare(plan)
        target = plan.target
        program = (
            boot.Program(
                plan.policy,
                target.kind,
                target.value,
                guarded=plan.guarded,
                baseline=baseline,
                compiler=script_compiler(),
                opener=reading_opener() if plan.fstat_passes else None,
                kernel=kernel_side,
                reports=reports,
            )
            if plan.way == "fork"
            else None
        )
        if not plan.inner and plan.keep_capabilities >= 0:  # inside, it has been done
            cut_capabilities(plan.keep_capabilities)
        session = Session(Guard(plan, group), prepared.rules)
        if plan.policy.limits.output is not None:
            from sandboxed_python.launch.output import Relay

            session.relay = Relay(plan.policy.limits.output, closed)
        in_child = session.fork()
    except OSError as error:
        raise LaunchError(_lacking(error)) from error
    if not in_child:
        session.kept = program
        prepared.close()
        session.enter(group)
        process.set_name(NAME)
        return session
    try:
        if group is not None:
            session.wait_to_go_on()
        show_job(plan)
        if plan.way == "fork":
            confine(plan, prepared, session, ())
        else:
            from sandboxed_python.launch import exec_way

            memo = exec_way.write_memo(plan, reports=reports)
            confine(plan, prepared, session, (memo,))
            exec_way.execute(plan, memo)
    except (SandboxError, OSError) as error:
        report(session.channel, error)
    for descriptor in (session.channel, *closed):
        os.close(descriptor)
    if program is not None:
        boot.run(program, list(target.arguments), options=list(target.python_options), baseline=baseline)
    return None


def prepare(plan: Plan) -> Prepared | inner.Prepared:
    """Make ready what the child will put on.

    Raises:
        SandboxError: see there.
        OSError: a filter can't be read.
    """
    if not plan.inner:
        return Prepared(plan)
    from sandboxed_python.launch import inner

    return inner.Prepared(plan)


def kernel_side() -> Callable[[Policy, Policy, Callable[[], None]], None]:
    """Load what ``permission.drop()`` needs, and return it."""
    from sandboxed_python.launch.narrow import narrow

    return narrow


def _lacking(error: OSError) -> str:
    """Say what a start lacks, and which limit to look at."""
    limit = {errno.EAGAIN: "processes (ulimit -u)", errno.EMFILE: "descriptors (ulimit -n)"}.get(error.errno or 0)
    what = f": no more {limit}" if limit else ""
    return f"the program can't be started: {error if isinstance(error, KernelError) else error.strerror}{what}"


def cut_capabilities(keep: int) -> None:
    """Give up the supervisor's capabilities but those in ``keep``, before the fork: the child's are cut with them.

    Raises:
        LaunchError: the kernel refused.
    """
    try:
        process.cut_capabilities(keep)
    except KernelError as error:
        message = f"capabilities: {error}"
        raise LaunchError(message) from error


def occupy_standard() -> list[int]:
    """Occupy descriptors 0 to 2 where they are closed, until the exec if there is one, and return them.

    No descriptor of ours then becomes the program's stdin, stdout or stderr, or gets what is meant for the user.
    """
    taken: list[int] = []
    while True:
        descriptor = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if descriptor > 2:
            os.close(descriptor)
            return taken
        taken.append(descriptor)


def show_job(plan: Plan) -> None:
    """Show the job in ps(1) as plain python would; in the exec way that is the exec's."""
    if plan.way == "fork":
        try:
            process.set_arguments([sys.orig_argv[0], *plan.target.words])
        except (OSError, IndexError):  # no /proc: it looks like the supervisor
            return


def report(channel: int, error: Exception) -> None:
    """Tell the supervisor why the child can't start, and end it. Does not return."""
    try:
        os.write(channel, FAILED + str(error).encode("utf-8", "surrogateescape"))
    finally:
        os._exit(1)
