"""``sys.permission``: what has() answers, what it refuses to be asked, and who finds it where."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from sandboxed_python.child.permission import Permission
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import OSLookup
from sandboxed_python.policy.spelling import parse_grant
from tests.child.test_hook import SUPERVISOR, program, python, run

__all__ = ["python"]


def make(tmp_path: pathlib.Path, **options: Any) -> Permission:
    """Return a permission object that grants to read the folder ``in``."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_text("x")
    grant = parse_grant(str(tmp_path / "in"), "test", "/", OSLookup)
    return Permission(Policy(read=(grant,), **options))


def test_references(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    permission = make(tmp_path)
    inside = str(tmp_path / "in" / "f")
    for reference in (inside, inside.encode(), pathlib.Path(inside), inside + "/", f"{tmp_path}/x/../in/f"):
        assert permission.has("fs.read", reference), reference
        assert not permission.has("fs.write", reference)
    monkeypatch.chdir(tmp_path)
    assert permission.has("fs.read", "in/f")
    assert permission.has("fs.read", "./in/.")
    assert not permission.has("fs.read", ".")
    assert not permission.has("fs.read")
    assert not permission.has("fs.read", None)
    (tmp_path / "link").symlink_to("in/f")
    (tmp_path / "in/away").symlink_to("/etc")
    assert permission.has("fs.read", "link")
    assert not permission.has("fs.read", "in/away")
    assert not permission.has("fs.read", "x\0y")


def test_empty_references_and_unknown_scopes(tmp_path: pathlib.Path) -> None:
    permission = make(tmp_path, scopes=frozenset(("net", "addon")))
    assert permission.has("net")
    assert permission.has("net", "example.org:80")
    assert permission.has("ffi")
    for scope in ("net", "fs.read", "fs", "child", "nonsense"):
        assert not permission.has(scope, "")
        assert not permission.has(scope, b"")
    for scope in ("", "*", "FileSystemRead", "fs.in", "Net", "env"):
        assert not permission.has(scope)
        assert not permission.has(scope, "/x")


def test_bare_scopes_need_a_star() -> None:
    star = (parse_grant("*", "test", "/", OSLookup),)
    root = (parse_grant("/", "test", "/", OSLookup),)
    assert Permission(Policy(read=star)).has("fs.read")
    assert not Permission(Policy(read=root)).has("fs.read")
    assert not Permission(Policy(read=star)).has("fs")
    assert Permission(Policy(read=star, write=star)).has("fs")
    assert Permission(Policy(read=star, write=star)).has("fs", "/x")


class Bad(os.PathLike[str]):
    """A path object that is none."""

    def __fspath__(self) -> str:
        return 1  # type: ignore[return-value]


REFERENCE = 'The "reference" argument must be of type str, bytes, or os.PathLike. Received'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), 'The "scope" argument must be of type str. Received None'),
        ((1,), 'The "scope" argument must be of type str. Received type int (1)'),
        ((b"fs",), "The \"scope\" argument must be of type str. Received type bytes (b'fs')"),
        (([],), 'The "scope" argument must be of type str. Received an instance of list'),
        ((str,), 'The "scope" argument must be of type str. Received class str'),
        ((len,), 'The "scope" argument must be of type str. Received function len'),
        (("x" * 0, 1), "REFERENCE type int (1)"),
        (("net", True), "REFERENCE type bool (True)"),
        (("nonsense", []), "REFERENCE an instance of list"),
        (("fs.read", bytearray(b"x")), "REFERENCE an instance of bytearray"),
        (("fs.read", Bad()), "REFERENCE an instance of Bad"),
        (("fs.read", 123456789012345678901234567890), "REFERENCE type int (1234567890123456789012345...)"),
    ],
)  # fmt: skip
def test_wrong_types(arguments: tuple[Any, ...], message: str) -> None:
    for permission in (Permission(Policy()), Permission()):
        for method in (permission.has, permission.drop):
            with pytest.raises(TypeError) as caught:
                method(*arguments)
            assert str(caught.value) == message.replace("REFERENCE", REFERENCE)
            assert caught.value.code == "ERR_INVALID_ARG_TYPE"  # type: ignore[attr-defined]


def test_nothing_can_be_dropped_without_the_model() -> None:
    with pytest.raises(RuntimeError, match="the permission model is off"):
        Permission().drop("fs.read")


def test_off_grants_everything() -> None:
    for permission in (Permission(), Permission(Policy(mode="off"))):
        assert not permission.enabled
        assert permission.has("fs.read")
        assert permission.has("nonsense")
    assert Permission(Policy()).enabled
    assert Permission(Policy(mode="audit")).enabled


FORGET = """
import gc
plain = set(sys.modules)
confine()
for name in [name for name in sys.modules if name not in plain]:
    del sys.modules[name]
gc.collect()
assert not [name for name in sys.modules if name.startswith("sandboxed_python")]
"""
PROGRAM = """
import pickle
import sandboxed_python
from sandboxed_python import AccessDeniedError, permission
assert permission is sys.permission and permission.enabled
try:
    open("out")
except AccessDeniedError as error:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) is AccessDeniedError
    assert (again.permission, again.resource, str(again)) == ("FileSystemRead", "out", str(error))
import sandboxed_python.errors, sandboxed_python.child.permission
assert sandboxed_python.errors.AccessDeniedError is AccessDeniedError is sandboxed_python.AccessDeniedError
assert type(permission) is sandboxed_python.child.permission.Permission
assert permission.has("fs.read", os.__file__) and not permission.has("fs.read", "out")
print(permission)
"""


def confined_program() -> str:
    return program("").removesuffix("confine()\n")


def test_a_program_that_imports_the_package_gets_what_is_at_work(python: str, tmp_path: pathlib.Path) -> None:
    shown = run(confined_program() + FORGET + PROGRAM, tmp_path, python).stdout
    assert shown == "<sandboxed_python permission model: on>\n"


def test_errors_can_be_pickled_before_the_package_is_imported(python: str, tmp_path: pathlib.Path) -> None:
    code = """
import pickle
try:
    open("out")
except PermissionError as error:
    again = pickle.loads(pickle.dumps(error))
    print(type(again) is type(error), again.resource, again.filename, again.errno)
"""
    assert run(confined_program() + FORGET + code, tmp_path, python).stdout == "True out out 13\n"


def test_without_the_model(tmp_path: pathlib.Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {SUPERVISOR!r})
from sandboxed_python import permission
print(hasattr(sys, "permission"), permission.enabled, permission.has("child"), permission)
"""
    assert run(code, tmp_path).stdout == "False False True <sandboxed_python permission model: off>\n"
    off = run(program("print(hasattr(sys, 'permission'), told(\"open('f')\"))", mode="off"), tmp_path).stdout
    assert off == "False FileNotFoundError\n"
