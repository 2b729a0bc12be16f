"""The policy: what each question answers, unions, and the way to plain data and back."""

from __future__ import annotations

import json
import marshal
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxed_python.policy.model import Policy, is_broad
from sandboxed_python.policy.spelling import parse_grant
from sandboxed_python.policy.table import SWITCHES
from sandboxed_python.policy.union import union

if TYPE_CHECKING:
    from sandboxed_python.policy.patterns import Grant


class Bare:
    """A file system without links in which paths ending in ``d`` are directories."""

    def is_dir(self, path: str) -> bool:
        """Tell by the name."""
        return path.endswith(("d", "/", "/proc", "/sys", "/dev", "shm"))

    def readlink(self, path: str) -> str:
        """Know no links."""
        raise OSError(22, "not a link", path)


def grants(*texts: str) -> tuple[Grant, ...]:
    """Parse grants."""
    return tuple([parse_grant(text, "--flag", "/cwd", Bare()) for text in texts])


TEXTS = st.sampled_from(
    ["*", "/", "/d", "/d/*", "/a", "/a*", "/p*", "/d/sub*", "x", "/dev/shm", "/proc/cpuinfo", "/usr/d", "/b,\udcff"]
)
GRANTS = st.lists(TEXTS, max_size=4).map(lambda texts: grants(*texts))
POLICIES = st.builds(
    Policy,
    mode=st.sampled_from(["off", "enforce", "audit"]),
    read=GRANTS,
    write=GRANTS,
    scopes=st.frozensets(st.sampled_from(sorted(SWITCHES))),
    entrypoint=st.booleans(),
    best_effort=st.booleans(),
    writable_runtime=st.booleans(),
    warnings=st.booleans(),
    sources=st.lists(st.sampled_from(["a.toml", "cli"]), max_size=2).map(tuple),
    origins=st.lists(
        st.tuples(st.sampled_from(sorted(SWITCHES)), st.sampled_from(["a.toml:1", "--x"])), max_size=2
    ).map(tuple),
)
PATHS = [
    *("/", "/a", "/ab", "/a/b", "/d", "/d/x", "/d/sub", "/d/sub2/x", "/cwd", "/cwd/x", "/cwd/x/y"),
    *("/dev", "/dev/null", "/dev/shm", "/dev/shm/x", "/dev/sda", "/proc", "/proc/1/mem", "/proc/cpuinfo"),
    *("/usr", "/usr/d/x", "/usr/lib"),
]


@given(POLICIES)
@settings(deadline=None, max_examples=100)
def test_plain_data_both_ways(policy: Policy) -> None:
    """A policy survives to_data/from_data, also through JSON and marshal, whatever its paths hold."""
    data = policy.to_data()
    assert Policy.from_data(data) == policy
    assert Policy.from_data(json.loads(json.dumps(data))) == policy
    assert Policy.from_data(marshal.loads(marshal.dumps(data))) == policy
    assert hash(Policy.from_data(data)) == hash(policy)


def test_asking_changes_nothing_visible() -> None:
    """The compiled matchers are no part of a policy's value, and a changed copy compiles its own."""
    policy, twin = Policy(read=grants("/d")), Policy(read=grants("/d"))
    assert policy.readable("/d/x")
    assert policy.reader is policy.reader
    assert policy == twin
    assert policy.to_data() == twin.to_data()
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert not policy.replace(read=()).readable("/d/x")


def test_from_data_refuses_strangers() -> None:
    """A name that no policy has is an error, not ignored."""
    with pytest.raises(TypeError, match="colour"):
        Policy.from_data({**Policy().to_data(), "colour": "red"})
    with pytest.raises(ValueError, match="unpack"):
        Policy.from_data({**Policy().to_data(), "read": [["/a"]]})


@given(st.lists(POLICIES, min_size=1, max_size=3), st.sampled_from(PATHS))
@settings(deadline=None, max_examples=200)
def test_union_is_monotone(policies: list[Policy], path: str) -> None:
    """What one of the policies grants, their union grants; and it grants no more than that."""
    both = union(policies)
    assert both.readable(path) == any(policy.readable(path) for policy in policies)
    assert both.writable(path) == any(policy.writable(path) for policy in policies)
    assert both.statable(path) == any(policy.statable(path) for policy in policies)
    for scope in SWITCHES:
        assert both.granted(scope) == any(policy.granted(scope) for policy in policies)
    assert union([both, *policies]) == both


def test_union_keeps_every_origin() -> None:
    """Who granted a switch is known from all policies, and each is named once."""
    one = Policy(scopes=frozenset({"net"}), origins=(("net", "a"), ("worker", "a")))
    two = Policy(scopes=frozenset({"net"}), origins=(("net", "a"), ("net", "b")))
    both = union([one, two])
    assert both.origins_of("net") == ("a", "b")
    assert both.origins_of("worker") == ("a",)
    assert both.origins_of("ffi") == ()


def test_union_of_modes_and_options() -> None:
    """Enforcing wins over auditing over off; an option that was moved from its default wins."""
    off, audit, enforce = (Policy(mode=mode) for mode in ("off", "audit", "enforce"))
    assert union([]).mode == "off"
    assert union([off, audit]).mode == "audit"
    assert union([audit, enforce, off]).mode == "enforce"
    moved = Policy(entrypoint=False, best_effort=True, writable_runtime=True, warnings=False, protected=("/opt",))
    assert union([Policy(), moved]) == moved


def test_write_all_leaves_out_the_kernels_trees() -> None:
    """``*``, ``/`` and prefixes that swallow /proc, /sys or /dev don't reach into them; terminals stay."""
    for text in ("*", "/", "/*"):
        policy = Policy(write=grants(text))
        for path in ("/proc", "/proc/self/mem", "/sys/x", "/dev", "/dev/sda", "/dev/shm/x", "/dev/pts", "/dev/nullx"):
            assert not policy.writable(path), (text, path)
        for path in ("/", "/procx", "/tmp/proc/x", "/dev/null", "/dev/tty", "/dev/pts/0", "/home/x"):
            assert policy.writable(path), (text, path)
    prefix = Policy(write=grants("/p*", "/dev*"))
    assert prefix.writable("/pub/x")
    assert prefix.writable("/devices")
    assert prefix.writable("/dev/null")
    assert not prefix.writable("/proc/self/mem")
    assert not prefix.writable("/dev/sda")


def test_named_kernel_files_match_as_they_are() -> None:
    """A grant inside such a tree, or of it, means what it says; whether it may be given is the planner's to judge."""
    policy = Policy(write=grants("*", "/dev/shm", "/proc"))
    assert policy.writable("/dev/shm/sem.x")
    assert policy.writable("/proc/self/mem")
    assert not policy.writable("/dev/sda")
    assert not policy.writable("/sys/x")
    assert Policy(write=grants("/dev/shm/sem.*")).writable("/dev/shm/sem.x")


def test_protected_trees_are_left_out_by_everything_only() -> None:
    """The planner's protected trees are out of reach of ``*``, not of a grant that names them."""
    everything = Policy(write=grants("*"), protected=("/usr/lib/py",))
    assert not everything.writable("/usr/lib/py/os.py")
    assert everything.writable("/usr/lib/pyx")
    named = everything.replace(write=grants("*", "/usr/lib/py/*"))
    assert named.writable("/usr/lib/py/os.py")


def test_reading_everything_includes_the_kernels_trees() -> None:
    """``--allow-fs-read=*`` includes /proc."""
    assert Policy(read=grants("*")).readable("/proc/self/mem")


def test_broad() -> None:
    """Broad is what covers a kernel tree without naming it."""
    assert [is_broad(grant) for grant in grants("*", "/", "/*", "/p*", "/proc*")] == [True] * 5
    assert [is_broad(grant) for grant in grants("/proc", "/proc/*", "/proc/s*", "/a", "/a*")] == [False] * 5


def test_metadata_is_open_above_grants() -> None:
    """Directories above a read or write grant may be asked for metadata, not read; their neighbours may not."""
    policy = Policy(read=grants("/home/me/d"), write=grants("/var/out/pre*"))
    for path in ("/", "/home", "/home/me", "/home/me/d/x", "/var", "/var/out"):
        assert policy.statable(path), path
    assert not policy.readable("/home")
    for path in ("/home/you", "/var/log", "/home/me/e", "/var/out/pre1"):
        assert not policy.statable(path), path
    assert policy.replace(scopes=frozenset(["fs.metadata"])).statable("/home/you")


def test_addon_implies_ffi() -> None:
    """Who may load native code can call what it likes; not the other way round."""
    assert Policy(scopes=frozenset(["addon"])).granted("ffi")
    assert not Policy(scopes=frozenset(["ffi"])).granted("addon")
    assert not Policy().granted("ffi")
    assert not Policy(scopes=frozenset(["net"])).granted("fs.read")


def test_default_is_closed() -> None:
    """A policy that says nothing enforces, and grants nothing."""
    policy = Policy()
    assert policy.mode == "enforce"
    assert not policy.readable("/")
    assert not policy.writable("/dev/null")
    assert not any(policy.granted(scope) for scope in SWITCHES)


def test_start_up_cost() -> None:
    """The modules of the hot path load nothing that takes milliseconds."""
    costly = {
        "typing",
        "dataclasses",
        "enum",
        "re",
        "collections",
        "functools",
        "pathlib",
        "json",
        "argparse",
        "inspect",
    }
    costly |= {"subprocess", "signal", "select", "socket", "threading", "logging", "tomllib", "contextlib", "tempfile"}
    source = (
        "import sys; sys.path[:0] = sys.argv[1:]; before = set(sys.modules); "
        "import sandboxed_python.policy.decide, sandboxed_python.policy.model, sandboxed_python.policy.table; "
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source, *sys.path], check=True, capture_output=True, text=True
    ).stdout
    loaded = {name.partition(".")[0] for name in output.split()}
    assert "sandboxed_python" in loaded
    assert not loaded & costly
