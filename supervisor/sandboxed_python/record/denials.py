"""Counting what was denied, by permission.

Runs in: supervisor. Loaded only when somebody wants to know: for a result or the progress.
"""

from __future__ import annotations

from sandboxed_python.policy.table import BY_SCOPE

# What a place may lack (``broker.judge``) -> scope.
SCOPES = {"read": "fs.read", "write": "fs.write", "stat": "fs.read"}


class Denials:
    """How often each permission was denied.

    Attributes:
        counts: name of a permission, as in ``AccessDeniedError.permission`` -> how often.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._last: object = None

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def add(self, permission: str, call: object = None) -> None:
        """Count one.

        Args:
            permission: its name.
            call: what was denied; the same call is counted once. None: count in any case.
        """
        if call is None or call is not self._last:
            self.counts[permission] = self.counts.get(permission, 0) + 1
        self._last = call

    def seen(self, request: object, need: str, _path: str | None) -> None:
        """Count what the broker denies, or would have; for ``Context.on_denied``."""
        row = BY_SCOPE.get(SCOPES.get(need, need))
        if row is not None:  # what no permission grants isn't counted
            self.add(row.name, request)
