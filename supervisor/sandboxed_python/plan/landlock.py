"""From grants to Landlock rules.

Runs in: supervisor.
"""

from __future__ import annotations

import os

from sandboxed_python import image
from sandboxed_python.kernel import landlock
from sandboxed_python.plan.model import PathRule
from sandboxed_python.policy.model import OPEN_DEVICES, is_broad
from sandboxed_python.policy.patterns import within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant

    Listing = Callable[[str], list[str]]
    Written = tuple[tuple[str, ...], tuple[str, ...]]


TERMINALS = ("/dev/tty", "/dev/pts")


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
            for path in _places().broad(grant, policy, listing):
                add(path, landlock.WRITE, implicit=True)
            for path in sorted(OPEN_DEVICES):
                add(path, landlock.WRITE_FILE | _ioctl(path), implicit=True)
        elif grant.kind in ("tree", "path"):
            path = grant.paths[0]
            add(path, landlock.WRITE | _ioctl(path), grant.implicit)
    for grant in policy.read:
        for path in read_places(grant):
            add(path, landlock.READ, grant.implicit)
    if policy.granted("child"):
        for path in _places().executable(policy, programs, listing, written):
            add(path, landlock.EXECUTE | landlock.READ, implicit=True)
    for path in interpreter:
        add(path, landlock.EXECUTE | landlock.READ_FILE, implicit=True)
    covered = _covered(rights)
    return tuple(
        [
            PathRule(path=path, rights=mask, optional=optional[path])
            for path, mask in rights.items()
            if path not in covered
        ]
    )


def _covered(rights: dict[str, int]) -> set[str]:
    """Return the paths that lie in another one which has all of their rights: Landlock walks up to that anyway.

    Each rule costs system calls at every start, and time at every look at a file.
    """
    found: set[str] = set()
    above: list[tuple[str, int]] = []  # what the path lies in, outermost first
    for head, path in sorted([(path if path == "/" else path + "/", path) for path in rights]):
        while above and not head.startswith(above[-1][0]):
            above.pop()
        mask = rights[path]
        for _, there in above:
            if not mask & ~there:
                found.add(path)
                break
        above.append((head, mask))
    return found


def _places() -> ModuleType:
    """Load what few policies need: what is around what a grant leaves out."""
    image.load("places")
    from sandboxed_python.plan import places

    return places


def _ioctl(path: str) -> int:
    """Return the right to device ioctls for terminals: without it ``getpass`` can't hide what is typed.

    Which ioctls there are is the seccomp filter's matter: none of them types into the terminal.
    """
    return landlock.IOCTL_DEV if any(within(path, terminal) for terminal in TERMINALS) else 0


def read_places(grant: Grant) -> tuple[str, ...]:
    """Return the trees and files that a read grant names, as far as a rule can be tied to them."""
    if grant.kind == "all":
        return ("/",)
    return grant.paths[:1] if grant.kind in ("tree", "path") else ()
