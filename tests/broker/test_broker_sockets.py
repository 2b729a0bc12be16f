"""Unix sockets through the broker: reached by path only where that is granted, and never by the kernel itself."""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.broker import request
from sandboxed_python.broker.answer import MODULES
from tests.broker.harness import PATH_CALLS, bare, grant, policy, serve, start
from tests.broker.raw import Refused, call, outcome

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

CALLS = (*MODULES["calls_socket"], *PATH_CALLS)
DENIED = Refused(errno.EACCES)
KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


def echo(path: str, kind: int) -> Callable[[], None]:
    """Serve connections in another process: send back what comes."""
    server = socket.socket(socket.AF_UNIX, kind)
    server.bind(path)
    server.listen(1)

    def answer() -> None:
        while True:
            peer, _address = server.accept()
            peer.send(peer.recv(100).upper())
            peer.close()

    child = start(answer)
    server.close()

    def stop() -> None:
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        os.close(child.pipe)

    return stop


def ask(path: str | bytes, kind: int) -> bytes:
    with socket.socket(socket.AF_UNIX, kind) as mine:
        mine.settimeout(5)
        mine.connect(path)
        mine.send(b"hello")
        return mine.recv(100)


@pytest.mark.parametrize("kind", KINDS)
def test_connect_needs_a_write_grant_of_the_path(kind: int, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    path = str(tmp_path / "socket")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("socket")
    (tmp_path / "file").write_text("")
    for granted, expected in ((grant(tmp_path), b"HELLO"), ((), DENIED), (grant(tmp_path / "other"), DENIED)):
        for spelled in (path, "socket", "./link"):
            if os.path.exists(path):
                os.unlink(path)
            stop = echo(path, kind)
            try:
                served = serve(
                    policy(grant(tmp_path), granted), partial(outcome, partial(ask, spelled, kind)), names=CALLS
                )
                assert served.value == expected, spelled
                assert not served.errors
            finally:
                stop()
    got = serve(
        policy((), grant(tmp_path)),
        lambda: [outcome(partial(ask, name, kind)) for name in ("file", "missing", "file/x")],
        names=CALLS,
    ).value
    assert got == [Refused(errno.ECONNREFUSED), Refused(errno.ENOENT), Refused(errno.ENOTDIR)]


def test_flags_of_the_descriptor_stay(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    stop = echo(path, socket.SOCK_STREAM)

    def work() -> Any:
        mine = socket.socket(socket.AF_UNIX)
        number = mine.fileno()
        mine.settimeout(0)
        mine.set_inheritable(True)
        mine.connect(path)
        mine.send(b"x")
        return mine.fileno() == number, os.get_blocking(number), os.get_inheritable(number), mine.getpeername()

    got = serve(policy((), grant(tmp_path)), work, names=CALLS).value
    stop()
    assert got == (True, False, True, path)


def test_a_busy_server(tmp_path: pathlib.Path) -> None:
    """A full backlog: EAGAIN for a socket that doesn't wait, and waiting for one that does."""
    path = str(tmp_path / "s")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(0)
    first = socket.socket(socket.AF_UNIX)
    first.connect(path)

    def work() -> Any:
        quick = socket.socket(socket.AF_UNIX)
        quick.settimeout(0)
        refused = outcome(lambda: quick.connect(path))
        patient = socket.socket(socket.AF_UNIX)
        began = time.monotonic()
        patient.connect(path)
        return refused, time.monotonic() - began

    def relieve() -> None:
        time.sleep(0.5)
        peers = server.accept(), server.accept()
        assert len(peers) == 2

    child = start(relieve)
    refused, waited = serve(policy((), grant(tmp_path)), work, names=CALLS).value
    while child.read():
        pass
    child.result()
    server.close()
    first.close()
    assert refused == Refused(errno.EAGAIN)
    assert waited > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_serving_and_connecting_inside(kind: int, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "in" / "socket")
    (tmp_path / "in").mkdir()

    def work() -> list[Any]:
        os.umask(0o77)
        with socket.socket(socket.AF_UNIX, kind) as server:
            bound = outcome(lambda: server.bind(path))
            server.listen(3)
            named = server.getsockname()
            again = outcome(lambda: socket.socket(socket.AF_UNIX, kind).bind(path))
            outside = outcome(lambda: socket.socket(socket.AF_UNIX, kind).bind(str(tmp_path / "no")))
            client = socket.socket(socket.AF_UNIX, kind)
            client.connect(path)
            peer, _address = server.accept()
            client.send(b"hi")
            return [bound, named == path, again, outside, peer.recv(9), oct(os.stat(path).st_mode)]

    got = serve(policy(grant(tmp_path / "in"), grant(tmp_path / "in")), work, names=CALLS).value
    assert got == [None, True, Refused(errno.EADDRINUSE), DENIED, b"hi", "0o140700"]
    assert os.listdir(tmp_path) == ["in"]


def test_abstract_names_inside_only() -> None:
    outside = socket.socket(socket.AF_UNIX)
    name = f"\0sandboxed-python-test-{os.getpid()}"
    outside.bind(name)
    outside.listen(1)

    def work() -> list[Any]:
        server = socket.socket(socket.AF_UNIX)
        server.bind(name + "-in")
        server.listen(1)
        automatic = socket.socket(socket.AF_UNIX)
        automatic.bind("")
        return [
            outcome(lambda: socket.socket(socket.AF_UNIX).connect(name)),
            outcome(lambda: socket.socket(socket.AF_UNIX).connect(name + "-in")),
            outcome(lambda: socket.socket(socket.AF_UNIX).connect(automatic.getsockname())),
            server.getsockname(),
        ]

    got = serve(policy(), work, names=CALLS).value
    outside.close()
    assert got == [Refused(errno.EPERM), None, None, (name + "-in").encode()]


def test_what_is_remembered_has_an_end(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    """A program can bind as often as it likes; the oldest sockets are forgotten, the newest go on working."""
    monkeypatch.setattr(request, "REMEMBERED", 4)

    def work() -> list[Any]:
        for number in range(20):
            socket.socket(socket.AF_UNIX).bind("")
            socket.socket(socket.AF_UNIX).bind(str(tmp_path / str(number)))
        server = socket.socket(socket.AF_UNIX)
        server.bind("")
        server.listen(1)
        named = socket.socket(socket.AF_UNIX)
        named.bind(str(tmp_path / "named"))
        client = socket.socket(socket.AF_UNIX)
        client.connect(server.getsockname())
        return [named.getsockname(), client.getpeername() == server.getsockname()]

    served = serve(policy((), grant(tmp_path)), work, names=CALLS)
    assert served.value == [str(tmp_path / "named"), True]
    known = served.context
    assert [len(one) for one in (known.sockets, known.abstract, known.bound)] == [4, 4, 4]


OPTIONS = {
    socket.SO_SNDBUF: 70000,
    socket.SO_RCVBUF: 90000,
    socket.SO_PASSCRED: 1,
    socket.SO_KEEPALIVE: 1,
    socket.SO_PRIORITY: 3,
    socket.SO_RCVLOWAT: 5,
}
TIMES = {socket.SO_RCVTIMEO: (1, 500_000), socket.SO_SNDTIMEO: (0, 300_000)}


def look(one: socket.socket) -> list[Any]:
    told: list[Any] = [one.getsockopt(socket.SOL_SOCKET, option) for option in OPTIONS]
    told += [struct.unpack("ll", one.getsockopt(socket.SOL_SOCKET, option, 16)) for option in TIMES]
    return [*told, struct.unpack("ii", one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))]


@pytest.mark.parametrize("kind", KINDS)
def test_options_set_before(kind: int, tmp_path: pathlib.Path) -> None:
    """As without the broker: on what is connected, on what is bound, and after a connect that failed."""

    def work() -> list[Any]:
        made = [socket.socket(socket.AF_UNIX, kind) for _ in range(3)]
        for one in made[:2]:
            for option, value in OPTIONS.items():
                one.setsockopt(socket.SOL_SOCKET, option, value)
            for option, times in TIMES.items():
                one.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", *times))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
        client, server, plain = made
        path = str(tmp_path / f"{os.getpid()}")  # short: it has 107 bytes
        failed = outcome(lambda: client.connect(path))
        server.bind(path)
        server.listen(2)
        client.connect(path)
        plain.connect(path)
        return [failed, *map(look, made)]

    twin = bare(work)
    assert twin[1] != twin[3]
    assert serve(policy((), grant(tmp_path)), work, names=CALLS).value == twin


def test_a_socket_that_is_not_connected(tmp_path: pathlib.Path) -> None:
    """All that can be done with it, or fails on it, does so as without the broker; nothing is lost."""
    paths = {}
    receivers = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        one = socket.socket(socket.AF_UNIX, kind)
        paths[kind] = str(tmp_path / f"receiver-{kind}")
        one.bind(paths[kind])
        one.settimeout(0)
        receivers.append(one)
    receivers[0].listen(5)

    def attempts(kind: int) -> list[Any]:
        one = socket.socket(socket.AF_UNIX, kind)
        return [
            outcome(one.getpeername), outcome(one.getsockname), outcome(lambda: one.send(b"x")),
            outcome(lambda: one.sendmsg([b"x"])),
        ]  # fmt: skip

    def work() -> list[Any]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return [attempts(kind) for kind in (*KINDS, socket.SOCK_DGRAM)]

    def more() -> list[Any]:
        got = []
        for kind in (*KINDS, socket.SOCK_DGRAM):
            one = socket.socket(socket.AF_UNIX, kind)
            got += [
                outcome(lambda one=one: one.accept()),  # type: ignore[misc]
                outcome(lambda one=one: one.sendmsg([b"x"], [], 0, paths[socket.SOCK_DGRAM])),  # type: ignore[misc]
                outcome(lambda one=one: one.sendmsg([b"x"], [], 0, str(tmp_path / "missing"))),  # type: ignore[misc]
            ]
        return got

    granted = policy((), grant(tmp_path))
    served = serve(granted, work, names=CALLS)
    assert served.value == bare(work)
    assert served.value[2] == [Refused(errno.ENOTCONN), "", Refused(errno.ENOTCONN), Refused(errno.ENOTCONN)]
    assert all(isinstance(one, Refused) for one in serve(granted, more, names=CALLS).value)
    for one in receivers:
        with pytest.raises(BlockingIOError):
            one.recv(9) if one.type == socket.SOCK_DGRAM else one.accept()
        one.close()


def test_nobody_connects_to_a_placeholder() -> None:
    """It has a name that others could find, and a queue: nobody gets into that."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(20)
    ours.settimeout(20)

    def outsider() -> list[Any]:
        made = [socket.socket(socket.AF_UNIX, kind) for kind in KINDS]
        got = [outcome(partial(one.connect, ours.recv(200))) for one in made]
        ours.send(b"done")
        return got

    def work() -> list[Any]:
        ones = [socket.socket(socket.AF_UNIX, kind) for kind in KINDS]
        inodes = [str(os.fstat(one.fileno()).st_ino) for one in ones]
        with open("/proc/net/unix", encoding="utf-8") as file:
            rows = {row[6]: row[7] for row in map(str.split, file) if len(row) > 7}
        for one, inode in zip(ones, inodes, strict=True):
            one.listen(5)
            one.settimeout(0)
            theirs.send(rows[inode].replace("@", "\0", 1).encode())
        theirs.recv(9)
        return [[outcome(one.accept) for one in ones], [one.getsockname() for one in ones]]

    child = start(outsider)
    accepted, named = serve(policy(), work, names=MODULES["calls_socket"]).value
    while child.read():
        pass
    assert child.result() == [Refused(errno.ECONNREFUSED)] * 2
    assert accepted == [Refused(errno.EAGAIN)] * 2
    assert named == ["", ""]
    theirs.close()
    ours.close()


def test_datagrams_after_connecting_again(tmp_path: pathlib.Path) -> None:
    """Options stay, messages go where the last connect led, and an address in sendto leads elsewhere."""
    receivers = []
    for name in ("a", "b"):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.bind(str(tmp_path / name))
        one.settimeout(5)
        receivers.append(one)

    def work() -> list[Any]:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 70000)
        number = one.fileno()
        failed = outcome(lambda: one.connect(str(tmp_path / "missing")))
        one.connect(str(tmp_path / "a"))
        one.send(b"one")
        receivers[0].recv(9)
        one.connect(str(tmp_path / "b"))
        one.send(b"two")
        one.sendto(b"three", str(tmp_path / "a"))
        return [failed, one.fileno() == number, one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)]

    assert serve(policy((), grant(tmp_path)), work, names=CALLS).value == [Refused(errno.ENOENT), True, 140000]
    assert [one.recv(9) for one in receivers] == [b"three", b"two"]
    for one in receivers:
        one.close()


def test_other_families_are_let_through() -> None:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))

    def work() -> Any:
        mine = socket.socket()
        mine.settimeout(5)
        mine.connect((b"127.0.0.1", server.getsockname()[1]))  # a str would import the codec for names
        mine.send(b"tcp")
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((b"127.0.0.1", 0))
        sender.sendto(b"udp", (b"127.0.0.1", receiver.getsockname()[1]))
        return mine.getsockname()[0]

    assert serve(policy(), work, names=CALLS).value == "127.0.0.1"
    peer, _address = server.accept()
    assert (peer.recv(9), receiver.recv(9)) == (b"tcp", b"udp")
    for one in (server, peer, receiver):
        one.close()


def test_datagrams_go_where_they_may(tmp_path: pathlib.Path) -> None:
    """syslog connects and sends, sd_notify sends to an address; nothing reaches another path."""
    granted, other = str(tmp_path / "in"), str(tmp_path / "out")
    receivers = {}
    for path in (granted, other):
        receivers[path] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receivers[path].bind(path)
        receivers[path].settimeout(5)

    def work() -> list[Any]:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        loose = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        return [
            outcome(lambda: connected.connect(other)),
            outcome(lambda: connected.connect(granted)),
            outcome(lambda: connected.send(b"one")),
            outcome(lambda: loose.sendto(b"two", other)),
            outcome(lambda: loose.sendto(b"three", granted)),
            outcome(lambda: loose.bind(str(tmp_path / "mine"))),
            outcome(lambda: loose.sendmsg([b"four"], [], 0, other)),
            outcome(lambda: connected.sendto(b"five", other)),
        ]

    served = serve(policy((), grant(granted, kind="path")), work, names=CALLS)
    assert served.errors == []
    assert served.value[:6] == [DENIED, None, 3, DENIED, 5, DENIED]
    assert sorted(receivers[granted].recv(9) for _ in range(2)) == [b"one", b"three"]
    receivers[other].settimeout(0)
    with pytest.raises(BlockingIOError):
        receivers[other].recv(9)
    for one in receivers.values():
        one.close()


def test_no_socket_in_the_sandbox_can_be_connected_by_the_kernel(tmp_path: pathlib.Path) -> None:
    """What a race could win is the kernel's own connect: it fails on every Unix socket that a task can have."""
    path = str(tmp_path / "server")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(5)
    made = [name for name in MODULES["calls_socket"] if name != "connect"]

    def work() -> list[Any]:
        import ctypes
        import struct

        libc = ctypes.CDLL(None, use_errno=True)
        raw = struct.pack("H", socket.AF_UNIX) + path.encode() + b"\0"

        def native(one: socket.socket) -> Any:  # connect(2) isn't notified here: this is what CONTINUE would do
            return Refused(ctypes.get_errno()) if libc.connect(one.fileno(), raw, len(raw)) else 0

        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(tmp_path / "bound"))
        fresh = [socket.socket(socket.AF_UNIX, kind) for kind in (*KINDS, socket.SOCK_DGRAM)]
        pair = socket.socketpair()
        return [native(one) for one in (*fresh, bound, pair[0])]

    got = serve(policy((), grant(tmp_path)), work, names=made).value
    server.settimeout(0)
    with pytest.raises(BlockingIOError):
        server.accept()
    server.close()
    assert all(
        isinstance(one, Refused) and one.number in {errno.EISCONN, errno.EINVAL, errno.EPROTOTYPE} for one in got
    )


def test_descriptors_pass_over_connections(tmp_path: pathlib.Path) -> None:
    def work() -> bytes:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "s"))
        server.listen(1)
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tmp_path / "s"))
        peer, _address = server.accept()
        reading, writing = os.pipe()
        socket.send_fds(client, [b"x"], [writing])
        _data, ancillary, _flags, _from = peer.recvmsg(9, 100)
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2])
        os.write(numbers[0], b"passed")
        return os.read(reading, 9)

    assert serve(policy((), grant(tmp_path)), work, names=CALLS).value == b"passed"


def test_malformed_addresses(tmp_path: pathlib.Path) -> None:
    """Lengths and pointers that no address has: the kernel's errno or a denial, never an exception."""

    def work() -> list[Any]:
        mine = socket.socket(socket.AF_UNIX)
        raw = b"\x01\0" + b"a" * 200
        found = [
            call(name, mine.fileno(), raw, size) for name in ("connect", "bind") for size in (0, 1, 2, 3, 110, 111, -1)
        ]
        found += [call(name, mine.fileno(), 8, 20) for name in ("connect", "bind")]
        return [*found, call("connect", 999, raw, 20), call("socket", socket.AF_UNIX, 99, 0), call("socket", 1, 1, 7)]

    served = serve(policy(), work, names=CALLS)
    assert served.errors == []
    assert all(isinstance(one, Refused) or index == 9 for index, one in enumerate(served.value)), served.value
