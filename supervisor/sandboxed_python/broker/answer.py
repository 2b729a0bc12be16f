"""From a notification to its answer: which handler, whose rights, and what becomes of a failure.

Runs in: supervisor. The law: whatever goes wrong is a denial, and nothing is ever let through because of it.
"""

from __future__ import annotations

import os

from sandboxed_python.broker.identity import call_as, changes, foreign
from sandboxed_python.broker.judge import NEEDS, judge_stop
from sandboxed_python.broker.later import hand_over
from sandboxed_python.broker.request import (
    CONTINUE,
    DENIED,
    Answer,
    Context,
    DeniedError,
    GoneError,
    Request,
    StoppedError,
)
from sandboxed_python.kernel import notify, tables, uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxed_python.broker.request import Handler

_COLUMN = 0 if os.uname().machine == "x86_64" else 1

# The modules with the handlers, and the calls that each answers.
MODULES: dict[str, tuple[str, ...]] = {
    "calls_read": (
        "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "statfs",
        "getxattr", "lgetxattr", "listxattr", "llistxattr", "chdir",
    ),
    "calls_change": (
        "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
        "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
        "truncate",
    ),
    "calls_names": (
        "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2",
        "link", "linkat", "symlink", "symlinkat",
    ),
    "calls_open": ("open", "openat", "creat"),
    "calls_socket": ("socket", "connect", "bind", "getsockname", "sendto"),
    "identity": ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset"),
}  # fmt: skip


def load(names: Iterable[str]) -> dict[int, tuple[str, Handler]]:
    """Import the handlers of these calls.

    Args:
        names: of system calls; those that this machine lacks are left out.

    Returns:
        Number of the call -> (name, handler), for ``Context.handlers``.

    Raises:
        KeyError: no handler for a name.
    """
    module_of = {name: module for module, answered in MODULES.items() for name in answered}
    found: dict[int, tuple[str, Handler]] = {}
    for name in names:
        module = __import__(f"sandboxed_python.broker.{module_of[name]}", None, None, ["HANDLERS"])
        number = tables.BROKERED[name][_COLUMN]
        if number is not None:
            found[number] = (name, module.HANDLERS[name])
    return found


def load_all() -> dict[int, tuple[str, Handler]]:
    """Import every handler; see ``load``."""
    return load([name for answered in MODULES.values() for name in answered])


def answer(request: Request, number: int) -> Answer:
    """Do what one notified call asks for, and return what to tell the kernel. Never raises.

    Args:
        request: the call.
        number: of the system call; one without a handler is denied.
    """
    try:
        request.name, handler = request.context.handlers[number]
        needs = NEEDS.get(request.name)
        if needs is not None:
            request.needs = needs[0]
        narrowings = request.context.narrowings
        if narrowings is not None:
            request.granted = narrowings.of(request.task)
        if request.context.identity == "fixed":
            return handler(request)
        return _as_caller(request, handler)
    except StoppedError as stop:
        return _judged(request, stop)
    except (DeniedError, notify.ClosedError):
        for need in request.needs:
            request.denied(need, None)
        return DENIED
    except (GoneError, notify.VanishedError):
        return DENIED  # should it wait after all, it has an answer
    except OSError as error:
        return request.failed(error)
    except Exception as error:  # noqa: BLE001 - the law
        return request.wrong(error)


def _as_caller(request: Request, handler: Handler) -> Answer:
    """Have the work done with the caller's rights, if they are not ours."""
    return call_as(request, handler) if handler is not changes and foreign(request) else handler(request)


def _judged(request: Request, stop: StoppedError) -> Answer:
    try:
        return judge_stop(request, stop)
    except Exception as error:  # noqa: BLE001 - the law
        return request.wrong(error)


def deliver(request: Request, given: Answer) -> None:
    """Tell the kernel an answer, and close what was handed over. A caller that is gone is no error. Never raises."""
    listener = request.context.listener
    kind = given.kind
    try:
        if kind == Answer.REPLY:
            notify.send(listener, request.id, given.error, given.value)
        elif kind == Answer.CONTINUE:
            notify.send(listener, request.id, 0, 0, uapi.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
        elif kind == Answer.DESCRIPTOR:
            hand_over(listener, request.id, given)
    except Exception as error:  # noqa: BLE001 - the law
        notify.send(listener, request.id, request.wrong(error).error)


def serve_one(context: Context) -> bool:
    """Take one notification, do its work and answer it.

    Returns:
        False when there was none to take: its caller has gone, or a signal came.

    Raises:
        OSError: the listener is unusable.
    """
    words = notify.receive(context.listener)
    if words is None:
        return False
    request = Request(context, words[0], words[1], words[3:])
    deliver(request, answer(request, words[2]))
    return True


def close(context: Context, patience: float = 1.0) -> None:
    """Give the last datagrams time to be passed on; call it when the last confined task is gone.

    Args:
        context: of the sandbox that has ended.
        patience: seconds.
    """
    import time

    end = time.monotonic() + patience
    for sender in context.datagrams.values():
        while sender.source.fileno() >= 0 and time.monotonic() < end:
            time.sleep(0.002)
    while context.held:
        os.close(context.held.popitem()[1])


__all__ = ["CONTINUE", "Context", "Request", "answer", "close", "deliver", "load", "load_all", "serve_one"]
