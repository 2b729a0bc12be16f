"""Stopping processes outside of the sandbox by means of the terminal.

The attack: when a process of a background group reads from its terminal, the kernel itself stops the whole group
(SIGTTIN), and no signal scope is asked. The program joins another group of the session and reads; or it makes a group of
its own the terminal's, goes back to the group that it came from, with the supervisor and whatever started it, and reads.
What stops it: without ``--allow-child-process`` there are no groups to look after: the filter lets a program only make a
group of its own, and not choose the terminal's. Source: termios(3), setpgid(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

# The session's leader: two victims, one in the group of the command, the terminal's, and one in another group.
LEADER = """
import os, pty, signal, subprocess, sys, time
leader, terminal = pty.fork()
if leader == 0:
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    victims = [subprocess.Popen(["sleep", "30"], preexec_fn=os.setpgrp) for _ in range(2)]
    near, far = (victim.pid for victim in victims)
    job = subprocess.Popen(
        sys.argv[1:], preexec_fn=lambda: (os.setpgid(0, near), os.tcsetpgrp(0, near)), env={**os.environ, "FAR": str(far)}
    )
    def state(process):
        with open(f"/proc/{process.pid}/stat") as file:
            return file.read().rpartition(") ")[2][0]
    end = time.monotonic() + 10
    while time.monotonic() < end and state(job) not in "ZT" and "T" not in map(state, victims):
        time.sleep(0.02)
    time.sleep(0.1)
    print("STATES", *map(state, victims), flush=True)
    for process in (job, *victims):
        process.kill()
        process.wait()
    os._exit(0)
try:
    while text := os.read(terminal, 4096):
        os.write(1, text)
except OSError:
    pass
"""
WAYS = {
    "the group that it came from": (
        "group = os.getpgrp()\nos.setpgid(0, 0); os.tcsetpgrp(0, os.getpgrp()); os.setpgid(0, group)\nos.read(0, 1)"
    ),
    "another group": "os.setpgid(0, int(os.environ['FAR'])); os.read(0, 1)",
    "another group by machine code": "call('setpgid', 1 << 40, int(os.environ['FAR']) | 1 << 40); os.read(0, 1)",
}
IGNORING = "import signal; signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"


def stopped(ended: Finished) -> bool:
    """Tell whether one of the victims was."""
    return "T" in ended.stdout.partition("STATES")[2]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_by_reading_in_the_background(attacker: Attacker, way: str) -> None:
    tool("sleep")
    around = (attacker.python, "-c", LEADER)
    attacker.must_fail(IGNORING + way, "--allow-ffi", harm=stopped, around=around)


def test_the_twin(attacker: Attacker) -> None:
    """A group of one's own, and with ``--allow-child-process`` what a shell does."""
    attacker.lay_out()
    own = attacker.confined("os.setpgid(0, 0); print('OWN', os.getpgrp() == os.getpid())")
    assert "OWN True" in own.stdout, own.said
    body = (
        f"{IGNORING}child = os.fork()\n"
        "if child == 0: os.read(0, 1); os._exit(0)\n"
        "os.setpgid(child, child); os.tcsetpgrp(0, child); print('FRONT', os.tcgetpgrp(0) == child, flush=True)\n"
        "os.kill(child, 9)"
    )
    around = (attacker.python, "-c", LEADER)
    shell = attacker.confined(body, "--allow-child-process", before=around)
    assert "FRONT True" in shell.stdout, shell.said
