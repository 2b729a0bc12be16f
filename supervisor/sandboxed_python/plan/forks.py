"""What goes before the notifying filter when processes are counted: each new one is notified, too.

Runs in: supervisor. Loaded only with ``--limit-processes``. No other filter knows these calls, so that this one needn't
be compiled with each of them: it is a few instructions that return, or run on into what follows.
"""

from __future__ import annotations

from sandboxed_python.kernel import uapi

# x86-64, aarch64. clone3 is answered with ENOSYS.
FORKS: dict[str, tuple[int | None, int | None]] = {"clone": (56, 220), "fork": (57, None), "vfork": (58, None)}

# Instructions of linux/bpf_common.h, and where struct seccomp_data has its fields (linux/seccomp.h).
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # of the argument the low half: where clone has its flags, also on aarch64


def numbers(machine: str) -> list[int]:
    """Return the numbers of the calls that make a process.

    Args:
        machine: a key of ``uapi.AUDIT_ARCH``.
    """
    column = tuple(uapi.AUDIT_ARCH).index(machine)
    return [number for row in FORKS.values() if (number := row[column]) is not None]


def counting(program: bytes, machine: str) -> bytes:
    """Return a notifying filter that notifies new processes besides; threads pass to what it was.

    Args:
        program: raw ``struct sock_filter`` entries.
        machine: a key of ``uapi.AUDIT_ARCH``.
    """
    clone, *others = numbers(machine)
    notify = (_RETURN, 0, 0, uapi.SECCOMP_RET_USER_NOTIF)
    rows = [
        (_EQUAL, 0, 2, clone),  # no: skip two
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, len(others) + 1, len(others), uapi.CLONE_THREAD),  # a thread: past the return; else to it
        *[(_EQUAL, len(others) - 1 - at, 0 if at < len(others) - 1 else 1, number) for at, number in enumerate(others)],
        notify,
    ]
    if not others:
        rows[0] = (_EQUAL, 0, 3, clone)
    head = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 0, len(rows) + 1, uapi.AUDIT_ARCH[machine]), (_LOAD, 0, 0, _NR)]
    return b"".join([_packed(*row) for row in (*head, *rows)]) + program


def _packed(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + value.to_bytes(4, "little")
