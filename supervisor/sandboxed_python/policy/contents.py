"""What a policy file says: its keys, checked, with the places where they stand; and the words of its errors.

Runs in: supervisor. Loaded only when a policy file is read or written.
"""

from __future__ import annotations

import os

from sandboxed_python.errors import PolicyFileError
from sandboxed_python.frozen import Frozen
from sandboxed_python.policy.formats import FormatError, Places, decode, is_json
from sandboxed_python.policy.limits import LIMITS
from sandboxed_python.policy.table import BY_SCOPE, PERMISSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

# Options beside the permissions: key in a file -> field of Policy.
OPTIONS = {
    "allow-entrypoint": "entrypoint",
    "best-effort": "best_effort",
    "allow-writable-runtime": "writable_runtime",
    "warnings": "warnings",
}
PERMISSION_KEYS = {row.flag.lstrip("-"): row for row in PERMISSIONS}
MODEL = "permission"  # the table; in it, a switch: false says that the file doesn't turn the model on, as in Node
KNOWN_KEYS = (*PERMISSION_KEYS, *OPTIONS, MODEL)
EXTENDS = "extends"
# The table of the limits, and its keys: the options without "--limit-".
LIMIT_TABLE = "limits"
LIMIT_KEYS = {row[1].lstrip("-").removeprefix("limit-"): row for row in LIMITS}
TOP_KEYS = (EXTENDS, MODEL, LIMIT_TABLE)
# What else a configuration file of Node's holds, and what isn't about permissions.
NODE_OPTIONS = "nodeOptions"
NODE_KEYS = ("$schema", NODE_OPTIONS, "test", "testRunner", "watch")
PYPROJECT = "pyproject.toml"
TOOL = ("tool", "sandboxed-python")


class Source(Frozen):
    """A policy file: how errors call it, where it lies, and what its relative paths start from."""

    shown: str
    path: str
    base: str
    preset: bool = False

    @property
    def json(self) -> bool:
        """Tell whether it holds JSON; else it is TOML."""
        return is_json(self.path)

    @property
    def pyproject(self) -> bool:
        """Tell whether only one table of it is ours."""
        return os.path.basename(self.path) == PYPROJECT


class Contents(Frozen):
    """What a policy file says.

    Attributes:
        extends: the value of ``extends``.
        said: key of ``permission`` -> its value, and the path of the key in the text.
        limits: the same of ``limits``.
        places: the lines.
        top: path in the text of the table that everything is in.
    """

    extends: object
    said: dict[str, tuple[object, tuple[str, ...]]]
    limits: dict[str, tuple[object, tuple[str, ...]]]
    places: Places
    top: tuple[str, ...] = ()


def read_contents(text: str, source: Source) -> Contents:
    """Parse a file's text, and check everything but the values of the single keys.

    Raises:
        PolicyFileError: the text isn't a policy file.
    """
    try:
        table, places = decode(text, as_json=source.json)
    except FormatError as error:
        fail(source, error.line, str(error))
    top = TOOL if source.pyproject else ()
    table = _descend(table, top, places, source)
    _check_keys(table, top, places, source)
    said: dict[str, tuple[object, tuple[str, ...]]] = {}
    permission = table.get(MODEL, {})
    limits = table.get(LIMIT_TABLE, {})
    if source.pyproject:
        said = {key: (value, (*top, key)) for key, value in table.items() if _is_direct(key, value)}
        permission = {} if MODEL in said else permission
    wanted = "an object" if source.json else "a table"
    for name, value in ((MODEL, permission), (LIMIT_TABLE, limits)):
        if not isinstance(value, dict):
            fail(source, places.of(*top, name), f"{name} has to be {wanted}, not {type_name(value, source)}")
    for key, value in permission.items():
        path = (*top, MODEL, key)
        if key not in KNOWN_KEYS:
            fail(source, places.of(*path), _unknown(key, KNOWN_KEYS, f"in {_table(source)}", source))
        if key in said:
            fail(source, places.of(*path), f"{key!r} is said twice, first in line {places.of(*top, key)}")
        said[key] = value, path
    limited: dict[str, tuple[object, tuple[str, ...]]] = {}
    for key, value in limits.items():
        path = (*top, LIMIT_TABLE, key)
        if key not in LIMIT_KEYS:
            where = f"in {_table(source, LIMIT_TABLE)}"
            fail(source, places.of(*path), _unknown(key, tuple(LIMIT_KEYS), where, source))
        limited[key] = value, path
    return Contents(extends=table.get(EXTENDS, []), said=said, limits=limited, places=places, top=top)


def _descend(table: object, top: tuple[str, ...], places: Places, source: Source) -> dict[str, Any]:
    """Return the table that the policy is in."""
    if not isinstance(table, dict):
        fail(source, 1, f"a policy has to be an object, not {type_name(table, source)}")
    for index, key in enumerate(top):
        if key not in table:
            fail(source, 1, f"there is no table [{'.'.join(top)}]")
        table = table[key]
        if not isinstance(table, dict):
            name = ".".join(top[: index + 1])
            fail(source, places.of(*top[: index + 1]), f"{name} has to be a table, not {type_name(table, source)}")
    return table


def _check_keys(table: dict[str, Any], top: tuple[str, ...], places: Places, source: Source) -> None:
    """Refuse unknown keys beside the table of the grants, and grants where Node looks for other options."""
    for key, value in table.items():
        if key in TOP_KEYS or (source.json and key in NODE_KEYS) or (source.pyproject and _is_direct(key, value)):
            continue
        known = (EXTENDS, *KNOWN_KEYS, LIMIT_TABLE) if source.pyproject else TOP_KEYS
        where = f"in [{'.'.join(top)}]" if top else "at the top"
        fail(source, places.of(*top, key), _unknown(key, known, where, source))
    options = table.get(NODE_OPTIONS)
    for key in options if isinstance(options, dict) else ():
        if key in PERMISSION_KEYS:
            fail(source, places.of(NODE_OPTIONS, key), f"{key} belongs under {_table(source)}")


def _is_direct(key: str, value: object) -> bool:
    """Tell whether a key of ``[tool.sandboxed-python]`` is one of those that other files have in ``[permission]``."""
    return key in KNOWN_KEYS and not (key == MODEL and isinstance(value, dict))


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the known word nearest to a mistyped one, or ``""``."""
    import difflib

    key = BY_SCOPE[word].flag.lstrip("-") if word in BY_SCOPE else ""
    if key in known:
        return key
    plain = word.lower().lstrip("-").replace("_", "-").removeprefix("no-")
    return next(iter(difflib.get_close_matches(plain, known, 1)), "")


def _unknown(key: str, known: Sequence[str], where: str, source: Source) -> str:
    """Word the message for an unknown key."""
    if known is TOP_KEYS and key in KNOWN_KEYS:
        return f"{key} belongs under {_table(source)}"
    if known is KNOWN_KEYS and key == EXTENDS:
        return f"{key} belongs {'beside' if source.json else 'before'} {_table(source)}"
    if key == "permission-audit":
        return f"{key!r} {where}: it is an option of the command line"
    near = nearest(key, known)
    return f"unknown key {key!r} {where}" + (f": did you mean {near}?" if near else f"; known are {', '.join(known)}")


def _table(source: Source, name: str = MODEL) -> str:
    """Name a table, by default that of the grants, as its format does."""
    return f'"{name}"' if source.json else f"[{'.'.join((*TOOL, name))}]" if source.pyproject else f"[{name}]"


def fail(source: Source, line: int, message: str) -> NoReturn:
    """Refuse a policy file, in one line.

    Raises:
        PolicyFileError: always.
    """
    text = f"{source.shown}:{line}: {printable(message)}"
    raise PolicyFileError(text) from None


def type_name(value: object, source: Source) -> str:
    """Name a value's type in the words of its format."""
    names = {"bool": "true or false", "str": "a string", "list": "a list", "dict": "a table", "int": "a number"}
    if source.json:
        names |= {"dict": "an object", "NoneType": "null"}
    name = type(value).__name__
    return names.get(name, "a number" if name == "float" else f"a {name}")


def printable(text: str) -> str:
    """Escape what would break a line, or speak to the terminal."""
    return "".join([letter if letter.isprintable() else repr(letter)[1:-1] for letter in text])
