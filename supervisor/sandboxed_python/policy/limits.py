"""The limits: how much a job may use. One row each; options, keys of policy files, help and messages are derived.

Runs in: both. Pure: what is asked for. ``launch`` carries it out.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Limits(Frozen):
    """What a job may use at most; None: as much as it likes.

    Attributes:
        memory: bytes that all its processes together may hold (PSS and swap).
        cpu: seconds of processor time, user and system, of all its processes, those that have ended too.
        time: seconds that it may run.
        processes: how many it may have at once.
        open_files: RLIMIT_NOFILE of each process.
        file_size: RLIMIT_FSIZE of each process, in bytes.
        output: bytes that it may write to stdout and stderr together.
        grace: seconds between SIGTERM and SIGKILL, where a limit ends a job with both; None: ``GRACE``.
    """

    memory: int | None = None
    cpu: float | None = None
    time: float | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    output: int | None = None
    grace: float | None = None


GRACE = 5.0

# (field, option, kind, how it is held, help). Kinds: see units.parse.
LIMITS = (
    (
        "memory",
        "--limit-memory",
        "size",
        "the supervisor adds up the memory of the job's processes, the oftener the nearer they are, and kills them all",
        "end the job when its processes together hold more memory than this, e.g. 512M",
    ),
    (
        "cpu",
        "--limit-cpu",
        "duration",
        "the supervisor adds up the processor time of the job's processes; SIGTERM, and SIGKILL after --grace",
        "end the job when its processes together have used more processor time than this, e.g. 60s",
    ),
    (
        "time",
        "--limit-time",
        "duration",
        "the supervisor's clock; SIGTERM, and SIGKILL after --grace",
        "end the job when it has run for so long, e.g. 10m",
    ),
    (
        "processes",
        "--limit-processes",
        "count",
        "the supervisor is asked for each new process, counts those that there are, and kills them all",
        "end the job when it has more processes than this at once",
    ),
    (
        "open_files",
        "--limit-open-files",
        "count",
        "RLIMIT_NOFILE of each process: beyond it, opening fails with EMFILE",
        "no process of the job may have more descriptors open than this",
    ),
    (
        "file_size",
        "--limit-file-size",
        "size",
        "RLIMIT_FSIZE of each process: beyond it, writing fails with EFBIG",
        "no process of the job may make a file larger than this",
    ),
    (
        "output",
        "--limit-output",
        "size",
        "stdout and stderr are pipes to the supervisor, which passes on that much, and kills the job",
        "end the job when it has written more than this to stdout and stderr together; they are pipes then",
    ),
    (
        "grace",
        "--grace",
        "grace",
        "",
        "time between SIGTERM and SIGKILL when --limit-time or --limit-cpu ends a job (5s)",
    ),
)
BY_OPTION = {row[1]: row for row in LIMITS}


def strictest(several: Iterable[Limits]) -> Limits:
    """Return the limits that keep within all of the given ones."""
    every = list(several)
    said: dict[str, float] = {}
    for name in Limits._fields:
        values = [value for limits in every if (value := getattr(limits, name)) is not None]
        if values:
            said[name] = min(values)
    return Limits(**said)  # type: ignore[arg-type]  # ints stay ints
