"""Command lines that seem to grant less than they do.

The attack: a program, or a file's name, that brings options of its own; options that hide in values, in joined letters, in
the environment; empty and odd paths.
What stops it: after the target everything is the program's; an empty value is refused; what isn't known is refused.
Source: NODE.md part 1, "Command line".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import leaked

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

READ = "import sys; print(open(sys.argv[1] if sys.argv[1:] and sys.argv[1][:1] == '/' else {secret!r}).read())"


def words_that_grant(attacker: Attacker) -> list[str]:
    return ["--allow-fs-read=*", "--allow-fs-read", attacker.home, "--no-permission", "--policy", "docker-entrypoint"]


@pytest.mark.parametrize(
    "after", [["-c"], ["-Ic"], ["-m"], ["script"], ["--", "script"], ["folder"], ["-"]], ids=" ".join
)
def test_after_the_target_everything_is_the_programs(attacker: Attacker, after: list[str]) -> None:
    code = READ.format(secret=attacker.path("secret/data"))
    attacker.put("read/script.py", code)
    attacker.put("read/folder/__main__.py", code)
    target = {"-c": ["-c", code], "-Ic": ["-Ic", code], "-m": ["-m", "script"], "script": ["script.py"],
              "folder": ["folder"], "--": ["--", "script.py"], "-": ["-"]}[after[0]]  # fmt: skip
    ended = attacker.run(
        [*attacker.command, "--permission", *attacker.grants, *target, *words_that_grant(attacker)],
        cwd=attacker.path("read"),
        stdin=code if after == ["-"] else None,
    )
    assert not leaked(ended), ended.said
    assert ended.code == 1, ended.said


@pytest.mark.parametrize(
    "words",
    [
        ["--allow-fs-read="],
        ["--allow-fs-read", ""],
        ["--allow-fs-read=,"],
        ["--allow-fs-read=read,"],
        ["--allow-fs-read=,secret"],
        ["--allow-fs-write="],
        ["--allow-net=no"],
        ["--allow-child-process=false"],
        ["--permission=no"],
        ["--allow-fs-reed=/"],
        ["--allow-env"],
        ["--experimental-permission"],
        ["--allow-fs-read"],
        ["--policy="],
        ["--policy", "no-such-preset"],
        ["--python="],
    ],
    ids=" ".join,
)
def test_what_means_nothing_is_refused(attacker: Attacker, words: list[str]) -> None:
    """An unset shell variable must not grant the working directory; a value on a switch must not seem to narrow it."""
    ended = attacker.run([*attacker.command, "--permission", *words, "-c", "print('ran')"], cwd=attacker.home)
    if words == ["--allow-fs-read"]:  # takes the next word for a path, so nothing is left to run
        assert "ran" not in ended.stdout, ended.said
        return
    assert ended.code == 9, ended.said
    assert "ran" not in ended.stdout, ended.said


@pytest.mark.parametrize(
    "words",
    [["--allow-fs-read=*"], ["--allow-net"], ["--allow-fs-write=/tmp/x"], ["--no-permission", "--allow-worker"]],
    ids=" ".join,
)
def test_grants_without_the_model_are_refused(attacker: Attacker, words: list[str]) -> None:
    """They would look like limits, and the program would run without any."""
    ended = attacker.run([*attacker.command, *words, "-c", "print('ran')"])
    assert (ended.code, ended.stdout) == (1, ""), ended.said
    assert "ERR_MISSING_OPTION" in ended.stderr, ended.said


def test_audit_does_not_switch_enforcement_off(attacker: Attacker) -> None:
    """In Node 26 it does."""
    for words in (["--permission", "--permission-audit"], ["--permission-audit", "--permission"]):
        code = READ.format(secret=attacker.path("secret/data"))
        ended = attacker.run([*attacker.command, *words, "-c", code])
        assert not leaked(ended), ended.said


def test_a_later_option_in_the_environment_widens_only_what_it_says(attacker: Attacker) -> None:
    code = READ.format(secret=attacker.path("secret/data"))
    for options in ("--no-permission", "-c", "script.py", "--allow-fs-read=read --", "-X", "'"):
        ended = attacker.run(
            [*attacker.command, "--permission", "-c", code],
            env={"SANDBOXED_PYTHON_OPTIONS": options},
            cwd=attacker.home,
        )
        assert not leaked(ended), f"{options}: {ended.said}"


def test_the_program_cannot_change_its_options(attacker: Attacker) -> None:
    """A sandbox started from the sandbox narrows, whatever is asked of it; so does one in the environment."""
    attacker.must_fail(
        "import subprocess\nos.environ['SANDBOXED_PYTHON_OPTIONS'] = '--permission --allow-fs-read=*'\n"
        f"for words in [{list(attacker.command)!r} + ['--permission', '--allow-fs-read=*'], {list(attacker.command)!r}]:\n"
        "    print(subprocess.run([*words, '-c', f'print(open({SECRET + \"/data\"!r}).read())'],\n"
        "                         capture_output=True, text=True))",
        "--allow-child-process",
        harm=leaked,
    )


MAKE = """
for name in "new", "new2", "other", "ne", "data", "below/new":
    try:
        open(folder + "/" + name, "a").write("!")
    except OSError:
        pass
"""


def test_a_name_that_is_not_there_yet(attacker: Attacker) -> None:
    """A grant of it is a grant of this name; never of its folder, nor of what begins like it."""
    code = f"folder = {attacker.path('secret')!r}\n{MAKE}"
    words = ["--permission", f"--allow-fs-write={attacker.path('secret/new')}", "-c", code]
    ended = attacker.run([*attacker.command, *words])
    assert sorted(os.listdir(attacker.path("secret"))) == ["data", "new"], ended.said
    assert attacker.get("secret/data") == "this-is-the-secret", ended.said
    assert attacker.get("secret/new") == "!", ended.said


@pytest.mark.parametrize(
    ("grant", "name"),
    [
        ("read/data.*", "secret/data"),
        ("read", "readable/data"),
        ("read/", "read/../secret/data"),
        ("read/x\\,y", "read/x"),
        ("read\n", "read/data"),
        ("./read/./../read", "secret/data"),
        ("read/missing/../../secret-not", "secret/data"),
    ],
)
def test_what_a_grant_means(attacker: Attacker, grant: str, name: str) -> None:
    """A grant covers itself and what is below, by components; nothing beside it."""
    attacker.put("readable/data", "this-is-the-secret")
    attacker.put("read/data", "this-is-the-secret" if name == "read/data" else "")
    attacker.put("read/x", "this-is-the-secret" if name == "read/x" else "")
    code = f"print(open({os.path.join(attacker.home, name)!r}).read())"
    ended = attacker.run([*attacker.command, "--permission", f"--allow-fs-read={grant}", "-c", code], cwd=attacker.home)
    assert not leaked(ended), ended.said
