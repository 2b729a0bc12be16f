"""``sys.permission``: what the program may ask about its own permissions.

Runs in: child. Node's ``process.permission``: https://nodejs.org/api/process.html#processpermission
"""

from __future__ import annotations

import _thread
import os
import sys

from sandboxed_python.policy.decide import has
from sandboxed_python.policy.patterns import resolve, seen_from
from sandboxed_python.policy.table import BY_SCOPE, FS_NAME, FS_SCOPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from sandboxed_python.child.hook import Judge
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.record.events import Message

# The originals: wrap.py replaces what os offers.
_access = os.access
_getcwd = os.getcwd
_readlink = os.readlink
_stat = os.stat
_PACKAGE = __name__.partition(".")[0]


class Permission:
    """The permissions of this process.

    Attributes:
        enabled: whether the permission model is on.
    """

    __slots__ = ("_changing", "_judge", "_modules", "_narrow", "_policy", "enabled")

    def __init__(
        self,
        policy: Policy | None = None,
        narrow: Callable[[Policy], None] | None = None,
        judge: Judge | None = None,
    ) -> None:
        """Answer for a policy; without one, the model is off.

        Args:
            policy: what is granted.
            narrow: has a narrower one enforced.
            judge: knows whom denials are told.
        """
        self._changing = _thread.allocate_lock()
        self._narrow = narrow
        self._judge = judge
        if judge is not None:
            judge.load = self.load
        self.enabled = policy is not None and policy.mode != "off"
        self._policy = policy
        # The program finds a sys.modules without this package. When it imports it all the same, it gets these (see the
        # package's __init__), so that the AccessDeniedError it catches is the one that is raised.
        prefix = _PACKAGE + "."
        self._modules: dict[str, ModuleType] = {
            name: module for name, module in sys.modules.items() if name == _PACKAGE or name.startswith(prefix)
        }

    def __repr__(self) -> str:
        return f"<{_PACKAGE} permission model: {'on' if self.enabled else 'off'}>"

    def has(self, scope: str, reference: str | bytes | os.PathLike[Any] | None = None) -> bool:
        """Tell whether a permission is granted.

        Args:
            scope: ``"fs.read"``, ``"fs.write"``, ``"fs"`` (both), ``"child"``, ``"worker"``, ``"addon"``, ``"ffi"``,
                ``"wasi"``, ``"net"``, ``"inspector"``, ``"fs.metadata"``. Any other is False.
            reference: a path, for the file-system scopes; relative ones start at the current directory, links are
                resolved. Without one, these scopes are granted only by a literal ``*``. An empty one is False.

        Raises:
            TypeError: an argument of another type; its ``code`` is ``"ERR_INVALID_ARG_TYPE"``.
        """
        given = _check(scope, reference)
        policy = self._policy
        if policy is None or policy.mode == "off":
            return True
        open_ = policy.metadata_open
        path, blind = _place(given, near=open_) if given and scope.startswith("fs") else (None, False)
        granted = has(policy, scope, path, given)
        if blind and not granted and not open_:  # else access(2) knows of modes only
            granted = _reaches(scope, given or "")
        if not granted:
            self._tell(scope, given, path)
        return granted

    def _tell(self, scope: str, given: str | None, path: str | None = None, *, drop: bool = False) -> None:
        name = FS_NAME if scope == FS_SCOPE else BY_SCOPE[scope].name if scope in BY_SCOPE else ""
        if name and self._judge is not None:
            self._judge.tell(name, given or "", path, drop=drop, denied=False)

    def subscribe(self, callback: Callable[[Message], object]) -> Callable[[], None]:
        """Have a function called at each denial, before the error is raised, and at each drop.

        Also where ``has`` answers False, and with ``--permission-audit`` where something would be denied. An operation
        that needs several permissions is told of once for each that is missing. What the function raises is shown like
        an uncaught exception, and changes nothing; a denial of what the function itself does is not told of.

        Args:
            callback: gets a frozen message with ``permission``, ``resource`` and ``drop`` (Node: diagnostics channels).

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: not a function; its ``code`` is ``"ERR_INVALID_ARG_TYPE"``.
        """
        if not callable(callback):
            raise _type_error("callback", "function", callback)  # noqa: EM101 - a name, not a message
        if self._judge is None or not self.enabled:
            return _nothing
        return self._judge.publishing().subscribe(callback)

    def load(self, name: str) -> Any:
        """Import a module of this package, by its name in it; the program's ``sys.modules`` stays as it is.

        Raises:
            ImportError: it can't be read.
        """
        modules = sys.modules
        full = f"{_PACKAGE}.{name}"
        hidden = {name: module for name, module in self._modules.items() if modules.get(name) is not module}
        before = {name: modules[name] for name in hidden if name in modules}
        modules.update(hidden)
        try:
            __import__(full)
            for found in [found for found in modules if found.startswith(_PACKAGE + ".")]:
                self._modules[found] = modules[found]
            return self._modules[full]
        finally:
            if _PACKAGE in hidden:  # the program hasn't imported it
                for found in [found for found in modules if found.partition(".")[0] == _PACKAGE]:
                    del modules[found]
            modules.update(before)

    def drop(self, scope: str, reference: str | bytes | os.PathLike[Any] | None = None) -> None:
        """Give up a permission, for good (Node: ``process.permission.drop``).

        The kernel takes it away from all threads of this process and from what it starts afterwards. What is open stays
        open: files, sockets, running threads and processes, which keep what they had.

        Args:
            scope: as in ``has``; an unknown one, and one that isn't granted, changes nothing. How each goes:

                - ``"fs.read"``, ``"fs.write"``, ``"fs"``: a further Landlock domain, of which a process can have 16,
                  and the supervisor's answers. With other threads running it takes Landlock ABI 8. What the interpreter
                  needs stays readable. Under ``--allow-fs-read=*`` metadata isn't guarded, and stays open.
                - ``"child"``, ``"worker"``, ``"net"``, ``"inspector"``: a further seccomp filter.
                - ``"ffi"``, ``"wasi"``: libraries are no longer let in that only they let in; executable memory goes
                  with the last of ``"addon"``, ``"ffi"`` and ``"wasi"``. ``"ffi"`` takes ``"addon"`` along.
                - ``"addon"``: the same, and no file is mapped as code any more; the interpreter's own extension modules
                  are loaded just before. Not while ``"child"`` is granted: other programs are code in files.
                - ``"fs.metadata"``: the supervisor's answers; can't be dropped unless ``--allow-fs-read`` names paths.
            reference: a path, for the file-system scopes: only the grant of that very path goes, of a directory its
                tree; under ``*`` nothing does. None or an empty one: the whole scope. Other scopes ignore it.

        Raises:
            RuntimeError: the kernel can't enforce it: nothing was dropped. Or the model is off.
            TypeError: as in ``has``.
        """
        given = _check(scope, reference)
        narrow = self._narrow
        if not self.enabled or narrow is None or self._policy is None:
            message = "the permission model is off: there is nothing to drop (start with --permission)"
            raise RuntimeError(message)
        for name, module in self._modules.items():
            sys.modules.setdefault(name, module)
        try:
            from sandboxed_python.policy.narrow import after_drop
        except ImportError as error:  # the process has become a user who can't read it
            message = f"the permission can't be dropped: {error}"
            raise RuntimeError(message) from None
        with self._changing:
            call = self._judge.unheard if self._judge is not None else _plainly
            policy = call(after_drop, self._policy, scope, given, _cwd())
            if policy != self._policy:
                narrow(policy)
                self._policy = policy
        self._tell(scope, given, drop=True)


def _plainly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _nothing() -> None:
    """End a subscription that there never was."""


def _place(given: str, *, near: bool) -> tuple[str, bool]:
    """Return where a path leads, and whether something on the way can't be read and may be a link all the same.

    Args:
        given: the path.
        near: whether what can't be read from the root is read from the current directory. Only modes hide it, and a
            relative path doesn't go by folders above that directory.
    """
    blind = False
    start = "/" if given[0] == "/" else _cwd()

    def look(path: str) -> str:
        nonlocal blind
        try:
            return _readlink(path)
        except PermissionError:
            if near and given[0] != "/":
                return _readlink(seen_from(path, start))
            blind = True
            raise

    return resolve(given, start, look), blind


def _cwd() -> str:
    try:
        return _getcwd()
    except OSError:  # the current directory is gone
        return "/"


def _reaches(scope: str, given: str) -> bool:
    """Ask the kernel whether a path that can't be resolved here leads into a grant; it tells only for what is there."""
    try:
        if _access(given, {"fs.read": os.R_OK, "fs.write": os.W_OK, "fs.metadata": os.F_OK}[scope]):
            return True
        _stat(given)
    except FileNotFoundError:
        return scope != "fs.write"  # that it isn't there is told only of what may be looked at
    except (KeyError, OSError, ValueError):
        return False
    return False


def _check(scope: object, reference: object) -> str | None:
    """Return the reference as a str, None if there is none.

    Raises:
        TypeError: the types aren't right.
    """
    if not isinstance(scope, str):
        raise _type_error("scope", "str", scope)  # noqa: EM101 - a name, not a message
    if reference is None or type(reference) is str:
        return reference
    try:
        return os.fsdecode(reference)  # type: ignore[arg-type]  # the TypeError is what tells
    except TypeError:
        raise _type_error("reference", "str, bytes, or os.PathLike", reference) from None  # noqa: EM101


def _type_error(name: str, wanted: str, value: object) -> TypeError:
    error = TypeError(f'The "{name}" argument must be of type {wanted}. Received {_received(value)}')
    error.code = "ERR_INVALID_ARG_TYPE"  # type: ignore[attr-defined]  # Node's errors carry their code there
    return error


def _received(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"class {value.__name__}"
    name = type(value).__name__
    if name in ("builtin_function_or_method", "function", "method"):
        return f"function {getattr(value, '__name__', '')}".rstrip()
    if isinstance(value, (bool, bytes, complex, float, int, str)):
        shown = repr(value)
        return f"type {name} ({shown if len(shown) <= 28 else shown[:25] + '...'})"
    return f"an instance of {name}"


_installed: Permission | None = None


def install(made: Permission) -> None:
    """Make it ``sys.permission``, unless the model is off."""
    global _installed  # noqa: PLW0603 - one per process
    if made.enabled:
        _installed = made
        sys.permission = _installed  # type: ignore[attr-defined]


def current() -> Permission:
    """Return ``sys.permission``, or an object that says that the model is off."""
    global _installed  # noqa: PLW0603 - one per process
    if _installed is None:
        _installed = Permission()
    return _installed
