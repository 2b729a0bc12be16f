"""The filters: their names, the shipped files, and what they answer, by the interpreter in bpf.py."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.errors import UnsupportedError
from sandboxed_python.kernel import tables, uapi
from sandboxed_python.plan import filters, seccomp
from sandboxed_python.plan.syscalls import BY_NAME, CALLS, REGISTER, Call, Rule
from tests.plan import bpf

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Sequence

Args = tuple[int, int, int, int, int, int]
ZEROS: Args = (0, 0, 0, 0, 0, 0)
ONES: Args = (REGISTER,) * 6
HIGH = 0xDEADBEEF << 32

NAMES = tuple(seccomp.shipped())
STRICT = tuple(name for name in NAMES if name not in ("notify-audit", "notify-quiet"))
STATIC = tuple(name for name in NAMES if not name.startswith((filters.NOTIFY, filters.NO_MAP)))
NOTIFYING = tuple(name for name in NAMES if name.startswith(filters.NOTIFY))
FULLEST = "child+worker+net+inspector+exec-memory"

ALLOW = (bpf.ALLOW, 0)
EPERM = (bpf.ERRNO, errno.EPERM)
EACCES = (bpf.ERRNO, errno.EACCES)
ENOSYS = (bpf.ERRNO, errno.ENOSYS)
NOTIFY = (bpf.USER_NOTIF, 0)


@functools.cache
def program(name: str, machine: str) -> list[bpf.Instruction]:
    return bpf.parse(filters.load(name, machine))


@functools.cache
def number(call: str, machine: str) -> int:
    """Return a call's number, or a negative one if this machine doesn't have it."""
    unified = tables.UNIFIED_SYSCALLS.get(call)
    return unified if unified is not None else int(pyseccomp.resolve_syscall(uapi.AUDIT_ARCH[machine], call))


def answer(
    name: str, machine: str, call: str | int, args: Sequence[int] = (), arch: str | None = None
) -> tuple[int, int]:
    """Return what a filter answers to a call by name or number."""
    nr = number(call, machine) if isinstance(call, str) else call
    assert nr >= 0 or isinstance(call, int), f"{machine} has no {call}"
    result = bpf.execute(program(name, machine), bpf.seccomp_data(nr, args, arch or machine))
    return result.action, result.data


def granted(name: str) -> frozenset[str]:
    return frozenset() if name == filters.BASE else frozenset(name.split("+"))


def by_table(name: str, call: Call, args: Args) -> tuple[int, int]:
    """Read the table directly: what the static filter should answer."""
    mine = [rule for rule in call.rules if not rule.scope or rule.scope in granted(name)]
    if any(rule.holds(args) for rule in mine if not rule.errno):
        return ALLOW
    for rule in mine:
        if rule.errno and rule.holds(args):
            return bpf.ERRNO, rule.errno
    return bpf.ERRNO, call.errno


def satisfying(rule: Rule, noise: int) -> Args:
    """Return arguments for which a rule holds, the bits it doesn't look at taken from ``noise``."""
    args = [noise] * 6
    for check in rule.checks:
        value = check.value if check.equal else ~check.value
        args[check.arg] = (args[check.arg] & ~check.mask) | (value & check.mask)
    return tuple(args)  # type: ignore[return-value]  # six they are


def interesting(call: Call) -> Iterator[Args]:
    """Yield arguments on both sides of every check of a call."""
    yield ZEROS
    yield ONES
    for rule in call.rules:
        for noise in (0, HIGH, REGISTER):
            args = satisfying(rule, noise)
            yield args
            for check in rule.checks:
                lowest = check.mask & -check.mask
                for bit in (lowest, 1 << (check.mask.bit_length() - 1), 1 << 63):
                    yield tuple(value ^ bit if at == check.arg else value for at, value in enumerate(args))  # type: ignore[misc]


# Names


def test_variants_have_canonical_names() -> None:
    assert filters.variant(frozenset()) == "base"
    assert filters.variant({"net", "child"}) == "child+net"
    assert filters.variant({"net", "fs.read", "addon"}) == "net"
    assert filters.variant({"worker"}, exec_way=True) == "worker+exec"
    assert filters.variant({"child"}, exec_way=True) == "child"
    assert filters.variant((), exec_way=True) == "exec"
    assert filters.notify_variant(()) == ""
    assert filters.notify_variant(["stat", "map", "map"]) == "notify-map+stat"
    assert len(set(NAMES)) == len(NAMES)
    assert len(STATIC) == 2**5 + 2**4  # every set of scopes, and the exec way where execve isn't open anyway
    assert set(seccomp.SHIPPED_PARTS) <= set(seccomp.NOTIFY_PARTS)
    assert set(seccomp.NOTIFY_PARTS) == set(seccomp.PART_REASONS)


def test_the_hot_path_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sandboxed_python.plan.filters import load, notify_variant, variant; "
        "load(variant(()), 'x86_64'); load(notify_variant(['change']), 'x86_64'); "
        "print(*{'pyseccomp', 'ctypes', 'struct', 'typing', 'sandboxed_python.plan.syscalls'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=_path())
    assert found.stdout.strip() == ""


def _path() -> dict[str, str]:
    package = os.path.dirname(os.path.dirname(filters.filters()))
    return {**os.environ, "PYTHONPATH": os.path.dirname(package)}


# Shipped files


def test_shipped_files_are_the_compiled_ones() -> None:
    """Byte for byte with the manifest's libseccomp; with another, the tests below compare what filters answer."""
    root = filters.filters()
    with open(f"{root}/manifest.json", encoding="ascii") as file:
        manifest = json.load(file)
    there = {f"{machine}/{file[:-4]}" for machine in seccomp.MACHINES for file in os.listdir(f"{root}/{machine}")}
    assert (
        there
        == set(manifest["instructions"])
        == {"/".join(pair) for pair in itertools.product(seccomp.MACHINES, NAMES)}
    )
    if seccomp.libseccomp_version() == manifest["libseccomp"]:
        for machine, name in itertools.product(seccomp.MACHINES, NAMES):
            assert filters.load(name, machine) == seccomp.compile_named(name, machine), (
                f"run scripts/compile-filters: {name}"
            )


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", ["base", FULLEST])
def test_a_fresh_compilation_answers_as_the_table(name: str, machine: str) -> None:
    fresh = bpf.parse(seccomp.compile_named(name, machine))
    for call in CALLS:
        if (nr := number(call.name, machine)) >= 0:
            for args in interesting(call):
                found = bpf.execute(fresh, bpf.seccomp_data(nr, args, machine))
                assert (found.action, found.data) == by_table(name, call, args), (call.name, args)


def test_what_is_not_shipped_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    shipped = filters.load("base", "aarch64")
    monkeypatch.setattr(filters, "filters", lambda: str(tmp_path))
    assert bpf.parse(filters.load("base", "aarch64"))[:4] == bpf.parse(shipped)[:4]


def test_unknown_names_and_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="no such scope: fly"):
        filters.load("child+fly", "x86_64")
    with pytest.raises(ValueError, match="no such part"):
        filters.load("notify-fly", "x86_64")
    with pytest.raises(UnsupportedError, match="no seccomp filters for riscv64"):
        filters.load("base", "riscv64")


def test_a_part_may_not_check_arguments_from_424_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seccomp.NOTIFY_PARTS, "bad", (("faccessat2", ((2, 1, 1),)),))
    with pytest.raises(ValueError, match="faccessat2"):
        seccomp.compile_notify(["bad"], "x86_64")


def test_a_part_with_an_unknown_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seccomp.NOTIFY_PARTS, "bad", (("no_such_call", ()),))
    with pytest.raises(UnsupportedError, match="no_such_call"):
        seccomp.compile_notify(["bad"], "x86_64")


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_parts_may_overlap_and_name_calls_from_424_on(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setitem(seccomp.NOTIFY_PARTS, "one", (("faccessat2", ()), ("openat", ((2, 0o10000000, 0o10000000),))))
    monkeypatch.setitem(seccomp.NOTIFY_PARTS, "two", (("openat", ()), ("openat", ((2, 3, 1),)), ("faccessat2", ())))
    built = seccomp.compile_notify(["one", "two"], machine)
    assert bpf.run(built, number("faccessat2", machine), (), machine) == NOTIFY
    assert bpf.run(built, number("openat", machine), (), machine) == NOTIFY
    assert bpf.run(built, number("close_range", machine), (), machine) == ALLOW
    alone = seccomp.compile_notify(["one"], machine)
    assert bpf.run(alone, number("openat", machine), (0, 0, 0o10000000), machine) == NOTIFY
    assert bpf.run(alone, number("openat", machine), (0, 0, 0), machine) == ALLOW


# What every filter answers


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", [filters.notify_variant([part]) for part in (filters.AUDIT, filters.QUIET)])
def test_audits_refuse_nothing(name: str, machine: str) -> None:
    calls = [(nr, token) for token in bpf.AUDIT_ARCH.values() for nr in (0, 59, 424, 0x40000001, 0xFFFFFFFF)]
    own = bpf.AUDIT_ARCH[machine]
    calls += [(nr, own) for nr in range(tables.UNIFIED_LAST + 20)]
    found = {bpf.execute(program(name, machine), bpf.seccomp_data(nr, ONES, token)).action for nr, token in calls}
    assert found == {bpf.ALLOW, bpf.USER_NOTIF}


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_audits_see_every_call_that_a_scope_opens(machine: str) -> None:
    rows = {name for name, _checks in seccomp.NOTIFY_PARTS[filters.AUDIT]}
    assert {call.name for call in CALLS if any(rule.scope for rule in call.rules)} <= rows
    for part in set(seccomp.NOTIFY_PARTS) - {filters.AUDIT}:
        assert {name for name, _checks in seccomp.NOTIFY_PARTS[part]} - {"getsockname"} <= rows
    for call in CALLS:
        if call.name in rows and number(call.name, machine) >= 0:
            opening = [rule for rule in call.rules if rule.scope]
            for args in interesting(call):
                shut = not any(rule.holds(args) for rule in call.allowing(()))
                if shut and any(rule.holds(args) for rule in opening):
                    assert answer("notify-audit", machine, call.name, args) == NOTIFY, (call.name, args)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", STRICT)
def test_foreign_architectures_are_killed(name: str, machine: str) -> None:
    for arch, token in bpf.AUDIT_ARCH.items():
        for nr in (0, 1, 59, 424, 435, 0x40000000, 0xFFFFFFFF):
            if arch != machine:
                found = bpf.execute(program(name, machine), bpf.seccomp_data(nr, (), token))
                assert (found.action, found.steps) == (bpf.KILL_PROCESS, 3)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", STRICT)
def test_x32_and_unknown_numbers_do_not_exist(name: str, machine: str) -> None:
    for nr in (tables.UNIFIED_LAST + 1, 500, 1023, 0x40000000, 0x40000000 | 257, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert answer(name, machine, nr) == ENOSYS


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", STATIC)
def test_numbers_without_a_row_are_refused(name: str, machine: str) -> None:
    known = {number(call.name, machine) for call in CALLS}
    for nr in range(tables.UNIFIED_FIRST):
        if nr not in known:
            assert answer(name, machine, nr) == EPERM


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", STATIC)
def test_every_row_from_both_sides(name: str, machine: str) -> None:
    for call in CALLS:
        if number(call.name, machine) >= 0:
            for args in interesting(call):
                assert answer(name, machine, call.name, args) == by_table(name, call, args), (call.name, args)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_no_map_refuses_code_from_files_and_nothing_else(machine: str) -> None:
    execute, anonymous = uapi.PROT_EXEC, uapi.MAP_ANONYMOUS
    for protection, flags, expected in (
        (execute, uapi.MAP_PRIVATE, EACCES),
        (execute | uapi.PROT_READ | HIGH, uapi.MAP_SHARED | HIGH, EACCES),
        (uapi.PROT_READ, uapi.MAP_PRIVATE, ALLOW),
        (execute, uapi.MAP_PRIVATE | anonymous, ALLOW),  # the static filter's
    ):
        assert answer(filters.NO_MAP, machine, "mmap", (0, 4096, protection, flags, 3, 0)) == expected
    assert answer(filters.NO_MAP, machine, "execve", ONES) == ALLOW


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", ["base", "child+worker+net+inspector+exec-memory"])
def test_the_supervisors_mark_is_out_of_reach(name: str, machine: str) -> None:
    """Every limit can be set but the one, whatever is in the half of the register that the kernel ignores."""
    for limit in range(16):
        expected = EPERM if limit == uapi.RLIMIT_LOCKS else ALLOW
        for noise in (0, HIGH):
            assert answer(name, machine, "prlimit64", (0, limit | noise, 8, 8, 0, 0)) == expected
            assert answer(name, machine, "prlimit64", (0, limit | noise, 0, 8, 0, 0)) == ALLOW
            assert answer(name, machine, "setrlimit", (limit | noise, 8, 0, 0, 0, 0)) == expected


CHECKED = [call for call in CALLS if any(rule.checks for rule in call.rules)]


@st.composite
def calls_and_arguments(draw: st.DrawFn) -> tuple[Call, Args]:
    """Draw a call and arguments near its rules: some satisfied, then a few bits turned."""
    call = draw(st.sampled_from(CHECKED))
    args = list(satisfying(draw(st.sampled_from(call.rules)), draw(st.integers(0, REGISTER))))
    for _ in range(draw(st.integers(0, 3))):
        args[draw(st.integers(0, 5))] ^= 1 << draw(st.integers(0, 63))
    return call, tuple(args)  # type: ignore[return-value]  # six they are


@given(st.sampled_from(STATIC), st.sampled_from(seccomp.MACHINES), calls_and_arguments())
def test_filter_and_table_never_disagree(name: str, machine: str, drawn: tuple[Call, Args]) -> None:
    call, args = drawn
    if number(call.name, machine) >= 0:
        assert answer(name, machine, call.name, args) == by_table(name, call, args)


@given(
    st.sampled_from(STATIC),
    st.sampled_from(seccomp.MACHINES),
    st.integers(0, 600),
    st.tuples(*[st.integers(0, REGISTER)] * 6),
)
def test_filter_and_table_never_disagree_on_anything(name: str, machine: str, nr: int, args: Args) -> None:
    call = next((call for call in CALLS if number(call.name, machine) == nr), None)
    if call is not None:
        assert answer(name, machine, nr, args) == by_table(name, call, args)
    else:
        assert answer(name, machine, nr, args) == (ENOSYS if nr >= tables.UNIFIED_FIRST else EPERM)


@given(
    st.sampled_from(STATIC), st.sampled_from(filters.SCOPES), st.sampled_from(seccomp.MACHINES), calls_and_arguments()
)
def test_a_further_scope_never_takes_away(name: str, scope: str, machine: str, drawn: tuple[Call, Args]) -> None:
    call, args = drawn
    if number(call.name, machine) >= 0 and answer(name, machine, call.name, args) == ALLOW:
        wider = filters.variant(granted(name) | {scope}, exec_way=filters.EXEC in granted(name))
        assert answer(wider, machine, call.name, args) == ALLOW


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", STATIC)
def test_calls_without_conditions_are_answered_by_number_alone(name: str, machine: str) -> None:
    """The kernel then answers them from a bitmap and never runs the filter."""
    for call in CALLS:
        nr = number(call.name, machine)
        if nr >= 0 and any(not rule.checks for rule in call.allowing(granted(name))):
            assert not bpf.execute(program(name, machine), bpf.seccomp_data(nr, (), machine)).registers


# The cases that matter, spelled out: they hold whatever the table says

FORK = 17  # SIGCHLD
VFORK = uapi.CLONE_VM | uapi.CLONE_VFORK | 17
THREAD = 0x003D0F00  # what glibc passes; musl adds CLONE_DETACHED
MUSL_THREAD = THREAD | 0x00400000
BIT32 = 1 << 32

Case = tuple[str, tuple[int, ...], str, tuple[int, int], tuple[int, int]]
CASES: list[Case] = [
    # call, arguments, scope: answer without the scope, answer with it
    ("clone", (THREAD,), "worker", EPERM, ALLOW),
    ("clone", (MUSL_THREAD,), "worker", EPERM, ALLOW),
    ("clone", (THREAD | HIGH,), "worker", EPERM, ALLOW),
    ("clone", (THREAD,), "child", EPERM, EPERM),
    ("clone", (THREAD & ~uapi.CLONE_FILES,), "worker", EPERM, EPERM),
    ("clone", (THREAD & ~uapi.CLONE_VM,), "worker", EPERM, EPERM),
    ("clone", (FORK,), "child", EPERM, ALLOW),
    ("clone", (FORK,), "worker", EPERM, EPERM),
    ("clone", (FORK | 0x01200000,), "child", EPERM, ALLOW),  # glibc's fork: CHILD_SETTID, CHILD_CLEARTID
    ("clone", (FORK | uapi.CLONE_PIDFD,), "child", EPERM, ALLOW),
    ("clone", (VFORK,), "child", EPERM, ALLOW),
    ("clone", (FORK | uapi.CLONE_VM,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_FILES,), "child", EPERM, EPERM),
    ("clone", (VFORK | uapi.CLONE_FILES,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_FS,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_NEWUSER,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_NEWUSER | BIT32,), "child", EPERM, EPERM),
    ("clone", (THREAD | uapi.CLONE_NEWUSER,), "worker", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_PARENT,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_UNTRACED,), "child", EPERM, EPERM),
    ("clone", (FORK | uapi.CLONE_PTRACE,), "child", EPERM, EPERM),
    ("clone3", (), "child", ENOSYS, ENOSYS),
    ("clone3", (), "worker", ENOSYS, ENOSYS),
    ("execve", (), "child", EPERM, ALLOW),
    ("execve", (), "exec", EPERM, ALLOW),
    ("execveat", (), "exec", EPERM, ALLOW),
    ("execve", (), "exec-memory", EPERM, EPERM),
    ("openat2", (), "net", ENOSYS, ENOSYS),
    ("socket", (uapi.AF_INET, uapi.SOCK_STREAM, 0), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_INET | HIGH, uapi.SOCK_STREAM | uapi.SOCK_CLOEXEC | HIGH, HIGH), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_INET6, uapi.SOCK_DGRAM, uapi.IPPROTO_UDP), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_INET, uapi.SOCK_STREAM, uapi.IPPROTO_MPTCP), "net", EPERM, EPERM),
    ("socket", (uapi.AF_INET, uapi.SOCK_STREAM, uapi.IPPROTO_MPTCP | BIT32), "net", EPERM, EPERM),
    ("socket", (uapi.AF_INET, uapi.SOCK_STREAM, 132), "net", EPERM, EPERM),  # SCTP
    ("socket", (uapi.AF_INET, uapi.SOCK_DGRAM, 1), "net", EPERM, EPERM),  # ICMP
    ("socket", (uapi.AF_INET, uapi.SOCK_RAW, 1), "net", EPERM, EPERM),
    ("socket", (uapi.AF_UNIX, uapi.SOCK_STREAM, 0), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_UNIX, uapi.SOCK_DGRAM, 0), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_NETLINK, uapi.SOCK_RAW, uapi.NETLINK_ROUTE), "net", EPERM, ALLOW),
    ("socket", (uapi.AF_NETLINK, uapi.SOCK_RAW, 12), "net", EPERM, EPERM),  # NETLINK_NETFILTER
    ("socket", (17, uapi.SOCK_RAW, 0), "net", EPERM, EPERM),  # AF_PACKET
    ("socket", (38, uapi.SOCK_SEQPACKET, 0), "net", EPERM, EPERM),  # AF_ALG
    ("socket", (40, uapi.SOCK_STREAM, 0), "net", EPERM, EPERM),  # AF_VSOCK
    ("socketpair", (uapi.AF_UNIX, uapi.SOCK_STREAM | uapi.SOCK_CLOEXEC, 0), "", ALLOW, ALLOW),
    ("socketpair", (uapi.AF_UNIX, uapi.SOCK_DGRAM, 0), "net", EPERM, EPERM),
    ("socketpair", (uapi.AF_UNIX, uapi.SOCK_DGRAM | 0x40000800, 0), "", EPERM, EPERM),
    ("sendto", (3, 1, 1, 0, 0, 0), "", ALLOW, ALLOW),
    ("sendto", (3, 1, 1, 0, BIT32, 16), "net", EPERM, ALLOW),
    ("sendto", (3, 1, 1, uapi.MSG_FASTOPEN, 0, 0), "net", EPERM, EPERM),
    ("sendto", (3, 1, 1, uapi.MSG_FASTOPEN | HIGH, 4096, 16), "net", EPERM, EPERM),
    ("sendmsg", (3, 1, uapi.MSG_FASTOPEN), "net", EPERM, EPERM),
    ("sendmmsg", (3, 1, 1, uapi.MSG_FASTOPEN), "net", EPERM, EPERM),
    ("connect", (3, 1, 16), "net", EPERM, ALLOW),
    ("bind", (3, 1, 16), "net", EPERM, ALLOW),
    ("ioctl", (0, 0x5401), "", ALLOW, ALLOW),  # TCGETS
    ("ioctl", (0, 0x5412), "", EPERM, EPERM),  # TIOCSTI
    ("ioctl", (0, 0x5412 | BIT32), "", EPERM, EPERM),
    ("ioctl", (0, 0x541C | HIGH), "", EPERM, EPERM),  # TIOCLINUX
    ("ioctl", (0, 0x8912), "net", EPERM, ALLOW),  # SIOCGIFCONF
    ("ioctl", (0, 0x8914), "net", EPERM, EPERM),  # SIOCSIFFLAGS
    ("ioctl", (0, 0x40086602), "", EPERM, EPERM),  # FS_IOC_SETFLAGS
    ("fcntl", (0, 1026), "", EPERM, EPERM),  # F_NOTIFY
    ("prlimit64", (0, 7), "", ALLOW, ALLOW),
    ("prlimit64", (HIGH, 7), "", ALLOW, ALLOW),
    ("prlimit64", (1, 7), "", EPERM, EPERM),
    ("prlimit64", (1 | HIGH, 7), "child", EPERM, EPERM),
    ("sched_setaffinity", (1,), "", EPERM, EPERM),
    ("sched_setaffinity", (0,), "", ALLOW, ALLOW),
    ("sched_getaffinity", (0,), "", ALLOW, ALLOW),
    ("sched_getaffinity", (1,), "", ENOSYS, ENOSYS),
    ("setpriority", (0, 0), "", ALLOW, ALLOW),
    ("setpriority", (0, 1), "", EPERM, EPERM),
    ("setpriority", (1, 0), "", EPERM, EPERM),
    ("setpriority", (2, 0), "", EPERM, EPERM),
    ("ioprio_set", (1, 0), "", ALLOW, ALLOW),
    ("ioprio_set", (1, 1), "", EPERM, EPERM),
    ("mmap", (0, 4096, 3, 0x22), "", ALLOW, ALLOW),
    ("mmap", (0, 4096, 5, 2, 3), "", ALLOW, ALLOW),
    ("mmap", (0, 4096, 5, 0x812, 3), "", ALLOW, ALLOW),  # the loader: PRIVATE, FIXED, DENYWRITE
    ("mmap", (0, 4096, 7, 2, 3), "exec-memory", EACCES, ALLOW),
    ("mmap", (0, 4096, 5, 0x22), "exec-memory", EACCES, ALLOW),
    ("mmap", (0, 4096, 5 | HIGH, 0x22 | HIGH), "exec-memory", EACCES, ALLOW),
    ("mmap", (0, 4096, 5, 1, 3), "exec-memory", EACCES, ALLOW),
    ("mmap", (0, 4096, 5, 3, 3), "exec-memory", EACCES, ALLOW),
    ("mprotect", (0, 4096, 3), "", ALLOW, ALLOW),
    ("mprotect", (0, 4096, 5), "exec-memory", EACCES, ALLOW),
    ("mprotect", (0, 4096, 4 | HIGH), "child", EACCES, EACCES),
    ("pkey_mprotect", (0, 4096, 4, 0), "exec-memory", EACCES, ALLOW),
    ("memfd_create", (0, uapi.MFD_CLOEXEC), "exec-memory", EACCES, ALLOW),
    ("memfd_create", (0, uapi.MFD_CLOEXEC), "child", EACCES, EACCES),
    ("memfd_create", (0, uapi.MFD_CLOEXEC | uapi.MFD_NOEXEC_SEAL), "", ALLOW, ALLOW),
    ("openat", (3, 0, 0o101, 0o644), "", ALLOW, ALLOW),
    ("openat", (3, 0, 0o101, 0o4755), "", EPERM, EPERM),
    ("openat", (3, 0, 0o101, 0o2755 | HIGH), "", EPERM, EPERM),
    ("openat", (3, 0, 0o20200002, 0o4755), "", EPERM, EPERM),  # O_TMPFILE
    ("openat", (3, 0, 0, 0o7777), "", ALLOW, ALLOW),
    ("fchmod", (3, 0o755), "", ALLOW, ALLOW),
    ("fchmod", (3, 0o4755), "", EPERM, EPERM),
    ("fchmodat", (3, 0, 0o2755), "", EPERM, EPERM),
    ("fchmodat2", (3, 0, 0o755), "", ENOSYS, ENOSYS),
    ("mknodat", (3, 0, 0o100644), "", ALLOW, ALLOW),
    ("mknodat", (3, 0, 0o010644), "", ALLOW, ALLOW),
    ("mknodat", (3, 0, 0o020666, 0x103), "", EPERM, EPERM),
    ("mknodat", (3, 0, 0o060666, 0x800), "", EPERM, EPERM),
    ("mknodat", (3, 0, 0o104755), "", EPERM, EPERM),
    ("renameat2", (3, 0, 3, 0, 2), "", ALLOW, ALLOW),
    ("renameat2", (3, 0, 3, 0, 4), "", EPERM, EPERM),  # RENAME_WHITEOUT
    ("personality", (0xFFFFFFFF,), "", ALLOW, ALLOW),
    ("personality", (0x0400000,), "", EPERM, EPERM),  # READ_IMPLIES_EXEC
    ("prctl", (uapi.PR_SET_NAME,), "", ALLOW, ALLOW),
    ("prctl", (uapi.PR_SET_PDEATHSIG, 9), "", ALLOW, ALLOW),
    ("prctl", (uapi.PR_SET_PDEATHSIG, 0), "child", EPERM, ALLOW),
    ("prctl", (uapi.PR_SET_DUMPABLE, 1), "", ALLOW, ALLOW),
    ("prctl", (uapi.PR_SET_DUMPABLE, 0), "child", EPERM, EPERM),
    ("prctl", (35, 8), "inspector", EPERM, EPERM),  # PR_SET_MM
    ("prctl", (0x59616D61, 1), "inspector", EPERM, EPERM),  # PR_SET_PTRACER
    ("prctl", (uapi.PR_CAP_AMBIENT, 2), "", EPERM, EPERM),  # PR_CAP_AMBIENT_RAISE
    ("seccomp", (uapi.SECCOMP_SET_MODE_FILTER, 0), "", ALLOW, ALLOW),
    ("seccomp", (uapi.SECCOMP_SET_MODE_FILTER, uapi.SECCOMP_FILTER_FLAG_TSYNC), "", ALLOW, ALLOW),
    ("seccomp", (uapi.SECCOMP_SET_MODE_FILTER, uapi.SECCOMP_FILTER_FLAG_NEW_LISTENER), "child", EPERM, EPERM),
    ("seccomp", (uapi.SECCOMP_SET_MODE_FILTER, uapi.SECCOMP_FILTER_FLAG_NEW_LISTENER | 1 | HIGH), "", EPERM, EPERM),
    ("seccomp", (uapi.SECCOMP_SET_MODE_FILTER, 4), "", EPERM, EPERM),  # SPEC_ALLOW
    ("ptrace", (0,), "inspector", EPERM, ALLOW),
    ("process_vm_readv", (1,), "inspector", EPERM, ALLOW),
    ("process_vm_writev", (1,), "inspector", EPERM, ALLOW),
    ("kcmp", (1,), "inspector", EPERM, ALLOW),
    ("pidfd_getfd", (3, 3), "inspector", ENOSYS, ENOSYS),
    ("io_uring_setup", (8,), "net", ENOSYS, ENOSYS),
    ("setxattrat", (), "", ENOSYS, ENOSYS),
]


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(hex, case[1]))}")
def test_argument_checks(case: Case, machine: str) -> None:
    call, args, scope, without, within = case
    wide = filters.variant({scope}, exec_way=scope == "exec")
    assert answer("base", machine, call, args) == without
    assert answer(wide, machine, call, args) == within
    # No other scope stands in for this one.
    if scope in filters.SCOPES and scope != "child" and without != within:
        others = filters.variant(set(filters.SCOPES) - {scope}, exec_way=True)
        assert answer(others, machine, call, args) == without


def test_legacy_calls_of_x86_64() -> None:
    for call in ("fork", "vfork"):
        assert answer("worker", "x86_64", call) == EPERM
        assert answer("child", "x86_64", call) == ALLOW
    assert answer("base", "x86_64", "open", (0, 0o101, 0o4755)) == EPERM
    assert answer("base", "x86_64", "open", (0, 0, 0o4755)) == ALLOW
    assert answer("base", "x86_64", "creat", (0, 0o4755)) == EPERM
    assert answer("base", "x86_64", "chmod", (0, 0o4755)) == EPERM
    assert answer("base", "x86_64", "mknod", (0, 0o020666)) == EPERM
    assert answer("base", "x86_64", "arch_prctl", (0x1002,)) == ALLOW
    assert answer("base", "x86_64", "arch_prctl", (0x2001,)) == EPERM
    assert answer("base", "x86_64", "inotify_init") == ENOSYS


# The notifying filters


@pytest.mark.parametrize("machine", seccomp.MACHINES)
@pytest.mark.parametrize("name", NOTIFYING)
def test_a_notifying_filter_notifies_its_parts_and_nothing_else(name: str, machine: str) -> None:
    parts = name[len(filters.NOTIFY) :].split("+")
    rows = [row for part in parts for row in seccomp.NOTIFY_PARTS[part]]
    rules = [(called, Rule(checks=tuple(seccomp._check(*fields) for fields in checks))) for called, checks in rows]
    for call in CALLS:
        if number(call.name, machine) < 0:
            continue
        own = tuple(rule for called, rule in rules if called == call.name)
        for args in interesting(call.replace(rules=own)):
            wanted = any(rule.holds(args) for rule in own)
            assert answer(name, machine, call.name, args) == (NOTIFY if wanted else ALLOW), (call.name, args)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_parts_spelled_out(machine: str) -> None:
    def notified(part: str, call: str, args: Sequence[int] = ()) -> bool:
        found = bpf.execute(alone(part, machine), bpf.seccomp_data(number(call, machine), args, machine))
        assert found.action in (bpf.USER_NOTIF, bpf.ALLOW)
        return found.action == bpf.USER_NOTIF

    assert notified("map", "mmap", (0, 1, 5, 2, 3))
    assert notified("map", "mmap", (0, 1, 4 | HIGH, 0x10002, 3))
    assert not notified("map", "mmap", (0, 1, 3, 2, 3))
    assert not notified("map", "mmap", (0, 1, 5, 0x22))  # anonymous: the static filter's
    assert not notified("map", "execve")
    assert notified("exec", "execve", ONES)
    assert notified("exec", "execveat", ZEROS)
    assert notified("stat", "faccessat2")
    assert notified("stat", "newfstatat", (3, 0, 0, 0x1000))
    assert not notified("stat", "fstat")
    assert notified("stat", "openat", (0, 0, uapi.O_PATH | 0o2000000 | HIGH))
    assert not notified("stat", "openat", (0, 0, 0o2000000))
    assert notified("change", "fchmod")
    assert notified("names", "unlinkat")
    for flags in (1, 2, 0o100, 0o1000, uapi.O_TMPFILE, 0o2000000 | 1, 1 | HIGH):
        assert notified("write", "openat", (0, 0, flags))
    assert not notified("write", "openat", (0, 0, 0o2000000 | HIGH))
    assert notified("open", "openat", (0, 0, 0))
    assert notified("unix", "socket", (uapi.AF_UNIX | HIGH, 1, 0))
    assert not notified("unix", "socket", (uapi.AF_INET, 1, 0))
    assert notified("unix", "connect")
    assert not notified("unix", "sendto", ZEROS)
    for bit in range(64):
        assert notified("unix", "sendto", (3, 0, 0, 0, 1 << bit, 16))


@functools.cache
def alone(part: str, machine: str) -> list[bpf.Instruction]:
    return bpf.parse(seccomp.compile_notify([part], machine))


def test_notified_calls_pass_some_static_filter() -> None:
    for part, rows in seccomp.NOTIFY_PARTS.items():
        for name, _checks in rows if part != filters.AUDIT else ():
            assert BY_NAME[name].allowing({*filters.SCOPES, filters.EXEC}), name


# Size


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_filters_are_small_and_short(machine: str) -> None:
    assert len(program(FULLEST, machine)) < 900
    for call in ("read", "newfstatat", "openat", "mmap", "close", "futex"):
        found = bpf.execute(program("base", machine), bpf.seccomp_data(number(call, machine), (0, 0, 1, 0x22), machine))
        assert found.action == bpf.ALLOW
        assert found.steps <= 40
