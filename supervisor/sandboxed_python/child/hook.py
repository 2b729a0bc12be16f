"""The audit hook: it puts into words, as ``AccessDeniedError``, what the kernel would refuse.

Runs in: child. The kernel decides; so this may let pass what it doesn't understand, but must never refuse what the
policy grants.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.child import wrap
from sandboxed_python.child.events import CTYPES_OWN, EITHER, FOLLOW, ITSELF, PATHS, READ, SPECIAL, SWITCHES, WRITE
from sandboxed_python.child.raising import Slot, arm, raiser
from sandboxed_python.errors import AccessDeniedError
from sandboxed_python.policy.decide import Request, decide
from sandboxed_python.policy.patterns import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandboxed_python.policy.model import Policy

    # A handler gets an event's arguments and returns the denial, None if the event may go on.
    Handler = Callable[[Any], AccessDeniedError | None]

# The originals: wrap.py replaces what os offers.
_getcwd = os.getcwd
_getframe = sys._getframe
_listdir = os.listdir
_readlink = os.readlink
_stat = os.stat
_fsdecode = os.fsdecode

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_EXCLUSIVE = os.O_CREAT | os.O_EXCL
_REMEMBERED = 4096


class JudgingSlot(Slot):
    """The slot of raising.py, and what a wrapper tells the hook."""

    elsewhere: bool = False


class Judge:
    """Judges events and paths by the policy.

    Attributes:
        slot: what the second hook raises.
        seen: arguments of ``open`` events that were granted; cleared when the current directory changes.
    """

    def __init__(self, policy: Policy, *, guarded: bool) -> None:
        """Judge by the policy; ``guarded``: the kernel may refuse to read a link on the way."""
        self.policy = policy
        self.guarded = guarded
        self.slot = JudgingSlot()
        self.seen: set[Any] = set()
        self.folders: dict[str, str] = {}
        self.preloaded = False
        self.own = _lib_dynload()
        trees = [path + "/" for grant in policy.read if grant.implicit and grant.kind == "tree" for path in grant.paths]
        self.runtime = tuple(trees)

    # Paths

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
        if path[:1] != "/":
            if dir_fd is not None and dir_fd >= 0:
                return None
            try:
                start = _getcwd()
            except OSError:
                return None
        else:
            start = "/"
        if links == EITHER:
            if self._granted(scope, path, start, FOLLOW, metadata=metadata):
                return None
            links = ITSELF
        if self._granted(scope, path, start, links, metadata=metadata):
            return None
        request = Request(scope=scope, path=path, resource=path)
        verdict = decide(self.policy, request)
        return AccessDeniedError(verdict.permission, path, verdict.flag)

    def _granted(self, scope: str, path: str, start: str, links: int, *, metadata: bool) -> bool:
        policy = self.policy
        place = self._quick(path, start, links)
        if decide(policy, Request(scope=scope, path=place, metadata=metadata)).allowed:
            return True
        # Before a denial, look again, without what is remembered, and mind the links that can't be read.
        blind: list[str] = []

        def look(link: str) -> str:
            try:
                return _readlink(link)
            except PermissionError:
                blind.append(link)
                raise

        exact = resolve(path, start, look, links == FOLLOW)
        if exact != place and decide(policy, Request(scope=scope, path=exact, metadata=metadata)).allowed:
            self.folders.clear()
            return True
        return bool(blind) and self.guarded and _visible(path, links)

    def _quick(self, path: str, start: str, links: int) -> str:
        """Resolve, with the folder's resolution remembered."""
        if path[:1] != "/":
            path = f"{start}/{path}"
        folder, _, name = path.rpartition("/")
        if not name or name in (".", ".."):
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

    def metadata_everywhere(self) -> bool:
        """Tell whether stat and its family are granted for every path."""
        return self.policy.reader.all or self.policy.granted("fs.metadata")

    # Switches

    def refusal(self, scope: str, resource: Any = "") -> AccessDeniedError | None:
        """Return the error if the policy doesn't grant the switch, else None."""
        verdict = decide(self.policy, Request(scope=scope))
        return None if verdict.allowed else AccessDeniedError(verdict.permission, _text(resource), verdict.flag)

    def minds_threads(self) -> bool:
        """Tell whether something is to be done when a thread starts."""
        return not (self.policy.granted("worker") and self.policy.granted("addon"))

    def thread_denial(self) -> AccessDeniedError | None:
        """Return the error if the policy grants no threads; prepare for the first one otherwise."""
        error = self.refusal("worker")
        if error is None and not self.preloaded:
            self.preloaded = True
            preload(self.own)
        return error

    # Events

    def table(self) -> dict[str, Handler]:
        """Return the handlers of the events that the policy may have to deny."""
        policy = self.policy
        table: dict[str, Handler] = {}
        for event, steps in PATHS.items():
            table[event] = self._paths(steps)
        for event, (scope, place) in SWITCHES.items():
            if not policy.granted(scope):
                table[event] = self._switch(scope, place)
        for event, scope in SPECIAL.items():
            if scope == READ or not policy.granted(scope) or (scope == "worker" and self.minds_threads()):
                table[event] = getattr(self, "on_" + event.rpartition(".")[2].strip("_"))
        table["os.chdir"] = self.on_chdir
        return table

    def _paths(self, steps: tuple[tuple[str, int, int, int], ...]) -> Handler:
        denial = self.denial

        def handler(arguments: Any) -> AccessDeniedError | None:
            for scope, place, folder, links in steps:
                error = denial(scope, arguments[place], arguments[folder] if folder >= 0 else None, links)
                if error is not None:
                    return error
            return None

        return handler

    def _switch(self, scope: str, place: int) -> Handler:
        refusal = self.refusal
        if place < 0:
            return lambda _arguments: refusal(scope)
        return lambda arguments: refusal(scope, arguments[place])

    def on_chdir(self, arguments: Any) -> AccessDeniedError | None:
        """Judge os.chdir and os.fchdir, after which relative paths lead elsewhere."""
        self.seen.clear()
        return self.denial(READ, arguments[0], None, FOLLOW)

    def on_open(self, arguments: Any) -> AccessDeniedError | None:
        """Judge every way of opening a file, by its flags; C code that has none gives a mode alone."""
        path, mode, flags = arguments
        plain = path.__class__ is str
        if plain:
            if arguments in self.seen:
                return None
            if not flags & _WRITES and path.startswith(self.runtime) and "/../" not in path:
                return None
        elif isinstance(path, int):
            return None
        if mode is None and self.slot.elsewhere and _fsdecode(path)[:1] != "/":
            return None
        access = flags & os.O_ACCMODE
        reads = access != os.O_WRONLY
        writes = bool(access or flags & (os.O_CREAT | os.O_TRUNC))
        if not flags and mode and mode[0] in "wax":
            reads, writes = "+" in mode, True
        links = ITSELF if flags & os.O_NOFOLLOW or flags & _EXCLUSIVE == _EXCLUSIVE else FOLLOW
        error = None
        if reads:
            error = self.denial(READ, path, None, links, metadata=bool(flags & os.O_PATH))
        if error is None and writes:
            error = self.denial(WRITE, path, None, links)
        if error is None and plain:
            if len(self.seen) >= _REMEMBERED:
                self.seen.clear()
            self.seen.add(arguments)
        return error

    def on_import(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the loading of an extension module: those of the interpreter itself are no addons."""
        path = arguments[1]
        if path is None:
            return None
        path = _fsdecode(path)
        folder = os.path.dirname(path)
        if folder == self.own or resolve(folder or ".", _getcwd(), _readlink) == self.own:
            return None
        return self.refusal("addon", path)

    def on_start_new_thread(self, _arguments: Any) -> AccessDeniedError | None:
        """Judge the start of a thread."""
        return self.thread_denial()

    on_start_joinable_thread = on_start_new_thread

    def on_dlopen(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the opening of a library: ctypes opens the process itself while it is imported."""
        return None if arguments[0] is None else self.refusal("ffi")

    def on_dlsym(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the look-up of a symbol."""
        return None if arguments[1] in CTYPES_OWN else self.refusal("ffi")

    def on_system(self, _arguments: Any) -> AccessDeniedError | None:
        """Judge os.system, which starts a shell."""
        return self.refusal("child", "/bin/sh")

    def on_spawn(self, arguments: Any) -> AccessDeniedError | None:
        """Judge pty.spawn, whose argument is a program or a list that starts with it."""
        program = arguments[0]
        return self.refusal("child", program if isinstance(program, (str, bytes)) else program[0])

    def on_new(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the making of a socket object, which may also be one around a descriptor that is open already."""
        names = _getframe(3).f_locals  # of socket.socket.__init__, which calls the one that raises the event
        if arguments[1] == -1 or "fileno" not in names or names["fileno"] is not None:
            return None
        return self.refusal("net")

    def on_connect(self, arguments: Any) -> AccessDeniedError | None:
        """Judge what is sent or bound to an address: (socket, address)."""
        if len(arguments) == 1:  # sqlite3.connect(database)
            return self._database(arguments[0])
        address = arguments[1]
        if address is None:
            return None
        return self.refusal("net", address[0] if isinstance(address, tuple) and address else address)

    on_bind = on_sendto = on_sendmsg = on_connect

    def _database(self, name: Any) -> AccessDeniedError | None:
        text = _fsdecode(name)
        if not text or text == ":memory:" or text.startswith("file:"):
            return None
        return self.denial(READ, text, None, FOLLOW)

    def on_getaddrinfo(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the look-up of a name; an address in figures needs no look-up."""
        host = arguments[0]
        if not host or _is_address(_text(host)):
            return None
        return self.refusal("net", host)

    on_gethostbyname = on_getaddrinfo

    def on_enable_load_extension(self, arguments: Any) -> AccessDeniedError | None:
        """Judge the permission to load extensions into SQLite."""
        return self.refusal("addon") if arguments[1] else None


def _visible(path: str, links: int) -> bool:
    """Tell whether the kernel lets the place be seen that the path leads to, by links that this process can't read."""
    try:
        _stat(path if links == FOLLOW else os.path.dirname(path) or ".")
    except PermissionError:
        return False
    except (OSError, ValueError):
        return True
    return True


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return _fsdecode(value)
    except TypeError:
        return str(value)


def _is_address(host: str) -> bool:
    from _socket import AF_INET, AF_INET6, inet_pton

    host = host.partition("%")[0]
    try:
        inet_pton(AF_INET6 if ":" in host else AF_INET, host)
    except (OSError, ValueError):
        return host == "<broadcast>"
    return True


def _lib_dynload() -> str:
    for path in sys.path:
        if path.endswith("/lib-dynload"):
            return resolve(path, "/", _readlink)
    return ""


# Not for programs, or wanting libraries and a terminal of their own.
_NOT_LOADED = ("_test", "_tkinter", "_ctypes_test", "_curses", "_xx", "readline", "xx")


def preload(folder: str) -> None:
    """Load the interpreter's extension modules, and what libc loads when a thread ends, into memory.

    Without ``--allow-addons`` the kernel lets libraries be loaded only while the process has one thread. What fails is
    left out.
    """
    try:
        from _ctypes import dlopen

        names = _listdir(folder) if folder else []
    except (ImportError, OSError):
        return
    paths = [f"{folder}/{name}" for name in names if name.endswith(".so") and not name.startswith(_NOT_LOADED)]
    for path in [*paths, "libgcc_s.so.1"]:
        try:
            dlopen(path, os.RTLD_LAZY)
        except OSError:
            continue


def install(policy: Policy, *, guarded: bool) -> None:
    """Add the hooks and the wrappers, if the policy is enforced.

    Args:
        policy: the effective policy.
        guarded: the kernel itself refuses metadata (stat, access, readlink) of what isn't granted.
    """
    if policy.mode != "enforce":
        return
    judge = Judge(policy, guarded=guarded)
    table = judge.table()
    find = table.get
    slot = judge.slot

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        handler = find(event)
        if handler is not None:
            try:
                error = handler(arguments)
            except Exception:  # noqa: BLE001 - what can't be judged here, the kernel judges
                return
            if error is not None:
                arm(slot, error)

    second = raiser(slot, table)
    sys.addaudithook(hook)
    sys.addaudithook(second)
    wrap.install(judge, guarded=guarded)
