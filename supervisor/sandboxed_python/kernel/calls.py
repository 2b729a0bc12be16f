"""The one door to the kernel: system calls and libc functions by ctypes.

Runs in: both. ``_ctypes`` is used without the ``ctypes`` package on top of it, which costs ten times as much to import.
Every call checks its result: a failure is a ``KernelError`` that names the call and its arguments.
"""

from __future__ import annotations

import errno
import os
import sys

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _ctypes
    from collections.abc import Callable, Sequence
    from types import CodeType
    from typing import Any

else:
    import _frozen_importlib as _importer
    import _frozen_importlib_external as _files
    import _imp

    # The import system would list three folders to find it.
    for _folder in sys.path:
        _path = f"{_folder}/_ctypes{_imp.extension_suffixes()[0]}"
        if "_ctypes" not in sys.modules and _folder.endswith("/lib-dynload") and os.path.isfile(_path):
            _loader = _files.ExtensionFileLoader("_ctypes", _path)
            _importer._load(_importer.ModuleSpec("_ctypes", _loader, origin=_path))  # noqa: SLF001
    import _ctypes


class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001 - ctypes itself subclasses it so
    """C ``long``: what ``syscall(2)`` takes and returns."""

    _type_ = "l"


class Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """C ``void *``: takes an address, ``None``, ``bytes`` or a ctypes array."""

    _type_ = "P"


class Char(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """C ``char``, for arrays."""

    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    """A C function that returns ``long`` and sets ``errno``."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Long


_LIBC = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # None: this process
_MACHINE = os.uname().machine
_COLUMN = 0 if _MACHINE == "x86_64" else 1


def function(name: str, *argument_types: Any) -> Any:
    """Return the libc function ``name``; it takes ``argument_types`` and returns a C ``long``."""
    found: Any = _Function(_ctypes.dlsym(_LIBC, name))
    found.argtypes = argument_types
    return found


def address_of(name: str) -> int:
    """Return where the C function or variable ``name`` of this process starts, 0 if there is none."""
    try:
        address: int = _ctypes.dlsym(_LIBC, name)
    except OSError:
        return 0
    return address


def quick_function(name: str) -> Any:
    """Return the libc function ``name``, called in half the time of ``function``'s since it declares no argument types.

    ctypes then cuts an int to 32 bits without a word. So never give it an address as a number: pointers are ``bytes``,
    ctypes arrays, or None.
    """
    return _Function(_ctypes.dlsym(_LIBC, name))


class Object(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    """C ``PyObject *``."""

    _type_ = "O"


class _PythonFunction(_ctypes.CFuncPtr):
    """A function of the interpreter's that returns a new reference, or raises."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = Object


def script_compiler() -> Callable[[bytes, str], CodeType]:
    """Return a function that compiles a script's bytes, for a file name, as ``python`` itself does.

    ``compile()`` does the same, but makes the more than hundred types of the ``ast`` module first: as much work as
    starting a tenth of an interpreter. The source must not hold a NUL (Py_CompileStringObject takes a C string).
    """
    try:
        found: Any = _PythonFunction(_ctypes.dlsym(_LIBC, "Py_CompileStringObject"))
    except OSError:  # an interpreter that doesn't export it
        return lambda source, name: compile(source, name, "exec", dont_inherit=True)
    found.argtypes = (Pointer, Object, Long, Pointer, Long)
    return lambda source, name: found(source, name, _FILE_INPUT, None, -1)


def reading_opener() -> Callable[[bytes], int]:
    """Return a function that opens a path (without a NUL) for reading, without an audit event and without waiting.

    It returns a close-on-exec descriptor, or one of over 31 bits: open(2) failed (to ask why is an audit event).
    """
    opened = function("open", Pointer, Long, Long)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return lambda path: opened(path, flags, 0) & 0xFFFFFFFF


# Py_file_input of Include/compile.h.
_FILE_INPUT = 257


def addressof(array: Any) -> int:
    """Return the address of a ctypes array."""
    address: int = _ctypes.addressof(array)
    return address


class Block:
    """Bytes that the kernel reads or writes: they stay where they are as long as this is alive.

    A ctypes array has a type for each length, which takes as long to make as ten system calls.

    Attributes:
        data: the bytes.
        address: where they are.
        pointer: to them, for a function that takes a ``Pointer``.
    """

    __slots__ = ("address", "data", "pointer")

    def __init__(self, content: bytes | int) -> None:
        """Hold a copy of ``content``, or so many zero bytes."""
        self.data = bytearray(content)
        # As long as this is alive, the bytearray can't grow or shrink, and so move.
        first = Char.from_buffer(self.data or bytearray(1))
        self.address = _ctypes.addressof(first)
        self.pointer: Any = _ctypes.byref(first)


_memmove = function("memmove", Pointer, Pointer, Long)


def bytes_at(address: int, size: int) -> bytes:
    """Read this process's memory."""
    block = Block(size)
    _memmove(block.pointer, address, size)
    return bytes(block.data)


def overwrite(address: int, data: bytes) -> None:
    """Write into this process's memory."""
    _memmove(address, data, len(data))


def get_errno() -> int:
    """Return ``errno`` as the last call through this door left it (thread-local)."""
    return _ctypes.get_errno()


_syscall = function("syscall", Long, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer)


def syscall(name: str, *arguments: Any) -> int:
    """Make the system call ``name`` (a key of ``uapi.SYSCALLS``); up to six ints, ``bytes``, arrays or ``None``.

    Returns:
        The kernel's result, 0 or more.

    Raises:
        KernelError: the call failed; it has ``errno`` and names the call and its arguments.
    """
    padded = (*arguments, 0, 0, 0, 0, 0, 0)
    result: int = _syscall(uapi.SYSCALLS[name][_COLUMN], *padded[:6])
    if result == -1:
        raise KernelError(get_errno(), name, ", ".join(_shown(argument) for argument in arguments))
    return result


def _shown(argument: object) -> str:
    if isinstance(argument, int):
        return str(argument) if -4096 < argument < 4096 else hex(argument)
    if isinstance(argument, bytes):
        return repr(argument) if len(argument) <= 48 else f"<{len(argument)} bytes>"
    return "NULL" if argument is None else f"<{type(argument).__name__}>"


def _libc_int(name: str, result: int, *arguments: object) -> int:
    """Check the ``int`` result of a libc function (it comes back in a ``long`` register)."""
    result &= 0xFFFFFFFF
    if result == 0xFFFFFFFF:
        raise KernelError(get_errno(), name, ", ".join(_shown(argument) for argument in arguments))
    return result


_prctl = function("prctl", Long, Long, Long, Long, Long)


def prctl(option: int, argument2: int = 0, argument3: int = 0, argument4: int = 0, argument5: int = 0) -> int:
    """Call prctl(2).

    Raises:
        KernelError: the kernel refused; errno ``EINVAL`` is an option that it doesn't know.
    """
    result = _prctl(option, argument2, argument3, argument4, argument5)
    return _libc_int("prctl", result, option, argument2, argument3, argument4, argument5)


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``, both included (close_range(2), Linux 5.9)."""
    if first <= last:
        syscall("close_range", first, last, 0)


_poll = function("poll", Pointer, Long, Long)


class Poller:
    """poll(2) on the same few descriptors again and again, without making anything new for each call.

    Attributes:
        events: after ``wait``: ``revents`` of descriptor ``i`` at index ``4 * i + 3`` (struct pollfd as shorts).
    """

    def __init__(self, *descriptors: int, asked: int = uapi.POLLIN) -> None:
        """Watch descriptors for reading, or what else is asked for; a negative one is ignored."""
        # struct pollfd: int fd; short events; short revents.
        packed = b"".join(fd.to_bytes(4, "little", signed=True) + asked.to_bytes(4, "little") for fd in descriptors)
        self._count = len(descriptors)
        block = Block(packed)
        self._buffer = block.pointer
        self._descriptors = memoryview(block.data).cast("i")
        self.events = memoryview(block.data).cast("h")

    def watch(self, index: int, descriptor: int) -> None:
        """Put another descriptor in the place of one; -1: none."""
        self._descriptors[2 * index] = descriptor

    def wait(self, timeout_ms: int = -1) -> int:
        """Wait until a descriptor is readable or hung up, or for so many milliseconds (-1: for ever).

        Returns:
            How many are; 0 after a time-out or a signal, and then ``events`` are old.

        Raises:
            KernelError: poll(2) failed.
        """
        result: int = _poll(self._buffer, self._count, timeout_ms) & 0xFFFFFFFF
        if result == 0xFFFFFFFF:
            number = get_errno()
            if number != errno.EINTR:
                raise KernelError(number, "poll", f"{self._descriptors[::2].tolist()}, {timeout_ms}")
            return 0
        return result


def poll(descriptors: Sequence[int], timeout_ms: int = -1, asked: int = uapi.POLLIN) -> list[int]:
    """Wait until a descriptor is readable or hung up (poll(2)).

    Args:
        descriptors: what to wait for; a negative one is ignored.
        timeout_ms: milliseconds; -1 waits for ever.
        asked: for what.

    Returns:
        ``revents`` for each descriptor, in order; all 0 after a time-out or a signal.
    """
    poller = Poller(*descriptors, asked=asked)
    return poller.events[3::4].tolist() if poller.wait(timeout_ms) else [0] * len(descriptors)


_signalfd = function("signalfd", Long, Pointer, Long)


def signalfd(signals: frozenset[int] | set[int]) -> int:
    """Return a close-on-exec, non-blocking descriptor from which blocked ``signals`` are read (signalfd(2))."""
    mask = 0
    for number in signals:
        mask |= 1 << (number - 1)
    # glibc's sigset_t is 128 bytes; the kernel reads the first 8.
    result = _signalfd(-1, mask.to_bytes(128, "little"), uapi.SFD_CLOEXEC | uapi.SFD_NONBLOCK)
    return _libc_int("signalfd", result, -1, sorted(signals))


_socketpair = function("socketpair", Long, Long, Long, Pointer)


def socketpair() -> tuple[int, int]:
    """Return two connected close-on-exec stream sockets (AF_UNIX)."""
    ends = Block(8)
    result = _socketpair(uapi.AF_UNIX, uapi.SOCK_STREAM | uapi.SOCK_CLOEXEC, 0, ends.pointer)
    _libc_int("socketpair", result)
    return int.from_bytes(ends.data[:4], "little"), int.from_bytes(ends.data[4:], "little")


_sendmsg = function("sendmsg", Long, Pointer, Long)
_recvmsg = function("recvmsg", Long, Pointer, Long)
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_CONTROL = 24  # CMSG_SPACE(sizeof(int)) on 64-bit Linux: size_t len, int level, int type, int fd, padding
_ONE = 20  # CMSG_LEN(sizeof(int)): the padding is room for a second descriptor, which nobody would close


def _message(text: Block, control: Block) -> tuple[Block, Block]:
    """Build a struct msghdr for these two, which must stay alive, and the struct iovec that it points to."""
    vector = Block(text.address.to_bytes(8, "little") + len(text.data).to_bytes(8, "little"))
    # name, namelen(+pad), iov, iovlen, control, controllen, flags(+pad)
    words = (0, 0, vector.address, 1, control.address, _ONE, 0)
    return Block(b"".join([word.to_bytes(8, "little") for word in words])), vector


def send_descriptor(sock: int, descriptor: int, text: bytes) -> None:
    """Send ``text`` (1 byte or more) and one descriptor over a Unix socket (SCM_RIGHTS, unix(7)).

    Raises:
        KernelError: sendmsg(2) failed.
    """
    control = Block(
        (20).to_bytes(8, "little")
        + _SOL_SOCKET.to_bytes(4, "little")
        + _SCM_RIGHTS.to_bytes(4, "little")
        + descriptor.to_bytes(8, "little")
    )
    block = Block(text)
    header, _vector = _message(block, control)
    if _sendmsg(sock, header.pointer, 0) < 0:
        raise KernelError(get_errno(), "sendmsg", f"{sock}, descriptor {descriptor}")


def receive_descriptor(sock: int, size: int) -> tuple[bytes, int]:
    """Receive up to ``size`` bytes and at most one descriptor from a Unix socket.

    Returns:
        The bytes (empty at end of file) and the descriptor, close-on-exec, or -1.

    Raises:
        KernelError: recvmsg(2) failed.
    """
    text = Block(size)
    control = Block(_CONTROL)
    header, _vector = _message(text, control)
    while True:
        received: int = _recvmsg(sock, header.pointer, uapi.MSG_CMSG_CLOEXEC)
        if received >= 0:
            break
        if get_errno() != errno.EINTR:
            raise KernelError(get_errno(), "recvmsg", str(sock))
    answer = control.data
    length = int.from_bytes(header.data[40:48], "little")
    has_one = length >= 20 and answer[8:16] == b"\x01\x00\x00\x00\x01\x00\x00\x00"
    return bytes(text.data[:received]), int.from_bytes(answer[16:20], "little") if has_one else -1
