"""What starts Python for one: runners, console scripts, first lines; each with the options where it applies.

The commands are those of ``docs/runners.md``. Nothing here needs the network: wheels come from a folder.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.house.test_install import installer, wheels
from tests.programs import wheel

if TYPE_CHECKING:
    from tests.support import Finished

OURS = "sandboxed-python-supervisor"
DATA = "text of the file"
ALLOWED = f"net False\n{DATA}\n"


class Bench:
    """A folder with a file, wheels of this project and of some-tool, and the environment that finds them."""

    def __init__(self, folder: str) -> None:
        """Lay it out."""
        self.folder = folder
        self.file = os.path.join(folder, "data.txt")
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(DATA + "\n")
        self.wheels = os.path.join(folder, "wheels")
        shutil.copytree(wheels(), self.wheels)
        wheel.make(self.wheels)
        for name in ("home", "tmp"):
            os.mkdir(os.path.join(folder, name))
        self.environment: dict[str, str | None] = {
            "HOME": os.path.join(folder, "home"),
            "TMPDIR": os.path.join(folder, "tmp"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels,
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIPX_HOME": os.path.join(folder, "pipx"),
            "PIPX_BIN_DIR": os.path.join(folder, "bin"),
            "PIPX_MAN_DIR": os.path.join(folder, "man"),
            "PIPX_DEFAULT_PYTHON": sys.executable,
            "UV_CACHE_DIR": os.path.join(folder, "cache"),
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": "1",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": self.wheels,
            "UV_PYTHON": sys.executable,
        }

    def run(self, *words: str, options: str = "", **more: str) -> Finished:
        """Run a runner with SANDBOXED_PYTHON_OPTIONS."""
        environment = {**self.environment, "SANDBOXED_PYTHON_OPTIONS": options or None, **more}
        return support.execute(words, cwd=self.folder, env=environment, timeout=110)

    def works(self, *words: str, **more: str) -> None:
        """Check that the tool reads the granted file, has no network, and without the grant reads nothing."""
        done = self.run(*words, options=f"--permission --allow-fs-read={self.file}", **more)
        assert done.code == 0, done.said
        assert ALLOWED in done.stdout, done.said
        denied = self.run(*words, options="--permission", **more)
        assert denied.code == 1, denied.said
        assert DATA not in denied.stdout
        assert "--allow-fs-read" in denied.stdout + denied.stderr, denied.said


@pytest.fixture
def bench(folder: str) -> Bench:
    support.need()
    return Bench(folder)


@pytest.mark.slow
def test_uvx(bench: Bench) -> None:
    uv = installer("uv")
    bench.works(
        uv, "tool", "run", "--from", OURS, "--with", wheel.NAME, "sandboxed-python", "-m", "some_tool", "data.txt"
    )


@pytest.mark.slow
def test_uv_run(bench: Bench) -> None:
    uv = installer("uv")
    with_both = ["--no-project", "--with", wheel.NAME, "--with", OURS]
    bench.works(uv, "run", *with_both, "sandboxed-python", "-m", "some_tool", "data.txt")


@pytest.mark.slow
def test_pipx_run(bench: Bench) -> None:
    pipx = installer("pipx")
    bench.works(pipx, "run", "--spec", OURS, "--with", wheel.NAME, "sandboxed-python", "-m", "some_tool", "data.txt")


@pytest.mark.slow
def test_pipx_install_and_inject(bench: Bench) -> None:
    """By module, and by the console script that pipx links to; the tool's own command stays unconfined."""
    pipx = installer("pipx")
    for words in (("install", wheel.NAME), ("inject", "--include-apps", wheel.NAME, OURS)):
        done = bench.run(pipx, *words)
        assert done.code == 0, done.said
    command, tool = (os.path.join(bench.folder, "bin", name) for name in ("sandboxed-python", wheel.NAME))
    bench.works(command, "-m", "some_tool", "data.txt")
    bench.works(command, tool, "data.txt")
    bare = bench.run(tool, "data.txt", options="--permission")
    assert (bare.code, bare.stdout) == (0, f"net unrestricted\n{DATA}\n"), bare.said


@pytest.mark.slow
def test_tox(bench: Bench) -> None:
    """With set_env in the configuration, and the variable passed from outside."""
    if not os.path.exists(os.path.join(os.path.dirname(sys.executable), "tox")):
        support.refuse("tox (extra programs)", "none for this interpreter")
    with open(os.path.join(bench.folder, "tox.ini"), "w", encoding="utf-8") as file:
        file.write(
            "[tox]\nno_package = true\nenv_list = inside, outside\n"
            f"[testenv]\ndeps =\n    {wheel.NAME}\n    {OURS}\n"
            "env_dir = {tox_root}/environment\n"
            "commands = sandboxed-python -m some_tool data.txt\n"
            "[testenv:inside]\nset_env =\n    SANDBOXED_PYTHON_OPTIONS = --permission --allow-fs-read={tox_root}/data.txt\n"
            "[testenv:outside]\npass_env = SANDBOXED_PYTHON_OPTIONS\n"
        )
    words = [sys.executable, "-m", "tox", "run", "-q", "-e"]
    inside = bench.run(*words, "inside", VIRTUALENV_NO_DOWNLOAD="1")
    assert inside.code == 0, inside.said
    assert ALLOWED in inside.stdout, inside.said
    bench.works(*words, "outside", VIRTUALENV_NO_DOWNLOAD="1")


@pytest.fixture
def environment_of_its_own(bench: Bench) -> str:
    """Return the folder of a virtual environment with some-tool and without this project, as tools make them."""
    venv = os.path.join(bench.folder, "venv")
    made = support.execute([sys.executable, "-m", "venv", "--without-pip", venv])
    assert made.code == 0, made.said
    site = glob.glob(os.path.join(venv, "lib", "python*", "site-packages"))[0]
    (path,) = glob.glob(os.path.join(bench.wheels, "some_tool-*.whl"))
    added = bench.run(sys.executable, "-m", "pip", "install", "-q", "--target", site, path)
    assert added.code == 0, added.said
    script = os.path.join(venv, "bin", wheel.NAME)
    with open(script, "w", encoding="utf-8") as file:
        file.write(f"#!{venv}/bin/python3\nimport sys\nfrom some_tool.__main__ import main\nsys.exit(main())\n")
    os.chmod(script, 0o755)
    return venv


def test_a_console_script_of_another_environment(bench: Bench, environment_of_its_own: str) -> None:
    """``--python`` names that environment's interpreter; the script, and the module, are found there."""
    venv = environment_of_its_own
    python = f"--python={venv}/bin/python3"
    command = support.installed()[0]
    bench.works(command, python, os.path.join(venv, "bin", wheel.NAME), "data.txt")
    bench.works(command, python, "-m", "some_tool", "data.txt")
    without = bench.run(command, os.path.join(venv, "bin", wheel.NAME), "data.txt", options="--permission")
    assert without.code == 1, without.said
    assert "No module named 'some_tool'" in without.stderr


def test_a_console_script_of_the_same_environment(bench: Bench) -> None:
    """By its path, or the module that it starts; here pytest's, which says its version and reads nothing."""
    script = os.path.join(sysconfig.get_path("scripts"), "pytest")
    for words in ([script], ["-m", "pytest"]):
        done = bench.run(
            *support.installed(), *words, "--version", options="--permission --allow-worker --allow-addons"
        )
        assert done.code == 0, done.said
        assert done.stdout.startswith("pytest "), done.said


def test_a_first_line(bench: Bench) -> None:
    """``env -S`` splits the words; what the environment says is united with them."""
    script = os.path.join(bench.folder, "script")
    with open(script, "w", encoding="utf-8") as file:
        file.write(f"#!/usr/bin/env -S sandboxed-python --permission\n{wheel.MAIN}")
    os.chmod(script, 0o755)
    path = f"{os.path.dirname(support.installed()[0])}:{os.environ['PATH']}"
    bench.works(script, "data.txt", PATH=path)
    denied = bench.run(script, "data.txt", PATH=path)
    assert denied.code == 1, denied.said
    assert "--allow-fs-read" in denied.stderr
