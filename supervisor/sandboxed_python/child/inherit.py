"""Giving the hook to the Pythons that the program starts: ``PYTHONPATH`` of what is started leads to ``child/site``.

Runs in: child, when child processes are granted. The folder holds nothing but a ``sitecustomize``, which an interpreter
imports when it starts and which takes all traces away. The entry is put into the C library's environment, which the
program doesn't see (``os.environ`` is a copy), and into every environment that a start is given. What starts with
another one (``env -i``, native code), or doesn't look at it (``-I``, ``-E``, ``-S``), has no hook: the kernel's part is
inherited all the same.
"""

from __future__ import annotations

import os
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_NAME = "PYTHONPATH"
_KEY = _NAME.encode()
_ASSIGNED = _KEY + b"="
_ENTRY = os.fsencode(os.path.dirname(os.path.abspath(__file__))) + b"/site"
# The variable was there, and empty: to Python that is as if it weren't. Two entries would be the current directory.
_ENTRY_ALONE = _ENTRY + b"/"
_PLACE = 5  # of the environment among the arguments of _posixsubprocess.fork_exec()
_fsencode = os.fsencode


def possible() -> bool:
    """Tell whether the entry can be one of PYTHONPATH at all."""
    return b":" not in _ENTRY


def add(value: bytes | None) -> bytes:
    """Return PYTHONPATH with the entry in front; None: there is none."""
    if value is None:
        return _ENTRY
    if not value:
        return _ENTRY_ALONE
    if value.partition(b":")[0] in (_ENTRY, _ENTRY_ALONE):
        return value
    return _ENTRY + b":" + value


def without(value: bytes) -> bytes | None:
    """Undo ``add``."""
    first, colon, rest = value.partition(b":")
    if first == _ENTRY_ALONE and not colon:
        return b""
    if first != _ENTRY:
        return value
    return rest if colon else None


def take_out() -> None:
    """Take the entry out of this process's environment: what it starts is given another one, or none."""
    value = posix.environ.get(_KEY)
    kept = without(value) if value is not None else None
    if kept is not None:
        os.environb[_KEY] = kept
    elif value is not None:
        del os.environb[_KEY]


def begin() -> None:
    """Put the entry into the C library's environment."""
    posix.putenv(_KEY, add(posix.environ.get(_KEY)))


def functions() -> list[Any]:
    """Return the wrappers of what starts programs with an environment of its own, and of what changes the C library's.

    They are called like the functions of ``posix`` that they wrap; see ``wrap.Wrappers``.
    """
    real_execve, real_putenv, real_unsetenv = posix.execve, posix.putenv, posix.unsetenv
    name, key, encode = _NAME, _KEY, _fsencode
    passed_on, added, freed = _in_mapping, add, without

    def execve(path: Any, argv: Any, env: Mapping[Any, Any]) -> None:
        real_execve(path, argv, passed_on(env))

    def putenv(variable: Any, value: Any, /) -> None:
        real_putenv(variable, added(encode(value)) if variable in (key, name) else value)

    def unsetenv(variable: Any, /) -> None:
        if variable in (key, name):
            real_putenv(key, added(None))
        else:
            real_unsetenv(variable)

    spawners = [_spawner(each) for each in ("posix_spawn", "posix_spawnp") if hasattr(posix, each)]
    wrappers = [execve, putenv, unsetenv, *spawners]
    real_create = getattr(posix, "_create_environ", None)
    if real_create is not None:  # 3.14: os.reload_environ()

        def _create_environ() -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = real_create()
            if key in found:
                value = freed(found.pop(key))
                if value is not None:
                    found[key] = value
            return found

        wrappers.append(_create_environ)
    return wrappers


def _spawner(name: str) -> Any:
    real, passed_on = getattr(posix, name), _in_mapping

    def spawn(path: Any, argv: Any, env: Mapping[Any, Any], /, **options: Any) -> Any:
        return real(path, argv, passed_on(env), **options)

    spawn.__name__ = name
    return spawn


def _in_mapping(environment: Any) -> Any:
    """Return an environment with the entry in it; what can't be one is returned as it is: the call itself says why."""
    if environment is None:
        return None
    try:
        copy = dict(environment)
        key: Any = _NAME if _NAME in copy else _KEY
        copy[key] = add(_fsencode(copy[key]) if key in copy else None)
    except Exception:
        return environment
    return copy


def _in_list(environment: Any) -> Any:
    """Do the same for a list of assignments; None is the C library's environment."""
    if environment is None:
        return None
    try:
        copy = list(environment)
        values = [item[len(_ASSIGNED) :] for item in copy if item.startswith(_ASSIGNED)]
    except Exception:
        return environment
    entry = _ASSIGNED + add(values[0] if values else None)
    return [entry, *[item for item in copy if not item.startswith(_ASSIGNED)]]


def fork_exec(module: Any) -> Any:
    """Return a wrapper of ``_posixsubprocess.fork_exec``, by which subprocess and multiprocessing start programs."""
    real_fork_exec = module.fork_exec
    passed_on, place = _in_list, _PLACE

    def fork_exec(*arguments: Any) -> Any:
        return real_fork_exec(*arguments[:place], passed_on(arguments[place]), *arguments[place + 1 :])

    return fork_exec


def reach_subprocess(old: Any, new: Any) -> None:
    """Let ``subprocess`` use the wrapper if it has been imported before, by a ``.pth`` file for example."""
    found = sys.modules.get("subprocess")
    if found is not None and getattr(found, "_fork_exec", None) is old:
        found.__dict__["_fork_exec"] = new
