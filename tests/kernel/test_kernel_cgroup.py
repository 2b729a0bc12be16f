"""A control group is found, made, joined, ended and removed, and whatever fails leaves everything as it was."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.kernel import cgroup
from sandboxed_python.kernel.cgroup import UnusableError, check, own_folder
from tests.kernel.cgroups import Ground, eventually, folders, ground, group_of, read, write

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

HIGH = 1 << 22  # no pid is larger (PID_MAX_LIMIT)


@pytest.fixture
def place() -> Iterator[Ground]:
    with ground() as found:
        yield found


# Finding


def mounted(tmp_path: pathlib.Path, path: str, *mounts: tuple[str, str, str]) -> str:
    """Return what ``own_folder`` finds where /proc says this: the own group, and roots, places and types of mounts."""
    groups, rows = tmp_path / "cgroup", tmp_path / "mountinfo"
    groups.write_text(f"4:memory:/elsewhere\n0::{path}\n")
    rows.write_text("".join(f"30 23 0:26 {root} {at} rw - {kind} {kind} rw\n" for root, at, kind in mounts))
    return own_folder(str(groups), str(rows))


def listing(folder: pathlib.Path, *pids: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return str(folder)


def test_own_folder_by_path(tmp_path: pathlib.Path) -> None:
    at = listing(tmp_path / "unified/a/b", HIGH, os.getpid()).removesuffix("/a/b")
    assert mounted(tmp_path, "/a/b", ("/", "/v1", "cgroup"), ("/", at, "cgroup2")) == f"{at}/a/b"
    assert mounted(tmp_path, "/x/a/b", ("/x", at, "cgroup2")) == f"{at}/a/b"
    assert mounted(tmp_path, "/a/b", ("/a/b", f"{at}/a/b", "cgroup2")) == f"{at}/a/b"
    listing(tmp_path / "unified", os.getpid())
    assert mounted(tmp_path, "/", ("/", at, "cgroup2")) == at


def test_own_folder_with_a_blank(tmp_path: pathlib.Path) -> None:
    at = listing(tmp_path / "ä b", os.getpid())
    assert mounted(tmp_path, "/", ("/", at.replace(" ", "\\040"), "cgroup2")) == at


@pytest.mark.parametrize("root", ["/..", "/other", "/a/bc"])
def test_a_mount_of_others_is_not_taken(tmp_path: pathlib.Path, root: str) -> None:
    at = listing(tmp_path / "there", os.getpid())
    with pytest.raises(UnusableError, match="shows this process"):
        mounted(tmp_path, "/a/b", (root, at, "cgroup2"))


def test_a_folder_without_this_process_is_not_taken(tmp_path: pathlib.Path) -> None:
    hidden = listing(tmp_path / "hidden", HIGH)
    shown = listing(tmp_path / "shown", os.getpid())
    with pytest.raises(UnusableError, match="shows this process"):
        mounted(tmp_path, "/", ("/", hidden, "cgroup2"))
    assert mounted(tmp_path, "/", ("/", hidden, "cgroup2"), ("/", shown, "cgroup2")) == shown


def test_without_version_2(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnusableError, match="shows this process"):
        mounted(tmp_path, "/", ("/", "/v1", "cgroup"))
    with pytest.raises(UnusableError, match="missing: No such file"):
        own_folder(str(tmp_path / "missing"))


def test_own_folder_of_this_process() -> None:
    folder = ""
    try:
        folder = own_folder()
    except UnusableError as error:
        pytest.skip(f"needs a mounted cgroup v2 hierarchy; found: {error}")
    assert str(os.getpid()) in read(folder, "cgroup.procs").split()
    assert folder.endswith(group_of(os.getpid()).rstrip("/"))


# What is needed


@pytest.fixture
def made_up(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a folder that looks like a group that this process is alone in."""
    folder = tmp_path / "group"
    listing(folder, os.getpid())
    (folder / "cgroup.controllers").write_text("cpu memory\n")
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.type").write_text("domain\n")
    return folder


def reason(folder: pathlib.Path, systemd: str = "/nothing") -> str:
    with pytest.raises(UnusableError) as caught:
        check(str(folder), "memory", systemd)
    return str(caught.value)


def test_what_is_needed(made_up: pathlib.Path) -> None:
    check(str(made_up), "memory", "/nothing")
    (made_up / "cgroup.procs").write_text(f"{os.getpid()}\n{HIGH}\n")
    assert reason(made_up) == f"other processes are in {made_up}, too"
    (made_up / "cgroup.type").unlink()  # the root may have them
    check(str(made_up), "memory", "/nothing")
    (made_up / "cgroup.type").write_text("domain threaded\n")
    assert reason(made_up) == f"{made_up} is of the type domain threaded"
    (made_up / "cgroup.controllers").write_text("cpu hugetlb\n")
    assert reason(made_up).endswith("(cgroup v2 has there: cpu, hugetlb)")


def test_files_that_cannot_be_written(made_up: pathlib.Path) -> None:
    (made_up / "cgroup.subtree_control").unlink()
    assert reason(made_up) == f"{made_up}/cgroup.subtree_control can't be written to"


def test_systemd_must_have_delegated_it(made_up: pathlib.Path, tmp_path: pathlib.Path) -> None:
    booted = str(tmp_path)
    assert "Delegate=yes" in reason(made_up, booted)
    try:
        os.setxattr(made_up, "user.delegate", b"0")
    except OSError as error:
        pytest.skip(f"needs extended attributes in the temporary folder; found: {error}")
    assert "Delegate=yes" in reason(made_up, booted)
    os.setxattr(made_up, "user.delegate", b"1")
    check(str(made_up), "memory", booted)


# Making and undoing, for real

PRELUDE = """
import json, os, subprocess, sys
from sandboxed_python.kernel import cgroup
cgroup.NAME = "test-of-groups"
HOME, CONTROLLER = sys.argv[1:3]
def procs(folder):
    with open(f"{folder}/cgroup.procs") as file:
        return [int(word) for word in file.read().split()]
def on(folder):
    with open(f"{folder}/cgroup.subtree_control") as file:
        return CONTROLLER in file.read().split()
def say(*words):
    print(json.dumps(words), flush=True)
def make(settings=(), optional=()):
    return cgroup.Group(HOME, CONTROLLER, dict(settings), dict(optional))
"""
FAMILY = "import os, time\nos.read(0, 1)\nos.fork(), os.fork()\nos.write(1, b'x')\ntime.sleep(1000)"


@contextlib.contextmanager
def program(text: str, place: Ground, home: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that makes groups in ``home``, and is there from the beginning."""

    def enter() -> None:
        write(home, "cgroup.procs", "0")

    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + text, home, place.controller],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=enter,  # noqa: PLW1509 - no threads here
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def done(text: str, place: Ground, home: str) -> None:
    """Run a program of assertions to its end."""
    with program(text, place, home) as running:
        out, _none = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, '["done"]\n')


LIFE = f"""
before = on(HOME)
group = make([("cgroup.max.depth", "3")], [("cgroup.no.such", "1"), ("cgroup.max.descendants", "7")])
assert on(HOME) and os.path.isdir(group.folder)
assert group.number("cgroup.max.depth") == 3 and group.number("cgroup.max.descendants") == 7
assert group.number("cgroup.events", "populated") == 0
assert group.number("cgroup.events", "nothing") is None and group.number("nothing") is None
job = subprocess.Popen([sys.executable, "-c", {FAMILY!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
assert group.take(job.pid) and procs(group.folder) == [job.pid]
assert group.number("cgroup.events", "populated") == 1
job.stdin.write(b"go")
assert sum(len(job.stdout.read(1)) for _ in range(4)) == 4
assert len(procs(group.folder)) == 4
folder, leaf = group.folder, group.leaf
assert bool(leaf) == os.path.exists(f"{{HOME}}/cgroup.type")
if leaf:
    assert procs(leaf)[0] == os.getpid() and os.getpid() not in procs(HOME)
assert group.kill() and job.wait(20) == -9 and job.stdout.read() == b""
assert group.remove() and group.remove()
assert not os.path.exists(folder) and os.getpid() in procs(HOME) and on(HOME) == before
assert not leaf or not os.path.exists(leaf)
assert not group.take(os.getpid()) and not group.kill()
say("done")
"""


def test_life_of_a_group_in_the_root(place: Ground) -> None:
    """Beside the group of the test, where the controller is on already: so it stays on."""
    before = place.state()
    done(LIFE, place, place.root)
    assert place.state() == before


def test_life_of_a_group_below_the_own_one(place: Ground) -> None:
    done(LIFE, place, place.home)
    assert (folders(place.home), read(place.home, "cgroup.subtree_control")) == ([], "")
    assert read(place.root, "cgroup.subtree_control").split() == [place.controller]


def test_the_root_is_as_before_when_the_last_group_is_gone(place: Ground) -> None:
    """Two jobs: the first to end leaves the controller to the second, who switches it off."""
    os.rmdir(place.home)
    write(place.root, "cgroup.subtree_control", f"-{place.controller}")
    before = place.state()
    text = "group = make()\nsay(os.path.basename(group.folder))\ninput()\nassert group.remove()\nsay('done')"
    with program(text, place, place.root) as first, program(text, place, place.root) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        names = sorted([first.stdout.readline()[2:-3], second.stdout.readline()[2:-3]])
        assert (place.state()[0], place.state()[2]) == (names, [cgroup.MARK])
        assert first.communicate("\n", timeout=60)[0] == '["done"]\n'
        assert read(place.root, "cgroup.subtree_control") == place.controller
        assert second.communicate("\n", timeout=60)[0] == '["done"]\n'
    assert place.state() == before
    os.mkdir(place.home)


def test_others_are_not_moved(place: Ground) -> None:
    text = """
other = subprocess.Popen(["sleep", "1000"])
try:
    make()
except cgroup.UnusableError as error:
    assert "other processes" in str(error)
    assert sorted(procs(HOME)) == sorted([os.getpid(), other.pid]) and not on(HOME)
    other.kill(); other.wait()
    assert make().remove()
    say("done")
"""
    done(text, place, place.home)
    assert folders(place.home) == []


@pytest.mark.parametrize("where", ["root", "home"])
def test_nothing_is_left_of_what_fails(place: Ground, where: str) -> None:
    before = place.state()
    text = """
before = on(HOME)
for settings in ([("memory.none", "1")], [("cgroup.max.depth", "x")]):
    try:
        make(settings)
    except OSError:
        assert procs(HOME).count(os.getpid()) == 1 and on(HOME) == before
        assert not [name for name in os.listdir(HOME) if name.startswith(cgroup.NAME)]
    else:
        raise AssertionError
say("done")
"""
    done(text, place, getattr(place, where))
    assert place.state() == before


@pytest.mark.parametrize("where", ["root", "home"])
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_nothing_is_left_without_descriptors(place: Ground, where: str, on: bool) -> None:  # noqa: FBT001
    """Whichever is the one that can't be opened; and what was on before isn't taken for our doing."""
    if not on and where == "root":
        os.rmdir(place.home)
        write(place.root, "cgroup.subtree_control", f"-{place.controller}")
    before = place.state()
    text = """
import resource
before, made = (on(HOME), os.listxattr(HOME)), 0
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for most in range(3, 9):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        group = make()
        made += 1
        assert group.remove()
    except (OSError, cgroup.UnusableError):
        assert not made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (on(HOME), os.listxattr(HOME)) == before and os.getpid() in procs(HOME)
    assert not [name for name in os.listdir(HOME) if name.startswith(cgroup.NAME)]
assert 1 <= made <= 5
say("done")
"""
    done(text, place, getattr(place, where))
    assert place.state() == before
    os.makedirs(place.home, exist_ok=True)


def test_a_group_of_the_same_name_is_not_ours(place: Ground) -> None:
    """In another pid namespace there may be a supervisor with this one's pid."""
    text = """
import fcntl
folder = f"{HOME}/{cgroup.NAME}.{os.getpid()}"
os.mkdir(folder)
fcntl.flock(held := os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
job = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: open(f"{folder}/cgroup.procs", "w").write("0"))
try:
    make()
except FileExistsError:
    assert job.poll() is None and procs(folder) == [job.pid] and procs(HOME) == [os.getpid()]
    job.kill(); job.wait()
    os.rmdir(folder)
    say("done")
"""
    done(text, place, place.home)


def test_what_a_killed_process_left_is_removed(place: Ground) -> None:
    text = "group = make()\nsay('up')\ninput()"
    with program(text, place, place.home) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == '["up"]\n'
        names = [f"test-of-groups-supervisor.{running.pid}", f"test-of-groups.{running.pid}"]
        assert folders(place.home) == names
        look = f"{PRELUDE}\ncgroup.remove_stale(HOME)\nsay('done')"
        words = [sys.executable, "-c", look, place.home, place.controller]
        assert subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout == '["done"]\n'
        assert folders(place.home) == names  # both are held: one by a lock, one by who is in it
        running.send_signal(signal.SIGKILL)
        running.wait(20)
        assert folders(place.home) == names
        os.mkdir(f"{place.home}/another")
        eventually(lambda: read(f"{place.home}/{names[0]}", "cgroup.events").startswith("populated 0"))
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        assert folders(place.home) == ["another"]
        os.rmdir(f"{place.home}/another")
