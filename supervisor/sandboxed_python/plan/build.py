"""From a policy and what this kernel can do to a plan.

Runs in: supervisor.
"""

from __future__ import annotations

import os

from sandboxed_python import image
from sandboxed_python.errors import UnsupportedError
from sandboxed_python.kernel import landlock
from sandboxed_python.kernel.landlock import Ruleset
from sandboxed_python.plan import implicit
from sandboxed_python.plan.filters import AUDIT, QUIET, variant
from sandboxed_python.plan.landlock import path_rules
from sandboxed_python.plan.model import MapGate, Plan
from sandboxed_python.policy.model import is_broad
from sandboxed_python.policy.table import WASM_RUNTIMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sandboxed_python.kernel.probe import Support
    from sandboxed_python.plan.landlock import Written
    from sandboxed_python.plan.model import Target
    from sandboxed_python.plan.runtime import Runtime
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import Grant

# Without these the promise of a denial is empty: Landlock ABI 6 has them all. TCP rights (ABI 4) are a second wall
# behind the seccomp filter's, and later rights are used where they are there.
NEEDED_ABI = 6
# The program interpreters (ELF PT_INTERP) that the kernel itself opens at an execve, as far as they exist.
LOADERS = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
)
# Loaders' variables: what they name would run in the child before the hook, or in every program it starts.
LOADER_PREFIX = "LD_"


def build(  # noqa: PLR0913
    policy: Policy,
    target: Target,
    runtime: Runtime,
    support: Support,
    *,
    entry: Grant | None,
    keep_capabilities: int,
    fork: bool,
    supervisor: Runtime | None = None,
    logged: bool = False,
) -> Plan:
    """Plan the confinement of one child.

    Args:
        policy: what the user granted.
        target: what to run.
        runtime: the interpreter that runs it.
        support: what this kernel can do.
        entry: the grant of the entry script, or None.
        keep_capabilities: bit mask of the capabilities that root keeps.
        fork: run in a fork of this interpreter; else exec ``target.python``.
        supervisor: the interpreter that runs the supervisor, if it is another one than ``runtime``.
        logged: denials are noted.

    Raises:
        PolicyError: a grant is refused: it covers the interpreter's own files, or names /proc, /sys or a device.
        UnsupportedError: this kernel can't enforce the policy, and ``--best-effort`` was not given.
    """
    protection = None
    if policy.read or policy.write:
        image.load("grants")
        from sandboxed_python.plan.protect import Protection

        protection = Protection((runtime,) if supervisor is None else (supervisor, runtime))
        protection.check(policy)
    real = implicit.RealPaths()
    read = implicit.implicit_read(policy, runtime, entry if policy.entrypoint else None, real)
    programs = (*implicit.LIBRARY_TREES, *implicit.PROGRAM_TREES) if policy.granted("child") else ()
    effective = policy.replace(
        read=(*policy.read, *read),
        write=(*policy.write, *implicit.implicit_write(policy, real)),
        protected=protection.left_out(policy, read) if protection else (),
    )
    enforced = policy.mode == "enforce"
    ruleset, abi, missing = _ruleset(policy, support) if enforced else _watched(policy, support)
    interpreter = () if fork else tuple(os.path.realpath(path) for path in (runtime.executable, *LOADERS))
    # Only where something may be executed or mapped does it matter what else is a name of what may be written.
    code = bool(policy.write) and not (policy.granted("addon") and not policy.granted("child"))
    written = protection.written(policy) if protection and code else ((), ())
    rules = path_rules(effective, existing(programs), interpreter, written=written) if abi else ()
    gate = map_gate(policy, runtime, real, written)
    parts: tuple[str, ...] = ()
    if support.notify:
        watching = (AUDIT if logged else QUIET,)
        parts = notify_parts(policy, mapped=gate is not None, fork=fork) if enforced else watching
    return Plan(
        policy=effective,
        target=target,
        way="fork" if fork else "exec",
        abi=abi,
        ruleset=ruleset,
        rules=rules,
        static_filter=variant(filter_scopes(policy), exec_way=not fork) if support.seccomp and enforced else "",
        notify_parts=parts,
        fstat_passes=fork and fstat_can_pass(policy, support.machine) and "stat" in parts,
        map_gate=gate,
        unset=tuple(sorted(name for name in os.environ if name.startswith(LOADER_PREFIX))) if enforced else (),
        keep_capabilities=keep_capabilities if enforced else -1,
        missing=tuple(missing),
        machine=support.machine,
    )


def notify_parts(policy: Policy, *, mapped: bool, fork: bool) -> tuple[str, ...]:
    """Return the parts of the notifying filter that a policy can't do without; see ``plan.seccomp.PART_REASONS``.

    Args:
        policy: what the user granted.
        mapped: there is a gate for executable mappings.
        fork: as for ``build``.
    """
    parts = ["change"]
    if mapped:
        parts.append("map")
    if not fork and not policy.granted("child"):
        parts.append("exec")
    if not policy.metadata_open:
        parts.append("stat")
    if policy.write:
        parts.append("names")
    if not all(_is_landlocks(grant, within_files=not _replaceable(grant, policy)) for grant in policy.read):
        parts.append("open")
    elif not all(_is_landlocks(grant, within_files=False) for grant in policy.write):
        parts.append("write")
    if policy.granted("net"):
        parts.append("unix")
    return tuple(sorted(parts))


def fstat_can_pass(policy: Policy, machine: str) -> bool:
    """Tell whether the address of libc's empty path means an empty path for as long as the job lives.

    Programs that the job starts have their own memory there, and who may write libc's file may change it in memory.
    """
    return machine == "x86_64" and not policy.granted("child") and not policy.writable_runtime


def _replaceable(grant: Grant, policy: Policy) -> bool:
    """Tell whether a grant is of a file that the program may replace: Landlock's rule would stay with the old one."""
    return grant.kind == "path" and any(policy.writable(path) for path in grant.paths)


def _is_landlocks(grant: Grant, *, within_files: bool) -> bool:
    """Tell whether Landlock alone opens what a grant names: an existing tree, or everything to read, or a file.

    A file that may be written may be replaced by another of its name, which Landlock has no rule for.
    """
    if grant.kind == "all":
        return within_files
    if grant.kind == "tree":
        return os.path.isdir(grant.paths[0]) and (within_files or not is_broad(grant))
    return grant.kind == "path" and within_files and os.path.exists(grant.paths[0])


def filter_scopes(policy: Policy) -> frozenset[str]:
    """Return the scopes that the static seccomp filter distinguishes; several open executable memory."""
    scopes = {scope for scope in ("child", "worker", "net", "inspector") if policy.granted(scope)}
    if any(policy.granted(scope) for scope in ("addon", "ffi", "wasi")):
        scopes.add("exec-memory")
    return frozenset(scopes)


def map_gate(policy: Policy, runtime: Runtime, real: implicit.RealPaths, written: Written = ((), ())) -> MapGate | None:
    """Return which files may be mapped executable; None with addons: machine code needs no file then."""
    if policy.granted("addon"):
        return None
    trees = [*implicit.LIBRARY_TREES, f"{runtime.platstdlib}/lib-dynload", f"{runtime.base_prefix}/lib"]
    files = [real.of(runtime.executable) or runtime.executable]
    # With --allow-ffi, ctypes may load what the user's own grants let the program read.
    if policy.granted("ffi"):
        trees += [path for grant in policy.read if grant.kind == "tree" for path in grant.paths]
        trees += ["/"] if policy.reader.all else []
        files += [place for grant in policy.read if grant.kind == "path" for place in grant.paths[:1]]
    if policy.granted("child"):
        trees += implicit.PROGRAM_TREES
    return MapGate(
        trees=tuple(dict.fromkeys(place for path in trees if (place := real.of(path)))),
        files=tuple(dict.fromkeys(files)),
        banned=("/site-packages/", "/dist-packages/", "/lib-dynload/_test", "/lib-dynload/_xx", "/lib-dynload/xx"),
        open_to=WASM_RUNTIMES if policy.granted("wasi") else (),
        written=written[0],
        begun=written[1],
    )


def existing(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the paths that are directories."""
    return tuple(path for path in paths if os.path.isdir(path))


def _watched(policy: Policy, support: Support) -> tuple[Ruleset, int, list[str]]:
    """Return what an audit has instead of ``_ruleset``: no Landlock.

    Raises:
        UnsupportedError: native code can't be watched, and ``--best-effort`` was not given.
    """
    missing = [] if support.notify else ["seccomp notifications (Linux 5.0): what native code does is not seen"]
    if missing and not policy.best_effort:
        message = (
            f"this kernel ({support.release}) can't show the supervisor what is done. "
            f"Missing: {missing[0]}. --best-effort runs without"
        )
        raise UnsupportedError(message)
    return Ruleset(), 0, missing


def _ruleset(policy: Policy, support: Support) -> tuple[Ruleset, int, list[str]]:
    """Decide what Landlock handles, and with what ABI."""
    missing: list[str] = []
    if not support.seccomp:
        missing.append("seccomp filters: threads, processes, sockets and everything else but files stay open")
    if not support.notify:
        missing.append("seccomp notifications (Linux 5.0): native code")
    abi = min(support.landlock, landlock.HIGHEST_ABI)
    wanted, lost = landlock.downgrade(landlock.full(NEEDED_ABI), abi)
    if abi == 0:
        found = f" ({support.landlock_error})" if support.landlock_error else ""
        missing.append(f"Landlock is not available{found}: the file system and signals stay open")
    else:
        missing += [f"Landlock {right}" for right in lost]
    if missing and not policy.best_effort:
        message = (
            f"this kernel ({support.release}) can't enforce the policy. Needed: Landlock ABI {NEEDED_ABI} (Linux "
            f"6.12), seccomp filters and notifications. Found: Landlock ABI {support.landlock}. "
            f"Missing: {'; '.join(missing)}. --best-effort runs without what is missing"
        )
        raise UnsupportedError(message)
    can = landlock.full(abi)
    # Without --allow-net every TCP right is handled and no port granted; with it, none is handled.
    net = 0 if policy.granted("net") else can.net
    return Ruleset(fs=wanted.fs, net=net, scoped=wanted.scoped), abi, missing
