"""The broker: takes notifications from the listener and has each one answered.

Runs in: supervisor.
"""

from __future__ import annotations

import errno

from sandboxed_python.broker.gate import may_map
from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import seccomp, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.kernel.seccomp import Notification
    from sandboxed_python.plan.model import Plan


class Broker:
    """Answers the seccomp notifications of one tree of confined tasks.

    Law: whatever goes wrong, the answer is a denial.
    """

    def __init__(self, listener: int, plan: Plan, first: int) -> None:
        """Take over the listener.

        Args:
            listener: the notifying filter's descriptor.
            plan: what to enforce.
            first: pid of the child, whose first execve is the supervisor's own (the exec way).
        """
        self.listener = listener
        self.plan = plan
        self._first = first
        self._execs_left = 1 if plan.way == "exec" and not plan.policy.granted("child") else 0
        self._names = uapi.NOTIFIED[plan.machine]
        seccomp.set_sync_wake_up(listener)

    def serve(self) -> None:
        """Take one notification and answer it."""
        try:
            notification = seccomp.receive(self.listener)
        except KernelError:
            return  # the last task is gone: poll(2) says so next
        if notification is None:
            return
        try:
            allowed = self._judge(notification)
        except Exception:  # noqa: BLE001 - the law: whatever goes wrong is a denial
            allowed = False
        if allowed:
            seccomp.let_through(self.listener, notification.id)
        else:
            seccomp.answer(self.listener, notification.id, errno.EACCES)

    def _judge(self, notification: Notification) -> bool:
        """Tell whether a call goes through. Only registers decide, so the kernel may carry it out itself."""
        name = self._names.get(notification.number)
        if name == "mmap":
            gate = self.plan.map_gate
            descriptor = notification.arguments[4] & 0xFFFFFFFF
            return gate is not None and may_map(gate, self.plan.policy, notification.task, descriptor)
        if name in ("execve", "execveat"):
            # The supervisor's own exec of the interpreter: the child runs nobody else's code before it.
            if self._execs_left and notification.task == self._first:
                self._execs_left -= 1
                return True
            return False
        return False
