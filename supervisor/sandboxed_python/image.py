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
    from io import FileIO
    from types import CodeType, ModuleType

    Row = tuple[str, bool, int, int, CodeType]
    Image = tuple[bytes, list[Row]]
    """Of which Python, and the modules."""

# What is needed by every start, by grants, by grants that leave something out, by the broker, by a program that may
# start others, by a Python that it has started. In the order of their imports: a module comes after what it imports.
# "" is the package itself.
PARTS = {
    "start": (
        "", "image", "errors", "frozen", "policy", "policy.table", "policy.patterns", "policy.limits", "policy.model",
        "policy.decide", "kernel", "kernel.landlock", "kernel.uapi", "kernel.calls", "kernel.process", "kernel.probe",
        "kernel.seccomp", "kernel.fstat", "plan", "plan.model", "plan.runtime", "plan.implicit", "plan.landlock",
        "plan.filters", "plan.build", "record", "record.wire", "launch", "launch.exits", "launch.guard",
        "launch.session", "launch.confine", "child", "child.events", "child.raising", "child.libraries", "child.wrap",
        "child.hook", "child.permission", "child.ending", "child.traces", "child.runner", "child.boot",
        "launch.start", "launch.supervise", "cli", "cli.args", "cli.main",
    ),
    "grants": (
        "policy.spelling", "plan.mounts", "plan.protect",
    ),
    "places": (
        "plan.places",
    ),
    "watch": (
        "kernel.tables", "kernel.notify", "kernel.files", "broker", "broker.request", "broker.remote", "broker.place",
        "broker.walk", "broker.paths", "broker.judge", "broker.later", "broker.identity", "broker.answer",
        "broker.calls_read", "broker.calls_change", "broker.calls_names", "broker.calls_open", "broker.gate",
        "broker.serve",
    ),
    "inherit": (
        "child.inherit",
    ),
    "again": (
        "", "image", "errors", "frozen", "policy", "policy.table", "policy.patterns", "policy.limits", "policy.model",
        "policy.decide", "child", "child.events", "child.raising", "child.libraries", "child.wrap",
        "child.hook", "child.permission", "child.traces", "child.inherit", "child.boot_child",
    ),
}  # fmt: skip
# Bytes of a file's head: what its reader runs, the version of Python, and how long the pieces are. The readers, which
# are the command and child/site/sitecustomize.py, have the number, too: they can't import it.
HEAD = 4096
FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = "sandboxed_python"
_missing = {"start"}
_asked: set[str] = set()


def load(part: str) -> None:
    """Put the modules of a part into ``sys.modules`` from their image, once; without a valid image, do nothing."""
    if part in _asked:
        return
    _asked.add(part)
    try:
        with open(file_of(part), "rb", 0) as file:
            image = _read(file)
    except (OSError, ValueError, EOFError, TypeError):
        image = b"", []
    if _valid(part, image):
        _missing.discard(part)
        _load(image[1])
    else:
        _missing.add(part)


def _read(file: FileIO) -> Image:
    _entry, magic, sizes = marshal.loads(file.read(HEAD))
    return magic, [row for size in sizes for row in marshal.loads(file.read(size))]


def start(image: Image, this: ModuleType) -> bool:
    """Do the same for the part "start", which the command has read, and for this module, which comes from there.

    Returns:
        Whether it was done.
    """
    if not _valid("start", image):
        return False
    _missing.discard("start")
    sys.modules[this.__name__] = this
    _load(image[1])
    return True


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
    asked_not_to = sys.dont_write_bytecode or os.environ.get("PYTHONDONTWRITEBYTECODE")  # which -I ignores
    if not _missing or asked_not_to or not os.access(f"{FOLDER}/__pycache__", os.W_OK):
        return
    from sandboxed_python.image_writer import write_all

    write_all()


def file_of(part: str) -> str:
    """Return where the image of a part is."""
    return f"{FOLDER}/__pycache__/{part}.{sys.implementation.cache_tag}.image"


def source_of(name: str) -> tuple[str, bool]:
    """Return the source of a module, and whether that is a package."""
    path = f"{FOLDER}/{name.replace('.', '/')}" if name else FOLDER
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
        first, *_, code = rows[0]
        if code.co_filename != source_of(first)[0]:  # made where this package was before
            return False
        for _name, _is_package, changed, size, code in rows[::every]:
            found = os.stat(code.co_filename)
            if found.st_mtime_ns != changed or found.st_size != size:
                return False
    except (OSError, ValueError, TypeError):
        return False
    return True
