"""Which seccomp filters a policy has, and loading the shipped ones.

Runs in: both. A policy's filters are found by name in the package data: ``filters/<machine>/<name>.bpf``, raw
``struct sock_filter`` arrays. ``plan.seccomp`` compiles them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The scopes that change the static filter, in the order of the variant's name. "exec-memory" is what the addon, ffi and
# wasi permissions have in common.
SCOPES = ("child", "worker", "net", "inspector", "exec-memory")
EXEC = "exec"
BASE = "base"
NOTIFY = "notify-"
AUDIT = "audit"
"""The part of the notifying filter that shows the supervisor whatever a permission could gate."""
QUIET = "quiet"
"""The part for audits of which no log is kept: only the program's own messages reach the supervisor."""
NO_MAP = "no-map"
"""The filter that refuses every executable mapping of a file: native code can be taken away only as a whole."""


def variant(scopes: Iterable[str], *, exec_way: bool = False) -> str:
    """Name the static filter of a policy, e.g. ``"base"``, ``"child+net"``, ``"worker+exec"``.

    Args:
        scopes: what is granted; names that are not in ``SCOPES`` don't matter here.
        exec_way: another interpreter is started after the confinement, so execve must reach the notifying filter. With
            the child scope it passes anyway, and the name doesn't change.
    """
    names = [scope for scope in SCOPES if scope in scopes]
    if exec_way and "child" not in names:
        names.append(EXEC)
    return "+".join(names) or BASE


def notify_variant(parts: Iterable[str]) -> str:
    """Name the notifying filter of these parts (keys of ``plan.seccomp.NOTIFY_PARTS``), e.g. ``"notify-exec+map"``.

    Returns ``""`` for no parts: such a policy needs no notifying filter.
    """
    names = "+".join(sorted(set(parts)))
    return NOTIFY + names if names else ""


def load(name: str, machine: str) -> bytes:
    """Return a filter as raw ``struct sock_filter`` entries, shipped or else compiled.

    Args:
        name: from ``variant`` or ``notify_variant``, or ``NO_MAP``.
        machine: ``os.uname().machine``.

    Raises:
        UnsupportedError: neither shipped for this machine nor can libseccomp compile it here.
        ValueError: no such scope or part.
    """
    try:
        with open(f"{filters()}/{machine}/{name}.bpf", "rb", 0) as file:
            return file.read()
    except FileNotFoundError:
        from sandboxed_python.plan.seccomp import compile_named

        return compile_named(name, machine)


def filters() -> str:
    """Return the directory of the shipped filters."""
    return os.path.dirname(__file__) + "/filters"
