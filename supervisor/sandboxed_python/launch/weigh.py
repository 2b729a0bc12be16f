"""Weighing a job: what its processes hold in memory together.

Runs in: supervisor. Loaded only with ``launch.watch``.
"""

from __future__ import annotations

import time

from sandboxed_python.kernel import tree

# The sum of what is resident is cheap to know, and never below what is held. From this part of the limit on it is not
# enough. Seconds between two exact looks at least, as long as the processes are the same.
_NEAR = 0.5
_EXACT = 1.0
# An exact look may cost such a part of one processor.
_SHARE = 0.05


class Weight:
    """What a job's processes hold together, or, where no limit is near, a bound of it.

    Attributes:
        bound: bytes that are held now, as far as is known.
        worst: in the worst case.
        peak: that were held at most.
        cost: seconds of this thread that the last look took for being exact.
    """

    def __init__(self, limit: int | None, *, always: bool) -> None:
        """Begin.

        Args:
            limit: bytes that may be held, or None.
            always: wanted also far from the limit.
        """
        self.bound = self.worst = self.peak = 0
        self.cost = 0.0
        self._limit = limit
        self._always = always
        # Bytes that were held at the last exact look, and that were anonymous before and after it; pages that had been
        # given before it.
        self._held = self._faults = 0
        self._anonymous = 0, 0
        self._weighed: set[tuple[int, int]] = set()
        self._swaps = False
        self._at = self._soonest = 0.0
        self._ran = True  # since the last exact look

    def look(self, found: list[tree.Process], now: float, *, busy: bool) -> None:
        """Find out what these processes hold.

        An exact look takes long, above all while much happens. Between two of them, and as long as the processes are
        the same, what they hold grows as their anonymous memory does. Shared memory that a process gets a copy of when
        it writes to it doesn't show there; the pages that processes were given are never fewer than what they hold
        more. If these could be too much, and now and then in any case, the next look is an exact one.

        Args:
            found: all that there are.
            now: monotonic seconds.
            busy: they have used processor time since the last look.
        """
        self._ran |= busy
        self.cost = 0.0
        self.bound = self.worst = sum([one.resident for one in found])
        limit = self._limit
        near = limit is not None and self.bound > _NEAR * limit
        if not near and not self._always:
            return
        same = {(one.pid, one.began) for one in found} == self._weighed
        anonymous = sum([tree.anonymous(one.pid) for one in found])
        pages = sum([one.faults for one in found]) - self._faults
        self.bound = self._held + max(anonymous - self._anonymous[1], 0)
        self.worst = self._held + max(anonymous - self._anonymous[0], pages * tree.PAGE, 0)
        over = limit is not None and self.bound > limit
        suspect = limit is not None and self.worst > limit and now >= self._soonest
        if (now >= self._at and self._ran) or not same or suspect or (over and self._swaps):
            self._look_exactly(found, anonymous, now)
        self.peak = max(self.peak, self.bound)

    def _look_exactly(self, found: list[tree.Process], anonymous: int, now: float) -> None:
        began = time.thread_time()
        self._ran = False
        total, self._swaps = 0, False
        for one in found:
            held = tree.held(one.pid)
            if held is not None:
                total += sum(held)
                self._swaps |= held[1] > 0
            elif tree.read(one.pid):  # it may not be weighed, since it has other ids
                total += one.resident
        self._held = self.bound = self.worst = total
        self._anonymous = anonymous, sum([tree.anonymous(one.pid) for one in found])
        self._faults = sum([one.faults for one in found])
        self._weighed = {(one.pid, one.began) for one in found}
        self.cost = time.thread_time() - began
        end = time.monotonic()
        self._soonest = end + 4 * (end - now)
        self._at = end + max(_EXACT, self.cost / _SHARE)
