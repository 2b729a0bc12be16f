"""The command line: our options, Python's options, the target. One table each; help is derived from them.

Runs in: supervisor.
"""

from __future__ import annotations

import os

from sandboxed_python import image
from sandboxed_python.errors import MissingOptionError, UsageError
from sandboxed_python.frozen import Frozen
from sandboxed_python.plan.model import Target
from sandboxed_python.policy.limits import BY_OPTION, LIMITS, Limits
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.patterns import OSLookup
from sandboxed_python.policy.table import BY_FLAG, PERMISSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.policy.patterns import Grant

ENVIRONMENT = "SANDBOXED_PYTHON_OPTIONS"

# (flag, value's name or "" for a switch, help)
OPTIONS = (
    ("--permission", "", "turn the permission model on: what isn't granted is denied"),
    ("--permission-audit", "", "turn the model on, and deny nothing"),
    ("--permission-log", "FILE|fd:N|-", "write each denial as a line of JSON; - is stderr"),
    ("--policy", "NAME|FILE", "take grants from a preset, or a TOML or JSON file; may be repeated"),
    *[(flag, kind.replace("grace", "duration").upper(), about) for _field, flag, kind, _by, about in LIMITS],
    ("--result", "FILE|fd:N", "write how the job ended and what it used to a file or descriptor, as JSON"),
    ("--progress", "", "show on stderr, if it is a terminal, what the job uses while it runs"),
    ("--allow-entrypoint", "", "let the program read its own script (the default; --no-allow-entrypoint: not)"),
    ("--allow-writable-runtime", "", "accept write grants that cover the interpreter's own files"),
    ("--best-effort", "", "on a kernel that can't enforce everything, run with what it can, and say what is missing"),
    ("--warnings", "", "print warnings about risky grants (the default; --no-warnings: not)"),
    ("--python", "PATH", "run the program with this interpreter"),
    ("--explain", "", "print what will be enforced, and by what, and stop"),
    ("--json", "", "with --explain or --check: as JSON"),
    ("--check", "", "print what this kernel and container can enforce, and stop"),
    ("--version", "", "print the version, and stop"),
    ("--help", "", "print this, and stop"),
)
SWITCHES = frozenset([flag for flag, value, _help in OPTIONS if not value]) | {
    row.flag for row in PERMISSIONS if row.kind == "switch"
}
VALUES = frozenset([flag for flag, value, _help in OPTIONS if value]) | {
    row.flag for row in PERMISSIONS if row.kind == "paths"
}
NEGATABLE = (SWITCHES | {row.flag for row in PERMISSIONS} | BY_OPTION.keys()) - {
    "--explain",
    "--json",
    "--check",
    "--version",
    "--help",
}
# Node ignores a value on a switch; a switch that seems to narrow and doesn't would mislead, so ours refuses it.

# Python's options that take a value, attached or as the next word; the others are letters that can be joined.
PYTHON_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
PYTHON_LETTERS = "bBdEiIOPqsSuvx"
PYTHON_STOP = ("-V", "-VV", "-h", "-?", "--help-env", "--help-xoptions", "--help-all")


class Command(Frozen):
    """A parsed command line.

    Attributes:
        policy: what the options grant (policy files not yet read).
        policies: values of ``--policy``, in order, with their origin.
        target: what to run.
        action: ``"run"``, ``"explain"``, ``"check"``, ``"version"``, ``"help"`` or ``"python"`` (an option of Python's
            that prints something and stops).
        json: print JSON.
        limits: what the options say of ``Policy.limits``: field and value, None where a limit was taken back.
        result: where the result is written, as given; "" for nowhere.
        progress: show the progress.
        log: where denials are written down: a file, ``fd:N`` or ``-``; ``""`` for nowhere.
        no: the flags (without ``no-``) that were taken back on the command line; they win over every source.
        granted_flag: the first flag seen that means nothing without the model, for ERR_MISSING_OPTION.
    """

    policy: Policy
    policies: tuple[str, ...] = ()
    target: Target
    action: str = "run"
    json: bool = False
    limits: tuple[tuple[str, float | None], ...] = ()
    result: str = ""
    progress: bool = False
    log: str = ""
    no: frozenset[str] = frozenset()
    granted_flag: str = ""


class _Parser:
    """Collects options from one or more lists of words."""

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self.read: list[Grant] = []
        self.write: list[Grant] = []
        self.on: dict[str, list[str]] = {}  # flag -> who gave it
        self.no: set[str] = set()
        self.policies: list[str] = []
        self.limits: dict[str, float | None] = {}
        self.result = ""
        self.python_options: list[str] = []
        self.python = ""
        self.log = ""
        self.stop_option = ""

    def take(self, words: list[str], origin: str) -> list[str]:
        """Take options until the target; return the rest."""
        at = 0
        while at < len(words):
            word = words[at]
            if word[:2] == "--" and len(word) > 2:
                at = self._long(words, at, origin)
            elif word[:1] == "-" and word not in ("-", "--") and word[:2] not in ("-c", "-m"):
                at = self._short(words, at, origin)
            else:
                break
        return words[at:]

    def _long(self, words: list[str], at: int, origin: str) -> int:
        word = words[at]
        flag, equals, value = word.partition("=")
        if flag in VALUES:
            if not equals:
                at += 1
                # As in Node, another option isn't taken for the value that was forgotten; after = it is one.
                if at >= len(words) or (words[at][:1] == "-" and (flag, words[at]) != ("--permission-log", "-")):
                    message = f"{_named(flag, origin)} requires an argument"
                    raise UsageError(message)
                value = words[at]
            if not value:
                message = f"{_named(flag, origin)}= requires an argument (an empty value grants nothing)"
                raise UsageError(message)
            self._value(flag, value, origin)
            return at + 1
        if flag in SWITCHES or (flag[:5] == "--no-" and "--" + flag[5:] in NEGATABLE):
            if equals:
                message = f"{_named(flag, origin)} takes no value: {word!r}"
                raise UsageError(message)
            self._switch(flag, origin)
            return at + 1
        if flag in PYTHON_WITH_VALUE:
            return self._python_value(words, at, flag, value if equals else "", origin)
        if word in PYTHON_STOP:
            self.stop_option = word
            return at + 1
        message = f"bad option: {_named(word, origin)}"
        raise UsageError(message)

    def _value(self, flag: str, value: str, origin: str) -> None:
        name = _named(flag, origin)
        if flag == "--policy":
            self.policies.append(value)
        elif flag == "--python":
            self.python = value
        elif flag == "--result":
            self.result = value
        elif flag in BY_OPTION:
            self._limit(flag, value, name)
        elif flag == "--permission-log":
            self.log = value
        else:
            image.load("grants")
            from sandboxed_python.policy.spelling import parse_grant, split_commas

            grants = self.read if BY_FLAG[flag].scope == "fs.read" else self.write
            for text in split_commas(value, name):
                grants.append(parse_grant(text, name, self.cwd, OSLookup))

    def _limit(self, flag: str, value: str, name: str) -> None:
        from sandboxed_python.policy import units

        field, _flag, kind, *_ = BY_OPTION[flag]
        try:
            self.limits[field] = units.parse(kind, value)
        except ValueError as error:
            message = f"{name}: {error}"
            raise UsageError(message) from None

    def _switch(self, flag: str, origin: str) -> None:
        if flag[:5] == "--no-":
            positive = "--" + flag[5:]
            self.no.add(positive)
            self.on.pop(positive, None)
            if positive in BY_OPTION:
                self.limits[BY_OPTION[positive][0]] = None
            elif positive in VALUES:
                (self.read if BY_FLAG[positive].scope == "fs.read" else self.write).clear()
        else:
            self.on.setdefault(flag, []).append(_named(flag, origin))
            self.no.discard(flag)

    def _short(self, words: list[str], at: int, origin: str) -> int:
        word = words[at]
        if word in PYTHON_STOP:
            self.stop_option = word
            return at + 1
        letters = word[1:]
        for index, letter in enumerate(letters):
            if letter in "WX":
                value = letters[index + 1 :]
                return self._python_value(words, at, f"-{letter}", value, origin)
            if letter in "cm" and index:
                # Python takes "-Bc code": split it, so that the target stands alone.
                words[at : at + 1] = [f"-{letter}{letters[index + 1 :]}"]
                return at
            if letter not in PYTHON_LETTERS:
                message = f"bad option: {_named(word, origin)}"
                raise UsageError(message)
            self.python_options.append(f"-{letter}")
        return at + 1

    def _python_value(self, words: list[str], at: int, flag: str, value: str, origin: str) -> int:
        if not value:
            at += 1
            if at >= len(words):
                message = f"{_named(flag, origin)} requires an argument"
                raise UsageError(message)
            value = words[at]
        self.python_options += [flag, value] if flag[:2] == "--" else [flag + value]
        return at + 1


def parse(words: list[str], environment: dict[str, str] | os._Environ[str], cwd: str) -> Command:
    """Parse the command line, and the options in ``SANDBOXED_PYTHON_OPTIONS`` before it.

    Raises:
        UsageError: the message names the option.
        MissingOptionError: ``--allow-*`` without ``--permission``.
    """
    parser = _Parser(cwd)
    extra = environment.get(ENVIRONMENT, "")
    if extra:
        import shlex

        try:
            more = shlex.split(extra)
        except ValueError as error:
            message = f"{ENVIRONMENT}: {error}"
            raise UsageError(message) from error
        rest = parser.take(more, ENVIRONMENT)
        if rest:
            message = f"{ENVIRONMENT} takes options only, not {rest[0]!r}"
            raise UsageError(message)
    rest = parser.take(list(words), "")
    target = _target(rest, parser)
    on = parser.on
    action = next((flag[2:] for flag in ("--help", "--version", "--check", "--explain") if flag in on), "run")
    if parser.stop_option:
        action = "python"
        target = target.replace(python_options=(*parser.python_options, parser.stop_option))
    mode = "enforce" if "--permission" in on else "audit" if "--permission-audit" in on else "off"
    scopes = frozenset([BY_FLAG[flag].scope for flag in on if flag in BY_FLAG])
    policy = Policy(
        mode=mode,
        read=tuple(parser.read),
        write=tuple(parser.write),
        scopes=scopes,
        entrypoint="--allow-entrypoint" not in parser.no,
        best_effort="--best-effort" in on,
        writable_runtime="--allow-writable-runtime" in on,
        warnings="--warnings" not in parser.no,
        limits=Limits(**parser.limits),  # type: ignore[arg-type]  # counts and sizes are parsed to ints
        sources=tuple(name for name, used in ((ENVIRONMENT, extra), ("command line", words)) if used),
        origins=tuple(
            [(BY_FLAG[flag].scope, name) for flag in on if flag in BY_FLAG for name in dict.fromkeys(on[flag])]
        ),
    )
    granted = [row.flag for row in PERMISSIONS if row.flag in on]
    granted = [grant.origin for grant in (*parser.read, *parser.write)][:1] + granted
    granted += [flag for field, flag, *_ in LIMITS if parser.limits.get(field) is not None]
    granted += ["--permission-log"] * bool(parser.log)
    granted += ["--result"] * bool(parser.result) + ["--progress"] * ("--progress" in on)
    return Command(
        policy=policy,
        policies=tuple(parser.policies),
        target=target,
        action=action,
        json="--json" in on,
        limits=tuple(parser.limits.items()),
        result=parser.result,
        progress="--progress" in on,
        log=parser.log,
        no=frozenset(parser.no),
        granted_flag=granted[0] if granted else "",
    )


def complete(command: Command, cwd: str) -> Policy:
    """Read the policy files, and return the policy of all sources together.

    ``--no-allow-X`` and ``--no-permission`` on the command line win over every source, and so do its limits. A file can
    say that it doesn't turn the model on, as Node's configuration can; then another source has to, if anything is
    granted or limited.

    Raises:
        PolicyFileError: the message starts with the file and line.
        MissingOptionError: something is granted, and the model is off.
    """
    policy = command.policy
    if command.policies:
        from sandboxed_python.policy.files import load
        from sandboxed_python.policy.union import union

        others = [load(name, cwd) for name in command.policies]
        if policy.mode == "audit":  # asked for on the command line; a file can only say what is granted
            others = [other.replace(mode="audit") for other in others]
        if command.no:
            others = [_without(other, command.no) for other in others]
        limits = union(others).limits.replace(**dict(command.limits))
        policy = union([*others, policy]).replace(limits=limits)
        if "--permission" in command.no and command.policy.mode == "off":
            policy = policy.replace(mode="off")
    said = policy.read or policy.write or policy.scopes or policy.limits != Limits()
    granted = bool(said) and "--permission" not in command.no
    if policy.mode == "off" and (granted or command.granted_flag):
        message = "--permission is required"
        raise MissingOptionError(message)
    return policy


def _without(policy: Policy, no: frozenset[str]) -> Policy:
    """Return a policy file's policy without what the command line takes back."""
    gone = {BY_FLAG[flag].scope for flag in no if flag in BY_FLAG}
    return policy.replace(
        read=() if "fs.read" in gone else policy.read,
        write=() if "fs.write" in gone else policy.write,
        scopes=policy.scopes - gone,
        origins=tuple([pair for pair in policy.origins if pair[0] not in gone]),
    )


def _target(rest: list[str], parser: _Parser) -> Target:
    options = tuple(parser.python_options)
    if rest[:1] == ["--"]:
        rest = rest[1:]
    kind, value = "stdin", ""
    if rest:
        word = rest[0]
        for letter, name in (("c", "code"), ("m", "module")):
            if word[:2] == f"-{letter}":
                kind, value, rest = name, word[2:], rest[1:]
                if not value:
                    if not rest:
                        message = f"-{letter} requires an argument"
                        raise UsageError(message)
                    value, rest = rest[0], rest[1:]
                break
        else:
            rest = rest[1:]
            if word == "-":
                value = "-"
            else:
                kind, value = ("path" if _is_package(word) else "script"), word
    return Target(kind=kind, value=value, arguments=tuple(rest), python_options=options, python=parser.python)


def _is_package(path: str) -> bool:
    """Tell whether python would run the path's ``__main__``: a directory or a zip file."""
    if os.path.isdir(path):
        return True
    if path.endswith((".py", ".pyc")):
        return False
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 65557))  # a zip ends with its directory: 22 bytes and a comment of at most 65,535
            return b"PK\x05\x06" in file.read()
    except OSError:
        return False


def _named(flag: str, origin: str) -> str:
    return f"{flag} ({origin})" if origin else flag
