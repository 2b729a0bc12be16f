"""The table of system calls: complete, consistent, and closed where it must be."""

from __future__ import annotations

import errno
import itertools

import pyseccomp
import pytest

from sandboxed_python.kernel import tables, uapi
from sandboxed_python.plan import filters, seccomp
from sandboxed_python.plan.syscalls import (
    ARCH_PRCTLS,
    BY_NAME,
    CALLS,
    FCNTLS,
    INT,
    IOCTLS,
    PRCTLS,
    REGISTER,
    Call,
    Rule,
)


def words(text: str) -> list[str]:
    return text.split()


EVERYTHING = frozenset({*filters.SCOPES, filters.EXEC})

# Names that have a number and no code behind it in any kernel of today (sysfs: a list of file systems, long unused).
WITHOUT_ROW = words(
    "sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall tuxcall security "
    "set_thread_area get_thread_area epoll_ctl_old epoll_wait_old vserver uretprobe uprobe"
)

# Whatever the flags, these stay shut.
NEVER = words(
    "io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd keyctl add_key request_key mount "
    "umount2 pivot_root fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount mount_setattr statmount "
    "listmount chroot unshare setns quotactl quotactl_fd acct swapon swapoff reboot kexec_load kexec_file_load "
    "init_module finit_module delete_module syslog settimeofday clock_settime adjtimex clock_adjtime sethostname "
    "setdomainname iopl ioperm modify_ldt open_by_handle_at name_to_handle_at fanotify_init fanotify_mark inotify_init "
    "inotify_init1 inotify_add_watch lookup_dcookie vhangup uselib process_madvise process_mrelease move_pages "
    "migrate_pages memfd_secret pidfd_getfd clone3 openat2 fchmodat2 setxattrat getxattrat listxattrat removexattrat "
    "file_getattr file_setattr shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semtimedop semctl "
    "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr remap_file_pages io_setup io_submit"
)


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(CALLS)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_row_is_well_formed(call: Call) -> None:
    assert call.reason == call.reason.strip()
    assert call.reason[0] != call.reason[0].upper() or " " in call.reason
    assert not call.reason.endswith(".")
    conditional = any(rule.checks for rule in call.rules)
    assert call.errno in (errno.EPERM, errno.ENOSYS)
    assert call.errno == errno.EPERM or not call.rules, "an errno for some arguments only needs a refusing rule"
    for rule in call.rules:
        assert rule.scope in {"", *EVERYTHING}
        assert not rule.errno or (rule.checks and not rule.scope)
        for check in rule.checks:
            assert 0 <= check.arg <= 5
            assert check.value & ~check.mask == 0
            assert check.mask <= INT or check.mask == REGISTER, "half of the high bits says nothing"
            assert check.equal or check.mask == REGISTER
    number = tables.UNIFIED_SYSCALLS.get(call.name)
    if number is not None:
        assert not conditional, "from number 424 on answers are by number alone"
        assert call.rules or call.errno == errno.ENOSYS


def _exclusive(one: Rule, other: Rule) -> bool:
    """Tell whether some argument can't satisfy both rules."""
    return any(
        a.arg == b.arg and a.equal and b.equal and a.mask & b.mask & (a.value ^ b.value)
        for a, b in itertools.product(one.checks, other.checks)
    )


@pytest.mark.parametrize("call", [call for call in CALLS if call.refusing(())], ids=lambda call: call.name)
def test_what_is_let_through_is_never_also_refused(call: Call) -> None:
    for allowing, refusing in itertools.product(call.allowing(()), call.refusing(())):
        if all(check.equal for check in refusing.checks):
            assert _exclusive(allowing, refusing), (allowing, refusing)


@pytest.mark.parametrize("table", [IOCTLS, FCNTLS, PRCTLS, ARCH_PRCTLS])
def test_commands_are_listed_once(table: tuple[tuple[int, str, str], ...]) -> None:
    numbers = [number for number, _scope, _what in table]
    assert len(set(numbers)) == len(numbers)
    assert all(what for _number, _scope, what in table)


@pytest.mark.parametrize("name", NEVER)
def test_some_calls_have_no_rule_under_any_scope(name: str) -> None:
    assert not BY_NAME[name].allowing(EVERYTHING)


@pytest.mark.parametrize(
    ("table", "numbers"),
    [
        # TIOCEXCL TIOCNXCL TIOCSTI TIOCLINUX TIOCCONS TIOCSSERIAL TIOCSETD TIOCVHANGUP KDSKBENT FS_IOC_SETFLAGS
        # FS_IOC_FSSETXATTR BLKROSET TUNSETIFF SIOCSIFFLAGS SIOCETHTOOL FIOASYNC
        (
            IOCTLS,
            (
                *(0x540C, 0x540D, 0x5412, 0x541C, 0x541D, 0x541F, 0x5423, 0x5437, 0x4B47, 0x40086602, 0x401C5820),
                *(0x125D, 0x400454CA, 0x8914, 0x8946, 0x5452),
            ),
        ),
        (FCNTLS, (1024, 1025, 1026)),  # F_SETLEASE F_GETLEASE F_NOTIFY
        # PR_SET_KEEPCAPS PR_SET_TSC PR_SET_SECUREBITS PR_SET_MM PR_SET_SPECULATION_CTRL PR_SET_IO_FLUSHER
        # PR_SET_SYSCALL_USER_DISPATCH PR_SCHED_CORE PR_SET_PTRACER
        (PRCTLS, (8, 26, 28, 35, 53, 57, 59, 62, 0x59616D61)),
        (ARCH_PRCTLS, (0x1012, 0x2001, 0x2002, 0x2003)),  # ARCH_SET_CPUID ARCH_MAP_VDSO_*
    ],
)
def test_dangerous_commands_are_on_no_list(table: tuple[tuple[int, str, str], ...], numbers: tuple[int, ...]) -> None:
    assert not {number for number, _scope, _what in table} & set(numbers)


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_every_call_of_the_kernel_has_a_row(machine: str) -> None:
    missing = set()
    for number in range(tables.UNIFIED_LAST + 1):
        try:
            name = pyseccomp.resolve_syscall(uapi.AUDIT_ARCH[machine], number).decode()
        except ValueError:  # no call has this number, or this libseccomp doesn't know it yet
            continue
        if name not in BY_NAME:
            missing.add(name)
        if number >= tables.UNIFIED_FIRST:
            assert tables.UNIFIED_SYSCALLS[name] == number
    assert missing <= set(WITHOUT_ROW)


def test_every_row_is_a_call_of_the_kernel() -> None:
    for name in BY_NAME:
        assert name in tables.UNIFIED_SYSCALLS or any(
            pyseccomp.resolve_syscall(uapi.AUDIT_ARCH[machine], name) >= 0 for machine in seccomp.MACHINES
        )
    assert set(tables.UNIFIED_SYSCALLS) <= set(BY_NAME)
    assert sorted(tables.UNIFIED_SYSCALLS.values()) == list(range(tables.UNIFIED_FIRST, tables.UNIFIED_LAST + 1))


def test_a_scope_only_adds() -> None:
    for call in CALLS:
        for scope in EVERYTHING:
            without, within = call.allowing(EVERYTHING - {scope}), call.allowing(EVERYTHING)
            assert set(without) <= set(within) or within[0].checks == ()
