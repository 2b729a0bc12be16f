"""Reading what isn't granted, by other names for it.

The attack: ``..``, links (that exist, that the program makes, chains of them), directory descriptors, /proc/self, hard
links, renames into a grant, a grant's link re-pointed afterwards, a name that merely begins like a grant.
What stops it: Landlock. It checks the file that is reached, by its place, in the kernel; nothing resolves names before.
The calls are raw, so the hook sees none of them. Source: landlock(7); THREATS 2 (fsr_*).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

BODIES = {
    "by its name": "raw_read(SECRET + '/data')",
    "by dot dot": "raw_read(READ + '/../secret/data')",
    "from the root": "os.chdir(READ); raw_read('/'.join(['..'] * 40) + SECRET + '/data')",
    "by a link that is there": "raw_read(READ + '/link')",
    "by a link to the folder": "raw_read(READ + '/folder/data')",
    "by a link of its own": "os.symlink(SECRET + '/data', WRITE + '/own'); raw_read(WRITE + '/own')",
    "by a relative link": "os.symlink('../secret/data', WRITE + '/own'); raw_read(WRITE + '/own')",
    "by a chain of links": """
os.symlink(SECRET, WRITE + '/c')
os.symlink('c', WRITE + '/b')
os.symlink(WRITE + '/b/../secret/data', WRITE + '/a')
raw_read(WRITE + '/a')
""",
    "from a folder's descriptor": "raw_read('secret/data', at=raw_open(HOME, os.O_PATH | os.O_DIRECTORY))",
    "after fchdir": "call('fchdir', raw_open(SECRET, os.O_PATH)); raw_read('data')",
    "after chdir": "call('chdir', SECRET.encode()); raw_read('data')",
    "by /proc/self/root": "raw_read('/proc/self/root' + SECRET + '/data')",
    "by /proc/self/cwd": "call('chdir', SECRET.encode()); raw_read('/proc/self/cwd/data')",
    "by /proc/thread-self/root": "raw_read('/proc/thread-self/root' + SECRET + '/data')",
    "reopened from O_PATH": "raw_read(f'/proc/self/fd/{raw_open(SECRET + \"/data\", os.O_PATH)}')",
    "reopened from O_PATH by /dev/fd": "raw_read(f'/dev/fd/{raw_open(SECRET + \"/data\", os.O_PATH)}')",
    "by a hard link of its own": "call('linkat', -100, (SECRET + '/data').encode(), -100, (WRITE + '/own').encode(), 0)\n"
    "raw_read(WRITE + '/own')",
    "by a hard link of a descriptor": "fd = raw_open(SECRET + '/data', os.O_PATH)\n"
    "call('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100, (WRITE + '/own').encode(), 0x400)\n"
    "raw_read(WRITE + '/own')",
    "renamed into a grant": "call('renameat', -100, (SECRET + '/data').encode(), -100, (WRITE + '/own').encode())\n"
    "raw_read(WRITE + '/own')",
    "its folder renamed into a grant": "call('renameat', -100, SECRET.encode(), -100, (WRITE + '/own').encode())\n"
    "raw_read(WRITE + '/own/data')",
    "exchanged with a file of its own": "raw_open(WRITE + '/own', os.O_CREAT | os.O_WRONLY)\n"
    "call('renameat2', -100, (SECRET + '/data').encode(), -100, (WRITE + '/own').encode(), 2)\n"
    "raw_read(WRITE + '/own')",
    "a name that begins like a grant": "raw_read(READ + 'able/data')",
    "a name that begins like a granted file": "raw_read(READ + '/data.old/../../secret/data')",
    "listing": "print(os.listdir(raw_open(SECRET, os.O_RDONLY | os.O_DIRECTORY)))",
    "listing by a link": "print(os.listdir(raw_open(READ + '/folder', os.O_RDONLY | os.O_DIRECTORY)))",
    "listing the folder above": "print(os.listdir(raw_open(READ + '/..', os.O_RDONLY | os.O_DIRECTORY)))",
    "openat2": "import struct; how = struct.pack('QQQ', 0, 0, 0)\n"
    "print(os.read(call('openat2', -100, (SECRET + '/data').encode(), how, 24), 99).decode())",
    "openat2 in a root": "import struct; how = struct.pack('QQQ', 0, 0, 0x10)\n"
    "at = raw_open(HOME, os.O_PATH | os.O_DIRECTORY)\n"
    "print(os.read(call('openat2', at, b'/secret/data', how, 24), 99).decode())",
}


def stage(attacker: Attacker) -> None:
    os.symlink("../secret/data", attacker.path("read", "link"))
    os.symlink(attacker.path("secret"), attacker.path("read", "folder"))
    attacker.put("readable/data", TOKEN)
    attacker.put("read/data.old/x", "")
    attacker.put(f"secret/{TOKEN}", "")
    attacker.put(f"{TOKEN}-folder/x", "")


def own_folder(attacker: Attacker, name: str) -> None:
    """Make a folder that belongs to who attacks."""
    os.mkdir(attacker.path(name))
    attacker.own(attacker.path(name))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_by_another_name(attacker: Attacker, body: str) -> None:
    attacker.must_fail(body, "--allow-ffi", harm=leaked, prepare=lambda: stage(attacker))


def test_a_link_of_a_grant_re_pointed(attacker: Attacker) -> None:
    """A grant through a link that the program may replace is refused: an earlier run would choose what it means."""
    attacker.must_fail(
        "os.unlink(WRITE + '/granted'); os.symlink(SECRET, WRITE + '/granted'); raw_read(WRITE + '/granted/data')",
        "--allow-ffi",
        f"--allow-fs-read={attacker.path('write/granted')}/",
        harm=leaked,
        code=9,
        prepare=lambda: os.symlink("../read", attacker.path("write/granted")),
    )


def test_a_granted_folder_replaced(attacker: Attacker) -> None:
    """A rule is tied to the folder, not to its name: a link put in its place has none."""
    attacker.must_fail(
        "os.rename(WRITE + '/granted', WRITE + '/away'); os.symlink(SECRET, WRITE + '/granted')\n"
        "raw_read(WRITE + '/granted/data')",
        "--allow-ffi",
        f"--allow-fs-read={attacker.path('write/granted')}/",
        harm=leaked,
        prepare=lambda: own_folder(attacker, "write/granted"),
    )


@pytest.mark.parametrize(
    "body",
    [
        "raw_read(DROP + '/data')",
        "call('linkat', -100, (DROP + '/data').encode(), -100, (WRITE + '/own').encode(), 0); raw_read(WRITE + '/own')",
        "call('renameat', -100, (DROP + '/data').encode(), -100, (WRITE + '/own').encode()); raw_read(WRITE + '/own')",
        (
            "os.mkdir(DROP + '/in'); os.rename(DROP + '/data', DROP + '/in/data')\n"
            "call('renameat', -100, (DROP + '/in').encode(), -100, (WRITE + '/in').encode()); raw_read(WRITE + '/in/data')"
        ),
        "print(os.pread(raw_open(DROP + '/data', os.O_RDWR), 99, 0).decode())",
    ],
    ids=["by its name", "hard link", "rename", "rename of its folder", "open for both"],
)
def test_what_is_granted_for_writing_only(attacker: Attacker, body: str) -> None:
    """Landlock's REFER refuses a link or rename that would give a file more rights than it had."""
    attacker.must_fail(body, "--allow-ffi", harm=leaked, prepare=lambda: attacker.put("drop/data", TOKEN))


def test_the_working_directory_is_no_grant(attacker: Attacker) -> None:
    attacker.must_fail("raw_read('data')", "--allow-ffi", harm=leaked, cwd=attacker.path("secret"))


def test_the_folder_of_the_script_is_no_grant(attacker: Attacker) -> None:
    script = attacker.put(
        "secret/job.py",
        "import os, sys; print('ran')\nprint(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data')).read())",
    )
    plain = attacker.run([attacker.python, script])
    assert leaked(plain), plain.said
    confined = attacker.run([*attacker.command, "--permission", script])
    assert confined.stdout == "ran\n", confined.said
    assert confined.code == 1, confined.said


def test_another_program(attacker: Attacker) -> None:
    """The kernel's rules are inherited by what the program starts."""
    attacker.must_fail(
        "import subprocess; print(subprocess.run(['cat', SECRET + '/data'], capture_output=True, text=True).stdout)",
        "--allow-child-process",
        harm=leaked,
    )
