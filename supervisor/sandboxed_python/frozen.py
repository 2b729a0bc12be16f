"""Frozen records without the import cost of ``dataclasses``.

Runs in: both. ``dataclasses`` imports ``inspect``, ``re`` and ``enum`` (several milliseconds); this base gives what
``@dataclass(frozen=True, kw_only=True)`` gives: a keyword constructor, equality, hash, repr, and no assignment.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import KeysView
    from typing import Any, ClassVar, TypeVar

    from typing_extensions import dataclass_transform

    Self = TypeVar("Self", bound="Frozen")
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201 - typed above
        """Stand in for ``typing.dataclass_transform`` at run time."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen:
    """Base of the model classes. Fields are the class annotations, defaults the class attributes.

    Raises:
        TypeError: a field without a default is missing, or an unknown one is given.
        AttributeError: on assignment to or deletion of an attribute.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _known: ClassVar[frozenset[str]] = frozenset()
    _needed: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        """Collect the fields of the class from its annotations, after those of its bases."""
        own = cls.__dict__.get("__annotations__")
        if own is None:
            own = cls.__annotations__
        names = [name for name in own if name[0] != "_" and name not in cls._known]
        cls._fields = (*cls._fields, *names)
        cls._known = frozenset(cls._fields)
        cls._needed = cls._needed.union(names).difference(cls.__dict__)

    def __init__(self, **values: Any) -> None:
        """Set every field that is given; the others' defaults are the class's attributes."""
        names = values.keys()
        if not names <= self._known or not self._needed <= names:
            raise TypeError(self._wrong(names))
        self.__dict__.update(values)

    def _wrong(self, names: KeysView[str]) -> str:
        missing = [name for name in self._fields if name in self._needed and name not in names]
        if missing:
            return f"{type(self).__name__}() needs {missing[0]}="
        unknown = next(name for name in names if name not in self._known)
        return f"{type(self).__name__}() has no field {unknown!r}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and their values, in declaration order (not recursive)."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self)(**{**self.as_dict(), **changes})

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse assignment."""
        message = f"{type(self).__name__} is frozen: {name} can't be set"
        raise AttributeError(message)

    def __delattr__(self, name: str) -> None:
        """Refuse deletion."""
        message = f"{type(self).__name__} is frozen: {name} can't be deleted"
        raise AttributeError(message)

    def __eq__(self, other: object) -> bool:
        """Compare type and fields."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def __hash__(self) -> int:
        """Hash type and fields."""
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        """Show the class and its fields."""
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self._fields)})"
