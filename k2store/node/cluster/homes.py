"""Which keyspaces a transaction may span: it must not be possible to lose a part of it.

A keyspace with ``survive = zone`` is lost with its home, up to what the other regions have seen; one
with ``survive = region`` is not. So a transaction that writes may stay in one home, or within the
keyspaces that survive regions; and it may write in one home what it has read from those. In any other
mixture the loss of a region would undo one half of it and leave the other (docs/protocol.md §5.6).
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from k2store.control.map import Map

EVERYWHERE: Final = 1
"""The bit of everything that survives the loss of a region; each home has another one."""


class Homes:
    """What each open transaction has touched, by home."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}
        self.several = False
        """Whether there is more than one home."""
        self._touched: dict[bytes, tuple[int, int]] = {}

    def follow(self, present: Map) -> None:
        """Learn where the partitions of a map are at home."""
        keyspaces = {one.name: one for one in present.keyspaces}
        regions = [one.name for one in present.regions]
        self._bits = {}
        for partition in present.partitions:
            keyspace = keyspaces[partition.keyspace]
            self._bits[partition.id] = (
                EVERYWHERE
                if keyspace.survive == "region"
                else EVERYWHERE << 1 + regions.index(keyspace.home)
            )
        self.several = len(set(self._bits.values())) > 1

    def allows(self, txn: bytes, partition: int, *, writes: bool) -> bool:
        """Note that a transaction reads or writes in a partition; False if it must not."""
        if not self.several or not txn:
            return True
        bit = self._bits.get(partition, 0)
        read, written = self._touched.get(txn, (0, 0))
        if writes:
            written |= bit
        else:
            read |= bit
        self._touched[txn] = read, written
        return whole(read, written)

    def forget_others(self, open_: Container[bytes]) -> None:
        """Keep only what is noted of transactions that are open still."""
        if self._touched:
            self._touched = {txn: noted for txn, noted in self._touched.items() if txn in open_}


def whole(read: int, written: int) -> bool:
    """Whether a transaction that has touched these homes is kept or lost as a whole."""
    if not written:
        return True
    homes = (read | written) & ~EVERYWHERE
    if homes & (homes - 1):
        return False  # two homes
    return not (homes and written & EVERYWHERE)
