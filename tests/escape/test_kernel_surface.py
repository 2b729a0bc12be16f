"""Calls that a program never needs and that undo sandboxes, or that were where the kernel's holes are.

The attack: any of them. Each row is tried twice with the same arguments; what counts is that the kernel itself is never
reached: the answer in the sandbox is the filter's (EPERM or ENOSYS), and outside of it is another one.
What stops it: the static filter is a list of what is allowed. Source: THREATS 11; each row's manual page.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import number

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# With nonsense for arguments, the kernel answers EFAULT, EINVAL, EBADF ...: it has looked at them.
BUFFER = "ctypes.create_string_buffer(512)"
ROWS = {
    "io_uring_setup": f"1, {BUFFER}",
    "io_uring_enter": "-1, 0, 0, 0, 0, 0",
    "io_uring_register": "-1, 0, 0, 0",
    "bpf": "99, 0, 0",
    "perf_event_open": "0, 0, -1, -1, 0",
    "userfaultfd": "0x800 | 1 | 0x40000000",
    "keyctl": "99999, 0, 0, 0, 0",
    "add_key": "0, 0, 0, 0, 0",
    "request_key": "0, 0, 0, 0",
    "open_by_handle_at": "-1, 0, 0",
    "name_to_handle_at": "-1, 0, 0, 0, 0",
    "inotify_init1": "0x7FFFFFFF",
    "inotify_add_watch": "-1, 0, 0",
    "fanotify_mark": "-1, 0, 0, 0, 0",
    "process_vm_readv": "-1, 0, 0, 0, 0, 1",
    "process_vm_writev": "-1, 0, 0, 0, 0, 1",
    "process_madvise": "-1, 0, 0, 0, 1",
    "process_mrelease": "-1, 1",
    "pidfd_getfd": "-1, -1, 1",
    "ptrace": "0x4206, -1, 0, 0",
    "kcmp": "-1, -1, 99, 0, 0",
    "move_pages": "-1, 0, 0, 0, 0, 99",
    "migrate_pages": "-1, 8, 0, 0",
    "setns": "-1, 0",
    "unshare": "0x1",
    "mount_setattr": "-1, 0, 0x10000, 0, 0",
    "open_tree": "-1, 0, 0x10",
    "move_mount": "-1, 0, -1, 0, 0x10000",
    "fsopen": "0, 0x100",
    "fsmount": "-1, 0x100, 0",
    "fspick": "-1, 0, 0x100",
    "fsconfig": "-1, 99, 0, 0, 0",
    "statmount": "0, 0, 0, 0x100",
    "listmount": "0, 0, 0, 0x100",
    "quotactl_fd": "-1, 0, 0, 0",
    "memfd_secret": "0x100",
    "remap_file_pages": "0, 4096, 1, 0, 0",
    "shmget": "0, 0, 0",
    "shmat": "-1, 0, 0",
    "shmctl": "-1, 0, 0",
    "msgget": "0x7FFFFFF1, 0",
    "msgsnd": "-1, 0, 0, 0",
    "msgrcv": "-1, 0, 0, 0, 0",
    "semget": "0x7FFFFFF1, 0, 0",
    "semop": "-1, 0, 0",
    "mq_open": "0, 0, 0, 0",
    "mq_unlink": "0",
    "io_setup": "0, 0",
    "io_submit": "0, 0, 0",
    "lookup_dcookie": "0, 0, 0",
    "landlock_create_ruleset": None,
    "lsm_list_modules": "0, 0, 0",
    "lsm_set_self_attr": "99, 0, 0, 1",
    "file_setattr": "-1, 0, 0, 0, 0",
    "file_getattr": "-1, 0, 0, 0, 0",
    "setxattrat": "-1, 0, 0, 0, 0, 0",
    "getxattrat": "-1, 0, 0, 0, 0, 0",
    "removexattrat": "-1, 0, 0, 0",
    "cachestat": "-1, 0, 0, 1",
    "openat2": "-100, 0, 0, 0",
    "clone3": "0, 0",
    "fchmodat2": "-1, 0, 0, 0x10",
    "modify_ldt": "99, 0, 0",
    "iopl": "4",
    "uselib": "0",
    "ustat": "0, 0",
    "sysfs": "99, 0, 0",
    "personality": "0x10000000",
    "vmsplice": None,
}
# These answer EPERM to an ordinary user by themselves, as they do to a program without the capability.
PRIVILEGED = {
    "userfaultfd", "bpf", "fanotify_mark", "lookup_dcookie", "iopl", "quotactl_fd", "migrate_pages", "setns", "fsopen",
    "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr", "open_by_handle_at", "listmount", "statmount",
}  # fmt: skip
EVERY_FLAG = ("--allow-ffi", "--allow-child-process", "--allow-worker", "--allow-net", "--allow-addons", "--allow-wasi")


def tried(attacker: Attacker, *flags: str, confined: bool) -> dict[str, str]:
    """Return the answer of every row that this machine has."""
    rows = []
    for name, arguments in ROWS.items():
        try:
            number(name)
        except pytest.skip.Exception:
            continue  # another architecture's
        if arguments is not None:
            rows.append(f"found[{name!r}] = attempt({name!r}, {arguments})")
    body = "import json; found = {}\n" + "\n".join(rows) + "\nprint(json.dumps(found))"
    ended = attacker.confined(body, *flags) if confined else attacker.plain(body)
    assert "TRIED: done" in ended.stdout, ended.said
    answers: dict[str, str] = json.loads(ended.stdout.splitlines()[0])
    return answers


@pytest.mark.parametrize("flags", [("--allow-ffi",), EVERY_FLAG], ids=["ffi", "every flag but inspector"])
def test_none_reaches_the_kernel(attacker: Attacker, flags: tuple[str, ...]) -> None:
    inside = tried(attacker, *flags, confined=True)
    assert len(inside) > 50
    reached = {name: answer for name, answer in inside.items() if answer not in ("EPERM", "ENOSYS")}
    assert not reached


def test_without_the_sandbox_they_do(attacker: Attacker) -> None:
    """Else the rows would say nothing. A call that is younger than this kernel answers ENOSYS there, too."""
    outside = tried(attacker, confined=False)
    silent = {name for name, answer in outside.items() if answer == "EPERM"} - PRIVILEGED
    missing = {name for name, answer in outside.items() if answer == "ENOSYS"}
    assert not silent
    assert len(missing) < 15, f"this kernel lacks {sorted(missing)}"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        # A listener of its own would answer its own calls.
        ("FILTER; attempt('seccomp', 1, 8, program)", "EPERM"),
        ("FILTER; attempt('seccomp', 1, 8 | 1 << 40, program)", "EPERM"),
        ("FILTER; attempt('seccomp', 1, 4, program)", "EPERM"),
        ("FILTER; attempt('seccomp', 1, 0x20, program)", "EPERM"),
        ("attempt('seccomp', 0, 0, 0)", "EPERM"),
        ("attempt('prctl', 22, 1, 0, 0, 0)", "EPERM"),
        ("attempt('prctl', 35, 8, 0, 0, 0)", "EPERM"),  # PR_SET_MM
        ("attempt('prctl', 59, 1, 0, 0, 0)", "EPERM"),  # PR_SET_SYSCALL_USER_DISPATCH
        ("attempt('prctl', 1, 0, 0, 0, 0)", "EPERM"),  # PR_SET_PDEATHSIG
        ("attempt('prctl', 26, 2, 0, 0, 0)", "EPERM"),  # PR_SET_TSC
        ("attempt('prctl', 53, 0, 4, 0, 0)", "EPERM"),  # PR_SET_SPECULATION_CTRL
        ("attempt('prctl', 62, 1, os.getppid(), 0, 0)", "EPERM"),  # PR_SCHED_CORE
        ("attempt('fcntl', 0, 1026, 1)", "EPERM"),  # F_NOTIFY
        ("attempt('fcntl', 0, 1024, 1)", "EPERM"),  # F_SETLEASE
        ("attempt('ioctl', raw_open(READ + '/data'), 0x40086602, bytes(8))", "EPERM"),  # FS_IOC_SETFLAGS
        ("attempt('ioctl', raw_open(READ + '/data'), 0x401C5820, bytes(28))", "EPERM"),  # FS_IOC_FSSETXATTR
        ("attempt('ioctl', raw_open(READ + '/data'), 0x80086601, bytes(8))", "EPERM"),  # FS_IOC_GETFLAGS
        ("attempt('ioctl', PAIR, 0x8912, bytes(16))", "EPERM"),  # SIOCGIFCONF: the machine's addresses
        ("attempt('ioctl', PAIR, 0x8922, b'lo'.ljust(40, b'\\0'))", "EPERM"),  # SIOCSIFMTU
        ("attempt('ioctl', PAIR, 0x8946, b'lo'.ljust(40, b'\\0'))", "EPERM"),  # SIOCETHTOOL
        ("attempt('setpriority', 2, 0, 5)", "EPERM"),  # every process of the user
        ("attempt('ioprio_set', 3, 0, 3 << 13)", "EPERM"),
        ("attempt('swapon', 0, 0)", "EPERM"),
        ("attempt('vhangup')", "EPERM"),
        ("attempt('reboot', 0, 0, 0, 0)", "EPERM"),
        ("attempt('kexec_file_load', -1, -1, 0, 0, 0)", "EPERM"),
        ("attempt('finit_module', -1, 0, 0)", "EPERM"),
        ("attempt('init_module', 0, 0, 0)", "EPERM"),
        ("attempt('arch_prctl', 0x1012, 0)", "EPERM"),
    ],
)
def test_arguments_that_are_refused(attacker: Attacker, body: str, answer: str) -> None:
    """The call itself is allowed, or doing it outside would harm the machine: only the sandbox is asked."""
    if "arch_prctl" in body:
        number("arch_prctl")
    # One instruction: let everything through.
    program = (
        "import struct; one = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7FFF0000))\n"
        "program = struct.pack('HxxxxxxQ', 1, ctypes.addressof(one))\n"
    )
    # What a row may need: a filter of one instruction, a socket.
    head = program if "FILTER" in body else ""
    head += "import socket; ours, theirs = socket.socketpair(); PAIR = ours.fileno()\n" if "PAIR" in body else ""
    body = body.removeprefix("FILTER; ")
    confined = attacker.confined(f"{head}print('answer', {body})", "--allow-ffi")
    assert f"answer {answer}\n" in confined.stdout, confined.said


def test_a_further_filter_only_takes_away(attacker: Attacker) -> None:
    """The program may add a filter that lets everything through; it changes nothing."""
    attacker.must_fail(
        "import struct; one = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7FFF0000))\n"
        "program = struct.pack('HxxxxxxQ', 1, ctypes.addressof(one))\n"
        "print(attempt('prctl', 38, 1, 0, 0, 0), attempt('seccomp', 1, 0, program), attempt('prctl', 22, 2, program, 0, 0))\n"
        "print('socket', attempt('socket', 2, 1, 0))",
        "--allow-ffi",
        harm=lambda ended: "socket did" in ended.stdout,
    )
