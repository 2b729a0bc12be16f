"""Exit codes: one table, and passing on how the child ended.

Runs in: supervisor.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the signal module on top of it imports enum


# (code, name, meaning)
EXIT_CODES = (
    (0, "OK", "the program ended well"),
    (1, "FAILURE", "the program raised (an uncaught denial, too), or --allow-* without --permission (Node: 1)"),
    (2, "PYTHON_USAGE", "python can't open the script, as with plain python"),
    (9, "BAD_OPTION", "unknown option, missing value, bad policy file or refused grant (Node: 9)"),
    (124, "LIMIT", "a limit ended the job: --limit-time and its like (timeout: 124)"),
    (125, "SANDBOX", "the sandbox could not be set up, or this kernel can't enforce the policy (docker, env: 125)"),
    (126, "NOT_EXECUTABLE", "the interpreter given by --python can't be executed (shell: 126)"),
    (127, "NOT_FOUND", "the interpreter given by --python does not exist (shell: 127)"),
    (128, "SIGNAL", "128+n: the program ended by signal n, where the signal itself can't be passed on (PID 1)"),
)
CODE = {name: code for code, name, _meaning in EXIT_CODES}


def end_as(status: int) -> None:
    """End this process as the child with wait status ``status`` ended: same exit code, or same signal.

    Core dumps are switched off first, so that one crash leaves no second core. Does not return.
    """
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Not those of libc's own (32 and 33), which it lets nobody handle.
    if number in _signal.valid_signals() - {_signal.SIGKILL, getattr(_signal, "SIGSTOP", 19)}:
        _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(CODE["SIGNAL"] + number)  # the kernel drops deadly signals that PID 1 sends to itself
