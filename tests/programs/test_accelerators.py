"""Packages with an optional compiled half: refused with the flag that lets it in; without that half they need none."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.programs.catalogue import require

if TYPE_CHECKING:
    from tests.support import Run

# Package -> what shows that it works.
PACKAGES = {
    "markupsafe": "print(markupsafe.escape('<'))",
    "charset_normalizer": "print(charset_normalizer.from_bytes('ä'.encode()).best().encoding)",
}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_pure_half_needs_no_flag(name: str, folder: str, sandbox: Run) -> None:
    require(name)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(os.path.dirname(spec.origin), f"{folder}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
    job = f"{folder}/job.py"
    with open(job, "w", encoding="utf-8") as file:
        file.write(f"import {name}\n{PACKAGES[name]}\n")
    compiled = glob.glob(f"{folder}/{name}/*.so")
    if not compiled:
        pytest.skip(f"needs a compiled half of {name}; found none for this interpreter")
    denied = sandbox(f"--allow-fs-read={folder}", job)
    assert denied.code == 1, denied.said
    assert "Use --allow-addons to manage permissions." in denied.stderr, denied.said
    granted = sandbox(f"--allow-fs-read={folder}", "--allow-addons", job)
    assert granted.code == 0, granted.said
    for path in compiled:
        os.remove(path)
    pure = sandbox(f"--allow-fs-read={folder}", job)
    assert (pure.code, pure.stdout) == (0, granted.stdout), pure.said
