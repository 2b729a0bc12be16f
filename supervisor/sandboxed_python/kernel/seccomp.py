"""Loading a compiled seccomp filter.

Runs in: child; ``set_sync_wake_up``: supervisor. Source: seccomp(2).
"""

from __future__ import annotations

import errno

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Block, Long, Pointer, function, syscall


def load_filter(program: bytes) -> None:
    """Install ``program`` (an array of ``struct sock_filter``) on this thread and all it starts.

    Raises:
        KernelError: the kernel refused; ``EINVAL`` is a program that it can't run, ``EACCES`` a missing no_new_privs.
    """
    _load(program, 0)


def load_for_all_threads(program: bytes) -> None:
    """Install ``program`` on every thread of this process and all they start.

    Raises:
        KernelError: the kernel refused; ``ESRCH``: a thread has filters that this one has not; ``ENOMEM``: no room.
    """
    _load(program, uapi.SECCOMP_FILTER_FLAG_TSYNC | uapi.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)


def load_notifying_filter(program: bytes) -> int:
    """Install ``program`` and return its listener: a close-on-exec descriptor (seccomp_unotify(2)).

    ``WAIT_KILLABLE_RECV`` (Linux 5.19) is used where the kernel has it: a notified call is then not interrupted by
    signals once the supervisor has taken it.

    Raises:
        KernelError: the kernel refused; ``EBUSY`` is a second listener in one tree of filters.
    """
    try:
        return _load(program, uapi.SECCOMP_FILTER_FLAG_NEW_LISTENER | uapi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
    return _load(program, uapi.SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _load(program: bytes, flags: int) -> int:
    instructions = Block(program)
    # struct sock_fprog: unsigned short len, padding, struct sock_filter *filter.
    fprog = (len(program) // 8).to_bytes(8, "little") + instructions.address.to_bytes(8, "little")
    return syscall("seccomp", uapi.SECCOMP_SET_MODE_FILTER, flags, fprog)


_ioctl = function("ioctl", Long, Long, Pointer)


def set_sync_wake_up(listener: int) -> bool:
    """Ask for ``SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`` (Linux 6.6): much faster answers on one CPU.

    Returns:
        Whether the kernel knows it.
    """
    result: int = _ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_SET_FLAGS, uapi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    return result == 0
