"""In a container with Docker's default seccomp profile and capabilities, everything works, and denies, as outside.

``tests/launch/container.py`` makes the container. Each case is run without its grant, by a program that has torn the
audit hook out, so that the kernel is asked; and with it. Both are looked at from outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import support
from tests.escape import attack
from tests.launch.plain import alive, eventually, started
from tests.scopes.twin import check_ran, check_refused, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.attack import Attacker
    from tests.support import Finished

MAKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "container.py")
# Options of docker run, as MAKER takes them.
CONTAINERS = {
    "root": (),
    "user": (f"--user={support.NOBODY}",),
    "root without capabilities": ("--cap-drop=ALL", "--no-new-privileges"),
    "user with no-new-privileges": ("--no-new-privileges", f"--user={support.NOBODY}"),
}


# As whoever runs the tests: an ordinary user can't load a filter without no_new_privs.
POSSIBLE = tuple(CONTAINERS) if os.geteuid() == 0 else ("user with no-new-privileges",)


@pytest.fixture(params=POSSIBLE)
def inside(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """Return somebody whose command runs in a container."""
    options = CONTAINERS[request.param]
    user = request.param.startswith("user")
    if os.geteuid() != 0 and not user:
        pytest.skip(f"needs root, to make such a container; found user id {os.geteuid()}")
    prefix = (sys.executable, MAKER, *options)
    for one in attack.make("user" if user else "root"):
        # Whoever runs the tests makes the container, which changes the user.
        yield one._replace(user=None, command=(*prefix, *one.command))


def container(inside: Attacker) -> list[str]:
    """Return the words that start a program in the container, without the sandbox."""
    return list(inside.command[: inside.command.index(MAKER) + 1 + len(_options(inside))])


def _options(inside: Attacker) -> list[str]:
    rest = inside.command[inside.command.index(MAKER) + 1 :]
    return [word for word in rest if word.startswith("--")]


# The container itself


REFUSED = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def told(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "did"
def family(number):
    try:
        socket.socket(number, socket.SOCK_DGRAM).close()
        return "did"
    except OSError as error:
        return errno.errorcode[error.errno]
print(told(libc.unshare(0x10000000)), told(libc.syscall(435, 0, 0)), told(libc.personality(0x0040000)),
      told(libc.personality(ctypes.c_ulong(0xffffffff))), family(38), family(socket.AF_UNIX), told(libc.syscall(438, 0, 0, 0)),
      told(libc.syscall(999)))
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
print(*(status[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "NoNewPrivs")), os.getuid())
"""


def test_it_is_such_a_container(inside: Attacker, request: pytest.FixtureRequest) -> None:
    ended = inside.run([*container(inside), inside.python, "-c", REFUSED])
    check_ran(ended)
    calls, status = ended.stdout.splitlines()
    # unshare, clone3, an odd personality, asking for it, AF_ALG, AF_UNIX, pidfd_getfd, no call
    assert calls.split() == ["EPERM", "ENOSYS", "EPERM", "did", "EPERM", "did", "EPERM", "ENOSYS"]
    full = "00000000a80425fb" if request.node.callspec.params["inside"] == "root" else "0" * 16
    locked = str(int("--no-new-privileges" in _options(inside) or os.geteuid() != 0))
    user = "0" if "root" in request.node.callspec.params["inside"] else str(os.geteuid() or support.NOBODY)
    assert status.split() == [full, full, "0" * 16, locked, user]


def test_check_says_that_everything_can_be_enforced(inside: Attacker) -> None:
    ended = inside.run([*inside.command, "--check"])
    check_ran(ended)
    assert "everything can be enforced here" in ended.stdout


# Denied, and granted


class Case(NamedTuple):
    """Something that a program does.

    Attributes:
        code: prints "did" at its end; OSError, or an exit code of a thread or process, tells that it could not.
        given: flags that it has in any case.
        grant: the flags that it needs besides. ``{}`` stands for the home.
        mark: a file that it makes: it must be there with the grant, and not without; "" for what only prints.
    """

    code: str
    given: tuple[str, ...]
    grant: tuple[str, ...]
    mark: str = ""


WRITES = "--allow-fs-write={}/write/"
CASES = {
    "read in a tree": Case("print(open(SECRET + '/data').read())", (), ("--allow-fs-read={}/secret/",)),
    "read by a prefix": Case("print(open(SECRET + '/data').read())", (), ("--allow-fs-read={}/secret/da*",)),
    "read a file": Case("print(open(SECRET + '/data').read())", (), ("--allow-fs-read={}/secret/data",)),
    "read a file that is made later": Case(
        "open(WRITE + '/late', 'w').write('now')\nprint(open(WRITE + '/late').read())",
        (WRITES,),
        ("--allow-fs-read={}/write/late",),
    ),
    "list": Case("print(os.listdir(SECRET))", (), ("--allow-fs-read={}/secret/",)),
    "write in a tree": Case("open(WRITE + '/new', 'w').close()", (), (WRITES,), "write/new"),
    "write by a prefix": Case("open(WRITE + '/new', 'w').close()", (), ("--allow-fs-write={}/write/n*",), "write/new"),
    "write a file that is not there": Case(
        "open(WRITE + '/new', 'w').close()", (), ("--allow-fs-write={}/write/new",), "write/new"
    ),
    "make and rename folders": Case(
        "os.mkdir(WRITE + '/new-'); os.rename(WRITE + '/new-', WRITE + '/new')",
        ("--allow-fs-read={}/write/",),
        (WRITES,),
        "write/new",
    ),
    "stat": Case("print(os.stat(SECRET + '/data').st_size)", (), ("--allow-fs-read={}/secret/",)),
    "stat anything": Case("print(os.stat(SECRET + '/data').st_size)", (), ("--allow-fs-metadata",)),
    "chmod": Case(
        "os.chmod(WRITE + '/data', 0o600); open(WRITE + '/new', 'w').close() if os.stat(WRITE).st_mode else 0",
        ("--allow-fs-metadata",),
        (WRITES,),
        "write/new",
    ),
    "a child process": Case(
        "import subprocess; subprocess.run(['touch', WRITE + '/new'], check=True)",
        (WRITES,),
        ("--allow-child-process",),
        "write/new",
    ),
    "a forked process": Case(
        "pid = os.fork()\n"
        "if not pid: open(WRITE + '/new', 'w').close(); os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0",
        (WRITES,),
        ("--allow-child-process",),
        "write/new",
    ),
    "a thread": Case(
        "import _thread, time\n"
        "def run(): open(WRITE + '/new', 'w').close(); lock.release()\n"
        "lock = _thread.allocate_lock(); lock.acquire()\n"
        "try: _thread.start_new_thread(run, ())\n"
        "except RuntimeError: raise PermissionError(1, 'thread')\n"
        "assert lock.acquire(timeout=20)",
        (WRITES,),
        ("--allow-worker",),
        "write/new",
    ),
    "an addon": Case(
        "import _imp, types; os.environ['MARKER'] = WRITE + '/new'\n"
        "try: _imp.create_dynamic(types.SimpleNamespace(name='marker', origin=READ + '/marker.so'))\n"
        "except SystemError: pass",  # it is loaded, but makes no module
        (WRITES, "--allow-fs-read={}/read/"),
        ("--allow-addons",),
        "write/new",
    ),
}
WAYS = {"fork": (), "exec": ("-B",)}
# What differs between the ways: an exec comes first, and the filter in it.
BY_EXEC = ("read by a prefix", "stat", "write in a tree", "a child process", "a thread", "an addon")


def attempt(code: str, *, torn: bool) -> str:
    """Return a program that ends with 0 when it did, and with 7 when it was refused."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    torn_out = attack.TEAR_OUT if torn else ""
    return f"{torn_out}\ntry:\n{lines}\nexcept (PermissionError, ImportError):\n    sys.exit(7)\nprint('did')"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [*((name, "fork") for name in CASES), *((name, "exec") for name in BY_EXEC)])
def test_denied_and_granted(inside: Attacker, name: str, way: str) -> None:
    case = CASES[name]
    if "marker" in case.code:
        inside.put("read/marker.so", attack.library())
    given, grant = ([flag.format(inside.home) for flag in flags] for flags in (case.given, case.grant))
    denied = program(inside, attempt(case.code, torn=True), *given, *WAYS[way])
    assert denied.code == 7, denied.said
    assert not denied.stdout, denied.said
    assert not (case.mark and inside.exists(case.mark)), denied.said
    granted = program(inside, attempt(case.code, torn=False), *given, *grant, *WAYS[way])
    check_ran(granted)
    assert granted.stdout.endswith("did\n"), granted.said
    assert not case.mark or inside.exists(case.mark), granted.said


@pytest.mark.parametrize("way", WAYS)
def test_the_hook_words_the_denial(inside: Attacker, way: str) -> None:
    denied = program(inside, "open(SECRET + '/data')", *WAYS[way])
    check_refused(denied, "FileSystemRead", inside.path("secret/data"))


# Sockets


@contextlib.contextmanager
def listener(inside: Attacker, kind: str) -> Iterator[socket.socket]:
    """Listen outside of the sandbox."""
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server
        return
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(inside.path("write/socket"))
        os.chmod(inside.path("write/socket"), 0o666)
        server.listen()
        yield server


def reached(server: socket.socket) -> bool:
    """Tell whether somebody has connected."""
    if not select.select([server], [], [], 0.05)[0]:
        return False
    server.accept()[0].close()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "missing"), [("tcp", "--allow-net"), ("unix", "--allow-net"), ("unix", "--allow-fs-write={}/write/")]
)
def test_sockets(inside: Attacker, kind: str, missing: str, way: str) -> None:
    flags = ["--allow-net", "--allow-fs-write={}/write/"]
    family = "socket.AF_UNIX" if kind == "unix" else "socket.AF_INET"
    with listener(inside, kind) as server:
        code = f"import socket\nsocket.socket({family}).connect({server.getsockname()!r})"
        without = [flag.format(inside.home) for flag in flags if flag != missing]
        denied = program(inside, attempt(code, torn=True), *without, *WAYS[way])
        assert denied.code == 7, denied.said
        assert not reached(server), denied.said
        granted = program(inside, attempt(code, torn=False), *(flag.format(inside.home) for flag in flags), *WAYS[way])
        check_ran(granted)
        assert reached(server)


# How it ends


ENDS = {
    "return": ("pass", 0),
    "exit code": ("sys.exit(42)", 42),
    "exception": ("raise ValueError", 1),
    "signal": ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
    "interrupt": ("import signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
    "kill": ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ENDS)
def test_exit_codes(inside: Attacker, end: str, way: str) -> None:
    code, expected = ENDS[end]
    ended = program(inside, code, *WAYS[way])
    assert ended.code == expected, ended.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program(inside: Attacker, number: signal.Signals) -> None:
    code = (
        f"import signal, sys, time\nsignal.signal({int(number)}, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with started([*inside.command, "--permission", "-c", code], cwd="/") as job:
        assert job.line() == "ready"
        job.process.send_signal(number)
        assert job.end().code == 3


FAMILY = """
import os, subprocess, time
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; sleep 1000 & sleep 1000"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("way", WAYS)
def test_all_end_with_a_killed_supervisor(inside: Attacker, way: str) -> None:
    words = [*inside.command, "--permission", "--no-warnings", "--allow-child-process", *WAYS[way], "-c", FAMILY]
    with started(words, cwd="/") as job:
        first = int(job.line())
        assert alive(first)
        os.kill(job.pid, signal.SIGKILL)
        # Its end of file comes when nobody holds the other end any more: daemons, too.
        assert job.end().code == -signal.SIGKILL
        eventually(lambda: not alive(first), "the first process has ended")


# Ids


@pytest.mark.parametrize("inside", ["root"], indirect=True)
def test_another_user_by_setuid_is_judged_with_his_rights(inside: Attacker) -> None:
    """Docker's root may change its ids; the supervisor then acts with those, by its own SETUID."""
    path = inside.put("secret/private", "private", 0o600)
    os.chmod(inside.path("secret"), 0o700)
    code = f"os.setuid({support.NOBODY})\ntry: os.stat({path!r})\nexcept OSError as error: print(error.errno)"
    ended = program(inside, code, f"--allow-fs-read={inside.path('secret')}/")
    assert (ended.code, ended.stdout) == (0, f"{errno.EACCES}\n"), ended.said
    code = f"print(os.stat({path!r}).st_size)"
    assert program(inside, code, f"--allow-fs-read={inside.path('secret')}/").stdout == "7\n"


# A container's first process


def first_process(inside: Attacker, *words: str) -> Finished:
    """Run the command as process 1 of a pid namespace, with a ``/proc`` of its own."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root, to make a pid namespace; found user id {os.geteuid()}")
    unshare = support.tool("unshare")
    asked = support.execute([unshare, "--pid", "--fork", "--mount-proc", "true"])
    if asked.code:
        pytest.skip(f"needs a pid namespace; found {asked.stderr.strip()}")
    return inside.run([unshare, "--pid", "--fork", "--mount-proc", "--kill-child", *inside.command, *words])


@pytest.mark.parametrize("way", WAYS)
def test_as_process_1(inside: Attacker, way: str) -> None:
    code = (
        "import os, subprocess, sys\n"
        "print(os.getppid(), flush=True)\n"
        "subprocess.run(['sh', '-c', '(true & exit 0); echo child'], check=True)\n"
        "try: os.stat('/etc/passwd')\nexcept PermissionError: print('denied', flush=True)\n"
        "sys.exit(5)"
    )
    ended = first_process(inside, "--permission", "--no-warnings", "--allow-child-process", *WAYS[way], "-c", code)
    assert (ended.code, ended.stdout) == (5, "1\nchild\ndenied\n"), ended.said


def test_as_process_1_a_signal_ends_it(inside: Attacker) -> None:
    """Process 1 gets no signal that it has no handler for; the supervisor passes them on and tells by its exit code."""
    ended = first_process(inside, "--permission", "-c", "import os; os.kill(os.getpid(), 15)")
    assert ended.code == 128 + signal.SIGTERM, ended.said
