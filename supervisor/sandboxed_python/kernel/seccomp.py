"""Loading a compiled seccomp filter, and talking to its listener.

Runs in: child (loading), supervisor (the listener). Sources: seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import _ctypes
import errno

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Char, Long, Pointer, function, get_errno, syscall


def load_filter(program: bytes) -> None:
    """Install ``program`` (an array of ``struct sock_filter``) on this thread and all it starts.

    Raises:
        KernelError: the kernel refused; ``EINVAL`` is a program that it can't run, ``EACCES`` a missing no_new_privs.
    """
    _load(program, 0)


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
    instructions = (Char * len(program)).from_buffer_copy(program)
    # struct sock_fprog: unsigned short len, padding, struct sock_filter *filter.
    fprog = (len(program) // 8).to_bytes(8, "little") + _ctypes.addressof(instructions).to_bytes(8, "little")
    return syscall("seccomp", uapi.SECCOMP_SET_MODE_FILTER, flags, fprog)


class Notification:
    """One call that a confined task has made and that waits for an answer.

    Attributes:
        id: the kernel's cookie of the waiting call.
        task: thread id of the caller, in the supervisor's pid namespace.
        number: of the system call.
        arguments: the six registers, unsigned.
    """

    __slots__ = ("arguments", "id", "number", "task")

    def __init__(self, raw: bytes) -> None:
        """Decode ``struct seccomp_notif``."""
        self.id = int.from_bytes(raw[0:8], "little")
        self.task = int.from_bytes(raw[8:12], "little")
        self.number = int.from_bytes(raw[16:20], "little", signed=True)
        self.arguments = tuple([int.from_bytes(raw[at : at + 8], "little") for at in range(32, 80, 8)])


_ioctl = function("ioctl", Long, Long, Pointer)


def set_sync_wake_up(listener: int) -> bool:
    """Ask for ``SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`` (Linux 6.6): much faster answers on one CPU.

    Returns:
        Whether the kernel knows it.
    """
    result: int = _ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_SET_FLAGS, uapi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    return result == 0


def receive(listener: int) -> Notification | None:
    """Take the next notification; None when its caller has gone meanwhile, or a signal came.

    Raises:
        KernelError: the listener is unusable.
    """
    buffer = (Char * uapi.SIZEOF_SECCOMP_NOTIF)()
    if _ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_RECV, buffer) & 0xFFFFFFFF:
        number = get_errno()
        if number in (errno.ENOENT, errno.EINTR):
            return None
        raise KernelError(number, "SECCOMP_IOCTL_NOTIF_RECV", str(listener))
    return Notification(bytes(buffer))


def answer(listener: int, cookie: int, error: int = 0, value: int = 0) -> bool:
    """Answer a call with a result or an errno.

    Args:
        listener: the listener.
        cookie: the notification's ``id``.
        error: errno, positive; 0: the call returns ``value``.
        value: what the call returns.

    Returns:
        False when the caller has gone meanwhile.
    """
    response = (
        cookie.to_bytes(8, "little")
        + value.to_bytes(8, "little", signed=True)
        + (-error).to_bytes(8, "little", signed=True)
    )
    # struct seccomp_notif_resp: u64 id, s64 val, s32 error, u32 flags: the sign of the error must not reach the flags.
    response = response[:20] + bytes(4)
    return bool(_ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_SEND, response) & 0xFFFFFFFF == 0)


def let_through(listener: int, cookie: int) -> bool:
    """Answer ``SECCOMP_USER_NOTIF_FLAG_CONTINUE``: the kernel carries the call out as it stands.

    Only for calls whose decision rests on registers: memory can change before the kernel reads it again.

    Returns:
        False when the caller has gone meanwhile.
    """
    response = cookie.to_bytes(8, "little") + bytes(12) + uapi.SECCOMP_USER_NOTIF_FLAG_CONTINUE.to_bytes(4, "little")
    return bool(_ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_SEND, response) & 0xFFFFFFFF == 0)
