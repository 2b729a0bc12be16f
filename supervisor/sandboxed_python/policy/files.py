"""Policy files: TOML both ways, presets by name, and errors that name the line.

Runs in: supervisor. Loaded only when a policy file is read or written. A file looks like this::

    extends = ["batch-worker"]            # a preset, or a file relative to this one; one name or a list

    [permission]
    allow-fs-read = ["data", "~/models"]  # relative to this file's folder (in a preset: to the working directory)
    allow-net = true

Keys are the options without their dashes. Lists are united with those of the extended files; a switch or an option that
a file names itself, also as false, wins over what it extends. In paths ``${HOME}``, ``${TMPDIR}``, ``${CWD}`` and a
leading ``~`` are expanded; ``$${`` stands for a literal ``${``.
"""

from __future__ import annotations

import os
import sys

from sandboxed_python.errors import PolicyFileError, UsageError
from sandboxed_python.frozen import Frozen
from sandboxed_python.policy.model import Policy, union
from sandboxed_python.policy.patterns import OSLookup, normalize, parse_grant
from sandboxed_python.policy.table import BY_SCOPE, PERMISSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from sandboxed_python.policy.patterns import Grant, Lookup

# Options beside the permissions: key in a file -> field of Policy.
OPTIONS = {
    "allow-entrypoint": "entrypoint",
    "best-effort": "best_effort",
    "allow-writable-runtime": "writable_runtime",
    "warnings": "warnings",
}
PERMISSION_KEYS = {row.flag.lstrip("-"): row for row in PERMISSIONS}
KNOWN_KEYS = (*PERMISSION_KEYS, *OPTIONS)
TOP_KEYS = ("extends", "permission")
VARIABLES = ("HOME", "TMPDIR", "CWD")
SUFFIX = ".toml"
# In bytes. Far above any real policy; keeps /dev/zero and mistaken data files from filling the memory.
SIZE_LIMIT = 1 << 20


def preset_folder() -> str:
    """Return the folder of the presets: the installed package's, or in a checkout the repository's."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "policies")
    checkout = os.path.join(os.path.dirname(os.path.dirname(package)), "policies")
    return installed if os.path.isdir(installed) else checkout


def presets() -> dict[str, str]:
    """Return the presets: name -> what it is for (its first comment line), sorted by name."""
    found: dict[str, str] = {}
    folder = preset_folder()
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(SUFFIX):
            with open(os.path.join(folder, entry), encoding="utf-8") as file:
                found[entry[: -len(SUFFIX)]] = file.readline().lstrip("#").strip()
    return found


def load(name: str, cwd: str, *, environ: Mapping[str, str] | None = None, lookup: Lookup = OSLookup) -> Policy:
    """Read a policy file and what it extends.

    Args:
        name: a preset's name, or a path (anything with a slash or ending in ``.toml``), relative to ``cwd``.
        cwd: the working directory, absolute.
        environ: where HOME and TMPDIR are looked up; the process's environment by default.
        lookup: the file system that directories and links are looked up in.

    Returns:
        A policy in the mode ``"enforce"``; every grant's origin is ``file:line``.

    Raises:
        PolicyFileError: the file, or one it extends, can't be used.
    """
    reader = _Reader(cwd, os.environ if environ is None else environ, lookup)
    return reader.read(_locate(name, cwd, None, ""), ())


def loads(
    text: str, cwd: str, *, shown: str = "<string>", environ: Mapping[str, str] | None = None, lookup: Lookup = OSLookup
) -> Policy:
    """Read a policy from a string, as ``load`` does from a file in ``cwd`` that is called ``shown``.

    Raises:
        PolicyFileError: the text, or a file it extends, can't be used.
    """
    reader = _Reader(cwd, os.environ if environ is None else environ, lookup)
    return reader.parse(text, _Source(shown=shown, path=normalize(shown, cwd), base=cwd), ())


def dumps(policy: Policy) -> str:
    """Return the policy as a file that ``load`` reads back.

    What the runtime gets without a flag isn't said, nor are mode, protected trees and sources. Paths are absolute, and
    a tree ends in ``/*``, so that the file means the same wherever it lies and whatever exists by then. A grant's
    reason becomes a comment.

    Raises:
        PolicyFileError: a path can't be said in a file: it isn't UTF-8, or holds a ``*`` that isn't a wildcard.
    """
    lines = ["[permission]"]
    for key, row in PERMISSION_KEYS.items():
        if row.kind == "paths":
            grants = policy.read if row.scope == "fs.read" else policy.write
            told = dict.fromkeys([(_spell(grant), grant.reason) for grant in grants if not grant.implicit])
            if told:
                rows = [f"    {_quote(text)},{_comment(reason)}" for text, reason in told]
                lines += [f"{key} = [", *rows, "]"]
        elif row.scope in policy.scopes:
            lines.append(f"{key} = true")
    for key, field in OPTIONS.items():
        value = getattr(policy, field)
        if value != getattr(Policy, field):
            lines.append(f"{key} = {'true' if value else 'false'}")
    return "\n".join(lines) + "\n"


class _Source(Frozen):
    """A policy file: how errors call it, where it lies, and what its relative paths start from."""

    shown: str
    path: str
    base: str
    preset: bool = False


class _Reader:
    """Reads files and what they extend; one for each call of ``load``."""

    def __init__(self, cwd: str, environ: Mapping[str, str], lookup: Lookup) -> None:
        self.cwd = cwd
        self.environ = environ
        self.lookup = lookup
        self.done: dict[str, Policy] = {}

    def read(self, source: _Source, above: tuple[_Source, ...]) -> Policy:
        """Read a file; ``above`` are the files that extend it, outermost first."""
        # Each file once, however many ways lead to it: else files that extend in pairs double the work at each step.
        known = self.done.get(source.path)
        if known is None:
            known = self.done[source.path] = self.parse(self.text(source), source, above)
        return known

    def text(self, source: _Source) -> str:
        """Read the text of a file."""
        try:
            with open(source.path, "rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except (OSError, ValueError) as error:
            _fail(source, 1, f"can't be read: {getattr(error, 'strerror', None) or error}")
        if len(data) > SIZE_LIMIT:
            _fail(source, 1, f"larger than {SIZE_LIMIT} bytes: not a policy file")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            _fail(source, data.count(b"\n", 0, error.start) + 1, "not UTF-8, as TOML has to be")

    def parse(self, text: str, source: _Source, above: tuple[_Source, ...]) -> Policy:
        """Make a policy of a file's text."""
        table = _decode(text, source)
        lines = _Lines(text)
        for key in table:
            if key not in TOP_KEYS:
                _fail(source, lines.of(key), _unknown(key, TOP_KEYS, "at the top"))
        base = self._extended(table.get("extends", []), lines.of("extends"), source, above)
        permission = table.get("permission", {})
        if not isinstance(permission, dict):
            _fail(source, lines.of("permission"), f"permission has to be a table, not {_type(permission)}")
        changes: dict[str, Any] = {}
        scopes = set(base.scopes)
        for key, value in permission.items():
            at = lines.of("permission", key)
            row = PERMISSION_KEYS.get(key)
            if row is not None and row.kind == "paths":
                field = "read" if row.scope == "fs.read" else "write"
                grants = self._grants(key, value, lines, source)
                changes[field] = tuple(dict.fromkeys([*getattr(base, field), *grants]))
                continue
            if row is None and key not in OPTIONS:
                _fail(source, at, _unknown(key, KNOWN_KEYS, "in [permission]"))
            if not isinstance(value, bool):
                _fail(source, at, f"{key} has to be true or false, not {_type(value)}")
            if row is None:
                changes[OPTIONS[key]] = value
            elif value:
                scopes.add(row.scope)
            else:
                scopes.discard(row.scope)
        sources = tuple(dict.fromkeys([*base.sources, source.shown]))
        return base.replace(mode="enforce", scopes=frozenset(scopes), sources=sources, **changes)

    def _extended(self, names: object, line: int, source: _Source, above: tuple[_Source, ...]) -> Policy:
        """Return the union of what a file extends."""
        chain = (*above, source)
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            _fail(source, line, "extends has to be a name or a list of names")
        policies = []
        for name in names:
            target = _locate(name, source.base, source, f"{source.shown}:{line}: ")
            if os.path.realpath(target.path) in [os.path.realpath(link.path) for link in chain]:
                circle = " -> ".join([link.shown for link in (*chain, target)])
                _fail(source, line, f"extends goes in a circle: {circle}")
            if not os.path.exists(target.path):
                _fail(source, line, f"extends {name!r}: there is no {target.path}")
            policies.append(self.read(target, chain))
        return union(policies)

    def _grants(self, key: str, value: object, lines: _Lines, source: _Source) -> list[Grant]:
        """Make grants of a list of paths, or of a single path."""
        at = lines.of("permission", key)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list):
            _fail(source, at, f"{key} has to be a list of paths, not {_type(value)}")
        grants = []
        for text in values:
            if not isinstance(text, str):
                _fail(source, at, f"{key} has to be a list of strings, not of {_type(text)}")
            at = lines.of_text(text, at)
            if not text:
                _fail(source, at, f"{key}: an empty path is refused")
            path = self._expand(text, f"{key}: {text!r}", at, source)
            try:
                grant = parse_grant(path, f"{source.shown}:{at}", source.base, self.lookup)
            except UsageError as error:
                _fail(source, at, f"{key}: {str(error).removeprefix(f'{source.shown}:{at}: ')}")
            grants.append(grant.replace(text=text))
        return grants

    def _expand(self, text: str, what: str, line: int, source: _Source) -> str:
        """Expand ``~`` and ``${NAME}`` in a path."""
        if text[0] == "~":
            name = text.partition("/")[0]
            if name != "~":
                _fail(source, line, f"{what}: {name} isn't expanded: write the path, or ./{name} for such a name")
            text = "${HOME}" + text[1:]
        done = ""
        while "${" in text:
            before, _, rest = text.partition("${")
            if before.endswith("$"):
                done += before[:-1] + "${"
                text = rest
                continue
            name, brace, text = rest.partition("}")
            if not brace:
                _fail(source, line, f"{what}: ${{ without }}; a literal ${{ is written $${{")
            if name not in VARIABLES:
                wanted = ", ".join([f"${{{known}}}" for known in VARIABLES])
                _fail(source, line, f"{what}: unknown variable ${{{name}}}; known are {wanted}")
            done += before + self._variable(name, what, line, source)
        return done + text

    def _variable(self, name: str, what: str, line: int, source: _Source) -> str:
        if name == "CWD":
            value = self.cwd
        elif name == "TMPDIR":
            value = self.environ.get(name) or "/tmp"  # noqa: S108  the system's default, as tempfile has it
        else:
            value = self.environ.get(name) or _home_of_user()
        if value[:1] != "/" or "*" in value:
            _fail(source, line, f"{what}: {name} is {value!r}, which isn't an absolute path without *")
        return value


class _Lines:
    """Finds the line of a key or a value, which the TOML parser doesn't tell."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.keys: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(self.lines, 1):
            bare = line.strip()
            if bare.startswith("["):
                named = bare.strip("[").partition("]")[0]
                if not set(named) & set(",=/"):
                    table = _key(named)
                    self.keys.setdefault(table, number)
            elif "=" in bare and not bare.startswith("#"):
                name = (*table, *_key(bare.partition("=")[0]))
                self.keys.setdefault(name, number)
                for length in range(1, len(name)):
                    self.keys.setdefault(name[:length], number)

    def of(self, *key: str) -> int:
        """Return the line of a key, of the table around it, or 1."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.keys:
                return self.keys[key[:length]]
        return 1

    def of_text(self, text: str, start: int) -> int:
        """Return the first line from ``start`` on that holds the text in quotes; else ``start``."""
        for number in range(start, len(self.lines) + 1):
            line = self.lines[number - 1]
            if f'"{text}"' in line or f"'{text}'" in line:
                return number
        return start


def _key(dotted: str) -> tuple[str, ...]:
    return tuple([part.strip().strip("\"'") for part in dotted.split(".")])


def _decode(text: str, source: _Source) -> dict[str, Any]:
    """Parse TOML with the standard library's parser, on Python 3.10 with tomli, from which that one was made."""
    import importlib

    try:
        parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        _fail(source, 1, "policy files need the package tomli on Python 3.10: pip install tomli")
    try:
        table: dict[str, Any] = parser.loads(text)
    except ValueError as error:
        message, _, where = str(error).partition(" (at ")
        number = "".join([letter for letter in where.partition(",")[0] if letter.isdigit()])
        _fail(source, int(number) if number else text.rstrip("\n").count("\n") + 1, f"not TOML: {message}")
    except RecursionError:
        _fail(source, 1, "not a policy file: nested too deeply")
    return table


def _locate(name: str, base: str, source: _Source | None, prefix: str) -> _Source:
    """Find the file that a name stands for; ``source`` is the file that extends it."""
    if not name or "\0" in name:
        message = f"{prefix or f'{name!r}:1: '}{name!r} can't be the name of a policy"
        raise PolicyFileError(message)
    if "/" in name or name.endswith(SUFFIX):
        if source is not None and source.preset:
            message = f"{prefix}a preset extends only presets, not {name!r}"
            raise PolicyFileError(message)
        path = normalize(name, base)
        shown = name
        if source is not None and name[0] != "/":
            shown = os.path.normpath(os.path.join(os.path.dirname(source.shown), name))
        return _Source(shown=shown, path=path, base=os.path.dirname(path))
    known = list(presets())
    if name not in known:
        near = _nearest(name, known)
        hint = f"did you mean {near}? " if near else ""
        message = f"{prefix or f'{name}:1: '}no such preset: {name!r}. {hint}"
        message += f"Presets: {', '.join(known)}; a file is named with a slash or {SUFFIX}"
        raise PolicyFileError(message)
    path = os.path.join(preset_folder(), name + SUFFIX)
    return _Source(shown=name + SUFFIX, path=path, base=base, preset=True)


def _home_of_user() -> str:
    """Return the home folder of the user database, or ``""``."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _nearest(word: str, known: Sequence[str]) -> str:
    """Return the known word nearest to a mistyped one, or ``""``."""
    import difflib

    if word in BY_SCOPE:
        return BY_SCOPE[word].flag.lstrip("-")
    plain = word.lower().lstrip("-").replace("_", "-").removeprefix("no-")
    return next(iter(difflib.get_close_matches(plain, known, 1)), "")


def _unknown(key: str, known: Sequence[str], where: str) -> str:
    """Word the message for an unknown key."""
    if known is TOP_KEYS and key in KNOWN_KEYS:
        return f"{key} belongs under [permission]"
    if known is not TOP_KEYS and key in TOP_KEYS:
        return f"{key} belongs at the top of the file, before [permission]"
    near = _nearest(key, known)
    return f"unknown key {key!r} {where}" + (f": did you mean {near}?" if near else f"; known are {', '.join(known)}")


def _fail(source: _Source, line: int, message: str) -> NoReturn:
    text = f"{source.shown}:{line}: {message}"
    raise PolicyFileError(text) from None


def _type(value: object) -> str:
    """Name a value's type in TOML's words."""
    names = {"bool": "true or false", "str": "a string", "list": "a list", "dict": "a table", "int": "a number"}
    name = type(value).__name__
    return names.get(name, f"a {name}")


def _spell(grant: Grant) -> str:
    """Return a grant as a file says it."""
    if grant.kind == "all":
        return "*"
    # The unresolved spelling, where there is one, leads to both when it is read back.
    path = grant.paths[-1]
    if "*" in path:
        message = f"{path!r} can't be said in a policy file: its * isn't a wildcard"
        raise PolicyFileError(message)
    path = path.replace("${", "$${")
    if grant.kind == "tree":
        return path.rstrip("/") + "/*"
    return path + "*" if grant.kind == "prefix" else path


def _quote(text: str) -> str:
    """Return a TOML basic string."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        message = f"{text!r} can't be said in a policy file: it isn't UTF-8, as TOML has to be"
        raise PolicyFileError(message) from None
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join([f"\\u{ord(c):04x}" if c < " " or c == "\x7f" else c for c in quoted]) + '"'


def _comment(reason: str) -> str:
    """Return a comment at the end of a line, on that line."""
    words = "".join([c if c.isprintable() else " " for c in reason]).strip()
    return f"  # {words}" if words else ""
