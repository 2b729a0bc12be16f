"""Random system calls on a tree, as plain data: made the same on twin trees, bare and under the broker.

Runs in: tests only.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from sandboxed_python.kernel import tables, uapi
from tests.broker import trees
from tests.broker.raw import BY_DESCRIPTOR, EMPTY, NUMBERS, SOCKETS, Operation, Spelled, outcome

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_COLUMN = 0 if os.uname().machine == "x86_64" else 1
# Number of each call that the broker answers, as far as this machine has it.
CALL_NUMBERS = {name: number for name, row in tables.BROKERED.items() if (number := row[_COLUMN]) is not None}
NUMBERS.update({name: row[_COLUMN] for name, row in uapi.RAW.items()})
NUMBERS.update(CALL_NUMBERS)
AT = uapi.AT_SYMLINK_NOFOLLOW
_MODES = (0o644, 0o600, 0o755, 0o777, 0o400, 0o1777, 0)
_FLAGS = (
    os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_DIRECTORY,
    os.O_RDONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, os.O_WRONLY | os.O_APPEND,
    os.O_RDONLY | os.O_TRUNC, os.O_RDWR | os.O_TMPFILE, os.O_WRONLY | os.O_TMPFILE,
    os.O_RDONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_APPEND,
)  # fmt: skip
# Further ones for whole products: what the broker stands in for, too.
_FURTHER_FLAGS = (
    uapi.O_PATH, uapi.O_PATH | os.O_NOFOLLOW, uapi.O_PATH | os.O_DIRECTORY, uapi.O_PATH | os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_DIRECTORY, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, os.O_RDWR | os.O_TRUNC,
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, os.O_RDWR | os.O_TMPFILE | os.O_EXCL,
    os.O_RDONLY | os.O_CREAT | os.O_EXCL, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
)  # fmt: skip


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
        data = rng.choice((b"user.a", b"user.a", b"user.b", b"user.b", b"user.none", b""))
        numbers = _attribute(rng)
    elif "utim" in name:
        numbers += _times(rng)
    return Operation(name, tuple(paths), numbers, data)


def draw_wider(rng: random.Random, made: list[bytes], *, sockets: bool) -> Operation:
    """Choose one operation, also by descriptors, of the working directory and, when there may be any, of sockets."""
    roll = rng.random()
    if roll < 0.7:
        operation = draw(rng, made)
        if operation.name in {"open", "openat"} and rng.random() < 0.4:
            flags = rng.choice(_FURTHER_FLAGS) | rng.choice((0, os.O_CLOEXEC)) | os.O_NONBLOCK
            operation = operation._replace(numbers=(flags, rng.choice(_MODES)))
        return operation
    if roll < 0.74:
        name = "chdir"
    elif roll < 0.78 and sockets:
        name = rng.choice(SOCKETS)
    else:
        name = rng.choice((*BY_DESCRIPTOR, *EMPTY))
    # The address of a socket has little room.
    how = "relative" if name in SOCKETS else rng.choice(("absolute", "relative"))
    path = Spelled(how, trees.spelling(rng, made, missing=0.5 if name == "bind" else 0.1))
    numbers: tuple[int, ...] = ()
    if name not in SOCKETS and name != "chdir":
        opening = os.O_WRONLY if name == "ftruncate" else rng.choice((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY))
        if name in EMPTY and rng.random() < 0.6:
            opening = uapi.O_PATH | rng.choice((0, os.O_NOFOLLOW))
        numbers = (opening | os.O_NONBLOCK, *(_NUMBERS[name](rng) if name in _NUMBERS else ()))
    data = rng.choice((b"user.a", b"user.b", b"user.none")) if "xattr" in name else b""
    return Operation(name, (path,), numbers, data)


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


def _times(rng: random.Random) -> tuple[int, ...]:
    return rng.randrange(1000), rng.randrange(999999), rng.randrange(1000), rng.choice((5, 10**6, -1))


def _attribute(rng: random.Random) -> tuple[int, ...]:
    return rng.choice((0, 3, 100, 100)), rng.choice((0, 0, 1, 2, 4))


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
    "fchmod": _mode,
    "fchown": _owner,
    "futimens": _times,
    "ftruncate": _one_of(0, 1, 5000),
    "fsetxattr": _attribute,
    "fremovexattr": _attribute,
    "fgetxattr": _attribute,
    "flistxattr": _attribute,
    "empty fchownat": _owner,
    "empty fchmodat2": _mode,
    "empty faccessat2": _one_of(0, 1, 2, 4, 6),
    "empty utimensat": _times,
}

_KINDS = (
    "stat", "lstat", "newfstatat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
    "statfs", "getxattr", "lgetxattr", "listxattr", "llistxattr", "setxattr", "setxattr", "lsetxattr", "removexattr",
    "lremovexattr", "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "utime", "utimes", "futimesat",
    "utimensat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "rename",
    "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "open", "openat", "openat",
)  # fmt: skip


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
