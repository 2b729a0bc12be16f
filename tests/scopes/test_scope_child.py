"""child: denied, and granted. Seen from outside: a file that the child makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TEAR_OUT, number
from tests.scopes.twin import check_ran, check_refused, program

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

MAKE = "open(WRITE + '/child', 'w').close()"
CALLS = {
    "subprocess": "import subprocess; subprocess.run(['touch', WRITE + '/child'], check=True)",
    "a shell": "import subprocess; subprocess.run('touch ' + WRITE + '/child', shell=True, check=True)",
    "os.system": "assert os.system('touch ' + WRITE + '/child') == 0",
    "os.popen": "assert os.popen('touch ' + WRITE + '/child').close() is None",
    "fork": f"pid = os.fork()\nif pid == 0:\n    {MAKE}; os._exit(0)\nos.waitpid(pid, 0)",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', ': > ' + WRITE + '/child'], {}), 0)",
    "spawnv": "assert os.spawnv(os.P_WAIT, '/bin/sh', ['sh', '-c', ': > ' + WRITE + '/child']) == 0",
    "execv": "os.execv('/bin/sh', ['sh', '-c', ': > ' + WRITE + '/child'])",
    "multiprocessing": "import multiprocessing\n"
    f"def child():\n    {MAKE}\n"
    "one = multiprocessing.get_context('fork').Process(target=child); one.start(); one.join()",
}
# The hook is not asked.
RAW = {
    "fork": "if call('fork') == 0:\n    " + MAKE + "; os._exit(0)\nos.wait()",
    "clone": "if call('clone', 17, 0, 0, 0, 0) == 0:\n    " + MAKE + "; os._exit(0)\nos.wait()",
    "clone as vfork does": "if call('clone', 0x4000 | 17, 0, 0, 0, 0) == 0:\n    " + MAKE + "; os._exit(0)\nos.wait()",
    "clone, high bits": "if call('clone', 1 << 40 | 17, 0, 0, 0, 0) == 0:\n    " + MAKE + "; os._exit(0)\nos.wait()",
    "clone without a signal": "if call('clone', 0, 0, 0, 0, 0) == 0:\n    "
    + MAKE
    + "; os._exit(0)\nimport time; time.sleep(0.2)",
    "libc's fork": "if libc.fork() == 0:\n    " + MAKE + "; os._exit(0)\nos.wait()",
    "libc's system": "libc.system(f'touch {WRITE}/child'.encode())",
    "libc's popen": "libc.popen.restype = ctypes.c_void_p; libc.pclose.argtypes = [ctypes.c_void_p]\n"
    "pipe = libc.popen(f'touch {WRITE}/child'.encode(), b'r'); pipe and libc.pclose(pipe)",
    "libc's posix_spawn": "words = (ctypes.c_char_p * 4)(b'sh', b'-c', f': > {WRITE}/child'.encode(), None)\n"
    "pid = ctypes.c_int(); libc.posix_spawn(ctypes.byref(pid), b'/bin/sh', None, None, words, None)\n"
    "try: os.waitpid(pid.value, 0)\nexcept OSError: pass",
    "execve": "words = (ctypes.c_char_p * 4)(b'sh', b'-c', f': > {WRITE}/child'.encode(), None)\n"
    "call('execve', b'/bin/sh', words, (ctypes.c_char_p * 1)(None))",
    "execveat": "words = (ctypes.c_char_p * 4)(b'sh', b'-c', f': > {WRITE}/child'.encode(), None)\n"
    "call('execveat', -100, b'/bin/sh', words, (ctypes.c_char_p * 1)(None), 0)",
    "execveat of a descriptor": "words = (ctypes.c_char_p * 4)(b'sh', b'-c', f': > {WRITE}/child'.encode(), None)\n"
    "call('execveat', os.open(SHELL, 0), b'', words, (ctypes.c_char_p * 1)(None), 0x1000)",
    "_posixsubprocess": "import subprocess\n"
    "try: subprocess.Popen(['/bin/sh', '-c', ': > ' + WRITE + '/child'], close_fds=False).wait()\nexcept OSError as e: print(e)",
}


@pytest.mark.parametrize("name", CALLS)
def test_with_the_hook(attacker: Attacker, name: str) -> None:
    code = CALLS[name]
    grants = (f"--allow-fs-write={attacker.path('write')}/",)
    denied = program(attacker, code, *grants)
    check_refused(denied, "ChildProcess")
    assert not attacker.exists("write/child"), denied.said
    granted = program(attacker, code, *grants, "--allow-child-process")
    check_ran(granted)
    assert attacker.exists("write/child"), granted.said


@pytest.mark.parametrize("name", ["new", "pre*", "there", "folder/"])
def test_redirection_to_standard_streams(attacker: Attacker, name: str) -> None:
    """Whatever kind of write grant there is besides, a pipe is the program's own."""
    attacker.put("write/there", "")
    os.mkdir(attacker.path("write", "folder"))
    line = "echo one > /dev/stderr; echo two | tee /dev/fd/2 > /dev/null; echo three > /dev/stdout"
    code = f"import subprocess; subprocess.run(['sh', '-c', {line!r}]); open('/dev/stderr', 'w').write('four')"
    ran = program(attacker, code, f"--allow-fs-write={attacker.path('write', name)}", "--allow-child-process")
    check_ran(ran)
    assert "three" in ran.stdout
    assert [word for word in ("one", "two", "four") if word not in ran.stderr] == []


def test_a_terminal_of_its_own(attacker: Attacker) -> None:
    check_refused(program(attacker, "os.forkpty()"), "ChildProcess")


@pytest.mark.parametrize("name", RAW)
def test_without_the_hook(attacker: Attacker, name: str) -> None:
    code = f"SHELL = {os.path.realpath('/bin/sh')!r}\n{RAW[name]}"
    replaced = name.startswith("execve")
    attacker.must_fail(
        code, "--allow-ffi", harm=lambda _: attacker.exists("write/child"), ends=("OSError", "AccessDeniedError")
    )
    attacker.lay_out()
    granted = attacker.confined(code, "--allow-ffi", "--allow-child-process")
    if name == "clone, high bits":
        return  # refused or not: the kernel ignores the bits
    assert attacker.exists("write/child"), granted.said
    assert replaced or "TRIED: done" in granted.stdout, granted.said


def test_vfork(attacker: Attacker) -> None:
    """Not tried where it would work: a child that shares the stack with ctypes would crash its parent."""
    number("vfork")
    denied = attacker.confined("print(attempt('vfork'))", "--allow-ffi", "--allow-worker")
    assert "EPERM" in denied.stdout, denied.said


@pytest.mark.parametrize("flags", [("--allow-worker",), ("--allow-net",), ("--allow-inspector",)])
def test_no_other_flag_gives_it(attacker: Attacker, flags: tuple[str, ...]) -> None:
    attacker.must_fail(RAW["clone"], "--allow-ffi", *flags, harm=lambda _: attacker.exists("write/child"))


def test_torn_out(attacker: Attacker) -> None:
    """Pure Python with an empty list of hooks."""
    attacker.must_fail(
        f"import subprocess\n{TEAR_OUT}\nsubprocess.run(['touch', WRITE + '/child'])",
        harm=lambda _: attacker.exists("write/child"),
    )


def test_exec_when_the_start_was_an_exec(attacker: Attacker) -> None:
    """The supervisor lets one execve through, its own: the program gets none."""
    attacker.must_fail(RAW["execve"], "--allow-ffi", "-I", harm=lambda _: attacker.exists("write/child"))
