"""Telling whether something is there, and what it is like, outside of what may be read.

The attack: stat and its like, access, readlink, attributes, O_PATH descriptors, on files that aren't granted; by every
spelling and by races with a second thread. What is there and what isn't must answer alike.
What stops it: Landlock has no right for metadata; the supervisor is asked, resolves the path itself and answers on the
object that it judged. New calls that it isn't asked about don't exist. Source: THREATS 3 (meta_*).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

# PATH is bytes; each is tried on what is there and on what isn't.
CALLS = {
    "newfstatat": "attempt('newfstatat', -100, PATH, BUFFER, 0)",
    "newfstatat of the link": "attempt('newfstatat', -100, PATH, BUFFER, 0x100)",
    "statx": "attempt('statx', -100, PATH, 0, 0x7FF, BUFFER)",
    "faccessat": "attempt('faccessat', -100, PATH, 0)",
    "faccessat2": "attempt('faccessat2', -100, PATH, 0, 0x200)",
    "readlinkat": "attempt('readlinkat', -100, PATH, BUFFER, 99)",
    "statfs": "attempt('statfs', PATH, BUFFER)",
    "getxattr": "attempt('getxattr', PATH, b'user.mark', BUFFER, 99)",
    "lgetxattr": "attempt('lgetxattr', PATH, b'user.mark', BUFFER, 99)",
    "listxattr": "attempt('listxattr', PATH, BUFFER, 99)",
    "llistxattr": "attempt('llistxattr', PATH, BUFFER, 99)",
    "getxattrat": "attempt('getxattrat', -100, PATH, 0, b'user.mark', BUFFER, 16)",
    "listxattrat": "attempt('listxattrat', -100, PATH, 0, BUFFER, 99)",
    "file_getattr": "attempt('file_getattr', -100, PATH, BUFFER, 24, 0)",
    "O_PATH": "attempt('openat', -100, PATH, os.O_PATH, 0)",
    "O_PATH of the link": "attempt('openat', -100, PATH, os.O_PATH | os.O_NOFOLLOW, 0)",
    "openat2": "attempt('openat2', -100, PATH, (os.O_PATH).to_bytes(8, 'little') + bytes(16), 24)",
    "name_to_handle_at": "attempt('name_to_handle_at', -100, PATH, BUFFER, BUFFER, 0)",
    "open_tree": "attempt('open_tree', -100, PATH, 0)",
    "inotify": "attempt('inotify_add_watch', 3, PATH, 0xFFF)",
}
LEGACY = {
    "stat": "attempt('stat', PATH, BUFFER)",
    "lstat": "attempt('lstat', PATH, BUFFER)",
    "access": "attempt('access', PATH, 0)",
    "readlink": "attempt('readlink', PATH, BUFFER, 99)",
    "open with O_PATH": "attempt('open', PATH, os.O_PATH, 0)",
}
# Ways to spell a place, given its name in ``secret``.
SPELLINGS = {
    "plain": "SECRET + '/' + NAME",
    "dot dot": "READ + '/../secret/' + NAME",
    "a link": "READ + '/folder/' + NAME",
    "from /proc/self/root": "'/proc/self/root' + SECRET + '/' + NAME",
    "long": "'/' * 50 + SECRET + '/.' * 100 + '/' + NAME",
}
HEAD = "import json; BUFFER = ctypes.create_string_buffer(4096)\n"


def stage(attacker: Attacker) -> None:
    os.symlink(attacker.path("secret"), attacker.path("read/folder"))
    os.symlink("data", attacker.path("secret/link"))


def answers(attacker: Attacker, calls: dict[str, str], spelling: str, *, confined: bool) -> list[dict[str, str]]:
    """Return what each call answers about a file, a link and nothing."""
    lines = [HEAD]
    for name in ("data", "link", "missing"):
        lines.append(f"NAME = {name!r}; PATH = os.fsencode({spelling}); found = {{}}")
        lines += [f"found[{what!r}] = {call}" for what, call in calls.items()]
        lines.append("print(json.dumps(found))")
    body = "\n".join(lines)
    ended = attacker.confined(body, "--allow-ffi") if confined else attacker.plain(body)
    assert "TRIED: done" in ended.stdout, ended.said
    return [json.loads(line) for line in ended.stdout.splitlines()[:3]]


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("calls", [CALLS, LEGACY], ids=["every architecture", "older architectures"])
def test_calls(attacker: Attacker, calls: dict[str, str], spelling: str) -> None:
    stage(attacker)
    plain = answers(attacker, calls, spelling, confined=False)
    told = [name for name in calls if plain[0][name] != plain[2][name]]
    assert len(told) > len(calls) / 2, plain
    confined = answers(attacker, calls, spelling, confined=True)
    for name in calls:
        about = [found[name] for found in confined]
        assert len(set(about)) == 1, f"{name} tells a file, a link and nothing apart: {about}"
        assert about[0] in ("EACCES", "EPERM", "ENOSYS", "EBADF"), f"{name}: {about}"


@pytest.mark.parametrize(
    "code",
    [
        "fd = raw_open(HOME, os.O_PATH | os.O_DIRECTORY); call('newfstatat', fd, b'secret/data', BUFFER, 0)",
        "fd = raw_open(READ, os.O_PATH | os.O_DIRECTORY); call('newfstatat', fd, b'../secret/data', BUFFER, 0)",
        "fd = raw_open(SECRET + '/data', os.O_PATH); call('newfstatat', fd, b'', BUFFER, 0x1000)",
        "fd = raw_open(SECRET + '/data', os.O_PATH); call('fstat', fd, BUFFER)",
        "fd = raw_open(SECRET + '/data', os.O_PATH); call('statx', fd, b'', 0x1000, 0x7FF, BUFFER)",
        "call('chdir', SECRET.encode()); call('newfstatat', -100, b'data', BUFFER, 0)",
        "call('chdir', SECRET.encode()); call('newfstatat', -100, b'./data', BUFFER, 0)",
        "os.symlink(SECRET + '/data', WRITE + '/own'); call('newfstatat', -100, (WRITE + '/own').encode(), BUFFER, 0)",
        "os.symlink(SECRET, WRITE + '/own'); call('newfstatat', -100, (WRITE + '/own/data').encode(), BUFFER, 0)",
        "fd = raw_open(READ, 0); call('newfstatat', fd, b'folder/data', BUFFER, 0)",
    ],
)
def test_roundabout(attacker: Attacker, code: str) -> None:
    attacker.must_fail(
        f"BUFFER = ctypes.create_string_buffer(4096)\n{code}\nprint('TOLD')",
        "--allow-ffi",
        harm=lambda ended: "TOLD" in ended.stdout,
        prepare=lambda: stage(attacker),
    )


def test_by_another_program(attacker: Attacker) -> None:
    attacker.must_fail(
        "import subprocess\n"
        "print('size', subprocess.run(['stat', '-c', '%s', SECRET + '/data'], capture_output=True, text=True).stdout,\n"
        "      subprocess.run(['test', '-e', SECRET + '/data']).returncode,\n"
        "      subprocess.run(['sh', '-c', f'[ -e {SECRET}/data ] && echo there'], capture_output=True, text=True).stdout)",
        "--allow-child-process",
        harm=lambda ended: "size 18" in ended.stdout or "there" in ended.stdout or "\n 0 " in ended.stdout,
    )


RACE = """
import threading, time
BUFFER = ctypes.create_string_buffer(4096)
good, evil = os.fsencode(GOOD), os.fsencode(EVIL)
assert len(good) == len(evil)
text = ctypes.create_string_buffer(good)
stop = time.monotonic() + SECONDS
SWAP
try:
    threading.Thread(target=swap).start()
except RuntimeError as error:
    print(error)
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
number, place, result = NR['newfstatat'], ctypes.addressof(text), ctypes.addressof(BUFFER)
while time.monotonic() < stop:
    if libc.syscall(number, -100, place, result, 0) == 0 and int.from_bytes(BUFFER.raw[48:56], 'little') == 4242:
        print('TOLD'); break
# 'newfstatat' by number: call('newfstatat', 0)
"""
# One value each time round: threads take turns at the end of a loop's body.
STRING = (
    "def swap():\n    for n in range(10**9):\n        text.value = evil if n % 2 else good\n"
    "        if n % 64 == 0 and time.monotonic() > stop: return"
)
LINK = (
    "evil = good = os.fsencode(WRITE + '/link'); text = ctypes.create_string_buffer(good)\n"
    "def swap():\n"
    "    for n in range(10**9):\n"
    "        if time.monotonic() > stop: return\n"
    "        os.symlink(EVIL if n % 2 else GOOD, WRITE + '/next'); os.replace(WRITE + '/next', WRITE + '/link')"
)
FOLDER = (
    "evil = good = os.fsencode(WRITE + '/folder/data'); text = ctypes.create_string_buffer(good)\n"
    "def swap():\n"
    "    for n in range(10**9):\n"
    "        if time.monotonic() > stop: return\n"
    "        os.symlink(os.path.dirname(EVIL if n % 2 else GOOD), WRITE + '/next')\n"
    "        os.replace(WRITE + '/next', WRITE + '/folder')"
)


@pytest.mark.slow
@pytest.mark.parametrize("swap", [STRING, LINK, FOLDER], ids=["string", "link", "link to a folder"])
def test_races(attacker: Attacker, swap: str) -> None:
    """A check followed by letting the call through lost these within half a second."""

    def prepare() -> None:
        attacker.put("secret/data", "x" * 4242)

    def told(ended: Finished) -> bool:
        return "TOLD" in ended.stdout

    # Two names of the same length, one of them granted.
    head = "GOOD, EVIL, SECONDS = HOME + '/writes/data', HOME + '/secret/data', 0.6\n"
    attacker.must_fail(
        head + RACE.replace("SWAP", swap),
        "--allow-ffi",
        "--allow-worker",
        f"--allow-fs-read={attacker.path('writes')}/",
        harm=told,
        prepare=prepare,
    )


def test_the_twin(attacker: Attacker) -> None:
    """What is granted can be asked about; so can the folders above it, which tell nothing that the grants didn't."""
    confined = attacker.confined(
        "print(os.stat(READ + '/data').st_size, os.lstat(READ).st_mode >> 12, os.stat(HOME).st_mode >> 12, os.path.realpath(READ)\n"
        "      == READ, os.access(READ + '/data', os.R_OK), os.access(READ + '/none', os.F_OK), os.path.exists(WRITE + '/data'))"
    )
    assert confined.stdout.startswith("5 4 4 True True False True\n"), confined.said


def test_attributes_are_content(attacker: Attacker) -> None:
    """``--allow-fs-metadata`` lets stat, access and readlink through everywhere; what attributes hold is read."""
    attacker.must_fail(
        "BUFFER = ctypes.create_string_buffer(4096)\n"
        "size = call('getxattr', os.fsencode(SECRET + '/data'), b'user.mark', BUFFER, 99)\nprint('TOLD', BUFFER.raw[:size])",
        "--allow-ffi",
        "--allow-fs-metadata",
        harm=lambda ended: "TOLD b'marked'" in ended.stdout,
        prepare=lambda: os.setxattr(attacker.path("secret/data"), "user.mark", b"marked"),
    )
    granted = attacker.confined(
        "os.setxattr(WRITE + '/data', 'user.mark', b'own')\nprint(os.getxattr(WRITE + '/data', 'user.mark'))",
        "--allow-fs-metadata",
    )
    assert "b'own'" in granted.stdout, granted.said
