"""Signals rain on programs whose calls the supervisor answers: nothing hangs, nothing is lost, nothing is left behind.

A shell and its pipeline start, look for files and open them by hundreds of notified calls, while the Python that started
it is interrupted by its own timer, and the whole group from outside. With WAIT_KILLABLE_RECV a signal doesn't end a call
that the supervisor has taken; one that comes before that gives EINTR, as the kernel does, and everybody here retries.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import support
from tests.broker.harness import LONG

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

ROUNDS = 1000 if LONG else 300
# Each round writes to a name that only a prefix grants, and reads it back.
PROGRAM = """
import os, signal, subprocess, sys
rounds, folder, interval = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
caught = {"SIGALRM": 0, "SIGUSR1": 0, "SIGWINCH": 0}
def note(number, frame):
    caught[signal.Signals(number).name] += 1
for name in caught:
    signal.signal(getattr(signal, name), note)
print("ready", os.getpid(), flush=True)
signal.setitimer(signal.ITIMER_REAL, interval, interval)
wrong = []
for number in range(rounds):
    script = f"echo a{number} | cat | cat"
    if number % 3 == 0:
        script = f"echo a{number} > {folder}/out{number}; cat {folder}/out{number} | cat; rm {folder}/out{number}"
    ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    if (ended.returncode, ended.stdout, ended.stderr) != (0, f"a{number}\\n", ""):
        wrong.append((number, ended))
signal.setitimer(signal.ITIMER_REAL, 0)
for name in caught:  # the interpreter's end would make them deadly again
    signal.signal(getattr(signal, name), signal.SIG_IGN)
print("caught", *caught.values(), flush=True)
print("wrong", len(wrong), wrong[:3], flush=True)
"""


def rain(
    target: Callable[[int], None], numbers: tuple[int, ...], process: subprocess.Popen[str], seconds: float
) -> int:
    """Send signals until a process has ended; return how many."""
    rng = random.Random(1)
    sent = 0
    end = time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < end, "it hangs"
        try:
            target(rng.choice(numbers))
        except ProcessLookupError:
            break
        sent += 1
        time.sleep(rng.uniform(0, 0.004))
    return sent


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["program", "supervisor", "group"])
def test_a_pipeline_under_a_rain_of_signals(whom: str, tmp_path: pathlib.Path) -> None:
    support.need()
    rounds = ROUNDS if whom == "program" else ROUNDS // 3
    words = [
        *support.installed(), "--permission", "--no-warnings", "--allow-child-process",
        f"--allow-fs-read={tmp_path}/out*", f"--allow-fs-write={tmp_path}/out*",
        "-c", PROGRAM, str(rounds), str(tmp_path), "0.003",
    ]  # fmt: skip
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd="/",
        env=support.clean_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            assert said[:1] == ["ready"], process.communicate(timeout=20)
            program = int(said[1])
            targets: dict[str, Callable[[int], None]] = {
                "program": lambda number: os.kill(program, number),
                "supervisor": process.send_signal,
                "group": lambda number: os.killpg(process.pid, number),
            }
            # The shell and its programs don't live through SIGUSR1.
            numbers = (signal.SIGWINCH,) if whom == "group" else (signal.SIGWINCH, signal.SIGUSR1)
            sent = rain(targets[whom], numbers, process, 20 + rounds / 2)
            out, err = process.communicate(timeout=20)
        finally:
            left = [one for one in psutil.process_iter() if _session(one.pid) == process.pid and one.pid != process.pid]
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (0, ""), (out, err)
    lines = out.splitlines()
    assert lines[-1] == "wrong 0 []", out
    alarms, users, windows = map(int, lines[-2].split()[1:])
    assert alarms, out
    assert windows, out
    assert users or whom == "group", out
    assert sent > rounds / 10
    assert left == []
    assert os.listdir(tmp_path) == []


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
