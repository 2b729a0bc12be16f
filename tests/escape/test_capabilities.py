"""What root could do to the machine.

The attack: as root, use a capability: mount, make devices, set the clock or the name of the machine, change its root,
read the kernel's log, raise limits and priorities; with raw calls and with system programs.
What stops it: every capability but a few for files and for the own processes is cut, in the supervisor as well as in the
program; the static filter has none of the calls. Source: capabilities(7); THREATS 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandboxed_python.kernel.process import KEPT_CAPABILITIES, capability_mask
from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

FLAGS = ("--allow-ffi", "--allow-child-process", "--allow-net")
# The machine stays as it is: both runs have namespaces of their own, and the clock is set by nothing.
BODIES = {
    "mount": "import subprocess; subprocess.run(['mount', '-t', 'tmpfs', 'none', WRITE], check=True)",
    "umount": "import subprocess; subprocess.run(['mount', '-t', 'tmpfs', 'none', WRITE]); subprocess.run(['umount', WRITE], check=True)",
    "mknod": "import subprocess; subprocess.run(['mknod', WRITE + '/new', 'c', '1', '3'], check=True)",
    "sethostname": "import socket; socket.sethostname('attacked')",
    "sethostname, raw": "call('sethostname', b'attacked', 8)",
    "setdomainname": "call('setdomainname', b'attacked', 8)",
    "adjtimex": "import struct; call('adjtimex', ctypes.create_string_buffer(struct.pack('I4xq', 0x8001, 0), 208))",
    "clock_adjtime": "import struct\n"
    "call('clock_adjtime', 0, ctypes.create_string_buffer(struct.pack('I4xq', 0x8001, 0), 208))",
    "chroot": "os.chroot(HOME)",
    "syslog": "call('syslog', 3, ctypes.create_string_buffer(64), 64)",
    "priority": "os.setpriority(os.PRIO_PROCESS, 0, -5)",
    "real time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "unshare": "call('unshare', 0x20000)",
    "unshare, system program": "import subprocess; subprocess.run(['unshare', '-n', 'true'], check=True)",
    "fsuid": "call('setfsuid', 65534); assert call('setfsuid', 65534) == 65534",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "interfaces": "import fcntl, socket, struct; one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "fcntl.ioctl(one, 0x8922, struct.pack('16si', b'lo', 60000))",
    "routes": "import socket, struct; one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
    "one.send(struct.pack('IHHIIBBHiII', 32, 16, 5, 1, 0, 0, 0, 0, 1, 1, 1))\n"
    "assert struct.unpack_from('i', one.recv(999), 16)[0] == 0, 'EPERM'",
    "bpf": "call('bpf', 0, (1).to_bytes(4, 'little') + (4).to_bytes(4, 'little') * 2 + (1).to_bytes(4, 'little') + bytes(56), 72)",
    "perf_event": "import struct; call('perf_event_open', struct.pack('IIQ', 1, 112, 0) + bytes(96), 0, -1, -1, 0)",
    "lease": "call('fcntl', raw_open(WRITE + '/data', os.O_RDWR), 1024, 1)",
    "swap": "assert attempt('swapoff', b'/no/such') == 'ENOENT', 'EPERM'",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_using_one(superuser: Attacker, body: str) -> None:
    superuser.must_fail(
        f"{body}\nprint('DID IT')",
        *FLAGS,
        "--allow-fs-read=*",
        harm=lambda ended: "DID IT" in ended.stdout,
        around=[tool("unshare"), "-m", "-u", "-n", "-i", "--propagation", "private"],
        ends=("OSError", "AssertionError", "SubprocessError"),
    )


@pytest.mark.parametrize("way", [(), ("-I",)], ids=["fork", "exec"])
def test_what_is_left(superuser: Attacker, way: tuple[str, ...]) -> None:
    """Of the program and, for it acts for the program, of the supervisor."""
    confined = superuser.confined(
        "for pid in 'self', os.getppid():\n"
        "    status = open(f'/proc/{pid}/status').read()\n"
        "    print(*[line.split()[1] for line in status.splitlines() if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:'))])",
        *way,
        "--allow-fs-read=/proc/",
    )
    kept = capability_mask(KEPT_CAPABILITIES)
    program, supervisor = (line.split() for line in confined.stdout.splitlines()[:2])
    for who, (inheritable, permitted, effective, bounding, ambient, _nnp, _seccomp) in (
        ("program", program),
        ("supervisor", supervisor),
    ):
        for name, mask in (("permitted", permitted), ("effective", effective), ("bounding", bounding)):
            assert int(mask, 16) & ~kept == 0, f"{who}: {name} {mask}: {confined.said}"
        assert int(inheritable, 16) == int(ambient, 16) == 0, confined.said
    assert program[5:] == ["1", "2"], confined.said


def test_none_comes_back(superuser: Attacker) -> None:
    """By execve as root, by another user's id and back, by raising what was lowered."""
    confined = superuser.confined(
        "import struct, subprocess\n"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)\n"
        "header = struct.pack('Ii', 0x20080522, 0)\n"
        "print('capset', attempt('capset', header, struct.pack('6I', *[0xFFFFFFFF] * 6)))\n"
        "print('keep', attempt('prctl', 8, 1, 0, 0, 0), attempt('prctl', 28, 0, 0, 0, 0))\n"
        "print('ambient', attempt('prctl', 47, 2, 21, 0, 0))",
        *FLAGS,
        "--allow-fs-read=/proc/",
    )
    masks = [int(line.split()[1], 16) for line in confined.stdout.splitlines() if line.startswith("Cap")]
    assert len(masks) == 5, confined.said
    assert not any(mask & ~capability_mask(KEPT_CAPABILITIES) for mask in masks), confined.said
    assert "capset EPERM" in confined.stdout, confined.said
    assert "keep EPERM EPERM" in confined.stdout, confined.said
    assert "ambient EPERM" in confined.stdout, confined.said


def test_the_twin(superuser: Attacker) -> None:
    """What root is often for works: other people's files, other owners, the own ids."""
    confined = superuser.confined(
        "os.chown(WRITE + '/data', 1234, 1234); os.chmod(WRITE + '/data', 0)\n"
        "print(open(WRITE + '/data').read()); os.setgid(1234); os.setuid(1234); print(os.getuid())"
    )
    assert "write\n\n1234\n" in confined.stdout, confined.said
