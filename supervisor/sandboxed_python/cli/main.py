"""The command's first steps: fork the child, then go on to the command line.

Runs in: supervisor; the forked child returns through it. What is imported here is what both need.
"""

from __future__ import annotations

import sys

from sandboxed_python.errors import SandboxError
from sandboxed_python.launch.start import fork_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.launch.session import Session


def main(baseline: frozenset[str], scripts: str = "") -> None:
    """Run the command line.

    Args:
        baseline: names in ``sys.modules`` before any of ours was imported.
        scripts: folder of the installed command, or "".

    In the supervisor this does not return; in a forked child it returns when the program has ended.
    """
    session: Session | None = None
    try:
        if "--permission" in sys.argv:
            # Nearly always a child will be needed: it gets ready while we plan.
            session = fork_child(baseline)
            if session is None:
                return
        from sandboxed_python.cli.run import run

        session = run(sys.argv[1:], session, baseline, scripts)
    except SandboxError as error:
        from sandboxed_python.cli.run import fail

        fail(error, session)
