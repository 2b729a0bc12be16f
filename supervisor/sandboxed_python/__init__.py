"""The Node.js permission model for CPython, enforced by the Linux kernel.

Runs in: both. Public names load lazily: importing this package costs one file.
"""

from __future__ import annotations

import sys

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.child.permission import Permission
    from sandboxed_python.errors import AccessDeniedError as AccessDeniedError

    permission: Permission

__all__ = ["AccessDeniedError", "__version__", "permission"]

# A confined program that imports this package gets the modules that are at work already (sys.permission keeps them),
# this one included: the import system hands out what it finds under the name afterwards. So the AccessDeniedError that
# the program catches is the very class that is raised.
sys.modules.update(getattr(getattr(sys, "permission", None), "_modules", ()))


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562).

    Raises:
        AttributeError: the package has no such public name.
    """
    if name == "AccessDeniedError":
        from sandboxed_python.errors import AccessDeniedError

        return AccessDeniedError
    if name == "permission":
        from sandboxed_python.child.permission import current

        return current()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
