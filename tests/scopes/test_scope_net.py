"""net: denied, and granted. Seen from outside: a listener that gets something or doesn't."""

from __future__ import annotations

import os
import select
import socket
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TEAR_OUT
from tests.scopes.twin import check_ran, check_refused, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.escape.attack import Attacker


class Outside:
    """A listener outside of the sandbox.

    Attributes:
        socket: it.
        address: as an argument in Python.
    """

    def __init__(self, kind: str, folder: str) -> None:
        self.kind = kind
        if kind == "tcp":
            self.socket = socket.create_server(("127.0.0.1", 0))
        elif kind == "tcp6":
            self.socket = socket.create_server(("::1", 0), family=socket.AF_INET6)
        elif kind in ("udp", "udp6"):
            family, host = (socket.AF_INET, "127.0.0.1") if kind == "udp" else (socket.AF_INET6, "::1")
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.bind((host, 0))
        else:
            form = socket.SOCK_DGRAM if kind.endswith("datagram") else socket.SOCK_STREAM
            self.socket = socket.socket(socket.AF_UNIX, form)
            name = f"\0sandboxed-python-test-{uuid.uuid4().hex}" if "abstract" in kind else f"{folder}/socket"
            self.socket.bind(name)
            if name[0] != "\0":
                os.chmod(name, 0o666)
            if form == socket.SOCK_STREAM:
                self.socket.listen()
        self.address = repr(self.socket.getsockname())

    def reached(self) -> bool:
        """Tell whether something has arrived since the last time, and take it."""
        if not select.select([self.socket], [], [], 0.05)[0]:
            return False
        if self.socket.type == socket.SOCK_DGRAM:
            self.socket.recv(99)
        else:
            self.socket.accept()[0].close()
        return True


@pytest.fixture
def outside(request: pytest.FixtureRequest, attacker: Attacker) -> Iterator[Outside]:
    try:
        one = Outside(request.param, attacker.path("write"))
    except OSError as error:
        pytest.skip(f"needs {request.param} on the loopback interface; found {error}")
    yield one
    one.socket.close()


KINDS = ["tcp", "tcp6", "udp", "udp6", "unix path", "unix path datagram"]
CODE = {
    "tcp": "import socket; socket.create_connection(ADDRESS[:2], timeout=5)",
    "tcp6": "import socket; socket.create_connection(ADDRESS[:2], timeout=5)",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ADDRESS)",
    "udp6": "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ADDRESS)",
    "unix path": "import socket; socket.socket(socket.AF_UNIX).connect(ADDRESS)",
    "unix path datagram": "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', ADDRESS)",
    "unix abstract": "import socket; socket.socket(socket.AF_UNIX).connect(ADDRESS)",
    "unix abstract datagram": "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', ADDRESS)",
}
# Raw calls: a socket, and the address in bytes.
RAW = """
import socket, struct
def packed():
    if isinstance(ADDRESS, tuple):
        if len(ADDRESS) == 2:
            return struct.pack('=H', 2) + struct.pack('!H', ADDRESS[1]) + socket.inet_aton(ADDRESS[0]) + bytes(8)
        return struct.pack('=H', 10) + struct.pack('!HI', ADDRESS[1], 0) + socket.inet_pton(10, ADDRESS[0]) + bytes(4)
    name = ADDRESS if isinstance(ADDRESS, bytes) else ADDRESS.encode()
    return struct.pack('=H', 1) + name + (b'' if name[:1] == b'\\0' else b'\\0')
address = packed()
FAMILY = struct.unpack('=H', address[:2])[0]
"""
RAW_USE = {
    "stream": "fd = call('socket', FAMILY, 1, 0); call('connect', fd, address, len(address))",
    "stream, high bits": "fd = call('socket', FAMILY | 1 << 40, 1 | 1 << 40, 1 << 40)\ncall('connect', fd, address, len(address))",
    "datagram": "fd = call('socket', FAMILY, 2, 0); call('sendto', fd, b'x', 1, 0, address, len(address))",
    "datagram by sendmsg": "fd = call('socket', FAMILY, 2, 0); place = ctypes.create_string_buffer(address, len(address))\n"
    "data = ctypes.create_string_buffer(b'x', 1); vector = struct.pack('QQ', ctypes.addressof(data), 1)\n"
    "vector = ctypes.create_string_buffer(vector, 16)\n"
    "call('sendmsg', fd, struct.pack('QQQQQQQ', ctypes.addressof(place), len(address), ctypes.addressof(vector), 1, 0, 0, 0), 0)",
    "multipath": "fd = call('socket', FAMILY, 1, 262); call('connect', fd, address, len(address))",
    "fast open": "fd = call('socket', FAMILY, 1, 0); call('sendto', fd, b'x', 1, 0x20000000, address, len(address))",
    "fast open by sendmsg": "fd = call('socket', FAMILY, 1, 0); place = ctypes.create_string_buffer(address, len(address))\n"
    "data = ctypes.create_string_buffer(b'x', 1); vector = struct.pack('QQ', ctypes.addressof(data), 1)\n"
    "vector = ctypes.create_string_buffer(vector, 16)\n"
    "call('sendmsg', fd, struct.pack('QQQQQQQ', ctypes.addressof(place), len(address), ctypes.addressof(vector), 1, 0, 0, 0),\n"
    "     0x20000000)",
    "a pair's end": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 2, 0, ends)\n"
    "call('sendto', ends[0], b'x', 1, 0, address, len(address))",
    "a pair's end, high bits": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 2 | 1 << 40, 0, ends)\n"
    "call('sendto', ends[0], b'x', 1, 0, address, len(address))",
    "a pair's end, connected": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 2, 0, ends)\n"
    "call('connect', ends[0], address, len(address)); os.write(ends[0], b'x')",
    "a packet pair's end": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 5, 0, ends)\n"
    "call('sendto', ends[0], b'x', 1, 0, address, len(address))",
    "a raw pair's end": "ends = (ctypes.c_int * 2)(); call('socketpair', 1, 3, 0, ends)\n"
    "call('sendto', ends[0], b'x', 1, 0, address, len(address))",
}
ROWS = [
    *((kind, "stream") for kind in ("tcp", "tcp6", "unix path", "unix abstract")),
    *((kind, "datagram") for kind in ("udp", "udp6", "unix path datagram", "unix abstract datagram")),
    ("tcp", "stream, high bits"),
    ("udp", "datagram by sendmsg"),
    ("unix path datagram", "datagram by sendmsg"),
    ("tcp", "multipath"),
    ("tcp6", "multipath"),
    ("tcp", "fast open"),
    ("tcp", "fast open by sendmsg"),
    *(("unix path datagram", use) for use in RAW_USE if "pair" in use and "packet" not in use),
    ("unix abstract datagram", "a pair's end"),
]


@pytest.mark.parametrize("outside", KINDS, indirect=True)
def test_with_the_hook(attacker: Attacker, outside: Outside) -> None:
    code = f"ADDRESS = {outside.address}\n{CODE[outside.kind]}"
    grants = (f"--allow-fs-read={attacker.path('write')}/", f"--allow-fs-write={attacker.path('write')}/")
    denied = program(attacker, code, *grants)
    check_refused(denied, "Net")
    assert not outside.reached(), denied.said
    granted = program(attacker, code, *grants, "--allow-net")
    check_ran(granted)
    assert outside.reached(), granted.said


@pytest.mark.parametrize("outside", ["unix abstract", "unix abstract datagram"], indirect=True)
def test_an_abstract_socket_outside(attacker: Attacker, outside: Outside) -> None:
    """Denied without the flag. With it, names outside of the sandbox stay out of reach: Landlock's scope (ABI 6)."""
    code = f"ADDRESS = {outside.address}\n{CODE[outside.kind]}"
    denied = program(attacker, code)
    check_refused(denied, "Net")
    assert not outside.reached(), denied.said
    denied = program(attacker, code, "--allow-net")
    assert denied.code == 1, denied.said
    assert not outside.reached(), denied.said


def test_an_abstract_socket_inside(attacker: Attacker) -> None:
    code = (
        "import socket; name = '\\0sandboxed-python-test-' + str(os.getpid())\n"
        "one = socket.socket(socket.AF_UNIX); one.bind(name); one.listen(); two = socket.socket(socket.AF_UNIX)\n"
        "two.connect(name); one.accept()[0].send(b'hello'); print(two.recv(9))"
    )
    check_refused(program(attacker, code), "Net")
    granted = program(attacker, code, "--allow-net")
    check_ran(granted)
    assert "hello" in granted.stdout, granted.said


SERVERS = {
    "tcp": "import socket; one = socket.create_server(('127.0.0.1', 0)); print(one.getsockname()[1], flush=True); one.accept()",
    "udp": "import socket; one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind(('127.0.0.1', 0)); print('bound')",
    "unix path": "import socket; one = socket.socket(socket.AF_UNIX); one.bind(WRITE + '/new'); one.listen(); print('bound')",
    "resolver": "import socket; print(socket.getaddrinfo('localhost', 80)[0][4][1] == 80 and 'bound')",
    "names of interfaces": "import socket; print(socket.if_nameindex() and 'bound')",
}


@pytest.mark.parametrize("name", ["udp", "unix path", "resolver", "names of interfaces"])
def test_serving(attacker: Attacker, name: str) -> None:
    grants = (f"--allow-fs-read={attacker.path('write')}/", f"--allow-fs-write={attacker.path('write')}/")
    denied = program(attacker, SERVERS[name], *grants)
    assert denied.code == 1, denied.said
    assert "bound" not in denied.stdout, denied.said
    if name != "names of interfaces":  # no event tells of that one
        check_refused(denied, "Net")
    granted = program(attacker, SERVERS[name], *grants, "--allow-net")
    check_ran(granted)
    assert "bound" in granted.stdout, granted.said


@pytest.mark.parametrize(("outside", "use"), ROWS, indirect=["outside"])
def test_without_the_hook(attacker: Attacker, outside: Outside, use: str) -> None:
    attack = f"ADDRESS = {outside.address}\n{RAW}\n{RAW_USE[use]}"
    if use == "multipath":
        probe = attacker.plain(attack)
        if not outside.reached():
            pytest.skip(f"needs multipath TCP; found none: {probe.stdout}")
    # The socket's file is part of the scene: it can't be laid out afresh.
    plain = attacker.plain(attack)
    assert outside.reached(), f"the attack does no harm even without the sandbox: {plain.said}"
    others = ("--allow-child-process", "--allow-worker", "--allow-inspector", "--allow-fs-read=*")
    confined = attacker.confined(attack, "--allow-ffi", *others)
    assert not outside.reached(), f"the attack succeeds in the sandbox: {confined.said}"
    assert "TRIED: done" in confined.stdout or "OSError" in confined.stdout, confined.said
    granted = attacker.confined(attack, "--allow-ffi", "--allow-net")
    # Never, whatever is granted: what passes Landlock's TCP rules, datagram pairs, abstract names outside.
    never = use in ("multipath", "fast open", "fast open by sendmsg", "stream, high bits") or "pair" in use
    never = never or "abstract" in outside.kind or (use, outside.kind) == ("datagram by sendmsg", "unix path datagram")
    if use == "stream, high bits":
        outside.reached()  # refused or not: the kernel ignores the bits
    else:
        assert outside.reached() is not never, granted.said


FAMILIES = {
    # name: (family, type, protocol, what --allow-net makes of it)
    "netlink route": (16, 3, 0, True),
    "netlink audit": (16, 3, 9, False),
    "netlink generic": (16, 3, 16, False),
    "netlink kobject": (16, 3, 15, False),
    "netlink netfilter": (16, 3, 12, False),
    "vsock": (40, 1, 0, False),
    "packet": (17, 3, 0x0300, False),
    "raw": (2, 3, 1, False),
    "raw 6": (10, 3, 58, False),
    "ping": (2, 2, 1, False),
    "sctp": (2, 1, 132, False),
    "udplite": (2, 2, 136, False),
    "multipath": (2, 1, 262, False),
    "kernel crypto": (38, 5, 0, False),
    "bluetooth": (31, 3, 1, False),
    "xdp": (44, 3, 0, False),
    "can": (29, 3, 1, False),
    "tipc": (30, 1, 0, False),
    "rds": (21, 5, 0, False),
    "smc": (43, 1, 0, False),
    "qipcrtr": (42, 2, 0, False),
    "pppox": (24, 1, 0, False),
    "tcp": (2, 1, 0, True),
    "udp 6": (10, 2, 17, True),
    "unix": (1, 1, 0, True),
    "unix raw": (1, 3, 0, False),
}


def test_families(attacker: Attacker) -> None:
    """Which sockets can be made at all: without the flag none, with it a short list."""
    body = (
        "answers = {}\n"
        f"for name, (family, kind, protocol, _) in {FAMILIES!r}.items():\n"
        "    answers[name] = attempt('socket', family, kind, protocol)\n"
        "print(answers)"
    )
    denied = attacker.confined(body, "--allow-ffi")
    answers: dict[str, str] = eval(denied.stdout.splitlines()[0])
    assert set(answers.values()) == {"EPERM"}, denied.said
    granted = attacker.confined(body, "--allow-ffi", "--allow-net")
    answers = eval(granted.stdout.splitlines()[0])
    # Refused by the filter or unknown to this kernel; never made.
    wrong = {name: answer for name, answer in answers.items() if (answer == "did") is not FAMILIES[name][3]}
    wrong = {name: answer for name, answer in wrong.items() if answer == "did" or FAMILIES[name][3]}
    assert not wrong, granted.said


def test_without_the_sandbox_there_are_more(attacker: Attacker) -> None:
    body = (
        f"print([name for name, (family, kind, protocol, _) in {FAMILIES!r}.items()\n"
        "       if attempt('socket', family, kind, protocol) == 'did'])"
    )
    plain = attacker.plain(body)
    made = set(eval(plain.stdout.splitlines()[0]))
    assert {"netlink route", "netlink generic", "tcp", "udp 6", "unix", "unix raw"} <= made, plain.said


def test_torn_out(attacker: Attacker) -> None:
    outside = Outside("tcp", "")
    attack = f"import socket\n{TEAR_OUT}\nsocket.create_connection({outside.address}, timeout=5)"
    try:
        plain = attacker.plain(attack)
        assert outside.reached(), plain.said
        confined = attacker.confined(attack)
        assert not outside.reached(), confined.said
    finally:
        outside.socket.close()


def test_by_another_program(attacker: Attacker) -> None:
    outside = Outside("tcp", "")
    code = f"import socket; socket.create_connection({outside.address}, timeout=5)"
    attack = f"import subprocess\nsubprocess.run([sys.executable, '-S', '-c', {code!r}], stderr=-3)"
    try:
        plain = attacker.plain(attack)
        assert outside.reached(), plain.said
        confined = attacker.confined(attack, "--allow-child-process")
        assert not outside.reached(), confined.said
        granted = attacker.confined(attack, "--allow-child-process", "--allow-net")
        assert outside.reached(), granted.said
    finally:
        outside.socket.close()


def test_a_pair_works(attacker: Attacker) -> None:
    """A channel inside the sandbox needs no flag."""
    code = "import socket; one, two = socket.socketpair(); one.sendall(b'hello'); print(two.recv(9))"
    granted = program(attacker, code)
    check_ran(granted)
    assert "hello" in granted.stdout, granted.said
