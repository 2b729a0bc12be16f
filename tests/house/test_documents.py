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
# These name options that only Node has.
OF_NODE = ("docs/node-page.md", "docs/parity.md")
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


@pytest.mark.parametrize("name", [name for name in tables.DOCUMENTS if name not in OF_NODE])
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


class Place:
    """A folder that holds examples/ and index.py; documents call it /home/user.

    /tmp/ is a folder below it: the real one may hold the installation under test, which no write grant may cover.
    """

    def __init__(self, home: str) -> None:
        """Lay it out."""
        support.need()
        self.home = home
        os.mkdir(os.path.join(home, "tmp"))
        shutil.copytree(os.path.join(ROOT, "examples"), os.path.join(home, "examples"))
        with open(os.path.join(home, "index.py"), "w", encoding="utf-8") as file:
            file.write('print("Hello world!")\n')
        self.environment = support.clean_environment({"HOME": home, "LC_ALL": "C.UTF-8"})
        folders = [os.path.dirname(support.installed()[0]), self.environment["PATH"]]
        self.environment["PATH"] = os.pathsep.join(folders)

    def run(self, command: str) -> tuple[int, str]:
        """Run a command of a document; return the exit code and what it printed, in the document's words."""
        ended = subprocess.run(
            ["/bin/sh", "-c", command.replace("/tmp/", "/home/user/tmp/").replace("/home/user", self.home)],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout.replace(self.home, "/home/user").replace("/home/user/tmp/", "/tmp/")


BLOCKS = [(name, index) for name in tables.DOCUMENTS for index, _ in enumerate(BLOCK.findall(read(name)))]


@pytest.mark.kernel
@pytest.mark.parametrize(("name", "index"), BLOCKS)
def test_console_blocks_print_what_they_show(name: str, index: int, tmp_path: pathlib.Path) -> None:
    """Each block runs in a folder of its own."""
    place = Place(os.path.realpath(tmp_path))
    code = 0
    for step in steps(BLOCK.findall(read(name))[index]):
        if step.command == "echo $?":
            assert step.printed == f"{code}\n"
            continue
        code, printed = place.run(step.command)
        assert matches(step.printed, printed), f"$ {step.command}\nshown:\n{step.printed}\nprinted:\n{printed}"


# Node's page: a line for each of its examples, which names our command and what comes of it

ROW = re.compile(r"^\| (.*) \| `((?:SANDBOXED_PYTHON_OPTIONS=\S* )?sandboxed-python .*?)` \| (.*) \|$", re.MULTILINE)
ROWS = ROW.findall(read("docs/node-page.md"))


@pytest.mark.kernel
@pytest.mark.parametrize(("node", "command", "outcome"), ROWS, ids=[command for _, command, _ in ROWS])
def test_commands_of_nodes_page_do_what_the_table_says(
    node: str, command: str, outcome: str, tmp_path: pathlib.Path
) -> None:
    """All that stands first as code is printed; the exit code is 0 where none is named."""
    code, printed = Place(os.path.realpath(tmp_path)).run(command)
    named = re.search("exit code ([0-9]+)", outcome)
    assert code == (int(named[1]) if named else 0), printed
    first = re.split("[:;(]", outcome, maxsplit=1)[0]
    shown = re.findall("`([^`]+)`", first)
    assert shown
    for text in shown:
        assert re.search(rf"(?m)(^|\s|'){re.escape(text)}('|\s|$)", printed), printed


def test_every_example_of_nodes_page_has_a_line() -> None:
    examples = (
        "node --permission index.js", "--allow-fs-read=/path/to/index.js", "--allow-child-process", "--allow-worker",
        "--allow-addons", "--allow-wasi", "has('fs.write')", "has('fs.write', '/home/rafaelgss/protected-folder')",
        "has('fs.read')", "has('fs.read', '/home/rafaelgss/protected-folder')",
        "node --permission --allow-fs-read=* --allow-fs-write=* index.js", "`--allow-fs-read=*`", "`--allow-fs-write=*`",
        "--allow-fs-write=/tmp/", "--allow-fs-read=/tmp/ --allow-fs-read=/home/.gitignore", "comma", "/home/test*",
        "/home/*.js", "/home/test/files", "/my-path/folder-do-not-exist/*", 'npx --node-options="--permission" ',
        "$(npm prefix -g)", "$(npm config get cache)",
    )  # fmt: skip
    table = read("docs/node-page.md").partition("\n## ")[0]
    column = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert [example for example in examples if not any(example in cell for cell in column)] == []
    without = [cell for cell in column[2:] if cell not in [f"| {node}" for node, _, _ in ROWS]]
    assert len(without) == 2, without  # one needs nothing here; the other is a section of its own


# The table beside Node's versions: what we have is linked to its tests

PARITY = [
    [cell.strip() for cell in line.removeprefix("| ").removesuffix("|").split(" | ")]
    for line in read("docs/parity.md").splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| feature"))
]  # the cell of the tests may be empty
MARKS = {"yes", "no", "partly", "never"}


def test_what_the_parity_table_claims_is_tested() -> None:
    """Each row says yes, no or partly for all three; what we have names a file with tests in it."""
    assert len(PARITY) > 50
    for row in PARITY:
        assert len(row) == 5, row
        assert all(re.split("[ ,:;]", cell.strip("*"), maxsplit=1)[0] in MARKS for cell in row[1:4]), row
        names = re.findall(r"\]\(\.\./(tests/[^)]*\.py)\)", row[4])
        assert names or row[3].startswith("no"), row
        for name in names:
            assert "\ndef test_" in read(name), name


def test_what_node_cannot_is_marked() -> None:
    """A feature that we have and Node 26 has not is printed bold."""
    for feature, _old, new, ours, _tests in PARITY:
        beyond = new.startswith(("no", "never")) and not ours.startswith("no")
        assert beyond == feature.startswith("**"), feature
