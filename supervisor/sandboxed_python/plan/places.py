"""Places around what a grant leaves out.

Runs in: supervisor. Landlock rules only ever allow, and they reach down the whole tree. What a grant leaves out (what
``*`` doesn't write, what may not be executed because it may be written) is left out by granting the entries around it.
"""

from __future__ import annotations

import os

from sandboxed_python.plan.implicit import COMMAND, ENTRY, INTERPRETER
from sandboxed_python.plan.landlock import read_places
from sandboxed_python.policy.model import KERNEL_TREES, is_broad
from sandboxed_python.policy.patterns import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sandboxed_python.plan.landlock import Listing, Written
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant

# Reasons of implicit grants whose files a child process may execute; programs come besides (plan.implicit).
EXECUTABLE = frozenset((COMMAND, ENTRY, INTERPRETER))


def around(tree: str, left_out: Iterable[str], listing: Listing, prefixes: Iterable[str] = ()) -> list[str]:
    """Return paths whose trees make up ``tree`` without ``left_out``, as far as they exist now.

    Args:
        tree: a directory.
        left_out: paths to leave out, with all below.
        listing: returns the names in a directory, as ``os.listdir``; a directory that it can't list is left out whole.
        prefixes: what the names to leave out besides start with, also names that don't exist yet.
    """
    left_out, prefixes = tuple(left_out), tuple(prefixes)
    if any(within(tree, path) for path in left_out) or tree.startswith(prefixes):
        return []
    inside = [path for path in left_out if within(path, tree)]
    begun = [prefix for prefix in prefixes if within(prefix.rpartition("/")[0] or "/", tree)]
    if not inside and not begun:
        return [tree]
    found: list[str] = []
    try:
        names = sorted(listing(tree))
    except OSError:
        return []
    for name in names:
        path = f"/{name}" if tree == "/" else f"{tree}/{name}"
        if os.path.islink(path):
            continue  # a link is judged by where it leads
        found += around(path, inside, listing, begun)
    return found


def executable(policy: Policy, programs: tuple[str, ...], listing: Listing, written: Written) -> Iterator[str]:
    """Yield what child processes may execute: programs and what is granted for reading, unless it can be written."""
    places, prefixes = _written(policy)
    places += written[0]
    prefixes += written[1]
    everything = any(is_broad(grant) and grant.kind != "prefix" for grant in policy.write)
    for grant in policy.read:
        if grant.implicit and grant.reason not in EXECUTABLE:
            continue
        for tree in read_places(grant):
            # Under a write grant of everything, only what it leaves out can't be written.
            if not everything or any(within(tree, path) for path in policy.protected):
                yield from around(tree, places, listing, prefixes)
    for tree in dict.fromkeys(os.path.realpath(tree) for tree in programs):
        yield from around(tree, places, listing, prefixes)


def _written(policy: Policy) -> tuple[list[str], list[str]]:
    """Return the places, and the prefixes, that the user's grants make writable: nothing there may be executed.

    Write grants of everything are left out: ``policy.protected`` tells what they don't reach.
    """
    grants = [grant for grant in policy.write if not grant.implicit]
    places = [
        path for grant in grants if grant.kind in ("tree", "path") and not is_broad(grant) for path in grant.paths
    ]
    return places, [path for grant in grants if grant.kind == "prefix" for path in grant.paths]


def broad(grant: Grant, policy: Policy, listing: Listing) -> list[str]:
    """Return the trees of a write grant of everything, without the kernel's trees and the protected ones."""
    left_out = (*KERNEL_TREES, *policy.protected)
    if grant.kind in ("all", "tree"):
        return around("/", left_out, listing)
    return []  # a prefix such as /p*: the broker's
