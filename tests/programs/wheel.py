"""A small wheel with a console script, for runners and installers; made without a build tool and without network.

Runs in: tests only.
"""

from __future__ import annotations

import os
import zipfile

NAME = "some-tool"
# Prints whether it may use the network, and what is in the files that it is told.
MAIN = """\
import sys


def main():
    model = getattr(sys, "permission", None)
    print("net", model.has("net") if model else "unrestricted")
    for name in sys.argv[1:]:
        with open(name) as file:
            print(file.read().strip())


if __name__ == "__main__":
    main()
"""


def make(folder: str) -> str:
    """Write the wheel into a folder, and return its path."""
    os.makedirs(folder, exist_ok=True)
    information = "some_tool-1.0.dist-info"
    files = {
        "some_tool/__init__.py": "",
        "some_tool/__main__.py": MAIN,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/entry_points.txt": f"[console_scripts]\n{NAME} = some_tool.__main__:main\n",
    }
    record = "".join([f"{name},,\n" for name in (*files, f"{information}/RECORD")])
    path = os.path.join(folder, "some_tool-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(name, text)
    return path
