"""Making, removing and moving names: mkdir, mknod, unlink, rmdir, rename, link, symlink.

Runs in: supervisor. A name is judged as the real path of its directory, which is held by a descriptor, and the last
component; the operation is made relative to that descriptor, without following a link in the last place. A thread that
swaps strings or links chooses which place is judged. One that swaps what is at the place itself gains nothing: whatever
is there is granted as that place is. One that moves the directory meanwhile needs fs.read and fs.write on all of it and
fs.write where it goes, and could have done the same there.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.judge import NEEDS, permits, permits_path, whole_tree
from sandboxed_python.broker.paths import find, find_entry
from sandboxed_python.broker.place import ONE_STEP, Entry
from sandboxed_python.broker.remote import umask
from sandboxed_python.broker.request import DENIED, DONE, Answer, DeniedError, failure
from sandboxed_python.kernel import files, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Handler, Request

    Operation = Callable[[Entry], None]
    Where = tuple[int, int]
    """The registers of a path: the descriptor that it starts from, its address."""

_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
_INVALID = failure(errno.EINVAL)
_NOTHING_THERE = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EACCES)
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000
_BUSY = failure(errno.EBUSY)


def _entry(request: Request, at: int, address: int) -> Entry:
    return find_entry(request, at, request.read_path(address))


def _at_name(request: Request, at: int, address: int, operation: Operation) -> Answer:
    entry = _entry(request, at, address)
    try:
        if not permits_path(request, entry.path):
            return DENIED
        if operation in (_unlink, _rmdir) and _stays(request, entry):
            return _BUSY
        request.confirm()
        operation(entry)
        return DONE
    finally:
        entry.close()


def with_mask(request: Request, make: Callable[[], int | None]) -> int | None:
    """Make a file under the caller's file mode creation mask, which the kernel applies or, for an ACL, does not."""
    old = os.umask(umask(request))
    try:
        return make()
    finally:
        os.umask(old)


def _mkdir(request: Request, at: int, address: int, mode: int) -> Answer:
    def make(entry: Entry) -> None:
        with_mask(request, lambda: os.mkdir(entry.name, mode & 0o7777, dir_fd=entry.folder))

    return _at_name(request, at, address, make)


def mkdir(request: Request) -> Answer:
    """mkdir(2). Races: see the module."""
    address, mode = request.arguments[:2]
    return _mkdir(request, _CWD, address, mode)


def mkdirat(request: Request) -> Answer:
    """mkdirat(2). Races: see the module."""
    at, address, mode = request.arguments[:3]
    return _mkdir(request, at, address, mode)


def _mknod(request: Request, at: int, address: int, mode: int) -> Answer:
    kind = mode & _S_IFMT
    if kind not in (0, uapi.S_IFREG, uapi.S_IFIFO, uapi.S_IFSOCK):
        # Devices and directories: EPERM as for anyone who may not; other kinds don't exist.
        return failure(errno.EPERM if kind in (0o020000, 0o060000, _S_IFDIR) else errno.EINVAL)
    if mode & 0o6000:
        return failure(errno.EPERM)  # no set-id bits, whatever is granted

    def make(entry: Entry) -> None:
        with_mask(request, lambda: files.mknod(entry.folder, entry.name, mode & 0o177777))

    return _at_name(request, at, address, make)


def mknod(request: Request) -> Answer:
    """mknod(2): files, named pipes and sockets; never devices. Races: see the module."""
    address, mode = request.arguments[:2]
    return _mknod(request, _CWD, address, mode)


def mknodat(request: Request) -> Answer:
    """mknodat(2), as mknod(2). Races: see the module."""
    at, address, mode = request.arguments[:3]
    return _mknod(request, at, address, mode)


def _unlink(entry: Entry) -> None:
    os.unlink(entry.name, dir_fd=entry.folder)


def _rmdir(entry: Entry) -> None:
    os.rmdir(entry.name, dir_fd=entry.folder)


def unlink(request: Request) -> Answer:
    """unlink(2). Races: see the module."""
    return _at_name(request, _CWD, request.arguments[0], _unlink)


def rmdir(request: Request) -> Answer:
    """rmdir(2). Races: see the module."""
    return _at_name(request, _CWD, request.arguments[0], _rmdir)


def unlinkat(request: Request) -> Answer:
    """unlinkat(2). Races: see the module."""
    at, address, flags = request.arguments[:3]
    flags &= 0xFFFFFFFF
    if flags & ~uapi.AT_REMOVEDIR:
        return _INVALID
    return _at_name(request, at, address, _rmdir if flags else _unlink)


def _leads_on(request: Request, path: str) -> bool:
    """Tell whether a link at a path would be followed by the next run on its way to what a grant names."""
    return path in request.granted.named or request.granted.above(path)


def _symlink(request: Request, text: int, at: int, address: int) -> Answer:
    target = request.read_path(text)
    if not target:
        return failure(errno.ENOENT)

    def make(entry: Entry) -> None:
        if _leads_on(request, entry.path):
            raise DeniedError
        os.symlink(target, entry.name, dir_fd=entry.folder)

    return _at_name(request, at, address, make)


def symlink(request: Request) -> Answer:
    """symlink(2): judged where the link is made; where it leads is judged when it is used. Races: see the module."""
    text, address = request.arguments[:2]
    return _symlink(request, text, _CWD, address)


def symlinkat(request: Request) -> Answer:
    """symlinkat(2), as symlink(2). Races: see the module."""
    text, at, address = request.arguments[:3]
    return _symlink(request, text, at, address)


def _rename(request: Request, old: Where, new: Where, flags: int) -> Answer:
    exchange = flags & uapi.RENAME_EXCHANGE
    if flags & ~(uapi.RENAME_NOREPLACE | uapi.RENAME_EXCHANGE | uapi.RENAME_WHITEOUT) or (
        exchange and flags != uapi.RENAME_EXCHANGE
    ):
        return _INVALID
    if flags & uapi.RENAME_WHITEOUT:
        return failure(errno.EPERM)  # leaves a device node behind
    source_needs, target_needs = NEEDS["rename"]
    if exchange:
        target_needs = source_needs  # both move
    old_path, new_path = request.read_path(old[1]), request.read_path(new[1])
    request.resource = old_path
    source = find_entry(request, old[0], old_path)
    try:
        # A folder that may not be searched fails before the other path is looked at.
        if not permits_path(request, source.path) or files.faccess(source.folder, os.X_OK, uapi.AT_EACCESS):
            return DENIED
        request.needs = target_needs
        request.resource = new_path
        target = find_entry(request, new[0], new_path)
        try:
            if not permits_path(request, target.path):
                return DENIED
            roots = request.granted.roots
            places = (source.path, target.path)
            # A granted folder that isn't there yet may come by this: what was there at the start can't have gone.
            if _stays(request, source) or (target.path in roots and not _comes_to_be(source, target)):
                return _BUSY
            moved = (source, target) if exchange else (source,)
            if any(_leads_on(request, path) for path in places) and any(_is(entry, _S_IFLNK) for entry in moved):
                return DENIED
            folders = [entry.path for entry in moved if _is(entry, _S_IFDIR)]
            if folders and any(request.granted.above(path) for path in places):
                return _BUSY
            if not all(whole_tree(request, path) for path in folders):
                return failure(errno.EXDEV)
            request.confirm()
            files.rename(source.folder, source.name, target.folder, target.name, flags)
            return DONE
        finally:
            target.close()
    finally:
        source.close()


def _comes_to_be(source: Entry, target: Entry) -> bool:
    """Tell whether a directory is moved to where nothing is, as far as one can see; see ``_is`` for races."""
    return not _kind(target) and _is(source, _S_IFDIR)


def _stays(request: Request, entry: Entry) -> bool:
    """Tell whether a granted folder, or a link to one, is at a place, as far as one can see; see ``_is`` for races.

    Nothing, or a file, may be where a grant expects a folder (``--allow-fs-write=name/*``): that may go.
    """
    return entry.path in request.granted.roots and _kind(entry) in (_S_IFDIR, _S_IFLNK)


def _is(entry: Entry, kind: int) -> bool:
    """Tell whether a file of a kind is at a place, as far as one can see.

    Links and directories are moved by this process alone, one call after the other, so none comes here meanwhile. A
    thread could put another file here between this look and the renaming. A directory that is not granted whole can't
    be moved by anybody in the sandbox, so none comes to a place where there was none.
    """
    return _kind(entry) == kind


def _kind(entry: Entry) -> int:
    """Return the type of the file at a place, 0 where there is none; see ``_is`` for races."""
    try:
        descriptor = os.open(entry.name.rstrip(b"/"), ONE_STEP, dir_fd=entry.folder)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return 0  # the renaming fails with that, too, or makes the name
        raise DeniedError from error
    try:
        return os.fstat(descriptor).st_mode & _S_IFMT
    finally:
        os.close(descriptor)


def rename(request: Request) -> Answer:
    """rename(2). Races: see the module and ``_is``."""
    old, new = request.arguments[:2]
    return _rename(request, (_CWD, old), (_CWD, new), 0)


def renameat(request: Request) -> Answer:
    """renameat(2). Races: see the module and ``_is``."""
    old_at, old, new_at, new = request.arguments[:4]
    return _rename(request, (old_at, old), (new_at, new), 0)


def renameat2(request: Request) -> Answer:
    """renameat2(2); an exchange needs for both what a source needs. Races: see the module and ``_is``."""
    old_at, old, new_at, new, flags = request.arguments[:5]
    return _rename(request, (old_at, old), (new_at, new), flags & 0xFFFFFFFF)


def _link(request: Request, old: Where, new: Where, flags: int) -> Answer:
    if flags & ~(uapi.AT_SYMLINK_FOLLOW | uapi.AT_EMPTY_PATH):
        return _INVALID
    source_needs, target_needs = NEEDS["link"]
    old_path, new_path = request.read_path(old[1]), request.read_path(new[1])
    request.resource = old_path
    empty = bool(flags & uapi.AT_EMPTY_PATH)
    source = find(request, old[0], old_path, follow=bool(flags & uapi.AT_SYMLINK_FOLLOW), empty=empty)
    try:
        # A further name must not give further rights: what may be read and written already has them all.
        request.needs = source_needs
        if not permits(request, source):
            return DENIED
        request.needs = target_needs
        request.resource = new_path
        target = find_entry(request, new[0], new_path)
        try:
            if not permits_path(request, target.path):
                return DENIED
            if target.name == b"/":
                return failure(errno.EEXIST)
            if _leads_on(request, target.path) and os.fstat(source.descriptor).st_mode & _S_IFMT == _S_IFLNK:
                return DENIED
            request.confirm()
            files.link(source.descriptor, target.folder, target.name)
            return DONE
        finally:
            target.close()
    finally:
        os.close(source.descriptor)


def link(request: Request) -> Answer:
    """link(2): of the object that was judged, by its descriptor. Races: see the module."""
    old, new = request.arguments[:2]
    return _link(request, (_CWD, old), (_CWD, new), 0)


def linkat(request: Request) -> Answer:
    """linkat(2), as link(2). Files made with ``O_TMPFILE`` get their name so. Races: see the module."""
    old_at, old, new_at, new, flags = request.arguments[:5]
    return _link(request, (old_at, old), (new_at, new), flags & 0xFFFFFFFF)


HANDLERS: dict[str, Handler] = {
    "mkdir": mkdir, "mkdirat": mkdirat, "mknod": mknod, "mknodat": mknodat, "unlink": unlink, "unlinkat": unlinkat,
    "rmdir": rmdir, "rename": rename, "renameat": renameat, "renameat2": renameat2, "link": link, "linkat": linkat,
    "symlink": symlink, "symlinkat": symlinkat,
}  # fmt: skip
