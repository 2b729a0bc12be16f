"""What the confined program says to its supervisor over the wire (``record.wire``).

Runs in: supervisor. Whoever is in the sandbox may send any of this, so a message only ever concerns the process that
sends it, and can only take away from it. What is malformed is EINVAL.
"""

from __future__ import annotations

import errno
import marshal

from sandboxed_python.broker.later import later
from sandboxed_python.broker.narrow import Narrowings, is_alone
from sandboxed_python.broker.request import DONE, Answer, failure
from sandboxed_python.kernel import notify
from sandboxed_python.policy.narrow import from_message
from sandboxed_python.record import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sandboxed_python.broker.narrow import Narrowed
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


def _write(request: Request, data: Any) -> Answer:
    """Write an answer into the caller's buffer, and tell how long it is."""
    text = marshal.dumps(data, 2)
    address, size = request.arguments[2:4]
    if size:
        if size < len(text):
            return failure(errno.ERANGE)
        request.write_bytes(address, text)
    return Answer(value=len(text))


def _read(request: Request) -> bytes:
    """Read a message.

    Raises:
        OSError: ``E2BIG``, ``EFAULT``.
    """
    address, size = request.arguments[2:4]
    if size > wire.LIMIT:
        raise OSError(errno.E2BIG, "")
    return notify.read_memory(request.task, address, size)


def tell_policy(request: Request) -> Answer:
    """Tell the caller's effective policy."""
    return _write(request, request.granted.policy.to_data())


def tell_facts(request: Request) -> Answer:
    """Tell what of the plan a sandbox in this sandbox has to know."""
    plan = request.context.plan
    if plan is None:
        return failure(errno.EINVAL)
    return _write(request, {"parts": list(plan.notify_parts), "abi": plan.abi})


def _prepare(request: Request) -> tuple[Narrowed, bool]:
    """Make ready for a narrowing; return what will be granted, and whether the sender is another sandbox.

    Raises:
        OSError: ``EINVAL``: the message is none; see also ``_read`` and ``Narrowings.prepare``.
    """
    text = _read(request)
    try:
        said = wire.unpack(text)
        inner = said["inner"]
        policy = from_message(said["policy"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise OSError(errno.EINVAL, "") from error
    context = request.context
    narrowings = context.narrowings
    if narrowings is None:
        narrowings = context.narrowings = Narrowings(context)
    return narrowings.prepare(request, policy, text), inner is True


def prepare(request: Request) -> Answer:
    """Make ready for a narrowing."""
    _prepare(request)
    return DONE


def ruleset(request: Request) -> Answer:
    """Make ready for a narrowing, and hand over a Landlock ruleset for it.

    A process with several threads can put it on only with Landlock ABI 8 (EBUSY otherwise). Many paths may have to be
    opened, so another thread does it: the calls of others needn't wait for that.
    """
    context = request.context
    if context.restrict is None or context.plan is None or not context.plan.abi:
        return failure(errno.EOPNOTSUPP)
    if context.plan.abi < wire.THREADS_ABI and not is_alone(request.task):
        return failure(errno.EBUSY)
    granted, inner = _prepare(request)
    restrict = context.restrict

    def work() -> Answer:
        descriptor, rules = restrict(granted.policy, inner)
        granted.tell(rules)
        return Answer(Answer.DESCRIPTOR, descriptor=descriptor, close_on_exec=True)

    return later(request, work)


def narrow(request: Request) -> Answer:
    """Narrow the caller's process, as was made ready before."""
    narrowings = request.context.narrowings
    if narrowings is None:
        return failure(errno.EINVAL)
    narrowings.narrow(request, _read(request))
    return DONE


def denial(request: Request) -> Answer:
    """Note what the hook has denied; it is the program's word."""
    on_report = request.context.on_report
    if on_report is None:
        return failure(errno.EINVAL)
    from sandboxed_python.record.events import Report

    try:
        report = Report.from_data(wire.unpack(_read(request)))
    except (ValueError, RecursionError) as error:
        raise OSError(errno.EINVAL, "") from error
    on_report(request, report)
    return DONE


MESSAGES: dict[str, Callable[[Request], Answer]] = {
    wire.POLICY: tell_policy,
    wire.FACTS: tell_facts,
    wire.PREPARE: prepare,
    wire.RULESET: ruleset,
    wire.NARROW: narrow,
    wire.DENIAL: denial,
}
"""Name of a message -> what answers it."""
