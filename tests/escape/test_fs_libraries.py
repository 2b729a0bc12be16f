"""Files opened by C libraries, of which Python raises no audit event (or a different one).

The attack: SQLite's ATTACH and VACUUM INTO, TLS key logs, readline's history, dbm, shared memory and semaphores, the
outputs of faulthandler, tracemalloc, cProfile and logging.
What stops it: Landlock, whoever calls open(2). Source: THREATS 2 (fsr_sqlite_attach, fsw_keylog, fsr_shm).
"""

from __future__ import annotations

import dbm.dumb
import os
import sqlite3
import uuid
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.escape.attack import TOKEN, leaked

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

READS = {
    "sqlite open": "import sqlite3; print(sqlite3.connect(SECRET + '/base').execute('select * from t').fetchall())",
    "sqlite uri": "import sqlite3\n"
    "print(sqlite3.connect(f'file:{SECRET}/base?mode=ro&immutable=1', uri=True).execute('select * from t').fetchall())",
    "sqlite attach": "import sqlite3; base = sqlite3.connect(':memory:')\n"
    "base.execute('attach ? as other', (SECRET + '/base',))\nprint(base.execute('select * from other.t').fetchall())",
    "readline": "import readline; readline.read_history_file(SECRET + '/history')\n"
    "print([readline.get_history_item(n) for n in range(4)])",
    "ssl certificates": "import ssl; context = ssl.create_default_context()\n"
    "try: context.load_cert_chain(SECRET + '/data')\n"
    "except ssl.SSLError: print(TOKEN)",
    "linecache": "import linecache; print(linecache.getline(SECRET + '/data', 1))",
    "io.open_code": "import io; print(io.open_code(SECRET + '/data').read())",
    "FileIO": "import _io; print(_io.FileIO(SECRET + '/data').read())",
    "zipimport": "sys.path.insert(0, SECRET + '/code.zip'); import inside",
    "import": "sys.path.insert(0, SECRET); import inside",
    "runpy": "import runpy; runpy.run_path(SECRET + '/inside.py')",
    "mmap": "import mmap; print(mmap.mmap(os.open(SECRET + '/data', 0), 0, prot=1).read())",
    "dbm": "import dbm.dumb; print(dbm.dumb.open(SECRET + '/dumb', 'r')[b'k'])",
    "the input of a child": "import subprocess\n"
    "print(subprocess.run(['cat'], stdin=open(SECRET + '/data'), capture_output=True, text=True).stdout)",
}
WRITES = {
    "sqlite create": "import sqlite3; sqlite3.connect(SECRET + '/new').execute('create table t (x)')",
    "sqlite attach": "import sqlite3; base = sqlite3.connect(':memory:')\n"
    "base.execute('attach ? as other', (SECRET + '/new',)); base.execute('create table other.t (x)')",
    "sqlite vacuum into": "import sqlite3; base = sqlite3.connect(':memory:')\n"
    "base.execute('create table t (x)'); base.execute('vacuum into ?', (SECRET + '/new',))",
    "sqlite backup": "import sqlite3; base = sqlite3.connect(':memory:'); base.execute('create table t (x)')\n"
    "base.backup(sqlite3.connect(SECRET + '/new'))",
    "ssl keylog": "import ssl; ssl.create_default_context().keylog_filename = SECRET + '/new'",
    "ssl keylog by the environment": "os.environ['SSLKEYLOGFILE'] = SECRET + '/new'\n"
    "import ssl; ssl.create_default_context()",
    "readline": "import readline; readline.add_history('x'); readline.write_history_file(SECRET + '/new')",
    "dbm": "import dbm; dbm.open(SECRET + '/new', 'c').close(); os.rename(SECRET + '/new.dat', SECRET + '/new')",
    "faulthandler": "import faulthandler; faulthandler.enable(open(SECRET + '/new', 'w'))",
    "tracemalloc": "import tracemalloc; tracemalloc.start(); tracemalloc.take_snapshot().dump(SECRET + '/new')",
    "cProfile": "import cProfile; cProfile.Profile().dump_stats(SECRET + '/new')",
    "cProfile of a run": "import cProfile; cProfile.runctx('1', {}, {}, SECRET + '/new')",
    "logging": "import logging; logging.FileHandler(SECRET + '/new')",
    "py_compile": "import py_compile; py_compile.compile(READ + '/code.py', SECRET + '/new', doraise=True)",
    "bytecode cache": "sys.dont_write_bytecode = False; sys.pycache_prefix = SECRET + '/new'; sys.path.insert(0, READ)\n"
    "import code_of_mine",
    "bytecode cache of a read grant": "sys.dont_write_bytecode = False; sys.path.insert(0, READ)\nimport code_of_mine",
    "tempfile": "import tempfile; tempfile.NamedTemporaryFile(dir=SECRET, prefix='new', delete=False)",
    "shutil": "import shutil; shutil.copy(READ + '/data', SECRET + '/new')",
    "zipfile": "import zipfile; zipfile.ZipFile(SECRET + '/new', 'w').close()",
    "tarfile with dots": "import io, tarfile; raw = io.BytesIO(); tar = tarfile.open(fileobj=raw, mode='w')\n"
    "tar.addfile(tarfile.TarInfo('../secret/new')); tar.close(); raw.seek(0)\n"
    "tarfile.open(fileobj=raw).extractall(WRITE, **({'filter': 'fully_trusted'} if hasattr(tarfile, 'data_filter') else {}))",
}
# Names outside of any tree of ours: files in /dev/shm.
SHARED = {
    "posixshmem": "import _posixshmem; _posixshmem.shm_open('/{name}', os.O_CREAT | os.O_RDWR, 0o600)",
    "shared_memory": "from multiprocessing import resource_tracker, shared_memory\n"
    "resource_tracker.register = lambda *a: None\n"
    "shared_memory.SharedMemory('{name}', create=True, size=8)",
    "open": "open('/dev/shm/{name}', 'w')",
}
MISSING = ("ModuleNotFoundError",)


def needs_module(attacker: Attacker, body: str) -> None:
    name = next((name for name in ("readline", "dbm", "sqlite3", "ssl", "_posixshmem") if f"import {name}" in body), "")
    if name and attacker.run([attacker.python, "-c", f"import {name}"]).code:
        pytest.skip(f"needs the module {name}; {attacker.python} has none")


def stage(attacker: Attacker) -> None:
    with sqlite3.connect(attacker.path("secret/base")) as base:
        base.execute("create table t (x)")
        base.execute("insert into t values (?)", (TOKEN,))
    base.close()
    attacker.put("secret/history", f"_HiStOrY_V2_\n{TOKEN}\n{TOKEN}\n")  # the first line is for libedit
    attacker.put("secret/inside.py", f"print({TOKEN!r})\n")
    with zipfile.ZipFile(attacker.path("secret/code.zip"), "w") as archive:
        archive.writestr("inside.py", f"print({TOKEN!r})\n")
    with dbm.dumb.open(attacker.path("secret/dumb"), "c") as table:
        table[b"k"] = TOKEN
    attacker.put("read/code_of_mine.py", "")
    attacker.put("read/code.py", "")
    attacker.own(attacker.home)


@pytest.mark.parametrize("body", READS.values(), ids=READS)
def test_reading(attacker: Attacker, body: str) -> None:
    needs_module(attacker, body)
    attacker.must_fail(
        f"TOKEN = {TOKEN!r}\n{body}",
        "--allow-child-process",
        harm=leaked,
        prepare=lambda: stage(attacker),
        ends=("OSError", "ModuleNotFoundError", "OperationalError", "error"),
    )


@pytest.mark.parametrize("body", WRITES.values(), ids=WRITES)
def test_writing(attacker: Attacker, body: str) -> None:
    needs_module(attacker, body)

    def harm(_ended: object) -> bool:
        caches = attacker.exists("read/__pycache__")
        return caches or any(name.startswith("new") for name in os.listdir(attacker.path("secret")))

    attacker.must_fail(
        body,
        harm=harm,
        prepare=lambda: stage(attacker),
        ends=("OSError", "OperationalError", "error"),
    )


@pytest.mark.parametrize("body", SHARED.values(), ids=SHARED)
def test_shared_memory(attacker: Attacker, body: str) -> None:
    """Shared memory and POSIX semaphores are files in /dev/shm, where other programs have theirs."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs /dev/shm; found none")
    name = f"sandboxed-python-test-{uuid.uuid4().hex}"
    path = f"/dev/shm/{name}"

    def prepare() -> None:
        if os.path.exists(path):
            os.unlink(path)

    try:
        attacker.must_fail(body.format(name=name), harm=lambda _: os.path.exists(path), prepare=prepare)
    finally:
        prepare()
