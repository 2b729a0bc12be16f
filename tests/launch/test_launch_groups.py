"""Signals to a whole group or service, kinds of stops, core files, nohup: the program sees what it sees under plain Python."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.census import census, children, sandboxed, state
from tests.launch.plain import alive, eventually, plain_python, started, terminal
from tests.support import execute, installed, tool

if TYPE_CHECKING:
    from tests.launch.plain import Started
    from tests.support import Need

# Counts the signals that it gets; sleeps again after each.
COUNT = """
import os, signal, sys, time
def note(number, frame): os.write(1, signal.Signals(number).name.encode() + b"\\n")
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT"):
    signal.signal(getattr(signal, name), note)
{}
print("ready", os.getpid(), flush=True)
end = time.monotonic() + {}
while time.monotonic() < end: time.sleep(0.02)
"""
WAYS = pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def witness_of(pid: int) -> int:
    """Return the pid of a supervisor's witness; 0 while there is none."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{child}/comm").read_text(encoding="utf-8") == "sandbox-witness\n":
                return child
    return 0


def ready(program: Started) -> int:
    """Wait until the program runs and the witness stands; return the program's pid."""
    pid = int(program.line().split()[1])
    eventually(lambda: witness_of(program.pid), "a witness")
    eventually(lambda: state(witness_of(program.pid)) == "S", "which waits")
    return pid


def many(name: str, program: Started, own: int) -> None:
    """Send a signal to all, in one of the ways in which others do it."""
    if name == "group":
        os.killpg(program.pid, signal.SIGTERM)
    elif name == "one by one":  # as systemd, by number
        for pid in sorted({program.pid, *children(program.pid)}):
            os.kill(pid, signal.SIGTERM)
    else:  # first the job, as pkill may do it
        for pid in (own, witness_of(program.pid), program.pid):
            os.kill(pid, signal.SIGTERM)


@pytest.mark.slow
@WAYS
@pytest.mark.parametrize("name", ["group", "one by one", "the job first"])
def test_a_signal_to_all_comes_once(option: list[str], name: str) -> None:
    with started([*installed(), "--permission", *option, "-c", COUNT.format("", 2)]) as program:
        own = ready(program)
        for _ in range(3):
            many(name, program, own)
            time.sleep(0.2)
        ended = program.end()
    assert (ended.code, ended.stdout, ended.stderr) == (0, "SIGTERM\n" * 3, "")


@pytest.mark.slow
@WAYS
def test_each_way_in_turn_comes_once(option: list[str]) -> None:
    """No signal is taken for another one that went to all a moment ago, and none is lost."""
    with started([*installed(), "--permission", *option, "-c", COUNT.format("", 3)]) as program:
        own = ready(program)
        expected = []
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            os.killpg(program.pid, number)
            time.sleep(0.15)
            os.kill(program.pid, number)
            time.sleep(0.15)
            os.kill(own, number)
            time.sleep(0.15)
            expected += [number.name] * 3
        ended = program.end()
    assert ended.stdout.split() == expected


def test_a_program_in_a_group_of_its_own_gets_what_its_group_did_not() -> None:
    with started([*installed(), "--permission", "-c", COUNT.format("os.setpgid(0, 0)", 1)]) as program:
        ready(program)
        os.killpg(program.pid, signal.SIGTERM)
        assert program.end().stdout == "SIGTERM\n"


@pytest.mark.slow
def test_without_a_witness_every_signal_is_passed_on() -> None:
    with started([*installed(), "--permission", "-c", COUNT.format("", 1)]) as program:
        ready(program)
        os.kill(witness_of(program.pid), signal.SIGKILL)
        eventually(lambda: not witness_of(program.pid), "gone")
        os.kill(program.pid, signal.SIGTERM)
        ended = program.end()
        assert (ended.code, ended.stdout) == (0, "SIGTERM\n"), ended.said


@pytest.mark.slow
def test_a_stopped_witness_holds_nobody_up() -> None:
    with census() as counted, started([*installed(), "--permission", "-c", COUNT.format("", 1)]) as program:
        ready(program)
        os.kill(witness_of(program.pid), signal.SIGSTOP)
        os.kill(program.pid, signal.SIGTERM)
        ended = program.end()
        assert (ended.code, ended.stdout) == (0, "SIGTERM\n"), ended.said
        counted.nobody()


def test_the_program_reaches_neither_witness_nor_supervisor() -> None:
    code = """
import os, signal, time
time.sleep(0.5)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(0, signal.SIGTERM)
for pid in os.getppid(), os.getppid() + 1, os.getppid() + 2, os.getppid() + 3:
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGKILL)
        except OSError as error: pass
print("up", flush=True)
time.sleep(1000)
"""
    with started(sandboxed("-c", code)) as program:
        eventually(lambda: witness_of(program.pid), "a witness")
        assert program.line() == "up"
        assert witness_of(program.pid)
        assert alive(program.pid)


@pytest.mark.slow
@WAYS
def test_timeout_ends_a_job_gently(option: list[str]) -> None:
    """timeout(1) signals the command, and then its own group."""
    code = "import sys, time\ntry: time.sleep(1000)\nexcept SystemExit:\n    time.sleep(0.3); print('clean', flush=True); raise\n"
    code = f"import signal\ndef end(*_): sys.exit(9)\nsignal.signal(15, end)\n{code}"
    for command in ([plain_python()], [*installed(), "--permission"]):
        ended = execute([tool("timeout"), "--preserve-status", "1", *command, *option, "-c", f"import sys\n{code}"])
        assert (ended.code, ended.stdout) == (9, "clean\n"), ended.said


# Stops


STOP = """
import os, signal, sys
os.setpgid(0, 0)
pid = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_pid, status = os.waitpid(pid, os.WUNTRACED)
print(os.WIFSTOPPED(status) and os.WSTOPSIG(status), flush=True)
os.kill(pid, signal.SIGCONT)
_pid, status = os.waitpid(pid, os.WUNTRACED)
print(os.WIFEXITED(status) and os.WEXITSTATUS(status), flush=True)
"""


@WAYS
@pytest.mark.parametrize("name", ["SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGSTOP"])
def test_a_stop_is_seen_as_what_it_is(option: list[str], name: str) -> None:
    code = f"import os, signal, sys\nos.kill(os.getpid(), signal.{name})\nsys.exit(5)"
    told = []
    for command in ([plain_python()], [*installed(), "--permission"]):
        words = [sys.executable, "-c", STOP, "stop", *command, *option, "-c", code]
        with started(words, start_new_session=False) as program:
            ended = program.end()
            told.append((ended.code, ended.stdout, ended.stderr))
    assert told[0] == (0, f"{int(getattr(signal, name))}\n5\n", "")
    assert told[1] == told[0]


@WAYS
def test_a_stop_that_no_shell_looks_after(option: list[str]) -> None:
    """The terminal's stops don't stop an orphaned group; SIGSTOP stops both, whoever continues one of them."""
    code = "import os, signal, sys\nos.kill(os.getpid(), signal.{})\nsys.exit(5)"
    with started([*installed(), "--permission", *option, "-c", code.format("SIGTSTP")]) as program:
        assert program.end().code == 5
    with started([*installed(), "--permission", *option, "-c", code.format("SIGSTOP")]) as program:
        eventually(lambda: state(program.pid) == "T", "stopped")
        os.kill(program.pid, signal.SIGCONT)
        assert program.end().code == 5


# Core files


def core_files_are_written_here() -> bool:
    return not pathlib.Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8").startswith(("|", "/", "@"))


@WAYS
def test_no_core_file_unless_the_program_wants_one(folder: str, option: list[str]) -> None:
    """Its memory is not written into what it may write; the hard limit stays, for those who raise it."""
    shell = ["/bin/sh", "-c", 'ulimit -c unlimited 2>/dev/null || exit 77; exec "$@"', "sh"]
    command = [
        *shell,
        *installed(),
        "--permission",
        "--allow-child-process",
        "--no-warnings",
        f"--allow-fs-write={folder}/",
        *option,
    ]
    limits = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    ended = execute([*command, "-c", limits], cwd=folder)
    if ended.code == 77:
        pytest.skip("needs an unlimited hard limit of core files; found a lower one")
    assert ended.stdout == "(0, -1)\n", ended.said
    crash = "import os, subprocess, sys\nsubprocess.run([*sys.argv[1:]])\nos.abort()"
    ended = execute([*command, "-c", crash, "sh", "-c", "kill -SEGV $$"], cwd=folder)
    assert ended.code == -signal.SIGABRT, ended.said
    assert os.listdir(folder) == []
    if core_files_are_written_here():
        wanted = "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nos.abort()"
        assert execute([*command, "-c", wanted], cwd=folder).code == -signal.SIGABRT
        assert len(os.listdir(folder)) == 1  # the program's, none of the supervisor's


# Shells


@pytest.mark.slow
@WAYS
def test_nohup(folder: str, option: list[str]) -> None:
    """In the background of a shell whose terminal is closed, it goes on and ends by itself."""
    shell = tool("bash")
    code = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(1.5); print(chr(101) + 'nd', flush=True)"
    words = " ".join([tool("nohup"), *installed(), "--permission", *option, "-c", f'"{code}"'])
    with census() as counted:
        with terminal([shell, "--norc", "--noprofile", "-i"], env={"PS1": "$ ", "HISTFILE": ""}) as screen:
            screen.expect(r"\$ ")
            screen.type(f"{words} >{folder}/out 2>&1 &\n")
            eventually(lambda: os.path.exists(f"{folder}/out") and os.path.getsize(f"{folder}/out"), "it runs")
            os.close(screen.master)
            screen.master = os.open("/dev/null", os.O_RDWR)
            screen.process.wait(20)
        eventually(lambda: "end" in pathlib.Path(f"{folder}/out").read_text(encoding="utf-8"), "it goes on to its end")
        counted.soon_nobody()


@pytest.mark.slow
def test_a_shells_background_jobs() -> None:
    """``wait`` tells their codes; ``kill %1`` and ``fg`` in a shell with job control signal the group."""
    shell = tool("bash")
    words = " ".join([*installed(), "--permission"])
    code = COUNT.format("", 1.5)
    script = f"""
set -m
{words} -c 'import sys, time; time.sleep(0.2); sys.exit(7)' &
wait $!; echo $?
{words} -c '{code}' &
sleep 1; kill -USR1 %1; sleep 0.2; kill -STOP %1; sleep 0.2; fg %1 >/dev/null; echo $?
{words} -c 'import time; time.sleep(1000)' &
sleep 0.5; kill %1; wait %1; echo $?
"""
    with census() as counted, started([shell, "-c", script]) as program:
        ended = program.end()
        counted.nobody()
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("ready")]
    assert lines == ["7", "SIGUSR1", "SIGCONT", "0", "143"], ended.said
