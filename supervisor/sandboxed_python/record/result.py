"""The result: how a job ended and what it used, as one JSON document.

Runs in: supervisor. Loaded only when ``--result`` is given.
"""

from __future__ import annotations

import json
import os

from sandboxed_python.errors import PolicyError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1
FLAG = "--result"


class Place:
    """Where the result will be written. What can fail is tried before the job starts."""

    def __init__(self, value: str, cwd: str, writable: Callable[[str], bool]) -> None:
        """Open it.

        Args:
            value: of the option: a path, or ``fd:`` and the number of a descriptor.
            cwd: the working directory.
            writable: tells whether the job may write to a path (absolute, links resolved).

        Raises:
            UsageError: it can't be written to.
            PolicyError: the job could write to it.
        """
        self._shown = f"{FLAG}={value}"
        self._folder = self._descriptor = -1
        self._name = self._temporary = ""
        try:
            if value[:3] == "fd:":
                self._take(value[3:])
            else:
                self._make(os.path.join(cwd, value), writable)
        except OSError as error:
            message = f"{self._shown}: {error.strerror}"
            raise UsageError(message) from error

    def _take(self, number: str) -> None:
        if not (number.isascii() and number.isdecimal() and int(number) > 2):
            message = f"{self._shown}: a descriptor above 2 is wanted; 0, 1 and 2 are the job's, too"
            raise UsageError(message)
        import fcntl

        if fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            message = f"{self._shown}: it is open for reading only"
            raise UsageError(message)
        self._descriptor = os.dup(int(number))  # close-on-exec

    def _make(self, path: str, writable: Callable[[str], bool]) -> None:
        real = os.path.realpath(path)
        folder, self._name = os.path.split(real)
        self._temporary = f".{self._name}.{os.getpid()}"
        if path.endswith("/") or (os.path.exists(real) and not os.path.isfile(real)):
            message = f"{self._shown}: it is no regular file"
            raise UsageError(message)
        if any(writable(os.path.join(folder, name)) for name in (self._name, self._temporary)):
            message = f"{self._shown}: the program could forge it: --allow-fs-write grants it that file"
            raise PolicyError(message)
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Tried, and removed: a supervisor that is killed leaves nothing behind.
        os.close(self._create())
        os.unlink(self._temporary, dir_fd=self._folder)

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._temporary, flags, 0o666, dir_fd=self._folder)

    def write(self, document: dict[str, Any]) -> str:
        """Write the document; a file appears whole or not at all.

        Returns:
            What went wrong, in one line, or "".
        """
        data = (json.dumps(document, indent=2) + "\n").encode()
        try:
            if self._folder < 0:
                _write(self._descriptor, data)
                return ""
            self._descriptor = self._create()
            try:
                _write(self._descriptor, data)
                os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except OSError:
                os.unlink(self._temporary, dir_fd=self._folder)
                raise
        except OSError as error:
            return f"{self._shown}: {error.strerror}"
        return ""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def ending(status: int | None, limit: dict[str, Any] | None, error: str, codes: dict[str, int]) -> dict[str, Any]:
    """Return the part about the end.

    Args:
        status: wait status of the job, or None when it was never started.
        limit: the limit that ended it, or None.
        error: what failed in the sandbox, or "".
        codes: name -> exit code of ours.
    """
    signalled = status is not None and os.WIFSIGNALED(status)
    number = os.WTERMSIG(status) if status is not None and signalled else 0
    code: int | None = None
    if error or status is None:
        ended, code = "sandbox", codes["SANDBOX"]
    elif limit is not None:
        ended, code = "limit", codes["LIMIT"]
    elif signalled:
        # The static filter kills with SIGSYS what uses another architecture's system calls (seccomp(2)).
        ended = "denied" if number == 31 else "signalled"
    else:
        ended, code = "exited", os.WEXITSTATUS(status)
    return {
        "ended": ended,
        "exit_code": code,
        "signal": _signal_name(number) if number else None,
        "limit": limit,
        "error": error or None,
    }


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"
