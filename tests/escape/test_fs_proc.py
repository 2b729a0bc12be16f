"""The file system by way of /proc: other processes' roots, environments and memory, and the program's own memory.

The attack: with /proc (or everything) granted for reading, reach files and memory through another process of the same
user, the supervisor included; with everything granted for writing, patch machine code through /proc/self/mem.
What stops it: Landlock's ptrace rule for processes outside of its domain; ``*`` for writing leaves /proc, /sys and /dev
out. Source: proc(5), landlock(7); THREATS 2 (fsr_proc_*), 4 and 10 (add_procmem).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import PARENT, SLEEPER, TOKEN, leaked, source, witness
from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

OTHERS = {
    "root": "raw_read(f'/proc/{PID}/root{SECRET}/data')",
    "cwd": "raw_read(f'/proc/{PID}/cwd{SECRET}/data')",
    "environ": "print(os.read(raw_open(f'/proc/{PID}/environ'), 9999).decode())",
    "fd": "raw_read(f'/proc/{PID}/fd/9')",
    "task": "print(os.read(raw_open(f'/proc/{PID}/task/{PID}/environ'), 9999).decode())",
    "mem": "for line in os.fdopen(raw_open(f'/proc/{PID}/maps')):\n"
    "    if '[heap]' in line or '[stack]' in line:\n"
    "        low, high = (int(word, 16) for word in line.split()[0].split('-'))\n"
    "        if TOKEN.encode() in os.pread(raw_open(f'/proc/{PID}/mem'), high - low, low): print(TOKEN)",
    "map_files": "print(TOKEN if os.listdir(f'/proc/{PID}/map_files') else '')",
}
# The bytes of the object stand after 32 bytes of header.
TOUCH = "\nmemory.seek(id(target) + 32); memory.write(b'touched!!!'); print(target)\n"
PATCHES = {
    "/proc/self/mem": "memory = open('/proc/self/mem', 'r+b', 0)",
    "/proc/PID/mem": "memory = open(f'/proc/{os.getpid()}/mem', 'r+b', 0)",
    "/proc/thread-self/mem": "memory = open('/proc/thread-self/mem', 'r+b', 0)",
    "/proc/self/task/TID/mem": "memory = open(f'/proc/self/task/{os.getpid()}/mem', 'r+b', 0)",
    "reopened": "memory = open(f'/proc/self/fd/{os.open(\"/proc/self/mem\", 0)}', 'r+b', 0)",
    "by a link": "os.symlink('/proc/self/mem', WRITE + '/own'); memory = open(WRITE + '/own', 'r+b', 0)",
    "from a folder's descriptor": "memory = os.fdopen(os.open('mem', 2, dir_fd=os.open('/proc/self', 0)), 'r+b', 0)",
}


@pytest.mark.parametrize("read", ["/proc/", "*"])
def test_the_grant_itself_works(attacker: Attacker, read: str) -> None:
    """What the attacks below are given is real."""
    given = attacker.confined("print(open('/proc/self/status').read(9))", f"--allow-fs-read={read}")
    assert "Name:" in given.stdout, given.said


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_another_process(attacker: Attacker, body: str) -> None:
    code = f"import os; os.dup2(os.open({attacker.path('secret/data')!r}, 0), 9); {SLEEPER}"
    with witness(attacker, code, {"TOKEN": TOKEN}) as other:
        attacker.must_fail(
            f"PID, TOKEN = {other.pid}, {TOKEN!r}\n{body}", "--allow-ffi", "--allow-fs-read=/proc/", harm=leaked
        )


@pytest.mark.parametrize("name", ["environ", "mem", "fd/0", "root/", "cwd/", "maps"])
def test_the_supervisor(attacker: Attacker, name: str) -> None:
    attacker.must_fail(
        f"raw_open(f'/proc/{{os.getppid()}}/{name}'); print('OPENED')",
        "--allow-ffi",
        "--allow-fs-read=*",
        harm=lambda ended: "OPENED" in ended.stdout,
        before=PARENT,
    )


@pytest.mark.parametrize("body", PATCHES.values(), ids=PATCHES)
def test_the_own_memory(attacker: Attacker, body: str) -> None:
    """Pure Python: with this, no other flag would mean anything."""
    attacker.must_fail(
        f"target = b'untouched!'\n{body}{TOUCH}",
        "--allow-fs-read=*",
        "--allow-fs-write=*",
        harm=lambda ended: "touched!!!" in ended.stdout,
    )


def test_the_own_memory_by_another_mount_of_proc(superuser: Attacker) -> None:
    """A second mount of proc, as in folders that hold a root for containers: its place is not /proc, its files are."""
    place = superuser.put("root/proc/x", "")[:-2]
    before = [
        *(tool("unshare"), "-m", "--propagation", "private"),
        *("sh", "-c", f'mount -t proc proc {place} && exec "$@"', "sh"),
    ]
    body = f"target = b'untouched!'\nmemory = open('{place}/self/mem', 'r+b', 0){TOUCH}"
    plain = superuser.plain(body, before=before)
    assert "touched!!!" in plain.stdout, plain.said
    words = [*superuser.command, "--permission", *superuser.grants, "--allow-fs-read=*"]
    everything = superuser.run([*before, *words, "--allow-fs-write=*", "-c", source(body, superuser.home)])
    assert "TRIED" in everything.stdout, everything.said
    assert "touched!!!" not in everything.stdout, everything.said
    # A grant that leads there in so many words is a mistake, and said to be one.
    for literal in (superuser.home, place, f"{place}/self"):
        refused = superuser.run([*before, *words, f"--allow-fs-write={literal}/", "-c", source(body, superuser.home)])
        assert refused.code == 9, refused.said
        assert "--allow-fs-write" in refused.stderr, refused.said


@pytest.mark.parametrize("path", ["/proc/sys/kernel/printk_ratelimit", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_settings_of_the_kernel(superuser: Attacker, path: str) -> None:
    """What is written is what stands there already."""
    superuser.must_fail(
        f"text = open({path!r}).read()\n"
        "word = text[text.index('[') + 1 : text.index(']')] if '[' in text else text\n"
        f"os.write(os.open({path!r}, os.O_WRONLY), word.encode()); print('WROTE')",
        "--allow-fs-read=*",
        "--allow-fs-write=*",
        harm=lambda ended: "WROTE" in ended.stdout,
    )
