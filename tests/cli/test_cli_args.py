"""The command line as words: what each becomes, and what is refused with which message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.cli.args import (
    ENVIRONMENT,
    NEGATABLE,
    OPTIONS,
    PYTHON_LETTERS,
    SWITCHES,
    VALUES,
    Command,
    complete,
    parse,
)
from sandboxed_python.errors import MissingOptionError, UsageError
from sandboxed_python.plan.model import Target
from sandboxed_python.policy.limits import BY_OPTION
from sandboxed_python.policy.table import PERMISSIONS

if TYPE_CHECKING:
    import pathlib

CWD = "/made-up-cwd"


def parsed(*words: str, env: str = "", cwd: str = CWD) -> Command:
    return parse(list(words), {ENVIRONMENT: env} if env else {}, cwd)


def refused(*words: str, env: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        parsed(*words, env=env)
    return str(caught.value)


def reads(command: Command) -> list[str]:
    return [path for grant in command.policy.read for path in grant.paths[:1]]


def writes(command: Command) -> list[str]:
    return [path for grant in command.policy.write for path in grant.paths[:1]]


# Targets


@pytest.mark.parametrize(
    ("words", "kind", "value", "arguments"),
    [
        ([], "stdin", "", ()),
        (["-"], "stdin", "-", ()),
        (["-", "a", "-b"], "stdin", "-", ("a", "-b")),
        (["job.py"], "script", "job.py", ()),
        (["job.py", "--permission", "-x", "--", "-"], "script", "job.py", ("--permission", "-x", "--", "-")),
        (["./-odd.py"], "script", "./-odd.py", ()),
        (["missing-dir/"], "script", "missing-dir/", ()),
        ([""], "script", "", ()),
        (["-c", "print(1)"], "code", "print(1)", ()),
        (["-cprint(1)"], "code", "print(1)", ()),
        (["-c", "print(1)", "-c", "x"], "code", "print(1)", ("-c", "x")),
        (["-c", ""], "code", "", ()),
        (["-c", "-"], "code", "-", ()),
        (["-m", "json.tool"], "module", "json.tool", ()),
        (["-mjson.tool", "--help"], "module", "json.tool", ("--help",)),
        (["-m", "http.server", "--bind", "x"], "module", "http.server", ("--bind", "x")),
        (["--", "job.py", "--x"], "script", "job.py", ("--x",)),
        (["--", "-"], "stdin", "-", ()),
        (["--"], "stdin", "", ()),
    ],
)
def test_targets(words: list[str], kind: str, value: str, arguments: tuple[str, ...]) -> None:
    for before in ([], ["--permission"], ["-B", "--allow-net", "--permission"]):
        target = parsed(*before, *words).target
        assert (target.kind, target.value, target.arguments) == (kind, value, arguments)


@pytest.mark.parametrize("letter", ["c", "m"])
def test_a_target_without_its_value(letter: str) -> None:
    assert refused("--permission", f"-{letter}") == f"-{letter} requires an argument"
    assert refused("--permission", f"-B{letter}") == f"-{letter} requires an argument"


def test_directories_and_zips_are_paths(tmp_path: pathlib.Path) -> None:
    import zipfile

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.py").mkdir()
    for name in ("app.zip", "app", "app.py", "commented.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("__main__.py", "pass")
            if name == "commented.zip":
                file.comment = b"c" * 65535
    with open(tmp_path / "prefixed", "wb") as file:
        file.write(b"#!/usr/bin/env python3\n" + (tmp_path / "app.zip").read_bytes())
    (tmp_path / "text").write_text("PK")
    (tmp_path / "empty").touch()
    kinds = {
        name: parsed("--permission", str(tmp_path / name)).target.kind
        for name in ("folder", "folder.py", "app.zip", "app", "commented.zip", "prefixed", "text", "empty", "none")
    }
    assert kinds == {
        **dict.fromkeys(["folder", "folder.py", "app.zip", "app", "commented.zip", "prefixed"], "path"),
        **dict.fromkeys(["text", "empty", "none"], "script"),
    }


# Our options


def test_mixed_options_in_any_order() -> None:
    command = parsed(
        "-O",
        "--allow-net",
        "--allow-fs-read",
        "/a",
        "-Wignore",
        "--permission",
        "--allow-fs-write=/b",
        "-X",
        "dev",
        "j.py",
    )
    assert command.policy.mode == "enforce"
    assert (reads(command), writes(command)) == (["/a"], ["/b"])
    assert command.policy.scopes == {"net"}
    assert command.target == Target(kind="script", value="j.py", python_options=("-O", "-Wignore", "-Xdev"))
    assert (command.action, command.granted_flag) == ("run", "--allow-fs-read")
    assert command.policy.sources == ("command line",)


@pytest.mark.parametrize("flag", sorted(VALUES))
def test_values_in_one_word_or_two(flag: str) -> None:
    value = "1" if flag in BY_OPTION else "/v=w"
    one = parsed("--permission", f"{flag}={value}", "j.py")
    two = parsed("--permission", flag, value, "j.py")
    assert one == two
    assert one.target.value == "j.py"


@pytest.mark.parametrize("flag", sorted(VALUES))
@pytest.mark.parametrize(
    "words", [["{}="], ["{}", ""], ["{}"], ["{}", "--permission"], ["{}", "--", "x"], ["{}", "-c", "0"]]
)
def test_a_missing_or_empty_value_is_refused(flag: str, words: list[str]) -> None:
    text = refused("--permission", *[word.format(flag) for word in words])
    assert text.startswith(flag)
    assert "requires an argument" in text


def test_a_dash_is_the_logs_stderr_and_nobody_elses_value() -> None:
    """What else begins with one is a value after ``=`` only."""
    assert parsed("--permission", "--permission-log", "-", "j.py").log == "-"
    assert reads(parsed("--permission", "--allow-fs-read=-c", "j.py")) == reads(
        parsed("--permission", "--allow-fs-read=./-c", "j.py")
    )
    for flag in sorted(VALUES - {"--permission-log"}):
        assert refused("--permission", flag, "-", "j.py").startswith(f"{flag} requires an argument")


@pytest.mark.parametrize("flag", ["--allow-fs-read", "--allow-fs-write"])
@pytest.mark.parametrize("value", [",", "/a,", ",/a", "/a,,/b"])
def test_an_empty_part_of_a_list_is_refused(flag: str, value: str) -> None:
    assert refused("--permission", f"{flag}={value}", "j.py").startswith(f"{flag} requires an argument")


def test_commas_separate_paths_and_a_backslash_keeps_one() -> None:
    command = parsed(
        "--permission", r"--allow-fs-read=/a,/b\,c,rel", r"--allow-fs-read=/d\e", "--allow-fs-write", "/f,/g"
    )
    assert reads(command) == ["/a", "/b,c", f"{CWD}/rel", "/d\\e"]
    assert writes(command) == ["/f", "/g"]
    assert {grant.origin for grant in (*command.policy.read, *command.policy.write)} == {
        "--allow-fs-read",
        "--allow-fs-write",
    }


def test_a_nul_is_refused() -> None:
    assert "NUL" in refused("--permission", "--allow-fs-read=/a\0b")


@pytest.mark.parametrize("row", [row for row in PERMISSIONS if row.kind == "switch"], ids=lambda row: str(row.scope))
def test_every_switch_and_its_no(row: object) -> None:
    from sandboxed_python.policy.table import Permission

    assert isinstance(row, Permission)
    on = parsed("--permission", row.flag)
    assert (set(on.policy.scopes), on.granted_flag) == ({row.scope}, row.flag)
    no = row.flag.replace("--", "--no-", 1)
    off = parsed("--permission", row.flag, no)
    assert (set(off.policy.scopes), off.granted_flag, set(off.no)) == (set(), "", {row.flag})
    again = parsed("--permission", no, row.flag)
    assert (set(again.policy.scopes), set(again.no)) == ({row.scope}, set())
    assert refused("--permission", f"{row.flag}=example.com") == f"{row.flag} takes no value: '{row.flag}=example.com'"
    assert "takes no value" in refused("--permission", f"{no}=x")


@pytest.mark.parametrize("flag", ["--allow-fs-read", "--allow-fs-write"])
def test_a_list_is_taken_back_whole(flag: str) -> None:
    no = flag.replace("--", "--no-", 1)
    command = parsed("--permission", f"{flag}=/a,/b", no)
    assert (command.policy.read, command.policy.write, command.granted_flag) == ((), (), "")
    later = parsed("--permission", f"{flag}=/a", no, f"{flag}=/b")
    assert [*reads(later), *writes(later)] == ["/b"]


def test_modes() -> None:
    assert parsed().policy.mode == "off"
    assert parsed("--permission").policy.mode == "enforce"
    assert parsed("--permission-audit").policy.mode == "audit"
    for both in (["--permission", "--permission-audit"], ["--permission-audit", "--permission"]):
        assert parsed(*both).policy.mode == "enforce"
    assert parsed("--permission", "--no-permission").policy.mode == "off"
    assert parsed("--no-permission", "--permission").policy.mode == "enforce"
    assert parsed("--permission", "--permission-audit", "--no-permission").policy.mode == "audit"


def test_other_options() -> None:
    command = parsed(
        "--permission", "--no-allow-entrypoint", "--best-effort", "--allow-writable-runtime", "--no-warnings",
        "--policy", "read-only", "--policy=./p.toml", "--python=/usr/bin/python3",
    )  # fmt: skip
    policy = command.policy
    assert not policy.entrypoint
    assert policy.best_effort
    assert policy.writable_runtime
    assert not policy.warnings
    assert command.policies == ("read-only", "./p.toml")
    assert command.target.python == "/usr/bin/python3"
    defaults = parsed("--permission").policy
    assert defaults.entrypoint
    assert defaults.warnings
    assert not defaults.best_effort
    assert not defaults.writable_runtime


@pytest.mark.parametrize(
    ("words", "action", "as_json"),
    [
        (["--help"], "help", False),
        (["--version", "--permission"], "version", False),
        (["--check"], "check", False),
        (["--check", "--json"], "check", True),
        (["--permission", "--explain", "j.py"], "explain", False),
        (["--json", "--explain"], "explain", True),
        (["j.py", "--help"], "run", False),
        (["-V"], "python", False),
        (["-VV"], "python", False),
        (["--permission", "-h"], "python", False),
        (["--help-env"], "python", False),
    ],
)
def test_actions(words: list[str], action: str, as_json: bool) -> None:  # noqa: FBT001
    command = parsed(*words)
    assert (command.action, command.json) == (action, as_json)


@pytest.mark.parametrize(
    "word",
    [
        "--allow-env",
        "--experimental-permission",
        "--permissions",
        "--Permission",
        "--allow-fs-reads=/a",
        "--no-explain",
    ],
)
def test_unknown_long_options(word: str) -> None:
    assert refused("--permission", word, "j.py") == f"bad option: {word}"
    assert refused(word) == f"bad option: {word}"


@pytest.mark.parametrize("word", ["-k", "-Bk", "-1", "-BZ", "-?x", "-é"])
def test_unknown_letters(word: str) -> None:
    assert refused("--permission", word, "j.py") == f"bad option: {word}"


# Python's options


@pytest.mark.parametrize(
    ("words", "options", "target"),
    [
        (["-O", "j.py"], ("-O",), "j.py"),
        (["-OO", "j.py"], ("-O", "-O"), "j.py"),
        (["-Bc", "1"], ("-B",), "1"),
        (["-Bc1"], ("-B",), "1"),
        (["-OBm", "json"], ("-O", "-B"), "json"),
        (["-OBmjson", "x"], ("-O", "-B"), "json"),
        (["-W", "ignore", "j.py"], ("-Wignore",), "j.py"),
        (["-Wignore", "-Werror::UserWarning", "j.py"], ("-Wignore", "-Werror::UserWarning"), "j.py"),
        (["-BWignore", "j.py"], ("-B", "-Wignore"), "j.py"),
        (["-BW", "ignore", "j.py"], ("-B", "-Wignore"), "j.py"),
        (["-X", "dev", "j.py"], ("-Xdev",), "j.py"),
        (["-Xdev", "-Ximporttime", "j.py"], ("-Xdev", "-Ximporttime"), "j.py"),
        (["-X", "-odd", "j.py"], ("-X-odd",), "j.py"),
        (["--check-hash-based-pycs", "always", "j.py"], ("--check-hash-based-pycs", "always"), "j.py"),
        (["--check-hash-based-pycs=never", "j.py"], ("--check-hash-based-pycs", "never"), "j.py"),
        (["-IsSEPuvqbdix", "j.py"], tuple(f"-{letter}" for letter in "IsSEPuvqbdix"), "j.py"),
    ],
)
def test_pythons_options(words: list[str], options: tuple[str, ...], target: str) -> None:
    command = parsed("--permission", *words)
    assert command.target.python_options == options
    assert command.target.value == target


@pytest.mark.parametrize("words", [["-W"], ["-X"], ["-BX"], ["--check-hash-based-pycs"]])
def test_pythons_options_need_their_values_too(words: list[str]) -> None:
    assert refused("--permission", *words).endswith(" requires an argument")


def test_every_letter_of_python_is_taken() -> None:
    for letter in PYTHON_LETTERS:
        assert parsed(f"-{letter}", "j.py").target.python_options == (f"-{letter}",)


def test_the_words_are_not_changed() -> None:
    words = ["--permission", "-Bc", "1"]
    parse(words, {}, CWD)
    assert words == ["--permission", "-Bc", "1"]


# SANDBOXED_PYTHON_OPTIONS


def test_options_from_the_environment_are_united_with_the_command_line() -> None:
    command = parsed(
        "--allow-fs-read=/a",
        "--allow-net",
        "j.py",
        env="--permission --allow-fs-read=/b --allow-fs-write /c --allow-worker",
    )
    assert command.policy.mode == "enforce"
    assert (reads(command), writes(command)) == (["/b", "/a"], ["/c"])
    assert command.policy.scopes == {"net", "worker"}
    assert [grant.origin for grant in command.policy.read] == [f"--allow-fs-read ({ENVIRONMENT})", "--allow-fs-read"]
    assert command.policy.sources == (ENVIRONMENT, "command line")


def test_every_switch_says_who_gave_it() -> None:
    command = parsed("--allow-net", "--allow-net", "--no-allow-ffi", "j.py", env="--permission --allow-net --allow-ffi")
    assert command.policy.origins == (("net", f"--allow-net ({ENVIRONMENT})"), ("net", "--allow-net"))


def test_options_from_the_environment_are_quoted_as_in_a_shell() -> None:
    command = parsed(
        "j.py", env="""--permission "--allow-fs-read=/a b" --allow-fs-read='/c d',/e --allow-fs-write /f\\ g"""
    )
    assert (reads(command), writes(command)) == (["/a b", "/c d", "/e"], ["/f g"])


def test_pythons_options_may_come_from_there() -> None:
    assert parsed("-B", "j.py", env="--permission -O -X dev").target.python_options == ("-O", "-Xdev", "-B")


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["--no-allow-net"], "--permission --allow-net"),
        (["--no-allow-fs-read"], "--permission --allow-fs-read=*"),
        (["--no-allow-fs-write", "--no-allow-worker"], "--permission --allow-fs-write=/a --allow-worker"),
    ],
)
def test_the_command_line_takes_back(words: list[str], env: str) -> None:
    command = parsed(*words, "j.py", env=env)
    assert (command.policy.scopes, command.policy.read, command.policy.write) == (frozenset(), (), ())
    assert complete(command, CWD).mode == "enforce"


def test_no_permission_on_the_command_line_wins() -> None:
    command = parsed("--no-permission", "j.py", env="--permission")
    assert complete(command, CWD).mode == "off"
    with pytest.raises(MissingOptionError, match="--permission is required"):
        complete(parsed("--no-permission", "j.py", env="--permission --allow-net"), CWD)


def test_a_no_there_can_be_answered_on_the_command_line() -> None:
    assert parsed("--allow-net", "j.py", env="--permission --no-allow-net").policy.scopes == {"net"}


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ("--permission 'open", f"{ENVIRONMENT}: No closing quotation"),
        ("--permission --allow-fs-read=\\", f"{ENVIRONMENT}: No escaped character"),
        ("--permission job.py", f"{ENVIRONMENT} takes options only, not 'job.py'"),
        ("--permission -c pass", f"{ENVIRONMENT} takes options only, not '-c'"),
        ("--permission -", f"{ENVIRONMENT} takes options only, not '-'"),
        ("--permission --", f"{ENVIRONMENT} takes options only, not '--'"),
        ("--allow-env", f"bad option: --allow-env ({ENVIRONMENT})"),
        ("--allow-fs-read=", f"--allow-fs-read ({ENVIRONMENT})= requires an argument (an empty value grants nothing)"),
        ("--allow-fs-read", f"--allow-fs-read ({ENVIRONMENT}) requires an argument"),
        ("-k", f"bad option: -k ({ENVIRONMENT})"),
    ],
)
def test_bad_options_there_are_named_with_the_variable(env: str, text: str) -> None:
    assert refused("j.py", env=env) == text


def test_an_empty_variable_is_none() -> None:
    assert parsed("j.py", env=" ").policy.mode == "off"
    assert parse(["j.py"], {ENVIRONMENT: ""}, CWD).policy.sources == ("command line",)


# Grants without the model


@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: str(row.scope))
def test_a_grant_without_permission_is_refused(row: object) -> None:
    from sandboxed_python.policy.table import Permission

    assert isinstance(row, Permission)
    words = [f"{row.flag}=/a"] if row.kind == "paths" else [row.flag]
    with pytest.raises(MissingOptionError) as caught:
        complete(parsed(*words, "j.py"), CWD)
    assert str(caught.value) == "--permission is required"


def test_without_grants_the_model_may_be_off() -> None:
    for words in ([], ["--no-allow-net"], ["--best-effort"], ["--python=/x"], ["--allow-net", "--no-allow-net"]):
        assert complete(parsed(*words, "j.py"), CWD).mode == "off"


# Policy files


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    (tmp_path / "p.toml").write_text(
        '[permission]\nallow-fs-read = ["in"]\nallow-fs-write = ["/out"]\nallow-net = true\nallow-worker = true\n',
        encoding="utf-8",
    )
    return os.path.realpath(tmp_path)


def test_a_policy_turns_the_model_on_and_is_united(folder: str) -> None:
    command = parsed("--policy=./p.toml", "--allow-fs-read=/a", "j.py", cwd=folder)
    policy = complete(command, folder)
    assert policy.mode == "enforce"
    assert {grant.paths[0] for grant in policy.read} == {f"{folder}/in", "/a"}
    assert policy.scopes == {"net", "worker"}


def test_the_command_line_takes_back_what_a_policy_grants(folder: str) -> None:
    words = ["--permission", "--policy=./p.toml", "--no-allow-net", "--no-allow-fs-write", "j.py"]
    policy = complete(parsed(*words, cwd=folder), folder)
    assert policy.scopes == {"worker"}
    assert policy.write == ()
    assert [grant.paths[0] for grant in policy.read] == [f"{folder}/in"]


def test_no_permission_turns_a_policy_off(folder: str) -> None:
    assert complete(parsed("--policy=./p.toml", "--no-permission", "j.py", cwd=folder), folder).mode == "off"


MIXED = {
    "a.toml": "[permission]\nallow-fs-read = ['in']\nallow-net = true\n",
    "node.config.json": '{"permission": {"allow-fs-read": ["in"],\n"allow-net": true, "allow-ffi": true}}',
    "pyproject.toml": "[tool.sandboxed-python]\nextends = 'batch-worker'\nallow-addons = true\n",
}


def test_all_sources_are_united_and_each_is_named(tmp_path: pathlib.Path) -> None:
    for name, text in MIXED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    here = os.path.realpath(tmp_path)
    command = parsed(
        "--policy", "a.toml", "--policy=node.config.json", "--allow-net", "--allow-fs-read=x", "j.py",
        env="--policy=pyproject.toml --allow-wasi", cwd=here,
    )  # fmt: skip
    policy = complete(command, here)
    assert policy.mode == "enforce"
    assert policy.sources == (
        "preset batch-worker", "pyproject.toml", "a.toml", "node.config.json", ENVIRONMENT, "command line",
    )  # fmt: skip
    origins = {scope: policy.origins_of(scope) for scope in policy.scopes}
    assert origins.pop("worker")[0].startswith("preset batch-worker:")
    assert origins == {
        "net": ("a.toml:3", "node.config.json:2", "--allow-net"),
        "ffi": ("node.config.json:2",),
        "addon": ("pyproject.toml:3",),
        "wasi": (f"--allow-wasi ({ENVIRONMENT})",),
    }
    named = [grant for grant in policy.read if not grant.origin.startswith("preset ")]
    assert [(grant.paths[0], grant.origin) for grant in named] == [
        (f"{here}/in", "a.toml:2"),
        (f"{here}/in", "node.config.json:1"),
        (f"{here}/x", "--allow-fs-read"),
    ]


def test_what_is_taken_back_has_no_source(folder: str) -> None:
    policy = complete(parsed("--policy=./p.toml", "--no-allow-net", "j.py", cwd=folder), folder)
    assert policy.origins == (("worker", "./p.toml:5"),)


def test_variables_are_not_expanded_on_the_command_line() -> None:
    words = ["--allow-fs-read=${HOME}/a,~/b", "--allow-fs-write", "${CWD}/c"]
    for command in (parsed("--permission", *words), parsed(env=f"--permission '{words[0]}' {words[1]} '{words[2]}'")):
        assert reads(command) == [f"{CWD}/${{HOME}}/a", f"{CWD}/~/b"]
        assert writes(command) == [f"{CWD}/${{CWD}}/c"]


@pytest.mark.parametrize("grant", ['"allow-net": true', '"allow-fs-read": ["/a"]', '"allow-fs-write": "/a"'])
def test_a_file_that_leaves_the_model_off(tmp_path: pathlib.Path, grant: str) -> None:
    here = str(tmp_path)
    (tmp_path / "off.json").write_text('{"permission": {"permission": false}}', encoding="utf-8")
    (tmp_path / "bad.json").write_text(f'{{"permission": {{"permission": false, {grant}}}}}', encoding="utf-8")
    assert complete(parsed("--policy=off.json", "j.py", cwd=here), here).mode == "off"
    assert complete(parsed("--policy=off.json", "--permission", "j.py", cwd=here), here).mode == "enforce"
    assert complete(parsed("--policy=off.json", "--policy=read-only", "j.py", cwd=here), here).mode == "enforce"
    assert complete(parsed("--policy=bad.json", "--permission", "j.py", cwd=here), here).mode == "enforce"
    assert complete(parsed("--policy=bad.json", "--no-permission", "j.py", cwd=here), here).mode == "off"
    for words in (["--policy=bad.json"], ["--policy=off.json", "--allow-net"]):
        with pytest.raises(MissingOptionError):
            complete(parsed(*words, "j.py", cwd=here), here)


# Tables


def test_tables_do_not_overlap() -> None:
    assert not SWITCHES & VALUES
    assert {flag for flag, _value, _help in OPTIONS} | {row.flag for row in PERMISSIONS} == SWITCHES | VALUES
    assert NEGATABLE <= SWITCHES | VALUES
    assert len({flag for flag, _value, _help in OPTIONS}) == len(OPTIONS)
    assert all(text for _flag, _value, text in OPTIONS)


TEXT = st.text(max_size=12).map(lambda text: text.replace("\0", ""))  # execve(2) takes none
WORDS = st.lists(
    st.sampled_from(
        [
            *sorted(SWITCHES), *sorted(VALUES), *[f"{flag}=/x" for flag in sorted(VALUES)], "-B", "-Bc", "-Wx", "-X", "-",
            "--", "j.py", "", "-c", "-m", "--no-allow-net", "*", "a,b", "\udcff", "-V", "--=", "---",
        ]
    )
    | TEXT,
    max_size=6,
)  # fmt: skip


@given(WORDS, TEXT | st.just("--permission --allow-net"))
def test_any_words_are_parsed_or_refused_in_one_line(words: list[str], env: str) -> None:
    try:
        command = parse(list(words), {ENVIRONMENT: env}, CWD)
    except (UsageError, MissingOptionError) as error:
        told = str(error)
    else:
        assert command.policy.mode in ("off", "enforce", "audit")
        # What follows the target is the program's, word by word.
        rest = list(command.target.arguments)
        assert rest == words[len(words) - len(rest) :]
        return
    assert told
    assert told.isprintable() or not "".join([*words, env]).isprintable()
