"""Denials leave no frame of the package in a traceback, and are raised once, where they belong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.child.test_hook import SUPERVISOR, program, python, run

if TYPE_CHECKING:
    import pathlib

__all__ = ["python"]

OPENINGS = """
import traceback
def attempt(source):
    try:
        eval(source)
    except OSError as error:
        print("".join(traceback.format_exception(type(error), error, error.__traceback__)))
for source in ("open('out')", "os.listdir('out')", "os.mkdir('out')", "os.fork()", "os.stat('out')", "os.mkfifo('out')",
               "__import__('socket').socket()", "__import__('threading').Thread(target=int).start()"):
    attempt(source)
"""


def test_no_frame_of_ours(python: str, tmp_path: pathlib.Path) -> None:
    shown = run(program(OPENINGS), tmp_path, python).stdout
    assert shown.count("sandboxed_python.AccessDeniedError: Access to this API has been restricted.") == 8
    assert SUPERVISOR not in shown
    assert 'File "<string>", line 1, in <module>\n' + "sandboxed_python.AccessDeniedError" in shown
    assert 'File "<frozen os>", line' in shown


ONCE = """
import gc, weakref
class Mark: pass
def attempt():
    mark = Mark()
    try:
        open("out")
    except PermissionError as error:
        seen = weakref.ref(error)
        print(error.resource, error.__context__, error.__cause__)
    return weakref.ref(mark), seen
gone = attempt()
print([ref() for ref in gone])
for _ in range(3):
    open(os.__file__).close()
    os.listdir(os.path.dirname(os.__file__))
for _ in range(3):
    try:
        raise KeyError("first")
    except KeyError:
        try:
            open("out")
        except PermissionError as error:
            print(repr(error.__context__))
"""


def test_a_denial_is_raised_once_and_let_go(python: str, tmp_path: pathlib.Path) -> None:
    shown = run(program(ONCE), tmp_path, python).stdout
    assert shown == "out None None\n[None, None]\n" + "KeyError('first')\n" * 3


THREADS = """
import sys, threading
sys.setswitchinterval(1e-6)
stopped, wrong = threading.Event(), []
def denied(name):
    while not stopped.is_set():
        try:
            open(name)
            wrong.append("opened")
        except PermissionError as error:
            if error.resource != name:
                wrong.append(error.resource)
def granted():
    while not stopped.is_set():
        try:
            open(os.__file__).close()
            os.listdir(os.path.dirname(os.__file__))
        except PermissionError as error:
            wrong.append(error.resource)
threads = [threading.Thread(target=denied, args=(name,)) for name in ("a", "b")]
threads += [threading.Thread(target=granted) for _ in range(2)]
for thread in threads: thread.start()
stopped.wait(0.5)
stopped.set()
for thread in threads: thread.join()
print(wrong)
"""


def test_threads_get_their_own_denials(python: str, tmp_path: pathlib.Path) -> None:
    assert run(program(THREADS, scopes=["worker"]), tmp_path, python).stdout == "[]\n"


OTHERS = """
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
class Odd(os.PathLike):
    def __fspath__(self):
        try:
            open("inner")
        except PermissionError as error:
            seen.append(error.resource)
        return "outer"
try:
    open(Odd())
except PermissionError as error:
    print(error.resource, "inner" in seen)
def deep(n):
    try:
        open(os.__file__).close()
    except RecursionError:
        return
    deep(n + 1)
try:
    deep(0)
except RecursionError:
    pass
print(told("open('out')"), told("open(os.__file__).close()"))
"""


def test_other_hooks_and_nested_events_and_deep_stacks(python: str, tmp_path: pathlib.Path) -> None:
    shown = run(program(OTHERS), tmp_path, python).stdout
    assert shown == "outer True\n['FileSystemRead', 'out'] done\n"


def test_tracing_does_not_see_the_hook(tmp_path: pathlib.Path) -> None:
    code = """
files = set()
def trace(frame, event, argument):
    files.add(frame.f_code.co_filename)
    return trace
sys.settrace(trace)
told("open('out')")
sys.settrace(None)
print(sorted(files))
"""
    shown = run(program(code, scopes=["inspector"]), tmp_path).stdout
    assert os.path.basename(SUPERVISOR) not in shown
