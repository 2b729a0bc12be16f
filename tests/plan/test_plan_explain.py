"""``--explain``: the plan as JSON is pinned, and the words leave nothing out."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sandboxed_python.kernel import landlock, uapi
from sandboxed_python.plan.explain import as_json, as_text
from sandboxed_python.plan.model import Plan, Target
from sandboxed_python.plan.seccomp import PART_REASONS
from sandboxed_python.policy.table import PERMISSIONS, SWITCHES
from tests.plan.world import SUPPORT, World, plan_of

if TYPE_CHECKING:
    from sandboxed_python.kernel.probe import Support

GOLDEN = pathlib.Path(__file__).parent / "golden"
WRITE_GOLDEN = "SANDBOX_WRITE_GOLDEN"  # set it to write the files anew, and read the difference before committing


class Case(NamedTuple):
    """One policy, on one kernel, for one target."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    support: Support = SUPPORT
    target: Target = Target(kind="script", value="job.py", arguments=("--fast", "x y"))
    fork: bool = True

    def plan(self, world: World) -> Plan:
        """Plan it."""
        policy = world.policy(read=self.read, write=self.write, scopes=frozenset(self.scopes))
        changes = {name: "audit" if name == "mode" else not getattr(policy, name) for name in self.options}
        policy = policy.replace(**changes)
        return plan_of(policy, target=self.target, support=self.support, fork=self.fork)


CASES = {
    "nothing": Case(),
    "narrow": Case(
        read=("/data/in", "/home/me/link-to-data/in/a.csv", "/srv/pre*", "/not/there"),
        write=("/tmp", "/data/out", "/data/new*"),
    ),
    "everything": Case(read=("*",), write=("*",), scopes=tuple(sorted(SWITCHES))),
    "children": Case(read=("/data",), write=("/data/out",), scopes=("child", "net")),
    "strict": Case(options=("entrypoint",), scopes=("worker",)),
    "exec": Case(
        read=(".",),
        scopes=("ffi",),
        fork=False,
        target=Target(kind="module", value="job", python="/venv/bin/python3", python_options=("-O", "-Xdev")),
    ),
    "audit": Case(read=("/data",), write=("/data/out",), scopes=("net",), options=("mode",)),
    "old-kernel": Case(
        write=("/tmp",),
        options=("best_effort",),
        support=SUPPORT.replace(landlock=3, release="6.2.0-made-up", notify=False),
    ),
    "no-seccomp": Case(options=("best_effort",), support=SUPPORT.replace(seccomp=False, notify=False)),
    "no-landlock": Case(
        options=("best_effort",), support=SUPPORT.replace(landlock=0, landlock_error="EOPNOTSUPP", machine="aarch64")
    ),
}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made_up = World()
    made_up.settle(monkeypatch, {"HOME": "/home/me", "LD_PRELOAD": "x.so"})
    return made_up


@pytest.fixture(params=sorted(CASES))
def plan(request: pytest.FixtureRequest, world: World) -> Plan:
    case: Case = CASES[request.param]
    return case.plan(world)


@pytest.mark.parametrize("name", sorted(CASES))
def test_json_is_pinned(world: World, name: str) -> None:
    text = as_json(CASES[name].plan(world)) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get(WRITE_GOLDEN):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert json.loads(text) == json.loads(file.read_text(encoding="utf-8"))


def test_no_golden_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(CASES)


def test_json_is_the_plan(plan: Plan) -> None:
    assert Plan.from_data(json.loads(as_json(plan))) == plan


def sections(text: str) -> dict[str, list[str]]:
    """Split the text: title -> lines."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            title = line
            found[title] = []
        elif line:
            found[title].append(line.strip())
    return found


def section(plan: Plan, start: str) -> list[str]:
    return next(lines for title, lines in sections(as_text(plan)).items() if title.startswith(start))


def test_words_tell_every_grant(plan: Plan) -> None:
    lines = section(plan, "Granted by you")
    policy = plan.policy
    for scope, grants in (("fs.read", policy.read), ("fs.write", policy.write)):
        for grant in grants:
            if not grant.implicit:
                where = grant.paths[0] if grant.paths else "everything"
                assert any(line.startswith(scope) and where in line and grant.origin in line for line in lines)
    for row in PERMISSIONS:
        if row.kind == "switch":
            assert any(line.split()[0] == row.scope for line in lines) is (row.scope in policy.scopes)
    if not [grant for grant in (*policy.read, *policy.write) if not grant.implicit] and not policy.scopes:
        assert lines == ["nothing"]


def test_words_tell_who_granted_what(world: World) -> None:
    policy = world.policy(read=("/data",), scopes=frozenset({"net", "worker"})).replace(
        origins=(("net", "preset web:3"), ("net", "--allow-net"), ("child", "taken back"))
    )
    lines = section(plan_of(policy), "Granted by you")
    gates = {row.scope: row.gates for row in PERMISSIONS}
    assert lines == [
        "fs.read   the tree /data   (--allow-fs-read)",
        f"worker    {gates['worker']}",
        f"net       {gates['net']}   (preset web:3, --allow-net)",
    ]


def test_words_tell_everything_that_came_without_a_flag(plan: Plan) -> None:
    lines = section(plan, "Granted without a flag")
    for scope, grants in (("fs.read", plan.policy.read), ("fs.write", plan.policy.write)):
        for grant in grants:
            if grant.implicit:
                assert any(
                    line.startswith(f"{scope} ") and grant.reason in line and grant.paths[0] in line for line in lines
                )


def test_words_tell_what_is_denied_and_which_flag_allows_it(plan: Plan) -> None:
    lines = section(plan, "Denied")
    policy = plan.policy
    denied = set()
    for row in PERMISSIONS:
        if row.kind == "paths":
            if not any(grant.kind == "all" for grant in (policy.read if row.scope == "fs.read" else policy.write)):
                denied.add(row.scope)
        elif not policy.granted(row.scope):
            denied.add(row.scope)
    told = {line.split()[0]: line for line in lines if line != "nothing"}
    assert set(told) == denied
    for row in PERMISSIONS:
        if row.scope in denied:
            assert row.flag in told[row.scope]


def test_words_tell_every_mechanism(plan: Plan) -> None:
    text = "\n".join(section(plan, "How it is enforced"))
    for rule in plan.rules:
        assert f"\n{rule.path}: " in text
    if plan.abi:
        assert f"Landlock (ABI {plan.abi}): {len(plan.rules)} rules" in text
        for name in landlock.names(plan.ruleset.fs):
            assert name in text
        assert ("no TCP port" in text) is bool(plan.ruleset.net)
    else:
        assert "Landlock (ABI" not in text
    assert ("seccomp filter" in text) is bool(plan.static_filter)
    assert repr(plan.static_filter) in text or not plan.static_filter
    for part in plan.notify_parts:
        assert f": {PART_REASONS[part]}" in text
    for call, part in (("mmap", "map"), ("execve", "exec")):
        assert (f"seccomp notification, answered by the supervisor: {call}" in text) is (part in plan.notify_parts)
    assert ("capabilities" in text) is (plan.keep_capabilities >= 0)
    for number, name in enumerate(uapi.CAPABILITIES if plan.keep_capabilities >= 0 else ()):
        assert (f" {name}," in f"{text}," or f" {name} of" in text) is bool(plan.keep_capabilities >> number & 1)
    assert "no_new_privs" in text


def test_words_tell_what_is_not_enforced(plan: Plan) -> None:
    found = sections(as_text(plan))
    title = "NOT enforced on this kernel (--best-effort)"
    assert found.get(title, []) == list(plan.missing)


def test_words_tell_what_will_run(world: World) -> None:
    assert section(CASES["nothing"].plan(world), "What will run") == [
        "job.py, in a fork of the supervisor's interpreter"
    ]
    assert section(CASES["exec"].plan(world), "What will run") == [
        "-m job, in /venv/bin/python3 -O -Xdev, which is started already confined"
    ]
    for kind, value, shown in (("code", "1+1", "-c 1+1"), ("stdin", "", "standard input"), ("path", "d.zip", "d.zip")):
        case = Case(target=Target(kind=kind, value=value))
        assert section(case.plan(world), "What will run")[0].startswith(f"{shown}, in a fork")


def test_rights_are_worded_in_groups(world: World) -> None:
    lines = section(CASES["children"].plan(world), "How it is enforced")
    assert "/data/out: write" in lines
    assert "/data/in: read, execute" in lines
    assert "/usr/bin: read, execute" in lines
    assert "/dev/null: read, write" in "\n".join(lines)
    strict = section(CASES["everything"].plan(world), "How it is enforced")
    assert "/dev/tty: WRITE_FILE, IOCTL_DEV" in strict


def test_lines_stay_readable(plan: Plan) -> None:
    for title in ("Granted by you", "Denied"):
        assert all(len(line) < 200 for line in section(plan, title))
