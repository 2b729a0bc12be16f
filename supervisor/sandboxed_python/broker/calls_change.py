"""Changing a file's mode, owner, times, attributes and length.

Runs in: supervisor. The path is read once and resolved once; the change is made through the very descriptor that was
judged, so a thread that swaps strings, links or folders only chooses which object is judged. Arguments in memory
(times, attribute values) are read once, too, and the caller could have passed any. The calls by descriptor take the
file of the caller's descriptor once: a thread that puts another file in its place has that one judged, or changes the
first.
"""

from __future__ import annotations

import errno
import os
import resource

from sandboxed_python.broker.judge import permits
from sandboxed_python.broker.paths import find
from sandboxed_python.broker.place import BY_DESCRIPTOR, PATH_FLAGS, Place
from sandboxed_python.broker.remote import status_flags
from sandboxed_python.broker.request import DENIED, DONE, Answer, DeniedError, failure, int32, real_path
from sandboxed_python.kernel import files, notify, uapi
from sandboxed_python.record.wire import WIRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Handler, Request

    Change = Callable[[Place], None]

_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
_FLAGS = uapi.AT_SYMLINK_NOFOLLOW | uapi.AT_EMPTY_PATH
_INVALID = failure(errno.EINVAL)
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000


def _apply(request: Request, place: Place, change: Change) -> Answer:
    """Judge the place, make the change there, and close it."""
    try:
        if not permits(request, place):
            return DENIED
        request.confirm()
        change(place)
        return DONE
    finally:
        os.close(place.descriptor)


def _by_path(request: Request, at: int, address: int, flags: int, change: Change) -> Answer:
    if flags & ~_FLAGS:
        return _INVALID
    path = request.read_path(address)
    empty = bool(flags & uapi.AT_EMPTY_PATH)
    return _apply(request, find(request, at, path, follow=not flags & uapi.AT_SYMLINK_NOFOLLOW, empty=empty), change)


def _by_descriptor(request: Request, descriptor: int, change: Change) -> Answer:
    """Judge by what the descriptor's file may be, however it was opened. ``O_PATH`` descriptors are EBADF here."""
    number = int32(descriptor)
    if number < 0:
        return failure(errno.EBADF)
    try:
        flags = status_flags(request, number)
        mine = os.open(f"/proc/{request.task}/fd/{number}", PATH_FLAGS)
    except FileNotFoundError:
        return failure(errno.EBADF)
    except PermissionError as error:
        raise DeniedError from error
    try:
        place = Place(mine, real_path(mine), BY_DESCRIPTOR)
    except BaseException:
        os.close(mine)
        raise
    if flags & os.O_PATH:
        place.close()
        return failure(errno.EBADF)
    return _apply(request, place, change)


# Mode


def _mode(mode: int) -> Change:
    mode &= 0o7777

    def change(place: Place) -> None:
        kind = os.fstat(place.descriptor).st_mode & _S_IFMT
        if kind == _S_IFLNK:
            raise OSError(errno.EOPNOTSUPP, "")
        # No set-id bits, whatever is granted; on a directory, S_ISGID only hands down the group.
        if mode & (0o4000 if kind == _S_IFDIR else 0o6000):
            raise OSError(errno.EPERM, "")
        os.chmod(f"/proc/self/fd/{place.descriptor}", mode)

    return change


def chmod(request: Request) -> Answer:
    """chmod(2). Races: see the module."""
    address, mode = request.arguments[:2]
    return _by_path(request, _CWD, address, 0, _mode(mode))


def fchmodat(request: Request) -> Answer:
    """fchmodat(2) without flags, which the call by this number doesn't have. Races: see the module."""
    at, address, mode = request.arguments[:3]
    return _by_path(request, at, address, 0, _mode(mode))


def fchmodat2(request: Request) -> Answer:
    """fchmodat2(2). Races: see the module."""
    at, address, mode, flags = request.arguments[:4]
    return _by_path(request, at, address, flags & 0xFFFFFFFF, _mode(mode))


def fchmod(request: Request) -> Answer:
    """fchmod(2), judged by the file. Races: see the module."""
    descriptor, mode = request.arguments[:2]
    return _by_descriptor(request, descriptor, _mode(mode))


# Owner


def _owner(uid: int, gid: int) -> Change:
    uid &= 0xFFFFFFFF
    gid &= 0xFFFFFFFF
    return lambda place: files.fchown(place.descriptor, uid, gid)


def chown(request: Request) -> Answer:
    """chown(2). Races: see the module."""
    address, uid, gid = request.arguments[:3]
    return _by_path(request, _CWD, address, 0, _owner(uid, gid))


def lchown(request: Request) -> Answer:
    """lchown(2): of a link itself, judged where the link is. Races: see the module."""
    address, uid, gid = request.arguments[:3]
    return _by_path(request, _CWD, address, uapi.AT_SYMLINK_NOFOLLOW, _owner(uid, gid))


def fchownat(request: Request) -> Answer:
    """fchownat(2). Races: see the module."""
    at, address, uid, gid, flags = request.arguments[:5]
    return _by_path(request, at, address, flags & 0xFFFFFFFF, _owner(uid, gid))


def fchown(request: Request) -> Answer:
    """fchown(2), judged by the file. Races: see the module."""
    descriptor, uid, gid = request.arguments[:3]
    return _by_descriptor(request, descriptor, _owner(uid, gid))


# Times


def _times(packed: bytes | None) -> Change:
    return lambda place: files.utimens(place.descriptor, packed)


def _pack(*words: int) -> bytes:
    return b"".join([word.to_bytes(8, "little", signed=True) for word in words])


def _words(request: Request, address: int, count: int) -> list[int]:
    raw = notify.read_memory(request.task, address, 8 * count)
    return [int.from_bytes(raw[at : at + 8], "little", signed=True) for at in range(0, len(raw), 8)]


def utime(request: Request) -> Answer:
    """utime(2): whole seconds. Races: see the module."""
    address, times = request.arguments[:2]
    packed = None
    if times:
        access, change = _words(request, times, 2)
        packed = _pack(access, 0, change, 0)
    return _by_path(request, _CWD, address, 0, _times(packed))


def _microseconds(request: Request, at: int, address: int, times: int) -> Answer:
    packed = None
    if times:
        seconds, micro, seconds2, micro2 = _words(request, times, 4)
        if not (0 <= micro < 1000000 and 0 <= micro2 < 1000000):
            return _INVALID
        packed = _pack(seconds, micro * 1000, seconds2, micro2 * 1000)
    if not address and int32(at) >= 0:
        return _by_descriptor(request, at, _times(packed))
    return _by_path(request, at, address, 0, _times(packed))


def utimes(request: Request) -> Answer:
    """utimes(2). Races: see the module."""
    address, times = request.arguments[:2]
    return _microseconds(request, _CWD, address, times)


def futimesat(request: Request) -> Answer:
    """futimesat(2); without a path, of the descriptor's file. Races: see the module."""
    at, address, times = request.arguments[:3]
    return _microseconds(request, at, address, times)


def utimensat(request: Request) -> Answer:
    """utimensat(2); without a path it is futimens(3), judged by the file. Races: see the module."""
    at, address, times, flags = request.arguments[:4]
    packed = None
    if times:
        packed = notify.read_memory(request.task, times, 32)
        nanoseconds = [int.from_bytes(packed[place : place + 8], "little") for place in (8, 24)]
        if nanoseconds == [uapi.UTIME_OMIT, uapi.UTIME_OMIT]:
            return DONE  # the kernel doesn't look at the path either
    flags &= 0xFFFFFFFF
    if not address and int32(at) != uapi.AT_FDCWD:
        return _INVALID if flags else _by_descriptor(request, at, _times(packed))
    return _by_path(request, at, address, flags, _times(packed))


# Attributes


def _attribute_name(request: Request, address: int) -> bytes:
    """Read the name of an attribute that is to be changed: only ``user.*``, whatever is granted.

    Raises:
        OSError: ``ERANGE``, ``EFAULT``; ``EPERM`` for names that mean rights; ``EOPNOTSUPP`` for the system's others,
            which programs that copy files take for a file system without them.
    """
    name = notify.read_string(request.task, address, uapi.XATTR_NAME_MAX + 1, errno.ERANGE)
    if not name:
        raise OSError(errno.ERANGE, "")
    if not name.startswith(b"user."):
        raise OSError(errno.EPERM if name.startswith((b"trusted.", b"security.")) else errno.EOPNOTSUPP, "")
    return name


def _setting(request: Request) -> Change:
    name_at, value_at, size, flags = request.arguments[1:5]
    flags &= 0xFFFFFFFF
    if flags & ~3:
        raise OSError(errno.EINVAL, "")
    name = _attribute_name(request, name_at)
    if size > uapi.XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, "")
    value = notify.read_memory(request.task, value_at, size)
    return lambda place: files.setxattr(place.descriptor, name, value, flags)


def _removing(request: Request) -> Change:
    name = _attribute_name(request, request.arguments[1])
    return lambda place: files.removexattr(place.descriptor, name)


def setxattr(request: Request) -> Answer:
    """setxattr(2). Races: see the module."""
    return _by_path(request, _CWD, request.arguments[0], 0, _setting(request))


def lsetxattr(request: Request) -> Answer:
    """lsetxattr(2): of a link itself. Races: see the module."""
    return _by_path(request, _CWD, request.arguments[0], uapi.AT_SYMLINK_NOFOLLOW, _setting(request))


def fsetxattr(request: Request) -> Answer:
    """fsetxattr(2), judged by the file; on the wire, a message to the supervisor. Races: see the module."""
    if request.arguments[0] & 0xFFFFFFFF == WIRE:
        from sandboxed_python.broker.control import message

        return message(request)
    return _by_descriptor(request, request.arguments[0], _setting(request))


def removexattr(request: Request) -> Answer:
    """removexattr(2). Races: see the module."""
    return _by_path(request, _CWD, request.arguments[0], 0, _removing(request))


def lremovexattr(request: Request) -> Answer:
    """lremovexattr(2): of a link itself. Races: see the module."""
    return _by_path(request, _CWD, request.arguments[0], uapi.AT_SYMLINK_NOFOLLOW, _removing(request))


def fremovexattr(request: Request) -> Answer:
    """fremovexattr(2), judged by the file. Races: see the module."""
    return _by_descriptor(request, request.arguments[0], _removing(request))


# Length


def truncate(request: Request) -> Answer:
    """truncate(2), within the caller's own limit on file sizes. Races: see the module."""
    address, length = request.arguments[:2]
    length = length - (1 << 64) if length >> 63 else length
    if length < 0:
        return _INVALID

    def change(place: Place) -> None:
        limit = resource.prlimit(request.task, resource.RLIMIT_FSIZE)[0]
        if 0 <= limit < length and os.fstat(place.descriptor).st_size < length:
            raise OSError(errno.EFBIG, "")
        os.truncate(f"/proc/self/fd/{place.descriptor}", length)

    return _by_path(request, _CWD, address, 0, change)


HANDLERS: dict[str, Handler] = {
    "chmod": chmod, "fchmod": fchmod, "fchmodat": fchmodat, "fchmodat2": fchmodat2, "chown": chown, "fchown": fchown,
    "lchown": lchown, "fchownat": fchownat, "utime": utime, "utimes": utimes, "futimesat": futimesat,
    "utimensat": utimensat, "setxattr": setxattr, "lsetxattr": lsetxattr, "fsetxattr": fsetxattr,
    "removexattr": removexattr, "lremovexattr": lremovexattr, "fremovexattr": fremovexattr, "truncate": truncate,
}  # fmt: skip
