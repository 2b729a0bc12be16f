"""How paths are spelled in flags and policy files: lists with commas, and ``*``. The documented rule of Node.js.

Runs in: both.
"""

from __future__ import annotations

from sandboxed_python.policy.patterns import Grant, literal_grant, refuse_empty, refuse_nul, spellings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.policy.patterns import Lookup


def split_commas(value: str, origin: str = "") -> list[str]:
    r"""Split a flag's value at its commas; ``\,`` is a literal comma, any other backslash is itself.

    Raises:
        UsageError: the value or a part of it is empty, or it holds a NUL. The message names ``origin``.
    """
    refuse_nul(value, origin)
    if "," not in value:
        parts = [value]
    elif "\\," not in value:
        parts = value.split(",")
    else:
        # No path holds a NUL, so it can stand for the literal comma meanwhile.
        parts = [part.replace("\0", ",") for part in value.replace("\\,", "\0").split(",")]
    for part in parts:
        if not part:
            refuse_empty(origin)
    return parts


def parse_grant(text: str, origin: str, cwd: str, lookup: Lookup) -> Grant:
    """Make a grant of one path as a flag or a policy file gives it.

    ``*`` is everything; a ``*`` elsewhere makes a prefix of what stands before the first one (``dir/*`` is the tree of
    ``dir``, also while it doesn't exist); an existing directory is its tree; anything else is that path alone. Links
    are resolved, for a prefix those of its directory part.

    Raises:
        UsageError: the text is empty or holds a NUL. The message names ``origin``.
    """
    if not text:
        refuse_empty(origin)
    if text == "*":
        return Grant(text=text, kind="all", origin=origin)
    if "*" in text:
        folder, head = _split_star(text)
        if head is not None:
            refuse_nul(text, origin)
            folders = spellings(folder, cwd, lookup)
            if not head:
                return Grant(text=text, kind="tree", paths=folders, origin=origin)
            paths = tuple([f"/{head}" if path == "/" else f"{path}/{head}" for path in folders])
            return Grant(text=text, kind="prefix", paths=paths, origin=origin)
        return literal_grant(folder, origin, cwd, lookup).replace(text=text)
    return literal_grant(text, origin, cwd, lookup)


def _split_star(text: str) -> tuple[str, str | None]:
    """Split at the first ``*`` that no later ``..`` takes away: (folder, start of the name), or (path, None)."""
    names = text.split("/")
    first = next(index for index, name in enumerate(names) if "*" in name)
    kept: list[str] = []
    ups: list[str] = []
    for name in names[first:]:
        if name == "..":
            if kept:
                kept.pop()
            else:
                ups.append(name)
        elif name and name != ".":
            kept.append(name)
    folder = [*names[:first], *ups]
    head = None
    for name in kept:
        if "*" in name:
            head = name[: name.index("*")]
            break
        folder.append(name)
    return "/".join(folder) or ("/" if text[0] == "/" else "."), head
