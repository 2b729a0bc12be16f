"""A sandbox in a sandbox: the command, started by a program that it confines itself."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.escape.attack import number

if TYPE_CHECKING:
    from collections.abc import Callable

# Starts the words that it is given, and ends as they do; tells what it can still do afterwards.
START = """
import os, subprocess, sys
ended = subprocess.run(sys.argv[2:])
try:
    print("outer:", open(sys.argv[1]).read(), flush=True)
except OSError as error:
    print("outer:", type(error).__name__, flush=True)
sys.exit(ended.returncode if ended.returncode >= 0 else 128 - ended.returncode)
"""
# What the inner program can read: in words, and around the hook.
LOOK = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
def raw(path):
    done = [libc.syscall({openat}, -100, os.fsencode(path), 0), libc.syscall({stat}, -100, os.fsencode(path), ctypes.create_string_buffer(256), 0)]
    return "".join("y" if one >= 0 else "n" for one in done)
def kind(path):
    try:
        return open(path).read()
    except OSError as error:
        return getattr(error, "permission", type(error).__name__)
for name in ("both", "outer", "inner", "none"):
    path = "{place}/" + name + "/file"
    print(name, sys.permission.has("fs.read", path), kind(path), raw(path), flush=True)
"""


@pytest.fixture
def place(folder: str) -> str:
    """Return a folder with four files: granted by both, by the outer sandbox, by the inner one, by none."""
    for name in ("both", "outer", "inner", "none"):
        os.mkdir(f"{folder}/{name}")
        with open(f"{folder}/{name}/file", "w", encoding="utf-8") as file:
            file.write(name)
    return folder


@pytest.fixture
def nested(sandbox: support.Run, place: str) -> Callable[..., support.Finished]:
    """Return a function that runs a program in a sandbox in a sandbox: (flags of the outer one, words of the inner)."""

    def run(outer: tuple[str, ...], *words: str, look: str | None = None) -> support.Finished:
        code = (
            look if look is not None else LOOK.format(place=place, openat=number("openat"), stat=number("newfstatat"))
        )
        inner = [*support.installed(), *words, "-c", code] if look != "" else [*support.installed(), *words]
        start = ["--allow-child-process", "--no-warnings", *outer, "-c", START, f"{place}/outer/file", *inner]
        return sandbox(*start)

    return run


def grants(place: str, *names: str) -> str:
    return "--allow-fs-read=" + ",".join(f"{place}/{name}/" for name in names)


def test_what_both_grant(nested: Callable[..., support.Finished], place: str) -> None:
    """Nothing else, in words and around the hook; the program that has started it keeps what it had."""
    ended = nested(
        (grants(place, "both", "outer"), "--allow-ffi"), "--permission", grants(place, "both", "inner"), "--allow-ffi"
    )
    assert ended.stdout.splitlines() == [
        "both True both yy",
        "outer False FileSystemRead nn",
        "inner False FileSystemRead nn",
        "none False FileSystemRead nn",
        "outer: outer",
    ], ended.said
    assert ended.code == 0, ended.said


def test_without_the_inner_one(sandbox: support.Run, place: str) -> None:
    """The twin: the same program, started by the outer one as it is, reads what that grants."""
    code = LOOK.format(place=place, openat=number("openat"), stat=number("newfstatat")).replace(
        'sys.permission.has("fs.read", path)', "0"
    )
    words = [f"{os.path.dirname(support.installed()[0])}/python3", "-c", code]
    ended = sandbox(
        "--allow-child-process", "--no-warnings", "--allow-ffi", grants(place, "both", "outer"),
        "-c", START, f"{place}/outer/file", *words,
    )  # fmt: skip
    rows = [line.split()[-1] for line in ended.stdout.splitlines()]
    assert rows == ["yy", "yy", "nn", "nn", "outer"], ended.said


def test_asking_for_more_gets_no_more(nested: Callable[..., support.Finished], place: str) -> None:
    look = f"""
import socket, sys
has = sys.permission.has
print(has("net"), has("worker"), has("child"), has("fs.read"), has("fs.write", "{place}/both/new"))
for work in (socket.socket, lambda: open("{place}/both/new", "w"), lambda: open("{place}/none/file")):
    try:
        work()
        print("did")
    except OSError as error:
        print(error.permission)
import _socket, posix
try:
    posix.open("{place}/both/new", 0o101)
except OSError as error:
    print(error.errno)
"""
    more = ("--allow-net", "--allow-worker", "--allow-child-process", "--allow-fs-read=*", "--allow-fs-write=*")
    ended = nested((grants(place, "both"),), "--permission", *more, look=look)
    assert ended.stdout.splitlines()[:-1] == [
        "False False True False False", "Net", "FileSystemWrite", "FileSystemRead", "13",
    ], ended.said  # fmt: skip
    assert not os.path.exists(f"{place}/both/new")


def test_names_that_landlock_cannot_be_told_of(nested: Callable[..., support.Finished], place: str) -> None:
    """A prefix within a prefix is the outer supervisor's to judge; within a tree, nobody would ask it."""
    look = f"""
for name in ("both/file", "both/other"):
    try:
        print(open("{place}/" + name).read())
    except OSError as error:
        print(error.permission)
"""
    with open(f"{place}/both/other", "w", encoding="utf-8") as file:
        file.write("other")
    inner = f"--allow-fs-read={place}/both/f*"
    ended = nested((f"--allow-fs-read={place}/bo*",), "--permission", inner, look=look)
    assert ended.stdout.splitlines()[:2] == ["both", "FileSystemRead"], ended.said
    ended = nested((grants(place, "both"),), "--permission", inner, look=look)
    assert ended.code == 125, ended.said
    assert "doesn't ask its supervisor about what this policy needs. Missing: open: " in ended.stderr, ended.said


def test_drop_in_the_inner_one(nested: Callable[..., support.Finished], place: str) -> None:
    look = f"""
import os, sys
path = "{place}/both/file"
print(open(path).read(), sys.permission.drop("fs.read", "{place}/both"), sys.permission.has("fs.read", path))
for work in (open, os.stat):
    try:
        work(path)
    except OSError as error:
        print(error.permission)
"""
    ended = nested((grants(place, "both", "outer"),), "--permission", grants(place, "both"), look=look)
    assert ended.stdout.splitlines() == ["both None False", "FileSystemRead", "FileSystemRead", "outer: outer"], (
        ended.said
    )


def test_three_in_one_another(nested: Callable[..., support.Finished], place: str) -> None:
    command = support.installed()
    words = [*command, "--permission", grants(place, "both", "inner"), "-c", f"print(open('{place}/both/file').read())"]
    look = f"import subprocess; print(subprocess.run({words!r}).returncode)"
    ended = nested(
        (grants(place, "both", "outer"),), "--permission", "--allow-child-process", grants(place, "both"), look=look
    )
    assert ended.stdout.splitlines() == ["both", "0", "outer: outer"], ended.said
    words[-1] = f"open('{place}/inner/file')"
    look = f"import subprocess; print(subprocess.run({words!r}).returncode)"
    ended = nested(
        (grants(place, "both", "outer"),), "--permission", "--allow-child-process", grants(place, "both"), look=look
    )
    assert ended.stdout.splitlines() == ["1", "outer: outer"], ended.said


def test_the_processes_around_it_are_out_of_reach(nested: Callable[..., support.Finished], place: str) -> None:
    look = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"
    ended = nested((grants(place, "outer"),), "--permission", look=look)
    assert "PermissionError" in ended.stderr, ended.said
    assert ended.stdout == "outer: outer\n", ended.said


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("1/0", 1)])
def test_it_ends_as_its_program(end: str, code: int, nested: Callable[..., support.Finished], place: str) -> None:
    ended = nested((grants(place, "outer"),), "--permission", look=f"import os, sys\n{end}")
    assert ended.code == code, ended.said


def test_what_nobody_guards_is_refused_or_said(nested: Callable[..., support.Finished], place: str) -> None:
    """Under ``*`` no supervisor is asked about metadata, so an inner policy that denies some can't be enforced."""
    ended = nested(("--allow-fs-read=*", "--allow-ffi"), "--permission", grants(place, "both"))
    assert ended.code == 125, ended.said
    assert "Missing: stat: " in ended.stderr, ended.said
    for flag in ("--best-effort", "--allow-fs-metadata"):
        ended = nested(("--allow-fs-read=*", "--allow-ffi"), "--permission", "--allow-ffi", grants(place, "both"), flag)
        assert ended.stdout.splitlines()[0] == "both True both yy", ended.said
        assert ended.stdout.splitlines()[1] == "outer False FileSystemRead ny", ended.said
        assert ("not enforced: stat: " in ended.stderr) is (flag == "--best-effort"), ended.said


AROUND = """
import subprocess, sys
ended = subprocess.run(sys.argv[1:], capture_output=True, text=True)
print(ended.returncode, ended.stderr, ended.stdout)
"""


@pytest.mark.parametrize(
    "case",
    [
        ("--permission-audit", "--permission", "only watches (--permission-audit): nothing can be enforced in it"),
        ("--permission-audit", "--permission-audit", "watches already, by its own grants: no other one can in it"),
        ("--permission", "--permission-audit", "enforces, so nothing can be only watched in it"),
    ],
)
@pytest.mark.parametrize("effort", [(), ("--best-effort",)])
def test_watching_and_enforcing_do_not_mix(
    case: tuple[str, str, str], effort: tuple[str, ...], run: support.Run, needs: support.Need
) -> None:
    """Refused, with that reason and not with one about the kernel; nothing is run. Two that enforce do."""
    outer, inner, says = case
    needs(landlock=6, notify=True)
    words = [*support.installed(), inner, *effort, "-c", "print('it ran')"]
    ended = run(outer, "--allow-child-process", "--no-warnings", "-c", AROUND, *words)
    assert ended.stdout.startswith("125 "), ended.said
    assert says in ended.stdout, ended.said
    assert "it ran" not in ended.stdout, ended.said
    twin = [word if word != "--permission-audit" else "--permission" for word in words]
    ended = run("--permission", "--allow-child-process", "--no-warnings", "-c", AROUND, *twin)
    assert ended.stdout == "0  it ran\n\n", ended.said


def test_native_code_of_the_outer_one(nested: Callable[..., support.Finished], place: str) -> None:
    """Where the outer sandbox has no gate for code, the inner one maps none; unless it starts programs: refused."""
    look = """
import mmap, os, sqlite3
fd = os.open(os.path.realpath(os.__file__), os.O_RDONLY)
for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_EXEC):
    try:
        mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=protection)
        print("did")
    except OSError as error:
        print(error.errno)
"""
    ended = nested(("--allow-addons", grants(place, "outer")), "--permission", look=look)
    assert ended.stdout.splitlines() == ["did", "13", "outer: outer"], ended.said
    ended = nested(("--allow-addons",), "--permission", "--allow-addons", look=look)
    assert ended.stdout.splitlines()[:2] == ["did", "did"], ended.said
    ended = nested(("--allow-addons",), "--permission", "--allow-child-process", look=look)
    assert ended.code == 125, ended.said
    assert "Missing: map: " in ended.stderr, ended.said


def test_another_start_of_the_interpreter(nested: Callable[..., support.Finished], place: str) -> None:
    """Python's own options need a second execve, which nobody could tell from others."""
    look = "import sys; print(sys.flags.optimize, sys.permission.has('child'))"
    ended = nested((grants(place, "outer"),), "--permission", "--allow-child-process", "-O", look=look)
    assert ended.stdout.splitlines() == ["1 True", "outer: outer"], ended.said
    ended = nested((grants(place, "outer"),), "--permission", "-O", look=look)
    assert ended.code == 125, ended.said
    assert "take --allow-child-process" in ended.stderr, ended.said


def test_explain_says_so(nested: Callable[..., support.Finished], place: str, run: support.Run) -> None:
    ended = nested((grants(place, "outer"),), "--permission", "--explain", look="pass")
    assert ended.stdout.startswith("Inside another sandbox\n"), ended.said
    ended = nested((grants(place, "outer"),), "--permission", "--explain", "--json", look="pass")
    data = json.loads(ended.stdout.rpartition("outer:")[0])
    assert data["inner"] is True
    assert "Inside another" not in run("--permission", "--explain", "-c", "pass").stdout
