"""The machine's devices: disks, memory, the kernel's log.

The attack: as root, open a disk, the machine's memory or the log, which hold everybody's files and secrets; under the
broadest write grant, open them for writing.
What stops it: Landlock, for what isn't granted; ``*`` for writing leaves /dev out. Source: mem(4), DESIGN ("*"); THREATS 2
(fsr_kmsg), 4 (add_procmem_star).
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

DEVICES = ("/dev/kmsg", "/dev/mem", "/dev/port", "/dev/nvram", "/dev/loop-control", "/dev/net/tun", "/dev/kvm")


def disks() -> list[str]:
    return [f"/dev/{os.path.basename(path)}" for path in sorted(glob.glob("/sys/block/*"))][:1]


@pytest.mark.parametrize("path", [*DEVICES, "a disk"])
@pytest.mark.parametrize("way", ["reading", "writing under *"])
def test_opening(superuser: Attacker, path: str, way: str) -> None:
    """Nothing is read or written: that it opens is harm enough."""
    place = path if path.startswith("/") else next(iter(disks()), path)
    flags, grants = ("0", ()) if way == "reading" else ("os.O_WRONLY", ("--allow-fs-write=*",))
    body = f"raw_open({place!r}, {flags} | os.O_NONBLOCK); print('OPENED')"
    plain = superuser.plain(body)
    if "OPENED" not in plain.stdout:
        pytest.skip(f"needs {place} for {way}; found {plain.stdout.rpartition('|')[2].strip()}")
    superuser.must_fail(body, "--allow-ffi", *grants, harm=lambda ended: "OPENED" in ended.stdout)
