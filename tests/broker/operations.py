"""Random system calls on a tree, as plain data: made the same on twin trees, bare and under the broker.

Runs in: tests only.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from sandboxed_python.kernel import notify, uapi
from tests.broker import trees
from tests.broker.harness import AT_FDCWD, NUMBERS, Refused, call, outcome
from tests.support import Entry, snapshot

if TYPE_CHECKING:
    import random

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
    two = name in {"rename", "renameat", "renameat2", "link", "linkat"}
    paths = (spelled(), spelled(missing=0.6)) if two else (spelled(),)
    if name in {"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "open", "openat", "creat"}:
        paths = (spelled(missing=0.6),)
    numbers: tuple[int, ...] = ()
    data = b""
    mode = rng.choice(_MODES)
    follow = rng.choice((0, AT))
    if name in {"open", "openat", "creat"}:
        flags = rng.choice(_FLAGS) | rng.choice((0, os.O_CLOEXEC)) | os.O_NONBLOCK
        numbers = (flags, mode)
    elif name in {"mknod", "mknodat"}:
        kind = rng.choice((0, uapi.S_IFREG, uapi.S_IFIFO, uapi.S_IFSOCK))
        numbers = (kind | mode & 0o777, 0)
    elif name in {"chmod", "fchmodat", "fchmodat2", "mkdir", "mkdirat"}:
        numbers = (mode, follow) if name == "fchmodat2" else (mode,)
    elif name in {"chown", "lchown", "fchownat"}:
        owner = (rng.choice((-1, os.getuid(), 1)), rng.choice((-1, os.getgid(), 1)))
        numbers = (*owner, follow) if name == "fchownat" else owner
    elif name in {"access", "faccessat"}:
        numbers = (rng.choice((0, 1, 2, 4, 5, 6, 7, 8)),)
    elif name == "faccessat2":
        numbers = (rng.choice((0, 1, 2, 4, 7)), rng.choice((0, AT, uapi.AT_EACCESS, 0x8000)))
    elif name in {"newfstatat", "statx", "utimensat"}:
        numbers = (follow,)
    elif name == "unlinkat":
        numbers = (rng.choice((0, uapi.AT_REMOVEDIR, 0x8000)),)
    elif name == "renameat2":
        numbers = (rng.choice((0, uapi.RENAME_NOREPLACE, uapi.RENAME_EXCHANGE, 3, 64)),)
    elif name == "linkat":
        numbers = (rng.choice((0, uapi.AT_SYMLINK_FOLLOW)),)
    elif name == "truncate":
        numbers = (rng.choice((0, 1, 5000, -1)),)
    elif name in {"readlink", "readlinkat"}:
        numbers = (rng.choice((4096, 5, 1, 0, -1)),)
    if name in {"symlink", "symlinkat"}:
        data = rng.choice((*trees.TEXTS, b"", b"dir/a"))
    elif "xattr" in name:
        data = rng.choice((b"user.a", b"user.b", b"user.none", b""))
        numbers = (rng.choice((0, 3, 100)), rng.choice((0, 0, 1, 2, 4)))
    elif "utim" in name:
        numbers = (*numbers, rng.randrange(1000), rng.randrange(999999), rng.randrange(1000), rng.choice((5, 10**6, -1)))
    return Operation(name, paths, numbers, data)


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

    def _call(self, name: str, flat: list[Any], numbers: tuple[int, ...], data: bytes, buffer: Any) -> Any:  # noqa: PLR0913
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

    def _told(self, name: str, result: int, numbers: tuple[int, ...], buffer: Any, before: set[str]) -> Any:  # noqa: PLR0913
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
    return {str(number) for number in range(64) if not isinstance(outcome(lambda n=number: os.fstat(n)), Refused)}


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


def state(top: os.PathLike[str], root: bytes) -> dict[str, Entry]:
    """Return what ``top`` holds; modification times only where they were set, to before 2001."""
    found = snapshot(top)
    spelled = os.fsdecode(root)
    return {
        name: entry._replace(
            changed=entry.changed if entry.changed < 10**18 else 0,
            content=entry.content.replace(spelled, "ROOT"),
            size=0 if entry.kind == "link" else entry.size,
        )
        for name, entry in found.items()
    }
