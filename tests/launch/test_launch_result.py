"""``--result``: how a job ended and what it used, as JSON; complete or not there at all; out of the job's reach."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.launch.plain import inside
from tests.support import installed

if TYPE_CHECKING:
    from typing import Any

    from tests.support import Need, Run


@pytest.fixture
def file(folder: str) -> str:
    os.mkdir(f"{folder}/granted")
    return f"{folder}/result.json"


def load(file: str) -> dict[str, Any]:
    with open(file, encoding="utf-8") as text:
        said: dict[str, Any] = json.load(text)
    return said


@pytest.mark.parametrize("way", [[], ["-B"]], ids=["fork", "exec"])
@pytest.mark.parametrize(
    ("source", "end"),
    [
        ("pass", ("exited", 0, None)),
        ("raise SystemExit(7)", ("exited", 7, None)),
        ("open('/etc/shadow')", ("exited", 1, None)),
        ("import os; os.kill(os.getpid(), 9)", ("signalled", None, "SIGKILL")),
        ("import os; os.kill(os.getpid(), 15)", ("signalled", None, "SIGTERM")),
    ],
)
def test_how_it_ended(
    sandbox: Run, file: str, way: list[str], source: str, end: tuple[str, int | None, str | None]
) -> None:
    found = sandbox(f"--result={file}", *way, "-c", source)
    said = load(file)
    assert (said["ended"], said["exit_code"], said["signal"]) == end
    assert (said["limit"], said["error"]) == (None, None)
    assert found.code == (end[1] if end[2] is None else -getattr(signal, end[2]))
    assert sorted(os.listdir(os.path.dirname(file))) == ["granted", "result.json"]


def test_what_it_used(sandbox: Run, file: str) -> None:
    source = """
import subprocess, sys, time
end = time.process_time() + 0.3
while time.process_time() < end: pass
data = bytearray(50 << 20)
subprocess.run(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=20"], stderr=subprocess.DEVNULL)
time.sleep(0.3)
"""
    found = sandbox(f"--result={file}", "--allow-child-process", "-c", source)
    assert found.code == 0, found.said
    used = load(file)["used"]
    assert 0.6 <= used["wall_seconds"] <= found.seconds
    assert 0.3 <= used["cpu_seconds"] < 3
    assert abs(used["cpu_seconds"] - used["cpu_user_seconds"] - used["cpu_system_seconds"]) < 0.3
    assert 50 << 20 < used["memory_peak_bytes"] < 120 << 20
    assert used["processes_peak"] in (1, 2)
    assert 20 << 20 <= used["io"]["read_bytes"] < 25 << 20
    assert 20 << 20 <= used["io"]["written_bytes"] < 25 << 20


def test_bytes_are_the_jobs_to_the_last(sandbox: Run, file: str) -> None:
    """And none of those that looking at the accounts takes."""
    found = []
    for size in (0, 5000):
        assert sandbox(f"--result={file}", "-c", f"import os; os.read(os.open('/dev/zero', 0), {size})").code == 0
        found.append(load(file)["used"]["io"])
    assert (found[0]["read_bytes"], found[0]["written_bytes"]) == (0, 0)
    assert found[1]["read_bytes"] == 5000


def test_what_was_enforced(sandbox: Run, file: str) -> None:
    sandbox(f"--result={file}", "--limit-time=1m", "--allow-worker", "-c", "0")
    enforced = load(file)["enforced"]
    assert enforced["mode"] == "enforce"
    assert enforced["landlock_abi"] >= 6
    assert enforced["seccomp_filter"] == "worker"
    assert "stat" in enforced["notified"]
    assert (enforced["limits"], enforced["missing"]) == ({"time": 60.0}, [])


def test_denials_that_the_supervisor_saw(sandbox: Run, file: str) -> None:
    """Around the hook, which would raise before the kernel is asked: a program without it."""
    words = [f"--result={file}", "--allow-child-process", "-c"]
    denied = 'import subprocess; subprocess.run(["/bin/sh", "-c", "test -e /etc/x-; test -e /etc/y-; test -e /etc/z-"])'
    assert sandbox(*words, denied).code == 0
    before = load(file)["denials"]
    assert sandbox(*words, denied.replace("test -e /etc/y-; test -e /etc/z-", ":")).code == 0
    after = load(file)["denials"]
    assert before["by_permission"]["FileSystemRead"] == after["by_permission"]["FileSystemRead"] + 2
    assert before["total"] == sum(before["by_permission"].values())


def test_to_a_descriptor(sandbox: Run, folder: str) -> None:
    reading, writing = os.pipe()
    source = f"import os\ntry: os.write({writing}, b'x')\nexcept OSError as error: print(error.errno)"
    found = sandbox(f"--result=fd:{writing}", "-c", source, pass_fds=[writing])
    os.close(writing)
    with open(reading, encoding="utf-8") as text:
        said = json.loads(text.read())
    assert (said["ended"], found.stdout) == ("exited", "9\n")


def test_a_file_is_replaced_whole(sandbox: Run, file: str) -> None:
    with open(file, "w", encoding="utf-8") as old:
        old.write("old")
    # While the job runs, the old one is there.
    words = [*installed(), "--permission", f"--result={file}", "-c", "print('here', flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        with open(file, encoding="utf-8") as text:
            assert text.read() == "old"
        assert len(os.listdir(os.path.dirname(file))) == 2
        process.communicate(b"\n", timeout=30)
    assert load(file)["exit_code"] == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{}/granted/r.json", "the program could forge it"),
        ("{}/link/r.json", "the program could forge it"),
        ("{}/away.json", "the program could forge it"),
        ("{}/none/r.json", "No such file or directory"),
        ("{}/granted", "it is no regular file"),
        ("/dev/null", "it is no regular file"),
        ("fd:1", "a descriptor above 2 is wanted"),
        ("fd:x", "a descriptor above 2 is wanted"),
        ("fd:99", "Bad file descriptor"),
    ],
)
def test_what_is_refused_before_anything_runs(sandbox: Run, folder: str, file: str, value: str, words: str) -> None:
    os.symlink("granted", f"{folder}/link")
    os.symlink("granted/r.json", f"{folder}/away.json")
    found = sandbox(f"--result={value.format(folder)}", f"--allow-fs-write={folder}/granted/", "-c", "print('ran')")
    assert (found.code, found.stdout) == (9, "")
    assert words in found.stderr
    assert found.stderr.count("\n") == 1
    assert not os.path.exists(f"{folder}/granted/r.json")


def test_read_only_descriptors_are_refused(sandbox: Run, folder: str) -> None:
    with open("/dev/zero", "rb") as zero:
        found = sandbox(f"--result=fd:{zero.fileno()}", "-c", "print('ran')", pass_fds=[zero.fileno()])
    assert (found.code, found.stdout) == (9, "")
    assert "open for reading only" in found.stderr


def test_a_full_disk_changes_nothing_but_a_line(sandbox: Run) -> None:
    with open("/dev/full", "wb", 0) as full:
        value = f"fd:{full.fileno()}"
        found = sandbox(f"--result={value}", "-c", "raise SystemExit(5)", pass_fds=[full.fileno()])
    assert found.code == 5
    assert found.stderr == f"sandboxed-python: --result={value}: No space left on device\n"


def test_a_folder_that_goes_changes_nothing_but_a_line(sandbox: Run, file: str) -> None:
    """Nor is a file made elsewhere."""
    words = [*installed(), "--permission", f"--result={file}", "-c", "print('here', flush=True); input(); exit(5)"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        shutil.rmtree(os.path.dirname(file))
        _out, err = process.communicate(b"\n", timeout=30)
    assert process.returncode == 5
    assert err.decode() == f"sandboxed-python: --result={file}: No such file or directory\n"


def test_a_sandbox_that_fails_says_so_there(run: Run, needs: Need, file: str) -> None:
    """The child has been forked, and can't confine itself."""
    needs()
    words = ["--permission", f"--result={file}", "-c", "print('ran')"]
    found = run(*words, command=[*inside("landlock_restrict_self"), *installed()])
    assert (found.code, found.stdout) == (125, "")
    said = load(file)
    assert (said["ended"], said["exit_code"], said["signal"]) == ("sandbox", 125, None)
    assert found.stderr == f"sandboxed-python: {said['error']}\n"
    assert said["error"].startswith("Landlock")
