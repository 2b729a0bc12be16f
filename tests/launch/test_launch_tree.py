"""The tree: every descendant ends with the job or with the supervisor, and none stays a zombie. Counted from outside.

The test process inherits orphans meanwhile, so that whoever gets away, dead or alive, is its child (tests/faults/census.py).
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.census import census, children, guard_of, processes_of, sandboxed, state, times, with_room_for
from tests.launch.plain import alive, eventually, started
from tests.support import tool

if TYPE_CHECKING:
    from tests.support import Need

# Daemons: a double fork in a session of its own, one that ignores all signals, a stopped one, a shell's, one that is a
# reaper of its own descendants, and chains in which every process lives for a moment.
FAMILY = """
import os, signal, subprocess, sys, time
null = os.open("/dev/null", os.O_RDWR)
def daemon(body):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in 0, 1, 2: os.dup2(null, fd)
            body()
        os._exit(0)
def live():
    while True: time.sleep(1000)
def deaf():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    live()
def relay():
    while True:
        if os.fork(): os._exit(0)
def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)
    live()
for body in live, deaf, stopped, relay: daemon(body)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; sleep 1000 & sleep 1000"], stdin=null, stdout=null, stderr=null)
for _ in range(5):
    if os.fork() == 0: os._exit(0)  # zombies that nobody waits for
print("up", flush=True)
"""


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize("ending", ["", "sys.exit(7)", "os.kill(os.getpid(), 9)", "os.execvp('true', ['true'])"])
def test_nobody_is_left_when_the_job_ends(option: list[str], ending: str) -> None:
    """Also as a zombie: the supervisor has waited for them all before it ends."""
    with census() as counted:
        for _ in range(times(2, 25)):
            with started(sandboxed(*option, "-c", FAMILY + ending)) as program:
                ended = program.end()
                assert ended.code == {"sys.exit(7)": 7, "os.kill(os.getpid(), 9)": -9}.get(ending, 0), ended.said
                counted.nobody()


@pytest.mark.slow
def test_nobody_is_left_when_the_supervisor_is_killed() -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    with census() as counted:
        for _ in range(times(10, 100)):
            with started(sandboxed("-c", FAMILY + "time.sleep(1000)")) as program:
                assert program.line() == "up"
                time.sleep(moments.random() * 0.2)
                program.process.kill()
                program.process.wait()
                counted.soon_nobody()


def test_the_familys_members_live_without_that() -> None:
    """The twin: by itself none of them ends. Without the chain, which only a reaper with a domain could end again."""
    mortals = FAMILY.replace("stopped, relay", "stopped")
    with census() as counted, started([tool("python3"), "-c", mortals]) as program:
        program.end()
        eventually(lambda: sum(" Z " not in line for line in counted.left()) >= 4, "they live on, here")


BOMB = """
import os, time
print("up", flush=True)
if os.fork() == 0:
    while True:
        try: os.fork()
        except OSError: pass
time.sleep({})
"""


@pytest.mark.parametrize("ending", ["killed", "ended", "stopped and killed"])
def test_a_fork_bomb(needs: Need, ending: str) -> None:
    """At full speed, of a user who may have 150 processes: it ends at once, whoever ends first."""
    needs(root=True)
    user, words = with_room_for(150)
    arguments = [
        "--permission",
        "--no-warnings",
        "--allow-child-process",
        "-c",
        BOMB.format(1 if ending == "ended" else 1000),
    ]
    with census() as counted, started([*words, *arguments]) as program:
        assert program.line() == "up"
        time.sleep(0.5)
        assert len(processes_of(user)) > 100
        if ending == "ended":
            assert program.process.wait(60) == 0
            counted.nobody()
        else:
            if ending.startswith("stopped"):
                program.process.send_signal(signal.SIGSTOP)
            program.process.kill()
            program.process.wait()
            counted.soon_nobody()
        assert processes_of(user) == []


def test_orphans_are_buried_while_the_job_runs() -> None:
    source = """
import os
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
print("up", flush=True)
input()
"""
    import subprocess

    with census() as counted, started(sandboxed("-c", source), stdin=subprocess.PIPE) as program:
        assert program.line() == "up"
        eventually(lambda: not any(state(pid) == "Z" for pid in children(program.pid)), "all are buried")
        program.process.communicate(b"\n")
        assert program.process.returncode == 0
        counted.nobody()


# The guard


def test_a_guard_that_is_killed_is_replaced() -> None:
    with census() as counted, started(sandboxed("-c", FAMILY + "time.sleep(1000)")) as program:
        assert program.line() == "up"
        old = guard_of(program.pid)
        for _ in range(3):
            os.kill(old, signal.SIGKILL)
            eventually(lambda old=old: guard_of(program.pid) not in (0, old), "another guard")
            old = guard_of(program.pid)
        program.process.kill()
        program.process.wait()
        counted.soon_nobody()


def test_a_job_whose_guard_cannot_be_replaced_is_ended(needs: Need) -> None:
    """It has left no room for another process of its user."""
    needs(root=True)
    _user, words = with_room_for(20)
    source = """
import os, time
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError:
        break
print("up", flush=True)
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError:
        pass
"""
    arguments = ["--permission", "--no-warnings", "--allow-child-process", "-c", source]
    with census() as counted, started([*words, *arguments]) as program:
        assert program.line() == "up"
        old = guard_of(program.pid)
        os.kill(old, signal.SIGKILL)
        # The job and the supervisor race for the guard's room: either there is a guard, or no job.
        eventually(lambda: guard_of(program.pid) not in (0, old) or not alive(program.pid), "a guard or the end")
        if not alive(program.pid):
            ended = program.end()
            assert ended.code == 125
            assert ended.stderr == (
                "sandboxed-python: the job's guard was killed, and there can be no other: Resource temporarily unavailable\n"
            )
            counted.nobody()
        program.process.kill()
        program.process.wait()
        counted.soon_nobody()
