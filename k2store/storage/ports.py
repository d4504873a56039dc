"""The two ports of a node's durability layer, and what passes through them.

A node sees storage only through :class:`Log` and :class:`Settled`.  Each has two implementations
with one meaning: files and RocksDB (``open_store``), and memory (``open_memory_store``: tests and
the simulator).  One contract suite tests both.

This module knows nothing of files, RocksDB, transactions or partitions: a turn's payload and a
row's value are opaque.

The life of a write::

    records of one turn of the loop ─► log.append(payload) ─► log.sync() ─► answers leave
                                                                  │ later, in bulk
                                      settled.settle(space, rows) ... settled.mark_applied(lsn)
                                                                  │ when log.segment_full
    log.begin_segment(checkpoint of all that is not settled) · settled.flush() · drop_before(lsn)

and of a restart::

    open_store(path) ─► settled.newest_rows(space) ─► log.replay()   (from the last checkpoint)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec

Row = tuple[bytes, int, bytes | None]
"""(user key, stamp, value); no value where the key was deleted at that stamp (a tombstone)."""

LATEST = (1 << 64) - 1
"""A stamp that is not before any other."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log: everything that one turn of the node's loop made durable together."""

    lsn: int
    """Number of the turn; the first is 1 and there are no gaps."""
    checkpoint: bool
    """True where the payload restates everything before it that is not settled."""
    payload: bytes


class Page(msgspec.Struct, frozen=True, gc=False):
    """A bounded piece of a scan."""

    rows: list[Row]
    resume: bytes | None
    """Where the next page begins, None when the range is exhausted.  Forward: the next page's
    ``start``.  Reverse: its ``end``.  A page can be short, even empty, and still have more to
    come: work is bounded, not only output."""


class PendingSync(Protocol):
    """A sync that was begun on the owner's thread and may run on another one."""

    @property
    def lsn(self) -> int:
        """The last turn this sync covers."""
        ...

    def run(self) -> None:
        """Wait for the disk.  Callable from any thread (the interpreter lock is released
        meanwhile); never raises: the result is taken, or the failure raised, by
        :meth:`Log.finish_sync`."""
        ...


class Log(Protocol):
    """One append-only, hash-chained log of opaque turns, shared by all partitions of a node.

    Owned by one thread (or loop): only :meth:`PendingSync.run` and :meth:`prepare_segment` may run
    elsewhere.

    **Fail-stop.**  The first error of the disk, in whichever method, poisons the log: that call
    and every later ``append``, ``sync``, ``begin_segment`` or ``drop_before`` raises
    :class:`~k2store.storage.failures.StorageFailed`.  What a failed sync covered may or may not
    survive; nobody may be told that it did.  The remedy is to stop the process and open the store
    again.
    """

    @property
    def first_lsn(self) -> int:
        """The oldest turn still kept; equals ``next_lsn`` in an empty log.  Starts at 1."""
        ...

    @property
    def next_lsn(self) -> int:
        """The number the next appended turn will get."""
        ...

    @property
    def durable_lsn(self) -> int:
        """The last turn that a sync has covered; 0 when there is none.  Right after opening every
        turn that was recovered is durable."""
        ...

    @property
    def checkpoint_lsn(self) -> int:
        """The newest turn written by :meth:`begin_segment`; 0 when none is kept."""
        ...

    @property
    def hash(self) -> bytes:
        """16 bytes: the chain over every turn ever appended; two logs with equal (next_lsn, hash)
        are equal."""
        ...

    @property
    def segment_full(self) -> bool:
        """True when the owner should call :meth:`begin_segment` soon (the segment is three
        quarters full, or the log has moved on to another segment by itself).  A hint: appends
        never fail for lack of room in a segment."""
        ...

    @property
    def size_bytes(self) -> int:
        """Disk space the log takes: all segments, used or spare."""
        ...

    @property
    def failed(self) -> str | None:
        """Why the log is poisoned; None while it is well."""
        ...

    def append(self, payload: bytes) -> int:
        """Add a turn and give its number.  It is handed to the operating system, so a killed
        *process* does not lose it, but it is not durable: a power cut may lose or tear it until a
        sync covers it.

        An empty payload is allowed.  ValueError above ``TURN_BYTES_MAX``.
        """
        ...

    def sync(self, meanwhile: Callable[[], object] | None = None) -> int:
        """Make everything appended durable with one fdatasync; give the new ``durable_lsn``.
        Without new turns it does no I/O.  About 0.1-0.2 ms on a good disk, meant to be called
        inline, once a turn of the loop.

        ``meanwhile``: work for this thread while the disk is busy, worth some 20 µs at least; it
        must not touch the log.  Not called where there is nothing to wait for.
        """
        ...

    def begin_sync(self) -> PendingSync:
        """The first third of a sync that may run in a thread: fixes what it covers.  At most one
        at a time (assertion); appending may go on meanwhile, further syncs and segment changes may
        not."""
        ...

    def finish_sync(self, pending: PendingSync) -> int:
        """The last third, on the owner's thread after ``pending.run()`` returned: give the new
        ``durable_lsn``."""
        ...

    def replay(self, from_lsn: int | None = None) -> Iterator[Turn]:
        """Every kept turn from ``from_lsn`` on, in order, as verified when the log was opened plus
        what was appended since.  Default: from ``checkpoint_lsn``, or ``first_lsn`` without one.
        ValueError outside [first_lsn, next_lsn]."""
        ...

    def begin_segment(self, checkpoint: bytes) -> int:
        """Start a new segment whose first turn is ``checkpoint``, durable on return; give its
        number.  Everything appended before is made durable first.  Takes about a millisecond if
        :meth:`prepare_segment` was called or a dropped segment can be recycled, else also the time
        to write a segment of zeros."""
        ...

    def prepare_segment(self) -> None:
        """Make sure that a spare segment lies ready.  Slow (writes a whole segment), callable from
        any one thread beside the owner's; a failure here is reported by the next
        :meth:`begin_segment`, not raised."""
        ...

    def drop_before(self, lsn: int) -> int:
        """Forget whole segments whose turns are all before ``lsn``; give how many.  The owner
        promises that what they held is durable elsewhere.  The segment that holds the newest turn
        always stays.  ValueError when ``lsn`` is beyond ``durable_lsn + 1``."""
        ...

    def close(self) -> None:
        """Release the files.  Does not sync: what was not synced was not promised.  Idempotent."""
        ...


class Settled(Protocol):
    """Settled multi-version rows, ordered by (space, key, newest stamp first), and a few named
    values.

    A *space* is a number 1 .. 2**32 - 2 that separates partitions or kinds of rows from one
    another.  Keys are any bytes (also empty, also with zeros), ordered as bytes are; stamps are 0
    .. 2**64 - 1.  Settling a (space, key, stamp) again replaces it, so replaying the log over rows
    that are already there is harmless.

    **Durability.**  Writes go to memory and become durable in the order they were made: after a
    crash exactly a prefix of the writes since the last :meth:`flush` is there (each call of a
    writing method whole).  So ``mark_applied`` never survives without the rows that were settled
    before it.

    Called from the owner's thread, but :meth:`flush` may run in another one beside it.  An error
    of the disk raises :class:`~k2store.storage.failures.StorageFailed` and poisons writes; damage
    met while reading raises :class:`~k2store.errors.Corruption`.
    """

    # ---- writing
    def settle(self, space: int, rows: Iterable[Row]) -> None:
        """Write versions of one space, in one batch; the hot path (about a microsecond a row, best
        in hundreds)."""
        ...

    def forget(self, space: int, versions: Iterable[tuple[bytes, int]]) -> None:
        """Delete single versions (key, stamp), in one batch; absent ones are no error."""
        ...

    def replace_range(
        self, space: int, start: bytes, end: bytes | None, rows: Iterable[Row]
    ) -> None:
        """These versions, of keys in [start, end), and no others of any key in it, in one batch: after a
        crash the old ones are there or the new ones.  End None: to the end of the space."""
        ...

    def put_meta(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write named values in one batch; None deletes.  Names of more than 255 bytes are a
        ValueError."""
        ...

    def mark_applied(self, lsn: int) -> None:
        """Note that everything the log holds up to ``lsn`` is settled or in a later checkpoint.
        Never goes back (assertion)."""
        ...

    def flush(self) -> int:
        """Make everything written before the call durable; give the ``applied_lsn`` that is
        durable now.  Slow (tens to hundreds of milliseconds); run it in a thread, before
        ``Log.drop_before(that + 1)``."""
        ...

    # ---- reading
    @property
    def applied_lsn(self) -> int:
        """The highest ``mark_applied``, 0 at first."""
        ...

    def get_meta(self, name: bytes) -> bytes | None:
        """A named value."""
        ...

    def meta(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """All named values whose name begins with ``prefix``, in order of name."""
        ...

    def newest(
        self, space: int, key: bytes, stamp: int = LATEST
    ) -> tuple[int, bytes | None] | None:
        """The newest version of ``key`` at or before ``stamp`` as (its stamp, its value or None
        for a tombstone); None when there is none."""
        ...

    def versions(
        self, space: int, key: bytes, *, at_most: int = LATEST, count_max: int = 1000
    ) -> list[tuple[int, bytes | None]]:
        """Versions of one key at or before stamp ``at_most``, newest first, tombstones included."""
        ...

    def scan(
        self,
        space: int,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        stamp: int = LATEST,
        rows_max: int = 1000,
        examined_max: int = 10_000,
        reverse: bool = False,
        tombstones: bool = False,
    ) -> Page:
        """The newest version at or before ``stamp`` of each key in [start, end), in order of key
        (or in reverse), at most ``rows_max`` of them and touching at most about ``examined_max``
        stored versions.

        ``tombstones``: also give keys whose newest version is a deletion (value None); merging
        with newer state held elsewhere needs them.  ValueError when a limit is below 1.
        """
        ...

    def newest_rows(self, space: int) -> Iterator[list[Row]]:
        """The newest version of every key of a space, in order of key, tombstones included, in
        batches of a few thousand: for loading a partition at start.  Sees the state at the moment
        of the first step; writing meanwhile is allowed."""
        ...

    def all_rows(
        self, space: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[list[Row]]:
        """Every version of every key in [start, end), by key, newest first, in batches of a few
        hundred (collection, watches that catch up: a batch must not hold the loop up).  Sees the
        state at the moment of the first step; writing meanwhile is allowed."""
        ...

    @property
    def size_bytes(self) -> int:
        """Estimate of the disk space taken."""
        ...

    def close(self) -> None:
        """Release everything; what was not flushed need not survive.  Idempotent."""
        ...


class Identity(msgspec.Struct, frozen=True):
    """What a store says of itself, written once when it is made."""

    format: int
    """Version of the on-disk format (docs/storage.md)."""
    store: str
    """32 hexadecimal digits, drawn when the store was made; every segment of the log repeats it."""
    created_ns: int
    """When it was made, Unix time."""


class Store(Protocol):
    """An open store: both ports, and the right to use the directory until it is closed."""

    @property
    def identity(self) -> Identity: ...

    @property
    def log(self) -> Log: ...

    @property
    def settled(self) -> Settled: ...

    def quarantine(self, reason: str) -> None:
        """Note durably that acknowledged data was found damaged or lost; from now on opening this
        store raises Corruption with ``reason`` until an operator restores it or lifts the
        quarantine."""
        ...

    def close(self) -> None:
        """Close both ports and give the directory free.  Idempotent."""
        ...
