"""Every exception of the package.

Runs in: both. Imports nothing of ours and nothing that isn't loaded at start-up anyway.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SandboxError(Exception):
    """Base of the supervisor's errors: shown to the user as one line, ``sandboxed-python: <message>``."""


class UsageError(SandboxError):
    """A bad option or option value. The message names the flag."""


class MissingOptionError(SandboxError):
    """``--allow-*`` without ``--permission``: Node's ``ERR_MISSING_OPTION``."""

    code = "ERR_MISSING_OPTION"


class PolicyFileError(SandboxError):
    """A policy file that can't be used. The message starts with ``file:line:``."""


class PolicyError(SandboxError):
    """A policy that is refused, e.g. a write grant that covers the interpreter. The message names the flag."""


class UnsupportedError(SandboxError):
    """This kernel can't enforce what was asked. The message tells what is needed and what was found."""


class LaunchError(SandboxError):
    """A step of the confinement or the start of the job failed. The message names the step and the errno."""


class KernelError(OSError):
    """A system call failed. The message names the call and its arguments.

    Attributes:
        call: name of the system call.
        errno: as in OSError.
    """

    call: str

    def __init__(self, number: int, call: str, arguments: str) -> None:
        """Name the call and its arguments in the message."""
        super().__init__(number, f"{call}({arguments}): {os.strerror(number)}")
        self.call = call


RESTRICTED = "Access to this API has been restricted."


class AccessDeniedError(PermissionError):
    """The permission model refused an operation (Node: ``ERR_ACCESS_DENIED``).

    A ``PermissionError`` with errno ``EACCES``, so that ``except OSError`` and ``except PermissionError`` see it.

    Attributes:
        code: ``"ERR_ACCESS_DENIED"``.
        permission: Node's name of the permission, e.g. ``"FileSystemRead"``.
        resource: what was asked for, in the caller's own spelling; ``""`` where there is none.
        filename: the resource, for the file-system permissions.
    """

    code = "ERR_ACCESS_DENIED"

    def __init__(self, permission: str = "", resource: str = "", flag: str = "") -> None:
        """Word the message as Node does; ``flag`` is the option that would grant it."""
        self._text = f"{RESTRICTED} Use {flag} to manage permissions." if flag else RESTRICTED
        super().__init__(errno.EACCES, self._text)
        self.permission = permission
        self.resource = resource
        self.flag = flag
        if permission.startswith("FileSystem") and resource:
            self.filename = resource

    def __str__(self) -> str:
        """Return Node's message."""
        return self._text

    def __reduce__(self) -> tuple[Callable[..., AccessDeniedError], tuple[str, str, str]]:
        """Pickle by the three things it was made of."""
        return type(self), (self.permission, self.resource, self.flag)


# The public name is the package's: tracebacks and pickles show it as sandboxed_python.AccessDeniedError.
AccessDeniedError.__module__ = "sandboxed_python"
