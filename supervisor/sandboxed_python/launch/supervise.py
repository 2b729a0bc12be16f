"""Looking after a child until it ends: notifications, signals, exit.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import time

from sandboxed_python import image
from sandboxed_python.errors import LaunchError
from sandboxed_python.kernel import landlock, process, uapi
from sandboxed_python.kernel.calls import close_range, receive_descriptor
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
_LOOK = 0.05  # seconds between two looks at a stopped child
IDLE = 200  # milliseconds without a call after which the broker rests


def supervise(session: Session, plan: Plan) -> int:
    """Serve the child until it has ended and nothing that it started is left.

    Returns:
        The child's wait status.

    Raises:
        LaunchError: the child could not be confined or started; it has ended.
    """
    poller = session.poller
    events = poller.events
    if plan.notify_parts and plan.way == "exec" and not plan.inner:
        load_broker()  # it is asked at once
    patience = -1
    watch = session.watch
    wait = poller.wait if watch is None else watch.wait
    while session.status is None:
        waiting = session.broker is None and session.listener >= 0
        if not wait(_SOON if waiting else patience):
            patience = -1
            if waiting:
                _open_broker(session, plan)
            elif session.broker is not None:
                session.broker.rest()
            continue
        if events[_LISTENER]:
            if events[_LISTENER] & uapi.POLLIN:
                broker = session.broker or _open_broker(session, plan)
                broker.serve()
                patience = IDLE
            else:  # POLLHUP: the last confined task is gone
                poller.watch(2, -1)
                _close_listener(session)
        if events[_CHANNEL]:
            _handshake(session)
        if events[_SIGNALS]:
            _signals(session)
    if not plan.inner:  # what is left there is the outer supervisor's, whose children orphans become
        _end_descendants(session.guard)
    _close_listener(session)
    if watch is not None:
        watch.close()
    return session.status


def load_broker(*, everything: bool = False) -> None:
    """Load the broker's modules.

    Args:
        everything: also what only some calls or ends need, so that no file is looked at any more.
    """
    image.load("watch")
    import sandboxed_python.broker.serve  # noqa: F401 - where there is no image

    if everything:
        import json  # noqa: F401
        import resource  # noqa: F401

        import psutil  # noqa: F401

        from sandboxed_python.broker import control  # noqa: F401
        from sandboxed_python.broker.answer import load_all

        load_all()


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

    # The child's parent-death signal is lost with its ids: they change only when there is a guard.
    session.broker = Broker(
        session.listener,
        plan,
        session.rules,
        session.pid,
        on_change=session.guard.start,
        restrict=restricter(plan),
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
    text, descriptor = receive_descriptor(session.channel, 65536)
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
        elif number in FORWARDED and session.status is None and (code != uapi.SI_KERNEL or _is_for_leader(number)):
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
        if pid != session.pid:
            continue  # an orphan that this subreaper has inherited
        if os.WIFSTOPPED(status):
            _stop_with(session)
        else:
            session.status = status


def _stop_with(session: Session) -> None:
    """Stop, so that the shell sees the job stopped, until somebody continues this process or the child.

    Who is stopped can't see that the child goes on or ends (continued by what it has started, or by somebody who knows
    its number), so another process looks. Without room for one this process doesn't stop.
    """
    own = os.getpid()
    if session.watch is not None:
        session.watch.pause()
    try:
        session.waker = os.fork()
    except OSError:
        return
    if session.waker == 0:
        _wake(own, session.pid)
    os.kill(own, _signal.SIGSTOP)
    os.kill(session.waker, _signal.SIGKILL)
    os.waitpid(session.waker, 0)


def _wake(supervisor: int, child: int) -> None:
    """Continue the supervisor when it is stopped and its child isn't. Does not return."""
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        if not process.die_with_parent(supervisor, _signal.SIGKILL):
            return
        os.setsid()  # a signal to the supervisor's group is not for this process
        close_range(0)
        while not (process.state(supervisor) == b"T" and process.state(child) != b"T"):
            time.sleep(_LOOK)
        os.kill(supervisor, _signal.SIGCONT)
    finally:
        os._exit(0)


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
