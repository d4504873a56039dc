"""Who has which address between the namespaces, and where a packet therefore comes from.

Addresses are of 198.18.0.0/15, which is set aside for tests of networks. Of its 17 free bits a
network takes a *slot* of 32, so that several can stand on one machine. The other 12 say::

    viewer (4 bits) | region (4 bits) | number (4 bits)

region  1..15, where the holder of the address is; 0 is the machine itself, outside of all regions
number  1..14, the holder inside its region
viewer  0 in the plain address of a holder. Every holder also answers at addresses that have
        another viewer: whoever dials one of them *from outside* is taken to stand in that region.
        The machine's own address toward them has the same viewer, so that answers take the same way.

Nothing is rewritten on the way: all addresses of a holder are its own.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from k2store.testing.wan.network import OUTSIDE

FIRST: Final = int(ipaddress.IPv4Address("198.18.0.0"))
SLOTS: Final = 32
SLOT_BITS: Final = 12
REGIONS_MAX: Final = 15
NUMBER_MAX: Final = 14


def address(slot: int, region: int, number: int, viewer: int = 0) -> str:
    """Address of a holder, as dialled from inside (no viewer) or by somebody in `viewer`."""
    assert 0 <= slot < SLOTS
    assert 0 <= region <= REGIONS_MAX
    assert 1 <= number <= NUMBER_MAX
    assert 0 <= viewer <= REGIONS_MAX
    return _text(slot, viewer, region, number)


def own_address(slot: int, viewer: int = 0) -> str:
    """The machine's own address where it stands in `viewer`."""
    return _text(slot, viewer, OUTSIDE, 1)


def region_block(slot: int, region: int, viewer: int) -> str:
    """All addresses of a region toward a viewer."""
    return _text(slot, viewer, region, 0) + "/28"


def viewer_block(slot: int, viewer: int) -> str:
    """All addresses that somebody in `viewer` dials."""
    return _text(slot, viewer, 0, 0) + "/24"


def region_of(text: str) -> int | None:
    """Region in which the holder of an address is; None for an address of somebody else's."""
    try:
        value = int(ipaddress.IPv4Address(text))
    except ValueError:
        return None
    if value >> 17 != FIRST >> 17:
        return None
    return (value >> 4) & 15


def seen_from(text: str, viewer: int) -> str:
    """The address of the same holder that somebody in `viewer` dials."""
    value = int(ipaddress.IPv4Address(text))
    return str(ipaddress.IPv4Address((value & ~0xF00) | (viewer << 8)))


def route(packet: bytes, came_from: int) -> tuple[int, int, int] | None:
    """Where an IPv4 packet goes: the ends of its link, and the region that gets it.

    `came_from`: region whose leg it came in by. None for what is no packet of ours.
    """
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    target = packet[19] >> 4
    source = came_from if came_from != OUTSIDE else packet[14] & 15
    if target == OUTSIDE:
        return source, packet[18] & 15, OUTSIDE
    return source, target, target


def _text(slot: int, viewer: int, region: int, number: int) -> str:
    low = (viewer << 8) | (region << 4) | number
    return str(ipaddress.IPv4Address(FIRST + (slot << SLOT_BITS) + low))
