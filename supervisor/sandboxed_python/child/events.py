"""The audit events of CPython 3.10 to 3.14 that are judged, and which permissions each of them needs.

Runs in: child. Tables only; https://docs.python.org/3/library/audit_events.html names the events and their arguments.
Events of high-level functions (``shutil.copyfile``, ``tempfile.mkdtemp``, ``glob.glob``, ...) aren't here: what these
functions do raises events of its own.
"""

from __future__ import annotations

READ = "fs.read"
WRITE = "fs.write"

# How the last component of a path is taken when it is a link.
FOLLOW = 0  # the operation acts on what it leads to
ITSELF = 1  # the operation acts on the link
EITHER = 2  # the event doesn't tell (chown and lchown raise the same one): granted if one of them is

# event -> the permissions in the order in which they are asked: (scope, place of the path among the arguments, place of
# its dir_fd or -1, links). Where Node needs less or more than the system call: NODE.md, part 2, section 6.
PATHS: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    "os.chdir": ((READ, 0, -1, FOLLOW),),
    "os.listdir": ((READ, 0, -1, FOLLOW),),
    "os.scandir": ((READ, 0, -1, FOLLOW),),
    "os.getxattr": ((READ, 0, -1, EITHER),),
    "os.listxattr": ((READ, 0, -1, EITHER),),
    "os.setxattr": ((WRITE, 0, -1, EITHER),),
    "os.removexattr": ((WRITE, 0, -1, EITHER),),
    "os.chflags": ((WRITE, 0, -1, EITHER),),
    "os.chmod": ((WRITE, 0, 2, EITHER),),
    "os.chown": ((WRITE, 0, 3, EITHER),),
    "os.utime": ((WRITE, 0, 3, EITHER),),
    "os.truncate": ((WRITE, 0, -1, FOLLOW),),
    "os.mkdir": ((WRITE, 0, 2, ITSELF),),
    "os.remove": ((WRITE, 0, 1, ITSELF),),
    "os.rmdir": ((WRITE, 0, 1, ITSELF),),
    "os.rename": ((READ, 0, 2, ITSELF), (WRITE, 0, 2, ITSELF), (WRITE, 1, 3, ITSELF)),
    "os.link": ((READ, 0, 2, EITHER), (WRITE, 0, 2, EITHER), (WRITE, 1, 3, ITSELF)),
    # What a link leads to is judged when it is used.
    "os.symlink": ((WRITE, 1, 2, ITSELF),),
}

# event -> (scope, place of the resource among the arguments or -1 if there is none).
SWITCHES: dict[str, tuple[str, int]] = {
    "os.exec": ("child", 0),
    "os.posix_spawn": ("child", 0),
    "os.spawn": ("child", 1),
    "os.fork": ("child", -1),
    "os.forkpty": ("child", -1),
    "subprocess.Popen": ("child", 0),
    "cpython.PyInterpreterState_New": ("worker", -1),
    # Handing out an address, or the error number, touches no foreign memory; reading from an address does.
    "ctypes.PyObj_FromPtr": ("ffi", -1),
    "ctypes.call_function": ("ffi", -1),
    "ctypes.cdata": ("ffi", -1),
    "ctypes.dlsym/handle": ("ffi", -1),
    "ctypes.memoryview_at": ("ffi", -1),
    "ctypes.string_at": ("ffi", -1),
    "ctypes.wstring_at": ("ffi", -1),
    "sqlite3.load_extension": ("addon", 1),
    "sys.setprofile": ("inspector", -1),
    "sys.settrace": ("inspector", -1),
    "sys.monitoring.register_callback": ("inspector", -1),
    "sys.remote_exec": ("inspector", -1),
    "cpython.remote_debugger_script": ("inspector", -1),
    "socket.gethostbyaddr": ("net", 0),
}

# Events that have a function of their own in hook.py, and the scope without which it is needed.
SPECIAL: dict[str, str] = {
    "_thread.start_joinable_thread": "worker",
    "_thread.start_new_thread": "worker",
    "ctypes.dlopen": "ffi",
    "ctypes.dlsym": "ffi",
    "import": "addon",
    "open": READ,
    "os.system": "child",
    "pty.spawn": "child",
    "socket.__new__": "net",
    "socket.bind": "net",
    "socket.connect": "net",
    "socket.getaddrinfo": "net",
    "socket.gethostbyname": "net",
    "socket.sendmsg": "net",
    "socket.sendto": "net",
    "sqlite3.connect": READ,
    "sqlite3.enable_load_extension": "addon",
}

# What ctypes looks up in its own process while it is imported: ctypes.util of 3.14.
CTYPES_OWN = frozenset(("dl_iterate_phdr",))
