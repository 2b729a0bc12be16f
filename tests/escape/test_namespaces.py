"""Namespaces, mounts and roots: other meanings for paths, and capabilities without being root.

The attack: unshare, setns, clone with namespace flags (an unprivileged user namespace gives every capability inside);
mount, the new mount calls, chroot, pivot_root to bring a foreign tree under a granted path.
What stops it: the static filter has none of these calls and masks clone's flags; clone3 answers ENOSYS; Landlock refuses
mounts by itself. Source: namespaces(7), mount_setattr(2); THREATS 9 and 11 (kern_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import leaked, witness
from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

FLAGS = ("--allow-ffi", "--allow-child-process", "--allow-worker", "--allow-net", "--allow-inspector")
USER, MOUNT, UTS, IPC, PID, NET, GROUP, TIME = (
    0x10000000, 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000, 0x2000000, 0x80,
)  # fmt: skip


def elsewhere() -> str:
    """Return a program that becomes one in another UTS namespace."""
    return f"import os; os.execv({tool('unshare')!r}, ['unshare', '-u', 'sh', '-c', 'echo ready; sleep 60'])"


@pytest.mark.parametrize("flags", [USER, USER | MOUNT, USER | NET, USER | PID, USER | UTS, USER | IPC, USER | TIME])
def test_unshare(attacker: Attacker, flags: int) -> None:
    attacker.must_fail(f"print(attempt('unshare', {flags}))", *FLAGS, harm=lambda ended: "did" in ended.stdout)


@pytest.mark.parametrize("flags", [MOUNT, UTS, IPC, PID, NET, GROUP, TIME])
def test_unshare_as_root(superuser: Attacker, flags: int) -> None:
    superuser.must_fail(f"print(attempt('unshare', {flags}))", *FLAGS, harm=lambda ended: "did" in ended.stdout)


@pytest.mark.parametrize("flags", [USER, USER | MOUNT, USER | NET, USER | PID])
@pytest.mark.parametrize("high", [0, 1 << 40], ids=["", "with high bits"])
def test_clone(attacker: Attacker, flags: int, high: int) -> None:
    """The kernel looks at the low 32 bits of the flags."""
    attacker.must_fail(
        f"pid = call('clone', {flags | high} | 17, 0, 0, 0, 0)\n"
        "if pid == 0: os.write(1, b'in a new one\\n'); os._exit(0)\n"
        "os.waitpid(pid, 0)",
        *FLAGS,
        harm=lambda ended: "in a new one" in ended.stdout,
    )


def test_clone3(attacker: Attacker) -> None:
    """Its flags are in memory, where a filter can't look: it answers ENOSYS, and libc takes clone."""
    ended = attacker.must_fail(
        f"import struct; pid = call('clone3', struct.pack('8Q', {USER}, 0, 0, 0, 17, 0, 0, 0), 64)\n"
        "if pid == 0: os.write(1, b'in a new one\\n'); os._exit(0)\n"
        "os.waitpid(pid, 0)",
        *FLAGS,
        harm=lambda ended: "in a new one" in ended.stdout,
    )
    assert "| 38 " in ended.stdout, ended.said


def test_clone_as_a_sibling(attacker: Attacker) -> None:
    """CLONE_PARENT would make the supervisor's parent, not the program, the father of a process."""
    attacker.must_fail(
        "pid = call('clone', 0x8000 | 17, 0, 0, 0, 0)\n"
        "if pid == 0: os.write(1, f'sibling {os.getppid()}\\n'.encode()); os._exit(0)",
        *FLAGS,
        harm=lambda ended: "sibling" in ended.stdout,
        code=None,
    )


def test_setns(superuser: Attacker) -> None:
    with witness(superuser, elsewhere()) as other:
        superuser.must_fail(
            f"print(attempt('setns', raw_open('/proc/{other.pid}/ns/uts'), 0))",
            *FLAGS,
            "--allow-fs-read=/proc/",
            harm=lambda ended: "did" in ended.stdout,
        )


def test_setns_by_pidfd(superuser: Attacker) -> None:
    with witness(superuser, elsewhere()) as other:
        superuser.must_fail(
            f"print(attempt('setns', call('pidfd_open', {other.pid}, 0), {UTS}))",
            *FLAGS,
            harm=lambda ended: "did" in ended.stdout,
        )


# Both runs get a mount namespace of their own, so that the machine stays as it is in any case.
MOUNTS = {
    "bind": "os.mkdir(WRITE + '/m')\ncall('mount', SECRET.encode(), (WRITE + '/m').encode(), 0, 0x1000, 0)\n"
    "raw_read(WRITE + '/m/data')",
    "bind over a grant": "call('mount', SECRET.encode(), READ.encode(), 0, 0x1000, 0); raw_read(READ + '/data')",
    "move": "os.mkdir(WRITE + '/m')\ncall('mount', SECRET.encode(), SECRET.encode(), 0, 0x1000, 0)\n"
    "call('mount', 0, b'/', 0, 0x44000, 0)\n"
    "call('mount', SECRET.encode(), (WRITE + '/m').encode(), 0, 0x2000, 0); raw_read(WRITE + '/m/data')",
    "open_tree, move_mount": "os.mkdir(WRITE + '/m'); fd = call('open_tree', -100, SECRET.encode(), 1)\n"
    "call('move_mount', fd, b'', -100, (WRITE + '/m').encode(), 4); raw_read(WRITE + '/m/data')",
    "a detached tree": "raw_read('data', at=call('open_tree', -100, SECRET.encode(), 1))",
    "overlay": "os.mkdir(WRITE + '/m'); call('mount', b'overlay', (WRITE + '/m').encode(), b'overlay', 0,\n"
    "f'lowerdir={SECRET}:{READ}'.encode()); raw_read(WRITE + '/m/data')",
    "chroot": "call('chroot', HOME.encode()); raw_read('/secret/data')",
    "pivot_root": "call('mount', HOME.encode(), HOME.encode(), 0, 0x1000, 0); os.chdir(HOME)\n"
    "call('pivot_root', b'.', b'.'); raw_read('/secret/data')",
}


@pytest.mark.parametrize("body", MOUNTS.values(), ids=MOUNTS)
def test_mounts(superuser: Attacker, body: str) -> None:
    superuser.must_fail(body, *FLAGS, harm=leaked, around=[tool("unshare"), "-m", "--propagation", "private"])


@pytest.mark.parametrize(
    "body",
    [
        "call('mount', b'none', WRITE.encode(), b'tmpfs', 0, 0); print('MOUNTED')",
        "call('mount', b'none', WRITE.encode(), b'proc', 0, 0); print('MOUNTED')",
        "fd = call('fsopen', b'tmpfs', 0); call('fsconfig', fd, 6, 0, 0, 0); call('fsmount', fd, 0, 0); print('MOUNTED')",
        "call('fspick', -100, b'/', 0); print('MOUNTED')",
        "import struct; call('mount_setattr', -100, HOME.encode(), 0, struct.pack('QQQQ', 0, 0, 0, 0), 32); print('MOUNTED')",
        "call('mount', 0, b'/', 0, 0x40000, 0); call('umount2', b'/proc', 2); print('MOUNTED')",
        (
            "import struct; ids = ctypes.create_string_buffer(800)\n"
            "call('listmount', struct.pack('IIQQQ', 32, 0, 2**64 - 1, 0, 0), ids, 100, 0); print('MOUNTED')"
        ),
    ],
    ids=["tmpfs", "proc", "fsmount", "fspick", "mount_setattr", "umount2", "listmount"],
)
def test_mounting(superuser: Attacker, body: str) -> None:
    superuser.must_fail(
        body,
        *FLAGS,
        harm=lambda ended: "MOUNTED" in ended.stdout,
        around=[tool("unshare"), "-m", "--propagation", "private"],
    )


def test_mounting_in_a_user_namespace(attacker: Attacker) -> None:
    attacker.must_fail(
        f"call('unshare', {USER | MOUNT})\nos.mkdir(WRITE + '/m')\n"
        "call('mount', SECRET.encode(), (WRITE + '/m').encode(), 0, 0x5000, 0); raw_read(WRITE + '/m/data')",
        *FLAGS,
        harm=leaked,
    )
