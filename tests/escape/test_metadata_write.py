"""Changing mode, owner, times and attributes of what isn't granted for writing.

The attack: chmod, chown, utime, setxattr by path, by link, by /proc/self/fd, by a descriptor that is open for reading (of a
read grant, of the input), with AT_EMPTY_PATH, by calls that are younger; in a race with a second thread.
What stops it: Landlock has no right for metadata; the supervisor makes the change itself, through the descriptor that it
judged. Source: THREATS 4 (metaw_*).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import source

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

# Each changes the file's ctime, which is looked at from outside. PLACE is where; IDS are his own.
BY_PATH = {
    "fchmodat": "call('fchmodat', -100, PATH, 0o600)",
    "fchmodat2": "call('fchmodat2', -100, PATH, 0o600, 0)",
    "fchownat": "call('fchownat', -100, PATH, *IDS, 0)",
    "utimensat": "import struct; call('utimensat', -100, PATH, struct.pack('4q', 1, 1, 1, 1), 0)",
    "utimensat, now": "call('utimensat', -100, PATH, 0, 0)",
    "setxattr": "call('setxattr', PATH, b'user.x', b'y', 1, 0)",
    "lsetxattr": "call('lsetxattr', PATH, b'user.x', b'y', 1, 0)",
    "removexattr": "call('removexattr', PATH, b'user.mark')",
    "setxattrat": "import struct; value = ctypes.create_string_buffer(b'y')\n"
    "call('setxattrat', -100, PATH, 0, b'user.x', struct.pack('QII', ctypes.addressof(value), 1, 0), 16)",
    "removexattrat": "call('removexattrat', -100, PATH, 0, b'user.mark')",
    "file_setattr": "import struct; call('file_setattr', -100, PATH, struct.pack('QIIII', 0x80, 0, 0, 0, 0), 24, 0)",
    "O_PATH and /proc/self/fd": "fd = raw_open(PATH, os.O_PATH)\ncall('fchmodat', -100, f'/proc/self/fd/{fd}'.encode(), 0o600)",
    "O_PATH and fchownat": "fd = raw_open(PATH, os.O_PATH); call('fchownat', fd, b'', *IDS, 0x1000)",
    "O_PATH and fchmodat2": "fd = raw_open(PATH, os.O_PATH); call('fchmodat2', fd, b'', 0o600, 0x1000)",
    "O_PATH and utimensat": "fd = raw_open(PATH, os.O_PATH); call('utimensat', fd, b'', 0, 0x1000)",
    "a link of its own": "os.symlink(PATH, os.fsencode(WRITE + '/own')); call('fchmodat', -100, (WRITE + '/own').encode(), 0o600)",
    "dot dot": "call('fchmodat', -100, os.fsencode(WRITE + '/../') + PATH[len(HOME) + 1:], 0o600)",
    "from a folder": "fd = raw_open(HOME, os.O_PATH); call('fchmodat', fd, PATH[len(HOME) + 1:], 0o600)",
    "after chdir": "call('chdir', os.path.dirname(PATH)); call('fchmodat', -100, os.path.basename(PATH), 0o600)",
    "a hard link of its own": "call('linkat', -100, PATH, -100, (WRITE + '/own').encode(), 0)",
}
LEGACY = {
    "chmod": "call('chmod', PATH, 0o600)",
    "chown": "call('chown', PATH, *IDS)",
    "lchown": "call('lchown', PATH, *IDS)",
    "utime": "import struct; call('utime', PATH, struct.pack('2q', 1, 1))",
    "utimes": "import struct; call('utimes', PATH, struct.pack('4q', 1, 1, 1, 1))",
    "futimesat": "import struct; call('futimesat', -100, PATH, struct.pack('4q', 1, 1, 1, 1))",
}
# By a descriptor that is open for reading.
BY_DESCRIPTOR = {
    "fchmod": "call('fchmod', FD, 0o600)",
    "fchown": "call('fchown', FD, *IDS)",
    "futimens": "call('utimensat', FD, 0, 0, 0)",
    "utimensat of an empty path": "call('utimensat', FD, b'', 0, 0x1000)",
    "fchownat of an empty path": "call('fchownat', FD, b'', *IDS, 0x1000)",
    "fsetxattr": "call('fsetxattr', FD, b'user.x', b'y', 1, 0)",
    "fremovexattr": "call('fremovexattr', FD, b'user.mark')",
    "/proc/self/fd": "call('fchmodat', -100, f'/proc/self/fd/{FD}'.encode(), 0o600)",
    "/dev/fd": "call('fchmodat', -100, f'/dev/fd/{FD}'.encode(), 0o600)",
    "attributes of the file system": "call('ioctl', FD, 0x40086602, (0x80).to_bytes(8, 'little'))",
    "os.fchmod": "os.fchmod(FD, 0o600)",
    "os.utime": "os.utime(FD)",
    "os.chmod": "os.chmod(FD, 0o600)",
}
IDS = "IDS = os.getuid(), os.getgid()\n"


class Watch:
    """Looks from outside whether a file was touched: its ctime and its number of links."""

    def __init__(self, attacker: Attacker, name: str) -> None:
        self.attacker = attacker
        self.name = name
        self.before = (0, 0)

    def now(self) -> tuple[int, int]:
        found = os.stat(self.attacker.path(self.name))
        return found.st_ctime_ns, found.st_nlink

    def prepare(self) -> None:
        try:
            os.setxattr(self.attacker.path(self.name), "user.mark", b"x")
        except OSError as error:
            pytest.skip(f"needs extended attributes in {self.attacker.home}; found {error}")
        self.before = self.now()

    def changed(self, _ended: Finished) -> bool:
        return self.now() != self.before


@pytest.mark.parametrize("body", [*BY_PATH.values(), *LEGACY.values()], ids=[*BY_PATH, *LEGACY])
def test_by_path(attacker: Attacker, body: str) -> None:
    by_path(attacker, body, "secret/data")


@pytest.mark.parametrize("name", ["fchmodat", "fchownat", "utimensat", "setxattr", "O_PATH and /proc/self/fd"])
def test_by_path_in_a_read_grant(attacker: Attacker, name: str) -> None:
    by_path(attacker, BY_PATH[name], "read/data")


def by_path(attacker: Attacker, body: str, place: str) -> None:
    """Check that a file stays as it is."""
    watch = Watch(attacker, place)
    if "file_setattr" in body:
        probe = attacker.plain(f"PATH = os.fsencode(HOME + '/{place}')\n{body}")
        if "TRIED: done" not in probe.stdout:
            pytest.skip(f"needs a kernel and a file system with file_setattr; found {probe.stdout}")
    attacker.must_fail(
        f"{IDS}PATH = os.fsencode(HOME + '/{place}')\n{body}", "--allow-ffi", harm=watch.changed, prepare=watch.prepare
    )


@pytest.mark.parametrize("body", BY_DESCRIPTOR.values(), ids=BY_DESCRIPTOR)
def test_by_a_descriptor_open_for_reading(attacker: Attacker, body: str) -> None:
    watch = Watch(attacker, "read/data")
    if "ioctl" in body:
        probe = attacker.plain(f"FD = raw_open(READ + '/data')\n{body}")
        if "TRIED: done" not in probe.stdout:
            pytest.skip(f"needs a file system with attributes of its own; found {probe.stdout}")
    attacker.must_fail(
        f"{IDS}FD = raw_open(READ + '/data')\n{body}", "--allow-ffi", harm=watch.changed, prepare=watch.prepare
    )


@pytest.mark.parametrize("name", ["fchmod", "fchown", "futimens", "fsetxattr", "/proc/self/fd"])
def test_of_the_input(attacker: Attacker, name: str) -> None:
    """A file that the caller gives as input is given for reading."""
    watch = Watch(attacker, "secret/data")
    code = source(f"{IDS}FD = 0\n{BY_DESCRIPTOR[name]}", attacker.home)
    before = ["sh", "-c", f'exec "$@" < {attacker.path("secret/data")}', "sh"]
    watch.prepare()
    plain = attacker.run([*before, attacker.python, "-c", code])
    assert watch.changed(plain), plain.said
    attacker.lay_out()
    watch.prepare()
    words = [*attacker.command, "--permission", *attacker.grants, "--allow-ffi", "-c", code]
    confined = attacker.run([*before, *words])
    assert not watch.changed(confined), confined.said
    assert "OSError" in confined.stdout, confined.said


def test_of_the_script(attacker: Attacker) -> None:
    """The entry script may be read without a flag."""
    script = attacker.put("secret/job.py", "import os\nos.fchmod(os.open(__file__, 0), 0o600)\n")
    confined = attacker.run([*attacker.command, "--permission", script])
    assert os.stat(script).st_mode & 0o777 == 0o644, confined.said
    assert confined.code == 1, confined.said


def test_by_another_program(attacker: Attacker) -> None:
    watch = Watch(attacker, "secret/data")
    attacker.must_fail(
        "import subprocess\nfor words in ['chmod', '600'], ['touch', '-c'], ['touch', '-d', '2001-01-01']:\n"
        "    subprocess.run([*words, SECRET + '/data'])",
        "--allow-child-process",
        harm=watch.changed,
        prepare=watch.prepare,
    )


RACE = """
import threading, time
good, evil = os.fsencode(HOME + '/writes/data'), os.fsencode(HOME + '/secret/data')
text = ctypes.create_string_buffer(good)
stop = time.monotonic() + 0.6
SWAP
try:
    threading.Thread(target=swap).start()
except RuntimeError as error:
    print(error)
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
number, place = NR['fchmodat'], ctypes.addressof(text)
while time.monotonic() < stop:
    libc.syscall(number, -100, place, 0o600, 0)
# the number of call('fchmodat')
"""
SWAPS = {
    # One value each time round: threads take turns at the end of a loop's body.
    "string": "def swap():\n    for n in range(10**9):\n        text.value = evil if n % 2 else good\n"
    "        if n % 64 == 0 and time.monotonic() > stop: return",
    "link": "text = ctypes.create_string_buffer(os.fsencode(WRITE + '/link'))\n"
    "def swap():\n    for n in range(10**9):\n        if time.monotonic() > stop: return\n"
    "        os.symlink(evil if n % 2 else good, os.fsencode(WRITE + '/next')); os.replace(WRITE + '/next', WRITE + '/link')",
    "descriptor": "fds = [os.open(WRITE, os.O_DIRECTORY), os.open(READ, os.O_DIRECTORY)]; fd = os.dup(fds[0])\n"
    "text = ctypes.create_string_buffer(f'/proc/self/fd/{fd}/data'.encode())\n"
    "def swap():\n    for n in range(10**9):\n        if time.monotonic() > stop: return\n        os.dup2(fds[n % 2], fd)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWAPS)
def test_races(attacker: Attacker, name: str) -> None:
    """A check followed by letting the call through lost these within three seconds, five times of five."""
    watch = Watch(attacker, "read/data" if name == "descriptor" else "secret/data")

    def prepare() -> None:
        attacker.put("writes/data", "")
        watch.prepare()

    attacker.must_fail(
        RACE.replace("SWAP", SWAPS[name]),
        "--allow-ffi",
        "--allow-worker",
        f"--allow-fs-read={attacker.path('writes')}/",
        f"--allow-fs-write={attacker.path('writes')}/",
        harm=watch.changed,
        prepare=prepare,
    )


def test_the_twin(attacker: Attacker) -> None:
    """In a write grant all of it works, also by descriptors."""
    confined = attacker.confined(
        "path = WRITE + '/data'; os.chmod(path, 0o640); os.utime(path, (7, 7)); os.chown(path, os.getuid(), os.getgid())\n"
        "fd = os.open(path, os.O_RDWR); os.fchmod(fd, 0o600); os.utime(fd, (8, 8)); os.fchown(fd, os.getuid(), os.getgid())\n"
        "os.setxattr(path, 'user.x', b'y'); print(os.getxattr(fd, 'user.x'), os.stat(path).st_mtime, oct(os.fstat(fd).st_mode))"
    )
    assert "b'y' 8.0 0o100600" in confined.stdout, confined.said


@pytest.mark.parametrize("name", ["security.capability", "trusted.x", "system.posix_acl_access", "security.selinux"])
def test_attributes_that_mean_rights(attacker: Attacker, name: str) -> None:
    """Only ``user.*``, whatever is granted."""
    confined = attacker.confined(
        f"print(attempt('setxattr', (WRITE + '/data').encode(), {name.encode()!r}, bytes(44), 44, 0))", "--allow-ffi"
    )
    assert "EPERM" in confined.stdout or "EOPNOTSUPP" in confined.stdout or "ENOTSUP" in confined.stdout, confined.said
    assert name not in os.listxattr(attacker.path("write/data")), confined.said
