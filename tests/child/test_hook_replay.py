"""The recorded answers of the real Node, replayed against the hook alone: no kernel sandbox stands behind it here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.child import replay
from tests.launch.plain import other_pythons

CASES = 369

# What the hook alone can't answer, and why.
NEEDS_KERNEL: dict[str, str] = {}


def check(python: str) -> None:
    """Replay under an interpreter and compare with the table of exceptions."""
    program = os.path.abspath(replay.__file__)
    done = subprocess.run([python, "-I", program], capture_output=True, text=True, timeout=120, check=False)
    answers = dict(json.loads(line) for line in done.stdout.splitlines())
    assert len(answers) == CASES, done.stderr
    wrong = {case: text for case, text in answers.items() if text and case not in NEEDS_KERNEL}
    assert not wrong, json.dumps(wrong, indent=1)
    assert {case for case, text in answers.items() if text} == set(NEEDS_KERNEL)


@pytest.mark.slow
def test_this_interpreter() -> None:
    check(sys.executable)


@pytest.mark.slow
@pytest.mark.parametrize("python", other_pythons())
def test_other_interpreters(python: str) -> None:
    check(python)
