"""A control group of a job's own: found, made, joined, ended, removed.

Runs in: supervisor, and in its guard. Loaded only where a limit asks for it. Source: the kernel's documentation,
Documentation/admin-guide/cgroup-v2.rst; cgroups(7). Version 2 only, also where version 1 has the other controllers.

A group with processes in it can't give controllers to groups below it, the root of the whole hierarchy excepted ("no
internal processes"). So a supervisor that is alone in its group moves to a group below it, beside the job's, and back
at the end. Where others are there, too, nothing is done: they are not ours to move.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "sandboxed-python"
"""What names of our groups begin with: of a job's ``NAME.PID``, of a supervisor's ``NAME-supervisor.PID``."""
MARK = "user.sandboxed-python"
"""Extended attribute of a group that keeps its processes: the controller that was switched on there for a job."""
_PATIENCE = 2.0  # seconds for killed processes to leave
_STEP = 0.002  # between two looks whether they have
_SYSTEMD = "/run/systemd/system"  # exists where systemd manages the groups (sd_booted(3))


class UnusableError(Exception):
    """There can be no group. The message says why."""


def own_folder(groups: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> str:
    """Return the folder of the group that this process is in.

    Args:
        groups: as proc_pid_cgroup(5).
        mounts: as proc_pid_mountinfo(5). Both are relative to the cgroup namespace.

    Raises:
        UnusableError: it isn't mounted here.
    """
    try:
        path = next((line[3:] for line in _lines(groups) if line.startswith("0::")), "")
        rows = _lines(mounts)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        raise UnusableError(message) from error
    for row in rows:
        head, _dash, tail = row.partition(" - ")
        if not tail.startswith("cgroup2 "):
            continue
        root, place = [_unescaped(field) for field in head.split(" ")[3:5]]
        if path == root or path.startswith(root.rstrip("/") + "/"):
            folder = (place.rstrip("/") + path[len(root.rstrip("/")) :]).rstrip("/")
            # The mount may be hidden, or the namespaces may not be the same: only what lists this process is its own.
            if str(os.getpid()) in _words(f"{folder}/cgroup.procs"):
                return folder
    message = "no mounted cgroup v2 hierarchy shows this process"
    raise UnusableError(message)


def check(folder: str, controller: str, systemd: str = _SYSTEMD) -> None:
    """See whether a group can be made below this process's own one. Nothing is changed.

    Args:
        folder: of ``own_folder``.
        controller: that the group needs.
        systemd: exists where groups are systemd's, and ours only below those that it has delegated.

    Raises:
        UnusableError: it can't.
    """
    there = _words(f"{folder}/cgroup.controllers")
    if controller not in there:
        message = f"the controller {controller} isn't available in {folder} (cgroup v2 has there: {_listed(there)})"
        raise UnusableError(message)
    kind = " ".join(_words(f"{folder}/cgroup.type")) or "domain"
    if kind != "domain":
        message = f"{folder} is of the type {kind}"
        raise UnusableError(message)
    if os.path.exists(systemd) and not _delegated(folder):
        message = f"{folder} is systemd's (Delegate=yes gives it to the job)"
        raise UnusableError(message)
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        if not os.access(folder + name, os.W_OK):
            message = f"{folder}{name} can't be written to"
            raise UnusableError(message)
    if not _keeps_processes(folder) and _words(f"{folder}/cgroup.procs") != [str(os.getpid())]:
        message = f"other processes are in {folder}, too"
        raise UnusableError(message)


def _delegated(folder: str) -> bool:
    """Tell whether systemd has given this group away (systemd.resource-control(5), ``Delegate=``)."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _keeps_processes(folder: str) -> bool:
    """Tell whether a group is the root of the whole hierarchy, which alone has no type."""
    return not os.path.exists(f"{folder}/cgroup.type")


class Group:
    """A group below this process's own one.

    Attributes:
        home: folder of the group that this process was in.
        folder: the group's, or "".
        leaf: of the group that this process has moved to, or "".
    """

    def __init__(
        self, home: str, controller: str, settings: Mapping[str, str], optional: Mapping[str, str] | None = None
    ) -> None:
        """Make it. When that fails, everything is as before.

        Args:
            home: of ``own_folder``.
            controller: that it needs.
            settings: names of its files, and what is written to them.
            optional: likewise; a kernel may not have these files.

        Raises:
            UnusableError: see ``check``.
            OSError: the kernel refused.
        """
        self.home = home
        self.folder = self.leaf = ""
        self._controller = controller
        self._lock = -1
        check(home, controller)
        remove_stale(home)
        try:
            if not _keeps_processes(home):
                self.leaf = _made(f"{home}/{NAME}-supervisor.{os.getpid()}")
                _write(f"{self.leaf}/cgroup.procs", "0")
            self.folder = _made(f"{home}/{NAME}.{os.getpid()}")
            # Held for as long as this process lives: see ``remove_stale``.
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.leaf:
                _write(f"{home}/cgroup.subtree_control", f"+{controller}")
            else:
                _switch_on(home, controller)
            for name, value in settings.items():
                _write(f"{self.folder}/{name}", value)
            for name, value in (optional or {}).items():
                if os.path.exists(f"{self.folder}/{name}"):
                    _write(f"{self.folder}/{name}", value)
        except BaseException:
            self.remove()
            raise

    def take(self, pid: int) -> bool:
        """Move a process with all its threads into the group; tell whether it is there."""
        try:
            _write(f"{self.folder}/cgroup.procs", str(pid))
        except OSError:
            return False
        return True

    def number(self, name: str, key: str = "") -> int | None:
        """Return the number in one of the group's files, or the one after ``key``; None where there is none."""
        words = _words(f"{self.folder}/{name}")
        try:
            return int(words[words.index(key) + 1 if key else 0])
        except (ValueError, IndexError):
            return None

    def kill(self) -> bool:
        """Kill everything in the group at once, also what is just being forked; tell whether the kernel can do that."""
        try:
            _write(f"{self.folder}/cgroup.kill", "1")  # Linux 5.14
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Kill what is in the group, remove it, and undo what was done for it. A second time nothing happens.

        Returns:
            False if something of it had to stay, for ``remove_stale`` of the next job: see there.
        """
        if self._lock >= 0:  # first, since what follows takes a descriptor, and there may be no other
            _close(self._lock)
            self._lock = -1
        gone = not self.folder or _remove_folder(self.folder, self.kill)
        if self.leaf:
            gone = self._go_home() and gone
        elif gone and self.folder:
            switch_off(self.home)
        if gone:
            self.folder = self.leaf = ""
        return gone

    def _go_home(self) -> bool:
        """Give the controller back, and leave the leaf with whoever is in it."""
        try:
            _write(f"{self.home}/cgroup.subtree_control", f"-{self._controller}")
            for pid in _words(f"{self.leaf}/cgroup.procs"):
                try:
                    _write(f"{self.home}/cgroup.procs", pid)
                except ProcessLookupError:  # it has just ended
                    continue
        except OSError:
            return False
        return _remove_folder(self.leaf)


def _switch_on(home: str, controller: str) -> None:
    """Switch a controller on in a group that keeps its processes, and mark the group if it was off.

    Raises:
        OSError: it was on and still is, or off and still is.
    """
    if controller in " ".join(_lines(f"{home}/cgroup.subtree_control")).split():
        return
    os.setxattr(home, MARK, controller.encode())
    try:
        _write(f"{home}/cgroup.subtree_control", f"+{controller}")
    except OSError:
        os.removexattr(home, MARK)
        raise


def switch_off(home: str) -> None:
    """Switch a controller off in a group that keeps its processes, if a job had it switched on and nobody uses it."""
    try:
        controller = os.getxattr(home, MARK).decode()
        if next((entry for entry in os.scandir(home) if entry.is_dir(follow_symlinks=False)), None) is None:
            _write(f"{home}/cgroup.subtree_control", f"-{controller}")
            os.removexattr(home, MARK)
    except OSError:  # it had been on before; or somebody else switched it off
        return


def remove_stale(home: str) -> None:
    """Remove what supervisors that were killed have left below a group: empty groups of our names that nobody holds.

    A supervisor holds its job's group by a lock (flock(2)), which ends with it, whatever ends it. One that was made a
    moment ago may not be locked yet: then it is lost, and its job is watched instead. The kernel refuses to remove what
    has processes in it.
    """
    try:
        found = [name for name in os.listdir(home) if name.startswith((f"{NAME}.", f"{NAME}-supervisor."))]
    except OSError:
        return
    for name in found:
        try:
            descriptor = os.open(f"{home}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rmdir(f"{home}/{name}")
        except OSError:  # held, or not empty
            continue
        finally:
            os.close(descriptor)


def _remove_folder(folder: str, kill: Callable[[], object] | None = None) -> bool:
    """Remove a group when nothing is left in it; tell whether it is gone."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return True
        except OSError:
            if kill is not None:
                kill()
        else:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP)


def _close(descriptor: int) -> None:
    """Close a descriptor that is open, or not any more: the guard closes all that it has inherited."""
    try:
        os.close(descriptor)
    except OSError:
        return


def _made(folder: str) -> str:
    os.mkdir(folder)
    return folder


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().split("\n")


def _words(path: str) -> list[str]:
    """Return the words of one of a group's files; none where it can't be read."""
    try:
        return " ".join(_lines(path)).split()
    except OSError:
        return []


def _listed(words: list[str]) -> str:
    return ", ".join(words) or "none"


def _unescaped(field: str) -> str:
    """Undo the octal escapes of blanks and backslashes (proc_pid_mountinfo(5))."""
    if "\\" not in field:
        return field
    return os.fsdecode(os.fsencode(field).decode("unicode_escape").encode("latin-1"))
