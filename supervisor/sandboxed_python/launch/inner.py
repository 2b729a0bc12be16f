"""A sandbox in a sandbox: this command, started by a program that another one of it confines.

Runs in: both: the command and its child, which are confined already.

The kernel has one listener for a tree of filters, and no confined task can make Landlock rulesets. So the child asks
the supervisor around it, over the wire: for a ruleset of its own policy, and to be judged by it besides. It can be
granted no more than what is around it has: every layer has to allow what is done. There is no second supervisor then;
what this process does is to pass on signals and the exit code.
"""

from __future__ import annotations

import marshal
import os

from sandboxed_python.errors import KernelError, LaunchError, UnsupportedError
from sandboxed_python.kernel.wire import ask, say
from sandboxed_python.launch.confine import resource_limits
from sandboxed_python.plan.build import notify_parts
from sandboxed_python.plan.filters import NO_MAP, load
from sandboxed_python.plan.seccomp import PART_REASONS
from sandboxed_python.policy.model import Policy
from sandboxed_python.policy.narrow import covered, narrowed
from sandboxed_python.record import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.kernel.probe import Support
    from sandboxed_python.plan.model import PathRule, Plan
    from sandboxed_python.policy.patterns import Grant


class Outer:
    """The sandbox around this process.

    Attributes:
        policy: what it grants here.
        parts: which calls its supervisor is asked about.
        abi: the Landlock ABI that it uses.
    """

    def __init__(self) -> None:
        """Ask its supervisor.

        Raises:
            KernelError: it doesn't answer.
        """
        self.policy = Policy.from_data(marshal.loads(ask(wire.WIRE, wire.POLICY)))
        facts = marshal.loads(ask(wire.WIRE, wire.FACTS))
        self.parts: tuple[str, ...] = tuple(facts["parts"])
        self.abi: int = facts["abi"]

    def support(self, found: Support) -> Support:
        """Return what can be done here: Landlock doesn't answer to confined tasks, but its supervisor uses it."""
        return found.replace(landlock=self.abi, landlock_error="")

    def check(self, policy: Policy) -> None:
        """See whether a policy of this kind can be one within this sandbox at all.

        Raises:
            UnsupportedError: one of the two enforces and the other only watches, or both do that.
        """
        watches, wanted = self.policy.mode != "enforce", policy.mode
        if wanted == "enforce" and watches:
            message = "the sandbox around this one only watches (--permission-audit): nothing can be enforced in it"
            raise UnsupportedError(message)
        if wanted == "audit":
            message = "the sandbox around this one watches already, by its own grants: no other one can in it"
            if not watches:
                message = "the sandbox around this one enforces, so nothing can be only watched in it"
            message = f"--permission-audit: {message}"
            raise UnsupportedError(message)

    def fit(self, plan: Plan) -> Plan:
        """Return the plan within this sandbox; its policy has passed ``check``.

        Raises:
            UnsupportedError: the supervisor isn't asked about what this plan needs, and ``--best-effort`` wasn't given.
        """
        inside = narrowed(self.policy, plan.policy)
        if plan.way == "exec" and not inside.granted("child"):
            message = (
                "in another sandbox, Python's own options, --python and PYTHON* variables take --allow-child-process "
                "(both there and here): the interpreter has to be started anew"
            )
            raise UnsupportedError(message)
        missing = [f"{part}: {PART_REASONS[part]}" for part in self._unasked(plan, inside)]
        if missing and not inside.best_effort:
            message = (
                "the sandbox around this one doesn't ask its supervisor about what this policy needs. "
                f"Missing: {'; '.join(missing)}. --best-effort runs without what is missing"
            )
            raise UnsupportedError(message)
        return plan.replace(policy=inside, notify_parts=self.parts, missing=(*plan.missing, *missing), inner=True)

    def _unasked(self, plan: Plan, inside: Policy) -> list[str]:
        """Return the parts of the notifying filter that are needed and not there."""
        outer = self.policy
        asked = plan.policy
        # What is granted in part, or not at all, is asked about where it has to be: for the grants around it.
        both = inside.replace(
            read=covered(_explicit(asked.read), outer.read),
            write=covered(_explicit(asked.write), _explicit(outer.write)),
        )
        needed = set(notify_parts(both, mapped=not inside.granted("addon"), fork=True)) - set(self.parts)
        if not inside.granted("child") and plan.way == "fork":
            needed.discard("map")  # no file is mapped as code at all then: see Prepared
        if "open" in self.parts:
            needed.discard("write")
        return sorted(needed)


def _explicit(grants: tuple[Grant, ...]) -> list[Grant]:
    return [grant for grant in grants if not grant.implicit]


class Prepared:
    """What is made ready before the fork; as ``launch.confine.Prepared``.

    Attributes:
        ruleset: descriptor of the Landlock ruleset.
        rules: none: what Landlock was told is the outer supervisor's to know.
        static_filters: the static filters' programs.
        notify_filter: none.
        resource_limits: names and values of the resource limits.
    """

    def __init__(self, plan: Plan) -> None:
        """Ask for the ruleset and read the filters.

        Raises:
            LaunchError: the supervisor refused; the message says why.
        """
        self.rules: tuple[PathRule, ...] = ()
        self.notify_filter = b""
        self.resource_limits = resource_limits(plan)
        names = [plan.static_filter]
        if "map" not in plan.notify_parts and not plan.policy.granted("addon"):
            names.append(NO_MAP)
            _load_own()
        self.static_filters = tuple([load(name, plan.machine) for name in names])
        self._message = wire.narrowing(plan.policy.to_data(), inner=True)
        try:
            self.ruleset = say(wire.WIRE, wire.RULESET, self._message)
        except KernelError as error:
            message = f"the sandbox around this one: {error}"
            raise LaunchError(message) from error

    def close(self) -> None:
        """Close the ruleset, in the supervisor."""
        os.close(self.ruleset)

    def finish(self) -> None:
        """Have the supervisor judge this process by its own policy, too.

        Raises:
            KernelError: it refused.
        """
        say(wire.WIRE, wire.NARROW, self._message)


def _load_own() -> None:
    """Load the interpreter's own extension modules, as long as files may be mapped as code."""
    import sys

    from sandboxed_python.child.libraries import preload

    preload(next((path for path in sys.path if path.endswith("/lib-dynload")), ""))
