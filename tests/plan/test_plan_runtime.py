"""The interpreter described: what it is told apart by, and what of it must not be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.errors import LaunchError
from sandboxed_python.plan.foreign import other_runtime
from sandboxed_python.plan.mounts import Mounts
from sandboxed_python.plan.protect import Protection
from sandboxed_python.plan.runtime import PACKAGE, Runtime, sees_system_site, this_runtime
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import Grant
from tests.launch.plain import pythons
from tests.plan.world import RUNTIME

if TYPE_CHECKING:
    import pathlib


def make(folder: pathlib.Path, *paths: str) -> str:
    """Make empty files; return the folder's resolved name."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return os.path.realpath(folder)


def test_files_are_what_would_run_outside() -> None:
    files = RUNTIME.files
    assert len(set(files)) == len(files)
    assert {
        *("/opt/python/lib/python3.11", "/opt/python/lib", "/venv/lib/python3.11/site-packages", "/venv/pyvenv.cfg"),
        *("/venv/bin", "/venv/lib/python3.11/site-packages/sandboxed_python"),
        "/home/me/.local/lib/python3.11/site-packages",
    } <= set(files)
    assert not {"/", "/home/me", "/opt", "/venv", "/usr"} & set(files)


def test_files_are_named_as_the_interpreter_names_them(tmp_path: pathlib.Path) -> None:
    """Links are followed where the names are used (``Protection``), but for the folder of the interpreter itself."""
    top = make(tmp_path, "real/bin/python", "real/site-packages/x", "venv/bin/activate")
    os.symlink(f"{top}/real/bin/python", f"{top}/venv/bin/python")
    os.symlink(f"{top}/real", f"{top}/link")
    runtime = Runtime(
        executable=f"{top}/venv/bin/python",
        prefix=f"{top}/venv",
        base_prefix=f"{top}/link",
        stdlib=f"{top}/link/stdlib",
        platstdlib=f"{top}/link/stdlib",
        site=(f"{top}/link/site-packages",),
        path=(f"{top}/added-by-pth", f"{top}/link/zip.zip"),
        package=f"{top}/package",
    )
    named = {
        *(f"{top}/venv/bin", f"{top}/venv/bin/python", f"{top}/real/bin", f"{top}/link/stdlib", f"{top}/package"),
        *(f"{top}/link/site-packages", f"{top}/added-by-pth", f"{top}/link/zip.zip", f"{top}/link/lib"),
    }
    assert named <= set(runtime.files)
    everything = Policy(write=(Grant(text="*", kind="all", paths=()),))
    left_out = set(Protection((runtime,), lambda: Mounts(())).left_out(everything, ()))
    assert named | {f"{top}/{name}" for name in ("link", "real/stdlib", "real/site-packages", "real/lib")} <= left_out


@pytest.mark.parametrize(
    "line",
    [
        *("", "include-system-site-packages = false", "include-system-site-packages = true"),
        *(
            "include-system-site-packages\t=\ttrue",
            "Include-System-Site-Packages=TRUE",
            "include-system-site-packages=no",
        ),
        *("x = 1\rinclude-system-site-packages = false\r", "include-system-site-packages = true\r\nx = 1\r\n"),
        "include-system-site-packages = false\ninclude-system-site-packages = true",
        "include-system-site-packages = true\xa0",
        "include-system-site-packages false",
    ],
)
def test_user_sites_are_protected_where_the_environment_uses_them(tmp_path: pathlib.Path, line: str) -> None:
    base = os.path.realpath(sys.executable)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(base)
    text = f"home = {os.path.dirname(base)}\n{line}"
    (tmp_path / "pyvenv.cfg").write_bytes(text.encode())
    asked = "import site, sys; print(site.ENABLE_USER_SITE, sys.prefix != sys.base_prefix)"
    env = {"HOME": str(tmp_path)}
    ended = subprocess.run([tmp_path / "bin/python3", "-c", asked], capture_output=True, text=True, check=True, env=env)
    assert ended.stdout == f"{sees_system_site(str(tmp_path))} True\n"


def test_an_environment_that_cannot_be_read_may_use_them(tmp_path: pathlib.Path) -> None:
    assert sees_system_site(str(tmp_path))


def test_the_running_interpreter() -> None:
    runtime = this_runtime("/the/scripts")
    assert runtime.executable == sys.executable
    assert (runtime.prefix, runtime.base_prefix) == (sys.prefix, sys.base_prefix)
    assert os.path.samefile(runtime.stdlib, sysconfig.get_path("stdlib"))
    assert os.path.isdir(f"{runtime.platstdlib}/lib-dynload")
    assert sysconfig.get_path("purelib") in runtime.site
    assert runtime.package == PACKAGE == os.path.dirname(sys.modules["sandboxed_python"].__file__ or "")
    assert runtime.scripts == "/the/scripts"
    assert "/the/scripts" in runtime.files
    assert all(os.path.isabs(path) for path in (*runtime.files, *runtime.path))


PROGRAM = """
import sys
before = set(sys.modules)
sys.path.append(sys.argv[1])
from sandboxed_python.plan.mounts import Mounts
from sandboxed_python.plan.protect import Protection
from sandboxed_python.plan.runtime import this_runtime
found = this_runtime()
new = sorted(name for name in set(sys.modules) - before if not name.startswith("sandboxed_python"))
import json, sysconfig
print(json.dumps([found.as_dict(), new, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), found.files]))
"""


def described(python: str, *options: str, env: dict[str, str] | None = None) -> Any:
    ended = subprocess.run(
        [python, *options, "-c", PROGRAM, os.path.dirname(PACKAGE)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("option", ["-I", "-s"])
def test_any_interpreter_describes_itself_without_heavy_imports(python: str, option: str) -> None:
    found, new, stdlib, purelib, _files = described(python, option)
    assert set(new) <= {"__future__", "errno", "pwd"}
    assert os.path.samefile(found["stdlib"], stdlib)
    assert os.path.isdir(f"{found['platstdlib']}/lib-dynload")
    assert purelib in found["site"] or not os.path.isdir(purelib)


@pytest.mark.parametrize("python", pythons())
def test_another_interpreter_is_described_from_outside(python: str) -> None:
    inside, _new, _stdlib, _purelib, _files = described(python, "-I")
    outside = other_runtime(python)
    for field in ("executable", "prefix", "base_prefix"):
        assert os.path.realpath(getattr(outside, field)) == os.path.realpath(inside[field])
    assert os.path.samefile(outside.stdlib, inside["stdlib"])
    assert os.path.samefile(outside.platstdlib, inside["platstdlib"])
    missing = [
        path
        for path in inside["site"]
        if os.path.isdir(path) and not any(os.path.samefile(path, known) for known in outside.site)
    ]
    assert missing == []


def test_another_interpreter_is_not_run(tmp_path: pathlib.Path) -> None:
    top = make(
        tmp_path, "lib/python3.12/os.py", "lib/python3.12/site-packages/x", "lib/python3.9x/notes", "bin/python3.12"
    )
    (tmp_path / "bin/python3.12").write_text(f"#!/bin/sh\ntouch {top}/ran\n", encoding="utf-8")
    os.chmod(f"{top}/bin/python3.12", 0o755)
    runtime = other_runtime(f"{top}/bin/python3.12")
    assert not os.path.exists(f"{top}/ran")
    assert (runtime.stdlib, runtime.base_prefix, runtime.prefix) == (f"{top}/lib/python3.12", top, top)
    assert runtime.site[0] == f"{top}/lib/python3.12/site-packages"


def test_an_interpreter_in_a_virtual_environment(tmp_path: pathlib.Path) -> None:
    top = make(
        tmp_path,
        *("base/lib/python3.12/os.py", "base/lib/python3.13/os.py", "base/lib/python3.12/site-packages/x"),
        *("base/bin/python3.12", "venv/lib/python3.12/site-packages/y", "venv/bin/activate"),
    )
    os.symlink(f"{top}/base/bin/python3.12", f"{top}/venv/bin/python3")
    for setting, system in (("false", False), ("true", True)):
        text = f"home = {top}/base/bin\ninclude-system-site-packages = {setting}\n"
        (tmp_path / "venv/pyvenv.cfg").write_text(text, encoding="utf-8")
        runtime = other_runtime(f"{top}/venv/bin/python3")
        assert (runtime.prefix, runtime.base_prefix) == (f"{top}/venv", f"{top}/base")
        assert runtime.stdlib == f"{top}/base/lib/python3.12"
        assert runtime.site[0] == f"{top}/venv/lib/python3.12/site-packages"
        assert (f"{top}/base/lib/python3.12/site-packages" in runtime.site) is system


def test_an_interpreter_without_a_standard_library(tmp_path: pathlib.Path) -> None:
    top = make(tmp_path, "bin/python3", "bin/other")
    with pytest.raises(LaunchError, match=r"^--python: no standard library of python3 in .*/lib: "):
        other_runtime(f"{top}/bin/python3")
    # Two of them: the name must tell which.
    make(tmp_path, "lib/python3.11/os.py", "lib/python3.12/os.py")
    with pytest.raises(LaunchError, match="name the interpreter itself"):
        other_runtime(f"{top}/bin/python3")


def test_a_user_site_is_protected_before_it_exists(tmp_path: pathlib.Path) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    own = f"{tmp_path}/lib/{version}/site-packages"
    base = os.path.realpath(sys.executable)  # a virtual environment has no user site
    found, _new, _stdlib, _purelib, files = described(base, env={"PYTHONUSERBASE": str(tmp_path), "HOME": "/home/ada"})
    assert own in files
    assert f"/home/ada/.local/lib/{version}/site-packages" in files
    assert own not in found["site"]
    os.makedirs(own)
    found, _new, _stdlib, _purelib, _files = described(base, env={"PYTHONUSERBASE": str(tmp_path)})
    assert own in found["site"]
