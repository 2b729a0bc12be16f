"""The recorded answers of ``has()`` after ``drop()``, in confined programs: one start for each case."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.oracle.test_oracle_has import FILL, converse
from tests.policy.test_policy_oracle import WITH_DROP, build, load_cases

if TYPE_CHECKING:
    import pathlib
    from typing import Any

    from tests import support

SETUPS, EVERY = load_cases({"has", "drop"})
CASES = [case for case in EVERY if not case.get("audit")]
CHUNKS = 6
# Where ours departs from the recorded answers; listed with the other differences in test_oracle_cli.py.
REFUSED = "addons, and ffi with them, are not dropped while child processes are granted"

PROBE = (
    FILL
    + """
print("ready", flush=True)
for call in json.loads(sys.stdin.readline()):
    answer = getattr(sys.permission, call[0])(*[fill(word) for word in call[1:]])
print(json.dumps(answer), flush=True)
"""
)


def ask(case: dict[str, Any], root: str) -> str:
    """Start a program for one case, and return what was wrong with its last answer, or ``""``."""
    text = json.dumps(case).replace("$ROOTHEX", os.fsencode(root).hex()).replace("$ROOT", root)
    filled = json.loads(text)
    build(root, SETUPS[case["setup"]])
    words = ["--permission-audit" if case.get("audit") else "--permission", *filled["flags"], "-c", PROBE]
    ready, out, err = converse(
        words, filled["cwd"], lambda: build(root, case.get("late", [])), json.dumps(filled["python"]["calls"])
    )
    if is_refused(case):
        return "" if "RuntimeError: " in err and "while child processes are granted" in err else f"not refused: {err}"
    if ready != "ready\n" or not out:
        return f"died: {err}"
    answer = json.loads(out)
    return "" if answer is case["expect"]["result"] else f"answered {answer}"


def is_refused(case: dict[str, Any]) -> bool:
    """Tell whether native code is to be dropped while programs may be started: that can't be enforced, and says so."""
    calls = case["python"].get("calls", [])
    dropped = {call[1] for call in calls if call[0] == "drop" and isinstance(call[1], str)}
    return bool(dropped & {"addon", "ffi"}) and {"--allow-addons", "--allow-child-process"} <= set(case["flags"])


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_drop(chunk: int, tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """Every recorded drop leaves what was recorded, and can be enforced."""
    wrong = []
    for case in CASES[chunk::CHUNKS]:
        root = os.path.realpath(tmp_path / case["id"])
        os.mkdir(root)
        text = ask(case, root)
        if text:
            wrong.append(f"{case['id']}: {text}, {case['flags']} {case['python']['calls']}")
    assert not wrong, "\n".join(wrong)


def test_every_case_is_asked() -> None:
    """A filter that loses cases must not go unnoticed."""
    assert len(EVERY) == WITH_DROP
    assert len(CASES) >= WITH_DROP - 1
    assert sum(map(is_refused, CASES)) == 3
