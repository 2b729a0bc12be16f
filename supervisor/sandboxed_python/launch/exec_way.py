"""The exec way: another interpreter becomes the job, already confined.

Runs in: child, before the program. Loaded only when Python's own options, ``--python`` or PYTHON* variables need it.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import LaunchError
from sandboxed_python.kernel import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from sandboxed_python.plan.model import Plan
else:
    import _signal  # the signal module on top of it imports enum


def write_memo(plan: Plan, *, reports: bool = False) -> int:
    """Write what an exec'ed interpreter must know to a memory file, and return its descriptor, at the start."""
    import marshal

    target = plan.target
    data = {
        "policy": plan.policy.to_data(),
        "kind": target.kind,
        "target": target.value,
        "argv": list(target.arguments),
        "options": list(target.python_options),
        "guarded": plan.guarded,
        "reports": reports,
    }
    try:
        memo = os.memfd_create("sandboxed-python", uapi.MFD_NOEXEC_SEAL)
    except OSError:  # before Linux 6.3
        memo = os.memfd_create("sandboxed-python", uapi.MFD_ALLOW_SEALING)
    text = marshal.dumps(data, 2)
    while text:
        text = text[os.write(memo, text) :]
    os.lseek(memo, 0, os.SEEK_SET)
    import fcntl

    # Nobody writes to it again: code that runs before the bootstrap could make it a program.
    fcntl.fcntl(memo, uapi.F_ADD_SEALS, uapi.F_SEAL_ALL)
    return memo


def execute(plan: Plan, memo: int) -> None:
    """Become the interpreter of the plan, already confined (the exec way).

    Raises:
        LaunchError: execve(2) failed.
    """
    python = plan.target.python
    boot = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "child", "boot_exec.py")
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # python ignored them at its own start
        _signal.signal(number, _signal.SIG_DFL)
    os.set_inheritable(memo, True)  # noqa: FBT003
    try:
        # The bootstrap reads the memory file; the words after it are for who looks at ps(1).
        os.execv(python, [python, *plan.target.python_options, boot, str(memo), *plan.target.words])
    except OSError as error:
        message = f"exec {python}: {error.strerror}"
        raise LaunchError(message) from error
