"""Malformed and random calls: never an exception, never more than the grants, never a hang."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.broker import answer
from sandboxed_python.broker.answer import MODULES
from sandboxed_python.broker.request import Answer
from sandboxed_python.kernel import tables
from tests.broker import trees
from tests.broker.harness import LONG, PATH_CALLS, OwnRequest, grant, policy, serve
from tests.broker.operations import CALL_NUMBERS
from tests.broker.raw import Refused, call, libc
from tests.support import unchanged

if TYPE_CHECKING:
    import pathlib

SEEDS = range(60 if LONG else 6)
CALLS = tuple(name for name in (*PATH_CALLS, *MODULES["calls_socket"]) if name in CALL_NUMBERS)
_SIZE = 65536


class Memory:
    """Sixteen pages, and an unmapped one after them."""

    def __init__(self) -> None:
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.start = int(libc.mmap(None, _SIZE + 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))
        libc.munmap(self.start + _SIZE, 4096)
        self.end = self.start + _SIZE

    def put(self, data: bytes, *, at_end: bool = False) -> int:
        """Store bytes; return where they are: in the middle, or right before the unmapped page."""
        address = self.end - len(data) if at_end else self.start + 8192
        ctypes.memmove(address, data, len(data))
        return address


def pointer(rng: random.Random, memory: Memory, root: bytes, made: list[bytes]) -> int:
    roll = rng.random()
    if roll < 0.55:
        path = root + b"/" + trees.spelling(rng, made)
        end = b"" if rng.random() < 0.1 else b"\0"
        return memory.put(path + end, at_end=rng.random() < 0.5)
    if roll < 0.65:
        return memory.put(rng.randbytes(rng.randint(0, 5000)) + b"\0", at_end=rng.random() < 0.5)
    if roll < 0.7:
        return memory.put(b"a/" * rng.choice((2047, 2048, 3000)) + b"\0", at_end=True)
    return rng.choice(
        (0, 1, 4095, memory.start, memory.end - 1, memory.end, memory.end - 4, 1 << 47, (1 << 64) - 1, 1 << 63)
    )


def argument(rng: random.Random, memory: Memory, root: bytes, made: list[bytes]) -> int:
    roll = rng.random()
    if roll < 0.45:
        return pointer(rng, memory, root, made)
    if roll < 0.6:
        return rng.choice((-100, -1, 3, 4, 5, 99, 1 << 31, (1 << 32) - 100, 0xFFFFFF9C | 1 << 40))
    if roll < 0.85:
        return rng.choice(
            (0, 1, 2, 4, 8, 16, 0x100, 0x200, 0x400, 0x1000, 0o644, 0o777, 0o2000, os.O_CREAT, 110, 65536)
        )
    return rng.getrandbits(rng.choice((8, 16, 32, 64)))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_calls(seed: int, tmp_path: pathlib.Path) -> None:
    """From a real child: nothing but errors and what is granted, and the broker is never surprised."""
    rng = random.Random(seed)
    inside, outside = trees.nest(os.fsencode(tmp_path / "in")), trees.nest(os.fsencode(tmp_path / "out"))
    made = trees.make(rng, inside)
    trees.make(rng, outside)
    for number in range(3):
        os.symlink(outside, inside + b"/out%d" % number)
    tree = grant(tmp_path / "in")

    def work() -> int:
        os.chdir(os.fsdecode(inside))
        os.open(".", os.O_RDONLY)
        memory = Memory()
        refused = 0
        for _ in range(1500):
            name = rng.choice(CALLS)
            arguments = [argument(rng, memory, inside, made) for _ in range(6)]
            if name in {"open", "openat"}:  # a named pipe would wait
                arguments[1 if name == "open" else 2] |= os.O_NONBLOCK
            if name == "creat":
                continue
            got = call(name, *[value - (1 << 64) if value >> 63 else value for value in arguments])
            refused += isinstance(got, Refused)
            if name in {"open", "openat", "socket"} and not isinstance(got, Refused) and got > 5:
                os.close(got)
        call("newfstatat", -100, outside, memory.start, 0)
        return refused

    with unchanged(tmp_path / "out"):
        served = serve(policy(tree, tree), work, names=CALLS, timeout=100)
    assert served.errors == []
    assert served.value > 500
    outside_text = str(tmp_path / "out")
    assert any((path or "").startswith(outside_text) for _name, _need, path in served.denied)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_decoder(seed: int) -> None:
    """Random registers for every handler and for numbers without one, in this very process: a denial or an errno."""
    rng = random.Random(seed)
    handlers = answer.load([name for name in CALL_NUMBERS if name not in MODULES["identity"]])
    for _ in range(3000):
        request: Any = OwnRequest(policy())
        reports: list[Exception] = []
        request.context.on_error = lambda _request, error, reports=reports: reports.append(error)
        request.context.handlers = handlers
        request.arguments = tuple(
            rng.choice((rng.getrandbits(64), rng.getrandbits(16), 1 << 48, 0, (1 << 64) - 1, 2)) for _ in range(6)
        )
        number = rng.choice([*handlers, rng.getrandbits(31)])
        got = answer.answer(request, number)
        if number not in handlers:
            assert (got.kind, got.error) == (Answer.REPLY, errno.EACCES)
            continue
        assert not reports, (handlers[number], request.arguments, reports)
        if got.kind == Answer.DESCRIPTOR:  # a socket of no use
            assert handlers[number][0] == "socket"
            os.close(got.descriptor)
        elif got.kind == Answer.CONTINUE:
            assert handlers[number][0] in MODULES["calls_socket"]
        else:
            assert got.error > 0, (handlers[number], request.arguments)


class Broken:
    """A policy that fails."""

    def __getattr__(self, name: str) -> Any:
        if name in {"read", "write"}:
            return ()
        if name == "layers":
            return (self,)
        if name in {"reader", "within", "readable", "writable", "statable"}:
            return self
        raise RuntimeError(name)

    def __call__(self, *_arguments: object) -> bool:
        message = "the policy is broken"
        raise RuntimeError(message)

    matches = __call__


def test_a_failing_policy_denies(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_text("")

    def work() -> list[Any]:
        path = str(tmp_path / "f").encode()
        buffer = ctypes.create_string_buffer(256)
        missing = path + b"-missing"
        return [call("newfstatat", -100, one, buffer, 0) for one in (path, missing)]

    granted: Any = Broken()
    served = serve(granted, work)
    assert served.value == [Refused(errno.EACCES)] * 2
    assert len(served.errors) == 2


def test_every_call_has_a_handler_and_a_need() -> None:
    from sandboxed_python.broker.judge import NEEDS

    handlers = answer.load_all()
    named = [name for names in MODULES.values() for name in names]
    assert sorted(named) == sorted(tables.BROKERED)
    assert {name for name, _handler in handlers.values()} == set(CALL_NUMBERS)
    judged = {name for module, names in MODULES.items() if module != "identity" for name in names}
    assert judged - set(NEEDS) == {"open", "openat", "creat", "socket", "getsockname", "sendto"}
    for name, handler in handlers.values():
        told = f"{handler.__doc__} {'module' if name in MODULES['calls_socket'] else ''}".lower()
        assert any(word in told for word in ("race", "racing", "module")), name
