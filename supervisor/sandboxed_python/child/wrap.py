"""Wrappers of functions that raise no audit event: ``os.stat`` and its family, ``os.mkfifo``, thread start.

Runs in: child. They keep name, documentation, signature and module of what they wrap; their code names ``<frozen os>``
as its file, so that a traceback shows nothing of this package. ``importlib`` keeps the originals.
"""

from __future__ import annotations

import os
import posix
import sys

from sandboxed_python.child.events import FOLLOW, ITSELF, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType
    from typing import Any

    from sandboxed_python.child.hook import Judge
    from sandboxed_python.errors import AccessDeniedError

_SUPPORTS = ("supports_bytes_environ", "supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")


def install(judge: Judge, *, guarded: bool) -> None:
    """Put the wrappers in place: into ``posix`` and ``os``, and on Pythons without thread events into ``_thread``.

    Args:
        judge: judges the paths.
        guarded: the kernel itself refuses metadata of what isn't granted: then only its answers are put into words.
    """
    import _frozen_importlib_external as external

    originals = type(sys)("posix")
    originals.__dict__.update(posix.__dict__)
    external._os = originals  # type: ignore[attr-defined]
    wrappers = _general(judge)
    if not judge.metadata_everywhere():
        wrappers += _metadata(judge, guarded=guarded)
    sets = [found for found in (getattr(os, name, None) for name in _SUPPORTS) if isinstance(found, set)]
    for wrapper in wrappers:
        name = wrapper.__name__
        original = getattr(posix, name, None)
        if original is not None:
            _dress(wrapper, original)
            setattr(posix, name, wrapper)
            setattr(os, name, wrapper)
            for found in sets:
                if original in found:
                    found.discard(original)
                    found.add(wrapper)
    if sys.version_info < (3, 12) and judge.minds_threads():
        _wrap_threads(judge)


def _dress(wrapper: Any, original: Callable[..., object]) -> None:
    name = wrapper.__name__
    changes = {"co_filename": "<frozen os>"}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = name
    wrapper.__code__ = wrapper.__code__.replace(**changes)
    wrapper.__doc__ = original.__doc__
    wrapper.__module__ = original.__module__
    wrapper.__qualname__ = name
    wrapper.__annotations__ = {}


def _general(judge: Judge) -> list[Any]:
    """Wrap what is wrapped under every policy with limits."""
    denial = judge.denial
    slot = judge.slot
    real_mkfifo, real_mknod, real_open = posix.mkfifo, posix.mknod, posix.open

    def mkfifo(path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        error = denial(WRITE, path, dir_fd, ITSELF)
        if error is not None:
            raise error
        real_mkfifo(path, mode, dir_fd=dir_fd)

    def mknod(path: Any, mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None) -> None:
        error = denial(WRITE, path, dir_fd, ITSELF)
        if error is not None:
            raise error
        real_mknod(path, mode, device, dir_fd=dir_fd)

    # The event of os.open() doesn't tell of a dir_fd.
    def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: A001
        if dir_fd is None:
            return real_open(path, flags, mode)
        slot.elsewhere = True
        try:
            return real_open(path, flags, mode, dir_fd=dir_fd)
        finally:
            slot.elsewhere = False

    return [mkfifo, mknod, open]


def _metadata(judge: Judge, *, guarded: bool) -> list[Any]:
    explain = judge.metadata_denial
    check = None if guarded else explain
    real_stat, real_lstat, real_readlink = posix.stat, posix.lstat, posix.readlink
    real_statvfs, real_pathconf, real_access = posix.statvfs, posix.pathconf, posix.access
    error: AccessDeniedError | None

    def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        error = check and check(path, dir_fd, FOLLOW if follow_symlinks else ITSELF)
        if error is None:
            try:
                return real_stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
            except PermissionError:
                error = explain(path, dir_fd, FOLLOW if follow_symlinks else ITSELF)
                if error is None:
                    raise
        raise error

    def lstat(path: Any, *, dir_fd: int | None = None) -> os.stat_result:
        error = check and check(path, dir_fd, ITSELF)
        if error is None:
            try:
                return real_lstat(path, dir_fd=dir_fd)
            except PermissionError:
                error = explain(path, dir_fd, ITSELF)
                if error is None:
                    raise
        raise error

    def readlink(path: Any, *, dir_fd: int | None = None) -> Any:
        error = check and check(path, dir_fd, ITSELF)
        if error is None:
            try:
                return real_readlink(path, dir_fd=dir_fd)
            except PermissionError:
                error = explain(path, dir_fd, ITSELF)
                if error is None:
                    raise
        raise error

    def statvfs(path: Any) -> os.statvfs_result:
        error = check and check(path, None, FOLLOW)
        if error is None:
            try:
                return real_statvfs(path)
            except PermissionError:
                error = explain(path, None, FOLLOW)
                if error is None:
                    raise
        raise error

    def pathconf(path: Any, name: str | int) -> int:
        error = check and check(path, None, FOLLOW)
        if error is None:
            try:
                return real_pathconf(path, name)
            except PermissionError:
                error = explain(path, None, FOLLOW)
                if error is None:
                    raise
        raise error

    def access(
        path: Any, mode: int, *, dir_fd: int | None = None, effective_ids: bool = False, follow_symlinks: bool = True
    ) -> bool:
        links = FOLLOW if follow_symlinks else ITSELF
        if explain(path, dir_fd, links) is not None:
            return False
        if mode & os.W_OK and judge.denial(WRITE, path, dir_fd, links) is not None:
            return False
        return real_access(path, mode, dir_fd=dir_fd, effective_ids=effective_ids, follow_symlinks=follow_symlinks)

    # A guarding kernel makes os.access() answer False by itself.
    return [stat, lstat, readlink, statvfs, pathconf] if guarded else [stat, lstat, readlink, statvfs, pathconf, access]


def _wrap_threads(judge: Judge) -> None:
    import _thread

    real_start = _thread.start_new_thread

    def start_new_thread(*arguments: Any) -> int:
        error = judge.thread_denial()
        if error is not None:
            raise error
        return real_start(*arguments)

    _dress(start_new_thread, real_start)
    _thread.start_new_thread = _thread.start_new = start_new_thread  # type: ignore[assignment,attr-defined]
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._start_new_thread = start_new_thread  # type: ignore[attr-defined]
