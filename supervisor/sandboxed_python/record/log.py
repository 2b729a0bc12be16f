"""The permission log: one JSON line for each denial.

Runs in: supervisor. The program has no descriptor of a file that was opened here, and no way to its name: it can't
change what was written. Nothing is kept in memory here, and no line is longer than ``LONGEST``.
"""

from __future__ import annotations

import errno
import os
import select
import time

from sandboxed_python.errors import LaunchError, UsageError
from sandboxed_python.record.events import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OPTION = "--permission-log"
LONGEST = 4096
"""Bytes of a line at most: PIPE_BUF, so that lines of several writers to one pipe don't mix (pipe(7))."""
_TEXT = 800  # bytes of one text in a line, in JSON
_PATIENCE = 500  # milliseconds that a reader may take to make room
_CUT = "..."


# What a line has, in this order, and what that is.
FIELDS = (
    ("time", "when, in UTC"),
    ("pid", "the process"),
    ("permission", "Node's name, as `error.permission`"),
    ("resource", "what was asked for, as it was spelled; with an event by the program's word"),
    ("path", "where that is, links resolved; null for what is no path or could not be resolved"),
    ("call", "the system call that the supervisor saw, or null"),
    ("event", "the audit event or function that the hook saw, by the program's word, or null"),
    ("flag", "the option that would grant it"),
    ("file", "the program's source file, by its own word, or null: the innermost one outside the standard library"),
    ("line", "the line there, or null"),
    (
        "source",
        "`supervisor` if it saw this permission denied at this place, `hook` if that is the program's word alone",
    ),
    ("enforced", "false where nothing was denied: with `--permission-audit`, and for `permission.has`"),
    ("also", "look-ups at or above the path that were denied meanwhile and have no lines of their own"),
)


class Log:
    """An open log.

    Attributes:
        descriptor: where the lines go.
        lost: how many lines could not be written.
    """

    def __init__(self, descriptor: int, complain: Callable[[str], None]) -> None:
        """Write to a descriptor, which ``close`` closes; ``complain`` tells the user one line."""
        self.descriptor = descriptor
        self.lost = 0
        self._complain = complain
        self._torn = False
        self._patience = _PATIENCE

    def write(self, fields: dict[str, str | int | None]) -> None:
        """Write one line. Trouble is said once, and stops nothing."""
        line = b"\n" * self._torn + _line(fields)
        try:
            if not self._has_room():
                raise BlockingIOError(errno.EAGAIN, "nobody reads it")
            done = os.write(self.descriptor, line)
        except OSError as error:
            self._patience = 0  # the job isn't held up again
            self._lose(error.strerror or str(error))
            return
        self._patience = _PATIENCE
        self._torn = done < len(line)
        if self._torn:
            self._lose(os.strerror(errno.ENOSPC))

    def _has_room(self) -> bool:
        poller = select.poll()
        poller.register(self.descriptor, select.POLLOUT)
        return bool(poller.poll(self._patience))

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self.lost == 1:
            self._complain(f"{OPTION}: {why}: a denial could not be written down; it stays a denial")

    def close(self) -> None:
        """Close it, and tell how many lines were lost."""
        if self.lost > 1:
            self._complain(f"{OPTION}: {self.lost} denials could not be written down")
        os.close(self.descriptor)


def now() -> str:
    """Return the time as the log has it: ISO 8601, UTC, milliseconds."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1_000_000:03}Z"


def _line(fields: dict[str, str | int | None]) -> bytes:
    """Return the fields as a line of JSON."""
    pairs = [f"{quote(name)}: {_value(value)}" for name, value in fields.items()]
    return f"{{{', '.join(pairs)}}}\n".encode("ascii")


def _value(value: str | int | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(_cut(value)) if isinstance(value, str) else str(value)


def _cut(text: str) -> str:
    """Shorten a text so that it takes at most ``_TEXT`` bytes in JSON."""
    if len(text) <= _TEXT and len(quote(text)) - 2 <= _TEXT:
        return text
    room = _TEXT - len(_CUT)
    for at, character in enumerate(text):
        room -= len(quote(character)) - 2
        if room < 0:
            return text[:at] + _CUT
    return text


def open_log(value: str, cwd: str, complain: Callable[[str], None]) -> Log:
    """Open what ``--permission-log`` names: a file, ``fd:N``, or ``-`` for stderr.

    Args:
        value: of the option.
        cwd: where a relative path starts.
        complain: see ``Log``.

    Raises:
        UsageError: there is no such descriptor, or it isn't open for writing.
        LaunchError: the file can't be opened.
    """
    if value == "-":
        return Log(_copy(2, value), complain)
    if value.startswith("fd:"):
        number = value[3:]
        if not (number.isascii() and number.isdigit()) or len(number) > 9:
            message = f"{OPTION}={value}: fd: is followed by the number of a descriptor"
            raise UsageError(message)
        return Log(_copy(int(number), value), complain)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return Log(os.open(os.path.join(cwd, value), flags, 0o600), complain)
    except OSError as error:
        reasons = {errno.ELOOP: "it is a link", errno.ENXIO: "a pipe that nobody reads, or a socket"}
        message = f"{OPTION}={value}: {reasons.get(error.errno or 0, error.strerror)}"
        raise LaunchError(message) from error


def _copy(number: int, value: str) -> int:
    """Return a copy of one of the command's own descriptors, which the child won't get.

    Raises:
        UsageError: it can't be written to.
    """
    import fcntl

    try:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "it isn't open for writing")  # noqa: TRY301 - one message for all
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError as error:
        message = f"{OPTION}={value}: {error.strerror}"
        raise UsageError(message) from error


def refuse_within(log: Log, writable: Callable[[str], bool]) -> None:
    """Refuse a log that the program could change.

    Args:
        log: the log.
        writable: tells whether the program may write a path, links resolved.

    Raises:
        UsageError: it could; the message names the file.
    """
    found = os.fstat(log.descriptor)
    if found.st_mode & 0o170000 != 0o100000:
        return
    path = os.readlink(f"/proc/self/fd/{log.descriptor}")
    why = ""
    if path[:1] == "/" and writable(path):
        why = "the program may write there (--allow-fs-write), and could erase it"
    elif found.st_nlink > 1:
        why = "it has other names, by which the program could change it"
    if why:
        message = f"{OPTION}: {path}: {why}"
        raise UsageError(message)
