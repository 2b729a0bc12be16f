"""Choosing what the next run is granted.

The attack: what a grant names lies in a folder that the program may write. The program can't put a link in its place;
so it moves a folder above it away and puts a link there, or makes a folder with a link in it and moves that there. The
next run is started with the same words, and the grant leads out.
What stops it: a folder above what a grant names can't be moved, and nothing be moved there but files; and no link be
put in its place. As for mount points, EBUSY.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# What is granted below ``write``; what is there at first; what the grant names below ``in``, and what is then read.
GRANTS = {
    "a folder": ("in/granted/", "in/granted/own", "granted", "in/granted/data"),
    "a folder in a folder": ("in/deep/granted/", "in/deep/granted/own", "deep/granted", "in/deep/granted/data"),
    "a prefix": ("in/da*", "in/other", "", "in/data"),
    "a file that isn't there": ("in/data", "in/other", "data", "in/data"),
    "a file in a folder that isn't there": ("in/data", "other", "data", "in/data"),
    "a folder that isn't there": ("in/granted/*", "other", "granted", "in/granted/data"),
}
# ``OUT`` is a tree of the same shape that isn't granted, ``NAMED`` what the grant names below ``IN``.
HEAD = """
IN, NEW, AWAY, OUT = WRITE + "/in", WRITE + "/new", WRITE + "/away", HOME + "/out"
def away():
    if os.path.lexists(IN):
        os.rename(IN, AWAY)
def folder():
    os.makedirs(os.path.dirname(NEW + "/" + NAMED))
    os.symlink(OUT + "/" + NAMED, NEW + "/" + NAMED)
def exchange():
    if not os.path.lexists(IN):
        os.mkdir(IN)
    call("renameat2", -100, os.fsencode(NEW), -100, os.fsencode(IN), 2)
"""
LINKS = {
    "a link": "away(); os.symlink(OUT, IN)",
    "a moved link": "os.symlink(OUT, NEW); away(); os.rename(NEW, IN)",
    "an exchanged link": "os.symlink(OUT, NEW); exchange()",
    "a linked link": "os.symlink(OUT, NEW); away(); os.link(NEW, IN, follow_symlinks=False)",
}
FOLDERS = {
    "a folder with a link": "folder(); away(); os.rename(NEW, IN)",
    "an exchanged folder with a link": "folder(); exchange()",
}
WAYS = [
    pytest.param(grant, way, id=f"{kind}, {name}")
    for kind, grant in GRANTS.items()
    for name, way in {**LINKS, **(FOLDERS if grant[2] else {})}.items()
]


@pytest.mark.slow
@pytest.mark.parametrize(("grant", "way"), WAYS)
def test_by_a_folder_above(attacker: Attacker, grant: tuple[str, str, str, str], way: str) -> None:
    granted, there, named, opened = grant
    flag = f"--allow-fs-read={attacker.path('write', granted)}"

    def prepare() -> None:
        attacker.put(f"write/{there}", "")
        attacker.put(opened.replace("in/", "out/", 1), TOKEN)

    def leads_out(_ended: object) -> bool:
        words = [
            *attacker.command,
            "--permission",
            flag,
            "-c",
            f"print(open({attacker.path('write', opened)!r}).read())",
        ]
        return leaked(attacker.run(words))

    attacker.must_fail(f"{HEAD}NAMED = {named!r}\n{way}", "--allow-ffi", flag, harm=leads_out, prepare=prepare)


def test_what_lies_beside_moves(attacker: Attacker) -> None:
    """The twin: folders and links that lead to no grant, and files in the folder above one."""
    attacker.lay_out()
    attacker.put("write/in/granted/own", "")
    attacker.put("write/in/file", "")
    attacker.put("write/in-too/file", "")
    body = (
        "os.rename(WRITE + '/in-too', WRITE + '/away'); os.symlink('away', WRITE + '/in-too')\n"
        "os.rename(WRITE + '/in/file', WRITE + '/in/other'); os.mkdir(WRITE + '/in/new')\n"
        "os.rename(WRITE + '/in/new', WRITE + '/in/granted/new'); os.symlink('other', WRITE + '/in/link')"
    )
    confined = attacker.confined(body, f"--allow-fs-read={attacker.path('write/in/granted')}/")
    assert "TRIED: done" in confined.stdout, confined.said
