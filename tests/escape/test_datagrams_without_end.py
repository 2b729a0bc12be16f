"""Making the supervisor send without end.

The attack: connect a datagram socket to a path that is granted, and say that nothing more will be sent. The supervisor
passes on what the socket sends; it must not take the end for empty messages, one after the other, for as long as the
program keeps the socket: that floods the receiver, and keeps the supervisor from its work.
What stops it: the supervisor lets go of a socket whose sending half is shut down.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

CONNECT = (
    "import socket, time\n"
    "one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); one.connect(WRITE + '/datagram')\n"
    "one.send(b'first'); one.send(b''); one.send(b'last')\n"
)


def received(attacker: Attacker, body: str) -> list[bytes]:
    """Run an attack in the sandbox and return what arrived meanwhile, at most 1000 messages."""
    attacker.lay_out()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(attacker.path("write/datagram"))
        os.chmod(attacker.path("write/datagram"), 0o666)
        confined = attacker.confined(CONNECT + body, "--allow-net")
        assert "TRIED: done" in confined.stdout, confined.said
        arrived: list[bytes] = []
        with contextlib.suppress(BlockingIOError):
            while len(arrived) < 1000:
                arrived.append(receiver.recv(100, socket.MSG_DONTWAIT))
    return arrived


@pytest.mark.parametrize("way", ["SHUT_WR", "SHUT_RDWR"])
def test_a_socket_that_is_shut_down(attacker: Attacker, way: str) -> None:
    arrived = received(attacker, f"one.shutdown(socket.{way}); time.sleep(0.3)")
    assert len(arrived) <= 3, f"{len(arrived)} messages arrived, of 3 that were sent"


def test_the_twin(attacker: Attacker) -> None:
    """Three messages arrive, the empty one among them."""
    assert received(attacker, "time.sleep(0.3)") == [b"first", b"", b"last"]
