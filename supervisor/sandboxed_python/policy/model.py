"""The policy: what the user granted, in the user's words.

Runs in: both. Frozen, and plain data both ways (``to_data``, ``from_data``), so that the child gets the very policy
that the supervisor enforces.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen
from sandboxed_python.policy.limits import Limits
from sandboxed_python.policy.patterns import Grant, Matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import cached_property
    from typing import Any
else:

    class cached_property:  # noqa: N801
        """Stand in for ``functools.cached_property``, whose module isn't loaded at start-up."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            """Keep the function."""
            self.function = function
            self.__doc__ = function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            """Learn the name to store the value under."""
            self.name = name

        def __get__(self, instance: object, owner: type | None = None) -> object:
            """Compute once; the instance's own dictionary answers afterwards."""
            if instance is None:
                return self
            value = instance.__dict__[self.name] = self.function(instance)
            return value


# Trees of the kernel's own files, which a write grant of "everything" leaves out: /proc/self/mem patches any code, and
# /sys and /dev change the machine. Terminals and the null device stay.
KERNEL_TREES = ("/proc", "/sys", "/dev")
OPEN_DEVICES = frozenset(("/dev/null", "/dev/tty"))
OPEN_TERMINALS = "/dev/pts/"


class Policy(Frozen):
    """What is granted.

    Attributes:
        mode: ``"off"``, ``"enforce"`` or ``"audit"``.
        read: grants of fs.read.
        write: grants of fs.write.
        scopes: granted switches, by scope, e.g. ``{"net", "worker"}``.
        entrypoint: the entry script is readable without a flag.
        best_effort: enforce what this kernel can, and say what is missing, rather than refuse.
        writable_runtime: a write grant may cover the interpreter's and the supervisor's own files.
        warnings: print the warnings of the permission table.
        limits: what the job may use.
        protected: further trees that a write grant of everything leaves out (/proc, /sys and /dev always are).
        sources: where the policy came from: policy files, the environment, the command line.
        origins: who granted the switches, as pairs of a scope and what an error would call the place; a scope that
            several sources grant is there several times, one that was taken back may still be there.
        within: a policy that has to grant the same besides: of the sandbox that this one is in, or before something
            was dropped. The fields of this one alone say nothing about it; the methods do.
    """

    mode: str = "enforce"
    read: tuple[Grant, ...] = ()
    write: tuple[Grant, ...] = ()
    scopes: frozenset[str] = frozenset()
    entrypoint: bool = True
    best_effort: bool = False
    writable_runtime: bool = False
    warnings: bool = True
    limits: Limits = Limits()
    protected: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()
    within: Policy | None = None

    @property
    def layers(self) -> tuple[Policy, ...]:
        """This policy and those that it is within, innermost first."""
        return (self,) if self.within is None else (self, *self.within.layers)

    @cached_property
    def reader(self) -> Matcher:
        """Return the read grants, compiled."""
        return Matcher(self.read)

    @cached_property
    def writer(self) -> Matcher:
        """Return the write grants, compiled, without regard to protected trees: ask ``writable``."""
        return Matcher(self.write)

    @cached_property
    def _narrow(self) -> Matcher:
        return Matcher([grant for grant in self.write if not is_broad(grant)])

    @cached_property
    def _broad(self) -> Matcher:
        return Matcher([grant for grant in self.write if is_broad(grant)])

    @cached_property
    def _kept_out(self) -> Matcher:
        return Matcher([Grant(text=path, paths=(path,)) for path in (*KERNEL_TREES, *self.protected)])

    def readable(self, path: str) -> bool:
        """Tell whether the path (absolute, links resolved) may be read."""
        return self.reader.matches(path) and (self.within is None or self.within.readable(path))

    def writable(self, path: str) -> bool:
        """Tell whether the path (absolute, links resolved) may be written.

        Grants that reach a protected tree only because they cover nearly everything (``*``, ``/``, ``/p*``) leave it
        out.
        """
        if not self._narrow.matches(path) and not (
            self._broad.matches(path)
            and (not self._kept_out.matches(path) or path in OPEN_DEVICES or path.startswith(OPEN_TERMINALS))
        ):
            return False
        return self.within is None or self.within.writable(path)

    def statable(self, path: str) -> bool:
        """Tell whether the path may be asked for metadata: readable, or above a grant, or fs.metadata is granted."""
        return (
            self.reader.matches(path)
            or self.reader.above(path)
            or self.writer.above(path)
            or "fs.metadata" in self.scopes
        ) and (self.within is None or self.within.statable(path))

    @property
    def reads_all(self) -> bool:
        """Tell whether everything may be read: by a literal ``*``."""
        return all(layer.reader.all for layer in self.layers)

    @property
    def writes_all(self) -> bool:
        """Tell whether everything may be written: by a literal ``*``."""
        return all(layer.writer.all for layer in self.layers)

    @cached_property
    def metadata_open(self) -> bool:
        """Tell whether every path may be asked for metadata, so that nobody need be asked."""
        return all(
            "fs.metadata" in layer.scopes or "all" in [grant.kind for grant in layer.read] for layer in self.layers
        )

    def granted(self, scope: str) -> bool:
        """Tell whether a switch is granted. ``addon`` implies ``ffi``: native code can call what it likes."""
        return (scope in self.scopes or (scope == "ffi" and "addon" in self.scopes)) and (
            self.within is None or self.within.granted(scope)
        )

    def origins_of(self, scope: str) -> tuple[str, ...]:
        """Return who granted a switch, as far as it is known."""
        return tuple([origin for name, origin in self.origins if name == scope])

    def to_data(self) -> dict[str, Any]:
        """Return the policy as dicts, lists, strings and bools, for JSON or marshal."""
        data = self.as_dict()
        data["read"] = [_grant_to_data(grant) for grant in self.read]
        data["write"] = [_grant_to_data(grant) for grant in self.write]
        data["scopes"] = sorted(self.scopes)
        data["limits"] = {name: value for name, value in self.limits.as_dict().items() if value is not None}
        data["protected"] = list(self.protected)
        data["sources"] = list(self.sources)
        data["origins"] = [list(pair) for pair in self.origins]
        if self.within is None:
            del data["within"]
        else:
            data["within"] = self.within.to_data()
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Policy:
        """Return the policy that ``to_data`` was called on.

        Raises:
            TypeError: a name in it isn't one of the policy's.
            ValueError: a grant in it hasn't the fields of one.
        """
        values = dict(data)
        values["read"] = tuple([_grant_from_data(row) for row in data["read"]])
        values["write"] = tuple([_grant_from_data(row) for row in data["write"]])
        values["scopes"] = frozenset(data["scopes"])
        values["limits"] = Limits(**data["limits"])
        values["protected"] = tuple(data["protected"])
        values["sources"] = tuple(data["sources"])
        values["origins"] = tuple([(scope, origin) for scope, origin in data["origins"]])
        values["within"] = cls.from_data(data["within"]) if data.get("within") else None
        return cls(**values)


def is_broad(grant: Grant) -> bool:
    """Tell whether a write grant covers a kernel tree from outside (``*``, ``/``, ``/p*``) rather than naming it."""
    heads = grant.prefixes
    return bool(heads) and any(tree.startswith(heads) for tree in KERNEL_TREES)


def _grant_to_data(grant: Grant) -> list[Any]:
    return [grant.text, grant.kind, list(grant.paths), grant.origin, grant.implicit, grant.reason]


def _grant_from_data(row: list[Any]) -> Grant:
    text, kind, paths, origin, implicit, reason = row
    return Grant(text=text, kind=kind, paths=tuple(paths), origin=origin, implicit=implicit, reason=reason)
