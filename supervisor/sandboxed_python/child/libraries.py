"""Loading the interpreter's own libraries while libraries can still be loaded.

Runs in: child.
"""

from __future__ import annotations

import os

# The original: wrap.py replaces what os offers.
_listdir = os.listdir

# Not for programs, or with libraries and a terminal of their own.
_NOT_LOADED = ("_test", "_tkinter", "_ctypes_test", "_curses", "_xx", "readline", "xx")


def preload(folder: str) -> None:
    """Load the interpreter's extension modules, and what libc needs when a thread ends, into memory.

    Without ``--allow-addons`` the kernel lets libraries be loaded only while the process has one thread. What can't be
    loaded is left out.

    Args:
        folder: where the extension modules are; ``""`` if there is none.
    """
    try:
        from _ctypes import dlopen

        names = _listdir(folder) if folder else []
    except (ImportError, OSError):
        return
    paths = [f"{folder}/{name}" for name in names if name.endswith(".so") and not name.startswith(_NOT_LOADED)]
    for path in [*paths, "libgcc_s.so.1"]:
        try:
            dlopen(path, os.RTLD_LAZY)
        except OSError:
            continue
