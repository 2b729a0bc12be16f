"""What the confined program says to its supervisor over the wire (``record.wire``).

Runs in: supervisor. Whoever is in the sandbox may send any of this, so a message only ever concerns the process that
sends it, and can only take away from it. What is malformed is EINVAL.
"""

from __future__ import annotations

import errno
import marshal

from sandboxed_python.broker.request import Answer, failure
from sandboxed_python.kernel import notify
from sandboxed_python.record import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Request


def message(request: Request) -> Answer:
    """Answer ``fsetxattr(WIRE, name, value, size, 0)``.

    Raises:
        OSError: ``EFAULT``, ``ERANGE`` for the name, as setxattr(2).
    """
    name = notify.read_string(request.task, request.arguments[1], 256, errno.ERANGE)
    handler = MESSAGES.get(name.decode("latin-1"))
    if handler is None or request.arguments[4] & 0xFFFFFFFF:
        return failure(errno.EINVAL)
    return handler(request)


def tell_policy(request: Request) -> Answer:
    """Write the caller's effective policy into its buffer, or tell how long it is."""
    text = marshal.dumps(request.context.policy.to_data(), 2)
    address, size = request.arguments[2:4]
    if size:
        if size < len(text):
            return failure(errno.ERANGE)
        request.write_bytes(address, text)
    return Answer(value=len(text))


MESSAGES: dict[str, Callable[[Request], Answer]] = {
    wire.POLICY: tell_policy,
}
"""Name of a message -> what answers it."""
