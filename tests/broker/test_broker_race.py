"""Races: strings, links, folders and descriptors are swapped while calls are being answered.

The swapping is done by processes outside of the sandbox, which are faster than any thread in it, and by a thread that
swaps descriptors. Nothing outside of the grants may be read, written or created.
"""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests import support
from tests.broker import racer
from tests.broker.harness import LONG, grant, policy, serve, start
from tests.broker.raw import AT_FDCWD, NUMBERS, Refused, call, outcome
from tests.support import unchanged

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

SECONDS = 20 if LONG else 3
TOTAL = 10 if LONG else 2  # of the races in the whole product
INSIDE, OTHER = racer.INSIDE, b"other"
SECRET = b"the secret of the outside"


def swapping(step: Callable[[int], None]) -> Callable[[], None]:
    """Do a step again and again in another process; return what stops it."""

    def run() -> None:
        number = 0
        while True:
            outcome(partial(step, number))
            number += 1

    child = start(run)

    def stop() -> None:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.pipe)

    return stop


@pytest.mark.slow
def test_paths_links_and_folders(tmp_path: pathlib.Path) -> None:
    inside, outside = tmp_path / "in_", tmp_path / "out"
    racer.lay_out(str(inside), str(outside), SECRET)
    swaps = racer.Swaps(str(inside), str(outside))
    stops = [swapping(step) for step in (swaps.strings, swaps.links, swaps.folders, swaps.parents)]
    tree = grant(inside)
    try:
        with unchanged(outside):
            served = serve(policy(tree, tree), racer.Caller(swaps, SECONDS).work, timeout=SECONDS + 60)
    finally:
        for stop in stops:
            stop()
    done, read, sizes = served.value
    assert served.errors == []
    assert done > 10 * SECONDS / 3
    assert SECRET not in read
    assert len(SECRET) not in sizes
    assert {INSIDE} <= read  # the calls did work, too
    assert any((path or "").startswith(str(outside)) for _name, _need, path in served.denied)


# The same in the whole product, by threads of the program and by processes outside.
RACER = "import sys; sys.path.insert(0, {root!r}); from tests.broker import racer, raw; raw.NUMBERS.update({numbers}); "


def race(folder: pathlib.Path, seconds: float, kind: str, *flags: str) -> dict[str, Any]:
    """Run the racing program under a policy whose calls the supervisor answers; return what it printed."""
    inside, outside, other = folder / "in_", folder / "out", folder / "read"
    folder.mkdir()
    racer.lay_out(str(inside), str(outside), SECRET)
    shutil.copytree(outside, other)
    for file in ("f", "sub/f"):
        (other / file).write_bytes(OTHER)
    before = [support.snapshot(place) for place in (outside, other)]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = RACER.format(root=root, numbers=NUMBERS)
    code += f"racer.main({str(inside)!r}, {str(outside)!r}, {str(other)!r}, {seconds}, {kind!r})"
    grants = (f"--allow-fs-read={folder}/in*,{other},{root}/", f"--allow-fs-write={folder}/in*")
    switches = ("--permission", "--no-warnings", "--allow-ffi", "--allow-worker")
    swaps = racer.Swaps(str(inside), str(outside))
    stops = [swapping(step) for step in (swaps.links, swaps.folders, swaps.parents) if kind in ("", step.__name__)]
    try:
        words = [*support.installed(), *switches, *grants, *flags, "-c", code]
        ended = support.execute(words, timeout=seconds + 60)
    finally:
        for stop in stops:
            stop()
    assert ended.code == 0, ended.said
    found: dict[str, Any] = ast.literal_eval(ended.stdout)
    places = zip((outside, other), before, strict=True)
    found["changes"] = [change for place, old in places for change in support.changes(old, support.snapshot(place))]
    return found


def check_nothing_outside(found: dict[str, Any]) -> None:
    """Check that nothing outside was read, told of, changed or created, and that the calls did work."""
    assert found["changes"] == []
    assert SECRET not in found["read"]
    assert len(SECRET) not in found["sizes"]
    assert INSIDE in found["read"]


def test_everything_in_the_whole_product(tmp_path: pathlib.Path) -> None:
    support.need()
    check_nothing_outside(race(tmp_path / "race", TOTAL / 2, ""))


@pytest.mark.parametrize("kind", racer.KINDS)
def test_each_in_the_whole_product(kind: str, tmp_path: pathlib.Path) -> None:
    """Each swap on its own, and its twin, which is granted the outside and does reach it."""
    support.need()
    seconds = TOTAL / 4 / len(racer.KINDS)
    check_nothing_outside(race(tmp_path / "race", seconds, kind))
    for attempt in range(8):
        twin = tmp_path / f"twin{attempt}"
        granted = (f"--allow-fs-read={twin}/out*", f"--allow-fs-write={twin}/out*,{twin}/read*")
        if race(twin, seconds, kind, *granted)["changes"]:
            return
        seconds *= 2
    pytest.fail("the race never reached the outside")


@pytest.mark.slow
def test_descriptors(tmp_path: pathlib.Path) -> None:
    """A thread puts another file in a descriptor's place: fchmod and its like act on what they judged."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for file in (mine, theirs):
        file.write_text("")
        file.chmod(0o644)

    def work() -> int:
        sys.setswitchinterval(1e-6)
        one, two = os.open(mine, os.O_RDONLY), os.open(theirs, os.O_RDONLY)
        target = os.dup(one)
        over = False

        def swap() -> None:
            while not over:
                os.dup2(two, target)
                os.dup2(one, target)

        thread = threading.Thread(target=swap)
        thread.start()
        done = 0
        end = time.monotonic() + SECONDS / 3
        while time.monotonic() < end:
            call("fchmod", target, 0o600)
            call("fsetxattr", target, b"user.x", b"1", 1, 0)
            call("utimensat", target, None, b"\1" + bytes(31), 0)
            done += 1
        over = True
        thread.join()
        return done

    granted = policy(grant(mine, theirs, kind="path"), grant(mine, kind="path"))
    with unchanged(theirs):
        served = serve(granted, work)
    assert served.errors == []
    assert served.value > 10
    assert mine.stat().st_mode & 0o777 == 0o600


def test_killed_in_the_middle(tmp_path: pathlib.Path) -> None:
    """Tasks that die while their calls are being answered: no exception, no descriptor left behind."""
    (tmp_path / "f").write_text("")
    before = len(os.listdir("/proc/self/fd"))

    def work() -> int:
        for number in range(150):
            child = os.fork()
            if not child:
                while True:
                    outcome(lambda: os.close(os.open(tmp_path / "f", os.O_RDONLY)))
                    outcome(lambda: os.stat(tmp_path / "f"))
            time.sleep(number % 7 / 2000)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return 1

    served = serve(policy(grant(tmp_path)), work)
    assert served.errors == []
    assert served.value == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_signals_do_not_end_calls(tmp_path: pathlib.Path) -> None:
    """With WAIT_KILLABLE_RECV a signal doesn't end a call that was taken; one before that gives EINTR, as always."""
    (tmp_path / "f").write_text("")

    def work() -> tuple[int, int]:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        good = bad = 0
        for _ in range(3000):
            got = call("newfstatat", AT_FDCWD, str(tmp_path / "f").encode(), buffer, 0)
            good += got == 0
            bad += got != 0 and got != Refused(4)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return good, bad

    buffer = ctypes.create_string_buffer(256)
    good, bad = serve(policy(grant(tmp_path)), work).value
    assert bad == 0
    assert good > 2000
