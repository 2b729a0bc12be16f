"""The start-up image: the modules that every start needs, compiled together.

Runs in: both. Importing forty small modules costs more than running them: each is looked up, opened, checked and
unmarshalled with its docstrings. An image is one file per half of a start with the same code, compiled from the same
sources without docstrings, beside the ``.pyc`` files and by their rules: it is written where ``__pycache__`` can be
written and PYTHONDONTWRITEBYTECODE is not set, by the first run that could have used it; it is used only while time and
size of every source are what they were; without it everything is imported as usual.
"""

from __future__ import annotations

import _frozen_importlib_external
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    Row = tuple[str, bool, int, int, CodeType]

# In the order of their imports: a module comes after what it imports.
PARTS = {
    "start": (
        "errors", "frozen", "policy", "policy.table", "policy.patterns", "policy.model", "policy.decide", "kernel",
        "kernel.landlock", "kernel.uapi", "kernel.calls", "kernel.process", "kernel.probe", "kernel.seccomp", "plan",
        "plan.model", "plan.runtime", "plan.implicit", "plan.mounts", "plan.landlock", "plan.filters", "plan.protect",
        "plan.build",
        "launch", "launch.exits", "launch.session", "launch.confine", "child", "child.events", "child.raising",
        "child.wrap", "child.hook", "child.permission", "child.runner", "child.boot", "launch.start", "cli", "cli.args",
        "cli.main",
    ),
    "watch": (
        "launch.supervise", "kernel.notify", "broker", "broker.request", "broker.remote", "broker.paths",
        "broker.judge", "broker.later", "broker.identity", "broker.answer", "broker.calls_read", "broker.calls_change",
        "broker.calls_names", "broker.calls_open", "broker.gate", "broker.serve",
    ),
}  # fmt: skip
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = __name__.rpartition(".")[0]
_missing: list[str] = []


def load(part: str) -> None:
    """Put the modules of a part into ``sys.modules`` from their image; without a valid image, do nothing."""
    rows = _read(part)
    if rows is None:
        _missing.append(part)
        return
    modules = sys.modules
    new_module = type(sys)
    for name, is_package, _time, _size, code in rows:
        full = f"{_PACKAGE}.{name}"
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
        setattr(modules[parent], last, module)


def write_missing() -> None:
    """Write all images if ``load`` has looked for one in vain, and this process may write beside the package."""
    cache = f"{_FOLDER}/__pycache__"
    if not _missing or sys.dont_write_bytecode or not os.access(cache, os.W_OK):
        return
    for part in PARTS:
        try:
            _write(part)
        except OSError:  # full disk, read-only file system: the next start imports as usual
            return


def _file(part: str) -> str:
    return f"{_FOLDER}/__pycache__/{part}.{sys.implementation.cache_tag}.image"


def _source(name: str) -> tuple[str, bool]:
    path = f"{_FOLDER}/{name.replace('.', '/')}"
    return (f"{path}/__init__.py", True) if name in _PACKAGES else (f"{path}.py", False)


_PACKAGES = frozenset(name for names in PARTS.values() for name in names if "." not in name) - {"errors", "frozen"}


def _read(part: str) -> list[Row] | None:
    """Return the rows of an image, or None if there is none that fits these sources and this interpreter."""
    try:
        with open(_file(part), "rb", 0) as file:
            data = file.read()
        if data[:4] != _frozen_importlib_external.MAGIC_NUMBER:
            return None
        rows: list[Row] = marshal.loads(data[4:])
        if tuple([row[0] for row in rows]) != PARTS[part]:
            return None
        for name, _is_package, changed, size, code in rows:
            source, _ = _source(name)
            found = os.stat(source)
            if found.st_mtime_ns != changed or found.st_size != size or code.co_filename != source:
                return None
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return rows


def _write(part: str) -> None:
    rows: list[Row] = []
    for name in PARTS[part]:
        source, is_package = _source(name)
        with open(source, "rb") as file:
            found = os.stat(file.fileno())
            text = file.read()
        code = compile(text, source, "exec", dont_inherit=True, optimize=2)
        rows.append((name, is_package, found.st_mtime_ns, found.st_size, code))
    data = _frozen_importlib_external.MAGIC_NUMBER + marshal.dumps(rows)
    temporary = f"{_file(part)}.{os.getpid()}"
    with open(temporary, "xb") as file:
        file.write(data)
    os.replace(temporary, _file(part))
