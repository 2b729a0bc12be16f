"""``--check``: what this kernel and container can enforce.

Runs in: supervisor. Questions that only trying answers are tried in a forked child.
"""

from __future__ import annotations

import errno
import os

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import landlock, process, seccomp, uapi
from sandboxed_python.kernel.probe import probe
from sandboxed_python.plan.build import NEEDED_ABI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxed_python.kernel.probe import Support

# One instruction, BPF_RET: allow everything.
_ALLOW_ALL = (0x06).to_bytes(8, "little")[:4] + uapi.SECCOMP_RET_ALLOW.to_bytes(4, "little")


def check(*, as_json: bool) -> tuple[str, bool]:
    """Return the report and whether everything that a policy can need is there."""
    rows = report(probe())
    enough = all(good for _name, good, _found, _meaning in rows)
    if as_json:
        import json

        listed = [{"name": n, "ok": g, "found": f, "meaning": m} for n, g, f, m in rows]
        return json.dumps({"ok": enough, "rows": listed}, indent=2), enough
    width = max(len(name) for name, *_rest in rows)
    found_width = max(len(found) for _n, _g, found, _m in rows)
    lines = [
        f"{'ok ' if good else 'NO '} {name.ljust(width)}  {found.ljust(found_width)}  {meaning}"
        for name, good, found, meaning in rows
    ]
    last = "everything can be enforced here" if enough else "not everything can be enforced here: see the rows with NO"
    return "\n".join([*lines, "", last]), enough


def report(support: Support) -> list[tuple[str, bool, str, str]]:
    """Return the rows: name, good enough, what was found, what it is for."""
    abi = support.landlock
    rows = [
        ("kernel", True, support.release, "Linux 6.12 or later has all that is needed"),
        ("architecture", support.machine in uapi.AUDIT_ARCH, support.machine, "filters exist for x86_64 and aarch64"),
        (
            "Landlock ABI", abi >= NEEDED_ABI, f"{abi} {support.landlock_error}".strip(),
            f"files, signals, TCP ports; {NEEDED_ABI} or higher is needed",
        ),
    ]  # fmt: skip
    tables = (landlock.FS_RIGHTS, landlock.NET_RIGHTS, landlock.SCOPES)
    for name, _bit, since, what in [row for table in tables for row in table]:
        optional = since > NEEDED_ABI
        there = since <= abi
        rows.append((f"  {name}", there or optional, "yes" if there else f"from ABI {since}", what))
    rows += [
        ("seccomp filters", support.seccomp, _yes(support.seccomp), "system calls decided by number and integers"),
        ("seccomp notification", support.notify, _yes(support.notify), "calls that the supervisor answers"),
    ]
    for name, trial, meaning in (
        ("no_new_privs", process.set_no_new_privs, "set-id programs gain nothing"),
        ("install a filter", _install, "the container lets seccomp(2) through"),
        ("install a listener", _listen, "the container lets notifications through"),
        ("restrict with Landlock", _restrict, "the container lets Landlock through"),
        ("read a child's memory", _read_child, "process_vm_readv(2) on one's own child: needed for notified calls"),
    ):
        good, found = _tried(trial)
        rows.append((name, good, found, meaning))
    rows.append(
        (
            "Yama ptrace_scope",
            *yama(),
            "0 and 1 let the supervisor read its child's memory, 2 and 3 don't (ptrace(2))",
        )
    )
    _effective, permitted, _inheritable = process.get_capabilities()
    held = [name for number, name in enumerate(uapi.CAPABILITIES) if permitted >> number & 1]
    kept = [name for name in held if name in process.KEPT_CAPABILITIES]
    rows.append(
        ("capabilities", True, f"{len(held)} held, {len(kept)} kept", "the rest is given up before the program")
    )
    rows.append(("memory control group", True, *memory_group()))
    return rows


def memory_group() -> tuple[str, str]:
    """Return whether the kernel would limit a job's memory here, and what follows."""
    from sandboxed_python.launch import cgroup

    folder, why = cgroup.find()
    meaning = "--limit-memory is watched; with a group of the job's own, the kernel holds it, too"
    return (f"below {folder}", meaning) if folder else ("no", f"{meaning} ({why})")


def yama(setting: str = "/proc/sys/kernel/yama/ptrace_scope") -> tuple[bool, str]:
    """Return whether the Yama security module leaves a child's memory to its parent, and what was found.

    Its levels: 0 as without it, 1 descendants only, 2 with CAP_SYS_PTRACE only, which the supervisor gives up, 3 nobody
    (Documentation/admin-guide/LSM/Yama.rst).
    """
    try:
        with open(setting, "rb") as file:
            level = file.read(16).strip().decode("ascii", "replace")
    except FileNotFoundError:
        return True, "no Yama"
    except OSError as error:
        return True, f"unknown: {error.strerror}"
    return level in ("0", "1"), level


def _yes(good: bool) -> str:  # noqa: FBT001
    return "yes" if good else "no"


def _tried(trial: Callable[[], object]) -> tuple[bool, str]:
    """Run ``trial`` in a forked child; return whether it worked and what came of it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "yes"
        try:
            trial()
        except Exception as error:  # noqa: BLE001 - this process must end here, whatever a trial does
            text = f"no: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    text = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return text == "yes", text or "no: the trial died"


def _install() -> None:
    process.set_no_new_privs()
    seccomp.load_filter(_ALLOW_ALL)


def _listen() -> None:
    process.set_no_new_privs()
    seccomp.load_notifying_filter(_ALLOW_ALL)


def _restrict() -> None:
    from sandboxed_python.kernel.calls import syscall

    process.set_no_new_privs()
    abi = syscall("landlock_create_ruleset", None, 0, uapi.LANDLOCK_CREATE_RULESET_VERSION)
    attributes = landlock.pack_ruleset(landlock.full(abi), abi)
    ruleset = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    syscall("landlock_restrict_self", ruleset, 0)


def _read_child() -> None:
    """Read a child's memory with the rights that the supervisor has when it answers."""
    from sandboxed_python.kernel.calls import Block
    from sandboxed_python.kernel.notify import ClosedError, read_memory

    process.cut_capabilities(process.capability_mask(process.KEPT_CAPABILITIES))
    secret = Block(b"readable")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        if read_memory(pid, secret.address, 8) != b"readable":
            raise KernelError(errno.EIO, "process_vm_readv", str(pid))
    except ClosedError as error:
        raise KernelError(errno.EPERM, "process_vm_readv", str(pid)) from error
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
