"""Carrying out a command line: plan, start the child, look after it; or print something and stop.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import sys
from errno import ERANGE

from sandboxed_python import image
from sandboxed_python.cli.args import complete, parse
from sandboxed_python.errors import (
    LaunchError,
    MissingOptionError,
    PolicyError,
    PolicyFileError,
    SandboxError,
    UsageError,
)
from sandboxed_python.kernel import process
from sandboxed_python.kernel.probe import probe
from sandboxed_python.launch.exits import CODE, end_as
from sandboxed_python.launch.start import start
from sandboxed_python.launch.supervise import load_broker, supervise
from sandboxed_python.plan.build import build
from sandboxed_python.plan.runtime import this_runtime
from sandboxed_python.policy.limits import Limits
from sandboxed_python.policy.patterns import OSLookup, literal_grant
from sandboxed_python.record.wire import POLICY, WIRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.launch.inner import Outer
    from sandboxed_python.launch.session import Session
    from sandboxed_python.plan.model import Plan, Target
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant
    from sandboxed_python.record.log import Log


def main(baseline: frozenset[str], command: str = "") -> None:
    """Run the command.

    Args:
        baseline: names in ``sys.modules`` before any of ours was imported.
        command: path of the installed command, or "".

    In the supervisor this does not return; in a forked child it returns when the program has ended.
    """
    if sys.version_info >= NEWER and not sys.flags.isolated and any(map(strange, os.environ)):
        os.execv(sys.executable, [sys.executable, "-I", *sys.orig_argv[-len(sys.argv) :]])
    supervisor = os.getpid()
    try:
        run(sys.argv[1:], baseline, command.rpartition("/")[0])
    except SandboxError as error:
        fail(error)
    except Exception as error:
        if os.getpid() != supervisor:  # the program's
            raise
        give_up(error)


# The first CPython whose variables the command doesn't know.
NEWER = (3, 15)
# Variables that don't change how an interpreter starts, or only what it is to its own program, and those that the
# official images set.
HARMLESS = frozenset(
    (
        "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING",
        "PYTHONCOERCECLOCALE", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONFAULTHANDLER", "PYTHONINTMAXSTRDIGITS",
        "PYTHONASYNCIODEBUG", "PYTHONBREAKPOINT", "PYTHONDOCS", "PYTHON_COLORS", "PYTHON_BASIC_REPL", "PYTHON_HISTORY",
        "PYTHON_VERSION", "PYTHON_SHA256", "PYTHON_PIP_VERSION", "PYTHON_SETUPTOOLS_VERSION", "PYTHON_GET_PIP_URL",
        "PYTHON_GET_PIP_SHA256",
    )
)  # fmt: skip


def strange(name: str) -> bool:
    """Tell whether an environment variable may be one that makes a newer CPython load or write something."""
    return name.startswith("PYTHON") and name not in HARMLESS


def run(words: list[str], baseline: frozenset[str], scripts: str) -> None:
    """Carry out a command line.

    Args:
        words: after the command's name.
        baseline: as for ``main``.
        scripts: folder of the installed command, or "".

    Raises:
        SandboxError: nothing was run, or the child could not be confined.
    """
    try:
        cwd = os.getcwd()
    except OSError as error:
        message = f"the working directory: {error.strerror}"
        raise LaunchError(message) from error
    if "PYTHONPATH" in os.environ:
        from sandboxed_python.child import inherit

        inherit.take_out()  # of a sandbox around this one
    command = parse(words, os.environ, cwd)
    if command.action in ("help", "version", "check"):
        from sandboxed_python.cli.printing import print_and_stop

        print_and_stop(command)
    policy = complete(command, cwd)
    logged = bool(command.log or command.result or command.progress)
    if command.action == "explain":
        from sandboxed_python.cli.printing import out
        from sandboxed_python.plan.explain import as_json, as_text

        plan = make_plan(policy, command.target, cwd, scripts, logged=logged)
        out(as_json(plan) if command.json else as_text(plan))
    if policy.mode == "off":
        from sandboxed_python.cli.interpreters import plain_python

        plain_python(command.target)
    plan = make_plan(policy, command.target, cwd, scripts, logged=logged)
    warn(policy, plan)
    log = None
    if command.log:
        from sandboxed_python.cli.watched import open_log

        log = open_log(command.log, cwd, plan)
    if plan.policy.writable_runtime:
        # While the program can't have changed the files yet.
        load_broker(everything=True, audit=plan.policy.mode == "audit")
    if not plan.inner:
        process.become_subreaper()
    if plan.policy.limits != Limits() or command.result or command.progress:
        from sandboxed_python.cli.watched import run_watched

        run_watched(command, plan, baseline, cwd, log)
        return
    session = start(plan, baseline, reports=log is not None)
    if session is not None:
        watch(session, plan, log)


def watch(session: Session, plan: Plan, log: Log | None = None) -> None:
    """Look after the child, and end as it ended. Does not return."""
    session.log = log
    status = supervise(session, plan)
    write_images(plan)
    end_as(status)


def write_images(plan: Plan) -> None:
    """Write missing start-up images, unless the program may have changed what this loads and compiles."""
    if not plan.policy.writable_runtime:
        image.write_missing()


def fail(error: SandboxError) -> None:
    """Print one line and end with the code from the table. Does not return."""
    if isinstance(error, MissingOptionError):
        text, code = f"{error.code}: {error}", CODE["FAILURE"]
    elif isinstance(error, (UsageError, PolicyError, PolicyFileError)):
        text, code = str(error), CODE["BAD_OPTION"]
    else:
        text, code = str(error), CODE["SANDBOX"]
    say(text)
    os._exit(code)


def give_up(error: Exception) -> None:
    """Say in one line what broke the supervisor itself, and where. Does not return."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" (line {place.tb_lineno} of {place.tb_frame.f_code.co_filename})" if place else ""
    what = ascii(error) if not isinstance(error, OSError) else os.strerror(error.errno or 0)
    say(f"the supervisor failed: {what:.300}{where}")
    os._exit(CODE["SANDBOX"])


def say(text: str) -> None:
    """Print one line on stderr."""
    try:
        os.write(2, f"sandboxed-python: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:  # stderr is closed or full: the exit code says it, too
        return


def make_plan(policy: Policy, target: Target, cwd: str, scripts: str = "", *, logged: bool = False) -> Plan:
    """Plan the run of a target under a policy, on this kernel.

    Raises:
        PolicyError: a grant is refused.
        UnsupportedError: this kernel can't enforce the policy.
        LaunchError: ``--python`` can't be used.
    """
    own = runtime = this_runtime(scripts)
    fork = can_fork(target)
    if target.python:
        from sandboxed_python.cli.interpreters import other

        runtime = other(target.python, scripts)
        target = target.replace(python=runtime.executable)
    elif not fork:
        target = target.replace(python=sys.executable)
    outer = around()
    if outer:
        outer.check(policy)
    plan = build(
        policy,
        target,
        runtime,
        outer.support(probe()) if outer else probe(),
        entry=_entry(target, cwd),
        keep_capabilities=process.capability_mask(process.KEPT_CAPABILITIES),
        fork=fork,
        supervisor=own,
        logged=logged,
    )
    if outer:
        return outer.fit(plan)
    if policy.limits.memory is None:
        return plan
    from sandboxed_python.launch import cgroup

    folder, why = cgroup.find()
    return plan.replace(cgroup=folder, no_cgroup=why)


def around() -> Outer | None:
    """Return the sandbox that this command has been started in, if it is in one.

    Raises:
        KernelError: its supervisor doesn't answer.
    """
    try:
        os.setxattr(WIRE, POLICY, b" ")
    except OSError as error:
        if error.errno != ERANGE:  # the answer to a buffer that is too small: somebody listens
            return None
    from sandboxed_python.launch.inner import Outer

    return Outer()


def can_fork(target: Target) -> bool:
    """Tell whether a fork of this interpreter is the Python that was asked for.

    It isn't when it was started isolated (``-I``: the command does so when PYTHON* variables are set that could load
    code), or when options of Python's or another interpreter were asked for: those must be there at start-up.
    """
    return not (target.python or target.python_options or sys.flags.isolated)


def _entry(target: Target, cwd: str) -> Grant | None:
    """Return the grant of the entry script (a directory's is its whole tree), or None."""
    if target.kind not in ("script", "path"):
        return None
    return literal_grant(target.value, "entry script", cwd, OSLookup)


def warn(policy: Policy, plan: Plan) -> None:
    """Say on stderr what isn't enforced, and what a grant can undermine."""
    for missing in plan.missing:
        say(f"--best-effort: not enforced: {missing}")
    if not policy.warnings or os.environ.get("PYTHONWARNINGS", "") == "ignore" or not policy.scopes:
        return
    from sandboxed_python.policy.table import warnings

    for text in warnings(policy.granted):
        say(f"warning: {text}")
