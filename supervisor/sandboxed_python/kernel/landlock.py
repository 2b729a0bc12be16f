"""Landlock: the rights of each ABI as one table, a pure downgrade, and the three system calls.

Runs in: both (the tables: supervisor; the calls: child). Source: Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

from sandboxed_python.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# (name, bit, first ABI, what it governs). Bits of ``handled_access_fs``.
FS_RIGHTS = (
    ("EXECUTE", 1 << 0, 1, "execute a file"),
    ("WRITE_FILE", 1 << 1, 1, "open a file for writing"),
    ("READ_FILE", 1 << 2, 1, "open a file for reading"),
    ("READ_DIR", 1 << 3, 1, "list a directory"),
    ("REMOVE_DIR", 1 << 4, 1, "remove an empty directory, or rename one"),
    ("REMOVE_FILE", 1 << 5, 1, "unlink a file, or rename one"),
    ("MAKE_CHAR", 1 << 6, 1, "create a character device"),
    ("MAKE_DIR", 1 << 7, 1, "create a directory"),
    ("MAKE_REG", 1 << 8, 1, "create a regular file"),
    ("MAKE_SOCK", 1 << 9, 1, "create a Unix socket"),
    ("MAKE_FIFO", 1 << 10, 1, "create a named pipe"),
    ("MAKE_BLOCK", 1 << 11, 1, "create a block device"),
    ("MAKE_SYM", 1 << 12, 1, "create a symbolic link"),
    ("REFER", 1 << 13, 2, "link or rename between directories"),
    ("TRUNCATE", 1 << 14, 3, "truncate a file"),
    ("IOCTL_DEV", 1 << 15, 5, "device ioctls"),
    ("RESOLVE_UNIX", 1 << 16, 9, "connect to a Unix socket by its path"),
)
# Bits of ``handled_access_net``.
NET_RIGHTS = (
    ("BIND_TCP", 1 << 0, 4, "bind a TCP port"),
    ("CONNECT_TCP", 1 << 1, 4, "connect to a TCP port"),
)
# Bits of ``scoped``.
SCOPES = (
    ("ABSTRACT_UNIX_SOCKET", 1 << 0, 6, "connect to an abstract Unix socket from outside"),
    ("SIGNAL", 1 << 1, 6, "signal a process outside the sandbox"),
)
HIGHEST_ABI = 9
MAX_LAYERS = 16

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_SYM, REFER = 1 << 9, 1 << 10, 1 << 12, 1 << 13
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
# Device nodes are missing on purpose: no grant lets a program make one.
WRITE = (
    WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
)
# The rights that a rule on something other than a directory may have (landlock_add_rule(2): EINVAL otherwise).
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV | (1 << 16)


class Ruleset(Frozen):
    """What landlock_create_ruleset(2) handles: three bit masks.

    Attributes:
        fs: rights that are denied unless a rule allows them.
        net: likewise for TCP ports.
        scoped: what may not leave the sandbox.
    """

    fs: int = 0
    net: int = 0
    scoped: int = 0


def _mask(table: Iterable[tuple[str, int, int, str]], abi: int) -> int:
    mask = 0
    for _name, bit, since, _what in table:
        if since <= abi:
            mask |= bit
    return mask


def full(abi: int) -> Ruleset:
    """Return everything that Landlock ABI ``abi`` can handle."""
    return Ruleset(fs=_mask(FS_RIGHTS, abi), net=_mask(NET_RIGHTS, abi), scoped=_mask(SCOPES, abi))


def names(mask: int, table: tuple[tuple[str, int, int, str], ...] = FS_RIGHTS) -> list[str]:
    """Return the names of the bits of ``mask``, in the table's order."""
    return [name for name, bit, _since, _what in table if mask & bit]


def downgrade(wanted: Ruleset, abi: int) -> tuple[Ruleset, list[str]]:
    """Cut ``wanted`` down to what ABI ``abi`` knows.

    Returns:
        What can be handled, and for each part that can't, ``NAME (ABI n): what it governs``.
    """
    can = full(abi)
    missing = [
        f"{name} (ABI {since}): {what}"
        for asked, table in ((wanted.fs, FS_RIGHTS), (wanted.net, NET_RIGHTS), (wanted.scoped, SCOPES))
        for name, bit, since, what in table
        if asked & bit and since > abi
    ]
    return Ruleset(fs=wanted.fs & can.fs, net=wanted.net & can.net, scoped=wanted.scoped & can.scoped), missing


def pack_ruleset(ruleset: Ruleset, abi: int) -> bytes:
    """Return ``struct landlock_ruleset_attr`` as the ABI knows it (8 bytes to ABI 3, 16 to ABI 5, 24 from ABI 6)."""
    words = (ruleset.fs,) if abi < 4 else (ruleset.fs, ruleset.net) if abi < 6 else (
        ruleset.fs, ruleset.net, ruleset.scoped,
    )  # fmt: skip
    return b"".join(word.to_bytes(8, "little") for word in words)


def pack_path_rule(rights: int, descriptor: int) -> bytes:
    """Return ``struct landlock_path_beneath_attr`` (packed: u64 allowed_access, s32 parent_fd)."""
    return rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little", signed=True)


def pack_port_rule(rights: int, port: int) -> bytes:
    """Return ``struct landlock_net_port_attr`` (u64 allowed_access, u64 port)."""
    return rights.to_bytes(8, "little") + port.to_bytes(8, "little")
