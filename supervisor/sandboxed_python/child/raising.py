"""Raising from an audit hook without leaving a frame in the traceback.

Runs in: child. An exception that a Python hook raises shows the hook in every traceback, below the caller's own line.
So there are two hooks. The first is a Python function that judges, and never raises: it stores what is to happen.
The second is made of C callables alone, and those have no frames.

How the second works. ``sys.audit`` calls ``getattr(events, event, arguments)``. For most events that is just the
default, ``arguments``. The class of ``events`` has a property for every event that was ever denied, whose getter is
``next(pipeline, events)``; an item of the pipeline is ``next(slot.pending, None)``. Usually ``pending`` is an iterator
without items. For a denial its one item is ``codecs.strict_errors(exception)``, which raises the exception it is given.
The pipeline is a map over ``iter(callable, sentinel)``s that never meet their sentinel: an exception doesn't end it,
and no StopIteration comes out of it, for ``next`` has a default.

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
    from collections.abc import Callable, Iterator
    from typing import Any


class Slot(_local):
    """What is to be raised next, for each thread on its own; a subclass may keep more there."""

    pending: Iterator[object] = iter(())


class Raiser:
    """The second hook.

    Attributes:
        slot: where the next exception waits.
        hook: for ``sys.addaudithook``, right after the hook that calls ``arm``.
    """

    def __init__(self, slot: Slot) -> None:
        """Make the hook; it raises what is armed."""
        # bind(function, first)(...) is function(first, ...), as functools.partial for one argument.
        bind: Callable[[object, object], Callable[..., Any]] = type(self.arm)
        pendings = iter(bind(bind(getattr, slot), "pending"), None)
        nones = iter([].clear, False)  # noqa: FBT003 - clear() answers None, always
        self.slot = slot
        self._getter = property(bind(next, map(next, pendings, nones)))
        self._events = type("Events", (), {"__slots__": ()})
        # sys.audit asks every hook for an attribute it hasn't; a bound method would answer that slowly.
        self.hook = staticmethod(bind(getattr, self._events()))

    def arm(self, event: str, error: Exception) -> None:
        """Let the hook raise the exception, once, at this event, which is being judged in this thread."""
        if event not in self._events.__dict__:
            setattr(self._events, event, self._getter)
        self.slot.pending = map(codecs.strict_errors, iter([None, error].pop, None))  # type: ignore[arg-type]
