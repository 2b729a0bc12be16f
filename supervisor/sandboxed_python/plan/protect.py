"""What no grant may reach: the kernel's trees, the supervisor's own process, and the code that it runs.

Runs in: supervisor.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import PolicyError
from sandboxed_python.plan.implicit import ENTRY, LIBRARY_TREES, PROGRAM_TREES
from sandboxed_python.plan.mounts import read_mounts
from sandboxed_python.policy.model import KERNEL_TREES, is_broad
from sandboxed_python.policy.patterns import Matcher, resolve, within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.plan.landlock import Written
    from sandboxed_python.plan.mounts import Mounts, Named
    from sandboxed_python.plan.runtime import Runtime
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant

# What a literal write grant may name below /dev; /proc and /sys have nothing of the kind.
GRANTABLE_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/pts", "/dev/shm")  # noqa: S108
# Names that mean whoever asks.
OWN_PROCESS = (
    "/proc/self",
    "/proc/thread-self",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
)
# What the loader runs, or takes its orders from, in every program.
LOADER_FILES = ("/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")


def links_on(path: str) -> list[str]:
    """Return the links that are followed on the way to a path, each at its own resolved place."""
    found: list[str] = []

    def readlink(place: str) -> str:
        target = os.readlink(place)
        found.append(place)
        return target

    resolve(path, "/", readlink)
    return found


class Protection:
    """What write grants may not reach on this machine."""

    def __init__(self, runtimes: tuple[Runtime, ...], mounted: Callable[[], Mounts] = read_mounts) -> None:
        """Protect what these interpreters run: the supervisor's, and the program's if it is another one."""
        self.runtimes = runtimes
        self._mounted = mounted
        self._mounts: Mounts | None = None

    @property
    def mounts(self) -> Mounts:
        """What is mounted, read when it is first asked for: only write grants need it."""
        if self._mounts is None:
            self._mounts = self._mounted()
        return self._mounts

    def check(self, policy: Policy) -> None:
        """Refuse grants that mean another process than the program, and write grants that would undo the sandbox.

        Raises:
            PolicyError: the message names the flag, the path and what it covers.
        """
        for grant in (*policy.read, *policy.write):
            own = (*OWN_PROCESS, f"/proc/{os.getpid()}")
            if any(within(path, name) for path in grant.paths for name in own):
                message = f"{grant.origin}: {grant.text!r} is refused: here it means the supervisor, not the program"
                raise PolicyError(message)
        narrow = [grant for grant in policy.write if not is_broad(grant)]  # the broad ones leave all this out
        if not narrow:
            return
        self._check_links(policy, narrow)

        mounts = self.mounts
        files, links = ((), ()) if policy.writable_runtime else self._files()
        for grant in narrow:
            for path in grant.paths:
                self._check(grant, (grant.kind, path), mounts.kernel, files, links)
            for named in mounts.other_names(grant.kind, grant.paths[0]):
                self._check(grant, named, (), files, links)

    def written(self, policy: Policy) -> Written:
        """Return the other names of what narrow write grants make writable: places, and prefixes."""
        named = [
            named
            for grant in policy.write
            if not is_broad(grant)
            for named in self.mounts.other_names(grant.kind, grant.paths[0])
        ]
        places = tuple([path for kind, path in named if kind != "prefix"])
        return places, tuple([path for kind, path in named if kind == "prefix"])

    def left_out(self, policy: Policy, implicit: tuple[Grant, ...]) -> tuple[str, ...]:
        """Return what a write grant of everything leaves out besides ``KERNEL_TREES``.

        Args:
            policy: what the user granted.
            implicit: the read grants that come without a flag: what the interpreter is made of.
        """
        if not any(is_broad(grant) for grant in policy.write):
            return ()
        if policy.writable_runtime:
            return self.mounts.kernel
        own = [path for grant in implicit if grant.reason != ENTRY for path in grant.paths]
        files, links = self._files()
        own = list(dict.fromkeys([*own, *files, *links]))
        others = [path for one in own for _kind, path in self.mounts.other_names("tree", one)]
        return tuple(dict.fromkeys([*own, *self.mounts.kernel, *others]))

    def _files(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return what runs outside, by its names and where it really is; and every link on the way there."""
        names = [path for runtime in self.runtimes for path in runtime.files]
        names += [*LIBRARY_TREES, *PROGRAM_TREES, *LOADER_FILES]
        # Every Python in such a tree looks for one there; by a link to the tree, above the link.
        names += [f"{tree.rpartition('/')[0]}/pyvenv.cfg" for tree in PROGRAM_TREES]
        targets: dict[str, str | OSError] = {}  # of links; most names have their first folders in common
        links: list[str] = []

        def readlink(place: str) -> str:
            target = targets.get(place)
            if target is None:
                try:
                    target = os.readlink(place)
                except OSError as error:
                    target = error
                targets[place] = target
            if isinstance(target, OSError):
                raise target
            links.append(place)
            return target

        files = [path for name in names for path in (name, resolve(name, "/", readlink))]
        return tuple(dict.fromkeys(files)), tuple(dict.fromkeys(links))

    @staticmethod
    def _check_links(policy: Policy, narrow: list[Grant]) -> None:
        """Refuse grants through a link that the program may replace: an earlier run would choose what is granted.

        A link's own spelling in the grant that goes through it doesn't count: no link can be put there (the broker).
        """
        written = Matcher([grant.replace(paths=grant.paths[:1]) for grant in narrow])
        for grant in (*policy.read, *policy.write):
            for path in grant.paths[1:]:
                for link in links_on(path):
                    if written.matches(link):
                        message = (
                            f"{grant.origin}: {grant.text!r} is refused: it goes through the link {link}, which the "
                            f"program may write; grant {grant.paths[0]}"
                        )
                        raise PolicyError(message)

    @staticmethod
    def _check(
        grant: Grant, named: Named, kernel: tuple[str, ...], files: tuple[str, ...], links: tuple[str, ...]
    ) -> None:
        kind, path = named
        tree = next((tree for tree in KERNEL_TREES if within(path, tree)), None)
        if tree and not _harmless(kind, path):
            message = f"{grant.origin}: {grant.text!r} is refused: writing below {tree} reaches past any sandbox"
            raise PolicyError(message)
        covered = next((place for place in kernel if _touches(kind, path, place)), None)
        if covered:
            message = (
                f"{grant.origin}: {grant.text!r} is refused: it covers {covered}, where a kernel file system is mounted"
            )
            raise PolicyError(message)
        covered = next((own for own in files if _touches(kind, path, own)), None)
        # Who replaces a link leads the next start away. What it leads to by another name is no business of this one.
        covered = covered or next((at for at in links if _holds(kind, path, at)), None)
        if covered:
            message = (
                f"{grant.origin}: {grant.text!r} is refused: it covers {covered}, which runs outside the sandbox "
                "the next time; grant a narrower path, or pass --allow-writable-runtime"
            )
            raise PolicyError(message)


def _harmless(kind: str, path: str) -> bool:
    if kind == "prefix":  # /dev/null* is /dev/nullb0, too
        return any(path.startswith(device + "/") for device in GRANTABLE_DEVICES)
    return any(within(path, device) for device in GRANTABLE_DEVICES)


def _holds(kind: str, granted: str, place: str) -> bool:
    if kind == "prefix":
        return place.startswith(granted)
    return place == granted if kind == "path" else within(place, granted)


def _touches(kind: str, granted: str, own: str) -> bool:
    if kind == "prefix":
        return own.startswith(granted) or within(granted, own)
    if kind == "path":
        return within(granted, own)
    return within(own, granted) or within(granted, own)
