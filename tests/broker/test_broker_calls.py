"""Operations through the broker: the same as done bare where they are granted, nothing where they are not."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import random
import stat
from functools import partial
from typing import Any

import pytest

from sandboxed_python.kernel import calls, uapi
from tests.broker import operations, raw, trees
from tests.broker.harness import EVERYTHING, LONG, bare, grant, policy, serve
from tests.broker.raw import NUMBERS, Refused, call, outcome
from tests.support import NOBODY, unchanged

SEEDS = range(300 if LONG else 12)
# The first few always.
DRAWN = pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed > 3 else []) for seed in SEEDS]
)
COUNT = 150


def twins(rng: random.Random, tmp_path: pathlib.Path) -> tuple[bytes, bytes, list[bytes]]:
    """Make the same random tree twice."""
    seed = rng.randrange(1 << 30)
    roots = []
    made: list[bytes] = []
    for name in ("one", "two"):
        root = trees.nest(os.fsencode(tmp_path / name))
        made = trees.make(random.Random(seed), root)
        roots.append(root)
    return roots[0], roots[1], made


def folders(root: bytes, made: list[bytes]) -> list[bytes]:
    return [b"", *(name for name in made if stat.S_ISDIR(os.lstat(root + b"/" + name).st_mode))]


def working(root: bytes, cwd: bytes, folder: bytes, todo: list[raw.Operation], mask: int) -> list[Any]:
    os.umask(mask)
    runner = raw.Runner(root, cwd, folder)
    try:
        return [runner.run(operation) for operation in todo]
    finally:
        runner.close()


@DRAWN
def test_as_bare_where_granted(seed: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(seed)
    one, two, made = twins(rng, tmp_path)
    todo = [operations.draw(rng, made) for _ in range(COUNT)]
    places = folders(one, made)
    cwd, folder, mask = rng.choice(places), rng.choice(places), rng.choice((0o22, 0o77, 0, 0o27))
    expected = bare(lambda: working(one, cwd, folder, todo, mask))
    served = serve(policy(EVERYTHING, grant("/")), lambda: working(two, cwd, folder, todo, mask))
    assert served.errors == []
    for operation, want, got in zip(todo, expected, served.value, strict=True):
        assert got == want, (seed, operation)
    assert operations.state(tmp_path / "two", two) == operations.state(tmp_path / "one", one), seed


@DRAWN
def test_nothing_where_not_granted(seed: int, tmp_path: pathlib.Path) -> None:
    """Nothing changes, and nothing is told but EACCES or what the arguments alone are wrong with."""
    rng = random.Random(seed)
    one, two, made = twins(rng, tmp_path)
    todo = [operations.draw(rng, made) for _ in range(COUNT)]
    places = folders(one, made)
    cwd, folder = rng.choice(places), rng.choice(places)
    granted = policy(grant(os.fsdecode(two)), grant(os.fsdecode(two))) if rng.random() < 0.5 else policy()
    runner: list[raw.Runner] = []

    def before() -> None:
        runner.append(raw.Runner(one, cwd, folder))

    with unchanged(tmp_path / "one", tmp_path / "two"):
        served = serve(granted, lambda: [runner[0].run(operation) for operation in todo], before=before)
    assert served.errors == []
    for operation, got in zip(todo, served.value, strict=True):
        assert isinstance(got, Refused), (seed, operation, got)
        if got.number != errno.EACCES:
            assert got.number in wrong_alone(operation), (seed, operation, got)


def wrong_alone(operation: raw.Operation) -> set[int]:
    """Return what a call's plain arguments may be wrong with."""
    if "symlink" in operation.name and not operation.data:
        return {errno.ENOENT}
    if "xattr" in operation.name and "list" not in operation.name and not operation.data:
        return {errno.ERANGE, errno.EINVAL}
    return {errno.EINVAL}


def try_everything(path: str, beside: str) -> dict[str, Any]:
    """Do one thing of each kind to a file and beside it."""
    return {
        "stat": outcome(lambda: os.stat(path).st_size),
        "access": os.access(path, os.F_OK),
        "readable": os.access(path, os.R_OK),
        "writable": os.access(path, os.W_OK),
        "open": outcome(lambda: os.close(os.open(path, os.O_RDONLY))),
        "write": outcome(lambda: os.close(os.open(path, os.O_WRONLY))),
        "append": outcome(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))),
        "chmod": outcome(lambda: os.chmod(path, 0o640)),
        "utime": outcome(lambda: os.utime(path, (1, 1))),
        "setxattr": outcome(lambda: os.setxattr(path, "user.x", b"1")),
        "listxattr": outcome(lambda: os.listxattr(path)),
        "truncate": outcome(lambda: os.truncate(path, 3)),
        "statvfs": outcome(lambda: os.statvfs(path).f_bsize),
        "mkdir": outcome(lambda: os.mkdir(beside)),
        "rmdir": outcome(lambda: os.rmdir(beside)),
        "symlink": outcome(lambda: os.symlink("x", beside)),
        "readlink": outcome(lambda: os.readlink(beside)),
        "unlink": outcome(lambda: os.unlink(beside)),
        "link": outcome(lambda: os.link(path, beside)),
        "rename": outcome(lambda: os.rename(path, beside)),
        "back": outcome(lambda: os.rename(beside, path)),
    }


DENIED = Refused(errno.EACCES)
METADATA = {"stat", "open", "listxattr", "statvfs"}


@pytest.mark.parametrize("given", ["", "read", "write", "both"])
def test_each_grant_gives_its_own(given: str, tmp_path: pathlib.Path) -> None:
    """One file in a tree that is granted for nothing, reading, writing, both."""
    file = tmp_path / "tree" / "file"
    file.parent.mkdir()
    file.write_text("hello")
    tree = grant(tmp_path / "tree")
    granted = policy(tree if given in {"read", "both"} else (), tree if given in {"write", "both"} else ())
    got = serve(granted, lambda: try_everything(str(file), str(tmp_path / "tree" / "beside"))).value
    reading, writing = given in {"read", "both"}, given in {"write", "both"}
    assert (got["stat"] == 5) is reading
    assert got["access"] is reading
    assert got["readable"] is reading
    assert got["writable"] is (reading and writing)  # what may not be known of is not known to be writable
    for name in METADATA - {"stat"}:
        assert (got[name] != DENIED) is reading, name
    for name in ("write", "append", "chmod", "utime", "setxattr", "truncate", "mkdir", "rmdir", "symlink", "unlink"):
        assert (got[name] != DENIED) is writing, name
    assert got["readlink"] == ("x" if reading and writing else Refused(errno.ENOENT) if reading else DENIED)
    for name in ("link", "rename", "back"):
        assert (got[name] != DENIED) is (reading and writing), name
    found = file.stat()
    assert (found.st_atime == 1) is writing
    assert (found.st_size == 3) is writing
    assert (found.st_mode & 0o777 == 0o640) is writing


def is_folder(path: os.PathLike[str]) -> bool:
    return stat.S_ISDIR(os.stat(path).st_mode)


def test_missing_names_tell_nothing(tmp_path: pathlib.Path) -> None:
    """A denied name is EACCES whether it is there or not; ENOENT only below a grant, or above one."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "there").write_text("")
    (outside / "folder").mkdir()
    exact = tmp_path / "later" / "file"

    def look() -> list[Any]:
        names = [
            inside / "no", inside / "no" / "no", outside / "no", outside / "there", outside / "there" / "x",
            outside / "folder" / "no", exact, exact.parent, exact.parent / "other", tmp_path, tmp_path / "nothing",
        ]  # fmt: skip
        return [outcome(partial(is_folder, name)) for name in names]

    got = serve(policy((*grant(inside), *grant(exact, kind="path"))), look).value
    no = Refused(errno.ENOENT)
    assert got == [no, no, DENIED, DENIED, DENIED, DENIED, no, no, DENIED, True, DENIED]


def test_metadata_everywhere(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")

    def look() -> list[Any]:
        path = str(tmp_path / "f")
        return [
            os.stat(path).st_size, os.readlink(tmp_path / "l"), os.access(path, os.R_OK), os.path.exists(path + "no"),
            outcome(lambda: os.listxattr(path)), outcome(lambda: os.open(path, os.O_RDONLY)),
        ]  # fmt: skip

    got = serve(policy(scopes=["fs.metadata"]), look).value
    assert got == [1, "f", True, False, Refused(errno.EOPNOTSUPP), DENIED]


def test_attributes_above_a_grant(tmp_path: pathlib.Path) -> None:
    """A folder above a grant may be known of: it seems to have no attributes; what may not be known of is refused."""
    inside, outside = tmp_path / "above" / "in", tmp_path / "above" / "out"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        os.setxattr(folder, "user.mark", b"marked")
    os.setxattr(inside.parent, "user.mark", b"marked")

    def look() -> list[Any]:
        paths = (inside, inside.parent, outside, inside.parent / "no")
        return [
            outcome(partial(read, path))
            for path in paths
            for read in (os.listxattr, lambda path: os.getxattr(path, "user.mark"))
        ]

    assert bare(look)[2:6] == [["user.mark"], b"marked"] * 2
    none = Refused(errno.EOPNOTSUPP)
    served = serve(policy(grant(inside)), look)
    assert served.value == [["user.mark"], b"marked", none, none, DENIED, DENIED, DENIED, DENIED]
    assert [path for _name, _need, path in served.denied] == [str(outside)] * 2 + [str(inside.parent / "no")] * 2


def test_links_are_judged_where_they_lead_and_where_they_are(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "f").write_text(folder.name)
    (inside / "leads out").symlink_to(outside / "f")
    (outside / "leads in").symlink_to(inside / "f")
    (inside / "dangling").symlink_to(outside / "new")
    (inside / "up").symlink_to("../out")

    def work() -> list[Any]:
        leads_out, leads_in = inside / "leads out", outside / "leads in"
        return [
            outcome(lambda: os.stat(leads_out).st_size),
            outcome(lambda: os.lstat(leads_out).st_mode & 0o170000),
            outcome(lambda: os.readlink(leads_out)),
            outcome(lambda: os.stat(leads_in).st_size),
            outcome(lambda: os.readlink(leads_in)),
            outcome(lambda: os.chmod(leads_out, 0)),
            outcome(lambda: os.open(inside / "dangling", os.O_CREAT | os.O_WRONLY)),
            outcome(lambda: os.stat(inside / "up" / ".." / "in" / "f").st_size),
            outcome(lambda: os.stat(inside / "up" / "f").st_size),
            outcome(lambda: os.unlink(leads_out)),
            outcome(lambda: os.unlink(leads_in)),
        ]

    with unchanged(outside):
        got = serve(policy(grant(inside), grant(inside)), work).value
    assert got == [DENIED, 0o120000, str(outside / "f"), 2, DENIED, DENIED, DENIED, 2, DENIED, None, DENIED]
    assert not os.path.lexists(inside / "leads out")


def test_prefixes_and_names_to_come(tmp_path: pathlib.Path) -> None:
    prefix = grant(tmp_path / "test", kind="prefix")
    exact = grant(tmp_path / "report.csv", kind="path")
    (tmp_path / "tes").write_text("")

    def work() -> list[Any]:
        def write(name: str) -> Any:
            return outcome(lambda: os.close(os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY)))

        return [write(name) for name in ("test", "test2", "tes", "report.csv", "report.csv2", "other")]

    got = serve(policy((), (*prefix, *exact)), work).value
    assert got == [None, None, DENIED, None, DENIED, DENIED]
    assert sorted(os.listdir(tmp_path)) == ["report.csv", "tes", "test", "test2"]


def test_moving_a_folder_gives_no_rights(tmp_path: pathlib.Path) -> None:
    """A folder that is granted as a name only may not take what is in it to where it would be granted.

    A granted folder itself stays where it is, like a mount point.
    """
    folder, root, target = tmp_path / "folder", tmp_path / "root", tmp_path / "target"
    whole = root / "whole"
    for made in (folder, root, whole, target):
        made.mkdir()
        (made / "secret").write_text("")
    places = (*grant(folder, kind="path"), *grant(root), *grant(target), *grant(tmp_path / "file", kind="path"))
    (tmp_path / "file").write_text("")

    def work() -> list[Any]:
        return [
            outcome(lambda: os.rename(folder, target / "got")),
            outcome(lambda: os.rename(whole, target / "moved")),
            outcome(lambda: os.rename(tmp_path / "file", target / "file")),
            outcome(lambda: os.rename(target / "moved", folder)),
            outcome(lambda: os.rename(root, target / "root")),
            outcome(lambda: os.rmdir(root)),
        ]

    got = serve(policy(places, places), work).value
    busy = Refused(errno.EBUSY)
    assert got == [Refused(errno.EXDEV), None, None, Refused(errno.ENOTEMPTY), busy, busy]
    assert root.exists()
    assert (folder / "secret").exists()


def test_a_granted_folder_may_come_by_renaming(tmp_path: pathlib.Path) -> None:
    """Where a granted folder isn't yet, a folder may be moved; then it stays. A link or a file doesn't get there."""
    for name in ("made", "again"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/etc")
    target = tmp_path / "target"
    every = (*grant(tmp_path, kind="prefix"), *grant(target, kind="tree"))

    def work() -> list[Any]:
        return [
            outcome(lambda: os.unlink(target)),
            outcome(lambda: os.rmdir(target)),
            outcome(lambda: os.rename(target, tmp_path / "away")),
            outcome(lambda: os.close(os.open(target, os.O_CREAT | os.O_WRONLY))),
            outcome(lambda: os.rename(target, tmp_path / "away")),
            outcome(lambda: os.close(os.open(target, os.O_CREAT | os.O_WRONLY))),
            outcome(lambda: os.unlink(target)),
            outcome(lambda: os.rename(tmp_path / "link", target)),
            outcome(lambda: os.rename(tmp_path / "file", target)),
            outcome(lambda: os.rename(tmp_path / "made", target)),
            outcome(lambda: os.rename(tmp_path / "again", target)),
            outcome(lambda: os.rename(target, tmp_path / "gone")),
        ]

    busy = Refused(errno.EBUSY)
    nothing = Refused(errno.ENOENT)
    done = [nothing, nothing, nothing, None, None, None, None, busy, busy, None, busy, busy]
    assert serve(policy(every, every), work).value == done
    assert sorted(os.listdir(tmp_path)) == ["again", "away", "file", "link", "target"]


def test_no_set_id_bits_no_devices_no_foreign_attributes(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "f"
    file.write_text("")
    (tmp_path / "d").mkdir()

    def work() -> list[Any]:
        return [
            outcome(lambda: os.chmod(file, 0o4755)),
            outcome(lambda: os.chmod(file, 0o2755)),
            outcome(lambda: os.chmod(tmp_path / "d", 0o2775)),
            outcome(lambda: os.open(tmp_path / "new", os.O_CREAT | os.O_WRONLY, 0o4755)),
            outcome(lambda: os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))),
            outcome(lambda: os.mknod(tmp_path / "pipe", stat.S_IFIFO | 0o666)),
            outcome(lambda: os.setxattr(file, "security.x", b"1")),
            outcome(lambda: os.setxattr(file, "trusted.x", b"1")),
            outcome(lambda: os.setxattr(file, "system.posix_acl_access", b"1")),
        ]

    no = Refused(errno.EPERM)
    assert serve(policy(EVERYTHING, grant(tmp_path)), work).value == [
        no, no, None, no, no, None, no, no, Refused(errno.EOPNOTSUPP)
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["d", "f", "pipe"]


def test_descriptors_are_judged_by_their_file(tmp_path: pathlib.Path) -> None:
    """fchmod and its like: also on a descriptor that is open for reading under a read-only grant, or was inherited."""
    both, only, outside = (tmp_path / name for name in ("both", "only", "outside"))
    for file in (both, only, outside):
        file.write_text("")
        file.chmod(0o600)
    inherited = os.open(outside, os.O_RDWR)

    def work() -> list[Any]:
        mine, theirs = os.open(both, os.O_RDONLY), os.open(only, os.O_RDONLY)
        found: list[Any] = []
        for descriptor in (mine, theirs, inherited, 999):
            found += [
                outcome(partial(os.fchmod, descriptor, 0o644)),
                outcome(partial(os.utime, descriptor, (5, 5))),
                outcome(partial(os.setxattr, descriptor, "user.x", b"1")),
                outcome(partial(os.removexattr, descriptor, "user.x")),
                outcome(partial(os.fchown, descriptor, -1, -1)),
            ]
        reading, writing = os.pipe()
        removed = os.open(tmp_path / "removed", os.O_CREAT | os.O_RDWR)
        os.unlink(tmp_path / "removed")
        found += [
            outcome(lambda: os.fchmod(reading, 0)),
            outcome(lambda: os.fchmod(os.memfd_create("x"), 0o600)),
            outcome(lambda: os.fchmod(removed, 0o644)),
        ]
        os.close(writing)
        return found

    gone = grant(tmp_path / "removed", kind="prefix")
    granted = policy((*grant(both, only, kind="path"), *gone), (*grant(both, kind="path"), *gone))
    with unchanged(only, outside):
        got = serve(granted, work).value
    os.close(inherited)
    assert got[:20] == [None] * 5 + [DENIED] * 10 + [Refused(errno.EBADF)] * 5
    assert got[20:] == [DENIED, None, None]
    assert both.stat().st_mode & 0o777 == 0o644


def test_empty_paths_mean_the_descriptor(tmp_path: pathlib.Path) -> None:
    """fstat(2) is never judged, by whatever call; what changes a file is."""
    file = tmp_path / "f"
    file.write_text("abc")
    descriptor = os.open(file, os.O_RDONLY)

    def work() -> list[Any]:
        buffer = ctypes.create_string_buffer(512)
        empty = uapi.AT_EMPTY_PATH
        return [
            call("newfstatat", descriptor, b"", buffer, empty),
            int.from_bytes(bytes(buffer)[48:56], "little"),
            call("newfstatat", descriptor, None, buffer, empty),
            call("newfstatat", descriptor, str(file).encode(), buffer, empty),
            call("statx", descriptor, b"", empty, 0x7FF, buffer),
            call("newfstatat", descriptor, b"", buffer, 0),
            call("fchownat", descriptor, b"", -1, -1, empty),
            call("faccessat2", descriptor, b"", os.R_OK, empty) if "faccessat2" in NUMBERS else 0,
        ]

    got = serve(policy(), work).value
    os.close(descriptor)
    assert got == [0, 3, 0, DENIED, 0, Refused(errno.ENOENT), DENIED, 0]


def test_as_an_ordinary_user(user_dir: str) -> None:
    """The same, with supervisor and child as user 65534 when the tests run as root: permissions count then."""
    for seed in SEEDS[: 20 if LONG else 4]:
        folder = os.path.join(user_dir, str(seed))

        def become() -> None:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                calls.prctl(uapi.PR_SET_DUMPABLE, 1)  # as after an execve: else nobody may look at the child

        def both(folder: str = folder, seed: int = seed) -> None:
            os.mkdir(folder)
            test_as_bare_where_granted(seed, pathlib.Path(folder))
            file = pathlib.Path(folder) / "closed"
            file.write_text("x")
            file.chmod(0)
            got = serve(
                policy(EVERYTHING, grant("/")), lambda: [os.access(file, os.R_OK), outcome(lambda: os.open(file, 0))]
            )
            assert got.value == [False, DENIED]

        bare(both, before=become)
