"""Random system calls on a tree, as plain data: made the same on twin trees, bare and under the broker.

Runs in: tests only.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sandboxed_python.kernel import notify, uapi
from tests.broker import trees
from tests.broker.harness import AT_FDCWD, NUMBERS, Refused, call, outcome

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

AT = uapi.AT_SYMLINK_NOFOLLOW
_MODES = (0o644, 0o600, 0o755, 0o777, 0o400, 0o1777, 0)
_FLAGS = (
    os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_DIRECTORY,
    os.O_RDONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, os.O_WRONLY | os.O_APPEND,
    os.O_RDONLY | os.O_TRUNC, os.O_RDWR | os.O_TMPFILE, os.O_WRONLY | os.O_TMPFILE,
    os.O_RDONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_APPEND,
)  # fmt: skip


class Spelled(NamedTuple):
    """A path to be spelled in either tree: absolute, from the working directory, or from a descriptor."""

    how: str
    path: bytes


class Operation(NamedTuple):
    """One call: its name, its paths, its other arguments."""

    name: str
    paths: tuple[Spelled, ...]
    numbers: tuple[int, ...] = ()
    data: bytes = b""


def draw(rng: random.Random, made: list[bytes]) -> Operation:
    """Choose one operation."""

    def spelled(*, missing: float = 0.2) -> Spelled:
        how = rng.choice(("absolute", "relative", "at"))
        return Spelled(how, trees.spelling(rng, made, missing=missing))

    name = rng.choice([name for name in _KINDS if name in NUMBERS])
    paths = [spelled(missing=0.6 if name in _MAKING else 0.2)]
    if name in _TWO_PATHS:
        paths.append(spelled(missing=0.6))
    numbers = _NUMBERS[name](rng) if name in _NUMBERS else ()
    data = b""
    if name in {"symlink", "symlinkat"}:
        data = rng.choice((*trees.TEXTS, b"", b"dir/a"))
    elif "xattr" in name:
        data = rng.choice((b"user.a", b"user.b", b"user.none", b""))
        numbers = (rng.choice((0, 3, 100)), rng.choice((0, 0, 1, 2, 4)))
    elif "utim" in name:
        numbers += (rng.randrange(1000), rng.randrange(999999), rng.randrange(1000), rng.choice((5, 10**6, -1)))
    return Operation(name, tuple(paths), numbers, data)


_TWO_PATHS = {"rename", "renameat", "renameat2", "link", "linkat"}
_MAKING = {"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "open", "openat", "creat"}


def _mode(rng: random.Random) -> tuple[int, ...]:
    return (rng.choice(_MODES),)


def _opening(rng: random.Random) -> tuple[int, ...]:
    # A named pipe would wait.
    return (rng.choice(_FLAGS) | rng.choice((0, os.O_CLOEXEC)) | os.O_NONBLOCK, rng.choice(_MODES))


def _node(rng: random.Random) -> tuple[int, ...]:
    return (rng.choice((0, uapi.S_IFREG, uapi.S_IFIFO, uapi.S_IFSOCK)) | rng.choice(_MODES) & 0o777, 0)


def _owner(rng: random.Random) -> tuple[int, ...]:
    return (rng.choice((-1, os.getuid(), 1)), rng.choice((-1, os.getgid(), 1)))


def _one_of(*values: int) -> Callable[[random.Random], tuple[int, ...]]:
    return lambda rng: (rng.choice(values),)


# The other arguments of a call, in their order.
_NUMBERS: dict[str, Callable[[random.Random], tuple[int, ...]]] = {
    "open": _opening,
    "openat": _opening,
    "creat": _opening,
    "mknod": _node,
    "mknodat": _node,
    "chmod": _mode,
    "fchmodat": _mode,
    "fchmodat2": lambda rng: (rng.choice(_MODES), rng.choice((0, AT))),
    "mkdir": _mode,
    "mkdirat": _mode,
    "chown": _owner,
    "lchown": _owner,
    "fchownat": lambda rng: (*_owner(rng), rng.choice((0, AT))),
    "access": _one_of(0, 1, 2, 4, 5, 6, 7, 8),
    "faccessat": _one_of(0, 1, 2, 4, 5, 6, 7, 8),
    "faccessat2": lambda rng: (rng.choice((0, 1, 2, 4, 7)), rng.choice((0, AT, uapi.AT_EACCESS, 0x8000))),
    "newfstatat": _one_of(0, AT),
    "statx": _one_of(0, AT),
    "utimensat": _one_of(0, AT),
    "unlinkat": _one_of(0, uapi.AT_REMOVEDIR, 0x8000),
    "renameat2": _one_of(0, uapi.RENAME_NOREPLACE, uapi.RENAME_EXCHANGE, 3, 64),
    "linkat": _one_of(0, uapi.AT_SYMLINK_FOLLOW),
    "truncate": _one_of(0, 1, 5000, -1),
    "readlink": _one_of(4096, 5, 1, 0, -1),
    "readlinkat": _one_of(4096, 5, 1, 0, -1),
}

_KINDS = (
    "stat", "lstat", "newfstatat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
    "statfs", "getxattr", "lgetxattr", "listxattr", "llistxattr", "setxattr", "setxattr", "lsetxattr", "removexattr",
    "lremovexattr", "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "utime", "utimes", "futimesat",
    "utimensat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "rename",
    "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "open", "openat", "openat",
)  # fmt: skip


class Runner:
    """Makes operations on one of the twin trees."""

    def __init__(self, root: bytes, cwd: bytes, folder: bytes) -> None:
        self.root = root
        os.chdir(root + b"/" + cwd)
        self.at = os.open(root + b"/" + folder, os.O_RDONLY | os.O_DIRECTORY)
        self.cwd, self.folder = cwd, folder

    def close(self) -> None:
        os.close(self.at)

    def _path(self, spelled: Spelled, *, at_call: bool) -> tuple[int, bytes]:
        if spelled.how == "absolute" or (spelled.how == "at" and not at_call):
            return AT_FDCWD, self.root + b"/" + spelled.path
        return (self.at if spelled.how == "at" else AT_FDCWD), spelled.path

    def run(self, operation: Operation) -> Any:
        """Make one call; return its comparable result."""
        name, numbers = operation.name, operation.numbers
        at_call = name.endswith(("at", "at2", "statx")) and name not in {"stat", "lstat", "creat"}
        flat: list[Any] = []
        for spelled in operation.paths:
            at, path = self._path(spelled, at_call=at_call)
            flat += [at, path] if at_call else [path]
        buffer = ctypes.create_string_buffer(8192)
        before = _descriptors()
        result = self._call(name, flat, numbers, operation.data, buffer)
        return result if isinstance(result, Refused) else self._told(name, result, numbers, buffer, before)

    def _call(self, name: str, flat: list[Any], numbers: tuple[int, ...], data: bytes, buffer: Any) -> Any:
        if name in {"symlink", "symlinkat"}:
            return call(name, data, *flat)
        if name in {"stat", "lstat", "statfs"}:
            return call(name, *flat, buffer)
        if name == "newfstatat":
            return call(name, *flat, buffer, *numbers)
        if name == "statx":
            return call(name, *flat, *numbers, 0x7FF, buffer)
        if name in {"readlink", "readlinkat"}:
            return call(name, *flat, buffer, *numbers)
        if "xattr" in name:
            size, flags = numbers
            if "list" in name:
                return call(name, *flat, buffer, size)
            if "get" in name:
                return call(name, *flat, data, buffer, size)
            return call(name, *flat, data, b"value", 5, flags) if "set" in name else call(name, *flat, data)
        if "utim" in name:
            return self._times(name, flat, numbers)
        if name == "creat":
            return call(name, *flat, numbers[1])
        return call(name, *flat, *numbers)

    @staticmethod
    def _times(name: str, flat: list[Any], numbers: tuple[int, ...]) -> Any:
        flags = numbers[:-4]
        first, part, second, part2 = numbers[-4:]
        times = struct.pack("2q", first, second) if name == "utime" else struct.pack("4q", first, part, second, part2)
        return call(name, *flat, times, *flags)

    def _told(self, name: str, result: int, numbers: tuple[int, ...], buffer: Any, before: set[str]) -> Any:
        if name in {"stat", "lstat", "newfstatat"}:
            return _stat_fields(bytes(buffer))
        if name == "statx":
            raw = bytes(buffer)[:256]
            return raw[4:32], struct.unpack_from("<Q", raw, 40) if not raw[28] & 0x40 else 0
        if name == "statfs":
            return bytes(buffer)[:24]
        if name in {"readlink", "readlinkat"}:
            return result, bytes(buffer)[:result].replace(self.root, b"ROOT")
        if "getxattr" in name or "listxattr" in name:
            return result, bytes(buffer)[:result] if numbers[0] else b""
        if name in {"open", "openat", "creat"}:
            return self._opened(result, before)
        return result

    def _opened(self, descriptor: int, before: set[str]) -> Any:
        """Tell what an open file can do, then close it."""
        try:
            assert str(descriptor) not in before
            cloexec = not os.get_inheritable(descriptor)
            found = os.fstat(descriptor)
            with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
                flags = int(file.read().split()[3], 8)
            shown = flags & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK)
            got = outcome(lambda: os.pread(descriptor, 10, 0))
            put = outcome(lambda: os.write(descriptor, b"w"))
            return cloexec, found.st_mode, found.st_uid, found.st_gid, shown, got, put
        finally:
            os.close(descriptor)


def _descriptors() -> set[str]:
    return {str(number) for number in range(64) if not isinstance(outcome(partial(os.fstat, number)), Refused)}


def _stat_fields(raw: bytes) -> tuple[int, ...]:
    if notify.SIZEOF_STAT == 144:  # x86-64: dev, ino, nlink; mode, uid, gid, pad; rdev, size, blksize, blocks
        _dev, _ino, links = struct.unpack_from("<3Q", raw)
        mode, uid, gid = struct.unpack_from("<3I", raw, 24)
        size = struct.unpack_from("<q", raw, 48)[0]
    else:
        mode, links, uid, gid = struct.unpack_from("<4I", raw, 16)
        size = struct.unpack_from("<q", raw, 48)[0]
    folder_or_link = mode & 0o170000 in {0o040000, 0o120000}
    return mode, links, uid, gid, 0 if folder_or_link else size


def state(top: os.PathLike[str], root: bytes) -> dict[str, tuple[Any, ...]]:
    """Return what ``top`` holds, name -> what can be seen of it; times only where they were set, to before 2001."""
    found: dict[str, tuple[Any, ...]] = {}

    def see(path: str, name: str) -> None:
        entry = os.lstat(path)
        kind = entry.st_mode & 0o170000
        content: Any = b""
        if kind == 0o120000:
            content = os.readlink(path).replace(os.fsdecode(root), "ROOT")
        elif kind == 0o100000:
            content = outcome(partial(_contents, path))
        links = entry.st_nlink if kind == 0o100000 else 1
        attributes = outcome(lambda: [(one, os.getxattr(path, one)) for one in sorted(os.listxattr(path))])
        changed = entry.st_mtime_ns if entry.st_mtime_ns < 10**18 else 0
        owner = (entry.st_uid, entry.st_gid)
        found[name] = (entry.st_mode, owner, links, changed, content, attributes if kind != 0o120000 else ())
        if kind == 0o040000:
            names = outcome(lambda: sorted(os.listdir(path)))
            for below in names if isinstance(names, list) else ():
                outcome(partial(see, f"{path}/{below}", f"{name}/{below}"))

    see(os.fspath(top), "")
    return found


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
