"""Files that are called as the kernel calls removed ones.

No attack succeeds here: ``x (deleted)`` is how the kernel shows a removed ``x``, and a file may really be called so. What
is granted by that name alone answers as ``has()`` says; a removed file gains nothing by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

NAME = "data (deleted)"
USES = (
    "for use in (os.stat, os.lstat, os.statvfs, lambda path: os.close(os.open(path, os.O_PATH)),\n"
    "            lambda path: os.access(path, os.R_OK | os.W_OK) or 1 / 0, lambda path: os.chmod(path, 0o600),\n"
    "            os.utime, lambda path: os.truncate(path, 1), lambda path: open(path, 'r+').close()):\n"
    "    try: use(PATH)\n"
    "    except Exception as error: print('WRONG', error, flush=True)\n"
)


def test_a_file_that_is_really_called_so(attacker: Attacker) -> None:
    attacker.lay_out()
    path = attacker.put(f"secret/{NAME}", "x")
    body = f"PATH = {path!r}\nprint('HAS', sys.permission.has('fs.read', PATH), sys.permission.has('fs.write', PATH))\n{USES}"
    confined = attacker.confined(body, f"--allow-fs-read={path}", f"--allow-fs-write={path}")
    assert "HAS True True" in confined.stdout, confined.said
    assert "WRONG" not in confined.stdout, confined.said


@pytest.mark.parametrize("another", ["", "there"])
def test_a_removed_file_is_not_taken_for_it(attacker: Attacker, another: str) -> None:
    """The file is the input, open for reading; it was called ``data`` when it was removed."""
    path = attacker.path("secret", NAME)
    inside = (
        "import os, subprocess, sys\n"
        "given = os.open(sys.argv[1], os.O_RDONLY); os.unlink(sys.argv[1])\n"
        "sys.exit(subprocess.run(sys.argv[2:], stdin=given).returncode)"
    )
    attacker.must_fail(
        "call('fchmod', 0, 0o640); print('MODE %o' % os.fstat(0).st_mode)",
        "--allow-ffi",
        f"--allow-fs-read={path}",
        f"--allow-fs-write={path}",
        harm=lambda ended: "MODE 100640" in ended.stdout,
        prepare=lambda: another and attacker.put(f"secret/{NAME}", another),
        around=(attacker.python, "-c", inside, attacker.path("secret/data")),
    )
