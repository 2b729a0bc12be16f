"""The recorded answers of the real Node, replayed through the whole product: command, kernel, broker, hook."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.child.replay import compare, fill, put, snapshot
from tests.child.replay import load as load_runs

if TYPE_CHECKING:
    import pathlib
    from typing import Any

SETUPS, RUNS = load_runs()
RUNS = [case for case in RUNS if not case.get("audit")]
CHUNKS = 24

# Runs one case: says that it is ready, waits for what happens "late", and tells what came of it.
PROBE = """
import errno, json, os, sys
case = json.loads(sys.argv[1])
def fill(value):
    if isinstance(value, dict) and "$bytes" in value:
        return bytes.fromhex(value["$bytes"])
    if isinstance(value, dict) and "$path" in value:
        import pathlib
        return pathlib.Path(value["$path"])
    return value
names = {"os": os, "sys": sys, "a": fill(case.get("a")), "b": fill(case.get("b"))}
print("ready", flush=True)
sys.stdin.readline()
try:
    try:
        code = compile(case["run"], "<case>", "eval")
    except SyntaxError:
        exec(compile(case["run"], "<case>", "exec"), names)
        value = names.get("r")
    else:
        value = eval(code, names)
except BaseException as error:
    name = getattr(error, "code", None) or errno.errorcode.get(getattr(error, "errno", None) or 0)
    told = {"permission": getattr(error, "permission", None), "resource": getattr(error, "resource", None)}
    answer = {"code": name, "frames": [], "type": type(error).__name__, "text": str(error), **told}
else:
    answer = {"ok": True, "value": value}
print(json.dumps(answer, default=repr), flush=True)
"""


# Runs the probe in a Python of its own.
STARTER = """
import subprocess, sys
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[1:]], env={}).returncode)
"""


def replay(case: dict[str, Any], top: str, *, child: bool = False) -> str:
    """Replay one case and tell what was wrong; with ``child`` in a Python that a confined program starts."""
    put(SETUPS[case["setup"]], top)
    before = snapshot(top)
    python = {name: fill(value, top) if isinstance(value, str) else value for name, value in case["python"].items()}
    for name in ("a", "b"):
        if isinstance(python.get(name), dict) and "$path" in python[name]:
            python[name] = {"$path": fill(python[name]["$path"], top)}
    python["run"] = case["python"]["run"]
    flags = [flag.replace("$ROOT", top) for flag in case["flags"]]
    mode = "--permission-audit" if case.get("audit") else "--permission"
    words = ["--allow-child-process", "-c", STARTER, PROBE] if child else ["-c", PROBE]
    with subprocess.Popen(
        [*support.installed(), mode, *flags, *words, json.dumps(python)],
        cwd=fill(case["cwd"], top),
        env=support.clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = process.stdout.readline()
        if case.get("late"):
            put(case["late"], top)
            before = snapshot(top)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("\n")
            process.stdin.flush()
        out, err = process.communicate(timeout=60)
    if ready != "ready\n" or not out:
        return f"died: {ready!r} {out!r} {err}"
    got = json.loads(out.splitlines()[-1])
    after = snapshot(top)
    expect = case["expect"]
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    allowed = [path.partition("XXX")[0] for path in expect.get("changes", [])]
    strange = [
        path for path in changed if not any(path == a or (a[-1:] == "-" and path.startswith(a)) for a in allowed)
    ]
    if strange:
        return f"changed {strange}"
    if expect.get("changes") and not changed:
        return "changed nothing"
    if expect.get("bare") and got.get("type") == expect["bare"]:
        return ""
    return compare(expect, got, top)


# A third of the cases always.
@pytest.mark.parametrize(
    "chunk", [pytest.param(chunk, marks=[pytest.mark.slow] if chunk % 3 else []) for chunk in range(CHUNKS)]
)
def test_operations(chunk: int, tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """Every recorded operation ends as recorded, and changes what was recorded and nothing else."""
    wrong = {}
    for case in RUNS[chunk::CHUNKS]:
        top = os.path.realpath(tmp_path / case["id"])
        os.mkdir(top)
        text = replay(case, top)
        if text:
            wrong[case["id"]] = (text, case["flags"], case["python"], case["expect"])
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "chunk", [pytest.param(chunk, marks=[pytest.mark.slow] if chunk % 6 else []) for chunk in range(12)]
)
def test_operations_in_a_child(chunk: int, tmp_path: pathlib.Path, sandbox: support.Run) -> None:
    """A Python that the program starts answers as the program would."""
    wrong = {}
    for case in [case for case in RUNS if case["expect"].get("permission") != "ChildProcess"][chunk::12]:
        top = os.path.realpath(tmp_path / case["id"])
        os.mkdir(top)
        text = replay(case, top, child=True)
        if text:
            wrong[case["id"]] = (text, case["flags"], case["python"], case["expect"])
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_every_case_is_replayed() -> None:
    """A filter that loses cases must not go unnoticed."""
    assert len(RUNS) == len({case["id"] for case in RUNS}) > 360
