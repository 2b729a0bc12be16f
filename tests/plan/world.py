"""A made-up machine for the planner: no test of a plan asks the real file system or the real kernel.

Runs in: tests only.
"""

from __future__ import annotations

import errno
import os
import posixpath
import types
from typing import TYPE_CHECKING

from sandboxed_python.kernel.probe import Support
from sandboxed_python.plan import build as building
from sandboxed_python.plan import implicit
from sandboxed_python.plan import landlock as planning
from sandboxed_python.plan import places as leaving_out
from sandboxed_python.plan import protect as protecting
from sandboxed_python.plan import runtime as describing
from sandboxed_python.plan.model import Plan, Target
from sandboxed_python.plan.mounts import Mounts
from sandboxed_python.plan.runtime import Runtime
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant, resolve
from sandboxed_python.policy.spelling import parse_grant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

DIRECTORIES = (
    *("/bin-links-away", "/data", "/data/in", "/data/out", "/dev", "/dev/pts", "/dev/shm", "/etc/ssl/certs"),
    *("/home/me/project", "/proc/self", "/srv", "/sys/kernel", "/tmp", "/usr/bin", "/usr/lib", "/usr/share/zoneinfo"),
    *("/venv/bin", "/venv/lib/python3.11/site-packages/sandboxed_python", "/opt/python/bin"),
    *("/opt/python/lib/python3.11/lib-dynload", "/home/me/.local/lib/python3.11/site-packages", "/usr/local/lib"),
)
FILES = (
    *("/data/in/a.csv", "/dev/null", "/dev/sda", "/dev/tty", "/dev/urandom", "/dev/zero", "/etc/hosts"),
    *(
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/passwd",
        "/etc/resolv.conf",
        "/etc/python3.11/sitecustomize.py",
        "/home/me/project/job.py",
    ),
    *("/opt/python/bin/python3.11", "/proc/self/mem", "/venv/pyvenv.cfg", "/venv/bin/sandboxed-python"),
)
LINKS = {
    "/bin": "usr/bin",
    "/lib": "usr/lib",
    "/home/me/link-to-venv": "/venv",
    "/opt/python/lib/python3.11/sitecustomize.py": "/etc/python3.11/sitecustomize.py",
    "/home/me/link-to-proc": "/proc",
    "/home/me/link-to-data": "/data",
    "/venv/bin/python3": "/opt/python/bin/python3.11",
}
RUNTIME = Runtime(
    executable="/venv/bin/python3",
    prefix="/venv",
    base_prefix="/opt/python",
    stdlib="/opt/python/lib/python3.11",
    platstdlib="/opt/python/lib/python3.11",
    site=("/venv/lib/python3.11/site-packages",),
    user_sites=("/home/me/.local/lib/python3.11/site-packages",),
    package="/venv/lib/python3.11/site-packages/sandboxed_python",
    scripts="/venv/bin",
)
SUPERVISOR = 4242  # its pid
SUPPORT = Support(machine="x86_64", release="6.12.0-made-up", landlock=6)


class World:
    """A file system that exists by name only; also a ``Lookup`` of the policy room."""

    def __init__(self) -> None:
        """Make it of the tables above."""
        self.links = dict(LINKS)
        self.mounts: tuple[str, ...] = ()
        self.bound: tuple[tuple[str, str], ...] = ()
        self.names: set[str] = {"/"}
        self.folders: set[str] = {"/"}
        for path in (*DIRECTORIES, *FILES, *self.links):
            at = path
            while at != "/":
                self.names.add(at)
                if at != path or path in DIRECTORIES:
                    self.folders.add(at)
                at = posixpath.dirname(at)

    def readlink(self, path: str) -> str:
        """Return a link's target."""
        if path not in self.links:
            number = errno.EINVAL if path in self.names else errno.ENOENT
            raise OSError(number, os.strerror(number), path)
        return self.links[path]

    def realpath(self, path: str) -> str:
        """Follow links."""
        return resolve(path, "/", self.readlink)

    def is_dir(self, path: str) -> bool:
        """Tell whether a path leads to a directory."""
        return self.realpath(path) in self.folders

    def lexists(self, path: str) -> bool:
        """Tell whether a name is there."""
        return posixpath.join(self.realpath(posixpath.dirname(path)), posixpath.basename(path)) in self.names

    def listdir(self, path: str) -> list[str]:
        """List a directory."""
        if path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return [posixpath.basename(name) for name in self.names if name != "/" and posixpath.dirname(name) == path]

    def mounted(self) -> Mounts:
        """Return the mounts: everything on one disk, kernel file systems at ``mounts``, and ``bound``."""
        rows = [("8:1", "/", "/", False), *(("0:9", "/", place, True) for place in self.mounts)]
        return Mounts([*rows, *(("8:1", root, place, False) for root, place in self.bound)])

    def settle(self, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
        """Put this world in place of the real one, for the planner's modules."""
        path = types.SimpleNamespace(
            dirname=posixpath.dirname,
            abspath=os.path.abspath,
            isdir=self.is_dir,
            islink=lambda name: name in self.links,
            lexists=self.lexists,
            exists=lambda name: self.realpath(name) in self.names,
            realpath=self.realpath,
        )
        fake = types.SimpleNamespace(path=path, environ=dict(environ), listdir=self.listdir, readlink=self.readlink)
        fake.getpid = lambda: SUPERVISOR
        for module in (building, implicit, planning, leaving_out, describing, protecting):
            monkeypatch.setattr(module, "os", fake)
        monkeypatch.setattr(protecting.Protection.__init__, "__defaults__", (self.mounted,))
        defaults = tuple(
            self.listdir if value is os.listdir else value for value in planning.path_rules.__defaults__ or ()
        )
        monkeypatch.setattr(planning.path_rules, "__defaults__", defaults)

    def grants(self, flag: str, *texts: str) -> tuple[Grant, ...]:
        """Parse the values of a flag in ``/home/me/project``."""
        return tuple([parse_grant(text, flag, "/home/me/project", self) for text in texts])

    def policy(self, *, read: tuple[str, ...] = (), write: tuple[str, ...] = (), **more: object) -> Policy:
        """Make a policy of what a user would write."""
        policy = Policy(read=self.grants("--allow-fs-read", *read), write=self.grants("--allow-fs-write", *write))
        return policy.replace(sources=("command line",), **more)


def plan_of(
    policy: Policy,
    *,
    target: Target = Target(kind="script", value="job.py", arguments=("--fast", "x y")),  # noqa: B008 - frozen
    support: Support = SUPPORT,
    runtime: Runtime = RUNTIME,
    fork: bool = True,
) -> Plan:
    """Build a plan on the made-up machine."""
    entry = None
    if target.kind == "script":
        path = posixpath.join("/home/me/project", target.value)
        entry = Grant(text=target.value, kind="path", paths=(path,), origin="entry script")
    return building.build(policy, target, runtime, support, entry=entry, keep_capabilities=0b10_0000_1011, fork=fork)
