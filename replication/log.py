"""A replica's log in memory: a snapshot's position, the entries behind it, how much is durable.

::

         start    snapshot        durable_lsn   saved_lsn    last
           |         |  committed, applied |        |         |
    -------#.........#=====================#========#.........#
      gone   trail:    on disk               handed   not yet handed
             only in                         to the   to the driver
             memory                          driver

The trail is what the snapshot already covers. It costs memory and spares a follower that lags a
little the whole state. Nothing else rests on it: a restart begins without, and so does a log that
was installed.

The tail may be cut where it differs from a leader's, and rewritten; an entry that was handed to the
driver before the cut never makes anything durable after it. This module does not know epochs'
owners, quorums or time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from replication.entries import Entry, Kind, Position
from replication.membership import Membership, decode
from replication.persistence import Flight, Persist, Snapshot
from replication.takeover import decode as decode_takeover
from truetime.timestamp import Stamp

ENTRY_BYTES: Final = 256
"""What an entry in memory is taken to cost beyond its payload: rounded up from CPython's 220."""


class Log:
    """The entries around a snapshot, and the state of their flight to the disk.

    ``trail_bytes_max`` bounds the entries that are kept although the snapshot covers them; whoever
    drives the replica may raise it while somebody copies a state that lies behind the snapshot.
    """

    def __init__(
        self, snapshot: Snapshot, entries: Iterable[Entry] = (), trail_bytes_max: int = 0
    ) -> None:
        self.snapshot = snapshot
        self.start = snapshot.position
        """The place before the first entry in memory; at or before the snapshot's."""
        self.trail_bytes_max = trail_bytes_max
        self._totals: list[int] = []  # bytes of all entries ever, up to and with each in memory
        self._total_before = 0
        self.durable_lsn = snapshot.position.lsn
        self.saved_lsn = snapshot.position.lsn
        self.last = snapshot.position
        self._entries: list[Entry] = []
        self._memberships: list[tuple[int, Membership]] = [
            (snapshot.position.lsn, snapshot.membership)
        ]
        self._flights: list[Flight] = []
        self._cut_lsn = 0
        self._new_snapshot: Snapshot | None = None
        self._token = 0
        for entry in entries:
            self.append(entry)
        self.durable_lsn = self.saved_lsn = self.last.lsn

    # -- looking -----------------------------------------------------------------------------------

    @property
    def base(self) -> Position:
        """The position of the snapshot; entries at and below it are no longer on the disk."""
        return self.snapshot.position

    @property
    def membership(self) -> Membership:
        """The newest membership in the log, committed or not."""
        return self._memberships[-1][1]

    @property
    def membership_lsn(self) -> int:
        """Where the newest membership stands."""
        return self._memberships[-1][0]

    def leader_at(self, lsn: int) -> int:
        """Who led the epoch of the entry at ``lsn``, which must not be below the snapshot.

        Every epoch begins with the entry that names its leader. 0 where it is not known.
        """
        for entry in reversed(self.after(self.base.lsn, lsn - self.base.lsn)):
            if entry.kind == Kind.TAKEOVER:
                return decode_takeover(entry.payload).leader
        return self.snapshot.leader

    def membership_at(self, lsn: int) -> Membership:
        """The membership that an entry at ``lsn``, at or above the snapshot, stands under."""
        return [each for at, each in self._memberships if at <= lsn][-1]

    def position(self, lsn: int) -> Position | None:
        """The position at an LSN; None where the entry is gone or the log does not reach."""
        start = self.start
        if lsn == start.lsn:
            return start
        if start.lsn < lsn <= self.last.lsn:
            return self._entries[lsn - start.lsn - 1].position
        return None

    def after(self, lsn: int, limit: int) -> list[Entry]:
        """At most ``limit`` entries that follow ``lsn``, which must not be below the start."""
        at = lsn - self.start.lsn
        assert at >= 0, (lsn, self.start)
        return self._entries[at : at + limit]

    def bytes_to(self, lsn: int) -> int:
        """A count of bytes that grows along the log: the difference of two is what lies between.

        An entry counts as its payload and ``ENTRY_BYTES``. Not for places below the start.
        """
        at = lsn - self.start.lsn
        assert at >= 0, (lsn, self.start)
        return self._totals[at - 1] if at else self._total_before

    @property
    def trail_bytes(self) -> int:
        """How much is kept although the snapshot covers it."""
        return self.bytes_to(self.base.lsn) - self._total_before

    def batch(self, lsn: int, entries_max: int, bytes_max: int) -> list[Entry]:
        """What follows ``lsn``, up to both limits; at least one entry where there is one."""
        at = lsn - self.start.lsn
        end = bisect_right(self._totals, self.bytes_to(lsn) + bytes_max, at)
        return self._entries[at : min(max(end, at + 1), at + entries_max)]

    def points(self) -> list[Position]:
        """Positions from the last one back to the snapshot's, ever further apart.

        Whoever holds another log finds in them, within a factor of two, where both part. They need
        not go further back: what the snapshot covers is committed, so logs part behind it.
        """
        found = []
        back = 0
        while self.last.lsn - back > self.base.lsn:
            position = self.position(self.last.lsn - back)
            assert position is not None
            found.append(position)
            back = back * 2 + 1
        return [*found, self.base]

    def equal_lsn(self, points: Sequence[Position]) -> int | None:
        """The largest LSN among a peer's points where both logs are equal; None if none is."""
        equal = [point.lsn for point in points if self.position(point.lsn) == point]
        return max(equal, default=None)

    # -- changing ----------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Add an entry behind the last."""
        assert entry.lsn == self.last.lsn + 1, (entry.lsn, self.last)
        assert entry.epoch >= self.last.epoch, (entry.epoch, self.last)
        self._totals.append(self.bytes_to(self.last.lsn) + len(entry.payload) + ENTRY_BYTES)
        self._entries.append(entry)
        self.last = entry.position
        if entry.kind == Kind.MEMBERS:
            self._memberships.append((entry.lsn, decode(entry.payload)))

    def cut(self, lsn: int) -> None:
        """Drop the entries from ``lsn`` on."""
        assert self.base.lsn < lsn <= self.last.lsn, (lsn, self.base, self.last)
        del self._entries[lsn - self.start.lsn - 1 :]
        del self._totals[lsn - self.start.lsn - 1 :]
        self.last = self._entries[-1].position if self._entries else self.start
        while self._memberships[-1][0] >= lsn:
            self._memberships.pop()
        if lsn <= self.saved_lsn:
            self._cut_lsn = min(self._cut_lsn or lsn, lsn)
            self.saved_lsn = lsn - 1
        self.durable_lsn = min(self.durable_lsn, lsn - 1)
        for flight in self._flights:
            flight.lsn = min(flight.lsn, lsn - 1)

    def install(self, snapshot: Snapshot) -> None:
        """Begin anew from a snapshot of another history; nothing is durable until it is."""
        self._entries.clear()
        self._totals.clear()
        self.snapshot = self._new_snapshot = snapshot
        self.start = self.last = snapshot.position
        self._memberships = [(snapshot.position.lsn, snapshot.membership)]
        self._cut_lsn = 1
        self.saved_lsn = snapshot.position.lsn
        self.durable_lsn = 0
        for flight in self._flights:
            flight.lsn = 0

    def compact(self, lsn: int, closed: Stamp, state: bytes) -> None:
        """Put a snapshot of the state at ``lsn`` in the place of the entries up to there.

        They stay in memory as the trail, the oldest first to go.
        """
        assert self.base.lsn < lsn <= self.durable_lsn, (lsn, self.base, self.durable_lsn)
        position = self.position(lsn)
        assert position is not None
        membership = [each for at, each in self._memberships if at <= lsn][-1]
        later = [(at, each) for at, each in self._memberships if at > lsn]
        self._memberships = [(lsn, membership), *later]
        self.snapshot = self._new_snapshot = Snapshot(
            position, membership, closed, state, self.leader_at(lsn)
        )
        self._shorten_trail()

    def _shorten_trail(self) -> None:
        excess = self.trail_bytes - self.trail_bytes_max
        if excess <= 0:
            return
        gone = bisect_left(self._totals, self._total_before + excess) + 1
        self.start = self._entries[gone - 1].position
        self._total_before = self._totals[gone - 1]
        del self._entries[:gone]
        del self._totals[:gone]

    # -- the way to the disk -----------------------------------------------------------------------

    def take(self, promise: int, *, promised_before: int, lost: bool) -> Persist | None:
        """What has to be made durable now; None if nothing has changed since the last time."""
        entries = tuple(self.after(self.saved_lsn, len(self._entries)))
        changed = entries or self._cut_lsn or self._new_snapshot or promise > promised_before
        if not changed and not lost:
            return None
        self._token += 1
        persist = Persist(self._token, promise, self._cut_lsn, self._new_snapshot, entries, lost)
        self._cut_lsn = 0
        self._new_snapshot = None
        self.saved_lsn = self.last.lsn
        self._flights.append(Flight(self._token, promise, self.last.lsn))
        return persist

    def landed(self, token: int) -> int:
        """Everything up to ``token`` is durable; returns the durable promise, 0 if none landed."""
        promise = 0
        while self._flights and self._flights[0].token <= token:
            flight = self._flights.pop(0)
            self.durable_lsn = max(self.durable_lsn, flight.lsn)
            promise = flight.promise
        return promise
