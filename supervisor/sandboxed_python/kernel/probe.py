"""What this kernel and this container can enforce.

Runs in: supervisor. Nothing here changes the process; what can only be known by doing is done in a forked child.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import KernelError
from sandboxed_python.frozen import Frozen
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import syscall


class Support(Frozen):
    """What the planner needs to know of this machine. Tests make their own.

    Attributes:
        machine: as ``uname -m``; the filters exist for ``x86_64`` and ``aarch64``.
        release: kernel release, for messages.
        landlock: ABI version; 0: no Landlock (not built in, not enabled at boot, or refused by the container).
        landlock_error: why it is 0: ``ENOSYS``, ``EOPNOTSUPP``, ``EPERM``...; "" otherwise.
        seccomp: filters can be installed.
        notify: the kernel knows SECCOMP_RET_USER_NOTIF.
        root: the supervisor's effective user id is 0.
    """

    machine: str
    release: str = ""
    landlock: int = 0
    landlock_error: str = ""
    seccomp: bool = True
    notify: bool = True
    root: bool = False


def probe() -> Support:
    """Ask the kernel: three system calls, none of which changes anything."""
    system = os.uname()
    abi, why = 0, ""
    try:
        abi = syscall("landlock_create_ruleset", None, 0, uapi.LANDLOCK_CREATE_RULESET_VERSION)
    except KernelError as error:
        import errno

        why = errno.errorcode.get(error.errno or 0, str(error.errno))
    notify = _action_available(uapi.SECCOMP_RET_USER_NOTIF)
    return Support(
        machine=system.machine,
        release=system.release,
        landlock=abi,
        landlock_error=why,
        seccomp=notify or _action_available(uapi.SECCOMP_RET_ERRNO),
        notify=notify,
        root=os.geteuid() == 0,
    )


def _action_available(action: int) -> bool:
    try:
        syscall("seccomp", uapi.SECCOMP_GET_ACTION_AVAIL, 0, action.to_bytes(4, "little"))
    except KernelError:
        return False
    return True
