"""The judgement: the one place where a policy is asked whether something may be done.

Runs in: both. The broker, the audit hook, ``has()``, learning and the tests all ask here, so they can't disagree.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen
from sandboxed_python.policy.table import BY_SCOPE, FS_FLAG, FS_NAME, FS_SCOPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant


class Request(Frozen):
    """Something a program wants to do.

    Attributes:
        scope: the permission it needs, e.g. ``"fs.read"``.
        path: for the file-system scopes the place, absolute, links resolved by the caller; None asks for all of it.
        resource: the place, address or program in the caller's own spelling.
        metadata: with ``"fs.read"``: only stat, access or readlink is wanted, which is open above the grants, too.
    """

    scope: str
    path: str | None = None
    resource: str = ""
    metadata: bool = False


class Verdict(Frozen):
    """The answer to a request.

    Attributes:
        allowed: whether the policy grants it. In audit mode this tells what enforcing would answer.
        permission: Node's name of the permission, ``""`` for an unknown scope.
        flag: the option that would grant it.
        resource: as in the request.
        path: as in the request: the resolved place to act on.
    """

    allowed: bool
    permission: str
    flag: str
    resource: str
    path: str | None


def decide(policy: Policy, request: Request) -> Verdict:
    """Judge a request. With the mode ``"off"`` everything is allowed; an unknown scope never is otherwise."""
    scope = request.scope
    path = request.path
    allowed = _allows(policy, scope, path) or (
        request.metadata and scope == "fs.read" and path is not None and policy.statable(path)
    )
    row = BY_SCOPE.get(scope)
    if row is not None:
        name, flag = row.name, row.flag
    else:
        name, flag = (FS_NAME, FS_FLAG) if scope == FS_SCOPE else ("", "")
    return Verdict(allowed=allowed, permission=name, flag=flag, resource=request.resource, path=path)


def has(policy: Policy, scope: str, path: str | None = None, given: str | bool | None = None) -> bool:  # noqa: FBT001
    """Answer ``sys.permission.has(scope, reference)`` (Node: ``process.permission.has``).

    Args:
        policy: the policy.
        scope: a scope's name; an unknown one is False.
        path: the reference of a file-system scope, absolute, links resolved; None without a reference.
        given: the reference as the caller spelled it; None without one. An empty one is False for every scope.
    """
    if policy.mode == "off":
        return True
    if path == "" or given == "":
        return False
    return _allows(policy, scope, path)


def _allows(policy: Policy, scope: str, path: str | None) -> bool:
    """Tell whether a scope is granted: without a path, a file-system scope only by a literal ``*``."""
    if policy.mode == "off":
        return True
    if scope == "fs.read":
        return policy.reads_all if path is None else policy.readable(path)
    if scope == "fs.write":
        return policy.writes_all if path is None else policy.writable(path)
    if scope == FS_SCOPE:
        return policy.reads_all and policy.writes_all
    if scope == "fs.metadata" and path is not None:
        return policy.statable(path)
    return policy.granted(scope)


def drop(policy: Policy, scope: str, target: Grant | None = None) -> Policy:
    """Return the policy without a permission (Node: ``process.permission.drop``).

    Args:
        policy: the policy.
        scope: a scope's name, ``"fs"`` for both trees; an unknown one changes nothing.
        target: the reference made a grant by ``parse_grant`` now; None drops the whole scope. Only the very same grant
            is dropped; under ``*``, and for a reference inside, above or beside the grants, nothing changes.

    What is granted without a flag stays, since the interpreter can't run without it. ``addon`` goes with ``ffi``: who
    may load native code can call what it likes.
    """
    if scope in ("fs.read", "fs.write", FS_SCOPE):
        changes = {}
        if scope != "fs.write":
            changes["read"] = _without(policy.read, target)
        if scope != "fs.read":
            changes["write"] = _without(policy.write, target)
        return policy.replace(**changes)
    if scope not in BY_SCOPE:
        return policy
    gone = {scope, "addon"} if scope == "ffi" else {scope}
    return policy.replace(scopes=policy.scopes - gone)


def _without(grants: tuple[Grant, ...], target: Grant | None) -> tuple[Grant, ...]:
    """Return the grants without the dropped one and those that were said after it and lie within it."""
    if target is None:
        return tuple([grant for grant in grants if grant.implicit])
    if target.kind == "all" or any(grant.kind == "all" for grant in grants):
        return grants
    told: list[Grant] = []
    for grant in grants:
        if grant.implicit or not any(earlier.covers(grant) for earlier in told if not earlier.implicit):
            told.append(grant)
    same = [grant for grant in told if not grant.implicit and _same(grant, target)]
    return tuple([grant for grant in told if grant not in same]) if same else grants


def _same(one: Grant, other: Grant) -> bool:
    return one.kind == other.kind and one.paths[0] == other.paths[0]
