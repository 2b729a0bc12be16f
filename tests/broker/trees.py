"""Random trees and random spellings of paths in them, for the broker's tests.

Runs in: tests only. Everything comes from one ``random.Random``, so a seed repeats a failure.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

NAMES = (
    b"a",
    b"b",
    b"c",
    b"dir",
    b"x y",
    b"new\nline",
    "\u00e9\u4e16".encode(),
    b"\xff\xfe",
    b".hid",
    b"...",
    b"l" * 255,
)
TEXTS = (b".", b"..", b"../..", b"/nowhere/x", b"nothing", b"a/", b"dir/", b"./a", b"b/../a")
# Texts that are only for tests that change nothing.
FAR_TEXTS = (b"/", b"/nowhere", b"../../../../../../../../../../../..")
DEPTH = 16
_PADDING = b"/".join([b"deep"] * DEPTH)


def nest(folder: bytes) -> bytes:
    """Make a directory so deep below ``folder`` that no number of ``..`` in a test leads out, and return it."""
    path = folder + b"/" + _PADDING
    os.makedirs(path)
    return path


def make(rng: random.Random, root: bytes, *, depth: int = 3, far: bool = False) -> list[bytes]:
    """Make a tree of directories, files, pipes and links below ``root``; return the paths, relative to it."""
    made: list[bytes] = []

    def fill(folder: bytes, level: int) -> None:
        for name in rng.sample(NAMES[:-1] if rng.random() < 0.9 else NAMES, rng.randint(2, 5)):
            relative = folder + b"/" + name if folder else name
            path = root + b"/" + relative
            kind = rng.choice(("dir", "dir", "file", "file", "link", "link", "fifo"))
            if kind == "dir" and level < depth:
                os.mkdir(path, rng.choice((0o755, 0o700, 0o750)))
                fill(relative, level + 1)
            elif kind == "link":
                text = rng.choice(FAR_TEXTS) if far and rng.random() < 0.1 else target(rng, root, made)
                os.symlink(text, path)
            elif kind == "fifo" and rng.random() < 0.5:
                os.mkfifo(path, 0o600)
            else:
                with open(path, "wb") as file:
                    file.write(relative[:64] * rng.randint(0, 3))
                os.chmod(path, rng.choice((0o644, 0o600, 0o400, 0o755)))
            made.append(relative)

    fill(b"", 0)
    return made


def target(rng: random.Random, root: bytes, made: list[bytes]) -> bytes:
    """Return the text of a link: inside and outside, relative and absolute, dangling, looping."""
    roll = rng.random()
    if made and roll < 0.35:
        return root + b"/" + rng.choice(made)
    if made and roll < 0.7:
        return b"../" * rng.randint(0, 3) + rng.choice(made)
    return rng.choice(TEXTS)


def spelling(rng: random.Random, made: list[bytes], *, missing: float = 0.15) -> bytes:
    """Return a relative path, spelled with detours: ``.``, ``..``, doubled and trailing slashes, names that aren't."""
    parts = rng.choice(made).split(b"/") if made and rng.random() < 0.9 else [rng.choice(NAMES)]
    while made and rng.random() < 0.25:
        parts += rng.choice(made).split(b"/")
    spelled: list[bytes] = []
    for part in parts:
        roll = rng.random()
        if roll < 0.08:
            spelled.append(b".")
        elif roll < 0.14:
            spelled += [rng.choice(NAMES), b".."]
        elif roll < 0.2:
            spelled.append(b"..")
        elif roll < 0.24:
            spelled.append(b"")
        absent = rng.random() < missing / max(len(parts), 1)
        spelled.append(rng.choice((b"missing", b"m" * 256, *NAMES)) if absent else part)
    path = b"/".join(spelled)
    if rng.random() < 0.15:
        path += b"/" * rng.randint(1, 2)
    elif rng.random() < 0.08:
        path += rng.choice((b"/.", b"/..", b"/./"))
    return path.lstrip(b"/") or b"."
