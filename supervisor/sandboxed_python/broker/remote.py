"""What /proc tells about the caller: its thread group, ids, mask, and which processes are of its sandbox.

Runs in: supervisor. Every answer is about a thread id, which means the caller only while it waits: handlers call
``Request.confirm`` before they act on any of this.
"""

from __future__ import annotations

import os

from sandboxed_python.broker.request import DeniedError, GoneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request

_ANCESTORS = 64  # a deeper chain of parents is taken for foreign


def read_file(path: str) -> bytes:
    """Return a small file of procfs.

    Raises:
        OSError: as open(2) and read(2); ``ENOENT`` and ``ESRCH`` when the task is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 16384)
    finally:
        os.close(descriptor)


def status(request: Request) -> dict[bytes, bytes]:
    """Return the fields of ``/proc/<task>/status`` (proc_pid_status(5)), read once per request.

    Raises:
        GoneError: the caller is gone.
        OSError: a trouble of our own.
    """
    fields = request.status
    if fields is None:
        try:
            text = read_file(f"/proc/{request.task}/status")
        except (FileNotFoundError, ProcessLookupError) as error:
            raise GoneError from error
        pairs = [line.partition(b":") for line in text.split(b"\n")]
        fields = request.status = {key: value.strip() for key, _colon, value in pairs}
    return fields


def thread_group(request: Request) -> int:
    """Return the caller's process id."""
    return int(status(request)[b"Tgid"])


def umask(request: Request) -> int:
    """Return the caller's file mode creation mask."""
    return int(status(request)[b"Umask"], 8)


def parent(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone."""
    try:
        text = read_file(f"/proc/{pid}/stat")
    except OSError:
        return 0
    # pid (name with any characters) state ppid ...
    return int(text[text.rindex(b")") + 2 :].split()[1])


def inside(request: Request, pid: int) -> bool:
    """Tell whether a process is the caller or belongs to its sandbox.

    Only these may be looked into through their ``/proc`` entries: for others Landlock would refuse the caller, and the
    supervisor, which no domain holds, must not do it in its place. A descendant of the first process belongs to it; an
    orphan that the supervisor has inherited could be another sandbox's, and counts as foreign.
    """
    if pid in (request.task, thread_group(request)):
        return True
    for _generation in range(_ANCESTORS):
        if pid == request.context.child:
            return True
        if pid <= 1:
            return False
        pid = parent(pid)
    return False


def status_flags(request: Request, descriptor: int) -> int:
    """Return the open flags of one of the caller's descriptors (``/proc/<task>/fdinfo``).

    Raises:
        OSError: ``ENOENT``: it has no such descriptor.
        DeniedError: the file says nothing about flags.
    """
    for line in read_file(f"/proc/{request.task}/fdinfo/{descriptor}").split(b"\n"):
        if line.startswith(b"flags:"):
            return int(line[6:], 8)
    raise DeniedError
