"""Processor time of a supervisor whose job does nothing, without and with something to watch.

    .venv/bin/python scripts/bench/idle.py [--seconds N] [COMMAND]

COMMAND is an installed ``sandboxed-python`` (by default the one beside the interpreter that runs this). All cases run
at the same time. The goal is less than 0.1 % of one processor; the exit code is 1 if one misses it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

GOAL = 0.1  # percent
SETTLE = 2.0  # seconds that a start takes at most
SLEEP = "import time; time.sleep(3600)"
CHILDREN = "import os, time\nfor _ in range(7): os.fork() or time.sleep(3600)\ntime.sleep(3600)"


def main() -> int:
    """Measure every case; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="how long (30)")
    parser.add_argument("command", nargs="?", default=os.path.join(os.path.dirname(sys.executable), "sandboxed-python"))
    options = parser.parse_args()
    child = "--allow-child-process"
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            "nothing": ([], SLEEP),
            "--limit-time=1h": (["--limit-time=1h"], SLEEP),
            "--limit-memory=512M": (["--limit-memory=512M"], SLEEP),
            "--limit-memory=16M, nearly full": (["--limit-memory=16M"], SLEEP),
            "--limit-cpu=60s": (["--limit-cpu=60s"], SLEEP),
            "--limit-processes=32": ([child, "--limit-processes=32"], SLEEP),
            "--limit-output=1M": (["--limit-output=1M"], SLEEP),
            "--result": ([f"--result={folder}/result"], SLEEP),
            "all of these, 8 processes": (
                [child, "--limit-memory=1G", "--limit-cpu=1h", "--limit-time=1h", "--limit-processes=32",
                 "--limit-output=1M", f"--result={folder}/all"],
                CHILDREN,
            ),
        }  # fmt: skip
        running = {
            name: subprocess.Popen([options.command, "--permission", *words, "-c", source], stdin=subprocess.DEVNULL)
            for name, (words, source) in cases.items()
        }
        time.sleep(SETTLE)
        before = {name: used(process.pid) for name, process in running.items()}
        time.sleep(options.seconds)
        worst = 0.0
        print(f"supervisors of idle jobs over {options.seconds:g} s; percent of one processor")
        for name, process in running.items():
            share = (used(process.pid) - before[name]) / options.seconds * 100
            worst = max(worst, share)
            print(f"  {name:<36} {share:6.3f}")
            process.terminate()
            process.wait()
    return int(worst >= GOAL)


def used(pid: int) -> float:
    """Return the seconds that a process has run, to the nanosecond (schedstat, Documentation/scheduler)."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


if __name__ == "__main__":
    sys.exit(main())
