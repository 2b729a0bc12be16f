"""Foreign machine code in the program's own process, without ``--allow-addons`` and ``--allow-ffi``.

The attack: load a shared library by every door that Python has, executable memory of the program's own making, and a
second thread that swaps the descriptor between the supervisor's look and the kernel's.
What stops it: executable file mappings go to the supervisor, which lets the interpreter's own and the system's libraries
through while the process has one thread; the static filter refuses every other executable memory.
Source: mmap(2), seccomp_unotify(2); THREATS 10 (add_*).
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

import pytest

from tests.escape import attack

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

HEAD = "MARKER = WRITE + '/marker'\nos.environ['MARKER'] = MARKER\n"
LOADS = {
    "import": "sys.path.insert(0, READ); import marker",
    "ExtensionFileLoader": "import importlib.machinery as m, importlib.util as u\n"
    "u.module_from_spec(u.spec_from_loader('marker', m.ExtensionFileLoader('marker', READ + '/marker.so')))",
    "_imp.create_dynamic": "import _imp, types; _imp.create_dynamic(types.SimpleNamespace(name='marker', origin=READ + '/marker.so'))",
    "ctypes": "import ctypes; ctypes.CDLL(READ + '/marker.so')",
    "_ctypes.dlopen": "import _ctypes; _ctypes.dlopen(READ + '/marker.so', 2)",
    "sqlite": "import sqlite3; base = sqlite3.connect(':memory:'); base.enable_load_extension(True)\n"
    "base.execute('select load_extension(?)', (READ + '/marker.so',))",
    "openssl": "os.environ['OPENSSL_CONF'] = READ + '/openssl.cnf'; import ssl, hashlib; ssl.create_default_context()",
    "copied to a write grant": "import shutil, _ctypes; shutil.copyfile(READ + '/marker.so', WRITE + '/libm.so.6')\n"
    "_ctypes.dlopen(WRITE + '/libm.so.6', 2)",
    "named as if it were the runtime's": "import _ctypes; os.makedirs(WRITE + '/usr/lib/python3/lib-dynload')\n"
    "import shutil; shutil.copyfile(READ + '/marker.so', WRITE + '/usr/lib/python3/lib-dynload/math.so')\n"
    "_ctypes.dlopen(WRITE + '/usr/lib/python3/lib-dynload/math.so', 2)",
    "by a link from a library's folder's name": "import _ctypes; os.symlink('/usr/lib', WRITE + '/lib')\n"
    "_ctypes.dlopen(WRITE + '/lib/../..' + READ + '/marker.so', 2)",
    "by /proc/self/fd": "import _ctypes; fd = os.open(READ + '/marker.so', 0); _ctypes.dlopen(f'/proc/self/fd/{fd}', 2)",
    "memory file": "import _ctypes; fd = os.memfd_create('x', 0); os.write(fd, open(READ + '/marker.so', 'rb').read())\n"
    "_ctypes.dlopen(f'/proc/self/fd/{fd}', 2)",
    "memory file, sealed": "import _ctypes; fd = os.memfd_create('x', 8); os.write(fd, open(READ + '/marker.so', 'rb').read())\n"
    "_ctypes.dlopen(f'/proc/self/fd/{fd}', 2)",
    "LD_LIBRARY_PATH": "import _ctypes; _ctypes.dlopen('libmarker.so', 2)",
}


def stage(attacker: Attacker) -> None:
    library = attack.library()
    attacker.put("read/marker.so", library)
    attacker.put("read/libmarker.so", library)
    attacker.put(
        "read/openssl.cnf",
        "openssl_conf = all\n[all]\nproviders = some\n[some]\ndefault = plain\nmarker = foreign\n"
        f"[plain]\nactivate = 1\n[foreign]\nmodule = {attacker.path('read/marker.so')}\nactivate = 1\n",
    )


@pytest.mark.parametrize("body", LOADS.values(), ids=LOADS)
def test_loading(attacker: Attacker, body: str) -> None:
    loading(attacker, body)


@pytest.mark.parametrize("flag", ["--allow-worker", "--allow-child-process", "--allow-net", "--allow-inspector"])
def test_loading_with_another_flag(attacker: Attacker, flag: str) -> None:
    loading(attacker, LOADS["_imp.create_dynamic"], flag)


def loading(attacker: Attacker, body: str, *flags: str) -> None:
    """Check that the library's own code doesn't run."""
    if "load_extension" in body:
        probe = attacker.run(
            [attacker.python, "-c", "import sqlite3; sqlite3.connect(':memory:').enable_load_extension"]
        )
        if probe.code:
            pytest.skip("needs a Python whose sqlite3 loads extensions; found one built without")
    attacker.must_fail(
        f"{HEAD}{body}",
        *flags,
        harm=lambda _: attacker.exists("write/marker"),
        prepare=lambda: stage(attacker),
        ends=("OSError", "ImportError", "OperationalError", "SSLError"),
        env={"LD_LIBRARY_PATH": attacker.path("read")} if "libmarker" in body else None,
    )


MEMORY = {
    "anonymous": "mmap.mmap(-1, 4096, prot=7)",
    "anonymous, not writable": "mmap.mmap(-1, 4096, prot=5)",
    "shared": "mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, prot=7)",
    "private file": "mmap.mmap(os.open(WRITE + '/data', os.O_RDWR), 4, flags=mmap.MAP_PRIVATE, prot=7)",
    "private file, not writable": "mmap.mmap(os.open(WRITE + '/data', os.O_RDWR), 4, flags=mmap.MAP_PRIVATE, prot=5)",
    "shared file": "mmap.mmap(os.open(WRITE + '/data', os.O_RDWR), 4, flags=mmap.MAP_SHARED, prot=5)",
    "a read grant's file": "mmap.mmap(os.open(READ + '/data', 0), 4, flags=mmap.MAP_PRIVATE, prot=5)",
    "an unreadable file": "mmap.mmap(os.open(READ + '/data', 0), 4, flags=mmap.MAP_PRIVATE, prot=4)",
    "memory file": "mmap.mmap((lambda fd: os.ftruncate(fd, 4096) or fd)(os.memfd_create('x', 8)), 4096, prot=5)",
    "a library of the system, writable": "mmap.mmap(os.open(LIBRARY, 0), 4096, flags=mmap.MAP_PRIVATE, prot=7)",
    "a library of the system, shared": "mmap.mmap(os.open(LIBRARY, 0), 4096, flags=mmap.MAP_SHARED, prot=5)",
    "a library of site-packages": "mmap.mmap(os.open(FOREIGN, 0), 4096, flags=mmap.MAP_PRIVATE, prot=5)",
}


def libc() -> str:
    """Return a library of the system, with all links resolved."""
    known = [
        f"{folder}/libc.so.6" for folder in (*glob.glob("/lib/*-linux-gnu"), "/lib64", "/usr/lib64", "/lib", "/usr/lib")
    ]
    found = next((path for path in known if os.path.exists(path)), None)
    if found is None:
        pytest.skip(f"needs glibc; found none of {known}")
    return os.path.realpath(found)


@pytest.mark.parametrize("body", MEMORY.values(), ids=MEMORY)
def test_executable_memory(attacker: Attacker, body: str) -> None:
    """Pure Python; with a memory error, which must be assumed, this is machine code."""
    found = attacker.run([attacker.python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"])
    site = found.stdout.strip()
    foreign = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(site)
        for name in names
        if "FOREIGN" in body and name.endswith(".so")
    ]
    if "FOREIGN" in body and not foreign:
        pytest.skip(f"needs an extension module in site-packages; found none in {site}")
    attacker.must_fail(
        f"LIBRARY, FOREIGN = {libc()!r}, {(foreign or [''])[0]!r}\nimport mmap\nprint('bytes', len({body}))",
        harm=lambda ended: "bytes" in ended.stdout,
    )


@pytest.mark.slow
def test_swapping_the_descriptor(attacker: Attacker) -> None:
    """The supervisor looks at a descriptor's number, the kernel looks again; a second thread swaps it in between.

    The attack needs no machine code: the mapping's content shows which file was mapped.
    """
    body = """
import mmap, threading, time
good, evil = os.open(LIBRARY, 0), os.open(READ + '/evil', 0)
fd, stop = os.dup(good), time.monotonic() + SECONDS
def swap():
    while time.monotonic() < stop:
        os.dup2(evil, fd); os.dup2(good, fd)
try:
    threading.Thread(target=swap).start()
except RuntimeError as error:
    print(error)
tries = 0
while time.monotonic() < stop:
    tries += 1
    try:
        with mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=5) as mapping:
            if mapping[:4] == b'EVIL':
                print('MAPPED'); break
    except (OSError, ValueError):
        pass
"""
    attacker.must_fail(
        f"LIBRARY, SECONDS = {libc()!r}, 0.7\n{body}",
        "--allow-worker",
        harm=lambda ended: "MAPPED" in ended.stdout,
        prepare=lambda: attacker.put("read/evil", b"EVIL" * 1024),
    )


# A function that returns 42, for a word's worth of memory.
FORTY_TWO = {"x86_64": "b82a000000c39090", "aarch64": "40058052c0035fd6"}
INTO_A_CHILD = """
library = ctypes.CDLL(None, use_errno=True)
library.ptrace.restype, library.ptrace.argtypes = ctypes.c_long, [ctypes.c_long] * 4
place = ctypes.cast(library.getppid, ctypes.c_void_p).value
def trace(request, data=0, at=0):
    if library.ptrace(request, child, at, data) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(42 if library.getppid() == 42 else 1)
os.waitpid(child, os.WUNTRACED)
try:
    trace(16); os.waitpid(child, 0)
    trace(4, int.from_bytes(CODE, "little"), place)
    trace(17)
finally:
    os.kill(child, signal.SIGCONT)
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_writing_it_into_a_child(attacker: Attacker) -> None:
    """A debugger writes where nobody else may. With both flags this works: SECURITY.md and a warning say so."""
    machine = os.uname().machine
    if machine not in FORTY_TWO:
        pytest.skip(f"needs machine code of this processor; found {machine}")
    body = f"import ctypes, signal\n{attack.TEAR_OUT}\nCODE = bytes.fromhex({FORTY_TWO[machine]!r})\n{INTO_A_CHILD}"
    confined = attacker.must_fail(
        body, "--allow-child-process", harm=lambda ended: "status 42" in ended.stdout, ends=("OSError",)
    )
    assert "status 1" in confined.stdout, confined.said
    allowed = attacker.confined(body, "--allow-child-process", "--allow-inspector")
    assert "status 42" in allowed.stdout, allowed.said


def test_the_runtime_s_own_modules_load(attacker: Attacker) -> None:
    """The twin."""
    confined = attacker.confined(
        "import ssl, sqlite3, lzma, bz2, zlib, decimal, hashlib, zoneinfo, array, math, unicodedata, _json, ctypes\n"
        "print(hashlib.sha256(b'').hexdigest()[:8], sqlite3.connect(':memory:').execute('select 1').fetchone())"
    )
    assert "e3b0c442 (1,)" in confined.stdout, confined.said
