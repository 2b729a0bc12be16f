"""Node's JSON, the table in pyproject.toml, what isn't a file at all; and the line of every mistake."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.errors import PolicyFileError
from sandboxed_python.policy import files
from sandboxed_python.policy.contents import OPTIONS, PERMISSION_KEYS, PYPROJECT
from sandboxed_python.policy.formats import Places, decode
from sandboxed_python.policy.table import PERMISSIONS
from tests.policy.test_policy_files import ENVIRON, Nothing, said

if TYPE_CHECKING:
    import pathlib

    from sandboxed_python.policy.model import Policy


TABLE = "[tool.sandboxed-python]"


def read(text: str, shown: str) -> Policy:
    return files.loads(text, "/project", shown=shown, environ=ENVIRON, lookup=Nothing())


def refused(text: str, shown: str) -> str:
    with pytest.raises(PolicyFileError) as caught:
        read(text, shown)
    told = str(caught.value)
    assert told.isprintable()
    return told


# Node's object

NODE = """{
  "$schema": "https://nodejs.org/dist/v26.0.0/docs/node-config-schema.json",
  "nodeOptions": {"import": ["amaro/strip"], "permission": true},
  "test": {"test-isolation": "none"},
  "permission": {
    "allow-fs-read": ["./foo", "/etc/hosts",
      "data/*"],
    "allow-fs-write": "out",
    "allow-net": true,
    "allow-worker": false
  }
}
"""


def test_nodes_file_is_read_as_it_is() -> None:
    policy = read(NODE, "node.config.json")
    assert said(policy.read) == [
        ("path", ("/project/foo",)),
        ("path", ("/etc/hosts",)),
        ("tree", ("/project/data",)),
    ]
    assert said(policy.write) == [("path", ("/project/out",))]
    assert [grant.origin for grant in (*policy.read, *policy.write)] == [f"node.config.json:{n}" for n in (6, 6, 7, 8)]
    assert policy.scopes == {"net"}
    assert policy.origins == (("net", "node.config.json:9"),)
    assert (policy.mode, policy.sources) == ("enforce", ("node.config.json",))


def test_every_permission_has_nodes_name_in_json() -> None:
    for row in PERMISSIONS:
        value = '["*"]' if row.kind == "paths" else "true"
        policy = read(f'{{"permission": {{"{row.flag[2:]}": {value}}}}}', "p.json")
        assert policy.scopes == (frozenset() if row.kind == "paths" else {row.scope})
        assert (policy.reader.all, policy.writer.all) == (row.scope == "fs.read", row.scope == "fs.write")


@pytest.mark.parametrize("text", ["{}", '{"permission": {}}', '\ufeff{"permission": {"permission": true}}\n', " {\n} "])
def test_an_empty_object_turns_the_model_on(text: str) -> None:
    policy = read(text, "p.json")
    assert (policy.mode, policy.read, policy.write, policy.scopes) == ("enforce", (), (), frozenset())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"permission": {"permission": false}}', "p.json"),
        ("[permission]\npermission = false\n", "p.toml"),
        ("[tool.sandboxed-python]\npermission = false\n", "pyproject.toml"),
        ("[tool.sandboxed-python.permission]\npermission = false\n", "pyproject.toml"),
    ],
)
def test_a_file_can_leave_the_model_off(text: str, shown: str) -> None:
    assert read(text, shown).mode == "off"
    assert read(text.replace("false", "true"), shown).mode == "enforce"


def test_json_can_say_all_that_toml_can() -> None:
    text = (
        '{"extends": ["batch-worker"], "permission": {"allow-worker": false, "warnings": false, "best-effort": true}}'
    )
    policy = read(text, "p.json")
    assert policy.sources == ("preset batch-worker", "p.json")
    assert (policy.scopes, policy.origins) == (frozenset(), ())
    assert (policy.warnings, policy.best_effort) == (False, True)
    assert said(policy.write) == [("tree", ("/scratch",))]


def test_variables_are_expanded_in_json_too() -> None:
    policy = read(
        '{"permission": {"allow-fs-read": ["~/a", "${TMPDIR}/*", "${CWD}/b", "/c,d", "\\u0061\\u0301"]}}', "p.json"
    )
    assert [grant.paths[0] for grant in policy.read] == [
        "/home/me/a",
        "/scratch",
        "/project/b",
        "/c,d",
        "/project/a\u0301",
    ]


JSON_ERRORS = [
    ("", "p.json:1: not JSON: "),
    ('{"permission": {\n"allow-net": tru\n}}', "p.json:2: not JSON: "),
    ('{"permission": {\n"allow-net": true,\n}}', "p.json:"),
    ("{} {}", "p.json:1: not JSON: "),
    ("// why\n{}", "p.json:1: not JSON: "),
    ('{"a\nb": 1}', "p.json:1: not JSON: "),
    ('{"$schema": ' + "[" * 200_000, "p.json:1: not"),
    ('{"$schema": ' + "1" * 5000 + "\n\n", "p.json:"),
    ("[]", "p.json:1: a policy has to be an object, not a list"),
    ('[{"a": 1, "a": 2}]', "p.json:1: a policy has to be an object, not a list"),
    ("null", "p.json:1: a policy has to be an object, not null"),
    ('"x"', "p.json:1: a policy has to be an object, not a string"),
    ('{\n"permission": true}', "p.json:2: permission has to be an object, not true or false"),
    ('{\n"permission":\n[]}', "p.json:2: permission has to be an object, not a list"),
    ('{\n"permission": null}', "p.json:2: permission has to be an object, not null"),
    ('{\n"permissions": {}}', "p.json:2: unknown key 'permissions' at the top: did you mean permission?"),
    ('{\n"allow-net": true}', 'p.json:2: allow-net belongs under "permission"'),
    ('{"nodeOptions": {\n"allow-net": true}}', 'p.json:2: allow-net belongs under "permission"'),
    (
        '{"permission": {"allow-worker": true,\n\n"allow-nett": true}}',
        "p.json:3: unknown key 'allow-nett' in \"permission\": did you mean allow-net?",
    ),
    (
        '{"permission": {\n"allow-fs-reed": ["/a"]}}',
        "p.json:2: unknown key 'allow-fs-reed' in \"permission\": did you mean allow-fs-read?",
    ),
    (
        '{"permission": {\n"--allow-ffi": true}}',
        "p.json:2: unknown key '--allow-ffi' in \"permission\": did you mean allow-ffi?",
    ),
    (
        '{"permission": {\n"permission-audit": true}}',
        "p.json:2: 'permission-audit' in \"permission\": it is an option of the command line",
    ),
    ('{"permission": {\n"extends": []}}', 'p.json:2: extends belongs beside "permission"'),
    (
        '{"permission": {\n"allow-net": "true"}}',
        "p.json:2: allow-net has to be true or false, not a string",
    ),
    ('{"permission": {\n"allow-net": 1.5}}', "p.json:2: allow-net has to be true or false, not a number"),
    ('{"permission": {\n"allow-net": NaN}}', "p.json:2: allow-net has to be true or false, not a number"),
    ('{"permission": {\n"permission": "no"}}', "p.json:2: permission has to be true or false, not a string"),
    (
        '{"permission": {"allow-net": true,\n"allow-worker":\nnull}}',
        "p.json:2: allow-worker has to be true or false, not null",
    ),
    (
        '{"permission": {\n"allow-fs-read": {"a": 1}}}',
        "p.json:2: allow-fs-read has to be a list of paths, not an object",
    ),
    (
        '{"permission": {\n"allow-fs-read": true}}',
        "p.json:2: allow-fs-read has to be a list of paths, not true or false",
    ),
    (
        '{"permission": {"allow-fs-read": [\n"/a",\n{"b":\n2}]}}',
        "p.json:3: allow-fs-read has to be a list of strings, not of an object",
    ),
    ('{"permission": {"allow-fs-read": [\n"/a",\n""]}}', "p.json:3: allow-fs-read: an empty path is refused"),
    (
        '{"permission": {"allow-fs-read": [\n"/a",\n"/a\\u0000"]}}',
        "p.json:3: allow-fs-read: '/a\\x00' holds a NUL character, which no path can",
    ),
    (
        '{"permission": {"allow-fs-read": [\n"/a",\n"/\\ud800"]}}',
        "p.json:3: allow-fs-read: '/\\ud800' holds half a character",
    ),
    (
        '{"permission": {"allow-fs-read": [\n"/a",\n"${HOME}/x", "${HOEM}/x"]}}',
        "p.json:3: allow-fs-read: '${HOEM}/x': unknown variable ${HOEM}; known are ${HOME}, ${TMPDIR}, ${CWD}",
    ),
    (
        '{"permission": {"allow-net": true,\n"allow-ffi": true,\n"allow-net": false}}',
        "p.json:3: 'allow-net' is said twice, first in line 1",
    ),
    (
        '{"permission": {"allow-net": true,\n"allow-\\u006eet": false}}',
        "p.json:2: 'allow-net' is said twice, first in line 1",
    ),
    ('{"permission": {},\n\n"permission": {}}', "p.json:3: 'permission' is said twice, first in line 1"),
    ('{"nodeOptions": {"a": [{"b": 1},\n{"b": 1, "b": 2}]}}', "p.json:2: 'b' is said twice, first in line 2"),
    ('{\n"extends": {}}', "p.json:2: extends has to be a name or a list of names, not an object"),
    ('{"extends": ["read-only",\nnull]}', "p.json:2: extends has to be a list of names, not of null"),
    ('{"extends": ["read-only",\n"./gone.json"]}', "p.json:2: extends './gone.json': there is no /project/gone.json"),
    ('{"extends": [\n"\\ud800.toml"]}', "p.json:2: '\\ud800.toml' can't be the name of a policy"),
    ('{"extends": [\n"./a\\nb"]}', "p.json:2: extends './a\\nb': there is no /project/a\\nb"),
]


@pytest.mark.parametrize(("text", "told"), JSON_ERRORS, ids=[told[:60] for _, told in JSON_ERRORS])
def test_mistakes_in_json_are_told_with_their_line(text: str, told: str) -> None:
    """The whole message, where it is ours; what the parser says differs between versions of Python."""
    message = refused(text, "p.json")
    assert message.startswith(told)
    if told[-1] not in " :" and not told.endswith("not"):
        assert message == told


WRONG = {"1": "a number", "null": "null", '"x"': "a string", "{}": "an object", "[]": "a list", "true": "true or false"}
WRONG_TOML = {
    "1": "a number",
    "1.5": "a number",
    "'x'": "a string",
    "{}": "a table",
    "[]": "a list",
    "07:32:00": "a time",
}


@pytest.mark.parametrize("key", [*PERMISSION_KEYS, *OPTIONS])
def test_every_key_refuses_every_wrong_type(key: str) -> None:
    paths = key in ("allow-fs-read", "allow-fs-write")
    wanted, fine = ("a list of paths", ("a string", "a list")) if paths else ("true or false", ("true or false",))
    for value, name in WRONG.items():
        if name not in fine:
            told = refused(f'{{"permission":\n{{\n"{key}":\n{value}}}}}', "p.json")
            assert told == f"p.json:3: {key} has to be {wanted}, not {name}"
    for value, name in WRONG_TOML.items():
        if name not in fine:
            for start, shown in (("[permission]", "p.toml"), (TABLE, PYPROJECT)):
                told = refused(f"# why\n{start}\n\n{key} = {value}\n", shown)
                assert told == f"{shown}:4: {key} has to be {wanted}, not {name}"


@pytest.mark.parametrize("key", [*PERMISSION_KEYS, *OPTIONS])
def test_every_mistyped_key_is_told_the_nearest(key: str) -> None:
    typo = f"{key[:-2]}x{key[-1]}"
    assert refused(f'{{"permission": {{\n"{typo}": true}}}}', "p.json") == (
        f"p.json:2: unknown key '{typo}' in \"permission\": did you mean {key}?"
    )
    assert refused(f"[permission]\n\n{typo} = true\n", "p.toml") == (
        f"p.toml:3: unknown key '{typo}' in [permission]: did you mean {key}?"
    )
    assert refused(f"{TABLE}\n{typo} = true\n", PYPROJECT) == (
        f"pyproject.toml:2: unknown key '{typo}' in {TABLE}: did you mean {key}?"
    )


def test_json_under_another_name_is_told() -> None:
    told = "p.config:1: not TOML: JSON is read from files whose names end in .json"
    assert refused('\n{"permission": {}}', "p.config") == told


PIECES = st.sampled_from(
    [
        *(
            "{",
            "}",
            "[",
            "]",
            "=",
            ":",
            ",",
            "\n",
            " ",
            '"',
            "'",
            '"' * 3,
            "'" * 3,
            "#",
            ".",
            "\\",
            "\\u0061",
            "\0",
            "\r",
        ),
        *("permission", '"permission"', "allow-net", '"allow-net"', "true", "false", "null", "1", "-inf", "NaN", "é"),
        *("[permission]\n", "allow-net = true\n", '{"permission": {', '"allow-fs-read": ["a"]', "extends", '"extends"'),
        *('"read-only"', "'./x.json'", f"{TABLE}\n", "allow-fs-read = ['a', 1]\n", "\ufeff", "[[", "\u2028", "\x1b"),
    ]
)


@given(
    st.lists(PIECES | st.text(max_size=4), max_size=14).map("".join), st.sampled_from(["p.toml", "p.json", PYPROJECT])
)
@settings(deadline=None, max_examples=400)
def test_any_text_is_a_policy_or_told_in_one_line(text: str, shown: str) -> None:
    try:
        policy = read(text, shown)
    except PolicyFileError as error:
        told = str(error)
        assert told.isprintable()
        name, line, message = told.split(":", 2)
        assert name == shown
        assert 1 <= int(line) <= text.count("\n") + 1
        assert message.strip()
    else:
        assert shown in policy.sources


# pyproject.toml

TEXT = '''[project]
name = "thing"
description = """
[tool.sandboxed-python]
allow-fs-read = ["not here"]
"""

[tool.other]
allow-net = true

[tool.sandboxed-python]
extends = "batch-worker"
allow-fs-read = [
    "src",   # the program, with its "src"
    "src",
]
allow-net = true

[[tool.mypy.overrides]]
allow-net = true
'''


def test_a_table_in_pyproject() -> None:
    policy = read(TEXT, "sub/pyproject.toml")
    assert [(grant.text, grant.origin) for grant in policy.read if grant.text == "src"] == [
        ("src", "sub/pyproject.toml:14"),
        ("src", "sub/pyproject.toml:15"),
    ]
    assert policy.scopes == {"net", "worker"}
    assert policy.origins_of("net") == ("sub/pyproject.toml:17",)
    assert policy.origins_of("worker")[0].startswith("preset batch-worker:")
    assert policy.sources == ("preset batch-worker", "sub/pyproject.toml")


def test_its_grants_may_stand_in_a_table_of_their_own() -> None:
    text = "[tool.sandboxed-python]\nextends = []\n[tool.sandboxed-python.permission]\nallow-net = true\n"
    mixed = "[tool.sandboxed-python]\nallow-net = true\n[tool.sandboxed-python.permission]\nallow-fs-read = ['/a']\n"
    assert read(text, "pyproject.toml").origins == (("net", "pyproject.toml:4"),)
    policy = read(mixed, "pyproject.toml")
    assert policy.scopes == {"net"}
    assert said(policy.read) == [("path", ("/a",))]


PYPROJECT_ERRORS = [
    ("", f"pyproject.toml:1: there is no table {TABLE}"),
    ("[permission]\nallow-net = true\n", f"pyproject.toml:1: there is no table {TABLE}"),
    ("[tool.sandboxed_python]\n", f"pyproject.toml:1: there is no table {TABLE}"),
    ("\ntool = 3\n", "pyproject.toml:2: tool has to be a table, not a number"),
    ("\n[tool]\nsandboxed-python = true\n", "pyproject.toml:3: tool.sandboxed-python has to be a table, not true or false"),
    ("[[tool.sandboxed-python]]\n", "pyproject.toml:1: tool.sandboxed-python has to be a table, not a list"),
    (f"{TABLE}\nallow-nett = true\n", f"pyproject.toml:2: unknown key 'allow-nett' in {TABLE}: did you mean allow-net?"),
    (f"{TABLE}\nextend = []\n", f"pyproject.toml:2: unknown key 'extend' in {TABLE}: did you mean extends?"),
    (f"{TABLE}\n\nallow-net = 3\n", "pyproject.toml:3: allow-net has to be true or false, not a number"),
    (f"{TABLE}\n[tool.sandboxed-python.allow-net]\n", "pyproject.toml:2: allow-net has to be true or false, not a table"),
    (f"{TABLE}\npermission = [1]\n", "pyproject.toml:2: permission has to be true or false, not a list"),
    (
        f"{TABLE}\nallow-net = true\n[tool.sandboxed-python.permission]\nallow-net = false\n",
        "pyproject.toml:4: 'allow-net' is said twice, first in line 2",
    ),
    (
        "[tool.sandboxed-python.permission]\nchild = true\n",
        "pyproject.toml:2: unknown key 'child' in [tool.sandboxed-python.permission]: did you mean allow-child-process?",
    ),
    (
        "[tool.sandboxed-python.permission]\nextends = []\n",
        "pyproject.toml:2: extends belongs before [tool.sandboxed-python.permission]",
    ),
    (
        f'x = "{TABLE}"  # {TABLE}\n{TABLE}\nallow-fs-write = [\n  "/a", \'/b\',\n  """/c\n""",\n  2024-01-01,\n]\n',
        "pyproject.toml:7: allow-fs-write has to be a list of strings, not of a date",
    ),
    (f"{TABLE}\nextends = 'pyproject.toml'\n", "pyproject.toml:2: extends goes in a circle: pyproject.toml -> pyproject.toml"),
    (f"{TABLE}\n[tool]\nx = 1\n[tool]\n", "pyproject.toml:4: not TOML: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), PYPROJECT_ERRORS, ids=[told[:60] for _, told in PYPROJECT_ERRORS])
def test_mistakes_in_pyproject_are_told_with_their_line(text: str, told: str) -> None:
    message = refused(text, "pyproject.toml")
    assert message == told or (told.endswith(" ") and message.startswith(told))


# What isn't a file, or can't be read


def put(folder: pathlib.Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_what_is_no_file_is_refused_at_once(tmp_path: pathlib.Path, suffix: str) -> None:
    """Nothing is read of it: a pipe would make the reader wait, and a device may do something."""
    (tmp_path / f"folder.{suffix}").mkdir()
    os.mkfifo(tmp_path / f"fifo.{suffix}")
    (tmp_path / f"link.{suffix}").symlink_to(f"fifo.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(tmp_path, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/socket.{suffix}")  # a socket's path is short
    listener.close()
    os.close(here)
    for name, kind in (
        ("folder", "a directory"),
        ("fifo", "a pipe"),
        ("link", "a pipe"),
        ("zero", "a device"),
        ("socket", "a socket"),
    ):
        with pytest.raises(PolicyFileError) as caught:
            files.load(f"{name}.{suffix}", str(tmp_path))
        assert str(caught.value) == f"{name}.{suffix}:1: {kind}, not a policy file"
        main = '{"extends": [\n"NAME"]}' if suffix == "json" else 'extends = [\n"NAME"]\n'
        put(tmp_path, f"main.{suffix}", main.replace("NAME", f"{name}.{suffix}"))
        with pytest.raises(PolicyFileError) as caught:
            files.load(f"main.{suffix}", str(tmp_path))
        assert str(caught.value) == f"{name}.{suffix}:1: {kind}, not a policy file"


def test_unreadable_json(tmp_path: pathlib.Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{\n"caf\xe9": 1}')
    (tmp_path / "large.json").write_bytes(b" " * (files.SIZE_LIMIT + 1))
    (tmp_path / "loop.json").symlink_to("loop.json")
    for name, told in (
        ("missing.json", "missing.json:1: can't be read: No such file or directory"),
        ("latin.json", "latin.json:2: not UTF-8, as JSON has to be"),
        ("large.json", "large.json:1: larger than 1048576 bytes: not a policy file"),
        ("loop.json", "loop.json:1: can't be read: Too many levels of symbolic links"),
        ("a\nb\x1b[31m.json", "a\\nb\\x1b[31m.json:1: can't be read: No such file or directory"),
        ("\udcff.json", "\\udcff.json:1: can't be read: No such file or directory"),
        ("a\nb", "a\\nb:1: no such preset: 'a\\nb'. Presets: "),
        ("reed-only", "reed-only:1: no such preset: 'reed-only'. did you mean read-only? Presets: "),
    ):
        with pytest.raises(PolicyFileError) as caught:
            files.load(name, str(tmp_path))
        assert str(caught.value).startswith(told)
        assert str(caught.value) == told or told.endswith("Presets: ")


def test_the_three_formats_extend_one_another(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "node.config.json", '{"permission": {"allow-net": true,\n"allow-fs-read": "in"}}')
    put(tmp_path, "pyproject.toml", "[tool.sandboxed-python]\nextends = 'node.config.json'\nallow-worker = true\n")
    put(tmp_path, "main.toml", "extends = ['pyproject.toml']\n[permission]\nallow-net = true\nallow-worker = false\n")
    policy = files.load("main.toml", str(tmp_path), environ=ENVIRON, lookup=Nothing())
    assert policy.sources == ("node.config.json", "pyproject.toml", "main.toml")
    assert policy.origins == (("net", "node.config.json:1"), ("net", "main.toml:3"))
    assert [(grant.paths, grant.origin) for grant in policy.read] == [((f"{tmp_path}/in",), "node.config.json:2")]


def test_circles_through_formats(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "a.json", '{"permission": {},\n"extends": "pyproject.toml"}')
    put(tmp_path, "pyproject.toml", "[tool.sandboxed-python]\nextends = ['read-only',\n'./a.json']\n")
    with pytest.raises(PolicyFileError) as caught:
        files.load("a.json", str(tmp_path))
    assert str(caught.value) == "pyproject.toml:3: extends goes in a circle: a.json -> pyproject.toml -> a.json"


def test_a_long_chain_ends_in_an_error(tmp_path: pathlib.Path) -> None:
    put(tmp_path, "r0.toml", "")
    for number in range(1, files.DEPTH_LIMIT + 1):
        put(tmp_path, f"r{number}.toml", f"\nextends = 'r{number - 1}.toml'\n")
    assert files.load(f"r{files.DEPTH_LIMIT - 1}.toml", str(tmp_path)).mode == "enforce"
    with pytest.raises(PolicyFileError) as caught:
        files.load(f"r{files.DEPTH_LIMIT}.toml", str(tmp_path))
    assert str(caught.value) == "r1.toml:2: extends 'r0.toml': more than 100 files that extend one another"


# Lines

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def check_lines(value: Any, path: tuple[str | int, ...], places: Places, lines: list[str]) -> None:
    """Compare with the text: each key stands on its line alone, as does the beginning of each item."""
    if isinstance(value, dict):
        for key, inner in value.items():
            assert lines[places.of(*path, key) - 1].strip().startswith(f"{json.dumps(key)}:")
            check_lines(inner, (*path, key), places, lines)
    if isinstance(value, list):
        found = [places.of(*path, index) for index in range(len(value))]
        assert found == sorted(set(found))
        for index, inner in enumerate(value):
            start = json.dumps(inner, indent=1).partition("\n")[0]
            assert lines[found[index] - 1].strip().rstrip(",") == start
            check_lines(inner, (*path, index), places, lines)


@given(st.dictionaries(st.text(max_size=4), TREES, max_size=4))
@settings(deadline=None, max_examples=200)
def test_lines_in_json_are_true(value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    back, places = decode(text, as_json=True)
    assert back == value
    check_lines(value, (), places, text.split("\n"))


TOML = '''# "a" = { [
a.b."c.d" = 1
'e' = [ # ]
  "]", """x
]""""", \'\'\'
'\'\'\', { f = "}", "g\\"\\u0068" = [1.5, -inf] },
  1979-05-27 07:32:00, 07:32:00.5 , [[
  ]],
]
[ "x y" . z ]
k = """\\""" [q] # """ # [q]
m = true
[[rows]]
n = \'\'
[[rows]]
n = ""
o = "" # n = 1
'''


def test_lines_in_toml_are_true() -> None:
    said_there, places = decode(TOML, as_json=False)
    assert isinstance(said_there, dict)
    assert len(said_there["e"]) == 7
    expected = {
        ("a",): 2, ("a", "b", "c.d"): 2, ("e",): 3, ("e", 0): 4, ("e", 1): 4, ("e", 2): 5, ("e", 3): 6,
        ("e", 3, "f"): 6, ("e", 3, 'g"h'): 6, ("e", 3, 'g"h', 1): 6, ("e", 4): 7, ("e", 5): 7, ("e", 6): 7, ("x y",): 10,
        ("x y", "z"): 10, ("x y", "z", "k"): 11, ("x y", "z", "m"): 12, ("rows",): 13, ("rows", "n"): 14,
        ("rows", "o"): 17, ("q",): 1, ("x y", "gone"): 10, (): 1,
    }  # fmt: skip
    assert {path: places.of(*path) for path in expected} == expected
