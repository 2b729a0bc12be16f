"""The start-up image as a file: who may write it, and what is left when it can't be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import sandboxed_python
from sandboxed_python.image import HEAD, PARTS
from tests.support import clean_environment, installed

if TYPE_CHECKING:
    import pathlib

WRITE = "from sandboxed_python import image\nimage.write_missing()\n"


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return the folder where a copy of the package keeps what was compiled."""
    shutil.copytree(
        os.path.dirname(sandboxed_python.__file__),
        tmp_path / "sandboxed_python",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    folder = tmp_path / "sandboxed_python" / "__pycache__"
    folder.mkdir()
    return folder


def run(cache: pathlib.Path, before: str, **changes: str | None) -> None:
    code = f"import sys\nsys.path.insert(0, {str(cache.parent.parent)!r})\n{before}\n{WRITE}"
    env = clean_environment(changes)
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=60, env=env)


@pytest.mark.parametrize(("value", "written"), [("1", 0), ("", len(PARTS))])
def test_who_wants_no_compiled_files_gets_none(cache: pathlib.Path, value: str, written: int) -> None:
    """Also where the command has started an isolated interpreter, which doesn't look at the variable."""
    run(cache, "", PYTHONDONTWRITEBYTECODE=value)
    assert len(list(cache.glob("*.image"))) == written


def test_nobody_else_may_write_the_image(cache: pathlib.Path) -> None:
    """It is code of the supervisor's: a daemon's or container's umask of 0 must not open it."""
    run(cache, "import os; os.umask(0)")
    modes = {path.name.partition(".")[0]: path.stat().st_mode & 0o777 for path in cache.glob("*.image")}
    assert modes == dict.fromkeys(PARTS, 0o644)


def test_a_full_disk_leaves_nothing_behind(cache: pathlib.Path) -> None:
    run(cache, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))")
    assert list(cache.glob("*.image*")) == []


# Runs the command's Python part where the copy of the package is found first.
COMMAND = """
import sys
path, command = sys.argv[1:]
sys.path.insert(1, path)
sys.argv[:] = [command, "--version"]
exec(compile(open(command).read(), command, "exec"), {"__name__": "__main__", "__file__": command})
"""


def started(cache: pathlib.Path) -> tuple[str, bool]:
    """Start the command with a copy of the package; return what it says, and whether it has used the image."""
    words = [sys.executable, "-I", "-X", "importtime", "-c", COMMAND, str(cache.parent.parent), installed()[0]]
    ended = subprocess.run(words, check=True, timeout=60, capture_output=True, text=True)
    return ended.stdout, "sandboxed_python.cli.args" not in ended.stderr


def test_an_image_that_is_cut_short_or_not_ours_is_not_used(cache: pathlib.Path) -> None:
    run(cache, "")
    image = next(cache.glob("start.*"))
    whole = image.read_bytes()
    said = f"sandboxed-python {sandboxed_python.__version__}"
    assert (said in started(cache)[0], started(cache)[1]) == (True, True)
    for end in (0, 10, HEAD // 2, HEAD, HEAD + 1000, len(whole) - 1):
        image.write_bytes(whole[:end])
        assert (said in started(cache)[0], started(cache)[1]) == (True, False), end
    image.write_bytes(bytes(HEAD) + whole[HEAD:])
    assert started(cache)[1] is False
    image.write_bytes(whole)
    source = cache.parent / "errors.py"
    os.utime(source, ns=(0, 0))
    assert started(cache)[1] is False  # and the twin:
    os.utime(source, ns=(0, os.stat(os.path.join(os.path.dirname(sandboxed_python.__file__), "errors.py")).st_mtime_ns))
    assert started(cache)[1] is True


def test_the_package_was_somewhere_else_before(cache: pathlib.Path) -> None:
    run(cache, "")
    moved = cache.parent.parent / "moved"
    moved.mkdir()
    shutil.move(cache.parent, moved)
    assert started(moved / "sandboxed_python" / "__pycache__")[1] is False


@pytest.mark.parametrize(
    ("words", "parts"),
    [(["-c", "pass"], ("start",)), (["--allow-fs-read=/etc/hostname", "-c", "pass"], ("start", "grants"))],
)
def test_a_start_needs_what_its_image_holds_and_no_more(words: list[str], parts: tuple[str, ...]) -> None:
    """What isn't in the image is looked for, checked and unmarshalled by itself, at each start."""
    code = """
import sys
from sandboxed_python import image
from sandboxed_python.cli import main
image.load = lambda part: None
def stop(plan, baseline, **_options):
    print(*[name.partition(".")[2] for name in sys.modules if name.partition(".")[0] == "sandboxed_python"], sep=",")
    sys.exit()
main.start = stop
sys.argv[1:] = ["--permission", *sys.argv[1:]]
main.main(frozenset(sys.modules))
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code, *words], check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert sorted(ended.stdout.strip().split(",")) == sorted(name for part in parts for name in PARTS[part])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs an interpreter with a table of places (3.11)")
def test_every_instruction_in_the_image_has_a_line(cache: pathlib.Path) -> None:
    """Who looks at the stack (``inspect.stack``) expects one; it is the function's first."""
    code = """
import ast
from sandboxed_python import image
def walk(one, other):
    assert one.co_code == other.co_code and one.co_firstlineno == other.co_firstlineno
    lines = [line for start, end, line in other.co_lines() for at in range(start, end, 2)]
    assert lines == [other.co_firstlineno] * (len(other.co_code) // 2), other
    count = 1
    for first, second in zip(one.co_consts, other.co_consts, strict=True):
        if hasattr(first, "co_code"):
            count += walk(first, second)
    return count
from sandboxed_python import image_writer
plain = compile(ast.parse(open(image.__file__).read()), "x", "exec", 0, True, 2)
short = image_writer._in_one_line(plain)
print(walk(plain, short), len(short.co_linetable) < len(plain.co_linetable))
"""
    run(cache, "")
    ended = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\nsys.path.insert(0, {str(cache.parent.parent)!r})\n{code}"],
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        text=True,
    )
    count, smaller = ended.stdout.split()
    assert int(count) > 10
    assert smaller == "True"


def test_a_python_in_the_sandbox_needs_what_its_image_holds_and_no_more() -> None:
    code = """
import sys
from sandboxed_python.child import boot_child, inherit
print(*[name.partition(".")[2] for name in sys.modules if name.partition(".")[0] == "sandboxed_python"], sep=",")
"""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, timeout=60, stdout=subprocess.PIPE, text=True
    )
    assert sorted(ended.stdout.strip().split(",")) == sorted(PARTS["again"])
