"""The supervisor as a deputy: it opens, looks and changes for the program, with more rights than the program has.

The attack: under grants that the supervisor carries out itself (prefixes), reach what Landlock would refuse to the
program and the supervisor may do: /proc of the supervisor and of others, where the kernel asks who is asking; as root,
after giving up being root, have the supervisor, which is root still, act on root's files.
What stops it: the supervisor asks whether the process whose /proc it is lies in the sandbox, and takes the caller's ids
for what it does. Source: ptrace(2) on access to /proc, credentials(7); THREATS 2 (fsr_proc_*), 12 ("act with the child's
rights").
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.escape.attack import PARENT, SLEEPER, TOKEN, leaked, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# What is looked at in /proc/PID, by calls that the supervisor answers.
LOOKS = {
    "environ": "fd = raw_open(f'/proc/{PID}/environ'); print(os.read(fd, 99999)[:1] and 'OPENED')",
    "mem": "raw_open(f'/proc/{PID}/mem'); print('OPENED')",
    "maps": "print(os.read(raw_open(f'/proc/{PID}/maps'), 99)[:1] and 'OPENED')",
    "a task's maps": "print(os.read(raw_open(f'/proc/{PID}/task/{PID}/maps'), 99)[:1] and 'OPENED')",
    "root": "raw_open(f'/proc/{PID}/root' + SECRET + '/data'); print('OPENED')",
    "cwd": "raw_open(f'/proc/{PID}/cwd' + SECRET + '/data'); print('OPENED')",
    "a descriptor": "raw_open(f'/proc/{PID}/fd/0'); print('OPENED')",
    "the descriptors": "print(os.listdir(raw_open(f'/proc/{PID}/fd', os.O_DIRECTORY)) and 'OPENED')",
    "where a descriptor leads": "call('readlinkat', -100, f'/proc/{PID}/fd/0'.encode(), BUFFER, 99); print('OPENED')",
    "where it works": "call('readlinkat', -100, f'/proc/{PID}/cwd'.encode(), BUFFER, 99); print('OPENED')",
    "its program": "call('readlinkat', -100, f'/proc/{PID}/exe'.encode(), BUFFER, 99); print('OPENED')",
    "stat of its root": "call('newfstatat', -100, f'/proc/{PID}/root/'.encode(), BUFFER, 0); print('OPENED')",
    "by a link of its own": "os.symlink(f'/proc/{PID}', WRITE + '/own'); raw_open(WRITE + '/own/environ'); print('OPENED')",
    "from a folder's descriptor": "raw_open('environ', at=raw_open(f'/proc/{PID}', os.O_DIRECTORY)); print('OPENED')",
    "by its own directory's dots": "raw_open(f'/proc/self/../{PID}/environ'); print('OPENED')",
}
HEAD = "BUFFER = ctypes.create_string_buffer(4096)\n"
PREFIX = "--allow-fs-read=/pro*"


@pytest.mark.parametrize("name", LOOKS)
def test_the_supervisors_proc(attacker: Attacker, name: str) -> None:
    attacker.must_fail(
        f"PID = os.getppid()\n{HEAD}{LOOKS[name]}",
        *("--allow-ffi", PREFIX),
        harm=lambda ended: "OPENED" in ended.stdout,
        before=PARENT,
    )


@pytest.mark.parametrize("name", LOOKS)
def test_another_processs_proc(attacker: Attacker, name: str) -> None:
    with witness(attacker, SLEEPER) as other:
        attacker.must_fail(
            f"PID = {other.pid}\n{HEAD}{LOOKS[name]}",
            *("--allow-ffi", PREFIX),
            harm=lambda ended: "OPENED" in ended.stdout,
        )


def test_the_own_proc(attacker: Attacker) -> None:
    """The twin: the program's own is open under that grant, and is the program's, not the supervisor's."""
    body = "print(os.read(raw_open('/proc/self/stat'), 99).split()[0].decode() == str(os.getpid()))"
    own = attacker.confined(body, "--allow-ffi", PREFIX)
    assert own.stdout.startswith("True\n"), own.said


CHANGES = {
    "chmod": "call('fchmodat', -100, FILE, 0o777)",
    "chown": "call('fchownat', -100, FILE, 65534, 65534, 0)",
    "times": "call('utimensat', -100, FILE, b'\\1' + bytes(31), 0)",
    "attribute": "call('setxattr', FILE, b'user.attack', b'x', 1, 0)",
    "truncate": "call('truncate', FILE, 0)",
    "remove": "call('unlinkat', -100, FILE, 0)",
    "rename": "call('renameat', -100, FILE, -100, NEW)",
    "link": "call('linkat', -100, FILE, -100, NEW, 0)",
    "make a folder": "call('mkdirat', -100, NEW, 0o755)",
    "make a link": "call('symlinkat', b'/', -100, NEW)",
    "create": "raw_open(os.fsdecode(NEW), os.O_CREAT | os.O_WRONLY)",
    "write": "os.write(raw_open(os.fsdecode(FILE), os.O_WRONLY), b'!')",
    "read": "print(os.read(raw_open(os.fsdecode(FILE)), 99).decode())",
    "look": "call('newfstatat', -100, FILE + b'/../hidden/data', ctypes.create_string_buffer(256), 0); print(TOKEN)",
}
GIVE_UP = {
    "": "",
    "for good": "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n",
    "for now": "os.setgroups([]); os.setegid(65534); os.seteuid(65534)\n",
}


@pytest.mark.parametrize("name", CHANGES)
def test_on_roots_files_after_giving_up_being_root(superuser: Attacker, name: str) -> None:
    """The twin stays root, and may."""

    def attempted(way: str) -> bool:
        superuser.lay_out()
        superuser.put("writes/data", TOKEN, 0o600)
        superuser.put("writes/hidden/data", "")
        os.chmod(superuser.path("writes/hidden"), 0o700)
        before = support.snapshot(superuser.path("writes"))
        place = f"{superuser.path('writes')}/"
        look = CHANGES[name].replace("FILE + b'/../hidden", f"{place + 'hidden'!r}.encode() + b'")
        body = f"FILE, NEW, TOKEN = {place + 'data'!r}.encode(), {place + 'new'!r}.encode(), {TOKEN!r}\n"
        prefix = superuser.path("write") + "*"
        ended = superuser.confined(
            body + GIVE_UP[way] + look, "--allow-ffi", f"--allow-fs-read={prefix}", f"--allow-fs-write={prefix}"
        )
        assert ended.code == 0, ended.said
        return leaked(ended) or bool(support.changes(before, support.snapshot(superuser.path("writes"))))

    assert attempted("")
    for way in ("for good", "for now"):
        assert not attempted(way), way
