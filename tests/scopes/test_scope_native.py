"""addon, ffi, wasi and inspector: denied, and granted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.escape import attack
from tests.escape.attack import TEAR_OUT, environment, leaked
from tests.scopes.twin import check_ran, check_refused, program

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# addon: an extension module whose constructor makes $MARKER.
HEAD = "os.environ['MARKER'] = WRITE + '/marker'\n"
LOAD = {
    "import": "sys.path.insert(0, READ)\ntry: import marker\nexcept SystemError: pass",
    "_imp.create_dynamic": "import _imp, types\nspec = types.SimpleNamespace(name='marker', origin=READ + '/marker.so')\n"
    "try: _imp.create_dynamic(spec)\nexcept SystemError: pass",
}


@pytest.mark.parametrize("name", LOAD)
def test_addon(attacker: Attacker, name: str) -> None:
    path = attacker.put("read/marker.so", attack.library())
    grants = (f"--allow-fs-read={attacker.path('read')}/", f"--allow-fs-write={attacker.path('write')}/")
    denied = program(attacker, HEAD + LOAD[name], *grants)
    check_refused(denied, "Addon", path)
    assert not attacker.exists("write/marker"), denied.said
    # A module of the program's own is none of ctypes' business: --allow-ffi doesn't grant the import.
    denied = program(attacker, HEAD + LOAD[name], *grants, "--allow-ffi")
    check_refused(denied, "Addon", path)
    assert not attacker.exists("write/marker"), denied.said
    granted = program(attacker, HEAD + LOAD[name], *grants, "--allow-addons")
    check_ran(granted)
    assert attacker.exists("write/marker"), granted.said


def test_addon_without_the_hook(attacker: Attacker) -> None:
    code = f"{HEAD}import _imp, types\n{TEAR_OUT}\n{LOAD['_imp.create_dynamic']}"
    attacker.must_fail(
        code,
        harm=lambda _: attacker.exists("write/marker"),
        prepare=lambda: attacker.put("read/marker.so", attack.library()),
        ends=("ImportError", "OSError"),
    )
    granted = attacker.confined(code, "--allow-addons")
    assert attacker.exists("write/marker"), granted.said


def test_addon_of_site_packages(attacker: Attacker) -> None:
    code = "import psutil; print('pid', psutil.Process().pid == os.getpid())"
    if attacker.run([attacker.python, "-c", "import psutil"]).code:
        pytest.skip(f"needs psutil beside the command; {attacker.python} has none")
    denied = program(attacker, code, "--allow-fs-read=/proc/")
    check_refused(denied, "Addon")
    granted = program(attacker, code, "--allow-fs-read=/proc/", "--allow-addons")
    check_ran(granted)
    assert "pid True" in granted.stdout, granted.said


def test_addon_of_site_packages_without_the_hook(attacker: Attacker) -> None:
    code = f"import _imp\n{TEAR_OUT}\nimport psutil; print('loaded', psutil.Process().pid == os.getpid())"
    if attacker.run([attacker.python, "-c", "import psutil"]).code:
        pytest.skip(f"needs psutil beside the command; {attacker.python} has none")
    attacker.must_fail(
        code, "--allow-fs-read=/proc/", harm=lambda ended: "loaded" in ended.stdout, ends=("ImportError", "OSError")
    )


CALLS = {
    "ctypes": "import ctypes; print('called', ctypes.CDLL(None).getpid() == os.getpid())",
    "pythonapi": "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(1)); print('called')",
    "memory": "import ctypes; print('called', ctypes.string_at(id(b'x') + 32, 1))",
}


@pytest.mark.parametrize("name", CALLS)
def test_ffi(attacker: Attacker, name: str) -> None:
    denied = program(attacker, CALLS[name])
    check_refused(denied, "FFI")
    assert "called" not in denied.stdout, denied.said
    for flag in ("--allow-ffi", "--allow-addons"):
        granted = program(attacker, CALLS[name], flag)
        check_ran(granted)
        assert "called" in granted.stdout, granted.said


def test_ffi_callback(attacker: Attacker) -> None:
    """A callback is executable memory, which the kernel refuses before anything is called."""
    code = "import ctypes; print('called', ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)())"
    denied = program(attacker, code)
    assert denied.code == 1, denied.said
    assert "called" not in denied.stdout, denied.said
    granted = program(attacker, code, "--allow-ffi")
    check_ran(granted)
    assert "called 7" in granted.stdout, granted.said


def test_importing_ctypes_needs_no_flag(attacker: Attacker) -> None:
    granted = program(attacker, "import ctypes; print(ctypes.sizeof(ctypes.c_int))")
    check_ran(granted)
    assert granted.stdout == "4\n", granted.said


def test_ffi_without_the_hook(attacker: Attacker) -> None:
    """No kernel tells a call by ctypes from another. Executable memory, which callbacks need, is the kernel's to refuse."""
    code = "import mmap; print('got', len(mmap.mmap(-1, 4096, prot=7)))"
    attacker.must_fail(code, harm=lambda ended: "got" in ended.stdout)
    granted = attacker.confined(code, "--allow-ffi")
    assert "got 4096" in granted.stdout, granted.said


def test_wasi(attacker: Attacker) -> None:
    """A runtime is a library in site-packages and executable memory of its own making."""
    _, site = environment(attacker)
    folder = os.path.join(site, "wasmtime")[len(attacker.home) + 1 :]
    attacker.put(f"{folder}/__init__.py", "try: from wasmtime import marker\nexcept SystemError: pass\n")
    attacker.put(f"{folder}/marker.so", attack.library())
    command = [attacker.path("venv/bin/sandboxed-python"), "--permission", "--no-warnings", *attacker.grants]
    code = f"import os; os.environ['MARKER'] = {attacker.path('write/marker')!r}; import wasmtime"
    denied = attacker.run([*command, "-c", code])
    assert denied.code == 1, denied.said
    assert not attacker.exists("write/marker"), denied.said
    granted = attacker.run([*command, "--allow-wasi", "-c", code])
    check_ran(granted)
    assert attacker.exists("write/marker"), granted.said


def test_wasi_by_ctypes(attacker: Attacker) -> None:
    """wasmtime's own binding is ctypes from beginning to end: loading its library and calling it is what the flag gates."""
    _, site = environment(attacker)
    folder = os.path.join(site, "wasmtime")[len(attacker.home) + 1 :]
    attacker.put(f"{folder}/_lib.so", attack.library())
    code = "import ctypes, os; dll = ctypes.cdll[os.path.dirname(__file__) + '/_lib.so']; dll.PyInit_marker()\n"
    attacker.put(f"{folder}/__init__.py", code)
    command = [attacker.path("venv/bin/sandboxed-python"), "--permission", "--no-warnings", *attacker.grants]
    code = f"import os; os.environ['MARKER'] = {attacker.path('write/marker')!r}; import wasmtime"
    denied = attacker.run([*command, "-c", code])
    assert denied.code == 1, denied.said
    assert not attacker.exists("write/marker"), denied.said
    granted = attacker.run([*command, "--allow-wasi", "-c", code])
    check_ran(granted)
    assert attacker.exists("write/marker"), granted.said


def test_wasi_without_the_hook(attacker: Attacker) -> None:
    code = f"import mmap\n{TEAR_OUT}\nprint('got', len(mmap.mmap(-1, 4096, prot=7)))"
    attacker.must_fail(code, harm=lambda ended: "got" in ended.stdout)
    granted = attacker.confined(code, "--allow-wasi")
    assert "got 4096" in granted.stdout, granted.said


def test_wasi_opens_no_other_library(attacker: Attacker) -> None:
    attacker.must_fail(
        f"{HEAD}import _imp, types\n{TEAR_OUT}\n{LOAD['_imp.create_dynamic']}",
        "--allow-wasi",
        harm=lambda _: attacker.exists("write/marker"),
        prepare=lambda: attacker.put("read/marker.so", attack.library()),
        ends=("ImportError", "OSError"),
    )


TRACES = {
    "settrace": "sys.settrace(lambda *a: print('traced'))\ndef f(): pass\nf()",
    "setprofile": "sys.setprofile(lambda *a: print('traced'))\nlen('')",
    "pdb": "import pdb, io\npdb.Pdb(stdin=io.StringIO('c\\n'), stdout=sys.stdout).set_trace()\nprint('traced')",
}


@pytest.mark.parametrize("name", ["settrace", "setprofile", "pdb"])
def test_inspector(attacker: Attacker, name: str) -> None:
    denied = program(attacker, TRACES[name])
    check_refused(denied, "Inspector")
    assert "traced" not in denied.stdout, denied.said
    granted = program(attacker, TRACES[name], "--allow-inspector")
    check_ran(granted)
    assert "traced" in granted.stdout, granted.said


# On a child of the program's own: nobody outside can be reached anyway.
CHILD = (
    "import struct, time\ntext = b'this-is-the' + b'-secret'; reader, writer = os.pipe(); pid = os.fork()\n"
    "if pid == 0: os.read(reader, 1); os._exit(0)\n"
    "size = len(text); buffer = ctypes.create_string_buffer(32)\n"
    "local = struct.pack('QQ', ctypes.addressof(buffer), size); remote = struct.pack('QQ', id(text) + 32, size)\n"
)
LOOKS = {
    "process_vm_readv": "call('process_vm_readv', pid, local, 1, remote, 1, 0); print(buffer.value.decode())",
    "process_vm_writev": "call('process_vm_writev', pid, local, 1, remote, 1, 0); print('this-is-the-secret')",
    "ptrace": "call('ptrace', 0x4206, pid, 0, 0); print('this-is-the-secret')",
    "kcmp": "call('kcmp', pid, os.getpid(), 1, 0, 0); print('this-is-the-secret')",
}


@pytest.mark.parametrize("name", LOOKS)
def test_inspector_without_the_hook(attacker: Attacker, name: str) -> None:
    code = f"{CHILD}try:\n    {LOOKS[name]}\nfinally:\n    os.kill(pid, 9); os.waitpid(pid, 0)"
    attacker.must_fail(code, "--allow-ffi", "--allow-child-process", harm=leaked)
    granted = attacker.confined(code, "--allow-ffi", "--allow-child-process", "--allow-inspector")
    assert leaked(granted), granted.said


def test_being_traced(attacker: Attacker) -> None:
    code = "print(attempt('ptrace', 0, 0, 0, 0))"
    attacker.must_fail(code, "--allow-ffi", harm=lambda ended: "did" in ended.stdout)
    granted = attacker.confined(code, "--allow-ffi", "--allow-inspector")
    assert "did" in granted.stdout, granted.said
