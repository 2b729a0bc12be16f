"""The confined interpreter's last preparations, and then the program.

Runs in: child.
"""

from __future__ import annotations

import gc
import sys

from sandboxed_python.child import hook, permission, runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.policy.model import Policy


def run(  # noqa: PLR0913
    policy: Policy,
    kind: str,
    target: str,
    argv: list[str],
    *,
    options: list[str],
    baseline: frozenset[str],
    guarded: bool,
) -> None:
    """Install the friendly layer and run the program; return when it has ended normally.

    Args:
        policy: the effective policy.
        kind: ``"script"``, ``"module"``, ``"code"``, ``"stdin"`` or ``"path"``.
        target: the script, module, code or path, as given.
        argv: the program's own arguments.
        options: Python's options.
        baseline: the modules that a plain interpreter has loaded at this point; the others are forgotten.
        guarded: the kernel itself refuses metadata of what isn't granted.

    Raises:
        SystemExit: the program's own, or the exit code of its uncaught exception.
        KeyboardInterrupt: the program's own, already shown.
    """
    permission.install(policy)
    hook.install(policy, guarded=guarded)
    forget(baseline)
    gc.enable()
    runner.run(kind, target, argv, options)


def forget(baseline: frozenset[str]) -> None:
    """Remove every module from ``sys.modules`` that the program would not find there under a plain interpreter."""
    modules = sys.modules
    for name in [name for name in modules if name not in baseline]:
        del modules[name]
