"""The plan: what the kernel will be told. Frozen, plain data, JSON both ways.

Runs in: supervisor.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen
from sandboxed_python.kernel.landlock import Ruleset
from sandboxed_python.policy.model import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Target(Frozen):
    """What to run.

    Attributes:
        kind: ``"script"``, ``"module"``, ``"code"``, ``"stdin"`` or ``"path"`` (a directory or zip with ``__main__``).
        value: the script, module, code or path, as given; ``"-"`` or "" for stdin.
        arguments: the program's own.
        python_options: Python's options, in order, as given.
        python: the interpreter to exec, or "" to run in a fork of the supervisor's own.
    """

    kind: str = "stdin"
    value: str = ""
    arguments: tuple[str, ...] = ()
    python_options: tuple[str, ...] = ()
    python: str = ""

    @property
    def words(self) -> list[str]:
        """Return the target and the program's arguments as plain python takes them."""
        what = {"module": ["-m", self.value], "code": ["-c", self.value]}.get(self.kind)
        return [*(what or ([self.value] if self.value else [])), *self.arguments]


class PathRule(Frozen):
    """One Landlock rule.

    Attributes:
        path: what it is tied to.
        rights: bit mask of ``kernel.landlock.FS_RIGHTS``.
        optional: the path need not exist (a row of the implicit table).
    """

    path: str
    rights: int
    optional: bool = False


class MapGate(Frozen):
    """Which files may be mapped executable (asked by a seccomp notification, see ``broker.gate``).

    Attributes:
        trees: folders whose files may be mapped.
        files: further files, by name.
        banned: name parts of paths that may not, although they lie in a tree.
        open_to: path parts that lift the ban: WASM runtimes with ``--allow-wasi``.
        written: other names of what may be written, which may not be mapped, with all below (bind mounts).
        begun: what such names start with.
    """

    trees: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    open_to: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()


class Plan(Frozen):
    """Everything that confining and starting the child takes.

    Attributes:
        policy: the effective policy: what the user granted and what comes without a flag. The hook decides by it.
        target: what to run.
        way: ``"fork"`` (of the running interpreter) or ``"exec"`` (of another one).
        abi: the Landlock ABI planned for; 0: no Landlock (only with ``--best-effort``).
        ruleset: what Landlock handles.
        rules: the Landlock rules.
        static_filter: name of the static seccomp filter; "": none (only with ``--best-effort``).
        notify_parts: names of the notifying filter's parts; empty: no broker.
        fstat_passes: libc's fstat() isn't notified where it is a newfstatat(2) (``kernel.fstat``).
        map_gate: which files may be mapped executable; None: no gate.
        unset: names of environment variables that the child does not get.
        keep_capabilities: bit mask of the capabilities that root keeps; -1: all, and nobody loses any.
        missing: what was asked and can't be enforced here (only with ``--best-effort``).
        machine: the architecture that the filters are for.
        inner: another sandbox is around this one (``launch.inner``): its supervisor answers.
        cgroup: folder below which the job gets a control group that limits its memory, or "".
        no_cgroup: why it gets none, where its memory is limited; else "".
    """

    policy: Policy
    target: Target
    way: str
    abi: int
    ruleset: Ruleset
    rules: tuple[PathRule, ...]
    static_filter: str
    notify_parts: tuple[str, ...]
    fstat_passes: bool
    map_gate: MapGate | None
    unset: tuple[str, ...]
    keep_capabilities: int
    missing: tuple[str, ...]
    machine: str
    inner: bool = False
    cgroup: str = ""
    no_cgroup: str = ""

    @property
    def guarded(self) -> bool:
        """Tell whether the kernel itself refuses metadata of what isn't granted."""
        return "stat" in self.notify_parts

    def to_data(self) -> dict[str, Any]:
        """Return the plan as dicts, lists, strings, numbers and bools."""
        data = self.as_dict()
        data["policy"] = self.policy.to_data()
        data["target"] = _plain(self.target)
        data["ruleset"] = self.ruleset.as_dict()
        data["rules"] = [[rule.path, rule.rights, rule.optional] for rule in self.rules]
        data["notify_parts"] = list(self.notify_parts)
        data["unset"] = list(self.unset)
        data["map_gate"] = None if self.map_gate is None else _plain(self.map_gate)
        data["missing"] = list(self.missing)
        for name in ("inner", "cgroup", "no_cgroup"):
            if not data[name]:
                del data[name]
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Plan:
        """Return the plan that ``to_data`` was called on.

        Raises:
            TypeError: a name in it isn't one of the plan's.
        """
        values = dict(data)
        values["policy"] = Policy.from_data(data["policy"])
        values["target"] = Target(**_frozen(data["target"]))
        values["ruleset"] = Ruleset(**data["ruleset"])
        values["rules"] = tuple([PathRule(path=p, rights=r, optional=o) for p, r, o in data["rules"]])
        values["notify_parts"] = tuple(data["notify_parts"])
        values["unset"] = tuple(data["unset"])
        gate = data["map_gate"]
        values["map_gate"] = None if gate is None else MapGate(**_frozen(gate))
        values["missing"] = tuple(data["missing"])
        return cls(**values)


def _plain(record: Frozen) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in record.as_dict().items()}


def _frozen(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
