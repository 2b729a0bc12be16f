"""Raising from an audit hook without leaving a frame in the traceback.

Runs in: child. An exception that a Python hook raises shows the hook in every traceback, above the caller's own line.
So there are two hooks. The first is a Python function that judges, and never raises: it stores what is to happen.
The second is made of C callables alone, and those have no frames.

How the second works. ``sys.audit`` calls ``getattr(events, event, arguments)``, where the class of ``events`` has a
property for every event that is judged; any other name just yields the default. The property's getter is
``next(pipeline, events)``; the pipeline reads ``slot.pending``, an iterator, and takes its next item. Usually that is
``repeat(None)``. For a denial it is a map of ``codecs.strict_errors``, which raises the exception it is given, over
the one exception. The pipeline is a chain of maps over endless ``repeat``s: a map has no state of its own that an
exception could end, and nothing in it raises StopIteration.

A denial can't be raised twice or late: the two hooks run back to back in one thread, the slot is local to the thread,
and the denial's iterator lets go of the exception as it hands it over (``list.pop``) and is ``repeat(None)`` from then
on. A thread that never stored anything finds the class attribute.
"""

from __future__ import annotations

import codecs
from _functools import partial
from _operator import attrgetter
from _thread import _local
from itertools import chain, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NOTHING = repeat(None)


class Slot(_local):
    """What the second hook does next, for each thread on its own."""

    pending: Iterator[object] = _NOTHING


def arm(slot: Slot, error: Exception) -> None:
    """Let the second hook raise the exception, once, at the event that is being judged in this thread."""
    slot.pending = chain(map(codecs.strict_errors, iter([None, error].pop, None)), _NOTHING)  # type: ignore[arg-type]


def raiser(slot: Slot, events: Iterable[str]) -> Callable[..., object]:
    """Return the second hook, for ``sys.addaudithook`` right after the first: it raises what the first one armed.

    Args:
        slot: shared with the first hook.
        events: the names of the events after which there may be something to raise.
    """
    pipeline = map(next, map(attrgetter("pending"), repeat(slot)))
    getter = property(partial(next, pipeline))
    judged = type("Events", (), {"__slots__": (), **dict.fromkeys(events, getter)})
    return partial(getattr, judged())
