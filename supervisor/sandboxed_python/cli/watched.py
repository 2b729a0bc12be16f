"""Running a job whose use is limited, recorded or shown, or whose denials are.

Runs in: supervisor (the forked child returns from here). Loaded only when one of that is asked for.
"""

from __future__ import annotations

import os

from sandboxed_python.cli.main import say, write_images
from sandboxed_python.errors import SandboxError, UnsupportedError
from sandboxed_python.launch.exits import CODE, end_as
from sandboxed_python.launch.start import start
from sandboxed_python.launch.supervise import supervise
from sandboxed_python.launch.watch import Watch
from sandboxed_python.record.denials import Denials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sandboxed_python.cli.args import Command
    from sandboxed_python.plan.model import Plan
    from sandboxed_python.record.log import Log
    from sandboxed_python.record.result import Place


def run_watched(command: Command, plan: Plan, baseline: frozenset[str], cwd: str, log: Log | None = None) -> None:
    """Start a job, look after it, and end as it ended, or with the code for limits.

    Args:
        command: the command line.
        plan: what to enforce and run.
        baseline: as for ``start``.
        cwd: the working directory.
        log: where denials are written down, or None.

    In the supervisor this does not return; in a forked child it returns when the program has ended.

    Raises:
        SandboxError: nothing was run, or the child could not be confined.
    """
    limits = plan.policy.limits
    looks = command.result or command.progress or {limits.memory, limits.cpu, limits.processes} != {None}
    if plan.inner and looks:
        message = (
            "in another sandbox a job can't be looked at: of --limit-memory, --limit-cpu, --limit-processes, --result "
            "and --progress none works there; give them to the outer one"
        )
        raise UnsupportedError(message)
    place: Place | None = None
    if command.result:
        from sandboxed_python.record.result import Place

        place = Place(command.result, cwd, plan.policy.writable)
    denials = Denials() if place is not None or command.progress else None
    progress = None
    if command.progress:
        from sandboxed_python.launch.progress import Progress

        progress = Progress()
    watch: Watch | None = None
    supervisor = os.getpid()
    group = None
    if plan.cgroup:
        from sandboxed_python.launch.cgroup import make

        group = make(plan)
    try:
        session = start(plan, baseline, reports=log is not None, group=group)
        if session is None:
            return
        session.log = log
        session.watch = watch = Watch(session, plan, record=place is not None, denials=denials, progress=progress)
        status = supervise(session, plan)
    except Exception as error:
        if group is not None and os.getpid() == supervisor:  # whatever it is; what the program raises is its own
            group.remove()
        if place is not None and isinstance(error, SandboxError):
            complain(place.write(document(plan, watch, None, str(error))))
        raise
    if watch.ending is not None:
        say(watch.ending.text)
    if place is not None:
        complain(place.write(document(plan, watch, status, "")))
    write_images(plan)
    if watch.ending is not None:
        os._exit(CODE["LIMIT"])
    end_as(status)


def open_log(value: str, cwd: str, plan: Plan) -> Log:
    """Open the permission log.

    Raises:
        UsageError: see ``record.log``.
        LaunchError: the file can't be opened.
        UnsupportedError: there would be nobody to write it.
    """
    if plan.inner or not plan.notify_parts:
        why = "in another sandbox, the outer command keeps the log" if plan.inner else "it takes seccomp notifications"
        message = f"--permission-log={value}: {why}"
        raise UnsupportedError(message)
    from sandboxed_python.plan.protect import Protection
    from sandboxed_python.policy.patterns import within
    from sandboxed_python.record import log

    opened = log.open_log(value, cwd, say)
    if value in ("-", "fd:0", "fd:1", "fd:2"):  # the program has them, too
        return opened
    places, prefixes = Protection(()).written(plan.policy)
    log.refuse_within(
        opened,
        lambda path: (
            plan.policy.writable(path) or path.startswith(prefixes) or any(within(path, place) for place in places)
        ),
    )
    return opened


def complain(trouble: str) -> None:
    """Say what went wrong with the result; the job's end is passed on all the same."""
    if trouble:
        say(trouble)


def document(plan: Plan, watch: Watch | None, status: int | None, error: str) -> dict[str, Any]:
    """Return the result.

    Args:
        plan: of the job.
        watch: of the job, or None when it was never started.
        status: its wait status, or None.
        error: what failed in the sandbox, or "".
    """
    from sandboxed_python.record.result import VERSION, ending

    limit = watch.ending.data if watch is not None and watch.ending is not None else None
    counts = watch.denials.counts if watch is not None and watch.denials is not None else {}
    limits = {name: value for name, value in plan.policy.limits.as_dict().items() if value is not None}
    return {
        "version": VERSION,
        **ending(status, limit, error, CODE),
        "used": watch.usage() if watch is not None else None,
        "denials": {"total": sum(counts.values()), "by_permission": counts},
        "enforced": {
            "mode": plan.policy.mode,
            "landlock_abi": plan.abi,
            "landlock_rules": len(plan.rules),
            "seccomp_filter": plan.static_filter or None,
            "notified": list(plan.notify_parts),
            "limits": limits,
            "cgroup": watch.held if watch is not None else None,
            "missing": list(plan.missing),
        },
    }
