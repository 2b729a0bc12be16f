"""What the scopes' cases share: looking at a denial, and running a program as a user would.

Runs in: tests only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.escape.attack import Attacker
    from tests.support import Finished


def program(attacker: Attacker, code: str, *flags: str, **options: object) -> Finished:
    """Run a program under ``--permission`` and these flags alone. HOME, READ, WRITE, SECRET are defined."""
    home = attacker.home
    head = f"READ, WRITE, SECRET = {home + '/read'!r}, {home + '/write'!r}, {home + '/secret'!r}; import os, sys\n"
    return attacker.run([*attacker.command, "--permission", "--no-warnings", *flags, "-c", head + code], **options)


def check_refused(ended: Finished, permission: str, resource: str | None = None) -> None:
    """Check that a program ended by an uncaught denial, with Node's block."""
    assert ended.code == 1, ended.said
    assert "AccessDeniedError: Access to this API has been restricted." in ended.stderr, ended.said
    assert "  code: 'ERR_ACCESS_DENIED',\n" in ended.stderr, ended.said
    assert f"  permission: {permission!r},\n" in ended.stderr, ended.said
    if resource is not None:
        assert f"  resource: {resource!r}\n" in ended.stderr, ended.said


def check_ran(ended: Finished) -> None:
    """Check that a program ended well."""
    assert ended.code == 0, ended.said
