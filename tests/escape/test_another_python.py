"""Starting again, with more: another Python, or this very command with wider grants.

The attack: with ``--allow-child-process``, run the sandbox's own command with everything granted, without the model, with
``--best-effort``, with options in the environment; have Tcl, which starts and opens without asking Python, do it.
What stops it: the kernel's rules are inherited and can only become narrower; Landlock and the listener can't be set up
again. Source: landlock(7), seccomp(2); THREATS 9 (child_relaunch, child_env_clean, child_tcl), 2 (fsr_tcl).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import PACKAGE, leaked

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

WORDS: dict[str, list[str]] = {
    "everything granted": ["--permission", "--allow-fs-read=*", "--allow-fs-write=*", "--allow-child-process"],
    "everything granted, by exec": ["--permission", "--allow-fs-read=*", "-I"],
    "without the model": [],
    "as well as can be": ["--permission", "--best-effort", "--allow-fs-read=*"],
}


@pytest.mark.parametrize("name", WORDS)
def test_the_command_itself(attacker: Attacker, name: str) -> None:
    words = [*attacker.command, *WORDS[name]]
    attacker.must_fail(
        "import subprocess\n"
        f"print(subprocess.run([*{words!r}, '-c', f'print(open({{SECRET + \"/data\"!r}}).read())'], env={{}},\n"
        "                     capture_output=True, text=True))",
        "--allow-child-process",
        "--allow-worker",
        harm=leaked,
    )


def test_options_in_the_environment(attacker: Attacker) -> None:
    attacker.must_fail(
        "import subprocess\n"
        f"print(subprocess.run([*{attacker.command!r}, '-c', f'print(open({{SECRET + \"/data\"!r}}).read())'],\n"
        "      env={'SANDBOXED_PYTHON_OPTIONS': '--permission --allow-fs-read=*'}, capture_output=True, text=True))",
        "--allow-child-process",
        harm=leaked,
    )


# Each starts a Python that has no hook, or another one. What it prints is looked at.
HOOKLESS = {
    "isolated": "subprocess.run([sys.executable, '-I', '-c', code])",
    "without the environment": "subprocess.run([sys.executable, '-E', '-c', code])",
    "without site": "subprocess.run([sys.executable, '-S', '-c', code])",
    "an empty environment": "subprocess.run(['env', '-i', sys.executable, '-c', code])",
    "without the variable": "subprocess.run(['env', '-u', 'PYTHONPATH', sys.executable, '-c', code])",
    "words of the model's in the arguments": "subprocess.run([sys.executable, '-c', code, '--permission', '--allow-fs-read=*'])",
    "another sitecustomize": "open(WRITE + '/sitecustomize.py', 'w').write(code)\n"
    "subprocess.run(['env', 'PYTHONPATH=' + WRITE, sys.executable, '-c', 'pass'])",
}


@pytest.mark.parametrize("name", HOOKLESS)
def test_a_python_without_the_hook(attacker: Attacker, name: str) -> None:
    """The hook is a courtesy: where it is missing the kernel refuses all the same."""
    code = "print(open({SECRET!r} + '/data').read())"
    attacker.must_fail(
        f"import subprocess\ncode = {code!r}.replace('{{SECRET!r}}', repr(SECRET))\n{HOOKLESS[name]}",
        "--allow-child-process",
        harm=leaked,
    )


def test_a_forged_entry_leads_the_supervisor_nowhere(attacker: Attacker) -> None:
    """Who is led to the folder of the hook, or to one that looks like it, doesn't load it into a supervisor."""
    folder = attacker.path("write", "sandboxed_python", "child", "site")
    attacker.put(f"{folder}/sitecustomize.py", f"open({attacker.path('write', 'loaded')!r}, 'w').close()\n")
    for entry in (folder, os.path.join(PACKAGE, "child", "site")):
        ended = attacker.run(
            [*attacker.command, "--permission", "-c", "import sys; print(sys.permission.has('child'))"],
            env={"PYTHONPATH": entry},
        )
        assert ended.stdout == "False\n", ended.said
        assert not attacker.exists("write/loaded")


TCL = {
    "reading": "print(tcl.eval(f'read [open {SECRET}/data]'))",
    "starting a program": "print(tcl.eval(f'exec cat {SECRET}/data'))",
    "writing": "tcl.eval(f'close [open {SECRET}/new w]')",
    "its source": "tcl.eval(f'source {SECRET}/data')",
    "listing": "print('LISTED' if tcl.eval(f'glob {SECRET}/*') else '')",
}


@pytest.mark.parametrize("name", TCL)
@pytest.mark.parametrize("flags", [(), ("--allow-child-process",)], ids=["alone", "child"])
def test_tcl(attacker: Attacker, name: str, flags: tuple[str, ...]) -> None:
    """Tcl is C code of the standard library's: it opens and starts, and Python's hook hears nothing."""
    probe = attacker.run([attacker.python, "-c", "import tkinter; tkinter.Tcl()"])
    if probe.code:
        pytest.skip(f"needs a Python with tkinter; found {probe.stderr.strip().splitlines()[-1]}")
    body = f"import tkinter; tcl = tkinter.Tcl()\ntry: {TCL[name]}\nexcept Exception as error: print(error); raise"
    attacker.must_fail(
        body,
        *flags,
        harm=lambda ended: (
            leaked(ended)
            or "LISTED" in ended.stdout
            or attacker.exists("secret/new")
            or "invalid command name" in ended.stdout
        ),
        ends=("OSError", "TclError"),
    )
