"""The wrappers of functions without audit events look and behave like what they wrap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.child.test_hook import program, python, run

if TYPE_CHECKING:
    import pathlib

__all__ = ["python"]

NAMES = ("access", "lstat", "mkfifo", "mknod", "open", "pathconf", "readlink", "stat", "statvfs")

LOOKS = f"""
import inspect, pickle, posix, shutil
NAMES = {NAMES!r}
sets = [name for name in dir(os) if name.startswith("supports_") and isinstance(getattr(os, name), set)]
def look():
    for name in NAMES:
        function = getattr(os, name)
        shape = [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        known = [function in getattr(os, each) for each in sets]
        yield function.__name__, function.__qualname__, function.__module__, function.__doc__, shape, known
before, sizes, originals = list(look()), [len(getattr(os, each)) for each in sets], [getattr(os, n) for n in NAMES]
real = posix.stat
confine()
assert list(look()) == before
assert [len(getattr(os, each)) for each in sets] == sizes
assert all(getattr(os, name) is getattr(posix, name) for name in NAMES)
assert not any(getattr(os, name) is original for name, original in zip(NAMES, originals))
assert pickle.loads(pickle.dumps(os.stat)) is os.stat
assert shutil.rmtree.avoids_symlink_attacks
import importlib
assert importlib._bootstrap_external._os.stat is real
assert not hasattr(os.stat, "__wrapped__") and "__file__" not in os.stat.__globals__
print("same")
"""


def test_they_look_the_same(python: str, tmp_path: pathlib.Path) -> None:
    source = program("").removesuffix("confine()\n") + LOOKS
    assert run(source, tmp_path, python).stdout == "same\n"


def test_only_what_is_needed_is_wrapped(tmp_path: pathlib.Path) -> None:
    code = f"print([name for name in {NAMES!r} if type(getattr(os, name)).__name__ == 'function'])"
    always = ["mkfifo", "mknod", "open"]
    guarded = [name for name in NAMES if name != "access"]
    assert run(program(code), tmp_path).stdout == f"{list(NAMES)}\n"
    assert run(program(code, guarded=True), tmp_path).stdout == f"{guarded}\n"
    assert run(program(code, read=["*"]), tmp_path).stdout == f"{always}\n"
    assert run(program(code, scopes=["fs.metadata"]), tmp_path).stdout == f"{always}\n"
    assert run(program(code, mode="audit"), tmp_path).stdout == f"{list(NAMES)}\n"


METADATA = """
import pathlib
for name in ("in/f", "in/nothing", "out/f", "out/nothing", "in", "."):
    row = [told(f"os.{call}") for call in (f"stat({name!r})", f"lstat({name!r})", f"statvfs({name!r})",
           f"pathconf({name!r}, 'PC_NAME_MAX')", f"readlink({name!r})")]
    print(name, *["denied" if isinstance(each, list) else each for each in row],
          os.access(name, os.R_OK), os.access(name, os.W_OK), os.path.exists(name), os.path.isfile(name))
    assert all(each == ["FileSystemRead", name] for each in row if isinstance(each, list))
print(told("os.stat()"), told("os.stat(1.5)"), told("os.stat('in/f', follow_symlinks=False)"), told("os.stat(b'in/f')"),
      told("os.stat(pathlib.Path('in/f'))"), told("os.stat(2)"), told("os.stat('x\\\\0')"), told("os.stat(b'out/f')"))
"""


def test_metadata_is_asked_of_the_policy_first(python: str, tmp_path: pathlib.Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    shown = run(program(METADATA, read=["in"]), tmp_path, python).stdout.splitlines()
    absent = "FileNotFoundError FileNotFoundError FileNotFoundError FileNotFoundError FileNotFoundError"
    denied = "denied denied denied denied denied"
    assert shown == [
        "in/f done done done done OSError True False True True",
        f"in/nothing {absent} False False False False",
        f"out/f {denied} False False False False",
        f"out/nothing {denied} False False False False",
        "in done done done done OSError True False True False",
        ". done done denied denied OSError False False True False",
        "TypeError TypeError done done done done ValueError ['FileSystemRead', 'out/f']",
    ]


# Stands for a kernel that refuses the stat family everywhere but below "in".
KERNEL = """
import posix
def guard(real):
    def function(path, *rest, **named):
        if isinstance(path, str) and not path.startswith(("in", "/")):
            raise PermissionError(13, "Permission denied", path)
        if path == "in/bare":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **named)
    function.__name__ = real.__name__
    return function
for name in ("stat", "lstat", "readlink", "statvfs", "pathconf"):
    function = guard(getattr(posix, name))
    setattr(posix, name, function)
    setattr(os, name, function)
"""


def test_where_the_kernel_guards_its_refusals_are_put_into_words(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_text("x")
    sources = ["stat('in/f')", "stat('out')", "lstat('out')", "readlink('out')", "statvfs('out')",
               "pathconf('out', 'PC_NAME_MAX')", "stat('in/bare')", "stat('in/nothing')"]  # fmt: skip
    code = f"for source in {sources!r}: print(told('os.' + source))"
    shown = run(program(code, read=["in"], guarded=True, before=KERNEL), tmp_path).stdout.splitlines()
    denied = "['FileSystemRead', 'out']"
    assert shown == ["done", denied, denied, denied, denied, denied, "PermissionError", "FileNotFoundError"]


IMPORTS = """
import importlib
sys.path[:0] = ["in", "out", ""]
for name in ("inner", "outer", "middle"):
    try:
        print(importlib.import_module(name).__name__)
    except ImportError as error:
        print(type(error).__name__)
try:
    exec(compile(open("out/outer.py").read(), "x", "exec"))
except PermissionError as error:
    print(error.resource)
"""


def test_what_may_not_be_read_is_not_found_by_imports(python: str, tmp_path: pathlib.Path) -> None:
    for name in ("in/inner", "out/outer", "middle"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    shown = run(program(IMPORTS, read=["in"]), tmp_path, python).stdout
    assert shown == "inner\nModuleNotFoundError\nModuleNotFoundError\nout/outer.py\n"
    shown = run(program(IMPORTS, read=["."]), tmp_path, python).stdout
    assert shown == "inner\nouter\nmiddle\n"
