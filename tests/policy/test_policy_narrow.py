"""One policy within another, and what is left after a drop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.policy.decide import has
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.narrow import after_drop, covered, from_message, narrowed
from sandboxed_python.policy.table import SWITCHES
from tests.policy.test_policy_decide import ALL, EVERYTHING, GRANTED, SCOPES, one, tree

if TYPE_CHECKING:
    import pathlib
    from typing import Any

PATHS = ("/", "/a", "/a/b", "/a/b/c", "/a/x", "/c", "/rt/x", "/proc/self/mem", "/dev/null", "/kept/x")
POLICIES = st.builds(
    Policy,
    read=GRANTED,
    write=GRANTED,
    scopes=st.frozensets(st.sampled_from(sorted({*SWITCHES, "fs.metadata"}))),
    protected=st.sampled_from([(), ("/kept",)]),
    mode=st.just("enforce"),
)


def answers(policy: Policy) -> list[bool]:
    """Ask everything."""
    found = [has(policy, scope) for scope in SCOPES]
    for scope in SCOPES:
        found += [has(policy, scope, path, path) for path in PATHS]
    return [*found, *[policy.statable(path) for path in PATHS], *[policy.granted(scope) for scope in SWITCHES]]


@given(st.lists(POLICIES, min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_within_means_that_all_grant_it(policies: list[Policy]) -> None:
    """Also after a way over the wire; a policy that only leaves something out takes no place of its own."""
    narrow = policies[0]
    for policy in policies[1:]:
        narrow = narrowed(narrow, policy)
        assert narrowed(narrow, policy) == narrow
    assert Policy.from_data(narrow.to_data()) == narrow
    single = [answers(policy) for policy in policies]
    assert answers(narrow) == [all(column) for column in zip(*single, strict=True)]
    assert len(narrow.layers) <= len(policies)


def test_what_is_left_out_takes_the_place() -> None:
    outer = Policy(read=(tree("/a"), tree("/b")), scopes=frozenset(["net", "child"]))
    assert narrowed(outer, outer.replace(read=(tree("/a"),))).within is None
    assert narrowed(outer, outer.replace(read=(tree("/a/b"),))).within == outer
    assert narrowed(outer, Policy(mode="off")).mode == "enforce"
    # Leaving out what a write grant of everything doesn't reach would be more.
    kept = Policy(write=(ALL,), protected=("/kept",))
    wider = narrowed(kept, kept.replace(protected=()))
    assert wider.within == kept
    assert not wider.writable("/kept/x")


@given(st.text(max_size=20), st.lists(st.sampled_from(["/a", "/b", "/a/b"]), max_size=3), st.sampled_from(SCOPES))
@settings(deadline=None, max_examples=200)
def test_after_a_drop_nothing_more_is_granted(given_: str, trees: list[str], scope: str) -> None:
    before = Policy(read=tuple(map(tree, trees)), write=(tree("/c"),), scopes=SWITCHES - {"child", "fs.metadata"})
    after = after_drop(before, scope, given_, "/")
    assert all(old or not new for old, new in zip(answers(before), answers(after), strict=True))


def test_metadata_stays_where_nobody_guards_it() -> None:
    every = Policy(read=(ALL,), scopes=frozenset(["net"]))
    after = after_drop(every, "fs.read", None, "/")
    assert not after.readable("/x")
    assert after.statable("/x")
    assert not has(after, "fs.metadata")  # as before
    again = after_drop(after, "net", None, "/")
    assert again.statable("/x")
    assert not again.granted("net")
    with pytest.raises(RuntimeError, match="its calls aren't guarded"):
        after_drop(Policy(scopes=frozenset(["fs.metadata"])), "fs.metadata", None, "/")
    guarded = Policy(read=(tree("/a"),))
    assert not after_drop(guarded, "fs.read", None, "/").statable("/a/b")


@pytest.mark.parametrize("scope", ["addon", "ffi"])
def test_native_code_stays_while_programs_may_be_started(scope: str) -> None:
    with pytest.raises(RuntimeError, match="drop child"):
        after_drop(EVERYTHING, scope, None, "/")
    alone = EVERYTHING.replace(scopes=EVERYTHING.scopes - {"child"})
    assert not after_drop(alone, scope, None, "/").granted("addon")
    assert not after_drop(EVERYTHING.replace(scopes=frozenset(["ffi", "child"])), "ffi", None, "/").granted("ffi")


def test_references_are_looked_at_when_they_are_dropped(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory is its tree; what can't be looked at is what it was granted as."""
    place = str(tmp_path.resolve())
    policy = Policy(read=(tree(place),), write=(one("/blind/file"), tree("/blind")))
    assert after_drop(policy, "fs.read", place, "/").read == ()
    assert after_drop(policy, "fs.read", "./x/..", place).read == ()
    assert after_drop(policy, "fs.read", f"{place}/x", "/") is policy
    assert after_drop(policy, "fs.read", f"{place}\0", "/") is policy

    real = os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/blind"):
            raise PermissionError(path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert after_drop(policy, "fs.write", "/blind", "/").write == (one("/blind/file"),)
    assert after_drop(policy, "fs.write", "/blind/file", "/").write == (tree("/blind"),)


def test_messages_are_policies_or_refused() -> None:
    data = EVERYTHING.to_data()
    assert from_message(data) == EVERYTHING
    assert from_message({**data, "within": data}).within is None
    wrongs: list[object] = [None, [], {}, {**data, "read": [1]}, {**data, "more": 1}, {**data, "scopes": ["env"]}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="not a policy"):
            from_message(wrong)


def test_covered() -> None:
    grants = (tree("/a"), one("/b/f"), ALL)
    assert covered(grants, [tree("/")]) == (tree("/a"), one("/b/f"), ALL)
    assert covered(grants, [tree("/b"), tree("/a/b")]) == (one("/b/f"),)
    both = tree("/a").replace(paths=("/a", "/b"))
    assert covered((both,), [tree("/b")]) == (both.replace(paths=("/b",)),)
