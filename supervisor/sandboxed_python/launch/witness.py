"""The witness: tells a signal to the whole group from one that is meant for the supervisor alone.

Runs in: supervisor, and in a process of its own that it forks.

``kill(2)`` on a process group, as timeout(1) and CI runners do it, or on one process of a service after the other, as
systemd and Slurm do, reaches the program itself, too: passed on, it would come twice, and the second one would break
into the handler's work for the first. A process can't see whom else a signal went to. So one more process stands in the
supervisor's group, with the same arguments, and does nothing but write down the signals that it gets: what it got from
the same sender at the same time, the program has got as well.

It starts when the program has run for a moment, and costs no time after that.
"""

from __future__ import annotations

import os
import time

from sandboxed_python.kernel import process, uapi
from sandboxed_python.kernel.calls import close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the signal module on top of it imports enum

NAME = "sandbox-witness"
PATIENCE = 0.01  # seconds between the first and the last process that is sent a signal meant for all
BUSY = 1.0  # seconds that a witness which has something to say, but no processor, is waited for
SAME_TIME = 100_000_000  # nanoseconds between two processes' getting of one signal
_ROW = 16  # bytes of a line: signal number, sender's pid, when (nanoseconds of the monotonic clock)


class Witness:
    """The supervisor's side.

    Attributes:
        pid: of the witness.
    """

    def __init__(self, signals: frozenset[int]) -> None:
        """Start the witness.

        Args:
            signals: what it looks for; blocked in this process.

        Raises:
            OSError: no process or descriptor left.
        """
        self._seen: list[tuple[int, int, int]] = []
        self._lines, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        own = os.getpid()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _stand_by(own, writing, signals)
        except OSError:
            os.close(self._lines)
            raise
        finally:
            os.close(writing)

    def tells(self, number: int, sender: int, since: float) -> bool | None:
        """Tell whether the witness has got the same signal from the same sender.

        Args:
            number: of the signal.
            sender: pid.
            since: when this process got it, in seconds of the monotonic clock.

        Returns:
            None if it can't be told yet: ask again.
        """
        if self._look_up(number, sender):
            return True
        waited = time.monotonic() - since
        # On a busy machine it may not have had the time to write down what it got.
        if waited < PATIENCE or (waited < BUSY and process.state(self.pid) == b"R"):
            return None
        return self._look_up(number, sender)

    def _look_up(self, number: int, sender: int) -> bool:
        """Look for a signal in what the witness has written, and forget it and what is old."""
        try:
            text = os.read(self._lines, 256 * _ROW)
        except BlockingIOError:
            text = b""
        for at in range(0, len(text), _ROW):
            words = [int.from_bytes(text[at + a : at + b], "little") for a, b in ((0, 4), (4, 8), (8, 16))]
            self._seen.append((words[0], words[1], words[2]))
        now = time.monotonic_ns()
        recent = [row for row in self._seen if now - row[2] < SAME_TIME]
        self._seen = [row for row in recent if row[:2] != (number, sender)]
        return len(self._seen) < len(recent)

    def end(self) -> None:
        """End the witness."""
        os.kill(self.pid, _signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.close()

    def close(self) -> None:
        """Let go of a witness that has ended."""
        os.close(self._lines)


def _stand_by(supervisor: int, writing: int, signals: frozenset[int]) -> None:
    """Write a line for each signal that somebody sends. Does not return.

    Args:
        supervisor: its pid; the witness ends with it.
        writing: the writing end of its pipe.
        signals: what to look for; blocked.
    """
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        if not process.die_with_parent(supervisor, _signal.SIGKILL):
            return
        os.chdir("/")
        close_range(0, writing - 1)
        close_range(writing + 1)
        process.set_name(NAME)
        while True:
            got = _signal.sigwaitinfo(signals)
            if got.si_code != uapi.SI_KERNEL:  # the terminal's are known by that
                words = (got.si_signo.to_bytes(4, "little"), got.si_pid.to_bytes(4, "little"))
                os.write(writing, b"".join((*words, time.monotonic_ns().to_bytes(8, "little"))))
    finally:
        os._exit(0)
