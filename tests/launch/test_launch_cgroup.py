"""Where the kernel can hold a job's memory it does, and whatever becomes of the job or its supervisor, no group is left."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.kernel.cgroups import Ground, eventually, folders, ground, group_of, read, write
from tests.support import NOBODY, clean_environment, installed, reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Need, Run

MIB = 1 << 20
OURS = "test-of-groups"
# The command, with another controller where memory is version 1's: everything but the limit itself. The names are others
# than those that tests count which run meanwhile.
ANY = f"""
import sys
from sandboxed_python.kernel import cgroup as groups
from sandboxed_python.launch import cgroup
from sandboxed_python.cli.main import main
cgroup.CONTROLLER, groups.NAME = sys.argv.pop(1), {OURS!r}
if cgroup.CONTROLLER != "memory":
    cgroup.settings = lambda limit: ({{}}, {{}})
main(frozenset(sys.modules))
"""
BURST = "data = bytearray({} << 20)\nprint('done')"
# Files in memory that nobody maps, and a buffer: what only the kernel counts.
UNMAPPED = "import os\nwith open('/dev/shm/of-a-test', 'wb') as file:\n for _ in range({}): file.write(bytes(1 << 20))\nprint('done')"
WAIT = "import sys, time\nprint('up', flush=True)\ntime.sleep(1000)"


@pytest.fixture
def memory(needs: Need) -> Iterator[Ground]:
    needs()
    with ground("memory") as found:
        yield found


@pytest.fixture
def place(needs: Need) -> Iterator[Ground]:
    needs()
    with ground() as found:
        yield found


@contextlib.contextmanager
def job(
    home: str, *words: str, controller: str = "", before: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run the command with a limit on memory in a group, alone there; with ``controller``, see ``ANY``."""
    command = [sys.executable, "-c", ANY, controller] if controller else installed()

    def enter() -> None:
        write(home, "cgroup.procs", "0")
        if before is not None:
            before()

    with subprocess.Popen(
        [*command, "--permission", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        preexec_fn=enter,  # noqa: PLW1509 - no threads here
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def result(home: str, folder: str, *words: str) -> tuple[int, str, str, dict[str, Any]]:
    """Run the command in a group to its end; return exit code, stdout, stderr, and the result."""
    file = f"{folder}/result.json"
    with job(home, f"--result={file}", *words) as running:
        out, err = running.communicate(timeout=120)
    with open(file, encoding="utf-8") as text:
        return running.returncode, out, err, json.load(text)


def untouched(place: Ground) -> bool:
    """Tell whether a group is as it was prepared: empty, and gives nothing to groups below."""
    return (
        folders(place.home) == []
        and read(place.home, "cgroup.subtree_control") == ""
        and read(place.home, "cgroup.procs") == ""
    )


PLACES = pytest.mark.parametrize("where", ["root", "home"])  # it keeps its processes; the supervisor has to move


def as_before(place: Ground, before: object) -> bool:
    """Tell whether nothing is left of a job in either."""
    return untouched(place) and place.state() == before


@PLACES
@pytest.mark.parametrize("way", [[], ["-B"]], ids=["fork", "exec"])
def test_a_burst_ends_at_the_limit(memory: Ground, folder: str, where: str, way: list[str]) -> None:
    """Who looks may see it first: to the kernel, pages that are shared with the supervisor are the supervisor's."""
    before, home = memory.state(), getattr(memory, where)
    code, out, err, said = result(home, folder, "--limit-memory=96M", *way, "-c", BURST.format(400))
    assert (code, out) == (124, ""), err
    assert err.startswith("sandboxed-python: the job was ended: its processes held 9")
    assert err.endswith("M of memory together; the limit is --limit-memory=96M\n")
    assert (said["ended"], said["exit_code"], said["signal"]) == ("limit", 124, "SIGKILL")
    assert (said["limit"]["flag"], said["limit"]["allowed"]) == ("--limit-memory", 96 * MIB)
    assert 96 * MIB <= said["limit"]["used"] < 106 * MIB
    held = said["enforced"]["cgroup"]
    assert held["folder"].startswith(f"{home}/sandboxed-python.")
    assert held["memory_max"] == 96 * MIB
    assert 80 * MIB < held["memory_peak"] <= 96 * MIB

    code, out, err, said = result(home, folder, "--limit-memory=96M", *way, "-c", BURST.format(40))
    assert (code, out, err, said["ended"]) == (0, "done\n", "", "exited")
    held = said["enforced"]["cgroup"]
    assert 40 * MIB < held["memory_peak"] < 96 * MIB
    assert held["overruns"] == 0
    assert as_before(memory, before)


@PLACES
def test_a_limit_that_is_too_small_to_begin(memory: Ground, folder: str, where: str) -> None:
    before, home = memory.state(), getattr(memory, where)
    for limit in ("4K", "1M"):
        code, out, err, said = result(home, folder, f"--limit-memory={limit}", "-c", "print('done')")
        assert (code, out, said["ended"], said["limit"]["flag"]) == (124, "", "limit", "--limit-memory"), err
        assert as_before(memory, before)


def test_what_nobody_maps_counts(memory: Ground, folder: str) -> None:
    words = ["--limit-memory=96M", "--allow-fs-write=/dev/shm/of-a-test", "-c"]
    try:
        code, out, err, said = result(memory.home, folder, *words, UNMAPPED.format(200))
        assert (code, out, said["ended"]) == (124, "", "limit"), err
        assert err.endswith(" its processes held 96M of memory together; the limit is --limit-memory=96M\n")
        assert said["limit"] == {"flag": "--limit-memory", "allowed": 96 * MIB, "used": 96 * MIB}
        assert said["enforced"]["cgroup"]["overruns"] >= 1
        assert os.stat("/dev/shm/of-a-test").st_size <= 96 * MIB
        os.truncate("/dev/shm/of-a-test", 0)
        assert result(memory.home, folder, *words, UNMAPPED.format(40))[:3] == (0, "done\n", "")
    finally:
        os.unlink("/dev/shm/of-a-test")


def test_all_processes_of_the_job_are_in_it(memory: Ground, folder: str) -> None:
    """None is large, and together they are."""
    source = (
        "import os, time\nfor _ in range(4):\n if os.fork() == 0:\n  os.setsid()\n  data = bytearray({} << 20)\n"
        "  time.sleep({})\n  os._exit(0)\nfor _ in range(4): os.wait()\nprint('done')"
    )
    words = ["--allow-child-process", "--no-warnings", "--limit-memory=120M", "-c"]
    code, out, err, said = result(memory.home, folder, *words, source.format(40, 1000))
    assert (code, out, said["ended"]) == (124, "", "limit"), err
    assert said["enforced"]["cgroup"]["memory_peak"] <= 120 * MIB
    code, out, err, _said = result(memory.home, folder, *words, source.format(10, 0.1))
    assert (code, out, err) == (0, "done\n", "")


def test_the_job_and_the_supervisor_are_in_groups_of_their_own(place: Ground) -> None:
    with job(place.home, "--limit-memory=96M", "-c", WAIT, controller=place.controller) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        group, leaf = f"{OURS}.{running.pid}", f"{OURS}-supervisor.{running.pid}"
        assert folders(place.home) == [leaf, group]
        assert read(place.home, "cgroup.procs") == ""
        (pid,) = read(f"{place.home}/{group}", "cgroup.procs").split()
        assert group_of(int(pid)).endswith(f"/{group}")
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            assert file.read().split("\0")[1:3] == ["-c", WAIT]
        assert read(f"{place.home}/{leaf}", "cgroup.procs").split()[0] == str(running.pid)
        if place.controller == "memory":
            assert read(f"{place.home}/{group}", "memory.max") == str(96 * MIB)
            assert read(f"{place.home}/{group}", "memory.oom.group") == "1"
            assert read(f"{place.home}/{group}", "memory.swap.max") == "0"
        running.terminate()
        assert running.wait(60) == -signal.SIGTERM
    assert untouched(place)


def test_an_ordinary_user_whose_group_it_is(place: Ground) -> None:
    """As ``Delegate=yes`` with ``User=`` leaves it: the folder and two files are the user's."""
    if not reachable(NOBODY, sys.executable):
        pytest.skip(f"needs an interpreter that user {NOBODY} can execute; found {sys.executable}")
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        os.chown(place.home + name, NOBODY, NOBODY)

    def become() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    with job(place.home, "--limit-memory=96M", "-c", WAIT, controller=place.controller, before=become) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        group, leaf = f"{OURS}.{running.pid}", f"{OURS}-supervisor.{running.pid}"
        assert folders(place.home) == [leaf, group]
        (pid,) = read(f"{place.home}/{group}", "cgroup.procs").split()
        assert os.stat(f"/proc/{pid}").st_uid == NOBODY
        running.terminate()
        assert running.wait(60) == -signal.SIGTERM
    assert untouched(place)
    with job(place.root, "--limit-memory=96M", "--explain", controller=place.controller, before=become) as running:
        assert f"no control group: {place.root} can't be written to" in running.communicate(timeout=60)[0]


@PLACES
@pytest.mark.parametrize("end", ["exit(3)", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_of_a_job(place: Ground, where: str, end: str) -> None:
    """Daemons are killed with it."""
    before, home = place.state(), getattr(place, where)
    source = f"import os, time\nfor _ in range(3):\n if os.fork() == 0:\n  os.setsid()\n  time.sleep(1000)\n{end}"
    words = ["--allow-child-process", "--no-warnings", "--limit-memory=96M", "-c", source]
    with job(home, *words, controller=place.controller) as running:
        running.communicate(timeout=60)
        assert running.returncode == (3 if "exit" in end else -signal.SIGKILL)
        assert as_before(place, before)


@PLACES
@pytest.mark.parametrize("grants", [[], ["--allow-child-process", "--no-warnings"]], ids=["one", "many"])
def test_nothing_is_left_of_a_killed_supervisor(place: Ground, where: str, grants: list[str]) -> None:
    before, home = place.state(), getattr(place, where)
    with job(home, "--limit-memory=96M", *grants, "-c", WAIT, controller=place.controller) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        assert f"{OURS}.{running.pid}" in folders(home)
        running.kill()
        running.wait(60)
        eventually(lambda: as_before(place, before))


def test_the_next_run_removes_what_is_left_of_a_killed_guard(place: Ground) -> None:
    """Supervisor and guard are killed, and the job ends with its parent: the empty group stays, until the next run."""
    before = place.state()
    with job(place.root, "--limit-memory=96M", "-c", WAIT, controller=place.controller) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        left = f"{place.root}/{OURS}.{running.pid}"
        with open(f"/proc/{running.pid}/task/{running.pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
        assert len(children) >= 2
        running.send_signal(signal.SIGSTOP)
        for pid in children:
            if str(pid) not in read(left, "cgroup.procs").split():
                os.kill(pid, signal.SIGKILL)
        running.kill()
        running.wait(60)
        eventually(lambda: read(left, "cgroup.events").startswith("populated 0"))
    assert os.path.exists(left)
    with job(place.root, "--limit-memory=96M", "-c", "pass", controller=place.controller) as running:
        assert running.wait(60) == 0
    assert as_before(place, before)


def test_where_others_are_too_it_is_watched(memory: Ground, folder: str) -> None:
    other = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: write(memory.home, "cgroup.procs", "0"))  # noqa: PLW1509
    with other:
        code, _out, err, said = result(memory.home, folder, "--limit-memory=96M", "-c", BURST.format(400))
        assert (code, said["limit"]["flag"], said["enforced"]["cgroup"]) == (124, "--limit-memory", None), err
        with job(memory.home, "--limit-memory=96M", "--explain", "-c", "pass") as running:
            assert f"no control group: other processes are in {memory.home}, too" in running.communicate()[0]
        assert read(memory.home, "cgroup.procs").split() == [str(other.pid)]
        assert folders(memory.home) == []
        other.kill()
    with job(memory.home, "--limit-memory=96M", "--explain", "-c", "pass") as running:
        assert f"a control group below {memory.home} " in running.communicate()[0]


def test_a_limit_of_others_is_not_ours(memory: Ground, folder: str) -> None:
    """The kernel kills the job, which is the largest, and sometimes the supervisor after it."""
    write(memory.home, "memory.max", str(96 * MIB))
    file = f"{folder}/result.json"
    with job(memory.home, "--limit-memory=1G", f"--result={file}", "-c", BURST.format(400)) as running:
        assert running.communicate(timeout=120) == ("", "")
    assert running.returncode == -signal.SIGKILL
    if os.path.exists(file):
        with open(file, encoding="utf-8") as text:
            said = json.load(text)
        assert (said["ended"], said["signal"], said["limit"]) == ("signalled", "SIGKILL", None)
        assert said["enforced"]["cgroup"]["overruns"] == 0
    eventually(lambda: untouched(memory))


@pytest.mark.slow
@PLACES
def test_a_start_that_fails_leaves_nothing(place: Ground, where: str) -> None:
    before, home = place.state(), getattr(place, where)
    codes = set()
    for most in range(4, 20, 3):
        few = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most))
        with job(home, "--limit-memory=96M", "-c", "1", controller=place.controller, before=few) as running:
            running.communicate(timeout=60)
        codes.add(running.returncode)
        eventually(lambda: as_before(place, before))  # the guard sees a moment later that it isn't needed
    assert 0 in codes
    assert len(codes) > 1


# The supervisor can't move the child into the group that it has made.
FAILING = """
import os, sys
from sandboxed_python.launch import cgroup
from sandboxed_python.cli.main import main
class Group:
    limit = 1 << 30
    def take(self, pid):
        os.write(1, b"take ")
        return False
    def remove(self):
        os.write(1, b"remove ")
cgroup.find, cgroup.make = lambda: ("/there", ""), lambda plan: Group()
main(frozenset(sys.modules))
"""


def test_a_group_that_takes_nobody_is_done_without(run: Run, needs: Need, folder: str) -> None:
    needs()
    words = ["-c", FAILING, "--permission", "--limit-memory=1G", f"--result={folder}/result.json", "-c", "print('ran')"]
    ended = run(*words, command=[sys.executable])
    assert (ended.code, ended.stdout, ended.stderr) == (0, "take remove ran\n", "")
    with open(f"{folder}/result.json", encoding="utf-8") as text:
        assert json.load(text)["enforced"]["cgroup"] is None


LOADED = """
import os, sys
end = os._exit
def tell(code):
    os.write(1, b"loaded" if "sandboxed_python.kernel.cgroup" in sys.modules else b"not loaded")
    end(code)
os._exit = tell
from sandboxed_python.cli.main import main
main(frozenset(sys.modules))
"""


@pytest.mark.parametrize(
    ("limits", "said"),
    [([], "not loaded"), (["--limit-time=60", "--limit-cpu=60"], "not loaded"), (["--limit-memory=1G"], "loaded")],
)
def test_nothing_else_pays_for_it(run: Run, needs: Need, limits: list[str], said: str) -> None:
    needs()
    ended = run("-c", LOADED, "--permission", *limits, "-c", "pass", command=[sys.executable])
    assert (ended.code, ended.stdout, ended.stderr) == (0, said, "")


def test_check_tells(run: Run) -> None:
    (row,) = [
        row for row in json.loads(run("--check", "--json").stdout)["rows"] if row["name"] == "memory control group"
    ]
    assert row["ok"]
    assert row["found"].startswith("below /") or (row["found"] == "no" and row["meaning"].endswith(")"))
