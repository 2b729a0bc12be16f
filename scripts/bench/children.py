"""What the hook costs a Python that is started from the sandbox: ``python -c pass`` beside ``python -E -c pass``.

    .venv/bin/python scripts/bench/children.py [COMMAND]

``-E`` doesn't look at the environment, by which the hook comes. COMMAND is as for ``startup.py``. Runs are interleaved;
medians and minima are shown, in milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import statistics, subprocess, sys, time
rows = {"with the hook": ["-c", "pass"], "without": ["-E", "-c", "pass"]}
times = {name: [] for name in rows}
for _ in range(200):
    for name, words in rows.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], env={}, check=True)
        times[name].append(1000 * (time.perf_counter() - began))
for name, found in times.items():
    print(f"{name:14}{statistics.median(found):8.1f}{min(found):8.1f}")
"""


def main() -> int:
    """Measure; return the exit code."""
    beside = os.path.join(os.path.dirname(sys.executable), "sandboxed-python")
    command = sys.argv[1] if len(sys.argv) > 1 else beside
    return subprocess.run([command, "--permission", "--allow-child-process", "-c", PROGRAM], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
