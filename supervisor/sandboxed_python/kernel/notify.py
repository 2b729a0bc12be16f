"""Notifications: the listener's ioctls, and the target's memory.

Runs in: supervisor. Sources: seccomp_unotify(2), process_vm_readv(2). Buffers are preallocated: only the one thread
that serves the listener may use the functions that say so.
"""

from __future__ import annotations

import _ctypes
import errno
import os

from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Block, Char, addressof, get_errno, quick_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COLUMN = 0 if os.uname().machine == "x86_64" else 1


class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - ctypes itself subclasses it so
    """C ``unsigned long``."""

    _type_ = "L"


def failed() -> OSError:
    """Return the ``OSError`` of the last call through the door."""
    return OSError(get_errno(), "")


def number_of(name: str) -> int:
    """Return the number of a call in ``uapi.RAW`` or ``uapi.SYSCALLS`` on this machine."""
    return (uapi.RAW.get(name) or uapi.SYSCALLS[name])[COLUMN]


# --- The listener -----------------------------------------------------------------------------------------------------

_ioctl = quick_function("ioctl")
# struct seccomp_notif: u64 id; u32 pid, flags; struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6];}
_NOTIFICATION: Any = Word * 10
# struct seccomp_notif_resp: u64 id; s64 val; s32 error; u32 flags
_response = (Word * 3)()
_id = (Word * 1)()
_RECV, _SEND = uapi.SECCOMP_IOCTL_NOTIF_RECV, uapi.SECCOMP_IOCTL_NOTIF_SEND
_ID_VALID = uapi.SECCOMP_IOCTL_NOTIF_ID_VALID


def receive(listener: int) -> list[int] | None:
    """Take the next notification from the listener.

    Returns:
        ``[id, task, number, argument 0, ..., argument 5]``, all unsigned; None when the caller has gone meanwhile or a
        signal came.

    Raises:
        OSError: the listener is unusable.
    """
    buffer = _NOTIFICATION()
    if _ioctl(listener, _RECV, buffer) & 0xFFFFFFFF:
        number = get_errno()
        if number in (errno.ENOENT, errno.EINTR):
            return None
        raise OSError(number, "SECCOMP_IOCTL_NOTIF_RECV")
    words: list[int] = buffer[:]
    # The instruction pointer makes room for the number: id, task, number, arguments.
    words[1] &= 0xFFFFFFFF
    words[2] &= 0xFFFFFFFF
    del words[3]
    return words


def send(listener: int, cookie: int, error: int = 0, value: int = 0, flags: int = 0) -> bool:
    """Answer a call; only for the serving thread.

    Args:
        listener: the listener.
        cookie: the notification's id.
        error: errno, positive, or 0.
        value: what the call returns when ``error`` is 0.
        flags: ``SECCOMP_USER_NOTIF_FLAG_CONTINUE`` or 0.

    Returns:
        False when the caller has gone meanwhile.
    """
    _response[0] = cookie
    _response[1] = value
    _response[2] = (-error & 0xFFFFFFFF) | flags << 32
    return bool(_ioctl(listener, _SEND, _response) & 0xFFFFFFFF == 0)


def send_apart(listener: int, cookie: int, error: int, value: int) -> bool:
    """Answer a call as ``send`` does, from any thread."""
    response = (Word * 3)(cookie, value, -error & 0xFFFFFFFF)
    return bool(_ioctl(listener, _SEND, response) & 0xFFFFFFFF == 0)


def id_valid(listener: int, cookie: int) -> bool:
    """Tell whether the caller still waits for its answer, so that its thread id still means it."""
    _id[0] = cookie
    return bool(_ioctl(listener, _ID_VALID, _id) & 0xFFFFFFFF == 0)


def add_descriptor(listener: int, cookie: int, descriptor: int, *, close_on_exec: bool, replace: int = -1) -> int:
    """Put a copy of ``descriptor`` into the caller's table (``SECCOMP_IOCTL_NOTIF_ADDFD``).

    Args:
        listener: the listener.
        cookie: the notification's id.
        descriptor: ours; it stays open.
        close_on_exec: the caller's copy has ``FD_CLOEXEC``.
        replace: put it in the place of this descriptor of the caller's, and do not answer the call yet. Without it the
            call is answered with the number of the new descriptor, in one step.

    Returns:
        The number in the caller's table.

    Raises:
        OSError: ``ENOENT``: the caller has gone; ``EMFILE``: its table is full; ``EBADF``: ``replace`` is too large.
    """
    # struct seccomp_notif_addfd: u64 id; u32 flags, srcfd, newfd, newfd_flags
    flags = uapi.SECCOMP_ADDFD_FLAG_SEND if replace < 0 else uapi.SECCOMP_ADDFD_FLAG_SETFD
    second = (max(replace, 0)) | (os.O_CLOEXEC if close_on_exec else 0) << 32
    request = (Word * 3)(cookie, flags | descriptor << 32, second)
    result: int = _ioctl(listener, uapi.SECCOMP_IOCTL_NOTIF_ADDFD, request)
    result &= 0xFFFFFFFF
    if result == 0xFFFFFFFF:
        raise failed()
    return result


# --- The target's memory ----------------------------------------------------------------------------------------------


class ClosedError(Exception):
    """The target's memory is closed to us: it has other ids, or is not dumpable (ptrace(2), access mode checking)."""


class VanishedError(Exception):
    """The target is gone."""


_readv = quick_function("process_vm_readv")
_writev = quick_function("process_vm_writev")
_PAGE = 4096
_page: Any = (Char * (_PAGE + 1))()
# struct iovec: our side for reading, our side for writing, the target's side.
_into, _from, _there = (Word * 2)(addressof(_page), _PAGE), (Word * 2)(), (Word * 2)()


def _untransferred(result: int) -> Exception:
    """Return what a transfer that was not whole is raised as."""
    number = get_errno() if result < 0 else errno.EFAULT
    if number == errno.EPERM:
        return ClosedError()
    return VanishedError() if number == errno.ESRCH else OSError(number, "")


def read_string(task: int, address: int, limit: int, too_long: int) -> bytes:
    """Read a C string from a task's memory, page by page as the kernel would; only for the serving thread.

    Args:
        task: thread id.
        address: where it starts.
        limit: most bytes, the terminating NUL included.
        too_long: errno for a string that has no NUL within ``limit``.

    Raises:
        OSError: ``EFAULT``; ``too_long``.
        ClosedError: we may not read that task's memory.
        VanishedError: the task is gone.
    """
    whole = b""
    while True:
        size = _PAGE - (address & (_PAGE - 1))
        size = min(size, limit)
        _into[1] = _there[1] = size
        _there[0] = address
        result = _readv(task, _into, 1, _there, 1, 0)
        if result != size:
            raise _untransferred(result)
        _page[size] = b"\0"
        text: bytes = _page.value
        if len(text) < size:
            return whole + text if whole else text
        whole += text
        limit -= size
        address += size
        if not limit:
            raise OSError(too_long, "")


def read_memory(task: int, address: int, size: int) -> bytes:
    """Copy ``size`` bytes from a task's memory.

    Raises:
        OSError: ``EFAULT`` unless all of them are there.
        ClosedError: we may not read that task's memory.
        VanishedError: the task is gone.
    """
    if not size:
        return b""
    block = Block(size)
    local, remote = (Word * 2)(block.address, size), (Word * 2)(address, size)
    result: int = _readv(task, local, 1, remote, 1, 0)
    if result != size:
        raise _untransferred(result)
    return bytes(block.data)


def write_memory(task: int, address: int, source: int, size: int) -> None:
    """Copy ``size`` bytes from our address ``source`` to a task's memory. Page protection holds; only serving thread.

    Raises:
        OSError: ``EFAULT`` unless all of them could be written.
        ClosedError: we may not write that task's memory.
        VanishedError: the task is gone.
    """
    _there[0] = address
    _from[0] = source
    _from[1] = _there[1] = size
    result = _writev(task, _from, 1, _there, 1, 0)
    if result != size:
        raise _untransferred(result)
