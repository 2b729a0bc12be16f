"""One process gives up what it holds: capabilities, privileges by exec, outliving its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.kernel import process, uapi

if TYPE_CHECKING:
    from tests.support import Need

PRELUDE = """
import json, os, signal, sys, time
from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import process, uapi
from sandboxed_python.kernel.calls import prctl
def status():
    with open("/proc/self/status") as file:
        rows = {name: value.strip() for name, _colon, value in (line.partition(":") for line in file)}
    return {name: int(rows[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} | {
        "nnp": int(rows["NoNewPrivs"])}
KEEP = process.capability_mask(process.KEPT_CAPABILITIES)
def out(**values):
    print(json.dumps(values))
"""


def program(text: str, user: int | None = None) -> Any:
    """Run a program in an interpreter of its own, and return what it says by ``out()``."""
    options: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + text],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd="/",
        **options,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def mask(*names: str) -> int:
    return process.capability_mask(names)


SHOWN = """
import subprocess
def shown():
    with open("/proc/self/cmdline", "rb") as file:
        return [word.decode() for word in file.read().rstrip(b"\\0").split(b"\\0")]
before = shown()
"""


@pytest.mark.parametrize("before", ["", "sys.orig_argv.append('nobody gave this')"], ids=["by libc", "by /proc"])
def test_arguments_that_are_shown(before: str) -> None:
    said = program(f"""{SHOWN}
{before}
process.set_arguments(["python", "job.py", "two words"])
first = shown()
process.set_arguments(["x" * 100000])
out(before=before, first=first, last=shown())
""")
    assert said["before"][0] == sys.executable
    assert said["first"] == ["python", "job.py", "two words"]
    room = sum(len(word.encode()) + 1 for word in said["before"])
    assert said["last"] == ["x" * (room - 1)]


def test_capability_mask() -> None:
    assert process.capability_mask(()) == 0
    assert mask("CHOWN") == 1
    assert mask("CHOWN", "KILL", "CHECKPOINT_RESTORE") == 1 | 1 << 5 | 1 << 40
    assert process.capability_mask(uapi.CAPABILITIES) == (1 << 41) - 1
    with pytest.raises(ValueError):
        mask("SYS_EVERYTHING")


def test_nothing_that_undoes_a_sandbox_is_kept() -> None:
    assert set(process.KEPT_CAPABILITIES) <= set(uapi.CAPABILITIES)
    dangerous = {
        *("DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "MKNOD", "SETFCAP"),
        *("NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "SYS_BOOT", "SYS_TIME", "SYS_NICE", "SYS_RESOURCE", "MAC_ADMIN"),
    }
    assert not dangerous & set(process.KEPT_CAPABILITIES)


def test_get_capabilities_reads_what_proc_shows() -> None:
    found = program("out(mine=process.get_capabilities(), proc=status())")
    assert found["mine"] == [found["proc"][name] for name in ("CapEff", "CapPrm", "CapInh")]


def test_root_keeps_the_list_and_loses_the_rest_for_good(needs: Need) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=True)
    found = program("""
before = status()
process.cut_capabilities(KEEP)
after = status()
try:
    os.chroot("/")
    chroot = "done"
except PermissionError:
    chroot = "refused"
# The bounding set holds for what is executed, too: root's exec would otherwise bring everything back.
reader, writer = os.pipe()
os.set_inheritable(writer, True)
pid = os.fork()
if not pid:
    os.execv(sys.executable, [sys.executable, "-c", f'''
import os
os.write({writer}, next(line for line in open("/proc/self/status", "rb") if line.startswith(b"CapPrm")))'''])
os.waitpid(pid, 0)
executed = int(os.read(reader, 100).split()[1], 16)
out(before=before, after=after, chroot=chroot, executed=executed, keep=KEEP)
""")
    keep, before, after = found["keep"], found["before"], found["after"]
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert after[name] == before[name] & keep
    assert (after["CapInh"], after["CapAmb"]) == (0, 0)
    assert found["chroot"] == "refused"
    assert found["executed"] == before["CapBnd"] & keep


def test_ambient_and_inheritable_sets_are_emptied(needs: Need) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=True)
    found = program("""
from sandboxed_python.kernel.calls import syscall
effective, permitted, _inheritable = process.get_capabilities()
halves = [(number >> shift) & 0xFFFFFFFF for shift in (0, 32) for number in (effective, permitted, 1)]
syscall("capset", process._header(), b"".join(half.to_bytes(4, "little") for half in halves[:3] + [
    halves[3], halves[4], 0]))
PR_CAP_AMBIENT_RAISE = 2
prctl(uapi.PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0)
before = status()
process.cut_capabilities(KEEP)
out(before=before, after=status())
""")
    assert (found["before"]["CapInh"], found["before"]["CapAmb"]) == (1, 1)
    assert (found["after"]["CapInh"], found["after"]["CapAmb"]) == (0, 0)


@pytest.mark.parametrize("keep", ["0", "KEEP", "process.capability_mask(('SETPCAP',))"])
def test_cutting_twice_is_cutting_once(needs: Need, keep: str) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=True)
    found = program(f"""
process.cut_capabilities({keep})
once = status()
process.cut_capabilities({keep})
out(once=once, twice=status(), keep={keep})
""")
    assert found["once"] == found["twice"]
    assert found["once"]["CapPrm"] & ~found["keep"] == 0


def test_what_is_cut_does_not_come_back(needs: Need) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=True)
    found = program("""
process.cut_capabilities(process.capability_mask(("CHOWN", "SETPCAP")))
process.cut_capabilities(process.capability_mask(process.KEPT_CAPABILITIES))
out(after=status())
""")
    assert found["after"]["CapPrm"] == found["after"]["CapBnd"] == mask("CHOWN", "SETPCAP")


def test_who_cannot_kill_others_does_not_become_another(needs: Need) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=True)
    found = program("""
effective, permitted, _ = process.get_capabilities()
process.set_capabilities(effective & ~process.capability_mask(("KILL",)), permitted, 0)
process.cut_capabilities(KEEP)
out(after=status())
""")
    assert found["after"]["CapPrm"] == mask(*process.KEPT_CAPABILITIES) & ~mask("SETUID")


def test_an_ordinary_user_has_nothing_to_cut(needs: Need) -> None:
    needs(landlock=0, seccomp=False, notify=False, root=False)
    found = program("before = status(); process.cut_capabilities(0); out(before=before, after=status())")
    assert found["before"] == found["after"]
    assert found["after"]["CapPrm"] == 0


def test_no_new_privs_is_set_and_stays() -> None:
    found = program("""
before = status()["nnp"]
process.set_no_new_privs()
process.set_no_new_privs()
try:
    prctl(uapi.PR_SET_NO_NEW_PRIVS, 0)
    unset = True
except KernelError:
    unset = False
out(before=before, after=status()["nnp"], asked=prctl(uapi.PR_GET_NO_NEW_PRIVS), unset=unset)
""")
    assert (found["after"], found["asked"], found["unset"]) == (1, 1, False)


def test_a_child_dies_with_its_parent() -> None:
    reader, writer = os.pipe()
    text = f"""
parent = os.getpid()
if not os.fork():
    assert process.die_with_parent(parent, signal.SIGKILL)
    os.write({writer}, b"ready")
    time.sleep(60)
    os._exit(1)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", PRELUDE + text], pass_fds=[writer]) as parent:
        os.close(writer)
        try:
            assert os.read(reader, 10) == b"ready"
            parent.kill()
            parent.wait()
            assert os.read(reader, 10) == b""  # the last writer is gone: the child
        finally:
            parent.kill()
            os.close(reader)


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    found = program("""
out(mine=process.die_with_parent(os.getppid(), signal.SIGTERM), other=process.die_with_parent(1 << 22, signal.SIGTERM))
""")
    assert found == {"mine": True, "other": False}


def test_a_subreaper_inherits_orphans() -> None:
    found = program("""
process.become_subreaper()
me = os.getpid()
reader, writer = os.pipe()
middle = os.fork()
if not middle:
    first = os.getpid()
    if not os.fork():
        deadline = time.monotonic() + 20
        while os.getppid() == first and time.monotonic() < deadline:
            time.sleep(0.005)
        os.write(writer, str(os.getppid()).encode())
        os._exit(7)
    os._exit(0)
os.waitpid(middle, 0)
parent = int(os.read(reader, 20))
_pid, ended = os.waitpid(-1, 0)
out(parent=parent == me, code=os.WEXITSTATUS(ended))
""")
    assert found == {"parent": True, "code": 7}


@pytest.mark.parametrize(("value", "expected"), [(60, [50, 60]), (40, [40, 40]), (1 << 40, [50, 90])])
def test_limits_are_lowered_only(value: int, expected: list[int]) -> None:
    said = program(
        f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, (50, 90))
process.lower_limit("RLIMIT_CPU", {value})
out(limits=resource.getrlimit(resource.RLIMIT_CPU))
"""
    )
    assert said["limits"] == expected
