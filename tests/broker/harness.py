"""A small launcher for the broker's tests: a forked child under a notifying filter, served by this process.

Runs in: tests only. No Landlock and no static filter: what the broker lets through, happens.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import struct
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from sandboxed_python.broker import answer as answers
from sandboxed_python.broker.request import Context
from sandboxed_python.kernel import files, process, seccomp, tables, uapi
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant
from tests.broker.operations import CALL_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxed_python.broker.request import Request

# Before a test gives up being root: an ordinary user may not reach the folder that the modules are in.
answers.load_all()

LONG = bool(os.environ.get("SANDBOX_LONG"))
PATH_CALLS = tuple(
    name for module in ("calls_read", "calls_change", "calls_names", "calls_open") for name in answers.MODULES[module]
)


def grant(*paths: str | os.PathLike[str], kind: str = "tree") -> tuple[Grant, ...]:
    """Grant places as they are, without looking at them."""
    return tuple(Grant(text=os.fspath(path), kind=kind, paths=(os.fspath(path),)) for path in paths)


EVERYTHING = (Grant(text="*", kind="all"),)


def policy(read: Iterable[Grant] = (), write: Iterable[Grant] = (), scopes: Iterable[str] = ()) -> Policy:
    """Make a policy of these grants."""
    return Policy(read=tuple(read), write=tuple(write), scopes=frozenset(scopes))


def program(names: Iterable[str]) -> bytes:
    """Write a filter that notifies these calls and allows all others."""
    numbers = sorted({number for name in names if (number := CALL_NUMBERS.get(name)) is not None})
    code = [(0x20, 0, 0, 0)]  # load the number
    for at, number in enumerate(numbers):
        code.append((0x15, len(numbers) - at, 0, number))
    code += [(0x06, 0, 0, uapi.SECCOMP_RET_ALLOW), (0x06, 0, 0, uapi.SECCOMP_RET_USER_NOTIF)]
    return b"".join(struct.pack("=HBBI", *one) for one in code)


class Child:
    """A child of this process and what it has sent back."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.sent = b""

    def read(self) -> bool:
        """Take what is there; False at the end."""
        got = os.read(self.pipe, 65536)
        self.sent += got
        return bool(got)

    def result(self) -> Any:
        """Return what its work returned; raise what it raised."""
        os.close(self.pipe)
        _pid, status = os.waitpid(self.pid, 0)
        assert self.sent, f"the child ended without a result: wait status {status:#x}"
        good, value = pickle.loads(self.sent)
        assert good, value
        return value


def start(work: Callable[[], Any], *, before: Callable[[], None] = lambda: None) -> Child:
    """Fork a child that does ``before`` and ``work`` and sends back what came of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    try:
        os.close(reading)
        try:
            before()
            sent = (True, work())
        except BaseException:  # noqa: BLE001
            sent = (False, traceback.format_exc())
        data = pickle.dumps(sent)
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def bare(work: Callable[[], Any], *, before: Callable[[], None] = lambda: None) -> Any:
    """Do some work in a child that nothing confines."""
    child = start(work, before=before)
    while child.read():
        pass
    return child.result()


class Served(NamedTuple):
    """What came of some work under the broker."""

    value: Any
    context: Context
    errors: list[str]
    denied: list[tuple[str, str, str | None]]


def serve(
    granted: Policy,
    work: Callable[[], Any],
    *,
    names: Iterable[str] = PATH_CALLS,
    before: Callable[[], None] = lambda: None,
    timeout: float = 60,
    **options: Any,
) -> Served:
    """Do some work in a child whose calls ``names`` this process answers under a policy.

    Args:
        granted: the policy.
        work: done once the filter is loaded.
        names: calls that are notified.
        before: done before that.
        timeout: seconds.
        options: of the ``Context``.
    """
    names = tuple(names)
    code = program(names)
    ours, theirs = socket.socketpair()

    def confine() -> None:
        before()
        ours.close()
        process.set_no_new_privs()
        listener = seccomp.load_notifying_filter(code)
        socket.send_fds(theirs, [b"L"], [listener])
        os.close(listener)
        theirs.close()

    denied: list[tuple[str, str, str | None]] = []
    errors: list[str] = []

    def on_denied(request: Request, need: str, path: str | None) -> None:
        denied.append((request.name, need, path))

    def on_error(request: Request, error: Exception) -> None:
        errors.append(f"{request.name} {request.resource!r}: " + "".join(traceback.format_exception(error)))

    handlers = answers.load([name for name in names if name in tables.BROKERED])
    child = start(work, before=confine)
    theirs.close()
    _data, descriptors, _flags, _address = socket.recv_fds(ours, 16, 1)
    ours.close()
    if not descriptors:
        while child.read():
            pass
        child.result()
        message = "no listener"
        raise AssertionError(message)
    listener = descriptors[0]
    notify_sync = seccomp.set_sync_wake_up(listener)
    assert notify_sync in (True, False)
    options.setdefault("identity", "fixed")
    context = Context(
        listener=listener, policy=granted, child=child.pid, on_denied=(on_denied,), on_error=on_error, **options
    )
    context.handlers = handlers
    try:
        _loop(context, child, timeout)
        value = child.result()
    finally:
        answers.close(context)
        os.close(listener)
    return Served(value, context, errors, denied)


def _loop(context: Context, child: Child, timeout: float) -> None:
    poll = select.poll()
    poll.register(context.listener, select.POLLIN)
    poll.register(child.pipe, select.POLLIN)
    end = time.monotonic() + timeout
    hung_up = False
    while True:
        for descriptor, event in poll.poll(1000):
            if descriptor == context.listener:
                if event & select.POLLIN:
                    answers.serve_one(context)
                else:
                    hung_up = True
                    poll.unregister(descriptor)
            elif not child.read():
                return
        if time.monotonic() > end or (hung_up and not child.sent and _ended(child.pid)):
            os.kill(child.pid, signal.SIGKILL)
            return


def _ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return b") Z " in file.read()
    except OSError:
        return True


class OwnRequest(answers.Request):
    """A request of this very process, for the resolver alone: nothing was notified, so it is always valid."""

    def __init__(self, granted: Policy | None = None, task: int = 0) -> None:
        pid = task or os.getpid()
        context = Context(listener=-1, policy=granted or policy(EVERYTHING, EVERYTHING), child=pid, identity="fixed")
        super().__init__(context, 0, pid, (0,) * 6)

    def confirm(self) -> None:
        """Say that the caller still waits."""


assert files.SIZEOF_STAT in uapi.SIZEOF_STAT
