"""The audit events of CPython 3.10 to 3.14 that are judged, and what each of them asks for.

Runs in: child. https://docs.python.org/3/library/audit_events.html names the events and their arguments. Events of
high-level functions (``shutil.copyfile``, ``tempfile.mkdtemp``, ``glob.glob``, ...) aren't here: what these functions
do raises events of its own.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.policy.patterns import resolve
from sandboxed_python.policy.table import WASM_RUNTIMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandboxed_python.child.hook import Judge
    from sandboxed_python.errors import AccessDeniedError

    Denial = AccessDeniedError | None

READ = "fs.read"
WRITE = "fs.write"

# How the last component of a path is taken when it is a link.
FOLLOW = 0  # the operation acts on what it leads to
ITSELF = 1  # the operation acts on the link
EITHER = 2  # the event doesn't tell (chown and lchown raise the same one): granted if one of them is

# What ctypes looks up in its own process while it is imported: ctypes.util of 3.14.
_CTYPES_OWN = frozenset(("dl_iterate_phdr",))

# What makes subinterpreters. The event of that, cpython.PyInterpreterState_New, isn't raised by every version, and a
# denial there crashes 3.12.
INTERPRETERS = frozenset(("_interpreters", "_xxsubinterpreters"))

_EXCLUSIVE = os.O_CREAT | os.O_EXCL
_WRITING = os.O_CREAT | os.O_TRUNC
_getcwd = os.getcwd
_getframe = sys._getframe
_readlink = os.readlink
_fsdecode = os.fsdecode
_dirname = os.path.dirname


def _paths(judge: Judge, steps: tuple[tuple[str, int, int, int], ...], arguments: Any) -> Denial:
    """Operations on paths, each step: (scope, place of the path, place of its dir_fd or -1, links)."""
    for scope, place, folder, links in steps:
        error = judge.denial(scope, arguments[place], arguments[folder] if folder >= 0 else None, links)
        if error is not None:
            return error
    return None


def _switch(judge: Judge, row: tuple[str, int], arguments: Any) -> Denial:
    """Switches: (scope, place of the resource or -1 if there is none)."""
    scope, place = row
    return judge.refusal(scope, arguments[place] if place >= 0 else "")


def _chdir(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Os.chdir and os.fchdir: relative paths lead elsewhere afterwards.

    To stay is granted, as the kernel does: what multiprocessing starts goes where its parent is.
    """
    if arguments[0] == _getcwd():
        return None
    judge.seen.clear()
    return judge.denial(READ, arguments[0], None, FOLLOW)


def _open(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Every way of opening a file: (path, mode, flags). Some C code tells a mode alone, os.open flags alone."""
    path, mode, flags = arguments
    plain = path.__class__ is str
    access = flags & os.O_ACCMODE
    reads = access != os.O_WRONLY
    writes = bool(access or flags & _WRITING)
    if not flags and mode and mode[0] in "wax":
        reads, writes = "+" in mode, True
    if plain and not writes and path.startswith(judge.runtime) and "/../" not in path:
        judge.remember(arguments)
        return None
    # The event of os.open() doesn't tell of a dir_fd; its wrapper does.
    folder = judge.slot.folder if mode is None else None
    links = ITSELF if flags & os.O_NOFOLLOW or flags & _EXCLUSIVE == _EXCLUSIVE else FOLLOW
    error = None
    if reads:
        error = judge.denial(READ, path, folder, links, metadata=bool(flags & os.O_PATH))
    if writes and error is None:
        error = judge.denial(WRITE, path, folder, links)
    if plain and error is None and folder is None:
        judge.remember(arguments)
    return error


def _import(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Import: (name, None, ...) before a module is looked for, (name, file, ...) before an extension module is loaded.

    Those of the interpreter itself are no addons.
    """
    path = arguments[1]
    if path is None:
        if arguments[0] in judge.modules:
            judge.prepare_module(arguments[0])
        return None
    path = _fsdecode(path)
    folder = _dirname(path)
    if folder in judge.own or resolve(folder or ".", _getcwd(), _readlink) in judge.own:
        return None
    return None if _is_runtime(judge, path) else judge.refusal("addon", path)


def _is_runtime(judge: Judge, path: object) -> bool:
    """Tell whether a library is one of a WASM runtime's that --allow-wasi lets in."""
    if not isinstance(path, (str, bytes)) or not judge.policy.granted("wasi"):
        return False
    text = _fsdecode(path)
    return any(part in text for part in WASM_RUNTIMES)


def _audit_hook(judge: Judge, _row: Any, _arguments: Any) -> Denial:
    judge.heard = True
    return None


def _thread(judge: Judge, _row: Any, _arguments: Any) -> Denial:
    return judge.thread_denial()


def _dlopen(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Open a library: ctypes opens the process itself while it is imported."""
    if arguments[0] is None or judge.preloading or _is_runtime(judge, arguments[0]):
        return None
    return judge.refusal("ffi")


def _dlsym(judge: Judge, _row: Any, arguments: Any) -> Denial:
    if arguments[1] in _CTYPES_OWN or judge.preloading or _is_runtime(judge, getattr(arguments[0], "_name", None)):
        return None
    return judge.refusal("ffi")


def _handle(judge: Judge, _row: Any, _arguments: Any) -> Denial:
    return None if judge.preloading else judge.refusal("ffi")


def _system(judge: Judge, _row: Any, _arguments: Any) -> Denial:
    """Start a shell: the resource is what subprocess would start for ``shell=True``."""
    return judge.refusal("child", "/bin/sh")


def _pty_spawn(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Pty.spawn: the argument is a program, or a list that starts with it."""
    program = arguments[0]
    return judge.refusal("child", program if isinstance(program, (str, bytes)) else program[0])


def _socket(judge: Judge, _row: Any, _arguments: Any) -> Denial:
    """Make a socket object, which may also be one around an open descriptor (socketpair, accept).

    Only ``socket.socket.__init__``, the second caller, knows. The address is known only to socket.create_connection.
    """
    frame = _getframe(2)
    names = frame.f_locals
    if "fileno" not in names or names["fileno"] is not None:
        return None
    caller = frame.f_back
    address = None
    if caller is not None and caller.f_code.co_name == "create_connection":
        address = caller.f_locals.get("sa")
    return judge.refusal("net", address[0] if address else "")


def _address(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Connect, bind or send to an address: (socket, address). The resource is the address without its port."""
    address = arguments[1]
    if address is None:
        return None
    return judge.refusal("net", address[0] if isinstance(address, tuple) and address else address)


def _lookup(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Look a host up; an address in figures needs no look-up."""
    from _socket import AF_INET, AF_INET6, inet_pton

    host = arguments[0]
    if not host:
        return None
    name = host if isinstance(host, str) else _fsdecode(host)
    figures = name.partition("%")[0]
    try:
        inet_pton(AF_INET6 if ":" in figures else AF_INET, figures)
    except (OSError, ValueError):
        return None if name == "<broadcast>" else judge.refusal("net", host)
    return None


def _database(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Open an SQLite database: (name,). URIs and databases in memory are left to the kernel."""
    name = _fsdecode(arguments[0])
    if name in ("", ":memory:") or name.startswith("file:"):
        return None
    return judge.denial(READ, name, None, FOLLOW)


def _extensions(judge: Judge, _row: Any, arguments: Any) -> Denial:
    """Allow extensions to be loaded into SQLite, or not: (connection, enabled)."""
    return judge.refusal("addon") if arguments[1] else None


# event -> (the scope without which it is judged, function, what the function gets between the judge and the arguments).
# A function returns the denial, or None if the event may go on. Where an operation needs several permissions, they are
# asked in this order.
EVENTS: dict[str, tuple[str, Callable[[Judge, Any, Any], Denial], Any]] = {
    "open": (READ, _open, None),
    "os.chdir": (READ, _chdir, None),
    "os.listdir": (READ, _paths, ((READ, 0, -1, FOLLOW),)),
    "os.scandir": (READ, _paths, ((READ, 0, -1, FOLLOW),)),
    "os.getxattr": (READ, _paths, ((READ, 0, -1, EITHER),)),
    "os.listxattr": (READ, _paths, ((READ, 0, -1, EITHER),)),
    "os.setxattr": (WRITE, _paths, ((WRITE, 0, -1, EITHER),)),
    "os.removexattr": (WRITE, _paths, ((WRITE, 0, -1, EITHER),)),
    "os.chflags": (WRITE, _paths, ((WRITE, 0, -1, EITHER),)),
    "os.chmod": (WRITE, _paths, ((WRITE, 0, 2, EITHER),)),
    "os.chown": (WRITE, _paths, ((WRITE, 0, 3, EITHER),)),
    "os.utime": (WRITE, _paths, ((WRITE, 0, 3, EITHER),)),
    "os.truncate": (WRITE, _paths, ((WRITE, 0, -1, FOLLOW),)),
    "os.mkdir": (WRITE, _paths, ((WRITE, 0, 2, ITSELF),)),
    "os.remove": (WRITE, _paths, ((WRITE, 0, 1, ITSELF),)),
    "os.rmdir": (WRITE, _paths, ((WRITE, 0, 1, ITSELF),)),
    # As Node: moving a file, or giving it a second name, lets it be read and written there.
    "os.rename": (WRITE, _paths, ((READ, 0, 2, ITSELF), (WRITE, 0, 2, ITSELF), (WRITE, 1, 3, ITSELF))),
    "os.link": (WRITE, _paths, ((READ, 0, 2, EITHER), (WRITE, 0, 2, EITHER), (WRITE, 1, 3, ITSELF))),
    # What a link leads to is judged when it is used.
    "os.symlink": (WRITE, _paths, ((WRITE, 1, 2, ITSELF),)),
    "sqlite3.connect": (READ, _database, None),
    "os.exec": ("child", _switch, ("child", 0)),
    "os.fork": ("child", _switch, ("child", -1)),
    "os.forkpty": ("child", _switch, ("child", -1)),
    "os.posix_spawn": ("child", _switch, ("child", 0)),
    "os.spawn": ("child", _switch, ("child", 1)),
    "os.system": ("child", _system, None),
    "pty.spawn": ("child", _pty_spawn, None),
    "subprocess.Popen": ("child", _switch, ("child", 0)),
    "sys.addaudithook": ("", _audit_hook, None),
    "_thread.start_joinable_thread": ("worker", _thread, None),
    "_thread.start_new_thread": ("worker", _thread, None),
    "import": ("", _import, None),
    "sqlite3.enable_load_extension": ("addon", _extensions, None),
    "sqlite3.load_extension": ("addon", _switch, ("addon", 1)),
    "ctypes.dlopen": ("ffi", _dlopen, None),
    "ctypes.dlsym": ("ffi", _dlsym, None),
    "ctypes.dlsym/handle": ("ffi", _handle, None),
    # Telling an address, or the error number, touches no foreign memory; reading from an address does.
    "ctypes.PyObj_FromPtr": ("ffi", _switch, ("ffi", -1)),
    "ctypes.call_function": ("ffi", _switch, ("ffi", -1)),
    "ctypes.cdata": ("ffi", _handle, None),
    "ctypes.memoryview_at": ("ffi", _switch, ("ffi", -1)),
    "ctypes.string_at": ("ffi", _switch, ("ffi", -1)),
    "ctypes.wstring_at": ("ffi", _switch, ("ffi", -1)),
    "socket.__new__": ("net", _socket, None),
    "socket.bind": ("net", _address, None),
    "socket.connect": ("net", _address, None),
    "socket.getaddrinfo": ("net", _lookup, None),
    "socket.gethostbyaddr": ("net", _switch, ("net", 0)),
    "socket.gethostbyname": ("net", _lookup, None),
    "socket.sendmsg": ("net", _address, None),
    "socket.sendto": ("net", _address, None),
    "cpython.remote_debugger_script": ("inspector", _switch, ("inspector", -1)),
    "sys.monitoring.register_callback": ("inspector", _switch, ("inspector", -1)),
    "sys.remote_exec": ("inspector", _switch, ("inspector", -1)),
    "sys.setprofile": ("inspector", _switch, ("inspector", -1)),
    "sys.settrace": ("inspector", _switch, ("inspector", -1)),
}
