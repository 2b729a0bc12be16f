"""Start-up time and memory: ``sandboxed-python --permission hello.py`` beside plain ``python hello.py``.

    .venv/bin/python scripts/bench/startup.py [--runs N] [COMMAND ...]

COMMAND is an installed ``sandboxed-python`` (by default the one beside the interpreter that runs this); each is
compared with the ``python3`` beside it. The runs of one comparison are interleaved, so that a busy machine is as busy
for both; medians are compared. bubblewrap around the same python stands beside them when it is installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import psutil

HELLO = "print('hello')\n"
SLEEP = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
MIB = 1 << 20


def main() -> int:
    """Compare every command that is given; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="runs of each (100)")
    parser.add_argument(
        "command", nargs="*", default=[os.path.join(os.path.dirname(sys.executable), "sandboxed-python")]
    )
    options = parser.parse_args()
    for command in options.command:
        compare(command, options.runs)
    return 0


def compare(command: str, runs: int) -> None:
    """Measure one installed command and print a table."""
    python = os.path.join(os.path.dirname(command), "python3")
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        hello = os.path.join(folder, "hello.py")
        with open(hello, "w", encoding="utf-8") as file:
            file.write(HELLO)
        rows = {
            "python hello.py": [python, hello],
            "sandboxed-python hello.py": [command, hello],
            "sandboxed-python --permission hello.py": [command, "--permission", hello],
            "the same, exec way (-B)": [command, "--permission", "-B", hello],
        }
        bubblewrap = shutil.which("bwrap")
        if bubblewrap:
            rows["bwrap --ro-bind / / python hello.py"] = [
                *(bubblewrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc"),
                *("--dev", "/dev", python, hello),
            ]
        times = interleaved(rows, runs)
        print(f"{version}, {runs} runs each, interleaved; milliseconds")
        plain = statistics.median(times["python hello.py"])
        for name, taken in times.items():
            median = statistics.median(taken)
            tenth = statistics.quantiles(taken, n=10)[0]
            print(
                f"  {name:<40} median {median * 1e3:6.1f}   fastest tenth {tenth * 1e3:6.1f}   {median / plain:5.2f}x"
            )
        if not bubblewrap:
            print("  bubblewrap is not installed")
        supervisor, job, alone = memory(command, python, folder)
        print(f"  private memory while the job sleeps: supervisor {supervisor:.1f} MiB, job {job:.1f} MiB")
        print(f"  the same job under plain python: {alone:.1f} MiB")


def interleaved(rows: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    """Time every row ``runs`` times, in turn; return seconds. The first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANDBOXED_"))}
    for turn in range(runs + 1):
        for name, words in rows.items():
            began = time.perf_counter()
            ended = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, check=True, close_fds=False
            )
            taken = time.perf_counter() - began
            if ended.stdout != b"hello\n":
                sys.exit(f"{name}: printed {ended.stdout!r}")
            if turn:
                times[name].append(taken)
    return times


def memory(command: str, python: str, folder: str) -> tuple[float, float, float]:
    """Return MiB of private memory (USS) of the supervisor, of its job, and of the job under plain python."""
    sleeper = os.path.join(folder, "sleep.py")
    with open(sleeper, "w", encoding="utf-8") as file:
        file.write(SLEEP)
    found: list[float] = []
    for words in ([command, "--permission", sleeper], [python, sleeper]):
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            watched = psutil.Process(process.pid)
            found += [one.memory_full_info().uss / MIB for one in (watched, *watched.children())]
            process.terminate()
    supervisor, job, alone = found
    return supervisor, job, alone


if __name__ == "__main__":
    sys.exit(main())
