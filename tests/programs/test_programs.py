"""The standard library at work, and whole jobs; single programs are in the catalogue."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.programs.catalogue import ABOUT_THE_MACHINE

if TYPE_CHECKING:
    import pathlib

    from tests import support


def test_modules_of_the_standard_library(sandbox: support.Run) -> None:
    """The interpreter's own modules work without a grant, the compiled ones included."""
    done = sandbox(
        "-c",
        "import asyncio, bz2, csv, ctypes, decimal, hashlib, json, locale, logging, lzma, sqlite3, ssl, uuid, zoneinfo\n"
        "async def main(): await asyncio.sleep(0); return 'async'\n"
        "print(asyncio.run(main()))\n"
        "print(decimal.Decimal(1) / 3, hashlib.sha256(b'x').hexdigest()[:8], lzma.compress(b'x')[:2])\n"
        "print(sqlite3.connect(':memory:').execute('select 1 + 1').fetchone())\n"
        "context = ssl.create_default_context(); print(context.verify_mode)\n"
        "print(zoneinfo.ZoneInfo('Europe/Paris'), locale.getlocale() is not None, uuid.uuid4().version)\n",
    )
    assert done.code == 0, done.said
    assert "async" in done.stdout
    assert "(2,)" in done.stdout
    assert "Europe/Paris" in done.stdout


def test_files_and_logs(sandbox: support.Run, tmp_path: pathlib.Path) -> None:
    """tempfile, sqlite3 and logging to a file need their folder and nothing else."""
    done = sandbox(
        f"--allow-fs-read={tmp_path}",
        f"--allow-fs-write={tmp_path}",
        "-c",
        "import logging, sqlite3, tempfile\n"
        "with tempfile.NamedTemporaryFile() as file: file.write(b'x')\n"
        "with tempfile.TemporaryDirectory() as folder: open(folder + '/x', 'w').close()\n"
        "base = sqlite3.connect(tempfile.gettempdir() + '/base'); base.execute('create table t(a)'); base.commit()\n"
        "logging.basicConfig(filename=tempfile.gettempdir() + '/log'); logging.warning('written')\n",
        env={"TMPDIR": str(tmp_path)},
    )
    assert done.code == 0, done.said
    assert sorted(os.listdir(tmp_path)) == ["base", "log"]
    assert "written" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_venv_with_pip(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """For pip, besides its folder, also child processes and what pip wants to know of the machine."""
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("needs ensurepip; this interpreter has none")
    environment = {"TMPDIR": str(tmp_path)}
    target = tmp_path / "new"
    grants = [f"--allow-fs-read={tmp_path},{ABOUT_THE_MACHINE}", f"--allow-fs-write={tmp_path}"]
    whole = sandbox(*grants, "--allow-child-process", "-m", "venv", "--clear", target, env=environment, timeout=110)
    assert whole.code == 0, whole.said
    assert (target / "bin" / "pip").exists()


def test_the_users_own_example(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """``sandboxed-python --permission --allow-fs-write=/tmp/ job.py``."""
    if os.path.realpath(sys.prefix).startswith("/tmp/"):
        pytest.skip("needs an interpreter outside of /tmp; its own files may not be granted for writing")
    job = tmp_path / "job.py"
    result = f"/tmp/sandboxed-python-test-{os.getpid()}-result"
    job.write_text(f"open({result!r}, 'w').write('done')\n")
    try:
        done = sandbox("--allow-fs-write=/tmp/", job)
        assert done.code == 0, done.said
        with open(result, encoding="utf-8") as file:
            assert file.read() == "done"
    finally:
        os.unlink(result)
    strict = sandbox("--allow-fs-write=/tmp/", "--no-allow-entrypoint", job)
    assert strict.code == 1, strict.said
    assert "permission: 'FileSystemRead'" in strict.stderr
    assert f"resource: '{job}'" in strict.stderr
    assert not os.path.exists(result)
    relative = sandbox("--allow-fs-write=/tmp/", "--no-allow-entrypoint", "job.py", cwd=tmp_path)
    assert (relative.code, relative.stderr) == (1, strict.stderr)
