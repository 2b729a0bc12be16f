"""Another interpreter than the supervisor's own: where it and its libraries lie.

Runs in: supervisor, when the command line names one.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import LaunchError
from sandboxed_python.plan.runtime import Runtime, sees_system_site, user_sites_of


def other_runtime(executable: str, scripts: str = "") -> Runtime:
    """Return the facts about another interpreter, read off the file system: it isn't run, for it may be anybody's.

    Args:
        executable: absolute path of the interpreter, or of a virtual environment's link to it.
        scripts: as in Runtime.

    Raises:
        LaunchError: there is no standard library where one of this interpreter would be.
    """
    real = os.path.realpath(executable)
    base = os.path.dirname(os.path.dirname(real))
    stdlib = _stdlib(base, os.path.basename(real))
    version = os.path.basename(stdlib)
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(executable)))
    is_venv = os.path.exists(f"{prefix}/pyvenv.cfg")
    site = [f"{prefix}/lib/{version}/site-packages"] if is_venv else []
    outside = not is_venv or sees_system_site(prefix)
    if not is_venv:
        prefix = base
    if outside:
        site += [
            f"{stdlib}/site-packages",
            f"{base}/lib/python3/dist-packages",
            f"/usr/local/lib/{version}/dist-packages",
        ]
    return Runtime(
        executable=executable,
        base_executable=real,
        prefix=prefix,
        base_prefix=base,
        stdlib=stdlib,
        platstdlib=stdlib,
        site=tuple([path for path in site if os.path.isdir(path)]),
        user_sites=user_sites_of(version) if outside else (),
        scripts=scripts,
        foreign=True,
    )


def _stdlib(base: str, name: str) -> str:
    """Return the standard library below ``base`` of the interpreter called ``name`` (``python3.12``, ``python3``)."""
    for folder in ("lib", "lib64"):
        try:
            found = [entry for entry in os.listdir(f"{base}/{folder}") if entry.startswith("python3.")]
        except OSError:
            continue
        found = [entry for entry in found if os.path.exists(f"{base}/{folder}/{entry}/os.py")]
        if name in found:
            return f"{base}/{folder}/{name}"
        if len(found) == 1:
            return f"{base}/{folder}/{found[0]}"
    message = f"--python: no standard library of {name} in {base}/lib: name the interpreter itself, e.g. python3.12"
    raise LaunchError(message)
