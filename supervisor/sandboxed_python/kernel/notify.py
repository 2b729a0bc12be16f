"""The broker's calls: the listener's ioctls, the target's memory, and path calls on descriptors.

Runs in: supervisor. Sources: seccomp_unotify(2), process_vm_readv(2), openat2(2), statx(2). Result buffers are filled
by the kernel itself with its own structs and copied to the target as they are. Buffers are preallocated: only the one
thread that serves the listener may use the functions that say so.
"""

from __future__ import annotations

import _ctypes
import errno
import os

from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Char, Long, Pointer, addressof, function, get_errno, quick_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COLUMN = 0 if os.uname().machine == "x86_64" else 1


class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - ctypes itself subclasses it so
    """C ``unsigned long``."""

    _type_ = "L"


def failed() -> OSError:
    """Return the ``OSError`` of the last call through the door."""
    return OSError(get_errno(), "")


def number_of(name: str) -> int:
    """Return the number of a call in ``uapi.RAW`` or ``uapi.SYSCALLS`` on this machine."""
    return (uapi.RAW.get(name) or uapi.SYSCALLS[name])[_COLUMN]


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
    buffer = (Char * size)()
    local, remote = (Word * 2)(addressof(buffer), size), (Word * 2)(address, size)
    result: int = _readv(task, local, 1, remote, 1, 0)
    if result != size:
        raise _untransferred(result)
    return bytes(buffer)


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


# --- Paths ------------------------------------------------------------------------------------------------------------

_openat2 = quick_function("syscall")
_PATH_FLAGS = uapi.O_PATH | os.O_CLOEXEC
# struct open_how: u64 flags, mode, resolve
_how: Any = Word * 3
FOLLOW = _how(_PATH_FLAGS, 0, uapi.RESOLVE_NO_MAGICLINKS)
NO_FOLLOW = _how(_PATH_FLAGS | os.O_NOFOLLOW, 0, uapi.RESOLVE_NO_MAGICLINKS)
# Any link before the last component is a failure, and without NO_FOLLOW one in the last place, too.
STRAIGHT = _how(_PATH_FLAGS, 0, uapi.RESOLVE_NO_SYMLINKS)
STRAIGHT_NO_FOLLOW = _how(_PATH_FLAGS | os.O_NOFOLLOW, 0, uapi.RESOLVE_NO_SYMLINKS)
_OPENAT2 = number_of("openat2")


def open_path(base: int, path: bytes, how: object) -> int:
    """Open with openat2(2): ``how`` is one of the four above; magic links of procfs are never followed.

    Returns:
        An ``O_PATH``, close-on-exec descriptor, or -1 and nothing else: the caller walks the path itself then.
    """
    result: int = _openat2(_OPENAT2, base, path, how, 24)
    return result


_about = quick_function("syscall")
_FSTAT, _STATX, _FSTATFS = number_of("fstat"), number_of("statx"), number_of("fstatfs")
_FACCESSAT2 = number_of("faccessat2")
_result = (Char * 256)()
RESULT = addressof(_result)
"""Address of the buffer that ``fstat``, ``statx`` and ``fstatfs`` fill."""
SIZEOF_STAT = uapi.SIZEOF_STAT[_COLUMN]
_NEWFSTATAT = number_of("newfstatat")


def stat_of(task: int, descriptor: int) -> int:
    """Fill ``RESULT`` with ``struct stat`` of the file behind a task's descriptor, a link too; only serving thread.

    Returns:
        0, or the errno: ``ENOENT`` where the task has no such descriptor or is gone.
    """
    if _about(_NEWFSTATAT, uapi.AT_FDCWD, b"/proc/%d/fd/%d" % (task, descriptor), _result, 0) < 0:
        return get_errno()
    return 0


def fstat(descriptor: int) -> None:
    """Fill ``RESULT`` with the kernel's ``struct stat``; only for the serving thread.

    Raises:
        OSError: as fstat(2).
    """
    if _about(_FSTAT, descriptor, _result) < 0:
        raise failed()


def statx(descriptor: int, flags: int, mask: int) -> None:
    """Fill ``RESULT`` with ``struct statx`` of the descriptor's file; only for the serving thread.

    Raises:
        OSError: as statx(2).
    """
    if _about(_STATX, descriptor, b"", flags | uapi.AT_EMPTY_PATH, mask, _result) < 0:
        raise failed()


def fstatfs(descriptor: int) -> int:
    """Fill ``RESULT`` with the kernel's ``struct statfs`` and return its type; only for the serving thread.

    Raises:
        OSError: as fstatfs(2).
    """
    if _about(_FSTATFS, descriptor, _result) < 0:
        raise failed()
    return int.from_bytes(_result[:8], "little")


def faccess(descriptor: int, mode: int, flags: int) -> int:
    """Return 0, or the errno of faccessat2(2) on the descriptor's file."""
    if _about(_FACCESSAT2, descriptor, b"", mode, flags | uapi.AT_EMPTY_PATH) < 0:
        return get_errno()
    return 0


_fchownat = function("fchownat", Long, Pointer, Word, Word, Long)
_utimensat = function("utimensat", Long, Pointer, Pointer, Long)
_getxattr = function("getxattr", Pointer, Pointer, Pointer, Long)
_listxattr = function("listxattr", Pointer, Pointer, Long)
_setxattr = function("setxattr", Pointer, Pointer, Pointer, Long, Long)
_removexattr = function("removexattr", Pointer, Pointer)
_linkat = function("linkat", Long, Pointer, Long, Pointer, Long)


def by_descriptor(descriptor: int) -> bytes:
    """Return the path that leads to the descriptor's own file, and no further when that is a link."""
    return b"/proc/self/fd/%d" % descriptor


def _check(result: int) -> None:
    if result & 0xFFFFFFFF:
        raise failed()


def fchown(descriptor: int, uid: int, gid: int) -> None:
    """Change the owner of the descriptor's file, a link included; 0xFFFFFFFF leaves an id as it is.

    Raises:
        OSError: as fchownat(2).
    """
    _check(_fchownat(descriptor, b"", uid, gid, uapi.AT_EMPTY_PATH))


def utimens(descriptor: int, times: bytes | None) -> None:
    """Set the times of the descriptor's file: two raw ``struct timespec``, or None for now.

    Raises:
        OSError: as utimensat(2).
    """
    _check(_utimensat(descriptor, b"", times, uapi.AT_EMPTY_PATH))


def getxattr(descriptor: int, name: bytes | None, size: int) -> tuple[int, bytes]:
    """Read an extended attribute, or without a name the list of them.

    Args:
        descriptor: of the file; ``O_PATH`` will do.
        name: of the attribute.
        size: of the caller's buffer; 0 asks for the length.

    Returns:
        The length, and what to write into the buffer.

    Raises:
        OSError: as getxattr(2) and listxattr(2).
    """
    buffer = (Char * size)() if size else None
    path = by_descriptor(descriptor)
    length: int = _listxattr(path, buffer, size) if name is None else _getxattr(path, name, buffer, size)
    if length < 0:
        raise failed()
    return length, bytes(buffer)[:length] if buffer is not None else b""


def setxattr(descriptor: int, name: bytes, value: bytes, flags: int) -> None:
    """Set an extended attribute.

    Raises:
        OSError: as setxattr(2).
    """
    _check(_setxattr(by_descriptor(descriptor), name, value, len(value), flags))


def removexattr(descriptor: int, name: bytes) -> None:
    """Remove an extended attribute.

    Raises:
        OSError: as removexattr(2).
    """
    _check(_removexattr(by_descriptor(descriptor), name))


def link(descriptor: int, folder: int, name: bytes) -> None:
    """Give the descriptor's file a further name in ``folder``.

    By ``/proc/self/fd`` with ``AT_SYMLINK_FOLLOW``: an empty path would need CAP_DAC_READ_SEARCH (linkat(2)).

    Raises:
        OSError: as linkat(2).
    """
    _check(_linkat(uapi.AT_FDCWD, by_descriptor(descriptor), folder, name, uapi.AT_SYMLINK_FOLLOW))


_renameat2 = function("syscall", Long, Long, Pointer, Long, Pointer, Long)


def rename(old_folder: int, old: bytes, new_folder: int, new: bytes, flags: int) -> None:
    """Rename relative to two directories (renameat2(2)).

    Raises:
        OSError: as renameat2(2).
    """
    if _renameat2(number_of("renameat2"), old_folder, old, new_folder, new, flags) < 0:
        raise failed()


_mknodat = function("mknodat", Long, Pointer, Long, Long)


def mknod(folder: int, name: bytes, mode: int) -> None:
    """Make a file that is no device.

    Raises:
        OSError: as mknodat(2).
    """
    _check(_mknodat(folder, name, mode, 0))


_fcntl = function("fcntl", Long, Long, Long)
F_SETFL = 4


def set_status_flags(descriptor: int, flags: int) -> None:
    """Set the file status flags of an open file (``F_SETFL``).

    Raises:
        OSError: as fcntl(2).
    """
    _check(_fcntl(descriptor, F_SETFL, flags))


# --- Whose rights -----------------------------------------------------------------------------------------------------

_identity = function("syscall", Long, Long, Long, Long)
_set_groups = function("syscall", Long, Long, Pointer)


def set_thread_ids(name: str, real: int, effective: int, saved: int) -> None:
    """Call setresuid(2) or setresgid(2) for this thread alone: libc's functions change every thread.

    Raises:
        OSError: as setresuid(2).
    """
    _check(_identity(number_of(name), real, effective, saved))


def set_thread_groups(groups: tuple[int, ...]) -> None:
    """Call setgroups(2) for this thread alone.

    Raises:
        OSError: as setgroups(2).
    """
    packed = b"".join(group.to_bytes(4, "little") for group in groups)
    _check(_set_groups(number_of("setgroups"), len(groups), packed or None))
