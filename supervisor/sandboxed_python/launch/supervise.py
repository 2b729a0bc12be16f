"""Looking after a child until it ends: notifications, signals, exit.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import time

from sandboxed_python import image
from sandboxed_python.errors import LaunchError
from sandboxed_python.kernel import landlock, process, uapi
from sandboxed_python.kernel.calls import receive_descriptor
from sandboxed_python.launch.confine import make_ruleset
from sandboxed_python.launch.session import FORWARDED
from sandboxed_python.launch.start import FAILED
from sandboxed_python.plan.build import existing
from sandboxed_python.plan.implicit import LIBRARY_TREES, PROGRAM_TREES
from sandboxed_python.plan.landlock import path_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from sandboxed_python.broker.request import Restrict
    from sandboxed_python.broker.serve import Broker
    from sandboxed_python.launch.guard import Guard
    from sandboxed_python.launch.session import Session
    from sandboxed_python.plan.model import PathRule, Plan
    from sandboxed_python.policy.model import Policy
else:
    import _signal  # the signal module on top of it imports enum


# Where Poller.events has what happened to the three descriptors that are watched.
_SIGNALS, _CHANNEL, _LISTENER = 3, 7, 11
# The broker's modules load when the child first asks for something, or when it has run for so many milliseconds:
# many a small program ends before.
_SOON = 50
_LATEST = 0.2  # seconds after which the witness is brought to a child that isn't quiet for so long
STEP = 3  # milliseconds between two looks at doubtful signals
IDLE = 200  # milliseconds without a call after which the broker rests


def supervise(session: Session, plan: Plan) -> int:
    """Serve the child until it has ended and nothing that it started is left.

    Returns:
        The child's wait status.

    Raises:
        LaunchError: the child could not be confined, started or guarded any more; it has ended.
        Exception: whatever else went wrong here; the child and all that it started have ended.
    """
    try:
        _serve(session, plan)
        return session.status or 0
    except Exception:
        if session.status is None:
            os.kill(session.pid, _signal.SIGKILL)
        raise
    finally:
        if session.group is not None:
            session.group.kill()
        if session.witness is not None:
            session.witness.end()
        if not plan.inner:  # what is left there is the outer supervisor's, whose children orphans become
            _end_descendants(session.guard)
        _close_listener(session)
        if session.watch is not None:
            session.watch.close()
        if session.group is not None:
            session.group.remove()


def _serve(session: Session, plan: Plan) -> None:
    """Serve the child until it has ended."""
    poller = session.poller
    events = poller.events
    if plan.notify_parts and plan.way == "exec" and not plan.inner:
        load_broker()  # it is asked at once
    patience = _SOON
    wait = poller.wait if session.watch is None else session.watch.wait
    while session.status is None:
        if session.doubtful:
            ready = wait(STEP)
            _pass_on(session)
        else:
            ready = wait(patience)
            if not ready:
                patience = IDLE if _settle(session, plan) else -1
        if not ready:
            continue
        if events[_LISTENER]:
            patience = _answer(session, plan)
        if events[_CHANNEL]:
            _handshake(session)
            patience = _SOON
        if events[_SIGNALS]:
            _signals(session)


def _answer(session: Session, plan: Plan) -> int:
    """Answer a call, or see that there will be no more; return for how many milliseconds to wait for the next."""
    if not session.poller.events[_LISTENER] & uapi.POLLIN:  # POLLHUP: the last confined task is gone
        session.poller.watch(2, -1)
        _close_listener(session)
        return -1
    broker = session.broker or _open_broker(session, plan)
    broker.serve()
    if session.witness is not None:
        return IDLE
    now = time.monotonic()
    if now > session.unsettled + _LATEST:  # it makes one call after the other
        session.unsettled = now
        _bring_witness(session)
    return _SOON


def _settle(session: Session, plan: Plan) -> bool:
    """Do what was put off until the child has run for a moment, or rest after its calls. Tell if there is more."""
    more = False
    if session.broker is not None:
        more = session.broker.rest()
    elif session.listener >= 0:
        _open_broker(session, plan)
    _bring_witness(session)
    return more


def _bring_witness(session: Session) -> None:
    """Start the witness. Without room for one, every signal is passed on."""
    if session.witness is None and session.supervisor != 1:  # nobody signals the first process and others at once
        from sandboxed_python.launch.witness import Witness

        try:
            session.witness = Witness(FORWARDED)
        except OSError:  # no process or descriptor left
            return


def load_broker(*, everything: bool = False, audit: bool = False) -> None:
    """Load the broker's modules.

    Args:
        everything: also what only some calls or ends need, so that no file is looked at any more.
        audit: likewise what audits need.
    """
    image.load("watch")
    import sandboxed_python.broker.serve  # where there is no image

    if everything:
        import json  # noqa: F401
        import resource  # noqa: F401

        import psutil  # noqa: F401

        import sandboxed_python.launch.stopping
        import sandboxed_python.launch.witness
        from sandboxed_python.broker import control, sightings  # noqa: F401
        from sandboxed_python.broker.answer import load_all

        load_all()
    if audit:
        import sandboxed_python.broker.audit  # noqa: F401


def _close_listener(session: Session) -> None:
    if session.broker is not None:
        session.broker.rest()
        session.broker.close()
    elif session.listener >= 0:
        os.close(session.listener)
    session.broker, session.listener = None, -1


def _open_broker(session: Session, plan: Plan) -> Broker:
    load_broker()
    from sandboxed_python.broker.serve import Broker

    sightings = None
    if session.log is not None:
        from sandboxed_python.broker.sightings import Sightings

        sightings = Sightings(session.log, enforced=plan.policy.mode == "enforce")
    # The child's parent-death signal is lost with its ids: they change only when there is a guard.
    session.broker = Broker(
        session.listener,
        plan,
        session.rules,
        session.pid,
        on_change=session.guard.start,
        restrict=restricter(plan),
        sightings=sightings,
    )
    if session.watch is not None:
        session.watch.join(session.broker)
    return session.broker


def restricter(plan: Plan) -> Restrict:
    """Return what makes Landlock rulesets for policies that are narrower than the plan's."""

    def restrict(policy: Policy, inner: bool) -> tuple[int, tuple[PathRule, ...]]:  # noqa: FBT001
        full = landlock.full(plan.abi)
        handled = landlock.Ruleset(
            fs=plan.ruleset.fs,
            net=0 if policy.granted("net") else full.net,
            # A process that gives something up still has its children and its parent.
            scoped=plan.ruleset.scoped if inner else 0,
        )
        programs = existing(PROGRAM_TREES + LIBRARY_TREES) if policy.granted("child") else ()
        rules = path_rules(policy.replace(protected=plan.policy.protected), programs)
        return make_ruleset(handled, plan.abi, rules, tolerant=True)

    return restrict


def _handshake(session: Session) -> None:
    """Take the listener or the failure that the child sends, or the end of what it has to say."""
    text, descriptor = receive_descriptor(session.channel, 16384)
    if text[:1] == FAILED:
        _pid, session.status = os.waitpid(session.pid, 0)
        raise LaunchError(text[1:].decode("utf-8", "surrogateescape"))
    if descriptor >= 0:
        session.listener = descriptor
        session.poller.watch(2, descriptor)
        return
    os.close(session.channel)
    session.poller.watch(1, -1)


def _signals(session: Session) -> None:
    """Pass on the signals that were meant for the child, and see whether it stopped or ended."""
    raw = os.read(session.signals, 16 * uapi.SIZEOF_SIGNALFD_SIGINFO)
    for at in range(0, len(raw), uapi.SIZEOF_SIGNALFD_SIGINFO):
        # struct signalfd_siginfo: u32 signo, s32 errno, s32 code, u32 pid, ...
        number = int.from_bytes(raw[at : at + 4], "little")
        code = int.from_bytes(raw[at + 8 : at + 12], "little", signed=True)
        if number == _signal.SIGCHLD:
            _child_changed(session)
        elif number == _signal.SIGCONT and int.from_bytes(raw[at + 12 : at + 16], "little") == session.waker:
            continue  # the child goes on already
        elif number in FORWARDED and session.status is None:
            sender = int.from_bytes(raw[at + 12 : at + 16], "little")
            if code != uapi.SI_KERNEL and session.witness is not None:
                session.doubtful.append((number, sender, time.monotonic()))
            elif code != uapi.SI_KERNEL or _is_for_leader(number):
                os.kill(session.pid, number)
    _pass_on(session)


def _pass_on(session: Session) -> None:
    """Pass on the doubtful signals that the child hasn't got itself; which ones, is known a moment after they came.

    Meanwhile the child's calls are answered: whoever sends signals without end doesn't keep them waiting.
    """
    doubtful, session.doubtful = session.doubtful, []
    for number, sender, since in doubtful:
        if session.status is not None:
            return
        told: bool | None = False
        if session.witness is not None and os.getpgid(session.pid) == os.getpgrp():
            told = session.witness.tells(number, sender, since)
        if told is None:
            session.doubtful.append((number, sender, since))
        elif not told:
            os.kill(session.pid, number)


def _is_for_leader(number: int) -> bool:
    """Tell whether a signal that comes from the kernel itself has gone to this process alone.

    A terminal's signals go to the whole foreground group: the child has had those already. Only when the terminal hangs
    up, SIGHUP and SIGCONT go to the session leader, which this process may be and the child never is.
    """
    return number in (_signal.SIGHUP, _signal.SIGCONT) and os.getsid(0) == os.getpid()


def _child_changed(session: Session) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid != session.pid:  # one of our own, or an orphan that this subreaper has inherited
            if not os.WIFSTOPPED(status):
                _helper_ended(session, pid)
            continue
        if os.WIFSTOPPED(status):
            from sandboxed_python.launch.stopping import stop_with

            if session.watch is not None:
                session.watch.pause()
            stop_with(session, os.WSTOPSIG(status))
        else:
            session.status = status


def _helper_ended(session: Session, pid: int) -> None:
    """Replace the guard when it is what somebody has killed; do without the witness for a while.

    Raises:
        LaunchError: there is no room for another guard.
    """
    if session.witness is not None and pid == session.witness.pid:
        session.witness.close()
        session.witness = None
    if pid != session.guard.pid:
        return
    try:
        session.guard.replace()
    except OSError as error:
        message = f"the job's guard was killed, and there can be no other: {error.strerror}"
        raise LaunchError(message) from error


def _end_descendants(guard: Guard) -> None:
    """Kill what the child left behind (it is ours by PR_SET_CHILD_SUBREAPER), until nothing is left.

    Not all children are the job's: this process may have had some before it became this command (``exec`` in a shell
    script), and as the first process of a container it inherits everybody's orphans. Those are neither killed nor
    waited for.
    """
    while _reap():
        if not guard.end_all():
            _kill_tree()
        ours = guard.reaches if guard.scoped else _is_confined
        if not any(_wait_for(pid) for pid in process.children() if ours(pid)):
            return


def _reap() -> bool:
    """Take the status of every child that has ended; tell whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _wait_for(pid: int) -> bool:
    """Wait for the end of a child; tell whether it was one (/proc may be that of another pid namespace)."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return False
    return True


def _kill_tree() -> None:
    """Kill the job's processes one by one, where no domain holds them together."""
    if not any(_is_confined(pid) for pid in process.children()):
        return
    import psutil

    for descendant in psutil.Process().children(recursive=True):
        try:
            if _is_confined(descendant.pid):
                descendant.kill()
        except psutil.NoSuchProcess:
            continue


def _is_confined(pid: int) -> bool:
    """Tell whether a process has more seccomp filters than this one, as all of a job have and nobody else here."""
    return process.count_filters(pid) > process.count_filters(os.getpid())
