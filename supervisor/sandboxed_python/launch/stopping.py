"""A child that stopped: stop with it, and go on with it.

Runs in: supervisor, and in a process of its own that it forks while it is stopped.
"""

from __future__ import annotations

import os
import time

from sandboxed_python.kernel import process
from sandboxed_python.kernel.calls import close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from sandboxed_python.launch.session import Session
else:
    import _signal  # the signal module on top of it imports enum

_LOOK = 0.05  # seconds between two looks at a stopped child


def stop_with(session: Session, number: int) -> None:
    """Stop, so that the shell sees the job stopped, until somebody continues this process or the child.

    Who is stopped can't see that the child goes on or ends (continued by what it has started, or by somebody who knows
    its number), so another process looks. Without room for one this process doesn't stop.
    """
    own = os.getpid()
    try:
        session.waker = os.fork()
    except OSError:
        return
    if session.waker == 0:
        _wake(own, session.pid)
    _stop_by(number)
    os.kill(session.waker, _signal.SIGKILL)
    os.waitpid(session.waker, 0)


def _stop_by(number: int) -> None:
    """Stop by the signal that stopped the child, for whoever waits to see, and in any case.

    The terminal's three don't stop a group that no shell looks after; SIGSTOP does.
    """
    own = os.getpid()
    if number != _signal.SIGSTOP:
        handler = _signal.signal(number, _signal.SIG_DFL)
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, (number,))
        os.kill(own, number)  # one with that of the terminal's, if that is still waiting
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))  # here it stops
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        if handler is not None:
            _signal.signal(number, handler)
        if _signal.SIGCONT in _signal.sigpending():
            return
    os.kill(own, _signal.SIGSTOP)


def _wake(supervisor: int, child: int) -> None:
    """Continue the supervisor when it is stopped and its child isn't. Does not return."""
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        if not process.die_with_parent(supervisor, _signal.SIGKILL):
            return
        os.setsid()  # a signal to the supervisor's group is not for this process
        close_range(0)
        while not (process.state(supervisor) == b"T" and process.state(child) != b"T"):
            time.sleep(_LOOK)
        os.kill(supervisor, _signal.SIGCONT)
    finally:
        os._exit(0)
