"""Options that print something and stop.

Runs in: supervisor.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.launch.exits import CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sandboxed_python.cli.args import Command


def print_and_stop(command: Command) -> None:
    """Carry out an option that prints something and stops. Returns for any other command line."""
    if command.action == "version":
        from sandboxed_python import __version__

        out(f"sandboxed-python {__version__} (Python {sys.version.split()[0]})")
    if command.action == "help":
        from sandboxed_python.cli.help import text

        out(text())
    if command.action == "check":
        from sandboxed_python.cli.check import check

        report, enough = check(as_json=command.json)
        out(report, code=CODE["OK" if enough else "FAILURE"])


def out(text: str, code: int = 0) -> NoReturn:
    """Print to stdout and end. Does not return."""
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except (OSError, AttributeError):  # the reader has gone; or there is no stdout: python has None there
        code = code or CODE["FAILURE"]
    os._exit(code)
