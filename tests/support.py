"""What tests of every room use: running the installed command, asking the kernel, looking at a tree from outside.

Runs in: tests only. ``conftest.py`` offers most of it as fixtures.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

NOBODY = 65534
COMMAND = "SANDBOXED_PYTHON_COMMAND"
USER_COMMAND = "SANDBOXED_PYTHON_USER_COMMAND"
MUST_WORK = "SANDBOX_MUST_WORK"

Path = str | os.PathLike[str]


class Finished(NamedTuple):
    """A program that has ended.

    Attributes:
        code: exit code, or minus the number of the signal that ended it.
        stdout: what it printed.
        stderr: what it printed there.
        seconds: wall-clock time.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> str:
        """Everything at once, for the message of an assertion."""
        return f"exit code {self.code}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}"


class Run(Protocol):
    """Type of the fixtures ``run``, ``sandbox`` and ``as_user``."""

    def __call__(
        self,
        *words: Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        stdin: str | bytes | None = None,
        timeout: float = 60,
        pass_fds: Sequence[int] = (),
        command: Sequence[str] | None = None,
    ) -> Finished:
        """Run the command with ``words`` and return how it ended.

        Args:
            words: the command line after the command's name.
            cwd: where it starts; by default where the tests run.
            env: added to the environment; None as a value removes the variable.
            stdin: what it reads there; by default nothing (/dev/null), never the tests' own.
            timeout: seconds; then the whole process group is killed and the test fails.
            pass_fds: descriptors that it inherits besides 0 to 2.
            command: run this instead of the installed command.
        """


def installed(variable: str = COMMAND) -> list[str]:
    """Return the words that start the command under test.

    ``SANDBOXED_PYTHON_COMMAND`` names it; otherwise it lies beside the interpreter that runs the tests.
    """
    named = os.environ.get(variable)
    if named:
        return shlex.split(named)
    beside = os.path.join(os.path.dirname(sys.executable), "sandboxed-python")
    if not os.path.exists(beside):
        pytest.fail(f"no {beside}: install the wheel for this interpreter, as scripts/test does, or set {variable}")
    return [beside]


def clean_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the tests' environment without what would change how Python or the command start."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "SANDBOXED_PYTHON_", "PYTEST_", "COV_", "LD_"))
    }
    for name, value in (changes or {}).items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def execute(
    words: Sequence[Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | bytes | None = None,
    timeout: float = 60,
    pass_fds: Sequence[int] = (),
    user: int | None = None,
) -> Finished:
    """Run any program as ``Run`` describes, in a session of its own; as user and group ``user`` when given."""
    given = b"" if stdin is None else stdin.encode() if isinstance(stdin, str) else stdin
    options: dict[str, int | list[int]] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    began = time.monotonic()
    with subprocess.Popen(
        [os.fspath(word) for word in words],
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    ) as process:
        try:
            out, err = process.communicate(None if stdin is None else given, timeout=timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            ended = Finished(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), timeout)
            pytest.fail(f"{shlex.join([os.fspath(word) for word in words])} still ran after {timeout} s\n{ended.said}")
    return Finished(
        process.returncode,
        out.decode(errors="surrogateescape"),
        err.decode(errors="surrogateescape"),
        time.monotonic() - began,
    )


def runner(variable: str = COMMAND, *, user: int | None = None) -> Run:
    """Return a function that runs the installed command; as user and group ``user`` when given."""

    def run(
        *words: Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        stdin: str | bytes | None = None,
        timeout: float = 60,
        pass_fds: Sequence[int] = (),
        command: Sequence[str] | None = None,
    ) -> Finished:
        whole = [*(command or installed(variable)), *words]
        return execute(whole, cwd=cwd, env=env, stdin=stdin, timeout=timeout, pass_fds=pass_fds, user=user)

    return run


# What the machine can do


def refuse(needed: str, found: str) -> None:
    """Skip the test, naming what it needed and what it found; fail it when ``SANDBOX_MUST_WORK`` is set."""
    message = f"needs {needed}; found {found}"
    if os.environ.get(MUST_WORK):
        pytest.fail(f"{message} ({MUST_WORK} is set)", pytrace=False)
    pytest.skip(message)


def need(*, landlock: int = 6, seccomp: bool = True, notify: bool = True, root: bool | None = None) -> None:
    """Skip or fail the test unless this machine offers what it needs.

    Args:
        landlock: least ABI.
        seccomp: filters.
        notify: seccomp notifications.
        root: True: as root only; False: as an ordinary user only.
    """
    from sandboxed_python.kernel.probe import probe

    support = probe()
    if support.landlock < landlock:
        found = f"ABI {support.landlock} {support.landlock_error}".rstrip()
        refuse(f"Landlock ABI {landlock}", f"{found} (Linux {support.release})")
    for wanted, there, name in (
        (seccomp, support.seccomp, "seccomp filters"),
        (notify, support.notify, "seccomp notifications"),
    ):
        if wanted and not there:
            refuse(name, f"none (Linux {support.release})")
    if root is not None and root != support.root:
        # Who runs the tests is a choice, not a lack: the other half runs in the other run.
        pytest.skip(f"needs {'root' if root else 'an ordinary user'}; found user id {os.geteuid()}")


class Need(Protocol):
    """Type of the fixture ``needs``; see ``need``."""

    def __call__(
        self, *, landlock: int = 6, seccomp: bool = True, notify: bool = True, root: bool | None = None
    ) -> None:
        """Skip or fail the test unless this machine offers what it needs."""


def reachable(user: int, program: str) -> bool:
    """Tell whether ``user`` can execute ``program`` (its folders and what it links to included)."""
    try:
        return execute([program, "--version"], user=user, timeout=20).code == 0
    except (OSError, subprocess.SubprocessError):
        return False


# Looking from outside


class Entry(NamedTuple):
    """One name in a tree, as an outside observer sees it (not when it was last read)."""

    kind: str
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    changed: int
    content: str
    attributes: tuple[tuple[str, bytes], ...]


def snapshot(root: Path) -> dict[str, Entry]:
    """Return what ``root`` holds: name relative to it ("." is itself) -> kind, mode, owner, times, contents."""
    top = os.fspath(root)
    return {os.path.relpath(path, top): _entry(path) for path in _walk(top)}


def changes(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> list[str]:
    """Return what differs, one line each, e.g. ``"a/b: appeared"``, ``"a: mode 0o100644 -> 0o100600"``."""
    lines = []
    for name in sorted({*before, *after}):
        if name not in before:
            lines.append(f"{name}: appeared")
        elif name not in after:
            lines.append(f"{name}: disappeared")
        elif before[name] != after[name]:
            pairs = zip(Entry._fields, before[name], after[name], strict=True)
            different = [(field, old, new) for field, old, new in pairs if old != new]
            lines += [
                f"{name}: {field} {old:#o} -> {new:#o}" if field == "mode" else f"{name}: {field} {old!r} -> {new!r}"
                for field, old, new in different
            ]
    return lines


@contextlib.contextmanager
def unchanged(*roots: Path) -> Iterator[None]:
    """Fail unless the trees are the same afterwards."""
    before = [snapshot(root) for root in roots]
    yield
    for root, old in zip(roots, before, strict=True):
        found = changes(old, snapshot(root))
        assert not found, f"{os.fspath(root)} has changed: {found}"


def _walk(top: str) -> Iterator[str]:
    yield top
    if stat.S_ISDIR(os.lstat(top).st_mode):
        for name in sorted(os.listdir(top)):
            yield from _walk(os.path.join(top, name))


def _entry(path: str) -> Entry:
    found = os.lstat(path)
    mode = found.st_mode
    kinds: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "link"),
        (stat.S_ISFIFO, "fifo"),
        (stat.S_ISSOCK, "socket"),
    )
    kind = next((name for test, name in kinds if test(mode)), "device")
    content = ""
    if kind == "link":
        content = os.readlink(path)
    elif kind == "file":
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    try:
        names = os.listxattr(path, follow_symlinks=False)
        attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    except OSError:
        attributes = ()
    size = found.st_size if kind in ("file", "link") else 0
    links = found.st_nlink if kind == "file" else 1
    return Entry(kind, mode, found.st_uid, found.st_gid, links, size, found.st_mtime_ns, content, attributes)


def tool(name: str) -> str:
    """Return the path of a program on PATH, or skip: what is installed is the machine's choice, not a lack."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}; found none on PATH")
    return found
