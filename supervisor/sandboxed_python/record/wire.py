"""The wire: how a confined program speaks to its supervisor, without a descriptor and without a file.

Runs in: both. ``fsetxattr(WIRE, name, value, size, 0)`` is a call that every policy's notifying filter hands to the
supervisor. ``WIRE`` can't be a descriptor (the kernel's table ends before it, see ``fs.nr_open`` in proc_sys_fs(5)), so
where nobody listens the call is EBADF and has no effect: asking whether one is inside is harmless.

What is said in pure Python is ``os.setxattr(WIRE, name, value)``. For an answer, ``value`` is a writable buffer
(``kernel.wire.ask``). To the supervisor everything goes as JSON, for marshal is not safe against who made the bytes;
from it, as marshal (version 2), which an interpreter has loaded anyway.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WIRE = 0x7FFFFFF5
LIMIT = 65536
"""Most bytes of a message to the supervisor (XATTR_SIZE_MAX); a buffer for an answer may be larger."""

_PREFIX = "sandboxed-python."
POLICY = _PREFIX + "policy"
"""Answers the length of the caller's effective policy (``Policy.to_data``, marshal), and writes it into the buffer.

An empty buffer asks for the length alone; one that is too small is ERANGE.
"""
FACTS = _PREFIX + "facts"
"""Likewise a dict: ``"parts"``, names of the notifying filter's parts; ``"abi"``, the Landlock ABI in use."""
PREPARE = _PREFIX + "prepare"
"""Answers 0 if the process can be narrowed by a policy (``narrowing``); nothing is narrowed yet."""
RULESET = _PREFIX + "ruleset"
"""As ``PREPARE``, and answers a descriptor: a Landlock ruleset for the narrowed policy. EBUSY: see ``THREADS_ABI``."""
NARROW = _PREFIX + "narrow"
"""From now on the caller's process, and what it starts, is granted what both its policy and the sent one grant.

Answers 0. The message is the same, byte for byte, as that of ``PREPARE`` or ``RULESET`` before.
"""
DENIAL = _PREFIX + "denial"
"""The hook has denied something (``record.events.Report``). Answers 0; nobody listens where no log is kept (EINVAL)."""
THREADS_ABI = 8
"""The Landlock ABI that can restrict all threads of a process; before it, only a process with one can be restricted."""


def narrowing(policy: Any, *, inner: bool) -> bytes:
    """Return the message of ``PREPARE``, ``RULESET`` and ``NARROW``.

    Args:
        policy: ``Policy.to_data()``; what it is within is left out.
        inner: the process becomes another sandbox, which doesn't reach the processes around it.
    """
    return pack({"policy": {key: value for key, value in policy.items() if key != "within"}, "inner": inner})


def pack(data: Any) -> bytes:
    """Return a message to the supervisor; ``data`` is plain data, strings may hold surrogates."""
    import json

    return json.dumps(data, separators=(",", ":")).encode("ascii")


def unpack(message: bytes) -> Any:
    """Return what a message to the supervisor says.

    Raises:
        ValueError: it isn't JSON.
        RecursionError: it is nested too deeply.
    """
    import json

    return json.loads(message.decode("ascii"))
