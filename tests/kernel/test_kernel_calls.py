"""The door to the kernel: results, errors that name the call and its arguments, and messages with descriptors."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import calls, tables, uapi

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    ends = calls.socketpair()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def program(text: str) -> str:
    """Run a program in an interpreter of its own, where signals and threads are nobody else's."""
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# Plain calls


def test_syscall_returns_the_result() -> None:
    assert calls.syscall("gettid") == threading.get_native_id()


def test_syscall_error_names_call_and_arguments() -> None:
    with pytest.raises(KernelError) as caught:
        calls.syscall("pidfd_open", -1, 0)
    assert caught.value.call == "pidfd_open"
    assert caught.value.errno == errno.EINVAL
    assert str(caught.value) == "[Errno 22] pidfd_open(-1, 0): Invalid argument"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((uapi.AT_FDCWD, None, 0x20), "-100, NULL, 32"),
        ((uapi.AT_FDCWD, b"no/such", 0x7FFFF000), "-100, b'no/such', 0x7ffff000"),
        ((-1, b"x" * 49, 1), "-1, <49 bytes>, 1"),
        ((-1, (calls.Char * 3)(), 1), "-1, <Char_Array_3>, 1"),
        ((), ""),
    ],
)
def test_arguments_in_messages_stay_short(arguments: tuple[object, ...], shown: str) -> None:
    with pytest.raises(KernelError) as caught:
        calls.syscall("faccessat2", *arguments, *([9] * (4 - len(arguments)) if arguments else []))
    text = str(caught.value)
    assert text.startswith(f"[Errno {caught.value.errno}] faccessat2({shown}")


def test_syscall_knows_only_the_tables_names() -> None:
    with pytest.raises(KeyError):
        calls.syscall("reboot")


def test_prctl_returns_the_value() -> None:
    assert calls.prctl(uapi.PR_GET_DUMPABLE) in (0, 1)


def test_prctl_error() -> None:
    with pytest.raises(KernelError, match=r"prctl\(57005, 0, 0, 0, 0\): Invalid argument|prctl\(0xdead, 0, 0, 0, 0\)"):
        calls.prctl(0xDEAD)


def test_errno_is_this_threads_own() -> None:
    with pytest.raises(KernelError):
        calls.syscall("pidfd_open", -1, 0)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(calls.get_errno()))
    thread.start()
    thread.join()
    assert seen == [0]
    assert calls.get_errno() == errno.EINVAL


# close_range


def test_close_range_closes_both_ends_and_nothing_else(pipe: tuple[int, int]) -> None:
    first = fcntl.fcntl(pipe[0], fcntl.F_DUPFD_CLOEXEC, 900)
    copies = [first, *(fcntl.fcntl(pipe[0], fcntl.F_DUPFD_CLOEXEC, first + step) for step in range(1, 5))]
    assert copies == list(range(first, first + 5))
    calls.close_range(first + 1, first + 3)
    try:
        assert [closed(copy) for copy in copies] == [False, True, True, True, False]
    finally:
        os.close(copies[0])
        os.close(copies[4])


def test_close_range_of_nothing(pipe: tuple[int, int]) -> None:
    calls.close_range(pipe[0], pipe[0] - 1)
    assert not closed(pipe[0])


def test_close_range_to_the_end() -> None:
    out = program("""
import os
from sandboxed_python.kernel import calls
for number in (3, 7, 200):
    os.dup2(0, number)
calls.close_range(3)
print(sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3])
print([number for number in (3, 7, 200) if os.path.exists(f"/proc/self/fd/{number}")])
""")
    assert out in {"[0, 1, 2]\n[]\n", "[0, 1, 2]\n[3]\n"}  # listing opens one descriptor of its own


# poll


def test_poll_tells_what_is_ready(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    assert calls.poll([reader], 0) == [0]
    os.write(writer, b"x")
    assert calls.poll([-1, reader], 0) == [0, uapi.POLLIN]
    assert calls.poll([reader, reader], -1) == [uapi.POLLIN, uapi.POLLIN]
    os.read(reader, 1)
    os.close(writer)
    assert calls.poll([reader], -1) == [uapi.POLLHUP]


def test_poll_of_nothing_times_out() -> None:
    assert calls.poll([-1, -1], 1) == [0, 0]


def test_poll_of_a_closed_descriptor_says_so(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    assert calls.poll([pipe[0]], 0) == [select.POLLNVAL]


def test_poll_interrupted_by_a_signal_reports_nothing() -> None:
    out = program("""
import os, signal
from sandboxed_python.kernel import calls
signal.signal(signal.SIGALRM, lambda *_: print("handled"))
reader, writer = os.pipe()
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(calls.poll([reader, -1], 20000))
""")
    assert out == "handled\n[0, 0]\n"


# signalfd


def test_signalfd_reads_blocked_signals() -> None:
    out = program("""
import fcntl, os, signal
from sandboxed_python.kernel import calls, uapi
wanted = {signal.SIGUSR1, signal.SIGCHLD, 64}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
descriptor = calls.signalfd(wanted)
print(bool(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC))
try:
    os.read(descriptor, uapi.SIZEOF_SIGNALFD_SIGINFO)
except BlockingIOError:
    print("nothing yet")
os.kill(os.getpid(), 64)
os.kill(os.getpid(), signal.SIGUSR1)
raw = os.read(descriptor, 4096)
size = uapi.SIZEOF_SIGNALFD_SIGINFO
print(len(raw) // size, [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), size)])
print(int.from_bytes(raw[8:12], "little", signed=True) == uapi.SI_USER, int.from_bytes(raw[12:16], "little") == os.getpid())
""")
    assert out == "True\nnothing yet\n2 [10, 64]\nTrue True\n"


# Messages


def test_socketpair_is_a_connected_unix_stream_that_exec_closes(pair: tuple[int, int]) -> None:
    for end in pair:
        assert fcntl.fcntl(end, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with socket.socket(fileno=os.dup(end)) as sock:
            assert (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
    os.write(pair[0], b"hello")
    assert os.read(pair[1], 10) == b"hello"
    os.write(pair[1], b"back")
    assert os.read(pair[0], 10) == b"back"


def test_a_descriptor_travels(pair: tuple[int, int], pipe: tuple[int, int]) -> None:
    calls.send_descriptor(pair[0], pipe[0], b"L")
    text, received = calls.receive_descriptor(pair[1], 100)
    try:
        assert text == b"L"
        assert received not in (*pipe, *pair, -1)
        assert fcntl.fcntl(received, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert os.path.sameopenfile(received, pipe[0])
        os.write(pipe[1], b"through")
        assert os.read(received, 10) == b"through"
    finally:
        os.close(received)


def test_text_without_a_descriptor(pair: tuple[int, int]) -> None:
    os.write(pair[0], b"Esome reason")
    assert calls.receive_descriptor(pair[1], 100) == (b"Esome reason", -1)


def test_text_longer_than_asked_for(pair: tuple[int, int]) -> None:
    os.write(pair[0], b"abcdef")
    assert calls.receive_descriptor(pair[1], 4) == (b"abcd", -1)
    assert calls.receive_descriptor(pair[1], 4) == (b"ef", -1)


def test_end_of_file(pair: tuple[int, int]) -> None:
    os.close(pair[0])
    assert calls.receive_descriptor(pair[1], 100) == (b"", -1)


def test_other_control_messages_are_no_descriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        theirs.sendall(b"x")
        assert calls.receive_descriptor(ours.fileno(), 10) == (b"x", -1)


def test_no_more_than_one_descriptor_stays_open(pipe: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        sent = array.array("i", [pipe[0], pipe[1], pipe[0]])
        theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, sent)])
        before = {number for number in range(1024) if not closed(number)}
        text, received = calls.receive_descriptor(ours.fileno(), 10)
        opened = {number for number in range(1024) if not closed(number)} - before
        for descriptor in opened:
            os.close(descriptor)
        assert text == b"x"
        assert opened == {received}


def test_message_errors_name_the_call(pipe: tuple[int, int]) -> None:
    with pytest.raises(KernelError, match=r"sendmsg\(\d+, descriptor 1\)") as sending:
        calls.send_descriptor(pipe[1], 1, b"x")
    assert sending.value.errno == errno.ENOTSOCK
    with pytest.raises(KernelError, match=r"recvmsg\(\d+\)") as receiving:
        calls.receive_descriptor(pipe[0], 1)
    assert receiving.value.errno == errno.ENOTSOCK


def test_memory_is_read_and_written_where_it_is() -> None:
    block = calls.Block(b"some bytes")
    assert calls.bytes_at(block.address, 10) == b"some bytes"
    calls.overwrite(block.address + 5, b"other")
    assert block.data == b"some other"
    with pytest.raises(BufferError):  # or its address would change
        block.data.extend(b"!")
    assert calls.Block(3).data == bytes(3)
    assert calls.Block(b"").data == b""


# Numbers


TABLES: tuple[Mapping[str, tuple[int | None, int | None]], ...] = (
    uapi.SYSCALLS, tables.NOTIFIED, uapi.RAW, tables.BROKERED, tables.AUDITED,
)  # fmt: skip


def test_system_call_numbers_are_libseccomps() -> None:
    pyseccomp = pytest.importorskip("pyseccomp")
    checked = 0
    for machine, column in (("x86_64", 0), ("aarch64", 1)):
        arch = {"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[machine]
        every: list[Mapping[str, int | None]] = [
            *({name: row[column] for name, row in table.items()} for table in TABLES),
            tables.UNIFIED_SYSCALLS,
        ]
        for name, number in [row for table in every for row in table.items()]:
            known = pyseccomp.resolve_syscall(arch, name)
            if known >= 0 or number is None:  # an older libseccomp doesn't know the newest names
                assert (machine, name, known if known >= 0 else None) == (machine, name, number)
                checked += 1
    assert checked > 60


def test_the_same_call_has_one_number_in_every_table() -> None:
    seen: dict[str, tuple[int | None, int | None]] = {}
    for table in TABLES:
        for name, numbers in table.items():
            assert seen.setdefault(name, numbers) == numbers
            if name in tables.UNIFIED_SYSCALLS:
                assert set(numbers) == {tables.UNIFIED_SYSCALLS[name]}
    assert sorted(tables.UNIFIED_SYSCALLS.values()) == list(range(tables.UNIFIED_FIRST, tables.UNIFIED_LAST + 1))


def test_structure_sizes_are_the_kernels() -> None:
    pair = calls.socketpair()
    for end in pair:
        os.close(end)
    sizes = bytearray(6)
    out = (calls.Char * 6)()
    calls.syscall("seccomp", uapi.SECCOMP_GET_NOTIF_SIZES, 0, out)
    sizes[:] = bytes(out)
    # struct seccomp_notif_sizes: u16 seccomp_notif, seccomp_notif_resp, seccomp_data. A later kernel's may be longer.
    found = [int.from_bytes(sizes[at : at + 2], "little") for at in (0, 2, 4)]
    assert found == [uapi.SIZEOF_SECCOMP_NOTIF, uapi.SIZEOF_SECCOMP_NOTIF_RESP, 64]
    assert uapi.SECCOMP_IOCTL_NOTIF_RECV >> 16 & 0x3FFF == uapi.SIZEOF_SECCOMP_NOTIF
    assert uapi.SECCOMP_IOCTL_NOTIF_SEND >> 16 & 0x3FFF == uapi.SIZEOF_SECCOMP_NOTIF_RESP
