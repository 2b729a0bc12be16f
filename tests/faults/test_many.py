"""Many jobs at once and in a row, an idle supervisor, and clocks that jump."""

from __future__ import annotations

import ast
import contextlib
import os
import pathlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import sandboxed_python
from tests.faults.census import LONG, census, children, files_of_ours, guard_of, sandboxed, state, times
from tests.launch.plain import eventually, started
from tests.support import clean_environment, execute, installed, tool

if TYPE_CHECKING:
    from tests.support import Need

PACKAGE = os.path.dirname(sandboxed_python.__file__)


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def test_sixteen_at_once(folder: str) -> None:
    """Each has its own answers, its own children and its own exit code."""
    code = """
import os, subprocess, sys
own = sys.argv[1]
for turn in range(50):
    os.mkdir(f"{own}/{turn}")
subprocess.Popen(["sleep", "1000"], start_new_session=True)
subprocess.run(["true"], check=True)
for name in os.listdir(own): os.rmdir(f"{own}/{name}")
other = f"{os.path.dirname(own)}/{(int(os.path.basename(own)) + 1) % 16}"
try: os.mkdir(f"{other}/wrong")
except PermissionError: sys.exit(10 + int(os.path.basename(own)))
"""
    for number in range(16):
        os.mkdir(f"{folder}/{number}")
    with census() as counted, contextlib.ExitStack() as stack:
        programs = []
        for number in range(16):
            own = f"{folder}/{number}"
            grants = [f"--allow-fs-read={own}/", f"--allow-fs-write={own}/*"]
            programs.append(stack.enter_context(started(sandboxed(*grants, "-c", code, own))))
        for number, program in enumerate(programs):
            ended = program.end()
            assert ended.code == 10 + number, ended.said
        counted.nobody()
        assert all(os.listdir(f"{folder}/{number}") == [] for number in range(16))


def test_sixteen_of_which_half_are_killed() -> None:
    """The others don't notice."""
    code = "import os, subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nprint('up', flush=True)\ninput()"
    with census() as counted, contextlib.ExitStack() as stack:
        programs = [stack.enter_context(started(sandboxed("-c", code), stdin=subprocess.PIPE)) for _ in range(16)]
        assert {program.line() for program in programs} == {"up"}
        for program in programs[::2]:
            program.process.kill()
            program.process.wait()
        time.sleep(0.2)
        for program in programs[1::2]:
            assert program.process.poll() is None
            program.process.communicate(b"\n")
            assert program.process.returncode == 0
        counted.soon_nobody()


@pytest.mark.slow
def test_many_short_jobs_in_a_row() -> None:
    """They leave no process, zombie, descriptor, file or control group behind."""
    code = (
        "import os, subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\nos.path.exists('/nowhere')"
    )
    execute(sandboxed("-c", code))  # writes the start-up image if there is none
    files, descriptors = files_of_ours(), os.listdir("/proc/self/fd")
    package = sorted(os.listdir(f"{PACKAGE}/__pycache__"))
    with census() as counted:
        for turn in range(times(50, 1000)):
            ended = execute(sandboxed(*(["-B"] if turn % 3 == 0 else []), "-c", code))
            assert (ended.code, ended.stderr) == (0, "")
            counted.nobody()
    assert sorted(os.listdir(f"{PACKAGE}/__pycache__")) == package
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    # Other tests may run meanwhile: theirs go by themselves.
    eventually(lambda: files_of_ours() <= files, "no file is left", 20)


@pytest.mark.slow
def test_a_supervisor_does_not_gather_descriptors() -> None:
    """However many children, calls, refusals and new guards there are."""
    code = """
import os, subprocess, sys
def work():
    for turn in range(200):
        os.path.exists(f"/nowhere{turn}")
        try: os.mkdir("/nowhere")
        except OSError: pass
        try: os.stat("/etc/passwd")
        except OSError: pass
    for _ in range(5): subprocess.run(["true"], check=True)
while True:
    work()
    print("done", flush=True)
    if input() == "end": break
"""
    with started(sandboxed("-c", code), stdin=subprocess.PIPE) as program:
        assert program.process.stdin is not None
        counts = []
        for turn in range(6):
            assert program.line() == "done"
            eventually(lambda: state(program.pid) == "S", "idle")
            old = guard_of(program.pid)
            os.kill(old, 9)
            eventually(lambda old=old: guard_of(program.pid) not in (0, old), "another guard")
            time.sleep(0.3)
            counts.append(len(os.listdir(f"/proc/{program.pid}/fd")))
            program.process.stdin.write(b"end\n" if turn == 5 else b"more\n")
            program.process.stdin.flush()
        assert program.end().code == 0
        assert len(set(counts[1:])) == 1, counts


# Idle


def switches(pid: int) -> int:
    """Return how often all threads of a process have been put on a processor, and left it."""
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        for line in pathlib.Path(f"/proc/{pid}/task/{task}/status").read_text(encoding="utf-8").splitlines():
            if "ctxt_switches" in line:
                count += int(line.split()[1])
    return count


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize(
    "grants", [[], ["--allow-child-process"], ["--allow-net", "--allow-worker"]], ids=["none", "children", "net"]
)
def test_an_idle_supervisor_sleeps(option: list[str], grants: list[str]) -> None:
    """Nor does anybody beside it wake up: not once in two seconds."""
    code = "import os, time\nos.path.exists('/nowhere')\nprint('up', flush=True)\ntime.sleep(1000)"
    words = [*installed(), "--permission", "--no-warnings", *grants, *option, "-c", code]
    with started(words) as program:
        assert program.line() == "up"
        time.sleep(1)
        everybody = [program.pid, *children(program.pid)]
        assert len(everybody) == 3 + (grants == ["--allow-child-process"])  # the job, the witness, the guard
        before = [switches(pid) for pid in everybody]
        time.sleep(10 if LONG else 2)
        assert [switches(pid) for pid in everybody] == before


# Clocks


def test_no_wall_clock_is_asked() -> None:
    """Times are measured by the monotonic clock alone, which nobody sets. A line of the log tells the time of day."""
    clocks = {"time.time", "time.time_ns", "datetime.now"}
    asked = []
    for folder, _names, files in os.walk(PACKAGE):
        for name in files:
            if name.endswith(".py"):
                tree = ast.parse(pathlib.Path(folder, name).read_text(encoding="utf-8"))
                found = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
                asked += [f"{name}: {clock}" for clock in found & clocks]
    assert asked == ["log.py: time.time_ns"]


JUMPING = """
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <unistd.h>
static long jump(void) {
    static long days;
    days = days > 0 ? -9000 : 9000;
    return days * 86400;
}
int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    if (which == CLOCK_REALTIME) now->tv_sec += jump();
    return result;
}
int gettimeofday(struct timeval *now, void *zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += jump();
    return result;
}
time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
"""


def test_a_clock_that_jumps(folder: str) -> None:
    """By 25 years, forwards and backwards, whenever it is asked: stops, signals, answers and ends are as ever."""
    compiler = tool("cc")
    pathlib.Path(f"{folder}/jumping.c").write_text(JUMPING, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", f"{folder}/jumping.so", f"{folder}/jumping.c"], check=True)
    environment = clean_environment({"LD_PRELOAD": f"{folder}/jumping.so"})
    asked = subprocess.run(
        [sys.executable, "-c", "import time; print(abs(time.time() - time.time()) > 86400)"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert asked.stdout == b"True\n"
    code = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"got it\\n"))
print("up", flush=True)
input()
for turn in range(100): os.path.exists("/nowhere")
subprocess.Popen(["sleep", "1000"], start_new_session=True)
os.kill(os.getpid(), signal.SIGSTOP)
print("awake", flush=True)
sys.exit(6)
"""
    with census() as counted:
        with started(sandboxed("-c", code), env=environment, stdin=subprocess.PIPE) as program:
            assert program.line() == "up"
            time.sleep(0.3)
            os.kill(program.pid, 10)
            assert program.line() == "got it"
            os.killpg(program.pid, 10)
            assert program.line() == "got it"
            assert program.process.stdin is not None
            program.process.stdin.write(b"\n")
            program.process.stdin.flush()
            eventually(lambda: state(program.pid) == "T", "it stops with the job")
            time.sleep(0.2)
            os.kill(program.pid, 18)
            ended = program.end()
        assert (ended.code, ended.stdout, ended.stderr) == (6, "awake\n", "")
        counted.nobody()
