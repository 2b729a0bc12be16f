"""The permissions: one row each. Options, error texts, help and documentation are derived from these rows.

Runs in: both. Scopes, flags and names are those of Node.js (https://nodejs.org/api/permissions.html); the last row is
ours.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Permission(Frozen):
    """One permission.

    Attributes:
        flag: the option that grants it, e.g. ``"--allow-fs-read"``.
        scope: its name for ``has()`` and ``drop()``, e.g. ``"fs.read"``.
        name: its name in ``AccessDeniedError.permission``, e.g. ``"FileSystemRead"``.
        kind: ``"paths"`` (the flag takes a list of paths) or ``"switch"`` (the flag takes no value).
        gates: what it gates in CPython; one line of help.
        warning: one line for stderr when it is granted, or ``""``.
        warned_with: scopes that have to be granted, too, before the warning is true.
    """

    flag: str
    scope: str
    name: str
    kind: str = "switch"
    gates: str
    warning: str = ""
    warned_with: tuple[str, ...] = ()


# A warning is due only where a flag takes away what another flag's absence promises. What a child process, an addon, a
# foreign function or a debugger does stays under the kernel's rules, which are inherited and can't be lifted, so these
# need none. Machine code of the program's own making is different: with executable memory, or by ptrace(2), which
# writes through page protection, it needs neither a library file nor ctypes.
PERMISSIONS: tuple[Permission, ...] = (
    Permission(
        flag="--allow-fs-read",
        scope="fs.read",
        name="FileSystemRead",
        kind="paths",
        gates="opening for reading, listing, stat, access, readlink, xattr reads, statvfs, watching, import of files",
    ),
    Permission(
        flag="--allow-fs-write",
        scope="fs.write",
        name="FileSystemWrite",
        kind="paths",
        gates="create, write, truncate, delete, rename, link, symlink, mkdir, chmod, chown, utime, xattr writes, mknod",
    ),
    Permission(
        flag="--allow-child-process",
        scope="child",
        name="ChildProcess",
        gates="fork, vfork, exec*, posix_spawn, subprocess, os.system, pty.fork, multiprocessing",
    ),
    Permission(
        flag="--allow-worker",
        scope="worker",
        name="WorkerThreads",
        gates="threads (threading, _thread) and subinterpreters",
    ),
    Permission(
        flag="--allow-addons",
        scope="addon",
        name="Addon",
        gates="extension modules outside the interpreter's own, and everything --allow-ffi gates",
    ),
    Permission(
        flag="--allow-ffi",
        scope="ffi",
        name="FFI",
        gates="ctypes and cffi: looking symbols up and calling them",
    ),
    Permission(
        flag="--allow-wasi",
        scope="wasi",
        name="WASI",
        gates="WASM runtimes (wasmtime, wasmer): their native libraries and the executable memory they need",
        warning="--allow-wasi allows executable memory: code put there can do what --allow-addons and --allow-ffi gate",
    ),
    Permission(
        flag="--allow-net",
        scope="net",
        name="Net",
        gates="every socket but socketpair and pipes: connect, bind, listen, sendto, DNS, Unix sockets by name",
    ),
    Permission(
        flag="--allow-inspector",
        scope="inspector",
        name="Inspector",
        gates="sys.remote_exec and being its target, debugger attach, sys.settrace, sys.setprofile, sys.monitoring",
        warning="--allow-inspector with --allow-child-process lets the program write machine code into its child "
        "processes: that code can do what --allow-addons and --allow-ffi gate",
        warned_with=("child",),
    ),
    Permission(
        flag="--allow-fs-metadata",
        scope="fs.metadata",
        name="FileSystemMetadata",
        gates="stat, access and readlink outside what --allow-fs-read grants",
    ),
)

BY_SCOPE: dict[str, Permission] = {row.scope: row for row in PERMISSIONS}
BY_FLAG: dict[str, Permission] = {row.flag: row for row in PERMISSIONS}
SWITCHES: frozenset[str] = frozenset(row.scope for row in PERMISSIONS if row.kind == "switch")


def warnings(granted: Callable[[str], bool]) -> list[str]:
    """Return what has to be said of a policy; ``granted`` tells whether it grants a switch scope."""
    return [row.warning for row in PERMISSIONS if row.warning and all(map(granted, (row.scope, *row.warned_with)))]


# The joint scope of both trees. It has no flag of its own; errors name the two.
FS_SCOPE = "fs"
FS_NAME = "FileSystem"
FS_FLAG = "--allow-fs-read and --allow-fs-write"

# Parts of the paths of the native libraries that --allow-wasi lets in.
WASM_RUNTIMES = ("/site-packages/wasmtime/", "/site-packages/wasmer")
