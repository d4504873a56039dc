"""What a replica keeps on disk: its promise, one snapshot, and the entries behind it.

The machine hands its driver a :class:`Persist`; the driver makes them durable one after the other,
in order. Promise, cut and snapshot of one ``Persist`` take hold together; of its entries a crash
may leave any prefix. :meth:`Saved.then` is the meaning of a ``Persist``, for drivers to compare
with.
"""

from __future__ import annotations

from msgspec import Struct

from replication.entries import Entry, Position
from replication.membership import Membership
from replication.takeover import NOBODY
from truetime.timestamp import Stamp


class Snapshot(Struct, frozen=True, array_like=True):
    """Everything up to one position: the state, and what the log itself must remember.

    ``leader`` led the epoch of ``position``; 0 where nobody did, or nobody knows.

    ``state`` belongs to whoever applies entries. It may be the bytes or, where they are large, a
    reference that the driver follows when it sends or installs them.
    """

    position: Position
    membership: Membership
    closed: Stamp
    state: bytes
    leader: int = NOBODY


class Saved(Struct, frozen=True):
    """The durable state of a replica.

    ``promise``: no entry, promise or answer for an epoch below it, ever. ``lost``: this identity
    has lost what it once acknowledged and takes no further part.
    """

    snapshot: Snapshot
    promise: int = 0
    entries: tuple[Entry, ...] = ()
    lost: bool = False

    def then(self, persist: Persist) -> Saved:
        """The durable state after one more ``Persist``."""
        snapshot = self.snapshot if persist.snapshot is None else persist.snapshot
        base_lsn = snapshot.position.lsn
        kept = tuple(
            entry
            for entry in self.entries
            if entry.lsn > base_lsn and (not persist.cut_lsn or entry.lsn < persist.cut_lsn)
        )
        return Saved(
            snapshot,
            max(self.promise, persist.promise),
            (*kept, *persist.entries),
            self.lost or persist.lost,
        )


class Persist(Struct, frozen=True):
    """One step of the durable state; ``token`` counts up and comes back when it is durable.

    ``cut_lsn``: drop entries from this LSN on first (0: none). ``snapshot``: replaces the present
    one and every entry at or below its position. ``entries``: to be appended then.
    """

    token: int
    promise: int
    cut_lsn: int
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    lost: bool = False


class Flight(Struct):
    """What will hold once a ``Persist`` is durable."""

    token: int
    promise: int
    lsn: int
