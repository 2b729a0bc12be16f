"""Children that are somebody else: their files are theirs, and nothing is done that they could not do."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import subprocess
import sys
from typing import Any

import pytest

from sandboxed_python.broker import identity
from sandboxed_python.broker.answer import MODULES
from sandboxed_python.broker.identity import at_first
from sandboxed_python.kernel import process, uapi
from sandboxed_python.kernel.calls import prctl
from tests import support
from tests.broker.harness import EVERYTHING, PATH_CALLS, bare, grant, policy, serve
from tests.broker.raw import Refused, outcome

DENIED = Refused(errno.EACCES)
ALL = policy(EVERYTHING, grant("/"))
SOMEBODY = 65534
_PR_SET_KEEPCAPS = 8

PROGRAM = """
import os, sys
folder = sys.argv[1]
def outcome(work):
    try: return work()
    except OSError as error: return error.errno
os.umask(0o27)
print([
    outcome(lambda: os.mkdir(folder + "/d")),
    outcome(lambda: os.close(os.open(folder + "/f", os.O_CREAT | os.O_WRONLY, 0o666))),
    outcome(lambda: os.stat(folder + "/f").st_uid),
    outcome(lambda: os.open(folder + "/roots", os.O_RDONLY)),
    outcome(lambda: os.chmod(folder + "/roots", 0o777)),
    outcome(lambda: os.chown(folder + "/f", 0, 0)),
    outcome(lambda: os.listdir(folder + "/closed")),
    os.access(folder + "/roots", os.R_OK),
    os.access(folder + "/f", os.W_OK),
    outcome(lambda: os.unlink("/etc/hostname-that-is-not-there")),
])
"""


def interpreter() -> str:
    """Return a Python that any user can start."""
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path) and support.reachable(SOMEBODY, path):
            return path
    return ""


@pytest.mark.parametrize("at_start", ["unknown", "fixed"])
def test_a_program_of_another_user(at_start: str, user_dir: str) -> None:
    """``subprocess`` with ``user=`` as root: as the same program does bare."""
    if os.geteuid():
        return  # only root can become somebody else
    python = interpreter()
    if not python:
        support.refuse(f"a Python that user {SOMEBODY} can start", sys.executable)
    results = []
    for name in ("bare", "served"):
        folder = pathlib.Path(user_dir) / name
        folder.mkdir()
        (folder / "roots").write_text("secret")
        (folder / "roots").chmod(0o600)
        (folder / "closed").mkdir(0o700)
        folder.chmod(0o777)
        words = [python, "-I", "-S", "-c", PROGRAM, str(folder)]

        def work(words: list[str] = words) -> Any:
            done = subprocess.run(
                words, user=SOMEBODY, group=SOMEBODY, extra_groups=[], capture_output=True, text=True, check=False
            )
            return done.stdout or done.stderr

        calls = (*PATH_CALLS, *MODULES["identity"])
        results.append(work() if name == "bare" else serve(ALL, work, names=calls, identity=at_start).value)
        made = {entry.name: entry.lstat() for entry in folder.iterdir()}
        assert {one: (made[one].st_uid, made[one].st_gid) for one in ("d", "f")} == dict.fromkeys("df", (SOMEBODY,) * 2)
        assert stat.S_IMODE(made["f"].st_mode) == 0o640
        assert stat.S_IMODE(made["roots"].st_mode) == 0o600
    assert results[0] == results[1]
    own = os.stat("/proc/thread-self/fd")
    assert (os.geteuid(), os.getegid(), own.st_uid) == (0, 0, own.st_uid)


def test_half_an_identity_is_refused(tmp_path: pathlib.Path) -> None:
    """seteuid(2): memory that is closed to us, or rights that we can't take; denied, nothing changed."""
    if os.geteuid():
        return  # only root has ids to change
    tmp_path.chmod(0o777)
    (tmp_path / "f").write_text("x")

    def work() -> list[Any]:
        os.seteuid(SOMEBODY)
        return [
            outcome(lambda: os.stat(tmp_path / "f")),
            outcome(lambda: os.mkdir(tmp_path / "d")),
            outcome(lambda: os.open(tmp_path / "f", os.O_RDONLY)),
        ]

    served = serve(ALL, work, names=(*PATH_CALLS, *MODULES["identity"]))
    assert served.value == [DENIED, DENIED, DENIED]
    assert os.listdir(tmp_path) == ["f"]
    assert served.context.identity == "unknown"


def test_landlock_still_opens_for_half_an_identity(user_dir: str) -> None:
    if os.geteuid():
        return  # only root has ids to change
    file = pathlib.Path(user_dir) / "f"
    file.write_text("x")

    def work() -> Any:
        os.setresuid(SOMEBODY, SOMEBODY, 0)
        return outcome(lambda: os.read(os.open(file, os.O_RDONLY), 5))

    assert serve(ALL, work, names=(*PATH_CALLS, *MODULES["identity"]), landlock=True).value == b"x"


def test_capabilities_that_a_program_has_lost(user_dir: str) -> None:
    """An ordinary user's capabilities end at an execve: what he starts can't do by the supervisor what it can't itself."""
    if os.geteuid():
        return  # only root can hand capabilities to somebody
    folder = pathlib.Path(user_dir)
    (folder / "closed").mkdir(0o700)
    os.chown(folder / "closed", 0, 0)
    all_files = process.capability_mask(("DAC_OVERRIDE",))

    def become_somebody() -> None:
        prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        process.set_capabilities(all_files, all_files, 0)
        prctl(uapi.PR_SET_DUMPABLE, 1)
        identity._own.clear()

    def work() -> list[Any]:
        mine = outcome(lambda: os.mkdir(folder / "closed" / "mine"))
        process.set_capabilities(0, 0, 0)  # as an execve does
        return [
            mine,
            outcome(lambda: os.mkdir(folder / "closed" / "lost")),
            outcome(lambda: os.stat(folder / "closed" / "mine")),
            outcome(lambda: os.mkdir(folder / "own")),
        ]

    def served(fixed: str) -> tuple[Any, str, str]:
        chosen = at_first()
        got = serve(ALL, work, names=PATH_CALLS, identity=fixed or chosen)
        return got.value, chosen, "".join(got.errors)

    got = bare(lambda: served(""), before=become_somebody)
    assert got == ([None, DENIED, DENIED, None], "unknown", "")
    assert sorted(os.listdir(folder / "closed")) == ["mine"]
    (folder / "closed" / "mine").rmdir()
    (folder / "own").rmdir()
    # The twin: without looking, the supervisor's rights are what counts.
    assert bare(lambda: served("fixed"), before=become_somebody)[0][1] is None
    assert sorted(os.listdir(folder / "closed")) == ["lost", "mine"]
    assert at_first() == "fixed"


def test_files_get_the_callers_mask(tmp_path: pathlib.Path) -> None:
    old = os.umask(0o22)
    os.umask(old)

    def work() -> None:
        os.umask(0o7)
        os.mkdir(tmp_path / "d")
        os.close(os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkfifo(tmp_path / "p", 0o666)

    serve(ALL, work)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "dfp"] == [0o770, 0o660, 0o660]
    assert os.umask(old) == old
