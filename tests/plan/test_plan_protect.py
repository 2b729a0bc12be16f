"""What write grants may not reach, beyond what ``test_plan_build`` tells of a whole plan."""

from __future__ import annotations

import os

import pytest

from sandboxed_python.errors import PolicyError
from sandboxed_python.plan.implicit import implicit_read
from sandboxed_python.plan.mounts import Mounts, parse, read_mounts
from sandboxed_python.plan.protect import LOADER_FILES, Protection
from sandboxed_python.policy.model import KERNEL_TREES, Policy
from sandboxed_python.policy.patterns import Grant
from tests.plan.world import RUNTIME, SUPERVISOR, World

MOUNTED = ("/srv/chroot/proc", "/data/debug")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made_up = World()
    made_up.settle(monkeypatch, {"HOME": "/home/me"})
    made_up.mounts = MOUNTED
    return made_up


def refusal(world: World, text: str, *, flag: str = "write", writable_runtime: bool = False) -> str:
    policy = world.policy(write=(text,)) if flag == "write" else world.policy(read=(text,))
    policy = policy.replace(writable_runtime=writable_runtime)
    with pytest.raises(PolicyError) as caught:
        Protection((RUNTIME,)).check(policy)
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["/srv", "/srv/chroot/proc", "/srv/chroot/proc/1/mem", "/srv/ch*", "/data", "/data/debug"]
)
def test_kernel_file_systems_are_refused_wherever_they_are_mounted(world: World, text: str) -> None:
    for writable_runtime in (False, True):
        told = refusal(world, text, writable_runtime=writable_runtime)
        assert told.startswith(f"--allow-fs-write: {text!r} is refused: it covers ")
        assert told.endswith(", where a kernel file system is mounted")
    Protection((RUNTIME,)).check(world.policy(read=(text,)))


@pytest.mark.parametrize("text", [*LOADER_FILES, "/etc", "/usr/lib/x", "/lib/new.so", "/usr/local/lib", "/usr"])
def test_what_the_loader_runs_in_every_program_is_refused(world: World, text: str) -> None:
    assert "runs outside the sandbox the next time" in refusal(world, text)
    Protection((RUNTIME,)).check(world.policy(write=(text,), writable_runtime=True))


# Whoever takes one of these away makes a way out of the sandbox, by way of the next start: think twice, then do it here.
MUST_BE_NAMED = {
    "the loader's orders": ("/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    "libraries": (
        "/lib",
        "/lib64",
        "/lib32",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib32",
        "/usr/local/lib",
        "/usr/local/lib64",
    ),
    "programs": ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/libexec"),
    "the interpreter": ("/venv/bin", "/opt/python/bin", "/venv/bin/python3", "/opt/python/bin/python3.11"),
    "the environment": ("/venv/pyvenv.cfg", "/venv/lib/python3.11/site-packages", "/venv/bin/sandboxed-python"),
    "the standard library": (
        "/opt/python/lib",
        "/opt/python/lib/python3.11",
        "/opt/python/lib/python3.11/os.py",
        "/opt/python/lib/python3.11/lib-dynload",
        "/opt/python/lib/libpython3.11.so.1.0",
        "/opt/python/lib/python3.11/sitecustomize.py",
        "/etc/python3.11/sitecustomize.py",
    ),
    "the user's own": ("/home/me/.local/lib/python3.11/site-packages",),
    "this package": ("/venv/lib/python3.11/site-packages/sandboxed_python", "/venv/bin/sandboxed-python"),
    "the path": ("/srv/sources", "/opt/python/lib/python311.zip"),
}


@pytest.mark.parametrize("what", MUST_BE_NAMED)
def test_everything_that_runs_outside_is_named(world: World, what: str) -> None:
    """Refused by its own name, by what lies below it and by a prefix of its name; left out of a grant of everything."""
    runtime = RUNTIME.replace(path=("/srv/sources", "/opt/python/lib/python311.zip"))
    protection = Protection((runtime,))
    everything = world.policy(write=("*",))
    left_out = protection.left_out(everything, ())
    for path in MUST_BE_NAMED[what]:
        real = world.realpath(path)
        assert any(real == tree or real.startswith(f"{tree}/") for tree in left_out), path
        for text in (path, f"{path}/below", f"{path}*", f"{path[:-1]}*"):
            with pytest.raises(PolicyError, match="runs outside the sandbox the next time"):
                protection.check(world.policy(write=(text,)))


def test_links_on_the_way_are_protected_and_nothing_beside_them(world: World) -> None:
    """Replacing a link leads the next start elsewhere; a grant of what else it leads to has nothing to do with that."""
    world.links |= {"/home/me/py": "/mnt/disk", "/mnt/disk/current": "3.11", "/opt/link": "../home/me/py/current/bin"}
    world.names |= {"/mnt/disk/3.11/bin/python3", "/home/me/py", "/mnt/disk/current", "/opt/link"}
    world.folders |= {"/mnt", "/mnt/disk", "/mnt/disk/3.11", "/mnt/disk/3.11/bin", "/mnt/disk/data"}
    world.links["/venv/bin/python3"] = "/opt/link/python3"
    protection = Protection((RUNTIME,))
    for text in ("/opt/link", "/opt/l*", "/home/me/py", "/home/me/p*", "/mnt/disk/cur*", "/mnt/disk/current", "/mnt"):
        with pytest.raises(PolicyError, match="runs outside the sandbox the next time"):
            protection.check(world.policy(write=(text,)))
    for text in ("/mnt/disk/data", "/home/me/py/data", "/mnt/disk/data/x*", "/opt/linked", "/home/me/project"):
        protection.check(world.policy(write=(text,)))
    left_out = protection.left_out(world.policy(write=("*",)), ())
    assert {"/opt/link", "/home/me/py", "/mnt/disk/current", "/venv/bin/python3", "/bin", "/lib"} <= set(left_out)
    assert "/mnt/disk/data" not in left_out


@pytest.mark.parametrize("flag", ["read", "write"])
def test_the_supervisors_own_process_is_refused(world: World, flag: str) -> None:
    for text in (f"/proc/{SUPERVISOR}", f"/proc/{SUPERVISOR}/mem", f"/proc/{SUPERVISOR}/task/1"):
        assert "here it means the supervisor" in refusal(world, text, flag=flag)


def test_both_interpreters_are_protected(world: World) -> None:
    other = RUNTIME.replace(executable="/other/bin/python", stdlib="/other/lib/python3.13", path=("/other/added",))
    policy = world.policy(write=("/other/added/x",))
    Protection((RUNTIME,)).check(policy)
    for runtimes in ((RUNTIME, other), (other, RUNTIME)):
        with pytest.raises(PolicyError, match="it covers /other/added"):
            Protection(runtimes).check(policy)


def test_everything_leaves_out_what_narrow_grants_may_not_name(world: World) -> None:
    protection = Protection((RUNTIME,))
    everything = world.policy(write=("*",))
    implicit = implicit_read(everything, RUNTIME, Grant(text="j", kind="path", paths=("/data/j",)))
    left_out = protection.left_out(everything, implicit)
    assert {*RUNTIME.files, *MOUNTED, *LOADER_FILES, "/usr/lib"} <= set(left_out)
    assert "/data/j" not in left_out
    assert protection.left_out(everything.replace(writable_runtime=True), implicit) == MOUNTED
    assert protection.left_out(world.policy(write=("/tmp",)), implicit) == ()
    assert protection.left_out(Policy(), implicit) == ()


def test_other_mounts_of_what_is_protected_are_refused(world: World) -> None:
    """A bind mount of the environment, or of a folder above it, is the environment."""
    world.bound = (
        ("/venv/lib/python3.11/site-packages", "/srv/packages"),
        ("/venv", "/srv/environment"),
        ("/data/own", "/venv/lib/python3.11/site-packages/bound"),
        ("/srv/elsewhere", "/srv/harmless"),
    )
    for text in (
        "/srv/packages",
        "/srv/packages/module.py",
        "/srv/environment",
        "/srv/env*",
        "/data/own",
        "/data/own/x",
    ):
        assert "runs outside the sandbox the next time" in refusal(world, text)
        Protection((RUNTIME,)).check(world.policy(write=(text,), writable_runtime=True))
    Protection((RUNTIME,)).check(world.policy(write=("/srv/harmless", "/srv/elsewhere", "/data/other", "/srv/har*")))
    everything = world.policy(write=("*",))
    left_out = Protection((RUNTIME,)).left_out(everything, implicit_read(everything, RUNTIME, None))
    assert {"/srv/packages", "/srv/environment/lib/python3.11/site-packages", "/data/own"} <= set(left_out)
    assert "/srv/harmless" not in left_out


MOUNTINFO = rb"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:21 / /srv/my\040jail/proc rw - proc proc rw
25 22 8:1 /home/w /srv/alias rw - ext4 /dev/sda1 rw
26 22 8:2 /vol/a /data rw master:1 - ext4 /dev/sdb1 rw
27 26 8:2 /vol/a/in /data/sub/twice rw - ext4 /dev/sdb1 rw
28 22 8:2 /vol /backup rw - ext4 /dev/sdb1 rw
29 26 8:1 /etc/hosts /data/hosts rw - ext4 /dev/sda1 rw
30 22 0:4 net:[4026531840] /run/netns/x rw - nsfs nsfs rw
a line of another kind
"""


@pytest.mark.parametrize(
    ("kind", "path", "names"),
    [
        ("tree", "/srv/alias", {("tree", "/home/w")}),
        ("tree", "/srv/alias/x", {("tree", "/home/w/x")}),
        ("path", "/home/w/new", {("path", "/srv/alias/new")}),
        ("tree", "/home", {("tree", "/srv/alias")}),
        ("tree", "/home/other", set()),
        ("prefix", "/home/w/o", {("prefix", "/srv/alias/o")}),
        ("prefix", "/home/w", {("tree", "/srv/alias")}),
        ("prefix", "/srv/al", {("tree", "/home/w")}),
        ("prefix", "/home/x", set()),
        ("tree", "/data", {("tree", "/backup/a"), ("tree", "/backup/a/in"), ("tree", "/etc/hosts")}),
        ("tree", "/data/in", {("tree", "/data/sub/twice"), ("tree", "/backup/a/in")}),
        ("tree", "/backup", {("tree", "/data"), ("tree", "/data/sub/twice")}),
        ("path", "/etc/hosts", {("path", "/data/hosts")}),
        ("tree", "/data/sub/twice/x", {("tree", "/data/in/x"), ("tree", "/backup/a/in/x")}),
    ],
)
def test_other_names_of_a_place(kind: str, path: str, names: set[tuple[str, str]]) -> None:
    mounts = Mounts(parse(MOUNTINFO))
    assert mounts.kernel == ("/srv/my jail/proc", "/run/netns/x")
    found = mounts.other_names(kind, path)
    assert len(found) == len(set(found))
    assert set(found) == names


@pytest.mark.parametrize("kind", ["proc", "cgroup2", "devpts", "rpc_pipefs", "nfsd", "functionfs", "smackfs", "xenfs"])
def test_the_kernels_doors_are_known_wherever_they_are(kind: str) -> None:
    """A second instance of devpts has other jobs' terminals; a pipe of rpc_pipefs speaks to the kernel."""
    row = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / /srv/jail/x rw - {kind} none rw\n"
    assert Mounts(parse(row.encode())).kernel == ("/srv/jail/x",)
    at_home = row.replace("/srv/jail/x", "/dev/pts").replace(kind, "devpts")
    assert Mounts(parse(at_home.encode())).kernel == ()  # the one at its place: terminals stay


def test_a_hidden_mount_is_nowhere() -> None:
    """Something mounted over a folder on the way to it, or over it: the path leads to that."""
    over_the_way = rb"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 8:2 / /p/x/y rw - ext4 /dev/sdb1 rw
24 23 0:21 / /p/x/y/proc rw - proc proc rw
25 22 8:1 /a /p/x rw - ext4 /dev/sda1 rw
26 25 8:1 /b /p/x/z rw - ext4 /dev/sda1 rw
"""
    mounts = Mounts(parse(over_the_way))
    assert mounts.kernel == ()
    assert mounts.other_names("tree", "/p/x/y") == [("tree", "/a/y")]
    assert mounts.other_names("tree", "/p/x/z") == [("tree", "/b")]
    over_it = rb"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
24 23 8:1 /a /p rw - ext4 /dev/sda1 rw
23 22 8:2 / /p rw - ext4 /dev/sdb1 rw
"""
    assert Mounts(parse(over_it)).other_names("tree", "/p/y") == [("tree", "/a/y")]


def test_where_nothing_is_mounted_twice_there_are_no_other_names() -> None:
    mounts = Mounts(parse(b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / /proc rw - proc proc rw\n"))
    assert mounts.other_names("tree", "/home") == []
    assert Mounts(()).other_names("tree", "/home") == []
    assert read_mounts("/nowhere").kernel == ()


def test_the_mounts_of_this_machine() -> None:
    found = read_mounts().kernel
    assert all(os.path.isabs(path) for path in found)
    assert not [path for path in found for tree in KERNEL_TREES if path == tree or path.startswith(f"{tree}/")]
