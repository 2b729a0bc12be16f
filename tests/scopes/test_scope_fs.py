"""fs.read and fs.write: denied, and granted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked
from tests.scopes.twin import check_ran, check_refused, program
from tests.support import changes, snapshot

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

READS = {
    "open": "print(open(SECRET + '/data').read())",
    "os.open": "print(os.read(os.open(SECRET + '/data', 0), 99).decode())",
    "bytes": "print(open(os.fsencode(SECRET + '/data'), 'rb').read().decode())",
    "pathlib": "import pathlib; print(pathlib.Path(SECRET, 'data').read_text())",
    "shutil": "import shutil; shutil.copyfileobj(open(SECRET + '/data'), sys.stdout)",
    "exec": "import runpy; runpy.run_path(SECRET + '/data')",
}
LISTS = {
    "listdir": "print(os.listdir(SECRET))",
    "scandir": "print([entry.name for entry in os.scandir(SECRET)])",
    "walk": "print(list(os.walk(SECRET, onerror=lambda error: exec('raise error'))))",
    "iterdir": "import pathlib; print(list(pathlib.Path(SECRET).iterdir()))",
}
WRITES = {
    "create": ("open(SECRET + '/new', 'w').close()", "secret/new"),
    "os.open": ("os.open(SECRET + '/new', os.O_CREAT | os.O_WRONLY)", "secret/new"),
    "append": ("open(SECRET + '/data', 'a').write('!')", "secret/data"),
    "truncate": ("os.truncate(SECRET + '/data', 0)", "secret/data"),
    "remove": ("os.remove(SECRET + '/data')", "secret/data"),
    "rename": ("os.rename(SECRET + '/data', SECRET + '/new')", "secret/data"),
    "mkdir": ("os.mkdir(SECRET + '/new')", "secret/new"),
    "makedirs": ("os.makedirs(SECRET + '/new/deep', exist_ok=True)", None),
    "symlink": ("os.symlink('/', SECRET + '/new')", None),
    "link": ("os.link(SECRET + '/data', SECRET + '/new')", "secret/data"),
    "mkfifo": ("os.mkfifo(SECRET + '/new')", "secret/new"),
    "mknod": ("os.mknod(SECRET + '/new')", "secret/new"),
    "chmod": ("os.chmod(SECRET + '/data', 0o600)", "secret/data"),
    "utime": ("os.utime(SECRET + '/data', (1, 1))", "secret/data"),
    "rmdir": ("os.rmdir(SECRET + '/empty')", "secret/empty"),
    "pathlib": ("import pathlib; pathlib.Path(SECRET, 'new').touch()", "secret/new"),
    "setxattr": ("os.setxattr(SECRET + '/data', 'user.x', b'y')", "secret/data"),
}


@pytest.mark.parametrize("name", READS)
def test_reading(attacker: Attacker, name: str) -> None:
    path = attacker.put("secret/data", f"print({TOKEN!r})\n")
    denied = program(attacker, READS[name])
    check_refused(denied, "FileSystemRead", path)
    assert not leaked(denied), denied.said
    for grant in (attacker.path("secret") + "/", path, "*") if name == "open" else (path,):
        granted = program(attacker, READS[name], f"--allow-fs-read={grant}")
        check_ran(granted)
        assert leaked(granted), granted.said


@pytest.mark.parametrize("name", LISTS)
def test_listing(attacker: Attacker, name: str) -> None:
    denied = program(attacker, LISTS[name])
    check_refused(denied, "FileSystemRead", attacker.path("secret"))
    assert "data" not in denied.stdout, denied.said
    granted = program(attacker, LISTS[name], f"--allow-fs-read={attacker.path('secret')}/")
    check_ran(granted)
    assert "data" in granted.stdout, granted.said


@pytest.mark.parametrize("name", WRITES)
def test_writing(attacker: Attacker, name: str) -> None:
    code, resource = WRITES[name]
    os.mkdir(attacker.path("secret/empty"))
    attacker.own(attacker.path("secret/empty"))
    before = snapshot(attacker.path("secret"))
    secret = attacker.path("secret")
    for flags in ((), (f"--allow-fs-read={secret}/",)) if name in ("create", "rename", "link") else ((),):
        denied = program(attacker, code, *flags)
        reads_first = name in ("rename", "link") and not flags
        permission = "FileSystemRead" if reads_first else "FileSystemWrite"
        check_refused(denied, permission, attacker.path(resource) if resource else None)
        assert changes(before, snapshot(secret)) == [], denied.said
    granted = program(attacker, code, f"--allow-fs-read={secret}/", f"--allow-fs-write={secret}/")
    check_ran(granted)
    assert changes(before, snapshot(secret)), granted.said


def test_removing_a_tree(attacker: Attacker) -> None:
    """By descriptors of its folders, of which the hook knows no path: the error may be the kernel's own."""
    secret = attacker.path("secret")
    before = snapshot(secret)
    code = "import shutil; shutil.rmtree(SECRET, ignore_errors=True)"
    for flags in ((), (f"--allow-fs-read={secret}/",)):
        denied = program(attacker, code, *flags)
        assert changes(before, snapshot(secret)) == [], denied.said
    granted = program(attacker, code, f"--allow-fs-read={secret}/", f"--allow-fs-write={secret}/")
    assert not attacker.exists("secret/data"), granted.said


def test_reading_by_raw_calls(attacker: Attacker) -> None:
    body = "raw_read(SECRET + '/data')"
    attacker.must_fail(body, "--allow-ffi", harm=leaked)
    granted = attacker.confined(body, "--allow-ffi", f"--allow-fs-read={attacker.path('secret')}/")
    assert leaked(granted), granted.said


def test_reading_by_another_program(attacker: Attacker) -> None:
    body = "import subprocess; print(subprocess.run(['cat', SECRET + '/data'], capture_output=True, text=True).stdout)"
    attacker.must_fail(body, "--allow-child-process", harm=leaked)
    granted = attacker.confined(body, "--allow-child-process", f"--allow-fs-read={attacker.path('secret')}/")
    assert leaked(granted), granted.said


def test_writing_by_raw_calls(attacker: Attacker) -> None:
    body = "raw_open(SECRET + '/new', os.O_CREAT | os.O_WRONLY)"
    attacker.must_fail(body, "--allow-ffi", harm=lambda _: attacker.exists("secret/new"))
    granted = attacker.confined(body, "--allow-ffi", f"--allow-fs-write={attacker.path('secret')}/")
    assert attacker.exists("secret/new"), granted.said


def test_writing_by_another_program(attacker: Attacker) -> None:
    body = "import subprocess; print(subprocess.run(['touch', SECRET + '/new']))"
    attacker.must_fail(body, "--allow-child-process", harm=lambda _: attacker.exists("secret/new"))
    granted = attacker.confined(body, "--allow-child-process", f"--allow-fs-write={attacker.path('secret')}/")
    assert attacker.exists("secret/new"), granted.said


METADATA = {
    "stat": "print('size', os.stat(SECRET + '/data').st_size)",
    "lstat": "print('size', os.lstat(SECRET + '/data').st_size)",
    "readlink": "print('size', os.readlink(SECRET + '/link'))",
    "pathlib": "import pathlib; print('size', pathlib.Path(SECRET, 'data').stat().st_size)",
    "os.path.getsize": "print('size', os.path.getsize(SECRET + '/data'))",
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata(attacker: Attacker, name: str) -> None:
    os.symlink("data", attacker.path("secret/link"))
    denied = program(attacker, METADATA[name])
    check_refused(denied, "FileSystemRead", attacker.path("secret", "link" if name == "readlink" else "data"))
    assert "size" not in denied.stdout, denied.said
    for flag in ("--allow-fs-metadata", f"--allow-fs-read={attacker.path('secret')}/"):
        granted = program(attacker, METADATA[name], flag)
        check_ran(granted)
        assert "size" in granted.stdout, granted.said
    # Metadata is not the contents.
    denied = program(attacker, "print(open(SECRET + '/data').read())", "--allow-fs-metadata")
    check_refused(denied, "FileSystemRead")


def test_asking_whether_something_is_there(attacker: Attacker) -> None:
    code = "print(os.path.exists(SECRET + '/data'), os.access(SECRET + '/data', os.F_OK), os.path.isfile(SECRET + '/data'))"
    denied = program(attacker, code)
    assert denied.stdout == "False False False\n", denied.said
    granted = program(attacker, code, "--allow-fs-metadata")
    assert granted.stdout == "True True True\n", granted.said


def test_listing_the_root_of_a_grant(attacker: Attacker) -> None:
    """``ls -la`` asks for the access list of ``..``, which may be known of but not read."""
    flags = (f"--allow-fs-read={attacker.path('read')}/", "--allow-child-process")
    code = "import subprocess; subprocess.run(['ls', '-la', {}], check=True)"
    ran = program(attacker, code.format("READ"), *flags)
    check_ran(ran)
    assert ran.stderr == "", ran.said
    assert "data" in ran.stdout, ran.said
    denied = program(attacker, code.format("SECRET"), *flags)
    assert denied.code == 1, denied.said
    assert "data" not in denied.stdout, denied.said


REPLACE = """
for name in ("first", "second"):
    os.remove(WRITE + "/file")
    with open(WRITE + "/file", "w") as file:
        file.write(name)
    print(open(WRITE + "/file").read(), sys.permission.has("fs.read", WRITE + "/file"))
os.rename(WRITE + "/file", WRITE + "/elsewhere")
print(sys.permission.has("fs.read", WRITE + "/elsewhere"))
print(open(WRITE + "/elsewhere").read())
"""


def test_a_granted_file_that_the_program_replaces(attacker: Attacker) -> None:
    """The grant is of the name, not of the file that had it at the start; what is moved away isn't granted any more."""
    path = attacker.put("write/file", "old")
    ended = program(attacker, REPLACE, f"--allow-fs-read={path}", f"--allow-fs-write={attacker.path('write')}/")
    assert ended.stdout == "first True\nsecond True\nFalse\n", ended.said
    check_refused(ended, "FileSystemRead", attacker.path("write/elsewhere"))


MAKE = """
os.mkdir(WRITE + "/new")
os.mkdir(WRITE + "/new/below")
for path in ("/new/file", "/new/below/file"):
    with open(WRITE + path, "w") as file:
        file.write("text")
    print(open(WRITE + path).read(), sys.permission.has("fs.write", WRITE + path))
os.rename(WRITE + "/new/file", WRITE + "/new/below/other")
print(sorted(os.listdir(WRITE + "/new/below")))
open(WRITE + "/beside", "w")
"""


@pytest.mark.parametrize("child", [(), ("--allow-child-process", "--no-warnings")], ids=["alone", "child"])
@pytest.mark.parametrize("metadata", [(), ("--allow-fs-metadata",)], ids=["guarded", "metadata"])
def test_a_granted_folder_that_does_not_exist_yet(
    attacker: Attacker, metadata: tuple[str, ...], child: tuple[str, ...]
) -> None:
    """``new/*`` is the tree of ``new``, which Landlock can't be told of before it is there."""
    tree = attacker.path("write") + "/new/*"
    flags = (f"--allow-fs-read={tree}", f"--allow-fs-write={tree}", *metadata, *child)
    ended = program(attacker, MAKE, *flags)
    assert ended.stdout == "text True\ntext True\n['file', 'other']\n", ended.said
    check_refused(ended, "FileSystemWrite", attacker.path("write/beside"))
    assert attacker.exists("write/new/below/other")
    assert not attacker.exists("write/beside")
