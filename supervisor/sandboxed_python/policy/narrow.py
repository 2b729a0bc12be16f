"""One policy within another: what a program gives up at run time, and a sandbox in a sandbox.

Runs in: both. Pure.
"""

from __future__ import annotations

import os

from sandboxed_python.policy.decide import drop
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import OSLookup
from sandboxed_python.policy.spelling import parse_grant
from sandboxed_python.policy.table import BY_SCOPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sandboxed_python.policy.patterns import Grant

# A kernel domain has at most 16 layers (landlock(7)), so more policies within one another can't be enforced anyway.
DEEPEST = 16
_KINDS = frozenset(("all", "tree", "prefix", "path"))


def narrowed(outer: Policy, asked: Policy) -> Policy:
    """Return the policy that grants what both grant: never more than ``outer``, whatever is asked for.

    A policy that only leaves out grants of the outer one takes its place; any other is kept within it.
    """
    asked = asked.replace(mode=outer.mode)
    inside = (
        set(asked.read) <= set(outer.read)
        and set(asked.write) <= set(outer.write)
        and asked.scopes <= outer.scopes
        and set(asked.protected) >= set(outer.protected)
    )
    return asked.replace(within=outer.within if inside else outer)


def after_drop(policy: Policy, scope: str, given: str | None, cwd: str) -> Policy:
    """Return what is granted after ``drop(scope, given)`` (``decide.drop``), as far as the kernel can enforce it.

    Where metadata isn't guarded at all, it stays open when the grants go that it came with.

    Args:
        policy: what is granted.
        scope: as for ``decide.drop``.
        given: the reference as it was given, None or ``""`` for the whole scope.
        cwd: the directory that it starts from.

    Raises:
        RuntimeError: it can't be enforced.
    """
    target = None
    if given and scope.startswith("fs") and scope != "fs.metadata":
        if "\0" in given:
            return policy  # no path holds one
        trees = {grant.paths[0] for grant in (*policy.read, *policy.write) if grant.kind == "tree"}
        target = parse_grant(given, "drop", cwd, _Lookup(trees))
    after = drop(policy, scope, target)
    if policy.metadata_open and not after.metadata_open:
        if scope == "fs.metadata":
            message = f"{scope} can't be dropped: its calls aren't guarded (start without --allow-fs-metadata)"
            raise RuntimeError(message)
        after = after.replace(scopes=after.scopes | {"fs.metadata"})
    if policy.granted("addon") and not after.granted("addon") and after.granted("child"):
        message = f"{scope} can't be dropped while child processes are granted, whose code comes from files: drop child"
        raise RuntimeError(message)
    return policy if after == policy else narrowed(policy, after)


class _Lookup:
    """Looks at the file system, and takes for a directory what is granted as one and can't be looked at."""

    readlink = staticmethod(OSLookup.readlink)

    def __init__(self, trees: set[str]) -> None:
        """Know which directories are granted."""
        self._trees = trees

    def is_dir(self, path: str) -> bool:
        """Tell whether the path, links followed, is a directory."""
        try:
            return os.stat(path).st_mode & 0o170000 == 0o040000
        except PermissionError:
            return path in self._trees
        except OSError:
            return False


def from_message(data: Any) -> Policy:
    """Return the policy that somebody who isn't trusted has sent, as ``Policy.to_data`` makes it.

    What it is within is left out: that is not the sender's to say.

    Raises:
        ValueError: it isn't one.
    """
    try:
        policy = Policy.from_data({**data, "within": None})
        _check(policy)
    except (TypeError, KeyError, AttributeError) as error:
        message = f"not a policy: {error}"
        raise ValueError(message) from error
    return policy


def _check(policy: Policy) -> None:
    """See that everything is of the type that it should be.

    Raises:
        TypeError: it isn't.
    """
    texts: list[object] = [policy.mode, *policy.scopes, *policy.protected, *policy.sources]
    for grant in (*policy.read, *policy.write):
        texts += [grant.text, grant.kind, grant.origin, grant.reason, *grant.paths]
        if grant.kind not in _KINDS or not isinstance(grant.implicit, bool):
            raise TypeError(grant.kind)
        if (not grant.paths) is not (grant.kind == "all"):
            raise TypeError(grant.paths)
        if not all(path[:1] == "/" and "\0" not in path for path in grant.paths):
            raise TypeError(grant.paths)
    for pair in policy.origins:
        texts += pair
    if not all(type(text) is str for text in texts) or not policy.scopes <= BY_SCOPE.keys():
        raise TypeError


def covered(grants: Iterable[Grant], others: Iterable[Grant]) -> tuple[Grant, ...]:
    """Return grants of those paths, trees and prefixes that one of the others covers as a whole."""
    singles = [one for other in others for one in _single(other)]
    return tuple([one for grant in grants for one in _single(grant) if any(other.covers(one) for other in singles)])


def _single(grant: Grant) -> list[Grant]:
    """Return a grant of each of the paths that a grant has."""
    return [grant.replace(paths=(path,)) for path in grant.paths] or [grant]
