"""What becomes of a denial: a line of the permission log, one for what the hook and the broker both saw.

Runs in: supervisor, and only where a log is kept.

The hook sees an operation before the kernel does, or, where the kernel is asked first, after it; so a sighting and a
report of the same task, permission and place that follow one another are one denial. To find such pairs, the last few
denials wait for a moment before they are written: a SIGKILL of this process loses those. And to judge a path, the hook
looks where its folders lead: what is denied to it on the way is told by a number in the line of the path. A report can
do no more than that: what the broker saw is written down, or, of look-ups, counted in a line that names a place at or
below theirs.
"""

from __future__ import annotations

import os
import time

from sandboxed_python.broker.remote import parent, thread_group
from sandboxed_python.policy.table import BY_SCOPE
from sandboxed_python.record.denials import SCOPES
from sandboxed_python.record.events import ASKED, FLAGS
from sandboxed_python.record.log import FIELDS, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request
    from sandboxed_python.record.events import Report
    from sandboxed_python.record.log import Log

MOST = 64
"""Denials that wait at most."""
HELD = 1.0
"""Seconds that one waits at most, or a little longer when nothing else happens."""
# What the hook does to find out where a path leads; before it denies, also _STATS.
_LOOKS = frozenset(("readlink", "readlinkat"))
_STATS = frozenset(("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"))
# Reports of what makes no call that is noted.
_UNSEEN = frozenset((ASKED, "os.chdir"))
# Opening a library is one denial, whichever permission the two sides name.
_LOADING = frozenset(("mmap", "mprotect"))
_LOADS = frozenset(("import", "ctypes.dlopen", "sqlite3.load_extension"))
_CODE = frozenset((BY_SCOPE["addon"].name, BY_SCOPE["ffi"].name))
_CHILD = BY_SCOPE["child"].name
_FORKS = frozenset(("os.fork", "os.forkpty"))


class _Waiting:
    """A denial that waits to be written.

    Attributes:
        task: thread id.
        group: process id.
        permission: Node's name.
        path: place, or None.
        reported: the hook has told of it first.
        merged: both have.
        runs: a program is about to be started for it.
        time: when it came, in seconds.
        fields: of the line.
    """

    __slots__ = ("fields", "group", "merged", "path", "permission", "reported", "runs", "task", "time")

    def __init__(self, request: Request, permission: str, path: str | None, *, reported: bool) -> None:
        self.task = request.task
        self.group = _group(request)
        self.permission = permission
        self.path = path
        self.reported = reported
        self.merged = self.runs = False
        self.time = time.monotonic()
        self.fields: dict[str, str | int | None] = {
            "time": now(),
            "pid": self.group,
            "permission": permission,
            "path": path,
            "flag": FLAGS.get(permission, ""),
            "source": "hook" if reported else "supervisor",
            "also": 0,
        }

    def means(self, permission: str, path: str | None) -> bool:
        """Tell whether it is of the same permission and place."""
        return self.permission == permission and (self.path == path or self.path is None or path is None)

    def leads_to(self, call: str, permission: str, path: str | None) -> bool:
        """Tell whether this report's operation can be what makes a call, of which something was noted."""
        event = self.fields["event"]
        if event in _UNSEEN or (call in _LOOKS and event != "os.readlink"):
            return False  # the hook's own look
        if call in _LOADING and self.permission in _CODE:
            return event in _LOADS
        return self.means(permission, path)


def _group(request: Request) -> int:
    try:
        return thread_group(request)
    except Exception:  # noqa: BLE001 - it is gone: the thread's number then
        return request.task


class Sightings:
    """Puts sightings and reports together, and writes them down."""

    def __init__(self, log: Log, *, enforced: bool) -> None:
        """Write to a log; ``enforced``: what is seen was denied, and not only noted."""
        self._log = log
        self._enforced = enforced
        self._waiting: list[_Waiting] = []

    def seen(self, request: Request, need: str, path: str | None) -> None:
        """Note what the broker denied, or would have.

        Args:
            request: the call.
            need: ``"stat"``, ``"read"``, ``"write"``, or a scope; ``""`` for what is refused whatever is granted.
            path: where it leads, links resolved; None for what is no path, or could not be resolved.
        """
        row = BY_SCOPE.get(SCOPES.get(need, need))
        permission = row.name if row else ""
        entry = self._reported(request, permission, path)
        if entry is None:
            entry = _Waiting(request, permission, path, reported=False)
            self._add(entry)
        else:
            entry.merged = True
        fields = entry.fields
        fields["resource"] = fields.get("resource") or os.fsdecode(request.resource)
        fields["path"] = path or entry.path
        fields["call"] = request.name
        fields["source"] = "supervisor"

    def told(self, request: Request, report: Report) -> None:
        """Note what the hook denied, or would have."""
        about: dict[str, str | int | None] = {"event": report.event}
        if report.file:
            about.update(file=report.file, line=report.line)
        looks = self._looks(request.task, report) if report.path and report.permission.startswith("FileSystem") else []
        entry = None
        if self._enforced and report.event != ASKED:
            entry = next((look for look in looks if look.means(report.permission, report.path)), None)
        if entry is not None:
            looks.remove(entry)
            entry.merged = True
            entry.fields.update(about, resource=report.resource)
        else:
            entry = _Waiting(request, report.permission, report.path, reported=True)
            entry.runs = report.permission == _CHILD and report.event not in _FORKS
            entry.fields.update(about, resource=report.resource, enforced=self._enforced and report.event != ASKED)
            self._add(entry)
        entry.fields["also"] = len(looks)
        for look in looks:
            if look in self._waiting:
                self._waiting.remove(look)

    def _looks(self, task: int, report: Report) -> list[_Waiting]:
        """Return the sightings of what the hook of a task did to find out where a path leads."""
        places = [f"{place}/" for place in (report.path, report.resource) if place]
        return [
            entry
            for entry in self._waiting
            if entry.task == task
            and not (entry.reported or entry.merged)
            and entry.path
            and entry.fields["call"] in _LOOKS | _STATS
            and any(place.startswith(f"{entry.path}/") for place in places)
        ]

    def _reported(self, request: Request, permission: str, path: str | None) -> _Waiting | None:
        """Return the report that this sighting belongs to, if there is one.

        What the hook has denied never comes here; what it only noted does.
        """
        if self._enforced:
            return None
        running = permission == _CHILD and path is not None
        for entry in reversed(self._waiting):
            if not entry.reported:
                continue
            if entry.task == request.task and not entry.merged and entry.leads_to(request.name, permission, path):
                return entry
            # A process that was started on behalf of a reported operation runs the program.
            if running and entry.runs and entry.group in (_group(request), parent(_group(request))):
                entry.runs = False
                return entry
        return None

    def _add(self, entry: _Waiting) -> None:
        self._waiting.append(entry)
        self.write_old()

    def write_old(self) -> bool:
        """Write down what has waited long enough; tell whether anything still waits."""
        oldest = time.monotonic() - HELD
        while self._waiting and (len(self._waiting) > MOST or self._waiting[0].time < oldest):
            self._write()
        return bool(self._waiting)

    def _write(self) -> None:
        fields = self._waiting.pop(0).fields
        fields.setdefault("enforced", self._enforced)
        self._log.write({name: fields.get(name) for name, _meaning in FIELDS})

    def close(self) -> None:
        """Write everything down, and close the log."""
        while self._waiting:
            self._write()
        self._log.close()
