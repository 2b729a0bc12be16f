"""Raw system calls on a tree, and a small program that makes them as it is told over its stdin.

Runs in: tests only; as a program in the sandbox, too, so it imports nothing but the standard library. The calls are
made by number, around the audit hook.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
# Number of each call on this machine; filled in by who knows them.
NUMBERS: dict[str, int] = {}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
_STAT = ("stat", "lstat", "newfstatat", "fstat")
# Made on a descriptor that is opened for it: (open's flags, the call's own arguments...).
BY_DESCRIPTOR = (
    "fchmod", "fchown", "futimens", "fsetxattr", "fremovexattr", "fgetxattr", "flistxattr", "ftruncate", "fstat",
    "fstatfs", "fchdir",
)  # fmt: skip
# The same by an empty path; O_PATH descriptors among them.
EMPTY = ("empty newfstatat", "empty statx", "empty fchownat", "empty fchmodat2", "empty faccessat2", "empty utimensat")
SOCKETS = ("bind", "connect")


class Refused(NamedTuple):
    """The errno that a call ended with; equal by number."""

    number: int

    def __repr__(self) -> str:
        return f"Refused({errno.errorcode.get(self.number, self.number)})"


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

    @property
    def starts_at(self) -> bool:
        """Whether the call takes a descriptor that a relative path starts from."""
        return self.name.endswith(("at", "at2", "statx")) and self.name not in {"stat", "lstat", "creat", "fstat"}


def call(name: str, *arguments: Any) -> int | Refused:
    """Make a system call by its number, or by libc's name where its number isn't known."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    function = (lambda *rest: libc.syscall(NUMBERS[name], *rest)) if name in NUMBERS else getattr(libc, name)
    result = int(function(*words))
    return Refused(ctypes.get_errno()) if result == -1 else result


def outcome(work: Callable[[], Any]) -> Any:
    """Return what some work returns, or the errno that it raises."""
    try:
        return work()
    except OSError as error:
        return Refused(error.errno or 0)


class Runner:
    """Makes operations on one of the twin trees.

    Args:
        root: the tree.
        cwd: where in it to go first.
        folder: the directory in it that some paths start from.
        at: a descriptor of that directory; then nothing is opened, and the working directory stays.
    """

    def __init__(self, root: bytes, cwd: bytes, folder: bytes, at: int = -1) -> None:
        self.root = root
        if at < 0:
            os.chdir(root + b"/" + cwd)
            at = os.open(root + b"/" + folder, os.O_RDONLY | os.O_DIRECTORY)
        self.at = at

    def close(self) -> None:
        os.close(self.at)

    def start(self, spelled: Spelled, *, starts_at: bool) -> tuple[int, bytes]:
        """Return a path as the call gets it, and the descriptor that it starts from."""
        if spelled.how == "absolute" or (spelled.how == "at" and not starts_at):
            return AT_FDCWD, self.root + b"/" + spelled.path
        return (self.at if spelled.how == "at" else AT_FDCWD), spelled.path

    def run(self, operation: Operation) -> Any:
        """Make one call; return its comparable result."""
        name, numbers = operation.name, operation.numbers
        flat: list[Any] = []
        for spelled in operation.paths:
            at, path = self.start(spelled, starts_at=operation.starts_at)
            flat += [at, path] if operation.starts_at else [path]
        buffer = ctypes.create_string_buffer(8192)
        if name in SOCKETS:
            return _socket(name, *flat)
        if name in BY_DESCRIPTOR or name in EMPTY:
            flat = [call("openat", AT_FDCWD, flat[-1], numbers[0] | os.O_CLOEXEC, 0)]
            if isinstance(flat[0], Refused):
                return flat[0]
            try:
                result = self._call(name, flat, numbers[1:], operation.data, buffer)
                return result if isinstance(result, Refused) else self._told(name, result, numbers[1:], buffer, set())
            finally:
                os.close(flat[0])
        before = _descriptors()
        result = self._call(name, flat, numbers, operation.data, buffer)
        return result if isinstance(result, Refused) else self._told(name, result, numbers, buffer, before)

    def _call(self, name: str, flat: list[Any], numbers: tuple[int, ...], data: bytes, buffer: Any) -> Any:
        if name in EMPTY:
            return self._empty(name[6:], flat[0], numbers, buffer)
        if name in {"symlink", "symlinkat"}:
            return call(name, data, *flat)
        if name in {"stat", "lstat", "statfs", "fstat", "fstatfs"}:
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
        if name == "futimens":
            return call("utimensat", flat[0], None, struct.pack("4q", *numbers), 0)
        if "utim" in name:
            return self._times(name, flat, numbers)
        if name == "creat":
            return call(name, *flat, numbers[1])
        return call(name, *flat, *numbers)

    @staticmethod
    def _empty(name: str, descriptor: int, numbers: tuple[int, ...], buffer: Any) -> Any:
        if name == "newfstatat":
            return call(name, descriptor, b"", buffer, AT_EMPTY_PATH)
        if name == "statx":
            return call(name, descriptor, b"", AT_EMPTY_PATH, 0x7FF, buffer)
        if name == "utimensat":
            return call(name, descriptor, b"", struct.pack("4q", *numbers), AT_EMPTY_PATH)
        return call(name, descriptor, b"", *numbers, AT_EMPTY_PATH)

    @staticmethod
    def _times(name: str, flat: list[Any], numbers: tuple[int, ...]) -> Any:
        flags = numbers[:-4]
        first, part, second, part2 = numbers[-4:]
        times = struct.pack("2q", first, second) if name == "utime" else struct.pack("4q", first, part, second, part2)
        return call(name, *flat, times, *flags)

    def _told(self, name: str, result: int, numbers: tuple[int, ...], buffer: Any, before: set[int]) -> Any:
        name = name.removeprefix("empty ")
        if name in _STAT:
            return _stat_fields(bytes(buffer))
        if name == "statx":
            raw = bytes(buffer)[:256]
            return raw[4:32], struct.unpack_from("<Q", raw, 40) if not raw[28] & 0x40 else 0
        if name in {"statfs", "fstatfs"}:
            return bytes(buffer)[:16]  # type and block size; the rest is used up by others meanwhile
        if name in {"readlink", "readlinkat"}:
            return result, bytes(buffer)[:result].replace(self.root, b"ROOT")
        if "getxattr" in name or "listxattr" in name:
            return result, bytes(buffer)[:result] if numbers[0] else b""
        if name in {"open", "openat", "creat"}:
            return self._opened(result, before)
        return result

    def _opened(self, descriptor: int, before: set[int]) -> Any:
        """Tell what an open file can do, then close it."""
        try:
            assert descriptor not in before
            cloexec = not os.get_inheritable(descriptor)
            found = os.fstat(descriptor)
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            shown = flags & (os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK)
            got = outcome(lambda: os.pread(descriptor, 10, 0))
            put = outcome(lambda: os.write(descriptor, b"w"))
            return cloexec, found.st_mode, found.st_uid, found.st_gid, shown, got, put
        finally:
            os.close(descriptor)


def _descriptors() -> set[int]:
    return {number for number in range(64) if not isinstance(outcome(lambda n=number: fcntl.fcntl(n, 1)), Refused)}  # type: ignore[misc]  # the default binds the number


def _stat_fields(raw: bytes) -> tuple[int, ...]:
    if os.uname().machine == "x86_64":  # dev, ino, nlink; mode, uid, gid, pad; rdev, size, blksize, blocks
        _dev, _ino, links = struct.unpack_from("<3Q", raw)
        mode, uid, gid = struct.unpack_from("<3I", raw, 24)
        size = struct.unpack_from("<q", raw, 48)[0]
    else:
        mode, links, uid, gid = struct.unpack_from("<4I", raw, 16)
        size = struct.unpack_from("<q", raw, 48)[0]
    folder_or_link = mode & 0o170000 in {0o040000, 0o120000}
    return mode, links, uid, gid, 0 if folder_or_link else size


def _socket(name: str, path: bytes) -> int | Refused:
    """Bind a stream socket to a path, or connect it; what was bound isn't listened on, so a connection is refused."""
    descriptor = call("socket", 1, 1 | os.O_NONBLOCK, 0)
    if isinstance(descriptor, Refused):
        return descriptor
    try:
        address = struct.pack("H", 1) + path + b"\0"
        return call(name, descriptor, address, len(address))
    finally:
        os.close(descriptor)


# The program


def receive(descriptor: int) -> Any:
    """Read one message; None at the end."""
    size = _exactly(descriptor, 4)
    return marshal.loads(_exactly(descriptor, int.from_bytes(size, "little"))) if size else None


def send(descriptor: int, message: Any) -> None:
    """Write one message of plain tuples, numbers and bytes."""
    data = marshal.dumps(message)
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(descriptor, data) :]


def receive_descriptor(channel: int) -> int:
    """Take a descriptor that was sent over a Unix socket, without Python's sockets: recvmsg(2), cmsg(3)."""
    byte, control = ctypes.create_string_buffer(1), ctypes.create_string_buffer(24)
    part = struct.pack("PN", ctypes.addressof(byte), 1)
    parts = ctypes.create_string_buffer(part, len(part))
    message = struct.pack("PIxxxxPNPNixxxx", 0, 0, ctypes.addressof(parts), 1, ctypes.addressof(control), 24, 0)
    assert call("recvmsg", channel, ctypes.create_string_buffer(message, len(message)), 0) == 1
    return int.from_bytes(control.raw[16:20], "little")


def _exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        got = os.read(descriptor, size - len(data))
        if not got:
            return b""
        data += got
    return data


def plain(value: Any) -> Any:
    """Return a result as ``marshal`` takes it."""
    if isinstance(value, Refused):
        return {"errno": value.number}
    return tuple([plain(part) for part in value]) if isinstance(value, tuple) else value


def unplain(value: Any) -> Any:
    """Return the result that ``plain`` was given."""
    if isinstance(value, dict):
        return Refused(value["errno"])
    return tuple([unplain(part) for part in value]) if isinstance(value, tuple) else value


def main() -> None:
    """Answer what ``has()`` says, then make an operation; again and again, until stdin, a Unix socket, ends.

    The working directory is given, and the directory that paths start from is sent, so that neither need be granted.
    """
    numbers, root, mask = receive(0)
    NUMBERS.update(numbers)
    os.umask(mask)
    runner = Runner(root, b"", b"", at=receive_descriptor(0))
    has = getattr(getattr(sys, "permission", None), "has", None)
    send(0, "ready")
    while (job := receive(0)) is not None:
        questions, (name, paths, rest, data) = job
        try:
            said = [bool(has and has(scope, path)) for scope, path in questions]
            operation = Operation(name, tuple([Spelled(*path) for path in paths]), rest, data)
            send(0, (said, plain(runner.run(operation))))
        except Exception as error:
            send(0, f"{type(error).__name__}: {error}")
            raise


if __name__ == "__main__":
    main()
