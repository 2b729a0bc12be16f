"""Channels between processes that the file system doesn't show.

The attack: System V shared memory, semaphores and messages, POSIX message queues, the kernel's keyrings: objects of the
same user, past Landlock.
What stops it: the static filter has none of these calls; CPython has no interface to them. Source: svipc(7),
mq_overview(7), keyrings(7); THREATS 7 (ipc_*).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked, witness

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# An owner outside of the sandbox: prints the id of its object, takes it away when its input ends.
OWNER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
shm = libc.shmget(0, 4096, 0o1600)
ctypes.memmove(libc.shmat(shm, None, 0), {token!r}.encode(), {length})
message = libc.msgget(0, 0o1600)
libc.msgsnd(message, (1).to_bytes(8, 'little') + {token!r}.encode(), {length}, 0)
libc.msgsnd(message, (1).to_bytes(8, 'little') + {token!r}.encode(), {length}, 0)
semaphore = libc.semget(0, 1, 0o1600)
print(shm, message, semaphore, flush=True)
sys.stdin.read()
libc.shmctl(shm, 0, None), libc.msgctl(message, 0, None), libc.semctl(semaphore, 0, 0)
"""
BODIES = {
    "shared memory": "libc.shmat.restype = ctypes.c_void_p; place = call('shmat', SHM, 0, 0o10000)\n"
    "print(ctypes.string_at(place).decode())",
    "messages": "buffer = ctypes.create_string_buffer(99); call('msgrcv', MESSAGE, buffer, 90, 0, 0); print(buffer.raw)",
    "semaphores": "import struct; call('semop', SEMAPHORE, struct.pack('Hhh', 0, 1, 0), 1); print(TOKEN)",
    "reading about them": "call('shmctl', SHM, 2, ctypes.create_string_buffer(256)); print(TOKEN)",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_of_another_process(attacker: Attacker, body: str) -> None:
    with witness(attacker, OWNER.format(token=TOKEN, length=len(TOKEN) + 1)) as owner:
        shm, message, semaphore = owner.said.split()
        try:
            attacker.must_fail(
                f"SHM, MESSAGE, SEMAPHORE, TOKEN = {shm}, {message}, {semaphore}, {TOKEN!r}\n{body}",
                "--allow-ffi",
                "--allow-child-process",
                harm=leaked,
            )
        finally:
            assert owner.process.stdin is not None
            owner.process.stdin.close()
            owner.process.wait(10)


def test_message_queues(attacker: Attacker) -> None:
    """The plain run removes the queue that it makes."""
    name = f"sandboxed-python-test-{uuid.uuid4().hex}"
    attacker.must_fail(
        f"fd = call('mq_open', {name.encode()!r}, 0o102, 0o600, 0); call('mq_unlink', {name.encode()!r}); print('MADE')",
        "--allow-ffi",
        harm=lambda ended: "MADE" in ended.stdout,
    )


@pytest.mark.parametrize(
    "body",
    [
        "call('add_key', b'user', b'sandboxed-python-test', b'x', 1, -2); print('MADE')",
        "call('keyctl', 0, -4, 1); print('MADE')",
        "if attempt('request_key', b'user', b'sandboxed-python-test', 0, 0) == 'ENOKEY': print('MADE')",
    ],
    ids=["add_key", "keyctl", "request_key"],
)
def test_keyrings(attacker: Attacker, body: str) -> None:
    """On the plain run's own process keyring, which ends with it."""
    attacker.must_fail(body, "--allow-ffi", harm=lambda ended: "MADE" in ended.stdout)
