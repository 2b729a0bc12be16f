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
        path: all of ``sys.path``: what .pth files added, and what isn't there, too.
        user_sites: where the user's own site-packages are or would be, if this interpreter may use them.
        package: the folder of this package.
        scripts: the folder of the installed command.
        base_executable: what it is started by outside of virtual environments; "": not known.
        search: the folders of PATH.
        foreign: not the supervisor's own interpreter, but one that the command line names.
    """

    executable: str
    prefix: str
    base_prefix: str
    stdlib: str
    platstdlib: str
    site: tuple[str, ...]
    path: tuple[str, ...] = ()
    user_sites: tuple[str, ...] = ()
    base_executable: str = ""
    search: tuple[str, ...] = ()
    package: str = PACKAGE
    scripts: str = ""
    foreign: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """What the interpreter executes at start-up, or may, by its names: who writes there runs code outside."""
        found = [self.stdlib, self.platstdlib, *self.site, *self.path, *self.user_sites, self.package]
        found += [f"{self.prefix}/pyvenv.cfg", f"{self.base_prefix}/lib", f"{self.stdlib}/sitecustomize.py"]
        found += [os.path.dirname(self.executable), os.path.dirname(os.path.realpath(self.executable)), self.executable]
        base = self.base_executable
        if not base:
            base = self.executable if self.prefix == self.base_prefix else os.path.realpath(self.executable)
        for program in (self.executable, base):
            folder = os.path.dirname(program)
            found += [folder, f"{folder}/pyvenv.cfg", f"{os.path.dirname(folder)}/pyvenv.cfg"]
        found += self._landmarks(base)
        found += [self.scripts] if self.scripts else []
        found += self.commands
        return tuple(dict.fromkeys(found))

    def _landmarks(self, base: str) -> list[str]:
        """Return where an interpreter looks for its standard library: above its own path, by the letters of it."""
        version = self.stdlib.rpartition("/")[2]
        names = dict.fromkeys(("lib", self.platstdlib.split("/")[-2]))
        found: list[str] = []
        at = os.path.dirname(base)
        while at not in (self.base_prefix, "/", ""):
            found += [f"{at}/{name}/{version}" for name in names]
            at = os.path.dirname(at)
        return found

    @property
    def commands(self) -> list[str]:
        """The names by which PATH finds the installed command."""
        if not self.scripts:
            return []
        command = os.path.realpath(f"{self.scripts}/sandboxed-python")
        names = [f"{folder}/sandboxed-python" for folder in self.search if folder[:1] == "/"]
        return [name for name in names if os.path.lexists(name) and os.path.realpath(name) == command]


def this_runtime(scripts: str = "") -> Runtime:
    """Return the facts about the running interpreter, without importing ``sysconfig`` or ``site``'s helpers."""
    stdlib = os.path.dirname(os.path.abspath(os.__file__))
    dynload = next((entry for entry in sys.path if entry.endswith("/lib-dynload")), f"{stdlib}/lib-dynload")
    prefixes = tuple(f"{prefix}/" for prefix in (sys.prefix, sys.base_prefix, sys.base_exec_prefix))
    enabled = getattr(sys.modules.get("site"), "ENABLE_USER_SITE", None)
    # Not used by this start (-s, -I, another effective user) isn't never used.
    may = enabled or sys.prefix == sys.base_prefix or sees_system_site(sys.prefix)
    user_sites = user_sites_of() if may else ()
    site = [
        entry
        for entry in sys.path
        if entry.endswith(("/site-packages", "/dist-packages"))
        and (entry.startswith(prefixes) or (enabled and entry in user_sites))
    ]
    return Runtime(
        executable=sys.executable,
        base_executable=getattr(sys, "_base_executable", ""),
        search=tuple(os.environ.get("PATH", "").split(":")),
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        stdlib=stdlib,
        platstdlib=os.path.dirname(dynload),
        site=tuple(site),
        path=tuple([os.path.abspath(entry) for entry in sys.path]),
        user_sites=user_sites,
        scripts=scripts,
    )


def sees_system_site(prefix: str) -> bool:
    """Tell whether a virtual environment may include the system's and the user's site-packages (pyvenv.cfg).

    As ``site.venv()`` reads it, which takes a missing key as ``true``; what can't be read counts as that, too.
    """
    try:
        with open(f"{prefix}/pyvenv.cfg", "rb", 0) as file:
            text = (file.readall() or b"").decode("utf-8", "replace").lower()
    except OSError:
        return True
    answer = "true"
    for line in text.replace("\r", "\n").split("\n"):
        key, equals, value = line.partition("=")
        if equals and key.strip() == "include-system-site-packages":
            answer = value.strip()
    return answer == "true"


def user_sites_of(version: str = f"python3.{sys.version_info[1]}") -> tuple[str, ...]:
    """Return the user's own site-packages folders, by HOME and by the user database, whether they exist or not."""
    homes = [os.environ.get("HOME", "")]
    try:
        import pwd

        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        pass
    bases = [f"{home}/.local" for home in homes if home[:1] == "/"]
    base = os.environ.get("PYTHONUSERBASE", "")
    if base[:1] == "/":
        bases.append(base)
    return tuple(dict.fromkeys(os.path.normpath(f"{base}/lib/{version}/site-packages") for base in bases))
