"""What is granted without a flag: ``has()`` says so, and the kernel agrees, for every single path on this machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.plan.implicit import COMMAND, LIBRARY_TREES, PROGRAM_TREES, READ_ROWS, WRITE_ROWS
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.table import SWITCHES
from tests.launch.plain import confined

if TYPE_CHECKING:
    import pathlib

    from tests.support import Need, Run

# A read-only file system, and a program that is running, say so before anybody else does.
REFUSALS = ("denied", "Read-only file system", "Text file busy")
TRY = """
import json, os, sys
asked = json.loads(sys.argv[1])
def attempt(action):
    try:
        action()
        return "yes"
    except PermissionError:
        return "denied"
    except OSError as error:
        return error.strerror
def read(path):
    if os.path.isdir(path):
        names = os.listdir(path)
        for name in names[:3]:
            if not os.path.isdir(f"{path}/{name}") and os.access(f"{path}/{name}", os.R_OK):
                os.close(os.open(f"{path}/{name}", os.O_RDONLY))
    else:
        os.close(os.open(path, os.O_RDONLY))
def write(path):
    if os.path.isdir(path):
        os.close(os.open(f"{path}/sandboxed-python-was-here", os.O_WRONLY | os.O_CREAT))
    else:
        os.close(os.open(path, os.O_WRONLY))
print(json.dumps([
    [sys.permission.has("fs.read", path), attempt(lambda: read(path)), attempt(lambda: os.stat(path)),
     sys.permission.has("fs.write", path), attempt(lambda: write(path))]
    for path in asked]))
"""


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def effective(run: Run, *words: str) -> Policy:
    ended = run("--permission", *words, "--explain", "--json", "-c", "pass")
    assert ended.code == 0, ended.said
    return Policy.from_data(json.loads(ended.stdout)["policy"])


def tried(paths: list[str], *words: str) -> list[Any]:
    ended = confined("-c", TRY, json.dumps(paths), grants=words)
    assert ended.code == 0, ended.said
    answer: list[Any] = json.loads(ended.stdout)
    return answer


@pytest.mark.parametrize("words", [(), ("--allow-net", "--allow-child-process")], ids=["bare", "with scopes"])
def test_has_and_the_kernel_agree_on_what_comes_without_a_flag(run: Run, words: tuple[str, ...]) -> None:
    policy = effective(run, *words)
    paths = list(dict.fromkeys(path for grant in policy.read for path in grant.paths if os.path.exists(path)))
    assert len(paths) > 10
    written = {path for grant in policy.write for path in grant.paths}
    for path, (reads, read, stat, writes, write) in zip(paths, tried(paths, *words), strict=True):
        assert (reads, read, stat) == (True, "yes", "yes") or not os.access(path, os.R_OK), path
        assert writes is (path in written), path
        assert write == "yes" if path in written else write in REFUSALS, path


def test_nothing_else_comes_without_a_flag(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    home = os.path.expanduser("~")
    paths = [
        *(
            "/",
            "/etc/passwd",
            "/etc/hostname",
            "/proc/self/status",
            "/proc/version",
            "/proc",
            "/sys/kernel",
            "/dev/shm",
        ),
        *("/dev/full", "/tmp", "/var", "/run", home, str(tmp_path), str(tmp_path / "file"), os.getcwd(), "/usr/share"),
    ]
    paths = [path for path in paths if os.path.exists(path)]
    for path, (reads, read, _stat, writes, write) in zip(paths, tried(paths), strict=True):
        assert (reads, read, writes) == (False, "denied", False), path
        assert write in REFUSALS, path
    assert not os.path.exists(tmp_path / "sandboxed-python-was-here")


def test_a_scope_brings_its_rows_and_no_others(run: Run) -> None:
    def brought(*words: str) -> set[str]:
        policy = effective(run, *words)
        grants = (*policy.read, *policy.write)
        return {path for grant in grants if grant.reason != COMMAND for path in grant.paths}

    bare = brought()
    for scope in sorted(SWITCHES):
        from sandboxed_python.policy.table import BY_SCOPE

        rows = {path for needs, _kind, paths, _why in (*READ_ROWS, *WRITE_ROWS) if needs == scope for path in paths}
        more = brought(BY_SCOPE[scope].flag) - bare
        assert more == {path for row in rows if os.path.lexists(row) for path in (row, os.path.realpath(row))} - bare


def test_the_table_is_plain() -> None:
    for scope, kind, paths, reason in (*READ_ROWS, *WRITE_ROWS):
        assert scope in ("", *SWITCHES)
        assert kind in ("tree", "path")
        assert reason
        assert all(path == os.path.normpath(path) and path[0] == "/" for path in paths)
    every = [path for _scope, _kind, paths, _reason in READ_ROWS for path in paths]
    assert len(set(every)) == len(every)
    for private in ("/proc", "/tmp", "/dev/shm", "/home", "/root", "/etc", "/var", "/run", "/", "/usr", "/sys", "/dev"):
        assert private not in every
        assert private not in (*LIBRARY_TREES, *PROGRAM_TREES)


def test_the_environments_packages_are_importable_and_the_scripts_folder_is_not(tmp_path: pathlib.Path) -> None:
    (tmp_path / "beside.py").write_text("x = 1")
    program = tmp_path / "job.py"
    program.write_text(
        "import sandboxed_python, zoneinfo, sqlite3, ssl, lzma, decimal, hashlib, locale\n"
        "print(open(__file__).read()[:6], zoneinfo.ZoneInfo('UTC'))\nimport beside\n"
    )
    ended = confined(program, cwd=tmp_path)
    assert ended.stdout == "import UTC\n", ended.said
    assert "No module named 'beside'" in ended.stderr
    strict = confined(program, grants=["--no-allow-entrypoint"])
    assert (strict.code, strict.stdout) == (1, "")
    assert "permission: 'FileSystemRead'" in strict.stderr
    assert f"resource: {str(program)!r}" in strict.stderr
