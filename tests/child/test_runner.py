"""The program sees a Python that looks untouched: everything is compared with plain python on the same interpreter."""

from __future__ import annotations

import os
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.child.runner import Start
from tests.launch.plain import confined, plain, plain_python, same
from tests.support import execute, installed

if TYPE_CHECKING:
    from tests.support import Need, Run

# The way in which a program starts: in a fork of the supervisor's interpreter, or in one that is exec'ed.
WAYS = pytest.mark.parametrize("option", [(), ("-Wdefault",)], ids=["fork", "exec"])
Option = tuple[str, ...]


@pytest.fixture(autouse=True)
def _needs(needs: Need) -> None:
    needs()


def write(folder: str, name: str, text: str) -> str:
    path = f"{folder}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


# Where the program is looked for


def test_a_script_is_looked_for_where_it_really_is_and_read_once(folder: str) -> None:
    """Before the program is confined, so that neither costs a call to the supervisor afterwards."""
    path = write(folder, "real/job.py", "print(1)")
    os.symlink("real/job.py", f"{folder}/link.py")
    for target in (path, f"{folder}/link.py", f"{folder}/./real/../link.py"):
        start = Start("script", target, read=True)
        assert (start.kind, start.target, start.folder) == ("script", target, f"{folder}/real")
        assert start.source == b"print(1)"


def test_a_script_that_may_not_be_read_is_left_to_the_kernel(folder: str) -> None:
    start = Start("script", write(folder, "job.py", "print(1)"), read=False)
    assert (start.folder, start.source) == (folder, None)


@pytest.mark.parametrize("name", ["none.py", "none/none.py", "loop.py", "folder"])
def test_a_script_that_cannot_be_read_is_left_to_its_run(folder: str, name: str) -> None:
    """Which then words the error as python does."""
    os.symlink("loop.py", f"{folder}/loop.py")
    os.mkdir(f"{folder}/folder")
    start = Start("script", f"{folder}/{name}", read=True)
    assert start.source is None
    assert start.folder == os.path.dirname(f"{folder}/{name}")


@pytest.mark.parametrize("kind", ["module", "code", "stdin", "path"])
def test_only_scripts_are_looked_for(folder: str, kind: str) -> None:
    start = Start(kind, write(folder, "job.py", "print(1)"), read=True)
    assert (start.kind, start.folder, start.source) == (kind, "", None)


# What the program is told

FACTS = """
import sys
print(sys.argv, sys.orig_argv, sys.path, sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, sep="\\n")
print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode, sys.pycache_prefix, sep="\\n")
"""
MAIN = """
main = sys.modules["__main__"]
print(type(main), main.__name__, main.__doc__, main.__package__, main.__spec__)
print(type(main.__loader__) if not isinstance(main.__loader__, type) else main.__loader__)
print(sorted(vars(main)), getattr(main, "__file__", None), getattr(main, "__cached__", None))
print(main.__builtins__, main.__dict__ is globals(), __name__)
"""
MODULES = """
import sys
print(sorted(sys.modules))
print([name for name in sys.modules if "sandbox" in name], [path for path in sys.path if "sandboxed_python" in path])
"""
STATE = """
import sys, signal, gc, threading, warnings, os, locale
print(sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.getrecursionlimit())
print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile())
print(threading.active_count(), threading.main_thread().ident == threading.get_ident(), warnings.filters)
print([(int(n), str(signal.getsignal(n))) for n in sorted(signal.valid_signals())], signal.pthread_sigmask(0, []))
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.newlines, stream.line_buffering, stream.write_through,
          stream.fileno(), stream.isatty(), stream is getattr(sys, "__" + stream.name.strip("<>") + "__"))
print(os.umask(0o22), sorted(os.environ.items()), os.getcwd(), os.getuid(), os.getgroups(), os.nice(0))
print(sys.getfilesystemencoding(), sys.getdefaultencoding(), locale.setlocale(locale.LC_ALL), sys.path_hooks, sys.meta_path)
def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False
print([number for number in range(100) if is_open(number)])
"""


@WAYS
@pytest.mark.parametrize("kind", ["script", "code", "module", "stdin", "dash", "folder", "zip", "package"])
def test_what_a_program_is_told(folder: str, option: Option, kind: str) -> None:
    source = MODULES + FACTS + MAIN
    write(folder, "job.py", source)
    write(folder, "app/__main__.py", source)
    write(folder, "pack/__init__.py", "")
    write(folder, "pack/__main__.py", source)
    with zipfile.ZipFile(f"{folder}/app.zip", "w") as file:
        file.writestr("__main__.py", source)
    words = {
        "script": ["job.py"],
        "code": ["-c", source],
        "module": ["-m", "job"],
        "stdin": [],
        "dash": ["-"],
        "folder": ["app"],
        "zip": ["app.zip"],
        "package": ["-m", "pack"],
    }[kind]
    text = source if kind in ("stdin", "dash") else None
    arguments = ["a b", "--permission", "-x"] if kind != "stdin" else []
    ended = same(*option, *words, *arguments, cwd=folder, grants=[f"--allow-fs-read={folder}"], stdin=text)
    assert ended.code == 0, ended.said
    assert ended.stdout


@WAYS
def test_the_state_of_the_interpreter(folder: str, option: Option) -> None:
    program = write(folder, "job.py", STATE)
    ended = same(*option, program, grants=["--allow-fs-metadata"], stdin="x")
    assert ended.code == 0, ended.said


def test_annotations_and_doc_of_main(folder: str) -> None:
    program = write(folder, "job.py", '"""Doc."""\nx: int = 1\nprint(__doc__, __annotations__)\nimport typing\n')
    assert same(program).code == 0


@pytest.mark.parametrize("path", ["job.py", "./job.py", "sub/../job.py", "sub//link.py", "absolute", "linked/job.py"])
def test_the_scripts_folder_is_first_on_the_path(folder: str, path: str) -> None:
    os.makedirs(f"{folder}/sub")
    write(folder, "job.py", "import sys, beside; print(sys.path[0], __file__, sys.argv, beside.x)")
    write(folder, "beside.py", "x = 1")
    os.symlink("../job.py", f"{folder}/sub/link.py")
    os.symlink(folder, f"{folder}/sub/here")
    os.symlink(".", f"{folder}/linked")
    word = f"{folder}/job.py" if path == "absolute" else path
    ended = same(word, cwd=folder, grants=[f"--allow-fs-read={folder}"])
    assert ended.code == 0, ended.said


@pytest.mark.parametrize(
    "option", ["-I", "-P", "-E", "-s", "-S", "-B", "-O", "-OO", "-u", "-v", "-d", "-b", "-bb", "-q"]
)
def test_pythons_options(folder: str, option: str) -> None:
    if option == "-P" and sys.version_info < (3, 11):
        pytest.skip("needs Python 3.11, which has -P; found an older one")
    program = write(folder, "job.py", FACTS + "\nprint(__debug__)")
    expected, found = plain(option, program, "x"), confined(option, program, "x")
    assert found.code == expected.code == 0, found.said
    assert found.stdout.replace("'-O', '-O'", "'-OO'").replace("'-b', '-b'", "'-bb'") == expected.stdout
    assert option == "-v" or found.stderr == expected.stderr  # it tells every import, ours too


@pytest.mark.parametrize(
    "options",
    [
        ["-W", "error", "-c", "import warnings; warnings.warn('w')"],
        ["-Wignore", "-c", "import warnings; warnings.warn('w'); print(warnings.filters[0])"],
        ["-X", "dev", "-c", "import sys; print(sys.flags.dev_mode, sys.warnoptions)"],
        ["-X", "utf8=0", "-c", "import sys; print(sys.flags.utf8_mode, sys._xoptions)"],
        ["-X", "faulthandler", "-c", "import faulthandler; print(faulthandler.is_enabled())"],
        ["-X", "tracemalloc=3", "-c", "import tracemalloc; print(tracemalloc.get_traceback_limit())"],
        ["-OO", "-c", "def f():\n 'doc'\nassert False\nprint(f.__doc__)"],
        ["-Ic", "import sys; print(sys.flags.isolated, sys.path[:1])"],
        ["-bb", "-c", "print(b'' == '')"],
        ["--check-hash-based-pycs", "always", "-c", "print(1)"],
        ["-u", "-c", "import sys; print(sys.stdout.write_through, sys.stdout.line_buffering)"],
        ["-x", "SKIP"],
    ],
)
def test_pythons_options_with_effects(folder: str, options: list[str]) -> None:
    if options == ["-x", "SKIP"]:
        options = ["-x", write(folder, "job.py", "this is no python\nprint('second line')\n")]
    same(*options)


def test_environment_variables_that_load_nothing(folder: str) -> None:
    program = write(folder, "job.py", FACTS)
    for name, value in (
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONUTF8", "1"),
        ("PYTHONIOENCODING", "latin-1"),
        ("PYTHONNOUSERSITE", "1"),
        ("PYTHONFAULTHANDLER", "1"),
        ("PYTHONSAFEPATH", "1"),
    ):
        same(program, env={name: value})


@pytest.mark.parametrize(
    "source",
    [
        b"# \xe4\nprint(1)\n",
        b"print(1)\nprint('\xe4')\n",
        b"# coding: latin-1\nprint(ascii('\xe4'))\n",
        b"#\n# vim: set fileencoding=latin-1 :\nprint(ascii('\xe4'))\n",
        b"\xef\xbb\xbfprint(ascii('\xc3\xa4'))\n",
        "print(ascii('\u00e4\U0001f600'))\n".encode(),
        b"print(1)\r\nprint(2)\rprint(3)",
        b"\nif x\n",
    ],
)
def test_bytes_of_a_script(folder: str, source: bytes) -> None:
    program = f"{folder}/job.py"
    with open(program, "wb") as file:
        file.write(source)
    same(program)


# Exit codes

EXITS = [
    ("", 0),
    ("import sys; sys.exit()", 0),
    ("import sys; sys.exit(None)", 0),
    ("import sys; sys.exit(0)", 0),
    ("import sys; sys.exit(3)", 3),
    ("import sys; sys.exit(256 + 7)", 7),
    ("import sys; sys.exit(-1)", 255),
    ("import sys; sys.exit(2**70)", 255),
    ("import sys; sys.exit(True)", 1),
    ("import sys; sys.exit(False)", 0),
    ("import sys; sys.exit('text')", 1),
    ("import sys; sys.exit('t\\udcffxt')", 1),
    ("import sys; sys.exit((1, 2))", 1),
    ("raise SystemExit(4)", 4),
    ("raise SystemExit", 0),
    ("import os; os._exit(5)", 5),
    ("import sys\ntry:\n 1/0\nfinally:\n sys.exit(6)", 6),
    ("import builtins; exit(8)", 8),
    ("quit()", 0),
]


@pytest.mark.parametrize(("source", "code"), EXITS)
def test_exit_codes(source: str, code: int) -> None:
    assert same("-c", source).code == code


@pytest.mark.parametrize(("source", "code"), EXITS[:8:3])
def test_exit_codes_of_the_exec_way(source: str, code: int) -> None:
    assert same("-B", "-c", source).code == code


# Uncaught exceptions

FAILURES = {
    "raised": "def f(x):\n    return 1 / x\n\ndef g():\n    f(0)\n\ng()\n",
    "chained": "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('outer') from e\n",
    "in context": "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('outer')\n",
    "suppressed": "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('outer') from None\n",
    "multi-line": "raise ValueError(\n    'a'\n    'b\\nc'\n)\n",
    "base": "raise BaseException('b')\n",
    "generator": "raise GeneratorExit\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "interrupt text": "raise KeyboardInterrupt('why')\n",
    "own class": "class E(Exception):\n    def __str__(self):\n        return 'own'\nraise E\n",
    "bad str": "class E(Exception):\n    def __str__(self):\n        return 1 / 0\nraise E\n",
    "syntax": "x = (1,\nprint('never'\n",
    "indent": "if 1:\nx = 1\n",
    "tab": "if 1:\n\tx\n        y\n",
    "from eval": "eval('1 +')\n",
    "from exec": "exec('1/0')\n",
    "compiled": "exec(compile('\\n\\n1/0', 'elsewhere.py', 'exec'))\n",
    "name": "foo = 1\nfooo\n",
    "attribute": "import os\nos.paht\n",
    "import": "import no_such_module\n",
    "import from": "from os import no_such_name\n",
    "unicode": "raise ValueError('\\u20ac \\udcff')\n",
    "assertion": "assert 1 == 2, 'why'\n",
    "null": "x = '\\0'\nraise ValueError(x)\n",
    "memory": "x = 'a' * (1 << 60)\n",
    "os": "open('')\n",
    "lambda": "(lambda: [1 for _ in [1] if 1/0])()\n",
    "decorated": "def d(f):\n    return f()\n@d\ndef g():\n    raise ValueError\n",
    "thrown in with": "class C:\n    def __enter__(self): pass\n    def __exit__(self, *a): raise KeyError(1)\nwith C():\n    1/0\n",
    "in import": "import broken\n",
    "syntax in import": "import unparsable\n",
    "exit in import": "import exiting\n",
}
if sys.version_info >= (3, 11):
    FAILURES["group"] = "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])\n"
    FAILURES["note"] = "e = ValueError(1)\ne.add_note('a note')\nraise e\n"


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *[(name, ()) for name in FAILURES],
        *[(name, ("-B",)) for name in ("chained", "syntax", "interrupt", "in import")],
    ],
)
def test_uncaught_exceptions_look_the_same(folder: str, option: Option, name: str) -> None:
    write(folder, "broken.py", "def f():\n    1 / 0\nf()\n")
    write(folder, "unparsable.py", "def f(:\n    pass\n")
    write(folder, "exiting.py", "raise SystemExit(11)\n")
    write(folder, "job.py", FAILURES[name])
    ended = same(*option, "job.py", cwd=folder, grants=[f"--allow-fs-read={folder}"])
    assert ended.code != 0


@pytest.mark.parametrize("name", ["raised", "syntax", "syntax in import"])
@pytest.mark.parametrize("kind", ["code", "module", "stdin", "folder", "zip"])
def test_uncaught_exceptions_of_every_target(folder: str, name: str, kind: str) -> None:
    source = FAILURES[name]
    write(folder, "broken.py", "def f():\n    1 / 0\nf()\n")
    write(folder, "unparsable.py", "def f(:\n    pass\n")
    write(folder, "job.py", source)
    write(folder, "app/__main__.py", source)
    with zipfile.ZipFile(f"{folder}/app.zip", "w") as file:
        file.writestr("__main__.py", source)
    words = {"code": ["-c", source], "module": ["-m", "job"], "stdin": [], "folder": ["app"], "zip": ["app.zip"]}[kind]
    text = source if kind == "stdin" else None
    ended = same(*words, cwd=folder, grants=[f"--allow-fs-read={folder}"], stdin=text)
    assert ended.code != 0


@pytest.mark.parametrize(
    "hook",
    [
        "lambda *a: print('mine', a[0].__name__, a[2] is not None)",
        "lambda *a: 1/0",
        "lambda *a: sys.exit(21)",
        "None",
        "lambda: None",
    ],
)
@pytest.mark.parametrize("error", ["ValueError(1)", "KeyboardInterrupt", "SystemExit(5)"])
def test_a_replaced_excepthook(hook: str, error: str) -> None:
    same("-c", f"import sys\nsys.excepthook = {hook}\nraise {error}\n")


def test_a_missing_excepthook() -> None:
    same("-c", "import sys\ndel sys.excepthook\nraise ValueError(1)\n")


def test_what_sys_remembers_of_the_last_exception(folder: str) -> None:
    program = write(
        folder,
        "job.py",
        "import atexit, sys, traceback\n"
        "atexit.register(lambda: print(sys.last_type, sys.last_value, [f.name for f in traceback.extract_tb(sys.last_traceback)],"
        " getattr(sys, 'last_exc', None)))\n"
        "def f():\n    1 / 0\nf()\n",
    )
    assert same(program).code == 1


def test_stderr_that_is_gone(folder: str) -> None:
    program = write(folder, "job.py", "import sys\nsys.stderr.close()\nsys.excepthook = None\n1/0\n")
    expected, found = plain(program), confined(program)
    assert found.code == expected.code == 1
    assert "runner" not in found.stderr
    program = write(folder, "none.py", "import sys\nsys.stderr = None\n1/0\n")
    same(program)


def test_tracebacks_inside_the_program_have_no_frames_of_ours(folder: str) -> None:
    program = write(
        folder,
        "job.py",
        "import inspect, sys, traceback\n"
        "def f():\n"
        "    frame, names = sys._getframe(), []\n"
        "    while frame is not None:\n"
        "        names.append(frame.f_code.co_name)\n"
        "        frame = frame.f_back\n"
        "    return names[:2]\n"
        "print(f())\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    print(traceback.format_exc())\n",
    )
    assert same(program).code == 0


# Targets that are not there


@pytest.mark.parametrize(
    "words",
    [
        ["none.py"],
        ["-B", "none.py"],
        ["-B", "-m", "no.such"],
        ["-B", "empty"],
        ["./none.py", "x"],
        ["/none/none.py"],
        ["job.py/x"],
        ["-m", "no_such_module"],
        ["-m", "no.such"],
        ["-m", "json"],
        ["-m", "os.path.x"],
        ["-m", "job.py"],
        ["-m", ""],
        ["-m", "__main__"],
        ["empty"],
        ["empty.zip"],
        ["-m", "pack"],
        ["-m", "broken"],
    ],
    ids=" ".join,
)
def test_targets_that_cannot_run(folder: str, words: list[str]) -> None:
    write(folder, "job.py", "print('job')")
    os.mkdir(f"{folder}/empty")
    write(folder, "pack/__init__.py", "print('init')")
    write(folder, "broken/__init__.py", "1/0")
    write(folder, "broken/__main__.py", "")
    with zipfile.ZipFile(f"{folder}/empty.zip", "w"):
        pass
    ended = same(*words, cwd=folder, grants=[f"--allow-fs-read={folder}", "--allow-fs-metadata"])
    assert ended.code != 0


def test_a_script_that_cannot_be_read_by_its_mode(folder: str) -> None:
    program = write(folder, "job.py", "print(1)")
    os.chmod(program, 0)
    same(program)


def test_scripts_in_odd_encodings(folder: str) -> None:
    program = write(folder, "utf8.py", "x = '\u20ac'\nprint(ascii(x))\n")
    same(program)
    for name, source, code in (
        ("latin.py", b"# coding: latin-1\nprint(ascii('\xe9'))\n", 0),
        ("bom.py", b"\xef\xbb\xbfprint('bom')\r\nprint(__file__[-6:])\r\n", 0),
        ("form.py", b"\x0cprint(1)", 0),
        ("empty.py", b"", 0),
        ("\udcff.py", b"import sys; print(ascii(sys.argv), ascii(__file__))", 0),
    ):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(source)
        assert same(name, "\udcfe", cwd=folder).code == code


def test_a_script_that_is_no_text(folder: str) -> None:
    # Python words these errors differently for files and for everything else that it compiles.
    for source in (b"print('\xff')\n", b"# coding: no-such\n"):
        with open(f"{folder}/bad.py", "wb") as file:
            file.write(source)
        expected, found = plain("bad.py", cwd=folder), confined("bad.py", cwd=folder)
        assert (found.code, found.stdout) == (expected.code, expected.stdout) == (1, "")
        assert "Error" in found.stderr.splitlines()[-1]
        assert "sandboxed_python" not in found.stderr


def test_an_empty_name_is_refused(folder: str) -> None:
    ended = confined("", cwd=folder)
    assert (ended.code, ended.stdout) == (9, "")


# More targets


@WAYS
def test_standard_modules_run(folder: str, option: Option) -> None:
    same(*option, "-m", "http.server", "--help")
    same(*option, "-m", "json.tool", "--sort-keys", stdin='{"b": 1, "a": 2}')
    same(*option, "-m", "calendar", "2024", "2")


@WAYS
def test_a_module_in_a_package_with_relative_imports(folder: str, option: Option) -> None:
    write(folder, "pack/__init__.py", "print(__name__)")
    write(folder, "pack/data.py", "x = 5")
    write(
        folder,
        "pack/tool.py",
        "from .data import x\nfrom . import data\nprint(x, __package__, __spec__.name, __file__)",
    )
    assert same(*option, "-m", "pack.tool", cwd=folder, grants=["--allow-fs-read=."]).code == 0


@WAYS
def test_a_compiled_script(folder: str, option: Option) -> None:
    source = write(folder, "job.py", "import sys\nprint(__file__, __cached__, type(__loader__), sys.argv)\n1/0\n")
    compiled = f"{folder}/job.pyc"
    code = f"import py_compile; py_compile.compile({source!r}, {compiled!r}, doraise=True)"
    assert execute([plain_python(), "-c", code]).code == 0
    os.unlink(source)
    assert same(*option, compiled, "x").code == 1
    with open(compiled, "r+b") as file:
        file.write(b"\0\0\0\0")
    assert same(*option, compiled).code == 1
    with open(f"{folder}/short.pyc", "wb") as file:
        file.write(b"\0")
    assert confined(*option, f"{folder}/short.pyc").code == plain(*option, f"{folder}/short.pyc").code == 1


@WAYS
def test_a_program_from_stdin_reads_on_from_there(option: Option) -> None:
    source = "import sys\nprint(sys.argv, sys.path[0])\nif 1:\n    print('x')\nprint(repr(sys.stdin.read()))\n"
    same(*option, stdin=source)
    same(*option, "-", "a", stdin=source)
    same(*option, "-", stdin=b"print('caf\xc3\xa9'.encode())\n")
    same(*option, "-", stdin=b"")
    same(*option, "-c", "import sys; print(sys.stdin.readlines())", stdin="a\nb\n")


def test_isolated_code_has_no_empty_path() -> None:
    same("-I", "-c", "import sys; print(sys.path)")
    same("-I", "-", stdin="import sys; print(sys.path)")


@pytest.mark.parametrize(
    "words", [["-i"], ["-iq"], ["-i", "-c", "x = 7"], ["-i", "-c", "1/0"], ["-i", "-c", "raise SystemExit(3)"]]
)
def test_interactive_with_piped_input(words: list[str]) -> None:
    source = "print(x if 'x' in dir() else 1)\n1/0\nif 1:\n  y = 5\n\ny\n_ + 1\nimport sys; print(sys.argv, sys.ps1)\n"
    same(*words, stdin=source)
    same(*words, stdin=source + "exit(6)\n")


# Output


@WAYS
def test_a_line_without_its_end_before_a_crash(option: Option) -> None:
    same(*option, "-c", "print('no newline', end='')\n1/0")
    same(*option, "-c", "print('lost', end='')\nimport os; os._exit(3)")
    same(*option, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('tail')")
    same(*option, "-c", "import os, signal; print('lost', end=''); os.kill(os.getpid(), signal.SIGKILL)")


@WAYS
def test_everything_ends_in_order(option: Option) -> None:
    source = """
import atexit, sys, weakref
class D:
    def __init__(self, n): self.n = n
    def __del__(self): print("del", self.n)
d = D("global")
sys.kept = D("kept")
weakref.finalize(d, print, "finalized")
atexit.register(print, "first registered")
def failing(): 1/0
atexit.register(failing)
atexit.register(print, "last registered")
print("end")
"""
    same(*option, "-c", source)
    same(*option, "-c", source + "sys.exit(4)")
    same(*option, "-c", source + "raise ValueError")
    same(*option, "-c", "import atexit, os; atexit.register(os._exit, 9)")
    same(*option, "-c", "import atexit, sys; atexit.register(sys.exit, 9)")


@WAYS
def test_threads_at_exit(option: Option) -> None:
    source = """
import threading, time, atexit, sys
atexit.register(lambda: print("atexit"))
ended = threading.Event()
def work(n, t):
    ended.wait(); time.sleep(t); print("thread", n, flush=True)
threading.Thread(target=work, args=(1, .02)).start()
threading.Thread(target=work, args=(2, 5), daemon=True).start()
def failing(): raise ValueError("in a thread")
t = threading.Thread(target=failing, name="T"); t.start(); t.join()
print("main ends", flush=True)
ended.set()
"""
    same(*option, "-c", source, grants=["--allow-worker"])
    same(*option, "-c", source + "sys.exit(3)", grants=["--allow-worker"])
    same(*option, "-c", source + "1/0", grants=["--allow-worker"])


@WAYS
def test_output_that_cannot_be_written(option: Option) -> None:
    def full(*command: str) -> tuple[int, str]:
        words = ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh", *command, *option, "-c", "print('x' * 10)"]
        ended = execute(words)
        return ended.code, ended.stderr

    assert full(*installed(), "--permission") == full(plain_python())


# What looks at itself


@WAYS
def test_programs_that_look_at_themselves(folder: str, option: Option) -> None:
    source = """
import copy, inspect, pickle, sys
class Point:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return type(other) is type(self) and other.x == self.x
def double(x):
    return 2 * x
if __name__ == "__main__":
    data = pickle.dumps([Point(1), double])
    print(pickle.loads(data)[0] == Point(1), pickle.loads(data)[1] is double, b"__main__" in data)
    print(inspect.getsource(double), inspect.getfile(Point), inspect.getmodule(double), inspect.getsourcelines(Point)[1])
    print(Point.__module__, double.__module__, double.__code__.co_filename, copy.deepcopy(Point(3)).x)
    import __main__
    print(__main__.double is double, sys.modules["__main__"] is __main__)
    import linecache; print(linecache.getline(__file__, 3))
    import importlib; print(importlib.import_module("__main__") is __main__)
"""
    program = write(folder, "job.py", source)
    assert same(*option, program).code == 0
    assert same(*option, "-m", "job", cwd=folder, grants=["--allow-fs-read=."]).code == 0


@WAYS
def test_the_future_is_not_inherited(option: Option) -> None:
    # The package's own modules are compiled with "from __future__ import annotations".
    same(*option, "-c", "def f(x: 1 + 1): pass\nprint(f.__annotations__)")


@WAYS
def test_unittest_and_doctest_find_main(folder: str, option: Option) -> None:
    program = write(
        folder,
        "job.py",
        "import doctest, unittest\ndef f():\n    '''\n    >>> f()\n    3\n    '''\n    return 3\n"
        "class T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(), 3)\n"
        "print(doctest.testmod())\nunittest.main(verbosity=0, argv=['x'])\n",
    )
    # doctest clears and restores the trace function, which counts as setting one.
    expected, found = plain(*option, program), confined(*option, program, grants=["--allow-inspector"])
    assert (found.code, found.stdout) == (expected.code, expected.stdout)
    assert found.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1] == "OK"


def test_the_hook_leaves_no_trace_but_its_object() -> None:
    source = "import sys; print(sorted(set(dir(sys)) - {'permission'}), sorted(vars(__builtins__)), sorted(dir(__import__('os'))))"
    same("-c", source)


# What an import can't find

PLACES = "It was not looked for in {}. Use --allow-fs-read to manage permissions."


@WAYS
def test_an_import_that_finds_nothing_names_the_folders_that_may_not_be_read(
    folder: str, option: Option, sandbox: Run
) -> None:
    """Granting the module's file alone is not enough: the import system lists the folder. Its twin is the folder's."""
    write(folder, "mine.py", "print('mine')")
    job = write(folder, "job.py", "import mine")
    for grants in ((), (f"--allow-fs-read={folder}/mine.py",)):
        ended = sandbox(*option, *grants, job)
        assert ended.code == 1, ended.said
        assert ended.stderr.splitlines()[-2:] == [
            "ModuleNotFoundError: No module named 'mine'",
            PLACES.format(repr(folder)),
        ]
    ended = sandbox(*option, f"--allow-fs-read={folder}", job)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "mine\n", ""), ended.said


@WAYS
@pytest.mark.parametrize(
    "code",
    [
        "import json.none",
        "raise ModuleNotFoundError('one')",
        "raise ImportError('no', name='one')",
        "import sys; sys.path[:] = []; import none",
    ],
)
def test_other_imports_that_fail_are_shown_as_they_are(folder: str, code: str, option: Option, sandbox: Run) -> None:
    ended = sandbox(*option, "-c", code, cwd=folder)
    assert ended.code == 1, ended.said
    assert "not looked for" not in ended.stderr, ended.said


def test_an_import_in_the_working_directory_and_in_a_python_that_is_started(folder: str, sandbox: Run) -> None:
    write(folder, "mine.py", "print('mine')")
    code = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', 'import mine']).returncode)"
    for words in (["import mine"], [code]):
        ended = sandbox("--allow-child-process", "-c", *words, cwd=folder)
        assert ended.stderr.splitlines()[-1] == PLACES.format(repr(folder)), ended.said
        assert ended.code == 1, ended.said
        ended = sandbox("--allow-child-process", f"--allow-fs-read={folder}", "-c", *words, cwd=folder)
        assert (ended.code, ended.stdout, ended.stderr) == (0, "mine\n", ""), ended.said


def test_what_is_said_of_an_import_is_no_denial(folder: str, sandbox: Run) -> None:
    """It looks at the policy alone: nobody is told of what the program didn't try. In an audit nothing was refused."""
    code = "import sys\nsys.permission.subscribe(lambda m: m.resource == 'x' or print(m.resource))\nimport mine"
    ended = sandbox("-c", code, cwd=folder)
    assert PLACES.format(repr(folder)) in ended.stderr, ended.said
    quiet = sandbox("-c", code.replace("import mine", "try: import mine\nexcept ImportError: pass"), cwd=folder)
    assert ended.stdout == quiet.stdout, (ended.said, quiet.said)
    closed = sandbox("-c", "import sys; sys.stderr.close(); import mine", cwd=folder)
    assert closed.code == 1, closed.said
