"""Letting libc's ``fstat(2)`` pass a notifying filter that wants to see every path.

Runs in: supervisor, before it forks a child.

glibc 2.33 to 2.38 make fstat() a ``newfstatat(descriptor, "", buffer, AT_EMPTY_PATH)``. That flag only *allows* an
empty path: another one is followed as usual. So a filter, which sees the path's address and not its text, can't let the
flag pass, and each ``open()`` of Python, which asks for the size of what it has opened, would have to be answered by
the supervisor. But it can let the one address pass at which libc has its empty string, if nobody can ever change what
is there: the page is in a private, read-only mapping of a file, and sealed (mseal(2), Linux 6.10): no mprotect, munmap,
mremap or MAP_FIXED touches it any more, in this process and what it forks. A program that starts others could choose
what those have at that address: then this isn't used (``plan.build``).
"""

from __future__ import annotations

import os

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Block, Long, Pointer, address_of, bytes_at, function, syscall

_PAGE = 4096
_LEA_RSI = b"\x48\x8d\x35"  # lea rsi, [rip + displacement]: the second argument, a constant's address
_LOOKED_AT = 48  # bytes of the function
_QUERY_SIZE = 104  # struct procmap_query
_ioctl = function("ioctl", Long, Long, Pointer)


def seal_empty_path() -> int:
    """Seal libc's empty path in this process.

    Returns:
        Its address; 0 where there is none, or where it can't be sealed: then fstat() is notified like its like.
    """
    address = _find()
    if not address or not _is_constant(address):
        return 0
    try:
        syscall("mseal", address & -_PAGE, _PAGE, 0)
    except KernelError:  # before Linux 6.10
        return 0
    return address if bytes_at(address, 1) == b"\0" else 0


def _find() -> int:
    """Return the address that libc's fstat() passes as its path, or 0 if its code isn't what is known."""
    start = address_of("fstat")
    if not start:
        return 0
    code = bytes_at(start, _LOOKED_AT)
    at = code.find(_LEA_RSI)
    if at < 0 or at + 7 > len(code):
        return 0
    return start + at + 7 + int.from_bytes(code[at + 3 : at + 7], "little", signed=True)


def _is_constant(address: int) -> bool:
    """Tell whether the address lies in a private read-only mapping of a file (PROCMAP_QUERY, Linux 6.11)."""
    # u64 size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode, ...
    query = Block(
        b"".join([word.to_bytes(8, "little") for word in (_QUERY_SIZE, 0, address)]).ljust(_QUERY_SIZE, b"\0")
    )
    try:
        maps = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if _ioctl(maps, uapi.PROCMAP_QUERY, query.pointer) & 0xFFFFFFFF:
            return False
    finally:
        os.close(maps)
    answer = query.data
    flags, inode = int.from_bytes(answer[40:48], "little"), int.from_bytes(answer[64:72], "little")
    wanted = uapi.PROCMAP_QUERY_VMA_READABLE
    changing = uapi.PROCMAP_QUERY_VMA_WRITABLE | uapi.PROCMAP_QUERY_VMA_SHARED
    return flags & (wanted | changing) == wanted and inode != 0


def pass_fstat(program: bytes, address: int) -> bytes:
    """Return a filter for x86-64 that lets libc's fstat() pass, and does what ``program`` does for all other calls.

    Args:
        program: a filter, as ``struct sock_filter``s.
        address: from ``seal_empty_path``.
    """
    low, high = address & 0xFFFFFFFF, address >> 32
    # What has to be equal: (offset in struct seccomp_data, value).
    checks = (
        (4, uapi.AUDIT_ARCH["x86_64"]),
        (0, uapi.RAW["newfstatat"][0]),
        (24, low),  # args[1], the path
        (28, high),
        (40, uapi.AT_EMPTY_PATH),  # args[3], an int
    )
    rest = 2 * len(checks) + 3  # instructions before the program
    lines: list[tuple[int, int, int, int]] = []
    for offset, value in checks:
        lines += [(_LOAD, 0, 0, offset), (_JUMP_EQ, 0, rest - len(lines) - 2, value)]
    # args[0]: a descriptor, and not the current directory, which may be one that isn't granted.
    lines += [(_LOAD, 0, 0, 16), (_JUMP_EQ, 1, 0, uapi.AT_FDCWD & 0xFFFFFFFF), (_RETURN, 0, 0, uapi.SECCOMP_RET_ALLOW)]
    packed = [code.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little") for code, jt, jf, k in lines]
    return b"".join(packed) + program


# Classic BPF (linux/bpf_common.h): load a word, jump if equal, return.
_LOAD, _JUMP_EQ, _RETURN = 0x20, 0x15, 0x06
