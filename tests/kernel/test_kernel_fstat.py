"""The instructions before a notifying filter that let libc's fstat() pass: nothing but it passes by them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.kernel import fstat, uapi
from sandboxed_python.kernel.calls import Char, addressof
from sandboxed_python.plan import filters
from sandboxed_python.plan.seccomp import shipped
from tests.plan.bpf import ALLOW, AUDIT_ARCH, USER_NOTIF, run

ADDRESS = 0x7F3A_1019_6DD5
NOTIFYING = filters.load("notify-change+map+stat", "x86_64")
PASSING = fstat.pass_fstat(NOTIFYING, ADDRESS)
NEWFSTATAT = 262
FD, BUFFER = 3, 0x7FFE_0000_0000


def test_it_passes() -> None:
    assert run(NOTIFYING, NEWFSTATAT, (FD, ADDRESS, BUFFER, 0x1000)) == (USER_NOTIF, 0)
    for descriptor, high in itertools.product((0, FD, 1 << 20), (0, 1 << 32)):
        assert run(PASSING, NEWFSTATAT, (descriptor | high, ADDRESS, BUFFER, 0x1000 | high)) == (ALLOW, 0)


@pytest.mark.parametrize(
    ("nr", "args", "arch"),
    [
        (NEWFSTATAT, (FD, ADDRESS + 1, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT, (FD, ADDRESS | 1 << 63, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT, (FD, ADDRESS & 0xFFFFFFFF, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT, (FD, ADDRESS, BUFFER, 0), "x86_64"),
        (NEWFSTATAT, (FD, ADDRESS, BUFFER, 0x1100), "x86_64"),
        (NEWFSTATAT, (-100, ADDRESS, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT, (-100 & 0xFFFFFFFF, ADDRESS, BUFFER, 0x1000), "x86_64"),
        (uapi.RAW["statx"][0], (FD, ADDRESS, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT | uapi.X32_SYSCALL_BIT, (FD, ADDRESS, BUFFER, 0x1000), "x86_64"),
        (NEWFSTATAT, (FD, ADDRESS, BUFFER, 0x1000), "i386"),
        (NEWFSTATAT, (FD, ADDRESS, BUFFER, 0x1000), "aarch64"),
    ],
)
def test_nothing_else_does(nr: int, args: tuple[int, ...], arch: str) -> None:
    assert run(PASSING, nr, args, arch) == run(NOTIFYING, nr, args, arch)


REGISTERS = st.integers(0, 2**64 - 1) | st.sampled_from((FD, ADDRESS, 0x1000, 0, 2**64 - 100, 2**32 - 100))


@given(
    st.sampled_from((NEWFSTATAT, 5, 332, NEWFSTATAT | uapi.X32_SYSCALL_BIT)) | st.integers(0, 600),
    st.tuples(*[REGISTERS] * 6),
    st.sampled_from(sorted(AUDIT_ARCH)),
)
def test_every_other_call_is_answered_as_before(nr: int, args: tuple[int, ...], arch: str) -> None:
    its = (arch, nr, args[1], args[3] & 0xFFFFFFFF) == ("x86_64", NEWFSTATAT, ADDRESS, 0x1000)
    if its and args[0] & 0xFFFFFFFF != 2**32 - 100:
        assert run(PASSING, nr, args, arch) == (ALLOW, 0)
    else:
        assert run(PASSING, nr, args, arch) == run(NOTIFYING, nr, args, arch)


def test_every_notifying_filter_has_room_for_it() -> None:
    """BPF_MAXINSNS (linux/bpf_common.h) is the most that the kernel takes."""
    names = [name for name in shipped() if name.startswith(filters.NOTIFY)]
    assert names
    for name in names:
        run(fstat.pass_fstat(filters.load(name, "x86_64"), ADDRESS), 0)


def test_what_is_found_is_an_empty_string_that_nobody_may_write() -> None:
    address = fstat._find()
    if not address:
        pytest.skip("needs a libc whose fstat() is a newfstatat (2.33 to 2.38)")
    assert fstat._is_constant(address)
    writable = Char.from_buffer(bytearray(1))
    assert not fstat._is_constant(addressof(writable))
    assert not fstat._is_constant(8)
