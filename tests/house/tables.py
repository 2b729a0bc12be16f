"""Tables of the documents, derived from the tables in the code.

In a document a table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. A test compares; to rewrite:

    .venv-test/bin/python -m tests.house.tables
"""

from __future__ import annotations

import os
import re
import sys

from sandboxed_python.cli.args import OPTIONS
from sandboxed_python.launch.exits import EXIT_CODES
from sandboxed_python.plan import implicit
from sandboxed_python.policy.files import presets
from sandboxed_python.policy.limits import LIMITS
from sandboxed_python.policy.table import PERMISSIONS
from sandboxed_python.record.log import FIELDS
from tests.programs.catalogue import PROGRAMS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/batch.md",
    "docs/denials.md",
    "docs/node-page.md",
    "docs/parity.md",
    "docs/policies.md",
    "docs/limits.md",
    "docs/programs.md",
    "docs/runners.md",
)
PLACE = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)


def permissions() -> list[tuple[str, ...]]:
    """One row per permission."""
    rows: list[tuple[str, ...]] = [("flag", "scope", "`error.permission`", "what it gates in CPython")]
    for row in PERMISSIONS:
        flag = f"{row.flag}=PATHS" if row.kind == "paths" else row.flag
        rows.append((f"`{flag}`", f"`{row.scope}`", f"`{row.name}`", row.gates))
    return rows


def options() -> list[tuple[str, ...]]:
    """One row per option that isn't a grant."""
    rows: list[tuple[str, ...]] = [("option", "what it does")]
    for flag, value, about in OPTIONS:
        rows.append((f"`{flag}={value}`" if value else f"`{flag}`", about))
    return rows


def exit_codes() -> list[tuple[str, ...]]:
    """One row per exit code of ours."""
    return [("exit code", "meaning"), *[(str(code), meaning) for code, _name, meaning in EXIT_CODES]]


def implicit_grants() -> list[tuple[str, ...]]:
    """One row per row of the table of what is granted without a flag, besides the interpreter's own files."""
    rows: list[tuple[str, ...]] = [("scope", "what", "for", "only with")]
    for scope, table in (("fs.read", implicit.READ_ROWS), ("fs.write", implicit.WRITE_ROWS)):
        for needs, _kind, paths, reason in table:
            listed = " ".join(f"`{path}`" for path in paths)
            with_flag = next((row.flag for row in PERMISSIONS if row.scope == needs), "")
            rows.append((f"`{scope}`", listed, reason, f"`{with_flag}`" if with_flag else ""))
    return rows


def log_fields() -> list[tuple[str, ...]]:
    """One row per field of a line of the permission log."""
    return [("field", "is"), *[(f"`{name}`", meaning) for name, meaning in FIELDS]]


def preset_list() -> list[tuple[str, ...]]:
    """One row per preset."""
    return [("preset", "for"), *[(f"`{name}`", about) for name, about in presets().items()]]


def limits() -> list[tuple[str, ...]]:
    """One row per limit."""
    return [("option", "held by"), *[(f"`{row[1]}`", row[3]) for row in LIMITS if row[3]]]


def program_list() -> list[tuple[str, ...]]:
    """One row per program that tests run under its smallest grants."""
    rows: list[tuple[str, ...]] = [("program", "command", "grants", "what for", "test")]
    for row in PROGRAMS:
        granted = "<br>".join([f"`{grant}`" for grant in row.grants]) or "none"
        shown = f"`{row.shown}`" if row.shown else "(no words)"
        rows.append((row.name, shown, granted, row.about, f"[{row.test}](../tests/programs/{row.test})"))
    return rows


TABLES = {
    "permissions": permissions,
    "options": options,
    "exit-codes": exit_codes,
    "implicit": implicit_grants,
    "presets": preset_list,
    "limits": limits,
    "programs": program_list,
    "log-fields": log_fields,
}


def rendered(name: str) -> str:
    """Return a table as Markdown."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in TABLES[name]()]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def updated(text: str) -> str:
    """Return a document's text with its tables as the code has them.

    Raises:
        KeyError: a table has an unknown name.
    """
    return PLACE.sub(lambda place: f"{place[1]}{rendered(place['name'])}{place[4]}", text)


def main() -> int:
    """Rewrite the documents; return the exit code."""
    for name in DOCUMENTS:
        path = os.path.join(ROOT, name)
        with open(path, encoding="utf-8") as file:
            old = file.read()
        new = updated(old)
        if new != old:
            print(f"updated {name}")
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
