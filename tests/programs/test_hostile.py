"""Hostile data in the hands of trusting code: what it does stays within the grants, and is done where they are wider."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.programs.catalogue import grants

if TYPE_CHECKING:
    from tests.support import Run

# One member after the other, as trusting as can be: what fails is told, and the rest is still unpacked.
UNPACK_TAR = """
import os, tarfile
with tarfile.open("in.tar") as archive:
    trust = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    for member in archive.getmembers():
        try:
            archive.extract(member, "out", **trust)
        except (OSError, KeyError) as error:
            print(member.name, type(error).__name__)
"""
UNPACK_ZIP = """
import os, zipfile
with zipfile.ZipFile("in.zip") as archive:
    for name in archive.namelist():
        place = os.path.join("out", name)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(archive.read(name))
        except OSError as error:
            print(name, type(error).__name__)
"""
UNPICKLE = """
import pickle
with open("in.pickle", encoding="ascii") as file:
    for line in file:
        try:
            pickle.loads(bytes.fromhex(line))
        except Exception as error:
            print(type(error).__name__, getattr(error, "permission", ""))
"""


@pytest.fixture
def place(folder: str) -> str:
    """Return a folder with an empty ``out``, and a ``treasure`` beside it that hostile data is after."""
    os.mkdir(os.path.join(folder, "out"))
    os.mkdir(os.path.join(folder, "treasure"))
    with open(os.path.join(folder, "treasure", "secret"), "w", encoding="utf-8") as file:
        file.write("secret")
    return folder


def program(place: str, source: str) -> str:
    with open(os.path.join(place, "job.py"), "w", encoding="utf-8") as file:
        file.write(source)
    return "job.py"


def hostile_tar(place: str) -> None:
    """Write an archive: a good file, ways up, absolute names, links that lead out and files behind them, devices."""
    with tarfile.open(os.path.join(place, "in.tar"), "w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode, member.size = (
                kind,
                link,
                mode,
                4 if kind == tarfile.REGTYPE else 0,
            )
            member.uid, member.gid = os.getuid(), os.getgid()
            archive.addfile(member, io.BytesIO(b"evil") if member.size else None)

        treasure = os.path.join(place, "treasure")
        add("good")
        add("../treasure/up")
        add(os.path.join(treasure, "absolute"))
        add("way", tarfile.SYMTYPE, treasure)
        add("way/through-a-link")
        add("relative", tarfile.SYMTYPE, "../treasure")
        add("relative/through-another")
        add("secret-link", tarfile.SYMTYPE, os.path.join(treasure, "secret"))
        add("secret-link")
        add("hard", tarfile.LNKTYPE, "../treasure/secret")
        add("hard")
        add("set-id", mode=0o6755)
        add("device", tarfile.BLKTYPE)
        add("last")


def hostile_zip(place: str) -> None:
    with zipfile.ZipFile(os.path.join(place, "in.zip"), "w") as archive:
        for name in (
            "good",
            "../treasure/up",
            os.path.join(place, "treasure", "absolute"),
            "a/../../treasure/b",
            "last",
        ):
            archive.writestr(name, "evil")


class Runs:
    """Runs a function of a module when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        """Say what."""
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        """Have it called."""
        return self.call


def hostile_pickle(place: str) -> None:
    """Write one payload after the other: a shell, a file written, a file removed, a connection."""
    treasure = os.path.join(place, "treasure")
    payloads = (
        Runs(os.system, f"touch {treasure}/by-shell"),
        Runs(exec, f"open({treasure + '/by-open'!r}, 'w').close()"),
        Runs(os.unlink, os.path.join(treasure, "secret")),
        Runs(exec, "import socket; socket.create_server(('127.0.0.1', 0))"),
    )
    with open(os.path.join(place, "in.pickle"), "w", encoding="ascii") as file:
        file.writelines(pickle.dumps(payload).hex() + "\n" for payload in payloads)


def test_tar(place: str, sandbox: Run) -> None:
    hostile_tar(place)
    words = [*grants("tarfile, a hostile archive"), program(place, UNPACK_TAR)]
    with support.unchanged(os.path.join(place, "treasure")):
        ended = sandbox(*words, cwd=place)
    assert ended.code == 0, ended.said
    assert {"good", "last"} <= set(os.listdir(os.path.join(place, "out"))), ended.said
    assert not os.path.exists(os.path.join(place, "out", "device"))
    set_id = os.path.join(place, "out", "set-id")
    assert not os.path.exists(set_id) or not os.stat(set_id).st_mode & 0o6000


def test_tar_where_more_is_granted(place: str, sandbox: Run) -> None:
    """The archive is as hostile as it looks: with the treasure granted, too, it is robbed."""
    hostile_tar(place)
    ended = sandbox("--allow-fs-read=.", "--allow-fs-write=out,treasure", program(place, UNPACK_TAR), cwd=place)
    assert ended.code == 0, ended.said
    found = set(os.listdir(os.path.join(place, "treasure")))
    assert {"up", "absolute", "through-a-link", "through-another"} <= found, ended.said


def test_zip(place: str, sandbox: Run) -> None:
    hostile_zip(place)
    words = [*grants("zipfile, a hostile archive"), program(place, UNPACK_ZIP)]
    with support.unchanged(os.path.join(place, "treasure")):
        ended = sandbox(*words, cwd=place)
    assert ended.code == 0, ended.said
    assert {"good", "last"} <= set(os.listdir(os.path.join(place, "out"))), ended.said
    assert ended.stdout.count("AccessDeniedError") == 3, ended.said


def test_zip_where_more_is_granted(place: str, sandbox: Run) -> None:
    hostile_zip(place)
    ended = sandbox("--allow-fs-read=.", "--allow-fs-write=out,treasure", program(place, UNPACK_ZIP), cwd=place)
    assert ended.code == 0, ended.said
    assert {"up", "absolute", "b"} <= set(os.listdir(os.path.join(place, "treasure"))), ended.said


def test_pickle(place: str, sandbox: Run) -> None:
    hostile_pickle(place)
    words = [*grants("pickle, a hostile payload"), program(place, UNPICKLE)]
    with support.unchanged(os.path.join(place, "treasure")):
        ended = sandbox(*words, cwd=place)
    assert ended.code == 0, ended.said
    denied = ["ChildProcess", "FileSystemWrite", "FileSystemWrite", "Net"]
    assert ended.stdout.splitlines() == [f"AccessDeniedError {permission}" for permission in denied], ended.said


def test_pickle_where_more_is_granted(place: str, sandbox: Run) -> None:
    hostile_pickle(place)
    more = ["--allow-fs-read=.", "--allow-fs-write=treasure", "--allow-child-process", "--allow-net"]
    ended = sandbox(*more, program(place, UNPICKLE), cwd=place)
    assert (ended.code, ended.stdout) == (0, ""), ended.said
    assert sorted(os.listdir(os.path.join(place, "treasure"))) == ["by-open", "by-shell"]
