"""``--explain``: the plan in words, and as JSON.

Runs in: supervisor.
"""

from __future__ import annotations

from sandboxed_python.kernel import landlock, uapi
from sandboxed_python.policy.limits import GRACE, LIMITS, Limits
from sandboxed_python.policy.table import PERMISSIONS, warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxed_python.plan.model import Plan
    from sandboxed_python.policy.patterns import Grant


def as_json(plan: Plan) -> str:
    """Return the plan as JSON text; ``Plan.from_data(json.loads(text))`` gives it back."""
    import json

    return json.dumps(plan.to_data(), indent=2)


INSIDE = [
    "only what the sandbox around this one grants as well is granted here, whatever is said below",
    "its supervisor answers; orphans and what else is left at the end are its, too",
]


def as_text(plan: Plan) -> str:
    """Return the plan for someone who has never seen this project."""
    parts = [] if not plan.inner else [_section("Inside another sandbox", INSIDE)]
    denied = (
        "Denied" if plan.policy.mode == "enforce" else "Denied when it is enforced (--permission-audit only notes it)"
    )
    parts += [
        _section("What will run", _target(plan)),
        _section("Granted by you", _granted(plan)),
        _section("Granted without a flag (the program must be able to be a Python)", _implicit(plan)),
        _section(denied, _denied(plan)),
        _section("How it is enforced", _mechanisms(plan)),
    ]
    limits = _limits(plan)
    if limits:
        parts.insert(-1, _section("Limited", limits))
    warned = warnings(plan.policy.granted)
    if warned:
        parts.append(_section("Warnings", warned))
    if plan.missing:
        parts.append(_section("NOT enforced on this kernel (--best-effort)", list(plan.missing)))
    return "\n".join(parts)


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([title, *[f"  {line}" for line in lines or ["nothing"]], ""])


def _target(plan: Plan) -> list[str]:
    target = plan.target
    name = {"module": "-m ", "code": "-c "}.get(target.kind, "") + (target.value or "standard input")
    if plan.way == "fork":
        return [f"{name}, in a fork of the supervisor's interpreter"]
    return [f"{name}, in {' '.join([target.python, *target.python_options])}, which is started already confined"]


def _grant_line(scope: str, grant: Grant) -> str:
    what = {"all": "everything", "tree": "the tree", "prefix": "every name that starts with", "path": "the file"}
    where = grant.paths[0] if grant.paths else ""
    return f"{scope:<9} {what[grant.kind]} {where}".rstrip() + _by([grant.origin])


def _by(origins: Iterable[str]) -> str:
    """Say at the end of a line who granted it."""
    known = ", ".join([origin for origin in origins if origin])
    return f"   ({known})" if known else ""


def _granted(plan: Plan) -> list[str]:
    policy = plan.policy
    lines = [_grant_line("fs.read", grant) for grant in policy.read if not grant.implicit]
    lines += [_grant_line("fs.write", grant) for grant in policy.write if not grant.implicit]
    for row in PERMISSIONS:
        if row.scope in policy.scopes:
            lines.append(f"{row.scope:<9} {row.gates}{_by(policy.origins_of(row.scope))}")
    return lines


def _implicit(plan: Plan) -> list[str]:
    policy = plan.policy
    rows: dict[tuple[str, str], list[str]] = {}
    for scope, grants in (("fs.read", policy.read), ("fs.write", policy.write)):
        for grant in grants:
            if grant.implicit:
                rows.setdefault((scope, grant.reason), []).append(grant.paths[0])
    return [f"{scope:<9} {reason}: {', '.join(dict.fromkeys(paths))}" for (scope, reason), paths in rows.items()]


def _denied(plan: Plan) -> list[str]:
    policy = plan.policy
    lines = []
    for row in PERMISSIONS:
        if row.kind == "paths":
            grants = policy.read if row.scope == "fs.read" else policy.write
            if not any(grant.kind == "all" for grant in grants):
                lines.append(f"{row.scope:<11} everywhere else; {row.flag}=PATH allows more")
        elif not policy.granted(row.scope):
            lines.append(f"{row.scope:<11} {row.gates}; {row.flag} allows it")
    return lines


def _limits(plan: Plan) -> list[str]:
    limits = plan.policy.limits
    if limits == Limits():
        return []
    from sandboxed_python.policy.units import words

    grace = words("grace", GRACE if limits.grace is None else limits.grace)
    lines = []
    for field, flag, kind, mechanism, _about in LIMITS:
        value = getattr(limits, field)
        if value is not None and mechanism:
            how = mechanism + (_group(plan) if field == "memory" else "")
            lines.append(f"{field.replace('_', ' '):<11} {words(kind, value)}: {how}   ({flag})")
    return [line.replace("--grace", f"--grace={grace}") for line in lines]


def _group(plan: Plan) -> str:
    """Say what the kernel does about the limit on memory."""
    if plan.cgroup:
        return f"; the kernel holds it, too, by a control group below {plan.cgroup}"
    return f"; no control group: {plan.no_cgroup}" if plan.no_cgroup else ""


def _mechanisms(plan: Plan) -> list[str]:
    lines = []
    if plan.policy.mode == "audit":
        lines.append("not at all: what would be denied is told to the program (permission.subscribe) and to the log")
    if plan.abi:
        rights = ", ".join(landlock.names(plan.ruleset.fs))
        lines.append(f"Landlock (ABI {plan.abi}): {len(plan.rules)} rules; denied unless a rule allows it: {rights}")
        if plan.ruleset.net:
            lines.append(f"Landlock: no TCP port: {', '.join(landlock.names(plan.ruleset.net, landlock.NET_RIGHTS))}")
        scoped = ", ".join(landlock.names(plan.ruleset.scoped, landlock.SCOPES))
        lines.append(f"Landlock: may not reach outside the sandbox: {scoped}")
        lines += [f"  {rule.path}: {_rights(rule.rights & plan.ruleset.fs)}" for rule in plan.rules]
    if plan.static_filter:
        lines.append(
            f"seccomp filter {plan.static_filter!r} for {plan.machine}: an allow-list of system calls and arguments; "
            "the rest fails with EPERM, or ENOSYS where libc has another way"
        )
    from sandboxed_python.plan.seccomp import NOTIFY_PARTS, PART_REASONS

    for part in plan.notify_parts:
        calls = ", ".join(dict.fromkeys(name for name, _checks in NOTIFY_PARTS[part]))
        lines.append(f"seccomp notification, answered by the supervisor: {calls}: {PART_REASONS[part]}")
    if plan.fstat_passes:
        lines.append(
            "of these, libc's fstat(descriptor) passes: it makes it by newfstatat with an empty path, which is sealed"
        )
    lines.append("no_new_privs: set-id programs gain nothing")
    if plan.policy.mode == "audit":
        lines.append("descriptors other than 0, 1 and 2 are closed")
        lines.append("an audit hook in the program tells what Python code does")
        return lines
    kept = [name for number, name in enumerate(uapi.CAPABILITIES) if plan.keep_capabilities >> number & 1]
    lines.append(f"capabilities, when root: only {', '.join(kept)} of {len(uapi.CAPABILITIES)} are kept")
    lines.append("descriptors other than 0, 1 and 2 are closed; LD_* variables are removed")
    lines.append("an audit hook in the program words the errors; it is not relied upon")
    return lines


def _rights(mask: int) -> str:
    """Word a bit mask: whole groups by their name, single rights by theirs."""
    words = []
    for name, group in (("read", landlock.READ), ("write", landlock.WRITE), ("execute", landlock.EXECUTE)):
        if mask & group == group:
            words.append(name)
            mask &= ~group
    return ", ".join([*words, *landlock.names(mask)])
