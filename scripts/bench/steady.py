"""Running speed: the same work under ``sandboxed-python --permission`` and under plain python, side by side.

    .venv/bin/python scripts/bench/steady.py [--rounds N] [--only WORDS] [COMMAND ...]

COMMAND is an installed ``sandboxed-python`` (by default the one beside the interpreter that runs this); each is
compared with the ``python3`` beside it. A program times its own work, so start-up doesn't count. Rounds are
interleaved, so that a busy machine is as busy for all; medians are compared. The columns:

- ``ratio``: to plain python, both on whatever processors the kernel chooses; ``goal`` is what it should not exceed.
- ``one CPU``: the same where program and supervisor, as plain python, may use one processor only. An answer that
  crosses processors costs ten times as much; so the supervisor follows the program, and the two ratios should agree.
- ``outside``: the part of the time in which the program itself did not run: it waited for the supervisor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

# Runs WORK with FOLDER, which holds "file" and "pre-file", and prints the seconds that passed and those that it ran.
TIMED = """\
import os, sys, time

folder = sys.argv[1]
path = folder + "/file"


def work():
{work}

began, ran = time.perf_counter(), time.process_time()
work()
print([time.perf_counter() - began, time.process_time() - ran])
"""
OPENS = """\
for _ in range(20_000):
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, 4096)
    os.close(descriptor)
"""
OPEN_FILES = """\
for _ in range(20_000):
    with open(path, "rb") as file:
        file.read()
"""
STATS = """\
for _ in range(200_000):
    os.stat(path)
"""
FILES = """\
for _ in range(5_000):
    with open(folder + "/pre-new", "wb") as file:
        file.write(b"x" * 100)
    os.unlink(folder + "/pre-new")
"""
IMPORTS = "import ssl, sqlite3, decimal, json, csv"
LOOP = """\
total = 0
for number in range(5_000_000):
    total += number * number % 7
"""

READ, METADATA, WRITE = "--allow-fs-read={}", "--allow-fs-metadata", "--allow-fs-write={}"


class Row(NamedTuple):
    """One comparison.

    Attributes:
        name: what is done, and under which grants.
        work: the program.
        grants: with ``{}`` for the folder.
        goal: the ratio that it should not exceed; 0 for none.
    """

    name: str
    work: str
    grants: tuple[str, ...]
    goal: float = 0


ROWS = (
    Row("the kernel decides: 20,000 os.open, read, close", OPENS, (READ, METADATA), 1.2),
    Row("the kernel decides: 20,000 open(), read, close", OPEN_FILES, (READ, METADATA)),
    Row("the kernel decides: 200,000 os.stat", STATS, (READ, METADATA), 1.05),
    Row("write names by prefix: 20,000 os.open, read, close", OPENS, (READ, "--allow-fs-write={}/pre-*"), 1.3),
    Row("read names by prefix: 20,000 os.open, read, close", OPENS, (READ, "--allow-fs-read={}/pre-*")),
    Row("the supervisor answers: 200,000 os.stat", STATS, (READ,), 14),
    Row("the supervisor answers: 20,000 open(), read, close", OPEN_FILES, (READ,)),
    Row("the supervisor answers: 5,000 create, write, unlink", FILES, (READ, "--allow-fs-write={}/pre-*")),
    Row("import ssl, sqlite3, decimal, json, csv", IMPORTS, (), 1.1),
    Row("import the same with --allow-fs-metadata", IMPORTS, (METADATA,)),
    Row("a CPU loop", LOOP, (), 1.0),
)


class Taken(NamedTuple):
    """Medians of one program's runs, in seconds: passed on the clock, and run by the program itself."""

    passed: float
    ran: float


def main() -> int:
    """Compare every command that is given; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (5)")
    parser.add_argument("--only", default="", help="only the rows whose names have these words")
    parser.add_argument(
        "command", nargs="*", default=[os.path.join(os.path.dirname(sys.executable), "sandboxed-python")]
    )
    options = parser.parse_args()
    for command in options.command:
        compare(command, options.rounds, [row for row in ROWS if options.only in row.name])
    return 0


def compare(command: str, rounds: int, rows: list[Row]) -> None:
    """Measure one installed command and print the table."""
    python = os.path.join(os.path.dirname(command), "python3")
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    processors = os.sched_getaffinity(0)
    print(f"{version}, {rounds} rounds, interleaved; medians in milliseconds; {len(processors)} processors")
    print(f"{'':<54}{'python':>8}{'ours':>9}{'ratio':>8}{'goal':>7}{'one CPU':>9}{'outside':>9}")
    with tempfile.TemporaryDirectory() as made:
        folder = os.path.realpath(made)
        for name in ("file", "pre-file"):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write("some text\n" * 100)
        for row in rows:
            free, one = set(processors), {min(processors)}
            program = TIMED.format(work="".join(f"    {line}\n" for line in row.work.splitlines()))
            ours = [command, "--permission", *(grant.format(folder) for grant in row.grants), "-c", program, folder]
            plain = [python, "-c", program, folder]
            there, here, pinned_there, pinned_here = measure(
                [(plain, free), (ours, free), (plain, one), (ours, one)], rounds
            )
            ratio = here.passed / there.passed
            goal = f"{row.goal:6.2f}x" if row.goal else ""
            outside = 1 - here.ran / here.passed
            print(
                f"{row.name:<54}{there.passed * 1e3:8.1f}{here.passed * 1e3:9.1f}{ratio:7.2f}x{goal:>7}"
                f"{pinned_here.passed / pinned_there.passed:8.2f}x{outside:9.0%}"
            )


def measure(programs: list[tuple[list[str], set[int]]], rounds: int) -> list[Taken]:
    """Run programs in turn, each on its processors; return their medians."""
    taken: list[list[list[float]]] = [[] for _ in programs]
    for _ in range(rounds):
        for (words, processors), results in zip(programs, taken, strict=True):
            results.append(once(words, processors))
    return [Taken(*(statistics.median(column) for column in zip(*results, strict=True))) for results in taken]


def once(words: list[str], processors: set[int]) -> list[float]:
    """Run a program on these processors; return what it measured."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANDBOXED_"))}
    all_processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, env=environment)
    finally:
        os.sched_setaffinity(0, all_processors)
    measured: list[float] = json.loads(ended.stdout)
    return measured


if __name__ == "__main__":
    sys.exit(main())
