"""Paths: how a flag's value becomes a grant, how links are resolved, and how a path is matched.

Runs in: both. The rule is the documented one of Node.js (prefix wildcards, whole directories, exact paths); links are
resolved first, so that no link leads out of a grant. Paths are ``str`` (surrogateescape), absolute, without ``.``,
``..``, doubled or trailing slashes, and compare byte for byte.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import UsageError
from sandboxed_python.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn, Protocol

    class Lookup(Protocol):
        """The two questions that making a grant asks of the file system."""

        def is_dir(self, path: str, /) -> bool:
            """Tell whether the path, links followed, is a directory."""

        def readlink(self, path: str, /) -> str:
            """Return the target of a link; raises OSError if it isn't one, as ``os.readlink`` does."""


# MAXSYMLINKS of the kernel (path_resolution(7)): the 41st link in one path is ELOOP.
LINK_LIMIT = 40


class OSLookup:
    """The real file system as a ``Lookup``; the class itself serves as one, too."""

    @staticmethod
    def is_dir(path: str) -> bool:
        """Tell whether the path, links followed, is a directory."""
        return os.path.isdir(path)

    @staticmethod
    def readlink(path: str) -> str:
        """Return the target of a link, as ``os.readlink``.

        Raises:
            OSError: the path can't be read or isn't a link.
        """
        return os.readlink(path)


class Grant(Frozen):
    """One granted path, tree or prefix.

    Attributes:
        text: as the user wrote it.
        kind: ``"all"`` (a literal ``*``), ``"tree"`` (a directory and all below), ``"prefix"`` (every path that starts
            so) or ``"path"`` (exactly this).
        paths: empty for ``"all"``; else the resolved path or prefix, and, where a link made a difference, the
            unresolved spelling after it.
        origin: where it was said: ``"--allow-fs-read"``, ``"policy.toml:3"``, ``"runtime"``.
        implicit: granted without a flag.
        reason: why it is granted, for implicit ones.
    """

    text: str
    kind: str = "tree"
    paths: tuple[str, ...] = ()
    origin: str = ""
    implicit: bool = False
    reason: str = ""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What a matching path may start with (``exact`` matches besides)."""
        if self.kind == "tree":
            return tuple([path if path == "/" else path + "/" for path in self.paths])
        if self.kind == "prefix":
            return self.paths
        return ("/",) if self.kind == "all" else ()

    @property
    def exact(self) -> tuple[str, ...]:
        """The paths that match as they are."""
        return self.paths if self.kind in ("tree", "path") else ()

    def covers(self, other: Grant) -> bool:
        """Tell whether every path that the other grant matches is matched by this one."""
        heads = self.prefixes
        if other.kind == "path":
            return all(path in self.exact or path.startswith(heads) for path in other.paths)
        if other.kind == "tree":
            return all(path.startswith(heads) or (path in self.exact and self.kind == "tree") for path in other.paths)
        return all(path.startswith(heads) for path in other.prefixes)


def normalize(path: str, cwd: str) -> str:
    """Make a path absolute and remove ``.``, ``..``, doubled and trailing slashes, by its letters alone."""
    if path[:1] != "/":
        path = f"{cwd}/{path}"
    if "//" not in path and "/." not in path and path[-1] != "/":
        return path
    kept: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if kept:
                kept.pop()
        elif name and name != ".":
            kept.append(name)
    return "/" + "/".join(kept)


def resolve(path: str, cwd: str, readlink: Callable[[str], str], follow_last: bool = True) -> str:  # noqa: FBT001, FBT002
    """Return where a path leads: links followed component by component, ``..`` taken where the kernel would take it.

    A component that can't be read counts as no link. After 40 links (path_resolution(7): ELOOP) the rest is taken by
    its letters. With ``follow_last=False`` a link in the last place stays, unless a slash follows it, as with lstat(2).
    """
    if path[:1] != "/":
        path = f"{cwd}/{path}"
    todo = path.split("/")
    todo.reverse()
    done = ""
    left = LINK_LIMIT
    while todo:
        name = todo.pop()
        if not name or name == ".":
            continue
        if name == "..":
            done = done[: done.rfind("/")] if done else done
            continue
        here = f"{done}/{name}"
        if not todo and not follow_last:
            return here
        try:
            target = readlink(here)
        except (OSError, ValueError):
            done = here
            continue
        if not left:
            todo.append(here)
            return normalize("/".join(reversed(todo)), cwd)
        left -= 1
        if target[:1] == "/":
            done = ""
        below = target.split("/")
        below.reverse()
        todo += below
    return done or "/"


def seen_from(path: str, folder: str) -> str:
    """Return the way to a path from a folder, ``..`` where it leads up; both absolute, normalized, links resolved."""
    up = ""
    while not within(path, folder):
        folder = folder[: folder.rfind("/")] or "/"
        up += "../"
    return up + (path if folder == "/" else path[len(folder) :]).lstrip("/") or "."


def within(path: str, tree: str) -> bool:
    """Tell whether a path (absolute, normalized) is a tree or lies in it."""
    return tree in (path, "/") or path.startswith(tree + "/")


def literal_grant(  # noqa: PLR0913
    path: str, origin: str, cwd: str, lookup: Lookup, *, implicit: bool = False, reason: str = ""
) -> Grant:
    """Make a grant of a path in which ``*`` means nothing special: the entry script, the runtime's files.

    Raises:
        UsageError: the path is empty or holds a NUL. The message names ``origin``.
    """
    if not path:
        refuse_empty(origin)
    refuse_nul(path, origin)
    paths = spellings(path, cwd, lookup)
    kind = "tree" if lookup.is_dir(paths[0]) else "path"
    return Grant(text=path, kind=kind, paths=paths, origin=origin, implicit=implicit, reason=reason)


def spellings(path: str, cwd: str, lookup: Lookup) -> tuple[str, ...]:
    """Return the resolved path, and the unresolved one after it if that is another name of the same place."""
    real = resolve(path, cwd, lookup.readlink)
    spelled = normalize(path, cwd)
    if spelled == real:
        return (real,)
    # With ".." after a link, the letters alone lead somewhere else, which nobody granted.
    if "/.." in f"/{path}" and resolve(spelled, cwd, lookup.readlink) != real:
        return (real,)
    return (real, spelled)


def refuse_empty(origin: str) -> NoReturn:
    """Refuse an empty path; ``origin`` is who gave it."""
    name = origin or "a list of paths"
    message = f"{name} requires an argument: an empty path is refused (is a shell variable unset?)"
    raise UsageError(message)


def refuse_nul(text: str, origin: str) -> None:
    """Refuse a path that holds a NUL; ``origin`` is who gave it."""
    if "\0" in text:
        message = f"{origin or 'a list of paths'}: {text!r} holds a NUL character, which no path can"
        raise UsageError(message)


class Matcher:
    """Grants compiled for matching: one look-up in a set and one ``str.startswith`` per question.

    Attributes:
        all: a literal ``*`` is among the grants.
        exact: paths that match as they are.
        prefixes: what other matching paths start with.
    """

    __slots__ = ("_above", "_grants", "all", "exact", "prefixes")

    def __init__(self, grants: Iterable[Grant]) -> None:
        """Compile the grants."""
        self._grants = tuple(grants)
        self._above: frozenset[str] | None = None
        self.all = False
        exact: set[str] = set()
        heads: set[str] = set()
        for grant in self._grants:
            if grant.kind == "all":
                self.all = True
            exact.update(grant.exact)
            heads.update(grant.prefixes)
        kept: list[str] = []
        for head in sorted(heads):
            if not (kept and head.startswith(kept[-1])):
                kept.append(head)
        self.exact = exact
        self.prefixes = tuple(kept)

    def matches(self, path: str) -> bool:
        """Tell whether a grant matches the path (absolute, normalized, links resolved)."""
        return path in self.exact or path.startswith(self.prefixes)

    def above(self, path: str) -> bool:
        """Tell whether the path is a directory above some grant."""
        above = self._above
        if above is None:
            found: set[str] = set()
            for grant in self._grants:
                for start in grant.paths:
                    at = start
                    while at != "/":
                        at = at[: at.rfind("/")] or "/"
                        if at in found:
                            break
                        found.add(at)
            above = self._above = frozenset(found)
        return path in above
