"""Sockets beside TCP, UDP and Unix, under ``--allow-net``: doors to other parts of the kernel, or past Landlock's rules.

The attack: ask for the kernel's crypto, the hypervisor, raw and packet sockets, connections that count as neither TCP nor
UDP, netlink protocols that tell of the machine, and families that were the source of the kernel's holes.
What stops it: the static filter takes families, types and protocols by list. Source: socket(2), address_families(7);
THREATS 6 (netg_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.escape.attack import Attacker

# Family, type, protocol.
SOCKETS = {
    "the kernel's crypto": (38, 5, 0),
    "the hypervisor": (40, 1, 0),
    "packets": (17, 3, 0x0300),
    "packets without headers": (17, 2, 0x0300),
    "raw": (2, 3, 1),
    "raw, IPv6": (10, 3, 58),
    "ping": (2, 2, 1),
    "MPTCP": (2, 1, 262),
    "SCTP": (2, 1, 132),
    "DCCP": (2, 6, 33),
    "UDP-Lite": (2, 2, 136),
    "key management": (15, 3, 2),
    "netlink: device events": (16, 3, 15),
    "netlink: audit": (16, 3, 9),
    "netlink: every socket": (16, 3, 4),
    "netlink: firewall": (16, 3, 12),
    "netlink: generic": (16, 3, 16),
    "netlink: crypto": (16, 3, 21),
    "Bluetooth": (31, 3, 1),
    "CAN": (29, 3, 1),
    "TIPC": (30, 1, 0),
    "RDS": (21, 5, 0),
    "express data path": (44, 3, 0),
    "a Qualcomm router": (42, 2, 0),
    "a type with more bits": (38 | 1 << 32, 5, 0),
}


@pytest.mark.parametrize("name", SOCKETS)
def test_another_kind_of_socket(attacker: Attacker, name: str) -> None:
    family, form, protocol = SOCKETS[name]
    body = f"call('socket', {family}, {form}, {protocol}); print('MADE')"
    plain = attacker.plain(body)
    if "MADE" not in plain.stdout:
        said = plain.stdout.rpartition("|")[2].strip()
        pytest.skip(f"needs a kernel that gives {attacker.name} such a socket; found {said}")
    attacker.must_fail(body, "--allow-ffi", "--allow-net", harm=lambda ended: "MADE" in ended.stdout)
