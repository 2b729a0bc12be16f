"""The interpreter described: what it is told apart by, and what of it must not be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest

from sandboxed_python.plan.runtime import PACKAGE, Runtime, facts, runtime_of, this_runtime
from tests.launch.plain import pythons
from tests.plan.world import RUNTIME

if TYPE_CHECKING:
    import pathlib

FACTS: dict[str, object] = {
    "executable": "/venv/bin/python3",
    "prefix": "/venv",
    "base_prefix": "/opt/python",
    "exec_prefix": "/opt/python",
    "stdlib": "/opt/python/lib/python3.11",
    "platstdlib": "/opt/python/lib/python3.11",
    "path": [
        "",
        "/home/me/project",
        "/opt/python/lib/python311.zip",
        "/opt/python/lib/python3.11",
        "/home/me/evil/site-packages",
        "/venv/lib/python3.11/site-packages",
        "/opt/python/lib/python3/dist-packages",
        "/home/me/.local/lib/python3.11/site-packages",
        "/venvious/lib/site-packages",
    ],
    "user_site": "/home/me/.local/lib/python3.11/site-packages",
}


def test_site_packages_are_the_environments_own() -> None:
    runtime = runtime_of(FACTS, "/venv/bin")
    assert runtime.site == (
        "/venv/lib/python3.11/site-packages",
        "/opt/python/lib/python3/dist-packages",
        "/home/me/.local/lib/python3.11/site-packages",
    )
    assert (runtime.user_site, runtime.scripts, runtime.package) == (FACTS["user_site"], "/venv/bin", PACKAGE)
    without = runtime_of({**FACTS, "user_site": ""})
    assert without.site == runtime.site[:2]
    assert (without.user_site, without.scripts) == ("", "")


def test_files_are_what_would_run_outside() -> None:
    files = RUNTIME.files
    assert len(set(files)) == len(files)
    assert set(files) == {
        *("/opt/python/lib/python3.11", "/venv/lib/python3.11/site-packages", "/venv/pyvenv.cfg", "/venv/bin"),
        *("/venv/lib/python3.11/site-packages/sandboxed_python", "/home/me/.local/lib/python3.11/site-packages"),
    }


def test_files_are_named_with_links_resolved_too(tmp_path: pathlib.Path) -> None:
    top = os.path.realpath(tmp_path)
    os.makedirs(f"{top}/real/bin")
    os.makedirs(f"{top}/venv/bin")
    for path in ("real/bin/python", "real/site-packages"):
        (tmp_path / path).touch()
    os.symlink(f"{top}/real/bin/python", f"{top}/venv/bin/python")
    os.symlink(f"{top}/real", f"{top}/link")
    runtime = Runtime(
        executable=f"{top}/venv/bin/python",
        prefix=f"{top}/venv",
        base_prefix=f"{top}/real",
        stdlib=f"{top}/link/stdlib",
        platstdlib=f"{top}/link/stdlib",
        site=(f"{top}/link/site-packages",),
        package=f"{top}/package",
    )
    assert {
        *(f"{top}/venv/bin", f"{top}/real/bin", f"{top}/link/stdlib", f"{top}/real/stdlib"),
        *(f"{top}/link/site-packages", f"{top}/real/site-packages", f"{top}/package"),
    } <= set(runtime.files)


def test_the_running_interpreter() -> None:
    runtime = this_runtime()
    assert runtime.executable == sys.executable
    assert (runtime.prefix, runtime.base_prefix) == (sys.prefix, sys.base_prefix)
    assert os.path.samefile(runtime.stdlib, sysconfig.get_path("stdlib"))
    assert os.path.isdir(f"{runtime.platstdlib}/lib-dynload")
    assert sysconfig.get_path("purelib") in runtime.site
    assert runtime.package == os.path.dirname(sys.modules["sandboxed_python"].__file__ or "")


PROGRAM = """
import sys
before = set(sys.modules)
sys.path.append(sys.argv[1])
from sandboxed_python.plan.runtime import facts
found = facts()
new = sorted(name for name in set(sys.modules) - before if not name.startswith("sandboxed_python"))
import json, sysconfig
print(json.dumps([found, new, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]))
"""


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("option", ["-I", "-s"])
def test_facts_of_any_interpreter_cost_nothing(python: str, option: str) -> None:
    folder = os.path.dirname(PACKAGE)
    ended = subprocess.run([python, option, "-c", PROGRAM, folder], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found, new, stdlib, purelib = json.loads(ended.stdout)
    assert set(new) <= {"__future__"}
    assert os.path.samefile(found["stdlib"], stdlib)
    assert os.path.isdir(f"{found['platstdlib']}/lib-dynload")
    assert found["user_site"] == ""
    assert purelib in runtime_of(found).site or not os.path.isdir(purelib)


def test_a_user_site_in_use_is_told(tmp_path: pathlib.Path) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    own = tmp_path / "lib" / f"python{version}" / "site-packages"
    own.mkdir(parents=True)
    base: Any = sys._base_executable  # type: ignore[attr-defined]  # a virtual environment has no user site
    ended = subprocess.run(
        [base, "-c", PROGRAM, os.path.dirname(PACKAGE)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONUSERBASE": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)[0]
    assert found["user_site"] == str(own)
    assert str(own) in runtime_of(found).site
    assert str(own) in runtime_of(found).files


def test_facts_are_plain_data() -> None:
    import marshal

    assert marshal.loads(marshal.dumps(facts(), 2)) == facts()
