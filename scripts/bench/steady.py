"""Running speed: the same work under ``sandboxed-python --permission`` and under plain python, side by side.

    .venv/bin/python scripts/bench/steady.py [--rounds N] [COMMAND ...]

COMMAND is an installed ``sandboxed-python`` (by default the one beside the interpreter that runs this); each is
compared with the ``python3`` beside it. A program times its own work, so start-up doesn't count. Rounds are
interleaved; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

# Prints seconds by name. The folder of its argument holds "file".
WORK = """\
import json, os, sys, time

folder = sys.argv[1]
path = os.path.join(folder, "file")
taken = {}


def timed(name, work):
    began = time.perf_counter()
    work()
    taken[name] = time.perf_counter() - began


def open_read_close():
    for _ in range(20_000):
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)


def open_as_programs_do():
    for _ in range(20_000):
        with open(path, "rb") as file:
            file.read()


def create_write_unlink():
    name = os.path.join(folder, "new")
    for _ in range(5_000):
        with open(name, "wb") as file:
            file.write(b"x" * 100)
        os.unlink(name)


def stat():
    for _ in range(200_000):
        os.stat(path)


def compute():
    total = 0
    for number in range(5_000_000):
        total += number * number % 7


def listing():
    for _ in range(5_000):
        os.listdir(folder)


timed("20,000 os.open, read, close", open_read_close)
timed("20,000 open(), read, close", open_as_programs_do)
timed("5,000 create, write, unlink", create_write_unlink)
timed("200,000 stat", stat)
timed("5,000 listdir", listing)
timed("a CPU loop", compute)
print(json.dumps(taken))
"""


def main() -> int:
    """Compare every command that is given; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument(
        "command", nargs="*", default=[os.path.join(os.path.dirname(sys.executable), "sandboxed-python")]
    )
    options = parser.parse_args()
    for command in options.command:
        compare(command, options.rounds)
    return 0


def compare(command: str, rounds: int) -> None:
    """Measure one installed command and print a table."""
    python = os.path.join(os.path.dirname(command), "python3")
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "file"), "w", encoding="utf-8") as file:
            file.write("some text\n" * 100)
        grants = ["--permission", f"--allow-fs-read={folder}", f"--allow-fs-write={folder}"]
        plain: list[dict[str, float]] = []
        sandboxed: list[dict[str, float]] = []
        for _ in range(rounds):
            plain.append(once([python, "-c", WORK, folder]))
            sandboxed.append(once([command, *grants, "-c", WORK, folder]))
    print(f"{version}, {rounds} rounds, interleaved; milliseconds")
    for name in plain[0]:
        bare = statistics.median(one[name] for one in plain)
        ours = statistics.median(one[name] for one in sandboxed)
        print(f"  {name:<30} python {bare * 1e3:8.1f}   --permission {ours * 1e3:8.1f}   {ours / bare:5.2f}x")


def once(words: list[str]) -> dict[str, float]:
    """Run the work once; return seconds by name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANDBOXED_"))}
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, env=environment)
    taken: dict[str, float] = json.loads(ended.stdout)
    return taken


if __name__ == "__main__":
    sys.exit(main())
