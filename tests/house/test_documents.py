"""What the documents say is so: tables match the code, and every ``console`` block prints what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import support
from tests.house import tables

if TYPE_CHECKING:
    import pathlib

ROOT = tables.ROOT
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def read(name: str) -> str:
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_tables_are_those_of_the_code(name: str) -> None:
    text = read(name)
    assert tables.updated(text) == text, f"rewrite with: {sys.executable} -m tests.house.tables"


def test_every_table_is_somewhere() -> None:
    used = {place["name"] for name in tables.DOCUMENTS for place in tables.PLACE.finditer(read(name))}
    assert used == set(tables.TABLES)


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for path, fragment in LINK.findall(read(name)):
        target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
        assert os.path.exists(os.path.join(ROOT, target)), f"{name}: {path}"
        if fragment:
            heads = [line.lstrip("#").strip() for line in read(target).splitlines() if line.startswith("#")]
            slugs = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
            assert fragment[1:] in slugs, f"{name}: {path}{fragment}"


@pytest.mark.parametrize("name", [name for name in tables.DOCUMENTS if name != "docs/node-page.md"])
def test_options_that_documents_name_exist(name: str) -> None:
    from sandboxed_python.cli.args import NEGATABLE, OPTIONS
    from sandboxed_python.policy.table import PERMISSIONS

    known = {flag for flag, _value, _help in OPTIONS} | {row.flag for row in PERMISSIONS}
    known |= {"--no-" + flag[2:] for flag in NEGATABLE} | {"--no-allow-X", "--flag"}
    said = {
        flag
        for line in read(name).splitlines()
        if "sandboxed-python" in line or "`--" in line
        for flag in FLAG.findall(line)
        if flag.startswith(("--allow", "--no-allow", "--permission", "--policy", "--explain", "--check"))
    }
    assert said <= known | {"--no-allow-"}


class Step(NamedTuple):
    """One command of a console block and what it prints."""

    command: str
    printed: str


def steps(block: str) -> list[Step]:
    """Split a console block at its ``$`` lines."""
    found: list[Step] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        found.append(Step(command, printed))
    return found


def matches(shown: str, printed: str) -> bool:
    """Compare; a line ``...`` stands for any number of lines, ``...`` in a line for anything."""
    lines = [
        "(?:.*\n)*?" if line == "...\n" else ".*".join(re.escape(part) for part in line.split("..."))
        for line in shown.splitlines(keepends=True)
    ]
    return re.fullmatch("".join(lines), printed) is not None


BLOCKS = [(name, index) for name in tables.DOCUMENTS for index, _ in enumerate(BLOCK.findall(read(name)))]


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "index"), BLOCKS)
def test_console_blocks_print_what_they_show(name: str, index: int, tmp_path: pathlib.Path) -> None:
    """Each block runs in a folder of its own that holds examples/ and index.py; documents call it /home/user.

    /tmp/ is a folder below it: the real one may hold the installation under test, which no write grant may cover.
    """
    support.need()
    home = os.path.realpath(tmp_path)
    os.mkdir(os.path.join(home, "tmp"))
    shutil.copytree(os.path.join(ROOT, "examples"), os.path.join(home, "examples"))
    with open(os.path.join(home, "index.py"), "w", encoding="utf-8") as file:
        file.write('print("Hello world!")\n')
    environment = support.clean_environment({"HOME": home, "LC_ALL": "C.UTF-8"})
    environment["PATH"] = os.pathsep.join([os.path.dirname(support.installed()[0]), environment["PATH"]])
    code = 0
    for step in steps(BLOCK.findall(read(name))[index]):
        if step.command == "echo $?":
            assert step.printed == f"{code}\n"
            continue
        command = step.command.replace("/tmp/", "/home/user/tmp/").replace("/home/user", home)
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        code = ended.returncode
        printed = ended.stdout.replace(home, "/home/user").replace("/home/user/tmp/", "/tmp/")
        assert matches(step.printed, printed), f"$ {step.command}\nshown:\n{step.printed}\nprinted:\n{printed}"
