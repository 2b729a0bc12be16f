"""Starting the child: fork, confine, and run the program there.

Runs in: both.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.errors import LaunchError, SandboxError
from sandboxed_python.launch.confine import Prepared, confine
from sandboxed_python.launch.exits import CODE
from sandboxed_python.launch.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from sandboxed_python.plan.model import Plan
else:
    import _signal  # the signal module on top of it imports enum

FAILED = b"E"


def start(plan: Plan, baseline: frozenset[str]) -> Session | None:
    """Fork and confine the child of a plan.

    Args:
        plan: what to enforce and run.
        baseline: names in ``sys.modules`` before ours were imported; the program will find no others.

    Returns:
        The session in the supervisor. In the child, None, after the program has ended: the caller returns to the
        bottom of its stack, and the interpreter ends as after any program.

    Raises:
        SandboxError: nothing was started.
        SystemExit: in the child: the program's own.
    """
    prepared = Prepared(plan)
    # The fork must not carry what the parent's own output has buffered.
    session = Session()
    memo = write_memo(plan) if plan.way == "exec" else -1
    pid = os.fork()
    if pid:
        session.in_supervisor(pid)
        if prepared.ruleset >= 0:
            os.close(prepared.ruleset)
        if memo >= 0:
            os.close(memo)
        return session
    try:
        session.in_child()
        confine(plan, prepared, session, (memo,) if memo >= 0 else ())
        if plan.way == "exec":
            execute(plan, memo)
        os.close(session.channel)
    except SandboxError as error:
        report(session.channel, error)
    run_here(plan, baseline)
    return None


def run_here(plan: Plan, baseline: frozenset[str]) -> None:
    """Run the program in this interpreter (the fork way)."""
    from sandboxed_python.child import boot

    target = plan.target
    boot.run(
        plan.policy,
        target.kind,
        target.value,
        list(target.arguments),
        baseline=baseline,
        guarded="stat" in plan.notify_parts,
    )


def write_memo(plan: Plan) -> int:
    """Write what the child's bootstrap must know to a memory file, and return its descriptor, at the start."""
    import marshal

    target = plan.target
    data = {
        "policy": plan.policy.to_data(),
        "kind": target.kind,
        "target": target.value,
        "argv": list(target.arguments),
        "guarded": "stat" in plan.notify_parts,
        "sys_path0": True,
    }
    memo = os.memfd_create("sandboxed-python", 0)
    os.write(memo, marshal.dumps(data, 2))
    os.lseek(memo, 0, os.SEEK_SET)
    return memo


def execute(plan: Plan, memo: int) -> None:
    """Become the interpreter of the plan, already confined (the exec way).

    Raises:
        LaunchError: execve(2) failed.
    """
    python = plan.target.python
    boot = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "child", "boot_exec.py")
    for name in ("SIGPIPE", "SIGXFSZ"):  # python ignored them at its own start
        _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
    os.set_inheritable(memo, True)  # noqa: FBT003
    try:
        os.execv(python, [python, *plan.target.python_options, boot, str(memo)])
    except OSError as error:
        message = f"exec {python}: {error.strerror}"
        raise LaunchError(message) from error


def report(channel: int, error: SandboxError) -> None:
    """Tell the supervisor why the child can't start, and end it. Does not return."""
    try:
        os.write(channel, FAILED + str(error).encode("utf-8", "surrogateescape"))
    finally:
        sys.stderr.flush()
        os._exit(CODE["SANDBOX"])
