"""A program's end: whatever the interpreter's clean-up would show is shown, though it is left out where it can't be."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.launch.plain import same
from tests.support import execute

if TYPE_CHECKING:
    import pathlib

    from tests.support import Need

# What a program leaves to the clean-up; each prints, or ends with an exit code, in it.
LEFT = {
    "nothing": "x = [1, {2: (3,)}]\ndef f(): pass",
    "finalizer": "class A:\n def __del__(self): print('deleted')\na = A()",
    "finalizer without a dictionary": "class A:\n __slots__ = ()\n def __del__(self): print('deleted')\na = A()",
    "finalizer in a cycle": "class A:\n def __del__(self): print('deleted')\na = A(); a.a = a; del a",
    "finalizer in builtins": "import builtins\nclass A:\n def __del__(self): print('deleted')\nbuiltins.a = A()",
    "finalizer in sys": "import sys\nclass A:\n def __del__(self): print('deleted')\nsys.a = A(); del A",
    "finalizer of an argument": "class A:\n def __del__(self): print('deleted')\ndef f(a=A()): pass",
    "module": "import sys\nsys.modules['__main__'] = type('M', (), {'__del__': lambda self: print('deleted')})()",
    "generator": "def f():\n try: yield\n finally: print('closed')\ng = f(); next(g)",
    "coroutine": "async def f(): pass\nc = f()",
    "weak reference": "import weakref\nclass A: pass\na = A(); r = weakref.ref(a, lambda r: print('gone'))",
    "finalize": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'gone')",
    "atexit": "import atexit\natexit.register(print, 'at exit')",
    "atexit, hidden": "import atexit, sys\natexit.register(print, 'at exit')\ndel sys.modules['atexit']",
    "collection": "import gc\ngc.callbacks.append(lambda phase, info: print(phase))",
    "collection, hidden": "import gc, sys\ngc.callbacks.append(lambda *a: print('gc'))\ndel sys.modules['gc'], gc",
    "audit hook": "import sys\nsys.addaudithook(lambda event, _: print(event) if event.startswith('cpython') else None)",
    "unwritten output": "import sys\nsys.stdout.write('no newline')\nsys.stderr.write('none either')",
    "another stdout": "import io, sys\nsys.stdout = io.TextIOWrapper(open('/dev/stdout', 'wb'))\nprint('there')",
    "closed stdout": "import sys\nprint('x'); sys.stdout.close()",
    "stdout's descriptor closed": "import os\nprint('x'); os.close(1)",
    "stdout taken away": "import sys\ndel sys.stdout",
    "the first stdout taken away": "import sys\ndel sys.__stdout__",
    "no environment": "import os\nos.environ = None",
    "no modules": "import sys\nsys.modules = None",
    "another _exit": "import os\nos._exit = lambda code: print('called')",
    "other counts": "import atexit, _thread\natexit._ncallbacks = _thread._count = lambda: print('called')",
    "other builtins": "import builtins\nbuiltins.type = builtins.len = lambda *_: print('called')",
    "no stdout": "import sys\nprint('x')\nsys.stdout = None",
    "profile": "import sys\nsys.setprofile(lambda *_: None)\nclass A:\n def __del__(self): print('deleted')\na = A()",
    "exit code": "import sys\nsys.exit(3)",
    "exit message": "raise SystemExit('over')",
    "a fork": "import os\nif os.fork() == 0: print('child')\nelse: os.wait(); print('parent')",
}
GRANTS = {
    "import sys\nsys.setprofile": ["--allow-inspector", "--no-warnings"],
    "import os\nif os.fork": ["--allow-child-process", "--no-warnings"],
}


@pytest.mark.slow
@pytest.mark.parametrize("program", LEFT.values(), ids=LEFT)
def test_a_program_ends_as_under_plain_python(program: str, tmp_path: pathlib.Path, needs: Need) -> None:
    needs()
    script = tmp_path / "program.py"
    script.write_text(program + "\n", encoding="utf-8")
    same(script, grants=GRANTS.get(program.partition("(")[0], []))


def test_a_file_that_was_left_open_is_written(tmp_path: pathlib.Path, needs: Need) -> None:
    needs()
    script = tmp_path / "program.py"
    script.write_text("import sys\nfile = open(sys.argv[1], 'w'); file.write('whole')\n", encoding="utf-8")
    out = tmp_path / "out"
    same(script, out, grants=[f"--allow-fs-write={out}"])
    assert out.read_text(encoding="utf-8") == "whole"


def test_a_full_disk_at_the_end(tmp_path: pathlib.Path, needs: Need) -> None:
    needs()
    script = tmp_path / "program.py"
    script.write_text("print('lost')\n", encoding="utf-8")
    ended = same("-c", f"import os, sys; os.dup2(os.open('/dev/full', 1), 1); exec(open({str(script)!r}).read())",
                 grants=["--allow-fs-read=*", "--allow-fs-write=/dev/full"])  # fmt: skip
    assert ended.code == 120


ALONE = """
import sys
_baseline = frozenset(sys.modules)
from sandboxed_python.child.ending import Ending
ending = Ending(_baseline)
for name in set(sys.modules) - _baseline: del sys.modules[name]
old, main = sys.modules["__main__"], type(sys)("__main__")
sys.modules["__main__"] = main
ending.begin()
exec({program!r}, main.__dict__)
ending.end(None)
import os
os._exit(7)
"""


@pytest.mark.parametrize(("program", "code"), [(LEFT["nothing"], 0), (LEFT["finalizer"], 7), (LEFT["atexit"], 7)])
def test_the_clean_up_is_left_out_only_where_nothing_is_left(program: str, code: int) -> None:
    ended = execute([sys.executable, "-I", "-c", ALONE.format(program=program)])
    assert (ended.code, ended.stdout) == (code, ""), ended.said


def test_modules_of_the_environment_may_hold_something(tmp_path: pathlib.Path) -> None:
    (tmp_path / "early.py").write_text("file = open('/dev/null', 'w')\n", encoding="utf-8")
    (tmp_path / "named.py").write_text("import os\nname = 'x'\ndef f(): return os\n", encoding="utf-8")
    for module, code in (("early", 7), ("named", 0)):
        text = f"import sys; sys.path.insert(0, {os.fspath(tmp_path)!r}); import {module}; del sys.path[0]"
        ended = execute([sys.executable, "-I", "-c", text + ALONE.format(program="")])
        assert ended.code == code, ended.said
