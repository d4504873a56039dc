"""What the tests of every control plane share: a map to begin with, and steps to take."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from k2store.control import Control, Keyspace, Map, change, join, with_keyspaces
from k2store.control.map import Region

Open = Callable[[], Control]
"""Opens another handle on one and the same control plane; the test closes them."""

DEFAULT = Keyspace("default", b"", "region", "fra")
FRA = Keyspace("fra", b"fra/", "zone", "fra")


async def founded(control: Control) -> Map:
    """Three members in two regions, and two keyspaces."""
    for number, region in enumerate(("fra", "fra", "iad"), 1):
        await join(control, f"n{number}", region, f"h{number}:7400", bytes([number]))
    return await change(control, lambda present: with_keyspaces(present, (DEFAULT, FRA)))


def next_map(present: Map, name: str) -> Map:
    """A valid successor that nobody else would make."""
    return replace(present, version=present.version + 1, regions=(*present.regions, Region(name)))
