"""The installed command: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxed_python import __version__
from sandboxed_python.cli.args import NEGATABLE, OPTIONS
from sandboxed_python.cli.check import yama
from sandboxed_python.kernel import landlock, uapi
from sandboxed_python.kernel.probe import probe
from sandboxed_python.launch.exits import CODE, EXIT_CODES
from sandboxed_python.plan.build import NEEDED_ABI
from sandboxed_python.plan.model import Plan
from sandboxed_python.policy.table import PERMISSIONS
from tests.launch.plain import inside, plain, plain_python
from tests.support import installed

if TYPE_CHECKING:
    import pathlib

    from tests.support import Finished, Need, Run

HELLO = ("-c", "print('hello')")


def one_line(ended: Finished) -> str:
    """Return the only line on stderr, without the command's name; nothing else was printed."""
    assert ended.stdout == ""
    assert ended.stderr.startswith("sandboxed-python: "), ended.said
    assert ended.stderr.count("\n") == 1, ended.said
    return ended.stderr.removeprefix("sandboxed-python: ").rstrip("\n")


# Bad command lines


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--allow-env"], "bad option: --allow-env"),
        (["-k"], "bad option: -k"),
        (["--allow-fs-read="], "--allow-fs-read= requires an argument (an empty value grants nothing)"),
        (["--allow-fs-read", ""], "--allow-fs-read= requires an argument (an empty value grants nothing)"),
        (["--allow-fs-read"], "--allow-fs-read requires an argument"),
        (["--allow-net=example.com"], "--allow-net takes no value: '--allow-net=example.com'"),
        (["-c"], "-c requires an argument"),
    ],
)
@pytest.mark.parametrize("model", [True, False])
def test_bad_options_are_exit_9(run: Run, words: list[str], text: str, model: bool) -> None:  # noqa: FBT001
    ended = run(*(["--permission"] if model else []), *words)
    assert (ended.code, one_line(ended)) == (9, text)


def test_bad_options_run_nothing(run: Run, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "p.py"
    program.write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    for words in (["--permission", "--allow-env"], ["--allow-net"], ["--permission", "--policy=no-such"]):
        assert run(*words, program).code in (1, 9)
    assert not (tmp_path / "made").exists()
    assert run(program).code == 0
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: str(row.scope))
def test_a_grant_without_permission_is_exit_1(run: Run, row: object) -> None:
    from sandboxed_python.policy.table import Permission

    assert isinstance(row, Permission)
    word = f"{row.flag}=/tmp" if row.kind == "paths" else row.flag
    ended = run(word, *HELLO)
    assert (ended.code, one_line(ended)) == (1, "ERR_MISSING_OPTION: --permission is required")


def test_bad_options_in_the_environment(run: Run) -> None:
    ended = run(*HELLO, env={"SANDBOXED_PYTHON_OPTIONS": "--permission --allow-everything"})
    assert (ended.code, one_line(ended)) == (9, "bad option: --allow-everything (SANDBOXED_PYTHON_OPTIONS)")
    ended = run(*HELLO, env={"SANDBOXED_PYTHON_OPTIONS": "--permission 'half"})
    assert (ended.code, one_line(ended)) == (9, "SANDBOXED_PYTHON_OPTIONS: No closing quotation")


def test_bad_policies_are_exit_9_by_file_and_line(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "p.toml").write_text("[permission]\nallow-fs-red = ['/a']\n", encoding="utf-8")
    ended = run("--permission", "--policy=./p.toml", *HELLO, cwd=tmp_path)
    assert ended.code == 9
    assert "p.toml:2: " in one_line(ended)
    assert "allow-fs-read" in one_line(ended)
    ended = run("--permission", "--policy", "no-such", *HELLO)
    assert ended.code == 9
    assert "no-such" in one_line(ended)


BAD_FILES = {
    "p.json": (b'{"permission": {\n"allow-nett": true}}', "p.json:2: unknown key 'allow-nett' in \"permission\": did you mean allow-net?"),
    "type.json": (b'{"permission": {"allow-net":\n1}}', "type.json:1: allow-net has to be true or false, not a number"),
    "twice.json": (
        b'{"permission": {"allow-net": true,\n"allow-net": false}}',
        "twice.json:2: 'allow-net' is said twice, first in line 1",
    ),
    "pyproject.toml": (
        b"[tool.sandboxed-python]\nallow-fs-red = ['/a']\n",
        "pyproject.toml:2: unknown key 'allow-fs-red' in [tool.sandboxed-python]: did you mean allow-fs-read?",
    ),
    "latin.json": (b'{"\xe9": 1}', "latin.json:1: not UTF-8, as JSON has to be"),
    "huge.json": (b" " * (1 << 20) + b"{}", "huge.json:1: larger than 1048576 bytes: not a policy file"),
    "circle.json": (
        b'{\n"extends": "./circle.json"}',
        "circle.json:2: extends goes in a circle: circle.json -> circle.json",
    ),
    "fifo.toml": (None, "fifo.toml:1: a pipe, not a policy file"),
    "missing.json": (None, "missing.json:1: can't be read: No such file or directory"),
    "./": (None, "./:1: a directory, not a policy file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_policy_that_cannot_be_used_runs_nothing(run: Run, tmp_path: pathlib.Path, name: str) -> None:
    data, told = BAD_FILES[name]
    if name == "fifo.toml":
        os.mkfifo(tmp_path / name)
    elif data is not None:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.json").write_text('{"permission": {"allow-fs-write": ["."]}}')
    program = tmp_path / "p.py"
    program.write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    for words in (["--permission"], [], ["--explain"]):
        ended = run(*words, "--policy=good.json", "--policy", name, program, cwd=tmp_path)
        assert (ended.code, one_line(ended)) == (9, told)
    ended = run(program, cwd=tmp_path, env={"SANDBOXED_PYTHON_OPTIONS": f"--policy={name}"})
    assert (ended.code, one_line(ended)) == (9, told)
    assert not (tmp_path / "made").exists()


def test_nodes_file_and_pyproject_confine(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    (tmp_path / "sub" / "in").mkdir(parents=True)
    for name in ("sub/in/a", "sub/b", "c"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub" / "node.config.json").write_text('{"permission": {"allow-fs-read": ["./in"]}}')
    (tmp_path / "sub" / "pyproject.toml").write_text("[tool.sandboxed-python]\nallow-fs-read = ['in']\n")
    code = """
import sys
for name in sys.argv[1:]:
    try:
        print(open(name).read(), sys.permission.has('fs.read', name))
    except PermissionError:
        print('no', sys.permission.has('fs.read', name))
"""
    # The paths start from the file's folder, not from the working directory, where Node starts them.
    for name in ("sub/node.config.json", "sub/pyproject.toml"):
        ended = run(f"--policy={name}", "-c", code, "sub/in/a", "sub/b", "c", cwd=tmp_path)
        assert (ended.code, ended.stdout) == (0, "sub/in/a True\nno False\nno False\n"), ended.said
        more = run(f"--policy={name}", "--policy=read-only", "-c", code, "sub/in/a", "sub/b", "c", cwd=tmp_path)
        assert (more.code, more.stdout) == (0, "sub/in/a True\nsub/b True\nc True\n"), more.said


def test_nodes_file_can_leave_the_model_off(run: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "off.json").write_text('{"permission": {"permission": false}}')
    (tmp_path / "bad.json").write_text('{"permission": {"permission": false, "allow-net": true}}')
    code = "import sys; print(hasattr(sys, 'permission'))"
    assert run("--policy=off.json", "-c", code, cwd=tmp_path).stdout == "False\n"
    ended = run("--policy=bad.json", "-c", code, cwd=tmp_path)
    assert (ended.code, one_line(ended)) == (1, "ERR_MISSING_OPTION: --permission is required")


def test_refused_grants_are_exit_9(run: Run, needs: Need) -> None:
    needs()
    ended = run("--permission", "--allow-fs-write=/proc/1/mem", *HELLO)
    assert ended.code == 9
    assert one_line(ended).startswith("--allow-fs-write: '/proc/1/mem' is refused: ")
    site = os.path.dirname(os.path.dirname(plain("-c", "import os; print(os.__file__)").stdout))
    ended = run("--permission", f"--allow-fs-write={site}", *HELLO)
    assert ended.code == 9
    assert "--allow-writable-runtime" in one_line(ended)
    assert run("--permission", "--allow-writable-runtime", f"--allow-fs-write={site}", *HELLO).stdout == "hello\n"


def test_audit_alone_is_silent(run: Run) -> None:
    ended = run("--permission-audit", *HELLO)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "hello\n", "")


def test_a_log_takes_the_model(run: Run, tmp_path: pathlib.Path) -> None:
    ended = run(f"--permission-log={tmp_path / 'log'}", *HELLO)
    assert ended.code == 1
    assert one_line(ended).startswith("ERR_MISSING_OPTION: ")
    assert not (tmp_path / "log").exists()


# Without the model


def test_without_permission_it_is_plain_python(run: Run, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "p.py"
    program.write_text("import sys; print(sys.argv, sys.flags.optimize, hasattr(sys, 'permission')); sys.exit(5)")
    ended = run("-O", program, "a", "--permission", cwd=tmp_path)
    assert (ended.code, ended.stdout) == (5, f"[{str(program)!r}, 'a', '--permission'] 1 False\n")
    code = "import sys; print(sys.orig_argv[1:], sys.argv, sys.path[0], list(sys.modules))"
    assert run("-c", code, "x").stdout == plain("-c", code, "x").stdout
    assert run("-m", "platform", "--terse").stdout == plain("-m", "platform", "--terse").stdout
    assert run(stdin="print(6 * 7)").stdout == "42\n"
    assert run("-", "x", stdin="import sys; print(sys.argv)").stdout == "['-', 'x']\n"


def test_no_permission_on_the_command_line_wins(run: Run) -> None:
    code = "import sys, os; print(hasattr(sys, 'permission'), 'SANDBOXED_PYTHON_OPTIONS' in os.environ)"
    ended = run("--no-permission", "-c", code, env={"SANDBOXED_PYTHON_OPTIONS": "--permission"})
    assert (ended.code, ended.stdout) == (0, "False False\n")


def test_pythons_own_stopping_options(run: Run) -> None:
    for words in (["-V"], ["--permission", "-VV"]):
        assert run(*words).stdout == plain(words[-1]).stdout
    assert run("--permission", "-h").stdout.startswith("usage: ")


# Options from the environment


def test_options_from_the_environment_confine(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    target = tmp_path / "t"
    target.write_text("x")
    code = f"import sys; print(sys.permission.has('fs.read', {str(target)!r})); print(open({str(target)!r}).read())"
    granted = run("-c", code, env={"SANDBOXED_PYTHON_OPTIONS": f"--permission '--allow-fs-read={target}'"})
    assert (granted.code, granted.stdout) == (0, "True\nx\n")
    denied = run("-c", code, env={"SANDBOXED_PYTHON_OPTIONS": "--permission"})
    assert (denied.code, denied.stdout) == (1, "False\n")
    # The program, and what it starts, must not be confined once more by the same variable.
    left = run("-c", "import os; print(os.environ.get('SANDBOXED_PYTHON_OPTIONS'))", env={
        "SANDBOXED_PYTHON_OPTIONS": "--permission"
    })  # fmt: skip
    assert left.code == 0


# Help, version, check


def test_help_is_made_of_the_tables(run: Run) -> None:
    ended = run("--help")
    assert (ended.code, ended.stderr) == (0, "")
    text = " ".join(ended.stdout.split())
    for row in PERMISSIONS:
        assert f" {row.flag}{'=PATH[,PATH]' if row.kind == 'paths' else ''} [{row.scope}] {row.gates} " in text
    for flag, value, about in OPTIONS:
        assert f" {flag}={value} {about}" in text if value else f" {flag} {about}" in text
        if flag in NEGATABLE and "--no-" not in about:
            assert f"{flag}{'=' + value if value else ''} {about} (also --no-...)" in text
    for code, _name, meaning in EXIT_CODES:
        assert f" {code} {meaning}" in text
    assert all(len(line) <= 120 for line in ended.stdout.splitlines())
    assert ended.stdout.startswith("usage: sandboxed-python ")


def test_exit_codes_are_one_table() -> None:
    assert [code for code, _name, _meaning in EXIT_CODES] == [0, 1, 2, 9, 124, 125, 126, 127, 128]
    assert len(CODE) == len(EXIT_CODES)


def test_version(run: Run) -> None:
    for words in (["--version"], ["--permission", "--version", "x.py"], ["--version", "--allow-net"]):
        ended = run(*words)
        version = plain("-V").stdout.split()[1]
        assert (ended.code, ended.stdout) == (0, f"sandboxed-python {__version__} (Python {version})\n")


def test_check_tells_what_this_machine_can(run: Run) -> None:
    ended = run("--check")
    found = run("--check", "--json")
    data = json.loads(found.stdout)
    assert ended.code == found.code == (0 if data["ok"] else 1)
    assert data["ok"] is all(row["ok"] for row in data["rows"])
    rows = {row["name"].strip(): row for row in data["rows"]}
    support = probe()
    assert rows["kernel"]["found"] == support.release
    assert rows["architecture"] == {
        "name": "architecture",
        "ok": support.machine in uapi.AUDIT_ARCH,
        "found": support.machine,
        "meaning": rows["architecture"]["meaning"],
    }
    assert rows["Landlock ABI"]["found"].split()[0] == str(support.landlock)
    assert rows["Landlock ABI"]["ok"] is (support.landlock >= NEEDED_ABI)
    for table in (landlock.FS_RIGHTS, landlock.NET_RIGHTS, landlock.SCOPES):
        for name, _bit, since, what in table:
            there = since <= support.landlock
            assert rows[name]["meaning"] == what
            assert (rows[name]["found"] == "yes") is there
            assert rows[name]["ok"] is (there or since > NEEDED_ABI)
    for name in ("no_new_privs", "install a filter", "install a listener", "restrict with Landlock", "capabilities"):
        assert name in rows
    assert rows["read a child's memory"]["ok"] <= rows["Yama ptrace_scope"]["ok"]
    for row in data["rows"]:
        assert row["meaning"]
        assert f"{row['name']} " in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("everything" if data["ok"] else "not everything")


def test_check_where_everything_works(run: Run, needs: Need) -> None:
    needs()
    ended = run("--check")
    assert ended.code == 0, ended.said
    assert not [line for line in ended.stdout.splitlines() if line.startswith("NO ")]


@pytest.mark.parametrize(
    ("call", "refusal", "row"),
    [
        ("landlock_create_ruleset", "ENOSYS", "Landlock ABI"),
        ("landlock_create_ruleset", "EPERM", "Landlock ABI"),
        ("landlock_restrict_self", "EPERM", "restrict with Landlock"),
        ("seccomp", "EPERM", "install a filter"),
        ("process_vm_readv", "EPERM", "read a child's memory"),
    ],
)
def test_check_in_a_container_that_refuses(run: Run, needs: Need, call: str, refusal: str, row: str) -> None:
    needs()
    ended = run("--check", "--json", command=[*inside(call, refusal), *installed()])
    assert ended.code == 1, ended.said
    rows = {found["name"].strip(): found for found in json.loads(ended.stdout)["rows"]}
    assert rows[row]["ok"] is False
    if row != "Landlock ABI":
        assert "Operation not permitted" in rows[row]["found"]
        assert call in rows[row]["found"]


@pytest.mark.parametrize(
    ("text", "good", "found"),
    [("0\n", True, "0"), ("1\n", True, "1"), ("2\n", False, "2"), ("3\n", False, "3"), (None, True, "no Yama")],
)
def test_check_looks_at_yama(tmp_path: pathlib.Path, text: str | None, good: bool, found: str) -> None:  # noqa: FBT001
    setting = tmp_path / "ptrace_scope"
    if text is not None:
        setting.write_text(text)
    assert yama(str(setting)) == (good, found)


@pytest.mark.parametrize("call", ["landlock_create_ruleset", "seccomp"])
def test_what_cannot_be_enforced_is_refused_unless_best_effort(run: Run, needs: Need, call: str) -> None:
    needs()
    command = [*inside(call, "EPERM"), *installed()]
    ended = run("--permission", *HELLO, command=command)
    assert ended.code == 125
    text = one_line(ended)
    assert "can't enforce the policy. Needed: Landlock ABI 6" in text
    assert "--best-effort runs without what is missing" in text
    if call == "landlock_create_ruleset":
        ended = run("--permission", "--best-effort", *HELLO, command=command)
        assert (ended.code, ended.stdout) == (0, "hello\n")
        assert ended.stderr.startswith(
            "sandboxed-python: --best-effort: not enforced: Landlock is not available (EPERM)"
        )


def test_best_effort_without_seccomp_enforces_files(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    (tmp_path / "secret").write_text("s")
    command = [*inside("seccomp", "EPERM"), *installed()]
    code = f"import sys\ntry:\n print(open({str(tmp_path / 'secret')!r}).read())\nexcept OSError as e:\n print(e.errno)"
    ended = run("--permission", "--best-effort", "-c", code, command=command)
    assert (ended.code, ended.stdout) == (0, "13\n"), ended.said
    assert "not enforced: seccomp filters" in ended.stderr


# Explain


def test_explain_prints_and_stops(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    made = tmp_path / "made"
    words = ["--permission", f"--allow-fs-write={tmp_path}", "--allow-net", "--explain"]
    ended = run(*words, "-c", f"open({str(made)!r}, 'w')")
    assert ended.code == 0, ended.said
    assert not made.exists()
    for text in ("Granted by you", str(tmp_path), "fs.write", "Denied", "--allow-child-process allows it", "Landlock"):
        assert text in ended.stdout
    data = json.loads(run(*words, "--json", "-c", "pass").stdout)
    plan = Plan.from_data(data)
    assert plan.policy.scopes == {"net"}
    assert (plan.target.kind, plan.target.value) == ("code", "pass")
    assert plan.target.python in ("", plain_python())


def test_explain_names_the_source_of_every_grant(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    (tmp_path / "node.config.json").write_text('{"permission": {"allow-fs-read": ["in"],\n"allow-net": true}}')
    (tmp_path / "pyproject.toml").write_text("[tool.sandboxed-python]\nextends = 'read-only'\nallow-worker = true\n")
    words = ["--policy=node.config.json", "--allow-net", "--explain"]
    env = {"SANDBOXED_PYTHON_OPTIONS": "--policy=pyproject.toml --allow-fs-write=out --allow-ffi"}
    ended = run(*words, "-c", "0", cwd=tmp_path, env=env)
    assert ended.code == 0, ended.said
    here = os.path.realpath(tmp_path)
    granted = ended.stdout.partition("Granted by you\n")[2].partition("\n\n")[0].splitlines()
    gates = {row.scope: row.gates for row in PERMISSIONS}
    assert granted == [
        "  fs.read   everything   (preset read-only:5)",
        f"  fs.read   the file {here}/in   (node.config.json:1)",
        f"  fs.write  the file {here}/out   (--allow-fs-write (SANDBOXED_PYTHON_OPTIONS))",
        f"  worker    {gates['worker']}   (pyproject.toml:3)",
        f"  ffi       {gates['ffi']}   (--allow-ffi (SANDBOXED_PYTHON_OPTIONS))",
        f"  net       {gates['net']}   (node.config.json:2, --allow-net)",
    ]
    policy = json.loads(run(*words, "--json", "-c", "0", cwd=tmp_path, env=env).stdout)["policy"]
    assert sorted(policy["origins"]) == [
        ["ffi", "--allow-ffi (SANDBOXED_PYTHON_OPTIONS)"],
        ["net", "--allow-net"],
        ["net", "node.config.json:2"],
        ["worker", "pyproject.toml:3"],
    ]


def test_output_to_a_closed_pipe_is_no_traceback(run: Run) -> None:
    ended = run(command=["/bin/sh", "-c", '"$0" --help >&-', *[__import__("tests.support").support.installed()[0]]])
    assert "Traceback" not in ended.stderr
    assert ended.code in (0, 1)


# Warnings


def test_only_true_warnings_are_printed_and_can_be_silenced(run: Run, needs: Need) -> None:
    needs()
    every = [row.flag for row in PERMISSIONS if row.kind == "switch"]
    loud = run("--permission", *every, *HELLO)
    assert loud.stdout == "hello\n", loud.said
    warned = [row.warning for row in PERMISSIONS if row.warning]
    assert loud.stderr.splitlines() == [f"sandboxed-python: warning: {text}" for text in warned]
    quiet = run("--permission", "--no-warnings", *every, *HELLO)
    assert (quiet.stdout, quiet.stderr) == ("hello\n", "")
    ignored = run("--permission", *every, *HELLO, env={"PYTHONWARNINGS": "ignore"})
    assert (ignored.stdout, ignored.stderr) == ("hello\n", "")
    for silent in ((), ("--allow-inspector",), ("--allow-child-process",)):
        assert run("--permission", *silent, *HELLO).stderr == ""
    explained = run("--permission", *every, "--explain", *HELLO)
    assert all(f"  {text}\n" in explained.stdout.partition("\nWarnings\n")[2] for text in warned), explained.said


# Starting


def test_as_a_module(run: Run, needs: Need, tmp_path: pathlib.Path) -> None:
    needs()
    # What lies in the working directory must not be run by the supervisor.
    (tmp_path / "os.py").write_text("print('stolen')")
    (tmp_path / "sandboxed_python.py").write_text("print('stolen')")
    command = [plain_python(), "-P" if sys.version_info >= (3, 11) else "-I", "-m", "sandboxed_python"]
    ended = run(
        "--permission",
        "-c",
        "import sys; print(sys.argv, sys.permission.has('net'))",
        "a",
        command=command,
        cwd=tmp_path,
    )
    assert (ended.code, ended.stdout) == (0, "['-c', 'a'] False\n"), ended.said
    assert run("--version", command=command).stdout.startswith(f"sandboxed-python {__version__}")
    assert run("--permission", "--bad", command=command).code == 9


def test_a_working_directory_that_is_gone(run: Run, tmp_path: pathlib.Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$1"; shift; exec "$@"'
    ended = run(command=["/bin/sh", "-c", script, "sh", str(gone), *installed(), "--permission", *HELLO], cwd=gone)
    assert (ended.code, ended.stdout) == (125, "")
    # The shell that starts the command may have its say, too.
    assert ended.stderr.splitlines()[-1] == "sandboxed-python: the working directory: No such file or directory"
