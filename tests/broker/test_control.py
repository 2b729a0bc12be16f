"""The wire: what a confined program says to its supervisor, and what becomes of nonsense."""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.broker import narrow
from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import wire as door
from sandboxed_python.policy.model import Policy
from sandboxed_python.record import wire
from tests.broker.harness import EVERYTHING, bare, grant, policy, serve
from tests.escape.attack import number

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


# Narrowing, as an attacker would


def send(name: str, message: bytes) -> str:
    return told(lambda: door.say(wire.WIRE, name, message))


def narrow_to(granted: Policy) -> str:
    """Narrow this process without any domain of the kernel's."""
    message = wire.narrowing(granted.to_data(), inner=False)
    return send(wire.PREPARE, message) + send(wire.NARROW, message)


@pytest.fixture
def trees(tmp_path: Any) -> tuple[str, str]:
    """Return two folders."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "one"), str(tmp_path / "two")


STATS = ("newfstatat", "stat", "lstat", "fsetxattr")


def seen(*paths: str) -> str:
    return "".join("y" if told(lambda path=path: os.stat(path)) not in ("EACCES", "ENOENT") else "n" for path in paths)  # type: ignore[misc]


def test_a_forged_policy_only_narrows(trees: tuple[str, str]) -> None:
    one, two = trees

    def work() -> list[str]:
        every = policy(EVERYTHING, EVERYTHING, ["net", "child", "addon", "ffi", "fs.metadata"])
        off = Policy(mode="off", read=EVERYTHING, write=EVERYTHING)
        forged = every.replace(within=every, protected=())
        found = [seen(one, two)]
        for asked in (every, off, forged, policy(grant(one, two))):
            found += [narrow_to(asked), seen(one, two)]
        data = Policy.from_data(marshal.loads(door.ask(wire.WIRE, wire.POLICY)))
        found.append(f"{data.mode} {data.readable(one)} {data.readable(two)} {data.granted('net')}")
        return [*found, narrow_to(policy()), seen(one, two), narrow_to(every), seen(one, two)]

    served = serve(policy(grant(one)), work, names=STATS)
    assert served.value == [
        "yn", "00", "yn", "00", "yn", "00", "yn", "00", "yn", "enforce True False False", "00", "nn", "00", "nn",
    ]  # fmt: skip
    assert not served.errors


def test_only_the_callers_own_process_is_narrowed(trees: tuple[str, str]) -> None:
    """Those started before are not, whatever they send afterwards; those started later are."""
    one, _two = trees

    def work() -> str:
        go, gone = os.pipe()
        back, told_back = os.pipe()

        def child() -> int:
            pid = os.fork()
            if pid == 0:
                os.read(go, 1)
                os.write(told_back, seen(one).encode())
                os._exit(0)
            return pid

        before = child()
        mine = narrow_to(policy())
        os.write(gone, b"x")
        os.waitpid(before, 0)
        os.write(gone, b"x")
        os.waitpid(child(), 0)
        return mine + os.read(back, 9).decode() + seen(one)

    assert serve(policy(grant(one)), work, names=STATS).value == "00ynn"


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no ASCII": b'"\xff"',
    "a list": b"[]",
    "a number": b"1",
    "no policy": b'{"inner":false}',
    "policy of another type": b'{"inner":false,"policy":[1]}',
    "deep": b"[" * 60000,
    "deep policy": b'{"inner":false,"policy":' + b"[" * 60000,
    "large number": b"1" * 60000,
}
_GOOD = Policy(read=grant("/srv")).to_data()
MALFORMED.update(
    {
        f"{field} {value}": wire.pack({"inner": False, "policy": {**_GOOD, field: value}})
        for field, value in (
            ("read", None), ("read", 3), ("read", "x"), ("read", [[]]), ("read", [["x", "tree", ["/x"], "", False, 7]]),
            ("read", [["x", "tree", [7], "", False, ""]]), ("read", [["x", "nonsense", ["/x"], "", False, ""]]),
            ("read", [["x", "tree", ["x"], "", False, ""]]), ("read", [["x", "tree", ["/x\0"], "", False, ""]]),
            ("read", [["x", "tree", [], "", False, ""]]), ("read", [["x", "all", ["/x"], "", False, ""]]),
            ("read", [["x", "tree", ["/x"], "", 1, ""]]), ("read", [["x", "tree", {"/x": 1}, "", "no", ""]]),
            ("scopes", ["nonsense"]), ("scopes", [[]]), ("scopes", 1), ("mode", 1), ("protected", [1]), ("origins", [1]),
            ("origins", [["a", []]]), ("more", 1),
        )
    }
)  # fmt: skip


def test_malformed_messages_change_nothing(trees: tuple[str, str]) -> None:
    one, _two = trees

    def work() -> dict[str, tuple[str, ...]]:
        names = (wire.PREPARE, wire.NARROW, wire.RULESET)
        found = {what: tuple(send(name, text) for name in names) for what, text in MALFORMED.items()}
        whole = wire.narrowing(policy(grant(*(f"/{number:60}" for number in range(2000)))).to_data(), inner=False)
        found["too long"] = tuple(send(name, whole) for name in names)
        unprepared = wire.narrowing(policy(grant("/unprepared")).to_data(), inner=False)
        found["unprepared"] = (send(wire.NARROW, unprepared),)
        found["seen"] = (seen(one),)
        return found

    served = serve(policy(grant(one)), work, names=STATS)
    assert served.value.pop("seen") == ("y",)
    assert served.value.pop("unprepared") == ("EINVAL",)
    assert served.value.pop("too long") == ("E2BIG", "EINVAL", "ENOTSUP")
    assert set(served.value.values()) == {("EINVAL", "EINVAL", "ENOTSUP")}, served.value
    assert not served.errors


def test_the_supervisor_does_not_grow_without_end(trees: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same narrowing from the same state counts once; different ones are limited, and so is their depth."""
    monkeypatch.setattr(narrow, "MOST", 40)
    one, _two = trees

    def work() -> tuple[list[str], list[str], str]:
        same = []
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if narrow_to(policy(grant(one))) == "00" else 1)
            same.append(str(os.waitpid(pid, 0)[1]))
        other = [send(wire.PREPARE, wire.narrowing(policy(grant(f"/{n}")).to_data(), inner=False)) for n in range(60)]
        return same, other, seen(one)

    served = serve(policy(grant(one)), work, names=STATS)
    same, other, can = served.value
    assert set(same) == {"0"}
    assert other == ["0"] * 39 + ["ENOSPC"] * 21
    assert can == "y"
    assert not served.errors

    def deeper() -> list[str]:
        return [narrow_to(policy(grant("/", f"/{n}"))) for n in range(20)]

    deep = serve(policy(grant("/")), deeper, names=STATS).value
    assert deep[0] == "00"
    assert deep[-1] == "E2BIGEINVAL"


def test_a_mark_is_the_kernels(sandbox: Any) -> None:
    """No confined task can take another mark: neither its own old one, nor one of somebody with less given up."""
    code = """
import ctypes, errno, resource, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for limit in (10, 10 | 1 << 32):
    for value in (1 << 61, 0, 2 ** 64 - 1):
        both = struct.pack("QQ", value, value)
        print(libc.syscall(NUMBERS[0], 0, ctypes.c_long(limit), both, None), errno.errorcode[ctypes.get_errno()])
        print(libc.syscall(NUMBERS[1], ctypes.c_long(limit), both), errno.errorcode[ctypes.get_errno()])
print(resource.prlimit(0, 10) == (-1, -1), resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
"""
    numbers = (number("prlimit64"), number("setrlimit"))
    ended = sandbox("--allow-ffi", "-c", f"NUMBERS = {numbers}\n{code}")
    assert ended.stdout == "-1 EPERM\n" * 12 + "True None\n", ended.said
