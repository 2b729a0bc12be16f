"""Raising from an audit hook without leaving a frame in the traceback.

Runs in: child. An exception that a Python hook raises shows the hook in every traceback, below the caller's own line.
So there are two hooks. The first is a Python function that judges, and never raises: it stores what is to happen.
The second is made of C callables alone, and those have no frames.

How the second works. ``sys.audit`` calls ``getattr(events, event, arguments)``, where the class of ``events`` has a
property for every event that is judged; any other name just yields the default. The property's getter is
``next(pipeline, events)``, and an item of the pipeline is ``next(slot.pending, None)``. Usually ``pending`` is an
iterator without items. For a denial its one item is ``codecs.strict_errors(exception)``, which raises the exception it
is given. The pipeline is a map over ``iter(callable, sentinel)``s that never meet their sentinel: an exception doesn't
end it, and no StopIteration comes out of it, for ``next`` has a default.

A denial can't be raised twice or late: the two hooks run back to back in one thread, the slot is local to the thread,
and the denial's iterator lets go of the exception as it hands it over (``list.pop``) and has no items from then on. A
thread that never stored anything finds the class attribute. Only builtins are used: ``functools``, ``itertools`` and
``operator`` would say it shorter, but aren't loaded at start-up.
"""

from __future__ import annotations

import codecs
from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


class Slot(_local):
    """What the second hook does next, for each thread on its own."""

    pending: Iterator[object] = iter(())

    def arm(self, error: Exception) -> None:
        """Let the second hook raise the exception, once, at the event that is being judged in this thread."""
        self.pending = map(codecs.strict_errors, iter([None, error].pop, None))  # type: ignore[arg-type]


# bind(function, first)(...) is function(first, ...): functools.partial for one argument.
bind: Callable[[Callable[..., Any], object], Callable[..., Any]] = type(Slot().arm)


def raiser(slot: Slot, events: Iterable[str]) -> Callable[..., object]:
    """Return the second hook, for ``sys.addaudithook`` right after the first: it raises what the first one armed.

    Args:
        slot: shared with the first hook.
        events: the names of the events after which there may be something to raise.
    """
    pendings = iter(bind(bind(getattr, slot), "pending"), None)
    nones = iter([].clear, False)  # noqa: FBT003 - clear() answers None, always
    getter = property(bind(next, map(next, pendings, nones)))
    judged = type("Events", (), {"__slots__": (), **dict.fromkeys(events, getter)})
    return bind(getattr, judged())
