"""The audit hook: it puts into words, as ``AccessDeniedError``, what the kernel would refuse.

Runs in: child. The kernel decides; so this may let pass what it doesn't understand, but must never refuse what the
policy grants.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.child import wrap
from sandboxed_python.child.events import EITHER, EVENTS, FOLLOW, ITSELF, READ, WRITE
from sandboxed_python.child.libraries import preload
from sandboxed_python.child.raising import Raiser, Slot
from sandboxed_python.errors import AccessDeniedError
from sandboxed_python.policy.decide import Request, decide
from sandboxed_python.policy.patterns import resolve, seen_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandboxed_python.child.publish import Publisher
    from sandboxed_python.policy.decide import Verdict
    from sandboxed_python.policy.model import Policy

    KernelSide = Callable[[], Callable[[Policy, Policy, Callable[[], None]], None]]
# The originals: wrap.py replaces what os offers.
_getcwd = os.getcwd
_readlink = os.readlink
_stat = os.stat
_fsdecode = os.fsdecode
_dirname = os.path.dirname

_REMEMBERED = 4096
_SHARED = "/dev/shm"  # noqa: S108 - where libc puts semaphores and shared memory


class JudgingSlot(Slot):
    """The slot of raising.py, and more.

    Attributes:
        folder: what the wrapper of os.open tells the hook.
        importing: the judge itself is importing.
        telling: a denial is being told.
    """

    folder: int | None = None
    importing: bool = False
    telling: bool = False


class Judge:
    """Judges events by the policy.

    Attributes:
        slot: what the second hook raises.
        seen: arguments of ``open`` events that were granted; cleared when the current directory changes.
        runtime: what paths of files start with that are granted without a flag.
        own: the folder of the interpreter's own extension modules, as spelled and resolved.
        rows: what is asked about events, as ``table``; the hook looks here.
        preloading: this package itself is loading and calling libraries.
        modules: what is to be done to modules when they are imported; see ``wrap.modules``.
        heard: the program has added an audit hook.
        load: imports a module of this package, by its name in it, when the program runs already.
        publisher: whom denials are told; None as long as there was none.
        reports: the supervisor wants to know of denials; None: it is asked at the first one.
    """

    load: Callable[[str], Any]
    publisher: Publisher | None = None
    reports: bool | None = None

    def __init__(self, policy: Policy, *, guarded: bool) -> None:
        """Judge by the policy; ``guarded``: the kernel may refuse to read a link on the way."""
        self.policy = policy
        self.guarded = guarded
        self.slot = JudgingSlot()
        self.seen: set[Any] = set()
        self.folders: dict[str, str] = {}
        self.preloaded = self.preloading = self.heard = False
        self.own = [path for path in sys.path if path.endswith("/lib-dynload")][:1]
        self.own += [resolve(path, "/", _readlink) for path in self.own]
        self.rows = self.table()
        self.runtime = tuple(
            [path + "/" for grant in policy.read if grant.implicit and grant.kind == "tree" for path in grant.paths]
        )
        self.modules = wrap.modules(self)

    def remember(self, arguments: Any) -> None:
        """Remember that an ``open`` event was granted. Nothing else about the event matters, so the next passes.

        Where nothing is enforced, what passes need not be granted.
        """
        if self.policy.mode != "enforce":
            return
        if len(self.seen) >= _REMEMBERED:
            self.seen.clear()
        self.seen.add(arguments)

    def denial(
        self, scope: str, path: Any, dir_fd: int | None, links: int, *, metadata: bool = False
    ) -> AccessDeniedError | None:
        """Return the error if the policy doesn't grant this use of the path, else None.

        Args:
            scope: ``"fs.read"`` or ``"fs.write"``.
            path: as the program gave it: str, bytes, path object, None for the current directory, or a descriptor,
                which is never denied.
            dir_fd: descriptor that a relative path starts at, None or negative for the current directory.
            links: FOLLOW, ITSELF or EITHER.
            metadata: only stat, access or readlink is wanted.
        """
        if path.__class__ is not str:
            if path is None:
                path = "."
            elif isinstance(path, int):
                return None
            else:
                path = _fsdecode(path)
        start = "/"
        if path[:1] != "/":
            try:
                start = _getcwd() if dir_fd is None or dir_fd < 0 else _readlink(f"/proc/self/fd/{dir_fd}")
            except OSError:
                return None
            if start[:1] != "/":
                return None
        policy = self.policy
        granted = policy.writable if scope == WRITE else policy.statable if metadata else policy.readable
        if links != ITSELF and granted(self._place(path, start, FOLLOW)):
            return None
        if links != FOLLOW and granted(self._place(path, start, ITSELF)):
            return None
        request = Request(scope=scope, resource=path, metadata=metadata)
        verdict = self._look_again(request, start, dir_fd, ITSELF if links == ITSELF else FOLLOW)
        if links == EITHER and not verdict.allowed:
            verdict = self._look_again(request, start, dir_fd, ITSELF)
        if verdict.allowed:
            return None
        # No path holds a NUL: the operation itself says so better.
        return None if "\0" in path else self._deny(verdict, path)

    def _look_again(self, request: Request, start: str, dir_fd: int | None, links: int) -> Verdict:
        """Judge without what is remembered, minding links that can't be read: a denial needs this.

        Where only modes can hide a link from the root, it is read from where a relative path starts, as by the kernel.
        """
        blind = []
        path = request.resource
        near = path[:1] != "/" and not self.guarded

        def look(link: str) -> str:
            try:
                return _readlink(link)
            except PermissionError:
                if near:
                    return _readlink(seen_from(link, start), dir_fd=None if dir_fd is None or dir_fd < 0 else dir_fd)
                blind.append(link)
                raise

        place = resolve(path, start, look, links == FOLLOW)
        verdict = decide(self.policy, request.replace(path=place))
        if verdict.allowed:
            self.folders.clear()
        elif blind and self.guarded and _visible(path, links):
            return verdict.replace(allowed=True)
        return verdict

    def _place(self, path: str, start: str, links: int) -> str:
        """Resolve the path, remembering where its folder leads."""
        if path[:1] != "/":
            path = f"{start}/{path}"
        folder, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            return resolve(path, start, _readlink, links == FOLLOW)
        folders = self.folders
        place = folders.get(folder)
        if place is None:
            place = resolve(folder or "/", start, _readlink)
            if len(folders) >= _REMEMBERED:
                folders.clear()
            folders[folder] = place
        here = f"/{name}" if place == "/" else f"{place}/{name}"
        if links == FOLLOW:
            try:
                _readlink(here)
            except (OSError, ValueError):
                return here
            return resolve(here, "/", _readlink)
        return here

    def metadata_denial(self, path: Any, dir_fd: int | None, links: int) -> AccessDeniedError | None:
        """Return the error if the policy doesn't grant stat, access or readlink of the path, else None."""
        return self.denial(READ, path, dir_fd, links, metadata=True)

    def refusal(self, scope: str, resource: Any = "") -> AccessDeniedError | None:
        """Return the error if the policy doesn't grant the switch, else None.

        Args:
            scope: the switch's scope.
            resource: the program, library or address: str, bytes, path object or anything with a text.
        """
        verdict = decide(self.policy, Request(scope=scope))
        if verdict.allowed:
            return None
        if not isinstance(resource, str):
            try:
                resource = _fsdecode(resource)
            except TypeError:
                resource = str(resource)
        return self._deny(verdict, resource)

    def _deny(self, verdict: Verdict, resource: str) -> AccessDeniedError | None:
        """Tell of a denial, and return its error; None if nothing is enforced."""
        self.tell(verdict.permission, resource, verdict.path)
        if self.policy.mode != "enforce":
            return None
        return AccessDeniedError(verdict.permission, resource, verdict.flag)

    def tell(
        self, permission: str, resource: str, path: str | None = None, *, drop: bool = False, denied: bool = True
    ) -> None:
        """Tell whom it concerns; see ``publish.Publisher``. What is done meanwhile, in this thread, isn't told."""
        slot = self.slot
        if slot.telling:
            return
        slot.telling = True
        try:
            self.publishing().tell(permission, resource, path, drop=drop, denied=denied)
        except Exception:  # the interpreter is ending, or has become a user who can't read this package
            return
        finally:
            slot.telling = False

    def unheard(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of this package; what it does, in this thread, isn't told."""
        slot = self.slot
        before, slot.telling = slot.telling, True
        try:
            return function(*arguments)
        finally:
            slot.telling = before

    def publishing(self) -> Publisher:
        """Return whom denials are told.

        Raises:
            ImportError: it can't be loaded.
        """
        publisher = self.publisher
        if publisher is None:
            publisher = self.publisher = self.load("child.publish").Publisher(reports=self.reports)
        return publisher

    def narrow(self, policy: Policy) -> None:
        """Judge by a narrower policy from now on."""
        self.policy = policy
        self.seen.clear()
        self.rows.update(self.table())

    def minds_threads(self) -> bool:
        """Tell whether something is to be done when a thread starts."""
        return not (self.policy.granted("worker") and self.policy.granted("addon"))

    def thread_denial(self) -> AccessDeniedError | None:
        """Return the error if the policy grants no threads; prepare for the first one otherwise."""
        error = self.refusal("worker")
        if error is None:
            self.load_own()
        return error

    def load_own(self) -> None:
        """Load the interpreter's own extension modules, once: soon the kernel won't let any be loaded."""
        if self.preloaded:
            return
        already, self.preloaded, self.preloading = self.preloading, True, True
        try:
            preload(self.own[0] if self.own else "")
        finally:
            self.preloading = already

    def prepare_module(self, name: str) -> None:
        """Import a module before the program does, to do to it what is to be done."""
        slot = self.slot
        if slot.importing or name in sys.modules:
            return
        slot.importing = True
        try:
            self.modules[name](__import__(name))
        finally:
            slot.importing = False

    def shared_denial(self, *, writes: bool) -> AccessDeniedError | None:
        """Return the error if the policy doesn't grant files in ``/dev/shm``, else None; it names the folder."""
        if self.policy.mode != "enforce":
            return None
        for scope in (READ, WRITE) if writes else (READ,):
            verdict = decide(self.policy, Request(scope=scope, path=f"{_SHARED}/x"))
            if not verdict.allowed:
                return self._deny(verdict.replace(path=_SHARED), _SHARED)
        return None

    def table(self) -> dict[str, tuple[str, Any, Any]]:
        """Return the rows of the events that the policy may have to deny, and of thread starts to be prepared for."""
        granted = self.policy.granted
        told = {scope for scope in ("child", "worker", "addon", "ffi", "net", "inspector") if granted(scope)}
        # Without addons the first thread is prepared for.
        if self.minds_threads():
            told.discard("worker")
        return {event: row for event, row in EVENTS.items() if row[0] not in told}


def _visible(path: str, links: int) -> bool:
    """Tell whether the kernel lets the place be seen that the path leads to, by links that this process can't read."""
    try:
        _stat(path if links == FOLLOW else _dirname(path) or ".")
    except PermissionError:
        return False
    except (OSError, ValueError):
        return True
    return True


class Hooks:
    """The hooks and the wrappers, ready to be put in place.

    Attributes:
        judge: judges events.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        guarded: bool,
        kernel: KernelSide | None = None,
        opener: Callable[[bytes], int] | None = None,
    ) -> None:
        """Make everything: before a fork, it needs no copies of shared pages, and looking at files costs nothing.

        Args:
            policy: the effective policy.
            guarded: the kernel itself refuses metadata (stat, access, readlink) of what isn't granted.
            kernel: loads and returns what has the kernel take something away (``launch.narrow.narrow``).
            opener: opens files for reading (``kernel.calls.reading_opener``), where nobody is asked about ``fstat()``.
        """
        self.judge = judge = Judge(policy, guarded=guarded)
        find = judge.rows.get
        seen = judge.seen
        opening = EVENTS["open"]
        raiser = Raiser(judge.slot)
        arm = raiser.arm

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            row = find(event)
            if row is not None:
                try:
                    if row is opening and arguments in seen:
                        return
                    error = row[1](judge, row[2], arguments)
                except Exception:  # what can't be judged here, the kernel judges
                    return
                if error is not None:
                    arm(event, error)

        self._hooks = hook, raiser.hook
        self._wrappers = wrap.Wrappers(judge, guarded=guarded, opener=opener)
        self._kernel = kernel

    def install(self) -> None:
        """Put them in place."""
        for hook in self._hooks:
            sys.addaudithook(hook)
        self.judge.heard = False  # that was the second of ours
        self._wrappers.install()

    def narrow(self, policy: Policy) -> None:
        """Have the kernel enforce a narrower policy, and judge by it.

        Raises:
            RuntimeError: it can't be enforced; nothing has changed.
        """
        judge = self.judge
        if self._kernel is None:
            message = "permissions can't be dropped here: the way to the supervisor is missing"
            raise RuntimeError(message)
        judge.preloading = True
        try:
            self._kernel()(judge.policy, policy, judge.load_own)
        except ImportError as error:
            message = f"permissions can't be dropped here: {error}"
            raise RuntimeError(message) from None
        finally:
            judge.preloading = False
        judge.narrow(policy)
        self._wrappers.narrow()
