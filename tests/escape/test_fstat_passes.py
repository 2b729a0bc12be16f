"""Making libc's own empty path another path.

The attack: ``fstat()`` is a ``newfstatat`` whose path is libc's empty string, by its address; that address passes the
notifying filter. So: write there; or have other memory there; or use it with the current directory, which may be any.
What stops it: the page is sealed (mseal(2)): no protection, mapping or unmapping changes it any more; the current
directory isn't passed; and with ``--allow-child-process``, where other programs have other memory, nothing is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.kernel import fstat
from tests import support

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Need

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64" or not fstat._find(),
    reason="needs a libc whose fstat() is a newfstatat (2.33 to 2.38)",
)

# Finds the address as an attacker does: by reading the function.
FIND = """
BUFFER = ctypes.create_string_buffer(4096)
start = ctypes.cast(libc.fstat, ctypes.c_void_p).value
code = ctypes.string_at(start, 48)
at = code.index(bytes.fromhex('488d35'))
EMPTY = start + at + 7 + int.from_bytes(code[at + 3 : at + 7], 'little', signed=True)
PAGE = EMPTY & -4096
TEXT = os.fsencode(SECRET + '/data') + bytes(1)
assert ctypes.string_at(EMPTY, 1) == bytes(1)
def changed():
    ctypes.memmove(EMPTY, TEXT, len(TEXT))
def ask():
    call('newfstatat', 3, EMPTY, BUFFER, 0x1000)
    print('TOLD', int.from_bytes(BUFFER.raw[48:56], 'little'))
"""
WAYS = {
    "mprotect": "call('mprotect', PAGE, 4096, 3); changed()",
    "pkey_mprotect": "call('pkey_mprotect', PAGE, 4096, 3, -1); changed()",
    "mprotect of more": "call('mprotect', PAGE - 4096, 3 * 4096, 3); changed()",
    "map over it": "call('mmap', PAGE, 4096, 3, 0x32, -1, 0); changed()",
    "map a file over it": (
        "open(WRITE + '/page', 'wb').write(b'/' * (EMPTY - PAGE) + TEXT + bytes(4096))\n"
        "fd = raw_open(WRITE + '/page', os.O_RDWR)\ncall('mmap', PAGE, 4096, 1, 0x11, fd, 0)"
    ),
    "move other memory there": (
        "place = mapped(4096); ctypes.memmove(place + EMPTY - PAGE, TEXT, len(TEXT))\n"
        "call('mremap', place, 4096, 4096, 3, PAGE)"
    ),
    "unmap it, and map what is wanted": "call('munmap', PAGE, 4096); call('mmap', PAGE, 4096, 3, 0x22, -1, 0); changed()",
    "move it away": "call('mremap', PAGE, 4096, 4096, 3, mapped(4096)); call('mmap', PAGE, 4096, 3, 0x22, -1, 0); changed()",
    "write through the page's protection": (
        "fd = raw_open('/proc/self/mem', os.O_RDWR); os.pwrite(fd, TEXT, EMPTY)"
    ),
    "write as another process would": (
        "there = ctypes.create_string_buffer(TEXT, len(TEXT))\n"
        "call('mprotect', PAGE, 4096, 3)\n"
        "call('process_vm_writev', os.getpid(), (ctypes.c_ulong * 2)(ctypes.addressof(there), len(TEXT)), 1,\n"
        "     (ctypes.c_ulong * 2)(EMPTY, len(TEXT)), 1, 0)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_another_path_at_its_address(attacker: Attacker, way: str) -> None:
    attacker.must_fail(
        f"{FIND}\n{WAYS[way]}\nask()\n# call('newfstatat')",
        "--allow-ffi",
        "--allow-inspector",
        harm=lambda ended: "TOLD 18\n" in ended.stdout,
    )


@pytest.mark.parametrize("flags", ["0x1000", "0x1100", "0x1000 | 1 << 40"])
def test_another_path_with_the_flag(attacker: Attacker, flags: str) -> None:
    attacker.must_fail(
        f"BUFFER = ctypes.create_string_buffer(4096)\ncall('newfstatat', -100, os.fsencode(SECRET + '/data'), BUFFER, {flags})\n"
        "print('TOLD', int.from_bytes(BUFFER.raw[48:56], 'little'))",
        "--allow-ffi",
        harm=lambda ended: "TOLD 18\n" in ended.stdout,
    )


@pytest.mark.parametrize("folder", ["-100", "-100 & 0xFFFFFFFF", "-100 & 0xFFFFFFFF | 1 << 32"])
def test_the_current_directory(attacker: Attacker, folder: str) -> None:
    """One may go to a folder that one may not look at."""
    attacker.must_fail(
        f"{FIND}\ncall('chdir', os.fsencode(SECRET))\ncall('newfstatat', {folder}, EMPTY, BUFFER, 0x1000)\nprint('TOLD')",
        "--allow-ffi",
        harm=lambda ended: "TOLD" in ended.stdout,
    )


def test_a_program_with_other_memory_there(attacker: Attacker) -> None:
    """Whoever may start programs may have one that chooses what is at the address."""
    attacker.must_fail(
        f"{FIND}\nimport subprocess\n"
        "program = '''\nimport ctypes, mmap, sys\n"
        "libc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n"
        "empty, text = int(sys.argv[1]), sys.argv[2].encode() + bytes(1)\n"
        "assert libc.mmap(empty & -4096, 8192, 3, 0x32, -1, 0) == empty & -4096\n"
        "ctypes.memmove(empty, text, len(text))\n"
        "buffer = ctypes.create_string_buffer(4096)\n"
        "if libc.syscall(262, 3, ctypes.c_void_p(empty), buffer, 0x1000) == 0:\n"
        "    print('TOLD', int.from_bytes(buffer.raw[48:56], 'little'))\n'''\n"
        "print(subprocess.run([sys.executable, '-c', program, str(EMPTY), SECRET + '/data'], capture_output=True, text=True))\n"
        "# call('newfstatat')",
        "--allow-ffi",
        "--allow-child-process",
        harm=lambda ended: "TOLD 18" in ended.stdout,
    )


def test_the_twin(folder: str, needs: Need) -> None:
    """With a supervisor that stands still, ``fstat()`` of what was opened still answers; ``stat()`` waits for it."""
    needs()
    code = """
import os
print("ready", flush=True)
input()
descriptor = os.open("/usr/lib/os-release", os.O_RDONLY)
print(os.fstat(descriptor).st_size > 0, flush=True)
os.stat("/usr/lib/os-release")
print("answered", flush=True)
"""
    words = [*support.installed(), "--permission", "--allow-fs-read=/usr/lib/os-release", "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "True\n"
            assert select.select([process.stdout], [], [], 0.3)[0] == []
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "answered\n"
        assert process.wait(timeout=30) == 0
