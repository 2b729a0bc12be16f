"""Executable file mappings and the first exec: what a path rule can't say, decided by which file it is.

Runs in: supervisor.

A mapping is judged by the descriptor's file and then continued: the kernel reads the descriptor number from a register,
but a second thread could put another file in its place meanwhile. So only a process with one thread gets one: nobody
else shares its descriptors (the static filter refuses ``CLONE_FILES`` without ``CLONE_THREAD``), and the one thread is
waiting for the answer.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.broker.request import Request
    from sandboxed_python.plan.model import MapGate
    from sandboxed_python.policy.model import Policy


def may_map(gate: MapGate, policy: Policy, task: int, descriptor: int) -> bool:
    """Tell whether task ``task`` may map the file of its descriptor executable.

    Raises:
        OSError: the task or its descriptor is gone; the caller denies.
    """
    if os.stat(f"/proc/{task}/task").st_nlink != 3:  # ".", "..", and one thread
        return False
    link = f"/proc/{task}/fd/{descriptor}"
    path = os.readlink(link)
    if not may_map_path(gate, policy, path):
        return False
    # The name is that of the file, and not of another that took its place (or of "x (deleted)").
    return os.path.samestat(os.stat(link), os.stat(path))


def tell_mapping(request: Request, descriptor: int) -> None:
    """Tell that the file of one of the caller's descriptors is not mapped executable."""
    path = descriptor_path(request, descriptor)
    request.resource = os.fsencode(path)
    request.denied("addon", path or None)


def descriptor_path(request: Request, descriptor: int) -> str:
    """Return where the file of one of the caller's descriptors is; ``""`` if that can't be told."""
    try:
        return os.readlink(f"/proc/{request.task}/fd/{descriptor}")
    except OSError:
        return ""


def may_map_path(gate: MapGate, policy: Policy, path: str) -> bool:
    """Tell whether the file at ``path`` (absolute, resolved) may be mapped executable."""
    if not policy.readable(path) or policy.writable(path) or path.startswith(gate.begun):
        return False
    if any(path == place or path.startswith(place + "/") for place in gate.written):
        return False
    if any(part in path for part in gate.open_to):
        return True
    if any(part in path for part in gate.banned):
        return False
    return path in gate.files or any(path.startswith(tree + "/") or tree == "/" for tree in gate.trees)
