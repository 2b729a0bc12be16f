"""Numbers of the kernel's user interface, and nothing else.

Runs in: both. Sources: ``include/uapi/linux/{landlock,seccomp,prctl,capability,audit,sched,fcntl,stat}.h`` and the
system call tables of x86-64 and arm64.
"""

from __future__ import annotations

# Architectures: name by ``os.uname().machine`` -> AUDIT_ARCH value (linux/audit.h).
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_SYSCALL_BIT = 0x40000000

# System calls that libc has no wrapper for (or not every libc): name -> (x86-64, arm64).
SYSCALLS = {
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "seccomp": (317, 277),
    "close_range": (436, 436),
    "capget": (125, 90),
    "capset": (126, 91),
    "openat2": (437, 437),
    "mseal": (462, 462),
    "faccessat2": (439, 439),
    "execveat": (322, 281),
    "fchmodat2": (452, 452),
    "renameat2": (316, 276),
    "gettid": (186, 178),
    "tgkill": (234, 131),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prlimit64": (302, 261),
}

# Calls that are answered by a look at their registers: name -> (x86-64, arm64).
NOTIFIED = {"mmap": (9, 222), "execve": (59, 221), "execveat": (322, 281)}

# Landlock.
LANDLOCK_CREATE_RULESET_VERSION = 1 << 0
LANDLOCK_RULE_PATH_BENEATH = 1
LANDLOCK_RULE_NET_PORT = 2

LANDLOCK_RESTRICT_SELF_TSYNC = 1 << 3  # ABI 8

# getrlimit(2); the second has no effect since Linux 2.4.25.
RLIMIT_CORE = 4
RLIMIT_LOCKS = 10

# prctl(2).
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_GET_SECCOMP = 21
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

# Capabilities: linux/capability.h, in numeric order.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# seccomp(2).
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_GET_NOTIF_SIZES = 3
SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ACTION_FULL = 0xFFFF0000
SECCOMP_RET_DATA = 0x0000FFFF
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1
SECCOMP_ADDFD_FLAG_SETFD = 1
SECCOMP_ADDFD_FLAG_SEND = 2
# ioctl numbers: _IOWR('!', n, size) etc. (linux/seccomp.h); the sizes are those of the structs below.
SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100  # struct seccomp_notif, 80 bytes
SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101  # struct seccomp_notif_resp, 24 bytes
SECCOMP_IOCTL_NOTIF_ID_VALID = 0x40082102
SECCOMP_IOCTL_NOTIF_ADDFD = 0x40182103  # struct seccomp_notif_addfd, 24 bytes
SECCOMP_IOCTL_NOTIF_SET_FLAGS = 0x40082104
SIZEOF_SECCOMP_NOTIF = 80  # u64 id, u32 pid, u32 flags, struct seccomp_data (int nr, u32 arch, u64 ip, u64 args[6])
SIZEOF_SECCOMP_NOTIF_RESP = 24  # u64 id, s64 val, s32 error, u32 flags

# clone(2) flags (linux/sched.h).
CLONE_VM = 0x00000100
CLONE_FS = 0x00000200
CLONE_FILES = 0x00000400
CLONE_SIGHAND = 0x00000800
CLONE_PIDFD = 0x00001000
CLONE_PTRACE = 0x00002000
CLONE_VFORK = 0x00004000
CLONE_PARENT = 0x00008000
CLONE_THREAD = 0x00010000
CLONE_NEWNS = 0x00020000
CLONE_UNTRACED = 0x00800000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_IO = 0x80000000
CLONE_NEWTIME = 0x00000080
CLONE_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)

# Memory protection (asm-generic/mman-common.h).
PROT_READ = 1
PROT_WRITE = 2
PROT_EXEC = 4
MAP_SHARED = 1
MAP_PRIVATE = 2
MAP_SHARED_VALIDATE = 3
MAP_ANONYMOUS = 0x20
MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_NOEXEC_SEAL = 8
F_ADD_SEALS = 1033
F_SEAL_ALL = 0xF  # SEAL, SHRINK, GROW, WRITE

# Sockets.
AF_UNIX = 1
AF_INET = 2
AF_INET6 = 10
AF_NETLINK = 16
NETLINK_ROUTE = 0
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOCK_RAW = 3
SOCK_SEQPACKET = 5
SOCK_TYPE_MASK = 0xF
SOCK_CLOEXEC = 0o2000000
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_MPTCP = 262
MSG_FASTOPEN = 0x20000000
MSG_CMSG_CLOEXEC = 0x40000000

# Paths and descriptors.
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_EACCESS = 0x200
AT_EMPTY_PATH = 0x1000
O_PATH = 0o10000000
O_TMPFILE = 0o20200000
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4

# poll(2), signalfd(2).
POLLIN = 0x001
POLLERR = 0x008
POLLHUP = 0x010
POLLRDHUP = 0x2000
SFD_CLOEXEC = 0o2000000
SFD_NONBLOCK = 0o4000
SIZEOF_SIGNALFD_SIGINFO = 128
SI_USER = 0
SI_KERNEL = 0x80

# System calls from number 424 on: the same number on every architecture (include/uapi/asm-generic/unistd.h).
UNIFIED_FIRST = 424
UNIFIED_SYSCALLS = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "process_madvise": 440, "epoll_pwait2": 441, "mount_setattr": 442, "quotactl_fd": 443,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446, "memfd_secret": 447,
    "process_mrelease": 448, "futex_waitv": 449, "set_mempolicy_home_node": 450, "cachestat": 451, "fchmodat2": 452,
    "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456, "statmount": 457,
    "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467,
    "file_getattr": 468, "file_setattr": 469,
}  # fmt: skip
UNIFIED_LAST = 469

# Bits of open(2) and mknod(2) that are the same on x86-64 and arm64.
O_WRONLY, O_RDWR = 1, 2
O_CREAT = 0o100
O_TMPFILE_BIT = 0o20000000  # __O_TMPFILE: O_TMPFILE without O_DIRECTORY, whose bit differs between the two
S_IFMT = 0o170000
S_IFREG = 0o100000
S_IFIFO = 0o010000
S_IFSOCK = 0o140000
S_ISUGID = 0o6000  # S_ISUID | S_ISGID
MAP_TYPE = 0xF
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 1 << 4

# System calls that the broker answers by doing their work: name -> (x86-64, arm64); None: the architecture lacks it.
BROKERED: dict[str, tuple[int | None, int | None]] = {
    "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "statfs": (137, 43), "getxattr": (191, 8), "lgetxattr": (192, 9), "listxattr": (194, 11), "llistxattr": (195, 12),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "truncate": (76, 45), "open": (2, None), "openat": (257, 56), "creat": (85, None), "chdir": (80, 49),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "getsockname": (51, 204), "sendto": (44, 206),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "capset": (126, 91),
}  # fmt: skip
# What a scope of the static filter opens, what nothing opens, and newer calls: notified besides in audits.
AUDITED: dict[str, tuple[int | None, int | None]] = {
    "mprotect": (10, 226), "pkey_mprotect": (329, 288), "memfd_create": (319, 279), "clone": (56, 220),
    "fork": (57, None), "vfork": (58, None), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "ioctl": (16, 29), "prctl": (157, 167), "setpgid": (109, 154),
    "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "perf_event_open": (298, 241), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "mq_unlink": (241, 181), "io_setup": (206, 0),
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "quotactl": (179, 60), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "syslog": (103, 116), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None),
    "remap_file_pages": (216, 234),
    "clone3": (435, 435), "openat2": (437, 437), "setxattrat": (463, 463), "getxattrat": (464, 464),
    "listxattrat": (465, 465), "removexattrat": (466, 466), "io_uring_setup": (425, 425), "memfd_secret": (447, 447),
    "pidfd_getfd": (438, 438),
}  # fmt: skip
# What the broker itself calls by number, for the kernel's own struct layouts or because libc acts on all threads.
RAW = {
    "fstat": (5, 80), "fstatfs": (138, 44), "statx": (332, 291), "setgroups": (116, 159), "setresgid": (119, 149),
    "setresuid": (117, 147), "newfstatat": (262, 79),
}  # fmt: skip
SIZEOF_STAT = (144, 128)  # struct stat of x86-64 and arm64
SIZEOF_STATX = 256
SIZEOF_STATFS = 120
SIZEOF_SOCKADDR_UN = 110
PATH_MAX = 4096
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
XATTR_LIST_MAX = 65536
AT_NO_AUTOMOUNT = 0x800
AT_STATX_SYNC_TYPE = 0x6000
STATX_RESERVED = 0x80000000
RESOLVE_NO_MAGICLINKS = 0x02  # openat2(2)
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_NO_SYMLINKS = 0x04
RENAME_WHITEOUT = 4
UTIME_OMIT = (1 << 30) - 2
# ioctl(2) on /proc/PID/maps (linux/fs.h, Linux 6.11).
PROCMAP_QUERY = 0xC0686611  # struct procmap_query, 104 bytes
PROCMAP_QUERY_VMA_READABLE, PROCMAP_QUERY_VMA_WRITABLE, PROCMAP_QUERY_VMA_SHARED = 1, 2, 8
PROC_SUPER_MAGIC = 0x9FA0
PROC_ROOT_INO = 1
