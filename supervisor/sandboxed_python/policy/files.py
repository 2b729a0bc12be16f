"""Policy files: TOML and JSON both ways, presets by name, and errors that name the line.

Runs in: supervisor. Loaded only when a policy file is read or written. A file looks like this::

    extends = ["batch-worker"]            # a preset, or a file relative to this one; one name or a list

    [permission]
    allow-fs-read = ["data", "~/models"]  # relative to this file's folder (in a preset: to the working directory)
    allow-net = true

    [limits]
    memory = "512M"                       # as for --limit-memory; a number is one of bytes

The same as a JSON object, in a file whose name ends in ``.json``, is what Node's configuration file holds
(https://nodejs.org/api/cli.html), besides ``extends``, ``limits`` and the options that Node hasn't.
In a ``pyproject.toml`` all of it stands in ``[tool.sandboxed-python]``, the keys of ``[permission]`` directly or in a
table of this name.

Keys are the options without their dashes, those of ``[limits]`` without ``limit-`` too. Lists are united with those of
the extended files; a switch, an option or a limit that a file names itself, also as false, wins over what it extends.
In paths ``${HOME}``, ``${TMPDIR}``, ``${CWD}`` and a leading ``~`` are expanded; ``$${`` stands for a literal ``${``.
"""

from __future__ import annotations

import os
import stat

from sandboxed_python.errors import PolicyFileError, UsageError
from sandboxed_python.policy.contents import (
    EXTENDS,
    LIMIT_KEYS,
    MODEL,
    OPTIONS,
    PERMISSION_KEYS,
    Source,
    fail,
    nearest,
    printable,
    read_contents,
    type_name,
)
from sandboxed_python.policy.formats import SUFFIXES, encode
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import OSLookup, normalize
from sandboxed_python.policy.spelling import parse_grant
from sandboxed_python.policy.union import union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sandboxed_python.policy.contents import Contents
    from sandboxed_python.policy.formats import Places
    from sandboxed_python.policy.limits import Limits
    from sandboxed_python.policy.patterns import Grant, Lookup

VARIABLES = ("HOME", "TMPDIR", "CWD")
PRESET_SUFFIX = ".toml"
# In bytes. Far above any real policy; keeps /dev/zero and mistaken data files from filling the memory.
SIZE_LIMIT = 1 << 20
# Files that extend one another. Far above any real policy, and below Python's recursion limit.
DEPTH_LIMIT = 100
# What can't be a policy file, by its type (inode(7)): reading one may wait for ever, or change a device.
NOT_FILES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
        if entry.endswith(PRESET_SUFFIX):
            with open(os.path.join(folder, entry), encoding="utf-8") as file:
                found[entry[: -len(PRESET_SUFFIX)]] = file.readline().lstrip("#").strip()
    return found


def load(name: str, cwd: str, *, environ: Mapping[str, str] | None = None, lookup: Lookup = OSLookup) -> Policy:
    """Read a policy file and what it extends.

    Args:
        name: a preset's name, or a path (anything with a slash or ending in ``.toml`` or ``.json``), relative to
            ``cwd``.
        cwd: the working directory, absolute.
        environ: where HOME and TMPDIR are looked up; the process's environment by default.
        lookup: the file system that directories and links are looked up in.

    Returns:
        A policy in the mode ``"enforce"``, or ``"off"`` if the file says so; every grant's origin is ``file:line``.

    Raises:
        PolicyFileError: the file, or one it extends, can't be used.
    """
    reader = _Reader(cwd, os.environ if environ is None else environ, lookup)
    return reader.read(_locate(name, cwd, None, ""), ())


def loads(
    text: str, cwd: str, *, shown: str = "<string>", environ: Mapping[str, str] | None = None, lookup: Lookup = OSLookup
) -> Policy:
    """Read a policy from a string, as ``load`` does from a file in ``cwd`` that is called ``shown``.

    The name tells the format, as it does for a file.

    Raises:
        PolicyFileError: the text, or a file it extends, can't be used.
    """
    reader = _Reader(cwd, os.environ if environ is None else environ, lookup)
    return reader.parse(text, Source(shown=shown, path=normalize(shown, cwd), base=cwd), ())


def dumps(policy: Policy, *, as_json: bool = False) -> str:
    """Return the policy as a file that ``load`` reads back: TOML, or JSON.

    What the runtime gets without a flag isn't said, nor are mode, protected trees and sources. Paths are absolute, and
    a tree ends in ``/*``, so that the file means the same wherever it lies and whatever exists by then. A grant's
    reason becomes a comment, which JSON hasn't.

    Raises:
        PolicyFileError: a path can't be said in a file: it isn't UTF-8, or holds a ``*`` that isn't a wildcard.
    """
    rows: list[tuple[str, bool | list[tuple[str, str]]]] = []
    limits = {key: value for key, row in LIMIT_KEYS.items() if (value := getattr(policy.limits, row[0])) is not None}
    for key, row in PERMISSION_KEYS.items():
        if row.kind == "paths":
            grants = policy.read if row.scope == "fs.read" else policy.write
            told = dict.fromkeys([(_spell(grant), grant.reason) for grant in grants if not grant.implicit])
            if told:
                rows.append((key, list(told)))
        elif row.scope in policy.scopes:
            rows.append((key, True))
    for key, field in OPTIONS.items():
        value = getattr(policy, field)
        if value != getattr(Policy, field):
            rows.append((key, value))
    return encode(rows, limits, as_json=as_json)


class _Reader:
    """Reads files and what they extend; one for each call of ``load``."""

    def __init__(self, cwd: str, environ: Mapping[str, str], lookup: Lookup) -> None:
        self.cwd = cwd
        self.environ = environ
        self.lookup = lookup
        self.done: dict[str, Policy] = {}

    def read(self, source: Source, above: tuple[Source, ...]) -> Policy:
        """Read a file; ``above`` are the files that extend it, outermost first."""
        # Each file once, however many ways lead to it: else files that extend in pairs double the work at each step.
        known = self.done.get(source.path)
        if known is None:
            known = self.done[source.path] = self.parse(self.text(source), source, above)
        return known

    def text(self, source: Source) -> str:
        """Read the text of a file."""
        try:
            # Devices are not even opened: for some of them that is an order.
            self._refuse(os.stat(source.path), source)
            # What has taken the file's place since then must not make us wait.
            descriptor = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            with open(descriptor, "rb") as file:
                self._refuse(os.fstat(descriptor), source)
                data = file.read(SIZE_LIMIT + 1)
        except (OSError, ValueError) as error:
            fail(source, 1, f"can't be read: {getattr(error, 'strerror', None) or error}")
        if len(data) > SIZE_LIMIT:
            fail(source, 1, f"larger than {SIZE_LIMIT} bytes: not a policy file")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            name = "JSON" if source.json else "TOML"
            fail(source, data.count(b"\n", 0, error.start) + 1, f"not UTF-8, as {name} has to be")

    def _refuse(self, status: os.stat_result, source: Source) -> None:
        kind = NOT_FILES.get(stat.S_IFMT(status.st_mode))
        if kind is not None:
            fail(source, 1, f"{kind}, not a policy file")

    def parse(self, text: str, source: Source, above: tuple[Source, ...]) -> Policy:
        """Make a policy of a file's text."""
        contents = read_contents(text, source)
        base = self._extended(contents, source, above)
        changes: dict[str, Any] = {"mode": "enforce"}
        switches = {scope: base.origins_of(scope) for scope in base.scopes}
        for key, (value, path) in contents.said.items():
            at = contents.places.of(*path)
            row = PERMISSION_KEYS.get(key)
            if row is not None and row.kind == "paths":
                field = "read" if row.scope == "fs.read" else "write"
                grants = self._grants(value, path, contents.places, source)
                changes[field] = tuple(dict.fromkeys([*getattr(base, field), *grants]))
                continue
            if not isinstance(value, bool):
                fail(source, at, f"{key} has to be true or false, not {type_name(value, source)}")
            if key == MODEL:
                changes["mode"] = "enforce" if value else "off"
            elif row is None:
                changes[OPTIONS[key]] = value
            elif value:
                switches[row.scope] = (*switches.get(row.scope, ()), f"{source.shown}:{at}")
            else:
                switches.pop(row.scope, None)
        if contents.limits:
            changes["limits"] = self._limits(base.limits, contents, source)
        return base.replace(
            scopes=frozenset(switches),
            sources=tuple(dict.fromkeys([*base.sources, source.shown])),
            origins=tuple([(scope, origin) for scope in sorted(switches) for origin in switches[scope]]),
            **changes,
        )

    def _limits(self, base: Limits, contents: Contents, source: Source) -> Limits:
        """Return the limits of a file that extends what has the limits ``base``."""
        from sandboxed_python.policy import units

        found: dict[str, float | None] = {}
        for key, (value, path) in contents.limits.items():
            field, _flag, kind, *_ = LIMIT_KEYS[key]
            if value is False:
                found[field] = None
                continue
            plain = isinstance(value, (str, int)) or (isinstance(value, float) and kind in ("duration", "grace"))
            text = f"{value:f}" if isinstance(value, float) else str(value)
            try:
                if not plain or value is True:
                    message = f"{type_name(value, source)} is not {units.WANTED[kind]}, or false"
                    raise ValueError(message)  # noqa: TRY301 - said at one place
                found[field] = units.parse(kind, text)
            except ValueError as error:
                fail(source, contents.places.of(*path), f"{key}: {error}")
        return base.replace(**found)

    def _extended(self, contents: Contents, source: Source, above: tuple[Source, ...]) -> Policy:
        """Return the union of what a file extends."""
        chain = (*above, source)
        names = contents.extends
        top = (*contents.top, EXTENDS)
        line = contents.places.of(*top)
        if isinstance(names, str):
            names = [names]
        if not isinstance(names, list):
            fail(source, line, f"extends has to be a name or a list of names, not {type_name(names, source)}")
        policies = []
        for index, name in enumerate(names):
            line = contents.places.of(*top, index)
            if not isinstance(name, str):
                fail(source, line, f"extends has to be a list of names, not of {type_name(name, source)}")
            target = _locate(name, source.base, source, f"{source.shown}:{line}: ")
            if os.path.realpath(target.path) in [os.path.realpath(link.path) for link in chain]:
                circle = " -> ".join([link.shown for link in (*chain, target)])
                fail(source, line, f"extends goes in a circle: {circle}")
            if not os.path.exists(target.path):
                fail(source, line, f"extends {name!r}: there is no {target.path}")
            if len(chain) >= DEPTH_LIMIT:
                fail(source, line, f"extends {name!r}: more than {DEPTH_LIMIT} files that extend one another")
            policies.append(self.read(target, chain))
        return union(policies)

    def _grants(self, value: object, path: tuple[str, ...], places: Places, source: Source) -> list[Grant]:
        """Make grants of a list of paths, or of a single path; ``path`` is that of the key."""
        key = path[-1]
        at = places.of(*path)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list):
            fail(source, at, f"{key} has to be a list of paths, not {type_name(value, source)}")
        grants = []
        for index, text in enumerate(values):
            at = places.of(*path, index)
            if not isinstance(text, str):
                fail(source, at, f"{key} has to be a list of strings, not of {type_name(text, source)}")
            if not text:
                fail(source, at, f"{key}: an empty path is refused")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                fail(source, at, f"{key}: {text!r} holds half a character")
            expanded = self._expand(text, f"{key}: {text!r}", at, source)
            try:
                grant = parse_grant(expanded, f"{source.shown}:{at}", source.base, self.lookup)
            except UsageError as error:
                fail(source, at, f"{key}: {str(error).removeprefix(f'{source.shown}:{at}: ')}")
            grants.append(grant.replace(text=text))
        return grants

    def _expand(self, text: str, what: str, line: int, source: Source) -> str:
        """Expand ``~`` and ``${NAME}`` in a path."""
        if text[0] == "~":
            name = text.partition("/")[0]
            if name != "~":
                fail(source, line, f"{what}: {name} isn't expanded: write the path, or ./{name} for such a name")
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
                fail(source, line, f"{what}: ${{ without }}; a literal ${{ is written $${{")
            if name not in VARIABLES:
                wanted = ", ".join([f"${{{known}}}" for known in VARIABLES])
                fail(source, line, f"{what}: unknown variable ${{{name}}}; known are {wanted}")
            done += before + self._variable(name, what, line, source)
        return done + text

    def _variable(self, name: str, what: str, line: int, source: Source) -> str:
        if name == "CWD":
            value = self.cwd
        elif name == "TMPDIR":
            value = self.environ.get(name) or "/tmp"  # noqa: S108  the system's default, as tempfile has it
        else:
            value = self.environ.get(name) or _home_of_user()
        if value[:1] != "/" or "*" in value:
            fail(source, line, f"{what}: {name} is {value!r}, which isn't an absolute path without *")
        return value


def _locate(name: str, base: str, source: Source | None, prefix: str) -> Source:
    """Find the file that a name stands for; ``source`` is the file that extends it."""
    if not name or "\0" in name or not _is_file_name(name):
        message = f"{prefix or f'{name!r}:1: '}{name!r} can't be the name of a policy"
        raise PolicyFileError(message)
    if "/" in name or name.endswith(SUFFIXES):
        if source is not None and source.preset:
            message = f"{prefix}a preset extends only presets, not {name!r}"
            raise PolicyFileError(message)
        path = normalize(name, base)
        shown = name
        if source is not None and name[0] != "/":
            shown = os.path.normpath(os.path.join(os.path.dirname(source.shown), name))
        return Source(shown=printable(shown), path=path, base=os.path.dirname(path))
    known = list(presets())
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near}? " if near else ""
        message = f"{prefix or f'{printable(name)}:1: '}no such preset: {name!r}. {hint}"
        message += f"Presets: {', '.join(known)}; a file is named with a slash, {' or '.join(SUFFIXES)}"
        raise PolicyFileError(message)
    path = os.path.join(preset_folder(), name + PRESET_SUFFIX)
    return Source(shown=f"preset {name}", path=path, base=base, preset=True)


def _is_file_name(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _home_of_user() -> str:
    """Return the home folder of the user database, or ``""``."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


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
