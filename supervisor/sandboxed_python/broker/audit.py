"""Audit: every call that a permission could gate is judged and noted, and then carried out by the kernel.

Runs in: supervisor, and only with ``--permission-audit``. Nothing is enforced: the answer is CONTINUE, whatever becomes
of the judgement. So it doesn't matter that the kernel reads its arguments again: a program that changes them meanwhile
deceives only whoever reads the log.
"""

from __future__ import annotations

import os

from sandboxed_python.broker.calls_change import fsetxattr
from sandboxed_python.broker.calls_socket import read_address
from sandboxed_python.broker.gate import descriptor_path, may_map_path
from sandboxed_python.broker.identity import call_as, foreign
from sandboxed_python.broker.judge import NEEDS, judge_stop, needs_of_open, permits, permits_path
from sandboxed_python.broker.paths import find, find_entry, find_or_entry
from sandboxed_python.broker.place import BY_DESCRIPTOR, BY_NAME, Entry, Place, below
from sandboxed_python.broker.request import CONTINUE, DeniedError, GoneError, StoppedError, int32
from sandboxed_python.kernel import notify, tables, uapi
from sandboxed_python.plan.build import filter_scopes
from sandboxed_python.plan.syscalls import CALLS
from sandboxed_python.record.wire import WIRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Answer, Handler, Request

    Judge = Callable[[Request], None]
    Where = tuple[int, int, int]
    """Registers: the descriptor that a relative path starts from or ``_NONE``, the path; and how it is meant."""

_COLUMN = 0 if os.uname().machine == "x86_64" else 1
_NONE = -1
_CWD = uapi.AT_FDCWD & 0xFFFFFFFF
# How a path is meant; from _FLAGS on: as the AT_* flags say in the register of that number.
_FOLLOW, _ITSELF, _NAME, _LINKED, _FLAGS = range(5)

# Where each call's paths are, in the order of judge.NEEDS.
PLACES: dict[str, tuple[Where, ...]] = {
    **dict.fromkeys(
        (
            "stat", "access", "statfs", "getxattr", "listxattr", "setxattr", "removexattr", "chmod", "chown", "utime",
            "utimes", "truncate",
        ),
        ((_NONE, 0, _FOLLOW),),
    ),
    **dict.fromkeys(
        ("lstat", "readlink", "lgetxattr", "llistxattr", "lsetxattr", "lremovexattr", "lchown"),
        ((_NONE, 0, _ITSELF),),
    ),
    **dict.fromkeys(("faccessat", "fchmodat", "futimesat"), ((0, 1, _FOLLOW),)),
    **dict.fromkeys(
        ("statx", "setxattrat", "getxattrat", "listxattrat", "removexattrat"), ((0, 1, _FLAGS + 2),)
    ),
    **dict.fromkeys(("newfstatat", "faccessat2", "fchmodat2", "utimensat"), ((0, 1, _FLAGS + 3),)),
    "fchownat": ((0, 1, _FLAGS + 4),),
    "readlinkat": ((0, 1, _ITSELF),),
    **dict.fromkeys(("fchmod", "fchown", "fsetxattr", "fremovexattr"), ((0, _NONE, _FOLLOW),)),
    **dict.fromkeys(("mkdir", "mknod", "unlink", "rmdir"), ((_NONE, 0, _NAME),)),
    **dict.fromkeys(("mkdirat", "mknodat", "unlinkat"), ((0, 1, _NAME),)),
    "rename": ((_NONE, 0, _NAME), (_NONE, 1, _NAME)),
    **dict.fromkeys(("renameat", "renameat2"), ((0, 1, _NAME), (2, 3, _NAME))),
    "link": ((_NONE, 0, _ITSELF), (_NONE, 1, _NAME)),
    "linkat": ((0, 1, _LINKED), (2, 3, _NAME)),
    "symlink": ((_NONE, 1, _NAME),),
    "symlinkat": ((1, 2, _NAME),),
}  # fmt: skip
_MORE_NEEDS = {
    "setxattrat": (("write",),), "removexattrat": (("write",),),
    "getxattrat": (("read",),), "listxattrat": (("read",),),
}  # fmt: skip
_ATTRIBUTES = frozenset(("getxattr", "lgetxattr", "listxattr", "llistxattr", "getxattrat", "listxattrat"))
_BY_NAME = {call.name: call for call in CALLS}


def handlers(*, listening: bool, way: str) -> dict[int, tuple[str, Handler]]:
    """Return the handlers of every call that the filter for audits notifies.

    Args:
        listening: a log is kept; else nothing is judged.
        way: the plan's: with ``"exec"`` the first execve is the supervisor's own.
    """
    judges: dict[str, Judge] = {
        **dict.fromkeys(tables.BROKERED, _nothing),
        **dict.fromkeys(tables.AUDITED, _static),
        **dict.fromkeys(PLACES, _paths),
        **dict.fromkeys(("open", "openat", "openat2", "creat"), _open),
        **dict.fromkeys(("connect", "bind", "sendto"), _address),
        **dict.fromkeys(("execve", "execveat"), Execs(1 if way == "exec" else 0).judge),
        "access": _access, "faccessat": _access, "faccessat2": _access,
        "socket": _static, "clone3": _clone3, "mmap": _map,
    }  # fmt: skip
    numbers = {**tables.NOTIFIED, **tables.BROKERED, **tables.AUDITED}
    found: dict[int, tuple[str, Handler]] = {}
    for name, judge in judges.items():
        number = numbers[name][_COLUMN]
        if number is not None:
            found[number] = (name, _noting(judge) if listening else _passing)
    number = tables.BROKERED["fsetxattr"][_COLUMN]
    assert number is not None
    found[number] = ("fsetxattr", _wire_or(found[number][1]))
    return found


def _passing(_request: Request) -> Answer:
    """Let the kernel do it."""
    return CONTINUE


def _wire_or(handler: Handler) -> Handler:
    """Answer what is said over the wire, and leave the rest to ``handler``."""

    def handle(request: Request) -> Answer:
        return fsetxattr(request) if request.arguments[0] & 0xFFFFFFFF == WIRE else handler(request)

    return handle


def _noting(judge: Judge) -> Handler:
    """Judge, as the caller where its memory is closed to us; whatever becomes of that, let the kernel do it."""

    def once(request: Request) -> Answer:
        judge(request)
        return CONTINUE

    def handle(request: Request) -> Answer:
        request.context.rooted.clear()  # here, tasks may change their root
        try:
            try:
                return once(request)
            except (notify.ClosedError, DeniedError):
                if not foreign(request):
                    raise
                return call_as(request, once)
        except (notify.ClosedError, DeniedError):  # enforced, what can't be looked at is denied
            for need in request.needs:
                request.denied(need, None)
        except (OSError, GoneError, notify.VanishedError):
            return CONTINUE  # its caller has gone, or gets an errno
        except Exception as error:  # noqa: BLE001 - nothing is denied
            request.wrong(error)
        return CONTINUE

    return handle


def _nothing(_request: Request) -> None:
    """Judge nothing: what the call may do is the kernel's to say."""


# Files


def _paths(request: Request) -> None:
    rows = NEEDS.get(request.name) or _MORE_NEEDS[request.name]
    for where, needs in zip(PLACES[request.name], rows, strict=True):
        _path(request, where, needs)


def _path(request: Request, where: Where, needs: tuple[str, ...]) -> None:
    """Judge one path of a call."""
    at, address, how = where
    arguments = request.arguments
    flags = 0
    if how >= _FLAGS:
        flags = arguments[how - _FLAGS]
    elif how == _LINKED:  # linkat(2): not followed but with AT_SYMLINK_FOLLOW
        flags = arguments[4] ^ uapi.AT_SYMLINK_FOLLOW
        flags = flags & uapi.AT_EMPTY_PATH | (uapi.AT_SYMLINK_NOFOLLOW if flags & uapi.AT_SYMLINK_FOLLOW else 0)
    start = _CWD if at == _NONE else arguments[at]
    pointer = 0 if address == _NONE else arguments[address]
    # Without a path it is the descriptor's file: futimens(3), fchmod(2).
    path = request.read_path(pointer) if pointer else b""
    empty = bool(flags & uapi.AT_EMPTY_PATH) or not pointer
    follow = how != _ITSELF and not flags & uapi.AT_SYMLINK_NOFOLLOW
    for need in needs:
        request.needs = (need,)
        try:
            if how == _NAME:
                entry = find_entry(request, start, path)
                entry.close()
                permits_path(request, entry.path)
            else:
                _found(request, find(request, start, path, follow=follow, empty=empty))
        except StoppedError as stop:
            judge_stop(request, stop)


def _found(request: Request, place: Place) -> None:
    try:
        if request.needs == ("stat",) and place.reached == BY_DESCRIPTOR:
            return
        if request.name in _ATTRIBUTES and request.granted.checks["stat"](place.path):
            return  # no denial but an answer: there are none
        permits(request, place)
    finally:
        place.close()


def _access(request: Request) -> None:
    where = PLACES[request.name][0]
    mode = request.arguments[2 if where[0] == 0 else 1]
    needs = (*(("read",) if mode & os.R_OK else ()), *(("write",) if mode & os.W_OK else ()))
    _path(request, where, ("stat",) if request.granted.policy.granted("fs.metadata") or not needs else needs)


def _open(request: Request) -> None:
    arguments = request.arguments
    name = request.name
    if name == "openat2":  # struct open_how: u64 flags, mode, resolve
        flags = int.from_bytes(notify.read_memory(request.task, arguments[2], 8), "little")
    elif name == "creat":
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
    else:
        flags = arguments[1 if name == "open" else 2]
    start, address = (_CWD, arguments[0]) if name in ("open", "creat") else (arguments[0], arguments[1])
    path = request.read_path(address)
    for need in needs_of_open(flags):
        request.needs = (need,)
        try:
            _opened(request, start, path, flags)
        except StoppedError as stop:
            judge_stop(request, stop)


def _opened(request: Request, start: int, path: bytes, flags: int) -> None:
    follow = not flags & os.O_NOFOLLOW
    if not flags & os.O_CREAT:
        found: Entry | Place = find(request, start, path, follow=follow)
    elif flags & os.O_EXCL or path[-1:] == b"/":
        found = find_entry(request, start, path)
    else:
        found = find_or_entry(request, start, path, follow=follow)
    try:
        if isinstance(found, Entry):
            permits_path(request, found.path)
        elif flags & os.O_TMPFILE == os.O_TMPFILE:
            permits_path(request, below(found.path, "#"))
        elif found.reached == BY_NAME or found.path[:1] == "/":  # pipes and the like are nowhere
            permits(request, found)
    finally:
        found.close()


# Code


def _map(request: Request) -> None:
    """mmap(2) with PROT_EXEC: of a file by which one it is, else by whether machine code may be made."""
    if request.arguments[3] & uapi.MAP_ANONYMOUS:
        _static(request)
        return
    gate = request.granted.gate
    if gate is not None:
        path = descriptor_path(request, request.arguments[4] & 0xFFFFFFFF)
        if not may_map_path(gate, request.granted.policy, path):
            request.resource = os.fsencode(path)
            request.denied("addon", path)


class Execs:
    """Judges execve(2)."""

    def __init__(self, own: int) -> None:
        """Leave out the first ``own`` ones: they are the supervisor's."""
        self._own = own

    def judge(self, request: Request) -> None:
        """Note the start of a program; of one that isn't there, as PATH is searched, nothing."""
        if self._own:
            self._own -= 1
            return
        if request.granted.policy.granted("child"):
            return
        start, address, flags = _CWD, request.arguments[0], 0
        if request.name == "execveat":
            start, address, flags = request.arguments[0], request.arguments[1], request.arguments[4]
        path = request.read_path(address)
        try:
            place = find(request, start, path, empty=bool(flags & uapi.AT_EMPTY_PATH))
        except StoppedError:
            return
        place.close()
        request.denied("child", place.path)


# What the static filter decides by number and arguments


def _static(request: Request, arguments: tuple[int, ...] = ()) -> None:
    row = _BY_NAME[request.name]
    registers = arguments or tuple(request.arguments)
    if any(rule.holds(registers) for rule in row.allowing(filter_scopes(request.granted.policy))):
        return
    scope = next((rule.scope for rule in row.rules if rule.scope and not rule.errno and rule.holds(registers)), "")
    request.denied("ffi" if scope == "exec-memory" else scope, None)


def _clone3(request: Request) -> None:
    """clone3(2): struct clone_args begins with its u64 flags; judged as clone(2)."""
    request.name = "clone"
    flags = int.from_bytes(notify.read_memory(request.task, request.arguments[0], 8), "little")
    _static(request, (flags, 0, 0, 0, 0, 0))


def _address(request: Request) -> None:
    """Connect, bind, sendto: net, and of a Unix socket by path what the path needs besides."""
    address, length = request.arguments[4:6] if request.name == "sendto" else request.arguments[1:3]
    name = read_address(request, address, length)
    request.resource = _host(request, address, length) if name is None else name
    _static(request)
    if name and name[:1] != b"\0":
        request.needs = ("write",)
        try:
            if request.name == "bind":
                entry = find_entry(request, _CWD, name)
                entry.close()
                permits_path(request, entry.path)
            else:
                _found(request, find(request, _CWD, name))
        except StoppedError as stop:
            judge_stop(request, stop)


def _host(request: Request, address: int, length: int) -> bytes:
    """Return the address of an internet socket's peer as text."""
    from _socket import AF_INET, AF_INET6, inet_ntop

    if not 8 <= int32(length) <= 128:
        return b""
    raw = notify.read_memory(request.task, address, int32(length))
    family = int.from_bytes(raw[:2], "little")
    if family == AF_INET:
        return inet_ntop(family, raw[4:8]).encode()
    if family == AF_INET6 and len(raw) >= 24:
        return inet_ntop(family, raw[8:24]).encode()
    return b""
