"""The rule of truth: ``has()`` is True for a path if and only if the kernel lets the operation through.

Random worlds: a tree with links of all kinds, grants of all kinds, and operations of all kinds, made by raw system calls
in the installed product. Each is judged twice. What ``sys.permission.has()`` says is compared with what a reading of the
documentation says, and that with what happened: what is granted must end as in a twin tree without the sandbox and leave
the same tree behind, and what isn't must fail and change nothing.

``SANDBOX_TEST_OPERATIONS`` is how many operations there are in all; ``SANDBOX_TEST_SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sandboxed_python.kernel import uapi
from tests import support
from tests.broker import operations, raw, trees
from tests.broker.harness import LONG
from tests.broker.raw import Operation, Refused

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator, Sequence

OPERATIONS = int(os.environ.get("SANDBOX_TEST_OPERATIONS") or (20000 if LONG else 2000))
SEED = int(
    os.environ.get("SANDBOX_TEST_SEED") or (1 if os.environ.get("CI") else random.SystemRandom().randrange(10**6))
)
PER_WORLD, PER_TEST = 100, 5
TESTS = max(1, OPERATIONS // (PER_WORLD * PER_TEST))

# What the operations need

META = ("fs.metadata",)
READ, WRITE = ("fs.read",), ("fs.write",)
BOTH = ("fs.read", "fs.write")
_LOOKING = {"stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat", "empty newfstatat", "empty statx"}
_ACCESS = {"access", "faccessat", "faccessat2", "empty faccessat2"}
_READING = {"statfs", "getxattr", "lgetxattr", "listxattr", "llistxattr"}
_FREE_ON_DESCRIPTORS = {"fgetxattr", "flistxattr", "fstat", "fstatfs", "ftruncate", "fchdir"}
_MAKING = {"mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "symlink", "symlinkat", "bind"}
_NAMING = {"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat", "bind"}
_MOVING = {"rename", "renameat", "renameat2"}
_LINKING = {"link", "linkat"}
_OPENING = {"open", "openat", "creat"}
_NEVER_FOLLOWS = _MAKING | _MOVING | {
    "lstat", "readlink", "readlinkat", "lgetxattr", "llistxattr", "lsetxattr", "lremovexattr", "lchown",
}  # fmt: skip
_UNCHANGING = _LOOKING | _ACCESS | _READING | {"fgetxattr", "flistxattr", "fstat", "fstatfs", "fchdir", "chdir"}
_AT_FLAGS = {"newfstatat", "statx", "faccessat2", "utimensat", "fchmodat2", "fchownat"}
_TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY


class Need(NamedTuple):
    """A permission that an operation needs.

    Attributes:
        scope: ``"fs.read"``, ``"fs.write"`` or ``"fs.metadata"``.
        place: the real path that it is about, in the sandbox's tree.
        asked: the reference to ask ``has()`` with; empty where ``has()`` can't be asked (it follows a link itself).
    """

    scope: str
    place: bytes
    asked: bytes


class Case(NamedTuple):
    """An operation and what came of it, for the exceptions to look at."""

    world: World
    operation: Operation
    needs: tuple[Need, ...]
    granted: bool
    got: Any
    want: Any = None
    asked: Need | None = None
    barred: frozenset[Need] = frozenset()  # what access(2) said no to before

    @property
    def places(self) -> set[bytes]:
        return {need.place for need in self.needs}

    def refused(self, *numbers: int) -> bool:
        return isinstance(self.got, Refused) and self.got.number in numbers

    def __repr__(self) -> str:
        lines = [
            f"SANDBOX_TEST_SEED={SEED} world {self.world.number}: {' '.join(map(repr, self.world.flags))}",
            f"  {self.operation}",
            *(f"  needs {need.scope} {need.place!r}: {self.world.grants(need)}" for need in self.needs),
            f"  in the sandbox: {self.got}; without: {self.want}; cwd {self.world.cwd()!r}, at {self.world.at()!r}",
        ]
        return "\n".join(lines)


# The exceptions: where what happens differs from the rule, by choice. Each is written down in SECURITY.md, README.md or
# the docstring of the code that makes it.


class Exempt(NamedTuple):
    """A known exception: what it is, and whether a case is one."""

    reason: str
    applies: Callable[[Case], bool]


def _open_flags(operation: Operation) -> int:
    """Return the flags that an operation opens with; 0 for one that opens nothing."""
    if operation.name == "creat":
        return os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    opens = operation.name in _OPENING or operation.name in raw.BY_DESCRIPTOR or operation.name in raw.EMPTY
    return operation.numbers[0] if opens else 0


_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG}
# Granted, and refused all the same.
OVER = (
    Exempt(
        "granted folders stay where they are: EBUSY",
        lambda case: case.refused(errno.EBUSY) and bool(case.places & case.world.roots),
    ),
    Exempt(
        "so do the folders above what a grant names, and none is put in their place: EBUSY",
        lambda case: (
            case.refused(errno.EBUSY)
            and case.operation.name in _MOVING
            and any(case.world.leads_on(place) for place in case.places)
        ),
    ),
    Exempt(
        "no link may be put at a granted path",
        lambda case: case.refused(errno.EACCES)
        and case.operation.name in _MOVING | _LINKING | {"symlink", "symlinkat"}
        and any(case.world.leads_on(place) for place in case.places),
    ),
    Exempt(
        "a folder that isn't granted whole can't be moved: EXDEV, as with Landlock",
        lambda case: case.refused(errno.EXDEV) and case.operation.name in _MOVING,
    ),
    Exempt(
        "calls that aren't offered: libc falls back",
        lambda case: case.refused(errno.ENOSYS) and case.operation.name in {"fchmodat2", "empty fchmodat2"},
    ),
    Exempt(
        "RENAME_WHITEOUT and unknown flags of renameat2",
        lambda case: case.refused(errno.EPERM, errno.EINVAL)
        and case.operation.name == "renameat2"
        and bool(case.operation.numbers[0] & ~3),
    ),
    Exempt(
        "O_PATH opens for reading: what can't be so opened without consequences is refused",
        lambda case: case.refused(errno.EACCES, errno.ELOOP) and bool(_open_flags(case.operation) & uapi.O_PATH),
    ),
)  # fmt: skip
# Not granted, and done all the same, without changing anything.
LEAKS = (
    Exempt(
        "O_CREAT where a file is and O_TRUNC of what has no length change nothing: Landlock asks for fs.read alone",
        lambda case: (
            case.operation.name in _OPENING
            and not _open_flags(case.operation) & (os.O_ACCMODE | _TMPFILE)
            and all(case.world.grants(need) for need in case.needs if need.scope == "fs.read")
        ),
    ),
    Exempt(
        "chdir may succeed anywhere: what is reached from there is judged",
        lambda case: case.operation.name == "chdir",
    ),
)
# Not granted, and refused, with an answer that may tell more than EACCES does.
TELLS = (
    Exempt("wrong arguments", lambda case: case.refused(errno.EINVAL, errno.ERANGE)),
    Exempt(
        "what may be known of but not read seems to have no extended attributes: EOPNOTSUPP",
        lambda case: (
            case.refused(errno.EOPNOTSUPP)
            and "xattr" in case.operation.name
            and not any(case.world.hidden(place) for place in case.places)
        ),
    ),
    Exempt(
        "a path with detours that leads nowhere: the place that it fails at may be looked at",
        lambda case: case.refused(*_NOWHERE) and case.world.winding(case.operation),
    ),
)
# Not granted, and refused, but not without effect: what the twin does to have the same.
EFFECTS = (
    Exempt(
        "created in a place granted for writing, and then not opened, for it may not be read: Landlock asks in this order",
        lambda case: (
            case.operation.name in _OPENING
            and bool(_open_flags(case.operation) & os.O_CREAT)
            and all(case.world.grants(need) for need in case.needs if need.scope == "fs.write")
        ),
    ),
)
# Granted, with another answer than without the sandbox.
OTHERWISE = (
    Exempt(
        "a path with detours that leads nowhere: EACCES where the place that it fails at isn't granted",
        lambda case: (
            case.refused(errno.EACCES)
            and isinstance(case.want, Refused)
            and case.want.number in _NOWHERE
            and case.world.winding(case.operation)
        ),
    ),
)
# has() against the documentation.
ASKED = (
    Exempt(
        "the working directory is gone: a relative path leads nowhere",
        lambda case: case.world.cwd().endswith(b" (deleted)"),
    ),
    Exempt(
        "a path with detours that leads nowhere: has() goes on by its letters, or asks the kernel",
        lambda case: case.world.winding(case.operation) and case.world.nowhere(case.operation),
    ),
    Exempt(
        "a link that the program can't look at: has() answers for its own name, or as access(2) does",
        lambda case: (
            case.asked is not None
            and (not case.world.grants(case.asked) or case.asked in case.barred)
            and any(case.world.hidden(link) for link in case.world.links(case.operation))
        ),
    ),
)


def exempt(table: tuple[Exempt, ...], case: Case, counted: Counter[str]) -> bool:
    """Tell whether a case is a known exception, and count it."""
    for one in table:
        if one.applies(case):
            counted[one.reason] += 1
            return True
    return False


# The worlds


class Given(NamedTuple):
    """A grant as the documentation says it: ``kind`` and the places it names."""

    kind: str
    paths: tuple[bytes, ...]

    def covers(self, place: bytes) -> bool:
        if self.kind == "all":
            return True
        if self.kind == "prefix":  # of characters: half of one matches no name that has all of it
            return os.fsdecode(place).startswith(tuple(map(os.fsdecode, self.paths)))
        return place in self.paths or (
            self.kind == "tree" and place.startswith(tuple(one + b"/" for one in self.paths))
        )

    def above(self, place: bytes) -> bool:
        inside = place if place == b"/" else place + b"/"
        return any(path != place and path.startswith(inside) for path in self.paths)


def read_grant(text: bytes) -> Given:
    """Read a flag's value as README.md explains it."""
    if text == b"*":
        return Given("all", ())
    if text.endswith(b"*"):
        folder, _slash, head = text[:-1].rpartition(b"/")
        if head:
            return Given("prefix", (os.path.realpath(folder) + b"/" + head,))
        text = folder
    else:
        folder = b""
    real = os.path.realpath(text)
    # Both the place that a link leads to and the link itself.
    return Given("tree" if folder or os.path.isdir(real) else "path", (real,) if real == text else (real, text))


class Process:
    """The program of ``raw.py``, in the sandbox or without."""

    def __init__(self, words: Sequence[str | bytes], root: bytes, cwd: bytes, at: bytes, mask: int) -> None:
        self.channel, theirs = socket.socketpair()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self.process = subprocess.Popen(
                [*map(os.fsdecode, words), raw.__file__],
                stdin=theirs.fileno(),
                stdout=self.errors,
                stderr=self.errors,
                cwd=root + b"/" + cwd,
                env=support.clean_environment(),
                start_new_session=True,
            )
        folder = os.open(root + b"/" + at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            raw.send(self.channel.fileno(), (dict(raw.NUMBERS), root, mask))
            socket.send_fds(self.channel, [b"d"], [folder])
            self.ready = raw.receive(self.channel.fileno()) == "ready"
        except (BrokenPipeError, ConnectionResetError):
            self.ready = False
        finally:
            os.close(folder)

    def said(self) -> str:
        """Return what it has printed."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def do(self, questions: list[tuple[str, bytes]], operation: Operation) -> tuple[list[bool], Any]:
        """Ask ``has()``, then make an operation."""
        name, paths, numbers, data = operation
        channel = self.channel.fileno()
        raw.send(channel, (questions, (name, tuple([tuple(path) for path in paths]), numbers, data)))
        answer = raw.receive(channel)
        assert isinstance(answer, tuple), (answer, self.said())
        said, got = answer
        return said, raw.unplain(got)

    def close(self) -> None:
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.errors.close()


class World:
    """Twin trees, grants, and the two programs."""

    def __init__(self, number: int, folder: pathlib.Path) -> None:
        self.number = number
        self.folder = folder
        self.rng = rng = random.Random(f"{SEED} {number}")
        folder.mkdir()
        self.tops = os.fsencode(folder / "one"), os.fsencode(folder / "two")
        shape = rng.randrange(1 << 30)
        roots = [trees.nest(top) for top in self.tops]
        self.bare_root, self.root = roots
        for root in roots:
            self.made = trees.make(random.Random(shape), root)
        self.listeners = [self._furnish(random.Random(shape), root) for root in roots]
        places = [b"", *(name for name in self.made if os.path.isdir(root + b"/" + name))]
        places = [name for name in places if not os.path.islink(root + b"/" + name)]
        self.start = rng.choice(places), rng.choice(places), rng.choice((0o22, 0o77, 0, 0o27))
        self.metadata, self.net = rng.random() < 0.15, rng.random() < 0.25
        reads = [self._text() for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        writes = [self._text() for _ in range(rng.choice((0, 0, 1, 2)))]
        writes += [text for text in reads if rng.random() < 0.6]
        reads += [text for text in writes if rng.random() < 0.3]
        self._launch(reads, writes)

    def _furnish(self, rng: random.Random, root: bytes) -> socket.socket:
        """Give some files attributes, and put a service's socket somewhere; the same in both trees."""
        for name in self.made:
            path = root + b"/" + name
            if os.path.isfile(path) and not os.path.islink(path) and rng.random() < 0.7:
                with contextlib.suppress(OSError):  # the file system may have none
                    os.setxattr(path, rng.choice(("user.a", "user.b")), b"value")
        folders = [b".", *(name for name in self.made if os.path.isdir(root + b"/" + name))]
        where = [name for name in folders if not os.path.islink(root + b"/" + name)]
        self.service = os.path.normpath(rng.choice(where) + b"/service")
        folder = os.open(os.path.dirname(root + b"/" + self.service), os.O_RDONLY | os.O_DIRECTORY)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/proc/self/fd/{folder}/service")  # the address has little room
        os.chmod(root + b"/" + self.service, 0o666)
        listener.listen(100)
        os.close(folder)
        return listener

    def _text(self) -> bytes:
        """Draw the value of a grant: a folder, a file, a link, a missing name, a prefix, everything."""
        rng = self.rng
        roll = rng.random()
        some = self.root + b"/" + rng.choice(self.made)
        folder = os.path.dirname(some)
        if roll < 0.05:
            return b"*"
        if roll < 0.15:
            return self.root
        if roll < 0.3:
            return folder
        if roll < 0.4:
            return folder + b"/" + rng.choice((b"missing", *trees.NAMES[:8])) + rng.choice((b"", b"", b"/*"))
        if roll < 0.6:
            name = os.path.basename(some)
            return folder + b"/" + name[: rng.randint(0, len(name))] + b"*"
        return some

    def _by_a_link(self, text: bytes) -> bool:
        """Tell whether a grant's value, or a folder on its way below the root, is a link."""
        while text.startswith(self.root + b"/"):
            if os.path.islink(text):
                return True
            text = os.path.dirname(text)
        return False

    def _launch(self, reads: list[bytes], writes: list[bytes]) -> None:
        head: list[str | bytes] = [*support.installed(), "--permission", "--no-warnings", "--allow-ffi"]
        head += ["--allow-fs-metadata"] * self.metadata + ["--allow-net"] * self.net
        while True:
            self.read = [read_grant(text) for text in reads]
            self.write = [read_grant(text) for text in writes]
            self.flags = [*head, *(b"--allow-fs-read=" + text for text in reads)]
            self.flags += [b"--allow-fs-write=" + text for text in writes]
            self.confined = Process(self.flags, self.root, *self.start)
            if self.confined.ready:
                break
            said = self.confined.said()
            self.confined.close()
            # A grant through a link that the program may replace, or that leads nowhere.
            assert "it goes through the link" in said or "Too many levels of symbolic links" in said, said
            before = len(reads) + len(writes)
            reads = [text for text in reads if not self._by_a_link(text)]
            writes = [text for text in writes if not self._by_a_link(text)]
            assert len(reads) + len(writes) < before, said
        self.bare = Process([sys.executable], self.bare_root, *self.start)
        assert self.bare.ready
        given = (*self.read, *self.write)
        self.roots: set[bytes] = {path for grant in given if grant.kind == "tree" for path in grant.paths}
        self.named: set[bytes] = {path for grant in given if grant.kind != "prefix" for path in grant.paths}

    def leads_on(self, place: bytes) -> bool:
        """Tell whether a path is one that a grant names, or a folder above one: where the next run would come by."""
        return place in self.named or any(grant.above(place) for grant in (*self.read, *self.write))

    def close(self) -> None:
        self.confined.close()
        self.bare.close()
        for listener in self.listeners:
            listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def grants(self, need: Need) -> bool:
        """Say what the documentation says."""
        table = self.write if need.scope == "fs.write" else self.read
        if any(grant.covers(need.place) for grant in table):
            return True
        if need.scope != "fs.metadata":
            return False
        above = need.place == b"/" or any(grant.above(need.place) for grant in (*self.read, *self.write))
        return self.metadata or above

    # Where paths lead, seen from outside in the twin tree

    def cwd(self) -> bytes:
        return os.readlink(b"/proc/%d/cwd" % self.bare.process.pid)

    def at(self) -> bytes:
        """Return where the folder is now whose descriptor paths start from: the first one that the program got."""
        return os.readlink(b"/proc/%d/fd/3" % self.bare.process.pid)

    def ours(self, path: bytes) -> bytes:
        """Return the path in the sandbox's tree for one in the twin."""
        return self.tops[1] + path[len(self.tops[0]) :] if path.startswith(self.tops[0]) else path

    def spelled(self, operation: Operation, index: int) -> bytes:
        """Return the absolute path that an operation means in the twin tree, links and detours in it."""
        how, path = operation.paths[index]
        if how == "absolute" or (how == "at" and not operation.starts_at):
            return self.bare_root + b"/" + path
        return (self.at() if how == "at" else self.cwd()) + b"/" + path

    def winding(self, operation: Operation) -> bool:
        """Tell whether a path of an operation has links or ``..`` on its way."""
        spelled = [self.spelled(operation, index) for index in range(len(operation.paths))]
        return any(b".." in path.split(b"/") for path in spelled) or any(True for _link in self.links(operation))

    def nowhere(self, operation: Operation) -> bool:
        """Tell whether a path of an operation leads nowhere."""
        for index in range(len(operation.paths)):
            try:
                os.close(os.open(self.spelled(operation, index), uapi.O_PATH))
            except OSError:
                return True
        return False

    def links(self, operation: Operation) -> Iterator[bytes]:
        """Yield the links on the ways of an operation's paths, in the sandbox's tree."""
        for index in range(len(operation.paths)):
            todo = self.spelled(operation, index).split(b"/")[::-1]
            done, left = b"/", 40
            while todo and left:
                here = os.path.normpath(os.path.join(done, todo.pop()))
                if os.path.islink(here):
                    yield self.ours(here)
                    target = os.readlink(here)
                    todo += target.split(b"/")[::-1]
                    here = b"/" if target[:1] == b"/" else os.path.dirname(here)
                    left -= 1
                done = here

    def hidden(self, place: bytes) -> bool:
        """Tell whether a place may not be looked at."""
        return not self.grants(Need("fs.metadata", place, b""))

    def accessible(self, need: Need) -> bool:
        """Tell whether access(2) says so, too: it tells of what may be looked at, and by the file's own permissions."""
        mode = {"fs.read": os.R_OK, "fs.write": os.W_OK}.get(need.scope, os.F_OK)
        return not self.hidden(need.place) and os.access(need.place, mode)

    def needs(self, operation: Operation) -> Iterator[Need]:
        """Yield what an operation needs, by the documentation."""
        name, numbers = operation.name, operation.numbers
        if name in _MOVING:
            exchange = name == "renameat2" and numbers[0] & uapi.RENAME_EXCHANGE
            yield from self._need(operation, 0, BOTH, follow=False)
            yield from self._need(operation, 1, BOTH if exchange else WRITE, follow=False)
        elif name in _LINKING:
            follow = name == "linkat" and bool(numbers[0] & uapi.AT_SYMLINK_FOLLOW)
            yield from self._need(operation, 0, BOTH, follow=follow)
            yield from self._need(operation, 1, WRITE, follow=False)
        elif name in _OPENING:
            yield from self._opening(operation)
        elif name in raw.BY_DESCRIPTOR or name in raw.EMPTY:
            yield from self._descriptor(operation)
        else:
            follow = name not in _NEVER_FOLLOWS
            if name in _AT_FLAGS:
                flags = numbers[-1] if name in {"faccessat2", "fchmodat2", "fchownat"} else numbers[0]
                follow = not flags & uapi.AT_SYMLINK_NOFOLLOW
            yield from self._need(operation, 0, self._scopes(name, numbers), follow=follow)

    def _scopes(self, name: str, numbers: tuple[int, ...]) -> tuple[str, ...]:
        if name in _LOOKING or name == "chdir":
            return META
        if name in _ACCESS:
            # Where metadata isn't guarded, the kernel answers by the file's own permissions.
            if self.metadata or any(grant.kind == "all" for grant in self.read):
                return META
            mode = numbers[0]
            return (*META, *(READ if mode & os.R_OK else ()), *(WRITE if mode & os.W_OK else ()))
        if name in _READING:
            return META if name == "statfs" and self.metadata else READ
        return WRITE

    def _opening(self, operation: Operation) -> Iterator[Need]:
        flags = _open_flags(operation)
        if flags & uapi.O_PATH:
            scopes: tuple[str, ...] = META if self.metadata else READ
        elif flags & os.O_ACCMODE == os.O_WRONLY:
            scopes = WRITE
        elif flags & os.O_ACCMODE or flags & (os.O_CREAT | os.O_TRUNC | _TMPFILE):
            scopes = BOTH
        else:
            scopes = READ
        follow = not flags & os.O_NOFOLLOW and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL
        inside = b"/#" if flags & _TMPFILE and not flags & uapi.O_PATH else b""
        yield from self._need(operation, 0, scopes, follow=follow, inside=inside)

    def _descriptor(self, operation: Operation) -> Iterator[Need]:
        """Opening it needs what opening needs; then a change needs fs.write, and asking nothing."""
        flags = operation.numbers[0]
        scopes: tuple[str, ...] = ("fs.write",) if flags & os.O_ACCMODE == os.O_WRONLY else ("fs.read",)
        if flags & uapi.O_PATH and self.metadata:
            scopes = META
        name = operation.name
        if name not in _FREE_ON_DESCRIPTORS | _LOOKING | _ACCESS:
            scopes = tuple(dict.fromkeys((*scopes, "fs.write")))
        yield from self._need(operation, 0, scopes, follow=not flags & os.O_NOFOLLOW)

    def _need(
        self, operation: Operation, index: int, scopes: tuple[str, ...], *, follow: bool, inside: bytes = b""
    ) -> Iterator[Need]:
        spelled = self.spelled(operation, index)
        bare = spelled.rstrip(b"/")
        folder, _slash, last = bare.rpartition(b"/")
        if spelled[-1:] == b"/":  # follows a link, but to make, remove or move a name
            creating = operation.name in _OPENING and bool(_open_flags(operation) & os.O_CREAT)
            follow = not (index or creating or operation.name in _MAKING | _MOVING)
        if follow or last in (b".", b".."):
            place, asked = os.path.realpath(spelled), True
        else:
            place = os.path.realpath(folder) + b"/" + last
            asked = not os.path.islink(place)
        how, path = operation.paths[index]
        reference = path if how == "relative" else self.ours(spelled)
        for scope in scopes:
            yield Need(scope, self.ours(place) + inside, reference if asked and path and not inside else b"")


class Found(NamedTuple):
    """What a run found."""

    wrong: list[str]
    counted: Counter[str]
    exceptions: Counter[str]


def look(world: World, which: int) -> Any:
    """Return what one of the twin trees holds."""
    return operations.state(world.folder / ("one", "two")[which], (world.bare_root, world.root)[which])


def aim(world: World, operation: Operation, there: list[bytes]) -> Operation:
    """Make most of an operation's paths lead somewhere, and half of those into a grant: ``there`` is what there is."""
    rng = world.rng
    paths = []
    for index, spelled in enumerate(operation.paths):
        path = spelled.path
        if rng.random() < 0.7:
            some = rng.choices(there, k=6)
            path = some[0]
            if rng.random() < 0.7:
                given = (*world.read, *world.write)
                path = next(
                    (one for one in some if any(grant.covers(world.root + b"/" + one) for grant in given)), path
                )
            if operation.name == "connect":
                path = world.service
            elif (index or operation.name in _NAMING or _open_flags(operation) & os.O_CREAT) and rng.random() < 0.7:
                path = os.path.join(os.path.dirname(path), rng.choice(trees.NAMES[:-1]))
        base = {"relative": world.cwd, "at": world.at}.get(spelled.how)
        if base is not None and (spelled.how == "relative" or operation.starts_at) and rng.random() < 0.8:
            path = os.path.relpath(world.bare_root, base()) + b"/" + path
        paths.append(spelled._replace(path=path or b"."))
    return operation._replace(paths=tuple(paths))


def comparable(operation: Operation, result: Any) -> Any:
    """Return the part of a result that must be the same as without the sandbox."""
    if isinstance(result, Refused):
        return result
    if operation.name in _OPENING and operation.name != "creat" and operation.numbers[0] & uapi.O_PATH:
        return result[:4]  # handed over open for reading
    return result


def play(world: World, found: Found) -> None:
    """Make the operations of one world; stop at the first that went wrong, since the trees differ then."""
    last = look(world, 1)
    assert last == look(world, 0)
    refused: list[Operation] = []
    head = "/deep" * trees.DEPTH + "/"
    there = world.made
    for _ in range(PER_WORLD):
        operation = aim(world, operations.draw_wider(world.rng, world.made, sockets=world.net), there)
        needs = tuple(world.needs(operation))
        granted = all(world.grants(need) for need in needs)
        asked = [need for need in needs if need.asked]
        barred = frozenset([need for need in asked if not world.accessible(need)])
        said, got = world.confined.do([(need.scope, need.asked) for need in asked], operation)
        found.counted["operations"] += 1
        case = Case(world, operation, needs, granted, got, barred=barred)
        for need, answer in zip(asked, said, strict=True):
            found.counted["questions"] += 1
            if answer != world.grants(need) and not exempt(ASKED, case._replace(asked=need), found.exceptions):
                found.wrong.append(f"HAS {need.scope} {need.asked!r} says {answer}\n{case}")
                return
        wrong = _judge(case, found, refused)
        changing = operation.name not in _UNCHANGING
        if not wrong and changing:
            now = look(world, 1)
            same = granted
            if not granted and isinstance(got, Refused) and now != last and exempt(EFFECTS, case, found.exceptions):
                same = True
                flags = operation.numbers[0] & ~(os.O_ACCMODE | os.O_TRUNC)
                world.bare.do([], operation._replace(numbers=(flags, operation.numbers[1])))
            if (look(world, 0) if same else last) != now:
                wrong = f"TREES DIFFER ({'granted' if granted else 'not granted'})"
            last = now
        there = [os.fsencode(name[len(head) :]) for name in last if name.startswith(head)] or [b""]
        if wrong:
            found.wrong.append(f"{wrong}\n{case._replace(want=found_want(case))}")
            return
    # What was refused would have happened without the sandbox.
    for operation in refused:
        happens = not isinstance(world.bare.do([], operation)[1], Refused)
        found.counted["refused, done without the sandbox"] += happens


def found_want(case: Case) -> Any:
    """Return what the twin answers now, for the message."""
    return case.world.bare.do([], case.operation)[1]


def _judge(case: Case, found: Found, refused: list[Operation]) -> str:
    """Compare what happened with what was said; return what is wrong, if anything is."""
    world, operation, got = case.world, case.operation, case.got
    denied = isinstance(got, Refused)
    if not case.granted:
        if not denied:
            if not exempt(LEAKS, case, found.exceptions):
                return "LEAK"
        elif operation.name in _LOOKING | _ACCESS | _READING and not operation.name.startswith("empty"):
            tells = not case.refused(errno.EACCES) and not world.grants(case.needs[0])
            if tells and not exempt(TELLS, case, found.exceptions):
                return "TELLS"
            found.counted["refused"] += 1
            refused.append(operation)
            return ""
        elif operation.name != "chdir":
            found.counted["refused"] += 1
            refused.append(operation)
            return ""
    elif denied and exempt(OVER, case, found.exceptions):
        return ""
    want = world.bare.do([], operation)[1]
    case = case._replace(want=want)
    if operation.name in raw.SOCKETS:
        same = denied == isinstance(want, Refused)
    else:
        same = comparable(operation, got) == comparable(operation, want)
    if same:
        found.counted["granted, refused in both" if denied else "granted, done in both"] += 1
        return ""
    if exempt(OTHERWISE, case, found.exceptions):
        return ""
    return f"OVER-DENIAL (without: {want})" if denied else f"OTHER ANSWER (without: {want})"


@pytest.mark.parametrize("part", [pytest.param(part, marks=[pytest.mark.slow] * (part > 1)) for part in range(TESTS)])
def test_the_rule(part: int, tmp_path: pathlib.Path) -> None:
    support.need()
    found = Found([], Counter(), Counter())
    for number in range(part * PER_TEST, (part + 1) * PER_TEST):
        world = World(number, tmp_path / f"w{number}")
        try:
            play(world, found)
        finally:
            world.close()
    print("numbers:", {"seed": SEED, **found.counted, "exceptions": dict(found.exceptions)})  # pytest -rP shows it
    assert not found.wrong, "\n\n".join(found.wrong)
    # The worlds are no empty ones: enough was done, and enough was refused that would have been done.
    assert found.counted["operations"] == PER_WORLD * PER_TEST
    assert found.counted["granted, done in both"] + found.counted["refused, done without the sandbox"] > PER_WORLD
