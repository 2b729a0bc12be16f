"""worker: denied, and granted. Seen from outside: a marker that the thread removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TEAR_OUT
from tests.scopes.twin import check_ran, check_refused, program

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

REMOVE = "os.unlink(WRITE + '/data')"
CALLS = {
    "threading": f"import threading\none = threading.Thread(target=lambda: {REMOVE}); one.start(); one.join()",
    "_thread": f"import _thread, time\n_thread.start_new_thread(lambda: {REMOVE}, ()); time.sleep(0.1)",
    "timer": f"import threading\none = threading.Timer(0, lambda: {REMOVE}); one.start(); one.join()",
    "executor": "import concurrent.futures\n"
    f"with concurrent.futures.ThreadPoolExecutor() as pool: pool.submit(lambda: {REMOVE}).result()",
    "asyncio": f"import asyncio\nasync def main(): await asyncio.to_thread(lambda: {REMOVE})\nasyncio.run(main())",
}
# A thread whose code is libc's unlink: no Python runs in it.
RAW = (
    "thread, path = ctypes.c_ulong(), ctypes.create_string_buffer((WRITE + '/data').encode())\n"
    "library = ctypes.CDLL('libpthread.so.0') if not hasattr(libc, 'pthread_create') else libc\n"
    "start = ctypes.cast(libc.unlink, ctypes.c_void_p)\n"
    "failed = library.pthread_create(ctypes.byref(thread), None, start, path)\n"
    "print('pthread_create', failed); failed or library.pthread_join(thread, None)"
)


def removed(attacker: Attacker) -> bool:
    return not attacker.exists("write/data")


@pytest.mark.parametrize("name", CALLS)
def test_with_the_hook(attacker: Attacker, name: str) -> None:
    grants = (f"--allow-fs-write={attacker.path('write')}/", f"--allow-fs-read={attacker.path('write')}/")
    denied = program(attacker, CALLS[name], *grants)
    check_refused(denied, "WorkerThreads", "")
    assert not removed(attacker), denied.said
    granted = program(attacker, CALLS[name], *grants, "--allow-worker")
    check_ran(granted)
    assert removed(attacker), granted.said


def test_without_the_hook(attacker: Attacker) -> None:
    attacker.must_fail(RAW, "--allow-ffi", harm=lambda _: removed(attacker))
    attacker.lay_out()
    granted = attacker.confined(RAW, "--allow-ffi", "--allow-worker")
    assert removed(attacker), granted.said


@pytest.mark.parametrize("flag", ["--allow-child-process", "--allow-net", "--allow-inspector", "--allow-addons"])
def test_no_other_flag_gives_it(attacker: Attacker, flag: str) -> None:
    attacker.must_fail(RAW, "--allow-ffi", flag, harm=lambda _: removed(attacker))


@pytest.mark.parametrize(
    "flags",
    [0x3D0F00, 0x10F00, 0x3D0F00 | 1 << 40, 0x3D0F00 & ~0x400],
    ids=["as libc", "least", "high bits", "own descriptors"],
)
def test_raw_clone(attacker: Attacker, flags: int) -> None:
    """A thread's clone: the new thread would run on nothing, so only the refusal is looked at; 22 is the kernel's own."""
    denied = attacker.confined(f"print(attempt('clone', {flags}, 0, 0, 0, 0))", "--allow-ffi", "--allow-child-process")
    assert "EPERM" in denied.stdout, denied.said


def test_clone3(attacker: Attacker) -> None:
    body = "import struct; print(attempt('clone3', struct.pack('11Q', 0x3D0F00, *[0] * 10), 88))"
    for flags in ((), ("--allow-worker",), ("--allow-child-process", "--allow-worker")):
        denied = attacker.confined(body, "--allow-ffi", *flags)
        assert "ENOSYS" in denied.stdout, denied.said


def test_memory_shared_between_processes(attacker: Attacker) -> None:
    """CLONE_VM without a thread and without waiting would be a thread by another name."""
    for flags in (0x100 | 17, 0x500 | 17, 0x400 | 17, 0x200 | 17, 0x800 | 0x100 | 17):
        denied = attacker.confined(
            f"print(attempt('clone', {flags}, 0, 0, 0, 0))", "--allow-ffi", "--allow-child-process"
        )
        assert "EPERM" in denied.stdout, denied.said


def test_torn_out(attacker: Attacker) -> None:
    attacker.must_fail(
        f"import threading\n{TEAR_OUT}\none = threading.Thread(target=lambda: {REMOVE}); one.start(); one.join()",
        harm=lambda _: removed(attacker),
        ends=("RuntimeError", "OSError"),
    )
