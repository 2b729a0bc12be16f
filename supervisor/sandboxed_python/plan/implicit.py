"""What is granted without a flag: one table, printed by ``--explain``, and true for ``has()``.

Runs in: supervisor. The child must be able to be a Python; it gets what that takes, for reading, and nothing else:
no /proc, /tmp, /dev/shm, /etc, no home, not the working directory, not the script's folder.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.plan.runtime import PACKAGE
from sandboxed_python.policy.patterns import LINK_LIMIT, Grant, normalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxed_python.plan.runtime import Runtime
    from sandboxed_python.policy.model import Policy

ENTRY = "the entry script"
INTERPRETER = "the interpreter"
COMMAND = "this command, for a sandbox in the sandbox"
LIBRARY_TREES = (
    "/lib",
    "/lib64",
    "/lib32",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib32",
    "/usr/local/lib",
    "/usr/local/lib64",
)
PROGRAM_TREES = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec")

# (needs this scope, or ""; kind; paths; reason)
READ_ROWS = (
    ("", "tree", LIBRARY_TREES, "shared libraries"),
    ("", "path", ("/etc/ld.so.cache",), "the loader's cache"),
    ("", "tree", ("/usr/share/zoneinfo", "/usr/share/locale", "/usr/share/i18n"), "time zones and locales"),
    ("", "path", ("/etc/localtime", "/etc/timezone"), "the local time zone"),
    ("", "tree", ("/usr/share/python-wheels",), "the wheels that a distribution's venv and ensurepip install"),
    ("", "path", ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"), "harmless devices"),
    ("", "path", ("/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf"), "OpenSSL's configuration"),
    ("net", "path", (
        "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
        "/etc/protocols",
    ), "name resolution"),
    ("net", "tree", (
        "/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/etc/pki/tls/certs",
        "/etc/pki/ca-trust", "/etc/ca-certificates",
    ), "certificate authorities"),
    ("net", "path", ("/etc/ssl/cert.pem",), "certificate authorities"),
    ("child", "tree", PROGRAM_TREES, "system programs, also executable"),
)  # fmt: skip
WRITE_ROWS = (("", "path", ("/dev/null",), "the null device"),)


def implicit_read(
    policy: Policy, runtime: Runtime, entry: Grant | None, real: RealPaths | None = None
) -> tuple[Grant, ...]:
    """Return the read grants that ``policy`` brings without a flag.

    Args:
        policy: what the user granted; some rows come with a scope.
        runtime: the interpreter that will run.
        entry: the entry script's grant, or None (``-c``, ``-m``, or ``--no-allow-entrypoint``).
        real: what has been looked at already.
    """
    real = real or RealPaths()
    grants: list[Grant] = []
    trees = [
        (runtime.stdlib, "the standard library"),
        (f"{runtime.platstdlib}/lib-dynload", "the standard library's extension modules"),
        *[(path, "the environment's site-packages") for path in runtime.site],
        (runtime.package, "this package: the audit hook"),
    ]
    base_lib = f"{runtime.base_prefix}/lib"
    if base_lib not in LIBRARY_TREES:
        trees.append((base_lib, "the interpreter's own libraries"))
    # Another interpreter may be anybody's: a link in its environment must not lead out of it.
    homes = (real.of(runtime.prefix), real.of(runtime.base_prefix), real.of(PACKAGE))
    roots = tuple([home for home in homes if home] + [*LIBRARY_TREES, *PROGRAM_TREES])

    def stays(path: str) -> bool:
        if not runtime.foreign:
            return True
        place = real.of(path)
        return place is not None and any(root in (place, "/") or place.startswith(root + "/") for root in roots)

    for path, reason in trees:
        if stays(path):
            grants.append(_grant("tree", path, reason, real))
    files = [
        (runtime.executable, INTERPRETER),
        (f"{runtime.prefix}/pyvenv.cfg", "the virtual environment"),
        (f"{os.path.dirname(runtime.executable)}/pyvenv.cfg", "the virtual environment"),
    ]
    if runtime.scripts and policy.granted("child"):
        names = (f"{runtime.scripts}/sandboxed-python", f"{runtime.scripts}/python3", runtime.executable)
        known = {path for path, _reason in files}
        links = dict.fromkeys([path for name in names for path in _links(name)])
        files += [(path, COMMAND) for path in links if path not in known]
    for path, reason in files:
        if stays(path):
            grants.append(_grant("path", path, reason, real))
    # Debian's stdlib has a link to /etc there.
    custom = f"{runtime.stdlib}/sitecustomize.py"
    if not runtime.foreign and real.of(custom) not in (None, custom):
        grants.append(_grant("path", custom, "the distribution's sitecustomize", real))
    grants += _rows(READ_ROWS, policy, real)
    if entry is not None:
        grants.append(entry.replace(implicit=True, reason=ENTRY))
    return tuple(grants)


def _links(path: str) -> list[str]:
    """Return a path and every link on the way from there to where it leads: who asks the kernel for them reads each."""
    found = [path]
    while len(found) <= LINK_LIMIT:
        try:
            target = os.readlink(found[-1])
        except OSError:
            break
        found.append(normalize(target, os.path.dirname(found[-1])))
    return found


def implicit_write(policy: Policy, real: RealPaths | None = None) -> tuple[Grant, ...]:
    """Return the write grants that come without a flag."""
    return tuple(_rows(WRITE_ROWS, policy, real or RealPaths()))


class RealPaths:
    """``os.path.realpath`` for many paths that share folders: each folder is looked at once."""

    def __init__(self) -> None:
        """Know nothing but the root."""
        self._known: dict[str, str | None] = {"/": "/", "": "/"}

    def of(self, path: str) -> str | None:
        """Return where an absolute path leads, or None if there is nothing."""
        known = self._known
        if path in known:
            return known[path]
        if "/../" in path or "/./" in path:
            known[path] = _real(path)
            return known[path]
        folder, _, name = path.rpartition("/")
        parent = self.of(folder)
        found: str | None = None
        if parent is not None:
            place = f"/{name}" if parent == "/" else f"{parent}/{name}"
            try:
                target = os.readlink(place)
            except OSError as error:
                found = place if error.errno == errno.EINVAL else None
            else:
                found = self._behind(place, parent, target)
        known[path] = found
        return found

    def _behind(self, link: str, folder: str, target: str) -> str | None:
        """Return where a link in a folder leads, by what is known already where that is simple."""
        names = target.split("/")
        if target[:1] != "/":
            while names[:1] == [".."]:  # the folder is where it says: no link is in its path
                folder = folder.rpartition("/")[0]
                del names[0]
        else:
            folder = ""
        if "." in names or ".." in names:
            return _real(link)
        self._known[link] = None  # a circle of links leads nowhere
        return self.of("/".join(["", *[name for name in f"{folder}/{'/'.join(names)}".split("/") if name]]) or "/")


def _real(path: str) -> str | None:
    found = os.path.realpath(path)
    return found if os.path.lexists(found) else None


def _rows(rows: Iterable[tuple[str, str, tuple[str, ...], str]], policy: Policy, real: RealPaths) -> list[Grant]:
    return [
        _grant(kind, path, reason, real)
        for scope, kind, paths, reason in rows
        if not scope or policy.granted(scope)
        for path in paths
        if real.of(path) is not None
    ]


def _grant(kind: str, path: str, reason: str, real: RealPaths) -> Grant:
    place = real.of(path) or path
    paths = (path,) if place == path else (place, path)
    return Grant(text=path, kind=kind, paths=paths, origin="runtime", implicit=True, reason=reason)
