"""The shipped static filters, loaded into this kernel: what they let programs do, and what not.

Each filter is loaded alone, without Landlock and the supervisor, into a process of its own.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.plan import filters, seccomp
from tests import support

if TYPE_CHECKING:
    import pathlib

pytestmark = pytest.mark.kernel

STATIC = tuple(name for name in seccomp.shipped() if not name.startswith((filters.NOTIFY, filters.NO_MAP)))

# argv: filter file, then what to run: a Python program, or with -- a command.
LOADER = """
import ctypes, os, sys
library = ctypes.CDLL(None, use_errno=True)
with open(sys.argv[1], "rb") as file:
    program = ctypes.create_string_buffer(file.read())
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
filters = Program(len(program) // 8, ctypes.addressof(program))
SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
assert library.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert library.syscall(SECCOMP, 1, 0, ctypes.byref(filters)) == 0, os.strerror(ctypes.get_errno())
sys.argv[:] = sys.argv[2:]
if sys.argv[0] == "--":
    os.execvp(sys.argv[1], sys.argv[1:])
sys.path.insert(0, os.path.dirname(sys.argv[0]))
with open(sys.argv[0]) as file:
    exec(compile(file.read(), sys.argv[0], "exec"), {"__name__": "__main__", "library": library, "ctypes": ctypes})
"""

# One thing that each scope opens; prints {scope: how it ended}.
SCOPES = """
import json, mmap, os, socket, sys, threading
def child():
    pid = os.fork()
    if not pid:
        open("forked", "w").close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
def worker():
    thread = threading.Thread(target=lambda: open("thread", "w").close())
    thread.start()
    thread.join()
def net():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"hello")
        connection, _address = server.accept()
        with connection:
            assert connection.recv(5) == b"hello"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"hello", udp.getsockname())
        assert udp.recv(5) == b"hello"
def inspector():
    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
    source, target = ctypes.create_string_buffer(b"secret"), ctypes.create_string_buffer(6)
    one, other = Vector(ctypes.addressof(source), 6), Vector(ctypes.addressof(target), 6)
    number = {"x86_64": 310, "aarch64": 270}[os.uname().machine]
    count, flags = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if library.syscall(number, os.getpid(), ctypes.byref(other), count, ctypes.byref(one), count, flags) != 6:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
    assert target.raw == b"secret"
def memory():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    page = mmap.mmap(-1, 4096)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    if library.mprotect(ctypes.c_void_p(start), 4096, 5):
        raise OSError(ctypes.get_errno(), "mprotect")
found = {}
for attempt in (child, worker, net, inspector, memory):
    name = {"memory": "exec-memory"}.get(attempt.__name__, attempt.__name__)
    try:
        attempt()
        found[name] = "done"
    except (OSError, RuntimeError) as error:
        found[name] = getattr(error, "errno", None) or "RuntimeError"
print(json.dumps(found), flush=True)
try:
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "print('executed')"])
except OSError as error:
    print(error.errno)
"""

# What every Python program may do, without any scope.
ORDINARY = """
import asyncio, bz2, ctypes, curses, datetime, decimal, email, fcntl, getpass, hashlib, http.client, json, locale
import logging, lzma, mmap, multiprocessing, os, platform, pty, pwd, random, resource, secrets, select, shutil, signal
import socket
import sqlite3, ssl, statistics, subprocess, tarfile, tempfile, termios, threading, time, tty, urllib.request, uuid
import xml.etree.ElementTree, zipfile, zlib, zoneinfo
assert ssl.create_default_context() and decimal.Decimal(2).sqrt() and uuid.uuid4() and platform.platform()
assert random.SystemRandom().random() and secrets.token_bytes() and getpass.getuser and pwd.getpwall()
async def sleep():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
    await asyncio.sleep(0.001)
asyncio.run(sleep())
with sqlite3.connect("x.db") as base:
    base.execute("pragma journal_mode = wal")
    base.execute("create table t (a)")
    base.execute("insert into t values (1)")
base.close()
with tempfile.NamedTemporaryFile(dir=".") as file, tempfile.TemporaryFile(dir=".") as other:
    file.write(b"x")
    file.flush()
    os.fsync(file.fileno())
    other.write(b"x")
os.mkdir("d")
with open("d/a", "w") as file:
    file.write("hello")
shutil.copy2("d/a", "d/b")
shutil.copytree("d", "e", symlinks=True)
shutil.move("d/b", "d/c")
shutil.rmtree("e")
os.chmod("d/a", 0o600), os.utime("d/a"), os.chown("d/a", os.getuid(), os.getgid()), os.truncate("d/a", 3)
os.symlink("a", "d/l"), os.link("d/a", "d/h"), os.rename("d/h", "d/i"), os.mkfifo("d/p"), os.mknod("d/n"), os.sync()
os.readlink("d/l"), os.listdir("d"), os.statvfs("d"), os.access("d", os.R_OK), os.getcwd(), os.umask(0o22)
os.chdir("."), os.listxattr("d")
with open("d/a", "r+b") as file, open("d/z", "wb") as other:
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    os.posix_fallocate(file.fileno(), 0, 100)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NORMAL)
    assert os.copy_file_range(file.fileno(), other.fileno(), 10) == 10
    assert os.sendfile(other.fileno(), file.fileno(), 0, 10) == 10
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = 1
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001)
time.sleep(0.01)
left, right = socket.socketpair()
left.send(b"x"), right.recv(1), left.sendmsg([b"y"]), right.recvmsg(1), left.shutdown(socket.SHUT_WR)
socket.send_fds(right, [b"fd"], [0]), os.close(socket.recv_fds(left, 2, 1)[1][0])
reader, writer = os.pipe()
os.set_blocking(reader, False), os.set_inheritable(reader, True), os.write(writer, b"1"), os.read(reader, 1)
poll = select.epoll()
poll.register(reader, select.EPOLLIN), poll.poll(0), select.select([reader], [], [], 0), select.poll().poll(0)
os.sched_setaffinity(0, os.sched_getaffinity(0)), os.nice(0), os.getpriority(os.PRIO_PROCESS, 0)
os.getloadavg(), resource.getrlimit(resource.RLIMIT_NOFILE), resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))
os.kill(os.getpid(), 0), os.killpg(os.getpgid(0), 0), os.getsid(0), os.uname(), os.times(), os.urandom(1)
os.close(os.memfd_create("x", os.MFD_CLOEXEC | 8))
master, slave = os.openpty()
tty.setraw(slave), termios.tcgetattr(slave), os.ttyname(slave), os.isatty(slave), os.get_terminal_size(slave)
print("ordinary")
"""

# What no program may do, whatever the scopes; prints {name: errno}, "done" where it went through.
FORBIDDEN = """
import json, os, resource, socket, sys
outside, machine = os.getppid(), os.uname().machine
PRLIMIT, UNSHARE, CLONE3, SECCOMP = {"x86_64": (302, 272, 435, 317), "aarch64": (261, 97, 435, 277)}[machine]
def raw(*numbers):
    if library.syscall(*map(ctypes.c_long, numbers)) == -1:
        raise OSError(ctypes.get_errno(), "raw")
master, slave = os.openpty()
typed = ctypes.create_string_buffer(b"x")
attempts = {
    "set-id open": lambda: os.open("open", os.O_CREAT | os.O_WRONLY, 0o4755),
    "set-id chmod": lambda: os.chmod("plain", 0o4755),
    "set-id fchmod": lambda: os.fchmod(os.open("plain", os.O_RDONLY), 0o2755),
    "set-id mknod": lambda: os.mknod("mknod", 0o104755),
    "device": lambda: os.mknod("device", 0o020666, os.makedev(1, 3)),
    "limits of others": lambda: resource.prlimit(outside, resource.RLIMIT_CORE),
    "the same, high bits": lambda: raw(PRLIMIT, outside | 1 << 32, 4, 0, 0),
    "affinity of others": lambda: os.sched_getaffinity(outside),
    "set affinity of others": lambda: os.sched_setaffinity(outside, {0}),
    "priority of others": lambda: os.setpriority(os.PRIO_PROCESS, outside, 19),
    "priority of a user": lambda: os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0)),
    "TIOCSTI": lambda: raw({"x86_64": 16, "aarch64": 29}[machine], slave, 0x5412, ctypes.addressof(typed)),
    "TIOCSTI, high bits": lambda: raw({"x86_64": 16, "aarch64": 29}[machine], slave, 0x5412 | 1 << 32,
                                      ctypes.addressof(typed)),
    "datagram pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "MPTCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
    "user namespace": lambda: raw(UNSHARE, 0x10000000),
    "clone3": lambda: raw(CLONE3, 0, 0),
    "own listener": lambda: raw(SECCOMP, 1, 8, 0),
    "chroot": lambda: os.chroot("."),
    "io_uring": lambda: raw(425, 1, 0),
    "openat2": lambda: raw(437, -100, 0, 0, 24),
    "an unknown call": lambda: raw(1000),
}
found = {}
open("plain", "w").close()
for name, attempt in attempts.items():
    try:
        attempt()
        found[name] = "done"
    except OSError as error:
        found[name] = error.errno
print(json.dumps(found))
"""

SHELL = """
set -e
ls -la . >/dev/null; date >/dev/null; id >/dev/null; echo b a | tr ' ' '\\n' | sort | uniq | tail -n1
seq 3 | xargs -n1 echo >/dev/null; cp -a file copy; mv copy moved; ln -s file link; chmod 755 file
touch -d yesterday file; du -s . >/dev/null; df . >/dev/null; find . -name file >/dev/null; mkdir -p x/y
install -m 644 file x/y/z; mkfifo pipe; rm pipe; grep -r hello . >/dev/null; sed -i s/hello/hallo/ moved
head -c1 moved >/dev/null; stat file >/dev/null; realpath link >/dev/null; sync; timeout 5 true; nice -n1 true
dd if=/dev/zero of=zeros bs=1k count=2 2>/dev/null; nohup true 2>/dev/null; rm -r x
(sleep 0.01 &) ; wait; cat moved
"""


def load(tmp_path: pathlib.Path, name: str, *words: str, python: str = sys.executable) -> support.Finished:
    """Run a Python program (its text), or with ``--`` a command, under the static filter of this name."""
    loader = tmp_path / "loader.py"
    loader.write_text(LOADER)
    program = list(words)
    if words[0] != "--":
        path = tmp_path / "program.py"
        path.write_text(words[0])
        program = [str(path)]
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    file = f"{filters.filters()}/{os.uname().machine}/{name}.bpf"
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work)}
    return support.execute([python, "-I", str(loader), file, *program], cwd=work, env=environment)


def interpreters() -> list[str]:
    """Return every other CPython from 3.10 on that is found: the system's and pyenv's."""
    pyenv = os.path.expanduser(os.environ.get("PYENV_ROOT", "~/.pyenv"))
    places = [f"{pyenv}/versions/3.1[0-9]*/bin/python3", "/usr/bin/python3.1[0-9]", "/usr/local/bin/python3.1[0-9]"]
    return sorted(
        {os.path.realpath(path) for place in places for path in glob.glob(place)} - {os.path.realpath(sys.executable)}
    )


@pytest.mark.parametrize("name", STATIC)
def test_a_scope_opens_what_it_is_for_and_nothing_else(name: str, tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    granted = set(name.split("+"))
    ended = load(tmp_path, name, SCOPES)
    assert ended.code == 0, ended.said
    first, last = ended.stdout.splitlines()
    refused = {"worker": "RuntimeError", "exec-memory": 13}
    assert json.loads(first) == {
        scope: "done" if scope in granted else refused.get(scope, 1) for scope in filters.SCOPES
    }, ended.said
    assert last == ("executed" if granted & {"child", "exec"} else "1")
    there = set(os.listdir(tmp_path / "work"))
    assert there == {file for scope, file in (("child", "forked"), ("worker", "thread")) if scope in granted}


@pytest.mark.parametrize("name", ["base", "child+worker+net+inspector+exec-memory"])
def test_ordinary_programs_notice_nothing(name: str, tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    ended = load(tmp_path, name, ORDINARY)
    assert (ended.code, ended.stdout) == (0, "ordinary\n"), ended.said


@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters())
def test_ordinary_programs_on_other_interpreters(python: str, tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    if not support.reachable(os.geteuid(), python):
        pytest.skip(f"needs an interpreter that starts; {python} doesn't for user {os.geteuid()}")
    ended = load(tmp_path, "base", ORDINARY, python=python)
    assert (ended.code, ended.stdout) == (0, "ordinary\n"), ended.said
    ended = load(tmp_path, "child+worker+net", SCOPES, python=python)
    assert ended.stdout.splitlines()[-1] == "executed", ended.said
    assert json.loads(ended.stdout.splitlines()[0]) == {
        **dict.fromkeys(("child", "worker", "net"), "done"),
        "inspector": 1,
        "exec-memory": 13,
    }


@pytest.mark.parametrize("name", ["base", "child+worker+net+inspector+exec-memory"])
def test_some_things_are_refused_whatever_is_granted(name: str, tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    ended = load(tmp_path, name, FORBIDDEN)
    assert ended.code == 0, ended.said
    found = json.loads(ended.stdout)
    missing = {"affinity of others", "clone3", "io_uring", "openat2", "an unknown call"}  # ENOSYS
    assert found == {name: 38 if name in missing else 1 for name in found}, ended.said
    assert sorted(os.listdir(tmp_path / "work")) == ["plain"]
    assert not os.stat(tmp_path / "work" / "plain").st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_without_a_filter_set_id_bits_are_possible(tmp_path: pathlib.Path) -> None:
    """The twin of the test above: what it finds refused is the filter's doing."""
    os.close(os.open(tmp_path / "open", os.O_CREAT | os.O_WRONLY, 0o4755))
    assert os.stat(tmp_path / "open").st_mode & stat.S_ISUID
    os.mknod(tmp_path / "mknod", 0o104755)
    assert os.stat(tmp_path / "mknod").st_mode & stat.S_ISUID
    os.chmod(tmp_path / "mknod", 0o2755)
    assert os.stat(tmp_path / "mknod").st_mode & stat.S_ISGID


@pytest.mark.parametrize("name", ["child", "exec"])
def test_shell_and_its_tools(name: str, tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    work = tmp_path / "work"
    work.mkdir()
    (work / "file").write_text("hello\n")
    ended = load(tmp_path, name, "--", "/bin/sh", "-c", SHELL)
    if name == "child":
        assert (ended.code, ended.stdout) == (0, "b\nhallo\n"), ended.said
    else:
        # The shell starts, and can start nothing.
        assert ended.code != 0
        assert sorted(os.listdir(work)) == ["file"]


def test_git(tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    git = support.tool("git")
    commands = (
        "git init -q . && git add file && git -c user.name=x -c user.email=x@x commit -qm one && "
        "git log --format=%s && git status --short && git gc -q && git clone -q . clone && cat clone/file"
    ).replace("git ", f"{git} ")
    work = tmp_path / "work"
    work.mkdir()
    (work / "file").write_text("hello\n")
    ended = load(tmp_path, "child+worker", "--", "/bin/sh", "-c", commands)
    assert (ended.code, ended.stdout) == (0, "one\nhello\n"), ended.said


def test_compiler(tmp_path: pathlib.Path) -> None:
    support.need(landlock=0, notify=False)
    compiler = support.tool("cc")
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.c").write_text(
        "#define _GNU_SOURCE\n#include <pthread.h>\n#include <stdio.h>\n"
        'int main(void) { pthread_attr_t a; puts(pthread_getattr_np(pthread_self(), &a) ? "no" : "yes"); return 0; }\n'
    )
    ended = load(tmp_path, "child", "--", "/bin/sh", "-c", f"{compiler} -O1 a.c -o a && ./a")
    assert (ended.code, ended.stdout) == (0, "yes\n"), ended.said
