"""Having the supervisor act with more rights than the program has, after a start with secure bits.

The attack: root's sandbox is started where a change of ids keeps the capabilities (``SecureBits=no-setuid-fixup`` of a
systemd unit). The program becomes an ordinary user and gives them up; but when the supervisor becomes that user for the
length of a call, it keeps its own.
What stops it: the supervisor gives up their effect itself. Source: capabilities(7), securebits.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import tool

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

BECOME = """
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
call("capset", (0x20080522).to_bytes(4, "little") + bytes(4), bytes(24))
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: the supervisor can then read the call's arguments
"""
CHANGES = {
    "mode": "os.chmod(WRITE + '/data', 0o666)",
    "owner": "os.chown(WRITE + '/data', 65534, -1)",
    "times": "os.utime(WRITE + '/data', (1, 1))",
    "name": "os.rename(WRITE + '/data', WRITE + '/taken')",
    "length": "os.truncate(WRITE + '/data', 0)",
}


@pytest.mark.parametrize("bits", ["", "+no_setuid_fixup"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_of_roots_files(superuser: Attacker, change: str, bits: str) -> None:
    superuser.lay_out()
    before = os.stat(superuser.path("write/data"))
    words = [tool("setpriv"), f"--securebits={bits}"] if bits else []
    confined = superuser.confined(BECOME + change, "--allow-ffi", before=words)
    assert "PermissionError" in confined.stdout, confined.said
    after = os.stat(superuser.path("write/data"))
    assert (before.st_mode, before.st_uid, before.st_size, before.st_mtime) == (
        after.st_mode,
        after.st_uid,
        after.st_size,
        after.st_mtime,
    )


@pytest.mark.parametrize("bits", ["", "+no_setuid_fixup"])
def test_the_twin(superuser: Attacker, bits: str) -> None:
    """What is the user's own is changed, and root's calls are carried out as root's again."""
    superuser.lay_out()
    os.chown(superuser.put("write/own", ""), 65534, 65534)
    os.chmod(superuser.path("write"), 0o777)
    body = (
        "if os.fork() == 0:\n"
        "    try: exec(BECOME); os.chmod(WRITE + '/own', 0o600)\n"
        "    except BaseException as error: print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); os.chmod(WRITE + '/data', 0o640); os.chown(WRITE + '/data', 1, 1); print('AS ROOT')"
    )
    words = [tool("setpriv"), f"--securebits={bits}"] if bits else []
    confined = superuser.confined(
        f"BECOME = {BECOME!r}\n{body}\n# call('capset')", "--allow-ffi", "--allow-child-process", before=words
    )
    assert "AS ROOT" in confined.stdout, confined.said
    assert os.stat(superuser.path("write/own")).st_mode & 0o777 == 0o600, confined.said
    assert os.stat(superuser.path("write/data")).st_uid == 1
