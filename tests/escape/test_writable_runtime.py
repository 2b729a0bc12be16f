"""Running in the very supervisor whose files the program may write.

The attack: with ``--allow-writable-runtime`` the program may change what will run outside of the sandbox the next time.
It changes what the supervisor that looks after it has not loaded yet: when the program has ended, that writes the
start-up image, if there is none, and loads the compiler's modules for it.
What stops it: such a supervisor has loaded all that it needs before the program starts, and writes no image.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import PACKAGE, environment

if TYPE_CHECKING:
    from tests.escape.attack import Attacker


@pytest.mark.slow
@pytest.mark.parametrize(
    "looked_at", [(), ("--limit-time=60s", "--limit-memory=1G", "--limit-output=1M"), ("--result",)]
)
@pytest.mark.parametrize(
    "name", ["ast", "__future__", "psutil", "resource", "time", "_socket", "json", "stat", "shutil"]
)
def test_modules_that_are_not_loaded_yet(attacker: Attacker, name: str, looked_at: tuple[str, ...]) -> None:
    """The folder is the first on ``sys.path``, so that no file of the machine has to be changed."""
    first = attacker.path("first")
    command, site = environment(attacker, f"import sys; sys.path.insert(0, {first!r})")
    os.mkdir(first)
    # A package of his own, which has no image yet.
    shutil.copytree(PACKAGE, f"{site}/sandboxed_python", ignore=shutil.ignore_patterns("*.image"))
    os.makedirs(f"{site}/sandboxed_python/__pycache__", exist_ok=True)
    attacker.own(first)
    attacker.own(site)
    taken = attacker.path("secret/taken")
    evil = f"open({taken!r}, 'a').write('x')"
    body = (
        f"with open({first!r} + '/{name}.py', 'w') as file: file.write({evil!r})\n"
        "import os\n"
        "try: os.stat('/nowhere')\n"  # the broker is asked
        "except OSError: pass\n"
        "if os.fork() == 0: os.setsid(); import signal; signal.pause()\n"
    )
    flags = ["--permission", "--allow-writable-runtime", "--allow-child-process", "--no-warnings"]
    flags += [f"{flag}={attacker.path('secret/result')}" if flag == "--result" else flag for flag in looked_at]
    ended = attacker.run([*command, *flags, f"--allow-fs-write={first}/", "-c", body])
    assert os.path.exists(f"{first}/{name}.py"), ended.said
    assert not os.path.exists(taken), f"the program's code has run in the supervisor: {ended.said}"
    assert ended.code == 0, ended.said
