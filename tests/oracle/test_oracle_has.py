"""The recorded answers of ``has()``, asked of ``sys.permission`` in a confined program: groups of cases, one start each."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.policy.test_policy_oracle import HAS_ONLY, build, load_cases

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable
    from typing import Any

SETUPS, CASES = load_cases({"has"})
CHUNKS = 8

FILL = """
import json, pathlib, sys
def fill(value):
    if isinstance(value, dict):
        if "$bytes" in value: return bytes.fromhex(value["$bytes"])
        if "$path" in value: return pathlib.Path(value["$path"])
        return value["$value"]
    return value
"""
PROBE = (
    FILL
    + """
print("ready", flush=True)
calls = json.loads(sys.stdin.readline())
print(json.dumps([sys.permission.has(*[fill(word) for word in call[1:]]) for call in calls]), flush=True)
"""
)


def converse(words: list[str], cwd: str, meanwhile: Callable[[], None], asked: str) -> tuple[str, str, str]:
    """Start the command; when the program has said something, do ``meanwhile`` and send it a line.

    Returns:
        What it said first, what after the line, and on stderr.
    """
    with subprocess.Popen(
        [*support.installed(), *words],
        cwd=cwd,
        env=support.clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        meanwhile()
        out, err = process.communicate(asked + "\n", 60)
    return ready, out, err


def groups() -> list[list[dict[str, Any]]]:
    """Return the cases of one start together: same setup, flags, directory, entry and late changes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case in CASES:
        if case.get("audit"):
            continue
        key = json.dumps([case.get(name) for name in ("setup", "flags", "cwd", "entry", "late")])
        found.setdefault(key, []).append(case)
    return list(found.values())


GROUPS = groups()


def ask(cases: list[dict[str, Any]], root: str) -> list[bool]:
    """Start one program and ask it everything."""
    first = cases[0]

    def fill(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("$ROOT", root))

    build(root, SETUPS[first["setup"]])
    for step in SETUPS[first["setup"]]:
        if step.get("content") == "$ENTRY":
            with open(os.path.join(root, step["path"]), "w", encoding="utf-8") as file:
                file.write(PROBE)
    target = fill(first["entry"]) if first.get("entry") else ["-c", PROBE]
    if first.get("entry") and os.path.isdir(os.path.join(fill(first["cwd"]), target[0])):
        with open(os.path.join(fill(first["cwd"]), target[0], "__main__.py"), "w", encoding="utf-8") as file:
            file.write(PROBE)
    ready, out, err = converse(
        ["--permission", *fill(first["flags"]), *target],
        fill(first["cwd"]),
        lambda: build(root, first.get("late", [])),
        json.dumps([fill(case["python"]["calls"][-1]) for case in cases]),
    )
    assert ready == "ready\n", err
    answers: list[bool] = json.loads(out)
    return answers


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_has(chunk: int, tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """Every recorded question is answered as recorded, in a program whose metadata calls are guarded."""
    wrong = []
    for number, cases in enumerate(GROUPS[chunk::CHUNKS]):
        root = os.path.realpath(tmp_path / str(number))
        os.mkdir(root)
        for case, answer in zip(cases, ask(cases, root), strict=True):
            if answer is not case["expect"]["result"]:
                wrong.append(f"{case['id']}: {answer}, {case['flags']} {case['python']['calls']}")
    assert not wrong, "\n".join(wrong)


def test_every_case_is_asked() -> None:
    """A filter that loses cases must not go unnoticed."""
    assert sum(len(cases) for cases in GROUPS) > HAS_ONLY - 20
