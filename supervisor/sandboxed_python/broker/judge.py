"""What each call needs, and whether the policy grants it.

Runs in: supervisor. One table says what the path arguments of each call must be granted (NODE.md's table of operations,
with its differences). The questions are asked about places that were reached, never about what the caller spelled.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.broker.place import BY_DESCRIPTOR, BY_NAME, DELETED, Place, below, owner_of
from sandboxed_python.broker.remote import inside, thread_group
from sandboxed_python.broker.request import Answer, StoppedError, failure
from sandboxed_python.kernel import files, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request

_STAT = (("stat",),)
_READ = (("read",),)
_WRITE = (("write",),)
_MOVE = (("read", "write"), ("write",))

# What each path argument needs, in the order of the arguments.
# stat: readable, or a directory above a grant, or fs.metadata is granted. open(2) depends on its flags: needs_of_open.
NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "stat": _STAT, "lstat": _STAT, "newfstatat": _STAT, "statx": _STAT,
    "access": _STAT, "faccessat": _STAT, "faccessat2": _STAT,  # W_OK answers for the file's own permissions besides
    "readlink": _STAT, "readlinkat": _STAT, "chdir": _STAT,
    "statfs": _READ, "getxattr": _READ, "lgetxattr": _READ, "listxattr": _READ, "llistxattr": _READ,
    "setxattr": _WRITE, "lsetxattr": _WRITE, "fsetxattr": _WRITE,
    "removexattr": _WRITE, "lremovexattr": _WRITE, "fremovexattr": _WRITE,
    "chmod": _WRITE, "fchmod": _WRITE, "fchmodat": _WRITE, "fchmodat2": _WRITE,
    "chown": _WRITE, "fchown": _WRITE, "lchown": _WRITE, "fchownat": _WRITE,
    "utime": _WRITE, "utimes": _WRITE, "futimesat": _WRITE, "utimensat": _WRITE,
    "truncate": _WRITE,
    "mkdir": _WRITE, "mkdirat": _WRITE, "mknod": _WRITE, "mknodat": _WRITE,
    "unlink": _WRITE, "unlinkat": _WRITE, "rmdir": _WRITE,
    "rename": _MOVE, "renameat": _MOVE, "renameat2": _MOVE, "link": _MOVE, "linkat": _MOVE,
    "symlink": _WRITE, "symlinkat": _WRITE,  # the link's own place; where it leads is judged when it is used
    "connect": _WRITE, "bind": _WRITE,
}  # fmt: skip

_READ_ONLY = frozenset(("stat", "read"))
_PROBES = ("x", "\x7f{probe}\x01")


def needs_of_open(flags: int) -> tuple[str, ...]:
    """Return what open(2) with these flags needs of the file, which may not exist yet."""
    if flags & os.O_PATH:
        return ("read",)  # what is handed over can be read, see calls_open
    mode = flags & os.O_ACCMODE
    changes = mode != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY))
    if not changes:
        return ("read",)
    return ("write",) if mode == os.O_WRONLY else ("read", "write")


def permits(request: Request, place: Place) -> bool:
    """Tell whether a place that was reached has what ``request.needs``."""
    path = place.path
    if path[-1] == ")" or path[:1] != "/":
        return _permits_nameless(request, place)
    return permits_path(request, path)


def permits_path(request: Request, path: str) -> bool:
    """Tell whether a path, links resolved, has what ``request.needs``."""
    checks = request.granted.checks
    for need in request.needs:
        if not checks[need](path) and not _own_proc(request, need, path):
            request.denied(need, path)
            return False
    if _may_be_looked_up(request, path):
        return True
    request.denied("", path)
    return False


def _may_be_looked_up(request: Request, path: str) -> bool:
    """Tell whether the kernel would let the caller look a path up in procfs, where it asks who may trace the process.

    Contents are none of the supervisor's business there (the kernel itself opens them for the caller), and magic links
    are followed for processes of the sandbox only (``walk.Walk``). This is about the folders whose very names tell.
    """
    if not path.startswith("/proc/"):
        return True
    folder = path.rpartition("/")[0]
    return _GUARDED.isdisjoint(folder.split("/")[3:6]) or inside(request, owner_of(path))


# Of a process and of a thread: where its memory is mapped, how its descriptors are open.
_GUARDED = frozenset(("map_files", "fdinfo"))


def _own_proc(request: Request, need: str, path: str) -> bool:
    """Tell whether a place in the caller's own ``/proc`` directory is granted under ``/proc/self``."""
    if not path.startswith("/proc/"):
        return False
    first, _slash, rest = path[6:].partition("/")
    if first not in (str(request.task), str(thread_group(request))):
        return False
    return request.granted.checks[need](f"/proc/self/{rest}" if rest else "/proc/self")


def _permits_nameless(request: Request, place: Place) -> bool:
    """Judge what has no name, or had one: pipes, sockets, memory files, removed files.

    Pipes and the like are nowhere in the file system, and only the caller's own descriptors lead to them: their
    metadata may be read, as fstat(2) may. A file in memory may be changed, too. A removed file is judged by the name
    that it had; what the kernel calls "x (deleted)" may really be called so, or have to be granted by both spellings.
    """
    path = place.path
    if place.reached == BY_DESCRIPTOR and request.needs == ("stat",):
        return True
    if path[:1] != "/":
        return place.reached != BY_NAME and _READ_ONLY.issuperset(request.needs)
    in_memory = path.startswith("/memfd:") and path.endswith(DELETED) and place.reached != BY_NAME
    if in_memory and not os.fstat(place.descriptor).st_nlink:
        return True
    if not permits_path(request, path):
        return False
    return permits_path(request, path.removesuffix(DELETED)) or _is_called(place, path)


def _is_called(place: Place, path: str) -> bool:
    """Tell whether a path, without following any link, leads to the place's own object."""
    there = files.open_path(uapi.AT_FDCWD, os.fsencode(path), files.STRAIGHT_NO_FOLLOW)
    if there < 0:
        return False
    try:
        return os.path.samestat(os.fstat(there), os.fstat(place.descriptor))
    finally:
        os.close(there)


def judge_stop(request: Request, stop: StoppedError) -> Answer:
    """Answer a resolution that ended early: its errno only where the caller may know, else EACCES.

    It may know if what it asked for would have been granted, were it there. After ``..`` that isn't known, and the
    place of the failure decides.
    """
    number = stop.number
    if number == errno.EACCES or not _may_be_looked_up(request, stop.path):
        return failure(errno.EACCES)
    rest = [os.fsdecode(name) for name in stop.rest.split(b"/") if name and name != b"."]
    if ".." in rest:
        may_know = request.granted.checks["stat"](stop.path) or permits_path(request, stop.path)
    else:
        path = stop.path
        for name in rest:
            path = below(path, name)
        may_know = permits_path(request, path)
    return failure(number) if may_know else failure(errno.EACCES)


def whole_tree(request: Request, path: str) -> bool:
    """Tell whether a directory is granted for reading and writing with all that it may hold.

    Rule for rename: a file must be readable and writable where it is, which is all that any place can grant, so it
    gains nothing by moving. What lies in a directory moves with it; so the directory must be granted whole, or what it
    holds could gain rights. Otherwise EXDEV, which makes programs copy, as with Landlock.
    """
    policy = request.granted.policy
    for name in _PROBES:
        inner = below(path, name)
        if not (policy.readable(inner) and policy.writable(inner)):
            return False
    inside = path if path == "/" else path + "/"
    return not any(tree.startswith(inside) and not policy.writable(tree) for tree in policy.protected)
