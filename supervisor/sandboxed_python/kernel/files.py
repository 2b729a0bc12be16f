"""The broker's calls on files: paths from descriptors, descriptors themselves, and whose rights they are made with.

Runs in: supervisor. Sources: openat2(2), statx(2) and their like. Result buffers are filled by the kernel itself with
its own structs and copied to the target as they are. Buffers are preallocated: only the one thread that serves the
listener may use the functions that say so.
"""

from __future__ import annotations

import os

from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Block, Char, Long, Pointer, addressof, function, get_errno, quick_function
from sandboxed_python.kernel.notify import COLUMN, Word, failed, number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
SIZEOF_STAT = uapi.SIZEOF_STAT[COLUMN]
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
    block = Block(size) if size else None
    buffer = block.pointer if block else None
    path = by_descriptor(descriptor)
    length: int = _listxattr(path, buffer, size) if name is None else _getxattr(path, name, buffer, size)
    if length < 0:
        raise failed()
    return length, bytes(block.data[:length]) if block else b""


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
