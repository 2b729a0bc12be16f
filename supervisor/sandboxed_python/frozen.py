"""Frozen records without the import cost of ``dataclasses``.

Runs in: both. ``dataclasses`` imports ``inspect``, ``re`` and ``enum`` (several milliseconds); this base gives what
``@dataclass(frozen=True, kw_only=True)`` gives: a keyword constructor, equality, hash, repr, and no assignment.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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

    def __init_subclass__(cls) -> None:
        """Collect the fields of the class from its annotations, after those of its bases."""
        own = cls.__dict__.get("__annotations__")
        if own is None:
            own = cls.__annotations__
        names = [name for name in own if not name.startswith("_") and name not in cls._fields]
        cls._fields = (*cls._fields, *names)

    def __init__(self, **values: Any) -> None:
        """Set every field from its keyword or its default."""
        mine = self.__dict__
        for name in self._fields:
            if name in values:
                mine[name] = values.pop(name)
            elif not hasattr(type(self), name):
                message = f"{type(self).__name__}() needs {name}="
                raise TypeError(message)
        if values:
            message = f"{type(self).__name__}() has no field {next(iter(values))!r}"
            raise TypeError(message)

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
