"""Other entries to the kernel than the one that the filter was written for.

The attack: io_uring, which carries out calls that no filter sees; ``int 0x80``, where other numbers mean other calls;
x32 numbers; numbers above the table.
What stops it: the static filter: no io_uring; its first instruction kills what comes with another architecture; numbers
it doesn't know answer ENOSYS. Source: io_uring(7), seccomp(2) on architectures; THREATS 11 (metaw_iouring, net_int80).
"""

from __future__ import annotations

import os
import platform
import signal
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

RING = """
import struct
parameters = ctypes.create_string_buffer(120)
ring = call('io_uring_setup', 4, parameters)
words = struct.unpack('30I', parameters.raw)
head, tail, mask, entries, _, dropped, array = words[10:17]
queue = mapped(array + 4 * words[0], 3, 1, ring, 0)
completions = mapped(words[20 + 5] + 16 * words[1], 3, 1, ring, 0x8000000)
slots = mapped(64 * words[0], 3, 1, ring, 0x10000000)
path, name, value = (ctypes.create_string_buffer(text) for text in (PATH.encode(), b'user.attack', b'x'))
place = ctypes.addressof
ctypes.memmove(slots, struct.pack('BBHiQQIIQQQQ', *ENTRY), 64)
ctypes.memmove(queue + array, bytes(4), 4)
ctypes.memmove(queue + tail, struct.pack('I', 1), 4)
call('io_uring_enter', ring, 1, 1, 1, 0, 0)
print('result', struct.unpack('i', ctypes.string_at(completions + words[20 + 5] + 8, 4))[0])
"""


def ring(path: str, entry: str) -> str:
    """Return an attack by one entry: opcode, flags, priority, fd, off, addr, len, flags of the call, 0, 0, addr3, 0."""
    return f"PATH = {path}\nENTRY = lambda: ({entry})\n{RING.replace('*ENTRY', '*ENTRY()')}"


def test_io_uring_opens(attacker: Attacker) -> None:
    attacker.must_fail(
        ring("SECRET + '/new'", "18, 0, 0, -100, 0, place(path), 0o644, 0o101, 0, 0, 0, 0"),
        "--allow-ffi",
        harm=lambda _: attacker.exists("secret/new"),
    )


def test_io_uring_changes_attributes(attacker: Attacker) -> None:
    """Landlock has no right for this one."""
    try:
        os.setxattr(attacker.path("secret/data"), "user.probe", b"x")
    except OSError as error:
        pytest.skip(f"needs extended attributes in {attacker.home}; found {error}")
    attacker.must_fail(
        ring("SECRET + '/data'", "42, 0, 0, 0, place(value), place(name), 1, 0, 0, 0, place(path), 0"),
        "--allow-ffi",
        harm=lambda _: "user.attack" in os.listxattr(attacker.path("secret/data")),
    )


def test_io_uring_makes_sockets(attacker: Attacker) -> None:
    attacker.must_fail(
        ring("''", "45, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0"),
        "--allow-ffi",
        harm=lambda ended: "result" in ended.stdout and "result -" not in ended.stdout,
    )


# push rbx; mov eax, number; mov ebx, first; mov ecx, second; mov edx, third; int 0x80; pop rbx; ret
INT80 = """
import struct
page = mapped(8192, 7, 0x62)  # MAP_32BIT: the pointer must fit into 32 bits
ctypes.memmove(page + 4096, PATH.encode() + b'\\0', len(PATH.encode()) + 1)
FIRST = page + 4096 if FIRST is None else FIRST
code = b'\\x53\\xb8' + struct.pack('I', NUMBER) + b'\\xbb' + struct.pack('I', FIRST) + b'\\xb9' + struct.pack('I', SECOND)
ctypes.memmove(page, code + b'\\xba\\0\\0\\0\\0\\xcd\\x80\\x5b\\xc3', 25)
print('result', ctypes.CFUNCTYPE(ctypes.c_int)(page)(), flush=True)
"""


def x86_64() -> None:
    if platform.machine() != "x86_64":
        pytest.skip(f"needs x86-64, which has a second system call table; found {platform.machine()}")


def int80(attacker: Attacker) -> None:
    """Skip where the kernel has no 32-bit calls: the attack is impossible there."""
    x86_64()
    probe = attacker.plain(f"PATH, NUMBER, FIRST, SECOND = '', 20, 0, 0\n{INT80}")
    if probe.code or "result -" in probe.stdout:
        pytest.skip(f"needs a kernel with 32-bit system calls; found none: getpid by int 0x80 gave {probe.said}")


def test_int80_sets_a_set_id_bit(attacker: Attacker) -> None:
    int80(attacker)
    attacker.must_fail(
        f"PATH, NUMBER, FIRST, SECOND = WRITE + '/data', 15, None, 0o4755\n{INT80}",
        "--allow-ffi",
        harm=lambda _: os.stat(attacker.path("write/data")).st_mode & stat.S_ISUID,
        code=-signal.SIGSYS,
    )


def test_int80_forks(attacker: Attacker) -> None:
    int80(attacker)
    attacker.must_fail(
        f"PATH, NUMBER, FIRST, SECOND = WRITE + '/by', 2, 0, 0\n{INT80}\n"
        "open(f'{PATH}-{os.getpid()}', 'w').close(); os.getppid() == 1 or os._exit(0)",
        "--allow-ffi",
        harm=lambda _: sum(name.startswith("by-") for name in os.listdir(attacker.path("write"))) > 1,
        code=-signal.SIGSYS,
    )


def test_x32_numbers(attacker: Attacker) -> None:
    """Without x32 in the kernel, it is the kernel that answers; the filter must not be the weaker one."""
    x86_64()
    body = "NR['mkdir'] = 0x40000000 | 83\nprint(attempt('mkdir', (WRITE + '/by').encode(), 0o755))"
    plain = attacker.plain(body)
    confined = attacker.confined(body, "--allow-ffi")
    if not attacker.exists("write/by"):
        assert "ENOSYS" in plain.stdout, plain.said
    assert "ENOSYS" in confined.stdout, confined.said


@pytest.mark.parametrize("number", [470, 511, 512, 547, 600, 1 << 20, 0x3FFFFFFF, -1])
def test_unknown_numbers(attacker: Attacker, number: int) -> None:
    """Calls that are younger than the table don't exist."""
    body = f"NR['getpid'] = {number}\nprint(attempt('getpid', 0, 0, 0))"
    confined = attacker.confined(body, "--allow-ffi")
    assert "ENOSYS" in confined.stdout, confined.said
