"""Starting again, with more: another Python, or this very command with wider grants.

The attack: with ``--allow-child-process``, run the sandbox's own command with everything granted, without the model, with
``--best-effort``, with options in the environment; have Tcl, which starts and opens without asking Python, do it.
What stops it: the kernel's rules are inherited and can only become narrower; Landlock and the listener can't be set up
again. Source: landlock(7), seccomp(2); THREATS 9 (child_relaunch, child_env_clean, child_tcl), 2 (fsr_tcl).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import leaked

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
