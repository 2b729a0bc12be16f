"""A program for another architecture, started with ``--allow-child-process``.

The attack: a 32-bit program, whose system calls have other numbers, changes what isn't granted. It was written before and
lies in a folder that is granted for reading, which child processes may execute.
What stops it: the filter is inherited, and its first instruction kills what comes with another architecture.
Source: seccomp(2) on architectures; THREATS 9 and 11 (metaw_elf32).
"""

from __future__ import annotations

import os
import platform
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

BASE, HEADERS = 0x08048000, 52 + 32


def program(number: int, path: bytes, second: int) -> bytes:
    """Return a 32-bit program that makes one system call on a path, and ends; elf(5)."""
    # mov eax, number; mov ebx, path; mov ecx, second; int 0x80; mov eax, 1; xor ebx, ebx; int 0x80
    size = 5 + 5 + 5 + 2 + 5 + 2 + 2
    code = b"\xb8" + struct.pack("<I", number) + b"\xbb" + struct.pack("<I", BASE + HEADERS + size)
    code += b"\xb9" + struct.pack("<I", second) + b"\xcd\x80\xb8\x01\0\0\0\x31\xdb\xcd\x80"
    assert len(code) == size
    whole = HEADERS + size + len(path) + 1
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, BASE + HEADERS, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    head += struct.pack("<IIIIIIII", 1, 0, BASE, BASE, whole, whole, 5, 0x1000)
    return head + code + path + b"\0"


@pytest.mark.parametrize(("number", "second"), [(15, 0o777), (39, 0o755)], ids=["chmod", "mkdir"])
def test_a_32_bit_program(attacker: Attacker, number: int, second: int) -> None:
    if platform.machine() != "x86_64":
        pytest.skip(f"needs x86-64, whose instructions these are; found {platform.machine()}")
    target = attacker.path("secret", "data" if number == 15 else "new")

    def prepare() -> None:
        attacker.put("read/program", program(number, os.fsencode(target), second), 0o755)

    def harm(_ended: object) -> bool:
        return os.path.exists(target) if number == 39 else os.stat(target).st_mode & 0o777 == 0o777

    body = "import subprocess; print('ended', subprocess.run([READ + '/program']).returncode)"
    prepare()
    plain = attacker.plain(body)
    if not harm(plain):
        pytest.skip(f"needs a kernel with 32-bit system calls; found {plain.stdout.strip()}")
    confined = attacker.must_fail(body, "--allow-child-process", harm=harm, prepare=prepare)
    assert "ended -31" in confined.stdout, confined.said  # SIGSYS: it did start
