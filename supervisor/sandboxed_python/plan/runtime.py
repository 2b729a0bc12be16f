"""The interpreter that will run the program: where it and its libraries lie.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.frozen import Frozen

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Runtime(Frozen):
    """Facts about one CPython. All paths are absolute.

    Attributes:
        executable: what starts it (in a virtual environment, the link there).
        prefix: ``sys.prefix``.
        base_prefix: ``sys.base_prefix``.
        stdlib: the folder of the standard library.
        platstdlib: the folder of its extension modules' parent (``lib-dynload``), often the same as ``stdlib``.
        site: the site-packages folders of the environment, ``sys.path`` order.
        user_site: the user's own site-packages when this interpreter uses it, else "".
        package: the folder of this package.
        scripts: the folder of the installed command.
    """

    executable: str
    prefix: str
    base_prefix: str
    stdlib: str
    platstdlib: str
    site: tuple[str, ...]
    user_site: str = ""
    package: str = PACKAGE
    scripts: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """What the interpreter executes at start-up, or may: whoever writes there runs code outside the sandbox."""
        found = [self.stdlib, self.platstdlib, *self.site, self.package, f"{self.prefix}/pyvenv.cfg"]
        found += [os.path.dirname(self.executable), os.path.dirname(os.path.realpath(self.executable))]
        found += [path for path in (self.user_site, self.scripts) if path]
        return tuple(dict.fromkeys(real for path in found for real in (path, os.path.realpath(path))))


def this_runtime(scripts: str = "") -> Runtime:
    """Return the facts about the running interpreter, without importing ``sysconfig`` or ``site``'s helpers."""
    return runtime_of(facts(), scripts)


def runtime_of(found: dict[str, object], scripts: str = "") -> Runtime:
    """Make a Runtime of what ``facts()`` returned, here or in another interpreter."""
    prefixes = tuple(f"{found[name]}/" for name in ("prefix", "base_prefix", "exec_prefix"))
    path: list[str] = list(found["path"])  # type: ignore[call-overload]
    user_site = str(found["user_site"])
    site = [
        entry
        for entry in path
        if entry.endswith(("/site-packages", "/dist-packages")) and (entry.startswith(prefixes) or entry == user_site)
    ]
    return Runtime(
        executable=str(found["executable"]),
        prefix=str(found["prefix"]),
        base_prefix=str(found["base_prefix"]),
        stdlib=str(found["stdlib"]),
        platstdlib=str(found["platstdlib"]),
        site=tuple(site),
        user_site=user_site,
        scripts=scripts,
    )


def facts() -> dict[str, object]:
    """Return what can be read off ``sys`` of the running interpreter."""
    stdlib = os.path.dirname(os.path.abspath(os.__file__))
    dynload = next((entry for entry in sys.path if entry.endswith("/lib-dynload")), f"{stdlib}/lib-dynload")
    site = sys.modules.get("site")
    user_site = ""
    if getattr(site, "ENABLE_USER_SITE", None):
        user_site = getattr(site, "USER_SITE", None) or ""
    return {
        "executable": sys.executable,
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "exec_prefix": sys.base_exec_prefix,
        "stdlib": stdlib,
        "platstdlib": os.path.dirname(dynload),
        "path": list(sys.path),
        "user_site": user_site,
    }
