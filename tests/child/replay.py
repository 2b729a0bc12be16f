"""The program that replays the recorded answers of the real Node against the hook alone; it forks for each case.

Runs in: tests only, under any interpreter: it imports nothing that isn't Python's or ours.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ORACLE = os.path.join(ROOT, "tests", "data", "node-oracle.json")
SUPERVISOR = os.path.join(ROOT, "supervisor")
FAMILIES = ("op", "open", "linkop", "resource", "two", "partial", "api", "net", "fd", "audit")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the setups and the cases that run Python code without dropping anything first."""
    with open(ORACLE, encoding="utf-8") as file:
        oracle = json.load(file)
    cases = [
        case
        for case in oracle["cases"]
        if "run" in case["python"] and "calls" not in case["python"] and case["id"].split("-")[0] in FAMILIES
    ]
    return oracle["setups"], cases


# The replaying program


def replay() -> None:
    """Replay every case; one JSON line each: [id, what was wrong, or ""]."""
    sys.path.insert(0, SUPERVISOR)
    import socket  # what many cases import: once is enough
    import urllib.request

    from sandboxed_python.child import hook, permission

    del hook, permission, socket, urllib
    setups, cases = load()
    for case in cases:
        top = os.path.realpath(tempfile.mkdtemp(prefix="replay-"))
        try:
            wrong = judge(case, setups[case["setup"]], top)
        finally:
            shutil.rmtree(top)
        print(json.dumps([case["id"], wrong]), flush=True)


def judge(case: dict[str, Any], setup: list[dict[str, str]], top: str) -> str:
    """Replay one case and tell what was wrong."""
    put(setup, top)
    expect = case["expect"]
    policy = make_policy(case, top)
    put(case.get("late", []), top)
    before = snapshot(top)
    got = in_fork(case, policy, top)
    after = snapshot(top)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    allowed = [path.partition("XXX")[0] for path in expect.get("changes", [])]
    strange = [
        path for path in changed if not any(path == a or (a[-1:] == "-" and path.startswith(a)) for a in allowed)
    ]
    if strange:
        return f"changed {strange}"
    if expect.get("changes") and not changed:
        return "changed nothing"
    return compare(expect, got, top)


def compare(expect: dict[str, Any], got: dict[str, Any], top: str) -> str:
    """Tell what differs from what is expected."""
    if "ok" in expect:
        if not got.get("ok"):
            return f"raised {got}"
        if "value" in expect and got["value"] != fill(expect["value"], top):
            return f"value {got['value']}"
        return ""
    if got.get("code") != expect["code"]:
        return f"got {got}"
    if got.get("permission") != expect.get("permission"):
        return f"permission of {got}"
    resource = fill(expect.get("resource"), top)
    if resource is not None and resource != got["resource"]:
        stem = resource[: -len("XXXXXX")] if resource.endswith("XXXXXX") else None
        if stem is None or not got["resource"].startswith(stem) or "/" in got["resource"][len(stem) :]:
            return f"resource of {got}"
    return f"traceback {got['frames']}" if got["frames"] else ""


def put(steps: list[dict[str, str]], top: str) -> None:
    """Carry out a setup."""
    for step in steps:
        path = os.path.join(top, step["path"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if step["type"] == "file":
            with open(path, "w", encoding="utf-8") as file:
                file.write(step["content"])
        elif step["type"] == "dir":
            os.makedirs(path, exist_ok=True)
        elif step["type"] == "symlink":
            os.symlink(step["target"].replace("$ROOT", top), path)
        elif step["type"] == "hardlink":
            os.link(os.path.join(top, step["target"]), path)
        else:
            raise AssertionError(step)


def snapshot(top: str) -> dict[str, object]:
    """Return what is under a folder, the folders' own times left out."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            told = os.lstat(path)
            times = () if name in folders and not os.path.islink(path) else (told.st_mtime_ns, told.st_ctime_ns)
            found[os.path.relpath(path, top)] = (told.st_ino, told.st_mode, told.st_size, *times)
    return found


def make_policy(case: dict[str, Any], top: str) -> Any:
    """Return the policy of the case's flags; what every interpreter needs is granted without a flag."""
    from sandboxed_python.policy.model import Policy
    from sandboxed_python.policy.patterns import OSLookup, literal_grant
    from sandboxed_python.policy.spelling import parse_grant
    from sandboxed_python.policy.table import BY_FLAG

    needed = {sys.prefix, sys.base_prefix, SUPERVISOR, os.path.dirname(os.__file__)}
    grants: dict[str, list[Any]] = {
        "--allow-fs-read": [literal_grant(path, "runtime", "/", OSLookup, implicit=True) for path in sorted(needed)],
        "--allow-fs-write": [],
    }
    scopes = set()
    for flag in case["flags"]:
        name, _, value = flag.partition("=")
        if value:
            grants[name].append(parse_grant(value.replace("$ROOT", top), name, fill(case["cwd"], top), OSLookup))
        else:
            scopes.add(BY_FLAG[name].scope)
    return Policy(
        mode="audit" if case.get("audit") else "enforce",
        read=tuple(grants["--allow-fs-read"]),
        write=tuple(grants["--allow-fs-write"]),
        scopes=frozenset(scopes),
    )


def fill(value: Any, top: str) -> Any:
    """Put the root into a value of a case, and make the types that JSON hasn't."""
    if isinstance(value, str):
        return value.replace("$ROOT", top)
    if isinstance(value, dict) and "$bytes" in value:
        return bytes.fromhex(value["$bytes"])
    if isinstance(value, dict) and "$path" in value:
        import pathlib

        return pathlib.Path(fill(value["$path"], top))
    return value


def in_fork(case: dict[str, Any], policy: Any, top: str) -> dict[str, Any]:
    """Run a case in a process of its own, under the hook."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.chdir(fill(case["cwd"], top))
            os.write(write, json.dumps(run(case, policy, top), default=repr).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"died": True}


def run(case: dict[str, Any], policy: Any, top: str) -> dict[str, Any]:
    """Run the code of a case and tell how it ended."""
    from sandboxed_python.child import hook, permission

    permission.install(permission.Permission(policy))
    hook.Hooks(policy, guarded=False).install()
    names = {"os": os, "sys": sys, "a": fill(case["python"].get("a"), top), "b": fill(case["python"].get("b"), top)}
    source = case["python"]["run"]
    try:
        try:
            code = compile(source, "<case>", "eval")
        except SyntaxError:
            exec(compile(source, "<case>", "exec"), names)
            value = names.get("r")
        else:
            value = eval(code, names)
    except BaseException as error:  # noqa: BLE001 - it is told to the parent
        frames = []
        at = error.__traceback__
        while at is not None:
            frames.append(at.tb_frame.f_code.co_filename)
            at = at.tb_next
        name = getattr(error, "code", None) or errno.errorcode.get(getattr(error, "errno", None) or 0)
        told = {name: getattr(error, name, None) for name in ("permission", "resource", "flag")}
        ours = [name for name in frames[1:] if name.startswith(SUPERVISOR)]
        return {"code": name, "frames": ours, "type": type(error).__name__, "text": str(error), **told}
    return {"ok": True, "value": value}


if __name__ == "__main__":
    replay()
