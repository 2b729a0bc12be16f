"""Limits, scheduling and placement of processes outside of the sandbox.

The attack: prlimit, sched_*, setpriority, ioprio_set with another process's id. The kernel asks only for the same user,
and a CPU limit of 0 kills its target, the supervisor included.
What stops it: the static filter takes only the id 0, the caller. No Landlock scope covers these.
Source: prlimit(2), sched_setaffinity(2); THREATS 7 (res_*).
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import PARENT, SLEEPER, number, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

FLAGS = ("--allow-ffi", "--allow-child-process", "--allow-worker", "--allow-inspector")
LOW = 15
BODIES = {
    "prlimit": "import struct; call('prlimit64', PID, 7, struct.pack('QQ', 64, 64), 0)",
    "prlimit, id with more bits": "import struct; call('prlimit64', PID | 1 << 32, 7, struct.pack('QQ', 64, 64), 0)",
    "sched_setaffinity": "call('sched_setaffinity', PID, 8, (1).to_bytes(8, 'little'))",
    "sched_setscheduler": "call('sched_setscheduler', PID, 3, bytes(4))",
    "sched_setattr": "import struct\ncall('sched_setattr', PID, struct.pack('IIQiIQQQ', 48, 3, 0, 15, 0, 0, 0, 0), 0)",
    "setpriority": "call('setpriority', 0, PID, 15)",
    "setpriority of its group": "call('setpriority', 1, os.getpgid(PID), 15)",
    "ioprio_set": "call('ioprio_set', 1, PID, 3 << 13)",
    "ioprio_set of its group": "call('ioprio_set', 2, os.getpgid(PID), 3 << 13)",
    "os.setpriority": "os.setpriority(os.PRIO_PROCESS, PID, 15)",
    "os.sched_setaffinity": "os.sched_setaffinity(PID, [0])",
    "resource.prlimit": "import resource; resource.prlimit(PID, resource.RLIMIT_NOFILE, (64, 64))",
}


def state(pid: int) -> tuple[object, ...]:
    """Return what an outsider can see of a process's limits, scheduling and placement."""
    libc = ctypes.CDLL(None)
    with open(f"/proc/{pid}/limits") as limits:
        files = next(line for line in limits if line.startswith("Max open files"))
    return (
        files,
        os.sched_getaffinity(pid),
        os.sched_getscheduler(pid),
        os.getpriority(os.PRIO_PROCESS, pid),
        libc.syscall(number("ioprio_get"), 1, pid),
    )


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_another_process(attacker: Attacker, body: str) -> None:
    if "affinity" in body and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("needs two processors; found one")
    if re.search("setpriority|setattr", body) and os.getpriority(os.PRIO_PROCESS, 0) >= LOW and os.geteuid() != 0:
        # It sets a priority, and only root can raise one.
        pytest.skip(f"needs a nice value below {LOW}; found {os.getpriority(os.PRIO_PROCESS, 0)}")
    # Each run gets a process of its own, for what is changed stays so.
    with witness(attacker, SLEEPER) as other:
        before = state(other.pid)
        plain = attacker.plain(f"PID = {other.pid}\n{body}")
        assert state(other.pid) != before, plain.said
    with witness(attacker, SLEEPER) as other:
        before = state(other.pid)
        confined = attacker.confined(f"PID = {other.pid}\n{body}", *FLAGS)
        assert state(other.pid) == before, confined.said
        assert "TRIED: done" in confined.stdout or "OSError" in confined.stdout, confined.said


def test_the_memory_of_another_process(superuser: Attacker) -> None:
    """process_madvise can push another process's memory out; it asks for a capability, too."""
    with witness(superuser, SLEEPER) as other:
        body = f"print(attempt('process_madvise', call('pidfd_open', {other.pid}, 0), 0, 0, 20, 0))"
        superuser.must_fail(body, *FLAGS, harm=lambda ended: "did" in ended.stdout)


@pytest.mark.parametrize(
    "body",
    [
        "import struct; print(attempt('prlimit64', os.getppid(), 0, struct.pack('QQ', 0, 0), 0))",
        "print(attempt('setpriority', 0, os.getppid(), 19))",
        "print(attempt('sched_setaffinity', os.getppid(), 8, (1).to_bytes(8, 'little')))",
        "print(attempt('sched_setscheduler', os.getppid(), 3, bytes(4)))",
        "print(attempt('ioprio_set', 1, os.getppid(), 3 << 13))",
        "print(attempt('prlimit64', os.getppid(), 7, 0, ctypes.create_string_buffer(16)))",
    ],
    ids=["prlimit kills", "setpriority", "affinity", "scheduler", "ioprio", "prlimit reads"],
)
def test_the_supervisor(attacker: Attacker, body: str) -> None:
    attacker.must_fail(body, *FLAGS, harm=lambda ended: "did" in ended.stdout, before=PARENT)


def test_the_own_limits_work(attacker: Attacker) -> None:
    """The twin: the same calls about oneself."""
    body = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); os.sched_setaffinity(0, [0])\n"
        "os.setpriority(os.PRIO_PROCESS, 0, 19)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0), os.getpriority(0, 0))"
    )
    confined = attacker.confined(body)
    assert "(64, 64) {0} 19" in confined.stdout, confined.said
