"""A classic-BPF interpreter for seccomp filters, so that filters are tested without a kernel.

Runs in: tests only. It knows the instructions that the kernel accepts in a seccomp filter
(``Documentation/userspace-api/seccomp_filter.rst``, ``seccomp_check_filter`` in ``kernel/seccomp.c``) and refuses the
others as the kernel would at load time: an unknown instruction, a load outside of ``struct seccomp_data`` or unaligned,
a jump out of the program, a program that doesn't end in a return.
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

LD_W_ABS, LD_IMM, LD_MEM, LDX_IMM, LDX_MEM, ST, STX = 0x20, 0x00, 0x60, 0x01, 0x61, 0x02, 0x03
JA, RET_K, RET_A, TAX, TXA, NEG = 0x05, 0x06, 0x16, 0x07, 0x87, 0x84
JUMPS = {0x15: "eq", 0x1D: "eq", 0x25: "gt", 0x2D: "gt", 0x35: "ge", 0x3D: "ge", 0x45: "set", 0x4D: "set"}
ALU = {0x04: "add", 0x14: "sub", 0x24: "mul", 0x34: "div", 0x44: "or", 0x54: "and", 0x64: "lsh", 0x74: "rsh", 0xA4: "xor"}


class Instruction(NamedTuple):
    """One ``struct sock_filter``."""

    code: int
    jt: int
    jf: int
    k: int


class InvalidProgramError(ValueError):
    """The kernel wouldn't load this program."""


class Answer(NamedTuple):
    """What a filter answers.

    Attributes:
        action: ``SECCOMP_RET_*`` without its data, e.g. ``ALLOW``.
        data: the low 16 bits: the errno of ``ERRNO``.
        steps: instructions run, the return included.
    """

    action: int
    data: int
    steps: int


def parse(program: bytes) -> list[Instruction]:
    """Read raw ``struct sock_filter`` entries and check them as the kernel does when it loads a filter.

    Raises:
        InvalidProgramError: the kernel would refuse the program.
    """
    if not program or len(program) % 8 or len(program) // 8 > MAX_INSTRUCTIONS:
        message = f"bad length: {len(program)} bytes"
        raise InvalidProgramError(message)
    code = [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]
    for at, (op, jt, jf, k) in enumerate(code):
        message = f"instruction {at}: {op:#x} {jt} {jf} {k:#x}"
        if op == LD_W_ABS:
            if k % 4 or k >= SIZEOF_SECCOMP_DATA:
                raise InvalidProgramError(message)
        elif op in JUMPS:
            if at + 1 + max(jt, jf) >= len(code):
                raise InvalidProgramError(message)
        elif op == JA:
            if at + 1 + k >= len(code):
                raise InvalidProgramError(message)
        elif op in (LD_MEM, LDX_MEM, ST, STX):
            if k >= 16:  # noqa: PLR2004  BPF_MEMWORDS
                raise InvalidProgramError(message)
        elif op not in (LD_IMM, LDX_IMM, RET_K, RET_A, TAX, TXA, NEG) and op & ~0x08 not in ALU:
            raise InvalidProgramError(message)
    if code[-1].code not in (RET_K, RET_A):
        message = "the program doesn't end in a return"
        raise InvalidProgramError(message)
    return code


def _alu(name: str, a: int, b: int) -> int:
    if name == "div":
        return a // b
    if name in ("lsh", "rsh"):
        return a << b if name == "lsh" else a >> b
    return {"add": a + b, "sub": a - b, "mul": a * b, "or": a | b, "and": a & b, "xor": a ^ b}[name]


def _taken(name: str, a: int, b: int) -> bool:
    return {"eq": a == b, "gt": a > b, "ge": a >= b, "set": bool(a & b)}[name]


def execute(code: Sequence[Instruction], data: bytes) -> Answer:
    """Run a parsed program over one ``struct seccomp_data``."""
    words = struct.unpack("=16I", data)
    a = x = at = steps = 0
    memory = [0] * 16
    while True:
        op, jt, jf, k = code[at]
        at += 1
        steps += 1
        if op == LD_W_ABS:
            a = words[k // 4]
        elif op in JUMPS:
            at += jt if _taken(JUMPS[op], a, x if op & 0x08 else k) else jf
        elif op == JA:
            at += k
        elif op in (RET_K, RET_A):
            value = k if op == RET_K else a
            return Answer(value & 0xFFFF0000, value & 0xFFFF, steps)
        elif op & ~0x08 in ALU:
            a = _alu(ALU[op & ~0x08], a, x if op & 0x08 else k) & 0xFFFFFFFF
        elif op == LD_IMM:
            a = k
        elif op == LD_MEM:
            a = memory[k]
        elif op == LDX_IMM:
            x = k
        elif op == LDX_MEM:
            x = memory[k]
        elif op == ST:
            memory[k] = a
        elif op == STX:
            memory[k] = x
        elif op == NEG:
            a = -a & 0xFFFFFFFF
        elif op == TAX:
            x = a
        else:
            a = x


def seccomp_data(nr: int, args: Sequence[int] = (), arch: str | int = "x86_64") -> bytes:
    """Pack ``struct seccomp_data``. ``args`` are taken as 64-bit registers, missing ones are 0; ``nr`` as 32 bits."""
    full = [value & 0xFFFFFFFFFFFFFFFF for value in (*args, *(0,) * (6 - len(args)))]
    token = AUDIT_ARCH[arch] if isinstance(arch, str) else arch
    return struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, token, 0x7F0012345678, *full)


def run(program: bytes, nr: int, args: Sequence[int] = (), arch: str | int = "x86_64") -> tuple[int, int]:
    """Return (action, data) that a filter answers to one system call.

    Raises:
        InvalidProgramError: the kernel would refuse the program.
    """
    answer = execute(parse(program), seccomp_data(nr, args, arch))
    return answer.action, answer.data
