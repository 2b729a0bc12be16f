"""Opening a file neither for reading nor for writing.

The attack: access mode 3 of open(2), which floppy tools used for ioctls. The kernel asks for the file's read and write
permission and gives a descriptor with neither; to Landlock such an opening needs no right at all. What such a descriptor
is good for is metadata, attributes included, and what the mere opening of a device does.
What stops it: the filter refuses the access mode.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

HEAD = "BUFFER = ctypes.create_string_buffer(4096)\nfd = raw_open(SECRET + '/data', {flags})\n"
USES = {
    "metadata": "print('TOLD', os.fstat(fd).st_size)",
    "attributes": "call('fgetxattr', fd, b'user.mark', BUFFER, 99); print('TOLD', BUFFER.value.decode())",
    "names of attributes": "call('flistxattr', fd, BUFFER, 99); print('TOLD', BUFFER.value.decode())",
    "file system": "call('fstatfs', fd, BUFFER); print('TOLD')",
}
FLAGS = {"3": "3", "with the other word's half": "3 | 1 << 40", "without waiting": "3 | os.O_NONBLOCK | os.O_CLOEXEC"}


def mark(attacker: Attacker) -> None:
    """Give the secret file an attribute."""
    try:
        os.setxattr(attacker.path("secret/data"), "user.mark", b"of the secret")
    except OSError as error:
        pytest.skip(f"needs extended attributes in the folder for temporary files: {error.strerror}")


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_of_what_is_not_granted(attacker: Attacker, use: str, flags: str) -> None:
    attacker.must_fail(
        HEAD.format(flags=flags) + use,
        "--allow-ffi",
        harm=lambda ended: "TOLD" in ended.stdout,
        prepare=lambda: mark(attacker),
    )


def test_by_the_old_call(attacker: Attacker) -> None:
    attacker.must_fail(
        "fd = call('open', os.fsencode(SECRET + '/data'), 3, 0); print('TOLD', os.fstat(fd).st_size)",
        "--allow-ffi",
        harm=lambda ended: "TOLD" in ended.stdout,
    )


def test_of_what_may_only_be_read(attacker: Attacker) -> None:
    """It takes the permission to write."""
    attacker.must_fail(
        "print('TOLD', os.fstat(raw_open(READ + '/data', 3)).st_size)",
        "--allow-ffi",
        harm=lambda ended: "TOLD" in ended.stdout,
    )


def test_the_other_modes_work(attacker: Attacker) -> None:
    """The twin: reading, writing and both, with every other flag that Python knows."""
    attacker.lay_out()
    body = (
        "for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):\n"
        "    for more in (0, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_SYNC):\n"
        "        os.close(raw_open(WRITE + '/data', mode | more))"
    )
    confined = attacker.confined(body, "--allow-ffi")
    assert "TRIED: done" in confined.stdout, confined.said
