"""Landlock's tables: what each ABI has, how attributes are packed, and how a request is cut down."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_python.errors import KernelError
from sandboxed_python.kernel import landlock, uapi
from sandboxed_python.kernel.calls import syscall
from sandboxed_python.kernel.landlock import FS_RIGHTS, HIGHEST_ABI, NET_RIGHTS, SCOPES, Ruleset, downgrade, full
from sandboxed_python.kernel.probe import probe

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from tests.support import Need

TABLES = {"fs": FS_RIGHTS, "net": NET_RIGHTS, "scoped": SCOPES}
ABIS = st.integers(0, HIGHEST_ABI)
RULESETS = st.builds(
    Ruleset,
    fs=st.integers(0, full(HIGHEST_ABI).fs),
    net=st.integers(0, full(HIGHEST_ABI).net),
    scoped=st.integers(0, full(HIGHEST_ABI).scoped),
)
# Documentation/userspace-api/landlock.rst: how many bits of each kind an ABI has.
COUNTS = {
    0: (0, 0, 0),
    1: (13, 0, 0),
    2: (14, 0, 0),
    3: (15, 0, 0),
    4: (15, 2, 0),
    5: (16, 2, 0),
    6: (16, 2, 2),
    7: (16, 2, 2),
    8: (16, 2, 2),
    9: (17, 2, 2),
}


def test_tables_are_well_formed() -> None:
    for table in TABLES.values():
        assert [bit for _name, bit, _since, _what in table] == [1 << number for number in range(len(table))]
        assert [since for _name, _bit, since, _what in table] == sorted(since for _name, _bit, since, _what in table)
        assert len({name for name, *_rest in table}) == len(table)
        assert all(name.isupper() and what and 1 <= since <= HIGHEST_ABI for name, _bit, since, what in table)
    assert max(since for table in TABLES.values() for _name, _bit, since, _what in table) == HIGHEST_ABI


@pytest.mark.parametrize("abi", range(HIGHEST_ABI + 1))
def test_every_abi_has_its_rights(abi: int) -> None:
    can = full(abi)
    assert tuple(getattr(can, field).bit_count() for field in ("fs", "net", "scoped")) == COUNTS[abi]
    # An ABI has what the one before it has.
    before = full(max(0, abi - 1))
    for field in TABLES:
        assert getattr(before, field) & ~getattr(can, field) == 0


def test_constants_are_the_tables_bits() -> None:
    bits = {name: bit for name, bit, _since, _what in FS_RIGHTS}
    named = {name: getattr(landlock, name) for name in bits if hasattr(landlock, name)}
    assert named.items() <= bits.items()
    assert {"EXECUTE", "WRITE_FILE", "READ_FILE", "READ_DIR", "REFER", "TRUNCATE", "IOCTL_DEV"} <= named.keys()


def test_read_and_write_do_not_overlap_and_never_execute() -> None:
    assert landlock.names(landlock.READ) == ["READ_FILE", "READ_DIR"]
    assert landlock.READ & landlock.WRITE == 0
    assert (landlock.READ | landlock.WRITE) & landlock.EXECUTE == 0


def test_no_grant_makes_devices() -> None:
    missing = full(6).fs & ~(landlock.READ | landlock.WRITE | landlock.EXECUTE)
    assert landlock.names(missing) == ["MAKE_CHAR", "MAKE_BLOCK", "IOCTL_DEV"]


@given(st.integers(0, full(HIGHEST_ABI).fs))
def test_names_tell_every_bit(mask: int) -> None:
    bits = {name: bit for name, bit, _since, _what in FS_RIGHTS}
    told = landlock.names(mask)
    assert sum(bits[name] for name in told) == mask
    assert told == [name for name in bits if name in told]


@given(RULESETS, ABIS)
def test_downgrade_keeps_what_the_abi_can_and_names_the_rest(wanted: Ruleset, abi: int) -> None:
    kept, missing = downgrade(wanted, abi)
    lost = {}
    for field, table in TABLES.items():
        asked, can, left = (getattr(ruleset, field) for ruleset in (wanted, full(abi), kept))
        assert left == asked & can
        lost.update({name: since for name, bit, since, _what in table if asked & ~left & bit})
    assert [line.split(" ")[0] for line in missing] == list(lost)
    for line in missing:
        name, since = line.split(" ")[0], int(line.split("(ABI ")[1].split(")")[0])
        assert since == lost[name] > abi
        assert line.partition("): ")[2]
    # Pure: the same again, and nothing to lose the second time.
    assert downgrade(wanted, abi) == (kept, missing)
    assert downgrade(kept, abi) == (kept, [])


@given(RULESETS, ABIS, ABIS)
def test_downgrade_is_monotone(wanted: Ruleset, one: int, other: int) -> None:
    low, high = sorted((one, other))
    less, more_missing = downgrade(wanted, low)
    more, less_missing = downgrade(wanted, high)
    for field in TABLES:
        assert getattr(less, field) & ~getattr(more, field) == 0
    assert set(less_missing) <= set(more_missing)
    assert downgrade(more, low)[0] == less
    assert downgrade(full(high), low)[0] == full(low)


def test_downgrade_says_what_is_lost() -> None:
    assert downgrade(full(6), 5)[1] == [
        "ABSTRACT_UNIX_SOCKET (ABI 6): connect to an abstract Unix socket from outside",
        "SIGNAL (ABI 6): signal a process outside the sandbox",
    ]
    assert downgrade(full(6), 7) == (full(6), [])


@pytest.mark.parametrize("abi", range(1, HIGHEST_ABI + 1))
def test_packed_sizes_are_the_structs(abi: int) -> None:
    # struct landlock_ruleset_attr grew in ABI 4 (handled_access_net) and 6 (scoped).
    packed = landlock.pack_ruleset(Ruleset(fs=0x1234, net=3, scoped=2), abi)
    assert len(packed) == {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(abi, 24)
    assert packed == struct.pack("<QQQ", 0x1234, 3, 2)[: len(packed)]


def test_packed_rules() -> None:
    assert landlock.pack_path_rule(0x1_0000_0001, 7) == struct.pack("<Qi", 0x1_0000_0001, 7)
    assert landlock.pack_path_rule(1, -100) == struct.pack("<Qi", 1, -100)
    assert landlock.pack_port_rule(2, 443) == struct.pack("<QQ", 2, 443)


# The kernel agrees. Making a ruleset and adding rules to it locks nothing.


@pytest.fixture
def ruleset(needs: Need) -> Callable[[Ruleset, int], int]:
    needs(landlock=1)

    def create(wanted: Ruleset, abi: int) -> int:
        attributes = landlock.pack_ruleset(wanted, abi)
        return syscall("landlock_create_ruleset", attributes, len(attributes), 0)

    return create


@pytest.mark.parametrize("abi", range(1, HIGHEST_ABI + 1))
def test_kernel_takes_what_the_table_says_it_can(ruleset: Callable[[Ruleset, int], int], abi: int) -> None:
    found = probe().landlock
    if abi <= found:
        os.close(ruleset(full(abi), abi))
        return
    new = [since for table in TABLES.values() for _name, _bit, since, _what in table if found < since <= abi]
    if new:
        with pytest.raises(KernelError, match=r"landlock_create_ruleset\(<\d+ bytes>|landlock_create_ruleset\(b'"):
            os.close(ruleset(full(abi), abi))


def test_kernel_has_no_right_that_the_table_lacks(ruleset: Callable[[Ruleset, int], int]) -> None:
    abi = probe().landlock
    if abi > HIGHEST_ABI:
        pytest.skip(f"needs a kernel with Landlock ABI {HIGHEST_ABI} or lower; found {abi}")
    can = full(abi)
    for field, table in TABLES.items():
        width = 64 if field == "fs" or abi >= (4 if field == "net" else 6) else 0
        for number in range(len(table), width):
            unknown = can.replace(**{field: getattr(can, field) | 1 << number})
            with pytest.raises(KernelError):
                os.close(ruleset(unknown, abi))


def test_kernel_takes_on_a_file_what_the_table_says(
    ruleset: Callable[[Ruleset, int], int], tmp_path: pathlib.Path
) -> None:
    abi = min(probe().landlock, HIGHEST_ABI)
    handle = ruleset(full(abi), abi)
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_PATH)
    folder = os.open(tmp_path, os.O_PATH)
    taken = 0
    try:
        for _name, bit, since, _what in FS_RIGHTS:
            if since > abi:
                continue
            whole = landlock.pack_path_rule(bit, folder)
            syscall("landlock_add_rule", handle, uapi.LANDLOCK_RULE_PATH_BENEATH, whole, 0)
            try:
                rule = landlock.pack_path_rule(bit, file)
                syscall("landlock_add_rule", handle, uapi.LANDLOCK_RULE_PATH_BENEATH, rule, 0)
                taken |= bit
            except KernelError as error:
                if error.errno != errno.EINVAL:
                    raise
    finally:
        for descriptor in (file, folder, handle):
            os.close(descriptor)
    assert taken == landlock.ON_A_FILE & full(abi).fs
