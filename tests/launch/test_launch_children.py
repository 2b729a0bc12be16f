"""Pythons that the program starts: they have the hook, and look as if they had been started outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests import support

if TYPE_CHECKING:
    from collections.abc import Mapping

SITE = "/child/site"
DENIED = "sandboxed_python.AccessDeniedError: Access to this API has been restricted. Use --allow-fs-read to manage"
BLOCK = "{\n  code: 'ERR_ACCESS_DENIED',\n  permission: 'FileSystemRead',\n  resource: '/etc/passwd'\n}"
OTHERS = ("3.10.13", "3.12.1", "3.13.0")
TOO_OLD = ("2.7.18", "3.6.15", "3.9.18")
SHARED = ("--allow-worker", "--allow-fs-read=/dev/shm", "--allow-fs-write=/dev/shm")

# What a program may look at to learn how it was started.
LOOKS = """
import json, os, sys
print(json.dumps([
    sorted(sys.modules), sys.path, sorted(sys.path_importer_cache), sys.argv, sys.orig_argv, sys.flags, sys.executable,
    sys.excepthook is sys.__excepthook__, sys.excepthook.__name__, sys.displayhook.__name__, sorted(vars()),
    {name: value for name, value in os.environ.items() if name != "_"}, sorted(os.environb) == sorted(map(os.fsencode, os.environ)),
]))
"""
# Ways in which a program can start a Python that runs `code`; `python` is its interpreter. Each prints what comes out.
WAYS = {
    "subprocess": "subprocess.run([python, '-c', code])",
    "subprocess, empty environment": "subprocess.run([python, '-c', code], env={})",
    "subprocess, own environment": "subprocess.run([python, '-c', code], env={'PYTHONPATH': '/nowhere', 'A': 'b'})",
    "subprocess, posix_spawn": "subprocess.run([python, '-c', code], close_fds=False)",
    "subprocess, a copy of the environment": "subprocess.run([python, '-c', code], env=dict(os.environ))",
    "a shell": "subprocess.run(f'{python} -c \"$CODE\"', shell=True, env={'CODE': code})",
    "os.system": "os.environ['CODE'] = code; os.system(f'{python} -c \"$CODE\"')",
    "os.popen": "os.environ['CODE'] = code; print(os.popen(f'{python} -c \"$CODE\"').read())",
    "posix_spawn": "os.waitpid(os.posix_spawn(python, [python, '-c', code], {}), 0)",
    "posix_spawn, bytes": "os.waitpid(os.posix_spawn(python, [python, '-c', code], {b'PYTHONPATH': b'/nowhere'}), 0)",
    "posix_spawnp": "os.waitpid(os.posix_spawnp(python, [python, '-c', code], os.environ), 0)",
    "spawnv": "os.spawnv(os.P_WAIT, python, [python, '-c', code])",
    "spawnve": "os.spawnve(os.P_WAIT, python, [python, '-c', code], {})",
    "execv": "os.execv(python, [python, '-c', code])",
    "execve": "os.execve(python, [python, '-c', code], {})",
    "execlp": "os.execlp(python, python, '-c', code)",
    "PYTHONPATH set": "os.environ['PYTHONPATH'] = '/nowhere'; subprocess.run([python, '-c', code])",
    "PYTHONPATH removed": "os.environ['PYTHONPATH'] = 'x'; del os.environ['PYTHONPATH']; subprocess.run([python, '-c', code])",
    "the environment cleared": "os.environ.clear(); subprocess.run([python, '-c', code])",
    "a child's child": "subprocess.run([python, '-c', f'import subprocess; subprocess.run([{python!r}, \"-c\", {code!r}])'])",
    "a fork": "pid = os.fork()\nif pid == 0:\n    exec(code); sys.stdout.flush(); os._exit(0)\nos.waitpid(pid, 0)",
}
TELL = (
    "import os, sys\n"
    "try: open('/etc/passwd'); print('open')\n"
    "except PermissionError as error: print('child', type(error).__name__, sys.permission.has('child'),"
    " sys.permission.has('net'), os.environ.get('PYTHONPATH'), flush=True)"
)


def starts(how: str, code: str = TELL) -> str:
    """Return a program that starts a Python in one of the ``WAYS``."""
    return f"import os, subprocess, sys\npython, code = sys.executable, {code!r}\n{how}"


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-B",)], ids=["fork", "exec"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_starting_one(way: str, options: tuple[str, ...], sandbox: support.Run) -> None:
    ended = sandbox("--allow-child-process", *options, "-c", starts(WAYS[way]))
    path = "/nowhere" if "nowhere" in WAYS[way] else "None"
    assert f"child AccessDeniedError True False {path}\n" in ended.stdout, ended.said


def test_a_path_of_the_users_own(folder: str, sandbox: support.Run) -> None:
    """The exec way: PYTHONPATH is the user's, the program sees it, and so does what it starts."""
    ended = sandbox("--allow-child-process", "-c", starts(WAYS["subprocess"]), env={"PYTHONPATH": folder})
    assert ended.stdout == f"child AccessDeniedError True False {folder}\n", ended.said


def test_a_shebang(folder: str, sandbox: support.Run) -> None:
    path = os.path.join(folder, "script")
    with open(path, "w") as file:
        file.write(f"#!{sys.executable}\n{TELL}\n")
    os.chmod(path, 0o755)
    ended = sandbox("--allow-child-process", f"--allow-fs-read={path}", "-c", f"import os; os.system({path!r})")
    assert ended.stdout == "child AccessDeniedError True False None\n", ended.said


def test_it_looks_untouched(folder: str, sandbox: support.Run) -> None:
    """Modules, paths, environment, hooks: as of a Python that was started outside in the same way."""
    python = os.path.join(os.path.dirname(sys.executable), "python3")  # as the command starts it
    for environment in (
        "None",
        "{}",
        "{'PYTHONPATH': ''}",
        "{'PYTHONPATH': ':/nowhere'}",
        "{'PYTHONPATH': '/a:/b', 'X': 'y'}",
    ):
        source = starts(f"subprocess.run([python, '-c', code], env={environment}, cwd='/usr')", LOOKS)
        outside = support.execute([python, "-c", source], cwd="/", env={"PWD": "/"})
        inside = sandbox("--allow-child-process", "--allow-fs-read=/usr", "-c", source, cwd="/")
        assert (outside.code, inside.code, inside.stderr) == (0, 0, ""), inside.said
        for one, another in zip(json.loads(inside.stdout), json.loads(outside.stdout), strict=True):
            assert one == another


def test_the_parent_doesnt_see_it(sandbox: support.Run) -> None:
    code = "print(dict(os.environ).get('PYTHONPATH'), os.environb.get(b'PYTHONPATH'), [e for e in sys.path if 'child/site' in e])"
    assert sandbox("--allow-child-process", "-c", f"import os, sys; {code}").stdout == "None None []\n"


def test_nothing_is_passed_on_without_the_permission(sandbox: support.Run) -> None:
    code = "import ctypes; print(ctypes.CDLL(None).getenv(b'PYTHONPATH'), __import__('os').putenv)"
    assert sandbox("--allow-ffi", "-c", code).stdout == "0 <built-in function putenv>\n"
    assert "0 <" not in sandbox("--allow-ffi", "--allow-child-process", "-c", code).stdout


def test_an_uncaught_denial_shows_its_block(sandbox: support.Run) -> None:
    ended = sandbox("--allow-child-process", "-c", starts(WAYS["subprocess"], "open('/etc/passwd')"))
    assert DENIED in ended.stderr, ended.said
    assert BLOCK in ended.stderr, ended.said
    ended = sandbox("--allow-child-process", "-c", starts(WAYS["subprocess"], "1 / 0"))
    assert ended.stderr == support.execute([sys.executable, "-c", "1 / 0"]).stderr


def test_the_sitecustomize_that_python_would_have_found(folder: str, sandbox: support.Run) -> None:
    with open(os.path.join(folder, "sitecustomize.py"), "w") as file:
        file.write(
            "import sys\nprint('custom', __file__, sys.permission.has('child'), sys.modules[__name__].__name__)\n"
        )
    source = starts(
        f"subprocess.run([python, '-c', 'import sitecustomize; print(sitecustomize.__file__)'], env={{'PYTHONPATH': {folder!r}}})"
    )
    ended = sandbox("--allow-child-process", f"--allow-fs-read={folder}", "-c", source)
    custom = f"{folder}/sitecustomize.py"
    assert ended.stdout == f"custom {custom} True sitecustomize\n{custom}\n", ended.said
    with open(custom, "w") as file:
        file.write("raise ValueError('mine')\n")
    ended = sandbox(
        "--allow-child-process", f"--allow-fs-read={folder}", "-c", source.replace("print(sitecustomize.__file__)", "")
    )
    assert "Error in sitecustomize; set PYTHONVERBOSE for traceback:\nValueError: mine\n" in ended.stderr


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": "/nowhere"}])
def test_outside_it_does_nothing(environment: Mapping[str, str]) -> None:
    """Whoever is led to the folder without a sandbox finds a Python as if he weren't; so do those whom he starts."""
    import sandboxed_python

    entry = os.path.dirname(sandboxed_python.__file__) + SITE
    assert os.listdir(entry)
    led = {**environment, "PYTHONPATH": ":".join([entry, *environment.values()])}
    code = f"{LOOKS}\nimport subprocess; print(hasattr(sys, 'permission'), os.getenv('PYTHONPATH'), flush=True)\nsubprocess.run(['env'])"

    def lines(variables: Mapping[str, str]) -> list[str]:
        ended = subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True, timeout=60
        )
        assert ended.stderr == ""
        return ended.stdout.splitlines()

    assert lines(led) == lines(environment)


def test_it_asks_as_the_supervisor_is_asked() -> None:
    import sandboxed_python
    from sandboxed_python.record import wire

    with open(os.path.dirname(sandboxed_python.__file__) + SITE + "/sitecustomize.py", encoding="utf-8") as file:
        assert f'_WIRE, _POLICY = 0x{wire.WIRE:X}, "{wire.POLICY}"' in file.read()


def test_what_was_given_up_is_given_up_in_what_starts_later(sandbox: support.Run) -> None:
    """And a Python that is started can give up more, for itself."""
    tell = "print(sys.permission.has('net'), sys.permission.has('fs.read', '/usr/lib'), sys.permission.has('worker'))"
    inner = (
        f"import sys, socket\n{tell}\ntry: socket.socket()\nexcept PermissionError as error: print(error.permission)"
    )
    inner += f"\nsys.permission.drop('worker'); {tell}; import threading; threading.Thread(target=print).start()"
    code = f"sys.permission.drop('net'); {WAYS['subprocess']}; {tell}"
    ended = sandbox("--allow-child-process", "--allow-net", "--allow-worker", "-c", starts(code, inner))
    assert ended.stdout == "False True True\nNet\nFalse True False\nFalse True True\n", ended.said
    assert "permission: 'WorkerThreads'" in ended.stderr


@pytest.mark.parametrize("rest", ["", ":/nowhere"])
def test_the_command_led_there_gives_the_program_what_is_left(rest: str, sandbox: support.Run) -> None:
    """A command in the sandbox finds the entry, and has a hook of its own to install."""
    import sandboxed_python

    entry = os.path.dirname(sandboxed_python.__file__) + SITE
    code = "import os, sys; print(os.environ.get('PYTHONPATH'), [e for e in sys.path if 'site' in e.split('/')])"
    ended = sandbox("-c", code, env={"PYTHONPATH": entry + rest})
    assert ended.stdout == f"{rest[1:] or None} []\n", ended.said


@pytest.mark.parametrize("version", OTHERS)
def test_another_version(version: str, sandbox: support.Run) -> None:
    python = other(version)
    ended = sandbox(
        "--allow-child-process",
        "--allow-addons",  # its own libpython
        f"--allow-fs-read={os.path.dirname(os.path.dirname(python))}",
        "-c",
        starts(WAYS["subprocess"]).replace("sys.executable", repr(python)),
    )
    assert ended.stdout == "child AccessDeniedError True False None\n", ended.said
    assert ended.stderr == ""


@pytest.mark.parametrize("version", TOO_OLD)
def test_a_version_that_is_too_old_starts_as_if_nothing_were(version: str, sandbox: support.Run) -> None:
    python = other(version)
    code = "import os, sys\ntry:\n    open('/etc/passwd')\nexcept (IOError, OSError):\n    sys.stdout.write('denied %s\\n' % [e for e in sys.path if 'sandboxed' in e])"
    ended = sandbox(
        "--allow-child-process",
        "--allow-addons",  # its own libpython
        f"--allow-fs-read={os.path.dirname(os.path.dirname(python))}",
        "-c",
        starts(WAYS["subprocess"], code).replace("sys.executable", repr(python)),
    )
    assert (ended.stdout, ended.stderr) == ("denied []\n", ""), ended.said


def other(version: str) -> str:
    """Return pyenv's interpreter of a version; without one, skip."""
    python = os.path.expanduser(f"~/.pyenv/versions/{version}/bin/python{version.rpartition('.')[0]}")
    if not os.access(python, os.X_OK):
        pytest.skip(f"needs {python}; found no such interpreter")
    return python


def test_the_python_of_another_environment(folder: str, sandbox: support.Run) -> None:
    """One without this package: the hook is there, and ``import sandboxed_python`` gives what is at work."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = os.path.join(folder, "bin", "python")
    ended = sandbox(
        "--allow-child-process",
        f"--allow-fs-read={folder}",
        "-c",
        starts(WAYS["subprocess"]).replace("sys.executable", repr(python)),
    )
    assert ended.stdout == "child AccessDeniedError True False None\n", ended.said


# multiprocessing

POOL = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory

def work(number):
    try:
        open("/etc/passwd")
    except PermissionError as error:
        return number, type(error).__name__, error.permission, sys.permission.has("net")

def fail(number):
    open("/etc/passwd")

def put(queue, name):
    memory = shared_memory.SharedMemory(name)
    memory.buf[0] = 7
    memory.close()
    queue.put(work(3))

if __name__ == "__main__":
    from sandboxed_python import AccessDeniedError
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(pool.map(work, [1, 2]))
        try:
            pool.map(fail, [1])
        except AccessDeniedError as error:
            print(error.permission, error.resource)
    queue, memory = context.Queue(), shared_memory.SharedMemory(create=True, size=10)
    process = context.Process(target=put, args=(queue, memory.name))
    process.start()
    print(queue.get(), memory.buf[0])
    process.join()
    memory.close()
    memory.unlink()
    with ProcessPoolExecutor(2, context) as executor:
        print(list(executor.map(work, [4, 5])))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, folder: str, sandbox: support.Run) -> None:
    """The smallest grants: semaphores are files in /dev/shm, a pool has threads, a forkserver has a socket."""
    path = os.path.join(folder, "pool.py")
    with open(path, "w") as file:
        file.write(POOL)
    net = method == "forkserver"
    with tempfile.TemporaryDirectory(prefix="sp-") as short:  # a socket's path has 107 characters at most
        more = ["--allow-net", f"--allow-fs-read={short}", f"--allow-fs-write={short}"] if net else []
        words = ["--allow-child-process", *SHARED, *more, path, method]
        ended = sandbox(*words, cwd="/", env={"TMPDIR": short})
    rows = [(number, "AccessDeniedError", "FileSystemRead", net) for number in range(6)]
    assert ended.stdout == f"{rows[1:3]}\nFileSystemRead /etc/passwd\n{rows[3]} 7\n{rows[4:6]}\n", ended.said


NEEDY = {
    "a semaphore": "import multiprocessing; multiprocessing.Lock()",
    "shared memory": "from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, size=9); m.close(); m.unlink()",
}


@pytest.mark.parametrize("name", NEEDY)
def test_shared_memory_needs_a_grant_and_says_so(name: str, sandbox: support.Run) -> None:
    code = textwrap.dedent(f"""
        try: {NEEDY[name]}
        except Exception as error: print(type(error).__name__, error.permission, error.resource, error.flag)
        else: print("done")
    """)
    told = {
        (): "AccessDeniedError FileSystemRead /dev/shm --allow-fs-read",
        ("--allow-fs-write=/dev/shm",): "AccessDeniedError FileSystemRead /dev/shm --allow-fs-read",
        ("--allow-fs-read=/dev/shm",): "AccessDeniedError FileSystemWrite /dev/shm --allow-fs-write",
        ("--allow-fs-read=*", "--allow-fs-write=*"): "AccessDeniedError FileSystemWrite /dev/shm --allow-fs-write",
        ("--allow-fs-read=/dev/shm", "--allow-fs-write=/dev/shm"): "done",
    }
    for grants, text in told.items():
        ended = sandbox("--allow-child-process", *grants, "-c", code)
        assert ended.stdout == f"{text}\n", (grants, ended.said)


STARTS = {
    "a lock's resource tracker": "multiprocessing.get_context('spawn').Lock()",
    "spawn": "from multiprocessing import util; os.waitpid(util.spawnv_passfds(PROGRAM, [PROGRAM], ()), 0)",
}


@pytest.mark.parametrize("name", STARTS)
def test_what_multiprocessing_starts_needs_a_grant_and_says_so(name: str, sandbox: support.Run) -> None:
    """No audit event tells of these; also after a drop, and torn out nothing is started either."""
    for grants, drop, refused in (
        ((), "", True),
        (("--allow-child-process",), "sys.permission.drop('child')", True),
        (("--allow-child-process",), "", False),
    ):
        code = textwrap.dedent(f"""
            import multiprocessing, os, sys
            PROGRAM = b"/bin/true"
            said = []
            sys.permission.subscribe(lambda message: said.append(message.permission))
            {drop}
            del said[:]
            try: {STARTS[name]}
            except Exception as error:
                program = getattr(error, "resource", "")
                print(type(error).__name__, error.flag, os.path.basename(program)[:6], said)
            else: print("done", said)
        """)
        ended = sandbox(*SHARED, *grants, "-c", code)
        program = "true" if name == "spawn" else "python"
        want = f"AccessDeniedError --allow-child-process {program} ['ChildProcess']" if refused else "done []"
        assert ended.stdout == f"{want}\n", (grants, drop, ended.said)


def test_around_the_wrapper_nothing_is_started(sandbox: support.Run, folder: str) -> None:
    made = os.path.join(folder, "made")
    # The original, as it was before anything was put in its place.
    code = textwrap.dedent(f"""
        import _imp, _frozen_importlib, os, sys
        spec = _frozen_importlib.ModuleSpec("_posixsubprocess", None, origin="built-in")
        if "_posixsubprocess" in sys.builtin_module_names:
            module = _imp.create_builtin(spec)
        else:
            import _posixsubprocess as there
            spec.origin = there.__file__
            module = _imp.create_dynamic(spec)
        words = [b"/bin/sh", b"-c", b": > {made}"]
        import multiprocessing.util as util
        print(module.fork_exec.__class__.__name__)
        sys.modules["_posixsubprocess"] = module
        try:
            pid = util.spawnv_passfds(b"/bin/sh", words, ())
        except OSError as error:
            print(type(error).__name__, error.errno)
        else:
            os.waitpid(pid, 0)
    """)
    ended = sandbox(f"--allow-fs-write={folder}", "-c", code)
    assert ended.stdout == "builtin_function_or_method\nPermissionError 1\n", ended.said
    assert not os.path.exists(made)
    ended = sandbox(f"--allow-fs-write={folder}", "--allow-child-process", "-c", code)
    assert ended.stdout == "builtin_function_or_method\n", ended.said
    assert os.path.exists(made), ended.said


def test_dressed_semaphores_are_semaphores(sandbox: support.Run) -> None:
    code = (
        "import pickle, _multiprocessing, multiprocessing.synchronize as s; lock = s.Lock(ctx=__import__('multiprocessing').get_context());\n"
        "kind = _multiprocessing.SemLock; print(kind, kind.SEM_VALUE_MAX == s.SEM_VALUE_MAX, isinstance(lock._semlock, kind));\n"
        "print(lock.acquire(), lock.acquire(block=False), lock.release(), hasattr(lock._semlock, '__dict__'))"
    )
    ended = sandbox(*SHARED, "-c", code)
    assert ended.stdout == "<class '_multiprocessing.SemLock'> True True\nTrue False None False\n", ended.said
