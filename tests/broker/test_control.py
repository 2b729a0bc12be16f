"""The wire: what a confined program says to its supervisor, and what becomes of nonsense."""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import wire as door
from sandboxed_python.policy.model import Policy
from sandboxed_python.record import wire
from tests.broker.harness import EVERYTHING, bare, grant, policy, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAMES = ("fsetxattr",)


def told(work: Callable[[], object]) -> str:
    """Return the name of the errno that the work ends with."""
    try:
        return str(work())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def test_policy_is_told_as_it_is() -> None:
    granted = policy(grant("/data/\udcff"), EVERYTHING, ["net", "child"])

    def work() -> tuple[bytes, int]:
        return door.ask(wire.WIRE, wire.POLICY), door.say(wire.WIRE, wire.POLICY, b"")

    served = serve(granted, work, names=NAMES)
    text, length = served.value
    assert length == len(text)
    assert Policy.from_data(marshal.loads(text)) == granted
    assert not served.errors


def test_policy_that_needs_a_large_buffer() -> None:
    granted = policy(grant(*(f"/data/{number}" for number in range(5000))))
    served = serve(granted, lambda: door.ask(wire.WIRE, wire.POLICY), names=NAMES)
    assert Policy.from_data(marshal.loads(served.value)) == granted


def test_nobody_listens_outside() -> None:
    """Asking is harmless: no descriptor has that number."""
    assert bare(lambda: told(lambda: door.ask(wire.WIRE, wire.POLICY))) == "EBADF"
    assert bare(lambda: told(lambda: os.setxattr(wire.WIRE, wire.POLICY, b"x"))) == "EBADF"
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        assert int(file.read()) <= wire.WIRE


def nonsense() -> dict[str, str]:
    """Send what nobody should."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fsetxattr.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def send(name: Any, value: Any = b"x", size: int = 1, flags: int = 0) -> str:
        result = libc.fsetxattr(wire.WIRE, name, value, size, flags)
        return errno.errorcode[ctypes.get_errno()] if result == -1 else str(result)

    policy_name = wire.POLICY.encode()
    return {
        "unknown": send(b"sandboxed-python.nonsense"),
        "user": send(b"user.x"),
        "empty": send(b""),
        "no name": send(None),
        "long name": send(b"x" * 300),
        "bytes": send(b"\xff\xfe"),
        "small": send(policy_name),
        "no buffer": send(policy_name, 8, 60000),
        "endless": send(policy_name, 8, (1 << 64) - 1),
        "flags": send(policy_name, b"x", 1, 1),
    }


def test_nonsense_is_refused() -> None:
    served = serve(policy(EVERYTHING), nonsense, names=NAMES)
    assert served.value == {
        "unknown": "EINVAL", "user": "EINVAL", "empty": "EINVAL", "no name": "EFAULT", "long name": "ERANGE",
        "bytes": "EINVAL", "small": "ERANGE", "no buffer": "EFAULT", "endless": "EFAULT",
        "flags": "EINVAL",
    }  # fmt: skip
    assert not served.errors


def test_other_descriptors_are_files(tmp_path: Any) -> None:
    """The wire is one number; the call is what it was for all others: these attributes can't be set."""
    file = tmp_path / "file"
    file.touch()

    def work() -> tuple[str, str]:
        descriptor = os.open(file, os.O_RDWR)
        return (
            told(lambda: door.say(descriptor, wire.POLICY, b"x")),
            told(lambda: door.say(wire.WIRE - 1, wire.POLICY, b"x")),
        )

    assert serve(policy(EVERYTHING, EVERYTHING), work, names=NAMES).value == ("ENOTSUP", "ENOTSUP")


def test_the_wire_of_the_installed_command(sandbox: Any) -> None:
    """A program learns its policy over the wire; without ctypes it can still speak."""
    code = f"""
import ctypes, marshal, os, sys
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(65536)
size = libc.fsetxattr({wire.WIRE}, {wire.POLICY.encode()!r}, buffer, 65536, 0)
data = marshal.loads(buffer.raw[:size])
print(data["scopes"], [row[0] for row in data["read"] if not row[4]])
try:
    os.setxattr({wire.WIRE}, "sandboxed-python.nonsense", b"x")
except OSError as error:
    print(error.errno)
"""
    ended = sandbox("--allow-ffi", "--allow-fs-read=/srv/", "-c", code)
    assert ended.code == 0, ended.said
    assert ended.stdout == f"['ffi'] ['/srv/']\n{errno.EINVAL}\n"


def test_kernel_error_names_the_wire() -> None:
    with pytest.raises(KernelError, match="the wire, x"):
        door.say(wire.WIRE, "x", b"")
