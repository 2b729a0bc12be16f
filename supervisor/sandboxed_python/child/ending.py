"""Ending a program that leaves nothing to be cleaned up, without the interpreter's clean-up.

Runs in: child, forked. The interpreter's clean-up takes every object apart, and in a fork each page that it touches is
copied first: for a small program that is a third of its time. Where there is nothing that the clean-up would run or
write, nobody can tell whether it took place; then what plain python does besides, writing out stdout and stderr, is all
that is done. Everything unknown counts as something to be cleaned up.
"""

from __future__ import annotations

import _frozen_importlib as _importer
import _frozen_importlib_external as _files
import _thread
import atexit
import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from sandboxed_python.child.hook import Judge

# The originals: the program may put others in their places.
_type, _len = type, len
_exit = os._exit
_callbacks, _threads = atexit._ncallbacks, _thread._count
_get_objects, _gettrace, _getprofile = gc.get_objects, sys.gettrace, sys.getprofile
# How many objects of a program are looked at: with more of them the clean-up is a small part of its time.
_FEW = 2000
# What can be dropped unseen: containers (what they hold is looked at by itself, or has no clean-up) and functions.
_HARMLESS = frozenset(
    (
        dict,
        frozenset,
        list,
        set,
        tuple,
        type(len),
        type(lambda: None),
        _files.SourceFileLoader,
    )
)


class Ending:
    """Tells whether a program left anything to be cleaned up."""

    def __init__(self, baseline: frozenset[str]) -> None:
        """Look at what was there before the program, in the supervisor.

        Args:
            baseline: names in ``sys.modules`` of a plain interpreter at this point.
        """
        self._baseline = baseline
        self._own = sys.stdin, sys.stdout, sys.stderr
        known = sys.stdlib_module_names
        rest = [name for name in baseline if name.partition(".")[0] not in known and name not in _KNOWN]
        self._plain = all(_inert(sys.modules[name]) for name in rest)

    def begin(self) -> None:
        """Note that the program starts now: what comes to be from here on is the program's."""
        gc.freeze()

    def end(self, judge: Judge | None) -> None:
        """End this process well if nothing is to be cleaned up; return otherwise.

        Args:
            judge: the hook's; it knows of audit hooks that the program has added.
        """
        try:
            if not self._plain or (judge is not None and judge.heard) or not self._nothing_left():
                return
            for stream in self._own[1:]:
                if stream is not None:
                    stream.flush()
        except Exception:  # a full disk, a closed stream, a name taken away: the clean-up tells it as plain python does
            return
        _exit(0)

    def _nothing_left(self) -> bool:
        return (
            not sys.flags.inspect
            and "PYTHONINSPECT" not in os.environ
            and self._baseline.issuperset(sys.modules.keys() - {"__main__", "atexit"})
            and (sys.stdin, sys.stdout, sys.stderr) == self._own == (sys.__stdin__, sys.__stdout__, sys.__stderr__)
            and _gettrace() is None
            and _getprofile() is None
            and _callbacks() == 0
            and _threads() == 0
            and not gc.callbacks
            and self._harmless()
        )

    def _harmless(self) -> bool:
        objects = _get_objects()
        if _len(objects) > _FEW:
            return False
        main = sys.modules.get("__main__")
        if _type(main) is not _type(sys):
            return False
        # A loop: a generator expression would bring objects of its own.
        for thing in objects:  # noqa: SIM110
            if _type(thing) not in _HARMLESS and thing is not main:
                return False
        return True


# Besides the standard library's, modules that hold nothing to be cleaned up at the start: setuptools' import hook.
_KNOWN = frozenset(("__main__", "_distutils_hack", "_distutils_hack.override"))
_INERT = _HARMLESS | {str, int, bool, bytes, type(None), type(sys), _importer.ModuleSpec}


def _inert(module: ModuleType) -> bool:
    """Tell whether a module that came with the start, a ``sitecustomize`` for example, is functions and names only."""
    return all(type(value) in _INERT for value in vars(module).values())
