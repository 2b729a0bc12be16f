"""Real programs under the smallest grants that work: with them they work, without any one of them they don't."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.programs import wheel
from tests.programs.catalogue import PROGRAMS, Program, environment, grants, lay_out, require

if TYPE_CHECKING:
    from tests.support import Finished, Run

ROWS = [row for row in PROGRAMS if row.words]


def attempt(row: Program, options: list[str], folder: str, sandbox: Run) -> tuple[bool, Finished]:
    """Run a program in a fresh folder; tell whether it worked, and how it ended."""
    os.mkdir(folder)
    lay_out(row.files, folder)
    if "wheels/" in row.files:
        wheel.make(os.path.join(folder, "wheels"))
    if "env/" in row.files:
        made = support.execute([sys.executable, "-m", "venv", "--without-pip", os.path.join(folder, "env")])
        assert made.code == 0, made.said
    ended = sandbox(*options, *row.words, cwd=folder, env=environment(row, folder))
    there = [os.path.exists(os.path.join(folder, name)) for name in row.leaves]
    return ended.code == row.code and row.prints in ended.stdout + ended.stderr and all(there), ended


def marked(row: Program, *more: str) -> object:
    slow = [pytest.mark.slow] if row.slow or "slow" in more else []
    return pytest.param(row, marks=slow, id=row.name)


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_its_grants_are_enough(row: Program, folder: str, sandbox: Run) -> None:
    require(row.package)
    worked, ended = attempt(row, grants(row.name), os.path.join(folder, "there"), sandbox)
    assert worked, ended.said


@pytest.mark.parametrize("row", [marked(row, "slow") for row in ROWS])
def test_each_of_its_grants_is_needed(row: Program, folder: str, sandbox: Run) -> None:
    """And the denial is the kernel's or the hook's: it is named, or the program says what it may not do."""
    require(row.package)
    options = grants(row.name)
    for index, option in enumerate(options):
        worked, ended = attempt(row, options[:index] + options[index + 1 :], os.path.join(folder, str(index)), sandbox)
        assert not worked, f"works without {option}\n{ended.said}"
