"""Datagrams to Unix socket paths, without a datagram socket in the sandbox.

Runs in: supervisor. A Unix datagram socket can send to any path at any time, by an address in memory: no filter could
hold it. So the caller of socket(AF_UNIX, SOCK_DGRAM) gets one end of a SEQPACKET pair, which keeps messages apart.
After connect(2) to a path that was judged, a thread passes on what arrives at the other end; sendto(2) with an address
is made here. Enough for syslog, sd_notify and statsd; binding, and so receiving, is refused, and ``SO_TYPE`` tells the
truth.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os

from sandboxed_python.broker.request import roam
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Context

LARGEST = 212992  # net.core.wmem_default
MOST = 64  # datagram sockets at once


class Sender:
    """The supervisor's half of one datagram socket.

    Attributes:
        source: the other end of the caller's pair.
        connected: what arrives there is being passed on.
    """

    __slots__ = ("_target", "connected", "source")

    def __init__(self, source: _socket.socket) -> None:
        self.source = source
        self.connected = False
        self._target = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)

    def send(self, message: bytes, path: bytes) -> None:
        """Send one message to a socket path; never waits: a full receiver is EAGAIN.

        Raises:
            OSError: as sendto(2).
        """
        self._target.sendto(message, _socket.MSG_DONTWAIT, path)

    def connect(self, context: Context, path: bytes) -> None:
        """Connect to a socket path, and pass on what the caller sends from now on.

        Raises:
            OSError: as connect(2).
        """
        target = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            target.connect(path)
        except BaseException:
            target.close()
            raise
        self._target, old = target, self._target
        old.close()
        if not self.connected:
            self.connected = True
            _thread.start_new_thread(self._pass_on, (context,))

    def _pass_on(self, context: Context) -> None:
        roam(context)
        try:
            while True:
                message = self.source.recv(LARGEST)
                if not message and self.over():
                    return
                try:
                    self._target.send(message)
                except OSError:
                    continue  # a datagram that is lost: the receiver is gone
        except OSError:
            return
        finally:
            self.close()

    def over(self) -> bool:
        """Tell whether the caller and all who inherited it have closed their end."""
        return self.source.fileno() < 0 or bool(poll([self.source.fileno()], 0)[0] & uapi.POLLHUP)

    def close(self) -> None:
        """Close both sockets.

        In a thread of its own: the caller may have sent descriptors there, and closing the last one of a file can take
        as long as it likes (a TCP socket that lingers).
        """
        _thread.start_new_thread(self.source.close, ())
        self._target.close()


def open_one(context: Context) -> _socket.socket:
    """Make a pair and return the caller's end.

    Raises:
        OSError: ``ENOBUFS``: there are too many.
    """
    known = context.datagrams
    for inode, sender in list(known.items()):
        if sender.over():
            del known[inode]
            if not sender.connected:
                sender.close()
    if len(known) >= MOST:
        raise OSError(errno.ENOBUFS, "")
    theirs, ours = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        known[os.fstat(theirs.fileno()).st_ino] = Sender(ours)
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return theirs
