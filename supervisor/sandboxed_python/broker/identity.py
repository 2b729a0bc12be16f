"""Acting with the caller's rights where they are no longer the supervisor's own.

Runs in: supervisor. As an ordinary user no task can change its ids: everything is done as the one user. Root's child may
have become somebody else (``subprocess`` with ``user=``): the serving thread then takes that identity for the length of
one call, and with it the kernel itself sees to it that files belong to whom they should and that nothing is done that
the child could not do. Where that is impossible, the answer is a denial.
"""

from __future__ import annotations

import os

from sandboxed_python.broker.remote import status
from sandboxed_python.broker.request import CONTINUE, DeniedError
from sandboxed_python.kernel import notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Answer, Handler, Request

_KEEP = 0xFFFFFFFF


def foreign(request: Request) -> bool:
    """Tell whether the caller's ids, groups or capabilities differ from ours."""
    theirs = status(request)
    ours = own_status()
    return any(theirs[key] != ours[key] for key in (b"Uid", b"Gid", b"Groups", b"CapEff"))


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
    somebody else. One that has changed only part of its ids, or root that has given up capabilities, is refused.

    Raises:
        DeniedError: the identity can't be taken.
    """
    fields = status(request)
    uids, gids = set(fields[b"Uid"].split()), set(fields[b"Gid"].split())
    if len(uids) != 1 or len(gids) != 1 or uids == {b"0"} or int(fields[b"CapEff"], 16) or os.geteuid() != 0:
        raise DeniedError
    uid, gid = int(uids.pop()), int(gids.pop())
    groups = tuple([int(group) for group in fields[b"Groups"].split()])
    own_groups = tuple([int(group) for group in own_status()[b"Groups"].split()])
    own_gids = [int(number) for number in own_status()[b"Gid"].split()]
    try:
        notify.set_thread_groups(groups)
        notify.set_thread_ids("setresgid", gid, gid, _KEEP)
        notify.set_thread_ids("setresuid", uid, uid, 0)
        return handler(request)
    except PermissionError as error:
        raise DeniedError from error
    finally:
        notify.set_thread_ids("setresuid", 0, 0, 0)
        notify.set_thread_ids("setresgid", *own_gids[:3])
        notify.set_thread_groups(own_groups)


def changes(request: Request) -> Answer:
    """setuid and its like, setgroups, capset: let them through, and look at the caller's identity from now on.

    What these calls may do is the kernel's to say, by the capabilities that were left. A racing thread changes nothing:
    the flag is set before the call is made, and never unset.
    """
    request.context.identity = "unknown"
    return CONTINUE


HANDLERS: dict[str, Handler] = dict.fromkeys(
    ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset"), changes
)
