"""Limits: each ends or refuses what is above it, says so, and lets be what is below."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.launch.plain import alive, eventually, started, terminal
from tests.support import installed

if TYPE_CHECKING:
    from typing import Any

    from tests.support import Finished, Need, Run

MIB = 1 << 20
LIMIT = 124
SLEEP = "import time; time.sleep(30)"
WAYS = pytest.mark.parametrize("way", [[], ["-B"]], ids=["fork", "exec"])
# Of what takes a second or more.
SLOW_WAYS = pytest.mark.parametrize("way", [[], pytest.param(["-B"], marks=pytest.mark.slow)], ids=["fork", "exec"])


def ended_by(ended: Finished, flag: str) -> None:
    """Check the exit code, and the one line that names the limit."""
    assert ended.code == LIMIT, ended.said
    lines = [line for line in ended.stderr.splitlines() if line.startswith("sandboxed-python: ")]
    assert len(lines) == 1, ended.said
    assert lines[0].startswith("sandboxed-python: the job was ended: ")
    assert lines[0].endswith(f"; the limit is {flag}")


def result(folder: str, sandbox: Run, *words: str) -> tuple[Finished, dict[str, Any]]:
    file = f"{folder}/result.json"
    ended = sandbox(f"--result={file}", *words)
    with open(file, encoding="utf-8") as text:
        return ended, json.load(text)


# Time


@SLOW_WAYS
def test_time(sandbox: Run, folder: str, way: list[str]) -> None:
    ended, said = result(folder, sandbox, "--limit-time=1s", *way, "-c", SLEEP)
    ended_by(ended, "--limit-time=1s")
    assert (said["ended"], said["exit_code"], said["limit"]["flag"]) == ("limit", LIMIT, "--limit-time")
    assert 1 <= said["limit"]["used"] <= 1.1 or os.getloadavg()[0] > 4
    granted = sandbox("--limit-time=30s", *way, "-c", "import time; time.sleep(0.3); print('done')")
    assert (granted.code, granted.stdout, granted.stderr) == (0, "done\n", "")


def test_time_lets_the_program_clean_up(sandbox: Run) -> None:
    source = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('bye'), sys.exit(0)))\ntime.sleep(30)"
    ended = sandbox("--limit-time=500ms", "-c", source)
    assert ended.stdout == "bye\n"
    ended_by(ended, "--limit-time=500ms")


def test_time_kills_what_ignores_it_after_the_grace(sandbox: Run) -> None:
    source = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    ended = sandbox("--limit-time=500ms", "--grace=500ms", "-c", source)
    ended_by(ended, "--limit-time=500ms")
    assert 1 <= ended.seconds < 10


@pytest.mark.slow
def test_time_ends_a_stopped_job(sandbox: Run) -> None:
    """Whoever stops itself doesn't live longer; the supervisor isn't stopped with it, since it isn't the leader."""
    source = "import os, subprocess, sys, time\nsubprocess.run([sys.executable, '-c', 'import os; os.kill(os.getpid(), 19)'])"
    ended = sandbox("--allow-child-process", f"--allow-fs-read={sys.prefix}", "--limit-time=1s", "-c", source)
    ended_by(ended, "--limit-time=1s")
    assert ended.seconds < 10


def test_time_ends_all_that_the_job_started(sandbox: Run) -> None:
    source = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(15, signal.SIG_IGN)
        print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
    ended = sandbox("--allow-child-process", "--limit-time=1s", "-c", source)
    ended_by(ended, "--limit-time=1s")
    assert not alive(int(ended.stdout))


# Processor time


@SLOW_WAYS
def test_cpu(sandbox: Run, folder: str, way: list[str]) -> None:
    ended, said = result(folder, sandbox, "--limit-cpu=1s", *way, "-c", "while True: pass")
    ended_by(ended, "--limit-cpu=1s")
    assert 1 <= said["limit"]["used"] <= 1.1
    granted = sandbox("--limit-cpu=1s", *way, "-c", "import time; time.sleep(1.2); print('done')")
    assert (granted.code, granted.stdout) == (0, "done\n")


ENDED = """
import os, signal, time
{}
for _ in range(60):
    pid = os.fork()
    if pid == 0:
        while time.process_time() < 0.1: pass
        os._exit(0)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"], ids=["waited", "ignored"])
def test_cpu_counts_ended_children(sandbox: Run, folder: str, before: str) -> None:
    """Also those that the kernel adds to nobody, since their parent ignores their end."""
    words = ["--allow-child-process", "-c", ENDED.format(before)]
    ended, said = result(folder, sandbox, "--limit-cpu=1s", *words)
    ended_by(ended, "--limit-cpu=1s")
    assert "done" not in ended.stdout
    assert 1 <= said["limit"]["used"] <= 1.3
    assert sandbox("--limit-cpu=5m", *words).stdout == "done\n"


# Memory

GROW = """
import time
held = []
while sum(map(len, held)) < {} * 1048576:
    held.append(bytearray(4 * 1048576))
    time.sleep({})
print("done")
"""


@SLOW_WAYS
def test_memory(sandbox: Run, folder: str, way: list[str]) -> None:
    ended, said = result(folder, sandbox, "--limit-memory=256M", *way, "-c", GROW.format(1000, 0.005))
    ended_by(ended, "--limit-memory=256M")
    assert 256 * MIB < said["limit"]["used"] <= 1.1 * 256 * MIB
    granted, said = result(folder, sandbox, "--limit-memory=256M", *way, "-c", GROW.format(200, 0.005))
    assert (granted.code, granted.stdout) == (0, "done\n")
    assert 200 * MIB < said["used"]["memory_peak_bytes"] < 256 * MIB


SHARED = """
import os, time
data = bytearray({} * 1048576)
for _ in range(4):
    if os.fork() == 0:
        {}
        time.sleep(1)
        os._exit(0)
for _ in range(4):
    os.wait()
print("done")
"""


@pytest.mark.slow
def test_memory_is_that_of_the_tree_and_shared_pages_count_once(sandbox: Run, folder: str) -> None:
    words = ["--allow-child-process", "--limit-memory=256M", "-c"]
    granted, said = result(folder, sandbox, *words, SHARED.format(150, "pass"))
    assert (granted.code, granted.stdout) == (0, "done\n"), granted.said
    assert 150 * MIB < said["used"]["memory_peak_bytes"] < 256 * MIB
    assert said["used"]["processes_peak"] == 5
    copied = "for at in range(0, len(data), 4096): data[at] = 1"
    ended_by(sandbox(*words, SHARED.format(150, copied)), "--limit-memory=256M")
    own = "more = bytearray(60 * 1048576)"
    ended_by(sandbox(*words, SHARED.format(50, own)), "--limit-memory=256M")


# Processes

BOMB = "import os, time\nfor _ in range({}):\n    if os.fork() == 0: {}\ntime.sleep(0.5); print(os.getpid())"


def test_processes(sandbox: Run, folder: str) -> None:
    words = ["--allow-child-process", "--limit-processes=8", "-c"]
    ended, said = result(folder, sandbox, *words, BOMB.format(8, "time.sleep(30)"))
    ended_by(ended, "--limit-processes=8")
    assert said["limit"]["allowed"] == 8
    granted = sandbox(*words, BOMB.format(7, "time.sleep(0.5); os._exit(0)"))
    assert granted.code == 0, granted.said
    assert int(granted.stdout)


# It stops by itself, should nobody else stop it.
FORK_BOMB = """
import os, time
open({file!r}, "w")
end = time.monotonic() + 1
while time.monotonic() < end:
    os.fork() or {trick}
os.close(os.open({file!r} + str(os.getpid()), os.O_CREAT))
"""


@pytest.mark.slow
@pytest.mark.parametrize("trick", ["None", "os.setsid()", "os.fork() and os._exit(0)"])
def test_processes_hold_against_a_fork_bomb(sandbox: Run, folder: str, trick: str) -> None:
    """It is ended before it gets large, with all that it has started."""
    grant = ["--allow-child-process", f"--allow-fs-write={folder}/"]
    most = 0
    words = [*installed(), "--permission", *grant, "--limit-processes=32", "-c"]
    with started([*words, FORK_BOMB.format(file=f"{folder}/mark", trick=trick)]) as program:
        supervisor = psutil.Process(program.pid)
        while program.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                most = max(most, len(supervisor.children(recursive=True)))
        ended = program.end()
    ended_by(ended, "--limit-processes=32")
    assert most < 80  # the guard, and what was let through in the same moment
    assert os.listdir(folder) == ["mark"]  # none lived to its end
    time.sleep(1.5)
    assert os.listdir(folder) == ["mark"]


def test_processes_that_end_make_room(sandbox: Run) -> None:
    # Nobody waits for the grandchildren, so on a busy machine some of them are there at once.
    source = """
import os, subprocess
for _ in range(100):
    subprocess.run(["/bin/true"], check=True)
    if os.fork() == 0:
        os.fork()
        os._exit(0)
    os.wait()
print("done")
"""
    granted = sandbox("--allow-child-process", "--limit-processes=30", "-c", source)
    assert (granted.code, granted.stdout) == (0, "done\n"), granted.said


def test_processes_need_no_look_where_there_can_be_one_only(sandbox: Run) -> None:
    granted = sandbox("--limit-processes=1", "-c", "print('done')")
    assert (granted.code, granted.stdout) == (0, "done\n")


# What the kernel itself refuses


@WAYS
def test_open_files(sandbox: Run, way: list[str]) -> None:
    source = """
import os, resource
found = []
try:
    while len(found) < 100: found.append(os.dup(0))
except OSError as error:
    print(error.errno, max(found))
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print("raised")
except (OSError, ValueError):
    print("kept")
"""
    limited = sandbox("--limit-open-files=30", *way, "-c", source)
    assert (limited.code, limited.stdout) == (0, "24 29\nkept\n"), limited.said
    assert "24" not in sandbox("--limit-open-files=500", *way, "-c", source).stdout


@WAYS
def test_file_size(sandbox: Run, folder: str, way: list[str]) -> None:
    file = f"{folder}/out"
    source = f"import os\nwith open({file!r}, 'wb', 0) as file:\n for _ in range(3): file.write(bytes(5000))"
    words = [f"--allow-fs-write={folder}/", *way, "-c"]
    limited = sandbox("--limit-file-size=8K", *words, source)
    assert limited.code == 1
    assert "File too large" in limited.stderr
    assert os.path.getsize(file) == 8192
    assert sandbox("--limit-file-size=1M", *words, source).code == 0
    assert os.path.getsize(file) == 15000
    # What the supervisor does in the program's stead keeps within it, too.
    cut = sandbox("--limit-file-size=8K", *words, f"import os\nos.truncate({file!r}, 20000)")
    assert "File too large" in cut.stderr
    assert os.path.getsize(file) == 15000
    assert sandbox("--limit-file-size=8K", *words, f"import os\nos.truncate({file!r}, 8000)").code == 0
    assert os.path.getsize(file) == 8000


# Output


@WAYS
def test_output(sandbox: Run, way: list[str]) -> None:
    source = "import sys\nfor _ in range({}): sys.stdout.write('o' * 50); sys.stderr.write('e' * 50)"
    limited = sandbox("--limit-output=10000", *way, "-c", source.format(10**7))
    ended_by(limited._replace(stderr="sandboxed" + limited.stderr.partition("sandboxed")[2]), "--limit-output=9.8K")
    passed = limited.stdout.count("o") + limited.stderr.partition("sandboxed")[0].count("e")
    assert passed == 10000
    granted = sandbox("--limit-output=10000", *way, "-c", source.format(100))
    assert (granted.code, granted.stdout, granted.stderr) == (0, "o" * 5000, "e" * 5000)


def test_output_keeps_the_order_of_what_goes_to_one_place(folder: str) -> None:
    source = "import os\nfor number in range(2000): os.write(1 + number % 2, b'%d\\n' % number)"
    with (
        open(f"{folder}/both", "wb") as both,
        started([*installed(), "--permission", "--limit-output=1M", "-c", source], stdout=both, stderr=both) as program,
    ):
        assert program.process.wait(30) == 0
    with open(f"{folder}/both", encoding="ascii") as text:
        assert text.read().split() == [str(number) for number in range(2000)]


def test_output_to_a_reader_that_goes_ends_as_without(sandbox: Run) -> None:
    sandbox("-c", "0")
    words = [*installed(), "--permission", "--limit-output=100M", "-c", "while True: print('x' * 1000)"]
    with started(words) as program:
        assert program.line().startswith("x")
        assert program.process.stdout is not None
        program.process.stdout.close()
        assert program.process.wait(30) == 1
        assert program.process.stderr is not None
        assert b"BrokenPipeError" in program.process.stderr.read()


def test_output_that_nobody_reads_keeps_no_signal_waiting(sandbox: Run) -> None:
    sandbox("-c", "0")
    words = [*installed(), "--permission", "--limit-output=100M", "-c", "while True: print('x' * 1000)"]
    with started(words) as program:
        program.line()
        time.sleep(0.5)  # its pipe is full now
        program.process.terminate()
        eventually(lambda: not psutil.Process(program.pid).children(), "the job has ended")
        program.process.terminate()
        assert program.process.wait(30) == -15


@pytest.mark.slow
def test_output_on_a_terminal_comes_line_by_line(sandbox: Run) -> None:
    sandbox("-c", "0")
    source = "import sys, time\nprint('first', sys.stdout.isatty())\ntime.sleep(2)\nprint('second')"
    with terminal([*installed(), "--permission", "--limit-output=1K", "-c", source]) as screen:
        screen.expect("first False")
        assert "second" not in screen.seen
        assert screen.end() == 0


def test_closed_stdout_stays_closed(run: Run, needs: Need) -> None:
    needs()
    command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *installed(), "--permission"]
    source = "import os\ntry: os.write(1, b'x')\nexcept OSError as error: os.write(2, b'%d' % error.errno)"
    assert run("--limit-output=1K", "-c", source, command=command).stderr == "9"


# How they are shown


def test_explain_shows_limits_and_what_holds_them(run: Run) -> None:
    told = run("--permission", "--limit-memory=1G", "--limit-time=90", "--grace=2s", "--explain", "-c", "0").stdout
    section = told.partition("\nLimited\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split(":")[0].split() for line in section] == [["memory", "1G"], ["time", "90s"]]
    assert "SIGTERM, and SIGKILL after --grace=2s" in section[1]
    assert "\nLimited\n" not in run("--permission", "--explain", "-c", "0").stdout


def test_several_limits_name_the_one_that_was_reached(sandbox: Run) -> None:
    words = ["--limit-time=1m", "--limit-memory=1G", "--limit-cpu=300ms", "--limit-output=1M", "--limit-open-files=99"]
    ended_by(sandbox(*words, "-c", "while True: pass"), "--limit-cpu=300ms")


# In another sandbox

INNER = """
import subprocess, sys
ended = subprocess.run([*sys.argv[1:], "-c", "import time; time.sleep(1.5); print('slept')"])
print(ended.returncode, flush=True)
"""


def inside(sandbox: Run, *words: str) -> Finished:
    """Run the command with these words in a sandbox of its own."""
    grants = ["--allow-child-process", "--allow-worker", f"--allow-fs-read={sys.prefix},{sys.base_prefix}"]
    return sandbox(*grants, "-c", INNER, *installed(), "--permission", *words)


@pytest.mark.slow
def test_in_another_sandbox_time_is_limited(sandbox: Run) -> None:
    ended = inside(sandbox, "--limit-time=300ms")
    assert ended.stdout == f"{LIMIT}\n", ended.said
    assert ended.stderr.endswith("; the limit is --limit-time=300ms\n")
    assert inside(sandbox, "--limit-time=30s", "--limit-output=1K").stdout == "slept\n0\n"


@pytest.mark.parametrize("word", ["--limit-memory=1G", "--limit-cpu=1m", "--limit-processes=9", "--progress"])
def test_in_another_sandbox_what_needs_looking_is_refused(sandbox: Run, word: str) -> None:
    ended = inside(sandbox, word)
    assert ended.stdout == "125\n", ended.said
    assert "give them to the outer one" in ended.stderr
