"""``--progress``: a line at the bottom of the terminal, rewritten while the job runs.

Runs in: supervisor. Loaded only when it is asked for. The terminal scrolls above that line (DECSTBM), so it isn't mixed
with what the job prints.
"""

from __future__ import annotations

import os

STDERR = 2
LEAST = (20, 3)  # columns and lines that it takes to show anything


class Progress:
    """The line. Nothing is shown where stderr is no terminal, or one that knows no control sequences.

    Attributes:
        shown: size of the terminal that the line is on now, or None.
    """

    def __init__(self) -> None:
        self.shown: tuple[int, int] | None = None
        self.able = os.isatty(STDERR) and os.environ.get("TERM", "dumb") != "dumb"

    def draw(self, text: str) -> None:
        """Show a text, cut to the terminal's width. In the background nothing is written."""
        try:
            if not self.able or os.tcgetpgrp(STDERR) != os.getpgrp():
                return
            columns, lines = size = tuple(os.get_terminal_size(STDERR))
            if columns < LEAST[0] or lines < LEAST[1]:
                self.hide()
                return
            start = ""
            if self.shown != size:
                # Make room below the cursor, keep the last line out of what scrolls, and go back (\n, up; DECSC,
                # DECSTBM, which moves the cursor, DECRC).
                start = f"\n\x1b[A\x1b7\x1b[1;{lines - 1}r\x1b8"
            os.write(STDERR, f"{start}\x1b7\x1b[{lines};1H\x1b[7m{text[: columns - 1]}\x1b[0m\x1b[K\x1b8".encode())
            self.shown = size[0], size[1]
        except OSError:  # it has gone
            self.able = False

    def hide(self) -> None:
        """Leave the terminal as it was; ``draw`` shows the line again."""
        if self.shown is None:
            return
        lines = self.shown[1]
        self.shown = None
        try:
            os.write(STDERR, f"\x1b7\x1b[r\x1b[{lines};1H\x1b[2K\x1b8".encode())
        except OSError:
            self.able = False
