"""What is told of a denial: the message that subscribers get, and the hook's report over the wire.

Runs in: both, and only where somebody subscribed or a log is kept.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen
from sandboxed_python.policy.table import FS_FLAG, FS_NAME, PERMISSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = {**{row.name: row.flag for row in PERMISSIONS}, FS_NAME: FS_FLAG}
"""Name of a permission -> the flag that would grant it."""

ASKED = "permission.has"
"""The event of a report that nothing was denied: the program has asked, and was told no."""


class Message(Frozen):
    """What a subscriber of ``permission.subscribe`` gets (Node: diagnostics channels ``node:permission-model:*``).

    Attributes:
        permission: Node's name of the permission, e.g. ``"FileSystemRead"``.
        resource: what was asked for, in the caller's own spelling; ``""`` where there is none.
        drop: the permission was given up; nothing was denied.
    """

    permission: str
    resource: str = ""
    drop: bool = False


class Report(Frozen):
    """A denial as the hook tells it to the supervisor: the program's own word.

    Attributes:
        permission: as in ``Message``.
        resource: as in ``Message``.
        path: where the resource leads, links resolved; None for what is no path.
        event: the audit event, or the name of the function, e.g. ``"os.stat"``.
        file: the program's source file that asked; ``""`` if it isn't known.
        line: the line there; 0 if it isn't known.
    """

    permission: str
    resource: str = ""
    path: str | None = None
    event: str = ""
    file: str = ""
    line: int = 0

    @classmethod
    def from_data(cls, data: Any) -> Report:
        """Check what came over the wire.

        Raises:
            ValueError: it is no report.
        """
        if not isinstance(data, dict) or not data.keys() <= _TYPES.keys():
            raise ValueError
        if any(type(value) not in _TYPES[name] for name, value in data.items()):
            raise ValueError
        if data.get("permission") not in FLAGS or not 0 <= data.get("line", 0) < _LINES:
            raise ValueError
        return cls(**data)


_LINES = 1 << 31
_TYPES: dict[str, tuple[type, ...]] = {
    "permission": (str,),
    "resource": (str,),
    "path": (str, type(None)),
    "event": (str,),
    "file": (str,),
    "line": (int,),
}
_PLAIN = frozenset(range(0x20, 0x7F)) - {ord('"'), ord("\\")}


def quote(text: str) -> str:
    """Return a text in JSON. Importing ``json`` would cost milliseconds, and be seen by the program."""
    pairs = text.encode("utf-16-be", "surrogatepass")
    units = [int.from_bytes(pairs[at : at + 2], "big") for at in range(0, len(pairs), 2)]
    escaped = [chr(unit) if unit in _PLAIN else "\\u" + f"{unit:04x}" for unit in units]
    return '"' + "".join(escaped) + '"'
