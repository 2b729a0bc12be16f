"""``--progress``, and how supervisor and job look from outside."""

from __future__ import annotations

import fcntl
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.launch.plain import Terminal, eventually, started, terminal
from tests.support import installed

if TYPE_CHECKING:
    from tests.support import Run

SOURCE = "import sys, time\nprint('begin', end='', flush=True)\ninput()\nprint(' and end')"
SEQUENCE = re.compile(r"\x1b(?:\[([0-9;]*)([A-Za-z])|([78]))")


class Screen:
    """What a terminal of this size shows after some output: text, where lines scroll, where the cursor is."""

    def __init__(self, columns: int, lines: int) -> None:
        self.size = columns, lines
        self.rows = [""] * lines
        self.bottom = lines  # the last line that scrolls, from 1
        self.at = self.saved = (0, 0)  # line, column

    def feed(self, text: str) -> Screen:
        while text:
            match = SEQUENCE.match(text)
            if match:
                self._control(match[1] or "", match[2] or match[3])
                text = text[match.end() :]
            else:
                self._letter(text[0])
                text = text[1:]
        return self

    def _control(self, values: str, what: str) -> None:
        line, column = self.at
        if what == "7":
            self.saved = self.at
        elif what == "8":
            self.at = self.saved
        elif what == "r":
            self.bottom = int(values.split(";")[1]) if values else self.size[1]
            self.at = 0, 0
        elif what == "H":
            self.at = int(values.split(";", maxsplit=1)[0]) - 1, int(values.split(";")[1]) - 1
        elif what == "A":
            self.at = max(line - 1, 0), column
        elif what == "K":
            self.rows[line] = "" if values == "2" else self.rows[line][:column]
        else:
            assert what == "m", what

    def _letter(self, letter: str) -> None:
        line, column = self.at
        if letter == "\r":
            self.at = line, 0
        elif letter == "\n":  # as a terminal shows it: also back to the first column
            if line + 1 == self.bottom:
                self.rows[: self.bottom] = [*self.rows[1 : self.bottom], ""]
                self.at = line, 0
            else:
                self.at = min(line + 1, self.size[1] - 1), 0
        else:
            assert column < self.size[0], "wider than the terminal"
            self.rows[line] = self.rows[line].ljust(column)[:column] + letter + self.rows[line][column + 1 :]
            self.at = line, column + 1


def resize(screen: Terminal, columns: int, lines: int) -> None:
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@pytest.mark.parametrize("columns", [30, 100])
def test_a_terminal_shows_a_line_and_is_clean_at_the_end(sandbox: Run, columns: int) -> None:
    sandbox("-c", "0")
    # A shell sets the size first: the terminal of a test has none.
    size = f"import fcntl, os, struct, termios\nfcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 10, {columns}, 0, 0))\n"
    become = f"{size}import sys\nos.execv(sys.argv[1], sys.argv[1:])"
    plain = installed()[0].replace("sandboxed-python", "python3")
    words = [plain, "-c", become, *installed(), "--permission", "--progress", "-c", SOURCE]
    with terminal(words, env={"TERM": "xterm"}) as screen:
        screen.expect("begin")
        screen.expect(r"\x1b\[10;1H\x1b\[7m0:00")
        if columns == 100:
            screen.expect(r"memory [0-9.]+M   processor time 0\.[0-9]s   processes 1   denials 0")
        screen.expect(r"\x1b\[10;1H\x1b\[7m0:01")
        shown = Screen(columns, 10).feed(screen.seen)
        assert shown.rows[0] == "begin"
        assert shown.rows[9].startswith("0:0")
        assert shown.bottom == 9
        screen.type("\n")
        assert screen.end() == 0
        left = Screen(columns, 10).feed(screen.seen)
    assert (left.rows[0], left.rows[1], left.rows[9], left.bottom) == ("begin", " and end", "", 10)


@pytest.mark.slow
@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_nothing_is_shown_elsewhere(sandbox: Run, term: str) -> None:
    """Not in a pipe; and on a terminal only if it knows how."""
    source = "import time; time.sleep(0.8); print('done')"
    ended = sandbox("--progress", "-c", source, env={"TERM": term})
    assert (ended.code, ended.stdout, ended.stderr) == (0, "done\n", "")
    if term == "dumb":
        with terminal([*installed(), "--permission", "--progress", "-c", source], env={"TERM": term}) as screen:
            assert screen.end() == 0
            assert screen.seen == "done\n"


@pytest.mark.slow
def test_the_line_makes_room_when_the_job_is_stopped(sandbox: Run) -> None:
    sandbox("-c", "0")
    size = "import fcntl, os, struct, termios\nfcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 10, 80, 0, 0))\n"
    start = (
        f"{size}import subprocess, sys\nprocess = subprocess.Popen(sys.argv[1:])\n"
        "os.waitpid(process.pid, os.WUNTRACED); print('stopped')\n"
        "os.kill(process.pid, 18); print('code', process.wait())"
    )
    plain = installed()[0].replace("sandboxed-python", "python3")
    source = "import time\nprint('begin')\ntime.sleep(4)"
    words = [plain, "-c", start, *installed(), "--permission", "--progress", "-c", source]
    with terminal(words, env={"TERM": "xterm"}) as screen:
        screen.expect(r"\x1b\[10;1H\x1b\[7m0:00")
        supervisor = next(one for one in psutil.Process(screen.pid).children() if one.name() == "sandbox-super")
        job = supervisor.children()[0]
        job.suspend()
        screen.expect("stopped")
        assert Screen(80, 10).feed(screen.seen).bottom == 10
        screen.expect(r"\x1b\[10;1H\x1b\[7m0:0")
        screen.expect("code 0")
        assert screen.end() == 0
        assert Screen(80, 10).feed(screen.seen).bottom == 10


@pytest.mark.parametrize("way", [[], ["-B"]], ids=["fork", "exec"])
def test_supervisor_and_job_are_told_apart_from_outside(sandbox: Run, way: list[str]) -> None:
    sandbox("-c", "0")
    words = [*installed(), "--permission", *way, "-c", "print('here', flush=True); input()", "--one", "two words"]
    with started(words, stdin=subprocess.PIPE) as program:
        assert program.line() == "here"
        supervisor = psutil.Process(program.pid)
        (job,) = supervisor.children()
        eventually(lambda: supervisor.name() == "sandbox-super")  # named beside the job's start
        assert any(word.endswith("/sandboxed-python") for word in supervisor.cmdline())
        assert job.name().startswith("python")
        assert not any(word.endswith("/sandboxed-python") for word in job.cmdline())
        shown = [word for word in job.cmdline() if word]
        assert "python" in shown[0]
        assert shown[-4:] == words[-4:]
        shown_by_ps = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(job.pid)], capture_output=True, text=True, check=True
        )
        assert shown_by_ps.stdout.rstrip("\n").endswith("--one two words")
        program.process.communicate(b"\n")
