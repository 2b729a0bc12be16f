"""Starts that fail: one line that names the step, the exit code of the table, and nothing has run."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.errors import LaunchError
from sandboxed_python.kernel import uapi
from tests.launch.plain import alive, eventually, inside, plain, plain_python, started
from tests.support import NOBODY, USER_COMMAND, execute, installed, reachable, refuse

if TYPE_CHECKING:
    import pathlib

    from tests.support import Finished, Need, Run

HELLO = ("-c", "print('ran')")


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def one_line(ended: Finished, code: int = 125) -> str:
    """Return the only line on stderr, without the command's name; nothing else was printed."""
    assert (ended.code, ended.stdout) == (code, ""), ended.said
    assert ended.stderr.startswith("sandboxed-python: "), ended.said
    assert ended.stderr.count("\n") == 1, ended.said
    return ended.stderr.removeprefix("sandboxed-python: ").rstrip("\n")


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("close_range", "close descriptors: "),
        ("landlock_restrict_self", "Landlock: "),
        ("landlock_add_rule", ""),
        ("capset", "capabilities"),
    ],
)
def test_a_refused_step_ends_the_child(run: Run, needs: Need, option: list[str], call: str, step: str) -> None:
    if call == "capset":
        needs(root=True)
    ended = run("--permission", *option, *HELLO, command=[*inside(call), *installed()])
    text = one_line(ended)
    assert text.startswith(step)
    assert f"{call}(" in text
    assert "Operation not permitted" in text


@pytest.mark.parametrize("option", [[], ["-B"]], ids=["fork", "exec"])
def test_every_number_of_descriptors_is_enough_or_said_to_be_too_few(option: list[str]) -> None:
    """With too few descriptors nothing runs half-confined."""
    enough = []
    for limit in range(11, 24):  # below, the shell that starts the command has too few already
        words = ["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
        if execute([*words, plain_python(), *HELLO]).stdout != "ran\n":
            continue
        ended = execute([*words, *installed(), "--permission", *option, *HELLO])
        if ended.code == 0:
            assert (ended.stdout, ended.stderr) == ("ran\n", "")
            enough.append(limit)
        else:
            assert ended.stdout == ""
            assert "Too many open files" in ended.stderr, ended.said
            assert not enough, f"{limit} are too few, {enough} were enough"
    assert enough


def test_a_grant_that_cannot_be_opened(as_user: Run, user_dir: str) -> None:
    os.makedirs(f"{user_dir}/closed/in", exist_ok=True)
    if os.geteuid() == 0:
        os.chown(f"{user_dir}/closed", 0, 0)
        os.chmod(f"{user_dir}/closed", 0o700)
    else:
        os.chmod(f"{user_dir}/closed", 0)
    try:
        ended = as_user("--permission", f"--allow-fs-read={user_dir}/closed/in", *HELLO, cwd="/")
        assert one_line(ended) == f"grant of '{user_dir}/closed/in': Permission denied"
        os.chmod(f"{user_dir}/closed", 0o711)
        assert as_user("--permission", f"--allow-fs-read={user_dir}/closed/in", *HELLO, cwd="/").stdout == "ran\n"
    finally:
        os.chmod(f"{user_dir}/closed", 0o755)


@pytest.mark.parametrize("granted", [False, True])
def test_has_where_modes_hide_the_way(as_user: Run, user_dir: str, *, granted: bool) -> None:
    """Links that modes hide can't be followed; what access(2) says then is no answer where it isn't guarded."""
    inside = f"{user_dir}/closed/in"
    os.makedirs(inside)
    execute(["touch", f"{inside}/f"])
    for path in (f"{user_dir}/closed", inside):
        os.chown(path, *[NOBODY if os.geteuid() == 0 else -1] * 2)
    code = (
        "import os, sys\n"
        "os.chmod('..', 0o600)\n"
        "print(sys.permission.has('fs.read', './'))\n"
        "try: print(os.listdir('.'))\n"
        "except PermissionError: print('denied')\n"
        "os.chmod(os.path.dirname(os.getcwd()), 0o700)\n"
    )
    flags = [f"--allow-fs-write={user_dir}/closed/", *[f"--allow-fs-read={inside}/"] * granted]
    ended = as_user("--permission", "--allow-fs-metadata", *flags, "-c", code, cwd=inside)
    assert ended.stdout.splitlines() == (["True", "['f']"] if granted else ["False", "denied"]), ended.stderr


@pytest.mark.parametrize("all_read", [False, True])
@pytest.mark.parametrize(
    ("granted", "said"),
    [
        ("out", ["True"]),
        ("other", ["False", "AccessDeniedError", "AccessDeniedError"]),
        ("closed", ["False", "PermissionError", "PermissionError"]),  # the hook may let pass what the kernel refuses
    ],
)
def test_a_relative_link_where_modes_hide_the_way(
    user_dir: str, granted: str, said: list[str], *, all_read: bool
) -> None:
    """A relative path doesn't go by the folders above the current one: neither do ``has()`` and the hook."""
    user = NOBODY if os.geteuid() == 0 else None
    command = installed(USER_COMMAND) if os.environ.get(USER_COMMAND) else installed()
    if user is not None and not reachable(user, command[0]):
        refuse(f"a command that user {user} can execute ({USER_COMMAND})", command[0])
    closed, out = f"{user_dir}/closed", f"{user_dir}/out"
    os.makedirs(f"{closed}/in")
    os.mkdir(out)
    os.symlink(out, f"{closed}/in/link")
    for path in (closed, out):
        os.chown(path, *[-1 if user is None else user] * 2)
    code = (
        "import os, sys\n"
        "print(sys.permission.has('fs.write', 'link/new'))\n"
        "folder = os.open('.', os.O_RDONLY)\n"
        "for name, at in ('link/new', None), ('link/at', folder):\n"
        "    try: os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=at))\n"
        "    except PermissionError as error: print(type(error).__name__)\n"
    )
    flags = ["--allow-fs-read=*"] if all_read else ["--allow-fs-metadata", f"--allow-fs-read={user_dir}/"]
    flags += [f"--allow-fs-write={user_dir}/{granted}/"]
    hide = ["/bin/sh", "-c", 'chmod 600 .. && exec "$@"', "sh"]
    try:
        ended = execute([*hide, *command, "--permission", *flags, "-c", code], cwd=f"{closed}/in", user=user)
    finally:
        os.chmod(closed, 0o700)
    assert ended.stdout.splitlines() == said, ended.stderr
    assert sorted(os.listdir(out)) == ["at", "new"] * (granted == "out")


def test_a_grant_of_what_is_not_there_is_fine(run: Run, folder: str) -> None:
    grants = [f"--allow-fs-read={folder}/none/at/all,/dev/null/x", f"--allow-fs-write={folder}/new"]
    assert run("--permission", *grants, *HELLO).stdout == "ran\n"


def test_a_grant_with_a_name_of_any_bytes(run: Run, folder: str) -> None:
    name = os.fsdecode(b"odd \xff\n,*name")
    os.mkdir(f"{folder}/{name}")
    with open(f"{folder}/{name}/file", "w", encoding="utf-8") as file:
        file.write("x")
    code = "import os, sys; print(open(sys.argv[1]).read())"
    path = f"{folder}/{name}/file"
    for option in ([], ["-B"]):
        granted = run("--permission", f"--allow-fs-read={folder}", *option, "-c", code, path)
        assert granted.stdout == "x\n", granted.said
        denied = run("--permission", *option, "-c", code, path)
        assert denied.code == 1


# Interpreters


def test_an_interpreter_that_is_not_there(run: Run, folder: str) -> None:
    for name in ("no-such-python", "./none", f"{folder}/none"):
        text = one_line(run("--permission", f"--python={name}", *HELLO, cwd=folder), 127)
        assert name in text
        assert "not found" in text
    text = one_line(run(f"--python={folder}/none", *HELLO), 127)
    assert text == f"{folder}/none: No such file or directory"


def test_an_interpreter_that_is_not_executable(run: Run, folder: str) -> None:
    with open(f"{folder}/python", "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n")
    text = one_line(run("--permission", f"--python={folder}/python", *HELLO), 126)
    assert "not executable" in text
    assert f"{folder}/python" in text
    assert one_line(run(f"--python={folder}/python", *HELLO), 126) == f"{folder}/python: Permission denied"


@pytest.mark.parametrize(
    "content", [b"\x7fELF and nothing else", b"", b"#!/none/at/all\n", b"#!/bin/sh\nexit 0\n", b"\0" * 5000]
)
def test_an_interpreter_that_is_none(run: Run, folder: str, content: bytes) -> None:
    with open(f"{folder}/python", "wb") as file:
        file.write(content)
    os.chmod(f"{folder}/python", 0o755)
    ended = run("--permission", f"--python={folder}/python", *HELLO)
    assert ended.code in (125, 126, 127)
    text = one_line(ended, ended.code)
    assert "--python" in text or f"{folder}/python" in text


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\x7fELF and nothing else", "Exec format error"), (b"#!/none/at/all\n", "denied|No such file")],
)
def test_a_broken_interpreter_with_a_library(run: Run, folder: str, content: bytes, why: str) -> None:
    os.makedirs(f"{folder}/bin")
    os.makedirs(f"{folder}/lib/python3.12")
    with open(f"{folder}/lib/python3.12/os.py", "wb"):
        pass
    with open(f"{folder}/bin/python3.12", "wb") as file:
        file.write(content)
    os.chmod(f"{folder}/bin/python3.12", 0o755)
    text = one_line(run("--permission", f"--python={folder}/bin/python3.12", *HELLO))
    assert re.fullmatch(f"exec {folder}/bin/python3.12: .*({why}).*", text), text


# What the table and the pieces say by themselves


def test_exits_follow_the_child() -> None:
    program = """
import os, signal, sys
from sandboxed_python.launch.exits import end_as
pid = os.fork()
if not pid:
    exec(sys.argv[1])
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15})
end_as(os.waitpid(pid, 0)[1])
"""
    for source, code in (
        ("", 0),
        ("os._exit(77)", 77),
        ("os.kill(os.getpid(), 15)", -15),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 34)", -34),
        ("import signal; signal.signal(2, 0); os.kill(os.getpid(), 2)", -2),
    ):
        words = [sys.executable, "-c", program, source]
        assert subprocess.run(words, check=False).returncode == code


def test_only_the_named_descriptors_stay_open() -> None:
    program = """
import os
from sandboxed_python.launch.confine import close_all_but
for number in range(3, 40):
    os.dup2(0, number)
close_all_but({5, 6, 1, 39, -1})
def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False
print([number for number in range(60) if is_open(number)])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("[0, 1, 2, 5, 6, 39]\n", "")


def test_a_ruleset_names_the_path_that_fails(tmp_path: pathlib.Path) -> None:
    from sandboxed_python.launch.confine import make_ruleset
    from sandboxed_python.plan.model import PathRule
    from tests.plan.world import World, plan_of

    world = World()
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        world.settle(patch, {})
        plan = plan_of(world.policy())
    (tmp_path / "file").touch()
    os.symlink("loop", tmp_path / "loop")
    everything = (1 << 13) - 1
    fine = (
        PathRule(path=str(tmp_path), rights=everything),
        PathRule(path=str(tmp_path / "file"), rights=everything),
        PathRule(path=str(tmp_path / "none"), rights=everything),
        PathRule(path=str(tmp_path / "file" / "below"), rights=everything),
        PathRule(path=str(tmp_path / "loop"), rights=everything, optional=True),
        PathRule(path=str(tmp_path), rights=0),
    )
    os.close(make_ruleset(plan.ruleset, plan.abi, fine)[0])
    before = os.listdir("/proc/self/fd")
    with pytest.raises(LaunchError, match=r"grant of '.*/loop': Too many levels of symbolic links"):
        make_ruleset(plan.ruleset, plan.abi, (PathRule(path=str(tmp_path / "loop"), rights=1),))
    del before


def test_capabilities_are_cut_in_supervisor_and_program(run: Run, needs: Need) -> None:
    needs(root=True)
    code = """
import os, time
print(os.getpid(), os.getppid(), flush=True)
time.sleep(60)
"""
    from sandboxed_python.kernel.process import KEPT_CAPABILITIES, capability_mask

    kept = capability_mask(KEPT_CAPABILITIES)
    own = int(_status(os.getpid())["CapBnd"], 16)
    for option in ([], ["-B"]):
        with started([*installed(), "--permission", *option, "-c", code]) as program:
            pid, parent = (int(word) for word in program.line().split())
            assert parent == program.pid
            # The supervisor cuts its own while the program starts.
            eventually(lambda parent=parent: int(_status(parent)["CapPrm"], 16) == own & kept)
            for each in (pid, parent):
                status = _status(each)
                for name in ("CapPrm", "CapEff", "CapBnd"):
                    assert int(status[name], 16) == own & kept, (name, each)
                assert int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0
            assert (_status(pid)["NoNewPrivs"], _status(pid)["Seccomp"]) == ("1", "2")
    assert alive(os.getpid())


def test_program_and_filters_seen_from_outside() -> None:
    code = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
    for option in ([], ["-B"]):
        with started([*installed(), "--permission", *option, "-c", code]) as program:
            pid = int(program.line())
            status = _status(pid)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            # The static filter and the notifying one; whoever runs the tests may have some of their own.
            own = int(_status(os.getpid()).get("Seccomp_filters", 0))
            assert int(status.get("Seccomp_filters", own + 2)) == own + 2
            assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
            assert os.getsid(pid) == os.getsid(program.pid)
            assert os.getpgid(pid) == os.getpgid(program.pid)
            eventually(lambda pid=program.pid: "anon_inode:seccomp notify" in _open(pid))


def _open(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/{name}"))
    return found


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _colon, value in (line.partition(":") for line in file)}


def test_plain_python_is_what_it_says() -> None:
    assert plain("-c", "import os; print(os.getpid() > 0)").stdout == "True\n"
    assert uapi.SYSCALLS["close_range"] == (436, 436)
