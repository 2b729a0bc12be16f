"""A classic-BPF interpreter for seccomp filters, so that filters are tested without a kernel.

Runs in: tests only. It knows the instructions that filters of ours are made of, and refuses all others; and it refuses
what the kernel refuses when it loads a filter (``seccomp_check_filter`` in ``kernel/seccomp.c``): a load outside of
``struct seccomp_data``, a jump out of the program, a program that doesn't end in a return.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
USER_NOTIF = 0x7FC00000
ALLOW = 0x7FFF0000
MAX_INSTRUCTIONS = 4096
SIZEOF_SECCOMP_DATA = 64

LOAD, AND, JUMP, EQUAL, GREATER, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06


class Instruction(NamedTuple):
    """One ``struct sock_filter``."""

    code: int
    jt: int
    jf: int
    k: int


class InvalidProgramError(ValueError):
    """The kernel wouldn't load this program, or it isn't one of ours."""


class Answer(NamedTuple):
    """What a filter answers.

    Attributes:
        action: ``SECCOMP_RET_*`` without its data, e.g. ``ALLOW``.
        data: the low 16 bits: the errno of ``ERRNO``.
        steps: instructions run, the return included.
        registers: whether it looked at anything but the number and the architecture; if not, the kernel's cache of
            calls that always pass can answer for the filter (``seccomp_is_const_allow``).
    """

    action: int
    data: int
    steps: int
    registers: bool


def parse(program: bytes) -> list[Instruction]:
    """Read raw ``struct sock_filter`` entries and check them as the kernel does when it loads a filter.

    Raises:
        InvalidProgramError: the kernel would refuse the program, or it has an instruction unknown here.
    """
    if not program or len(program) % 8 or len(program) // 8 > MAX_INSTRUCTIONS:
        message = f"bad length: {len(program)} bytes"
        raise InvalidProgramError(message)
    code = [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]
    for at, (op, jt, jf, k) in enumerate(code):
        left = len(code) - at - 1
        good = {
            LOAD: k % 4 == 0 and k < SIZEOF_SECCOMP_DATA,
            AND: True,
            JUMP: k < left,
            EQUAL: max(jt, jf) < left,
            GREATER: max(jt, jf) < left,
            AT_LEAST: max(jt, jf) < left,
            ANY_BIT: max(jt, jf) < left,
            RETURN: True,
        }.get(op, False)
        if not good or (left == 0 and op != RETURN):
            message = f"instruction {at}: {op:#x} {jt} {jf} {k:#x}"
            raise InvalidProgramError(message)
    return code


def execute(code: Sequence[Instruction], data: bytes) -> Answer:
    """Run a parsed program over one ``struct seccomp_data``."""
    words = struct.unpack("=16I", data)
    accumulator = at = steps = 0
    registers = False
    while True:
        op, jt, jf, k = code[at]
        at += 1
        steps += 1
        if op == LOAD:
            accumulator = words[k // 4]
            registers |= k >= 8
        elif op == EQUAL:
            at += jt if accumulator == k else jf
        elif op == GREATER:
            at += jt if accumulator > k else jf
        elif op == AT_LEAST:
            at += jt if accumulator >= k else jf
        elif op == ANY_BIT:
            at += jt if accumulator & k else jf
        elif op == JUMP:
            at += k
        elif op == AND:
            accumulator &= k
        else:
            return Answer(k & 0xFFFF0000, k & 0xFFFF, steps, registers)


def seccomp_data(nr: int, args: Sequence[int] = (), arch: str | int = "x86_64") -> bytes:
    """Pack ``struct seccomp_data``. ``args`` are taken as 64-bit registers, missing ones are 0; ``nr`` as 32 bits."""
    full = [value & 0xFFFFFFFFFFFFFFFF for value in (*args, *(0,) * (6 - len(args)))]
    token = AUDIT_ARCH[arch] if isinstance(arch, str) else arch
    return struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, token, 0x7F0012345678, *full)


def run(program: bytes, nr: int, args: Sequence[int] = (), arch: str | int = "x86_64") -> tuple[int, int]:
    """Return (action, data) that a filter answers to one system call.

    Raises:
        InvalidProgramError: see ``parse``.
    """
    answer = execute(parse(program), seccomp_data(nr, args, arch))
    return answer.action, answer.data
