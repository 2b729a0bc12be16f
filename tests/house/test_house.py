"""The house around the package: what is shipped, how scripts and words look, what start-up loads."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import stat
import sys

import pytest

from tests import support
from tests.house.tables import ROOT

DISTRIBUTION = "sandboxed-python-supervisor"
PACKAGE = os.path.join(ROOT, "supervisor", "sandboxed_python")
LEFT_OUT = frozenset((".git", "__pycache__", "build", "dist", "wheel", "node_modules"))

# What start-up may not load: each costs milliseconds, and the whole budget is a handful of them.
SLOW = frozenset(
    (
        *("argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "inspect", "json", "logging"),
        *("pathlib", "psutil", "pyseccomp", "re", "select", "shutil", "signal", "socket", "subprocess", "tempfile"),
        *("threading", "tomllib", "typing"),
    )
)
# What a run may load of the standard library, beside what plain python loads.
STANDARD = frozenset(
    (
        "__future__",
        "_ctypes",
        "atexit",
        "_signal",
        "_struct",
        "errno",
        "gc",
        "itertools",
        "marshal",
        "resource",
        "struct",
    ),
)
# Rooms and modules on the way from the command to the program's first line.
HOT = ("policy/table", "policy/patterns", "policy/model", "policy/decide", "kernel/", "plan/model", "plan/build",
       "plan/implicit", "plan/landlock", "plan/runtime", "launch/", "broker/serve", "broker/gate", "child/", "errors",
       "frozen", "__init__")  # fmt: skip


def sources(top: str = ROOT) -> list[str]:
    """Return the text files of the checkout."""
    found = []
    for folder, folders, names in os.walk(top):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT and (not name.startswith(".") or name in (".ci", ".github"))
        ]
        found += [
            os.path.join(folder, name)
            for name in names
            if name not in LEFT_OUT and not name.endswith((".pyc", ".whl", ".bin", ".bpf"))
        ]
    return sorted(found)


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def modules() -> list[str]:
    """Return the package's modules, as paths relative to it."""
    return [os.path.relpath(path, PACKAGE) for path in sources(PACKAGE) if path.endswith(".py")]


# What is installed


def installed_files() -> set[str]:
    return {str(path) for path in importlib.metadata.files(DISTRIBUTION) or ()}


def test_the_wheel_is_installed_and_not_editable() -> None:
    import sandboxed_python

    files = installed_files()
    assert "sandboxed_python/__init__.py" in files
    where = importlib.metadata.distribution(DISTRIBUTION).locate_file("sandboxed_python/__init__.py")
    assert os.path.realpath(str(where)) == os.path.realpath(sandboxed_python.__file__)


def test_the_wheel_holds_every_module_preset_and_filter() -> None:
    files = installed_files()
    wanted = {f"sandboxed_python/{os.path.relpath(path, PACKAGE)}" for path in sources(PACKAGE)}
    wanted |= {f"sandboxed_python/policies/{name}" for name in os.listdir(os.path.join(ROOT, "policies"))}
    wanted |= {
        f"sandboxed_python/{os.path.relpath(os.path.join(folder, name), PACKAGE)}"
        for folder, _folders, names in os.walk(os.path.join(PACKAGE, "plan", "filters"))
        for name in names
    }
    assert wanted - files == set()


def test_the_wheel_holds_nothing_else() -> None:
    foreign = {
        name
        for name in installed_files()
        if not name.startswith(("sandboxed_python/", "sandboxed_python_supervisor-"))
        and not name.endswith(("/bin/sandboxed-python", ".pyc"))
    }
    assert foreign == set()


def test_the_command_is_installed_as_it_is_in_the_checkout() -> None:
    assert read(support.installed()[0]) == read(os.path.join(ROOT, "scripts", "sandboxed-python"))


def test_the_version_is_one() -> None:
    import sandboxed_python

    assert importlib.metadata.version(DISTRIBUTION) == sandboxed_python.__version__
    assert f"{sandboxed_python.__version__}" in read(os.path.join(ROOT, "CHANGELOG.md"))


# Scripts

SHELL_SCRIPTS = ("scripts/demo", "scripts/test", "scripts/setup-env", ".ci/run")


@pytest.mark.parametrize("name", [*SHELL_SCRIPTS, "scripts/sandboxed-python"])
def test_scripts_are_executable(name: str) -> None:
    path = os.path.join(ROOT, name)
    assert os.stat(path).st_mode & stat.S_IXUSR
    assert read(path).startswith("#!/bin/sh\n")


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_scripts_are_shell(name: str) -> None:
    path = os.path.join(ROOT, name)
    ended = support.execute(["/bin/sh", "-n", path])
    assert ended.code == 0, ended.said


def test_what_the_readme_tells_to_run_exists() -> None:
    text = read(os.path.join(ROOT, "README.md"))
    for name in re.findall(r"\bscripts/[\w/.-]*\w", text):
        assert os.path.exists(os.path.join(ROOT, name)), name
    for name in re.findall(r"\bexamples/[\w/.-]*\w", text):
        assert os.path.exists(os.path.join(ROOT, name)), name


def test_setup_env_names_what_is_missing() -> None:
    ended = support.execute([os.path.join(ROOT, "scripts/setup-env")], env={"PYTHON": "/nonexistent/python3"})
    assert ended.code == 1
    assert "PYTHON=/nonexistent/python3" in ended.stderr


# Words


FORBIDDEN = (
    (re.compile(r"\b(TO" r"DO|FIX" r"ME|HA" r"CK)\b"), "unfinished business belongs to the tracker"),
    (re.compile(r"py" r"pi\.org|python" r"hosted"), "registries are the user's choice"),
    (re.compile(r"/(root|home/[a-z]+)/\.(pyenv|cache)|/wo" r"rk/"), "paths of one machine"),
    (re.compile(r"(?<![&\w/(])#[0-9]+\b(?!;)"), "numbers of a tracker"),
)


@pytest.mark.parametrize("path", [os.path.relpath(path, ROOT) for path in sources()])
def test_no_forbidden_words(path: str) -> None:
    if path.startswith("tests/data/"):
        return
    text = read(os.path.join(ROOT, path))
    for pattern, why in FORBIDDEN:
        found = pattern.search(text)
        assert found is None, f"{path}: {found}: {why}"


def test_every_module_says_where_it_runs() -> None:
    for name in modules():
        doc = ast.get_docstring(ast.parse(read(os.path.join(PACKAGE, name)))) or ""
        assert re.search(r"^Runs in: (supervisor|child|both)\b", doc, re.MULTILINE), name


def test_modules_stay_small() -> None:
    for name in modules():
        assert read(os.path.join(PACKAGE, name)).count("\n") <= 600 or name == "plan/syscalls.py", name


# Start-up


def imported_at_module_level(tree: ast.Module) -> set[str]:
    """Return the top-level names that importing a module imports (not under ``if TYPE_CHECKING``)."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.If):
            checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            pending += node.orelse if checking else [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            pending += [*node.body, *node.orelse, *node.finalbody]
            pending += [statement for handler in node.handlers for statement in handler.body]
    return names


def test_the_hot_path_imports_nothing_slow() -> None:
    for name in modules():
        if name.startswith(HOT):
            slow = imported_at_module_level(ast.parse(read(os.path.join(PACKAGE, name)))) & SLOW
            assert not slow, f"{name} imports {sorted(slow)}"


def loaded(*words: str) -> set[str]:
    """Return the modules that are imported while the command runs, in all its processes that write to stderr."""
    program = [sys.executable, "-X", "importtime", support.installed()[0], *words]
    ended = support.execute(program)
    assert ended.code == 0, ended.said
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.kernel
def test_a_run_loads_nothing_slow(tmp_path: object) -> None:
    support.need()
    program = os.path.join(str(tmp_path), "empty.py")
    with open(program, "w", encoding="utf-8"):
        pass
    plain = support.execute([sys.executable, "-X", "importtime", program])
    before = {line.rpartition("|")[2].strip() for line in plain.stderr.splitlines()}
    loaded("--permission", program)  # the first run of an installation loads what writes the start-up images
    ours = loaded("--permission", f"--allow-fs-read={tmp_path}", program) - before
    assert ours & SLOW == set()
    assert ours & {f"sandboxed_python.policy.{name}" for name in ("files", "contents", "formats")} == set()
    foreign = {name for name in ours if not name.startswith("sandboxed_python")}
    # About forty come in one image, where the installation could be written to when it was first used.
    assert len(ours) < 80, sorted(ours)
    assert foreign <= STANDARD, sorted(foreign - STANDARD)
    off = loaded(program) - before  # becomes plain python
    assert off & SLOW == set()
    assert {name for name in off if not name.startswith("sandboxed_python")} <= STANDARD
