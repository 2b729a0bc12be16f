"""Frozen records: what the constructor takes, what can't be changed, and what is equal."""

from __future__ import annotations

import copy
import marshal
import pickle
import subprocess
import sys
from typing import Any

import pytest

from sandboxed_python.frozen import Frozen
from tests.launch.plain import pythons


class Point(Frozen):
    """A record with one required field, one default, and things that are no fields."""

    x: int
    y: int = 2
    _hidden: int = 3
    CONSTANT = 4

    @property
    def total(self) -> int:
        """Return something computed."""
        return self.x + self.y


class Named(Point):
    """A record with its base's fields, another default for one of them, and one more."""

    y: int = 5
    name: str = ""


class Plain(Point):
    """A record that adds nothing."""


def make(cls: type[Frozen], **values: Any) -> Any:
    """Call a constructor with what a type checker would refuse."""
    return cls(**values)


def test_fields_are_the_annotations_in_order_bases_first() -> None:
    assert Frozen._fields == ()
    assert Point._fields == ("x", "y")
    assert Named._fields == ("x", "y", "name")
    assert Plain._fields == ("x", "y")


def test_defaults_and_keywords() -> None:
    assert Point(x=1).as_dict() == {"x": 1, "y": 2}
    assert Point(y=7, x=1).as_dict() == {"x": 1, "y": 7}
    assert Named(x=1).as_dict() == {"x": 1, "y": 5, "name": ""}
    assert list(Named(name="n", x=1).as_dict()) == ["x", "y", "name"]
    assert Point(x=1).total == 3
    assert make(Frozen).as_dict() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Point() needs x="),
        ({"y": 1}, "Point() needs x="),
        ({"x": 1, "z": 2}, "Point() has no field 'z'"),
        ({"x": 1, "_hidden": 2}, "Point() has no field '_hidden'"),
        ({"x": 1, "CONSTANT": 2}, "Point() has no field 'CONSTANT'"),
        ({"x": 1, "_fields": ()}, "Point() has no field '_fields'"),
    ],
)
def test_constructor_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(Point, **values)
    assert str(caught.value) == message


def test_constructor_takes_no_positions() -> None:
    cls: Any = Point
    with pytest.raises(TypeError):
        cls(1)


def test_constructor_leaves_its_arguments_alone() -> None:
    values = {"x": 1, "y": 3}
    make(Point, **values)
    assert values == {"x": 1, "y": 3}


@pytest.mark.parametrize("name", ["x", "y", "_hidden", "CONSTANT", "new", "total", "__dict__"])
def test_nothing_is_assigned_or_deleted(name: str) -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match=f"Point is frozen: {name} can't be set"):
        setattr(point, name, 9)
    with pytest.raises(AttributeError, match=f"Point is frozen: {name} can't be deleted"):
        delattr(point, name)
    assert point == Point(x=1)
    assert point.as_dict() == {"x": 1, "y": 2}


def test_replace_makes_another() -> None:
    first = Named(x=1, name="a")
    second = first.replace(x=2)
    assert first.as_dict() == {"x": 1, "y": 5, "name": "a"}
    assert second.as_dict() == {"x": 2, "y": 5, "name": "a"}
    assert type(second) is Named
    assert first.replace() == first
    assert first.replace() is not first
    with pytest.raises(TypeError, match="has no field 'z'"):
        first.replace(z=1)


def test_as_dict_is_a_copy() -> None:
    point = Point(x=1)
    point.as_dict()["x"] = 9
    assert point.x == 1


def test_equality_compares_type_and_every_field() -> None:
    assert Point(x=1) == Point(x=1, y=2)
    assert Point(x=1) != Point(x=1, y=3)
    assert Point(x=1, y=5) != Named(x=1)
    assert Point(x=1) != Plain(x=1)
    assert Point(x=1).__eq__((1, 2)) is NotImplemented
    different: object = (1, 2)
    assert Point(x=1) != different


def test_hash_follows_equality() -> None:
    assert hash(Point(x=1)) == hash(Point(x=1, y=2))
    assert len({Point(x=1), Point(x=1), Point(x=2), Plain(x=1)}) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(make(Point, x=[]))


def test_what_is_cached_on_an_instance_is_not_part_of_it() -> None:
    first, second = Point(x=1), Point(x=1)
    first.__dict__["cached"] = 1
    assert first == second
    assert hash(first) == hash(second)
    assert "cached" not in first.replace().__dict__
    assert "cached" not in repr(first)


def test_repr_shows_class_and_fields() -> None:
    assert repr(Named(x=1, name="a'b")) == 'Named(x=1, y=5, name="a\'b")'


def test_copies_and_pickles() -> None:
    point = Named(x=1, name="n")
    assert copy.copy(point) == point
    assert copy.deepcopy(point) == point
    assert pickle.loads(pickle.dumps(point)) == point
    assert marshal.loads(marshal.dumps(point.as_dict())) == point.as_dict()


PROGRAM = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from sandboxed_python.frozen import Frozen
class A(Frozen):
    x: int
    y: tuple[str, ...] = ()
class B(A):
    pass
class C(A):
    z: "unknown to anybody" = 3
assert (A._fields, B._fields, C._fields) == (("x", "y"), ("x", "y"), ("x", "y", "z"))
assert C(x=1).as_dict() == {"x": 1, "y": (), "z": 3}
assert B(x=1) == B(x=1) != A(x=1)
assert hash(C(x=1)) == hash(C(x=1).replace(z=3))
for wrong in (lambda: A(), lambda: A(x=1, q=1)):
    try:
        wrong()
    except TypeError:
        continue
    raise SystemExit("accepted")
try:
    A(x=1).x = 2
except AttributeError:
    pass
else:
    raise SystemExit("assigned")
loaded = set(sys.modules) - before
heavy = {"typing", "dataclasses", "enum", "re", "collections", "functools", "inspect"} & loaded
print("heavy:", sorted(heavy))
"""


@pytest.mark.parametrize("python", pythons())
def test_every_supported_python(python: str) -> None:
    import sandboxed_python

    folder = sandboxed_python.__path__[0].rpartition("/")[0]
    ended = subprocess.run(
        [python, "-I", "-S", "-B", "-c", PROGRAM, folder], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "heavy: []\n", "")


def test_the_tests_run_on_a_supported_python() -> None:
    assert sys.version_info >= (3, 10)
