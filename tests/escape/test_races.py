"""Check and use: what is judged and what is opened must be one and the same.

The attack: grants that the supervisor carries out itself (prefixes, names that don't exist yet), and a second thread that
changes the path's text, a link, or a folder for a link, while it looks.
What stops it: the supervisor reads the text once, resolves it once, judges where it arrived and acts on the descriptor of
that. Landlock judges again whatever it lets through. Source: THREATS 12 (fsr_race_*, metaw_race_*).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

pytestmark = pytest.mark.slow

# GOOD is granted by a prefix, EVIL isn't; TEXT holds the one or the other when NAME's call is made.
BODY = """
import threading, time
good, evil = os.fsencode(GOOD), os.fsencode(EVIL)
text = ctypes.create_string_buffer(good)
own = (WRITE + '/own').encode()
stop = time.monotonic() + 0.5
SWAP
try:
    threading.Thread(target=swap).start()
except RuntimeError as error:
    print(error)
while time.monotonic() < stop:
    try:
        STEP
    except OSError as error:
        last = error
"""
SWAPS = {
    # One value each time round: threads take turns at the end of a loop's body.
    "string": """
def swap():
    for n in range(10**9):
        text.value = evil if n % 2 else good
        if n % 64 == 0 and time.monotonic() > stop:
            return
""",
    "link": """
text = ctypes.create_string_buffer(own + b'-link')
def swap():
    for n in range(10**9):
        os.symlink(evil if n % 2 else good, own + b'-next')
        os.replace(own + b'-next', own + b'-link')
        if time.monotonic() > stop:
            return
""",
    # A folder takes the place of a link to a foreign one, and gives it back, in one step.
    "folder": """
os.makedirs(own + b'-folder'); os.symlink(os.path.dirname(evil), own + b'-other')
open(own + b'-folder/' + os.path.basename(good), 'w').close()
text = ctypes.create_string_buffer(own + b'-folder/' + os.path.basename(good))
def swap():
    for n in range(10**9):
        call('renameat2', -100, own + b'-folder', -100, own + b'-other', 2)
        if time.monotonic() > stop:
            return
""",
}
STEPS = {
    "read": "fd = call('openat', -100, text, 0, 0); print(os.read(fd, 99).decode()); os.close(fd)",
    "write": "fd = call('openat', -100, text, os.O_WRONLY, 0); os.write(fd, b'!'); os.close(fd)",
    "empty": "os.close(call('openat', -100, text, os.O_TRUNC, 0))",
    "create": "os.close(call('openat', -100, text, os.O_CREAT | os.O_WRONLY, 0o600))",
    "truncate": "call('truncate', text, 0)",
    "remove": "call('unlinkat', -100, text, 0)",
    "make a folder": "call('mkdirat', -100, text, 0o700)",
    "rename out": "call('renameat', -100, text, -100, own)",
    "link out": "os.path.lexists(own) and os.unlink(own); call('linkat', -100, text, -100, own, 0)",
    "attribute": "call('setxattr', text, b'user.attack', b'x', 1, 0)",
}
ROWS = [(step, "string") for step in STEPS] + [
    ("read", "link"), ("write", "link"), ("create", "link"), ("empty", "link"), ("truncate", "link"),
    ("read", "folder"), ("write", "folder"), ("create", "folder"), ("remove", "folder"), ("rename out", "folder"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "swap"), ROWS)
def test_a_race(attacker: Attacker, step: str, swap: str) -> None:
    name = "new" if step in ("create", "make a folder") else "data"
    evil = attacker.path("secret", name)
    before = (0, 0)

    def prepare() -> None:
        nonlocal before
        attacker.put("writes/data", "")
        before = state()

    def state() -> tuple[int, int]:
        if not os.path.lexists(evil):
            return 0, 0
        found = os.stat(evil)
        return found.st_ctime_ns, found.st_nlink

    def harm(ended: Finished) -> bool:
        return TOKEN in ended.stdout or state() != before

    body = BODY.replace("SWAP", SWAPS[swap]).replace("STEP", STEPS[step])
    attacker.must_fail(
        f"GOOD, EVIL = HOME + '/writes/{name}', SECRET + '/{name}'\n{body}",
        *("--allow-ffi", "--allow-worker"),
        *(f"{flag}={attacker.path('write')}*" for flag in ("--allow-fs-read", "--allow-fs-write")),
        harm=harm,
        prepare=prepare,
    )
