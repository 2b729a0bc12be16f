"""Run a program as in a container with Docker's default seccomp profile and capabilities.

    python container.py [--cap-drop=ALL] [--no-new-privileges] [--user=UID] PROGRAM [ARGUMENT...]

Runs in: tests only, as a program of its own that becomes PROGRAM. There are no namespaces: what it imitates is what such
a container takes away from a process. As an ordinary user, who has no capabilities to lose, it sets no_new_privs in any
case: without that nobody but root may load a filter.

The profile is that of moby/profiles (seccomp/default.json), for containers without further capabilities. A number above
all that the profile names is answered with ENOSYS, as runc does. A process that uses another architecture's calls is
killed, where Docker would allow those of 32-bit programs.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import sys
import tempfile

# What a container's root has, by number (linux/capability.h).
CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "NET_BIND_SERVICE": 10, "NET_RAW": 13, "SYS_CHROOT": 18, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip

# Allowed whatever the arguments. Names that only 32-bit machines have are left out.
ALLOWED = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chroot clock_adjtime
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat
exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat
fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue
futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat
listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg
recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl
semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid
setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid
setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs
statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask
uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
""".split()  # noqa: SIM905
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# Families of sockets: below 12 all, then these. AF_ALG (38) and AF_VSOCK (40) are not among them.
FAMILIES_BELOW = 12
FAMILIES = (13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45)
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*: none of them may be asked for

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522
RETURN_ERRNO = 0x00050000

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def profile() -> bytes:
    """Compile the filter: an array of ``struct sock_filter``."""
    import pyseccomp as library

    made = library.SyscallFilter(library.ERRNO(errno.EPERM))
    machine = library.system_arch()
    numbers = []

    def allow(name: str, *arguments: object) -> None:
        number = library.resolve_syscall(machine, name)
        if number >= 0:  # else this machine has none, or libseccomp is older than the call
            made.add_rule(library.ALLOW, number, *arguments)
            numbers.append(number)

    for name in ALLOWED:
        allow(name)
    for value in PERSONALITIES:
        allow("personality", library.Arg(0, library.EQ, value))
    allow("socket", library.Arg(0, library.LT, FAMILIES_BELOW))
    for value in FAMILIES:
        allow("socket", library.Arg(0, library.EQ, value))
    allow("clone", library.Arg(0, library.MASKED_EQ, NEW_NAMESPACES, 0))
    made.add_rule(library.ERRNO(errno.ENOSYS), library.resolve_syscall(machine, "clone3"))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        body = file.read()
    # load the number; if it is greater than the last one: return ENOSYS
    unknown = (
        _instruction(0x20, 0, 0, 0)
        + _instruction(0x25, 0, 1, max(numbers))
        + _instruction(0x06, 0, 0, RETURN_ERRNO | errno.ENOSYS)
    )
    return unknown + body


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return code.to_bytes(2, sys.byteorder) + bytes((jump_true, jump_false)) + value.to_bytes(4, sys.byteorder)


def prctl(*words: int) -> None:
    """Call prctl(2).

    Raises:
        OSError: it failed.
    """
    if libc.prctl(*words, *[0] * (5 - len(words))):
        raise OSError(ctypes.get_errno(), f"prctl{words}")


def load(program: bytes) -> None:
    """Load a filter into this process, for good."""
    code = ctypes.create_string_buffer(program, len(program))
    packed = (len(program) // 8).to_bytes(8, sys.byteorder) + ctypes.addressof(code).to_bytes(8, sys.byteorder)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(ctypes.create_string_buffer(packed, 16)))


def drop_bounding(kept: int) -> None:
    """Take capabilities out of the bounding set, so that no program brings them back."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    for number in range(last + 1):
        if not kept >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def set_capabilities(kept: int) -> None:
    """Keep these as permitted and effective ones; none is inheritable."""
    header = CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    low = kept.to_bytes(4, sys.byteorder)
    if libc.capset(header, low + low + bytes(16)):
        raise OSError(ctypes.get_errno(), "capset")


def main() -> None:
    """Give up what a container takes away, and become the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap-drop", choices=["ALL"], help="no capability is left")
    parser.add_argument("--no-new-privileges", action="store_true", help="set no_new_privs")
    parser.add_argument("--user", type=int, help="run as this user and group; an ordinary user stays as he is")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    kept = 0 if options.cap_drop else sum(1 << number for number in CAPABILITIES.values())
    locked = options.no_new_privileges or os.geteuid() != 0
    if locked:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    filters = profile()
    if os.geteuid() == 0:
        drop_bounding(kept)
        # Without no_new_privs it takes CAP_SYS_ADMIN; the filter allows all that follows.
        load(filters)
        if options.user is not None:
            os.setgroups([])
            os.setresgid(options.user, options.user, options.user)
            os.setresuid(options.user, options.user, options.user)  # which takes all capabilities away
        else:
            set_capabilities(kept)
    else:
        load(filters)
    os.execvp(options.program[0], options.program)


if __name__ == "__main__":
    main()
