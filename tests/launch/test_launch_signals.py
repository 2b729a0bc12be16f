"""Signals, on a terminal and by kill: the program gets them as under plain python, and its end is passed on."""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.launch.plain import alive, eventually, plain_python, started, terminal
from tests.support import Finished, installed, tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support import Need

SAFE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
WAIT = SAFE + "import os, time\nprint('ready', os.getpid(), flush=True); time.sleep(60)\n"
RECORD = (
    SAFE
    + """
import os, signal, sys, time
def note(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
    if number == signal.SIGTERM:
        sys.exit(40)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT", "SIGALRM"):
    signal.signal(getattr(signal, name), note)
print("ready", os.getpid(), flush=True)
while True:
    time.sleep(60)
"""
)


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def sandboxed(*words: str) -> list[str]:
    return [*installed(), "--permission", *words]


def both() -> list[list[str]]:
    """Return what starts plain python, and the two ways of starting a confined one."""
    return [[plain_python()], sandboxed(), sandboxed("-B")]


def state(pid: int) -> str:
    text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[0]


def settle(pid: int) -> None:
    """Wait until a process sleeps and has used no processor time for a while: it waits for something."""
    before = ""

    def quiet() -> bool:
        nonlocal before
        time.sleep(0.01)
        text = pathlib.Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8") + state(pid)
        same, before = text == before, text
        return same and text.endswith("S")

    eventually(quiet, f"process {pid} waits")


# By kill


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_deadly_signal_ends_program_and_command_alike(name: str) -> None:
    number = getattr(signal, name)
    endings = []
    for command in both():
        with started([*command, "-c", WAIT]) as program:
            pid = int(program.line().split()[1])
            settle(pid)
            os.kill(program.pid, number)
            ended = program.end()
            endings.append((ended.code, ended.stdout, ended.stderr))
            assert not alive(pid)
    assert endings[0][0] == -number
    assert endings[1] == endings[0]
    assert endings[2] == endings[0]


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_every_signal_reaches_its_handler_once(option: list[str]) -> None:
    with started([*sandboxed(*option), "-c", RECORD]) as program:
        assert program.line().startswith("ready")
        for name in ("SIGUSR1", "SIGINT", "SIGHUP", "SIGUSR2", "SIGQUIT", "SIGWINCH", "SIGCONT", "SIGUSR1"):
            os.kill(program.pid, getattr(signal, name))
            assert program.line() == name
        os.kill(program.pid, signal.SIGTERM)
        ended = program.end()
    assert (ended.code, ended.stdout, ended.stderr) == (40, "SIGTERM\n", "")


def test_harmless_signals_are_harmless() -> None:
    with started([*sandboxed(), "-c", WAIT]) as program:
        program.line()
        for number in (signal.SIGWINCH, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG):
            os.kill(program.pid, number)
        os.kill(program.pid, signal.SIGTERM)
        assert program.end().code == -signal.SIGTERM


def test_a_stop_by_kill_stops_both_and_a_continue_wakes_both() -> None:
    source = "import os, time\nprint('ready', os.getpid(), flush=True)\ninput()\nprint('awake', flush=True)\n"
    import subprocess

    # In a group of its own within a session: an orphaned group would not stop.
    words = launched("os.setpgrp()", [*sandboxed(), "-c", source])
    with started(words, stdin=subprocess.PIPE, start_new_session=False) as program:
        pid = int(program.line().split()[1])
        os.kill(program.pid, signal.SIGTSTP)
        eventually(lambda: state(pid) == "T" and state(program.pid) == "T", "both stopped")
        os.kill(program.pid, signal.SIGCONT)
        eventually(lambda: state(pid) != "T" and state(program.pid) != "T", "both awake")
        assert program.process.stdin is not None
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        assert program.line() == "awake"
        ended = program.end()
        assert (ended.code, ended.stderr) == (0, "")


@pytest.mark.parametrize("after", ["", "os.kill(parent, signal.SIGKILL)"], ids=["continued", "killed"])
def test_a_job_that_was_stopped_and_goes_on_by_itself(after: str) -> None:
    """Neither the job nor the command waits for somebody who continues the command, too."""
    source = f"""
import os, signal, time
caught = []
signal.signal(signal.SIGCONT, lambda *_: caught.append(1))
parent = os.getpid()
if not os.fork():
    time.sleep(0.3)
    {after or "os.kill(parent, signal.SIGCONT)"}
    os._exit(0)
os.kill(parent, signal.SIGSTOP)
os.path.exists("/nowhere")  # a call that the supervisor answers
time.sleep(0.2)
print(len(caught), flush=True)
"""
    with started(sandboxed("--allow-child-process", "--no-warnings", "-c", source)) as program:
        ended = program.end()
        assert (ended.code, ended.stdout) == ((-signal.SIGKILL, "") if after else (0, "1\n")), ended.said


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV),
        ("import os; os.abort()", signal.SIGABRT),
        (
            "import os, signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(0 or os.getpid(), 13)",
            signal.SIGPIPE,
        ),
        ("import os; os.kill(os.getpid(), 64)", 64),
        ("import os; os.kill(os.getpid(), 32)", 32),  # libc's own
        ("import os; os.kill(os.getpid(), 33)", 33),
        ("import signal; signal.setitimer(signal.ITIMER_REAL, .01); signal.pause()", signal.SIGALRM),
    ],
)
def test_the_programs_own_death_is_passed_on(option: list[str], source: str, number: int) -> None:
    with started([*sandboxed(*option), "-c", SAFE + source]) as program:
        assert program.end().code == -number


def test_a_program_killed_from_outside() -> None:
    with started([*sandboxed(), "-c", WAIT]) as program:
        os.kill(int(program.line().split()[1]), signal.SIGKILL)
        assert program.end().code == -signal.SIGKILL


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_a_program_does_not_outlive_the_supervisor(option: list[str]) -> None:
    with started([*sandboxed(*option), "-c", WAIT]) as program:
        pid = int(program.line().split()[1])
        assert alive(pid)
        program.process.kill()
        eventually(lambda: not alive(pid), "the program is gone")


def test_a_signal_while_starting_is_not_lost() -> None:
    for delay in (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05):
        with started([*sandboxed(), "-c", WAIT]) as program:
            time.sleep(delay)
            os.kill(program.pid, signal.SIGTERM)
            assert program.end().code == -signal.SIGTERM


# What is inherited

LAUNCH = """
import os, signal, sys
{}
os.execv(sys.argv[1], sys.argv[1:])
"""


def launched(before: str, words: Sequence[str]) -> list[str]:
    """Start ``words`` from a process that has done something with its signals."""
    return [sys.executable, "-c", LAUNCH.format(before), *words]


@pytest.mark.parametrize(
    "before",
    [
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGPIPE, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD])",
    ],
)
def test_inherited_signal_handling_is_kept(before: str) -> None:
    source = (
        "import signal, sys\n"
        "print([(int(n), str(signal.getsignal(n))) for n in sorted(signal.valid_signals())])\n"
        "print(sorted(map(int, signal.pthread_sigmask(0, []))))\nsys.exit(9)\n"
    )
    endings = []
    for command in both():
        with started(launched(before, [*command, "-c", source])) as program:
            ended = program.end()
            endings.append((ended.code, ended.stdout, ended.stderr))
    assert endings[0][0] == 9
    assert endings[1] == endings[0]
    assert endings[2] == endings[0]


def test_a_status_is_passed_on_although_the_caller_ignores_children() -> None:
    before = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    for option in ([], ["-B"]):
        with started(launched(before, [*sandboxed(*option), "-c", "raise SystemExit(9)"])) as program:
            assert program.end().code == 9


def test_an_ignored_hangup_stays_ignored() -> None:
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with started(launched(before, [*sandboxed(), "-c", WAIT])) as program:
        program.line()
        os.kill(program.pid, signal.SIGHUP)
        os.kill(program.pid, signal.SIGUSR1)
        assert program.end().code == -signal.SIGUSR1


@pytest.mark.parametrize(
    ("ending", "code"), [("os.kill(os.getpid(), 15)", 143), ("os.kill(os.getpid(), 9)", 137), ("sys.exit(7)", 7)]
)
def test_as_the_first_process_of_a_container(ending: str, code: int) -> None:
    """The kernel drops deadly signals that PID 1 sends to itself: the shell's code tells the signal then."""
    unshare = [tool("unshare"), *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork"]
    with started([*unshare, "/bin/true"]) as program:
        if program.end().code:
            pytest.skip("needs unshare(2) of process ids; found that it is refused here")
    with started([*unshare, *sandboxed("-c", f"import os, sys\nprint(os.getppid(), flush=True)\n{ending}")]) as program:
        ended = program.end()
    assert (ended.code, ended.stdout) == (code, "1\n"), ended.said


# What is left behind


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "os.kill(os.getpid(), 9)", "os._exit(4)"])
def test_nothing_that_a_program_started_outlives_it(option: list[str], ending: str) -> None:
    source = f"""
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
os.wait()
print(child.pid, int(os.read(reader, 20)), flush=True)
{ending}
os._exit(0)
"""
    with started(sandboxed("--allow-child-process", *option, "-c", source)) as program:
        pids = [int(word) for word in program.line().split()]
        assert len(pids) == 2
        program.end()
        assert [pid for pid in pids if alive(pid)] == []


def test_orphans_do_not_stay_zombies() -> None:
    source = """
import os, time
pids = []
for turn in range(3):
    reader, writer = os.pipe()
    if not os.fork():
        if not os.fork():
            os.write(writer, str(os.getpid()).encode())
            os._exit(0)
        os._exit(0)
    os.wait()
    pids.append(int(os.read(reader, 20)))
print(*pids, flush=True)
input()
"""
    import subprocess

    with started(sandboxed("--allow-child-process", "-c", source), stdin=subprocess.PIPE) as program:
        pids = [int(word) for word in program.line().split()]
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "reaped")
        program.process.communicate(b"\n")
        assert program.process.returncode == 0


def test_many_children_that_come_and_go() -> None:
    source = "import subprocess\nprint(sum(subprocess.call(['true']) for _ in range(30)))\n"
    with started(sandboxed("--allow-child-process", "-c", source)) as program:
        ended = program.end()
        assert (ended.code, ended.stdout) == (0, "0\n"), ended.said


# On a terminal


@pytest.mark.parametrize(("keys", "number"), [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT)])
def test_keys_of_the_terminal(keys: str, number: int) -> None:
    shown = []
    for command in both():
        with terminal([*command, "-c", WAIT]) as screen:
            pid = int(screen.expect(r"ready (\d+)\n")[1])
            settle(pid)
            screen.type(keys)
            assert screen.end() == -number
            assert not alive(pid)
            shown.append(screen.seen.replace(str(pid), "PID"))
    assert shown[1] == shown[0]
    assert shown[2] == shown[0]


def test_a_terminals_signals_are_delivered_once() -> None:
    with terminal([*sandboxed(), "-c", RECORD]) as screen:
        screen.expect(r"ready \d+\n")
        screen.type("\x03")
        screen.expect("SIGINT\n")
        screen.type("\x1c")
        screen.expect("SIGQUIT\n")
        fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
        screen.expect("SIGWINCH\n")
        os.kill(screen.pid, signal.SIGTERM)
        assert screen.end() == 40
        for name in ("SIGINT", "SIGQUIT", "SIGWINCH"):
            assert screen.seen.count(name) == 1


def test_the_terminal_is_the_programs() -> None:
    source = (
        "import os, sys, termios\n"
        "print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stdout.line_buffering, os.get_terminal_size())\n"
        "print(os.tcgetpgrp(0) == os.getpgrp(), len(termios.tcgetattr(0)))\n"
        "print(repr(input('name? ')))\n"
    )
    shown = []
    for command in both():
        with terminal([*command, "-c", source]) as screen:
            fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
            screen.expect(r"name\? ")
            screen.type("Ada\n")
            assert screen.end() == 0, screen.seen
            shown.append(screen.seen)
    assert "'Ada'" in shown[0]
    # The size is set while the program may be starting already.
    assert shown[1].splitlines()[1:] == shown[0].splitlines()[1:] == shown[2].splitlines()[1:]


def test_a_hangup_of_the_terminal_ends_the_program() -> None:
    endings = []
    for command in both():
        with terminal([*command, "-c", WAIT]) as screen:
            pid = int(screen.expect(r"ready (\d+)\n")[1])
            os.close(screen.master)
            screen.master = os.open("/dev/null", os.O_RDWR)
            endings.append(screen.process.wait(20))
            eventually(lambda pid=pid: not alive(pid), "gone")
    assert set(endings) == {-signal.SIGHUP}


@pytest.mark.parametrize("option", ["", "-B"], ids=["fork", "exec"])
def test_job_control_in_a_shell(option: str) -> None:
    shell = tool("bash")
    code = "import os, time; print('rea' + 'dy', os.getpid(), flush=True); input(); print('aw' + 'ake')"
    command = " ".join([*installed(), "--permission", option, "-c", f'"{code}"'])
    with terminal([shell, "--norc", "--noprofile", "-i"], env={"PS1": "$ ", "HISTFILE": ""}) as screen:
        screen.expect(r"\$ ")
        screen.type(f"{command}; echo ended=$?\n")
        pid = int(screen.expect(r"ready (\d+)\n")[1])
        screen.type("\x1a")
        screen.expect("Stopped")
        screen.expect(r"\$ ")
        assert state(pid) == "T"
        screen.type("jobs; fg\n")
        eventually(lambda: state(pid) == "S", "the program goes on")
        screen.type("\n")
        screen.expect("awake")
        # In the background, where reading from the terminal stops it.
        screen.type(f"{command} &\n")
        pid = int(screen.expect(r"ready (\d+)\n")[1])
        eventually(lambda: state(pid) == "T", "stopped by its reading")
        # What the shell doesn't know as stopped, fg doesn't continue; it says so before a prompt.
        supervisor = psutil.Process(pid).ppid()
        eventually(lambda: state(supervisor) == "T", "stopped with it")
        screen.type("\n")
        screen.expect("Stopped")
        screen.type("fg\n")
        eventually(lambda: state(pid) == "S", "the program goes on")
        screen.type("\x03")
        screen.expect("KeyboardInterrupt\n")
        screen.type("echo code=$?\n")
        assert screen.expect(r"code=(\d+)\n")[1] == "130"
        screen.type("exit 0\n")
        assert screen.end() == 0


def test_a_pipeline_in_a_shell() -> None:
    shell = tool("bash")
    words = " ".join(installed())
    script = (
        f"{words} --permission -c 'print(1); print(2)' | {words} --permission -c 'import sys; print(len(sys.stdin.read()))'\n"
        f"{words} --permission -c 'while True: print(\"y\" * 1000)' 2>/dev/null | head -c 3; echo ' '${{PIPESTATUS[0]}}\n"
        f"{words} --permission -c 'import sys; sys.exit(5)' || echo $?\n"
        f"timeout -s INT 5 {words} --permission -c 'import sys; sys.exit(6)'; echo $?\n"
    )
    with started([shell, "-c", script]) as program:
        ended = program.end()
    assert ended.stdout == "4\nyyy 1\n5\n6\n", ended.said


@pytest.mark.parametrize(
    "grants",
    [[], ["--allow-fs-read=/dev/tty", "--allow-fs-write=/dev/tty"], ["--allow-fs-read=*", "--allow-fs-write=*"]],
)
def test_a_password_is_not_shown(grants: list[str]) -> None:
    with terminal(sandboxed(*grants, "-c", "import getpass; print(len(getpass.getpass()))")) as screen:
        screen.expect("Password: ")
        settle(next(child.pid for child in psutil.Process(screen.pid).children()))
        screen.type("secret\n")
        assert screen.end() == 0
        assert screen.seen == "Password: \n6\n"


# The prompt


def prompt(*words: str) -> tuple[str, Finished]:
    with terminal(words, env={"PYTHON_BASIC_REPL": "1", "TERM": "dumb"}) as screen:
        screen.expect(">>> ")
        for line, pattern in (
            ("import sys, os; sys.argv, __name__", r"\(\[''\], '__main__'\)"),
            ("if 1:\n  x = 6 * 7\n", r"\.\.\. \n"),
            ("x", "42"),
            ("_ + 1", "43"),
            ("1 / 0", "ZeroDivisionError"),
            ("'PYTHONINSPECT' in os.environ, sys.flags.inspect, sys.flags.interactive", r"\(False, 0, 0\)"),
        ):
            screen.type(line + "\n")
            screen.expect(pattern)
            screen.expect(">>> ")
        child = next((child.pid for child in psutil.Process(screen.pid).children()), screen.pid)
        settle(child)
        screen.type("\x03")
        screen.expect("KeyboardInterrupt\n>>> ")
        settle(child)
        screen.type("raise SystemExit(7)\n")
        code = screen.end()
        return screen.seen, Finished(code, "", "", 0)


def test_the_prompt_on_a_terminal() -> None:
    expected, plainly = prompt(plain_python())
    seen, ended = prompt(*sandboxed())
    assert plainly.code == ended.code == 7
    assert seen == expected
    quiet, _ended = prompt(*sandboxed("-q"))
    assert quiet.lstrip().startswith(">>> ")


def test_the_prompt_is_confined() -> None:
    with terminal(sandboxed(), env={"PYTHON_BASIC_REPL": "1"}) as screen:
        screen.expect(">>> ")
        screen.type("open('/etc/passwd')\n")
        screen.expect("AccessDeniedError")
        screen.expect(">>> ")
        screen.type("\x04")
        assert screen.end() == 0


# Processors


BUSY = """
import os, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for _ in range(100):
        os.path.exists("/nowhere")
child = os.fork()
if child == 0:
    print(*sorted(os.sched_getaffinity(0)), end=" and ", flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(*sorted(os.sched_getaffinity(0)), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_the_supervisor_stays_on_one_processor_only_while_it_serves() -> None:
    """It goes where the caller is, and is given back what it had; nothing that is started has less."""
    all_of_them = os.sched_getaffinity(0)
    text = " ".join(map(str, sorted(all_of_them)))
    with started(sandboxed("--no-warnings", "--allow-child-process", "-c", BUSY, "1")) as program:
        pid = program.process.pid
        if len(all_of_them) > 1:
            eventually(lambda: len(os.sched_getaffinity(pid)) == 1, "it follows the caller")
        assert program.line() == f"{text} and {text}"
        eventually(lambda: os.sched_getaffinity(pid) == all_of_them, "it is given back its processors")
        eventually(lambda: state(pid) == "S", "it sleeps")
