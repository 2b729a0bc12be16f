"""Typing into the terminal that outlives the sandbox.

The attack: TIOCSTI pushes characters into the input queue, where the shell reads them as if they were typed; TIOCLINUX
pastes on a console. The kernel takes the command from the low 32 bits, so a filter that compares all 64 is walked around.
What stops it: ioctl by a list of commands, on the low 32 bits. Source: ioctl_tty(2), CVE-2019-10063, CVE-2017-5226 and
their like; THREATS 7 (tty_tiocsti, tty_tiocsti_high).
"""

from __future__ import annotations

import os
import pty
import select
import tty
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import source
from tests.support import execute

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# Makes the terminal (its descriptor is the first argument) the controlling one, and its standard input.
ON_A_TERMINAL = (
    "import fcntl, os, sys, termios\nfd = int(sys.argv[1])\nos.dup2(fd, 0)\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
BODIES = {
    "TIOCSTI": "call('ioctl', 0, 0x5412, b'x')",
    "TIOCSTI with high bits": "call('ioctl', 0, 0x5412 | 1 << 32, b'x')",
    "TIOCSTI with the sign": "call('ioctl', 0, 0x5412 - (1 << 40), b'x')",
    "fcntl.ioctl": "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "on /dev/tty": "call('ioctl', raw_open('/dev/tty', os.O_RDWR), 0x5412, b'x')",
}


def typed(attacker: Attacker, body: str, *, confined: bool) -> tuple[bytes, str]:
    """Run an attack on a terminal and return what waits in its input queue afterwards."""
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        if attacker.user is not None:
            os.fchown(slave, attacker.user, attacker.user)
        flags = ["--permission", *attacker.grants, "--allow-ffi", "--allow-fs-read=*", "--allow-fs-write=*"]
        words = [*attacker.command, *flags] if confined else [attacker.python]
        ended = execute(
            [attacker.python, "-c", ON_A_TERMINAL, str(slave), *words, "-c", source(body, attacker.home)],
            user=attacker.user,
            pass_fds=(slave,),
            cwd="/",
        )
        assert "TRIED" in ended.stdout, ended.said
        waits = bool(select.select([slave], [], [], 0)[0])
        return os.read(slave, 99) if waits else b"", ended.said
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_typing(attacker: Attacker, body: str) -> None:
    if attacker.name != "root":
        with open("/proc/sys/dev/tty/legacy_tiocsti") as file:
            if file.read().strip() == "0":
                pytest.skip("needs dev.tty.legacy_tiocsti=1, else the kernel refuses by itself; found 0")
    got, said = typed(attacker, body, confined=False)
    assert got == b"x", said
    got, said = typed(attacker, body, confined=True)
    assert got == b"", said


@pytest.mark.parametrize("command", [0x541C, 0x541D, 0x5423, 0x540C, 0x5604, 0x4B44, 0x4B4E, 0x5606])
def test_commands_of_consoles(attacker: Attacker, command: int) -> None:
    """TIOCLINUX, TIOCCONS, TIOCSETD, TIOCEXCL, PIO_*, KDSKBMODE and VT_ACTIVATE: none is on the list."""
    _, said = typed(attacker, f"print(attempt('ioctl', 0, {command}, ctypes.create_string_buffer(64)))", confined=True)
    assert "EPERM" in said, said


def test_the_twin(attacker: Attacker) -> None:
    """A terminal can be used: its size, its modes, its name."""
    body = (
        "import termios, tty; tty.setraw(0); print(os.isatty(0), os.get_terminal_size(0)[0] >= 0, os.tcgetpgrp(0) > 0)"
    )
    _, said = typed(attacker, body, confined=True)
    assert "True True True" in said, said
