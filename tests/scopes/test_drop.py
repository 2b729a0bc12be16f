"""``permission.drop()``: what is given up is out of reach of raw system calls, of other threads, and of later children."""

from __future__ import annotations

import os
import pathlib
import re
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.kernel.landlock import MAX_LAYERS
from sandboxed_python.record import wire
from tests.escape.attack import number

if TYPE_CHECKING:
    from tests import support

# Raw calls by ctypes, which is there before anything is dropped. Each returns its result, or the errno's name.
PRELUDE = """
import ctypes, errno, os, sys
from sandboxed_python import permission
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
NR = {numbers!r}
READ, WRITE, OTHER = {read!r}, {write!r}, {other!r}
LIBRARY = next(p for p in ("/usr/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib/aarch64-linux-gnu/libm.so.6",
                           "/lib64/libm.so.6", "/usr/lib/libm.so.6") if os.path.exists(p))
mapped = os.open(LIBRARY, os.O_RDONLY)
def raw(name, *args):
    result = libc.syscall(NR[name], *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def opens(path, flags=os.O_RDONLY):
    return raw("openat", -100, os.fsencode(path), flags, 0o600)
def stats(path):
    return raw("newfstatat", -100, os.fsencode(path), ctypes.create_string_buffer(256), 0)
def makes(path):
    return raw("mkdirat", -100, os.fsencode(path), 0o700)
def sockets():
    return raw("socket", 2, 1, 0)
def forks():
    result = raw("clone", 17, 0, 0, 0, 0)
    return result
def executes():
    return raw("execve", b"/bin/true", (ctypes.c_char_p * 2)(b"true", None), None)
def maps(protection=5, flags=2, file=None):
    result = libc.mmap(None, 4096, protection, flags, mapped if file is None else file, 0)
    return "done" if result != ctypes.c_void_p(-1).value else errno.errorcode[ctypes.get_errno()]
def anonymous():
    return maps(7, 0x22, -1)
def denied(work):
    try:
        work()
    except permission_error as error:
        return error.permission
    except BaseException as error:
        return type(error).__name__
    return "did"
from sandboxed_python import AccessDeniedError as permission_error
def drops(*arguments):
    try:
        return permission.drop(*arguments)
    except RuntimeError as error:
        return str(error)
"""
CALLS = ("openat", "newfstatat", "mkdirat", "socket", "clone", "execve", "seccomp", "landlock_restrict_self")
TREES = "--allow-fs-read={0}/read/,{0}/other/", "--allow-fs-write={0}/write/,{0}/other/"


@pytest.fixture
def place(folder: str) -> pathlib.Path:
    """Return a folder for the trees."""
    return pathlib.Path(folder)


def start(sandbox: support.Run, place: pathlib.Path, code: str, *flags: str, **options: object) -> list[str]:
    """Run a program with ctypes and three trees, and return what it printed."""
    for name in ("read", "write", "other"):
        (place / name).mkdir(exist_ok=True)
        (place / name / "file").write_text(name)
    text = PRELUDE.format(
        numbers={name: number(name) for name in CALLS},
        read=f"{place}/read",
        write=f"{place}/write",
        other=f"{place}/other",
    )
    words = [flag.format(place) for flag in (*TREES, "--allow-ffi", "--no-warnings", *flags)]
    ended = sandbox(*words, "-c", text + code, **options)  # type: ignore[arg-type]
    assert ended.code == 0, ended.said
    return ended.stdout.splitlines()


def test_reading(sandbox: support.Run, place: pathlib.Path) -> None:
    code = """
print(opens(READ + "/file"), stats(READ + "/file"), opens(OTHER + "/file"))
held = os.open(READ + "/file", os.O_RDONLY)
print(permission.has("fs.read", READ), drops("fs.read", READ), permission.has("fs.read", READ))
print(opens(READ + "/file"), opens(READ), stats(READ + "/file"), opens(OTHER + "/file"), stats(OTHER + "/file"))
print(denied(lambda: open(READ + "/file")), denied(lambda: os.stat(READ + "/file")), denied(lambda: os.listdir(READ)))
print(os.read(held, 9).decode(), open(OTHER + "/file").read())
import xml.dom.minidom, sqlite3
print(drops("fs.read"), opens(OTHER + "/file"), stats(OTHER + "/file"), permission.has("fs.write", OTHER))
print(opens(OTHER + "/file", os.O_WRONLY))
"""
    assert start(sandbox, place, code) == [
        "done done done",
        "True None False",
        "EACCES EACCES EACCES done done",
        "FileSystemRead FileSystemRead FileSystemRead",
        "read other",
        "None EACCES EACCES True",
        "done",
    ]


def test_writing(sandbox: support.Run, place: pathlib.Path) -> None:
    code = """
print(makes(WRITE + "/one"), opens(WRITE + "/new", os.O_CREAT | os.O_WRONLY))
held = os.open(WRITE + "/file", os.O_WRONLY | os.O_TRUNC)
print(drops("fs.write", WRITE), permission.has("fs.write", WRITE), permission.has("fs.write", OTHER))
print(makes(WRITE + "/two"), opens(WRITE + "/newer", os.O_CREAT | os.O_WRONLY), opens(WRITE + "/file", os.O_WRONLY))
print(makes(OTHER + "/one"), opens(OTHER + "/new", os.O_CREAT | os.O_WRONLY))
print(denied(lambda: os.mkdir(WRITE + "/two")), denied(lambda: os.chmod(WRITE + "/file", 0o600)), os.write(held, b"held"))
print(drops("fs"), makes(OTHER + "/two"), opens(OTHER + "/file"), opens("/dev/null", os.O_WRONLY))
"""
    assert start(sandbox, place, code) == [
        "done done",
        "None False True",
        "EACCES EACCES EACCES",
        "done done",
        "FileSystemWrite FileSystemWrite 4",
        "None EACCES EACCES done",
    ]
    assert sorted(os.listdir(place / "write")) == ["file", "new", "one"]
    assert sorted(os.listdir(place / "other")) == ["file", "new", "one"]
    assert (place / "write" / "file").read_text() == "held"


def test_names_that_landlock_cannot_be_told_of(sandbox: support.Run, place: pathlib.Path) -> None:
    """Prefixes are the supervisor's: it judges by what is left."""
    (place / "pre-1").write_text("1")
    (place / "fix-1").write_text("1")
    code = f"""
PRE, FIX = {str(place)!r} + "/pre-", {str(place)!r} + "/fix-"
print(opens(PRE + "1"), opens(FIX + "1"), opens(PRE + "2", os.O_CREAT | os.O_WRONLY), makes(FIX + "2"))
print(drops("fs", PRE + "*"))
print(opens(PRE + "1"), opens(FIX + "1"), opens(PRE + "3", os.O_CREAT | os.O_WRONLY), makes(FIX + "3"))
print(opens(PRE + "2", os.O_WRONLY), stats(PRE + "1"), stats(FIX + "1"), makes(PRE + "4"))
"""
    grants = [f"--allow-fs-{how}={place}/pre-*,{place}/fix-*" for how in ("read", "write")]
    assert start(sandbox, place, code, *grants) == [
        "done done done done",
        "None",
        "EACCES done EACCES done",
        "EACCES EACCES done EACCES",
    ]
    assert not (place / "pre-3").exists()
    assert (place / "fix-3").is_dir()


@pytest.mark.parametrize("scope", ["net", "worker", "child"])
def test_switches(scope: str, sandbox: support.Run, place: pathlib.Path) -> None:
    """What a filter takes away: by a raw call, and in words; with the twin before the drop."""
    flag, name, attempt, friendly = {
        "net": ("--allow-net", "Net", "sockets()", "import socket; socket.socket()"),
        "child": ("--allow-child-process", "ChildProcess", "child()", "os.fork()"),
        "worker": ("--allow-worker", "WorkerThreads", "thread()", "import threading; threading.Thread().start()"),
    }[scope]
    code = f"""
def child():
    pid = libc.fork()
    if pid == 0:
        os._exit(0)
    return "done" if pid > 0 and os.waitpid(pid, 0)[1] == 0 else errno.errorcode[ctypes.get_errno()]
def thread():
    # CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM, without a stack: EINVAL or EFAULT once it may be made at all
    import _thread
    try:
        done = _thread.allocate_lock(); done.acquire()
        START(done.release, ())
        done.acquire()
        return "done"
    except RuntimeError:
        return raw("clone", 0x50f00, 0, 0, 0, 0)
import _thread
START = _thread.start_new_thread
print({attempt}, permission.has({scope!r}))
print(drops({scope!r}, "whatever"), permission.has({scope!r}))
print({"raw('clone', 0x50f00, 0, 0, 0, 0)" if scope == "worker" else attempt})
print(denied(lambda: exec({friendly!r})))
print(drops({scope!r}))
"""
    assert start(sandbox, place, code, flag) == ["done True", "None False", "EPERM", name, "None"]


def test_inspector(sandbox: support.Run, place: pathlib.Path) -> None:
    code = """
sys.settrace(None)
print(permission.has("inspector"), drops("inspector"), permission.has("inspector"))
print(denied(lambda: sys.settrace(None)), libc.ptrace(0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
"""
    assert start(sandbox, place, code, "--allow-inspector") == ["True None False", "Inspector -1 EPERM"]


def test_native_code(sandbox: support.Run, place: pathlib.Path) -> None:
    """Of addon, ffi and wasi the last takes executable memory along, addon every mapping of files as code."""
    code = """
print(maps(), anonymous())
print(drops("addon"), permission.has("addon"), permission.has("ffi"), maps(), anonymous())
import sqlite3, xml.parsers.expat
print(drops("wasi"), anonymous())
print(drops("ffi"), permission.has("ffi"), maps(), anonymous(), denied(lambda: ctypes.CDLL("libm.so.6")))
"""
    assert start(sandbox, place, code, "--allow-addons", "--allow-wasi") == [
        "done done",
        "None False True EACCES done",
        "None done",
        "None False EACCES EACCES FFI",
    ]


def test_addons_stay_while_programs_may_be_started(sandbox: support.Run, place: pathlib.Path) -> None:
    code = """
print(drops("addon"), permission.has("addon"), maps())
print(drops("child"), drops("addon"), permission.has("addon"), maps())
"""
    told = start(sandbox, place, code, "--allow-addons", "--allow-child-process")
    assert told == [
        "addon can't be dropped while child processes are granted, whose code comes from files: drop child True done",
        "None None False EACCES",
    ]


def test_libraries_of_the_users_own_go_with_ffi(sandbox: support.Run, place: pathlib.Path) -> None:
    """What --allow-ffi lets be mapped isn't any more; what the interpreter itself needs is."""
    (place / "read").mkdir()
    library = place / "read" / "library.so"
    code = """
own = os.open(READ + "/library.so", os.O_RDONLY)
print(maps(file=own), maps())
print(drops("ffi"), maps(file=own), maps())
import sqlite3
"""
    with open(next(p for p in LIBRARIES if os.path.exists(p)), "rb") as file:
        library.write_bytes(file.read())
    assert start(sandbox, place, code) == ["done done", "None EACCES done"]


LIBRARIES = ("/usr/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6")


def test_metadata(sandbox: support.Run, place: pathlib.Path) -> None:
    """Where nobody guards metadata, it stays, and is said to; where somebody does, it goes with the grant."""
    code = """
print(drops("fs.metadata"))
print(drops("fs.read", READ), permission.has("fs.read", READ))
print(drops("fs.read"), permission.has("fs.read", READ), opens(READ + "/file"), denied(lambda: open(READ + "/file")))
print(permission.has("fs.metadata", READ), stats(READ + "/file"), denied(lambda: os.stat(READ + "/file")))
"""
    assert start(sandbox, place, code, "--allow-fs-read=*") == [
        "None",
        "None True",
        "None False EACCES FileSystemRead",
        "True done did",
    ]
    refused = start(sandbox, place, "print(drops('fs.metadata'), stats('/etc/passwd'))", "--allow-fs-metadata")
    assert refused == [
        "fs.metadata can't be dropped: its calls aren't guarded (start without --allow-fs-metadata) done",
    ]


THREADS = """
import threading, queue
asked, told = queue.Queue(), queue.Queue()
def other():
    while True:
        told.put(asked.get()())
threading.Thread(target=other, daemon=True).start()
def there(work):
    asked.put(work)
    return told.get()
"""


def test_switches_go_from_all_threads(sandbox: support.Run, place: pathlib.Path) -> None:
    code = THREADS + 'print(there(sockets)); print(drops("net"), there(sockets), sockets())'
    assert start(sandbox, place, code, "--allow-worker", "--allow-net") == ["done", "None EPERM EPERM"]


def test_files_go_from_all_threads_or_from_none(sandbox: support.Run, place: pathlib.Path) -> None:
    """Before Landlock ABI 8 a process with threads is told that it can't; it has lost nothing then."""
    from sandboxed_python.kernel.probe import probe

    code = (
        THREADS
        + """
print(drops("fs.read", READ), permission.has("fs.read", READ), there(lambda: opens(READ + "/file")))
print(opens(READ + "/file"), stats(READ + "/file"), denied(lambda: open(READ + "/file")))
"""
    )
    told = start(sandbox, place, code, "--allow-worker")
    if probe().landlock >= wire.THREADS_ABI:
        assert told == ["None False EACCES", "EACCES EACCES FileSystemRead"]
    else:
        assert re.match(r"the permission can't be dropped: other threads .* ABI 8 .*: .* True done$", told[0])
        assert told[1] == "done done did"


def test_children_started_later_and_before(sandbox: support.Run, place: pathlib.Path) -> None:
    """A child has what its parent had when it was forked, for good."""
    code = """
def child(go):
    pid = os.fork()
    if pid == 0:
        os.read(go, 1)
        result = [opens(READ + "/file"), stats(READ + "/file"), stats(OTHER + "/file")]
        os.write(1, (" ".join(result) + "\\n").encode())
        os._exit(0)
    return pid
first, go = os.pipe()
before = child(first)
drops("fs.read", READ)
os.write(go, b"x"); os.waitpid(before, 0)
os.write(go, b"x"); os.waitpid(child(first), 0)
os.system(f"cat {READ}/file 2>/dev/null || echo none; cat {OTHER}/file")
"""
    told = start(sandbox, place, code, "--allow-child-process")
    assert told == ["done done done", "EACCES EACCES done", "none", "other"]


def test_orphans_below_a_subreaper_keep_their_loss(sandbox: support.Run, place: pathlib.Path) -> None:
    """Who has lost his parents, and been adopted by somebody who has given up nothing, still has given up what he had."""
    code = """
libc.prctl(36, 1, 0, 0, 0)
told, tell = os.pipe()
if os.fork() == 0:
    drops("fs.read", READ)
    if os.fork() == 0:
        while os.getppid() != ADOPTER: pass
        os.write(tell, f"{stats(READ + '/file')} {opens(READ + '/file')} {stats(OTHER + '/file')}".encode())
    os._exit(0)
os.wait()
print(os.read(told, 99).decode(), stats(READ + "/file"))
"""
    told = start(sandbox, place, "ADOPTER = os.getpid()\n" + code, "--allow-child-process")
    assert told == ["EACCES EACCES done done"]


def test_sixteen_layers(sandbox: support.Run, place: pathlib.Path) -> None:
    """The drop that finds no layer left says so, and has taken nothing."""
    names = [f"{place}/{number}" for number in range(MAX_LAYERS + 2)]
    for name in names:
        os.mkdir(name)
    code = f"""
for name in {names!r}:
    said = drops("fs.read", name)
    if said:
        print(said, permission.has("fs.read", name), opens(name), stats(name), denied(lambda: os.listdir(name)))
        break
    print(opens(name), stats(name))
print(drops("fs.read"), opens(READ + "/file"))
"""
    *dropped, last, again = start(sandbox, place, code, "--allow-fs-read=" + ",".join(names))
    reason = "the permission can't be dropped: the 16 layers that Landlock has for a process are used up"
    assert dropped == ["EACCES EACCES"] * len(dropped)
    assert len(dropped) in (MAX_LAYERS - 1, MAX_LAYERS - 2)  # the supervisor's own, and where there is one the guard's
    assert last == f"{reason} True done done did"
    assert again == f"{reason} done"


def test_nothing_to_drop_changes_nothing(sandbox: support.Run, place: pathlib.Path) -> None:
    code = """
for arguments in (("nonsense",), ("net",), ("fs.read", "/nowhere"), ("fs.read", READ + "/file"), ("fs", "/"),
                  ("fs.read", "a\\0b"), ("wasi", "x")):
    assert drops(*arguments) is None, arguments
    assert permission.has("fs.read", READ)
print(opens(READ + "/file"))
for wrong in ((None,), ("fs.read", 1)):
    try:
        permission.drop(*wrong)
    except TypeError as error:
        print(error.code)
"""
    assert start(sandbox, place, code) == ["done", "ERR_INVALID_ARG_TYPE", "ERR_INVALID_ARG_TYPE"]


@pytest.mark.parametrize("options", [(), ("-I",)], ids=["fork", "exec"])
def test_without_ctypes(options: tuple[str, ...], run: support.Run, sandbox: support.Run, place: pathlib.Path) -> None:
    """A program that may call nothing foreign drops all the same, in both ways of starting."""
    code = f"""
from sandboxed_python import permission
import sys
print(open({str(place / "file")!r}).read(), permission.drop("fs.read"), permission is sys.permission)
try:
    open({str(place / "file")!r})
except PermissionError as error:
    print(error.permission, error.resource)
print(permission.drop("worker"), permission.has("worker"))
import _thread
try:
    _thread.start_new_thread(print, ())
except PermissionError as error:
    print(error.permission)
import ctypes
try:
    ctypes.CDLL(None).getpid
except PermissionError as error:
    print(error.permission)
"""
    (place / "file").write_text("text")
    ended = sandbox(f"--allow-fs-read={place}/", "--allow-worker", *options, "-c", code)
    assert ended.code == 0, ended.said
    assert ended.stdout == (f"text None True\nFileSystemRead {place}/file\nNone False\nWorkerThreads\nFFI\n"), (
        ended.said
    )


def test_other_identities(sandbox: support.Run, user_dir: str) -> None:
    """What has become somebody else has still given up what it had; it can give up no more if its memory is closed."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root: found user id {os.geteuid()}")
    place = pathlib.Path(user_dir)
    place.chmod(0o755)
    code = """
print(drops("fs.read", READ), flush=True)
def other(work):
    if os.fork() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        work()
        os._exit(0)
    os.wait()
other(lambda: print(drops("fs.read", OTHER), opens(OTHER + "/file"), flush=True))
other(lambda: os.execv("/usr/bin/stat", ["stat", "-c", "%s", OTHER + "/file", READ + "/file"]))
"""
    dropped, refused, size = start(sandbox, place, code, "--allow-child-process")
    assert dropped == "None"
    assert re.match(r"the permission can't be dropped: supervisor: .* Permission denied done$", refused)
    assert size == "5"
