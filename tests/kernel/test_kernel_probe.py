"""What this machine can enforce, as it is and as a container would have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.kernel.probe import Support, probe

if TYPE_CHECKING:
    from tests.support import Need

# A container's profile refuses the calls; the probe must take that for what it is.
PROGRAM = """
import json, sys
from sandboxed_python.kernel import seccomp, uapi
from sandboxed_python.kernel.probe import probe
from sandboxed_python.kernel.process import set_no_new_privs
import errno, os
def instruction(code, jt, jf, k):
    return code.to_bytes(2, "little") + bytes([jt, jf]) + k.to_bytes(4, "little")
name, refusal = sys.argv[1:]
number = uapi.SYSCALLS[name][0 if os.uname().machine == "x86_64" else 1]
set_no_new_privs()
seccomp.load_filter(
    instruction(0x20, 0, 0, 0) + instruction(0x15, 0, 1, number)
    + instruction(0x06, 0, 0, uapi.SECCOMP_RET_ERRNO | getattr(errno, refusal))
    + instruction(0x06, 0, 0, uapi.SECCOMP_RET_ALLOW))
print(json.dumps(probe().as_dict()))
"""


def refused(call: str, refusal: str) -> Any:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, call, refusal], capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_probe_describes_this_machine() -> None:
    found = probe()
    system = os.uname()
    assert (found.machine, found.release) == (system.machine, system.release)
    assert found.root == (os.geteuid() == 0)
    assert (found.landlock > 0) == (found.landlock_error == "")
    assert found == probe()


def test_probe_changes_nothing() -> None:
    def seen() -> list[str]:
        with open("/proc/thread-self/status", encoding="utf-8") as file:
            return [line for line in file if line.startswith(("Cap", "Seccomp", "NoNewPrivs"))]

    before = seen()
    probe()
    assert seen() == before


@pytest.mark.parametrize("refusal", ["ENOSYS", "EOPNOTSUPP", "EPERM"])
def test_refused_landlock_is_none_and_says_why(needs: Need, refusal: str) -> None:
    needs(landlock=0)
    found = refused("landlock_create_ruleset", refusal)
    known = {"EOPNOTSUPP": ("EOPNOTSUPP", "ENOTSUP")}.get(refusal, (refusal,))
    assert found["landlock"] == 0
    assert found["landlock_error"] in known
    assert (found["seccomp"], found["notify"]) == (True, True)


@pytest.mark.parametrize("refusal", ["ENOSYS", "EPERM"])
def test_refused_seccomp_is_none(needs: Need, refusal: str) -> None:
    needs(landlock=0)
    found = refused("seccomp", refusal)
    assert (found["seccomp"], found["notify"]) == (False, False)
    assert found["landlock"] == probe().landlock


def test_a_made_up_machine() -> None:
    assert Support(machine="riscv64").as_dict() == {
        "machine": "riscv64",
        "release": "",
        "landlock": 0,
        "landlock_error": "",
        "seccomp": True,
        "notify": True,
        "root": False,
    }
