"""From grants to Landlock rules: what the pieces around a hole cover, and what never gets which right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.kernel import landlock
from sandboxed_python.kernel.landlock import EXECUTE, IOCTL_DEV, READ, WRITE, WRITE_FILE
from sandboxed_python.plan.build import NEEDED_ABI
from sandboxed_python.plan.landlock import path_rules
from sandboxed_python.plan.places import around
from sandboxed_python.policy.model import KERNEL_TREES, OPEN_DEVICES, Policy, is_broad
from sandboxed_python.policy.patterns import Grant, within

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from sandboxed_python.plan.model import PathRule

# A made-up file system: directories are dicts, files None. The names must not exist as links on the real one.
Tree = dict[str, "Tree | None"]
TOP = "/made-up-top"
NAMES = ("a", "b", "ab", "c d")
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), st.none(), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), st.none() | inner, max_size=4),
    max_leaves=12,
)
INSIDE = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda names: "/".join([TOP, *names]))
ANYWHERE = INSIDE | st.sampled_from(["/", TOP, f"{TOP}s", "/elsewhere"])


def listing_of(tree: Tree, top: str = TOP) -> Callable[[str], list[str]]:
    """Return the made-up ``os.listdir`` of a tree that lies at ``top``."""

    def listing(path: str) -> list[str]:
        at: Tree | None = tree
        rest = path[len(top) :].strip("/")
        for name in rest.split("/") if rest else []:
            if at is None or name not in at:
                raise FileNotFoundError(2, "No such file or directory", path)
            at = at[name]
        if at is None:
            raise NotADirectoryError(20, "Not a directory", path)
        return list(at)

    return listing


def everything(tree: Tree | None, path: str = TOP) -> list[str]:
    """Return every path of a tree, its top included."""
    below = [found for name, inner in (tree or {}).items() for found in everything(inner, f"{path}/{name}")]
    return [path, *below]


def covered(path: str, trees: list[str]) -> bool:
    return any(within(path, tree) for tree in trees)


@pytest.mark.parametrize(
    ("path", "tree", "answer"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/", "/", True),
        ("/a", "/", True),
        ("/", "/a", False),
    ],
)
def test_within(path: str, tree: str, answer: bool) -> None:  # noqa: FBT001
    assert within(path, tree) is answer


@given(TREES, st.lists(INSIDE | ANYWHERE, max_size=4))
def test_pieces_cover_the_tree_without_what_is_left_out(tree: Tree, left_out: list[str]) -> None:
    pieces = around(TOP, left_out, listing_of(tree))
    for path in everything(tree):
        touched = any(within(path, out) or within(out, path) for out in left_out)
        # What leads to a hole isn't granted as a whole, and neither is what lies in it; the rest is.
        assert covered(path, pieces) is not touched
    assert len(set(pieces)) == len(pieces)
    assert not any(within(one, other) for one in pieces for other in pieces if one != other)
    assert set(pieces) <= set(everything(tree)) | {TOP}


@given(TREES, st.lists(INSIDE, max_size=3), st.lists(ANYWHERE, max_size=3))
def test_leaving_out_more_never_grants_more(tree: Tree, some: list[str], more: list[str]) -> None:
    listing = listing_of(tree)
    few, many = around(TOP, some, listing), around(TOP, [*some, *more], listing)
    assert all(covered(piece, few) for piece in many)


def test_nothing_left_out_is_the_tree_itself_unlisted() -> None:
    def never(path: str) -> list[str]:
        pytest.fail(f"listed {path}")

    assert around("/data", [], never) == ["/data"]
    assert around("/data", ["/other", "/database"], never) == ["/data"]
    assert around("/data", ["/data"], never) == []
    assert around("/data/in", ["/data"], never) == []
    assert around("/data/in", ["/data", "/data/in/below"], never) == []


def test_the_root_and_a_hole_that_does_not_exist() -> None:
    listing = listing_of({"x": {"y": None, "z": {}}, "w": None}, "/")
    assert around("/", ["/x/y"], listing) == ["/w", "/x/z"]
    assert around("/", ["/x/none"], listing) == ["/w", "/x/y", "/x/z"]
    assert around("/", ["/"], listing) == []


def test_what_cannot_be_listed_is_left_out_whole() -> None:
    tree: Tree = {"a": {"b": None}, "c": None}
    inner = listing_of(tree)

    def listing(path: str) -> list[str]:
        if path == f"{TOP}/a":
            raise PermissionError(13, "Permission denied", path)
        return inner(path)

    assert around(TOP, [f"{TOP}/a/b"], listing) == [f"{TOP}/c"]


def test_links_are_no_pieces(tmp_path: pathlib.Path) -> None:
    top = os.path.realpath(tmp_path)
    for name in ("kept", "hole", "outside"):
        os.makedirs(f"{top}/{name}/below")
    os.mkdir(f"{top}/tree")
    os.rename(f"{top}/kept", f"{top}/tree/kept")
    os.rename(f"{top}/hole", f"{top}/tree/hole")
    os.symlink(f"{top}/outside", f"{top}/tree/link")
    os.symlink("hole", f"{top}/tree/inner")
    assert around(f"{top}/tree", [f"{top}/tree/hole"], os.listdir) == [f"{top}/tree/kept"]


# Rules


def tree(*paths: str, **more: object) -> Grant:
    return Grant(text=paths[0], kind="tree", paths=paths, origin="--flag", **more)  # type: ignore[arg-type]


def nothing_there(path: str) -> list[str]:
    return []


def by_path(rules: tuple[PathRule, ...]) -> dict[str, int]:
    assert len({rule.path for rule in rules}) == len(rules)
    return {rule.path: rule.rights for rule in rules}


def test_a_grant_becomes_its_right() -> None:
    policy = Policy(
        read=(
            tree("/r"),
            Grant(text="/f", kind="path", paths=("/f",)),
            Grant(text="/p*", kind="prefix", paths=("/p",)),
            tree("/real", "/link"),
        ),
        write=(tree("/w"), Grant(text="/q*", kind="prefix", paths=("/q",)), tree("/both")),
    )
    both = policy.replace(read=(*policy.read, tree("/both")))
    assert by_path(path_rules(both, (), listing=nothing_there)) == {
        "/r": READ,
        "/f": READ,
        "/real": READ,
        "/w": WRITE,
        "/both": READ | WRITE,
    }


@given(st.lists(ANYWHERE), st.lists(ANYWHERE), ANYWHERE)
def test_rules_within_rules_are_left_out_and_change_nothing(read: list[str], write: list[str], path: str) -> None:
    """Landlock walks up from the file, and adds up what it finds on the way."""
    policy = Policy(read=tuple(map(tree, read)), write=tuple([tree(one) for one in write if one != "/"]))
    rules = by_path(path_rules(policy, (), listing=nothing_there))
    rights = 0
    for place, mask in rules.items():
        rights |= mask if within(path, place) else 0
    expected = READ if covered(path, read) else 0
    expected |= WRITE if covered(path, [one for one in write if one != "/"]) else 0
    assert rights == expected
    for place, mask in rules.items():
        assert not [1 for other, more in rules.items() if other != place and within(place, other) and not mask & ~more]


def test_reading_everything_is_the_root() -> None:
    rules = path_rules(Policy(read=(Grant(text="*", kind="all"),)), (), listing=nothing_there)
    assert by_path(rules) == {"/": READ}


@pytest.mark.parametrize(
    ("path", "more"), [("/dev/tty", IOCTL_DEV), ("/dev/pts", IOCTL_DEV), ("/dev/pts/3", IOCTL_DEV), ("/dev/shm", 0)]
)
def test_granted_terminals_can_be_set(path: str, more: int) -> None:
    assert by_path(path_rules(Policy(write=(tree(path),)), (), listing=nothing_there)) == {path: WRITE | more}


def test_no_grants_no_rules() -> None:
    assert path_rules(Policy(), (), listing=nothing_there) == ()
    assert path_rules(Policy(scopes=frozenset(("net", "worker", "addon"))), (), listing=nothing_there) == ()


def test_only_what_the_user_named_must_be_there() -> None:
    runtime = tree("/lib-of-runtime", implicit=True)
    rules = path_rules(
        Policy(read=(runtime, tree("/r"), tree("/both"), tree("/both", implicit=True))), (), listing=nothing_there
    )
    assert {rule.path: rule.optional for rule in rules} == {"/lib-of-runtime": True, "/r": False, "/both": False}


WORLD: Tree = {
    "proc": {"self": {"mem": None}},
    "sys": {"power": None},
    "dev": {"null": None, "sda": None, "shm": {}},
    "etc-made-up": {"passwd": None},
    "home-made-up": {"me": {"venv": {"lib": {"code": None}, "bin": {"python3": None}}, "work": {"job": None}}},
}
VENV = ("/home-made-up/me/venv/lib", "/home-made-up/me/venv/bin")


@pytest.mark.parametrize("grant", [Grant(text="*", kind="all"), tree("/")], ids=["*", "/"])
def test_writing_everything_leaves_out_the_kernel_and_the_runtime(grant: Grant) -> None:
    policy = Policy(write=(grant,), protected=VENV)
    rules = by_path(path_rules(policy, (), listing=listing_of(WORLD, "/")))
    devices = {path: rules.pop(path) for path in OPEN_DEVICES}
    assert devices == {"/dev/null": WRITE_FILE, "/dev/tty": WRITE_FILE | IOCTL_DEV}
    assert rules == dict.fromkeys(["/etc-made-up", "/home-made-up/me/work"], WRITE)


@given(st.sampled_from(["*", "/"]), st.lists(st.sampled_from(everything(WORLD, "")[1:]), max_size=3))
def test_has_and_the_rules_agree_on_writing_everything(text: str, protected: list[str]) -> None:
    grant = Grant(text="*", kind="all") if text == "*" else tree("/")
    policy = Policy(write=(grant,), protected=tuple(protected))
    rules = by_path(path_rules(policy, (), listing=listing_of(WORLD, "/")))
    pieces = [path for path in rules if path not in OPEN_DEVICES]
    for path in everything(WORLD, "")[1:]:
        if any(within(out, path) and out != path for out in (*KERNEL_TREES, *protected)):
            continue  # a directory above a hole: files can't be made in it, for Landlock can't tell its names apart
        assert (covered(path, pieces) or path in OPEN_DEVICES) is policy.writable(path), path


def test_a_broad_prefix_makes_no_rule_but_the_devices() -> None:
    grant = Grant(text="/p*", kind="prefix", paths=("/p",))
    assert is_broad(grant)
    assert set(by_path(path_rules(Policy(write=(grant,)), (), listing=nothing_there))) == set(OPEN_DEVICES)


PLACES = [*everything(WORLD["home-made-up"], "/home-made-up"), "/etc-made-up", "/etc-made-up/passwd"]
KINDS = st.sampled_from(["tree", "path", "prefix"])
GRANTS = st.lists(
    st.builds(lambda kind, path: Grant(text=path, kind=kind, paths=(path,)), KINDS, st.sampled_from(PLACES)), max_size=4
)


@given(
    GRANTS, GRANTS, st.sets(st.sampled_from(["read", "write", "child"])), st.lists(st.sampled_from(PLACES), max_size=2)
)
def test_what_may_be_written_is_never_executable(
    read: list[Grant], write: list[Grant], options: set[str], programs: list[str]
) -> None:
    everything = Grant(text="*", kind="all")
    policy = Policy(
        read=(*read, *([everything] if "read" in options else [])),
        write=(*write, *([everything] if "write" in options else [])),
        scopes=frozenset(options & {"child"}),
        protected=(*VENV, *programs),
    )
    rules = path_rules(policy, tuple(programs), listing=listing_of(WORLD, "/"))
    executable = [rule.path for rule in rules if rule.rights & EXECUTE]
    writable = [rule.path for rule in rules if rule.rights & WRITE and rule.path not in OPEN_DEVICES]
    heads = [path for grant in write if grant.kind == "prefix" for path in grant.paths]
    assert not any(within(one, other) or within(other, one) for one in executable for other in writable)
    # Prefixes reach names that don't exist yet.
    assert not any(one.startswith(head) or within(os.path.dirname(head), one) for one in executable for head in heads)
    assert not [path for path in PLACES if policy.writable(path) and covered(path, executable)]
    if "child" not in options:
        assert not executable
        return
    # Nothing else is lost: what is granted for reading and can't be written may be executed.
    for path in PLACES:
        touched = any(within(path, other) or within(other, path) for other in writable)
        touched = touched or any(path.startswith(head) or within(os.path.dirname(head), path) for head in heads)
        named = any(
            grant.kind in ("tree", "path", "all") and covered(path, list(grant.paths) or ["/"]) for grant in read
        )
        if (named or "read" in options) and policy.readable(path) and not touched and "write" not in options:
            assert covered(path, executable)


def test_system_programs_are_executable_only_with_child_processes(tmp_path: pathlib.Path) -> None:
    real = os.path.realpath(tmp_path)
    os.makedirs(f"{real}/usr/bin")
    os.symlink("usr/bin", f"{real}/bin")
    implicit = (tree(f"{real}/usr/bin", f"{real}/bin", implicit=True, reason="system programs"),)
    library = tree("/lib-of-runtime", implicit=True, reason="the standard library")
    programs = (f"{real}/bin", f"{real}/usr/bin")
    without = by_path(path_rules(Policy(read=(*implicit, library)), ()))
    assert without == {f"{real}/usr/bin": READ, "/lib-of-runtime": READ}
    with_child = Policy(read=(*implicit, library), scopes=frozenset(["child"]))
    assert by_path(path_rules(with_child, programs)) == {f"{real}/usr/bin": READ | EXECUTE, "/lib-of-runtime": READ}


def test_the_entry_script_is_executable_with_child_processes() -> None:
    entry = Grant(text="j", kind="path", paths=("/made-up/j",), implicit=True, reason="the entry script")
    assert by_path(path_rules(Policy(read=(entry,)), ())) == {"/made-up/j": READ}
    assert by_path(path_rules(Policy(read=(entry,), scopes=frozenset(["child"])), ())) == {"/made-up/j": READ | EXECUTE}


def test_no_rule_asks_for_what_landlock_does_not_handle() -> None:
    policy = Policy(read=(tree("/r"),), write=(tree("/w"), tree("/")), scopes=frozenset(["child"]))
    for rule in path_rules(policy, (), listing=nothing_there):
        assert rule.rights & ~landlock.full(NEEDED_ABI).fs == 0
