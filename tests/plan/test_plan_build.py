"""From a policy to a plan on a made-up machine: what is refused, what is granted besides, what each kernel can do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.errors import PolicyError, UnsupportedError
from sandboxed_python.kernel import landlock, tables, uapi
from sandboxed_python.kernel.landlock import HIGHEST_ABI, Ruleset, full
from sandboxed_python.plan import filters
from sandboxed_python.plan.build import NEEDED_ABI, filter_scopes
from sandboxed_python.plan.model import MapGate, PathRule, Plan, Target
from sandboxed_python.plan.protect import GRANTABLE_DEVICES
from sandboxed_python.policy.decide import has
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant
from sandboxed_python.policy.table import SWITCHES
from tests.plan import bpf
from tests.plan.world import RUNTIME, SUPPORT, World, plan_of

if TYPE_CHECKING:
    from sandboxed_python.kernel.probe import Support


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made_up = World()
    made_up.settle(monkeypatch, {"HOME": "/home/me", "LD_PRELOAD": "x.so", "LD_LIBRARY_PATH": "/x", "LDFLAGS": "-g"})
    return made_up


def scopes(*names: str) -> frozenset[str]:
    return frozenset(names)


# Write grants that would undo the sandbox


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("/proc", "/proc"),
        ("/proc/", "/proc"),
        ("/proc/*", "/proc"),
        ("/proc/1/mem", "/proc"),
        ("/proc/sys/kernel/co*", "/proc"),
        ("/sys", "/sys"),
        ("/sys/kernel/not-there", "/sys"),
        ("/dev", "/dev"),
        ("/dev/*", "/dev"),
        ("/dev/sda", "/dev"),
        ("/dev/sd*", "/dev"),
        ("/dev/nullb0", "/dev"),
        ("/dev/null*", "/dev"),
        ("/dev/tty*", "/dev"),
        ("/dev/pts/../sda", "/dev"),
        ("../../../proc/1/mem", "/proc"),
        ("/home/me/link-to-proc/1/mem", "/proc"),
        ("/home/me/link-to-proc", "/proc"),
        ("/dev/shm/../../proc/1", "/proc"),
    ],
)
def test_the_kernels_own_files_are_refused(world: World, text: str, tree: str) -> None:
    for writable_runtime in (False, True):
        policy = world.policy(write=("/data/out", text), writable_runtime=writable_runtime)
        with pytest.raises(PolicyError) as caught:
            plan_of(policy)
        assert str(caught.value) == (
            f"--allow-fs-write: {text!r} is refused: writing below {tree} reaches past any sandbox"
        )


@pytest.mark.parametrize("text", ["/proc/self", "/proc/self/fd/1", "/proc/thread-self/x", "/dev/stdout", "/dev/fd/3"])
@pytest.mark.parametrize("tree", ["read", "write"])
def test_names_that_mean_whoever_asks_are_refused(world: World, text: str, tree: str) -> None:
    policy = world.policy(read=(text,)) if tree == "read" else world.policy(write=(text,))
    with pytest.raises(PolicyError) as caught:
        plan_of(policy)
    assert str(caught.value) == (
        f"--allow-fs-{tree}: {text!r} is refused: here it means the supervisor, not the program"
    )


@pytest.mark.parametrize("text", [*GRANTABLE_DEVICES, "/dev/pts/3", "/dev/shm/job", "/dev/shm/job*", "/dev/pts/*"])
def test_harmless_devices_are_granted(world: World, text: str) -> None:
    plan = plan_of(world.policy(write=(text,)))
    assert plan.policy.writable(text.rstrip("*"))


@pytest.mark.parametrize("text", ["/procedures", "/system", "/devices", "/development/x", "/proc.txt"])
def test_names_that_only_look_alike_are_granted(world: World, text: str) -> None:
    assert plan_of(world.policy(write=(text,))).policy.writable(text)


COVERING = [
    # from above
    ("/venv", "/venv/lib/python3.11/site-packages"),
    ("/venv/*", "/venv/lib/python3.11/site-packages"),
    ("/opt", "/opt/python/lib/python3.11"),
    ("/home/me", "/home/me/.local/lib/python3.11/site-packages"),
    # itself, and inside
    ("/opt/python/lib/python3.11", "/opt/python/lib/python3.11"),
    ("/opt/python/lib/python3.11/os.py", "/opt/python/lib/python3.11"),
    ("/venv/lib/python3.11/site-packages/new", "/venv/lib/python3.11/site-packages"),
    ("/venv/lib/python3.11/site-packages/sandboxed_python", "/venv/lib/python3.11/site-packages"),
    ("/venv/pyvenv.cfg", "/venv/pyvenv.cfg"),
    ("/venv/bin", "/venv/bin"),
    ("/venv/bin/sandboxed-python", "/venv/bin"),
    ("/opt/python/bin/python3.11", "/opt/python/bin"),
    ("/home/me/.local/lib/python3.11/site-packages/usercustomize.py", "/home/me/.local/lib/python3.11/site-packages"),
    ("/etc/python3.11", "/etc/python3.11/sitecustomize.py"),
    # by prefix
    ("/ve*", "/venv/lib/python3.11/site-packages"),
    ("/opt/python/lib/py*", "/opt/python/lib/python3.11"),
    ("/venv/lib/python3.11/site-packages/sa*", "/venv/lib/python3.11/site-packages"),
    ("/home/me/.lo*", "/home/me/.local/lib/python3.11/site-packages"),
    # through a link
    ("/home/me/link-to-venv", "/venv/lib/python3.11/site-packages"),
    ("/home/me/link-to-venv/lib/python3.11/site-packages/x.pth", "/venv/lib/python3.11/site-packages"),
    ("/home/me/link-to-venv/bi*", "/venv/bin"),
    # from the working directory
    ("../../../venv", "/venv/lib/python3.11/site-packages"),
]


@pytest.mark.parametrize(("text", "covered"), COVERING)
def test_the_runtime_is_refused_unless_asked_for(world: World, text: str, covered: str) -> None:
    policy = world.policy(write=(text,))
    with pytest.raises(PolicyError) as caught:
        plan_of(policy)
    assert str(caught.value) == (
        f"--allow-fs-write: {text!r} is refused: it covers {covered}, which runs outside the sandbox the next time; "
        "grant a narrower path, or pass --allow-writable-runtime"
    )
    plan = plan_of(policy.replace(writable_runtime=True))
    assert plan.policy.writable(plan.policy.write[0].paths[0])


def test_a_grant_from_a_policy_file_is_refused_by_its_line(world: World) -> None:
    policy = Policy(write=world.grants("policy.toml:3", "/venv"))
    with pytest.raises(PolicyError, match=r"^policy\.toml:3: '/venv' is refused: it covers /venv"):
        plan_of(policy)


@pytest.mark.parametrize(
    "executable", ["/venv/bin/python3", "/venv/bin/../bin/python3", "/opt/./python/bin/python3.11"]
)
def test_an_interpreter_that_is_named_by_dots_is_the_same(world: World, executable: str) -> None:
    """As the older ones call themselves when they were started so."""
    plan = plan_of(world.policy(), runtime=RUNTIME.replace(executable=executable))
    assert plan.map_gate is not None
    assert plan.map_gate.files == ("/opt/python/bin/python3.11",)
    assert plan.policy.readable("/opt/python/bin/python3.11")


def test_a_user_site_that_is_not_used_may_be_written(world: World) -> None:
    runtime = RUNTIME.replace(user_sites=())
    plan = plan_of(world.policy(write=("/home/me",)), runtime=runtime)
    assert plan.policy.writable("/home/me/.local/lib/python3.11/site-packages/x.py")


@pytest.mark.parametrize("text", ["/venvs", "/venv/lib/python3.11/site-packages-of-mine", "/home/me/project", "x*"])
def test_neighbours_of_the_runtime_may_be_written(world: World, text: str) -> None:
    plan = plan_of(world.policy(write=(text,)))
    assert plan.policy.writable(plan.policy.write[0].paths[0])


def test_reading_the_runtime_and_the_kernel_is_fine(world: World) -> None:
    plan = plan_of(world.policy(read=("/venv", "/proc", "/sys", "/dev")))
    assert plan.policy.readable("/proc/self/status")


# Writing everything


@pytest.mark.parametrize("text", ["*", "/", "/*"])
def test_writing_everything_leaves_out_kernel_and_runtime(world: World, text: str) -> None:
    plan = plan_of(world.policy(write=(text,)))
    policy = plan.policy
    for path in ("/tmp/x", "/data", "/etc/passwd", "/home/me/project/job.py", "/dev/null", "/dev/tty", "/dev/pts/0"):
        assert policy.writable(path), path
    for path in (
        "/proc/self/mem",
        "/sys/kernel",
        "/dev/sda",
        "/dev/shm/x",
        *RUNTIME.files,
        "/venv/bin/x",
        "/usr/lib/x",
    ):
        assert not policy.writable(path), path
    written = {rule.path for rule in plan.rules if rule.rights & landlock.WRITE_FILE}
    assert {"/tmp", "/data", "/srv", "/dev/null", "/dev/tty"} <= written
    for own in (
        "/",
        "/proc",
        "/sys",
        "/dev",
        "/venv",
        "/opt",
        "/opt/python",
        "/usr",
        "/home",
        "/home/me",
        *RUNTIME.files,
    ):
        assert own not in written
    assert "/home/me/project" in written


def test_writing_everything_and_the_runtime(world: World) -> None:
    plan = plan_of(world.policy(write=("*",), writable_runtime=True))
    written = {rule.path for rule in plan.rules if rule.rights & landlock.WRITE_FILE}
    assert {"/venv", "/opt", "/usr", "/home", "/etc"} <= written
    assert not {"/proc", "/sys", "/dev"} & written
    assert plan.policy.writable("/venv/bin/python3")
    assert not plan.policy.writable("/proc/self/mem")


# What is granted without a flag


def test_without_flags_only_the_runtime_is_readable(world: World) -> None:
    policy = plan_of(world.policy()).policy
    for path in ("/opt/python/lib/python3.11/os.py", "/usr/lib/libc.so.6", "/dev/null", "/venv/pyvenv.cfg"):
        assert policy.readable(path), path
    for path in ("/proc/self/maps", "/tmp", "/dev/shm", "/etc/passwd", "/etc/hosts", "/home/me", "/", "/venv", "/data"):
        assert not policy.readable(path), path
    assert [grant.paths for grant in policy.write] == [("/dev/null",)]


def test_every_implicit_grant_is_marked_and_has_a_reason(world: World) -> None:
    every = scopes(*SWITCHES)
    policy = plan_of(world.policy(read=("/data",), write=("/tmp",), scopes=every)).policy
    implicit = [grant for grant in (*policy.read, *policy.write) if grant.implicit]
    assert all(grant.reason and grant.origin in ("runtime", "entry script") for grant in implicit)
    assert [grant.text for grant in policy.read if not grant.implicit] == ["/data"]
    assert [grant.text for grant in policy.write if not grant.implicit] == ["/tmp"]


def test_has_is_true_for_what_is_granted_without_a_flag(world: World) -> None:
    policy = plan_of(world.policy(scopes=scopes("net", "child"))).policy
    for scope, grants in (("fs.read", policy.read), ("fs.write", policy.write)):
        for grant in grants:
            for path in grant.paths:
                assert has(policy, scope, path, path), (scope, path)
            if grant.kind == "tree":
                assert has(policy, scope, f"{grant.paths[0]}/below", f"{grant.paths[0]}/below")


@pytest.mark.parametrize(
    ("scope", "path"),
    [("net", "/etc/resolv.conf"), ("net", "/etc/ssl/certs"), ("child", "/usr/bin"), ("child", "/bin")],
)
def test_some_grants_come_with_a_scope(world: World, scope: str, path: str) -> None:
    assert not plan_of(world.policy()).policy.readable(path)
    plan = plan_of(world.policy(scopes=scopes(scope)))
    assert plan.policy.readable(path)
    real = world.realpath(path)
    assert any(rule.path == real and rule.rights & landlock.READ for rule in plan.rules)


def test_the_entry_script_is_readable_unless_refused(world: World) -> None:
    script = "/home/me/project/job.py"
    assert plan_of(world.policy()).policy.readable(script)
    assert not plan_of(world.policy()).policy.readable("/home/me/project/other.py")
    strict = plan_of(world.policy(entrypoint=False))
    assert not strict.policy.readable(script)
    assert script not in {rule.path for rule in strict.rules}


def test_what_is_not_there_is_not_granted(world: World) -> None:
    policy = plan_of(world.policy(scopes=scopes("net"))).policy
    assert not policy.readable("/etc/gai.conf")
    assert not policy.readable("/usr/lib64/x")


# Mechanisms


def test_filter_scopes() -> None:
    def of(*names: str) -> frozenset[str]:
        return filter_scopes(Policy(scopes=scopes(*names)))

    assert of() == of("fs.metadata") == scopes()
    assert of("net", "worker", "child", "inspector") == scopes("net", "worker", "child", "inspector")
    assert of("addon") == of("ffi") == of("wasi") == of("addon", "ffi", "wasi") == scopes("exec-memory")


def parts_of(world: World, *, read: tuple[str, ...] = (), write: tuple[str, ...] = (), **more: object) -> set[str]:
    fork = bool(more.pop("fork", True))
    granted = frozenset(str(more.pop("scopes", "")).split())
    plan = plan_of(
        world.policy(read=read, write=write, scopes=granted), fork=fork, target=Target(kind="code", value="1")
    )
    assert list(plan.notify_parts) == sorted(set(plan.notify_parts))
    assert plan.way == ("fork" if fork else "exec")
    assert (plan.map_gate is not None) is ("map" in plan.notify_parts)
    assert ("exec" in plan.static_filter.split("+")) is ("exec" in plan.notify_parts)
    return set(plan.notify_parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, "change map stat"),
        ({"fork": False}, "change map stat exec"),
        ({"fork": False, "scopes": "child"}, "change map stat"),
        ({"scopes": "worker child inspector"}, "change map stat"),
        ({"scopes": "addon"}, "change stat"),
        ({"scopes": "ffi wasi"}, "change map stat"),
        ({"scopes": "net"}, "change map stat unix"),
        ({"scopes": "fs.metadata"}, "change map"),
        ({"read": ("*",)}, "change map"),
        ({"read": ("/",)}, "change map stat"),
        ({"read": ("/data", "/data/in/a.csv")}, "change map stat"),
        ({"read": ("/data", "/data/pre*")}, "change map stat open"),
        ({"read": ("/not/there",)}, "change map stat open"),
        ({"write": ("/data/out",)}, "change map stat names"),
        ({"write": ("/data/out/pre*",)}, "change map stat names write"),
        ({"write": ("/not/there",)}, "change map stat names write"),
        ({"write": ("/data/in/a.csv",)}, "change map stat names write"),
        ({"write": ("/",)}, "change map stat names write"),
        ({"write": ("/data/out/pre*",), "read": ("/data/pre*",)}, "change map stat names open"),
    ],
)
def test_notifications_are_asked_for_where_they_decide(world: World, options: dict[str, object], parts: str) -> None:
    assert parts_of(world, **options) == set(parts.split())  # type: ignore[arg-type]


OPENING = (
    *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs"),
    *("open", "openat", "creat", "chdir"),
)


@pytest.mark.parametrize("machine", sorted(uapi.AUDIT_ARCH))
def test_folders_and_metadata_leave_nothing_to_ask_on_the_way_of_open_and_stat(world: World, machine: str) -> None:
    policy = world.policy(read=("/data",), scopes=scopes("fs.metadata"))
    notifying = filters.load(filters.notify_variant(plan_of(policy).notify_parts), machine)
    flags = (0, os.O_PATH, os.O_RDWR | os.O_CREAT | os.O_TRUNC, os.O_DIRECTORY | os.O_CLOEXEC)
    column = ("x86_64", "aarch64").index(machine)
    for name in OPENING:
        number = tables.BROKERED[name][column]
        if number is not None:
            for flag in flags:
                assert bpf.run(notifying, number, (0, flag, flag), machine) == (bpf.ALLOW, 0), name


@pytest.mark.parametrize("granted", [(), ("net",), ("child",)])
def test_the_first_exec_is_possible_and_no_other(world: World, granted: tuple[str, ...]) -> None:
    def executable(*, fork: bool) -> set[str]:
        plan = plan_of(world.policy(scopes=scopes(*granted)), fork=fork)
        return {rule.path for rule in plan.rules if rule.rights & landlock.EXECUTE}

    ours = {"/opt/python/bin/python3.11"}
    if "child" in granted:
        assert {"/usr/bin", "/usr/lib"} <= executable(fork=True)
    else:
        assert executable(fork=True) == set()
        assert {path for path in executable(fork=False) if "/ld-" not in path} == ours
    assert ours <= executable(fork=False)


def test_the_gate_lets_the_interpreters_own_libraries_through(world: World) -> None:
    gate = plan_of(world.policy(read=("/data", "/srv/a.so"))).map_gate
    assert gate is not None
    assert set(gate.trees) == {
        *("/usr/lib", "/usr/local/lib", "/opt/python/lib/python3.11/lib-dynload", "/opt/python/lib"),
    }
    assert gate.files == ("/opt/python/bin/python3.11",)
    assert "/site-packages/" in gate.banned
    assert gate.open_to == ()
    with_ffi = plan_of(world.policy(read=("/data", "/srv/a.so", "/pre*"), scopes=scopes("ffi"))).map_gate
    assert with_ffi is not None
    assert set(with_ffi.trees) - set(gate.trees) == {"/data"}
    assert with_ffi.files == (*gate.files, "/srv/a.so")
    with_all = plan_of(world.policy(read=("*",), scopes=scopes("ffi"))).map_gate
    assert with_all is not None
    assert "/" in with_all.trees
    with_child = plan_of(world.policy(scopes=scopes("child"))).map_gate
    assert with_child is not None
    assert set(with_child.trees) - set(gate.trees) == {"/usr/bin"}
    with_wasi = plan_of(world.policy(scopes=scopes("wasi"))).map_gate
    assert with_wasi is not None
    assert with_wasi.open_to


def test_tcp_ports_are_handled_only_without_net(world: World) -> None:
    assert plan_of(world.policy()).ruleset == full(6)
    assert plan_of(world.policy(scopes=scopes("net"))).ruleset == full(6).replace(net=0)


def test_loader_variables_are_taken_out(world: World) -> None:
    assert plan_of(world.policy()).unset == ("LD_LIBRARY_PATH", "LD_PRELOAD")


def test_the_rest_is_passed_on(world: World) -> None:
    plan = plan_of(world.policy())
    assert (plan.machine, plan.keep_capabilities, plan.missing) == ("x86_64", 0b10_0000_1011, ())
    assert plan.target == Target(kind="script", value="job.py", arguments=("--fast", "x y"))


# Kernels


def lacking(**changes: object) -> Support:
    return SUPPORT.replace(**changes)


@pytest.mark.parametrize("abi", range(NEEDED_ABI))
def test_an_old_landlock_is_refused_with_needed_and_found(world: World, abi: int) -> None:
    support = lacking(landlock=abi, landlock_error="" if abi else "EOPNOTSUPP", release="5.19.0")
    with pytest.raises(UnsupportedError) as caught:
        plan_of(world.policy(), support=support)
    text = str(caught.value)
    assert text.startswith("this kernel (5.19.0) can't enforce the policy. Needed: Landlock ABI 6 (Linux 6.12), ")
    assert f"Found: Landlock ABI {abi}." in text
    assert text.endswith("--best-effort runs without what is missing")
    if abi == 0:
        assert "Landlock is not available (EOPNOTSUPP): the file system and signals stay open" in text
    for table in (landlock.FS_RIGHTS, landlock.NET_RIGHTS, landlock.SCOPES):
        for name, _bit, since, what in table:
            expected = 0 < abi < since <= NEEDED_ABI
            assert (f"Landlock {name} (ABI {since}): {what}" in text) is expected


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"notify": False}, ["seccomp notifications (Linux 5.0): native code"]),
        (
            {"seccomp": False, "notify": False},
            [
                "seccomp filters: threads, processes, sockets and everything else but files stay open",
                "seccomp notifications (Linux 5.0): native code",
            ],
        ),
    ],
)
def test_missing_seccomp_is_refused(world: World, changes: dict[str, object], missing: list[str]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        plan_of(world.policy(), support=lacking(**changes))
    assert f"Missing: {'; '.join(missing)}. " in str(caught.value)
    plan = plan_of(world.policy(best_effort=True), support=lacking(**changes))
    assert list(plan.missing) == missing


@pytest.mark.parametrize("abi", range(HIGHEST_ABI + 3))
def test_best_effort_enforces_what_there_is_and_lists_the_rest(world: World, abi: int) -> None:
    plan = plan_of(world.policy(read=("/data",), best_effort=True), support=lacking(landlock=abi))
    can = full(min(abi, NEEDED_ABI))
    assert plan.abi == min(abi, HIGHEST_ABI)
    assert plan.ruleset == Ruleset(fs=can.fs, net=can.net, scoped=can.scoped)
    assert bool(plan.rules) is (abi > 0)
    lost = [since for table in (landlock.FS_RIGHTS, landlock.NET_RIGHTS, landlock.SCOPES) for *_, since, _ in table]
    count = len([since for since in lost if abi < since <= NEEDED_ABI]) if abi else 1
    assert len(plan.missing) == count


@pytest.mark.parametrize("abi", range(NEEDED_ABI, HIGHEST_ABI + 3))
def test_new_enough_kernels_lack_nothing(world: World, abi: int) -> None:
    plan = plan_of(world.policy(), support=lacking(landlock=abi))
    assert plan.missing == ()
    assert plan.abi == min(abi, HIGHEST_ABI)
    for ruleset, table in ((plan.ruleset.fs, full(abi).fs), (plan.ruleset.net, full(abi).net)):
        assert ruleset & ~table == 0


# Plain data


TEXT = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(["/a/\udcff", "x y", ""])
TUPLES = st.lists(TEXT, max_size=3).map(tuple)
GRANTS = st.lists(
    st.builds(
        Grant,
        text=TEXT,
        kind=st.sampled_from(["tree", "path", "prefix", "all"]),
        paths=TUPLES,
        origin=TEXT,
        implicit=st.booleans(),
        reason=TEXT,
    ),
    max_size=3,
).map(tuple)
NUMBERS = st.integers(0, 2**63)
PLANS = st.builds(
    Plan,
    policy=st.builds(Policy, read=GRANTS, write=GRANTS, scopes=st.frozensets(st.sampled_from(sorted(SWITCHES)))),
    target=st.builds(Target, kind=TEXT, value=TEXT, arguments=TUPLES, python_options=TUPLES, python=TEXT),
    way=st.sampled_from(["fork", "exec"]),
    abi=st.integers(0, 9),
    ruleset=st.builds(Ruleset, fs=NUMBERS, net=NUMBERS, scoped=NUMBERS),
    rules=st.lists(st.builds(PathRule, path=TEXT, rights=NUMBERS, optional=st.booleans()), max_size=3).map(tuple),
    static_filter=TEXT,
    notify_parts=TUPLES,
    fstat_passes=st.booleans(),
    map_gate=st.none() | st.builds(MapGate, trees=TUPLES, files=TUPLES, banned=TUPLES, open_to=TUPLES),
    unset=TUPLES,
    keep_capabilities=NUMBERS,
    missing=TUPLES,
    machine=st.sampled_from(sorted(uapi.AUDIT_ARCH)),
)


@settings(max_examples=50)
@given(PLANS)
def test_a_plan_survives_json_and_marshal(plan: Plan) -> None:
    import marshal

    for back in (json.loads(json.dumps(plan.to_data())), marshal.loads(marshal.dumps(plan.to_data(), 2))):
        again = Plan.from_data(back)
        assert again == plan
        assert hash(again) == hash(plan)


@pytest.mark.parametrize(
    ("granted", "machine", "fork", "passes"),
    [
        ((), "x86_64", True, True),
        (("worker", "net", "ffi", "addon"), "x86_64", True, True),
        (("child",), "x86_64", True, False),
        (("fs.metadata",), "x86_64", True, False),
        ((), "x86_64", False, False),
        ((), "aarch64", True, False),
    ],
)
def test_libcs_fstat_passes_where_its_address_means_an_empty_path_for_ever(
    world: World, granted: tuple[str, ...], machine: str, *, fork: bool, passes: bool
) -> None:
    """Not where other programs have other memory there, nor where it isn't notified anyway."""
    policy = world.policy(scopes=scopes(*granted))
    support = SUPPORT.replace(machine=machine)
    assert plan_of(policy, support=support, fork=fork).fstat_passes is passes
    assert plan_of(policy.replace(writable_runtime=True), support=support, fork=fork).fstat_passes is False


def test_every_field_is_in_the_data(world: World) -> None:
    plan = plan_of(world.policy(scopes=scopes("net")))
    # What only a sandbox in a sandbox has, and a job whose memory is limited.
    assert [*plan.to_data(), "inner", "cgroup", "no_cgroup"] == list(Plan._fields)
    full = plan.replace(inner=True, cgroup="/there", no_cgroup="why")
    assert list(full.to_data()) == list(Plan._fields)
    assert Plan.from_data(full.to_data()) == full
    assert Plan.from_data(plan.to_data()) == plan
    assert plan.replace(map_gate=None) == Plan.from_data(plan.replace(map_gate=None).to_data())


@pytest.mark.parametrize("where", ["", "target", "ruleset", "map_gate", "policy"])
def test_unknown_names_in_the_data_are_refused(world: World, where: str) -> None:
    data = plan_of(world.policy()).to_data()
    (data[where] if where else data)["more"] = 1
    with pytest.raises(TypeError, match="has no field 'more'"):
        Plan.from_data(data)


# Audits


def test_an_audit_enforces_nothing(world: World) -> None:
    policy = world.policy(read=("/data",), write=("/data/out",), mode="audit")
    for fork in (True, False):
        plan = plan_of(policy, fork=fork)
        assert (plan.abi, plan.ruleset, plan.rules, plan.static_filter) == (0, Ruleset(), (), "")
        assert (plan.unset, plan.missing, plan.fstat_passes) == ((), (), False)
        assert plan.notify_parts == (filters.QUIET,)
        assert plan.policy.mode == "audit"
    assert plan_of(policy, support=lacking(landlock=0)).missing == ()


def test_an_audit_that_can_not_see_is_refused(world: World) -> None:
    with pytest.raises(UnsupportedError, match=r"seccomp notifications .*--best-effort"):
        plan_of(world.policy(mode="audit"), support=lacking(notify=False))
    plan = plan_of(world.policy(mode="audit", best_effort=True), support=lacking(notify=False))
    assert plan.notify_parts == ()
    assert len(plan.missing) == 1
