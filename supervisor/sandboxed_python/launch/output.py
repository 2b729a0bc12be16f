"""``--limit-output``: the job's stdout and stderr through pipes, and counted.

Runs in: both: the supervisor copies, the child takes its ends. Loaded only when the limit is given.
"""

from __future__ import annotations

import _thread
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal  # the signal module on top of it imports enum

CHUNK = 65536
_AGAIN = 0.01  # seconds until a full non-blocking descriptor is tried again
_LOOK = 0.1  # seconds between two looks whether the end of a copy is still waited for


class Relay:
    """The pipes of one job. Where stdout and stderr lead to the same place they share one, so that their order stays.

    Attributes:
        passed: bytes that came.
        exceeded: there were more than allowed; what is above was not passed on, and nothing more is read.
    """

    def __init__(self, most: int, closed: list[int]) -> None:
        """Make the pipes.

        Args:
            most: bytes.
            closed: descriptors that whoever started the command has closed: they stay so.

        Raises:
            OSError: no descriptors left.
        """
        self.passed = 0
        self.exceeded = False
        self._most = most
        self._counting = _thread.allocate_lock()
        self._pipes: list[tuple[int, int, list[int]]] = []  # reading end, writing end, what it stands for
        self._copies: list[_thread.LockType] = []
        places: dict[tuple[int, int], list[int]] = {}
        for descriptor in (1, 2):
            if descriptor not in closed:
                found = os.fstat(descriptor)
                places.setdefault((found.st_dev, found.st_ino), []).append(descriptor)
        for descriptors in places.values():
            self._pipes.append((*os.pipe(), descriptors))

    def enter(self) -> None:
        """Take the writing ends, in the child."""
        for _reading, writing, descriptors in self._pipes:
            for descriptor in descriptors:
                os.dup2(writing, descriptor)

    def copy(self, on_exceeded: Callable[[], None]) -> None:
        """Begin to copy, in the supervisor.

        Args:
            on_exceeded: called once, by another thread.

        Raises:
            RuntimeError: no more threads.
        """
        for reading, writing, descriptors in self._pipes:
            os.close(writing)
            going_on = _thread.allocate_lock()
            going_on.acquire()
            self._copies.append(going_on)
            _thread.start_new_thread(self._copy, (reading, descriptors[0], going_on, on_exceeded))

    def _copy(self, reading: int, to: int, going_on: _thread.LockType, on_exceeded: Callable[[], None]) -> None:
        try:
            while data := os.read(reading, CHUNK):
                with self._counting:
                    room = max(self._most - self.passed, 0)
                    self.passed += len(data)
                    first = not self.exceeded and len(data) > room
                    self.exceeded |= first
                _write(to, data[:room])
                if first:
                    on_exceeded()
                if len(data) > room:
                    return  # the pipe stays open: the job isn't told, it is ended
            os.close(reading)
        except OSError:  # whoever read it has gone, and so does the job's reader
            os.close(reading)
        finally:
            going_on.release()

    def finish(self, signals: int) -> None:
        """Wait until everything is passed on, when the job has ended; a signal to this process ends that, too.

        Args:
            signals: descriptor of the signals.
        """
        for going_on in self._copies:
            while not going_on.acquire(timeout=_LOOK):
                if _told_to_stop(signals):
                    return


def _write(to: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(to, data) :]
        except BlockingIOError:
            time.sleep(_AGAIN)


def _told_to_stop(signals: int) -> bool:
    try:
        number = int.from_bytes(os.read(signals, 128)[:4], "little")
    except BlockingIOError:
        return False
    return number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
