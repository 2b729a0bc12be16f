"""Policy files: what they say, both ways; what they extend; and errors that name file and line."""

from __future__ import annotations

import os
import pathlib
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.errors import PolicyFileError
from sandboxed_python.policy import files
from sandboxed_python.policy.limits import Limits
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant
from sandboxed_python.policy.table import BY_SCOPE, PERMISSIONS, SWITCHES

ENVIRON = {"HOME": "/home/me", "TMPDIR": "/scratch"}
PRESETS = ["batch-worker", "data-science", "docker-entrypoint", "read-only", "test-runner", "untrusted-code"]


class Nothing:
    """A file system in which there is nothing."""

    def is_dir(self, path: str) -> bool:
        """Know no directories."""
        return path == "/"

    def readlink(self, path: str) -> str:
        """Know no links."""
        raise OSError(2, "missing", path)


def read(text: str, cwd: str = "/project") -> Policy:
    """Read a policy from a string."""
    return files.loads(text, cwd, shown="policy.toml", environ=ENVIRON, lookup=Nothing())


def refused(text: str) -> str:
    """Return the message with which a text is refused."""
    with pytest.raises(PolicyFileError) as caught:
        read(text)
    return str(caught.value)


def said(grants: tuple[Grant, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Return what grants grant."""
    return [(grant.kind, grant.paths) for grant in grants]


def test_a_file_says_everything_a_command_line_can() -> None:
    """Each key does what its option does."""
    policy = read(
        """
        [permission]
        allow-fs-read = ["data/*", "/etc/hosts", "a,b"]
        allow-fs-write = "out/*"
        allow-net = true
        allow-worker = false
        allow-entrypoint = false
        best-effort = true
        allow-writable-runtime = true
        warnings = false
        """
    )
    assert said(policy.read) == [
        ("tree", ("/project/data",)),
        ("path", ("/etc/hosts",)),
        ("path", ("/project/a,b",)),
    ]
    assert said(policy.write) == [("tree", ("/project/out",))]
    assert policy.scopes == {"net"}
    assert policy.mode == "enforce"
    assert (policy.entrypoint, policy.best_effort, policy.writable_runtime, policy.warnings) == (
        False,
        True,
        True,
        False,
    )
    assert policy.sources == ("policy.toml",)


def test_every_permission_has_a_key() -> None:
    """The keys are the table's flags without their dashes."""
    for row in PERMISSIONS:
        value = '["*"]' if row.kind == "paths" else "true"
        policy = read(f"[permission]\n{row.flag[2:]} = {value}\n")
        assert policy.scopes == (frozenset() if row.kind == "paths" else {row.scope})
        assert (policy.reader.all, policy.writer.all) == (row.scope == "fs.read", row.scope == "fs.write")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[permission]\n", "extends = []\n"])
def test_a_file_that_says_nothing_grants_nothing(text: str) -> None:
    """An empty file turns the model on and grants nothing."""
    assert read(text) == Policy(sources=("policy.toml",))


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("${HOME}/x", "path", "/home/me/x"),
        ("~/x", "path", "/home/me/x"),
        ("~", "path", "/home/me"),
        ("${TMPDIR}/*", "tree", "/scratch"),
        ("${CWD}/a*", "prefix", "/project/a"),
        ("/a/$${HOME}", "path", "/a/${HOME}"),
        ("/a/$HOME$", "path", "/a/$HOME$"),
        ("./~x", "path", "/project/~x"),
        ("/a/~", "path", "/a/~"),
    ],
)
def test_expansion(text: str, kind: str, path: str) -> None:
    """The three variables and the tilde are expanded, nothing else; the grant keeps the text as written."""
    (grant,) = read(f"[permission]\nallow-fs-read = ['{text}']\n").read
    assert (grant.text, grant.kind, grant.paths, grant.origin) == (text, kind, (path,), "policy.toml:2")


def test_home_and_tmpdir_have_defaults() -> None:
    """Without TMPDIR it is /tmp, without HOME the user database's; either way absolute."""
    text = "[permission]\nallow-fs-read = ['${TMPDIR}/x']\n"
    policy = files.loads(text, "/", environ={"TMPDIR": ""}, lookup=Nothing())
    assert policy.read[0].paths == ("/tmp/x",)
    home = files.loads("[permission]\nallow-fs-read = '~/x'\n", "/", environ={}, lookup=Nothing())
    assert home.read[0].paths[0].endswith("/x")


def test_a_user_without_a_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a bare user id: neither HOME nor an entry in the user database."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for text in ("~/x", "${HOME}/x"):
        with pytest.raises(PolicyFileError, match=r"^<string>:2: allow-fs-read: .*HOME is '', which isn't an absolute"):
            files.loads(f"[permission]\nallow-fs-read = '{text}'\n", "/", environ={}, lookup=Nothing())


@pytest.mark.parametrize("value", ["relative", "/has/a*star"])
def test_variables_that_would_widen_a_grant_are_refused(value: str) -> None:
    """A HOME that isn't an absolute path without a star can't be what the file's author meant."""
    with pytest.raises(PolicyFileError, match=r"^<string>:2: allow-fs-read: .*HOME is"):
        files.loads("[permission]\nallow-fs-read = '${HOME}/x'\n", "/", environ={"HOME": value}, lookup=Nothing())


@pytest.mark.parametrize(
    ("text", "start", "words"),
    [
        ("[permission]\nallow-net = tru\n", "policy.toml:2: not TOML", ""),
        ("[permission]\n\nallow-net = ", "policy.toml:3: not TOML", ""),
        ("[permission]\nallow-net = true\nallow-net = true\n", "policy.toml:3: not TOML", ""),
        ("a = [" * 5000, "policy.toml:1: not", ""),
        ("[permission]\nallow-nett = true\n", "policy.toml:2: unknown key 'allow-nett'", "did you mean allow-net?"),
        ("[permission]\nallow_fs_read = []\n", "policy.toml:2: unknown key", "did you mean allow-fs-read?"),
        ("[permission]\n--allow-net = true\n", "policy.toml:2: unknown key", "did you mean allow-net?"),
        ("[permission]\nchild = true\n", "policy.toml:2: unknown key", "did you mean allow-child-process?"),
        ("[permission]\nzzz = true\n", "policy.toml:2: unknown key", "known are allow-fs-read, "),
        ("[permission]\npermission-audit = true\n", "policy.toml:2: 'permission-audit' in [permission]: it is an", ""),
        ("allow-net = true\n", "policy.toml:1: allow-net belongs under [permission]", ""),
        ("[permission]\nextends = 'read-only'\n", "policy.toml:2: extends belongs before [permission]", ""),
        ("[permissions]\nallow-net = true\n", "policy.toml:1: unknown key 'permissions'", "did you mean permission?"),
        ("permission = true\n", "policy.toml:1: permission has to be a table, not true or false", ""),
        ("\n[permission]\nallow-net = 'yes'\n", "policy.toml:3: allow-net has to be true or false, not a string", ""),
        ("[permission]\nwarnings = 0\n", "policy.toml:2: warnings has to be true or false, not a number", ""),
        ("[permission]\nallow-fs-read = true\n", "policy.toml:2: allow-fs-read has to be a list of paths, not", ""),
        (
            "[permission]\nallow-fs-read = [\n'/a',\n3]\n",
            "policy.toml:4: allow-fs-read has to be a list of strings, not of a number",
            "",
        ),
        ("[permission]\nallow-fs-read = ['/a',\n'']\n", "policy.toml:3: allow-fs-read: an empty path is refused", ""),
        ("[permission]\nallow-fs-write = ''\n", "policy.toml:2: allow-fs-write: an empty path is refused", ""),
        ('[permission]\nallow-fs-read = "a\\u0000b"\n', "policy.toml:2: allow-fs-read: 'a\\x00b' holds a NUL", ""),
        (
            "[permission]\nallow-fs-read = ['/a',\n'${HOEM}/x']\n",
            "policy.toml:3: allow-fs-read: '${HOEM}/x'",
            "${HOME}",
        ),
        ("[permission]\nallow-fs-read = '${HOME'\n", "policy.toml:2: allow-fs-read", "without }"),
        ("[permission]\nallow-fs-read = '~you/x'\n", "policy.toml:2: allow-fs-read", "~you isn't expanded"),
        ("permission = {\tallow-nett = true }\n", "policy.toml:1: unknown key", ""),
        ("permission.allow-net = true\npermission.allow-x = true\n", "policy.toml:2: unknown key 'allow-x'", ""),
        ("extends = 3\n", "policy.toml:1: extends has to be a name or a list of names", ""),
        ("extends = [\n'./a',['a']]\n", "policy.toml:2: extends './a': there is no /project/a", ""),
        ("extends = [\n['a']]\n", "policy.toml:2: extends has to be a list of names, not of a list", ""),
        ("\nextends = 'readonly'\n", "policy.toml:2: no such preset: 'readonly'", "did you mean read-only?"),
        ("extends = ''\n", "policy.toml:1: '' can't be the name of a policy", ""),
        (
            "\n\nextends = ['./missing.toml']\n",
            "policy.toml:3: extends './missing.toml': there is no /project/missing",
            "",
        ),
    ],
)
def test_errors_name_file_line_and_remedy(text: str, start: str, words: str) -> None:
    """Every mistake is told with its line, and a mistyped key with the one that was meant."""
    message = refused(text)
    assert message.startswith(start)
    assert words in message


def test_lines_of_paths_in_lists() -> None:
    """Each grant's origin is the line it stands on, in lists too."""
    policy = read('[permission]\nallow-fs-read = [\n  "/a",  # why\n  \'/b\',\n  "/\\u0063",\n]\n')
    assert [grant.origin for grant in policy.read] == ["policy.toml:3", "policy.toml:4", "policy.toml:5"]


def write(folder: pathlib.Path, name: str, text: str) -> str:
    """Write a policy file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_unreadable_files(tmp_path: pathlib.Path) -> None:
    """Missing, not UTF-8, too large, a NUL in the name: one line each that names the file."""
    with pytest.raises(PolicyFileError, match=r"^missing.toml:1: can't be read: No such file"):
        files.load("missing.toml", str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"# one\n# caf\xe9\n")
    with pytest.raises(PolicyFileError, match=r"^latin.toml:2: not UTF-8"):
        files.load("latin.toml", str(tmp_path))
    (tmp_path / "large.toml").write_bytes(b"#" * (files.SIZE_LIMIT + 1))
    with pytest.raises(PolicyFileError, match=r"^large.toml:1: larger than 1048576 bytes: not a policy file$"):
        files.load("large.toml", str(tmp_path))
    with pytest.raises(PolicyFileError, match="can't be the name"):
        files.load("a\0.toml", str(tmp_path))


def test_extends(tmp_path: pathlib.Path) -> None:
    """Files extend files beside them and presets; lists are united, and what a file says itself wins."""
    write(
        tmp_path,
        "base.toml",
        "[permission]\nallow-fs-read=['in/*']\nallow-net=true\nallow-worker=true\nwarnings=false\n",
    )
    write(
        tmp_path, "sub/more.toml", "extends='../base.toml'\n[permission]\nallow-fs-read=['here/*']\nallow-net=false\n"
    )
    main = write(tmp_path, "sub/main.toml", "extends=['more.toml','untrusted-code']\n[permission]\nwarnings=true\n")
    policy = files.load(main, "/", environ=ENVIRON, lookup=Nothing())
    assert said(policy.read) == [("tree", (f"{tmp_path}/in",)), ("tree", (f"{tmp_path}/sub/here",))]
    assert policy.scopes == {"worker"}
    assert policy.warnings
    assert policy.sources == (f"{tmp_path}/base.toml", f"{tmp_path}/sub/more.toml", "preset untrusted-code", main)
    assert policy.read[0].origin == f"{tmp_path}/base.toml:2"


def test_extended_files_lie_beside_the_file_not_the_cwd(tmp_path: pathlib.Path) -> None:
    """A relative name is shown and found from the file that extends it."""
    write(tmp_path, "a/base.toml", "[permission]\nallow-oops = true\n")
    write(tmp_path, "a/main.toml", "extends = 'base.toml'\n")
    with pytest.raises(PolicyFileError, match=r"^a/base.toml:2: unknown key 'allow-oops'"):
        files.load("a/main.toml", str(tmp_path))


def test_circles_are_an_error(tmp_path: pathlib.Path) -> None:
    """A file that extends itself, directly or not or through a link, is refused with the whole circle."""
    write(tmp_path, "self.toml", "extends = './self.toml'\n")
    write(tmp_path, "a.toml", "\nextends = ['b.toml']\n")
    write(tmp_path, "b.toml", "extends = ['c.toml']\n")
    os.symlink("a.toml", tmp_path / "c.toml")
    with pytest.raises(PolicyFileError, match=r"^self.toml:1: extends goes in a circle: self.toml -> self.toml$"):
        files.load("self.toml", str(tmp_path))
    with pytest.raises(PolicyFileError, match=r"^b.toml:1: extends goes in a circle: a.toml -> b.toml -> c.toml$"):
        files.load("a.toml", str(tmp_path))


def test_a_file_is_read_once_however_many_extend_it(tmp_path: pathlib.Path) -> None:
    """Diamonds are no circles, and a ladder of them takes no more time than its length."""
    write(tmp_path, "r0.toml", "[permission]\nallow-net = true\n")
    for number in range(1, 40):
        write(tmp_path, f"r{number}.toml", f"extends = ['r{number - 1}.toml', './r{number - 1}.toml']\n")
    assert files.load("r39.toml", str(tmp_path)).scopes == {"net"}


def test_presets_are_there() -> None:
    """The presets of the documentation exist, and each says in its first line what it is for."""
    assert list(files.presets()) == PRESETS
    assert all(files.presets().values())


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_give_reasons(name: str) -> None:
    """Every preset loads; every line that grants or withholds something has a comment saying why."""
    policy = files.load(name, "/project", environ=ENVIRON, lookup=Nothing())
    assert policy.mode == "enforce"
    assert policy.sources == (f"preset {name}",)
    assert all(grant.origin.startswith(f"preset {name}:") for grant in (*policy.read, *policy.write))
    assert {scope for scope, _ in policy.origins} == policy.scopes
    assert not policy.granted("fs.metadata")
    text = pathlib.Path(files.preset_folder(), f"{name}.toml").read_text(encoding="utf-8")
    for line in text.partition("[permission]")[2].splitlines():
        if line.strip() and not line.endswith("= [") and line != "]":
            assert re.search(r"# .{15,}", line), line
            # What stands after a star is ignored; a preset mustn't look narrower than it is.
            assert not re.search(r'^\s*"[^"]*\*[^"]', line), line


def test_presets_promise_what_they_say() -> None:
    """The main promises, checked."""
    loaded = {name: files.load(name, "/project", environ=ENVIRON, lookup=Nothing()) for name in PRESETS}
    untrusted = loaded["untrusted-code"]
    assert (untrusted.read, untrusted.write, untrusted.scopes) == ((), (), frozenset())
    assert loaded["read-only"].reader.all
    assert not loaded["read-only"].write
    assert {name for name, policy in loaded.items() if policy.granted("net")} == {"docker-entrypoint"}
    for name, policy in loaded.items():
        assert not policy.writer.all, name
        assert not policy.writable("/project/main.py") or name == "data-science"
        assert not policy.writable("/proc/self/mem"), name
        assert policy.writable("/scratch/x") == (name not in ("untrusted-code", "read-only")), name
    assert loaded["batch-worker"].readable("/project/main.py")
    assert not loaded["batch-worker"].readable("/home/me/.ssh/id")
    assert loaded["test-runner"].writable("/project/.coverage.host.1")


PATHS = st.lists(
    st.text(st.characters(exclude_characters="/*\0", exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
        lambda name: name not in (".", "..")
    ),
    min_size=1,
    max_size=3,
).map(lambda names: "/" + "/".join(names))
GRANTS = st.one_of(
    st.just(Grant(text="*", kind="all")),
    st.just(Grant(text="/", kind="tree", paths=("/",))),
    st.builds(
        lambda kind, path, reason: Grant(text=path, kind=kind, paths=(path,), reason=reason),
        st.sampled_from(["tree", "prefix", "path"]),
        PATHS,
        st.text(max_size=8),
    ),
)
POLICIES = st.builds(
    Policy,
    read=st.lists(GRANTS, max_size=4).map(tuple),
    write=st.lists(GRANTS, max_size=4).map(tuple),
    scopes=st.frozensets(st.sampled_from(sorted(SWITCHES))),
    entrypoint=st.booleans(),
    best_effort=st.booleans(),
    writable_runtime=st.booleans(),
    warnings=st.booleans(),
    limits=st.builds(
        Limits,
        memory=st.none() | st.integers(1, 1 << 50),
        cpu=st.none() | st.integers(1, 1 << 20).map(lambda value: value / 8),
        open_files=st.none() | st.integers(1, 1 << 20),
        grace=st.none() | st.integers(0, 100).map(float),
    ),
)


@pytest.mark.parametrize("as_json", [False, True], ids=["toml", "json"])
@given(policy=POLICIES)
@settings(deadline=None, max_examples=150)
def test_dumps_is_undone_by_load(as_json: bool, policy: Policy) -> None:  # noqa: FBT001
    """What a file can say comes back from it, whatever the names hold, from whatever folder it is read."""
    text = files.dumps(policy, as_json=as_json)
    shown = "p.json" if as_json else "p.toml"
    back = files.loads(text, "/somewhere/else", shown=shown, environ={"HOME": "/nowhere"}, lookup=Nothing())
    assert set(said(back.read)) == set(said(policy.read))
    assert set(said(back.write)) == set(said(policy.write))
    assert {scope for scope, _ in back.origins} == policy.scopes
    assert back.replace(read=policy.read, write=policy.write, sources=(), origins=()) == policy
    plain = policy.replace(read=tuple([grant.replace(reason="") for grant in policy.read]))
    plain = plain.replace(write=tuple([grant.replace(reason="") for grant in policy.write]))
    assert files.dumps(back, as_json=as_json) == files.dumps(plain, as_json=as_json)


@given(POLICIES)
@settings(deadline=None, max_examples=100)
def test_both_formats_say_the_same(policy: Policy) -> None:
    """What is made of one policy is read as one policy in every format; only the lines differ, and they are true."""
    read_back = []
    for name, as_json in (("p.toml", False), ("p.json", True), ("pyproject.toml", False)):
        text = files.dumps(policy, as_json=as_json)
        if name == "pyproject.toml":
            text = text.replace("[permission]", "[tool.sandboxed-python]", 1)
            text = text.replace("[limits]", "[tool.sandboxed-python.limits]", 1)
        back = files.loads(text, "/x", shown=name, environ={}, lookup=Nothing())
        for grant in (*back.read, *back.write):
            line = text.split("\n")[int(grant.origin.rpartition(":")[2]) - 1]
            assert line.strip().startswith('"')
        for scope, origin in back.origins:
            key = BY_SCOPE[scope].flag[2:]
            assert key in text.split("\n")[int(origin.rpartition(":")[2]) - 1]
        nowhere = [tuple([grant.replace(origin="") for grant in grants]) for grants in (back.read, back.write)]
        read_back.append(back.replace(read=nowhere[0], write=nowhere[1], sources=(), origins=()))
    assert read_back[0] == read_back[1] == read_back[2]


def test_dumps_through_links(tmp_path: pathlib.Path) -> None:
    """A grant through a link keeps both its spellings."""
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "link")
    source = f"[permission]\nallow-fs-read = ['{tmp_path}/link', '{tmp_path}/link/pre*']\n"
    policy = files.loads(source, "/")
    assert policy.read[0].paths == (f"{os.path.realpath(tmp_path)}/real", f"{tmp_path}/link")
    assert said(files.loads(files.dumps(policy), "/").read) == said(policy.read)


def test_dumps_leaves_out_what_needs_no_flag_and_says_why() -> None:
    """Implicit grants aren't said; reasons become comments on the same line, whatever they hold."""
    policy = Policy(
        read=(
            Grant(text="/rt", paths=("/rt",), implicit=True),
            Grant(text="/d", paths=("/d",), reason="opened by\nx.py"),
        )
    )
    text = files.dumps(policy)
    assert text == '[permission]\nallow-fs-read = [\n    "/d/*",  # opened by x.py\n]\n'
    assert said(read(text).read) == [("tree", ("/d",))]


@pytest.mark.parametrize("path", ["/a*b", "/\udcff"])
def test_dumps_refuses_what_a_file_cannot_say(path: str) -> None:
    """A literal star and a name that isn't UTF-8 are refused rather than widened or lost."""
    with pytest.raises(PolicyFileError, match="can't be said in a policy file"):
        files.dumps(Policy(read=(Grant(text=path, kind="path", paths=(path,)),)))


def test_missing_toml_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tomllib and tomli the message says what to install."""
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    assert "pip install tomli" in refused("[permission]\n")
