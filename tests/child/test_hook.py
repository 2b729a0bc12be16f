"""The hook without the kernel behind it: which event needs which permission, and how paths are judged."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Sequence

SUPERVISOR = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "supervisor")
VERSIONS = ("3.10.13", "3.12.1", "3.13.0")
SWITCHES = ("addon", "child", "ffi", "inspector", "net", "wasi", "worker")

# `before` runs before anything of the package is imported, `confine()` starts the model.
PRELUDE = """
import os, sys
{before}
sys.path.insert(0, {supervisor!r})
def confine():
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import OSLookup, literal_grant
    from sandboxed_python.policy.spelling import parse_grant
    needed = sorted({{sys.prefix, sys.base_prefix, {supervisor!r}, os.path.dirname(os.__file__)}})
    runtime = [literal_grant(path, "runtime", "/", OSLookup, implicit=True) for path in needed]
    grant = lambda text: parse_grant(text, "test", os.getcwd(), OSLookup)
    policy = Policy(
        mode={mode!r},
        read=(*runtime, *map(grant, {read!r})),
        write=tuple(map(grant, {write!r})),
        scopes=frozenset({scopes!r}),
    )
    from sandboxed_python.child import hook, permission
    permission.install(permission.Permission(policy))
    hook.Hooks(policy, guarded={guarded!r}).install()
def told(source):
    try:
        value = eval(source)
    except OSError as error:
        if getattr(error, "code", "") != "ERR_ACCESS_DENIED":
            return type(error).__name__
        return [error.permission, error.resource]
    except Exception as error:
        return type(error).__name__
    return "done"
"""


def program(
    code: str,
    *,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    scopes: Sequence[str] = (),
    guarded: bool = False,
    mode: str = "enforce",
    before: str = "",
) -> str:
    """Return the source of a program that starts the model and then does something."""
    prelude = PRELUDE.format(
        supervisor=SUPERVISOR,
        read=tuple(read),
        write=tuple(write),
        scopes=tuple(scopes),
        guarded=guarded,
        mode=mode,
        before=before,
    )
    return f"{prelude}confine()\n{code}"


def run(source: str, cwd: pathlib.Path, python: str = sys.executable) -> support.Finished:
    """Run a program that has to end well."""
    ended = support.execute([python, "-I", "-c", source], cwd=cwd)
    assert ended.code == 0, ended.said
    return ended


def other(version: str) -> str:
    """Return pyenv's interpreter of a version; without one, skip."""
    python = os.path.expanduser(f"~/.pyenv/versions/{version}/bin/python")
    if not os.access(python, os.X_OK):
        pytest.skip(f"needs {python}; found no such interpreter")
    return python


@pytest.fixture(params=["here", *VERSIONS])
def python(request: pytest.FixtureRequest) -> str:
    """Return each interpreter in turn."""
    return sys.executable if request.param == "here" else other(request.param)


# What needs a switch: (expression, permission, resource). The expressions do no harm when they are granted; events that
# this interpreter may not have are raised by sys.audit().
GATED = (
    ("os.system('true')", "ChildProcess", "/bin/sh"),
    ("os.popen('true').close()", "ChildProcess", "/bin/sh"),
    ("os.execv('/nowhere', ['x'])", "ChildProcess", "/nowhere"),
    ("os.execve(b'/nowhere', ['x'], {})", "ChildProcess", "/nowhere"),
    ("os.posix_spawn('/nowhere', ['x'], {})", "ChildProcess", "/nowhere"),
    ("os.fork() or os._exit(0)", "ChildProcess", ""),
    ("os.forkpty()[0] or os._exit(0)", "ChildProcess", ""),
    ("os.spawnv(os.P_WAIT, '/nowhere', ['x'])", "ChildProcess", ""),
    ("__import__('subprocess').run(['true'])", "ChildProcess", "true"),
    ("__import__('subprocess').run([b'true', 'x'])", "ChildProcess", "true"),
    ("__import__('subprocess').run('true', shell=True)", "ChildProcess", "/bin/sh"),
    ("__import__('subprocess').run(['x'], executable=__import__('pathlib').Path('/bin/true'))", "ChildProcess",
     "/bin/true"),
    ("__import__('pty').spawn('true')", "ChildProcess", "true"),
    ("__import__('pty').spawn(['true', 'x'])", "ChildProcess", "true"),
    ("__import__('multiprocessing').get_context('fork').Process(target=int).start()", "ChildProcess", ""),
    ("__import__('_thread').start_new_thread(int, ())", "WorkerThreads", ""),
    ("__import__('_thread').start_new(int, ())", "WorkerThreads", ""),
    ("__import__('threading').Thread(target=int).start()", "WorkerThreads", ""),
    ("__import__('concurrent.futures').futures.ThreadPoolExecutor().submit(int)", "WorkerThreads", ""),
    ("__import__('ctypes').CDLL(None).getpid()", "FFI", ""),
    ("__import__('ctypes').CDLL('libc.so.6')", "FFI", ""),
    ("__import__('ctypes').pythonapi.PyErr_Clear", "FFI", ""),
    ("__import__('ctypes').string_at(__import__('ctypes').create_string_buffer(b'x'))", "FFI", ""),
    ("__import__('ctypes').c_int.from_buffer(bytearray(8))", "FFI", ""),
    ("__import__('ctypes').c_int.from_address(id(1))", "FFI", ""),
    ("sys.audit('ctypes.memoryview_at', 1, 1, True)", "FFI", ""),
    ("sys.audit('sqlite3.load_extension', None, '/x.so')", "Addon", "/x.so"),
    ("sys.audit('sqlite3.enable_load_extension', None, True)", "Addon", ""),
    ("sys.settrace(None)", "Inspector", ""),
    ("sys.setprofile(None)", "Inspector", ""),
    ("sys.audit('sys.monitoring.register_callback', None)", "Inspector", ""),
    ("sys.audit('sys.remote_exec', 1, '/x.py')", "Inspector", ""),
    ("__import__('socket').socket()", "Net", ""),
    ("__import__('socket').socket(__import__('socket').AF_UNIX)", "Net", ""),
    ("__import__('socket').create_connection(('127.0.0.1', 9), 1)", "Net", "127.0.0.1"),
    ("__import__('socket').create_connection(('::1', 9), 1)", "Net", "::1"),
    ("__import__('socket').create_server(('127.0.0.1', 0))", "Net", ""),
    ("__import__('socket').getaddrinfo('localhost', 80)", "Net", "localhost"),
    ("__import__('socket').getaddrinfo(b'localhost', 80)", "Net", "localhost"),
    ("__import__('socket').gethostbyname('localhost')", "Net", "localhost"),
    ("__import__('socket').gethostbyname_ex('localhost')", "Net", "localhost"),
    ("__import__('socket').gethostbyaddr('127.0.0.1')", "Net", "127.0.0.1"),
    ("PAIR[0].connect('/nowhere')", "Net", "/nowhere"),
    ("PAIR[0].connect_ex(b'/nowhere')", "Net", "/nowhere"),
    ("PAIR[0].bind('/nowhere/x')", "Net", "/nowhere/x"),
    ("PAIR[0].sendto(b'x', '/nowhere')", "Net", "/nowhere"),
    ("PAIR[0].sendmsg([b'x'], [], 0, '/nowhere')", "Net", "/nowhere"),
    ("sys.audit('socket.sendto', None, ('192.0.2.1', 53))", "Net", "192.0.2.1"),
)  # fmt: skip
EVALUATE = (
    "import json, socket\nPAIR = socket.socketpair()\nprint(json.dumps([told(source) for source in {sources!r}]))"
)


def test_each_switch_is_refused_by_name(python: str, tmp_path: pathlib.Path) -> None:
    sources = [row[0] for row in GATED]
    ended = run(program(EVALUATE.format(sources=sources)), tmp_path, python)
    got = dict(zip(sources, json.loads(ended.stdout), strict=True))
    assert got == {source: [name, resource] for source, name, resource in GATED}


def test_granted_switches_are_let_through(python: str, tmp_path: pathlib.Path) -> None:
    sources = [row[0] for row in GATED]
    ended = run(program(EVALUATE.format(sources=sources), scopes=SWITCHES), tmp_path, python)
    refused = [pair for pair in zip(sources, json.loads(ended.stdout), strict=True) if isinstance(pair[1], list)]
    assert refused == []


NEEDS_NOTHING = (
    "__import__('asyncio').run(__import__('asyncio').sleep(0))",
    "__import__('ctypes').sizeof(__import__('ctypes').c_int)",
    "__import__('ctypes.util')",
    "PAIR[0].sendall(b'x')",
    "PAIR[0].sendmsg([b'x'])",
    "PAIR[1].dup().recv(9)",
    "__import__('socket').socket(fileno=PAIR[0].detach()).close()",
    "__import__('socket').getaddrinfo('127.0.0.1', 80)",
    "__import__('socket').getaddrinfo('fe80::1%lo', 80)",
    "__import__('socket').getaddrinfo(None, 80)",
    "__import__('socket').gethostbyname('127.0.0.1')",
    "__import__('sqlite3').connect(':memory:').close()",
    "__import__('zlib'), __import__('_json'), __import__('math'), __import__('select')",
    "os.listdir(os.open(os.path.dirname(os.__file__), os.O_RDONLY))",
    "os.stat(0), os.fstat(0), os.pipe(), os.kill(os.getpid(), 0)",
    "os.stat('/'), os.lstat(sys.prefix), os.access('/', os.X_OK) or 1 / 0",
    "open(0, closefd=False).fileno()",
    "sys.audit('open'), sys.audit('open', [], [], []), sys.audit('os.rename', 1), sys.audit('no.such.event')",
)


def test_what_needs_no_permission(python: str, tmp_path: pathlib.Path) -> None:
    ended = run(program(EVALUATE.format(sources=NEEDS_NOTHING)), tmp_path, python)
    assert dict(zip(NEEDS_NOTHING, json.loads(ended.stdout), strict=True)) == dict.fromkeys(NEEDS_NOTHING, "done")


def test_audit_mode_refuses_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("x")
    ended = run(
        program("print(told(\"open('f').read()\"), sys.permission.has('fs.read', 'f'))", mode="audit"), tmp_path
    )
    assert ended.stdout.split() == ["done", "False"]


INTERPRETERS = """
import sys
try:
    import _interpreters as made
except ImportError:
    import _xxsubinterpreters as made
print(told("made.destroy(made.create())"))
"""


def test_subinterpreters_are_workers(python: str, tmp_path: pathlib.Path) -> None:
    assert run(program(INTERPRETERS), tmp_path, python).stdout == "['WorkerThreads', '']\n"
    assert run(program(INTERPRETERS, scopes=["addon"]), tmp_path, python).stdout == "['WorkerThreads', '']\n"
    assert run(program(INTERPRETERS, scopes=["worker"]), tmp_path, python).stdout == "done\n"


def test_extension_modules_of_others_are_addons(python: str, tmp_path: pathlib.Path) -> None:
    code = """
import glob, importlib.machinery, importlib.util, shutil
own = [path for path in sys.path if path.endswith("lib-dynload")][0]
shutil.copyfile(glob.glob(own + "/_json.*.so")[0], "_json.so")
place = os.path.abspath("_json.so")
loader = importlib.machinery.ExtensionFileLoader("_json", place)
spec = importlib.util.spec_from_file_location("_json", place, loader=loader)
print(told("importlib.util.module_from_spec(spec)"))
"""
    here = [str(tmp_path)]
    place = os.path.join(os.path.realpath(tmp_path), "_json.so")
    assert run(program(code, read=here, write=here), tmp_path, python).stdout == f"{['Addon', place]}\n"
    assert run(program(code, read=here, write=here, scopes=["addon"]), tmp_path, python).stdout == "done\n"


# Paths


def answers(sources: Sequence[str], cwd: pathlib.Path, **options: Sequence[str]) -> dict[str, object]:
    """Evaluate expressions one after the other in one program."""
    code = f"import json\nprint(json.dumps([told(source) for source in {list(sources)!r}]))"
    ended = run(program(code, **options), cwd)  # type: ignore[arg-type]
    return dict(zip(sources, json.loads(ended.stdout), strict=True))


def test_links_are_judged_by_where_they_lead(tmp_path: pathlib.Path) -> None:
    for name in ("in", "out", "out/sub"):
        (tmp_path / name).mkdir()
    for name in ("in/f", "out/f", "out/sub/f"):
        (tmp_path / name).write_text("x")
    (tmp_path / "in/away").symlink_to("../out/f")
    (tmp_path / "in/dir").symlink_to("../out/sub")
    (tmp_path / "out/back").symlink_to("../in/f")
    (tmp_path / "out/home").symlink_to(tmp_path / "in")
    refused = {
        "open('in/away')": ["FileSystemRead", "in/away"],
        "open('in/dir/f')": ["FileSystemRead", "in/dir/f"],
        "open('in/dir/../f')": ["FileSystemRead", "in/dir/../f"],
        "open('in/away', 'w')": ["FileSystemWrite", "in/away"],
        "os.truncate('in/away', 0)": ["FileSystemWrite", "in/away"],
        "os.listdir('in/dir/')": ["FileSystemRead", "in/dir/"],
        "os.stat('in/away')": ["FileSystemRead", "in/away"],
        "os.unlink('out/back')": ["FileSystemWrite", "out/back"],
        "os.lstat('out/back')": ["FileSystemRead", "out/back"],
        "os.symlink('in/f', 'out/new')": ["FileSystemWrite", "out/new"],
        "os.mkfifo('out/fifo')": ["FileSystemWrite", "out/fifo"],
        "os.mknod('out/node')": ["FileSystemWrite", "out/node"],
    }
    granted = [
        "open('out/back').read()",
        "open('out/home/f').read()",
        "open('out/home/../in/f').read()",
        "os.listdir('out/home')",
        "os.lstat('in/away')",
        "os.readlink('in/away')",
        "os.symlink('/etc/shadow', 'in/new')",
        "os.rename('in/new', 'in/newer')",
        "os.unlink('in/newer')",
        "os.chown('in/away', -1, -1, follow_symlinks=False)",
        "os.mkfifo('in/fifo')",
        "os.mkdir('out/home/made')",
    ]
    got = answers([*refused, *granted], tmp_path, read=["in"], write=["in"])
    assert got == {**refused, **dict.fromkeys(granted, "done")}
    assert not {"new", "fifo", "node"} & set(os.listdir(tmp_path / "out"))
    assert (tmp_path / "out/f").read_text() == "x"


def test_a_link_may_be_turned_round(tmp_path: pathlib.Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    (tmp_path / "l").symlink_to("out")
    code = """
import subprocess
print(told("open('l/f')"))
subprocess.run(["ln", "-sfn", "in", "l"], check=True)
print(told("open('l/f')"))
"""
    ended = run(program(code, read=["in"], scopes=["child"]), tmp_path)
    assert ended.stdout == "['FileSystemRead', 'l/f']\ndone\n"


def test_the_current_directory_is_minded(tmp_path: pathlib.Path) -> None:
    for name in ("in", "in/sub", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    sources = [
        "os.chdir('in') or open('f').read()",
        "open('f').read()",
        "os.chdir('..') or open('f')",
        "os.chdir(os.open('sub', os.O_RDONLY)) or open('f').read()",
        "os.chdir('../../out')",
        "os.listdir('.'), os.listdir()",
    ]
    got = answers(sources, tmp_path, read=["in"])
    denied = {sources[2]: ["FileSystemRead", ".."], sources[4]: ["FileSystemRead", "../../out"]}
    assert got == {**dict.fromkeys(sources, "done"), **denied}


def test_descriptors_of_directories_are_minded(tmp_path: pathlib.Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    sources = [
        "globals().update(d=os.open('in', os.O_RDONLY))",
        "os.open('f', os.O_RDONLY, dir_fd=d)",
        "os.open('../out/f', os.O_RDONLY, dir_fd=d)",
        "os.open('f', os.O_RDONLY)",
        "os.open(os.path.abspath('out/f'), os.O_RDONLY, dir_fd=d)",
        "os.stat('f', dir_fd=d)",
        "os.stat('../out/f', dir_fd=d)",
        "os.mkdir('new', dir_fd=d)",
        "os.unlink('../out/f', dir_fd=d)",
        "list(os.fwalk('in'))",
        "__import__('shutil').rmtree('in/new')",
    ]
    got = answers(sources, tmp_path, read=["in"], write=["in"])
    denied = {
        sources[2]: ["FileSystemRead", "../out/f"],
        sources[3]: ["FileSystemRead", "f"],
        sources[4]: ["FileSystemRead", str(tmp_path / "out/f")],
        sources[6]: ["FileSystemRead", "../out/f"],
        sources[8]: ["FileSystemWrite", "../out/f"],
    }
    assert got == {**dict.fromkeys(sources, "done"), **denied}
    assert (tmp_path / "out/f").exists()


def test_c_code_that_opens_files_by_mode(tmp_path: pathlib.Path) -> None:
    sources = [
        "sys.audit('open', 'in/f', 'r', 0)",
        "sys.audit('open', 'in/f', 'rb', 0)",
        "sys.audit('open', 'in/f', 'w', 0)",
        "sys.audit('open', 'in/f', 'a', 0)",
        "__import__('sqlite3').connect('out.db')",
    ]
    got = answers(sources, tmp_path, read=["in/*"])
    write = ["FileSystemWrite", "in/f"]
    assert list(got.values()) == ["done", "done", write, write, ["FileSystemRead", "out.db"]]


# Stands for a kernel that tells nothing about what lies outside "in", also not what is a link there.
BLIND = """
import posix
real_stat, real_readlink, real_access = os.stat, os.readlink, os.access
def access(path, mode):
    return path != "out/f" and real_access(path, mode)
def stat(path, **rest):
    if path == "out/f":
        raise PermissionError(13, "kernel", path)
    return real_stat(path, **rest)
def readlink(path, **rest):
    if "/out" in path:
        raise PermissionError(13, "kernel", path)
    return real_readlink(path, **rest)
os.access = posix.access = access
os.stat = posix.stat = stat
os.readlink = posix.readlink = readlink
"""


def test_links_that_cannot_be_read_are_left_to_the_kernel(tmp_path: pathlib.Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    (tmp_path / "out/back").symlink_to("../in/f")
    code = "print(told(\"open('out/back').read()\"), told(\"open('out/f')\"), told(\"os.stat('out/f')\"))\n"
    code += "print(*[sys.permission.has('fs.read', 'out/' + name) for name in ('back', 'f')])"
    ended = run(program(code, read=["in"], guarded=True, before=BLIND), tmp_path)
    refused = ["FileSystemRead", "out/f"]
    assert ended.stdout == f"done {refused} {refused}\nTrue False\n"


# Threads

THREADS = """
import _thread, time
before = open("/proc/self/maps").read().count("lib-dynload")
print(told("_thread.start_new_thread(time.sleep, (0,))"))
print(open("/proc/self/maps").read().count("lib-dynload") > before + 20, "_bisect" in sys.modules)
sys.stdout.flush()
os._exit(0)  # CPython 3.10 crashes now and then when it ends beside a thread
"""


def test_the_first_thread_brings_the_libraries(python: str, tmp_path: pathlib.Path) -> None:
    only = run(program(THREADS, read=["/proc"], scopes=["worker"]), tmp_path, python)
    assert only.stdout == "done\nTrue False\n"
    both = run(program(THREADS, read=["/proc"], scopes=["worker", "addon"]), tmp_path, python)
    assert both.stdout == "done\nFalse False\n"
    neither = run(program(THREADS, read=["/proc"]), tmp_path, python)
    assert neither.stdout == "['WorkerThreads', '']\nFalse False\n"
