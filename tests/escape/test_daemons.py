"""Processes that outlive the job.

The attack: with ``--allow-child-process``, leave something behind: by double fork, a session of its own, ignored signals,
stopped, replacing itself all the time, with the main program killed; and have the program survive the supervisor.
What stops it: the supervisor is the reaper of its descendants and kills what is left when the job ends; the program dies
with the supervisor (parent-death signal). Source: PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG in prctl(2); THREATS 9
(child_daemon).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import source
from tests.launch import plain
from tests.support import clean_environment

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# The daemon closes what it shares with the job, says who it is and lives on.
LIVE_ON = """
def live_on():
    null = os.open('/dev/null', os.O_RDWR)
    for fd in 0, 1, 2:
        os.dup2(null, fd)
    with open(WRITE + '/daemon.new', 'w') as file:
        file.write(str(os.getpid()))
    os.rename(WRITE + '/daemon.new', WRITE + '/daemon')
    while True:
        time.sleep(0.02)
def wait():
    while not os.path.exists(WRITE + '/daemon'):
        time.sleep(0.01)
import signal, time
"""
BODIES = {
    "double fork": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: live_on()\n    os._exit(0)\nwait()",
    "ignoring signals": "if os.fork() == 0:\n    os.setsid()\n"
    "    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n"
    "    live_on()\nwait()",
    "a group of its own": "if os.fork() == 0: os.setpgid(0, 0); live_on()\nwait()",
    "stopped": "pid = os.fork()\nif pid == 0: live_on()\nwait(); os.kill(pid, signal.SIGSTOP); time.sleep(0.05)",
    "a shell's background job": "import subprocess\n"
    "subprocess.Popen(['sh', '-c', 'trap \"\" TERM HUP INT; echo $$ > $0; while :; do sleep 0.05; done', WRITE + '/daemon'],\n"
    "                 stdin=-3, stdout=-3, stderr=-3, start_new_session=True); wait()",
    "setsid": "import subprocess\n"
    "subprocess.Popen(['setsid', '-f', 'sh', '-c', 'echo $$ > $0; while :; do sleep 0.05; done', WRITE + '/daemon'],\n"
    "                 stdin=-3, stdout=-3, stderr=-3); wait()",
    "a reaper of its own": "if os.fork() == 0:\n    os.setsid()\n"
    "    import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n    if os.fork() == 0: live_on()\n    os._exit(0)\nwait()",
    "the main program killed": "if os.fork() == 0: os.setsid(); live_on()\nwait(); os.kill(os.getpid(), 9)",
    "the main program replaced": "if os.fork() == 0: os.setsid(); live_on()\nwait(); os.execvp('true', ['true'])",
    "many": "for n in range(20):\n    if os.fork() == 0: os.setsid(); os.fork(); live_on()\nwait(); time.sleep(0.1)",
    "one after the other": "def relay():\n    while True:\n        if os.fork(): time.sleep(0.005); os._exit(0)\n"
    "        open(WRITE + '/daemon', 'w').write(str(os.getpid()))\n"
    "if os.fork() == 0:\n    os.setsid(); null = os.open('/dev/null', os.O_RDWR)\n"
    "    for fd in 0, 1, 2: os.dup2(null, fd)\n    relay()\nwait()",
}


def alive(attacker: Attacker) -> list[int]:
    """Return the processes, anybody's, that the attack's folder is named in: in their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if os.fsencode(attacker.path("write")) in file.read():
                    found.append(int(name))
    return found


def end(attacker: Attacker) -> None:
    """End what an attack has left behind."""
    for _ in range(1000):
        left = alive(attacker)
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def marked_source(body: str, attacker: Attacker) -> str:
    """Return an attack whose processes carry the folder's path in their command lines."""
    return source(f"# {attacker.path('write')}\n{LIVE_ON}{body}", attacker.home)


@pytest.mark.parametrize("name", BODIES)
def test_what_is_left_behind(attacker: Attacker, name: str) -> None:
    code = marked_source(BODIES[name], attacker)
    if name != "one after the other":  # it would take a reaper to end that
        try:
            bare = attacker.run([attacker.python, "-c", code])
            assert alive(attacker), bare.said
        finally:
            end(attacker)
    attacker.lay_out()
    flags = ["--allow-child-process", *(["--allow-ffi"] if "ctypes" in code else [])]
    try:
        confined = attacker.run([*attacker.command, "--permission", *attacker.grants, *flags, "-c", code])
        assert attacker.exists("write/daemon"), confined.said
        assert not alive(attacker), confined.said
    finally:
        end(attacker)


@pytest.mark.parametrize("way", [(), ("-I",)], ids=["fork", "exec"])
def test_the_program_dies_with_the_supervisor(attacker: Attacker, way: tuple[str, ...]) -> None:
    code = marked_source("signal.signal(15, signal.SIG_IGN); live_on()", attacker)
    supervisor = subprocess.Popen(
        [*attacker.command, "--permission", *attacker.grants, *way, "-c", code],
        cwd="/",
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        **attacker.identity,  # type: ignore[call-overload]
    )
    try:
        deadline = time.monotonic() + 30
        while not attacker.exists("write/daemon"):
            assert time.monotonic() < deadline
            assert supervisor.poll() is None
            time.sleep(0.01)
        # After an exec, the command line doesn't show the program.
        program = int(attacker.get("write/daemon") or 0)
        assert plain.alive(program)
        supervisor.kill()
        supervisor.wait()
        while plain.alive(program):
            assert time.monotonic() < deadline, "the program lives on without its supervisor"
            time.sleep(0.01)
    finally:
        supervisor.kill()
        supervisor.wait()
        end(attacker)
