"""Wrappers of functions that raise no audit event: the ``os.stat`` family, ``mkfifo``, threads, semaphores, fork_exec.

Runs in: child. They keep name, documentation, signature and module of what they wrap. Their code names ``<frozen os>``
as its file and their globals nothing, so that a traceback shows nothing of this package. ``importlib`` keeps the
originals.
"""

from __future__ import annotations

import os
import posix
import sys

from sandboxed_python import image
from sandboxed_python.child.events import FOLLOW, INTERPRETERS, ITSELF, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from sandboxed_python.child.hook import Judge

_POSIX = posix.__dict__
_SUPPORTS = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
_SEEN_AS = "<frozen os>"


class Wrappers:
    """The wrappers, ready to be put in place: into ``posix`` and ``os``; where no event tells of threads, theirs."""

    def __init__(self, judge: Judge, *, guarded: bool, opener: Callable[[bytes], int] | None = None) -> None:
        """Make them.

        Args:
            judge: judges the paths.
            guarded: the kernel itself refuses metadata of what isn't granted: then only its answers are put into words.
            opener: see ``hook.Hooks``.
        """
        plain = _general(judge)
        if not judge.policy.metadata_open:
            plain += _metadata(judge, guarded=guarded)
        self._inherit = inherit = _inheritance(judge)
        if inherit is not None:
            plain += inherit.functions()
        self._judge = judge
        self._threads = False
        self._pairs = [(original, dress(one, original)) for one in plain for original in [_POSIX[one.__name__]]]
        # The import system asks the kernel itself: it looks at many places and takes any refusal for absence.
        self._originals = type(sys)("posix")
        self._originals.__dict__.update(_POSIX)
        if guarded and opener is not None:
            self._originals.__dict__["stat"] = _stat_by_opening(opener, judge.runtime)

    def install(self) -> None:
        """Put them in place."""
        import _frozen_importlib_external as external  # importlib's own name for it would load a package

        external._os = self._originals  # type: ignore[attr-defined]
        sets = [getattr(os, name) for name in _SUPPORTS]
        for original, wrapper in self._pairs:
            name = wrapper.__name__
            setattr(posix, name, wrapper)
            setattr(os, name, wrapper)
            for functions in sets:
                if original in functions:
                    functions.discard(original)
                    functions.add(wrapper)
        self._mind_threads()
        self._mind_modules()
        if self._inherit is not None:
            self._inherit.begin()

    def narrow(self) -> None:
        """Add what a narrower policy needs."""
        self._mind_threads()
        for name in INTERPRETERS & sys.modules.keys():
            self._judge.modules[name](sys.modules[name])

    def _mind_threads(self) -> None:
        if sys.version_info < (3, 12) and not self._threads and self._judge.minds_threads():
            self._threads = True
            _wrap_threads(self._judge)

    def _mind_modules(self) -> None:
        """Do to modules that have been imported already, by a ``.pth`` file for example, what is to be done."""
        for name in self._judge.modules.keys() & sys.modules.keys():
            self._judge.modules[name](sys.modules[name])


def dress(plain: Any, original: Callable[..., object]) -> Any:
    """Return the wrapper made to look like the original. All that its code uses is builtin or in its closure."""
    name = original.__name__
    changes: dict[str, Any] = {"co_filename": _SEEN_AS, "co_name": name, "co_firstlineno": 1}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = name
    code = plain.__code__.replace(**changes)
    function: Any = type(dress)
    wrapper = function(code, {"__builtins__": __builtins__}, name, plain.__defaults__, plain.__closure__)
    wrapper.__kwdefaults__ = plain.__kwdefaults__
    wrapper.__doc__ = original.__doc__
    wrapper.__module__ = original.__module__
    return wrapper


def _stat_by_opening(opener: Callable[[bytes], int], folders: tuple[str, ...]) -> Any:
    """Return an ``os.stat`` for the import system that asks the supervisor about few files.

    It stats a file or folder where libraries are granted several times for each module. To open it, and to ask its
    descriptor, is the kernel's business alone, and takes a fifth of the time that the supervisor needs to answer.
    Whatever can't be opened is asked about as ever.

    Args:
        opener: see ``hook.Hooks``.
        folders: where, each with a slash at its end.
    """
    real, about, close = posix.stat, posix.fstat, posix.close
    encode, last = os.fsencode, 0x7FFFFFFF
    themselves = frozenset([folder[:-1] for folder in folders])

    def stat(path: Any, **options: Any) -> os.stat_result:
        if (
            not options
            and path.__class__ is str
            and (path in themselves or path.startswith(folders))
            and "\0" not in path
        ):
            descriptor = opener(encode(path))
            if descriptor <= last:
                try:
                    return about(descriptor)
                finally:
                    close(descriptor)
        return real(path, **options)

    return stat


def _general(judge: Judge) -> list[Any]:
    """Return the wrappers that every policy needs."""
    denial, slot, write, itself = judge.denial, judge.slot, WRITE, ITSELF
    real_mkfifo, real_mknod, real_open = posix.mkfifo, posix.mknod, posix.open

    def mkfifo(path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        error = denial(write, path, dir_fd, itself)
        if error is not None:
            raise error
        real_mkfifo(path, mode, dir_fd=dir_fd)

    def mknod(path: Any, mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None) -> None:
        error = denial(write, path, dir_fd, itself)
        if error is not None:
            raise error
        real_mknod(path, mode, device, dir_fd=dir_fd)

    # The audit event of os.open() doesn't tell of a dir_fd.
    def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: A001
        if dir_fd is None:
            return real_open(path, flags, mode)
        slot.folder = dir_fd
        try:
            return real_open(path, flags, mode, dir_fd=dir_fd)
        finally:
            slot.folder = None

    return [mkfifo, mknod, open]


def _metadata(judge: Judge, *, guarded: bool) -> list[Any]:  # noqa: PLR0915 - signatures are spelled out
    """Return the wrappers of the stat family: they ask the policy first, or, where the kernel guards, only after it."""
    before = judge.metadata_denial
    check = None if guarded else before
    # What the kernel refuses where nothing is enforced is no denial of ours.
    explain, refusal = (before, judge.denial) if judge.policy.mode == "enforce" else (_nothing, _nothing)
    denial, read, write, writes, follow, itself = judge.denial, READ, WRITE, os.W_OK, FOLLOW, ITSELF
    reads = os.R_OK
    real_stat, real_lstat, real_readlink = posix.stat, posix.lstat, posix.readlink
    real_statvfs, real_pathconf, real_access = posix.statvfs, posix.pathconf, posix.access

    def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        error = check and check(path, dir_fd, follow if follow_symlinks else itself)
        if error is None:
            try:
                return real_stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
            except PermissionError:
                error = explain(path, dir_fd, follow if follow_symlinks else itself)
                if error is None:
                    raise
        raise error

    def lstat(path: Any, *, dir_fd: int | None = None) -> os.stat_result:
        error = check and check(path, dir_fd, itself)
        if error is None:
            try:
                return real_lstat(path, dir_fd=dir_fd)
            except PermissionError:
                error = explain(path, dir_fd, itself)
                if error is None:
                    raise
        raise error

    def readlink(path: Any, *, dir_fd: int | None = None) -> Any:
        error = check and check(path, dir_fd, itself)
        if error is None:
            try:
                return real_readlink(path, dir_fd=dir_fd)
            except PermissionError:
                error = explain(path, dir_fd, itself)
                if error is None:
                    raise
        raise error

    # What tells of the file system needs more than what tells of the file: above a grant it isn't open.
    def statvfs(path: Any) -> os.statvfs_result:
        error = check and denial(read, path, None, follow)
        if error is None:
            try:
                return real_statvfs(path)
            except PermissionError:
                error = refusal(read, path, None, follow)
                if error is None:
                    raise
        raise error

    def pathconf(path: Any, name: str | int) -> int:
        error = check and denial(read, path, None, follow)
        if error is None:
            try:
                return real_pathconf(path, name)
            except PermissionError:
                error = refusal(read, path, None, follow)
                if error is None:
                    raise
        raise error

    def access(
        path: Any, mode: int, *, dir_fd: int | None = None, effective_ids: bool = False, follow_symlinks: bool = True
    ) -> bool:
        links = follow if follow_symlinks else itself
        # The answer is what a following open would meet. What can be read can be known of.
        error = denial(read, path, dir_fd, links) if mode & reads else before(path, dir_fd, links)
        if error or (mode & writes and denial(write, path, dir_fd, links)):
            return False
        return real_access(path, mode, dir_fd=dir_fd, effective_ids=effective_ids, follow_symlinks=follow_symlinks)

    wrappers = [stat, lstat, readlink, statvfs, pathconf]
    # Where the kernel guards, os.access() answers False by itself.
    return wrappers if guarded else [*wrappers, access]


def _inheritance(judge: Judge) -> ModuleType | None:
    """Return ``child.inherit`` where the program may start others, else None."""
    if not judge.policy.granted("child"):
        return None
    if f"{__package__}.inherit" not in sys.modules:
        image.load("inherit")
    from sandboxed_python.child import inherit

    return inherit if inherit.possible() else None


def modules(judge: Judge) -> dict[str, Callable[[Any], None]]:
    """Return what is to be done to modules when they are imported: name -> function of the module."""
    found: dict[str, Callable[[Any], None]] = {
        "_multiprocessing": lambda module: _wrap_semaphores(module, judge),
        "_posixshmem": lambda module: _wrap_shared_memory(module, judge),
    }
    for name in INTERPRETERS:
        found[name] = lambda module: _refuse(module, "create", judge)
    inherit = _inheritance(judge)
    found["_posixsubprocess"] = lambda module: _wrap_fork_exec(module, judge, inherit)
    return found


def _nothing(*_about: Any) -> None:
    """Explain nothing."""


def _refuse(module: Any, name: str, judge: Judge) -> None:
    """Replace a function that starts something that only ``--allow-worker`` allows, unless that is granted."""
    if judge.policy.granted("worker"):
        return
    refusal, real = judge.refusal, getattr(module, name)

    def refused(*arguments: Any, **options: Any) -> Any:
        error = refusal("worker")
        if error is not None:
            raise error
        return real(*arguments, **options)

    setattr(module, name, dress(refused, real))


def _wrap_fork_exec(module: Any, judge: Judge, inherit: Any) -> None:
    """Judge the start of a program where no event tells of it; ``inherit``: have a Python that is started get the hook.

    ``subprocess`` raises an event before it comes here; multiprocessing, for its resource tracker and for what the
    start methods spawn and forkserver run, comes here alone.
    """
    real = module.fork_exec
    start = inherit.fork_exec(module) if inherit is not None else real
    refusal, caller, fsdecode = judge.refusal, sys._getframe, os.fsdecode

    def fork_exec(*arguments: Any) -> Any:
        if caller(1).f_globals.get("__name__") != "subprocess":
            try:
                program = fsdecode(arguments[1][0])
            except (LookupError, TypeError):  # the call itself says what is wrong
                program = ""
            error = refusal("child", program)
            if error is not None:
                raise error
        return start(*arguments)

    module.fork_exec = wrapper = dress(fork_exec, real)
    if inherit is not None:
        inherit.reach_subprocess(real, wrapper)


def _wrap_semaphores(module: Any, judge: Judge) -> None:
    """Put into words that a POSIX semaphore is a file in ``/dev/shm`` (sem_overview(7))."""
    real = getattr(module, "SemLock", None)
    if real is None:
        return
    denial = judge.shared_denial

    def make(cls: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return real.__new__(cls, *arguments, **options)
        except OSError:  # an older glibc that may not look there says that it isn't there
            error = denial(writes=True)
            if error is None:
                raise
        raise error

    names = {
        "__doc__": real.__doc__,
        "__module__": real.__module__,
        "__new__": dress(make, real.__new__),
        "__slots__": (),
    }
    module.SemLock = type(real.__name__, (real,), names)


def _wrap_shared_memory(module: Any, judge: Judge) -> None:
    """Put into words that shared memory is a file in ``/dev/shm`` (shm_overview(7))."""
    real = module.shm_open
    denial = judge.shared_denial
    writing = os.O_ACCMODE | os.O_CREAT

    def shm_open(path: str, flags: int, mode: int = 0o777) -> int:
        try:
            return real(path, flags, mode)  # type: ignore[no-any-return]
        except OSError:  # an older glibc that may not look there says that it isn't there
            error = denial(writes=bool(flags & writing))
            if error is None:
                raise
        raise error

    module.shm_open = dress(shm_open, real)


def _wrap_threads(judge: Judge) -> None:
    """Judge the start of threads where no event tells of it."""
    import _thread

    real_start = _thread.start_new_thread
    thread_denial = judge.thread_denial

    def start_new_thread(*arguments: Any) -> int:
        error = thread_denial()
        if error is not None:
            raise error
        return real_start(*arguments)

    start = dress(start_new_thread, real_start)
    _thread.start_new_thread = _thread.start_new = start
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._start_new_thread = start  # type: ignore[attr-defined]
