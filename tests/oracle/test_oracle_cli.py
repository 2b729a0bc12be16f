"""The recorded command lines of the real Node: exit codes, what is printed, what is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.child.replay import ORACLE, fill, put
from tests.oracle.test_oracle_drop import REFUSED, is_refused

if TYPE_CHECKING:
    from typing import Any

with open(ORACLE, encoding="utf-8") as _file:
    _oracle = json.load(_file)
SETUPS: dict[str, list[dict[str, str]]] = _oracle["setups"]
CASES: list[dict[str, Any]] = [case for case in _oracle["cases"] if "argv" in case["python"]]

# Everything in which ours is not Node's own recorded answer: the reason that the case gives, or the replay of drop()
# where the case has Node's answer, and where that comes from.
# NODE.md is the contract's notes; the page that users read is docs/parity.md.
DIFFERENCES = {
    "Node's matcher: dir-itself-lost": "a granted directory is granted itself, as Node's page says",
    "Node's matcher: wildcard-after-exact-lost": "a wildcard covers what starts with it, as Node's page says",
    "Node's matcher: wildcard-one-char-short": "a wildcard covers nothing shorter, as Node's page says",
    "Node also asks for read; the system call and CPython need write only": "scopes gate what CPython's call needs",
    "Node's cp also reads the destination; shutil.copy needs write only": "scopes gate what CPython's call needs",
    "shutil.rmtree reads the directory, so it needs read too; ignore_errors keeps the denial silent": (
        "scopes gate what CPython's call needs"
    ),
    "os.access, os.path.exists, isfile and realpath answer instead of raising": (
        "os.path.exists and os.access answer False when denied"
    ),
    "os.makedirs asks for the topmost missing parent first: the resource is another path": (
        "the resource is the caller's spelling, and os.makedirs is the caller"
    ),
    REFUSED: "drop() is real: a RuntimeError rather than half a drop, since other programs are code in files, as addons are",
}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_command_lines(case: dict[str, Any], folder: str, run: support.Run) -> None:
    support.need()
    put(SETUPS[case["setup"]], folder)
    words = [fill(word, folder) for word in case["python"]["argv"]]
    before = support.snapshot(folder)
    ended = run(*words, cwd=fill(case["cwd"], folder))
    expect = case["expect"]
    assert ended.code == expect["exit"], ended.said
    assert ended.stdout.strip() == expect.get("stdout", ""), ended.said
    assert expect.get("stderr_has", "") in ended.stderr, ended.said
    assert not support.changes(before, support.snapshot(folder))


def test_every_command_line_is_replayed() -> None:
    """A filter that loses cases must not go unnoticed."""
    assert len(CASES) == len([case for case in _oracle["cases"] if case["id"].startswith("cli-")]) == 14


def test_every_difference_from_node_is_listed_with_its_reason() -> None:
    """No case departs from Node's recorded answer for a reason that isn't in the list, and no reason is idle."""
    given = {case["why"] for case in _oracle["cases"] if "node" in case or "why" in case}
    given |= {REFUSED for case in _oracle["cases"] if is_refused(case)}
    assert given == set(DIFFERENCES)
    assert all("why" in case for case in _oracle["cases"] if "node" in case)
