"""The table of system calls: what the static filter lets through, under which scope, with which arguments, and why.

Runs in: supervisor. Only the compiler of the filters (``plan.seccomp``), ``--explain``, the documentation and the tests
import this module; a normal start loads a compiled filter and never sees it.

How to read a row:

- A call passes if **any** of its rules holds: the rule's scope is granted (``""`` needs no grant) and all of its checks
  hold. A rule without checks holds always.
- A call without a rule that holds answers the errno of the first refusing rule whose checks hold, else the row's errno.
- A check compares ``args[arg] & mask`` with ``value``. Masks cover only the bits that the kernel looks at: it takes an
  ``int`` or ``unsigned int`` from the low half of the register and ignores the rest, so a check of the whole register
  could be walked around with garbage in the high half (``TIOCSTI | 1 << 32``).
- A call that has no row answers EPERM, ENOSYS from number 424 on (see ``tables.UNIFIED_FIRST``): every call from there
  is younger than 2019, and a libc or a program that knows it also knows kernels without it.

A scope never takes away what the table gives without it: a larger grant gives a superset.

Sources: the man pages of section 2, ``include/uapi``, and the kernel's definitions of the calls.
"""

from __future__ import annotations

from errno import EACCES, ENOSYS, EPERM

from sandboxed_python.frozen import Frozen
from sandboxed_python.kernel import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable

INT = 0xFFFFFFFF
REGISTER = 0xFFFFFFFFFFFFFFFF


class Check(Frozen):
    """``args[arg] & mask == value``; with ``equal=False`` the opposite, and then of the whole register.

    Attributes:
        arg: index of the argument, 0 to 5.
        mask: the bits looked at.
        value: what they must be.
        equal: False turns the check round; only with ``mask == REGISTER`` (libseccomp has no masked "not equal").
    """

    arg: int
    mask: int
    value: int
    equal: bool = True

    def holds(self, args: tuple[int, ...]) -> bool:
        """Tell whether the check holds for six argument registers (unsigned 64-bit numbers)."""
        return (args[self.arg] & self.mask == self.value) is self.equal


class Rule(Frozen):
    """One way in which a call passes or, with an errno, is refused otherwise than by the row's errno.

    Attributes:
        scope: the grant that opens it, one of ``plan.filters.SCOPES`` or ``"exec"``; ``""`` needs none.
        checks: all must hold.
        errno: 0 lets the call through; a number refuses with it what no other rule lets through.
        reason: what this way is for, where the row's reason doesn't say it.
    """

    scope: str = ""
    checks: tuple[Check, ...] = ()
    errno: int = 0
    reason: str = ""

    def holds(self, args: tuple[int, ...]) -> bool:
        """Tell whether all checks hold for six argument registers."""
        return all(check.holds(args) for check in self.checks)


class Call(Frozen):
    """One row of the table.

    Attributes:
        name: the kernel's name of the call.
        reason: why it is let through, or why not.
        rules: see the module's docstring; none means never.
        errno: what a refused call answers.
    """

    name: str
    reason: str
    rules: tuple[Rule, ...] = ()
    errno: int = EPERM

    def allowing(self, granted: Container[str]) -> tuple[Rule, ...]:
        """Return the rules that may let the call through under these scopes; one alone if it has no checks."""
        rules = tuple(rule for rule in self.rules if not rule.errno and (not rule.scope or rule.scope in granted))
        return next(((rule,) for rule in rules if not rule.checks), rules)

    def refusing(self, granted: Container[str]) -> tuple[Rule, ...]:
        """Return the rules that give a refusal an errno of its own, none where the call always passes."""
        if any(not rule.checks for rule in self.allowing(granted)):
            return ()
        return tuple(rule for rule in self.rules if rule.errno)


def is_(arg: int, value: int) -> Check:
    """Check that an ``int`` argument is this value."""
    return Check(arg=arg, mask=INT, value=value)


def has(arg: int, bits: int) -> Check:
    """Check that all of these bits are set in an argument."""
    return Check(arg=arg, mask=bits, value=bits)


def lacks(arg: int, bits: int) -> Check:
    """Check that none of these bits is set in an argument."""
    return Check(arg=arg, mask=bits, value=0)


def bits(arg: int, mask: int, value: int) -> Check:
    """Check that the masked bits of an argument are this value."""
    return Check(arg=arg, mask=mask, value=value)


def only(arg: int, allowed: int) -> Check:
    """Check that an ``int`` of flags has no other bits than these."""
    return Check(arg=arg, mask=INT & ~allowed, value=0)


def null(arg: int) -> Check:
    """Check that a pointer is NULL."""
    return Check(arg=arg, mask=REGISTER, value=0)


def _not_locks(arg: int) -> tuple[tuple[Check, ...], ...]:
    """Return alternatives that hold for every number of a limit but that of RLIMIT_LOCKS (libseccomp has no masked !=).

    Limits are numbered from 0 to 15; the kernel refuses others.
    """
    return tuple((bits(arg, bit, ~uapi.RLIMIT_LOCKS & bit),) for bit in (1, 2, 4, 8))


_MARK = "any limit but RLIMIT_LOCKS, which has no effect: the supervisor's mark of what a process has given up"


def _free(name: str, reason: str) -> Call:
    return Call(name=name, reason=reason, rules=(Rule(),))


def _with(scope: str, name: str, reason: str) -> Call:
    return Call(name=name, reason=reason, rules=(Rule(scope=scope),))


def _if(name: str, *checks: Check, reason: str, errno: int = EPERM) -> Call:
    return Call(name=name, reason=reason, rules=(Rule(checks=checks),), errno=errno)


def _never(name: str, reason: str, errno: int = EPERM) -> Call:
    return Call(name=name, reason=reason, errno=errno)


def _opening(flags: int) -> tuple[Rule, ...]:
    """Return the rules of open(2), given which argument its flags are; the mode is the next one."""
    making = uapi.O_CREAT | uapi.O_TMPFILE_BIT
    either = (uapi.O_WRONLY, uapi.O_RDWR)  # both are access mode 3
    return (
        *[Rule(checks=(lacks(flags, bit | making),)) for bit in either],
        *[Rule(checks=(lacks(flags, bit), lacks(flags + 1, uapi.S_ISUGID))) for bit in either],
        Rule(checks=(has(flags, uapi.O_WRONLY | uapi.O_RDWR),), errno=EACCES),
    )


def _by_command(name: str, arg: int, commands: Iterable[tuple[int, str, str]], reason: str) -> Call:
    """Make the row of a call that is many calls by a command number: rows of (command, scope, name)."""
    rules = tuple(Rule(scope=scope, checks=(is_(arg, number),), reason=word) for number, scope, word in commands)
    return Call(name=name, reason=reason, rules=rules)


# --- Calls by command number ------------------------------------------------------------------------------------------

# ioctl(2): (command, scope, what). Compared by the low 32 bits, for the kernel takes an unsigned int.
# Not here, and so never: TIOCSTI and TIOCLINUX (type into the terminal that outlives the sandbox), TIOCSETD (loads line
# disciplines, a source of kernel holes), TIOCCONS, TIOCEXCL (locks others out of the terminal), the console's KD* and
# VT_*, FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR (change a file by a descriptor open for reading), BLK*, SG_IO, TUN*, the
# setting half of SIOC*, SIOCETHTOOL (a pointer decides), and every device's own.
IOCTLS = (
    (0x5401, "", "TCGETS: isatty, termios"),
    (0x5402, "", "TCSETS: termios"),
    (0x5403, "", "TCSETSW: termios"),
    (0x5404, "", "TCSETSF: termios"),
    (0x5405, "", "TCGETA: termios, old form"),
    (0x5406, "", "TCSETA: termios, old form"),
    (0x5407, "", "TCSETAW: termios, old form"),
    (0x5408, "", "TCSETAF: termios, old form"),
    (0x5409, "", "TCSBRK: tcsendbreak, tcdrain"),
    (0x540A, "", "TCXONC: tcflow"),
    (0x540B, "", "TCFLSH: tcflush"),
    (0x540E, "", "TIOCSCTTY: pty.fork, os.login_tty; stealing a terminal needs a capability that is cut"),
    (0x540F, "", "TIOCGPGRP: tcgetpgrp"),
    (
        0x5410,
        "child",
        "TIOCSPGRP: tcsetpgrp, within the own session; whoever puts others into the background stops them",
    ),
    (0x5411, "", "TIOCOUTQ, SIOCOUTQ: bytes not yet sent"),
    (0x5413, "", "TIOCGWINSZ: os.get_terminal_size"),
    (0x5414, "", "TIOCSWINSZ: the size of a terminal the process has"),
    (0x5415, "", "TIOCMGET: modem lines of a granted serial port"),
    (0x5416, "", "TIOCMBIS: the same"),
    (0x5417, "", "TIOCMBIC: the same"),
    (0x5418, "", "TIOCMSET: the same"),
    (0x541B, "", "FIONREAD, TIOCINQ, SIOCINQ: bytes that wait"),
    (0x5420, "", "TIOCPKT: packet mode of an own pseudo-terminal"),
    (0x5421, "", "FIONBIO: os.set_blocking"),
    (0x5422, "", "TIOCNOTTY: give up the terminal"),
    (0x5425, "", "TCSBRKP: tcsendbreak"),
    (0x5427, "", "TIOCSBRK: break on a granted serial port"),
    (0x5428, "", "TIOCCBRK: the same"),
    (0x5429, "", "TIOCGSID: tcgetsid"),
    (0x802C542A, "", "TCGETS2: termios with free speeds (isatty in new libcs)"),
    (0x402C542B, "", "TCSETS2: the same"),
    (0x402C542C, "", "TCSETSW2: the same"),
    (0x402C542D, "", "TCSETSF2: the same"),
    (0x5441, "", "TIOCGPTPEER: os.openpty; Landlock checks the opening of the other end"),
    (0x5450, "", "FIONCLEX: inherit a descriptor"),
    (0x5451, "", "FIOCLEX: os.set_inheritable"),
    (0x40045431, "", "TIOCSPTLCK: unlockpt"),
    (0x80045430, "", "TIOCGPTN: ptsname"),
    (0x40049409, "", "FICLONE: cp, a copy between two open files"),
    (0x4020940D, "", "FICLONERANGE: the same for a part"),
    (0x8905, "net", "SIOCATMARK: out-of-band data"),
    (0x8910, "net", "SIOCGIFNAME: socket.if_indextoname"),
    (0x8912, "net", "SIOCGIFCONF: list the interfaces"),
    (0x8913, "net", "SIOCGIFFLAGS: read an interface"),
    (0x8915, "net", "SIOCGIFADDR: read an interface"),
    (0x8917, "net", "SIOCGIFDSTADDR: read an interface"),
    (0x8919, "net", "SIOCGIFBRDADDR: read an interface"),
    (0x891B, "net", "SIOCGIFNETMASK: read an interface"),
    (0x8921, "net", "SIOCGIFMTU: read an interface"),
    (0x8927, "net", "SIOCGIFHWADDR: read an interface (uuid.getnode)"),
    (0x8933, "net", "SIOCGIFINDEX: socket.if_nametoindex"),
)

# fcntl(2): (command, scope, what). Not here: F_NOTIFY (dnotify tells of changes in directories), F_SETLEASE and
# F_GETLEASE (a lease makes other programs wait up to 45 seconds when they open the file).
FCNTLS = (
    (0, "", "F_DUPFD"),
    (1, "", "F_GETFD"),
    (2, "", "F_SETFD"),
    (3, "", "F_GETFL"),
    (4, "", "F_SETFL"),
    (5, "", "F_GETLK"),
    (6, "", "F_SETLK"),
    (7, "", "F_SETLKW"),
    (8, "", "F_SETOWN: where SIGIO goes is inside Landlock's signal scope"),
    (9, "", "F_GETOWN"),
    (10, "", "F_SETSIG: the signal of F_SETOWN"),
    (11, "", "F_GETSIG"),
    (15, "", "F_SETOWN_EX: as F_SETOWN"),
    (16, "", "F_GETOWN_EX"),
    (36, "", "F_OFD_GETLK"),
    (37, "", "F_OFD_SETLK"),
    (38, "", "F_OFD_SETLKW"),
    (1027, "", "F_DUPFD_QUERY: same file?"),
    (1030, "", "F_DUPFD_CLOEXEC"),
    (1031, "", "F_SETPIPE_SZ"),
    (1032, "", "F_GETPIPE_SZ"),
    (1033, "", "F_ADD_SEALS: only takes away"),
    (1034, "", "F_GET_SEALS"),
    (1035, "", "F_GET_RW_HINT"),
    (1036, "", "F_SET_RW_HINT"),
    (1037, "", "F_GET_FILE_RW_HINT"),
    (1038, "", "F_SET_FILE_RW_HINT"),
)

# prctl(2): (option, scope, what); those with a further argument to check follow in the row itself. Not here, and so
# never: PR_SET_MM (rewrites where the kernel shows the program's arguments), PR_SET_PTRACER (opens the process to
# tracers outside), PR_SET_SECUREBITS and PR_SET_KEEPCAPS (capabilities across changes of user),
# PR_SET_SPECULATION_CTRL (could switch off protections), PR_SCHED_CORE (takes a pid), PR_SET_SYSCALL_USER_DISPATCH,
# PR_TASK_PERF_EVENTS_*, PR_SET_IO_FLUSHER, PR_SET_TSC.
PRCTLS = (
    (2, "", "PR_GET_PDEATHSIG"),
    (3, "", "PR_GET_DUMPABLE"),
    (7, "", "PR_GET_KEEPCAPS"),
    (15, "", "PR_SET_NAME: thread names"),
    (16, "", "PR_GET_NAME"),
    (21, "", "PR_GET_SECCOMP"),
    (23, "", "PR_CAPBSET_READ"),
    (24, "", "PR_CAPBSET_DROP: only takes away"),
    (27, "", "PR_GET_SECUREBITS"),
    (29, "", "PR_SET_TIMERSLACK: of the own thread"),
    (30, "", "PR_GET_TIMERSLACK"),
    (36, "child", "PR_SET_CHILD_SUBREAPER: orphans stay below the job, where the supervisor still finds and ends them"),
    (37, "", "PR_GET_CHILD_SUBREAPER"),
    (38, "", "PR_SET_NO_NEW_PRIVS: is on already and can't be taken back"),
    (39, "", "PR_GET_NO_NEW_PRIVS"),
    (41, "", "PR_SET_THP_DISABLE: huge pages of the own memory (allocators)"),
    (42, "", "PR_GET_THP_DISABLE"),
    (50, "", "PR_SVE_SET_VL: arm64 vector length of the own thread"),
    (51, "", "PR_SVE_GET_VL"),
    (52, "", "PR_GET_SPECULATION_CTRL"),
    (54, "", "PR_PAC_RESET_KEYS: arm64, own keys"),
    (55, "", "PR_SET_TAGGED_ADDR_CTRL: arm64, own addresses (libc with memory tagging)"),
    (56, "", "PR_GET_TAGGED_ADDR_CTRL"),
    (61, "", "PR_PAC_GET_ENABLED_KEYS: arm64"),
    (63, "", "PR_SME_SET_VL: arm64, own thread"),
    (64, "", "PR_SME_GET_VL"),
    (65, "", "PR_SET_MDWE: only takes away"),
    (66, "", "PR_GET_MDWE"),
    (74, "", "PR_GET_SHADOW_STACK_STATUS"),
    (75, "", "PR_SET_SHADOW_STACK_STATUS: a protection of the own thread"),
    (76, "", "PR_LOCK_SHADOW_STACK_STATUS"),
)

# arch_prctl(2), x86-64: (option, scope, what). Not here: ARCH_MAP_VDSO_* (checkpointing), ARCH_SET_CPUID.
ARCH_PRCTLS = (
    (0x1001, "", "ARCH_SET_GS: a register of the own thread"),
    (0x1002, "", "ARCH_SET_FS: every libc's thread pointer"),
    (0x1003, "", "ARCH_GET_FS"),
    (0x1004, "", "ARCH_GET_GS"),
    (0x1011, "", "ARCH_GET_CPUID"),
    (0x1021, "", "ARCH_GET_XCOMP_SUPP: what the processor can (AMX)"),
    (0x1022, "", "ARCH_GET_XCOMP_PERM"),
    (0x1023, "", "ARCH_REQ_XCOMP_PERM: ask for the large registers (matrix libraries)"),
    (0x3001, "", "ARCH_CET_STATUS: the loader of older glibc asks, and the kernel doesn't know it"),
    (0x5001, "", "ARCH_SHSTK_ENABLE: shadow stack of the own thread"),
    (0x5002, "", "ARCH_SHSTK_DISABLE: the loader does, if a library can't"),
    (0x5003, "", "ARCH_SHSTK_LOCK"),
    (0x5005, "", "ARCH_SHSTK_STATUS"),
)

# --- Argument checks used more than once ------------------------------------------------------------------------------

# clone(2): the kernel reads the low 32 bits. Namespaces would undo mount- and network-based assumptions; PARENT puts a
# process out of its place below the supervisor; PTRACE and UNTRACED meddle with tracers. CLONE_NEWTIME shares its bit
# with the exit signal, where it is no valid signal either.
_CLONE_NEVER = uapi.CLONE_NAMESPACES | uapi.CLONE_NEWTIME | uapi.CLONE_PARENT | uapi.CLONE_PTRACE | uapi.CLONE_UNTRACED
# What every libc passes for a thread. Insisting on all of it means: threads share memory, descriptors and directory.
_CLONE_THREAD = uapi.CLONE_VM | uapi.CLONE_FS | uapi.CLONE_FILES | uapi.CLONE_SIGHAND | uapi.CLONE_THREAD
_CLONE_SPAWN = uapi.CLONE_VM | uapi.CLONE_VFORK

_OWN = "pid 0, the caller: the kernel's own check is only the same user, which is the supervisor too"
_NO_SET_ID = "no set-user-id or set-group-id bit, whatever the grant: the file would outlive the sandbox"
_INNER = (
    "what the supervisor does for the program would not obey the program's own domain; better none than one that seems "
    "to hold. Rulesets that it does obey are its to make"
)
_META = "path metadata: Landlock has no right for it; a notifying filter guards it where the policy needs that"
_META_FD = "metadata of an open file; a notifying filter guards it where the policy needs that"
_NAMES = "Landlock decides by the directories"
_XATTR_AT = "extended attributes by path and flags in memory: not guarded; callers fall back to the older calls"
_ID = "without CAP_SETUID/CAP_SETGID only between ids held already; root keeps these two to drop itself (tar, pip, su)"
_SYSV = "System V IPC reaches objects of every process of the user, past Landlock; CPython has no API for it"
_MQ = "POSIX message queues reach objects of every process of the user, past Landlock; CPython has no API for them"
_KEYS = "the kernel's keyrings are shared by all processes of the user and were a source of kernel holes"
_MOUNT = "mounts would move files from under Landlock's rules, which deny most of this too"
_MODULE = "kernel code"
_CLOCK = "the machine's clock"
_HOST = "the machine's own state"
_RING = "io_uring performs system calls that no filter sees"
_AIO = "kernel-side asynchronous I/O: CPython and libc use threads; not needed, a source of kernel holes"
_WATCH = "tells names and changes in directories outside of the grants; programs fall back to polling"
_TRACE = "reads and writes another process's memory and registers; inside the sandbox only, by Landlock's domain"
_SOCKET_OWN = "works on a socket the process has; there is none but socketpairs without the net scope"
_NET = "reaching or being reached"
_SIGNAL = "Landlock's signal scope (ABI 6, without which nothing starts) keeps signals inside the sandbox"
_SELF = "about the process itself"
_MEMORY = "the process's own memory"
_FD = "an open descriptor: what it is was decided when it was opened"
_WAIT = "waits"
_TIME = "reads a clock"

# --- The table --------------------------------------------------------------------------------------------------------

CALLS: tuple[Call, ...] = (
    # Reading, writing and keeping descriptors.
    _free("read", _FD),
    _free("write", _FD),
    _free("readv", _FD),
    _free("writev", _FD),
    _free("pread64", _FD),
    _free("pwrite64", _FD),
    _free("preadv", _FD),
    _free("pwritev", _FD),
    _free("preadv2", _FD),
    _free("pwritev2", _FD),
    _free("lseek", _FD),
    _free("close", _FD),
    _free("close_range", "closing; CLOSE_RANGE_UNSHARE only makes the descriptor table private"),
    _free("dup", _FD),
    _free("dup2", _FD),
    _free("dup3", _FD),
    _free("pipe", "a channel inside the sandbox"),
    _free("pipe2", "a channel inside the sandbox"),
    _free("sendfile", _FD),
    _free("splice", _FD),
    _free("tee", _FD),
    _free("vmsplice", "own memory into an open pipe"),
    _free("copy_file_range", _FD),
    _free("fsync", _FD),
    _free("fdatasync", _FD),
    _free("sync_file_range", _FD),
    _free("syncfs", _FD),
    _free("sync", "any user may; it changes nothing, and a refusal would be silent, for sync() returns no error"),
    _free("fadvise64", _FD),
    _free("readahead", _FD),
    _free("fallocate", "an open file; needs it open for writing"),
    _free("ftruncate", "an open file; Landlock decided TRUNCATE when it was opened"),
    _free("flock", _FD),
    _by_command("fcntl", 1, FCNTLS, "flags, locks and copies of an open descriptor, by list of commands"),
    _by_command("ioctl", 1, IOCTLS, "by list of commands: terminals, bytes waiting, copies, and interfaces with net"),
    # Waiting.
    _free("poll", _WAIT),
    _free("ppoll", _WAIT),
    _free("select", _WAIT),
    _free("pselect6", _WAIT),
    _free("epoll_create", _WAIT),
    _free("epoll_create1", _WAIT),
    _free("epoll_ctl", _WAIT),
    _free("epoll_wait", _WAIT),
    _free("epoll_pwait", _WAIT),
    _free("epoll_pwait2", _WAIT),
    _free("eventfd", "a counter inside the sandbox"),
    _free("eventfd2", "a counter inside the sandbox"),
    _free("signalfd", "reads own signals"),
    _free("signalfd4", "reads own signals"),
    _free("timerfd_create", "an own timer"),
    _free("timerfd_settime", "an own timer"),
    _free("timerfd_gettime", "an own timer"),
    # Opening. O_PATH opens go to the supervisor where metadata is guarded.
    Call(
        name="open",
        reason="Landlock decides. With O_CREAT or O_TMPFILE " + _NO_SET_ID + "; else mode is garbage and ignored. "
        "Never access mode 3, neither reading nor writing: Landlock has no right for it, and lets it open every file",
        rules=_opening(1),
    ),
    Call(name="openat", reason="as open", rules=_opening(2)),
    _if("creat", lacks(1, uapi.S_ISUGID), reason="as open"),
    _never("openat2", "its flags are in memory, out of a filter's sight; libc falls back to openat", ENOSYS),
    # Names.
    _free("getcwd", _SELF),
    _free("chdir", "opens nothing: Landlock decides when a file is reached from there; tells that a name exists"),
    _free("fchdir", _FD),
    _free("getdents", "an open directory: READ_DIR was decided when it was opened"),
    _free("getdents64", "an open directory: READ_DIR was decided when it was opened"),
    _free("mkdir", _NAMES + "; the kernel itself masks set-id bits off"),
    _free("mkdirat", _NAMES + "; the kernel itself masks set-id bits off"),
    _free("rmdir", _NAMES),
    _free("unlink", _NAMES),
    _free("unlinkat", _NAMES),
    _free("rename", _NAMES),
    _free("renameat", _NAMES),
    _if("renameat2", only(4, uapi.RENAME_NOREPLACE | uapi.RENAME_EXCHANGE), reason=_NAMES + "; RENAME_WHITEOUT, which "
        "leaves a device node behind, never"),
    _free("link", _NAMES + ", REFER included"),
    _free("linkat", _NAMES + ", REFER included"),
    _free("symlink", _NAMES + "; links are followed by whoever opens them, and checked there"),
    _free("symlinkat", _NAMES + "; links are followed by whoever opens them, and checked there"),
    _free("truncate", "Landlock decides (TRUNCATE, ABI 3)"),
    Call(
        name="mknod",
        reason="files, FIFOs and sockets; " + _NAMES + ". No device nodes, and " + _NO_SET_ID,
        rules=tuple(
            Rule(checks=(bits(1, uapi.S_IFMT | uapi.S_ISUGID, kind),))
            for kind in (0, uapi.S_IFREG, uapi.S_IFIFO, uapi.S_IFSOCK)
        ),
    ),
    Call(
        name="mknodat",
        reason="as mknod",
        rules=tuple(
            Rule(checks=(bits(2, uapi.S_IFMT | uapi.S_ISUGID, kind),))
            for kind in (0, uapi.S_IFREG, uapi.S_IFIFO, uapi.S_IFSOCK)
        ),
    ),
    _free("umask", _SELF),
    # Reading metadata.
    _free("stat", _META),
    _free("lstat", _META),
    _free("newfstatat", _META),
    _free("statx", _META),
    _free("fstat", _FD),
    _free("access", _META),
    _free("faccessat", _META),
    _free("faccessat2", _META),
    _free("readlink", _META),
    _free("readlinkat", _META),
    _free("statfs", _META),
    _free("fstatfs", _FD),
    _free("getxattr", _META),
    _free("lgetxattr", _META),
    _free("fgetxattr", _META_FD),
    _free("listxattr", _META),
    _free("llistxattr", _META),
    _free("flistxattr", _META_FD),
    # Changing metadata.
    _if("chmod", lacks(1, uapi.S_ISUGID), reason=_META + "; " + _NO_SET_ID),
    _if("fchmod", lacks(1, uapi.S_ISUGID), reason=_META_FD + "; " + _NO_SET_ID),
    _if("fchmodat", lacks(2, uapi.S_ISUGID), reason=_META + "; " + _NO_SET_ID),
    _never("fchmodat2", "reaches files by O_PATH descriptors; libc falls back to fchmodat", ENOSYS),
    _free("chown", _META),
    _free("lchown", _META),
    _free("fchown", _META_FD),
    _free("fchownat", _META),
    _free("utime", _META),
    _free("utimes", _META),
    _free("futimesat", _META),
    _free("utimensat", _META),
    _free("setxattr", _META),
    _free("lsetxattr", _META),
    _free("fsetxattr", _META_FD),
    _free("removexattr", _META),
    _free("lremovexattr", _META),
    _free("fremovexattr", _META_FD),
    # Metadata and watching by ways that are not guarded.
    _never("setxattrat", _XATTR_AT, ENOSYS),
    _never("getxattrat", _XATTR_AT, ENOSYS),
    _never("listxattrat", _XATTR_AT, ENOSYS),
    _never("removexattrat", _XATTR_AT, ENOSYS),
    _never("file_getattr", "file attributes by path: not guarded", ENOSYS),
    _never("file_setattr", "changes file attributes (immutable, append-only) by path: not guarded", ENOSYS),
    _never("statmount", "tells of every mount", ENOSYS),
    _never("listmount", "tells of every mount", ENOSYS),
    _never("cachestat", "tells what others have read of a file", ENOSYS),
    _never("name_to_handle_at", "tells whether any path exists; half of opening files past their path"),
    _never("open_by_handle_at", "opens files past their path"),
    _never("inotify_init", _WATCH, ENOSYS),
    _never("inotify_init1", _WATCH, ENOSYS),
    _never("inotify_add_watch", _WATCH, ENOSYS),
    _never("inotify_rm_watch", _WATCH, ENOSYS),
    _never("fanotify_init", "hands out open descriptors of every file"),
    _never("fanotify_mark", "hands out open descriptors of every file"),
    _never("lookup_dcookie", "names of files by number, for profilers"),
    _never("ustat", "statistics of any mounted device"),
    _never("quotactl", _HOST),
    _never("quotactl_fd", _HOST, ENOSYS),
    # Memory. Executable memory is foreign code: only files that the supervisor knows may become code.
    _free("brk", _MEMORY),
    Call(
        name="mmap",
        reason="not executable, or a private mapping of a file (a notifying filter asks the supervisor which); "
        "anonymous, shared or writable executable memory is native code of the program's own making",
        rules=(
            Rule(checks=(lacks(2, uapi.PROT_EXEC),), reason="data"),
            Rule(
                checks=(
                    bits(2, uapi.PROT_EXEC | uapi.PROT_WRITE, uapi.PROT_EXEC),
                    bits(3, uapi.MAP_TYPE | uapi.MAP_ANONYMOUS, uapi.MAP_PRIVATE),
                ),
                reason="libraries, as the loader maps them",
            ),
            Rule(scope="exec-memory", reason="addons, ctypes callbacks, JIT compilers"),
            Rule(checks=(has(2, uapi.PROT_EXEC | uapi.PROT_WRITE),), errno=EACCES),
            Rule(checks=(has(2, uapi.PROT_EXEC), has(3, uapi.MAP_ANONYMOUS)), errno=EACCES),
            Rule(checks=(has(2, uapi.PROT_EXEC), has(3, uapi.MAP_SHARED)), errno=EACCES),
        ),
    ),
    Call(
        name="mprotect",
        reason="executable memory only through mmap of a file; libc asks for it only for executable stacks and text "
        "relocations",
        rules=(
            Rule(checks=(lacks(2, uapi.PROT_EXEC),)),
            Rule(scope="exec-memory"),
            Rule(checks=(has(2, uapi.PROT_EXEC),), errno=EACCES),
        ),
    ),
    Call(
        name="pkey_mprotect",
        reason="as mprotect",
        rules=(
            Rule(checks=(lacks(2, uapi.PROT_EXEC),)),
            Rule(scope="exec-memory"),
            Rule(checks=(has(2, uapi.PROT_EXEC),), errno=EACCES),
        ),
    ),
    _free("pkey_alloc", _MEMORY),
    _free("pkey_free", _MEMORY),
    _free("munmap", _MEMORY),
    _free("mremap", _MEMORY + "; an executable mapping keeps its file"),
    _free("msync", _MEMORY),
    _free("madvise", _MEMORY),
    _free("mincore", _MEMORY + "; the kernel answers only for files the caller may write"),
    _free("mlock", _MEMORY),
    _free("mlock2", _MEMORY),
    _free("munlock", _MEMORY),
    _free("mlockall", _MEMORY),
    _free("munlockall", _MEMORY),
    _free("mseal", _MEMORY + "; only takes away"),
    _free("map_shadow_stack", _MEMORY + "; not executable"),
    _free("membarrier", _MEMORY),
    _free("get_mempolicy", "NUMA placement of the own memory"),
    _free("set_mempolicy", "NUMA placement of the own memory"),
    _free("mbind", "NUMA placement of the own memory"),
    _free("set_mempolicy_home_node", "NUMA placement of the own memory"),
    Call(
        name="memfd_create",
        reason="a file without a path is past Landlock, EXECUTE included: only sealed against execution, as the kernel "
        "itself insists under vm.memfd_noexec=2, whose errno this is",
        rules=(
            Rule(checks=(has(1, uapi.MFD_NOEXEC_SEAL),)),
            Rule(scope="exec-memory", reason="native code is granted already"),
            Rule(checks=(lacks(1, uapi.MFD_NOEXEC_SEAL),), errno=EACCES),
        ),
    ),
    _never("memfd_secret", "memory that the supervisor can't read", ENOSYS),
    _never("remap_file_pages", "replaced by mmap; moves pages under an executable mapping"),
    _never("userfaultfd", "stops the kernel in the middle of its work: the tool of kernel exploits and of races"),
    _never("process_madvise", "another process's memory", ENOSYS),
    _never("process_mrelease", "another process's memory", ENOSYS),
    _never("migrate_pages", "another process's memory"),
    _never("move_pages", "another process's memory"),
    _never("modify_ldt", "segments, for 16-bit code; a source of kernel holes"),
    _never("uselib", "maps a library past the check of mmap"),
    # Processes and threads.
    Call(
        name="clone",
        reason="threads with the worker scope, processes with the child scope; never namespaces, CLONE_PARENT, "
        "CLONE_PTRACE, CLONE_UNTRACED",
        rules=(
            Rule(
                scope="worker",
                checks=(bits(0, _CLONE_THREAD | _CLONE_NEVER, _CLONE_THREAD),),
                reason="a thread, sharing all that every libc's threads share",
            ),
            Rule(
                scope="child",
                checks=(lacks(0, _CLONE_THREAD | _CLONE_NEVER),),
                reason="fork: shares nothing, so nobody can swap a descriptor while the supervisor decides on it",
            ),
            Rule(
                scope="child",
                checks=(bits(0, _CLONE_THREAD | uapi.CLONE_VFORK | _CLONE_NEVER, _CLONE_SPAWN),),
                reason="posix_spawn, vfork: shares memory with a parent that waits",
            ),
        ),
    ),
    _never("clone3", "its flags are in memory, out of a filter's sight; libc falls back to clone", ENOSYS),
    _with("child", "fork", "a process"),
    _with("child", "vfork", "a process, whose parent waits"),
    Call(
        name="execve",
        reason="Landlock decides what may be executed; without the child scope only the supervisor's own first one, "
        "when another interpreter is started already confined (a notifying filter lets exactly that one through)",
        rules=(Rule(scope="child"), Rule(scope="exec")),
    ),
    Call(name="execveat", reason="as execve", rules=(Rule(scope="child"), Rule(scope="exec"))),
    _free("exit", _SELF),
    _free("exit_group", _SELF),
    _free("wait4", "own children"),
    _free("waitid", "own children"),
    _free("getpid", _SELF),
    _free("getppid", _SELF),
    _free("gettid", _SELF),
    _free("set_tid_address", _SELF),
    _free("set_robust_list", _SELF),
    _if("get_robust_list", is_(0, 0), reason=_OWN),
    _free("rseq", _SELF),
    _free("futex", "waits in own or shared memory"),
    _free("futex_waitv", "waits in own or shared memory"),
    _free("futex_wake", "waits in own or shared memory"),
    _free("futex_wait", "waits in own or shared memory"),
    _free("futex_requeue", "waits in own or shared memory"),
    _free("restart_syscall", "the kernel's own, after a stopped wait"),
    _by_command("arch_prctl", 0, ARCH_PRCTLS, "registers and features of the own thread, by list"),
    Call(
        name="prctl",
        reason="by list of options: names, reads, and what only takes away",
        rules=(
            *(Rule(scope=scope, checks=(is_(0, number),), reason=word) for number, scope, word in PRCTLS),
            Rule(
                checks=(is_(0, uapi.PR_SET_PDEATHSIG), bits(1, REGISTER, 9)),
                reason="PR_SET_PDEATHSIG, SIGKILL: as the supervisor set it; anything else would undo that",
            ),
            Rule(
                scope="child",
                checks=(is_(0, uapi.PR_SET_PDEATHSIG),),
                reason="PR_SET_PDEATHSIG: a forked child has none anyway",
            ),
            Rule(
                checks=(is_(0, uapi.PR_SET_DUMPABLE), bits(1, REGISTER, 1)),
                reason="PR_SET_DUMPABLE, 1: with 0 a supervisor of the same user couldn't read the process's arguments",
            ),
            Rule(
                checks=(is_(0, 22), bits(1, REGISTER, 2)),
                reason="PR_SET_SECCOMP, a filter: as seccomp",
            ),
            Rule(
                checks=(is_(0, uapi.PR_CAP_AMBIENT), bits(1, REGISTER, 1)),
                reason="PR_CAP_AMBIENT_IS_SET",
            ),
            Rule(
                checks=(is_(0, uapi.PR_CAP_AMBIENT), bits(1, REGISTER, 3)),
                reason="PR_CAP_AMBIENT_LOWER: only takes away",
            ),
            Rule(
                checks=(is_(0, uapi.PR_CAP_AMBIENT), bits(1, REGISTER, uapi.PR_CAP_AMBIENT_CLEAR_ALL)),
                reason="PR_CAP_AMBIENT_CLEAR_ALL: only takes away",
            ),
            Rule(checks=(is_(0, 0x53564D41), null(1)), reason="PR_SET_VMA_ANON_NAME: names of own mappings"),
        ),
    ),
    _if("personality", is_(0, INT), reason="reading it; READ_IMPLIES_EXEC would make all memory executable"),
    # Signals and timers.
    _free("rt_sigaction", _SELF),
    _free("rt_sigprocmask", _SELF),
    _free("rt_sigreturn", _SELF),
    _free("rt_sigpending", _SELF),
    _free("rt_sigsuspend", _WAIT),
    _free("rt_sigtimedwait", _WAIT),
    _free("sigaltstack", _SELF),
    _free("pause", _WAIT),
    _free("kill", _SIGNAL),
    _free("tkill", _SIGNAL),
    _free("tgkill", _SIGNAL),
    _free("rt_sigqueueinfo", _SIGNAL),
    _free("rt_tgsigqueueinfo", _SIGNAL),
    _free("pidfd_open", "a handle for waiting and signals; " + _SIGNAL),
    _free("pidfd_send_signal", _SIGNAL),
    _never("pidfd_getfd", "takes descriptors out of other processes", ENOSYS),
    _free("alarm", "an own timer"),
    _free("getitimer", "an own timer"),
    _free("setitimer", "an own timer"),
    _free("timer_create", "an own timer, signalling own threads"),
    _free("timer_settime", "an own timer"),
    _free("timer_gettime", "an own timer"),
    _free("timer_getoverrun", "an own timer"),
    _free("timer_delete", "an own timer"),
    # Time.
    _free("nanosleep", _WAIT),
    _free("clock_nanosleep", _WAIT),
    _free("clock_gettime", _TIME),
    _free("clock_getres", _TIME),
    _free("gettimeofday", _TIME),
    _free("time", _TIME),
    _free("times", _SELF),
    _never("clock_settime", _CLOCK),
    _never("settimeofday", _CLOCK),
    _never("adjtimex", _CLOCK + "; whether it only reads stands in memory"),
    _never("clock_adjtime", _CLOCK + "; whether it only reads stands in memory"),
    # Scheduling, limits, priorities: of the caller only.
    _free("sched_yield", _SELF),
    _free("sched_get_priority_max", "a constant"),
    _free("sched_get_priority_min", "a constant"),
    Call(
        name="sched_getaffinity",
        reason=_OWN + ". ENOSYS else: pthread_getattr_np asks for its thread by id and takes that for an answer",
        rules=(
            Rule(checks=(is_(0, 0),)),
            Rule(checks=(Check(arg=0, mask=REGISTER, value=0, equal=False),), errno=ENOSYS),
        ),
    ),
    _if("sched_setaffinity", is_(0, 0), reason=_OWN),
    _if("sched_getparam", is_(0, 0), reason=_OWN),
    _if("sched_setparam", is_(0, 0), reason=_OWN),
    _if("sched_getscheduler", is_(0, 0), reason=_OWN),
    _if("sched_setscheduler", is_(0, 0), reason=_OWN),
    _if("sched_getattr", is_(0, 0), reason=_OWN),
    _if("sched_setattr", is_(0, 0), reason=_OWN),
    _if("sched_rr_get_interval", is_(0, 0), reason=_OWN),
    _if("getpriority", is_(0, 0), is_(1, 0), reason="PRIO_PROCESS; " + _OWN),
    _if("setpriority", is_(0, 0), is_(1, 0), reason="PRIO_PROCESS; " + _OWN),
    _if("ioprio_get", is_(0, 1), is_(1, 0), reason="IOPRIO_WHO_PROCESS; " + _OWN),
    _if("ioprio_set", is_(0, 1), is_(1, 0), reason="IOPRIO_WHO_PROCESS; " + _OWN),
    Call(
        name="prlimit64",
        reason=_OWN + "; RLIMIT_CPU=0 on the supervisor would kill it",
        rules=(
            Rule(checks=(is_(0, 0), null(2)), reason="reads"),
            *(Rule(checks=(is_(0, 0), *checks), reason=_MARK) for checks in _not_locks(1)),
        ),
    ),
    _free("getrlimit", _SELF),
    Call(
        name="setrlimit",
        reason=_SELF + "; raising a hard limit needs a capability that is cut",
        rules=tuple(Rule(checks=checks, reason=_MARK) for checks in _not_locks(0)),
    ),
    _free("getrusage", _SELF),
    _free("getcpu", _SELF),
    # Who am I.
    _free("uname", "names of the system"),
    _free("sysinfo", "memory and load of the machine, as os.getloadavg tells"),
    _free("getrandom", "random numbers"),
    _free("getuid", _SELF),
    _free("geteuid", _SELF),
    _free("getgid", _SELF),
    _free("getegid", _SELF),
    _free("getresuid", _SELF),
    _free("getresgid", _SELF),
    _free("getgroups", _SELF),
    _free("getpgrp", _SELF),
    _free("getpgid", "a number; os.killpg(os.getpgid(child))"),
    Call(
        name="setpgid",
        reason="the kernel takes only the caller and its children, in its session. Joining a group that is there, with "
        "children only: reading in the terminal's background stops a whole group, and no signal scope is asked",
        rules=(Rule(checks=(is_(1, 0),), reason="a group of its own"), Rule(scope="child")),
    ),
    _free("getsid", "a number"),
    _free("setsid", "leaves the terminal; the supervisor finds its descendants by parentage, not by session"),
    _free("setuid", _ID),
    _free("setgid", _ID),
    _free("setreuid", _ID),
    _free("setregid", _ID),
    _free("setresuid", _ID),
    _free("setresgid", _ID),
    _free("setgroups", _ID),
    _never("setfsuid", "a second identity for files, which the supervisor would have to follow; for file servers only"),
    _never("setfsgid", "a second identity for files, which the supervisor would have to follow; for file servers only"),
    _free("capget", "reads"),
    _free("capset", "only within the permitted set, which is cut"),
    # Further restrictions by the program itself.
    _never("landlock_create_ruleset", _INNER, ENOSYS),
    _never("landlock_add_rule", _INNER, ENOSYS),
    _free("landlock_restrict_self", "only takes away, and only with a ruleset of the supervisor's: permission.drop()"),
    Call(
        name="seccomp",
        reason="of all filters the strictest answer counts, so a further one can refuse, fake or kill, but never let "
        "through: an errno of ours outranks its TRACE and ALLOW, and its errno instead of our notification means that "
        "the call isn't made. A listener of its own (NEW_LISTENER) never: it would answer calls, and a tree has room "
        "for one. SPEC_ALLOW never: it lifts a protection of the processor. Dropping a permission at run time needs it",
        rules=(
            Rule(
                checks=(
                    is_(0, uapi.SECCOMP_SET_MODE_FILTER),
                    only(
                        1,
                        uapi.SECCOMP_FILTER_FLAG_TSYNC
                        | uapi.SECCOMP_FILTER_FLAG_LOG
                        | uapi.SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
                    ),
                ),
                reason="a filter",
            ),
            Rule(checks=(is_(0, uapi.SECCOMP_GET_ACTION_AVAIL),), reason="reads"),
            Rule(checks=(is_(0, uapi.SECCOMP_GET_NOTIF_SIZES),), reason="reads"),
        ),
    ),
    # Sockets.
    Call(
        name="socketpair",
        reason="AF_UNIX streams: a channel inside the sandbox. A datagram end could send to any socket path",
        rules=(Rule(checks=(is_(0, uapi.AF_UNIX), bits(1, uapi.SOCK_TYPE_MASK, uapi.SOCK_STREAM), is_(2, 0))),),
    ),
    Call(
        name="socket",
        reason="by family, type and protocol. Never raw, packet, vsock, the kernel's crypto, Bluetooth and the other "
        "families, nor MPTCP, which passes Landlock's TCP rules",
        rules=(
            *(
                Rule(
                    scope="net",
                    checks=(is_(0, family), bits(1, uapi.SOCK_TYPE_MASK, kind), is_(2, protocol)),
                    reason=word,
                )
                for family, name in ((uapi.AF_INET, "IPv4"), (uapi.AF_INET6, "IPv6"))
                for kind, protocol, word in (
                    (uapi.SOCK_STREAM, 0, f"{name} TCP"),
                    (uapi.SOCK_STREAM, uapi.IPPROTO_TCP, f"{name} TCP"),
                    (uapi.SOCK_DGRAM, 0, f"{name} UDP"),
                    (uapi.SOCK_DGRAM, uapi.IPPROTO_UDP, f"{name} UDP"),
                )
            ),
            *(
                Rule(
                    scope="net",
                    checks=(is_(0, uapi.AF_UNIX), bits(1, uapi.SOCK_TYPE_MASK, kind), is_(2, 0)),
                    reason="Unix sockets; where they lead is guarded by a notifying filter",
                )
                for kind in (uapi.SOCK_STREAM, uapi.SOCK_DGRAM, uapi.SOCK_SEQPACKET)
            ),
            *(
                Rule(
                    scope="net",
                    checks=(
                        is_(0, uapi.AF_NETLINK),
                        bits(1, uapi.SOCK_TYPE_MASK, kind),
                        is_(2, uapi.NETLINK_ROUTE),
                    ),
                    reason="getaddrinfo and if_nameindex read the interfaces; changing them needs a capability "
                    "that is cut",
                )
                for kind in (uapi.SOCK_RAW, uapi.SOCK_DGRAM)
            ),
        ),
    ),
    _with("net", "connect", _NET),
    _with("net", "bind", _NET + "; without net the end of a socketpair could make a socket file"),
    _with("net", "listen", _NET),
    _with("net", "accept", _NET),
    _with("net", "accept4", _NET),
    Call(
        name="sendto",
        reason="without net only to the other end (address NULL). MSG_FASTOPEN, a connect in disguise that Landlock's "
        "TCP rules don't see, never",
        rules=(
            Rule(checks=(lacks(3, uapi.MSG_FASTOPEN), null(4))),
            Rule(scope="net", checks=(lacks(3, uapi.MSG_FASTOPEN),)),
        ),
    ),
    _if("sendmsg", lacks(2, uapi.MSG_FASTOPEN), reason=_SOCKET_OWN + "; MSG_FASTOPEN never"),
    _if("sendmmsg", lacks(3, uapi.MSG_FASTOPEN), reason=_SOCKET_OWN + "; MSG_FASTOPEN never"),
    _free("recvfrom", _SOCKET_OWN),
    _free("recvmsg", _SOCKET_OWN + "; descriptors come from processes of the sandbox"),
    _free("recvmmsg", _SOCKET_OWN),
    _free("shutdown", _SOCKET_OWN),
    _free("getsockname", _SOCKET_OWN),
    _free("getpeername", _SOCKET_OWN),
    _free("getsockopt", _SOCKET_OWN),
    _free("setsockopt", _SOCKET_OWN + "; what concerns interfaces needs a capability that is cut"),
    # Looking into other processes.
    _with("inspector", "ptrace", _TRACE + "; a tracer can't suspend filters, and each call is filtered after its stop"),
    _with("inspector", "process_vm_readv", _TRACE),
    _with("inspector", "process_vm_writev", _TRACE + "; obeys page protection"),
    _with("inspector", "kcmp", _TRACE),
    _never("perf_event_open", "watches the kernel and other processes; a source of kernel holes"),
    # Ways round the filter.
    _never("io_uring_setup", _RING, ENOSYS),
    _never("io_uring_enter", _RING, ENOSYS),
    _never("io_uring_register", _RING, ENOSYS),
    _never("io_setup", _AIO),
    _never("io_destroy", _AIO),
    _never("io_submit", _AIO),
    _never("io_cancel", _AIO),
    _never("io_getevents", _AIO),
    _never("io_pgetevents", _AIO),
    _never("bpf", "code in the kernel"),
    # IPC that the file system doesn't show.
    _never("shmget", _SYSV),
    _never("shmat", _SYSV + "; SHM_EXEC maps executable memory"),
    _never("shmctl", _SYSV),
    _never("shmdt", _SYSV),
    _never("semget", _SYSV),
    _never("semop", _SYSV),
    _never("semctl", _SYSV),
    _never("semtimedop", _SYSV),
    _never("msgget", _SYSV),
    _never("msgsnd", _SYSV),
    _never("msgrcv", _SYSV),
    _never("msgctl", _SYSV),
    _never("mq_open", _MQ),
    _never("mq_unlink", _MQ),
    _never("mq_timedsend", _MQ),
    _never("mq_timedreceive", _MQ),
    _never("mq_notify", _MQ),
    _never("mq_getsetattr", _MQ),
    _never("add_key", _KEYS),
    _never("request_key", _KEYS),
    _never("keyctl", _KEYS),
    # Mounts, roots, namespaces.
    _never("chroot", "a root in a directory of one's own gives paths another meaning"),
    _never("pivot_root", _MOUNT),
    _never("mount", _MOUNT),
    _never("umount2", _MOUNT),
    _never("open_tree", _MOUNT, ENOSYS),
    _never("open_tree_attr", _MOUNT, ENOSYS),
    _never("move_mount", _MOUNT, ENOSYS),
    _never("fsopen", _MOUNT, ENOSYS),
    _never("fsconfig", _MOUNT, ENOSYS),
    _never("fsmount", _MOUNT, ENOSYS),
    _never("fspick", _MOUNT, ENOSYS),
    _never("mount_setattr", _MOUNT, ENOSYS),
    _never("unshare", "namespaces give capabilities back, and with them most kernel holes are reached"),
    _never("setns", "namespaces of other processes"),
    # The machine.
    _never("swapon", _HOST),
    _never("swapoff", _HOST),
    _never("acct", _HOST),
    _never("reboot", _HOST),
    _never("sethostname", _HOST),
    _never("setdomainname", _HOST),
    _never("syslog", "the kernel's log"),
    _never("vhangup", "the terminal of the session"),
    _never("iopl", "ports of the hardware"),
    _never("ioperm", "ports of the hardware"),
    _never("kexec_load", _MODULE),
    _never("kexec_file_load", _MODULE),
    _never("init_module", _MODULE),
    _never("finit_module", _MODULE),
    _never("delete_module", _MODULE),
    _never("lsm_get_self_attr", "labels of security modules; nothing of ours asks", ENOSYS),
    _never("lsm_set_self_attr", "labels of security modules", ENOSYS),
    _never("lsm_list_modules", "names of security modules; nothing of ours asks", ENOSYS),
)  # fmt: skip

BY_NAME: dict[str, Call] = {call.name: call for call in CALLS}
