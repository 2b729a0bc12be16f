"""Analyses Python sources: packages, lines, functions, classes, longest functions, who imports what.

A real job on real input, with nothing but the standard library:

    sandboxed-python --permission --allow-fs-read=SOURCES --allow-fs-write=RESULTS stdlib_report.py SOURCES RESULTS

It reads every ``.py`` file under SOURCES, and writes ``report.csv`` (one row per package) and ``report.json`` (totals,
longest functions, most imported modules) to the existing folder RESULTS. Without SOURCES and with ``-`` it analyses the
interpreter's own standard library.
"""

from __future__ import annotations

import ast
import collections
import csv
import json
import os
import sys
import sysconfig
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT = frozenset(
    ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo")
)
FIELDS = ("package", "files", "lines", "functions", "classes", "longest_function", "longest_lines")


class Function(NamedTuple):
    """A function and where it stands."""

    lines: int
    name: str
    file: str
    line: int


class Module(NamedTuple):
    """What one source file holds."""

    package: str
    lines: int
    functions: list[Function]
    classes: int
    imports: set[str]


def main() -> int:
    """Write the report and print its head; return the exit code."""
    if len(sys.argv) != 3:
        print("usage: stdlib_report.py SOURCES|- RESULTS", file=sys.stderr)
        return 2
    sources, results = sys.argv[1:]
    if sources == "-":
        sources = sysconfig.get_path("stdlib")
    began = time.perf_counter()
    left_out: list[str] = []
    modules = list(read(sources, left_out))
    rows = [row(package, list(found)) for package, found in grouped(modules).items()]
    rows.sort(key=lambda one: (-one["lines"], one["package"]))
    summary = summarize(modules, rows)
    with open(os.path.join(results, "report.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    with open(os.path.join(results, "report.json"), "w", encoding="utf-8") as file:
        json.dump({"sources": sources, **summary, "left_out": left_out, "packages": rows}, file, indent=2)
    took = time.perf_counter() - began
    print(f"{summary['files']} files, {summary['lines']} lines, {summary['functions']} functions in {took:.1f} s")
    for path in left_out:
        print(f"left out: {path} leads out of what may be read")
    return 0


def read(sources: str, left_out: list[str]) -> Iterator[Module]:
    """Parse every source file below ``sources``; add to ``left_out`` what may not be read: links out of it."""
    for folder, folders, files in os.walk(sources):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                try:
                    yield parse(path, sources)
                except PermissionError:
                    left_out.append(path)


def parse(path: str, sources: str) -> Module:
    """Count what is in one file."""
    relative = os.path.relpath(path, sources)
    package = relative.split(os.sep)[0].removesuffix(".py")
    with open(path, "rb") as file:
        text = file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in old modules
        tree = ast.parse(text, path)
    functions: list[Function] = []
    imports: set[str] = set()
    classes = 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            functions.append(Function(lines, node.name, relative, node.lineno))
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.Import):
            imports.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
    return Module(package, text.count(b"\n"), functions, classes, imports)


def grouped(modules: list[Module]) -> dict[str, list[Module]]:
    """Return the modules by their top-level package."""
    packages: dict[str, list[Module]] = {}
    for module in modules:
        packages.setdefault(module.package, []).append(module)
    return packages


def row(package: str, modules: list[Module]) -> dict[str, Any]:
    """Return one package's row of the report."""
    functions = [function for module in modules for function in module.functions]
    longest = max(functions, default=Function(0, "", "", 0))
    return {
        "package": package,
        "files": len(modules),
        "lines": sum(module.lines for module in modules),
        "functions": len(functions),
        "classes": sum(module.classes for module in modules),
        "longest_function": longest.name,
        "longest_lines": longest.lines,
    }


def summarize(modules: list[Module], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the totals, the longest functions and the most imported modules."""
    imported = collections.Counter(name for module in modules for name in module.imports - {module.package})
    functions = sorted((function for module in modules for function in module.functions), reverse=True)
    totals = {name: sum(one[name] for one in rows) for name in ("files", "lines", "functions", "classes")}
    return {
        "python": sys.version.split()[0],
        **totals,
        "longest_functions": [function._asdict() for function in functions[:10]],
        "most_imported": dict(imported.most_common(10)),
    }


if __name__ == "__main__":
    sys.exit(main())
