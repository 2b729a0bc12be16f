"""The command works however it was installed, and wherever it is called from."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests import support

if TYPE_CHECKING:
    import pathlib

WHEELS = "SANDBOXED_PYTHON_WHEELS"
ASK = "import sys; print(sys.permission.has('net'))"
READ = "open('/etc/passwd')"

pytestmark = pytest.mark.kernel


def wheels() -> str:
    """Return the folder of the wheels of this project and what it needs, or skip."""
    for folder in (os.environ.get(WHEELS, ""), os.path.join(sys.prefix, "wheel")):
        if folder and os.path.isdir(folder):
            return folder
    pytest.skip(f"needs the wheels that scripts/test leaves ({WHEELS}); found none")


def own_wheel() -> str:
    return glob.glob(os.path.join(wheels(), "sandboxed_python_supervisor-*.whl"))[0]


def installer(name: str) -> str:
    """Return the path of pipx or uv, which the dev extra brings, or skip."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.path.exists(beside) else support.tool(name)


def works(command: str) -> None:
    """Check that this command grants, and denies, and leaves nothing undone."""
    support.need()
    asked = support.execute([command, "--permission", "--allow-net", "-c", ASK])
    assert (asked.code, asked.stdout) == (0, "True\n"), asked.said
    denied = support.execute([command, "--permission", "-c", READ])
    assert denied.code == 1, denied.said
    assert "ERR_ACCESS_DENIED" in denied.stderr


def test_pip() -> None:
    works(support.installed()[0])


def test_through_links(tmp_path: pathlib.Path) -> None:
    """pipx makes a link to it; links may be relative, and lead to links."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "absolute").symlink_to(support.installed()[0])
    (tmp_path / "relative").symlink_to("bin/absolute")
    works(os.path.join(tmp_path, "bin", "absolute"))
    works(os.path.join(tmp_path, "relative"))


def test_from_path_and_by_relative_name(tmp_path: pathlib.Path) -> None:
    support.need()
    folder, name = os.path.split(support.installed()[0])
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    found = support.execute(
        ["/bin/sh", "-c", f'sandboxed-python --permission -c "{ASK}"'], env=environment, cwd=tmp_path
    )
    assert (found.code, found.stdout) == (0, "False\n"), found.said
    near = support.execute([f"./{name}", "--permission", "-c", ASK], cwd=folder)
    assert (near.code, near.stdout) == (0, "False\n"), near.said


def test_as_a_module() -> None:
    support.need()
    found = support.execute([sys.executable, "-m", "sandboxed_python", "--permission", "-c", ASK])
    assert (found.code, found.stdout) == (0, "False\n"), found.said


@pytest.mark.parametrize("options", ["--permission", "--permission --allow-net"])
def test_as_a_shebang(tmp_path: pathlib.Path, options: str) -> None:
    """The kernel hands the script's path to the interpreter of its first line; ``env -S`` splits the words."""
    support.need()
    script = tmp_path / "script"
    script.write_text(f"#!/usr/bin/env -S sandboxed-python {options}\nimport sys\n{ASK}\nprint(sys.argv[1:])\n")
    script.chmod(0o755)
    environment = {"PATH": f"{os.path.dirname(support.installed()[0])}:{os.environ['PATH']}"}
    found = support.execute([script, "a", "--b"], env=environment)
    assert found.code == 0, found.said
    assert found.stdout == f"{'net' in options}\n['a', '--b']\n"


def test_as_a_shebang_without_env(tmp_path: pathlib.Path) -> None:
    support.need()
    command = support.installed()[0]
    if len(command) > 120:
        pytest.skip(f"needs a command whose path fits into a first line; found {command}")
    script = tmp_path / "script"
    script.write_text(f"#!{command} --permission\nimport sys\n{ASK}\n")
    script.chmod(0o755)
    found = support.execute([script])
    assert (found.code, found.stdout) == (0, "False\n"), found.said


def test_uv(tmp_path: pathlib.Path) -> None:
    uv = installer("uv")
    venv = os.path.join(tmp_path, "venv")
    environment = {"UV_CACHE_DIR": os.path.join(tmp_path, "cache"), "HOME": str(tmp_path)}
    offline = ["--offline", "--no-index", "--find-links", wheels()]
    made = support.execute([uv, "venv", "--offline", "--python", sys.executable, venv], env=environment)
    assert made.code == 0, made.said
    added = support.execute([uv, "pip", "install", "--python", venv, *offline, own_wheel()], env=environment)
    assert added.code == 0, added.said
    works(os.path.join(venv, "bin", "sandboxed-python"))


def test_uvx(tmp_path: pathlib.Path) -> None:
    support.need()
    words = [installer("uv"), "tool", "run", "--offline", "--no-index", "--find-links", wheels(), "--from", own_wheel()]
    words += ["--python", sys.executable, "sandboxed-python", "-c", ASK]
    environment = {
        "UV_CACHE_DIR": os.path.join(tmp_path, "cache"),
        "HOME": str(tmp_path),
        "SANDBOXED_PYTHON_OPTIONS": "--permission --allow-net",
    }
    found = support.execute(words, env=environment)
    assert (found.code, found.stdout) == (0, "True\n"), found.said


def test_pipx(tmp_path: pathlib.Path) -> None:
    pipx = installer("pipx")
    environment = {
        "PIPX_HOME": os.path.join(tmp_path, "pipx"),
        "PIPX_BIN_DIR": os.path.join(tmp_path, "bin"),
        "PIPX_MAN_DIR": os.path.join(tmp_path, "man"),
        "HOME": str(tmp_path),
    }
    offline = f"--pip-args=--no-index --find-links {wheels()}"
    added = support.execute([pipx, "install", "--python", sys.executable, offline, own_wheel()], env=environment)
    assert added.code == 0, added.said
    command = os.path.join(tmp_path, "bin", "sandboxed-python")
    assert os.path.islink(command)
    works(command)


def test_a_command_without_its_package_says_so(tmp_path: pathlib.Path) -> None:
    """Copied away from its environment, it finds another python3, and that one has no such package."""
    copy = os.path.join(tmp_path, "sandboxed-python")
    shutil.copy(support.installed()[0], copy)
    environment = {"PATH": "/usr/bin:/bin"}
    if support.execute(["/usr/bin/env", "python3", "-c", "import sandboxed_python"], env=environment).code != 1:
        pytest.skip("needs a python3 in /usr/bin without this package; found none")
    found = support.execute([copy, "--version"], env=environment)
    assert found.code == 125, found.said
    assert "install the package for this interpreter" in found.stderr
