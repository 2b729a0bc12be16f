"""Tearing the hook out: the friendly layer is decoration, and the kernel doesn't mind when it is gone.

The attack: replace ``sys.permission``, add hooks, clear the hook's tables by way of gc, take the wrapped functions'
originals, start interpreters that have no hook, run when the hooks are gone; then read, write, start, connect.
What stops it: Landlock and seccomp; the hook counts for nothing. Source: PEP 578 ("not a sandbox"); THREATS 10
(py_gc_hook, py_hooks_memory), 12 (py_subinterp, py_finalizer).
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TEAR_OUT, leaked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.escape.attack import Attacker
    from tests.support import Finished

# What is tried afterwards; every step by itself, and no error is looked at.
MISCHIEF = """
import socket, subprocess, _thread, time
def mischief():
    for step in (
        lambda: print(open(SECRET + '/data').read()),
        lambda: print(os.read(os.open(SECRET + '/data', 0), 99).decode()),
        lambda: open(SECRET + '/new', 'w').close(),
        lambda: os.mkdir(READ + '/new'),
        lambda: os.unlink(READ + '/data'),
        lambda: os.rename(SECRET + '/data', WRITE + '/stolen'),
        lambda: subprocess.run(['touch', WRITE + '/child']),
        lambda: os.fork() or (open(WRITE + '/child', 'w').close(), os._exit(0)),
        lambda: os.system('touch ' + WRITE + '/child'),
        lambda: socket.socket() and open(WRITE + '/socket', 'w').close(),
        lambda: _thread.start_new_thread(lambda: open(WRITE + '/thread', 'w').close(), ()),
    ):
        try: step()
        except BaseException as error: pass
    time.sleep(0.05)
"""
TEARING = {
    "sys.permission replaced": "class Yes:\n    def has(self, *a): return True\nsys.permission = Yes(); mischief()",
    "sys.permission removed": "try: del sys.permission\nexcept Exception: pass\nmischief()",
    "its methods replaced": "try:\n    p = type(sys.permission)\n    p.has = lambda *a: True\n    p.drop = lambda *a: None\n"
    "except Exception: pass\nmischief()",
    "the error class replaced": "import builtins; builtins.PermissionError = type('PermissionError', (Exception,), {}); mischief()",
    "another hook": "sys.addaudithook(lambda *a: None); mischief()",
    "a hook that raises at hooks": "def hook(event, args):\n    if event == 'sys.addaudithook': raise RuntimeError\n"
    "sys.addaudithook(hook); mischief()",
    "the hook's tables cleared": """
import gc
gc.unfreeze()
for found in gc.get_objects():
    try:
        if isinstance(found, dict) and '__name__' not in found and {'open', 'os.remove'} & found.keys(): found.clear()
    except Exception: pass
mischief()
""",
    "the hook emptied": f"{TEAR_OUT}\nmischief()",
    "every closure emptied": """
import gc
gc.unfreeze()
for found in gc.get_objects():
    code = getattr(found, '__code__', None)
    if hasattr(code, 'co_filename') and ('sandboxed_python' in code.co_filename or code.co_firstlineno == 1):
        try: found.__code__ = (lambda *a, **k: None).__code__
        except Exception: pass
        for cell in found.__closure__ or ():
            try: cell.cell_contents = {}
            except Exception: pass
mischief()
""",
    "policies widened": """
import gc
gc.unfreeze()
for found in gc.get_objects():
    if type(found).__name__ in ('Policy', 'Matcher', 'Judge', 'Permission'):
        for name, value in (('readable', lambda p: True), ('writable', lambda p: True), ('statable', lambda p: True),
                            ('granted', lambda s: True), ('all', True), ('matches', lambda p: True)):
            try: object.__setattr__(found, name, value)
            except Exception: pass
            try: found.__dict__[name] = value
            except Exception: pass
        for name in ('readable', 'writable', 'statable', 'granted', 'matches'):
            try: setattr(type(found), name, lambda *a, **k: True)
            except Exception: pass
mischief()
""",
    "the originals": """
import gc, posix
for found in gc.get_objects():
    if isinstance(found, dict) and 'stat' in found and 'fork' in found:
        os.__dict__.update({k: v for k, v in found.items() if type(v).__name__ == 'builtin_function_or_method'})
mischief()
""",
    "posix loaded again": "import _imp, importlib.machinery\n"
    "spec = importlib.machinery.BuiltinImporter.find_spec('posix')\n"
    "sys.modules.pop('posix', None); posix = importlib.util.module_from_spec(spec) if hasattr(importlib, 'util') else None\n"
    "mischief()",
    "modules forgotten": "for name in list(sys.modules):\n    if name not in ('sys', 'builtins', '__main__'): del sys.modules[name]\n"
    "import os; mischief()",
    "a finalizer": "names = {'__builtins__': __builtins__, **globals()}; exec(MISCHIEF, names)\n"
    "class Last:\n    def __del__(self, run=names['mischief']): run()\nlast = Last()",
    "at exit": "import atexit; atexit.register(mischief)",
    "a signal's handler": "import signal; signal.signal(signal.SIGUSR1, lambda *a: mischief()); signal.raise_signal(signal.SIGUSR1)",
    "a tracer": "sys.settrace(lambda *a: None) if hasattr(sys, 'settrace') else 0; mischief()",
    "another import system": "sys.meta_path.clear(); sys.path_hooks.clear(); mischief()",
    "an interpreter in the interpreter": """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
import json
one = interpreters.create()
names = {k: globals()[k] for k in ('HOME', 'READ', 'WRITE', 'SECRET')}
interpreters.run_string(one, f'import os, sys\\nglobals().update({names!r})\\n' + MISCHIEF + '\\nmischief()')
""",
}


def harm(attacker: Attacker) -> Callable[[Finished], bool]:
    """Return what looks for any of it."""

    def look(ended: Finished) -> bool:
        made = [name for name in ("child", "socket", "thread", "stolen") if attacker.exists(f"write/{name}")]
        made += [name for name in ("secret/new", "read/new") if attacker.exists(name)]
        return leaked(ended) or bool(made) or not attacker.exists("read/data") or not attacker.exists("secret/data")

    return look


@pytest.mark.parametrize("name", TEARING)
def test_torn_out(attacker: Attacker, name: str) -> None:
    body = TEARING[name]
    flags = ["--allow-inspector"] if "settrace" in body else []
    missing = ("ModuleNotFoundError", "ImportError")
    attacker.must_fail(
        f"MISCHIEF = {MISCHIEF!r}\nexec(MISCHIEF)\n{body}",
        *flags,
        harm=harm(attacker),
        ends=("OSError", "RuntimeError", *missing),
        # Tearing the interpreter apart may well crash it.
        code=None,
    )


@pytest.mark.parametrize("way", [(), ("-I",)], ids=["fork", "exec"])
def test_tearing_out_works(attacker: Attacker, way: tuple[str, ...]) -> None:
    """What other attacks rely upon: nobody words the errors any more. The denials are still there, as the kernel's."""
    tries = (
        "open(SECRET + '/data')", "os.open(SECRET + '/new', os.O_CREAT)", "os.listdir(SECRET)", "os.stat(SECRET + '/data')",
        "os.mkdir(READ + '/new')", "os.chmod(READ + '/data', 0)", "os.fork()", "socket.socket()", "os.posix_spawn('/bin/sh', ['sh'], {})",
        "_thread.start_new_thread(print, ())", "ctypes.CDLL(READ + '/data')", "ctypes.CDLL(None).getpid()",
        "sys.settrace(None)",
    )  # fmt: skip
    body = (
        f"import _thread, ctypes, socket\n{TEAR_OUT}\nfor text in {tries!r}:\n"
        "    try: eval(text); print(text, 'done')\n"
        "    except BaseException as error: print(text, type(error).__name__)"
    )
    confined = attacker.confined(body, *way)
    assert confined.stdout.count("\n") == len(tries) + 1, confined.said
    assert "AccessDeniedError" not in confined.stdout, confined.said
    done = {line.rpartition(" ")[0] for line in confined.stdout.splitlines() if line.endswith(" done")}
    # These two are the hook's alone, and give nothing that wasn't there: SECURITY.md.
    assert done == {"ctypes.CDLL(None).getpid()", "sys.settrace(None)", "TRIED:"}, confined.said
    # The twin: as long as it is there, it words them all.
    worded = attacker.confined(body.replace(TEAR_OUT, ""), *way)
    assert worded.stdout.count("AccessDeniedError") == len(tries), worded.said


def test_system_calls_by_machine_code(attacker: Attacker) -> None:
    """Neither libc nor Python is asked: own instructions in executable memory, which ``--allow-ffi`` allows."""
    if platform.machine() != "x86_64":
        pytest.skip(f"needs x86-64, whose instructions these are; found {platform.machine()}")
    attacker.must_fail(
        "page = mapped(4096, 7)\n"
        # mov rax, rdi; mov rdi, rsi; mov rsi, rdx; mov rdx, rcx; syscall; ret
        "ctypes.memmove(page, bytes.fromhex('4889f84889f74889d64889ca0f05c3'), 15)\n"
        "enter = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long, ctypes.c_long)(page)\n"
        "fd = enter(2, (SECRET + '/data').encode(), 0, 0)\n"
        "enter(85, (SECRET + '/new').encode(), 0o644, 0)\n"
        "print(os.read(fd, 99) if fd >= 0 else fd)",
        "--allow-ffi",
        harm=harm(attacker),
    )


def test_forked_without_a_hook(attacker: Attacker) -> None:
    """With ``--allow-child-process``, a Python that knows of no hook: the kernel's part is inherited."""
    attacker.must_fail(
        "import subprocess\n"
        "print(subprocess.run([sys.executable, '-I', '-S', '-c', f'print(open({SECRET + \"/data\"!r}).read())'],\n"
        "                     env={}, capture_output=True, text=True))",
        "--allow-child-process",
        harm=leaked,
    )
