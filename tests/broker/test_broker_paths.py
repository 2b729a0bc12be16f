"""The resolver reaches what the kernel reaches, or fails as the kernel fails."""

from __future__ import annotations

import errno
import os
import random
import stat
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.broker import paths
from sandboxed_python.broker.place import BY_DESCRIPTOR, Entry, Place, same_root
from sandboxed_python.broker.request import DeniedError, StoppedError
from sandboxed_python.broker.walk import Walk
from tests.broker import trees
from tests.broker.harness import LONG, OwnRequest, bare, start
from tests.broker.raw import AT_FDCWD, Refused, outcome

if TYPE_CHECKING:
    import pathlib

SEEDS = range(400 if LONG else 25)
SPELLINGS = 200

Found = tuple[int, int] | Refused


def reached(request: OwnRequest, at: int, path: bytes, *, follow: bool, walk: bool, named: bool = True) -> Found:
    """Resolve by our own code: the object's device and inode, or the errno; ``named``: see that its path leads there."""
    try:
        place = Walk(request, at, path, follow=follow).run() if walk else paths.find(request, at, path, follow=follow)
    except StoppedError as stop:
        return Refused(stop.number)
    except OSError as error:
        return Refused(error.errno or 0)
    assert isinstance(place, Place)
    try:
        found = os.fstat(place.descriptor)
        if named:
            real = os.lstat(place.path)
            assert (real.st_dev, real.st_ino) == (found.st_dev, found.st_ino), place.path
        return found.st_dev, found.st_ino
    finally:
        place.close()


def kernels(at: int, path: bytes, *, follow: bool) -> Found:
    """Ask the kernel."""
    found = outcome(lambda: os.stat(path, dir_fd=at if at >= 0 else None, follow_symlinks=follow))
    return found if isinstance(found, Refused) else (found.st_dev, found.st_ino)


def made_by_the_kernel(path: bytes) -> int | Refused:
    got: int | Refused = outcome(lambda: os.open(path, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600))
    return got


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("seed", SEEDS)
def test_resolves_as_the_kernel(seed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    root = os.fsencode(tmp_path) + b"/tree"
    os.mkdir(root)
    made = trees.make(rng, root, far=True)
    folders = [root, *(root + b"/" + name for name in made if stat.S_ISDIR(os.lstat(root + b"/" + name).st_mode))]
    monkeypatch.chdir(os.fsdecode(rng.choice(folders)))
    folder = os.open(rng.choice(folders), os.O_PATH | os.O_DIRECTORY)
    request = OwnRequest()
    before = open_descriptors()
    try:
        for _ in range(SPELLINGS):
            path = trees.spelling(rng, made)
            at = rng.choice((AT_FDCWD, folder))
            if rng.random() < 0.5:
                path = root + b"/" * rng.randint(1, 2) + path
            for follow in (True, False):
                expected = kernels(at, path, follow=follow)
                for walk in (False, True):
                    got = reached(request, at, path, follow=follow, walk=walk)
                    assert got == expected, (seed, path, follow, walk)
    finally:
        os.close(folder)
    assert open_descriptors() == before - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_resolves_names_to_be_made_as_the_kernel(seed: int, tmp_path: pathlib.Path) -> None:
    """Where O_CREAT makes or opens a file, also through links: by opening the very entry that was found."""
    rng = random.Random(seed)
    root = trees.nest(os.fsencode(tmp_path))
    made = trees.make(rng, root)
    request = OwnRequest()
    for _ in range(60):
        path = root + b"/" + trees.spelling(rng, made, missing=0.5).rstrip(b"/")  # with a slash, open(2) is EISDIR
        try:
            entry = paths.find_or_entry(request, AT_FDCWD, path, follow=True)
        except (StoppedError, OSError) as error:
            number = error.number if isinstance(error, StoppedError) else error.errno
            assert made_by_the_kernel(path) == Refused(number or 0), path
            continue
        assert isinstance(entry, Entry), path
        try:
            assert not os.fsencode(entry.path).endswith((b"/.", b"/.."))
            there = entry.descriptor >= 0
            certain = entry.name not in {b".", b".."} and entry.name[-1:] != b"/"
            assert os.path.lexists(entry.path) == there or not certain, (path, entry.path)
            made_it = made_by_the_kernel(path)
            if isinstance(made_it, int):
                ours = os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False)
                theirs = os.fstat(made_it)
                assert (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino), path
                os.close(made_it)
        finally:
            entry.close()


def test_forty_links_and_no_more(tmp_path: pathlib.Path) -> None:
    (tmp_path / "0").write_text("")
    for number in range(1, 43):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    request = OwnRequest()
    for number in (39, 40, 41, 42):
        path = os.fsencode(tmp_path / str(number))
        for walk in (False, True):
            assert reached(request, AT_FDCWD, path, follow=True, walk=walk) == kernels(AT_FDCWD, path, follow=True)
    assert kernels(AT_FDCWD, os.fsencode(tmp_path / "41"), follow=True) == Refused(errno.ELOOP)


@pytest.mark.parametrize("spelled", [b"/", b"//", b"/.", b"/..", b"/../..", b"/proc", b"/proc/", b"/proc/.."])
def test_the_root(spelled: bytes) -> None:
    for walk in (False, True):
        got = reached(OwnRequest(), AT_FDCWD, spelled, follow=True, walk=walk)
        assert got == kernels(AT_FDCWD, spelled, follow=True)


PROC = (
    b"/proc/self", b"/proc/self/", b"/proc/thread-self", b"/proc/thread-self/", b"/proc/self/cwd", b"/proc/self/cwd/",
    b"/proc/self/cwd/sub/f", b"/proc/self/root/usr", b"/proc/self/exe", b"/proc/self/fd/%d", b"/proc/self/fd/%d/",
    b"/proc/self/fd/%d/sub", b"/proc/self/fd/%d/../top", b"/dev/fd/%d", b"/dev/fd/%d/sub/f", b"/dev/fd", b"/dev/stdin",
    b"/proc/self/task/../status", b"/proc/self/fd/999", b"/proc/self/fd/../cwd/sub", b"/proc/mounts", b"/proc/net",
    b"/proc/self/ns/mnt", b"to-self/cwd/sub/f", b"to-cwd/f", b"/proc/self/cwd/../top", b"/proc/self/cwd/missing",
)  # fmt: skip


@pytest.mark.parametrize("spelled", PROC)
@pytest.mark.parametrize("follow", [True, False])
def test_proc_is_the_callers(spelled: bytes, follow: bool, tmp_path: pathlib.Path) -> None:  # noqa: FBT001
    """What ``/proc/self`` and its like mean in another process, asked there by the kernel and here by the resolver."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "f").write_text("f")
    (tmp_path / "top").write_text("top")
    (work / "to-self").symlink_to("/proc/self")
    (work / "to-cwd").symlink_to("/proc/thread-self/cwd/sub")
    ready, go = os.pipe(), os.pipe()
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    path = spelled % folder if b"%d" in spelled else spelled

    def ask() -> Found:
        os.chdir(work)
        found = kernels(AT_FDCWD, path, follow=follow)
        os.write(ready[1], b"x")
        os.close(go[1])
        os.read(go[0], 1)
        return found

    child = start(ask)
    os.close(folder)  # a number that means nothing here
    os.read(ready[0], 1)
    request = OwnRequest(task=child.pid)
    try:
        got = [reached(request, AT_FDCWD, path, follow=follow, walk=walk, named=False) for walk in (False, True)]
    finally:
        os.write(go[1], b"x")
        os.close(go[1])
        while child.read():
            pass
    expected = child.result()
    # Entries of procfs get a new inode number when they are looked up anew: then only existence can be compared.
    if not isinstance(expected, Refused) and expected[0] == os.stat("/proc").st_dev:
        assert [one[0] for one in got] == [expected[0], expected[0]], (got, expected)
    else:
        assert got == [expected, expected]
    for end in (ready, go):
        os.close(end[0])
    os.close(ready[1])


def test_magic_links_of_others_are_closed(tmp_path: pathlib.Path) -> None:
    """The supervisor could follow them; the caller could not."""
    me = os.getpid()

    def look() -> object:
        return None

    child = start(look)
    request = OwnRequest(task=os.getpid())
    request.context.child = me
    for path in (b"/proc/1/root/etc", b"/proc/%d/cwd" % os.getppid(), b"/proc/%d/fd/0" % os.getppid()):
        with pytest.raises((DeniedError, StoppedError)):
            paths.find(request, AT_FDCWD, path)
    while child.read():
        pass
    child.result()


def test_another_root(tmp_path: pathlib.Path) -> None:
    if os.geteuid():
        assert same_root(OwnRequest())  # only root can have another one
        return
    jail = tmp_path / "jail"
    (jail / "etc").mkdir(parents=True)
    (jail / "etc" / "f").write_text("")
    (jail / "link").symlink_to("/etc/f")
    (jail / "up").symlink_to("../../../etc/f")
    ready, go = os.pipe(), os.pipe()

    def wait() -> None:
        os.chroot(jail)
        os.chdir("/etc")
        os.write(ready[1], b"x")
        os.close(go[1])
        os.read(go[0], 1)

    child = start(wait)
    os.read(ready[0], 1)
    request = OwnRequest(task=child.pid)
    try:
        inode = (jail / "etc" / "f").stat().st_ino
        for path in (b"/etc/f", b"/link", b"/up", b"f", b"../../../etc/f", b"/../../etc/f"):
            place = paths.find(request, AT_FDCWD, path)
            assert os.fstat(place.descriptor).st_ino == inode, path
            place.close()
    finally:
        os.write(go[1], b"x")
        while child.read():
            pass
        child.result()
        for end in (*ready, *go):
            os.close(end)


def test_a_descriptor_that_is_not_there() -> None:
    assert outcome(lambda: paths.find(OwnRequest(), 999, b"x")) == Refused(errno.EBADF)


def test_an_empty_path_means_the_descriptor(tmp_path: pathlib.Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)
    request = OwnRequest()
    place = paths.find(request, descriptor, b"", empty=True)
    assert (place.path, place.reached) == (os.fspath(tmp_path), BY_DESCRIPTOR)
    place.close()
    with pytest.raises(FileNotFoundError):
        paths.find(request, descriptor, b"")
    os.close(descriptor)


def test_protected_links_as_the_kernel(tmp_path: pathlib.Path) -> None:
    """``fs.protected_symlinks``: another's link in a sticky, world-writable directory; whatever this machine says."""
    if os.geteuid():
        return  # needs links of two owners
    folder = tmp_path / "sticky"
    folder.mkdir()
    (folder / "f").write_text("")
    (folder / "link").symlink_to("f")
    os.lchown(folder / "link", 12345, 12345)
    folder.chmod(0o1777)
    path = os.fsencode(folder / "link")
    asked = bare(lambda: kernels(AT_FDCWD, path, follow=True))
    assert reached(OwnRequest(), AT_FDCWD, path, follow=True, walk=True) == asked
