"""What every test of the broker needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def tmp_path(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give folders that a test has closed back to their owner: pytest, which removes them in some later run, needs it."""
    yield tmp_path
    for folder, folders, _files in os.walk(os.fsencode(tmp_path)):
        for name in folders:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
