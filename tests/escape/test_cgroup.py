"""Leaving the control group: a job writes itself into another one, or lifts its limit."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kernel.cgroups import Ground, folders, ground, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Run

ATTACK = """
import os, sys
group = sys.argv[1]
for name, text in (("cgroup.procs", "0"), ("cgroup.procs", str(os.getpid())), ("cgroup.max.depth", "7")):
    try:
        with open(f"{group}/{name}", "w") as file:
            file.write(text)
    except OSError as error:
        print(type(error).__name__, error.errno)
    else:
        print("written")
try:
    os.mkdir(f"{group}/inner")
except OSError as error:
    print(type(error).__name__, error.errno)
else:
    print("written")
sys.stdout.flush()
sys.stdin.readline()
"""
NATIVE = """
import ctypes, os, sys
group = sys.argv[1].encode()
libc = ctypes.CDLL(None, use_errno=True)
for name, text in ((b"cgroup.procs", b"0"), (b"cgroup.max.depth", b"7")):
    descriptor = libc.open(group + b"/" + name, os.O_WRONLY)
    print("written" if descriptor >= 0 and libc.write(descriptor, text, len(text)) > 0 else ctypes.get_errno())
print("written" if libc.mkdir(group + b"/inner", 0o777) == 0 else ctypes.get_errno())
"""


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as found:
        yield found


def seen(place: Ground) -> tuple[str, str, list[str]]:
    """Return what shows from outside whether the attack worked."""
    return read(place.home, "cgroup.procs"), read(place.home, "cgroup.max.depth"), folders(place.home)


def test_a_job_with_every_grant_stays(sandbox: Run, place: Ground) -> None:
    before = seen(place)
    grants = [
        "--allow-fs-read=*",
        "--allow-fs-write=*",
        "--allow-writable-runtime",
        "--allow-child-process",
        "--no-warnings",
    ]
    hooked = sandbox(*grants, "-c", ATTACK, place.home)
    assert hooked.stdout == "AccessDeniedError 13\n" * 4, hooked.said
    assert seen(place) == before
    around = sandbox(*grants, "--allow-ffi", "--allow-addons", "-c", NATIVE, place.home)
    assert around.stdout == "13\n" * 3, around.said
    assert seen(place) == before


def test_it_would_work_outside(place: Ground) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ATTACK, place.home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        assert [job.stdout.readline() for _ in range(4)] == [b"written\n"] * 4
        assert seen(place) == (str(job.pid), "7", ["inner"])
        job.stdin.write(b"\n")
    with subprocess.Popen([sys.executable, "-c", NATIVE, place.home], stdout=subprocess.PIPE, text=True) as native:
        assert native.communicate()[0] == "written\nwritten\n17\n"


def test_a_grant_of_it_is_refused(sandbox: Run, place: Ground) -> None:
    ended = sandbox(f"--allow-fs-write={place.home}/", "-c", ATTACK, place.home)
    assert (ended.code, ended.stdout) == (9, ""), ended.said
    assert "--allow-fs-write" in ended.stderr
