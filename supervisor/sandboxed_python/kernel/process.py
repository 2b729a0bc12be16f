"""One process: capabilities, no_new_privs, resource limits, parent-death signal.

Runs in: both. Sources: capabilities(7), prctl(2), setrlimit(2).
"""

from __future__ import annotations

import errno
import os
import sys

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import uapi
from sandboxed_python.kernel.calls import Block, address_of, bytes_at, overwrite, prctl, syscall

# What root keeps: file work, its own ids, its own processes, low ports. Everything else can undo a sandbox.
KEPT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETUID", "SETGID", "SETPCAP", "NET_BIND_SERVICE", "IPC_LOCK",
)  # fmt: skip


def capability_mask(names: tuple[str, ...]) -> int:
    """Return the bits of the named capabilities (without ``CAP_``)."""
    return sum(1 << uapi.CAPABILITIES.index(name) for name in names)


def _header() -> bytes:
    return uapi.LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)


def get_capabilities() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable sets of this process as bit masks (capget(2))."""
    data = Block(24)
    syscall("capget", _header(), data.pointer)
    words = [int.from_bytes(data.data[at : at + 4], "little") for at in range(0, 24, 4)]
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def cut_capabilities(keep: int) -> None:
    """Give up every capability that is not in ``keep``, for good: bounding, ambient, inheritable, permitted, effective.

    A process that holds none has nothing to give up; its bounding set stays, and no_new_privs makes it worthless.
    Without the effect of KILL, SETUID goes, too: nobody could end what has become another user.

    Raises:
        KernelError: the kernel refused.
    """
    effective, permitted, inheritable = get_capabilities()
    if not permitted and not inheritable:
        return
    if not effective & keep & capability_mask(("KILL",)):
        keep &= ~capability_mask(("SETUID",))
    if effective & capability_mask(("SETPCAP",)):
        number = 0
        while True:
            if not keep >> number & 1:
                try:
                    prctl(uapi.PR_CAPBSET_DROP, number)
                except KernelError as error:
                    if error.errno == errno.EINVAL:  # past the last capability that this kernel has
                        break
                    raise
            number += 1
    prctl(uapi.PR_CAP_AMBIENT, uapi.PR_CAP_AMBIENT_CLEAR_ALL)
    set_capabilities(effective & keep, permitted & keep, 0)


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capability sets of this thread alone (capset(2)).

    Raises:
        KernelError: the kernel refused.
    """
    sets = (effective, permitted, inheritable)
    data = b"".join((mask & 0xFFFFFFFF).to_bytes(4, "little") for mask in sets)
    data += b"".join((mask >> 32).to_bytes(4, "little") for mask in sets)
    syscall("capset", _header(), data)


def set_no_new_privs() -> None:
    """Make set-id programs and file capabilities worthless for this process and all it starts, for good."""
    prctl(uapi.PR_SET_NO_NEW_PRIVS, 1)


def stop_core_dumps() -> None:
    """Set the limit of core files to 0, for this process and all it starts; each may raise it again (setrlimit(2)).

    Raises:
        KernelError: the kernel refused.
    """
    limits = Block(16)  # struct rlimit64: soft, hard
    syscall("prlimit64", 0, uapi.RLIMIT_CORE, None, limits.pointer)
    syscall("prlimit64", 0, uapi.RLIMIT_CORE, bytes(8) + bytes(limits.data[8:]), None)


def die_with_parent(parent: int, signal_number: int) -> bool:
    """Ask for ``signal_number`` when the parent ends (PR_SET_PDEATHSIG).

    Returns:
        False when the parent, whose pid is ``parent``, has ended already: nobody would send the signal.
    """
    prctl(uapi.PR_SET_PDEATHSIG, signal_number)
    return os.getppid() == parent


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (PR_SET_CHILD_SUBREAPER)."""
    prctl(uapi.PR_SET_CHILD_SUBREAPER, 1)


def children() -> list[int]:
    """Return the pids of this process's children, zombies too; none where they can't be listed.

    As /proc numbers them (proc_pid_children(5)): where that is mounted for another pid namespace, they mean others.
    """
    found: list[int] = []
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:  # no /proc, or no descriptor left
        return found
    for task in tasks:
        try:
            with open(f"/proc/self/task/{task}/children", "rb", 0) as file:
                found += [int(pid) for pid in (file.readall() or b"").split()]
        except OSError:  # a thread that has ended meanwhile, or CONFIG_PROC_CHILDREN is off
            continue
    return found


def state(pid: int) -> bytes:
    """Return the state of a process as proc_pid_stat(5) has it, ``b"T"`` for a stopped one; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return (file.readall() or b"").rpartition(b") ")[2][:1]
    except OSError:
        return b""


def count_filters(pid: int) -> int:
    """Return how many seccomp filters a process has (proc_pid_status(5), Linux 5.9), 0 if that can't be read."""
    try:
        with open(f"/proc/{pid}/status", "rb", 0) as file:
            return int((file.readall() or b"").partition(b"\nSeccomp_filters:")[2].split()[0])
    except (OSError, IndexError):
        return 0


def set_name(name: str) -> None:
    """Set what ps(1) calls the command of this process: 15 bytes of ``name``. Its arguments stay (PR_SET_NAME)."""
    block = Block(name.encode()[:15].ljust(16, b"\0"))
    prctl(uapi.PR_SET_NAME, block.address)


def set_title(title: str) -> None:
    """Show this process as ``title`` in ps(1), by its name and instead of its arguments.

    Raises:
        OSError: /proc can't be read.
    """
    set_name(title)
    set_arguments([title])


def set_arguments(words: list[str]) -> None:
    """Show these arguments in ps(1), as far as there is room in the memory of those that this process was started with.

    Raises:
        OSError: /proc can't be read, and libc doesn't tell where that memory is.
    """
    now = b"".join([os.fsencode(word) + b"\0" for word in sys.orig_argv])
    size = len(now)
    pointer = address_of("program_invocation_name")  # to argv[0]; program_invocation_name(3)
    start = int.from_bytes(bytes_at(pointer, 8), "little") if pointer else 0
    if not size or not start or bytes_at(start, size) != now:
        with open("/proc/self/stat", "rb", 0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)
        size = end - start
    text = b"\0".join([os.fsencode(word) for word in words])
    overwrite(start, text[: size - 1].ljust(size, b"\0"))


def lower_limit(name: str, value: int) -> None:
    """Set a resource limit of this process and what it starts, for good, unless it is lower already (setrlimit(2)).

    Args:
        name: as ``resource`` has it, e.g. ``"RLIMIT_NOFILE"``.
        value: in its unit.

    Raises:
        OSError: the kernel refused.
    """
    import resource

    number = getattr(resource, name)
    soft, hard = [value if old == resource.RLIM_INFINITY else min(value, old) for old in resource.getrlimit(number)]
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error
