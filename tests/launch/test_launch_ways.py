"""Both ways of starting a program: in a fork of the supervisor's interpreter, and in one that is exec'ed, confined."""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

import sandboxed_python
from sandboxed_python.cli.main import HARMLESS
from tests.launch.plain import confined, inside, other_pythons, plain, plain_python, same
from tests.support import execute, installed

if TYPE_CHECKING:
    from tests.support import Need, Run

# What the kernel says about the process that runs this.
CONFINED = """
def confined():
    # Without a grant of /proc a program can't read its own status; these two calls tell the same.
    import errno, os, socket
    told = []
    try:
        os.open("/etc/passwd", os.O_RDONLY)
        told.append("reads /etc/passwd")
    except OSError:
        pass
    try:
        os.close(os.open("@FOLDER@/escaped", os.O_WRONLY | os.O_CREAT))
        told.append("writes where nothing is granted")
    except OSError:
        pass
    try:
        socket.socket()
        told.append("makes sockets")
    except OSError:
        pass
    return told
"""


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def write(path: str, text: str, mode: int = 0o644) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def test_the_fork_way_and_the_exec_way_differ_only_in_how(folder: str) -> None:
    program = write(f"{folder}/job.py", "import sys; print(sys.permission.has('net'), sys.argv, sys.flags.optimize)")
    assert confined(program, "x").stdout == f"False [{program!r}, 'x'] 0\n"
    assert confined("-O", program, "x").stdout == f"False [{program!r}, 'x'] 1\n"


# The environment


def test_code_named_by_the_environment_runs_only_inside(folder: str) -> None:
    """An untrusted checkout's sitecustomize must never run in the supervisor."""
    spy = CONFINED.replace("@FOLDER@", folder) + (
        "import os\n"
        "try:\n"
        "    with open('/proc/self/status') as file:\n"
        "        told = [line.split()[1] for line in file if line.startswith(('NoNewPrivs:', 'Seccomp:'))]\n"
        "except OSError:\n"
        "    told = []\n"
        "os.write(2, ('spy: %r %s\\n' % (confined(), ' '.join(told))).encode())\n"
    )
    write(f"{folder}/checkout/sitecustomize.py", spy)
    write(f"{folder}/checkout/usercustomize.py", spy)
    words = ["-c", "print('ran')"]
    env = {"PYTHONPATH": f"{folder}/checkout"}
    # Plain python runs it with all rights: the spy works.
    open_ended = plain(*words, env=env)
    assert "writes where nothing is granted" in open_ended.stderr
    os.unlink(f"{folder}/escaped")
    ended = confined(*words, env=env, grants=[f"--allow-fs-read={folder},/proc"])
    assert (ended.code, ended.stdout) == (0, "ran\n")
    told = ended.stderr.splitlines()
    assert told
    assert set(told) == {"spy: [] 1 2"}
    assert not os.path.exists(f"{folder}/escaped")
    # Not granted for reading: it is not even found.
    ended = confined(*words, env=env)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "ran\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONSTARTUP", "{}/evil.py"),
        ("PYTHONUSERBASE", "{}/base"),
        ("PYTHONPYCACHEPREFIX", "{}/cache"),
        ("PYTHONWARNINGS", "error"),
        ("PYTHONBREAKPOINT", "evil.f"),
        ("PYTHONPLATLIBDIR", "lib"),
        ("PYTHONINSPECT", ""),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONDEBUG", ""),
        ("PYTHONNEW_IN_SOME_LATER_VERSION", "1"),
    ],
)
def test_variables_that_could_load_something_take_the_exec_way(folder: str, name: str, value: str) -> None:
    write(f"{folder}/evil.py", f"open('{folder}/escaped', 'w')\n")
    program = write(f"{folder}/job.py", "import os, sys; print(sys.flags, sys.warnoptions, sys.pycache_prefix)")
    ended = same(program, env={name: value.format(folder)})
    assert ended.code == 0
    assert not os.path.exists(f"{folder}/escaped")
    code = f"import os; print(os.environ.get({name!r}))"
    assert confined("-c", code, env={name: value.format(folder)}).stdout == f"{value.format(folder)}\n"


def test_pythonpath_reaches_the_program_and_its_grants_decide(folder: str) -> None:
    write(f"{folder}/lib/helper.py", "x = 7")
    env = {"PYTHONPATH": f"{folder}/lib:/none"}
    assert same(
        "-c", "import helper, sys; print(helper.x, sys.path)", env=env, grants=[f"--allow-fs-read={folder}/lib"]
    )
    ended = confined("-c", "import helper", env=env)
    assert ended.code == 1
    assert "No module named 'helper'" in ended.stderr


def test_a_variable_with_a_newline_is_no_option(folder: str) -> None:
    env = {"X": "\nexport PYTHONPATH=1", "PYTHONUTF8": "1"}
    assert confined("-c", "import sys; print(sys.flags.utf8_mode)", env=env).stdout == "1\n"


def test_a_home_of_another_python_does_not_mislead_the_supervisor(folder: str) -> None:
    ended = confined("-c", "print('ran')", env={"PYTHONHOME": f"{folder}/none"})
    expected = plain("-c", "print('ran')", env={"PYTHONHOME": f"{folder}/none"})
    assert ended.stdout == expected.stdout == ""
    assert ended.code == expected.code


def test_loader_variables_do_not_reach_the_program() -> None:
    code = "import os; print(sorted(name for name in os.environ if name.startswith('LD_')), os.environ.get('LDX'))"
    env = {"LD_LIBRARY_PATH": "/nowhere", "LD_BIND_NOW": "1", "LDX": "kept"}
    for option in ([], ["-B"]):
        assert confined(*option, "-c", code, env=env).stdout == "[] kept\n"
    script = "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo ${LD_BIND_NOW:-none}'])"
    assert confined("-c", script, env=env, grants=["--allow-child-process"]).stdout == "none\n"


def test_what_lies_in_the_working_directory_is_not_imported_by_the_supervisor(folder: str) -> None:
    for name in (
        "os",
        "sys",
        "site",
        "errno",
        "marshal",
        "shlex",
        "stat",
        "sitecustomize",
        "sandboxed_python",
        "psutil",
    ):
        write(f"{folder}/{name}.py", f"open('{folder}/escaped', 'w')\nraise SystemExit('stolen {name}')\n")
    write(f"{folder}/job.py", "print('ran')")
    env = {"SANDBOXED_PYTHON_OPTIONS": "--allow-worker"}
    for words in (["job.py"], ["-O", "job.py"], ["-m", "job"], ["-c", "print('ran')"]):
        ended = confined(*words, cwd=folder, env=env)
        assert "stolen" not in ended.stderr or words[0] == "-O"
        assert not os.path.exists(f"{folder}/escaped")
    assert confined("job.py", cwd=folder, env=env).stdout == "ran\n"


# Descriptors


def test_inherited_descriptors_are_closed(run: Run, folder: str) -> None:
    secret = write(f"{folder}/secret", "s")
    descriptor = os.open(secret, os.O_RDONLY)
    high = os.dup2(descriptor, 777, inheritable=True)
    code = """
import os
def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False
print([number for number in range(1024) if is_open(number)])
"""
    try:
        for option in ([], ["-B"]):
            ended = run("--permission", *option, "-c", code, pass_fds=[descriptor, high])
            assert ended.stdout == "[0, 1, 2]\n", ended.said
        assert str(high) in run("-c", code, pass_fds=[high]).stdout
    finally:
        os.close(descriptor)
        os.close(high)


@pytest.mark.parametrize("closing", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- >&-"])
@pytest.mark.parametrize("option", ["", "-B"])
def test_standard_descriptors_that_are_closed(folder: str, closing: str, option: str) -> None:
    program = write(
        f"{folder}/job.py",
        "import os, sys\n"
        "def is_open(n):\n    try:\n        os.fstat(n)\n        return True\n    except OSError:\n        return False\n"
        f"with open({folder + '/out'!r}, 'w') as file:\n"
        "    print([is_open(n) for n in range(3)], sys.stdin is None, sys.stdout is None, sys.stderr is None, file=file)\n"
        "sys.exit(7)\n",
    )
    write(f"{folder}/out", "")

    def outcome(words: list[str]) -> tuple[int, str]:
        ended = execute(["/bin/sh", "-c", f'exec "$@" {closing}', "sh", *words, *option.split(), program])
        with open(f"{folder}/out", encoding="utf-8") as file:
            return ended.code, file.read()

    expected = outcome([plain_python()])
    assert expected[0] == 7
    os.truncate(f"{folder}/out", 0)
    assert outcome([*installed(), "--permission", f"--allow-fs-write={folder}/out"]) == expected


# Finding the command


def test_through_links_to_the_command(run: Run, folder: str) -> None:
    command = installed()[0]
    os.makedirs(f"{folder}/bin")
    os.symlink(command, f"{folder}/bin/absolute")
    os.symlink("absolute", f"{folder}/bin/relative")
    os.symlink("bin/relative", f"{folder}/chained")
    os.symlink(os.path.relpath(command, f"{folder}/bin"), f"{folder}/bin/up")
    code = "import sys; print(sys.executable, sys.permission.has('net'))"
    expected = f"{plain_python()} False\n"
    for name in ("bin/absolute", "bin/relative", "chained", "bin/up"):
        ended = run("--permission", "-c", code, command=[f"{folder}/{name}"])
        assert os.path.normpath(ended.stdout) == expected, ended.said
        ended = run("--permission", "-c", code, command=[f"./{name}"], cwd=folder)
        assert os.path.normpath(ended.stdout) == expected, ended.said
    path = f"{folder}/bin:{os.environ['PATH']}"
    for name in ("relative", "up"):
        ended = run("--permission", "-c", code, command=["/usr/bin/env", name], env={"PATH": path})
        assert os.path.normpath(ended.stdout) == expected, ended.said


def test_as_a_shebang_interpreter(run: Run, folder: str) -> None:
    command = installed()[0]
    body = f"import sys\nprint(sys.argv, __file__, sys.permission.has('fs.read', {folder + '/data'!r}))\n"
    direct = write(f"{folder}/direct", f"#!{command} --permission\n{body}", 0o755)
    read = f"--allow-fs-read={folder}/data"
    through = write(f"{folder}/through", f"#!/usr/bin/env -S sandboxed-python --permission {read}\n{body}", 0o755)
    ended = run("a", "--permission", command=[direct])
    assert (ended.code, ended.stdout) == (0, f"[{direct!r}, 'a', '--permission'] {direct} False\n"), ended.said
    path = f"{os.path.dirname(command)}:{os.environ['PATH']}"
    ended = run("a", command=[through], env={"PATH": path})
    assert (ended.code, ended.stdout) == (0, f"[{through!r}, 'a'] {through} True\n"), ended.said
    # Found on PATH, as a program of the user's own.
    ended = run("a", command=["/usr/bin/env", "through"], env={"PATH": f"{folder}:{path}"}, cwd="/")
    assert ended.stdout == f"[{through!r}, 'a'] {through} True\n", ended.said


def test_the_command_without_a_path(run: Run) -> None:
    code = "import sys; print(sys.executable)"
    path = f"{os.path.dirname(installed()[0])}:{os.environ['PATH']}"
    ended = run(
        "--permission", "-c", code, command=["/bin/sh", "-c", 'sandboxed-python "$@"', "sh"], env={"PATH": path}
    )
    assert ended.stdout == f"{plain_python()}\n"


# Other interpreters

FACTS = """
import json, os, sys
def read(path):
    try:
        with open(path): return True
    except OSError as error:
        return type(error).__name__
import zoneinfo, sqlite3, ssl, hashlib, decimal, asyncio, tempfile
print(json.dumps([sys.version_info[:3], sys.executable, sys.prefix, sys.path, sys.argv, hasattr(sys, "permission"),
                  read("/etc/passwd"), sorted(n for n in sys.modules if "sandbox" in n), __file__, sys.flags.optimize]))
"""


@pytest.mark.parametrize("python", other_pythons() or [""])
def test_another_interpreter_runs_the_program(folder: str, python: str) -> None:
    if not python:
        pytest.skip("needs another CPython 3.10 or later; found none on PATH or in ~/.pyenv")
    program = write(f"{folder}/job.py", FACTS)
    expected = execute([python, "-O", program, "x"])
    assert expected.code == 0, expected.said
    ended = confined("-O", program, "x", grants=[f"--python={python}"])
    assert ended.code == 0, ended.said
    ours, theirs = json.loads(ended.stdout), json.loads(expected.stdout)
    assert theirs[5:8] == [False, True, []]
    assert ours[5:8] == [True, "AccessDeniedError", []]
    assert ours[:5] + ours[8:] == theirs[:5] + theirs[8:]


def test_an_interpreter_by_name_and_by_relative_path(folder: str) -> None:
    os.symlink(plain_python(), f"{folder}/mypython")
    code = "import sys; print(sys.version_info[:2])"
    expected = f"{tuple(json.loads(plain('-c', 'import sys; print(list(sys.version_info[:2]))').stdout))}\n"
    assert confined("-c", code, grants=["--python=./mypython"], cwd=folder).stdout == expected
    path = f"{folder}:{os.environ['PATH']}"
    assert confined("-c", code, grants=["--python", "mypython"], env={"PATH": path}).stdout == expected


def test_nobody_elses_code_runs_while_another_interpreter_is_asked(folder: str) -> None:
    write(f"{folder}/sitecustomize.py", f"open('{folder}/escaped', 'w')\n")
    env = {"PYTHONPATH": folder, "PYTHONSTARTUP": f"{folder}/sitecustomize.py"}
    ended = confined("-c", "print('ran')", grants=[f"--python={plain_python()}"], env=env, cwd=folder)
    assert ended.stdout == "ran\n"
    assert not os.path.exists(f"{folder}/escaped")


# Children


def test_a_python_started_from_the_sandbox_is_in_it(folder: str) -> None:
    secret = write(f"{folder}/secret", "s")
    code = (
        "import subprocess, sys\n"
        f"inner = \"import os\\ntry:\\n os.open({secret!r}, 0)\\n print('read')\\nexcept OSError as e:\\n print(e.errno)\"\n"
        "print(subprocess.run([sys.executable, '-c', inner], capture_output=True, text=True))\n"
    )
    ended = confined("-c", code, grants=["--allow-child-process"])
    assert ended.code == 0, ended.said
    assert "stdout='13\\n'" in ended.stdout, ended.said
    twin = confined("-c", code, grants=["--allow-child-process", f"--allow-fs-read={secret}"])
    assert "stdout='read\\n'" in twin.stdout, twin.said


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_no_second_exec_without_child_processes(folder: str, option: list[str]) -> None:
    code = (
        "import os\n"
        "for call in (lambda: os.execv('/bin/true', ['true']), lambda: os.posix_spawn('/bin/true', ['true'], {}),\n"
        "             lambda: os.fork(), lambda: os.system('true')):\n"
        "    try:\n        print('done', call())\n    except OSError as error:\n        print(type(error).__name__)\n"
    )
    ended = confined(*option, "-c", code)
    assert ended.stdout == "AccessDeniedError\n" * 4, ended.said


def test_exec_by_the_program_replaces_it(folder: str) -> None:
    code = "import os; os.execv('/bin/sh', ['sh', '-c', 'cat /etc/passwd >/dev/null 2>&1; echo $?; exit 12'])"
    ended = confined("-c", code, grants=["--allow-child-process"])
    assert (ended.code, ended.stdout) == (12, "1\n")


# The start is light


def test_only_what_is_needed_is_loaded(run: Run) -> None:
    """Start-up is a feature: these modules cost milliseconds each."""
    heavy = {
        *(
            "typing",
            "dataclasses",
            "enum",
            "re",
            "collections",
            "functools",
            "pathlib",
            "json",
            "argparse",
            "subprocess",
        ),
        *(
            "signal",
            "select",
            "socket",
            "threading",
            "logging",
            "tomllib",
            "inspect",
            "contextlib",
            "tempfile",
            "ctypes",
        ),
        *("psutil", "pyseccomp", "shutil", "random", "shlex", "importlib.util", "importlib.machinery", "linecache"),
    }
    command = [plain_python(), "-X", "importtime", installed()[0]]
    ended = run("--permission", "-c", "print('ran')", command=command)
    assert ended.stdout == "ran\n", ended.said
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}
    plain_loaded = {
        line.rpartition("|")[2].strip() for line in plain("-X", "importtime", "-c", "print('ran')").stderr.splitlines()
    }
    assert loaded
    assert not (loaded - plain_loaded) & heavy


def test_no_bytecode_is_written_where_it_must_not(folder: str) -> None:
    write(f"{folder}/helper.py", "x = 1")
    program = write(f"{folder}/job.py", "import helper")
    assert confined(program, grants=[f"--allow-fs-read={folder}"]).code == 0
    assert sorted(os.listdir(folder)) == ["helper.py", "job.py"]
    assert confined(program, grants=[f"--allow-fs-read={folder}", f"--allow-fs-write={folder}"]).code == 0
    assert "__pycache__" in os.listdir(folder)


def test_the_version_of_the_tests_is_the_commands() -> None:
    assert (
        plain("-V").stdout.split()[1] == ".".join(map(str, sys.version_info[:3]))
        or "SANDBOXED_PYTHON_COMMAND" in os.environ
    )


def test_the_command_knows_every_variable_of_this_python() -> None:
    """What the interpreter's own code asks the environment for is harmless, or makes the command start it isolated."""
    library = sysconfig.get_config_var("LDLIBRARY") or ""
    files = [os.path.realpath(sys.executable), os.path.join(sysconfig.get_config_var("LIBDIR") or "", library)]
    asked: set[str] = set()
    for path in files:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                asked |= {name.decode() for name in re.findall(rb"(?<=\0)PYTHON_?[A-Z0-9_]*(?=\0)", file.read())}
    assert "PYTHONUNBUFFERED" in asked
    asked.discard("PYTHON_CLASSMETHOD")  # not a variable
    with open(installed()[0], encoding="utf-8") as file:
        script = file.read().partition("exec ")[0]
    told = set(re.findall(r"\$\{(PYTHON\w+)\+x\}", script)) | {"PYTHONEXECUTABLE"}
    assert asked - told - HARMLESS == set()
    assert not told & HARMLESS


AGAIN = """
import sys
from sandboxed_python.cli import main
print(sys.flags.isolated, flush=True)
main.NEWER = (3, 0)
main.main(frozenset(sys.modules))
"""


@pytest.mark.parametrize(("name", "starts"), [("PYTHON_NOT_YET_THERE", "0\n1\n"), ("PYTHON_VERSION", "0\n")])
def test_a_variable_of_a_newer_python_makes_it_start_again(folder: str, name: str, starts: str) -> None:
    program = write(f"{folder}/again.py", AGAIN)
    ended = execute([plain_python(), program, "--version"], env={name: "1"})
    assert ended.code == 0, ended.said
    assert ended.stdout.startswith(f"{starts}sandboxed-python "), ended.said


@pytest.mark.parametrize("mode", ["--permission", "--permission-audit"])
@pytest.mark.parametrize("images", ["as they are", "none"])
def test_nothing_is_loaded_late_where_the_program_may_change_it(folder: str, images: str, mode: str) -> None:
    """With ``--allow-writable-runtime``, what the supervisor may need is in memory before the program starts."""
    code = """
import sys
from sandboxed_python import image
from sandboxed_python.cli import main
if sys.argv.pop(1) == "none":
    image.load = lambda part: None
def stop(plan, baseline, **_options):
    print(*[name for name in NEEDED if name not in sys.modules])
    sys.exit()
main.start = stop
NEEDED = ["sandboxed_python." + name for name in sys.argv.pop(1).split()] + ["psutil", "resource", "json", "select"]
main.main(frozenset(sys.modules))
"""
    rooms = os.path.join(os.path.dirname(sandboxed_python.__file__), "broker")
    names = [f"broker.{name[:-3]}" for name in os.listdir(rooms) if name.endswith(".py") and name != "__init__.py"]
    program = write(f"{folder}/late.py", code)
    names.append("record.log")
    if mode == "--permission":
        names.remove("broker.audit")
    words = [mode, "--permission-log=/dev/null", "-c", "pass"]
    ended = execute([plain_python(), program, images, " ".join(names), "--allow-writable-runtime", *words])
    assert (ended.code, ended.stdout) == (0, "\n"), ended.said
    twin = execute([plain_python(), program, images, " ".join(names), *words])
    assert "sandboxed_python.broker.calls_socket" in twin.stdout, twin.said


# Without openat2(2), which a service manager can take away (RestrictSUIDSGID= of systemd: its flags are in memory)

WITHOUT_OPENAT2 = """
import errno, json, os, sys
print(json.load(open(sys.argv[1] + "/granted/file")), os.stat(sys.argv[1] + "/granted/file").st_size)
for attempt in (open, os.stat):
    try: attempt(sys.argv[1] + "/secret")
    except OSError as error: print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("refusal", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_without_openat2_all_is_as_it_was(run: Run, folder: str, option: list[str], refusal: str) -> None:
    os.mkdir(f"{folder}/granted")
    for name in ("granted/file", "secret"):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            file.write("5")
    words = ["--permission", f"--allow-fs-read={folder}/granted/", *option, "-c", WITHOUT_OPENAT2, folder]
    ended = run(*words, command=[*inside("openat2", refusal), *installed()])
    assert (ended.code, ended.stdout) == (0, "5 1\nEACCES\nEACCES\n"), ended.said


@pytest.mark.parametrize("refusal", ["", "ENOSYS", "EPERM"])
def test_a_granted_path_is_opened_without_following_links(folder: str, refusal: str) -> None:
    """What a link that was put there since leads to was not granted."""
    os.makedirs(f"{folder}/real/below")
    os.symlink("real", f"{folder}/link")
    code = (
        "import errno, os, sys; from sandboxed_python.launch.confine import open_in_place\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(os.readlink(f'/proc/self/fd/{open_in_place(name)}'))\n"
        "    except OSError as error: print(errno.errorcode[error.errno])"
    )
    names = [f"{folder}{name}" for name in ("/real/below", "/real", "/link", "/link/below", "/none", "/none/below")]
    prefix = inside("openat2", refusal) if refusal else []
    ended = execute([*prefix, sys.executable, "-c", code, *names, "/"])
    assert ended.stdout.split() == [*names[:2], "ELOOP", "ELOOP", "ENOENT", "ENOENT", "/"], ended.said
