"""The text of ``--help``: derived from the tables of permissions, options and exit codes.

Runs in: supervisor.
"""

from __future__ import annotations

from sandboxed_python.cli.args import ENVIRONMENT, NEGATABLE, OPTIONS
from sandboxed_python.launch.exits import EXIT_CODES
from sandboxed_python.policy.table import PERMISSIONS

USAGE = """\
usage: sandboxed-python [options] [python's options] (script.py | -m module | -c code | - | directory | zip) [args]

Run a Python program with only what is granted; the Linux kernel enforces it.
"""
NOTES = f"""
Paths are separated by commas (\\, is a literal comma); a directory grants its whole tree; a * at the end grants every
name that starts so; a lone * grants everything. Options may be repeated; lists are united.
{ENVIRONMENT} takes the same options (quoted as in a shell). After the target everything is the program's.
Python's own options (-O -X -W -I -E -s -S -B -u -P -i -q -v ...) keep their meaning.
"""


def text() -> str:
    """Return the help text."""
    grants = [
        (f"{row.flag}=PATH[,PATH]" if row.kind == "paths" else row.flag, f"[{row.scope}] {row.gates}")
        for row in PERMISSIONS
    ]
    options = [
        (f"{flag}={value}" if value else flag, about + (" (also --no-...)" if _also_no(flag, about) else ""))
        for flag, value, about in OPTIONS
    ]
    codes = [(str(code), meaning) for code, _name, meaning in EXIT_CODES]
    parts = [USAGE]
    for title, rows in (("Grants", grants), ("Options", options)):
        parts.append(f"\n{title}:\n" + "".join(_row(name, about) for name, about in rows))
    parts.append(NOTES)
    parts.append("\nExit codes (any other is the program's own):\n" + "".join(_row(n, m, 6) for n, m in codes))
    return "".join(parts)


def _also_no(flag: str, about: str) -> bool:
    return flag in NEGATABLE and "--no-" not in about


def _row(name: str, about: str, width: int = 30) -> str:
    import textwrap

    lead = f"  {name}".ljust(width)
    if len(lead) >= width:
        lead = f"{lead}\n{' ' * width}"
    lines = textwrap.wrap(about, 118 - width)
    return lead + f"\n{' ' * width}".join(lines) + "\n"
