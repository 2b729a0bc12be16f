"""Unix sockets by path: socket, connect, bind, getsockname, sendto.

Runs in: supervisor. Neither a check of the address followed by CONTINUE is sound (a thread can swap the memory and the
descriptor), nor can the supervisor take the caller's own socket (Docker's default profile forbids pidfd_getfd(2)). So
no confined task ever has a Unix socket that the kernel would connect:

- socket(AF_UNIX) is answered with a placeholder: a listening socket that was shut down before it listened. connect(2)
  and bind(2) on it are EINVAL, whoever connects to it is refused, and all else fails as on a socket that is fresh:
  ENOTCONN, or EINVAL.
- connect(2) to a path or name is made here, with a new socket, to what was resolved and judged, and the connected
  socket is put into the place of the placeholder, with the options that had been set on that.
- bind(2) is made here likewise, and the new socket listens at once: connect(2) on that is EINVAL.
- Datagram sockets, which can send anywhere at any time, are never handed out; see ``datagrams``.

What programs can notice: a descriptor that was duplicated, inherited or put into an epoll before connect or bind still
means the placeholder; what was bound can't be connected; of the newest ``HELD`` placeholders only the options are kept,
and of none the filter (SO_ATTACH_FILTER); the peer's credentials are the supervisor's; and the peer's name is one in
``/proc/self/fd``, where it was bound in the sandbox.

What remains are sockets of other families, and whatever the kernel reads when such a call is let through, it can only
reach what Landlock and the static filter leave to them. A thread that swaps descriptors meanwhile loses its own one.
"""

from __future__ import annotations

import _socket
import errno
import os

from sandboxed_python.broker import datagrams
from sandboxed_python.broker.calls_names import with_mask
from sandboxed_python.broker.judge import permits, permits_path
from sandboxed_python.broker.later import later
from sandboxed_python.broker.paths import find, find_entry
from sandboxed_python.broker.remote import inside, status_flags
from sandboxed_python.broker.request import CONTINUE, DENIED, DONE, Answer, failure, int32, remember
from sandboxed_python.kernel import files, notify, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Context, Handler, Request

_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
_NONBLOCK = os.O_NONBLOCK  # SOCK_NONBLOCK is the same bit
_STREAMS = (uapi.SOCK_STREAM, uapi.SOCK_SEQPACKET)
_BACKLOG = 128
HELD = 16  # placeholders whose options can still be asked for
# Options of SOL_SOCKET that a Unix socket has (asm-generic/socket.h, unix(7)), and the size of what isn't an int. What
# SO_SNDBUF and SO_RCVBUF return is twice what they take.
_OPTIONS = {
    2: 0,  # SO_REUSEADDR
    6: 0,  # SO_BROADCAST
    7: 0,  # SO_SNDBUF
    8: 0,  # SO_RCVBUF
    9: 0,  # SO_KEEPALIVE
    10: 0,  # SO_OOBINLINE
    12: 0,  # SO_PRIORITY
    13: 8,  # SO_LINGER: struct linger
    16: 0,  # SO_PASSCRED
    18: 0,  # SO_RCVLOWAT
    20: 16,  # SO_RCVTIMEO: struct timeval
    21: 16,  # SO_SNDTIMEO
    29: 0,  # SO_TIMESTAMP
    34: 0,  # SO_PASSSEC
    35: 0,  # SO_TIMESTAMPNS
    42: 0,  # SO_PEEK_OFF
    76: 0,  # SO_PASSPIDFD
    83: 0,  # SO_PASSRIGHTS
}
_DOUBLED = (7, 8)
_UNNAMED = uapi.AF_UNIX.to_bytes(2, "little")


def socket_inode(request: Request, descriptor: int) -> int:
    """Return the inode of one of the caller's sockets, -1 if the descriptor is none."""
    try:
        text = os.readlink(f"/proc/{request.task}/fd/{int32(descriptor)}")
    except OSError:
        return -1
    return int(text[8:-1]) if text.startswith("socket:[") else -1


def socket(request: Request) -> Answer:
    """socket(2) of AF_UNIX: a socket that is of no use before connect or bind. Only registers decide."""
    family, kind, protocol = (int32(register) for register in request.arguments[:3])
    if family != uapi.AF_UNIX:
        return CONTINUE
    flags = kind & ~uapi.SOCK_TYPE_MASK
    kind &= uapi.SOCK_TYPE_MASK
    if flags & ~(uapi.SOCK_CLOEXEC | _NONBLOCK):
        return failure(errno.EINVAL)
    if protocol not in (0, uapi.AF_UNIX):
        return failure(errno.EPROTONOSUPPORT)
    context = request.context
    if kind not in (*_STREAMS, uapi.SOCK_DGRAM):
        return failure(errno.ESOCKTNOSUPPORT)
    mine = _placeholder(uapi.SOCK_SEQPACKET if kind == uapi.SOCK_DGRAM else kind)
    try:
        inode = os.fstat(mine.fileno()).st_ino
        remember(context.sockets, inode, kind)
        _hold(context, inode, mine)
        mine.setblocking(not flags & _NONBLOCK)
        number = mine.detach()
    finally:
        mine.close()
    return Answer(Answer.DESCRIPTOR, descriptor=number, close_on_exec=bool(flags & uapi.SOCK_CLOEXEC))


def _placeholder(kind: int) -> _socket.socket:
    """Make a socket that can't be connected or bound, and that nobody can connect to."""
    mine = _socket.socket(_socket.AF_UNIX, kind)
    try:
        mine.bind("")  # only what has a name can listen: some abstract one
        mine.shutdown(_socket.SHUT_RDWR)
        mine.listen(0)
    except BaseException:
        mine.close()
        raise
    return mine


def _hold(context: Context, inode: int, mine: _socket.socket) -> None:
    """Keep a placeholder, to know its options later; not where descriptors are scarce."""
    held = context.held
    most = HELD
    try:
        held[inode] = os.dup(mine.fileno())
    except OSError:
        most = 0
    while len(held) > most:
        os.close(held.pop(next(iter(held))))


def _with_options(context: Context, inode: int, mine: _socket.socket) -> _socket.socket:
    """Set on a new socket what differs on the placeholder that it will replace, and return it."""
    held = context.held.get(inode, -1)
    if held >= 0:
        old = _socket.socket(_socket.AF_UNIX, mine.type, 0, held)
        for option, size in _OPTIONS.items():
            _copy_option(old, mine, option, size)
        old.detach()
    return mine


def _copy_option(old: _socket.socket, mine: _socket.socket, option: int, size: int) -> None:
    level = _socket.SOL_SOCKET
    try:
        if size:
            data = old.getsockopt(level, option, size)
            if data != mine.getsockopt(level, option, size):
                mine.setsockopt(level, option, data)
            return
        value = old.getsockopt(level, option)
        if value != mine.getsockopt(level, option):
            mine.setsockopt(level, option, value // 2 if option in _DOUBLED else value)
    except OSError:
        return  # this kernel, or this kind of socket, doesn't have it


def _replacing(context: Context, inode: int, mine: _socket.socket, descriptor: int, flags: int) -> Answer:
    """Put a socket into the place of the caller's, which is a placeholder no more."""
    mine.setblocking(not flags & _NONBLOCK)
    held = context.held.pop(inode, -1)
    if held >= 0:
        os.close(held)
    cloexec = bool(flags & os.O_CLOEXEC)
    return Answer(Answer.DESCRIPTOR, descriptor=mine.detach(), close_on_exec=cloexec, replace=int32(descriptor))


def read_address(request: Request, address: int, length: int) -> bytes | None:
    """Read a socket address that names a Unix socket: what follows the family; None for any other address.

    Raises:
        OSError: ``EFAULT``.
    """
    length = int32(length)
    if not 2 <= length <= uapi.SIZEOF_SOCKADDR_UN:
        return None
    raw = notify.read_memory(request.task, address, length)
    if int.from_bytes(raw[:2], "little") != uapi.AF_UNIX:
        return None
    name = raw[2:]
    return name if name[:1] == b"\0" else name.partition(b"\0")[0]


def connect(request: Request) -> Answer:
    """connect(2). Not to a Unix socket, or not with one of ours: left to the kernel; see the module."""
    descriptor, address, length = request.arguments[:3]
    name = read_address(request, address, length)
    if name is None:
        return CONTINUE
    inode = socket_inode(request, descriptor)
    kind = request.context.sockets.get(inode)
    if kind == uapi.SOCK_DGRAM or inode in request.context.datagrams:
        return _connect_datagrams(request, descriptor, inode, name)
    if kind is None:
        return CONTINUE
    if not name:
        return failure(errno.EINVAL)
    if name[:1] == b"\0":
        if name not in request.context.abstract:
            return failure(errno.EPERM)  # outside of the sandbox, as Landlock's scope answers
        return _connect(request, descriptor, inode, name, -1)
    request.resource = name
    place = find(request, _CWD, name)
    keep = False
    try:
        if not permits(request, place):
            return DENIED
        request.confirm()
        answer = _connect(request, descriptor, inode, files.by_descriptor(place.descriptor), place.descriptor)
        keep = answer.kind == Answer.NOTHING
        return answer
    finally:
        if not keep:
            place.close()


def _connect(request: Request, descriptor: int, inode: int, name: bytes, held: int) -> Answer:
    """Connect a new socket; ``held`` is a descriptor that must stay open until that is done, or -1."""
    context = request.context
    flags = status_flags(request, int32(descriptor))
    mine = _with_options(context, inode, _socket.socket(_socket.AF_UNIX, context.sockets[inode]))
    mine.settimeout(0)

    def connected() -> Answer:
        if name[:1] == b"\0" and not _served_inside(request, mine):
            mine.close()
            return failure(errno.EPERM)
        return _replacing(context, inode, mine, descriptor, flags)

    def wait() -> Answer:
        try:
            mine.settimeout(None)
            mine.connect(name)
            return connected()
        except BaseException:
            mine.close()
            raise
        finally:
            if held >= 0:
                os.close(held)

    try:
        mine.connect(name)
    except BlockingIOError:
        if flags & _NONBLOCK:
            mine.close()
            return failure(errno.EAGAIN)
        answer = DENIED
        try:
            answer = later(request, wait)
        finally:
            if answer is DENIED:
                mine.close()
        return answer
    except BaseException:
        mine.close()
        raise
    return connected()


def _served_inside(request: Request, mine: _socket.socket) -> bool:
    """Tell whether the peer that listens is of this sandbox; we are, for the sockets that were bound here."""
    credentials = mine.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    peer = int.from_bytes(credentials[:4], "little")
    return peer == os.getpid() or inside(request, peer)


def _connect_datagrams(request: Request, descriptor: int, inode: int, name: bytes) -> Answer:
    """Send what the caller sends from now on to a path: through the pair that it has, or one that it gets now."""
    if not name or name[:1] == b"\0":
        return failure(errno.EPERM if name else errno.EINVAL)
    request.resource = name
    place = find(request, _CWD, name)
    try:
        if not permits(request, place):
            return DENIED
        request.confirm()
        path = files.by_descriptor(place.descriptor)
        sender = request.context.datagrams.get(inode)
        if sender is not None:
            sender.connect(path)
            return DONE
        flags = status_flags(request, int32(descriptor))
        mine = datagrams.open_one(request.context, path)
        return _replacing(request.context, inode, _with_options(request.context, inode, mine), descriptor, flags)
    finally:
        place.close()


def bind(request: Request) -> Answer:
    """bind(2). Not to a Unix socket's name, or not with one of ours: left to the kernel; see the module."""
    descriptor, address, length = request.arguments[:3]
    name = read_address(request, address, length)
    if name is None:
        return CONTINUE
    inode = socket_inode(request, descriptor)
    kind = request.context.sockets.get(inode)
    if kind == uapi.SOCK_DGRAM or inode in request.context.datagrams:
        return DENIED  # datagrams are only sent
    if kind is None:
        return CONTINUE  # Landlock decides whether a socket file may be made
    flags = status_flags(request, int32(descriptor))
    mine = _socket.socket(_socket.AF_UNIX, kind)
    try:
        _with_options(request.context, inode, mine)
        if name[:1] in (b"", b"\0"):
            mine.bind(name)
            remember(request.context.abstract, _own_name(mine), None)
        else:
            answer = _bind_path(request, mine, name)
            if answer is not DONE:
                return answer
        mine.listen(_BACKLOG)
        return _replacing(request.context, inode, mine, descriptor, flags)
    finally:
        mine.close()


def _own_name(mine: _socket.socket) -> bytes:
    name = mine.getsockname()
    return name if isinstance(name, bytes) else b""


def _bind_path(request: Request, mine: _socket.socket, name: bytes) -> Answer:
    request.resource = name
    entry = find_entry(request, _CWD, name)
    try:
        if not permits_path(request, entry.path):
            return DENIED
        request.confirm()
        if entry.name == b"/":
            return failure(errno.EADDRINUSE)
        path = files.by_descriptor(entry.folder) + b"/" + entry.name
        try:
            with_mask(request, lambda: mine.bind(path))
        except FileExistsError:
            return failure(errno.EADDRINUSE)
        remember(request.context.bound, os.fstat(mine.fileno()).st_ino, name)
        return DONE
    finally:
        entry.close()


def getsockname(request: Request) -> Answer:
    """getsockname(2): the name that the caller gave, for what was bound here. Nothing is decided by it."""
    descriptor, address, length_at = request.arguments[:3]
    inode = socket_inode(request, descriptor)
    name = request.context.bound.get(inode)
    if name is not None:
        raw = _UNNAMED + name + b"\0"
    elif inode in request.context.sockets:
        raw = _UNNAMED  # a placeholder's name isn't the caller's doing
    else:
        return CONTINUE
    room = int32(int.from_bytes(notify.read_memory(request.task, length_at, 4), "little"))
    if room < 0:
        return failure(errno.EINVAL)
    request.write_bytes(address, raw[:room])
    request.write_bytes(length_at, len(raw).to_bytes(4, "little"))
    return DONE


def sendto(request: Request) -> Answer:
    """sendto(2) with an address: made here for datagrams to a path, else left to the kernel; see the module."""
    descriptor, data, size, _flags, address, length = request.arguments[:6]
    context = request.context
    inode = socket_inode(request, descriptor) if address else -1
    if context.sockets.get(inode) != uapi.SOCK_DGRAM and inode not in context.datagrams:
        return CONTINUE
    name = read_address(request, address, length)
    if not name or name[:1] == b"\0":
        return failure(errno.EPERM if name else errno.EINVAL)
    if size > datagrams.LARGEST:
        return failure(errno.EMSGSIZE)
    message = notify.read_memory(request.task, data, size)
    request.needs = ("write",)
    request.resource = name
    place = find(request, _CWD, name)
    try:
        if not permits(request, place):
            return DENIED
        request.confirm()
        datagrams.send(message, files.by_descriptor(place.descriptor))
        return Answer(value=size)
    finally:
        place.close()


HANDLERS: dict[str, Handler] = {
    "socket": socket, "connect": connect, "bind": bind, "getsockname": getsockname, "sendto": sendto,
}  # fmt: skip
