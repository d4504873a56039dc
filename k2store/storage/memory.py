"""Settled rows in memory: the naive twin of :mod:`k2store.storage.rocks`.

What is written goes to a state at once and into a journal; ``flush`` moves the journal into the
durable state.  When the process dies, a prefix of the journal survives and the rest is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from random import Random

from sortedcontainers import SortedDict

from k2store.storage.failures import StorageFailed
from k2store.storage.ports import LATEST, Page, Row
from k2store.storage.row import space_prefix

NAME_BYTES_MAX = 255
_BATCH_ROWS = 4096
_Key = tuple[int, bytes]


class _State:
    def __init__(self) -> None:
        self.rows: SortedDict[_Key, dict[int, bytes | None]] = SortedDict()
        self.meta: SortedDict[bytes, bytes] = SortedDict()
        self.applied_lsn = 0

    def settle(self, space: int, rows: Iterable[Row]) -> None:
        for key, stamp, value in rows:
            self.rows.setdefault((space, key), {})[stamp] = value

    def forget(self, space: int, versions: Iterable[tuple[bytes, int]]) -> None:
        for key, stamp in versions:
            found = self.rows.get((space, key))
            if found is not None:
                found.pop(stamp, None)
                if not found:
                    del self.rows[space, key]

    def between(
        self, space: int, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[_Key]:
        upper = (space + 1, b"") if end is None else (space, end)
        if (space, start) >= upper:
            return iter(())
        found: Iterator[_Key] = self.rows.irange(
            (space, start), upper, inclusive=(True, False), reverse=reverse
        )
        return found

    def replace_range(
        self, space: int, start: bytes, end: bytes | None, rows: Iterable[Row]
    ) -> None:
        for key in list(self.between(space, start, end)):
            del self.rows[key]
        self.settle(space, rows)

    def put_meta(self, items: Mapping[bytes, bytes | None]) -> None:
        for name, value in items.items():
            if value is None:
                self.meta.pop(name, None)
            else:
                self.meta[name] = value

    def mark_applied(self, lsn: int) -> None:
        self.applied_lsn = lsn


_Change = Callable[[_State], None]


class MemoryTable:
    """The rows of one simulated machine; outlives the processes that use it."""

    def __init__(self) -> None:
        self.life = 0
        self.flushes_to_fail = 0
        self.state = _State()
        self.journal: list[_Change] = []
        self._durable = _State()

    def change(self, change: _Change) -> None:
        """Do it now, and durably with the next flush."""
        change(self.state)
        self.journal.append(change)

    def flush(self, count: int | None = None) -> None:
        """Make the first ``count`` changes of the journal (all) durable."""
        landed = self.journal if count is None else self.journal[:count]
        for change in landed:
            change(self._durable)
        del self.journal[: len(landed)]

    def kill(self, random: Random | None) -> None:
        """The process or the machine dies: a random prefix of the journal survives, none of it
        without a generator."""
        self.life += 1
        self.flushes_to_fail = 0
        self.flush(0 if random is None else random.randint(0, len(self.journal)))
        self.journal.clear()
        self.state = _State()
        for (space, key), versions in self._durable.rows.items():
            self.state.rows[space, key] = dict(versions)
        self.state.meta.update(self._durable.meta)
        self.state.applied_lsn = self._durable.applied_lsn


def _checked(rows: Iterable[Row]) -> list[Row]:
    kept = list(rows)
    for _, stamp, _ in kept:
        if not 0 <= stamp <= LATEST:
            raise OverflowError(f"stamp {stamp} does not fit 8 bytes")
    return kept


class MemorySettled:
    """See :class:`k2store.storage.ports.Settled`."""

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self._life = table.life
        self._failed: str | None = None

    # ---- writing
    def settle(self, space: int, rows: Iterable[Row]) -> None:
        """Write versions."""
        space_prefix(space)
        kept = _checked(rows)
        self._change(lambda state: state.settle(space, kept))

    def forget(self, space: int, versions: Iterable[tuple[bytes, int]]) -> None:
        """Delete single versions."""
        space_prefix(space)
        kept = list(versions)
        self._change(lambda state: state.forget(space, kept))

    def replace_range(
        self, space: int, start: bytes, end: bytes | None, rows: Iterable[Row]
    ) -> None:
        """Write versions in the place of all those in a range."""
        space_prefix(space)
        kept = _checked(rows)
        self._change(lambda state: state.replace_range(space, start, end, kept))

    def put_meta(self, items: Mapping[bytes, bytes | None]) -> None:
        """Write named values."""
        for name in items:
            if len(name) > NAME_BYTES_MAX:
                raise ValueError(f"a name of {len(name)} bytes; at most {NAME_BYTES_MAX}")
        kept = dict(items)
        self._change(lambda state: state.put_meta(kept))

    def mark_applied(self, lsn: int) -> None:
        """Note how far the log is settled."""
        assert lsn >= self.applied_lsn, (lsn, self.applied_lsn)
        self._change(lambda state: state.mark_applied(lsn))

    def flush(self) -> int:
        """Make it durable."""
        self._check()
        if self._table.flushes_to_fail > 0:
            self._table.flushes_to_fail -= 1
            self._failed = "settled rows failed in flush (armed failure)"
            self._check()
        self._table.flush()
        return self.applied_lsn

    def _change(self, change: _Change) -> None:
        self._check()
        self._table.change(change)

    def _check(self) -> None:
        if self._failed is None and self._life != self._table.life:
            self._failed = "the process that held these rows is dead"
        if self._failed is not None:
            raise StorageFailed(self._failed, operation="settle")

    # ---- reading
    @property
    def _state(self) -> _State:
        return self._table.state

    @property
    def applied_lsn(self) -> int:
        """The highest lsn noted."""
        return self._state.applied_lsn

    def get_meta(self, name: bytes) -> bytes | None:
        """A named value."""
        return self._state.meta.get(name)

    def meta(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Named values by prefix."""
        return [item for item in self._state.meta.items() if item[0].startswith(prefix)]

    def newest(
        self, space: int, key: bytes, stamp: int = LATEST
    ) -> tuple[int, bytes | None] | None:
        """The newest version at or before a stamp."""
        found = self.versions(space, key, at_most=stamp, count_max=1)
        return found[0] if found else None

    def versions(
        self, space: int, key: bytes, *, at_most: int = LATEST, count_max: int = 1000
    ) -> list[tuple[int, bytes | None]]:
        """Versions of one key."""
        space_prefix(space)
        chain = self._state.rows.get((space, key), {})
        visible = [(stamp, value) for stamp, value in chain.items() if stamp <= at_most]
        return sorted(visible, key=lambda version: -version[0])[:count_max]

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
        """A page of the range."""
        if rows_max < 1 or examined_max < 1:
            raise ValueError("the limits of a scan are at least 1")
        space_prefix(space)
        rows: list[Row] = []
        examined = 0
        done: bytes | None = None
        for _, key in self._state.between(space, start, end, reverse=reverse):
            if done is not None and (examined >= examined_max or len(rows) >= rows_max):
                return Page(rows, done if reverse else key)
            found = self.newest(space, key, stamp)
            if found is not None and (tombstones or found[1] is not None):
                rows.append((key, *found))
            examined += len(self._state.rows[space, key])
            done = key
        return Page(rows, None)

    def newest_rows(self, space: int) -> Iterator[list[Row]]:
        """Load a space."""
        space_prefix(space)
        rows: list[Row] = []
        for _, key in self._state.between(space, b"", None):
            found = self.newest(space, key)
            assert found is not None
            rows.append((key, *found))
        yield from _batches(rows)

    def all_rows(
        self, space: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[list[Row]]:
        """Every version of a range."""
        space_prefix(space)
        rows: list[Row] = [
            (key, *version)
            for _, key in self._state.between(space, start, end)
            for version in self.versions(space, key, count_max=LATEST)
        ]
        yield from _batches(rows)

    @property
    def size_bytes(self) -> int:
        """Keys, values and stamps."""
        return sum(
            len(key) + sum(8 + len(value or b"") for value in versions.values())
            for (_, key), versions in self._state.rows.items()
        )

    def close(self) -> None:
        """Refuse from now on."""
        self._failed = self._failed or "the settled rows are closed"


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    for at in range(0, len(rows), _BATCH_ROWS):
        yield rows[at : at + _BATCH_ROWS]
