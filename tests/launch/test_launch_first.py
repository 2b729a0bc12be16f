"""As process 1 of a container: orphans are buried, signals reach the program, its code is the container's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.census import census, children, sandboxed, state
from tests.launch.plain import alive, eventually, started
from tests.support import execute, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.launch.plain import Started
    from tests.support import Need

WAYS = pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs(root=True)
    asked = execute([tool("unshare"), "--pid", "--fork", "--mount-proc", "true"])
    if asked.code:
        pytest.skip(f"needs a pid namespace; found {asked.stderr.strip()}")


@contextlib.contextmanager
def container(*words: str) -> Iterator[tuple[Started, int]]:
    """Run the command as process 1; return unshare(1), which ends with its code, and its pid as seen from here."""
    unshare = [tool("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    with started([*unshare, *sandboxed(*words)], stdin=subprocess.PIPE) as program:
        eventually(lambda: children(program.pid), "process 1")
        yield program, children(program.pid).pop()


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 41), (signal.SIGINT, 42), (signal.SIGHUP, 43)])
def test_a_handler_ends_the_program_cleanly(option: list[str], number: int, code: int) -> None:
    """As ``docker stop`` does it: SIGTERM to process 1, and SIGKILL when the grace period is over. It isn't needed."""
    source = f"""
import signal, subprocess, sys, time
def end(number, frame):
    time.sleep(0.5)
    print("clean", flush=True)
    sys.exit({code})
signal.signal({int(number)}, end)
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("up", flush=True)
while True: time.sleep(1000)
"""
    with census() as counted, container(*option, "-c", source) as (program, first):
        assert program.line() == "up"
        time.sleep(0.2)  # it sleeps, and isn't still printing
        os.kill(first, number)
        began = time.monotonic()
        ended = program.end()
        assert (ended.code, ended.stdout, ended.stderr) == (code, "clean\n", "")
        assert 0.4 < time.monotonic() - began < 8
        counted.nobody()


@WAYS
@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("1 / 0", 1), ("os.kill(os.getpid(), 9)", 137), ("os.kill(os.getpid(), 15)", 143), ("os.abort()", 134)],
)  # fmt: skip
def test_its_code_is_the_programs(option: list[str], ending: str, code: int) -> None:
    # It waits until process 1 has been seen, and stdin is closed.
    with container(*option, "-c", f"import os, sys\nsys.stdin.readline()\n{ending}") as (program, _first):
        assert program.end().code == code


def test_a_signal_without_a_handler_ends_it() -> None:
    """Process 1 itself would not get it; the program does."""
    with container("-c", "import time; print('up', flush=True); time.sleep(1000)") as (program, first):
        assert program.line() == "up"
        os.kill(first, signal.SIGTERM)
        assert program.end().code == 143


def test_the_programs_orphans_are_buried() -> None:
    source = """
import os
for _ in range(100):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
print("up", flush=True)
input()
"""
    with container("-c", source) as (program, first):
        assert program.line() == "up"
        eventually(lambda: not any(state(pid) == "Z" for pid in children(first)), "buried")
        program.process.communicate(b"\n")
        assert program.process.returncode == 0


def test_others_orphans_are_buried_and_not_killed() -> None:
    """As those of ``docker exec``: they come to process 1, and aren't the job's."""
    nsenter = tool("nsenter")
    with container("-c", "print('up', flush=True); input()") as (program, first):
        assert program.line() == "up"
        before = children(first)
        enter = [nsenter, f"--target={first}", "--pid", "--mount", "sh", "-c"]
        assert execute([*enter, "sleep 0.5 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 &"]).code == 0
        eventually(lambda: len(children(first) - before) >= 2, "they come")
        eventually(lambda: len(children(first) - before - {0}) == 1 + (len(before) < 3), "the short one is buried")
        assert all(state(pid) != "Z" for pid in children(first))
        stranger = max(children(first) - before)
        program.process.communicate(b"\n")
        assert program.process.returncode == 0
        # The kernel ends the namespace with its first process.
        eventually(lambda: not alive(stranger), "gone")


def test_a_program_that_ignores_signals_ends_when_the_grace_period_is_over() -> None:
    source = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0: os.setsid()
print("up", flush=True)
time.sleep(1000)
"""
    with census() as counted, container("-c", source) as (program, first):
        assert {program.line(), program.line()} == {"up"}
        os.kill(first, signal.SIGTERM)
        time.sleep(0.3)
        assert alive(first)
        os.kill(first, signal.SIGKILL)
        assert program.process.wait(20) != 0
        counted.soon_nobody()
