"""Fixtures of the attacks: who attacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape import attack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests import support


@pytest.fixture(params=attack.names())
def attacker(request: pytest.FixtureRequest, run: support.Run) -> Iterator[attack.Attacker]:
    """Return an attacker with a home of his own: root and an ordinary user, or whoever runs the tests."""
    yield from attack.make(request.param)


@pytest.fixture
def superuser(run: support.Run) -> Iterator[attack.Attacker]:
    """Return root as the attacker, for what nobody else can do even without the sandbox."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root: nobody else can do this without the sandbox either; found user id {os.geteuid()}")
    yield from attack.make("root")
