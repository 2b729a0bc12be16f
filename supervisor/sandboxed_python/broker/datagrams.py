"""Datagrams to Unix socket paths, without a datagram socket in the sandbox.

Runs in: supervisor. A Unix datagram socket can send to any path at any time, by an address in memory: no filter could
hold it. So the caller of socket(AF_UNIX, SOCK_DGRAM) gets a placeholder (``calls_socket``), on which sending fails.
connect(2) to a path that was judged puts one end of a SEQPACKET pair, which keeps messages apart, into its place, and a
thread passes on what arrives at the other end; sendto(2) with an address is made here. That is enough for syslog,
statsd, and sd_notify where it uses these calls.

Binding, and so receiving, is refused, and ``SO_TYPE`` tells the truth. sendmsg(2) and sendmmsg(2) with an address fail
(ENOTCONN) before connect; after it the kernel ignores the address, and the message goes where the socket is connected.
When the receiver has gone, what is sent is lost.
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
_END = uapi.POLLHUP | uapi.POLLRDHUP


def send(message: bytes, path: bytes) -> None:
    """Send one message to a socket path; never waits: a full receiver is EAGAIN.

    Raises:
        OSError: as sendto(2).
    """
    mine = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        mine.sendto(message, _socket.MSG_DONTWAIT, path)
    finally:
        mine.close()


class Sender:
    """The supervisor's half of one connected datagram socket.

    Attributes:
        source: the other end of the caller's pair.
    """

    __slots__ = ("_target", "source")

    def __init__(self, source: _socket.socket, path: bytes) -> None:
        """Connect to a socket path; ``start`` passes on what the caller sends.

        Raises:
            OSError: as connect(2).
        """
        self.source = source
        self._target = _connected(path)

    def connect(self, path: bytes) -> None:
        """Connect to another path.

        Raises:
            OSError: as connect(2).
        """
        target = _connected(path)
        # In one step: the thread may be about to send.
        os.dup2(target.fileno(), self._target.fileno(), inheritable=False)
        target.close()

    def start(self, context: Context) -> None:
        """Begin to pass on messages, in a thread of its own."""
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
        """Tell whether the caller and all who inherited it have closed their end, or its half for sending."""
        descriptor = self.source.fileno()
        return descriptor < 0 or bool(poll([descriptor], 0, _END)[0] & _END)

    def close(self) -> None:
        """Close both sockets.

        In a thread of its own: the caller may have sent descriptors there, and closing the last one of a file can take
        as long as it likes (a TCP socket that lingers).
        """
        _thread.start_new_thread(self.source.close, ())
        self._target.close()


def _connected(path: bytes) -> _socket.socket:
    target = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        target.connect(path)
    except BaseException:
        target.close()
        raise
    return target


def open_one(context: Context, path: bytes) -> _socket.socket:
    """Make a pair, pass on to a socket path what arrives at our end, and return the caller's.

    Raises:
        OSError: as connect(2); ``ENOBUFS``: there are too many.
    """
    known = context.datagrams
    for inode, sender in list(known.items()):
        if sender.over():
            del known[inode]
    if len(known) >= MOST:
        raise OSError(errno.ENOBUFS, "")
    theirs, ours = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        sender = Sender(ours, path)
        sender.start(context)
        known[os.fstat(theirs.fileno()).st_ino] = sender
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return theirs
