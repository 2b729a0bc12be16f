"""Numbers of the system calls that filters and the broker know by name.

Runs in: supervisor; not at every start, unlike ``uapi``. Sources: the system call tables of x86-64 and arm64.
"""

from __future__ import annotations

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

# Calls that are answered by a look at their registers: name -> (x86-64, arm64).
NOTIFIED = {"mmap": (9, 222), "execve": (59, 221), "execveat": (322, 281)}

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
