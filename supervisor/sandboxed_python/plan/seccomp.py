"""Compiling the seccomp filters, from the table in ``plan.syscalls`` and the parts that are notified.

Runs in: supervisor, but hardly ever: ``scripts/compile-filters`` compiles what is shipped, ``plan.filters`` loads it,
and only what isn't shipped is compiled at a start. libseccomp compiles, through pyseccomp, whose import alone costs
30 ms.

A policy has up to two filters. The **static** one is the allow-list. The **notifying** one sends chosen calls to the
supervisor and lets all others pass. The kernel takes the strictest answer of all filters (an errno outranks a
notification, a notification outranks letting through), so what the static filter refuses is never notified.

Each filter starts with a few instructions of our own: another architecture is killed; a number from 424 on is decided
here, by equality, with ENOSYS for all that isn't listed (numbers that no table knows, the x32 numbers from 0x40000000
on). So libseccomp only sees numbers that every version of it knows. Jumps are relative, which makes prefixing safe.
"""

from __future__ import annotations

import os
from errno import EACCES, ENOSYS, EPERM

from sandboxed_python.errors import UnsupportedError
from sandboxed_python.kernel import tables, uapi
from sandboxed_python.plan.filters import AUDIT, BASE, EXEC, NO_MAP, NOTIFY, QUIET, SCOPES, notify_variant, variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    from sandboxed_python.plan.syscalls import Check

    Rules = list[tuple[int, str, tuple[Check, ...]]]
    """Action, name of the call, checks that must all hold."""

    Notified = tuple[str, tuple[tuple[int, int, int] | tuple[int, int, int, bool], ...]]
    """Name of the call, and checks that must all hold, as the fields of ``plan.syscalls.Check``: arg, mask, value
    (``args[arg] & mask == value``), and where need be equal."""

    class _Filter(Protocol):
        def set_attr(self, attr: int, value: int) -> None: ...
        def add_arch(self, arch: int) -> None: ...
        def remove_arch(self, arch: int) -> None: ...
        def add_rule_exactly(self, action: int, syscall: int, *args: object) -> None: ...
        def export_bpf(self, file: object) -> None: ...

    class _Library(Protocol):
        """What is used of pyseccomp, which has no types."""

        NE: int
        MASKED_EQ: int
        _libseccomp: Any
        SyscallFilter: Callable[[int], _Filter]
        Arg: Callable[[int, int, int, int], object]
        resolve_syscall: Callable[[int, str], int]
        system_arch: Callable[[], int]


MACHINES = tuple(uapi.AUDIT_ARCH)

# The parts of the notifying filter: which calls go to the supervisor. Rows of one call are alternatives, and a row
# without checks is every such call. What no part names passes this filter. Masks cover only bits that the kernel looks
# at (see plan.syscalls). Calls from number 424 on can't have checks.
_OPEN_FOR_CHANGE = (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_TMPFILE & ~os.O_DIRECTORY)
_MAPPED_CODE = ((2, uapi.PROT_EXEC, uapi.PROT_EXEC), (3, uapi.MAP_ANONYMOUS, 0))
NOTIFY_PARTS: dict[str, tuple[Notified, ...]] = {
    "exec": (("execve", ()), ("execveat", ())),
    "map": (("mmap", _MAPPED_CODE),),
    # fstat(2) by newfstatat's AT_EMPTY_PATH isn't left out: with that flag the kernel still takes a path.
    "stat": (
        *((name, ()) for name in (
            "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
            "statfs",
        )),
        ("open", ((1, uapi.O_PATH, uapi.O_PATH),)),
        ("openat", ((2, uapi.O_PATH, uapi.O_PATH),)),
    ),
    "change": tuple((name, ()) for name in (
        "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat",
        "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "getxattr",
        "lgetxattr", "listxattr", "llistxattr",
        "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset",
    )),
    "names": tuple((name, ()) for name in (
        "mkdir", "mkdirat", "mknod", "mknodat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2",
        "link", "linkat", "symlink", "symlinkat", "truncate",
    )),
    "write": (
        ("creat", ()),
        *(("open", ((1, bit, bit),)) for bit in _OPEN_FOR_CHANGE),
        *(("openat", ((2, bit, bit),)) for bit in _OPEN_FOR_CHANGE),
    ),
    "open": (("creat", ()), ("open", ()), ("openat", ())),
    "unix": (
        ("socket", ((0, 0xFFFFFFFF, uapi.AF_UNIX),)),
        ("connect", ()), ("bind", ()), ("getsockname", ()),
        # The address isn't NULL. The whole register: user addresses have up to 56 bits, and one may have but one set.
        ("sendto", ((4, 0xFFFFFFFFFFFFFFFF, 0, False),)),
    ),
}  # fmt: skip
_ANY_ADDRESS = ((4, 0xFFFFFFFFFFFFFFFF, 0, False),)
_CODE_MEMORY = ((2, uapi.PROT_EXEC, uapi.PROT_EXEC),)
# In audits these go to the supervisor only so; ioctl and prctl as the rules of scopes say.
_AUDITED_IF: dict[str, tuple[tuple[tuple[int, int, int] | tuple[int, int, int, bool], ...], ...]] = {
    "sendto": (_ANY_ADDRESS,), "mmap": (_CODE_MEMORY,), "mprotect": (_CODE_MEMORY,), "pkey_mprotect": (_CODE_MEMORY,),
}  # fmt: skip


def _audited() -> tuple[Notified, ...]:
    """Return what audits see: all of the other parts, what scopes of the static filter open, and what nothing opens."""
    from sandboxed_python.plan.syscalls import CALLS

    names = [name for rows in NOTIFY_PARTS.values() for name, _checks in rows if name != "getsockname"]
    rows_of = dict(_AUDITED_IF)
    for call in CALLS:
        if call.name in ("ioctl", "prctl"):
            rules = [rule.checks for rule in call.rules if rule.scope]
            rows_of[call.name] = tuple(tuple((one.arg, one.mask, one.value) for one in checks) for checks in rules)
    every = dict.fromkeys((*names, "fchmodat2", *tables.AUDITED))
    return tuple((name, checks) for name in every for checks in rows_of.get(name, ((),)))


NOTIFY_PARTS[AUDIT] = _audited()
NOTIFY_PARTS[QUIET] = (("fsetxattr", ()),)
PART_REASONS = {
    QUIET: "only what the program tells the supervisor; the kernel carries out the rest (--permission-log shows more)",
    AUDIT: "nothing is denied: what would have been is noted, and the kernel carries it out",
    "exec": "exactly the first one passes: the supervisor's own, into another interpreter",
    "map": "which file becomes code",
    "stat": "Landlock has no right for metadata; --allow-fs-metadata does without",
    "change": "Landlock has no right for modes, owners, times and attributes",
    "names": "granted names themselves, and prefixes, are no directory that Landlock could be told of",
    "write": "grants of names that Landlock can't be told of: prefixes, and files that don't exist yet",
    "open": "read grants of names that Landlock can't be told of: prefixes, and files that don't exist yet",
    "unix": "a Unix socket's path needs fs.write, and Landlock has no right for it before ABI 9",
}


# What is shipped: every static variant, and every combination of these parts of the notifying filter with "change",
# which every policy has, and with "write", "open" (which contains it) or neither.
SHIPPED_PARTS = ("map", "exec", "stat", "names", "unix")

# Classic BPF (linux/bpf_common.h): code, jump if true, jump if false, k.
_LOAD, _JUMP_EQ, _JUMP_GE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ARCH_OFFSET, _NR_OFFSET = 4, 0

# libseccomp's attributes (enum scmp_filter_attr).
_ACT_BADARCH, _CTL_OPTIMIZE, _BINARY_TREE = 2, 8, 2


def shipped() -> Iterator[str]:
    """Name every filter that is shipped, for each machine of ``MACHINES``."""
    for scopes in _subsets(SCOPES):
        yield variant(scopes)
        if "child" not in scopes:
            yield variant(scopes, exec_way=True)
    for parts in _subsets(SHIPPED_PARTS):
        for opened in ((), ("write",), ("open",)):
            yield notify_variant((*parts, "change", *opened))
    yield NO_MAP
    yield notify_variant((AUDIT,))
    yield notify_variant((QUIET,))


def compile_named(name: str, machine: str) -> bytes:
    """Compile the filter of a name from ``variant`` or ``notify_variant``, or ``NO_MAP``.

    Raises:
        UnsupportedError: see ``compile_static``.
        ValueError: no such scope or part.
    """
    if name.startswith(NOTIFY):
        return compile_notify(name[len(NOTIFY) :].split("+"), machine)
    if name == NO_MAP:
        checks = tuple(_check(*fields) for fields in _MAPPED_CODE)
        return _program(machine, {}, uapi.SECCOMP_RET_ALLOW, uapi.SECCOMP_RET_ALLOW, [(_errno(EACCES), "mmap", checks)])
    scopes = () if name == BASE else name.split("+")
    return compile_static([scope for scope in scopes if scope != EXEC], exec_way=EXEC in scopes, machine=machine)


def compile_static(scopes: Iterable[str], *, exec_way: bool, machine: str) -> bytes:
    """Compile the allow-list for these scopes.

    Args:
        scopes: names out of ``SCOPES``.
        exec_way: see ``variant``.
        machine: a key of ``uapi.AUDIT_ARCH``; any machine can compile for any other.

    Raises:
        UnsupportedError: unknown machine, or libseccomp is not there or refuses.
        ValueError: no such scope.
    """
    from sandboxed_python.plan.syscalls import CALLS

    granted = set(scopes)
    if granted - set(SCOPES):
        message = f"no such scope: {', '.join(sorted(granted - set(SCOPES)))}"
        raise ValueError(message)
    if exec_way:
        granted.add(EXEC)
    rules: Rules = []
    unified: dict[int, int] = {}
    for call in CALLS:
        allowing = call.allowing(granted)
        number = tables.UNIFIED_SYSCALLS.get(call.name)
        if number is not None:
            if allowing:
                unified[number] = _unconditional(call.name, uapi.SECCOMP_RET_ALLOW, *(rule.checks for rule in allowing))
            continue
        if not allowing and call.errno != EPERM:
            rules.append((_errno(call.errno), call.name, ()))
        rules += [(uapi.SECCOMP_RET_ALLOW, call.name, rule.checks) for rule in allowing]
        rules += [(_errno(rule.errno), call.name, rule.checks) for rule in call.refusing(granted)]
    return _program(machine, unified, _errno(ENOSYS), _errno(EPERM), rules)


def compile_notify(parts: Iterable[str], machine: str) -> bytes:
    """Compile the filter that notifies the supervisor of the calls in these parts and lets all others pass.

    Raises:
        UnsupportedError: see ``compile_static``; also if libseccomp doesn't know a call: it would pass unseen.
        ValueError: no such part.
    """
    rules: Rules = []
    unified: dict[int, int] = {}
    parts = set(parts)
    for part in sorted(parts):
        if part not in NOTIFY_PARTS:
            message = f"no such part of the notifying filter: {part!r}"
            raise ValueError(message)
        for name, numbers in NOTIFY_PARTS[part]:
            checks = tuple(_check(*fields) for fields in numbers)
            number = tables.UNIFIED_SYSCALLS.get(name)
            if number is not None:
                unified[number] = _unconditional(name, uapi.SECCOMP_RET_USER_NOTIF, checks)
            else:
                rules.append((uapi.SECCOMP_RET_USER_NOTIF, name, checks))
    passing = uapi.SECCOMP_RET_ALLOW
    unknown = {"foreign": passing, "beyond": passing} if parts & {AUDIT, QUIET} else {}
    return _program(machine, unified, passing, passing, _absorb(rules), **unknown)


def libseccomp_version() -> str:
    """Return the version of the libseccomp that compiles here, e.g. ``"2.5.4"``.

    Raises:
        UnsupportedError: libseccomp is not there.
    """
    import ctypes

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    function = _pyseccomp()._libseccomp.seccomp_version  # noqa: SLF001  not wrapped
    function.argtypes, function.restype = (), ctypes.POINTER(Version)
    version = function().contents
    return f"{version.major}.{version.minor}.{version.micro}"


def _subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for chosen in range(1 << len(names)):
        yield tuple(name for bit, name in enumerate(names) if chosen >> bit & 1)


def _errno(number: int) -> int:
    return uapi.SECCOMP_RET_ERRNO | number


def _unconditional(name: str, action: int, *alternatives: tuple[Check, ...]) -> int:
    """Return the action of a call from number 424 on, whose answer can't depend on its arguments."""
    if all(alternatives):
        message = f"{name}: argument checks are only possible below system call number {tables.UNIFIED_FIRST}"
        raise ValueError(message)
    return action


def _check(arg: int, mask: int, value: int, *equal: bool) -> Check:
    """Make a check of the fields that ``NOTIFY_PARTS`` gives."""
    from sandboxed_python.plan.syscalls import Check

    return Check(arg=arg, mask=mask, value=value, equal=all(equal))


def _absorb(rules: Rules) -> Rules:
    """Drop repetitions, and the rules with checks of a call that has one without (libseccomp refuses both)."""
    whole = {name for _action, name, checks in rules if not checks}
    return list(dict.fromkeys((action, name, () if name in whole else checks) for action, name, checks in rules))


def _pyseccomp() -> _Library:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        message = f"no shipped seccomp filter for this combination, and libseccomp can't be used to compile it: {error}"
        raise UnsupportedError(message) from error
    library: _Library = pyseccomp
    return library


def _prefix(
    machine: str, unified: dict[int, int], otherwise: int, *, foreign: int, beyond: int
) -> list[tuple[int, int, int, int]]:
    """Write the instructions before libseccomp's: architecture, and the numbers from 424 on.

    Args:
        machine: a key of ``uapi.AUDIT_ARCH``.
        unified: number from ``UNIFIED_FIRST`` on -> what it returns; all the same action.
        otherwise: what the other numbers up to ``UNIFIED_LAST`` return.
        foreign: what calls of another architecture return.
        beyond: what numbers above ``UNIFIED_LAST`` return.
    """
    numbers = sorted(unified)
    listed = unified[numbers[0]] if numbers else otherwise
    count = len(numbers)
    block = [
        *((_JUMP_EQ, count - at + 2, 0, number) for at, number in enumerate(numbers)),
        (_JUMP_GE, 0, 1, tables.UNIFIED_LAST + 1),
        (_RETURN, 0, 0, beyond),
        (_RETURN, 0, 0, otherwise),
        (_RETURN, 0, 0, listed),
    ]
    return [
        (_LOAD, 0, 0, _ARCH_OFFSET),
        (_JUMP_EQ, 1, 0, uapi.AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, foreign),
        (_LOAD, 0, 0, _NR_OFFSET),
        (_JUMP_GE, 0, len(block), tables.UNIFIED_FIRST),
        *block,
    ]


def _program(  # noqa: PLR0913
    machine: str,
    unified: dict[int, int],
    unified_default: int,
    default: int,
    rules: Rules,
    *,
    foreign: int = uapi.SECCOMP_RET_KILL_PROCESS,
    beyond: int = uapi.SECCOMP_RET_ERRNO | ENOSYS,
) -> bytes:
    """Compile prefix and rules to raw ``struct sock_filter`` entries.

    Args:
        machine: a key of ``uapi.AUDIT_ARCH``.
        unified: see ``_prefix``.
        unified_default: see ``_prefix``, ``otherwise``.
        default: what a call below number 424 returns that no rule is for.
        rules: for the calls below number 424.
        foreign: see ``_prefix``.
        beyond: see ``_prefix``.
    """
    import struct

    if machine not in uapi.AUDIT_ARCH:
        message = f"no seccomp filters for {machine}: only for {', '.join(MACHINES)}"
        raise UnsupportedError(message)
    library = _pyseccomp()
    arch = uapi.AUDIT_ARCH[machine]
    native = library.system_arch() & 0xFFFFFFFF
    try:
        result = library.SyscallFilter(default)
        result.set_attr(_ACT_BADARCH, uapi.SECCOMP_RET_KILL_PROCESS)
        result.set_attr(_CTL_OPTIMIZE, _BINARY_TREE)
        if arch != native:
            result.add_arch(arch)
            result.remove_arch(native)
        for action, name, checks in rules:
            # A rule is given by the number on this machine, which libseccomp translates. -1: no machine has this name;
            # other negative numbers stand for calls that this machine lacks.
            number = library.resolve_syscall(native, name)
            if number == -1:
                message = f"libseccomp doesn't know {name}"
                raise UnsupportedError(message)
            if library.resolve_syscall(arch, name) >= 0:
                result.add_rule_exactly(action, number, *(_argument(library, check) for check in checks))
        body = _export(result)
    except OSError as error:
        message = f"libseccomp can't compile the filter: {error}"
        raise UnsupportedError(message) from error
    prefix = _prefix(machine, unified, unified_default, foreign=foreign, beyond=beyond)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in prefix) + body


def _argument(library: _Library, check: Check) -> object:
    if not check.equal:
        return library.Arg(check.arg, library.NE, check.value, 0)
    return library.Arg(check.arg, library.MASKED_EQ, check.mask, check.value)


def _export(result: _Filter) -> bytes:
    """Return libseccomp's program; it writes only to a descriptor."""
    descriptor = os.memfd_create("filter")
    with open(descriptor, "r+b", 0) as file:
        result.export_bpf(file)
        file.seek(0)
        return file.read()
