"""The examples for container engines, service managers and clusters: well-formed, and in step with one another.

Schemas of our own (``tests/data``) stand for the published ones: they name what the examples use, and require what they
are to show. What an engine makes of them is tested where there is one: ``tests/engine``.
"""

from __future__ import annotations

import configparser
import copy
import importlib
import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from sandboxed_python.launch.exits import CODE
from tests import support
from tests.house.tables import ROOT
from tests.launch.plain import started

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

COMPOSE, JOB = "examples/compose.yaml", "examples/kubernetes/job.yaml"
SERVICE, TIMER = "examples/systemd/orders.service", "examples/systemd/orders.timer"
BATCH = "examples/slurm/job.sh"
SCHEMAS = {COMPOSE: "compose", JOB: "kubernetes-job"}
# What a further attempt would end with, too: python's usage, bad options and policies, no interpreter.
IN_VAIN = {CODE["PYTHON_USAGE"], CODE["BAD_OPTION"], CODE["NOT_EXECUTABLE"], CODE["NOT_FOUND"]}


def read(name: str) -> str:
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read(name))
    return loaded


def schema(name: str) -> jsonschema.Draft202012Validator:
    text = json.loads(read(f"tests/data/{SCHEMAS[name]}.schema.json"))
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


# YAML


@pytest.mark.parametrize("name", SCHEMAS)
def test_is_valid_by_its_schema(name: str) -> None:
    assert [f"{error.json_path}: {error.message}" for error in schema(name).iter_errors(load(name))] == []


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        if isinstance(key, str):
            yield (*path, key)
        yield from places(below, (*path, key))


# Names that are given, not known by the schema.
FREE = {("services", "orders"), ("volumes", "out")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_finds_every_misspelt_key(name: str) -> None:
    found = set(places(load(name))) - FREE
    assert len(found) >= 15
    for path in found:
        changed = copy.deepcopy(load(name))
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[f"{path[-1]}x"] = holder.pop(path[-1])
        assert not schema(name).is_valid(changed), path


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        (JOB, ("template", "spec", "securityContext", "runAsNonRoot"), False),
        (JOB, ("template", "spec", "securityContext", "seccompProfile", "type"), "Unconfined"),
        (JOB, ("template", "spec", "containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (JOB, ("template", "spec", "containers", 0, "securityContext", "capabilities", "drop"), []),
        (JOB, ("template", "spec", "containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (JOB, ("template", "spec", "restartPolicy"), "Always"),
        (COMPOSE, ("orders", "read_only"), False),
        (COMPOSE, ("orders", "cap_drop"), []),
        (COMPOSE, ("orders", "user"), "root"),
    ],
)
def test_the_schema_asks_for_a_small_container(name: str, path: tuple[str | int, ...], value: object) -> None:
    changed = load(name)
    holder: Any = changed["spec" if name == JOB else "services"]
    for key in path[:-1]:
        holder = holder[key]
    assert holder[path[-1]] != value
    holder[path[-1]] = value
    assert not schema(name).is_valid(changed)


def test_the_pods_volumes_are_those_that_its_container_mounts() -> None:
    pod = load(JOB)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    rules = load(JOB)["spec"]["podFailurePolicy"]["rules"]
    assert all(
        rule.get("onExitCodes", {}).get("containerName", container["name"]) == container["name"] for rule in rules
    )


def test_containers_mount_what_the_policy_grants() -> None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    granted = toml.loads(read("examples/docker/policy.toml"))["permission"]
    (container,) = load(JOB)["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    service = load(COMPOSE)["services"]["orders"]
    shared = {words[1]: words[2:] == ["ro"] for words in (volume.split(":") for volume in service["volumes"])}
    wanted = dict.fromkeys((path.rstrip("/") for path in granted["allow-fs-write"]), False)
    wanted |= dict.fromkeys((path.rstrip("/") for path in granted["allow-fs-read"]), True)
    assert mounts == shared == wanted


def test_compose_builds_from_what_is_there() -> None:
    build = load(COMPOSE)["services"]["orders"]["build"]
    context = os.path.join(ROOT, "examples", build["context"])
    dockerfile = os.path.join(context, build["dockerfile"])
    copied = re.findall(r"^COPY (.*) \S+$", read(dockerfile), re.MULTILINE)[0].split()
    assert all(os.path.isfile(os.path.join(context, name)) for name in copied)


def test_exit_codes_that_no_further_attempt_changes() -> None:
    (rule,) = (rule for rule in load(JOB)["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    assert set(rule["onExitCodes"]["values"]) == IN_VAIN
    unit = parsed(SERVICE)
    assert set(map(int, unit["Service"]["RestartPreventExitStatus"].split())) == IN_VAIN


# systemd


def parsed(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#", ";"), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(read(name).replace("\\\n", ""))
    return parser


def test_units_parse() -> None:
    assert parsed(SERVICE).sections() == ["Unit", "Service"]
    assert parsed(TIMER).sections() == ["Unit", "Timer", "Install"]


def test_the_unit_lets_the_sandboxs_own_calls_through() -> None:
    allowed = parsed(SERVICE)["Service"]["SystemCallFilter"].split()
    assert set(allowed) == {
        "@system-service",
        *("seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"),
    }


def test_systemd_verifies_the_units(tmp_path: pathlib.Path) -> None:
    """With the command that is installed here; a misspelt line is found."""
    analyze = support.tool("systemd-analyze")
    text = read(SERVICE).replace("/opt/sandboxed-python/bin/sandboxed-python", support.installed()[0])
    for name, changed in (("good", text), ("bad", text.replace("KillMode=", "KilMode="))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "orders.service").write_text(changed)
        (tmp_path / name / "orders.timer").write_text(read(TIMER))
        units = [tmp_path / name / "orders.service", tmp_path / name / "orders.timer"]
        ended = support.execute([analyze, "verify", "--man=no", *units])
        said = "".join(line for line in ended.stderr.splitlines(keepends=True) if str(tmp_path) in line)
        assert ("KilMode" in said) == (name == "bad"), ended.said
        assert said == "" or name == "bad", ended.said


# Slurm


def test_the_batch_script_parses() -> None:
    assert support.execute([support.tool("bash"), "-n", os.path.join(ROOT, BATCH)]).code == 0
    options = re.findall(r"^#SBATCH (--[a-z-]+)=(\S+)$", read(BATCH), re.MULTILINE)
    assert len(options) == read(BATCH).count("\n#SBATCH ")
    # sbatch reads no further than the first command.
    assert read(BATCH).rpartition("\n#SBATCH ")[0].count("\nset ") == 0
    assert re.fullmatch(r"B:TERM@[0-9]+", dict(options)["--signal"])


def environment() -> dict[str, str | None]:
    path = f"{os.path.dirname(support.installed()[0])}:{os.environ['PATH']}"
    return support.clean_environment({"PATH": path, "SLURM_JOB_ID": "7"})  # type: ignore[return-value]


@pytest.mark.kernel
def test_the_batch_script_runs_its_job(tmp_path: pathlib.Path) -> None:
    support.need()
    job, orders = (os.path.join(ROOT, "examples", name) for name in ("csv_totals.py", "data/orders.csv"))
    words = [support.tool("bash"), os.path.join(ROOT, BATCH)]
    ended = support.execute([*words, job, orders, tmp_path / "results"], env=environment())
    assert ended.code == 0, ended.said
    assert json.loads((tmp_path / "results" / "totals-7.json").read_text())
    outside = tmp_path / "outside.py"
    outside.write_text("import sys\nopen(sys.argv[2] + '/../../outside', 'w')")
    ended = support.execute([*words, outside, orders, tmp_path / "results"], env=environment())
    assert ended.code == 1, ended.said
    assert not (tmp_path / "outside").exists()


@pytest.mark.kernel
def test_the_batch_scripts_process_passes_the_signal_on(tmp_path: pathlib.Path) -> None:
    """What ``--signal=B:TERM@60`` does: SIGTERM to the process that the script was started as."""
    support.need()
    job = tmp_path / "job.py"
    job.write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        # Python itself sleeps on where a signal comes just before the system call.
        "print('ready', flush=True)\nwhile True: time.sleep(0.1)"
    )
    (tmp_path / "input").write_text("")
    words = [
        support.tool("bash"),
        os.path.join(ROOT, BATCH),
        *map(str, (job, tmp_path / "input", tmp_path / "results")),
    ]
    with started(words, cwd=tmp_path, env=environment()) as one:
        assert one.line() == "ready"
        os.kill(one.pid, signal.SIGTERM)
        assert one.end().code == 7
