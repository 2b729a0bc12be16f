"""Opening files: what Landlock can't name (prefixes, names that don't exist yet), and ``O_PATH``.

Runs in: supervisor. What Landlock alone decides is let through: the kernel resolves the path again and judges what it
reaches, so a racing thread reaches what Landlock grants and nothing else. All other files are opened here: an existing
one through the descriptor that was judged, a new one relative to its directory without following a link in the last
place, and then looked at again. A thread that swaps strings, links or names chooses which file is judged; what it puts
at the very place that is granted is granted.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.calls_names import with_mask
from sandboxed_python.broker.judge import needs_of_open, permits, permits_path
from sandboxed_python.broker.later import later
from sandboxed_python.broker.paths import find, find_entry, find_or_entry
from sandboxed_python.broker.place import BY_NAME, Entry, Place, below, on_proc, owner_of
from sandboxed_python.broker.remote import inside
from sandboxed_python.broker.request import CONTINUE, DENIED, Answer, failure, real_path
from sandboxed_python.kernel import files, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Handler, Request

_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY
# Open(2) ignores other bits.
_KNOWN = (
    os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_DSYNC
    | os.O_SYNC | os.O_ASYNC | os.O_DIRECT | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC | os.O_PATH
    | os.O_TMPFILE
)  # fmt: skip
# What the caller's flags may not do here: make us follow, create twice, or take the caller's terminal as ours.
_OURS = os.O_CLOEXEC | os.O_NOCTTY
_CONTENTS = os.O_TRUNC | os.O_APPEND | os.O_DIRECT | _TMPFILE  # O_PATH ignores them
_NOT_AGAIN = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_S_IFMT, _S_IFREG, _S_IFDIR, _S_IFCHR, _S_IFIFO, _S_IFLNK = 0o170000, 0o100000, 0o040000, 0o020000, 0o010000, 0o120000
_TRIES = 4
# Character devices that never block: null, zero, full, random, urandom (Documentation/admin-guide/devices.txt).
_READY_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))
_TERMINAL = os.makedev(5, 0)  # /dev/tty: the terminal of whoever opens it


def _open(request: Request, at: int, address: int, flags: int, mode: int) -> Answer:
    flags &= _KNOWN
    request.needs = needs_of_open(flags)
    if request.stranger:  # Landlock judges contents all the same
        return CONTINUE if request.context.landlock and not flags & os.O_PATH else DENIED
    path = request.read_path(address)
    if flags & os.O_PATH:
        return _open_path(request, find(request, at, path, follow=not flags & os.O_NOFOLLOW), flags)
    if flags & _TMPFILE:
        return _open_nameless(request, find(request, at, path), flags, mode)
    if flags & os.O_CREAT:
        if mode & 0o6000:
            return failure(errno.EPERM)  # no set-id bits, whatever is granted
        for _try in range(_TRIES):
            answer = _create(request, at, path, flags, mode)
            if answer is not None:
                return answer
        return DENIED
    return _open_place(request, find(request, at, path, follow=not flags & os.O_NOFOLLOW), flags)


def _handed(descriptor: int, flags: int) -> Answer:
    return Answer(Answer.DESCRIPTOR, descriptor=descriptor, close_on_exec=bool(flags & os.O_CLOEXEC))


def _kernel_decides(request: Request, path: str) -> bool:
    """Tell whether Landlock alone lets the file be opened for what is needed."""
    granted = request.granted
    return ("read" not in request.needs or granted.kernel_reads(path)) and (
        "write" not in request.needs or granted.kernel_writes(path)
    )


def _open_path(request: Request, place: Place, flags: int) -> Answer:
    """``O_PATH``, as near as can be: ``SECCOMP_IOCTL_NOTIF_ADDFD`` hands over no ``O_PATH`` descriptors (EBADF).

    So the caller gets one that is open for reading, of a file or directory that it may read: that does all that an
    ``O_PATH`` one does, and reads besides. What can't be opened for reading without consequences (links, named pipes,
    sockets, devices), and what may only be known of, is refused.
    """
    try:
        if not permits(request, place) or not _may_look_into(request, place):
            return DENIED
        kind = os.fstat(place.descriptor).st_mode & _S_IFMT
        if flags & os.O_DIRECTORY and kind != _S_IFDIR:
            return failure(errno.ENOTDIR)
        if kind == _S_IFLNK:
            return failure(errno.ELOOP)
        if kind not in (_S_IFREG, _S_IFDIR):
            return DENIED
        request.confirm()
        return _handed(_reopen(place.descriptor, flags & ~os.O_PATH & ~os.O_ACCMODE & ~_CONTENTS), flags)
    finally:
        place.close()


def _open_nameless(request: Request, place: Place, flags: int, mode: int) -> Answer:
    """``O_TMPFILE``: a file in a directory, without a name; judged as some new name in it."""
    try:
        if mode & 0o6000:
            return failure(errno.EPERM)
        inside_it = below(place.path, "#")
        if _kernel_decides(request, inside_it):
            return CONTINUE
        if not permits_path(request, inside_it):
            return DENIED
        request.confirm()
        ours = (flags & ~os.O_NOFOLLOW) | _OURS
        descriptor = with_mask(request, lambda: os.open(".", ours, mode & 0o7777, dir_fd=place.descriptor))
        assert descriptor is not None
        return _handed(descriptor, flags)
    finally:
        place.close()


def _open_place(request: Request, place: Place, flags: int) -> Answer:
    """Open an existing object for its contents."""
    keep = False
    try:
        if place.reached != BY_NAME and place.path[:1] != "/":
            # A pipe or the like, through the caller's own descriptor: no path rule concerns it (Landlock leaves out the
            # kernel's internal mounts), and Landlock judges whatever else the path may have come to mean.
            return CONTINUE if request.context.landlock else DENIED
        if _kernel_decides(request, place.path):
            return CONTINUE
        if not permits(request, place) or not _may_look_into(request, place):
            return DENIED
        request.confirm()
        found = os.fstat(place.descriptor)
        kind = found.st_mode & _S_IFMT
        if kind == _S_IFLNK:
            return failure(errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP)
        if kind == _S_IFDIR and flags & os.O_CREAT:
            return failure(errno.EISDIR)
        if kind in (_S_IFREG, _S_IFDIR) or found.st_rdev in _READY_DEVICES:
            return _handed(_reopen(place.descriptor, flags), flags)
        if found.st_rdev == _TERMINAL and kind == _S_IFCHR and not _same_session(request):
            return failure(errno.ENXIO)
        keep = True
        return _open_slowly(request, place, flags)
    finally:
        if not keep:
            place.close()


def _may_look_into(request: Request, place: Place) -> bool:
    """Tell whether the caller itself could open this, where procfs asks who is asking."""
    if not on_proc(place):
        return True
    owner = owner_of(place.path)
    return owner < 0 or inside(request, owner)


def _same_session(request: Request) -> bool:
    """Tell whether the caller has our terminal."""
    try:
        return os.getsid(request.task) == os.getsid(0)
    except OSError:
        return False


def _reopen(descriptor: int, flags: int) -> int:
    """Open what a descriptor stands for with the caller's flags; never waits for a lease to be given back."""
    opened = os.open(f"/proc/self/fd/{descriptor}", (flags & ~_NOT_AGAIN) | _OURS | os.O_NONBLOCK)
    return _as_asked(opened, flags)


def _as_asked(opened: int, flags: int) -> int:
    """Take back the ``O_NONBLOCK`` that the caller didn't ask for."""
    if not flags & os.O_NONBLOCK:
        try:
            files.set_status_flags(opened, flags & ~os.O_NONBLOCK)
        except BaseException:
            os.close(opened)
            raise
    return opened


def _open_slowly(request: Request, place: Place, flags: int) -> Answer:
    """Open a named pipe or a device, which may take for ever; closes the place."""
    path = f"/proc/self/fd/{place.descriptor}"
    ours = (flags & ~_NOT_AGAIN) | _OURS

    def work() -> Answer:
        try:
            return _handed(os.open(path, ours), flags)
        finally:
            place.close()

    if flags & os.O_NONBLOCK:
        return work()
    answer = DENIED
    try:
        answer = later(request, work, path)
    finally:
        if answer is DENIED:
            place.close()
    return answer


def _create(request: Request, at: int, path: bytes, flags: int, mode: int) -> Answer | None:
    """Open with ``O_CREAT``; None when the name changed meanwhile and is to be looked up again."""
    if flags & os.O_EXCL or path[-1:] == b"/":  # a link is in the way; EISDIR
        entry = find_entry(request, at, path)
    else:
        found = find_or_entry(request, at, path, follow=not flags & os.O_NOFOLLOW)
        if isinstance(found, Place):
            return _open_place(request, found, flags)
        entry = found
    try:
        if _kernel_decides(request, entry.path):
            return CONTINUE
        if not permits_path(request, entry.path):
            return DENIED
        request.confirm()
        if entry.descriptor >= 0 and os.fstat(entry.descriptor).st_mode & _S_IFMT not in (_S_IFREG, _S_IFDIR):
            place = Place(os.dup(entry.descriptor), entry.path)
            return _open_place(request, place, flags)
        return _create_here(request, entry, flags, mode)
    finally:
        entry.close()


def _create_here(request: Request, entry: Entry, flags: int, mode: int) -> Answer | None:
    ours = flags | _OURS | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        opened = with_mask(request, lambda: os.open(entry.name, ours, mode & 0o7777, dir_fd=entry.folder))
    except OSError as error:
        # A link came to the place; ENXIO is a pipe or a socket that did, if it was none before.
        raced = error.errno == errno.ELOOP and not flags & os.O_NOFOLLOW
        if raced or (error.errno == errno.ENXIO and entry.descriptor < 0):
            return None
        raise
    assert opened is not None
    keep = False
    try:
        if os.fstat(opened).st_mode & _S_IFMT not in (_S_IFREG, _S_IFDIR):
            return None  # it came to the place meanwhile: look again
        # The directory may have been moved meanwhile.
        place = real_path(opened)
        if place != entry.path and not permits(request, Place(opened, place)):
            return DENIED
        keep = True
    finally:
        if not keep:
            os.close(opened)
    return _handed(_as_asked(opened, flags), flags)


def open_(request: Request) -> Answer:
    """open(2). Races: see the module."""
    address, flags, mode = request.arguments[:3]
    return _open(request, _CWD, address, flags, mode)


def openat(request: Request) -> Answer:
    """openat(2). Races: see the module."""
    at, address, flags, mode = request.arguments[:4]
    return _open(request, at, address, flags, mode)


def creat(request: Request) -> Answer:
    """creat(2). Races: see the module."""
    address, mode = request.arguments[:2]
    return _open(request, _CWD, address, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)


HANDLERS: dict[str, Handler] = {"open": open_, "openat": openat, "creat": creat}
