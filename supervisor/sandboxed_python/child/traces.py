"""What the program sees of this package: its denials, and none of its modules.

Runs in: child.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.child.events import FOLLOW, READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.child.hook import Judge
    from sandboxed_python.errors import AccessDeniedError


def forget(baseline: frozenset[str]) -> None:
    """Remove every module from ``sys.modules`` that the program would not find there under a plain interpreter."""
    modules = sys.modules
    for name in [name for name in modules if name not in baseline]:
        del modules[name]


def show_denial(error: AccessDeniedError) -> None:
    """Show an uncaught denial: the usual traceback, and Node's block after it."""
    import traceback

    if sys.stderr is None:
        return
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n")
    sys.stderr.write(f"{text} {block(error)}\n")


def block(error: AccessDeniedError) -> str:
    """Return Node's block of a denial: code, permission, resource."""
    return f"{{\n  code: {error.code!r},\n  permission: {error.permission!r},\n  resource: {error.resource!r}\n}}"


def show_unseen(error: BaseException, judge: Judge) -> None:
    """Say after the traceback of an import that found nothing which folders of ``sys.path`` it may not read.

    The import system takes any refusal for absence: its error alone would name neither the folder nor the flag.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name or "." in error.name or sys.stderr is None:
        return
    library = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"  # on every sys.path, and nearly never there
    try:
        folders = [entry or os.getcwd() for entry in map(str, sys.path) if not entry.endswith(library)]
        denied = [path for path in dict.fromkeys(folders) if judge.unheard(judge.denial, READ, path, None, FOLLOW)]
        if denied:
            places = ", ".join(map(repr, denied))
            sys.stderr.write(f"It was not looked for in {places}. Use --allow-fs-read to manage permissions.\n")
    except Exception:  # a closed stderr, no working directory: the traceback has been shown
        return
