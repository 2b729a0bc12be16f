"""The recorded answers of the real Node: every case that is only a matter of policy, replayed in this process."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest

from sandboxed_python.policy.decide import drop, has
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import OSLookup, literal_grant, resolve
from sandboxed_python.policy.spelling import parse_grant, split_commas
from sandboxed_python.policy.table import BY_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORACLE = pathlib.Path(__file__).parent.parent / "data" / "node-oracle.json"
HAS_ONLY = 1393
WITH_DROP = 107


def load_cases(methods: set[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the setups, and the cases that only make these calls and end with a plain answer."""
    oracle = json.loads(ORACLE.read_text(encoding="utf-8"))
    cases = [
        case
        for case in oracle["cases"]
        if set(case["python"]) == {"calls"}
        and "result" in case["expect"]
        and {call[0] for call in case["python"]["calls"]} == methods
    ]
    return oracle["setups"], cases


def build(root: str, steps: list[dict[str, str]]) -> None:
    """Carry out a setup."""
    for step in steps:
        path = os.path.join(root, step["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        kind = step["type"]
        if kind == "file":
            pathlib.Path(path).write_text(step["content"], encoding="utf-8")
        elif kind == "dir":
            os.makedirs(path, exist_ok=True)
        elif kind == "symlink":
            os.symlink(step["target"].replace("$ROOT", root), path)
        elif kind == "hardlink":
            os.link(os.path.join(root, step["target"]), path)
        elif kind == "unlink":
            os.unlink(path)
        elif kind == "rmdir":
            os.rmdir(path)
        else:
            raise AssertionError(step)


def policy_of(case: dict[str, Any], root: str) -> Policy:
    """Make the policy of a case's flags and entry script."""
    cwd = case["cwd"].replace("$ROOT", root)
    trees: dict[str, list[Any]] = {"fs.read": [], "fs.write": []}
    scopes = set()
    for flag in case["flags"]:
        name, _, value = flag.replace("$ROOT", root).partition("=")
        row = BY_FLAG[name]
        if row.kind == "paths":
            trees[row.scope] += [parse_grant(part, name, cwd, OSLookup) for part in split_commas(value, name)]
        else:
            scopes.add(row.scope)
    for script in case.get("entry", []):
        trees["fs.read"].append(literal_grant(script.replace("$ROOT", root), "entry", cwd, OSLookup, implicit=True))
    return Policy(
        mode="audit" if case.get("audit") else "enforce",
        read=tuple(trees["fs.read"]),
        write=tuple(trees["fs.write"]),
        scopes=frozenset(scopes),
    )


def text_of(argument: Any, root: str) -> str:
    """Return a reference as text."""
    if isinstance(argument, dict):
        if "$bytes" in argument:
            return os.fsdecode(bytes.fromhex(argument["$bytes"].replace("$ROOTHEX", os.fsencode(root).hex())))
        argument = argument["$path"]
    assert isinstance(argument, str)
    return argument.replace("$ROOT", root)


def replay(case: dict[str, Any], root: str) -> bool:
    """Carry the calls of a case out and return the last answer."""
    cwd = case["cwd"].replace("$ROOT", root)
    policy = policy_of(case, root)
    build(root, case.get("late", []))
    answer = None
    for method, scope, *rest in case["python"]["calls"]:
        given = text_of(rest[0], root) if rest else None
        if method == "drop":
            policy = drop(policy, scope, parse_grant(given, "drop", cwd, OSLookup) if given else None)
        else:
            answer = has(policy, scope, resolve(given, cwd, os.readlink) if given else None, given)
    assert isinstance(answer, bool)
    return answer


def replay_all(methods: set[str], tmp_path: pathlib.Path) -> int:
    """Replay all cases of this kind; return how many they were."""
    setups, cases = load_cases(methods)
    wrong = []
    for case in cases:
        # Cases that change the tree get one of their own.
        own = case["id"] if "late" in case else ""
        root = os.path.realpath(tmp_path / (case["setup"] + own))
        if not os.path.isdir(root):
            os.mkdir(root)
            build(root, setups[case["setup"]])
        if replay(case, root) != case["expect"]["result"]:
            wrong.append(case)
        if own:
            shutil.rmtree(root)
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:5]}"
    return len(cases)


@pytest.mark.parametrize(("methods", "count"), [({"has"}, HAS_ONLY), ({"has", "drop"}, WITH_DROP)], ids=["has", "drop"])
def test_recorded_cases(methods: set[str], count: int, tmp_path: pathlib.Path) -> None:
    """Every recorded answer of has(), with and without drop() before it, is ours as well."""
    replayed = replay_all(methods, tmp_path)
    print(f"replayed {replayed} recorded cases of {' and '.join(sorted(methods))}")
    assert replayed == count
