"""What the program sees of this package: its denials, and none of its modules.

Runs in: child.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
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
