"""What a path leads to: an object that is there, or a name in a directory; and where paths start.

Runs in: supervisor. What counts is the object that is reached: an ``O_PATH`` descriptor, whose place the kernel tells
(``/proc/self/fd``).
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.remote import read_file
from sandboxed_python.broker.request import OURS, DeniedError, StoppedError, real_path
from sandboxed_python.kernel import files, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request

PATH_FLAGS = uapi.O_PATH | os.O_CLOEXEC
ONE_STEP = PATH_FLAGS | os.O_NOFOLLOW
MAX_LINKS = 40  # MAXSYMLINKS, path_resolution(7)
FORGET = 4096  # caches start afresh when they hold so many entries
DELETED = " (deleted)"
S_IFMT, S_IFDIR, S_IFLNK = 0o170000, 0o040000, 0o120000
STICKY_FOR_ALL = 0o1002  # S_ISVTX | S_IWOTH

# Through what an object was reached.
BY_NAME, BY_MAGIC_LINK, BY_DESCRIPTOR = range(3)


class Place:
    """An object that was reached.

    Attributes:
        descriptor: ``O_PATH``, ours; whoever has the place closes it.
        path: where it is, links resolved; not absolute for what has no name (``pipe:[1]``).
        reached: ``BY_NAME``, ``BY_MAGIC_LINK`` (of a process of the sandbox) or ``BY_DESCRIPTOR`` (the caller's own).
    """

    __slots__ = ("descriptor", "path", "reached")

    def __init__(self, descriptor: int, path: str, reached: int = BY_NAME) -> None:
        self.descriptor = descriptor
        self.path = path
        self.reached = reached

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


class Entry:
    """A name in a directory, whether it is there or not.

    Attributes:
        folder: ``O_PATH`` descriptor of the directory, ours; whoever has the entry closes it.
        name: the last component, with a trailing slash where the caller wrote one: the kernel sees to what that means.
        path: where it is or would be, links before it resolved.
        descriptor: ``O_PATH`` descriptor of what is there, -1 for nothing or not looked up; closed with the entry.
    """

    __slots__ = ("descriptor", "folder", "name", "path")

    def __init__(self, folder: int, name: bytes, path: str, descriptor: int = -1) -> None:
        self.folder = folder
        self.name = name
        self.path = path
        self.descriptor = descriptor

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.folder)
        if self.descriptor >= 0:
            os.close(self.descriptor)


def open_base(request: Request, at: int) -> int:
    """Open the caller's working directory (``AT_FDCWD``) or descriptor ``at`` as ``O_PATH``.

    Raises:
        OSError: ``EBADF``: the caller has no such descriptor.
        DeniedError: we may not look: the caller has other ids.
    """
    try:
        if at == uapi.AT_FDCWD:
            return os.open(f"/proc/{request.task}/cwd", PATH_FLAGS)
        if at >= 0:
            return os.open(f"/proc/{request.task}/fd/{at}", PATH_FLAGS)
    except FileNotFoundError:
        request.confirm()
    except OSError as error:
        if error.errno in OURS:
            raise
        raise DeniedError from error
    raise OSError(errno.EBADF, "")


def open_folder(request: Request, at: int) -> int:
    """Open the directory that a relative path starts from, and see that it is where its path says.

    The kernel's path of a directory in a detached mount starts at that mount's root, which would look like a granted
    path of the same spelling.
    """
    base = open_base(request, at)
    try:
        found = os.fstat(base)
        if (found.st_dev, found.st_ino) not in request.context.reachable and found.st_mode & S_IFMT == S_IFDIR:
            _see_reachable(request, base, found)
    except BaseException:
        os.close(base)
        raise
    return base


def _see_reachable(request: Request, base: int, found: os.stat_result) -> None:
    if not found.st_nlink:
        return  # removed: nothing can be in it
    try:
        there = os.stat(real_path(base))
        seen = (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
    except OSError:
        seen = False  # perhaps a folder above it may not be searched
    if not seen and not _is_mounted(base):
        raise DeniedError
    known = request.context.reachable
    if len(known) >= FORGET:
        known.clear()
    known.add((found.st_dev, found.st_ino))


def _is_mounted(descriptor: int) -> bool:
    """Tell whether a file lies in one of our mounts: proc_pid_fdinfo(5), proc_pid_mountinfo(5)."""
    try:
        fields = read_file(f"/proc/self/fdinfo/{descriptor}").split()
        number = fields[fields.index(b"mnt_id:") + 1]
        with open("/proc/self/mountinfo", "rb") as file:
            return any(line.split(b" ", 1)[0] == number for line in file)
    except (OSError, ValueError):
        return False


def same_root(request: Request) -> bool:
    """Tell whether the caller's root directory is ours.

    Asked once for each thread: no confined task can change its root (the static filter has no chroot(2)).
    """
    known = request.context.rooted
    if request.task in known:
        return True
    try:
        theirs, ours = os.stat(f"/proc/{request.task}/root"), os.stat("/")
    except OSError as error:
        raise DeniedError from error
    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
        return False
    request.confirm()
    if len(known) >= FORGET:
        known.clear()
    known.add(request.task)
    return True


def entry_path(folder: Place, name: bytes) -> str:
    """Return the path of a name in a directory, without its trailing slashes."""
    last = name.rstrip(b"/")
    if last not in (b".", b".."):
        return below(folder.path, os.fsdecode(last))
    try:
        descriptor = os.open(last, PATH_FLAGS, dir_fd=folder.descriptor)
    except OSError as error:
        if error.errno in OURS:
            raise
        raise StoppedError(error.errno or errno.EACCES, folder.path, b"") from None
    try:
        return real_path(descriptor)
    finally:
        os.close(descriptor)


def below(folder: str, name: str) -> str:
    """Join a directory and a name in it."""
    return f"/{name}" if folder == "/" else f"{folder}/{name}"


def owner_of(path: str) -> int:
    """Return the process whose directory in ``/proc`` a path lies in.

    Returns:
        -1 when it lies elsewhere in procfs; 0, which is nobody, for a procfs that is not at ``/proc``.
    """
    if path != "/proc" and not path.startswith("/proc/"):
        return 0
    first = path[6:].partition("/")[0]
    return int(first) if first.isascii() and first.isdigit() else -1


def on_proc(place: Place) -> bool:
    """Tell whether a place lies in a procfs."""
    return files.fstatfs(place.descriptor) == uapi.PROC_SUPER_MAGIC


def arrived(descriptor: int, reached: int = BY_NAME) -> Place:
    """Return the place of an ``O_PATH`` descriptor, which is closed if that fails."""
    try:
        return Place(descriptor, real_path(descriptor), reached)
    except BaseException:
        os.close(descriptor)
        raise
