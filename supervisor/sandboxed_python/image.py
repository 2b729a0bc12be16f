"""The start-up image: the modules that every start needs, compiled together.

Runs in: both. Importing forty small modules costs more than running them: each is looked up, opened, checked and
unmarshalled with its docstrings. An image is one file per part of a start with the same code, compiled from the same
sources without docstrings, annotations of functions and places of instructions, beside the ``.pyc`` files and by their
rules: it is written by the first run that could have used it, where ``__pycache__`` can be written and
PYTHONDONTWRITEBYTECODE isn't set; it is used only while time and size of every source are what they were; without it
everything is imported as usual. For tracebacks with the right lines, remove the images, and set that variable.
"""

from __future__ import annotations

import _frozen_importlib_external
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    Row = tuple[str, bool, int, int, CodeType]
    Image = tuple[bytes, list[Row]]

# What is needed by every start, by grants of paths, by the broker, by a program that may start others, by a Python that
# it has started. In the order of their imports: a module comes after
# what it imports. "" is the package itself.
PARTS = {
    "start": (
        "", "image", "errors", "frozen", "policy", "policy.table", "policy.patterns", "policy.limits", "policy.model",
        "policy.decide", "kernel", "kernel.landlock", "kernel.uapi", "kernel.calls", "kernel.process", "kernel.probe",
        "kernel.seccomp", "kernel.fstat", "plan", "plan.model", "plan.runtime", "plan.implicit", "plan.landlock",
        "plan.filters", "plan.build", "record", "record.wire", "launch", "launch.exits", "launch.guard",
        "launch.session", "launch.confine", "child", "child.events", "child.raising", "child.wrap", "child.hook",
        "child.permission", "child.ending", "child.traces", "child.runner", "child.boot", "launch.start",
        "launch.supervise", "cli", "cli.args", "cli.main",
    ),
    "grants": (
        "plan.mounts", "plan.protect",
    ),
    "watch": (
        "kernel.notify", "broker", "broker.request", "broker.remote", "broker.paths", "broker.judge", "broker.later",
        "broker.identity", "broker.answer", "broker.calls_read", "broker.calls_change", "broker.calls_names",
        "broker.calls_open", "broker.gate", "broker.serve",
    ),
    "inherit": (
        "child.inherit",
    ),
    "again": (
        "", "image", "errors", "frozen", "policy", "policy.table", "policy.patterns", "policy.limits", "policy.model",
        "policy.decide", "child", "child.events", "child.raising", "child.wrap", "child.hook", "child.permission",
        "child.traces", "child.inherit", "child.boot_child",
    ),
}  # fmt: skip
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = "sandboxed_python"
_missing = {"start"}


def load(part: str) -> None:
    """Put the modules of a part into ``sys.modules`` from their image; without a valid image, do nothing."""
    try:
        with open(_file(part), "rb", 0) as file:
            image: Image = marshal.loads(file.read())
    except (OSError, ValueError, EOFError, TypeError):
        image = b"", []
    if _valid(part, image):
        _missing.discard(part)
        _load(image[1])
    else:
        _missing.add(part)


def start(image: Image, this: ModuleType) -> None:
    """Do the same for the part "start", which the command has read, and for this module, which comes from there."""
    first = next((folder for folder in sys.path if os.path.isdir(f"{folder}/{_PACKAGE}")), "")
    if f"{first}/{_PACKAGE}" == _FOLDER and _valid("start", image):  # the one that would be imported
        _missing.discard("start")
        sys.modules[this.__name__] = this
        _load(image[1])


def again(image: Image, this: ModuleType) -> None:
    """Do the same for the part "again", which ``child/site/sitecustomize.py`` has read.

    In the sandbox each look at a file may be a question to the supervisor. So only the first and the last source are
    looked at: an upgrade replaces all of them, and what else has changed is seen by the supervisor's next start.
    """
    if _valid("again", image, every=len(PARTS["again"]) - 1):
        sys.modules[this.__name__] = this
        _load(image[1])


def _load(rows: list[Row]) -> None:
    modules = sys.modules
    new_module = type(sys)
    for name, is_package, _time, _size, code in rows:
        full = f"{_PACKAGE}.{name}" if name else _PACKAGE
        if full in modules:
            continue
        module = new_module(full)
        names = module.__dict__
        parent, _, last = full.rpartition(".")
        names["__file__"] = code.co_filename
        names["__package__"] = full if is_package else parent
        if is_package:
            names["__path__"] = [os.path.dirname(code.co_filename)]
        modules[full] = module
        exec(code, names)  # noqa: S102 - as an import does
        if parent:
            setattr(modules[parent], last, module)


def write_missing() -> None:
    """Write all images if one was looked for in vain, and this process may write beside the package."""
    cache = f"{_FOLDER}/__pycache__"
    if not _missing or sys.dont_write_bytecode or not os.access(cache, os.W_OK):
        return
    first = f"{_FOLDER}/child/site/sitecustomize.py"
    try:
        _frozen_importlib_external.SourceFileLoader("sitecustomize", first).get_code("sitecustomize")  # its .pyc
        for part in PARTS:
            _write(part)
    except OSError:  # full disk, read-only file system: the next start imports as usual
        return


def _file(part: str) -> str:
    return f"{_FOLDER}/__pycache__/{part}.{sys.implementation.cache_tag}.image"


def _source(name: str) -> tuple[str, bool]:
    path = f"{_FOLDER}/{name.replace('.', '/')}" if name else _FOLDER
    return (f"{path}/__init__.py", True) if name in _PACKAGES else (f"{path}.py", False)


_PACKAGES = frozenset(name for names in PARTS.values() for name in names if "." not in name) - {
    "errors",
    "frozen",
    "image",
}


def _valid(part: str, image: Image, every: int = 1) -> bool:
    """Tell whether an image was made for this interpreter and from these sources, looking at each, or every n-th."""
    try:
        magic, rows = image
        if magic != _frozen_importlib_external.MAGIC_NUMBER or tuple([row[0] for row in rows]) != PARTS[part]:
            return False
        for name, _is_package, changed, size, code in rows[::every]:
            source, _ = _source(name)
            found = os.stat(source)
            if found.st_mtime_ns != changed or found.st_size != size or code.co_filename != source:
                return False
    except (OSError, ValueError, TypeError):
        return False
    return True


def _write(part: str) -> None:
    rows: list[Row] = []
    for name in PARTS[part]:
        source, is_package = _source(name)
        with open(source, "rb") as file:
            found = os.stat(file.fileno())
            text = file.read()
        rows.append((name, is_package, found.st_mtime_ns, found.st_size, _compile(text, source)))
    data = marshal.dumps((_frozen_importlib_external.MAGIC_NUMBER, rows))
    temporary = f"{_file(part)}.{os.getpid()}"
    # As of the .pyc files beside it: nobody else may write, whatever the umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, _file(part))
    except OSError:
        os.unlink(temporary)
        raise


def _compile(text: bytes, source: str) -> CodeType:
    """Compile a module without what only readers need. Annotations of classes stay: they are ``Frozen``'s fields."""
    import __future__

    import ast

    tree = ast.parse(text, source)
    # The flag says the same, and loads no module.
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                argument.annotation = None
            for rest in (arguments.vararg, arguments.kwarg):
                if rest is not None:
                    rest.annotation = None
    flags = __future__.annotations.compiler_flag
    code: CodeType = compile(tree, source, "exec", flags, dont_inherit=True, optimize=2)
    return _in_one_line(code) if sys.version_info >= (3, 11) else code


def _in_one_line(code: CodeType) -> CodeType:
    """Let every instruction of a function be of the function's first line: a fifth of an image is where each is.

    Frames of this package then have a line, as whoever looks at the stack expects, and tell the function by it. The
    format of the table is that of CPython 3.11, ``Objects/locations.md``.
    """
    units = len(code.co_code) // 2
    table = bytearray()
    while units > 0:
        size = min(units, 8)
        units -= size
        table += bytes((0x80 | 13 << 3 | size - 1, 0))  # no columns; as many lines on as before: none
    constants = tuple([_in_one_line(value) if isinstance(value, type(code)) else value for value in code.co_consts])
    return code.replace(co_linetable=bytes(table), co_consts=constants)
