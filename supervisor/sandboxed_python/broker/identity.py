"""Acting with the caller's rights where they are no longer the supervisor's own.

Runs in: supervisor. As an ordinary user without capabilities no task can change its ids: everything is done as the one
user. Root's child may have become somebody else (``subprocess`` with ``user=``), and what an ordinary user with
capabilities starts has lost them (execve(2)): the serving thread then takes that identity for the length of one call,
and with it the kernel itself sees to it that files belong to whom they should and that nothing is done that the child
could not do. Where that is impossible, the answer is a denial.
"""

from __future__ import annotations

import os

from sandboxed_python.broker.remote import status
from sandboxed_python.broker.request import CONTINUE, DeniedError
from sandboxed_python.kernel import files, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Answer, Handler, Request

_KEEP = 0xFFFFFFFF
_IDS = (b"Uid", b"Gid", b"Groups")


def at_first() -> str:
    """Return what ``Context.identity`` starts with.

    Programs that root starts have the capabilities that root kept; an ordinary user's end at the first execve(2).
    """
    return "unknown" if os.geteuid() and process.get_capabilities()[0] else "fixed"


def foreign(request: Request) -> bool:
    """Tell whether the caller's ids, groups or capabilities differ from ours."""
    theirs = status(request)
    ours = own_status()
    return any(theirs[key] != ours[key] for key in (*_IDS, b"CapEff"))


def own_status() -> dict[bytes, bytes]:
    """Return the fields of our own status file that tell who we are."""
    if not _own:
        with open("/proc/thread-self/status", "rb", 0) as file:
            pairs = [line.partition(b":") for line in file.read().split(b"\n")]
        _own.update((key, value.strip()) for key, _colon, value in pairs)
    return _own


_own: dict[bytes, bytes] = {}


def call_as(request: Request, handler: Handler) -> Answer:
    """Run a handler with the caller's identity.

    The real ids are taken over, too: process_vm_readv(2) compares them, and access(2) means them. The saved id stays
    root's, as the way back; a changed effective id has no capabilities meanwhile. That covers a caller that is wholly
    somebody else. One with our ids that has given up capabilities is followed by giving up their effect. One that has
    changed only part of its ids can't be followed: its calls are denied, but that Landlock goes on judging what it
    opens.

    Raises:
        DeniedError: the identity can't be taken.
    """
    fields = status(request)
    if all(fields[key] == own_status()[key] for key in _IDS):
        return _call_with_less(request, handler, int(fields[b"CapEff"], 16))
    uids, gids = set(fields[b"Uid"].split()), set(fields[b"Gid"].split())
    if len(uids) != 1 or len(gids) != 1 or uids == {b"0"} or int(fields[b"CapEff"], 16) or os.geteuid() != 0:
        return _call_as_stranger(request, handler)
    uid, gid = int(uids.pop()), int(gids.pop())
    own_gids = [int(number) for number in own_status()[b"Gid"].split()]
    held = process.get_capabilities()
    try:
        _become(uid, gid, fields[b"Groups"])
        process.set_capabilities(0, *held[1:])  # secure bits may have kept them (SECBIT_NO_SETUID_FIXUP)
        return handler(request)
    finally:
        files.set_thread_ids("setresuid", 0, 0, 0)
        process.set_capabilities(*held)
        files.set_thread_ids("setresgid", *own_gids[:3])
        files.set_thread_groups(_numbers(own_status()[b"Groups"]))


def _call_with_less(request: Request, handler: Handler, theirs: int) -> Answer:
    """Run a handler without the effect of the capabilities that the caller doesn't have."""
    effective, permitted, inheritable = process.get_capabilities()
    if theirs & ~permitted:
        return _call_as_stranger(request, handler)
    try:
        process.set_capabilities(theirs, permitted, inheritable)
        return handler(request)
    finally:
        process.set_capabilities(effective, permitted, inheritable)


def _call_as_stranger(request: Request, handler: Handler) -> Answer:
    if handler.__name__ in OPENING:
        request.stranger = True
        return handler(request)
    raise DeniedError


OPENING = frozenset(("open_", "openat", "creat"))
"""Handlers that know what to do for a caller that we can't be."""


def _become(uid: int, gid: int, groups: bytes) -> None:
    try:
        files.set_thread_groups(_numbers(groups))
        files.set_thread_ids("setresgid", gid, gid, _KEEP)
        files.set_thread_ids("setresuid", uid, uid, 0)
    except OSError as error:
        raise DeniedError from error


def _numbers(text: bytes) -> tuple[int, ...]:
    return tuple([int(number) for number in text.split()])


def changes(request: Request) -> Answer:
    """Setuid and its like, setgroups, capset: let them through, and look at the caller's identity from now on.

    What these calls may do is the kernel's to say, by the capabilities that were left. A racing thread changes nothing:
    the flag is set before the call is made, and never unset.

    Raises:
        OSError: what has to be ready before ids change can't be made ready.
    """
    if request.context.on_change is not None:
        request.context.on_change()
    request.context.identity = "unknown"
    return CONTINUE


HANDLERS: dict[str, Handler] = dict.fromkeys(
    ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset"), changes
)
