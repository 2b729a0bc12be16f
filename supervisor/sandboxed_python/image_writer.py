"""Writing the start-up images; see ``image``.

Runs in: supervisor, after its child has ended, and only when one was looked for in vain.
"""

from __future__ import annotations

import _frozen_importlib_external
import marshal
import os
import sys

from sandboxed_python.image import FOLDER, HEAD, PARTS, file_of, source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    from sandboxed_python.image import Row

# What runs when the file of an image has been opened: as ``_file``, in the package of the folder ``_folder``, with its
# head as ``_head``. It reads the rest, and hands over to the module ``image`` in it.
_READ = """
_image = _head[1], [row for size in _head[2] for row in marshal.loads(_file.read(size))]
_file.close()
_this = type(sys)("sandboxed_python.image")
_this.__file__ = f"{_folder}/sandboxed_python/image.py"
exec(_image[1][1][4], _this.__dict__)
"""
_ENTRIES = {
    # In the command; ``_path`` is ``sys.path`` without its folder.
    "start": f"""
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    sys.path[:] = _path
{_READ}
if _this.start(_image, _this):
    from sandboxed_python.cli.main import main
""",
    # In child/site/sitecustomize.py.
    "again": f"{_READ}\n_this.again(_image, _this)\n",
}
# For more bytes than this at once, memory would be got from the kernel, page by page, and given back.
_PIECE = 1 << 16


def write_all() -> None:
    """Write the images, and what Python itself would write for the first file of the hook in children."""
    first = f"{FOLDER}/child/site/sitecustomize.py"
    try:
        _frozen_importlib_external.SourceFileLoader("sitecustomize", first).get_code("sitecustomize")  # its .pyc
        for part in PARTS:
            _write(part)
    except OSError:  # full disk, read-only file system: the next start imports as usual
        return


def _write(part: str) -> None:
    rows: list[Row] = []
    for name in PARTS[part]:
        source, is_package = source_of(name)
        with open(source, "rb") as file:
            found = os.stat(file.fileno())
            text = file.read()
        rows.append((name, is_package, found.st_mtime_ns, found.st_size, _compile(text, source)))
    data = _pack(part, rows)
    temporary = f"{file_of(part)}.{os.getpid()}"
    # As of the .pyc files beside it: nobody else may write, whatever the umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, file_of(part))
    except OSError:
        os.unlink(temporary)
        raise


def _pack(part: str, rows: list[Row]) -> bytes:
    pieces: list[bytes] = []
    piece: list[Row] = []
    for row in rows:
        piece.append(row)
        packed = marshal.dumps(piece)
        if len(packed) > _PIECE or row is rows[-1]:
            pieces.append(packed)
            piece = []
    entry = compile(_ENTRIES.get(part, ""), "", "exec", dont_inherit=True, optimize=2)
    head = marshal.dumps((entry, _frozen_importlib_external.MAGIC_NUMBER, [len(packed) for packed in pieces]))
    if len(head) > HEAD:
        message = f"the head of an image has {len(head)} bytes"
        raise OSError(message)  # none is written
    return head.ljust(HEAD, b"\0") + b"".join(pieces)


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
