"""From grants to Landlock rules.

Runs in: supervisor. Landlock rules only ever allow, and they reach down the whole tree. What a grant leaves out (what
``*`` doesn't write, what may not be executed because it may be written) is left out by granting the entries around it.
"""

from __future__ import annotations

import os

from sandboxed_python.kernel import landlock
from sandboxed_python.plan.implicit import COMMAND, ENTRY, INTERPRETER
from sandboxed_python.plan.model import PathRule
from sandboxed_python.policy.model import KERNEL_TREES, OPEN_DEVICES, is_broad
from sandboxed_python.policy.patterns import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant

    Listing = Callable[[str], list[str]]
    Written = tuple[tuple[str, ...], tuple[str, ...]]


# Reasons of implicit grants whose files a child process may execute; programs come besides (plan.implicit).
EXECUTABLE = frozenset((COMMAND, ENTRY, INTERPRETER))


TERMINALS = ("/dev/tty", "/dev/pts")


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


def path_rules(
    policy: Policy,
    programs: tuple[str, ...],
    interpreter: tuple[str, ...] = (),
    listing: Listing = os.listdir,
    *,
    written: Written = ((), ()),
) -> tuple[PathRule, ...]:
    """Return the Landlock rules of the effective policy.

    Prefixes and paths that don't exist make no rule: Landlock ties rules to existing files. They are the broker's.

    Args:
        policy: with the implicit grants in it, and ``protected`` filled in.
        programs: trees of system programs and libraries; executable when child processes are granted.
        interpreter: files that the first exec needs (the exec way): the interpreter and its loader.
        listing: as ``os.listdir``.
        written: other names of what the user's grants make writable, and other prefixes.
    """
    rights: dict[str, int] = {}
    optional: dict[str, bool] = {}

    def add(path: str, mask: int, implicit: bool) -> None:  # noqa: FBT001
        rights[path] = rights.get(path, 0) | mask
        optional[path] = optional.get(path, True) and implicit

    for grant in policy.write:
        if is_broad(grant):
            for path in _broad_places(grant, policy, listing):
                add(path, landlock.WRITE, implicit=True)
            for path in sorted(OPEN_DEVICES):
                add(path, landlock.WRITE_FILE | _ioctl(path), implicit=True)
        elif grant.kind in ("tree", "path"):
            path = grant.paths[0]
            add(path, landlock.WRITE | _ioctl(path), grant.implicit)
    for grant in policy.read:
        for path in _read_places(grant):
            add(path, landlock.READ, grant.implicit)
    if policy.granted("child"):
        for path in _executable(policy, programs, listing, written):
            add(path, landlock.EXECUTE | landlock.READ, implicit=True)
    for path in interpreter:
        add(path, landlock.EXECUTE | landlock.READ_FILE, implicit=True)
    return tuple([PathRule(path=path, rights=mask, optional=optional[path]) for path, mask in rights.items()])


def _executable(policy: Policy, programs: tuple[str, ...], listing: Listing, written: Written) -> Iterator[str]:
    """Yield what child processes may execute: programs and what is granted for reading, unless it can be written."""
    places, prefixes = _written(policy)
    places += written[0]
    prefixes += written[1]
    everything = any(is_broad(grant) and grant.kind != "prefix" for grant in policy.write)
    for grant in policy.read:
        if grant.implicit and grant.reason not in EXECUTABLE:
            continue
        for tree in _read_places(grant):
            # Under a write grant of everything, only what it leaves out can't be written.
            if not everything or any(within(tree, path) for path in policy.protected):
                yield from around(tree, places, listing, prefixes)
    for tree in dict.fromkeys(os.path.realpath(tree) for tree in programs):
        yield from around(tree, places, listing, prefixes)


def _ioctl(path: str) -> int:
    """Return the right to device ioctls for terminals: without it ``getpass`` can't hide what is typed.

    Which ioctls there are is the seccomp filter's matter: none of them types into the terminal.
    """
    return landlock.IOCTL_DEV if any(within(path, terminal) for terminal in TERMINALS) else 0


def _read_places(grant: Grant) -> tuple[str, ...]:
    if grant.kind == "all":
        return ("/",)
    return grant.paths[:1] if grant.kind in ("tree", "path") else ()


def _written(policy: Policy) -> tuple[list[str], list[str]]:
    """Return the places, and the prefixes, that the user's grants make writable: nothing there may be executed.

    Write grants of everything are left out: ``policy.protected`` tells what they don't reach.
    """
    grants = [grant for grant in policy.write if not grant.implicit]
    places = [
        path for grant in grants if grant.kind in ("tree", "path") and not is_broad(grant) for path in grant.paths
    ]
    return places, [path for grant in grants if grant.kind == "prefix" for path in grant.paths]


def _broad_places(grant: Grant, policy: Policy, listing: Listing) -> list[str]:
    """Return the trees of a write grant of everything, without the kernel's trees and the protected ones."""
    left_out = (*KERNEL_TREES, *policy.protected)
    if grant.kind in ("all", "tree"):
        return around("/", left_out, listing)
    return []  # a prefix such as /p*: the broker's
