"""Prompts on a terminal: lines work, denials are told, and the prompt comes back."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.programs.catalogue import BY_NAME, environment, grants, lay_out, require

if TYPE_CHECKING:
    from tests.support import Run

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, words: list[str], folder: str, env: dict[str, str | None]) -> None:
        """Start it."""
        self.side, other = os.openpty()
        self.program = subprocess.Popen(
            [*support.installed(), "--permission", *words],
            cwd=folder,
            env=support.clean_environment({"TERM": "dumb", "NO_COLOR": "1", **env}),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self.shown = ""

    def wait_for(self, pattern: str, seconds: float = 40) -> str:
        """Read until the screen shows the pattern; return what came before, and forget it."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.shown)) is None:
            ready = select.select([self.side], [], [], max(0.0, end - time.monotonic()))[0]
            text = b""
            if ready:
                with contextlib.suppress(OSError):  # the program has ended
                    text = os.read(self.side, 65536)
            assert text, f"never showed {pattern}:\n{self.shown}"
            self.shown = ESCAPES.sub("", self.shown + text.decode(errors="replace"))
        before, self.shown = self.shown[: found.start()], self.shown[found.end() :]
        return before

    def line(self, text: str) -> None:
        """Type a line."""
        os.write(self.side, text.encode() + b"\n")

    def close(self) -> int:
        """Return the exit code; the program has been told to end."""
        try:
            while True:  # nobody waits for a terminal that is never read
                ready = select.select([self.side], [], [], 20)[0]
                if not ready or not os.read(self.side, 65536):
                    break
        except OSError:
            pass
        try:
            return self.program.wait(20)
        finally:
            self.program.kill()
            self.program.wait()
            os.close(self.side)


@pytest.mark.parametrize(
    ("name", "words", "prompt"),
    [
        ("python's own prompt, on a terminal", [], ">>> "),
        pytest.param(
            "IPython, on a terminal",
            ["-m", "IPython", "--simple-prompt", "--no-banner"],
            r"In \[\d+\]: ",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_prompt(name: str, words: list[str], prompt: str, folder: str, sandbox: Run) -> None:
    row = BY_NAME[name]
    require(row.package)
    lay_out(BY_NAME.get("IPython", row).files, folder)
    env = environment(row, folder)
    if row.package:
        env["IPYTHONDIR"] = os.path.join(folder, "ipython")
    terminal = Terminal([*grants(name), *words], folder, env)
    try:
        terminal.wait_for(prompt)
        terminal.line("6 * 7")
        assert "42" in terminal.wait_for(prompt)
        terminal.line("open('/etc/passwd')")
        assert "--allow-fs-read" in terminal.wait_for(prompt)
        terminal.line("import sys; sys.permission.has('net')")
        assert "False" in terminal.wait_for(prompt)
        terminal.line("exit()")
    finally:
        code = terminal.close()
    assert code == 0
