"""The last preparations of a Python that the program has started: it is confined, and gets the friendly layer.

Runs in: child, called by ``child/site/sitecustomize.py`` while the interpreter starts.
"""

from __future__ import annotations

import marshal
import sys

from sandboxed_python.child import hook, permission, wrap
from sandboxed_python.child.traces import forget, show_denial, show_unseen
from sandboxed_python.errors import AccessDeniedError
from sandboxed_python.policy.model import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from sandboxed_python.child.hook import KernelSide


def run(answer: bytearray, baseline: frozenset[str], kernel: KernelSide) -> None:
    """Install the friendly layer.

    Args:
        answer: the supervisor's, to the question for the policy (``record.wire.POLICY``).
        baseline: names in ``sys.modules`` before ours were imported; the program will find no others.
        kernel: see ``hook.Hooks``.
    """
    policy = Policy.from_data(marshal.loads(answer))
    # Where the supervisor answers this question, it answers those for metadata, or lets them pass.
    hooks = hook.Hooks(policy, guarded=policy.mode == "enforce", kernel=kernel)
    permission.install(permission.Permission(policy, hooks.narrow, hooks.judge))
    hooks.install()
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = sys.__excepthook__ = _display(hooks.judge)
    forget(baseline)


def _display(judge: hook.Judge) -> Any:
    """Return what shows uncaught exceptions as the interpreter does, and what else there is to say of denials."""
    real, show, denial, unseen = sys.__excepthook__, show_denial, AccessDeniedError, show_unseen

    def excepthook(exctype: type[BaseException], value: BaseException, traceback: TracebackType | None, /) -> None:
        if isinstance(value, denial):
            show(value)
        else:
            real(exctype, value, traceback)
            unseen(value, judge)

    return wrap.dress(excepthook, real)
