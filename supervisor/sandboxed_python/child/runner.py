"""Running the program as ``python`` itself would: script, module, code, standard input, directory or zip.

Runs in: child.
"""

from __future__ import annotations

import _frozen_importlib as _importer
import _frozen_importlib_external as _files
import os
import sys

from sandboxed_python.errors import AccessDeniedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, TracebackType
    from typing import Any, NoReturn

# Frames of these files are not the program's: the launcher and this package.
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_open = open
_stat = os.stat


def run(kind: str, target: str, argv: list[str]) -> None:
    """Run the program and return when it has ended normally.

    Raises:
        SystemExit: the program's own, or the exit code of what it raised (the traceback has been shown).
        KeyboardInterrupt: the program's own, already shown: the interpreter then ends by SIGINT, as plain python does.
    """
    _set_arguments(kind, target, argv)
    main = _fresh_main()
    try:
        _RUNNERS[kind](target, main)
    except SystemExit:
        raise
    except BaseException as error:  # whatever the program raised is shown, and ends it
        _end_with(error)


def _set_arguments(kind: str, target: str, argv: list[str]) -> None:
    first = {"module": "-m", "code": "-c", "stdin": target}.get(kind, target)
    sys.argv[:] = [first, *argv]
    words = {"module": ["-m", target], "code": ["-c", target], "stdin": [target] if target else []}.get(kind, [target])
    sys.orig_argv[:] = [sys.executable, *words, *argv]
    if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
        return
    if kind == "script":
        # As python: the script's folder, links of the script followed.
        try:
            real = os.path.realpath(target)
        except OSError:
            real = os.path.abspath(target)
        sys.path.insert(0, os.path.dirname(real))
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


def _run_script(path: str, main: Any) -> None:
    code: CodeType
    absolute = _absolute(path)
    try:
        with _open(path, "rb") as file:
            source = file.read()
    except AccessDeniedError:
        raise
    except OSError as error:
        _usage(f"can't open file {absolute!r}: [Errno {error.errno}] {error.strerror}")
    names = main.__dict__
    names["__file__"] = absolute
    names["__cached__"] = None
    if path.endswith(".pyc"):
        import marshal

        names["__loader__"] = _files.SourcelessFileLoader("__main__", path)
        if source[:4] != _files.MAGIC_NUMBER:
            message = "Bad magic number in .pyc file"
            raise RuntimeError(message)
        code = marshal.loads(source[16:])
    else:
        names["__loader__"] = _files.SourceFileLoader("__main__", path)
        code = compile(source, absolute, "exec", dont_inherit=True)
    exec(code, names)


def _absolute(path: str) -> str:
    """Make a script's path absolute as python does: only a leading ``./`` is taken off."""
    return path if path[:1] == "/" else f"{os.getcwd()}/{path[2:] if path[:2] == './' else path}"


def _run_code(text: str, main: Any) -> None:
    # Python compiles "-c" code with a newline after it, under the name "<string>".
    exec(compile(text + "\n", "<string>", "exec", dont_inherit=True), main.__dict__)


def _run_module(name: str, main: Any) -> None:
    import runpy

    del main
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]  # what "python -m" itself calls


def _run_path(path: str, main: Any) -> None:
    import runpy

    del main
    sys.path.insert(0, path)
    runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]  # noqa: FBT003 - as python itself


def _run_stdin(_name: str, main: Any) -> None:
    if sys.stdin is None:
        return
    if sys.stdin.isatty() or sys.flags.interactive:
        _interact(main)
        return
    source = sys.stdin.buffer.read()
    exec(compile(source, "<stdin>", "exec", dont_inherit=True), main.__dict__)


def _interact(main: Any) -> None:
    import code

    banner = (
        f"Python {sys.version} on {sys.platform}\n"
        'Type "help", "copyright", "credits" or "license" for more information.'
    )
    if hasattr(sys, "__interactivehook__"):
        try:
            sys.__interactivehook__()
        except OSError as error:  # the history file isn't granted
            print(f"no history: {error}", file=sys.stderr)
    code.interact(banner="" if sys.flags.quiet else banner, local=main.__dict__, exitmsg="")


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


def _end_with(error: BaseException) -> None:
    """Show an uncaught exception as plain python does, and end with its exit code.

    Raises:
        SystemExit: with code 1.
        KeyboardInterrupt: if that is what it was.
    """
    trace = strip(error.__traceback__)
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    show = sys.excepthook
    try:
        if isinstance(error, AccessDeniedError) and show is sys.__excepthook__:
            show_denial(error)
        else:
            show(type(error), error, trace)
    except SystemExit:
        raise
    except BaseException as second:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, strip(second.__traceback__))
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, trace)
    if isinstance(error, KeyboardInterrupt):
        sys.excepthook = _silent
        raise KeyboardInterrupt
    raise SystemExit(1)


def _silent(*_exception: object) -> None:
    """Show nothing: the traceback has been shown."""


def show_denial(error: AccessDeniedError) -> None:
    """Show an uncaught denial: the usual traceback, and Node's block after it."""
    import traceback

    if sys.stderr is None:
        return
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip("\n")
    sys.stderr.write(f"{text} {block(error)}\n")


def block(error: AccessDeniedError) -> str:
    """Return Node's block of a denial: code, permission, resource."""
    return f"{{\n  code: {error.code!r},\n  permission: {error.permission!r},\n  resource: {error.resource!r}\n}}"
