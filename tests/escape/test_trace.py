"""Another process's memory and registers.

The attack: ptrace, process_vm_readv and _writev, kcmp, process_mrelease on a process of the same user; with
``--allow-inspector``, which opens these calls inside of the sandbox.
What stops it: Landlock's ptrace rule (a process outside of the domain can't be traced), and without the flag the static
filter. Source: ptrace(2), landlock(7); THREATS 8 (insp_*, mem_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# The text stands behind 32 bytes of header; "outside" is its address. The process says when it is written to.
VICTIM = (
    f"import os, sys, time; text = b'{TOKEN}'; print(id(text) + 32)\n"
    "for n in range(6000):\n  time.sleep(0.01)\n  if text[0] != ord('t'): os._exit(3)"
)
VECTORS = (
    "import struct; buffer = ctypes.create_string_buffer(VALUE, 32)\n"
    "local = struct.pack('QQ', ctypes.addressof(buffer), SIZE); remote = struct.pack('QQ', PLACE, SIZE)\n"
)
READS = {
    "process_vm_readv": f"VALUE, SIZE = b'', {len(TOKEN)}\n{VECTORS}"
    "call('process_vm_readv', PID, local, 1, remote, 1, 0); print(buffer.value.decode())",
    "ptrace": "libc.ptrace.restype = ctypes.c_long; buffer = ctypes.create_string_buffer(8)\n"
    "import time; call('ptrace', 16, PID, 0, 0); time.sleep(0.1)\n"
    "text = b''\nfor at in range(0, 16, 8):\n    call('ptrace', 1, PID, PLACE + at, buffer); text += buffer.raw\n"
    f"print({TOKEN!r} if text == {TOKEN.encode()[:16]!r} else text); call('ptrace', 17, PID, 0, 0)",
    "ptrace seize": "call('ptrace', 0x4206, PID, 0, 0); print('" + TOKEN + "')",
    "kcmp": "print(call('kcmp', PID, os.getpid(), 1, 0, 0)); print('" + TOKEN + "')",
}


@pytest.mark.parametrize("body", READS.values(), ids=READS)
def test_reading(attacker: Attacker, body: str) -> None:
    with witness(attacker, VICTIM) as other:
        attack = f"PID, PLACE = {other.pid}, {other.said}\n{body}"
        attacker.must_fail(attack, "--allow-ffi", harm=leaked)
        confined = attacker.confined(attack, "--allow-ffi", "--allow-inspector", "--allow-child-process")
        assert not leaked(confined), confined.said


def test_writing(attacker: Attacker) -> None:
    body = f"VALUE, SIZE = b'overwritten', 8\n{VECTORS}call('process_vm_writev', PID, local, 1, remote, 1, 0)"
    with witness(attacker, VICTIM) as other:
        for flags in ((), ("--allow-inspector",)):
            confined = attacker.confined(f"PID, PLACE = {other.pid}, {other.said}\n{body}", "--allow-ffi", *flags)
            assert not other.died(), confined.said
        plain = attacker.plain(f"PID, PLACE = {other.pid}, {other.said}\n{body}")
        assert other.died(), plain.said
        assert other.process.returncode == 3, plain.said


def test_who_may_trace_the_program_stays_as_it_is(attacker: Attacker) -> None:
    """PR_SET_PTRACER would open the program to tracers outside; PR_SET_DUMPABLE 0 would shut the supervisor out."""
    confined = attacker.confined(
        "print(attempt('prctl', 0x59616D61, -1, 0, 0, 0), attempt('prctl', 4, 0, 0, 0, 0))", "--allow-ffi"
    )
    assert "EPERM EPERM" in confined.stdout, confined.said


@pytest.mark.parametrize("way", [(), ("-I",)], ids=["fork", "exec"])
def test_the_supervisor(attacker: Attacker, way: tuple[str, ...]) -> None:
    body = (
        "print([attempt('ptrace', 0x4206, os.getppid(), 0, 0), attempt('kcmp', os.getppid(), os.getpid(), 1, 0, 0),\n"
        "       attempt('pidfd_getfd', call('pidfd_open', os.getppid(), 0), 0, 0)])"
    )
    confined = attacker.confined(body, "--allow-ffi", "--allow-inspector", *way)
    assert "did" not in confined.stdout, confined.said
    assert "['EPERM', 'EPERM', 'ENOSYS']" in confined.stdout, confined.said
