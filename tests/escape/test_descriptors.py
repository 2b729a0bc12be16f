"""Descriptors that the program finds open.

The attack: use what the caller left open: a file, a folder, a socket, a terminal's other end; or what the supervisor has
open; or take a descriptor out of another process.
What stops it: Landlock doesn't look at open descriptors, so everything above 2 is closed before the program runs;
pidfd_getfd isn't in the filter. Source: landlock(7), close_range(2); THREATS 5 (fd_*).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import SLEEPER, TOKEN, leaked, source, witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.attack import Attacker

EVERY = (
    "for fd in [*range(3, 100), 1023]:\n    try:\n        {use}\n    except OSError as error:\n        last = error\n"
)


@pytest.fixture
def given(attacker: Attacker) -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("at", [3, 1023])
def test_an_inherited_file(attacker: Attacker, at: int) -> None:
    """The shell is what puts it there: it stays open through every exec."""
    before = ["sh", "-c", (f"exec python3 -c 'import os, sys; os.dup2(os.open(sys.argv[1], 0), {at}); "
              f"os.set_inheritable({at}, True); os.execv(sys.argv[2], sys.argv[2:])' \"$@\""), "sh"]  # fmt: skip
    body = EVERY.format(use="print(os.pread(fd, 99, 0).decode())")
    file = attacker.path("secret/data")
    plain = attacker.run([*before, file, attacker.python, "-c", source(body, attacker.home)])
    assert leaked(plain), plain.said
    for way in ([], ["-I"]):
        command = [*attacker.command, "--permission", *attacker.grants, *way, "-c", source(body, attacker.home)]
        confined = attacker.run([*before, file, *command])
        assert not leaked(confined), confined.said
        assert "TRIED: done" in confined.stdout, confined.said


@pytest.mark.parametrize(
    ("use", "path", "flags"),
    [
        ("print(os.listdir(fd)); print(os.read(os.open('data', 0, dir_fd=fd), 99))", "secret", os.O_RDONLY),
        ("print(os.read(os.open('data', 0, dir_fd=fd), 99))", "secret", os.O_PATH),
        ("print(os.read(os.open(f'/proc/self/fd/{fd}', 0), 99))", "secret/data", os.O_PATH),
        ("os.write(fd, b'x'); print(TOKEN)", "secret/data", os.O_WRONLY | os.O_APPEND),
        ("import mmap; print(mmap.mmap(fd, 0, prot=1).read())", "secret/data", os.O_RDONLY),
        ("os.fchdir(fd); print(open('data').read())", "secret", os.O_RDONLY),
    ],
    ids=["folder", "O_PATH folder", "O_PATH file", "for writing", "mapping", "fchdir"],
)
def test_an_inherited_descriptor(attacker: Attacker, given: list[int], use: str, path: str, flags: int) -> None:
    given.append(os.open(attacker.path(path), flags))
    body = f"TOKEN = {TOKEN!r}\n" + EVERY.format(use=use)
    plain = attacker.plain(body, pass_fds=given)
    assert leaked(plain), plain.said
    confined = attacker.confined(body, pass_fds=given)
    assert not leaked(confined), confined.said
    assert "TRIED: done" in confined.stdout, confined.said


def test_an_inherited_socket(attacker: Attacker) -> None:
    """One end of a connection that was made outside."""
    for confined in (False, True):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            run = attacker.confined if confined else attacker.plain
            ended = run(EVERY.format(use="os.write(fd, b'hello')"), pass_fds=(theirs.fileno(),))
            assert "TRIED: done" in ended.stdout, ended.said
            theirs.close()
            assert ours.recv(9) == (b"" if confined else b"hello"), ended.said


@pytest.mark.parametrize("way", [(), ("-I",)], ids=["fork", "exec"])
def test_nothing_of_the_supervisor_is_open(attacker: Attacker, way: tuple[str, ...]) -> None:
    """Neither the listener, the ruleset, the handshake, signals, nor the notes for the child."""
    body = (
        "found = []\nfor fd in range(4096):\n    try:\n        os.fstat(fd)\n        found.append(fd)\n"
        "    except OSError:\n        pass\nprint('open:', found)"
    )
    confined = attacker.confined(body, *way)
    assert "open: [0, 1, 2]\n" in confined.stdout, confined.said


def test_a_descriptor_out_of_another_process(attacker: Attacker) -> None:
    code = f"import os; os.dup2(os.open({attacker.path('secret/data')!r}, 0), 9); {SLEEPER}"
    with witness(attacker, code) as other:
        attacker.must_fail(
            f"print(os.pread(call('pidfd_getfd', call('pidfd_open', {other.pid}, 0), 9, 0), 99, 0).decode())",
            "--allow-ffi",
            "--allow-inspector",
            harm=leaked,
        )


def test_a_file_given_as_input_gains_no_rights(attacker: Attacker, given: list[int]) -> None:
    """What the caller gives for reading can be read, and not be opened again for writing."""
    file = attacker.path("secret/data")
    body = "print(os.read(0, 99).decode()); os.write(raw_open('/proc/self/fd/0', os.O_WRONLY), b'!!!!')"
    before = ["sh", "-c", f'exec "$@" < {file}', "sh"]
    plain = attacker.plain(body, before=before)
    assert attacker.get("secret/data") != TOKEN, plain.said
    attacker.lay_out()
    words = [*attacker.command, "--permission", *attacker.grants, "--allow-ffi", "-c", source(body, attacker.home)]
    confined = attacker.run([*before, *words])
    assert leaked(confined), confined.said
    assert attacker.get("secret/data") == TOKEN, confined.said
