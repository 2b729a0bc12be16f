"""Real programs under the smallest grants that work: the standard library's own, and a few from the index."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests import support

if TYPE_CHECKING:
    import pathlib

# What pip looks at on the machine it runs on.
ABOUT_THE_MACHINE = (
    "/etc/os-release,/etc/debian_version,/etc/lsb-release,/etc/redhat-release,/etc/passwd,/etc/mime.types"
)


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


def test_http_server(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """``-m http.server`` needs --allow-net, and a thread for each request; without --allow-net it doesn't listen."""
    (tmp_path / "page.txt").write_text("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port)]
    denied = sandbox(f"--allow-fs-read={tmp_path}", "--allow-worker", *words)
    assert denied.code == 1, denied.said
    assert "--allow-net" in denied.stderr
    command = [*support.installed(), "--permission", f"--allow-fs-read={tmp_path}", "--allow-net", "--allow-worker"]
    with subprocess.Popen(
        [*command, *words],
        env=support.clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            for _attempt in range(100):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/page.txt", timeout=5) as answer:
                        assert answer.read() == b"served"
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                pytest.fail("the server never answered")
        finally:
            server.terminate()


def test_unittest(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """``-m unittest`` needs to read the tests."""
    (tmp_path / "test_it.py").write_text("import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\n")
    done = sandbox(f"--allow-fs-read={tmp_path}", "-m", "unittest", "test_it", cwd=tmp_path)
    assert done.code == 0, done.said
    assert "OK" in done.stderr
    denied = sandbox("-m", "unittest", "test_it", cwd=tmp_path)
    assert denied.code == 1, denied.said


def test_pytest(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """``-m pytest`` looks for its configuration up to the root, so it needs --allow-fs-metadata; no native plugins."""
    (tmp_path / "test_it.py").write_text("def test(tmp_path):\n    (tmp_path / 'x').write_text('x')\n")
    (tmp_path / "tmp").mkdir()
    done = sandbox(
        f"--allow-fs-read={tmp_path}",
        f"--allow-fs-write={tmp_path / 'tmp'}",
        "--allow-fs-metadata",
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist", "test_it.py"),
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path / "tmp")},
    )
    assert done.code == 0, done.said
    assert "1 passed" in done.stdout


def test_venv(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """``-m venv`` needs its folder."""
    target = tmp_path / "new"
    grants = [f"--allow-fs-read={tmp_path}", f"--allow-fs-write={tmp_path}"]
    bare = sandbox(*grants, "-m", "venv", "--without-pip", target)
    assert bare.code == 0, bare.said
    assert (target / "pyvenv.cfg").exists()


@pytest.mark.slow
def test_venv_with_pip(tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """For pip, also child processes and what pip wants to know of the machine."""
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("needs ensurepip; this interpreter has none")
    environment = {"TMPDIR": str(tmp_path)}
    target = tmp_path / "new"
    grants = [f"--allow-fs-read={tmp_path},{ABOUT_THE_MACHINE}", f"--allow-fs-write={tmp_path}"]
    whole = sandbox(*grants, "--allow-child-process", "-m", "venv", "--clear", target, env=environment, timeout=110)
    assert whole.code == 0, whole.said
    assert (target / "bin" / "pip").exists()


def test_numpy(sandbox: support.Run) -> None:
    """numpy is native code that starts threads: addons and workers."""
    if importlib.util.find_spec("numpy") is None:
        pytest.skip("needs numpy; it isn't installed for this interpreter")
    program = "import numpy; print(numpy.linalg.inv(numpy.eye(3)).sum())"
    done = sandbox("--allow-addons", "--allow-worker", "-c", program)
    assert done.code == 0, done.said
    assert done.stdout == "3.0\n"
    denied = sandbox("-c", program)
    assert denied.code == 1, denied.said
    assert "--allow-addons" in denied.stderr


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
