"""Files that would outlive the sandbox with more rights: set-id bits, devices, file capabilities, set-id programs.

The attack: leave a set-user-id copy of a shell in a granted folder, by every call that takes a mode; make a device node
of a disk; give a file capabilities; or execute a set-user-id program of the system.
What stops it: the static filter refuses the bits and the nodes (Landlock grants no MAKE_CHAR and MAKE_BLOCK besides);
CAP_MKNOD, CAP_SETFCAP and CAP_SYS_ADMIN are cut; no_new_privs. Source: open(2), mknod(2), xattr(7), prctl(2);
THREATS 2 (fsr_mknod_*), 4 (metaw_suid), 9 (child_suid), 11 (kern_nnp).
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

BITS = {
    "chmod": "call('chmod', (WRITE + '/data').encode(), 0o6755)",
    "chmod, high bits": "call('chmod', (WRITE + '/data').encode(), 0o6755 | 1 << 40)",
    "fchmod": "call('fchmod', raw_open(WRITE + '/data'), 0o4755)",
    "fchmodat": "call('fchmodat', -100, (WRITE + '/data').encode(), 0o2755)",
    "fchmodat2": "call('fchmodat2', -100, (WRITE + '/data').encode(), 0o4755, 0)",
    "fchmodat2 by O_PATH": "call('fchmodat2', raw_open(WRITE + '/data', os.O_PATH), b'', 0o4755, 0x1000)",
    "open": "call('open', (WRITE + '/new').encode(), os.O_CREAT | os.O_WRONLY, 0o6755)",
    "openat": "raw_open(WRITE + '/new', os.O_CREAT | os.O_WRONLY, 0o4755)",
    "openat, high bits": "raw_open(WRITE + '/new', os.O_CREAT | os.O_WRONLY | 1 << 40, 0o4755 | 1 << 40)",
    "openat2": "import struct\n"
    "call('openat2', -100, (WRITE + '/new').encode(), struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0), 24)",
    "creat": "call('creat', (WRITE + '/new').encode(), 0o6755)",
    "unnamed": "fd = raw_open(WRITE, os.O_TMPFILE | os.O_WRONLY, 0o4755)\n"
    "call('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100, (WRITE + '/new').encode(), 0x400)",
    "mknod": "call('mknod', (WRITE + '/new').encode(), 0o104755, 0)",
    "mknodat": "call('mknodat', -100, (WRITE + '/new').encode(), 0o106755, 0)",
    "os.chmod": "os.chmod(WRITE + '/data', 0o4755)",
    "os.fchmod": "os.fchmod(os.open(WRITE + '/data', os.O_RDWR), 0o4755)",
    "os.open": "os.open(WRITE + '/new', os.O_CREAT | os.O_WRONLY, 0o4755)",
    "os.mknod": "os.mknod(WRITE + '/new', 0o104755)",
    "a socket's file": "import socket; one = socket.socket(socket.AF_UNIX); os.fchmod(one.fileno(), 0o6777)\n"
    "one.bind(WRITE + '/new')",
    "a copy": "import shutil; shutil.copy2(READ + '/setid', WRITE + '/new')",
    "a hard link": "call('linkat', -100, (READ + '/setid').encode(), -100, (WRITE + '/new').encode(), 0)",
    "tar": "import io, tarfile; raw = io.BytesIO(); tar = tarfile.open(fileobj=raw, mode='w')\n"
    "entry = tarfile.TarInfo('new'); entry.mode = 0o4755; tar.addfile(entry); tar.close(); raw.seek(0)\n"
    "tarfile.open(fileobj=raw).extractall(WRITE, **({'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else {}))",
}
DEVICES = {
    "mknod char": "call('mknod', (WRITE + '/new').encode(), 0o20666, 0x103)",
    "mknod block": "call('mknodat', -100, (WRITE + '/new').encode(), 0o60666, 0x801)",
    "mknod, high bits": "call('mknodat', -100, (WRITE + '/new').encode(), 0o20666 | 1 << 40, 0x103)",
    "os.mknod": "os.mknod(WRITE + '/new', 0o20666, 0x103)",
}
WHITEOUT = (
    "raw_open(WRITE + '/own', os.O_CREAT)\n"
    "call('renameat2', -100, (WRITE + '/own').encode(), -100, (WRITE + '/new').encode(), 4)"
)
# struct vfs_cap_data of revision 2: CAP_SETUID permitted and effective.
CAPABILITY = "b'\\x01\\0\\0\\x02' + (1 << 7).to_bytes(4, 'little') + bytes(12)"
ATTRIBUTES = {
    "security.capability": f"call('setxattr', (WRITE + '/data').encode(), b'security.capability', {CAPABILITY}, 20, 0)",
    "security.capability by a descriptor": "fd = raw_open(WRITE + '/data', os.O_RDWR)\n"
    f"call('fsetxattr', fd, b'security.capability', {CAPABILITY}, 20, 0)",
    "security.other": "call('lsetxattr', (WRITE + '/data').encode(), b'security.other', b'x', 1, 0)",
    "trusted.other": "call('setxattr', (WRITE + '/data').encode(), b'trusted.other', b'x', 1, 0)",
    "setxattrat": "import struct; value = ctypes.create_string_buffer(b'x')\n"
    "call('setxattrat', -100, (WRITE + '/data').encode(), 0, b'trusted.other',\n"
    "     struct.pack('QII', ctypes.addressof(value), 1, 0), 16)",
}


def files(attacker: Attacker) -> list[os.stat_result]:
    return [os.lstat(os.path.join(attacker.path("write"), name)) for name in os.listdir(attacker.path("write"))]


def put_set_id(attacker: Attacker) -> None:
    """Put a set-user-id file where it may be read."""
    attacker.put("read/setid", "", 0o755)
    os.chmod(attacker.path("read/setid"), 0o4755)


@pytest.mark.parametrize("body", BITS.values(), ids=BITS)
def test_bits(attacker: Attacker, body: str) -> None:
    attacker.must_fail(
        body,
        "--allow-ffi",
        "--allow-net",
        harm=lambda _: any(file.st_mode & (stat.S_ISUID | stat.S_ISGID) for file in files(attacker)),
        prepare=lambda: put_set_id(attacker),
    )


def test_bits_by_another_program(attacker: Attacker) -> None:
    attacker.must_fail(
        "import subprocess; subprocess.run(['chmod', 'u+s', WRITE + '/data'])\n"
        "subprocess.run(['install', '-m', '4755', '/bin/sh', WRITE + '/new'])\n"
        "subprocess.run(['cp', '-p', READ + '/setid', WRITE + '/copy'])",
        "--allow-child-process",
        harm=lambda _: any(file.st_mode & (stat.S_ISUID | stat.S_ISGID) for file in files(attacker)),
        prepare=lambda: put_set_id(attacker),
    )


@pytest.mark.parametrize("body", DEVICES.values(), ids=DEVICES)
def test_devices(superuser: Attacker, body: str) -> None:
    superuser.must_fail(
        body,
        "--allow-ffi",
        harm=lambda _: any(stat.S_ISCHR(file.st_mode) or stat.S_ISBLK(file.st_mode) for file in files(superuser)),
    )


def test_a_whiteout_is_a_device(attacker: Attacker) -> None:
    attacker.must_fail(
        WHITEOUT, "--allow-ffi", harm=lambda _: any(stat.S_ISCHR(file.st_mode) for file in files(attacker))
    )


@pytest.mark.parametrize("body", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_attributes(superuser: Attacker, body: str) -> None:
    path = superuser.path("write/data")
    try:
        os.setxattr(path, "trusted.probe", b"x")
    except OSError as error:
        pytest.skip(f"needs trusted.* and security.* attributes in {superuser.home}; found {error}")
    superuser.must_fail(body, "--allow-ffi", harm=lambda _: os.listxattr(path))


@pytest.mark.parametrize("attacker", ["user"], indirect=True)
def test_a_program_with_the_bit(attacker: Attacker) -> None:
    """As a user: root's rights; no_new_privs makes the bit worthless, for the program's whole tree."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root, to lay the program out; found user id {os.geteuid()}")
    if os.statvfs(attacker.home).f_flag & os.ST_NOSUID:
        pytest.skip(f"needs a file system with set-id bits; found nosuid on {attacker.home}")

    def prepare() -> None:
        path = attacker.path("read/id")
        shutil.copy(tool("id"), path)
        os.chown(path, 0, 0)
        os.chmod(path, 0o4755)

    attacker.must_fail(
        "import subprocess; print('id', subprocess.run([READ + '/id', '-u'], capture_output=True, text=True).stdout)",
        "--allow-child-process",
        harm=lambda ended: "id 0" in ended.stdout,
        prepare=prepare,
    )


def test_a_program_with_the_bit_is_run_without_it(attacker: Attacker) -> None:
    """The twin: the program itself runs."""
    confined = attacker.confined(
        "import subprocess; print('id', subprocess.run(['id', '-u'], capture_output=True, text=True).stdout)",
        "--allow-child-process",
    )
    expected = 0 if attacker.name == "root" else (attacker.user or os.geteuid())
    assert f"id {expected}" in confined.stdout, confined.said
