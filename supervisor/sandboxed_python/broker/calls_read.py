"""Asking about files: stat and its like, access, readlink, statfs, attributes, chdir.

Runs in: supervisor. In all of these the path is read once and resolved once, and what is told is told of the
descriptor that was judged. A thread that changes the string, a link or a folder meanwhile changes which object is
judged, and hears of that one or nothing. A thread that unmaps or reuses the result's memory gets EFAULT or its own
memory overwritten, as it would by the kernel.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.judge import permits
from sandboxed_python.broker.paths import find
from sandboxed_python.broker.place import BY_DESCRIPTOR, Place, on_proc, owner_of
from sandboxed_python.broker.remote import inside, thread_group
from sandboxed_python.broker.request import CONTINUE, DENIED, DONE, OURS, Answer, DeniedError, failure, int32
from sandboxed_python.kernel import files, notify, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Handler, Request

_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
_STAT_FLAGS = uapi.AT_SYMLINK_NOFOLLOW | uapi.AT_NO_AUTOMOUNT | uapi.AT_EMPTY_PATH | uapi.AT_STATX_SYNC_TYPE
_ACCESS_FLAGS = uapi.AT_EACCESS | uapi.AT_SYMLINK_NOFOLLOW | uapi.AT_EMPTY_PATH
_INVALID = failure(errno.EINVAL)
# What may be known of but not read (a folder above a grant) has no attributes, as on a file system without them: ls(1)
# and cp(1) ask for the access list of whatever they list, and complain about any other errno.
_NO_ATTRIBUTES = failure(errno.EOPNOTSUPP)
_S_IFMT, _S_IFLNK = 0o170000, 0o120000


def _find(request: Request, at: int, address: int, flags: int = 0) -> Place:
    """Read a path and reach what it means; flags are those of the ``*at`` calls.

    With ``AT_EMPTY_PATH``, NULL is an empty path, as it is for stat(2) since Linux 6.11.
    """
    empty = bool(flags & uapi.AT_EMPTY_PATH)
    path = b"" if empty and not address else request.read_path(address)
    return find(request, at, path, follow=not flags & uapi.AT_SYMLINK_NOFOLLOW, empty=empty)


def _stat(request: Request, at: int, address: int, result: int, flags: int) -> Answer:
    if flags & ~_STAT_FLAGS:
        return _INVALID
    empty = flags & uapi.AT_EMPTY_PATH
    path = b"" if empty and not address else request.read_path(address)
    if empty and not path and int32(at) != uapi.AT_FDCWD:
        return _fstat(request, int32(at), result)
    place = find(request, at, path, follow=not flags & uapi.AT_SYMLINK_NOFOLLOW, empty=bool(empty))
    try:
        if place.reached != BY_DESCRIPTOR and not permits(request, place):
            return DENIED
        files.fstat(place.descriptor)
        request.write_memory(result, files.RESULT, files.SIZEOF_STAT)
        return DONE
    finally:
        os.close(place.descriptor)


def _fstat(request: Request, descriptor: int, result: int) -> Answer:
    """Answer for one of the caller's own descriptors, which is never judged. C libraries ask so after every open."""
    number = files.stat_of(request.task, descriptor) if descriptor >= 0 else errno.ENOENT
    if number == errno.ENOENT:
        request.confirm()
        number = errno.EBADF
    if number == errno.EBADF or number in OURS:
        raise OSError(number, "")
    if number:
        raise DeniedError  # we may not look: the caller has other ids
    request.write_memory(result, files.RESULT, files.SIZEOF_STAT)
    return DONE


def stat(request: Request) -> Answer:
    """stat(2): the object's metadata, if it may be known. Races: see the module."""
    address, result = request.arguments[:2]
    return _stat(request, _CWD, address, result, 0)


def lstat(request: Request) -> Answer:
    """lstat(2): a link's own metadata, judged where the link is. Races: see the module."""
    address, result = request.arguments[:2]
    return _stat(request, _CWD, address, result, uapi.AT_SYMLINK_NOFOLLOW)


def newfstatat(request: Request) -> Answer:
    """fstatat(2). With an empty path it is fstat(2), which is never judged. Races: see the module."""
    at, address, result, flags = request.arguments[:4]
    return _stat(request, at, address, result, flags & 0xFFFFFFFF)


def statx(request: Request) -> Answer:
    """statx(2), as stat(2). Races: see the module."""
    at, address, flags, mask, result = request.arguments[:5]
    flags &= 0xFFFFFFFF
    mask &= 0xFFFFFFFF
    if flags & ~_STAT_FLAGS or mask & uapi.STATX_RESERVED or flags & uapi.AT_STATX_SYNC_TYPE == uapi.AT_STATX_SYNC_TYPE:
        return _INVALID
    place = _find(request, at, address, flags)
    try:
        if place.reached != BY_DESCRIPTOR and not permits(request, place):
            return DENIED
        files.statx(place.descriptor, flags & uapi.AT_STATX_SYNC_TYPE, mask)
        request.write_memory(result, files.RESULT, uapi.SIZEOF_STATX)
        return DONE
    finally:
        os.close(place.descriptor)


def _access(request: Request, at: int, address: int, mode: int, flags: int) -> Answer:
    mode &= 0xFFFFFFFF
    if mode & ~7 or flags & ~_ACCESS_FLAGS:
        return _INVALID
    place = _find(request, at, address, flags)
    try:
        if place.reached != BY_DESCRIPTOR:
            if not permits(request, place):
                return DENIED
            # The answer is what a following open would meet: that needs the grant as well as the file's permission.
            request.needs = (*(("write",) if mode & os.W_OK else ()), *(("read",) if mode & os.R_OK else ()))
            if not request.granted.policy.granted("fs.metadata") and not permits(request, place):
                return DENIED
        number = files.faccess(place.descriptor, mode, flags & uapi.AT_EACCESS)
        return failure(number) if number else DONE
    finally:
        os.close(place.descriptor)


def access(request: Request) -> Answer:
    """access(2): the permissions for the real ids, and the grant that each of them needs. Races: see the module."""
    address, mode = request.arguments[:2]
    return _access(request, _CWD, address, mode, 0)


def faccessat(request: Request) -> Answer:
    """faccessat(2) without flags, which the call by this number doesn't have. Races: see the module."""
    at, address, mode = request.arguments[:3]
    return _access(request, at, address, mode, 0)


def faccessat2(request: Request) -> Answer:
    """faccessat2(2): as access(2), for the effective ids if asked. Races: see the module."""
    at, address, mode, flags = request.arguments[:4]
    return _access(request, at, address, mode, flags & 0xFFFFFFFF)


def _readlink(request: Request, at: int, address: int, result: int, size: int) -> Answer:
    size = int32(size)
    if size <= 0:
        return _INVALID
    path = request.read_path(address)
    # An O_PATH descriptor of a link is read with an empty path: its opening was judged.
    place = find(request, at, path, follow=False, empty=int32(at) != uapi.AT_FDCWD)
    try:
        if place.reached != BY_DESCRIPTOR and not permits(request, place):
            return DENIED
        if os.fstat(place.descriptor).st_mode & _S_IFMT != _S_IFLNK:
            return _INVALID if path else failure(errno.ENOENT)
        target = _target(request, place)
        request.write_bytes(result, target[:size])
        return Answer(value=min(len(target), size))
    finally:
        os.close(place.descriptor)


def _target(request: Request, place: Place) -> bytes:
    """Return a link's text as the caller reads it: in procfs, ``self`` is the caller."""
    if place.path.startswith("/proc/") or on_proc(place):
        head, _slash, name = place.path.rpartition("/")
        if name in ("self", "thread-self") and head == "/proc":
            group = thread_group(request)
            return b"%d" % group if name == "self" else b"%d/task/%d" % (group, request.task)
        owner = owner_of(place.path)
        if owner >= 0 and not inside(request, owner):
            raise OSError(errno.EACCES, "")
    return os.readlink(b"", dir_fd=place.descriptor)


def readlink(request: Request) -> Answer:
    """readlink(2): a link's text, judged where the link is. Races: see the module."""
    address, result, size = request.arguments[:3]
    return _readlink(request, _CWD, address, result, size)


def readlinkat(request: Request) -> Answer:
    """readlinkat(2), as readlink(2). Races: see the module."""
    at, address, result, size = request.arguments[:4]
    return _readlink(request, at, address, result, size)


def statfs(request: Request) -> Answer:
    """statfs(2): the file system of a file that may be read. Races: see the module."""
    address, result = request.arguments[:2]
    place = _find(request, _CWD, address)
    try:
        if not permits(request, place):
            return DENIED
        files.fstatfs(place.descriptor)
        request.write_memory(result, files.RESULT, uapi.SIZEOF_STATFS)
        return DONE
    finally:
        os.close(place.descriptor)


def _getxattr(request: Request, follow: int, *, listing: bool) -> Answer:
    address = request.arguments[0]
    result, size = request.arguments[1:3] if listing else request.arguments[2:4]
    name = None
    if not listing:
        name = notify.read_string(request.task, request.arguments[1], uapi.XATTR_NAME_MAX + 1, errno.ERANGE)
        if not name:
            return failure(errno.ERANGE)
    place = _find(request, _CWD, address, follow)
    try:
        checks = request.granted.checks
        if not checks["read"](place.path) and checks["stat"](place.path):
            return _NO_ATTRIBUTES
        if not permits(request, place):
            return DENIED
        length, data = files.getxattr(place.descriptor, name, min(size, uapi.XATTR_SIZE_MAX))
        request.write_bytes(result, data)
        return Answer(value=length)
    finally:
        os.close(place.descriptor)


def getxattr(request: Request) -> Answer:
    """getxattr(2): an attribute of a file that may be read. Races: see the module."""
    return _getxattr(request, 0, listing=False)


def lgetxattr(request: Request) -> Answer:
    """lgetxattr(2): an attribute of a link itself. Races: see the module."""
    return _getxattr(request, uapi.AT_SYMLINK_NOFOLLOW, listing=False)


def listxattr(request: Request) -> Answer:
    """listxattr(2): the names of the attributes. Races: see the module."""
    return _getxattr(request, 0, listing=True)


def llistxattr(request: Request) -> Answer:
    """llistxattr(2): the names of a link's own attributes. Races: see the module."""
    return _getxattr(request, uapi.AT_SYMLINK_NOFOLLOW, listing=True)


def chdir(request: Request) -> Answer:
    """chdir(2): refused for what may not be known, else left to the kernel.

    The kernel reads the path again, so a racing thread can reach any directory. That gains nothing but to know that it
    is there: whatever is done from a working directory is judged where it arrives.
    """
    place = _find(request, _CWD, request.arguments[0])
    try:
        return CONTINUE if permits(request, place) else DENIED
    finally:
        place.close()


HANDLERS: dict[str, Handler] = {
    "stat": stat, "lstat": lstat, "newfstatat": newfstatat, "statx": statx, "access": access, "faccessat": faccessat,
    "faccessat2": faccessat2, "readlink": readlink, "readlinkat": readlinkat, "statfs": statfs, "getxattr": getxattr,
    "lgetxattr": lgetxattr, "listxattr": listxattr, "llistxattr": llistxattr, "chdir": chdir,
}  # fmt: skip
