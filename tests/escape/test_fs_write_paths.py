"""Changing what isn't granted for writing: another tree, and the tree that is granted for reading only.

The attack: create, overwrite, empty, remove, rename out and in, link, make folders, pipes and links; by links that the
program makes (dangling ones too), descriptors of folders, /proc/self/fd.
What stops it: Landlock, at the folder that is changed or the file that is reached; TRUNCATE (ABI 3) also where a file is
only opened for reading; REFER for links and renames between trees. The calls are raw, so the hook sees none of them.
Source: landlock(7); THREATS 4 (fsw_*).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import snapshot

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

BODIES = {
    "create": "raw_open(SECRET + '/new', os.O_CREAT | os.O_WRONLY)",
    "create in a read grant": "raw_open(READ + '/new', os.O_CREAT | os.O_WRONLY)",
    "create by dot dot": "raw_open(WRITE + '/../secret/new', os.O_CREAT | os.O_WRONLY)",
    "create by a dangling link": "os.symlink(SECRET + '/new', WRITE + '/own')\n"
    "raw_open(WRITE + '/own', os.O_CREAT | os.O_WRONLY)",
    "create by a link to the folder": "os.symlink(SECRET, WRITE + '/own')\n"
    "raw_open(WRITE + '/own/new', os.O_CREAT | os.O_WRONLY)",
    "create from a folder's descriptor": "raw_open('new', os.O_CREAT | os.O_WRONLY, at=raw_open(SECRET, os.O_PATH))",
    "create by /proc/self/fd": "raw_open(f'/proc/self/fd/{raw_open(SECRET, os.O_PATH)}/new', os.O_CREAT | os.O_WRONLY)",
    "create by a folder of /proc/self/cwd": "call('chdir', SECRET.encode())\n"
    "raw_open('/proc/self/cwd/new', os.O_CREAT | os.O_WRONLY)",
    "create an unnamed file and name it": "fd = raw_open(WRITE, os.O_TMPFILE | os.O_WRONLY)\n"
    "call('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100, (SECRET + '/new').encode(), 0x400)",
    "create an unnamed file there": "fd = raw_open(SECRET, os.O_TMPFILE | os.O_WRONLY)\n"
    "call('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100, (SECRET + '/new').encode(), 0x400)",
    "overwrite": "os.write(raw_open(SECRET + '/data', os.O_WRONLY), b'!')",
    "overwrite in a read grant": "os.write(raw_open(READ + '/data', os.O_RDWR), b'!')",
    "append": "os.write(raw_open(READ + '/data', os.O_WRONLY | os.O_APPEND), b'!')",
    "reopen for writing": "fd = raw_open(READ + '/data')\nos.write(raw_open(f'/proc/self/fd/{fd}', os.O_WRONLY), b'!')",
    "map for writing": "fd = raw_open(READ + '/data', os.O_RDWR)\nctypes.memset(mapped(1, 3, 1, fd), 33, 1)",
    "truncate": "call('truncate', (SECRET + '/data').encode(), 0)",
    "truncate in a read grant": "call('truncate', (READ + '/data').encode(), 0)",
    "empty by opening for reading": "raw_open(READ + '/data', os.O_RDONLY | os.O_TRUNC)",
    "empty by opening for reading elsewhere": "raw_open(SECRET + '/data', os.O_RDONLY | os.O_TRUNC)",
    "empty by opening with no access": "raw_open(READ + '/data', 3 | os.O_TRUNC)",
    "empty by a link": "os.symlink(READ + '/data', WRITE + '/own'); raw_open(WRITE + '/own', os.O_TRUNC)",
    "empty by a hard link": "call('linkat', -100, (READ + '/data').encode(), -100, (WRITE + '/own').encode(), 0)\n"
    "raw_open(WRITE + '/own', os.O_WRONLY | os.O_TRUNC)",
    "fallocate": "call('fallocate', raw_open(READ + '/data', os.O_RDWR), 0, 0, 4096)",
    "remove": "call('unlinkat', -100, (SECRET + '/data').encode(), 0)",
    "remove in a read grant": "call('unlinkat', -100, (READ + '/data').encode(), 0)",
    "remove a folder": "call('unlinkat', -100, (READ + '/empty').encode(), 0x200)",
    "make a folder": "call('mkdirat', -100, (SECRET + '/new').encode(), 0o755)",
    "make a link": "call('symlinkat', b'/', -100, (READ + '/new').encode())",
    "make a pipe": "call('mknodat', -100, (READ + '/new').encode(), 0o10644, 0)",
    "make a socket": "call('mknodat', -100, (READ + '/new').encode(), 0o140644, 0)",
    "make a file with mknod": "call('mknodat', -100, (READ + '/new').encode(), 0o100644, 0)",
    "rename within": "call('renameat', -100, (READ + '/data').encode(), -100, (READ + '/new').encode())",
    "rename out": "call('renameat', -100, (READ + '/data').encode(), -100, (WRITE + '/own').encode())",
    "rename in": "raw_open(WRITE + '/own', os.O_CREAT)\n"
    "call('renameat', -100, (WRITE + '/own').encode(), -100, (READ + '/new').encode())",
    "rename over": "raw_open(WRITE + '/own', os.O_CREAT)\n"
    "call('renameat', -100, (WRITE + '/own').encode(), -100, (SECRET + '/data').encode())",
    "rename a folder in": "os.mkdir(WRITE + '/own', 0o700)\n"
    "call('renameat', -100, (WRITE + '/own').encode(), -100, (READ + '/empty').encode())",
    "exchange": "raw_open(WRITE + '/own', os.O_CREAT)\n"
    "call('renameat2', -100, (WRITE + '/own').encode(), -100, (READ + '/data').encode(), 2)",
    "rename a grant's folder": "call('renameat', -100, READ.encode(), -100, (HOME + '/renamed').encode())",
    "link out and overwrite": "call('linkat', -100, (READ + '/data').encode(), -100, (WRITE + '/own').encode(), 0)\n"
    "os.write(raw_open(WRITE + '/own', os.O_WRONLY), b'!')",
    "link in": "raw_open(WRITE + '/own', os.O_CREAT)\n"
    "call('linkat', -100, (WRITE + '/own').encode(), -100, (READ + '/new').encode(), 0)",
    "a name that begins like a grant": "raw_open(WRITE + 'able/new', os.O_CREAT | os.O_WRONLY)",
    "bind a socket of a pair": "import socket; ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
    "ours.bind(SECRET + '/new')",
    "bind in a write grant is no file there": "import socket; ours, theirs = socket.socketpair()\n"
    "ours.bind(READ + '/new')",
}
LEGACY = {
    "open": "call('open', (SECRET + '/new').encode(), os.O_CREAT | os.O_WRONLY, 0o644)",
    "creat": "call('creat', (READ + '/data').encode(), 0o644)",
    "mkdir": "call('mkdir', (SECRET + '/new').encode(), 0o755)",
    "rmdir": "call('rmdir', (READ + '/empty').encode())",
    "unlink": "call('unlink', (READ + '/data').encode())",
    "rename": "call('rename', (READ + '/data').encode(), (WRITE + '/own').encode())",
    "link": "call('link', (READ + '/data').encode(), (READ + '/new').encode())",
    "symlink": "call('symlink', b'/', (READ + '/new').encode())",
    "mknod": "call('mknod', (READ + '/new').encode(), 0o10644, 0)",
}


def stage(attacker: Attacker) -> None:
    attacker.put("readable/x", "")
    attacker.put("writeable/x", "")
    os.mkdir(attacker.path("read", "empty"))
    attacker.own(attacker.path("read"))


def fails(attacker: Attacker, body: str, *flags: str) -> None:
    """Check that nothing changes outside of the write grants; a link count alone is a change, too."""
    before = {}

    def prepare() -> None:
        stage(attacker)
        before.update(outside())

    def outside() -> dict[str, object]:
        return {
            name: entry._replace(changed=0)
            for name, entry in snapshot(attacker.home).items()
            if name != "." and name.partition("/")[0] not in ("write", "drop")
        }

    attacker.must_fail(body, *flags, harm=lambda _: outside() != before, prepare=prepare)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_change(attacker: Attacker, body: str) -> None:
    fails(attacker, body, "--allow-ffi")


@pytest.mark.parametrize("body", LEGACY.values(), ids=LEGACY)
def test_a_change_by_an_old_call(attacker: Attacker, body: str) -> None:
    """Calls that only the older architectures have."""
    fails(attacker, body, "--allow-ffi")


def test_another_program(attacker: Attacker) -> None:
    fails(
        attacker,
        "import subprocess; subprocess.run(['sh', '-c', f'echo x > {SECRET}/new; rm -f {READ}/data; : > {SECRET}/data'])",
        "--allow-child-process",
    )
