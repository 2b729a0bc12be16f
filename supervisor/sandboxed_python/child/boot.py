"""The confined interpreter's last preparations, and then the program.

Runs in: child.
"""

from __future__ import annotations

import gc

from sandboxed_python.child import ending, hook, permission, runner
from sandboxed_python.child.traces import forget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from sandboxed_python.child.hook import KernelSide
    from sandboxed_python.policy.model import Policy


class Program:
    """What to run, made ready: in a fork, before the confinement, when looking at files still costs nothing.

    Attributes:
        permission: what will be ``sys.permission``.
        hooks: the friendly layer.
        start: how the program is found; see ``runner.Start``.
        ending: how it may end, in a fork; None: as any interpreter.
    """

    def __init__(  # noqa: PLR0913
        self,
        policy: Policy,
        kind: str,
        target: str,
        *,
        guarded: bool,
        baseline: frozenset[str] | None = None,
        compiler: Callable[[bytes, str], CodeType] | None = None,
        kernel: KernelSide | None = None,
        opener: Callable[[bytes], int] | None = None,
        reports: bool = False,
    ) -> None:
        """Look at what will be needed.

        Args:
            policy: the effective policy.
            kind: ``"script"``, ``"module"``, ``"code"``, ``"stdin"`` or ``"path"``.
            target: the script, module, code or path, as given.
            guarded: the kernel itself refuses metadata of what isn't granted.
            baseline: in a fork, the modules that a plain interpreter has loaded at this point.
            compiler: see ``runner.Start``.
            kernel: see ``hook.Hooks``.
            opener: likewise.
            reports: the supervisor wants to know of denials.
        """
        self.hooks = hook.Hooks(policy, guarded=guarded, kernel=kernel, opener=opener)
        judge = self.hooks.judge
        self.permission = permission.Permission(policy, self.hooks.narrow, judge)
        judge.reports = reports
        if reports:
            judge.publishing()  # now it costs the program nothing
        self.start = runner.Start(kind, target, read=policy.entrypoint, compiler=compiler)
        self.ending = ending.Ending(baseline) if baseline is not None else None


def run(program: Program, argv: list[str], *, options: list[str], baseline: frozenset[str]) -> None:
    """Install the friendly layer and run the program; return when it has ended normally.

    Args:
        program: what to run.
        argv: the program's own arguments.
        options: Python's options.
        baseline: the modules that a plain interpreter has loaded at this point; the others are forgotten.

    Raises:
        SystemExit: the program's own, or the exit code of its uncaught exception.
        KeyboardInterrupt: the program's own, already shown.
    """
    permission.install(program.permission)
    program.hooks.install()
    forget(baseline)
    if program.ending is not None:
        program.ending.begin()
    gc.enable()
    runner.run(program.start, argv, options, program.hooks.judge)
    if program.ending is not None:
        program.ending.end(program.hooks.judge)
