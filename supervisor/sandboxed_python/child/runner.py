"""Running the program as ``python`` itself would: script, module, code, standard input, directory or zip.

Runs in: child.
"""

from __future__ import annotations

import _frozen_importlib as _importer
import _frozen_importlib_external as _files
import os
import sys

from sandboxed_python.child.traces import show_denial, show_unseen
from sandboxed_python.errors import AccessDeniedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, TracebackType
    from typing import Any, NoReturn

    from sandboxed_python.child.hook import Judge

# Frames of these files are not the program's: the launcher and this package.
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_open = open
_display = sys.__excepthook__


class Start:
    """How the program is found.

    Attributes:
        kind: ``"script"``, ``"module"``, ``"code"``, ``"stdin"`` or ``"path"``.
        target: the script, module, code or path, as given.
        folder: where a script really lies, which python puts first on ``sys.path``.
        source: what a script holds; None: it is read when it is run.
        compiler: compiles a script's bytes, without a NUL, for a file name.
    """

    def __init__(
        self, kind: str, target: str, *, read: bool, compiler: Callable[[bytes, str], CodeType] | None = None
    ) -> None:
        """Look for a script, and ``read`` it if it may be."""
        self.kind = kind
        self.target = target
        self.compiler = compiler or _compile
        self.folder = ""
        self.source: bytes | None = None
        if kind != "script":
            return
        try:
            self.folder = os.path.dirname(os.path.realpath(target))
        except OSError:
            self.folder = os.path.dirname(os.path.abspath(target))
        if read:
            try:
                with _open(target, "rb", 0) as file:
                    self.source = file.read()
            except OSError:
                return


def run(start: Start, argv: list[str], options: list[str], judge: Judge) -> None:
    """Run the program and return when it has ended normally, or when a prompt comes next.

    Args:
        start: how it is found.
        argv: the program's own arguments.
        options: Python's options.
        judge: the hook's.

    Raises:
        SystemExit: the program's own, or the exit code of what it raised (the traceback has been shown).
        KeyboardInterrupt: the program's own, already shown: the interpreter then ends by SIGINT, as plain python does.
    """
    _set_arguments(start, argv, options)
    main = _fresh_main()
    ended_by: BaseException | None = None
    try:
        _RUNNERS[start.kind](start, main, options)
    except SystemExit as error:
        if not sys.flags.inspect:
            raise
        ended_by = error
    except BaseException as error:  # whatever the program raised is shown, and ends it
        ended_by = error
    # Outside of the except clause, so that what a replaced excepthook raises has no context.
    if ended_by is not None:
        _end_with(ended_by, judge)


def _set_arguments(start: Start, argv: list[str], options: list[str]) -> None:
    kind, target = start.kind, start.target
    first = {"module": "-m", "code": "-c"}.get(kind, target)
    sys.argv[:] = [first, *argv]
    words = {"module": ["-m", target], "code": ["-c", target], "stdin": [target] if target else []}.get(kind, [target])
    sys.orig_argv[:] = [sys.executable, *options, *words, *argv]
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        return
    if kind == "script":
        sys.path.insert(0, start.folder)
    elif kind == "module":
        sys.path.insert(0, os.getcwd())
    elif kind in ("code", "stdin"):
        sys.path.insert(0, "")


def _fresh_main() -> Any:
    """Put a new ``__main__`` in place of the launcher's, as an interpreter has it at start-up."""
    module = type(sys)("__main__")
    names = module.__dict__
    names["__builtins__"] = sys.modules["builtins"]
    names["__loader__"] = _importer.BuiltinImporter
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    sys.modules["__main__"] = module
    return module


def _run_script(start: Start, main: Any, options: list[str]) -> None:
    code: CodeType
    path = start.target
    absolute = _absolute(path)
    source = start.source
    start.source = None
    if source is None:
        try:
            with _open(path, "rb") as file:
                source = file.read()
        except AccessDeniedError as error:
            # Node names the entry point by its whole path.
            raise AccessDeniedError(error.permission, absolute, error.flag) from None
        except OSError as error:
            _usage(f"can't open file {absolute!r}: [Errno {error.errno}] {error.strerror}")
    names = main.__dict__
    names["__file__"] = absolute
    names["__cached__"] = None
    if path.endswith(".pyc"):
        import marshal

        names["__loader__"] = _files.SourcelessFileLoader("__main__", absolute)
        if source[:4] != _files.MAGIC_NUMBER:
            message = "Bad magic number in .pyc file"
            raise RuntimeError(message)
        code = marshal.loads(source[16:])
    else:
        names["__loader__"] = _files.SourceFileLoader("__main__", absolute)
        if "-x" in options:  # skip the first line, but count it
            source = b"\n" + source.partition(b"\n")[2]
        if not source.isascii():
            _refuse_undeclared(source, absolute)
        code = (_compile if b"\0" in source else start.compiler)(source, absolute)
    exec(code, names)


def _refuse_undeclared(source: bytes, name: str) -> None:
    """Refuse bytes that aren't UTF-8 where no encoding is declared: python reads a file so, ``compile()`` lets them be.

    Raises:
        SyntaxError: in python's words.
    """
    try:
        source.decode()
    except UnicodeDecodeError as error:
        if b"coding" in b"".join(source.split(b"\n", 2)[:2]):
            return
        message = (
            f"Non-UTF-8 code starting with '\\x{source[error.start]:02x}' in file {name} on line "
            f"{source.count(bytes([10]), 0, error.start) + 1}, but no encoding declared; "
            "see https://peps.python.org/pep-0263/ for details"
        )
    else:
        return
    raise SyntaxError(message)


def _compile(source: bytes, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _absolute(path: str) -> str:
    """Make a path absolute as python does, which leaves ``./`` in it."""
    return path if path[:1] == "/" else f"{os.getcwd()}/{path}"


def _run_code(start: Start, main: Any, _options: list[str]) -> None:
    text = start.target
    if sys.version_info >= (3, 14) and text[:1] in " \t\n":
        import textwrap

        text = textwrap.dedent(text)
    # Python compiles "-c" code with a newline after it, under the name "<string>".
    text += "\n"
    program = compile(text, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):  # tracebacks show its lines
        import linecache

        # By the code object; 3.13.0 knew only names.
        key = program if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, text, "<string>")  # type: ignore[attr-defined]
    exec(program, main.__dict__)


def _run_module(start: Start, _main: Any, _options: list[str]) -> None:
    import runpy

    runpy._run_module_as_main(start.target)  # type: ignore[attr-defined]  # what "python -m" itself calls


def _run_path(start: Start, _main: Any, _options: list[str]) -> None:
    import runpy

    sys.path.insert(0, _absolute(start.target))
    runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]  # noqa: FBT003 - as python itself


def _run_stdin(_start: Start, main: Any, _options: list[str]) -> None:
    if sys.stdin is None:
        return
    if sys.stdin.isatty() or sys.flags.interactive:
        _interact(main)
        return
    names = main.__dict__
    names["__file__"] = "<stdin>"
    names["__cached__"] = None
    source = sys.stdin.buffer.read()
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), names)


def _interact(main: Any) -> None:
    """Let a prompt come next: the interpreter's own, which it opens when this program has ended."""
    banner = (
        f"Python {sys.version} on {sys.platform}\n"
        'Type "help", "copyright", "credits" or "license" for more information.'
    )
    if sys.flags.ignore_environment and not sys.flags.inspect:
        import code  # -I and -E don't look at PYTHONINSPECT

        code.interact(banner="" if sys.flags.quiet else banner, local=main.__dict__, exitmsg="")
        return
    if not sys.flags.quiet:
        sys.stderr.write(f"{banner}\n")
    if sys.flags.inspect:
        return
    os.environ["PYTHONINSPECT"] = "1"
    before: Callable[[], None] | None = getattr(sys, "__interactivehook__", None)

    def at_the_prompt() -> None:
        os.environ.pop("PYTHONINSPECT", None)
        if before is None:
            del sys.__interactivehook__
        else:
            sys.__interactivehook__ = before
            before()

    sys.__interactivehook__ = at_the_prompt


_RUNNERS = {
    "script": _run_script,
    "code": _run_code,
    "module": _run_module,
    "path": _run_path,
    "stdin": _run_stdin,
}


def _usage(text: str) -> NoReturn:
    sys.stderr.write(f"{sys.executable}: {text}\n")
    sys.exit(2)


def _own(code: CodeType) -> bool:
    return code.co_filename.startswith(_OWN)


def strip(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this package at its head."""
    while trace is not None and _own(trace.tb_frame.f_code):
        trace = trace.tb_next
    return trace


def _end_with(error: BaseException, judge: Judge) -> None:
    """Show an uncaught exception as plain python does, and end with its exit code; with ``-i`` return.

    Raises:
        SystemExit: with code 1, or from a replaced excepthook.
        KeyboardInterrupt: if that is what it was.
    """
    error.__traceback__ = strip(error.__traceback__)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    if not hasattr(sys, "excepthook"):
        _complain("sys.excepthook is missing\n")
        _display(type(error), error, error.__traceback__)
    elif isinstance(error, AccessDeniedError) and sys.excepthook is _display:
        show_denial(error)
    else:
        second = _raised_by(sys.excepthook, error)
        if isinstance(second, SystemExit):
            raise second
        if second is not None:
            _complain("Error in sys.excepthook:\n")
            second.__traceback__ = strip(second.__traceback__)
            _display(type(second), second, second.__traceback__)
            _complain("\nOriginal exception was:\n")
            _display(type(error), error, error.__traceback__)
        elif sys.excepthook is _display:
            show_unseen(error, judge)
    if sys.flags.inspect:
        return
    if isinstance(error, KeyboardInterrupt):
        sys.excepthook = _silent
        raise KeyboardInterrupt
    raise SystemExit(1)


def _raised_by(hook: Callable[..., object], error: BaseException) -> BaseException | None:
    try:
        hook(type(error), error, error.__traceback__)
    except BaseException as second:
        return second
    return None


def _complain(text: str) -> None:
    try:
        sys.stderr.write(text)
    except Exception:  # no stderr, closed, broken: python then writes to the descriptor
        try:
            os.write(2, text.encode())
        except OSError:
            return


def _silent(*_exception: object) -> None:
    """Show nothing: the traceback has been shown."""
