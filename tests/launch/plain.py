"""Side by side: a program under plain python and under ``sandboxed-python --permission``, on the same interpreter.

Runs in: tests only. Also terminals, for what only a terminal shows.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.kernel import uapi
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 40.0  # seconds; how long a terminal or a process may take on a busy machine
MINORS = range(10, 15)
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def pythons() -> list[str]:
    """Return one interpreter of each supported version that is on this machine, the running one for its own."""
    found = {sys.version_info[1]: sys.executable}
    for minor in MINORS:
        versions = sorted(pathlib.Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python3.{minor}"))
        on_path = shutil.which(f"python3.{minor}")
        for candidate in [*map(str, versions[-1:]), on_path]:
            if candidate and "/shims/" not in candidate and os.access(candidate, os.X_OK):
                found.setdefault(minor, candidate)
    return [found[minor] for minor in sorted(found)]


def other_pythons() -> list[str]:
    """Return ``pythons()`` without the running one."""
    return [python for python in pythons() if python != sys.executable]


@functools.cache
def plain_python() -> str:
    """Return the interpreter of the installed command: what it becomes without ``--permission``."""
    ended = support.runner()("-c", "import sys; print(sys.executable)")
    assert ended.code == 0, ended.said
    return ended.stdout.strip()


def plain(
    *words: support.Path,
    cwd: support.Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | bytes | None = None,
) -> support.Finished:
    """Run plain python with ``words``."""
    return support.execute([plain_python(), *words], cwd=cwd, env=env, stdin=stdin)


def confined(
    *words: support.Path,
    grants: Sequence[str] = (),
    cwd: support.Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | bytes | None = None,
) -> support.Finished:
    """Run the installed command with ``--permission``, ``grants`` and ``words``."""
    support.need()
    return support.runner()("--permission", *grants, *words, cwd=cwd, env=env, stdin=stdin)


def same(
    *words: support.Path,
    grants: Sequence[str] = (),
    cwd: support.Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | bytes | None = None,
) -> support.Finished:
    """Run ``words`` both ways, assert that nothing tells them apart, and return how plain python ended."""
    expected = plain(*words, cwd=cwd, env=env, stdin=stdin)
    found = confined(*words, grants=grants, cwd=cwd, env=env, stdin=stdin)
    expected, found = (
        ended._replace(stdout=ADDRESS.sub("0x...", ended.stdout), stderr=ADDRESS.sub("0x...", ended.stderr))
        for ended in (expected, found)
    )
    different = [
        line
        for name in ("stderr", "stdout", "code")
        for line in difflib.unified_diff(
            str(getattr(expected, name)).splitlines(),
            str(getattr(found, name)).splitlines(),
            f"{name} of plain python",
            f"{name} of sandboxed-python",
            lineterm="",
        )
    ]
    assert (found.stderr, found.stdout, found.code) == (expected.stderr, expected.stdout, expected.code), "\n".join(
        different
    )
    return expected


# Loads a filter that refuses one system call, and becomes another program.
LOCKED_OUT = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
machine = os.uname().machine
number = {numbers}[0 if machine == "x86_64" else 1]
def instruction(code, jt, jf, k):
    return code.to_bytes(2, "little") + bytes([jt, jf]) + k.to_bytes(4, "little")
program = (instruction(0x20, 0, 0, 0) + instruction(0x15, 0, 1, number)
           + instruction(0x06, 0, 0, 0x50000 | errno.{refusal}) + instruction(0x06, 0, 0, 0x7FFF0000))
buffer = ctypes.create_string_buffer(program)
fprog = (4).to_bytes(8, "little") + ctypes.addressof(buffer).to_bytes(8, "little")
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, fprog, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


# Called by libc's function, so that the package needs no number: x86-64, aarch64.
_LIBCS_OWN = {"process_vm_readv": (310, 270)}


def inside(call: str, refusal: str = "EPERM") -> list[str]:
    """Return the words that start a program where a container refuses a system call."""
    return [
        sys.executable,
        "-c",
        LOCKED_OUT.format(numbers=uapi.SYSCALLS.get(call) or _LIBCS_OWN[call], refusal=refusal),
    ]


def alive(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def eventually(condition: object, what: str = "", patience: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true; fail after ``patience`` seconds."""
    assert callable(condition)
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience} s: {what or condition}")
        time.sleep(0.01)


class Started:
    """A program that runs, with pipes; killed at the end if it hasn't ended."""

    def __init__(self, words: Sequence[support.Path], **options: object) -> None:
        """Start it in a session of its own."""
        self.process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            [os.fspath(word) for word in words],
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "env": support.clean_environment(),
                "start_new_session": True,
                "bufsize": 0,  # what a buffer holds already, select() doesn't see
                **options,
            },
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """Return the next line that it prints; "" at the end."""
        assert self.process.stdout is not None
        ready, _writable, _broken = select.select([self.process.stdout], [], [], PATIENCE)
        if not ready:
            self.kill()
            pytest.fail(f"printed nothing for {PATIENCE} s")
        return self.process.stdout.readline().decode().rstrip("\n")

    def end(self) -> support.Finished:
        """Wait for its end."""
        began = time.monotonic()
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self.process.communicate()
            pytest.fail(f"still runs after {PATIENCE} s\n--- stdout\n{out.decode()}--- stderr\n{err.decode()}")
        seconds = time.monotonic() - began
        return support.Finished(self.process.returncode, (out or b"").decode(), (err or b"").decode(), seconds)

    def kill(self) -> None:
        """Kill it and its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def started(words: Sequence[support.Path], **options: object) -> Iterator[Started]:
    """Start a program for the block; see ``Started``."""
    program = Started(words, **options)
    try:
        yield program
    finally:
        program.kill()
        program.process.communicate()


class Terminal:
    """A program on a terminal of its own: the session leader, with the terminal as 0, 1 and 2."""

    def __init__(
        self,
        words: Sequence[support.Path],
        *,
        cwd: support.Path | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        """Start it. A shell without a terminal gets the first one that it opens as its own, and becomes the program."""
        self.master, slave = os.openpty()
        self.seen = ""
        self._read_up_to = 0
        try:
            self.process = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    'exec "$@" <"$0" >"$0" 2>&1',
                    os.ttyname(slave),
                    *[os.fspath(word) for word in words],
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=support.clean_environment({"TERM": "dumb", **(env or {})}),
                start_new_session=True,
                cwd=cwd,
            )
            self.pid = self.process.pid
            # Until the program has opened the terminal this end keeps it alive.
            eventually(lambda: self.foreground() == self.pid or self.process.poll() is not None, "terminal taken")
        finally:
            os.close(slave)

    def foreground(self) -> int:
        """Return the terminal's foreground process group; 0 without one."""
        try:
            return os.tcgetpgrp(self.master)
        except OSError:
            return 0

    def type(self, keys: str) -> None:
        """Type keys, e.g. ``"\\x03"`` for Control-C."""
        os.write(self.master, keys.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until ``pattern`` shows after what was last expected."""
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.compile(pattern).search(self.seen, self._read_up_to)
            if match:
                self._read_up_to = match.end()
                return match
            if not self._more(deadline - time.monotonic()):
                pytest.fail(f"never saw {pattern!r} in {self.seen[self._read_up_to :]!r}, after {self.seen!r}")

    def _more(self, seconds: float) -> bool:
        ready, _writable, _broken = select.select([self.master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def end(self) -> int:
        """Wait for the program's end; return its exit code, or minus its signal. All it showed is in ``seen``."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                pytest.fail(f"still runs after {PATIENCE} s; it showed {self.seen!r}")
            self._more(0.02)
        while self._more(0.2):
            pass
        return self.process.returncode

    def close(self) -> None:
        """Kill it and give the terminal back."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self.master)
        self.process.wait()


@contextlib.contextmanager
def terminal(
    words: Sequence[support.Path], *, cwd: support.Path | None = None, env: Mapping[str, str | None] | None = None
) -> Iterator[Terminal]:
    """Run a program on a terminal for the block; see ``Terminal``."""
    screen = Terminal(words, cwd=cwd, env=env)
    try:
        yield screen
    finally:
        screen.close()
