"""A first look on an interpreter that has nothing but the installed wheel: does the main job work?

    VENV/bin/python3 -I tests/smoke/smoke.py

One line per check. Exit code 0: all went well. Where the kernel can't enforce a policy at all, nothing is checked, and
it says so; with ``SANDBOX_MUST_WORK`` set that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import NamedTuple

COMMAND = os.path.join(os.path.dirname(sys.executable), "sandboxed-python")


class Check(NamedTuple):
    """One call of the command and what must come of it.

    ``code`` is the exit code; ``said`` must be part of stdout and stderr together, ``unsaid`` not of stdout; ``stdin``
    is what the program reads. ``{work}`` in words stands for a fresh folder that holds ``in.txt`` and ``program.py``.
    """

    name: str
    words: tuple[str, ...]
    code: int = 0
    said: str = ""
    unsaid: str = "\0"
    stdin: str = ""
    environment: tuple[tuple[str, str], ...] = ()


SECRET = "the secret"
READ = "print(open('{work}/in.txt').read())"
WRITE = "open('{work}/out.txt', 'w').write('x'); print('wrote')"
THREAD = "import threading; t = threading.Thread(target=print, args=('ran',)); t.start(); t.join()"
CHILD = "import subprocess; print(subprocess.run(['/bin/echo', 'ran'], capture_output=True, text=True).stdout)"
NET = "import socket; socket.create_server(('127.0.0.1', 0)).close(); print('served')"
STDLIB = (
    "import asyncio, bz2, decimal, hashlib, json, lzma, sqlite3, ssl, zlib, zoneinfo; "
    "sqlite3.connect(':memory:').execute('select 1'); ssl.create_default_context; lzma.compress(b'x'); "
    "asyncio.run(asyncio.sleep(0)); print('loaded')"
)
HAS = "import sys; has = sys.permission.has; print(has('net'), has('fs.read', '{work}/in.txt'), has('fs.read', '/x'))"
DENIED = "ERR_ACCESS_DENIED"

CHECKS = (
    Check("version", ("--version",), said="sandboxed-python"),
    Check("help", ("--help",), said="--allow-fs-read"),
    Check("plain python", ("-c", "print(6 * 7)"), said="42"),
    Check("code", ("--permission", "-c", "print(6 * 7)"), said="42"),
    Check("script", ("--permission", "{work}/program.py", "a", "b"), said="['a', 'b']"),
    Check("no entry script", ("--permission", "--no-allow-entrypoint", "{work}/program.py"), 1, "FileSystemRead"),
    Check("stdin", ("--permission", "-"), said="from stdin", stdin="print('from ' 'stdin')"),
    Check("module", ("--permission", "-m", "calendar", "2026", "2"), said="February 2026"),
    Check("exec way", ("--permission", "-O", "-c", "print(__debug__)"), said="False"),
    Check("exit code", ("--permission", "-c", "raise SystemExit(7)"), 7),
    Check("signal", ("--permission", "-c", "import os; os.kill(os.getpid(), 15)"), -15),
    Check("read", ("--permission", "--allow-fs-read={work}", "-c", READ), said=SECRET),
    Check("read denied", ("--permission", "-c", READ), 1, DENIED, SECRET),
    Check("read denied, exec way", ("--permission", "-B", "-c", READ), 1, DENIED, SECRET),
    Check("write denied", ("--permission", "--allow-fs-read={work}", "-c", WRITE), 1, "Use --allow-fs-write", "wrote"),
    Check("write", ("--permission", "--allow-fs-write={work}", "-c", WRITE), said="wrote"),
    Check("thread denied", ("--permission", "-c", THREAD), 1, "Use --allow-worker", "ran"),
    Check("thread", ("--permission", "--allow-worker", "-c", THREAD), said="ran"),
    Check("child denied", ("--permission", "-c", CHILD), 1, "Use --allow-child-process", "ran\n"),
    Check("child", ("--permission", "--allow-child-process", "-c", CHILD), said="ran\n"),
    Check("net denied", ("--permission", "-c", NET), 1, "Use --allow-net", "served"),
    Check("net", ("--permission", "--allow-net", "-c", NET), said="served"),
    Check("standard library", ("--permission", "-c", STDLIB), said="loaded"),
    Check("has()", ("--permission", "--allow-fs-read={work}", "-c", HAS), said="False True False"),
    Check(
        "options from the environment",
        ("-c", READ),
        said=SECRET,
        environment=(("SANDBOXED_PYTHON_OPTIONS", "--permission '--allow-fs-read={work}'"),),
    ),
    Check("bad option", ("--allow-env",), 9, "bad option"),
    Check("grant without --permission", ("--allow-net", "-c", "0"), 1, "--permission is required"),
)


def look(check: Check, work: str) -> str:
    """Run one check; return what is wrong, or ""."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SANDBOXED_"))}
    environment.update((name, value.replace("{work}", work)) for name, value in check.environment)
    ended = subprocess.run(
        [COMMAND, *(word.replace("{work}", work) for word in check.words)],
        input=check.stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    both = ended.stdout + ended.stderr
    if ended.returncode == check.code and check.said in both and check.unsaid not in ended.stdout:
        return ""
    wanted = f"exit code {check.code}" + (f" and {check.said!r}" if check.said else "")
    return f"wanted {wanted}; got exit code {ended.returncode} and\n{both}"


def main() -> int:
    """Run every check; return the exit code."""
    python = sys.version.split()[0]
    found = subprocess.run([COMMAND, "--check"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if found.returncode:
        print(found.stdout + found.stderr)
        print(f"smoke on Python {python}: nothing checked: this machine can't enforce a policy")
        return 1 if os.environ.get("SANDBOX_MUST_WORK") else 0
    failed = 0
    for check in CHECKS:
        with tempfile.TemporaryDirectory(prefix="sandboxed-python-smoke-") as work:
            with open(os.path.join(work, "in.txt"), "w", encoding="utf-8") as file:
                file.write(f"{SECRET}\n")
            with open(os.path.join(work, "program.py"), "w", encoding="utf-8") as file:
                file.write("import sys\nprint(sys.argv[1:])\n")
            wrong = look(check, os.path.realpath(work))
            made = os.path.exists(os.path.join(work, "out.txt"))
        if not wrong and made != (check.name == "write"):
            wrong = f"out.txt {'is' if made else 'is not'} there"
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok    '} {check.name}{': ' + wrong if wrong else ''}")
    print(f"smoke on Python {python}: {len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
