"""What counts processes: new ones are notified, threads and everything else are as without it."""

from __future__ import annotations

import pytest

from sandboxed_python.kernel import uapi
from sandboxed_python.plan.filters import load
from sandboxed_python.plan.forks import FORKS, counting, numbers
from tests.plan import bpf

PROGRAM = load("notify-change+map+stat", "x86_64")
FORK, THREAD = uapi.CLONE_VFORK | uapi.CLONE_VM | 17, uapi.CLONE_THREAD | uapi.CLONE_VM


@pytest.mark.parametrize("machine", list(uapi.AUDIT_ARCH))
def test_only_new_processes_are_notified_besides(machine: str) -> None:
    before = load("notify-change+map+stat", machine)
    after = counting(before, machine)
    column = list(uapi.AUDIT_ARCH).index(machine)
    clone = FORKS["clone"][column]
    assert clone is not None
    for number in range(470):
        for flags in (0, 17, FORK, THREAD, THREAD << 32 | 17):
            expected = bpf.run(before, number, [flags], machine)
            if number in numbers(machine) and not (number == clone and flags & uapi.CLONE_THREAD):
                expected = (bpf.USER_NOTIF, 0)
            assert bpf.run(after, number, [flags], machine) == expected, (number, flags)


@pytest.mark.parametrize("arch", ["i386", "arm", "x86_64", "aarch64"])
@pytest.mark.parametrize("machine", list(uapi.AUDIT_ARCH))
def test_another_architectures_calls_are_left_to_the_filter(machine: str, arch: str) -> None:
    before = load("notify-change+map+stat", machine)
    if arch != machine:
        for number in range(300):
            assert bpf.run(counting(before, machine), number, [17], arch) == bpf.run(before, number, [17], arch)
