"""``--permission-audit``: nothing is denied, and everything that would have been is told, native code included."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.child.replay import load
from tests.escape.attack import number
from tests.launch.test_permission_log import NATIVE, about, lines
from tests.oracle.test_oracle import replay
from tests.oracle.test_oracle_drop import ask
from tests.policy.test_policy_oracle import load_cases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from tests.support import Finished, Need, Run

READ, WRITE = "FileSystemRead", "FileSystemWrite"


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs(landlock=0)


def audit(run: Run, folder: str, code: str, *flags: str, **options: Any) -> list[dict[str, Any]]:
    """Run code, which must end well, and return what was noted."""
    log = f"{folder}/log"
    if os.path.exists(log):
        os.unlink(log)
    ended: Finished = run("--permission-audit", f"--permission-log={log}", *flags, "-c", code, cwd=folder, **options)
    assert ended.code == 0, ended.said
    assert ended.stderr == "", ended.said
    found = lines(log)
    assert not any(line["enforced"] for line in found)
    return found


def brief(found: Sequence[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    """Return permission, path and source of lines."""
    return [(line["permission"], line["path"], line["source"]) for line in found]


# Python's own calls: (code, the permissions that it needs, of which places)
CALLS = {
    "open": ("open('f').read()", [(READ, "f")]),
    "write": ("open('f', 'w').write('x')", [(WRITE, "f")]),
    "both": ("open('f', 'r+').close()", [(READ, "f"), (WRITE, "f")]),
    "create": ("open('new', 'x').close()", [(WRITE, "new")]),
    "stat": ("os.stat('f')", [(READ, "f")]),
    "lstat": ("os.lstat('l')", [(READ, "l")]),
    "access": ("assert os.access('f', os.R_OK)", [(READ, "f")]),
    "exists": ("assert os.path.exists('f')", [(READ, "f")]),
    "readlink": ("assert os.readlink('l') == 'f'", [(READ, "l")]),
    "listdir": ("assert 'f' in os.listdir('.')", [(READ, ".")]),
    "mkdir": ("os.mkdir('d2')", [(WRITE, "d2")]),
    "rmdir": ("os.rmdir('d')", [(WRITE, "d")]),
    "unlink": ("os.unlink('f')", [(WRITE, "f")]),
    "rename": ("os.rename('f', 'g')", [(READ, "f"), (WRITE, "f"), (WRITE, "g")]),
    "link": ("os.link('f', 'g')", [(READ, "f"), (WRITE, "f"), (WRITE, "g")]),
    "symlink": ("os.symlink('f', 'g')", [(WRITE, "g")]),
    "chmod": ("os.chmod('f', 0o700)", [(WRITE, "f")]),
    "utime": ("os.utime('f', (1, 1))", [(WRITE, "f")]),
    "truncate": ("os.truncate('f', 1)", [(WRITE, "f")]),
    "mkfifo": ("os.mkfifo('p')", [(WRITE, "p")]),
}


def lay_out(top: str) -> None:
    os.makedirs(f"{top}/d")
    os.symlink("f", f"{top}/l")
    with open(f"{top}/f", "w", encoding="utf-8") as file:
        file.write("data")


@pytest.mark.parametrize("name", CALLS)
def test_what_python_does(run: Run, folder: str, name: str) -> None:
    """One line each for what the hook and the broker both saw; it was done; and none where it is granted."""
    code, wanted = CALLS[name]
    for at, flags in enumerate(((), (f"--allow-fs-read={folder}/1/", f"--allow-fs-write={folder}/1/"))):
        top = f"{folder}/{at}"
        lay_out(top)
        before = support.snapshot(top)
        found = audit(run, folder, f"import os; os.chdir({top!r})\n{code}", *flags)
        changed = support.changes(before, support.snapshot(top))
        assert bool(changed) is (WRITE in [permission for permission, _path in wanted] and name != "both")
        places = [(permission, top if path == "." else f"{top}/{path}") for permission, path in wanted]
        of_code = [line for line in found if line["line"] == 2 and line["file"] == "<string>"]
        if flags:
            assert found == []
            continue
        assert brief(of_code) == [(*place, "supervisor") for place in places]
        assert all(line["call"] and line["event"] for line in of_code)
        # Nothing is told twice.
        assert [line for line in found if line["event"] is None and line["path"] in dict(places).values()] == []


# Raw calls: (name, arguments, needed)
RAW = {
    "openat": ("-100, b'f', 0", [(READ, "f")]),
    "openat2": ("-100, b'new', (ctypes.c_uint64 * 3)(0o101, 0o600, 0), 24", [(WRITE, "new")]),
    "statx": ("-100, b'f', 0, 0x7ff, bytes(256)", [(READ, "f")]),
    "newfstatat": ("-100, b'l', bytes(256), 0x100", [(READ, "l")]),
    "faccessat": ("-100, b'f', 2", [(WRITE, "f")]),
    "readlinkat": ("-100, b'l', bytes(99), 9", [(READ, "l")]),
    "mkdirat": ("-100, b'd2', 0o700", [(WRITE, "d2")]),
    "unlinkat": ("-100, b'f', 0", [(WRITE, "f")]),
    "renameat2": ("-100, b'f', -100, b'g', 0", [(READ, "f"), (WRITE, "f"), (WRITE, "g")]),
    "linkat": ("-100, b'f', -100, b'g', 0", [(READ, "f"), (WRITE, "f"), (WRITE, "g")]),
    "symlinkat": ("b'f', -100, b'g'", [(WRITE, "g")]),
    "fchmodat": ("-100, b'f', 0o700", [(WRITE, "f")]),
    "fchownat": ("-100, b'l', os.getuid(), os.getgid(), 0x100", [(WRITE, "l")]),
    "fchmod": ("os.open('f', 0), 0o700", [(READ, "f"), (WRITE, "f")]),
    "utimensat": ("-100, b'f', None, 0", [(WRITE, "f")]),
    "truncate": ("b'f', 1", [(WRITE, "f")]),
    "setxattr": ("b'f', b'user.a', b'x', 1, 0", [(WRITE, "f")]),
}


@pytest.mark.parametrize("name", RAW)
def test_what_native_code_does(run: Run, folder: str, name: str) -> None:
    arguments, wanted = RAW[name]
    call = f"{NATIVE}\ncall = libc.syscall\n"
    for at, flags in enumerate(((), (f"--allow-fs-read={folder}/1/", f"--allow-fs-write={folder}/1/"))):
        top = f"{folder}/{at}"
        lay_out(top)
        code = f"{call}os.chdir({top!r})\nraw('syscall', {number(name)}, {arguments})"
        ended = run("--permission-audit", "--allow-ffi", f"--permission-log={folder}/log{at}", *flags, "-c", code)
        assert (ended.code, ended.stdout, ended.stderr) == (0, "", ""), ended.said
        found = [line for line in lines(f"{folder}/log{at}") if (line["path"] or "").startswith(f"{top}/")]
        assert [pair[:2] for pair in brief(found)] == (
            [] if flags else [(need, f"{top}/{path}") for need, path in wanted]
        )
        assert all(line["source"] == "supervisor" for line in found)


SWITCHES = {
    "child": ("ChildProcess", "os.waitpid(os.fork() or os._exit(0), 0)", "pid = libc.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)"),
    "worker": (
        "WorkerThreads",
        "import threading; t = threading.Thread(target=print); t.start(); t.join()",
        ("result = ctypes.c_ulong()\nnothing = ctypes.cast(libc.getpid, ctypes.c_void_p)\n"
        "assert libc.pthread_create(ctypes.byref(result), None, nothing, None) == 0\n"
        "libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]\nlibc.pthread_join(result, None)"),
    ),
    "net": (
        "Net",
        "import socket; socket.socket().close()",
        "fd = libc.socket(2, 1, 0)\nassert fd >= 0\nlibc.close(fd)",
    ),
    "inspector": (
        "Inspector",
        "import sys; sys.settrace(None)",
        ("buffer = ctypes.create_string_buffer(8)\nvector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)\n"
        "raw('process_vm_readv', os.getpid(), vector, 1, vector, 1, 0)"),
    ),
    "ffi": (
        "FFI",
        "import ctypes; ctypes.CDLL(None).getpid",
        "libc.mmap.restype = ctypes.c_void_p\nassert libc.mmap(None, 4096, 7, 0x22, -1, 0)",
    ),
}  # fmt: skip
FLAG = {"child": "--allow-child-process", "worker": "--allow-worker", "net": "--allow-net"}


@pytest.mark.parametrize("scope", SWITCHES)
def test_switches(run: Run, folder: str, scope: str) -> None:
    permission, code, raw = SWITCHES[scope]
    flag = FLAG.get(scope, f"--allow-{scope}")
    found = [line for line in audit(run, folder, f"import os\n{code}") if line["permission"] == permission]
    assert {line["line"] for line in found} >= {2}
    assert {line["flag"] for line in found} == {flag}
    if scope in ("child", "worker", "net"):
        assert [(line["source"], bool(line["call"]), bool(line["event"])) for line in found] == [
            ("supervisor", True, True)
        ]
    assert not [line for line in audit(run, folder, f"import os\n{code}", flag) if line["permission"] == permission]
    other = () if scope == "ffi" else ("--allow-ffi",)
    native = [line for line in audit(run, folder, NATIVE + raw, *other) if line["permission"] == permission]
    assert [line["call"] for line in native if line["call"]], native
    assert not [
        line for line in audit(run, folder, NATIVE + raw, "--allow-ffi", flag) if line["permission"] == permission
    ]


def test_programs(run: Run, folder: str) -> None:
    """Subprocess is one line, although it forks, looks along PATH and executes; native code has one for each step."""
    code = "import subprocess\nsubprocess.run(['true'], check=True)"
    (line,) = [line for line in audit(run, folder, code) if line["permission"] == "ChildProcess"]
    assert (line["event"], line["resource"], line["line"]) == ("subprocess.Popen", "true", 2)
    assert (line["call"], os.path.basename(line["path"])) == ("execve", "true")
    native = audit(run, folder, NATIVE + "assert libc.system(b'true') == 0", "--allow-ffi")
    steps = [line for line in native if line["permission"] == "ChildProcess"]
    assert len(steps) == 2
    assert steps[1]["resource"] == "/bin/sh"
    granted = audit(run, folder, code, "--allow-child-process")
    assert not [line for line in granted if line["permission"] == "ChildProcess"]


def test_addresses(run: Run, folder: str) -> None:
    """Connections arrive; the line names the address, or the path of a Unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(f"{folder}/s.sock")
        local.listen()
        port = server.getsockname()[1]
        code = f"""
import socket
socket.create_connection(("127.0.0.1", {port})).close()
s = socket.socket(socket.AF_UNIX)
s.connect({folder + "/s.sock"!r})
"""
        found = audit(run, folder, code)
        server.accept()[0].close()
        local.accept()[0].close()
        assert [line["resource"] for line in found if line["call"] == "connect"] == [
            "127.0.0.1", f"{folder}/s.sock", f"{folder}/s.sock",
        ]  # fmt: skip
        assert (WRITE, f"{folder}/s.sock") in [(line["permission"], line["path"]) for line in found]
        granted = audit(run, folder, code, "--allow-net", f"--allow-fs-write={folder}/s.sock")
        assert [line for line in granted if line["permission"] == "Net" or line["path"] == f"{folder}/s.sock"] == []


def test_code_in_files(run: Run, folder: str) -> None:
    """A library outside of the interpreter's is an addon, also when native code maps it."""
    code = f"{NATIVE}import shutil, _ctypes\nshutil.copy(_ctypes.__file__, {folder + '/x.so'!r})\n"
    code += f"libc.dlopen.restype = ctypes.c_void_p\nassert libc.dlopen({folder.encode() + b'/x.so'!r}, 2)"
    if "/" not in (sys.modules.get("_ctypes") or __import__("_ctypes")).__dict__.get("__file__", ""):
        pytest.skip("needs _ctypes in a file; found it built in")
    found = audit(run, folder, code, "--allow-ffi")
    assert [(line["permission"], line["call"]) for line in found if line["path"] == f"{folder}/x.so"][-1] == (
        "Addon",
        "mmap",
    )
    granted = audit(run, folder, code, "--allow-addons", "--allow-fs-read=*")
    assert not [line for line in granted if line["permission"] == "Addon"]


def test_with_permission_it_enforces(run: Run, needs: Need, folder: str) -> None:
    needs()
    lay_out(f"{folder}/t")
    for flags in (["--permission", "--permission-audit"], ["--permission-audit", "--permission"]):
        ended = run(*flags, f"--permission-log={folder}/log", "-c", f"open({folder + '/t/f'!r})")
        assert ended.code == 1
        assert "AccessDeniedError" in ended.stderr
    assert [line["enforced"] for line in about(f"{folder}/log", f"{folder}/t/f")] == [True, True]


def test_with_a_limit_on_processes(run: Run, folder: str) -> None:
    """Their start is counted, and noted all the same."""
    code = "import os\nif os.fork() == 0: os._exit(0)\nos.wait()"
    found = audit(run, folder, code, "--limit-processes=5")
    assert [(line["permission"], line["event"]) for line in found] == [("ChildProcess", "os.fork")]


def test_without_a_log_it_is_silent(run: Run, folder: str) -> None:
    lay_out(f"{folder}/t")
    code = f"import os; os.remove({folder + '/t/f'!r}); os.system('true'); print(os.listdir({folder + '/t'!r}))"
    ended = run("--permission-audit", "-c", code)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "['l', 'd']\n", "") or ended.stdout == "['d', 'l']\n"


def test_another_interpreter(run: Run, folder: str) -> None:
    """The exec way: the supervisor's own exec isn't told, the program's is."""
    lay_out(f"{folder}/t")
    found = audit(run, folder, f"open({folder + '/t/f'!r})", "-B")
    assert brief(about(f"{folder}/log", f"{folder}/t/f")) == [(READ, f"{folder}/t/f", "supervisor")]
    assert not [line for line in found if line["permission"] != READ]
    found = audit(run, folder, "import os; os.execv('/bin/true', ['true'])", "-B")
    assert [line["resource"] for line in found if line["permission"] == "ChildProcess"] == ["/bin/true"]


def test_what_is_dropped_is_told_from_then_on(run: Run, folder: str) -> None:
    lay_out(f"{folder}/t")
    path = f"{folder}/t/f"
    code = f"""
import os, sys
open({path!r}).close()
os.path.exists({path!r})
sys.permission.drop("fs.read")
assert not sys.permission.has("fs.read", {path!r})
os.stat({path!r})
"""
    audit(run, folder, code, f"--allow-fs-read={folder}/t")
    (asked, line) = about(f"{folder}/log", path)
    assert (asked["event"], asked["line"]) == ("permission.has", 6)
    assert (line["event"], line["line"], line["source"]) == ("os.stat", 7, "supervisor")


def test_other_users(run: Run, needs: Need, user_dir: str) -> None:
    """What root's program starts as somebody else is seen, too."""
    needs(root=True, landlock=0)
    folder = user_dir
    lay_out(f"{folder}/t")
    code = f"import subprocess; subprocess.run(['/bin/cat', {folder + '/t/f'!r}], check=True, user=65534)"
    found = audit(run, folder, code)
    assert (READ, f"{folder}/t/f", "supervisor") in brief(found)


def test_set_id_calls_stay_possible(run: Run, needs: Need, folder: str) -> None:
    needs(root=True, landlock=0)
    code = "import os; os.setgid(65534); os.setuid(65534); print(os.getuid()); open('/etc/hostname').read()"
    found = audit(run, folder, code)
    assert (READ, "/etc/hostname", "supervisor") in brief(found)


def test_explained(run: Run) -> None:
    ended = run("--permission-audit", "--permission-log=-", "--explain", "-c", "pass")
    assert "Denied when it is enforced" in ended.stdout
    assert "Landlock" not in ended.stdout
    assert "openat" in ended.stdout
    plan = json.loads(run("--permission-audit", "--explain", "--json", "-c", "pass").stdout)
    assert (plan["abi"], plan["static_filter"], plan["notify_parts"], plan["rules"]) == (0, "", ["quiet"], [])


# Node's recorded cases

AUDITED = [case for methods in ({"has"}, {"has", "drop"}) for case in load_cases(methods)[1] if case.get("audit")]
RUNS = [case for case in load()[1] if case.get("audit")]


def test_the_recorded_answers(run: Run, folder: str) -> None:
    wrong = []
    for case in AUDITED:
        os.mkdir(f"{folder}/{case['id']}")
        text = ask(case, f"{folder}/{case['id']}")
        if text:
            wrong.append(f"{case['id']}: {text}")
    assert not wrong


def test_the_recorded_operations(run: Run, folder: str) -> None:
    wrong = {}
    for case in RUNS:
        top = f"{folder}/{case['id']}"
        os.mkdir(top)
        text = replay(case, top)
        if text:
            wrong[case["id"]] = text
    assert not wrong


def test_every_case_is_asked() -> None:
    """A filter that loses cases must not go unnoticed."""
    assert len(AUDITED) == 14
    assert len(RUNS) == 4
