"""Walking a path component by component, as the kernel would for the caller (path_resolution(7)).

Runs in: supervisor. Links are followed here, ``/proc/self`` and ``/proc/thread-self`` are the caller's, magic links are
followed through the caller's own entries, and a failure tells where it happened, so that it can be judged, too.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.place import (
    BY_MAGIC_LINK,
    BY_NAME,
    MAX_LINKS,
    ONE_STEP,
    PATH_FLAGS,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    STICKY_FOR_ALL,
    Entry,
    Place,
    arrived,
    below,
    entry_path,
    open_folder,
    owner_of,
    same_root,
)
from sandboxed_python.broker.remote import inside, thread_group
from sandboxed_python.broker.request import OURS, DeniedError, StoppedError, real_path
from sandboxed_python.kernel import files, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request


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
            if self.slash and os.fstat(self.here).st_mode & S_IFMT != S_IFDIR:
                raise StoppedError(errno.ENOTDIR, real_path(self.here), b"")
            return arrived(self._take(), self.reached)
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
            if mode & S_IFMT == S_IFLNK and (not last or self.follow or self.slash):
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
        if files.fstatfs(link) == uapi.PROC_SUPER_MAGIC:
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
        if folder.st_mode & STICKY_FOR_ALL == STICKY_FOR_ALL and protected_links():
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
