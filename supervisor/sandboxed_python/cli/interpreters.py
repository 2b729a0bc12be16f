"""Other interpreters: the one that ``--python`` names, and plain python where the model is off.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.cli.args import ENVIRONMENT
from sandboxed_python.cli.main import say
from sandboxed_python.launch.exits import CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.plan.model import Target
    from sandboxed_python.plan.runtime import Runtime


def other(python: str, scripts: str) -> Runtime:
    """Return the facts about the interpreter that ``--python`` names; end with the shell's codes if there is none."""
    # Not for plain python, whose start would take half as long again.
    import shutil

    from sandboxed_python.plan.foreign import other_runtime

    found = shutil.which(python)
    if found is None:
        exists = os.path.exists(python)
        say(f"--python {python}: {'not executable' if exists else 'not found'}")
        os._exit(CODE["NOT_EXECUTABLE" if exists else "NOT_FOUND"])
    return other_runtime(os.path.abspath(found), scripts)


def plain_python(target: Target) -> None:
    """Become plain python: the model is off. Does not return."""
    os.environ.pop(ENVIRONMENT, None)
    python = target.python or sys.executable
    try:
        os.execvp(python, [python, *target.python_options, *target.words])
    except OSError as error:
        say(f"{python}: {error.strerror}")
        os._exit(CODE["NOT_FOUND" if isinstance(error, FileNotFoundError) else "NOT_EXECUTABLE"])
