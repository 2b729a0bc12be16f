"""Asking the supervisor over the wire (``record.wire``).

Runs in: child.
"""

from __future__ import annotations

import errno

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel.calls import Char, Long, Pointer, function, get_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_fsetxattr = function("fsetxattr", Long, Pointer, Pointer, Pointer, Long)


def say(wire: int, name: str, value: bytes) -> int:
    """Send a message and return the answer's number.

    Args:
        wire: ``record.wire.WIRE``.
        name: of the message.
        value: what it says.

    Raises:
        KernelError: the supervisor's errno; ``EBADF``: nobody listens.
    """
    return _call(wire, name, value, len(value))


def ask(wire: int, name: str) -> bytes:
    """Ask a question and return the bytes that are the answer.

    Raises:
        KernelError: as ``say``.
    """
    size = 16384
    while True:
        buffer = (Char * size)()  # no Block: while the program runs, the hook lets nobody make one
        try:
            length = _call(wire, name, buffer, size)
        except KernelError as error:
            if error.errno != errno.ERANGE:
                raise
            size = _call(wire, name, None, 0)
        else:
            return bytes(buffer)[:length]


def _call(wire: int, name: str, value: Any, size: int) -> int:
    result: int = _fsetxattr(wire, name.encode() + b"\0", value, size, 0)
    if result & 0xFFFFFFFF == 0xFFFFFFFF:
        raise KernelError(get_errno(), "fsetxattr", f"the wire, {name}")
    return result & 0xFFFFFFFF
