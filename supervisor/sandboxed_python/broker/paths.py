"""Resolving a path as the caller would: its root, its working directory, its descriptors, its /proc.

Runs in: supervisor. What counts is the object that is reached: an ``O_PATH`` descriptor, whose place the kernel tells
(``/proc/self/fd``). Two ways lead there:

- The kernel resolves the whole path in one openat2(2) that refuses magic links (or all links: then the path as spelled
  is the real one). The supervisor has the caller's root
  and mounts, and the caller's working directory or descriptor is opened through ``/proc/<task>``; so the answer is the
  caller's, unless the path leads into procfs, where ``self`` would be the supervisor.
- Everything else, failures included, is walked component by component (path_resolution(7)): links are followed here,
  ``/proc/self`` and ``/proc/thread-self`` are the caller's, magic links are followed through the caller's own entries,
  and a failure tells where it happened, so that it can be judged, too.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.remote import inside, read_file, thread_group
from sandboxed_python.broker.request import OURS, DeniedError, StoppedError, int32, real_path
from sandboxed_python.kernel import notify, uapi
from sandboxed_python.kernel.calls import get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request

PATH_FLAGS = uapi.O_PATH | os.O_CLOEXEC
ONE_STEP = PATH_FLAGS | os.O_NOFOLLOW
MAX_LINKS = 40  # MAXSYMLINKS, path_resolution(7)
FORGET = 4096  # caches start afresh when they hold so many entries
DELETED = " (deleted)"
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000
_STICKY_FOR_ALL = 0o1002  # S_ISVTX | S_IWOTH

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
        if (found.st_dev, found.st_ino) not in request.context.reachable and found.st_mode & _S_IFMT == _S_IFDIR:
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
        return _arrived(descriptor, BY_DESCRIPTOR if at != uapi.AT_FDCWD else BY_NAME)
    at = int32(at)
    if same_root(request):
        how = notify.FOLLOW if follow else notify.NO_FOLLOW
        if path[0] == 47:  # "/"
            descriptor = notify.open_path(uapi.AT_FDCWD, path, how)
        else:
            base = open_folder(request, at)
            descriptor = notify.open_path(base, path, how)
            os.close(base)
        if descriptor >= 0:
            place = _arrived(descriptor)
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
    descriptor = notify.open_path(uapi.AT_FDCWD, path, notify.STRAIGHT if follow else notify.STRAIGHT_NO_FOLLOW)
    if descriptor >= 0:
        return Place(descriptor, spelled)
    if get_errno() == errno.ELOOP:
        straight[path] = ""
    return None


def _arrived(descriptor: int, reached: int = BY_NAME) -> Place:
    try:
        return Place(descriptor, real_path(descriptor), reached)
    except BaseException:
        os.close(descriptor)
        raise


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
        folder = find(request, at, head) if head else _arrived(open_folder(request, int32(at)))
    except StoppedError as stop:
        rest = (stop.rest + b"/" + name) if stop.rest else name
        raise StoppedError(stop.number, stop.path, rest) from None
    try:
        return Entry(folder.descriptor, name, entry_path(folder, name))
    except BaseException:
        folder.close()
        raise


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
        is_link = os.fstat(entry.descriptor).st_mode & _S_IFMT == _S_IFLNK
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


class Walk:
    """The walk of one path, component by component; ``run`` once.

    Args:
        request: whose path it is.
        at: where a relative path starts: a descriptor of the caller's, or ``AT_FDCWD``.
        path: as the caller spelled it, not empty.
        follow: follow a link in the last place.
        creating: return the last component's entry, whether it is there or not; unless a magic link is in the last
            place and followed.
    """

    def __init__(self, request: Request, at: int, path: bytes, *, follow: bool, creating: bool = False) -> None:
        self.request = request
        self.follow = follow
        self.creating = creating
        self.links = 0
        self.reached = BY_NAME
        self.slash = False
        self.todo: list[bytes] = []
        self.ours = same_root(request)
        self.here = self._open_root() if path[:1] == b"/" else open_folder(request, at)
        self._push(path)

    def run(self) -> Place | Entry:
        """Walk to the end.

        Raises:
            StoppedError: where and why it ended.
            DeniedError: it led where the caller may not look.
        """
        try:
            while self.todo:
                entry = self._step(self.todo.pop())
                if entry is not None:
                    return entry
            if self.creating and self.reached != BY_MAGIC_LINK:  # "/", or the end of a link to it
                return self._entry(b"/", -1)
            if self.slash and os.fstat(self.here).st_mode & _S_IFMT != _S_IFDIR:
                raise StoppedError(errno.ENOTDIR, real_path(self.here), b"")
            return _arrived(self._take(), self.reached)
        finally:
            if self.here >= 0:
                os.close(self.here)

    def _step(self, name: bytes) -> Entry | None:
        last = not self.todo
        if last and self.creating and self.slash:
            return self._entry(name, -1)  # EISDIR, whatever is there
        if name == b".." and not self.ours and self._at_root():
            name = b"."
        try:
            there = os.open(name, ONE_STEP, dir_fd=self.here)
        except OSError as error:
            if last and self.creating and error.errno == errno.ENOENT:
                return self._entry(name, -1)
            raise self._stopped(error, name) from None
        try:
            mode = os.fstat(there).st_mode
            if mode & _S_IFMT == _S_IFLNK and (not last or self.follow or self.slash):
                self._follow(name, there, last=last)
                return None
            if last and self.creating:
                entry = self._entry(name, there)
                there = -1
                return entry
            self.reached = BY_NAME
            self.here, there = there, self.here
            return None
        finally:
            if there >= 0:
                os.close(there)

    def _follow(self, name: bytes, link: int, *, last: bool) -> None:
        self.links += 1
        if self.links > MAX_LINKS:
            raise self._stopped(OSError(errno.ELOOP, ""), name)
        if last:
            self._refuse_unprotected(name, link)
        text = b""
        if notify.fstatfs(link) == uapi.PROC_SUPER_MAGIC:
            text = self._proc_link(name)
            if not text:
                return
        try:
            text = text or os.readlink(b"", dir_fd=link)
        except OSError as error:
            raise self._stopped(error, name) from None
        if text[:1] == b"/":
            os.close(self._take())
            self.here = self._open_root()
        self._push(text)

    def _proc_link(self, name: bytes) -> bytes:
        """Return the text of a link in procfs as the caller would read it; b"" after a magic link was followed."""
        request = self.request
        if os.fstat(self.here).st_ino == uapi.PROC_ROOT_INO:
            if name == b"self":
                return b"%d" % thread_group(request)
            if name == b"thread-self":
                return b"%d/task/%d" % (thread_group(request), request.task)
            return os.readlink(name, dir_fd=self.here)
        owner = owner_of(real_path(self.here))
        if owner < 0:
            return os.readlink(name, dir_fd=self.here)
        if not inside(request, owner):
            raise DeniedError
        try:
            there = os.open(name, PATH_FLAGS, dir_fd=self.here)
        except OSError as error:
            raise self._stopped(error, name) from None
        os.close(self._take())
        self.here = there
        self.reached = BY_MAGIC_LINK
        return b""

    def _refuse_unprotected(self, name: bytes, link: int) -> None:
        """Refuse what ``fs.protected_symlinks`` refuses (proc_sys_fs(5)): another's link in a sticky directory."""
        folder = os.fstat(self.here)
        if folder.st_mode & _STICKY_FOR_ALL == _STICKY_FOR_ALL and protected_links():
            owner = os.fstat(link).st_uid
            if owner not in (os.geteuid(), folder.st_uid):
                raise self._stopped(OSError(errno.EACCES, ""), name)

    def _push(self, path: bytes) -> None:
        last = not self.todo
        names = [name for name in path.split(b"/") if name]
        names.reverse()
        self.todo += names
        if last and path[-1:] == b"/":
            self.slash = True

    def _open_root(self) -> int:
        return os.open("/" if self.ours else f"/proc/{self.request.task}/root", PATH_FLAGS)

    def _at_root(self) -> bool:
        root, here = os.stat(f"/proc/{self.request.task}/root"), os.fstat(self.here)
        return (root.st_dev, root.st_ino) == (here.st_dev, here.st_ino)

    def _take(self) -> int:
        here, self.here = self.here, -1
        return here

    def _entry(self, name: bytes, descriptor: int) -> Entry:
        path = entry_path(Place(self.here, real_path(self.here)), name) if name != b"/" else "/"
        return Entry(self._take(), name + b"/" if self.slash and name != b"/" else name, path, descriptor)

    def _stopped(self, error: OSError, name: bytes) -> StoppedError:
        """Return what a failure at a component is raised as; raise it as it is when it is a trouble of our own."""
        if error.errno in OURS:
            raise error
        path = real_path(self.here)
        if name not in (b".", b".."):
            path = below(path, os.fsdecode(name))
        return StoppedError(error.errno or errno.EACCES, path, b"/".join(reversed(self.todo)))


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
    return notify.fstatfs(place.descriptor) == uapi.PROC_SUPER_MAGIC


_protected: list[bool] = []


def protected_links() -> bool:
    """Tell whether ``fs.protected_symlinks`` is set; read once."""
    if not _protected:
        try:
            with open("/proc/sys/fs/protected_symlinks", "rb", 0) as file:
                _protected.append(file.read(1) != b"0")
        except OSError:
            _protected.append(True)
    return _protected[0]
