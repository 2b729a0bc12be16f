"""Answers that have to wait: opening a named pipe, a slow device, connecting to a busy socket.

Runs in: supervisor. The serving thread never blocks on what the child controls: such a call is made by a thread of its
own, which then answers. A caller that dies meanwhile leaves its thread waiting; the next such call wakes it up.
"""

from __future__ import annotations

import _thread
import errno
import os

from sandboxed_python.broker.request import DENIED, NOTHING, Answer, roam
from sandboxed_python.kernel import notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.broker.request import Request

MOST = 32  # waiting at once; more are refused

# What waits: (request, path by which a waiting open of a named pipe can be ended).
_waiting: dict[int, tuple[Request, str]] = {}


def later(request: Request, work: Callable[[], Answer], wake: str = "") -> Answer:
    """Have ``work`` done by another thread and the call answered by it.

    Args:
        request: the call.
        work: blocks, and returns what to answer; OSError is answered with its errno.
        wake: a path whose opening for reading and writing ends the waiting (of a named pipe).

    Returns:
        What the serving thread does: nothing, or a denial when too much is waiting already.
    """
    for waiting, path in list(_waiting.values()):
        if path and not notify.id_valid(waiting.context.listener, waiting.id):
            _poke(path)
    if len(_waiting) >= MOST:
        return DENIED
    # A copy of the listener: the number may mean something else when the thread is done.
    listener = os.dup(request.context.listener)
    _waiting[request.id] = (request, wake)
    try:
        _thread.start_new_thread(_work, (listener, request, work))
    except RuntimeError:
        del _waiting[request.id]
        os.close(listener)
        return DENIED
    return NOTHING


def _poke(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return


def _work(listener: int, request: Request, work: Callable[[], Answer]) -> None:
    answer = DENIED
    try:
        roam(request.context)
        answer = work()
    except OSError as error:
        answer = request.failed(error)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is a denial
        answer = request.wrong(error)
    finally:
        _waiting.pop(request.id, None)
        try:
            hand_over(listener, request.id, answer)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is a denial
            notify.send_apart(listener, request.id, request.wrong(error).error, 0)
        finally:
            os.close(listener)


def hand_over(listener: int, cookie: int, answer: Answer) -> None:
    """Give an answer to the kernel, from any thread, and close its descriptor.

    An answer that can't be given as it is becomes its errno: EMFILE when the caller's table is full.
    """
    error, value = answer.error, answer.value
    if answer.kind == Answer.DESCRIPTOR:
        try:
            notify.add_descriptor(
                listener, cookie, answer.descriptor, close_on_exec=answer.close_on_exec, replace=answer.replace
            )
            if answer.replace < 0:
                return  # answered in the same step
        except OSError as failed:
            error = failed.errno or errno.EACCES
        finally:
            os.close(answer.descriptor)
    notify.send_apart(listener, cookie, error, value)
