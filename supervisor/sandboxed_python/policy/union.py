"""The union of policies: several sources, one policy. Pure.

Runs in: supervisor.
"""

from __future__ import annotations

from sandboxed_python.policy.limits import strictest
from sandboxed_python.policy.model import Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxed_python.policy.patterns import Grant


def union(policies: Iterable[Policy]) -> Policy:
    """Return the policy that grants what any of the given ones grants.

    Enforcing wins over auditing, auditing over off. Of the options, the ones that were moved from their default win; of
    the limits, the strictest.
    """
    every = list(policies)
    modes = [policy.mode for policy in every]
    return Policy(
        mode="enforce" if "enforce" in modes else "audit" if "audit" in modes else "off",
        read=_merge([policy.read for policy in every]),
        write=_merge([policy.write for policy in every]),
        scopes=frozenset().union(*[policy.scopes for policy in every]),
        entrypoint=all(policy.entrypoint for policy in every),
        best_effort=any(policy.best_effort for policy in every),
        writable_runtime=any(policy.writable_runtime for policy in every),
        warnings=all(policy.warnings for policy in every),
        limits=strictest([policy.limits for policy in every]),
        protected=tuple(dict.fromkeys([path for policy in every for path in policy.protected])),
        sources=tuple(dict.fromkeys([name for policy in every for name in policy.sources])),
        origins=tuple(dict.fromkeys([pair for policy in every for pair in policy.origins])),
    )


def _merge(lists: list[tuple[Grant, ...]]) -> tuple[Grant, ...]:
    return tuple(dict.fromkeys([grant for grants in lists for grant in grants]))
