"""The supervisor is killed, or stopped, at any moment: nobody is left, nothing is lost.

What is left is counted from outside by a process that inherits every orphan (``census``).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.census import census, children, guard_of, sandboxed, state, times
from tests.launch.plain import eventually, started
from tests.support import installed

if TYPE_CHECKING:
    from tests.support import Need

# Children that come and go, one that stays, and calls that the supervisor answers.
BUSY = """
import os, subprocess
print("up", flush=True)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
while True:
    os.path.exists("/nowhere")
    if os.fork() == 0: os._exit(0)
    os.wait()
"""


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def test_killed_at_any_moment() -> None:
    """From the first instruction of the command on; by itself and with its guard, which must not be missed then."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    with census() as counted:
        for turn in range(times(20, 200)):
            with started(sandboxed(*(["-B"] if turn % 2 else []), "-c", BUSY)) as program:
                time.sleep(moments.random() * 0.15)
                program.process.kill()
                assert program.process.wait(20) == -signal.SIGKILL, f"seed {seed}"
                counted.soon_nobody()


def test_killed_while_it_answers() -> None:
    """The program waits for an answer that never comes: it ends, and is refused what it asked for."""
    code = "import os\nprint('up', flush=True)\nwhile True: os.path.exists('/nowhere')"
    with census() as counted:
        for _ in range(times(5, 50)):
            with started([*installed(), "--permission", "-c", code]) as program:
                assert program.line() == "up"
                program.process.kill()
                program.process.wait()
                counted.soon_nobody()


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_stopped_and_continued(option: list[str]) -> None:
    """The job waits where it needs an answer, goes on where it doesn't, and each call is carried out once."""
    source = """
import os, subprocess, sys
print("up", flush=True)
made = 0
for turn in range(4000):
    os.mkdir(f"{sys.argv[1]}/{turn}")
    made += os.path.isdir(f"{sys.argv[1]}/{turn}")
    os.rmdir(f"{sys.argv[1]}/{turn}")
    if turn % 500 == 0: subprocess.run(["true"], check=True)
print(made, flush=True)
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, census() as counted:
        grants = [f"--allow-fs-read={folder}/*", f"--allow-fs-write={folder}/*"]
        with started(sandboxed(*grants, *option, "-c", source, folder)) as program:
            assert program.line() == "up"
            for _ in range(10):
                program.process.send_signal(signal.SIGSTOP)
                eventually(lambda: state(program.pid) == "T", "stopped")
                time.sleep(0.05)
                program.process.send_signal(signal.SIGCONT)
                time.sleep(0.01)
            ended = program.end()
        assert (ended.code, ended.stdout, ended.stderr) == (0, "4000\n", "")
        assert os.listdir(folder) == []
        counted.nobody()


def test_a_job_without_questions_goes_on_while_the_supervisor_is_stopped() -> None:
    """And its end is told when the supervisor is continued; a signal that came meanwhile isn't lost."""
    source = "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('got it', flush=True))\nprint('up', flush=True)\n"
    source += "while input() != 'end': print('on', flush=True)\nraise SystemExit(7)"
    with started([*installed(), "--permission", "-c", source], stdin=subprocess.PIPE) as program:
        assert program.line() == "up"
        assert program.process.stdin is not None
        program.process.send_signal(signal.SIGSTOP)
        eventually(lambda: state(program.pid) == "T", "stopped")
        program.process.stdin.write(b"go\n")
        program.process.stdin.flush()
        assert program.line() == "on"
        program.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
        program.process.send_signal(signal.SIGCONT)
        assert program.line() == "got it"
        program.process.send_signal(signal.SIGSTOP)
        eventually(lambda: state(program.pid) == "T", "stopped")
        program.process.stdin.write(b"end\n")
        program.process.stdin.flush()
        eventually(lambda: any(state(pid) == "Z" for pid in children(program.pid)), "the program ends")
        assert program.process.poll() is None
        program.process.send_signal(signal.SIGCONT)
        assert program.end().code == 7


def test_killed_while_stopped() -> None:
    with census() as counted, started(sandboxed("-c", BUSY)) as program:
        assert program.line() == "up"
        program.process.send_signal(signal.SIGSTOP)
        program.process.kill()
        program.process.wait()
        counted.soon_nobody()


def test_a_job_that_ignores_every_signal() -> None:
    """It gets each signal, and ends when the supervisor is killed, or by itself, with its own code."""
    source = """
import signal, sys, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
print("up", flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(6)
"""
    for seconds, code in (("0.5", 6), ("1000", -signal.SIGKILL)):
        with census() as counted, started(sandboxed("-c", source, seconds)) as program:
            assert program.line() == "up"
            for number in (
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGQUIT,
                signal.SIGTSTP,
                signal.SIGUSR1,
            ):
                program.process.send_signal(number)
                time.sleep(0.01)
            if code < 0:
                assert program.process.poll() is None
                program.process.kill()
            assert program.process.wait(20) == code
            counted.soon_nobody()


def test_a_failure_of_the_supervisor_itself_ends_the_job_and_is_one_line() -> None:
    """Played by a limit on its descriptors, lowered while it serves."""
    source = """
import os, subprocess, time
subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("up", flush=True)
time.sleep(1000)
"""
    import resource

    with census() as counted, started(sandboxed("-c", source)) as program:
        assert program.line() == "up"
        time.sleep(0.5)
        # Another guard takes a pipe: one descriptor more than the old one leaves.
        used = {int(name) for name in os.listdir(f"/proc/{program.pid}/fd")}
        free = min(set(range(100)) - used)
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (free, free))
        os.kill(guard_of(program.pid), signal.SIGKILL)
        ended = program.end()
        assert ended.code == 125, ended.said
        assert ended.stderr == (
            "sandboxed-python: the job's guard was killed, and there can be no other: Too many open files\n"
        )
        counted.nobody()
