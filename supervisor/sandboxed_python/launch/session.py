"""A session: one child, the descriptors to it, and how it began.

Runs in: both: the supervisor makes it, the forked child uses its side.
"""

from __future__ import annotations

import gc
import os
import time

from sandboxed_python.kernel.calls import Poller, signalfd, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from sandboxed_python.broker.serve import Broker
    from sandboxed_python.launch.cgroup import MemoryGroup
    from sandboxed_python.launch.guard import Guard
    from sandboxed_python.launch.output import Relay
    from sandboxed_python.launch.watch import Watch
    from sandboxed_python.launch.witness import Witness
    from sandboxed_python.plan.model import PathRule
    from sandboxed_python.record.log import Log
else:
    import _signal  # the signal module on top of it imports enum

# What plain python would get, and the supervisor passes on.
FORWARDED = frozenset(
    getattr(_signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP", "SIGCONT")
)


class Session:
    """The supervisor's hold on one child. Everything that is per child lives here.

    Attributes:
        supervisor: pid of the supervisor.
        pid: of the child; 0 before the fork and in the child.
        channel: this side's end of the channel: the child sends the listener or its failure; end of file means that it
            is confined and has nothing more to say.
        signals: descriptor that the supervisor reads signals from.
        poller: waits for ``signals``, ``channel`` and ``listener``.
        listener: descriptor of the child's notifications, or -1.
        broker: answers them, or None as long as none has come.
        guard: ends what is left when this process can't.
        rules: what Landlock was told of.
        group: the control group that the child is in, or None.
        relay: passes on the child's output, or None where that is the command's own.
        watch: looks at what the child uses, or None.
        witness: tells which signals the child has got already, or None.
        unsettled: since when the child has not been quiet, or a witness was tried for last (monotonic seconds).
        doubtful: signals that may have gone to the child, too: number, sender's pid, when (monotonic seconds).
        log: where denials are written down, or None.
        waker: pid of the process that continued this one when the child went on after a stop, or -1.
        kept: what only the child uses: to take it apart here would copy the pages that hold it.
        status: wait status of the child once it has ended, else None.
    """

    def __init__(self, guard: Guard, rules: tuple[PathRule, ...] = ()) -> None:
        """Block the signals that will be passed on, and open the channel.

        Args:
            guard: see above.
            rules: what Landlock was told of.

        Raises:
            KernelError: no descriptors left.
        """
        self.guard = guard
        self.rules = rules
        self.supervisor = os.getpid()
        self.pid = 0
        self.listener = -1
        self.broker: Broker | None = None
        self.group: MemoryGroup | None = None
        self.relay: Relay | None = None
        self.watch: Watch | None = None
        self.witness: Witness | None = None
        self.unsettled = time.monotonic()
        self.doubtful: list[tuple[int, int, float]] = []
        self.log: Log | None = None
        self.waker = -1
        self.kept: object = None
        self.status: int | None = None
        self.channel, self._other = socketpair()
        # An inherited SIG_IGN of SIGCHLD would make the kernel throw the child's status away.
        self._old_child_handler = _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        self._watched = FORWARDED | {_signal.SIGCHLD}
        self._old_mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, self._watched)
        self.signals = signalfd(self._watched)
        self.poller = Poller(self.signals, self.channel, -1)

    def fork(self) -> bool:
        """Fork; tell whether this is the child."""
        # The child's collections then leave alone what exists now, and its pages shared with the supervisor.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            os.close(self.channel)
            self.channel = self._other
            return True
        self.pid = pid
        os.close(self._other)
        return False

    def enter(self, group: MemoryGroup | None) -> None:
        """Move the child into a group, or remove that, and let the child go on from ``wait_to_go_on``.

        The supervisor does it, and the child waits: so the supervisor knows whether the kernel limits the child, and
        the child has done nothing yet, and has started nothing.
        """
        if group is None:
            return
        if group.take(self.pid):
            self.group = group
        else:
            group.remove()
        try:
            os.write(self.channel, b"G")
        except BrokenPipeError:  # it has ended: the limit is too small for it to begin
            return

    def wait_to_go_on(self) -> None:
        """Wait for the supervisor to ``enter`` a group for this child; end when it is gone."""
        if not os.read(self.channel, 1):
            os._exit(1)

    def restore_signals(self) -> None:
        """Give the child the signal handling that the session found."""
        handler = self._old_child_handler
        if handler is not None:
            _signal.signal(_signal.SIGCHLD, handler)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._old_mask)
