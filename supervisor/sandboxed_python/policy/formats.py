"""TOML and JSON texts: parsing with the line of every key and list item, and writing.

Runs in: supervisor. Loaded only when a policy file is read or written; the parsers only with a file in their format.
"""

from __future__ import annotations

import re
import sys

from sandboxed_python.errors import PolicyFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

JSON = ".json"
SUFFIXES = (".toml", JSON)

# The tokens of both languages. In JSON no ' and no # stands outside of a string; in TOML a comment is none.
TOKEN = re.compile(
    r'''
    """ (?:\\.|[^\\])*? """ "{0,2}  |  \'\'\' .*? \'\'\' '{0,2}  |  " (?:\\.|[^"\\])* "  |  ' [^']* '
    |  (?P<comment> \# [^\n]* )
    |  [\[\]{}=:,\n]
    |  [^\s\[\]{}=:,"'\#]+
    ''',
    re.DOTALL | re.VERBOSE,
)
END = ""


class FormatError(Exception):
    """A text that its parser refuses.

    Attributes:
        line: where, from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.line = line


def is_json(path: str) -> bool:
    """Tell by a file's name whether it holds JSON; else it holds TOML."""
    return path.endswith(JSON)


def decode(text: str, *, as_json: bool) -> tuple[object, Places]:
    """Parse a text.

    Returns:
        What it says, and where.

    Raises:
        FormatError: it isn't what it should be, says a key twice, or is nested too deeply.
    """
    try:
        return _decode_json(text) if as_json else _decode_toml(text)
    except RecursionError:
        raise FormatError(1, "not a policy file: nested too deeply") from None


def _decode_json(text: str) -> tuple[object, Places]:
    import json

    text = text.removeprefix("\ufeff")  # some editors write one; RFC 8259 lets a parser ignore it
    try:
        said = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", None) or _last_line(text)
        raise FormatError(line, f"not JSON: {getattr(error, 'msg', error)}") from None
    places = Places(text if isinstance(said, dict) else "", json.loads)
    if places.twice:
        # The parser takes the last one, a reader perhaps the first.
        key, line, first = places.twice
        raise FormatError(line, f"{key!r} is said twice, first in line {first}")
    return said, places


def _decode_toml(text: str) -> tuple[object, Places]:
    """Parse with the standard library's parser, on Python 3.10 with tomli, from which that one was made."""
    import importlib

    try:
        parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        raise FormatError(1, "TOML policies need the package tomli on Python 3.10: pip install tomli") from None
    try:
        said = parser.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] == "{":
            raise FormatError(1, f"not TOML: JSON is read from files whose names end in {JSON}") from None
        message, _, where = str(error).partition(" (at ")
        number = "".join([letter for letter in where.partition(",")[0] if letter.isdigit()])
        raise FormatError(int(number) if number else _last_line(text), f"not TOML: {message}") from None
    return said, Places(text, lambda quoted: parser.loads(f"key = {quoted}")["key"])


def _last_line(text: str) -> int:
    return text.rstrip("\n").count("\n") + 1


class Places:
    """The lines of keys and list items in a text that its parser has accepted: the parsers don't tell them.

    Attributes:
        twice: the first key that is there twice in a JSON object (the key, its line, the line of the first), or None.
    """

    def __init__(self, text: str, unquote: Callable[[str], str]) -> None:
        """Read the text; ``unquote`` makes a key of a token with quotes."""
        self.twice: tuple[str, int, int] | None = None
        self._unquote = unquote
        self._lines: dict[tuple[str | int, ...], int] = {}
        self._tokens = list(_tokens(text))
        self._tokens.reverse()
        self._document()

    def of(self, *path: str | int) -> int:
        """Return the line of a key or list item, else of what is around it, else 1."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return self._lines[path[:length]]
        return 1

    def _peek(self) -> str:
        return self._tokens[-1][0]

    def _next(self) -> tuple[str, int]:
        return self._tokens[-1] if self._peek() == END else self._tokens.pop()

    def _document(self) -> None:
        """Read the lines of TOML, or the object of JSON: no line of TOML begins with a brace."""
        table: tuple[str | int, ...] = ()
        while (word := self._peek()) != END:
            if word == "{":
                self._value(())
            elif word == "[":
                while self._peek() == "[":
                    self._next()
                table = self._key(())
            elif word in ("\n", "]"):
                self._next()
            else:
                self._value(self._key(table))

    def _key(self, above: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Read a key and the mark behind it, and keep the lines of all its parts."""
        path = above
        line = self._tokens[-1][1]
        while (word := self._next()[0]) not in ("=", ":", "]", END):
            if word[0] in "\"'":
                path = (*path, self._unquote(word) if "\\" in word else word[1:-1])
            elif word != "\n":
                path = (*path, *[part for part in word.split(".") if part])
        if path in self._lines and self.twice is None:
            self.twice = str(path[-1]), line, self._lines[path]
        for length in range(len(above) + 1, len(path) + 1):
            self._lines.setdefault(path[:length], line)
        return path

    def _value(self, path: tuple[str | int, ...]) -> None:
        """Read a value and what is in it."""
        self._skip("\n")
        opening, _ = self._next()
        if opening == "{":
            while self._skip("\n,") not in ("}", END):
                self._value(self._key(path))
            self._next()
        elif opening == "[":
            index = 0
            while self._skip("\n,") not in ("]", END):
                item = (*path, index)
                self._lines[item] = self._tokens[-1][1]
                self._value(item)
                index += 1
            self._next()
        else:
            while self._peek() not in (",", "]", "}", "\n", END):  # a date has several tokens
                self._next()

    def _skip(self, marks: str) -> str:
        """Skip marks, and return the token behind them."""
        while (word := self._peek()) != END and word in marks:
            self._next()
        return word


def _tokens(text: str) -> Sequence[tuple[str, int]]:
    """Split a text: tokens and their lines, and an empty one at the end."""
    found = []
    line, seen = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        if match["comment"] is None:
            found.append((match[0], line))
    return [*found, (END, line)]


def encode(
    rows: Sequence[tuple[str, bool | Sequence[tuple[str, str]]]],
    limits: Mapping[str, float] | None = None,
    *,
    as_json: bool,
) -> str:
    """Write the table ``permission``, and ``limits`` if there are any.

    Args:
        rows: keys and their values: true or false, or paths, each with a comment or "". JSON has no comments.
        limits: keys and their values.
        as_json: write JSON, else TOML.

    Raises:
        PolicyFileError: a path isn't UTF-8.
    """
    if as_json:
        import json

        plain: dict[str, Any] = {}
        for key, value in rows:
            plain[key] = value if isinstance(value, bool) else [_utf8(text, "JSON") for text, _comment in value]
        whole = {"permission": plain, **({"limits": dict(limits)} if limits else {})}
        return json.dumps(whole, indent=4, ensure_ascii=False) + "\n"
    lines = ["[permission]"]
    for key, value in rows:
        if isinstance(value, bool):
            lines.append(f"{key} = {'true' if value else 'false'}")
        else:
            lines += [f"{key} = [", *[f"    {_quote(text)},{_comment(why)}" for text, why in value], "]"]
    if limits:
        lines += ["", "[limits]", *[f"{key} = {value}" for key, value in limits.items()]]
    return "\n".join(lines) + "\n"


def _utf8(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        message = f"{text!r} can't be said in a policy file: it isn't UTF-8, as {name} has to be"
        raise PolicyFileError(message) from None
    return text


def _quote(text: str) -> str:
    """Return a TOML basic string."""
    quoted = _utf8(text, "TOML").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join([f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c for c in quoted]) + '"'


def _comment(reason: str) -> str:
    """Return a comment at the end of a line, on that line."""
    words = "".join([c if c.isprintable() else " " for c in reason]).strip()
    return f"  # {words}" if words else ""
