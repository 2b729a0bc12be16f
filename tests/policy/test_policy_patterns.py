"""Paths: grants, links, commas and matching, against slow literal readings of the documentation and of the kernel."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sandboxed_python.errors import UsageError
from sandboxed_python.policy.patterns import (
    LINK_LIMIT,
    Grant,
    Matcher,
    OSLookup,
    literal_grant,
    normalize,
    resolve,
    seen_from,
)
from sandboxed_python.policy.spelling import parse_grant, split_commas

FLAG = "--allow-fs-read"


class Tree:
    """A file system of names: directories and links."""

    def __init__(self, dirs: set[str] | None = None, links: dict[str, str] | None = None) -> None:
        """Take the directories and the links with their targets."""
        self.dirs = dirs or set()
        self.links = links or {}

    def is_dir(self, path: str) -> bool:
        """Tell whether the path is a directory."""
        return path in self.dirs

    def readlink(self, path: str) -> str:
        """Return a link's target."""
        if path in self.links:
            return self.links[path]
        raise OSError(22, "not a link")


TREE = Tree(
    {"/", "/d", "/d/sub", "/home", "/home/test", "/real", "/real/in"},
    {"/link": "real", "/d/up": "../real/in", "/d/file": "/real/f", "/d/gone": "/nowhere/x", "/loop": "loop"},
)


def grant(text: str, cwd: str = "/d") -> Grant:
    """Parse a grant in TREE."""
    return parse_grant(text, FLAG, cwd, TREE)


@pytest.mark.parametrize(
    ("text", "kind", "paths"),
    [
        ("*", "all", ()),
        ("/", "tree", ("/",)),
        ("/*", "tree", ("/",)),
        ("/d", "tree", ("/d",)),
        ("/d/", "tree", ("/d",)),
        ("/d/*", "tree", ("/d",)),
        ("/d/*.js", "tree", ("/d",)),
        (".", "tree", ("/d",)),
        ("*.js", "tree", ("/d",)),
        ("*/x", "tree", ("/d",)),
        ("**", "tree", ("/d",)),
        ("./*", "tree", ("/d",)),
        ("sub", "tree", ("/d/sub",)),
        ("../home//test/.", "tree", ("/home/test",)),
        ("/new", "path", ("/new",)),
        ("/new/", "path", ("/new",)),
        ("/new/*", "tree", ("/new",)),
        ("/home/test*", "prefix", ("/home/test",)),
        ("/home/te*st*", "prefix", ("/home/te",)),
        ("/home/a*/b/../..", "tree", ("/home",)),
        ("/home/a*/../c*", "prefix", ("/home/c",)),
        ("/home/a*/../../../d", "tree", ("/d",)),
        ("a*/..", "tree", ("/d",)),
        ("/a*/..", "tree", ("/",)),
        ("/a*", "prefix", ("/a",)),
        ("a*/b/../c", "prefix", ("/d/a",)),
        # Links: the tree they lead to, under both spellings.
        ("/link", "tree", ("/real", "/link")),
        ("/link/", "tree", ("/real", "/link")),
        ("/link/*", "tree", ("/real", "/link")),
        ("/link/te*", "prefix", ("/real/te", "/link/te")),
        ("/link/new", "path", ("/real/new", "/link/new")),
        ("up", "tree", ("/real/in", "/d/up")),
        ("file", "path", ("/real/f", "/d/file")),
        ("gone", "path", ("/nowhere/x", "/d/gone")),
        ("/loop", "path", ("/loop",)),
        # ".." after a link goes where the kernel goes, and nowhere else.
        ("up/..", "tree", ("/real",)),
        ("up/../../home", "tree", ("/home",)),
        ("/link/../home", "tree", ("/home",)),
        # Nothing else is special.
        ("/d/?[x]{a,b}~$HOME%", "path", ("/d/?[x]{a,b}~$HOME%",)),
        ("~", "path", ("/d/~",)),
    ],
)
def test_grants(text: str, kind: str, paths: tuple[str, ...]) -> None:
    """Each documented form becomes the grant it should."""
    made = grant(text)
    assert (made.text, made.kind, made.paths, made.origin, made.implicit) == (text, kind, paths, FLAG, False)


@pytest.mark.parametrize("text", ["", "a\0b", "a\0*"])
def test_refused_values_name_the_flag(text: str) -> None:
    """An empty value (an unset shell variable) and a NUL are refused."""
    with pytest.raises(UsageError, match=rf"^{FLAG}\b"):
        grant(text)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_refused_literal_paths(path: str) -> None:
    """Also where the path isn't a flag's value."""
    with pytest.raises(UsageError, match=r"^entry"):
        literal_grant(path, "entry", "/d", TREE)


def test_a_literal_grant_has_no_wildcards() -> None:
    """A script that is called ``a*.py`` grants itself, not everything that starts with ``a``."""
    made = literal_grant("a*.py", "entry", "/d", TREE, implicit=True, reason="entry script")
    assert (made.kind, made.paths, made.implicit, made.reason) == ("path", ("/d/a*.py",), True, "entry script")
    assert literal_grant("sub", "entry", "/d", TREE).kind == "tree"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("/a", ["/a"]),
        ("/a,/b", ["/a", "/b"]),
        ("/a\\,b", ["/a,b"]),
        ("/a\\,b,c", ["/a,b", "c"]),
        ("a\\b", ["a\\b"]),
        ("a\\b,c\\d", ["a\\b", "c\\d"]),
        ("\\,", [","]),
        ("\\\\,x", ["\\,x"]),
        (" , ", [" ", " "]),
    ],
)
def test_split_commas(value: str, parts: list[str]) -> None:
    """Commas separate, an escaped one is literal, other backslashes are themselves."""
    assert split_commas(value, FLAG) == parts


@pytest.mark.parametrize("value", ["", ",", "a,", ",a", "a,,b", "\0", "a\0\\,b"])
def test_split_commas_refuses_empty_parts(value: str) -> None:
    """An empty value or part is refused; the message names the flag."""
    with pytest.raises(UsageError, match=rf"^{FLAG}\b"):
        split_commas(value, FLAG)


# A backslash at the end of a part can't be told from an escape; no other path is out of reach.
PARTS = st.lists(
    st.text(st.characters(exclude_characters="\0"), min_size=1).filter(lambda part: part[-1] != "\\"), min_size=1
)


@given(PARTS)
@settings(deadline=None, max_examples=100)
def test_split_commas_round_trips(parts: list[str]) -> None:
    """Escaping the commas of paths and joining them is undone by splitting."""
    assert split_commas(",".join([part.replace(",", "\\,") for part in parts]), FLAG) == parts


# Path texts that collide often.
NAMES = st.sampled_from(["a", "b", "ab", "abc", "a.b", ".a", "..b", "é"])
STEPS = st.one_of(NAMES, st.sampled_from(["", ".", ".."]))
TEXTS = st.builds(
    lambda absolute, steps, slash: ("/" if absolute else "") + "/".join(steps) + slash,
    st.booleans(),
    st.lists(STEPS, max_size=6),
    st.sampled_from(["", "/"]),
)
PATHS = st.lists(NAMES, max_size=4).map(lambda names: "/" + "/".join(names))


@given(TEXTS, PATHS)
@settings(deadline=None, max_examples=200)
def test_normalize(text: str, cwd: str) -> None:
    """normalize() is os.path.normpath without its double slash, absolute, and changes nothing the second time."""
    made = normalize(text, cwd)
    assert made == "/" + os.path.normpath(os.path.join(cwd, text)).lstrip("/")
    assert normalize(made, "/elsewhere") == made


@given(TEXTS, PATHS)
@settings(deadline=None, max_examples=100)
def test_resolve_without_links_is_normalize(text: str, cwd: str) -> None:
    """Where there are no links, resolving is a matter of letters."""
    assert resolve(text, cwd, Tree().readlink) == normalize(text, cwd)


class Counting:
    """Count the links that os.readlink follows."""

    def __init__(self) -> None:
        """Start at none."""
        self.links = 0

    def __call__(self, path: str) -> str:
        """Read a link."""
        target = os.readlink(path)
        self.links += 1
        return target


def kernel_says(path: str, *, follow: bool) -> str:
    """Let the kernel resolve a path that exists."""
    descriptor = os.open(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=3).map("/".join)


@given(
    made=st.lists(
        st.tuples(
            st.sampled_from(["dir", "file", "relative", "absolute"]),
            st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3),
            TARGETS,
        ),
        max_size=10,
    ),
    asked=st.lists(
        st.tuples(st.lists(st.sampled_from(["a", "b", "c", "..", ".", "x"]), min_size=1, max_size=5), st.booleans()),
        min_size=1,
        max_size=8,
    ),
)
@settings(deadline=None, max_examples=200)
def test_resolve_is_the_kernels(made: list[tuple[str, list[str], str]], asked: list[tuple[list[str], bool]]) -> None:
    """On random trees of directories, files, links, dangling ones and loops, resolve() agrees with the kernel.

    Where the path doesn't exist the kernel has no answer, and os.path.realpath is asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.realpath(folder)
        for kind, names, target in made:
            path = os.path.join(root, *names)
            if not f"{os.path.realpath(os.path.dirname(path))}/".startswith(f"{root}/"):
                continue  # through links that were made before; nothing is made outside of the folder
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if kind == "dir":
                    os.mkdir(path)
                elif kind == "file":
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                else:
                    os.symlink(os.path.join(root, target) if kind == "absolute" else target, path)
            except OSError:
                continue
        for steps, slash in asked:
            text = "/".join(steps) + ("/" if slash else "")
            counting = Counting()
            ours = resolve(text, root, counting)
            full = os.path.join(root, text)
            try:
                assert ours == kernel_says(full, follow=True)
            except OSError:
                if counting.links <= LINK_LIMIT:
                    assert ours == os.path.realpath(full)
            try:
                last = kernel_says(full, follow=False)
            except OSError:
                continue
            assert resolve(text, root, os.readlink, follow_last=False) == last


def test_resolve_keeps_the_last_link_only_without_a_slash() -> None:
    """``lstat("link/")`` is about the directory, ``lstat("link")`` about the link."""
    assert resolve("/link", "/", TREE.readlink, follow_last=False) == "/link"
    assert resolve("/link/", "/", TREE.readlink, follow_last=False) == "/real"
    assert resolve("/link/in", "/", TREE.readlink, follow_last=False) == "/real/in"


def test_resolve_stops_after_the_kernels_number_of_links() -> None:
    """40 links are followed; from the 41st on, the rest is taken by its letters."""
    links = {f"/l{n}": f"l{n + 1}" for n in range(100)}
    assert resolve("/l59", "/", Tree(links=links).readlink) == "/l99"
    assert resolve("/l60", "/", Tree(links=links).readlink) == "/l100"
    assert resolve("/l0/x/../y", "/", Tree(links=links).readlink) == "/l40/y"
    assert resolve("/loop/x", "/", TREE.readlink) == "/loop/x"


def test_resolve_takes_a_nul_as_a_letter() -> None:
    """A reference may hold a NUL; no such file exists, and that's all."""
    assert resolve("/d/a\0b/../c", "/", os.readlink) == "/d/c"
    assert resolve("a\0b", "/d", os.readlink) == "/d/a\0b"


def documented(texts: list[str], path: str, cwd: str, dirs: set[str]) -> bool:
    """Read the documented rule literally: one value after the other, without any preparation."""
    for text in texts:
        if text == "*":
            return True
        full = normalize(text, cwd)
        if "*" in full:
            start = full.partition("*")[0]
            if path.startswith(start) or path + "/" == start:
                return True
        elif full in dirs:
            if path == full or path.startswith(full.rstrip("/") + "/"):
                return True
        elif path == full:
            return True
    return False


STARRED = st.builds(
    lambda text, at, star: text[:at] + star + text[at:] or "x",
    TEXTS,
    st.integers(0, 8),
    st.sampled_from(["", "", "*", "*.js", "/*", "**"]),
)


@given(*[st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4).map(lambda names: "/" + "/".join(names))] * 2)
def test_seen_from_is_relpath(path: str, folder: str) -> None:
    assert seen_from(path, folder).rstrip("/") == os.path.relpath(path, folder)


@given(st.lists(STARRED, max_size=5), st.lists(PATHS, min_size=1, max_size=8), PATHS, st.sets(PATHS, max_size=6))
@settings(deadline=None, max_examples=300)
def test_matcher_is_the_documented_rule(texts: list[str], paths: list[str], cwd: str, dirs: set[str]) -> None:
    """The compiled matcher answers as the rule read literally, without Node's three matcher bugs."""
    lookup = Tree(dirs)
    matcher = Matcher([parse_grant(text, FLAG, cwd, lookup) for text in texts])
    near = [normalize(text.replace("*", ""), cwd) for text in texts]
    for path in [*paths, *near, *[path + "x" for path in near], *[path.rstrip("/") + "/x" for path in near]]:
        assert matcher.matches(path) == documented(texts, path, cwd, dirs), path
    assert matcher.all == ("*" in texts)


@given(st.lists(STARRED, max_size=5), PATHS, PATHS)
@settings(deadline=None, max_examples=100)
def test_above_is_every_directory_on_the_way_to_a_grant(texts: list[str], path: str, cwd: str) -> None:
    """above() is true of the proper ancestors of what the grants name, and of nothing else."""
    grants = [parse_grant(text, FLAG, cwd, Tree()) for text in texts]
    named = [start for made in grants for start in made.paths]
    expected = any(start != path and (start + "/").startswith(path.rstrip("/") + "/") for start in named)
    assert Matcher(grants).above(path) == expected


@given(STARRED, STARRED, st.lists(PATHS, min_size=1, max_size=8), st.sets(PATHS, max_size=4))
@settings(deadline=None, max_examples=200)
def test_covers(one: str, other: str, paths: list[str], dirs: set[str]) -> None:
    """A grant that covers another matches whatever the other matches."""
    first, second = (parse_grant(text, FLAG, "/a", Tree(dirs)) for text in (one, other))
    assume(first.covers(second))
    mine, its = Matcher([first]), Matcher([second])
    for path in [*paths, *second.paths, *[start + "/x" for start in second.paths]]:
        assert mine.matches(path) or not its.matches(path)


def test_covers_examples() -> None:
    """A tree covers what lies in it; a path covers no tree; a prefix covers the trees that begin so."""
    assert grant("/d").covers(grant("/d/x"))
    assert grant("/d").covers(grant("/d/*"))
    assert grant("/d").covers(grant("/d/sub"))
    assert grant("/").covers(grant("/d"))
    assert grant("/").covers(grant("/a*"))
    assert grant("/home/te*").covers(grant("/home/test"))
    assert not grant("/new").covers(grant("/new/*"))
    assert not grant("/d/sub").covers(grant("/d"))
    assert not grant("/d").covers(grant("/d*"))


def test_a_grant_through_a_link_matches_both_spellings() -> None:
    """What the link leads to, and the link's own place, are both within the grant; its neighbours aren't."""
    matcher = Matcher([grant("/link/")])
    assert all(matcher.matches(path) for path in ("/real", "/real/in", "/link", "/link/in"))
    assert not any(matcher.matches(path) for path in ("/", "/real2", "/link2", "/d"))


def test_matcher_of_nothing() -> None:
    """Without grants nothing matches."""
    matcher = Matcher([])
    assert not matcher.matches("/")
    assert not matcher.above("/")
    assert not matcher.all


def test_os_lookup(tmp_path: os.PathLike[str]) -> None:
    """The real look-up follows links for directories and reads them; others raise OSError."""
    root = os.fspath(tmp_path)
    os.mkdir(f"{root}/dir")
    os.symlink("dir", f"{root}/link")
    assert OSLookup.is_dir(f"{root}/link")
    assert not OSLookup.is_dir(f"{root}/missing")
    assert OSLookup().readlink(f"{root}/link") == "dir"
    with pytest.raises(OSError, match="dir"):
        OSLookup.readlink(f"{root}/dir")


def test_undecodable_names_survive(tmp_path: os.PathLike[str]) -> None:
    """Names that aren't UTF-8 are matched byte for byte."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(name)
    made = parse_grant(name, FLAG, "/", OSLookup)
    assert made.kind == "tree"
    assert Matcher([made]).matches(resolve(name + "/x", "/", os.readlink))
