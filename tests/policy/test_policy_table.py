"""The table of permissions: complete, without contradictions, and the same names as Node's."""

from __future__ import annotations

from sandboxed_python.policy.table import BY_FLAG, BY_SCOPE, FS_SCOPE, PERMISSIONS, SWITCHES, warnings

# Flag, scope and error name as Node documents them.
NODE = {
    ("--allow-fs-read", "fs.read", "FileSystemRead"),
    ("--allow-fs-write", "fs.write", "FileSystemWrite"),
    ("--allow-child-process", "child", "ChildProcess"),
    ("--allow-worker", "worker", "WorkerThreads"),
    ("--allow-addons", "addon", "Addon"),
    ("--allow-ffi", "ffi", "FFI"),
    ("--allow-wasi", "wasi", "WASI"),
    ("--allow-net", "net", "Net"),
    ("--allow-inspector", "inspector", "Inspector"),
}


def test_rows_are_nodes_and_one_of_ours() -> None:
    """Every row is Node's but fs.metadata."""
    rows = {(row.flag, row.scope, row.name) for row in PERMISSIONS}
    assert rows - NODE == {("--allow-fs-metadata", "fs.metadata", "FileSystemMetadata")}
    assert rows >= NODE


def test_rows_are_unique_and_found_by_scope_and_flag() -> None:
    """No two rows share a scope or a flag; the joint scope is none of them."""
    assert len(BY_SCOPE) == len(BY_FLAG) == len(PERMISSIONS)
    assert all(BY_SCOPE[row.scope] is BY_FLAG[row.flag] is row for row in PERMISSIONS)
    assert FS_SCOPE not in BY_SCOPE


def test_kinds() -> None:
    """Two flags take paths, the others nothing."""
    assert {row.scope for row in PERMISSIONS if row.kind == "paths"} == {"fs.read", "fs.write"}
    assert {row.scope for row in PERMISSIONS} - {"fs.read", "fs.write"} == SWITCHES


def test_help_and_warnings_fit_on_a_line() -> None:
    """Each row says what it gates on one line; a warning is one line that names its flag."""
    for row in PERMISSIONS:
        assert row.gates
        assert "\n" not in row.gates + row.warning
        assert not row.warning or row.flag in row.warning
        assert row.warning or not row.warned_with
        assert all(BY_SCOPE[scope].flag in row.warning for scope in row.warned_with)


def test_warnings_are_due_when_every_flag_that_they_need_is_granted() -> None:
    """The debugger's warning is true only together with child processes; executable memory's always."""
    of = {scope: BY_SCOPE[scope].warning for scope in BY_SCOPE}
    assert warnings(lambda _scope: False) == []
    for granted, expected in (
        ({"inspector"}, []),
        ({"child"}, []),
        ({"child", "worker", "net", "addon", "ffi", "fs.metadata"}, []),
        ({"inspector", "child"}, [of["inspector"]]),
        ({"wasi"}, [of["wasi"]]),
        (SWITCHES, [of["wasi"], of["inspector"]]),
    ):
        assert warnings(granted.__contains__) == expected
