#!/usr/bin/env -S sandboxed-python --permission --allow-fs-read=/etc/hostname
"""Asks what it may do before it does it. Works with and without the permission model.

As an executable file it starts itself in the sandbox: see its first line.
"""

from __future__ import annotations

from sandboxed_python import AccessDeniedError, permission

for path in ("/etc/hostname", "/etc/passwd"):
    print(f"fs.read {path}: {permission.has('fs.read', path)}")
print(f"net: {permission.has('net')}")

try:
    with open("/etc/passwd", encoding="utf-8") as file:
        print(f"read {len(file.read())} characters")
except AccessDeniedError as error:
    print(f"{error.code}: {error.permission}: {error.resource}")
    print(f"{error}")
