"""Writes one line to the file named as its argument."""

from __future__ import annotations

import sys

with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write("written\n")
print(f"wrote {sys.argv[1]}")
