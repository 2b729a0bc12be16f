"""Telling of denials: to subscribers, to audit hooks, to logging, and to the supervisor that keeps the permission log.

Runs in: child, from the first denial or subscription on.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.record.events import ASKED, Message, quote
from sandboxed_python.record.wire import DENIAL, WIRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# The original: the program may put another in its place.
_send = os.setxattr
EVENT = "sandboxed_python.permission"
"""The audit event, with permission, resource and drop; also the logger's name."""
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDLIB = os.path.dirname(os.__file__) + "/"
_OTHERS = ("/site-packages/", "/dist-packages/")
_SEEN_AS = "<frozen os>"  # see wrap.py
_LONGEST = 4096  # characters of a text in a report


class Publisher:
    """Whom denials are told.

    Attributes:
        subscribers: called with a ``Message``, in the order of their subscriptions.
        reports: the supervisor keeps a log; None: not known yet.
    """

    def __init__(self, *, reports: bool | None) -> None:
        """Have no subscribers yet."""
        self.subscribers: list[Callable[[Message], object]] = []
        self.reports = reports

    def subscribe(self, callback: Callable[[Message], object]) -> Callable[[], None]:
        """Tell ``callback``, too; return what ends that."""

        def own(message: Message) -> object:
            return callback(message)

        def unsubscribe() -> None:
            if own in self.subscribers:
                self.subscribers.remove(own)

        self.subscribers.append(own)
        return unsubscribe

    def tell(self, permission: str, resource: str, path: str | None, *, drop: bool, denied: bool) -> None:
        """Tell everybody, the supervisor first. What a subscriber raises is shown, and changes nothing.

        Args:
            permission: Node's name.
            resource: as the caller spelled it.
            path: where it leads, or None.
            drop: the permission was given up.
            denied: something was denied, and not only asked.
        """
        if self.reports is not False and not drop:
            self.report(permission, resource, path, "" if denied else ASKED)
        message = Message(permission=permission, resource=resource, drop=drop)
        for subscriber in tuple(self.subscribers):
            try:
                subscriber(message)
            except Exception as error:
                show(error)
        try:
            sys.audit(EVENT, permission, resource, drop)
            log(message)
        except Exception as error:
            show(error)

    def report(self, permission: str, resource: str, path: str | None, event: str) -> None:
        """Tell the supervisor (``record.events.Report``), if it listens."""
        judged, file, line = _where()
        texts = {"permission": permission, "resource": resource, "event": event or judged, "file": file}
        if path is not None:
            texts["path"] = path
        told = [f'"line":{line}', *[f'"{name}":{quote(text[:_LONGEST])}' for name, text in texts.items()]]
        try:
            _send(WIRE, DENIAL, f"{{{','.join(told)}}}".encode("ascii"))
        except OSError:  # no log is kept, or nobody is there
            self.reports = self.reports or False


def log(message: Message) -> None:
    """Write to the logger, if the program uses logging; without handlers of the program's, nothing comes of it."""
    logging = sys.modules.get("logging")
    get = getattr(logging, "getLogger", None)
    if logging is None or get is None:
        return
    logger = get(EVENT)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # else it would go to stderr where nobody asked for it
    what = "%s dropped: %s" if message.drop else "%s denied: %s"
    logger.warning(what, message.permission, message.resource, extra=message.as_dict())


def show(error: Exception) -> None:
    """Show what a subscriber raised as an uncaught exception is shown."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN):
        trace = trace.tb_next
    try:
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    except Exception:
        return


def _where() -> tuple[str, str, int]:
    """Return the event that is being judged, and the program's file and line that led to it.

    That is the innermost line outside of this package and the standard library; else the innermost one.
    """
    event = ""
    innermost = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if name.startswith(_OWN):
            if code.co_name == "hook":
                event = frame.f_locals.get("event", "")
        elif name == _SEEN_AS and "__name__" not in frame.f_globals:
            event = event or f"os.{code.co_name}"
        elif not name.startswith("<frozen"):
            innermost = innermost or frame
            if not name.startswith(_STDLIB) or any(part in name for part in _OTHERS):
                return event, name, frame.f_lineno or 0
        frame = frame.f_back
    if innermost is None:
        return event, "", 0
    return event, innermost.f_code.co_filename, innermost.f_lineno or 0
