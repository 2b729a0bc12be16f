"""Unix sockets by path: a service outside that would do on the program's behalf what it may not (docker.sock is root).

The attack: with ``--allow-net`` alone, connect or send to a socket's path that isn't granted for writing; by links,
descriptors of folders, /proc/self/fd; with the address swapped by a second thread; by a datagram pair without any flag.
What stops it: the supervisor connects a socket of its own to what it judged and puts it in the place of the program's.
Source: THREATS 6 (net_ustream, net_pair_*, netg_unix).
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.attack import Attacker

HEAD = (
    "import socket, struct\n"
    "def address(path): return struct.pack('=H', 1) + os.fsencode(path) + b'\\0'\n"
    "def connect(path, kind=1):\n"
    "    fd = call('socket', 1, kind, 0); where = address(path); call('connect', fd, where, len(where)); return fd\n"
)
STREAMS = {
    "by its name": "connect(SECRET + '/stream')",
    "by dot dot": "connect(WRITE + '/../secret/stream')",
    "by a link": "os.symlink(SECRET + '/stream', WRITE + '/own'); connect(WRITE + '/own')",
    "by a folder's link": "os.symlink(SECRET, WRITE + '/own'); connect(WRITE + '/own/stream')",
    "after chdir": "call('chdir', SECRET.encode()); connect('stream')",
    "by /proc/self/root": "connect('/proc/self/root' + SECRET + '/stream')",
    "by O_PATH": "connect(f'/proc/self/fd/{raw_open(SECRET + \"/stream\", os.O_PATH)}')",
    "by a folder's descriptor": "connect(f'/proc/self/fd/{raw_open(SECRET, os.O_PATH)}/stream')",
    "by a hard link": "call('linkat', -100, (SECRET + '/stream').encode(), -100, (WRITE + '/own').encode(), 0); connect(WRITE + '/own')",
    "by a rename": "call('renameat', -100, (SECRET + '/stream').encode(), -100, (WRITE + '/own').encode()); connect(WRITE + '/own')",
    "in a read grant": "connect(READ + '/stream')",
    "packets": "connect(SECRET + '/stream', 5)",
    "socket.connect": "socket.socket(socket.AF_UNIX).connect(SECRET + '/stream')",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_unix_connection(SECRET + '/stream'))",
}
DATAGRAMS = {
    "sendto": "fd = call('socket', 1, 2, 0); where = address(SECRET + '/datagram')\n"
    "call('sendto', fd, b'x', 1, 0, where, len(where))",
    "sendto in a read grant": "fd = call('socket', 1, 2, 0); where = address(READ + '/datagram')\n"
    "call('sendto', fd, b'x', 1, 0, where, len(where))",
    "connect": "os.write(connect(SECRET + '/datagram', 2), b'x')",
    "sendmsg": "fd = call('socket', 1, 2, 0); where = ctypes.create_string_buffer(address(SECRET + '/datagram'))\n"
    "data = ctypes.create_string_buffer(b'x'); vector = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(data), 1))\n"
    "message = ctypes.create_string_buffer(\n"
    "    struct.pack('7Q', ctypes.addressof(where), len(where), ctypes.addressof(vector), 1, 0, 0, 0))\n"
    "call('sendmsg', fd, message, 0)",
    "sendmmsg": "fd = call('socket', 1, 2, 0); where = ctypes.create_string_buffer(address(SECRET + '/datagram'))\n"
    "data = ctypes.create_string_buffer(b'x'); vector = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(data), 1))\n"
    "message = ctypes.create_string_buffer(\n"
    "    struct.pack('8Q', ctypes.addressof(where), len(where), ctypes.addressof(vector), 1, 0, 0, 0, 0))\n"
    "call('sendmmsg', fd, message, 1, 0)",
    "a pair's end": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 2, 0, ends); where = address(SECRET + '/datagram')\n"
    "call('sendto', ends[0], b'x', 1, 0, where, len(where))",
    "syslog": "import logging.handlers\n"
    "logging.handlers.SysLogHandler(SECRET + '/datagram').emit(logging.LogRecord('x', 30, '', 1, 'x', (), None))",
}


class Services:
    """Listeners outside of the sandbox, in ``secret`` and ``read``."""

    def __init__(self, attacker: Attacker) -> None:
        self.attacker = attacker
        self.sockets: list[socket.socket] = []

    def start(self) -> None:
        self.stop()
        for folder in ("secret", "read"):
            for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
                one = socket.socket(socket.AF_UNIX, kind)
                one.bind(self.attacker.path(folder, name))
                os.chmod(self.attacker.path(folder, name), 0o666)
                if kind == socket.SOCK_STREAM:
                    one.listen()
                self.sockets.append(one)

    def stop(self) -> None:
        for one in self.sockets:
            one.close()
        self.sockets.clear()

    def reached(self, _ended: object) -> bool:
        return bool(select.select(self.sockets, [], [], 0.05)[0])


@pytest.fixture
def services(attacker: Attacker) -> Iterator[Services]:
    found = Services(attacker)
    yield found
    found.stop()


@pytest.mark.parametrize("body", [*STREAMS.values(), *DATAGRAMS.values()], ids=[*STREAMS, *DATAGRAMS])
def test_by_path(attacker: Attacker, services: Services, body: str) -> None:
    if body == STREAMS["packets"]:  # another kind of socket than the listener's: nobody can
        confined = attacker.confined(HEAD + body, "--allow-ffi", "--allow-net")
        assert not services.reached(confined), confined.said
        return
    attacker.must_fail(
        HEAD + body,
        "--allow-ffi",
        "--allow-net",
        harm=services.reached,
        prepare=services.start,
        ends=("OSError", "AssertionError"),
    )


def test_by_another_program(attacker: Attacker, services: Services) -> None:
    attacker.must_fail(
        "import subprocess\n"
        "code = 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])'\n"
        "subprocess.run([sys.executable, '-S', '-c', code, SECRET + '/stream'], stderr=-3)",
        "--allow-child-process",
        "--allow-net",
        harm=services.reached,
        prepare=services.start,
    )


RACE = """
import threading, time
good, evil = address(HOME + '/grants/stream'), address(HOME + '/secret/stream')
text = ctypes.create_string_buffer(good, len(good))
stop = time.monotonic() + 0.6
def swap():
    for n in range(10**9):  # one value each time round: threads take turns at the end of a loop's body
        if n % 2:
            FIRST
        else:
            SECOND
        if n % 64 == 0 and time.monotonic() > stop:
            return
try:
    threading.Thread(target=swap).start()
except RuntimeError as error:
    print(error)
while time.monotonic() < stop:
    fd = call('socket', 1, 1 | 0o4000, 0)  # a full queue must not stop the race
    attempt('connect', fd, text, len(good))
    os.close(fd)
"""
SWAPS = {
    "the path": ("text.raw = evil", "text.raw = good"),
    "the family": ("text.raw = b'\\2' + evil[1:]", "text.raw = evil"),
    "the folder": (
        "os.symlink(HOME + '/grants', WRITE + '/n'); os.replace(WRITE + '/n', WRITE + '/f')",
        "os.symlink(SECRET, WRITE + '/n'); os.replace(WRITE + '/n', WRITE + '/f')",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWAPS)
def test_races(attacker: Attacker, services: Services, name: str) -> None:
    first, second = SWAPS[name]

    def prepare() -> None:
        services.start()
        os.mkdir(attacker.path("grants"))
        attacker.own(attacker.path("grants"))

    body = HEAD + RACE.replace("FIRST", first).replace("SECOND", second)
    if name == "the folder":
        body = body.replace("good, evil = address(HOME + '/grants/stream'), address(HOME + '/secret/stream')",
                            "good = evil = address(WRITE + '/f/stream')")  # fmt: skip
    attacker.must_fail(
        body,
        "--allow-ffi",
        "--allow-net",
        "--allow-worker",
        f"--allow-fs-write={attacker.path('grants')}/",
        f"--allow-fs-read={attacker.path('grants')}/",
        harm=services.reached,
        prepare=prepare,
    )


def test_the_twin(attacker: Attacker, services: Services) -> None:
    services.start()
    confined = attacker.confined(
        f"{HEAD}connect(SECRET + '/stream')",
        "--allow-ffi",
        "--allow-net",
        f"--allow-fs-write={attacker.path('secret')}/",
    )
    assert services.reached(confined), confined.said
