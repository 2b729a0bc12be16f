"""The judgement: verdicts, ``has()`` and ``drop()``."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.policy.decide import Request, decide, drop, has
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant
from sandboxed_python.policy.table import BY_SCOPE, PERMISSIONS, SWITCHES, Permission


def tree(path: str, *, implicit: bool = False) -> Grant:
    """Grant a tree."""
    return Grant(text=path, kind="tree", paths=(path,), origin="--flag", implicit=implicit)


def one(path: str) -> Grant:
    """Grant a path."""
    return Grant(text=path, kind="path", paths=(path,), origin="--flag")


ALL = Grant(text="*", kind="all", origin="--flag")
EVERYTHING = Policy(read=(ALL,), write=(ALL,), scopes=SWITCHES)


@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: row.scope)
def test_verdicts_name_permission_and_flag(row: Permission) -> None:
    """Each permission is denied by the empty policy and granted by the full one, under Node's name and its flag."""
    path = "/x/y" if row.scope.startswith("fs.") else None
    request = Request(scope=row.scope, path=path, resource="./y")
    denied, granted = decide(Policy(), request), decide(EVERYTHING, request)
    assert not denied.allowed
    assert granted.allowed
    assert denied.replace(allowed=True) == granted
    assert (denied.permission, denied.flag, denied.resource, denied.path) == (
        row.name,
        row.flag,
        "./y",
        path,
    )


def test_reading_and_writing_are_two_trees() -> None:
    """A read grant grants no write, and the other way round."""
    reads, writes = Policy(read=(tree("/d"),)), Policy(write=(tree("/d"),))
    read, write = (Request(scope=scope, path="/d/x") for scope in ("fs.read", "fs.write"))
    assert (decide(reads, read).allowed, decide(reads, write).allowed) == (True, False)
    assert (decide(writes, read).allowed, decide(writes, write).allowed) == (False, True)


def test_metadata_above_a_grant() -> None:
    """To stat a directory above a grant is allowed, listing it isn't; the denial names fs.read."""
    policy = Policy(write=(tree("/a/b"),))
    assert decide(policy, Request(scope="fs.read", path="/a", metadata=True)).allowed
    assert not decide(policy, Request(scope="fs.read", path="/a")).allowed
    assert not decide(policy, Request(scope="fs.write", path="/a", metadata=True)).allowed
    denied = decide(policy, Request(scope="fs.read", path="/c", metadata=True))
    assert (denied.allowed, denied.permission, denied.flag) == (False, "FileSystemRead", "--allow-fs-read")
    wide = policy.replace(scopes=frozenset(["fs.metadata"]))
    assert decide(wide, Request(scope="fs.read", path="/c", metadata=True)).allowed
    assert not decide(wide, Request(scope="fs.read", path="/c")).allowed


def test_joint_scope() -> None:
    """``fs`` takes both stars, and its denial names both flags."""
    for policy in (Policy(), Policy(read=(ALL,)), Policy(write=(ALL,)), Policy(read=(tree("/"),), write=(tree("/"),))):
        verdict = decide(policy, Request(scope="fs"))
        assert not verdict.allowed
        assert verdict.permission == "FileSystem"
        assert "--allow-fs-read" in verdict.flag
        assert "--allow-fs-write" in verdict.flag
    assert decide(EVERYTHING, Request(scope="fs")).allowed


def test_unknown_scope() -> None:
    """A scope that nobody knows is denied, also when everything is granted."""
    verdict = decide(EVERYTHING, Request(scope="env", resource="HOME"))
    assert (verdict.allowed, verdict.permission, verdict.flag, verdict.resource) == (False, "", "", "HOME")


def test_model_off() -> None:
    """With the model off everything goes."""
    off = Policy(mode="off")
    assert decide(off, Request(scope="fs.write", path="/etc/passwd")).allowed
    assert has(off, "net")
    assert has(off, "fs.read", "/x", "x")


def test_audit_answers_as_enforce_does() -> None:
    """In audit mode the verdict is the one that enforcing would give."""
    request = Request(scope="fs.read", path="/x")
    assert decide(Policy(mode="audit"), request) == decide(Policy(mode="enforce"), request)
    assert not has(Policy(mode="audit"), "net")


def test_has_bare() -> None:
    """Without a reference, a file-system scope takes a literal star; ``/`` isn't one."""
    slash = Policy(read=(tree("/"),))
    assert not has(slash, "fs.read")
    assert has(slash, "fs.read", "/etc", "/etc")
    assert has(Policy(read=(ALL,)), "fs.read")
    assert not has(Policy(read=(ALL,)), "fs")
    assert not has(Policy(read=(ALL,)), "fs.metadata")
    assert has(EVERYTHING, "fs")
    assert has(EVERYTHING, "fs", "/anything", "anything")


@pytest.mark.parametrize("scope", [*BY_SCOPE, "fs", "env"])
def test_has_with_an_empty_reference(scope: str) -> None:
    """An empty reference is False for every scope, granted or not."""
    assert not has(EVERYTHING, scope, None, "")
    assert not has(EVERYTHING, scope, "", "")
    assert not has(EVERYTHING, scope, "", given=True)


@pytest.mark.parametrize(
    "scope", ["", "*", "FS", "fs.in", "fs.readx", "FileSystemRead", "ChildProcess", "openssl.store"]
)
def test_has_of_unknown_scopes(scope: str) -> None:
    """Unknown names are False, never an error."""
    assert not has(EVERYTHING, scope)
    assert not has(EVERYTHING, scope, None, "x")


def test_has_of_switches_ignores_the_reference() -> None:
    """A switch is for everything: any reference is ignored."""
    policy = Policy(scopes=frozenset(["net"]))
    assert has(policy, "net", None, "example.com:443")
    assert not has(policy, "child", None, "anything")


def test_has_metadata() -> None:
    """``fs.metadata`` with a reference tells whether it may be asked for metadata."""
    policy = Policy(read=(tree("/a/b"),))
    assert has(policy, "fs.metadata", "/a", "/a")
    assert has(policy, "fs.metadata", "/a/b/c", "/a/b/c")
    assert not has(policy, "fs.metadata", "/c", "/c")
    assert not has(policy, "fs.metadata")
    assert has(EVERYTHING, "fs.metadata")


def test_has_tells_the_truth_about_implicit_grants_and_protected_trees() -> None:
    """What is granted without a flag is True; what a write-everything grant leaves out is False."""
    assert has(Policy(read=(tree("/usr/lib/py", implicit=True),)), "fs.read", "/usr/lib/py/os.py", "x")
    assert not has(EVERYTHING, "fs.write", "/proc/self/mem", "x")
    assert has(EVERYTHING, "fs.write")


SCOPES = [*BY_SCOPE, "fs", "env", ""]
TARGETS = st.one_of(
    st.none(),
    st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/c"]).flatmap(lambda p: st.sampled_from([tree(p), one(p)])),
)
GRANTED = st.lists(
    st.sampled_from([ALL, tree("/"), tree("/a"), one("/a"), tree("/a/b"), one("/a/b/c"), tree("/rt", implicit=True)]),
    max_size=4,
).map(tuple)


@given(
    GRANTED,
    GRANTED,
    st.frozensets(st.sampled_from(sorted(SWITCHES))),
    st.lists(st.tuples(st.sampled_from(SCOPES), TARGETS), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=200)
def test_drop_only_takes_away(
    read: tuple[Grant, ...], write: tuple[Grant, ...], scopes: frozenset[str], drops: list[tuple[str, Grant | None]]
) -> None:
    """Whatever is dropped, nothing becomes granted that wasn't, and the runtime's own grants stay."""
    before = Policy(read=read, write=write, scopes=scopes)
    after = before
    for scope, target in drops:
        after = drop(after, scope, target)
    for scope in SCOPES:
        assert has(before, scope) or not has(after, scope)
        for path in ("/", "/a", "/a/b", "/a/b/c", "/a/x", "/c", "/rt/x"):
            assert has(before, scope, path, path) or not has(after, scope, path, path)
    assert [grant for grant in after.read if grant.implicit] == [grant for grant in before.read if grant.implicit]


@pytest.mark.parametrize("scope", [*BY_SCOPE, "fs"])
def test_drop_of_a_whole_scope(scope: str) -> None:
    """Without a reference the whole scope goes, a star too."""
    after = drop(EVERYTHING, scope)
    assert not has(after, scope)
    others = {"fs": {"fs.read", "fs.write"}, "ffi": {"addon"}}.get(scope, set())
    for other in BY_SCOPE:
        assert has(after, other) == (other != scope and other not in others)
    assert has(after, "fs") == (scope not in ("fs", "fs.read", "fs.write"))


def test_drop_of_a_switch_ignores_the_reference() -> None:
    """``drop("net", "x")`` drops all of net."""
    assert not has(drop(EVERYTHING, "net", one("/x")), "net")


def test_drop_of_ffi_takes_addons_along() -> None:
    """An addon can do all that ffi gates, so ffi can't go without it; addons go alone."""
    policy = Policy(scopes=frozenset(["addon"]))
    assert not has(drop(policy, "ffi"), "ffi")
    assert has(drop(Policy(scopes=frozenset(["addon", "ffi"])), "addon"), "ffi")


def test_drop_under_a_star_or_of_something_else_changes_nothing() -> None:
    """Only the very same grant can be dropped."""
    assert drop(EVERYTHING, "fs.read", tree("/a")) == EVERYTHING
    assert drop(EVERYTHING, "fs.read", ALL) == EVERYTHING
    policy = Policy(read=(tree("/a"), one("/b")))
    for target in (tree("/"), one("/a/x"), one("/a"), tree("/b"), ALL):
        assert drop(policy, "fs.read", target) == policy
    assert drop(policy, "env") == policy


def test_drop_and_overlaps() -> None:
    """A grant that was covered when it was said goes with what covers it; one said earlier stays."""
    inner_first = drop(Policy(read=(one("/a/f"), tree("/a"))), "fs.read", tree("/a"))
    assert inner_first.read == (one("/a/f"),)
    outer_first = drop(Policy(read=(tree("/a"), one("/a/f"), tree("/b"))), "fs.read", tree("/a"))
    assert outer_first.read == (tree("/b"),)
    twice = drop(Policy(read=(tree("/a"), tree("/a"))), "fs.read", tree("/a"))
    assert twice.read == ()


def test_drop_leaves_grants_that_the_runtime_has_anyway() -> None:
    """A grant of something that is granted without a flag as well is still a grant: it can be dropped, or stay."""
    policy = Policy(read=(tree("/rt", implicit=True), tree("/rt/mine"), tree("/a")))
    assert drop(policy, "fs.read", tree("/a")).read == policy.read[:2]
    assert drop(policy, "fs.read", tree("/rt/mine")).read == (policy.read[0], policy.read[2])
    assert drop(policy, "fs.read", tree("/rt")) == policy
