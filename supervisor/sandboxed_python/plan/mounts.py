"""What is mounted: where the kernel's own file systems are, and other names of the same place.

Runs in: supervisor. A bind mount shows a folder a second time, at another path. Rules that are about a file and not
about a path (nothing that the program may write is executed, or lies where others take their code from) need the other
paths, too. Read from proc_pid_mountinfo(5); nothing in the file system is looked at.
"""

from __future__ import annotations

import os

from sandboxed_python.policy.model import KERNEL_TREES
from sandboxed_python.policy.patterns import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Row = tuple[str, str, str, bool]
    """Device, the folder of its file system that is mounted, where, and whether it is one of the kernel's."""

    Named = tuple[str, str]
    """Kind of a grant (``policy.patterns.Grant.kind``) and path."""

# File systems whose files are the kernel's own doors, wherever they are mounted.
KERNEL_FILE_SYSTEMS = frozenset(
    (
        b"proc", b"sysfs", b"devtmpfs", b"debugfs", b"tracefs", b"securityfs", b"configfs", b"cgroup", b"cgroup2",
        b"bpf", b"efivarfs", b"pstore", b"binfmt_misc", b"selinuxfs", b"smackfs", b"fusectl", b"nsfs", b"resctrl",
        b"devpts", b"nfsd", b"rpc_pipefs", b"functionfs", b"xenfs",
    )
)  # fmt: skip


def read_mounts(source: str = "/proc/self/mountinfo") -> Mounts:
    """Return what is mounted for this process; nothing where that can't be read."""
    try:
        with open(source, "rb") as file:
            return Mounts(parse(file.read()))
    except OSError:
        return Mounts(())


def parse(text: bytes) -> list[Row]:
    """Return the rows of a mountinfo file, but for mounts that another one hides: no path leads there."""
    rows: list[Row] = []
    mounts: dict[bytes, tuple[bytes, str]] = {}
    """Number -> the number of the mount that it lies in, and where."""
    numbers: list[bytes] = []
    for line in text.split(b"\n"):
        head, dash, tail = line.partition(b" - ")
        fields = head.split(b" ", 5)
        if dash and len(fields) == 6:
            kernels = tail.split(b" ", 1)[0] in KERNEL_FILE_SYSTEMS
            rows.append((fields[2].decode(), _unescaped(fields[3]), _unescaped(fields[4]), kernels))
            mounts[fields[0]] = fields[1], rows[-1][2]
            numbers.append(fields[0])
    hidden = _hidden(mounts)
    return [row for row, number in zip(rows, numbers, strict=True) if number not in hidden] if hidden else rows


def _hidden(mounts: dict[bytes, tuple[bytes, str]]) -> set[bytes]:
    """Return the numbers of mounts that are hidden: by one over their root, or over a folder on the way to them."""
    taken = set(mounts.values())
    covered = {number for number, (_parent, place) in mounts.items() if (number, place) in taken and place != "/"}
    unreachable = {number for number, (parent, place) in mounts.items() if _is_below_another(parent, place, taken)}
    reached = 0
    while len(unreachable) != reached:
        reached = len(unreachable)
        unreachable |= {number for number, (parent, _place) in mounts.items() if parent in unreachable}
    return covered | unreachable


def _is_below_another(parent: bytes, place: str, taken: set[tuple[bytes, str]]) -> bool:
    """Tell whether something else is mounted on a folder above, in the same mount."""
    above, _slash, _name = place.rpartition("/")
    while above:
        if (parent, above) in taken:
            return True
        above = above.rpartition("/")[0]
    return False


def _unescaped(field: bytes) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    if b"\\" in field:
        field = field.decode("latin-1").encode("latin-1").decode("unicode_escape").encode("latin-1")
    return os.fsdecode(field)


class Mounts:
    """The mounts of this process.

    Attributes:
        kernel: where kernel file systems are mounted outside of ``KERNEL_TREES``.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        """Take the rows of ``parse``, in the order of mounting."""
        rows = list(rows)
        self.kernel = tuple(
            [place for _device, _root, place, kernels in rows if kernels and not _in_kernel_trees(place)]
        )
        self._rows = rows
        self._of: dict[str, list[Row]] = {}
        for row in rows:
            self._of.setdefault(row[0], []).append(row)
        self._twice = any(
            len(same) > 1 and not all(_in_kernel_trees(place) for _device, _root, place, _kernels in same)
            for same in self._of.values()
        )

    def other_names(self, kind: str, path: str) -> list[Named]:
        """Return the other names of what a grant names: of its place, and of what is mounted in it.

        Args:
            kind: ``"tree"``, ``"path"`` or ``"prefix"``.
            path: resolved; it need not exist.
        """
        if not self._twice:
            return []
        base = path.rpartition("/")[0] or "/" if kind == "prefix" else path
        found: list[Named] = []
        device, root, place, _kernels = self._mount_of(base)
        found += self._names(kind, device, _join(root, _below(path, place)))
        for device, root, place, _kernels in self._rows:
            if place.startswith(path) if kind == "prefix" else within(place, path):
                found += self._names("tree", device, root)
        return [named for named in dict.fromkeys(found) if named != (kind, path) and not _covers(kind, path, named)]

    def _mount_of(self, path: str) -> Row:
        """Return the mount that a path lies in: the innermost, and of several at one place the last."""
        best: Row = ("", "/", "/", False)
        for row in self._rows:
            if within(path, row[2]) and len(row[2]) >= len(best[2]):
                best = row
        return best

    def _names(self, kind: str, device: str, inner: str) -> list[Named]:
        """Return every name of a place, given as a path within the file system of a device."""
        found: list[Named] = []
        for _device, root, place, _kernels in self._of.get(device, ()):
            if root[:1] != "/":
                continue
            if within(inner.rpartition("/")[0] or "/" if kind == "prefix" else inner, root):
                found.append((kind, _join(place, _below(inner, root))))
            elif root.startswith(inner) if kind == "prefix" else within(root, inner):
                found.append(("tree", place))
        return found


def _in_kernel_trees(place: str) -> bool:
    return any(within(place, tree) for tree in KERNEL_TREES)


def _below(path: str, tree: str) -> str:
    """Return what a path has after a tree that it lies in: "" or with a leading slash."""
    if tree == "/":
        return "" if path == "/" else path
    return path[len(tree) :]


def _join(tree: str, rest: str) -> str:
    return (rest or "/") if tree == "/" else tree + rest


def _covers(kind: str, path: str, named: Named) -> bool:
    """Tell whether a name is granted as well by the very path."""
    return named[1].startswith(path) if kind == "prefix" else kind == "tree" and within(named[1], path)
