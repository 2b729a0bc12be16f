"""Signals to processes outside of the sandbox: another one of the same user, and the supervisor.

The attack: kill, tgkill, queued signals, pidfds, process groups, SIGIO sent by the kernel on the program's behalf; with
``--allow-child-process`` by another program and by an orphan, too.
What stops it: Landlock's signal scope (ABI 6), also for what the program starts.
Source: landlock(7), F_SETOWN in fcntl(2); THREATS 7.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import PARENT, SLEEPER, Witness, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

# PID is the victim's.
BODIES = {
    "kill": "call('kill', PID, 9)",
    "tkill": "call('tkill', PID, 9)",
    "tgkill": "call('tgkill', PID, PID, 9)",
    "rt_sigqueueinfo": "import struct\n"
    "call('rt_sigqueueinfo', PID, 9, struct.pack('iiiiiiQ', 9, 0, -1, 0, os.getpid(), os.getuid(), 0).ljust(128, b'\\0'))",
    "rt_tgsigqueueinfo": "import struct\n"
    "call('rt_tgsigqueueinfo', PID, PID, 9,\n"
    "     struct.pack('iiiiiiQ', 9, 0, -1, 0, os.getpid(), os.getuid(), 0).ljust(128, b'\\0'))",
    "pidfd_send_signal": "call('pidfd_send_signal', call('pidfd_open', PID, 0), 9, 0, 0)",
    "a process group": "call('kill', -os.getpgid(PID), 9)",
    "SIGIO": "reader, writer = os.pipe()\n"
    "call('fcntl', reader, 10, 9); call('fcntl', reader, 8, PID); call('fcntl', reader, 4, 0o20000)\n"
    "os.write(writer, b'x')",
    "SIGIO of a group": "reader, writer = os.pipe()\n"
    "call('fcntl', reader, 10, 9); call('fcntl', reader, 8, -os.getpgid(PID)); call('fcntl', reader, 4, 0o20000)\n"
    "os.write(writer, b'x')",
    "SIGIO by F_SETOWN_EX": "import struct; reader, writer = os.pipe()\n"
    "call('fcntl', reader, 10, 9); call('fcntl', reader, 15, struct.pack('ii', 1, PID)); call('fcntl', reader, 4, 0o20000)\n"
    "os.write(writer, b'x')",
    "timer": "import struct; timer = ctypes.create_string_buffer(8)\n"
    "call('timer_create', 0, struct.pack('QiiI', 0, 9, 4, PID).ljust(64, b'\\0'), timer)\n"
    "call('timer_settime', struct.unpack('i', timer[:4])[0], 0, struct.pack('4Q', 0, 0, 0, 1), 0)\n"
    "import time; time.sleep(0.05)",
    "os.kill": "os.kill(PID, 9)",
    "os.killpg": "os.killpg(os.getpgid(PID), 9)",
}
# No process can do these to another one, sandbox or not: the kernel itself refuses.
IMPOSSIBLE = ("timer",)


class Victim:
    """A process that is replaced when it has been killed."""

    def __init__(self, attacker: Attacker, stack: contextlib.ExitStack) -> None:
        self.attacker = attacker
        self.stack = stack
        self.witness: Witness | None = None

    def renew(self) -> None:
        if self.witness is None or self.witness.died(0):
            self.witness = self.stack.enter_context(witness(self.attacker, SLEEPER))
        self.attacker.put("read/pid", str(self.witness.pid))

    def killed(self, _ended: Finished) -> bool:
        assert self.witness is not None
        return self.witness.died()


PID = "PID = int(open(READ + '/pid').read())\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BODIES if name not in IMPOSSIBLE])
def test_another_process(attacker: Attacker, name: str) -> None:
    with contextlib.ExitStack() as stack:
        victim = Victim(attacker, stack)
        attacker.must_fail(PID + BODIES[name], "--allow-ffi", harm=victim.killed, prepare=victim.renew)


def test_another_process_by_a_timer(attacker: Attacker) -> None:
    """The kernel itself refuses timers for other processes; it must stay so."""
    with contextlib.ExitStack() as stack:
        victim = Victim(attacker, stack)
        victim.renew()
        confined = attacker.confined(PID + BODIES["timer"], "--allow-ffi")
        assert not victim.killed(confined), confined.said


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "import subprocess; subprocess.run(['sh', '-c', f'kill -9 {PID}'], stderr=2)",
        (
            "import time\nif os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(0.1); os.kill(PID, 9); os._exit(0)\n"
            "    os._exit(0)\nos.wait(); time.sleep(0.3)"
        ),
    ],
    ids=["another program", "an orphan"],
)
def test_another_process_by_what_is_started(attacker: Attacker, body: str) -> None:
    with contextlib.ExitStack() as stack:
        victim = Victim(attacker, stack)
        attacker.must_fail(PID + body, "--allow-child-process", harm=victim.killed, prepare=victim.renew)


@pytest.mark.parametrize("name", [name for name in BODIES if name not in (*IMPOSSIBLE, "a process group")])
def test_the_supervisor(attacker: Attacker, name: str) -> None:
    """Without the sandbox, the victim is a shell that waits for the program."""
    body = BODIES[name]
    if "getpgid" in body:
        body = f"import signal; signal.signal(15, signal.SIG_IGN)\n{body}".replace(", 9", ", 15")
    attacker.must_fail(
        f"PID = os.getppid()\n{body}\nimport time; time.sleep(0.1)",
        "--allow-ffi",
        harm=lambda ended: ended.code < 0,
        before=PARENT,
    )


@pytest.mark.parametrize("target", ["0", "-os.getpgrp()"])
def test_the_supervisor_by_the_common_group(attacker: Attacker, target: str) -> None:
    attacker.must_fail(
        f"import signal; signal.signal(15, signal.SIG_IGN); call('kill', {target}, 15); import time; time.sleep(0.1)",
        "--allow-ffi",
        harm=lambda ended: ended.code == -15,
        before=PARENT,
    )
