"""Resolving a path as the caller would: its root, its working directory, its descriptors, its /proc.

Runs in: supervisor. What counts is the object that is reached: an ``O_PATH`` descriptor, whose place the kernel tells
(``/proc/self/fd``). Two ways lead there:

- The kernel resolves the whole path in one openat2(2) that refuses magic links (or all links: then the path as spelled
  is the real one). The supervisor has the caller's root
  and mounts, and the caller's working directory or descriptor is opened through ``/proc/<task>``; so the answer is the
  caller's, unless the path leads into procfs, where ``self`` would be the supervisor.
- Everything else, failures included, is walked component by component (``broker.walk``).
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.place import (
    BY_DESCRIPTOR,
    BY_NAME,
    FORGET,
    ONE_STEP,
    PATH_FLAGS,
    S_IFLNK,
    S_IFMT,
    Entry,
    Place,
    arrived,
    entry_path,
    open_base,
    open_folder,
    same_root,
)
from sandboxed_python.broker.request import OURS, StoppedError, int32
from sandboxed_python.broker.walk import Walk
from sandboxed_python.kernel import files, uapi
from sandboxed_python.kernel.calls import get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request


def find(request: Request, at: int, path: bytes, *, follow: bool = True, empty: bool = False) -> Place:
    """Reach an existing object.

    Args:
        request: whose path it is.
        at: register with the directory descriptor that a relative path starts from.
        path: as the caller spelled it.
        follow: follow a link in the last place.
        empty: an empty path means the descriptor itself (``AT_EMPTY_PATH``).

    Raises:
        StoppedError: as the kernel's errno, not yet judged.
        OSError: ``ENOENT`` for an empty path, ``EBADF``: these tell nothing about files.
    """
    if path[:1] == b"/":
        place = _find_straight(request, path, follow=follow)
        if place is not None:
            return place
    elif not path:
        if not empty:
            raise OSError(errno.ENOENT, "")
        at = int32(at)
        descriptor = open_base(request, at)
        return arrived(descriptor, BY_DESCRIPTOR if at != uapi.AT_FDCWD else BY_NAME)
    at = int32(at)
    if same_root(request):
        how = files.FOLLOW if follow else files.NO_FOLLOW
        if path[0] == 47:  # "/"
            descriptor = files.open_path(uapi.AT_FDCWD, path, how)
        else:
            base = open_folder(request, at)
            descriptor = files.open_path(base, path, how)
            os.close(base)
        if descriptor >= 0:
            place = arrived(descriptor)
            if not place.path.startswith("/proc/"):
                return place
            place.close()
    found = Walk(request, at, path, follow=follow).run()
    assert isinstance(found, Place)
    return found


def _find_straight(request: Request, path: bytes, *, follow: bool) -> Place | None:
    """Reach what has no link on its way: then the path, spelled without detours, is the real one.

    Which paths are spelled so, and which of them were seen to have links on their way, is remembered to save vain
    attempts; whether this one has any now, the kernel is asked every time.
    """
    straight = request.context.straight
    spelled = straight.get(path)
    if spelled is None:
        spelled = os.fsdecode(path)
        if spelled[-1] == "/" or "/." in spelled or "//" in spelled or spelled[:6] == "/proc/":
            spelled = ""
        if len(straight) >= FORGET:
            straight.clear()
        straight[path] = spelled
    if not spelled or not (request.task in request.context.rooted or same_root(request)):
        return None
    descriptor = files.open_path(uapi.AT_FDCWD, path, files.STRAIGHT if follow else files.STRAIGHT_NO_FOLLOW)
    if descriptor >= 0:
        return Place(descriptor, spelled)
    if get_errno() == errno.ELOOP:
        straight[path] = ""
    return None


def split(path: bytes) -> tuple[bytes, bytes]:
    """Split off the last component: (what leads to its directory, the name and its trailing slashes)."""
    at = path.rstrip(b"/").rfind(b"/") + 1
    return path[:at], path[at:]


def find_entry(request: Request, at: int, path: bytes) -> Entry:
    """Reach the directory of a path's last component, which is not looked up.

    Raises:
        StoppedError: as the kernel's errno, not yet judged.
        OSError: ``ENOENT`` for an empty path, ``EBADF``.
    """
    head, name = split(path)
    if not name.rstrip(b"/"):
        if not path:
            raise OSError(errno.ENOENT, "")
        return Entry(os.open("/", PATH_FLAGS), b"/", "/")
    try:
        folder = find(request, at, head) if head else arrived(open_folder(request, int32(at)))
    except StoppedError as stop:
        rest = (stop.rest + b"/" + name) if stop.rest else name
        raise StoppedError(stop.number, stop.path, rest) from None
    try:
        return Entry(folder.descriptor, name, entry_path(folder, name))
    except BaseException:
        folder.close()
        raise


def find_or_entry(request: Request, at: int, path: bytes, *, follow: bool) -> Entry | Place:
    """Reach the last component for open(2) with ``O_CREAT``: a link in the last place is followed, also a dangling one.

    Returns:
        The entry with the descriptor of what is there, or with -1 where a file would be made. The object itself where a
        magic link leads to it (``/dev/stderr``): it may have no name.

    Raises:
        StoppedError: as the kernel's errno, not yet judged.
    """
    entry = find_entry(request, at, path)
    if entry.name == b"/":
        return entry
    try:
        entry.descriptor = os.open(entry.name.rstrip(b"/"), ONE_STEP, dir_fd=entry.folder)
        is_link = os.fstat(entry.descriptor).st_mode & S_IFMT == S_IFLNK
        if not (is_link and follow) and not entry.path.startswith("/proc/"):
            return entry
    except FileNotFoundError:
        if not entry.path.startswith("/proc/"):
            return entry
    except OSError as error:
        entry.close()
        if error.errno in OURS:
            raise
        raise StoppedError(error.errno or errno.EACCES, entry.path, b"") from None
    entry.close()
    return Walk(request, int32(at), path, follow=follow, creating=True).run()


_protected: list[bool] = []
