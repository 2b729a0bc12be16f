"""Operations through the broker: the same as done bare where they are granted, nothing where they are not."""

from __future__ import annotations

import errno
import os
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker import operations, trees
from tests.broker.harness import EVERYTHING, LONG, Refused, bare, grant, policy, serve
from tests.support import unchanged

if TYPE_CHECKING:
    import pathlib

SEEDS = range(300 if LONG else 12)
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


def working(root: bytes, cwd: bytes, folder: bytes, todo: list[operations.Operation], mask: int) -> list[Any]:
    os.umask(mask)
    runner = operations.Runner(root, cwd, folder)
    try:
        return [runner.run(operation) for operation in todo]
    finally:
        runner.close()


@pytest.mark.parametrize("seed", SEEDS)
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


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_where_not_granted(seed: int, tmp_path: pathlib.Path) -> None:
    """No grant but the right to read procfs, which the test's own look at descriptors needs."""
    rng = random.Random(seed)
    one, _two, made = twins(rng, tmp_path)
    todo = [operations.draw(rng, made) for _ in range(COUNT)]
    places = folders(one, made)
    cwd, folder = rng.choice(places), rng.choice(places)
    if rng.random() < 0.5:
        granted = policy(grant("/proc"))
    else:
        granted = policy((*grant("/proc"), *grant(tmp_path / "two")), grant(tmp_path / "two"))

    def outside() -> list[Any]:
        runner = operations.Runner(one, cwd, folder)
        return [runner.run(operation) for operation in todo]

    runner_before = operations.Runner

    def confined() -> list[Any]:
        return [runner.run(operation) for operation in todo]

    runner: Any = None

    def before() -> None:
        nonlocal runner
        runner = runner_before(one, cwd, folder)

    with unchanged(tmp_path / "one"):
        served = serve(granted, confined, before=before)
    assert served.errors == []
    never = {errno.EINVAL, errno.EACCES, errno.EBADF}
    for operation, got in zip(todo, served.value, strict=True):
        harmless = never | ({errno.ENOENT} if not operation.data else {errno.ENOENT, errno.ERANGE})
        if isinstance(got, Refused):
            told = got.number
            assert told in harmless or told == errno.ERANGE or above(operation), (seed, operation, got)
        else:
            assert above(operation), (seed, operation, got)


def above(operation: operations.Operation) -> bool:
    """Tell whether the path may end above a grant or in procfs, where something may be known."""
    return operation.name not in CHANGING


CHANGING = {
    "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat",
    "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link", "linkat", "creat",
}  # fmt: skip
