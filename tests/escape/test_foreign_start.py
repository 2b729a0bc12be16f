"""What an interpreter and the command look for beside and behind where they are: the next start would run it.

The attack: ``pyvenv.cfg`` or a standard library in the folders above the interpreter's own path, which it looks through by
their letters, links not followed; a start-up image in a folder of ``sys.path`` behind the package's own, when that has
none; the link by which the command is found on ``PATH``.
What stops it: write grants over those names are refused, and ``*`` leaves them out; the command takes an image only from
the folder that the package would be imported from. Source: CPython's getpath.py; an attack on the built product.
"""

from __future__ import annotations

import marshal
import os
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from sandboxed_python.image import HEAD, file_of
from tests.escape.attack import COMMAND, PACKAGE, environment, source

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished

EVIL = "import posix; posix.close(posix.open({mark!r}, posix.O_CREAT))\n"


def refused(ended: Finished) -> bool:
    return ended.code == 9 and "is refused: it covers " in ended.stderr


@pytest.fixture
def linked(attacker: Attacker) -> list[str]:
    """Return the command as started by the base interpreter, which is reached through a link to its folder."""
    asked = "import os, sys; print(os.path.realpath(sys.executable))"
    real = attacker.run([attacker.python, "-c", asked]).stdout.strip()
    os.makedirs(attacker.path("deep/home"))
    os.symlink(os.path.dirname(real), attacker.path("deep/home/bin"))
    text = pathlib.Path(COMMAND).read_text(encoding="utf-8")
    launcher = attacker.put(
        "command/launcher.py", f"import sys; sys.path.append({os.path.dirname(PACKAGE)!r})\n" + text
    )
    return [attacker.path("deep/home/bin", os.path.basename(real)), launcher]


LIBRARY = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
PLACES = ("deep/home/pyvenv.cfg", f"deep/home/{LIBRARY}/os.py", f"deep/{LIBRARY}/os.py")


@pytest.mark.parametrize("place", PLACES)
def test_the_interpreter_would_run_it(attacker: Attacker, linked: list[str], place: str) -> None:
    """The twin: without the sandbox, what lies there is run."""
    mark = attacker.path("secret/ran-it")
    attacker.put(f"evil/{LIBRARY}/os.py", "")
    attacker.put(f"evil/{LIBRARY}/encodings/__init__.py", EVIL.format(mark=mark))
    if place.endswith(".cfg"):
        attacker.put(place, f"home = {attacker.path('evil/bin')}\n")
    else:
        shutil.copytree(attacker.path("evil", LIBRARY), os.path.dirname(attacker.path(place)), dirs_exist_ok=True)
    attacker.run([linked[0], "-c", "0"])
    assert os.path.exists(mark)


@pytest.mark.parametrize("place", PLACES)
def test_above_the_interpreter(attacker: Attacker, linked: list[str], place: str) -> None:
    name = os.path.dirname(place) if place.endswith("os.py") else place
    above = os.path.dirname(os.path.dirname(name)) if place.endswith("os.py") else os.path.dirname(name)
    for grant in (name, f"{name[:-1]}*", f"{above}/"):
        words = ["--permission", f"--allow-fs-write={attacker.path()}/{grant}", "-c", "print('inside')"]
        ended = attacker.run([*linked, *words])
        assert refused(ended), ended.said
    other = attacker.put("deep/home/other/file", "")
    words = ["--permission", f"--allow-fs-write={os.path.dirname(other)}/", "-c", f"open({other!r}, 'w').write('x')"]
    ended = attacker.run([*linked, *words])
    assert ended.code == 0, ended.said
    assert pathlib.Path(other).read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize("grant", ["*", "/"])
def test_everything_leaves_it_out(attacker: Attacker, linked: list[str], grant: str) -> None:
    paths = [attacker.path(place) for place in PLACES]
    body = (
        f"for path in {paths!r}:\n    try:\n        os.makedirs(os.path.dirname(path), exist_ok=True)\n"
        "        open(path, 'x').close()\n    except OSError: pass\n"
        f"open({attacker.path('deep/home/new')!r}, 'x').close()"
    )
    words = ["--permission", "--allow-fs-read=*", f"--allow-fs-write={grant}", "-c", source(body, attacker.home)]
    ended = attacker.run([*linked, *words])
    assert "TRIED: done" in ended.stdout, ended.said
    assert os.path.exists(attacker.path("deep/home/new"))
    assert [path for path in paths if os.path.lexists(path)] == []


# Runs the command's Python part with these folders on sys.path.
FOLDERS = """
import sys
command, *folders = sys.argv[1:]
sys.path[1:1] = folders
sys.argv[:] = [command, "--permission", "-c", "print('inside')"]
exec(compile(open(command).read(), command, "exec"), {"__name__": "__main__", "__file__": command})
"""


@pytest.mark.parametrize("first", ["own", "behind"])
def test_an_image_behind_the_package(attacker: Attacker, first: str) -> None:
    """The twin: in the folder that comes first it is the package's, and is run."""
    shutil.copytree(PACKAGE, attacker.path("own/sandboxed_python"), ignore=shutil.ignore_patterns("*.image", "*.pyc"))
    mark = attacker.path("secret/ran-image")
    head = marshal.dumps((compile(EVIL.format(mark=mark), "", "exec"), b"", []))
    planted = f"behind/sandboxed_python/__pycache__/{os.path.basename(file_of('start'))}"
    attacker.put(planted, "")
    pathlib.Path(attacker.path(planted)).write_bytes(head.ljust(HEAD, b"\0"))
    folders = [attacker.path(name) for name in sorted(("own", "behind"), key=first.__ne__)]
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    ended = attacker.run([attacker.python, "-c", FOLDERS, COMMAND, *folders], env=env)
    assert os.path.exists(mark) == (first == "behind"), ended.said
    assert first == "behind" or ended.stdout == "inside\n", ended.said


def test_the_link_on_the_path(attacker: Attacker) -> None:
    """As pipx makes one."""
    command, _site = environment(attacker, attacker.path("project/src"))
    attacker.put("user/.local/bin/other", "")
    os.symlink(command[0], attacker.path("user/.local/bin/sandboxed-python"))
    env = {"PATH": f"{attacker.path('user/.local/bin')}:{os.environ['PATH']}", "HOME": attacker.path("user")}
    for grant in ("user/.local/", "user/.local/bin/", "user/.local/bin/s*"):
        words = ["--permission", f"--allow-fs-write={attacker.path()}/{grant}", "-c", "print('inside')"]
        ended = attacker.run(["sandboxed-python", *words], env=env)
        assert refused(ended), ended.said
    words = ["--permission", f"--allow-fs-write={attacker.path('user')}/share/", "-c", "print('inside')"]
    assert attacker.run(["sandboxed-python", *words], env=env).stdout == "inside\n"


@pytest.mark.parametrize("place", ["/pyvenv.cfg", "/usr/pyvenv.cfg", "/usr/local/pyvenv.cfg"])
def test_above_the_systems_programs(attacker: Attacker, place: str) -> None:
    """Where ``/bin`` is a link, ``/bin/python3`` looks above that."""
    ended = attacker.run([*attacker.command, "--permission", f"--allow-fs-write={place}", "-c", "print('inside')"])
    assert refused(ended), ended.said
    words = ["--permission", f"--allow-fs-write={attacker.path('write/pyvenv.cfg')}", "-c", "print('inside')"]
    assert attacker.run([*attacker.command, *words]).stdout == "inside\n"
