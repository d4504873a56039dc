"""How large a partition is, and at which key half of it lies: what splits by size rest on.

The settled rows are counted in passing, a few batches a tick, on the partition's leader. Counting
again and again what does not grow would cost more than it tells, so a pass begins only when the log
has gone on since the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from k2store.node.spaces import SPACE
from mvcc.settled import Row

if TYPE_CHECKING:
    from k2store.node.cluster.group import Group
    from k2store.storage import Settled

BATCHES_A_STEP: Final = 2
REST_NS: Final = 30_000_000_000
"""Between the passes over one partition."""
SAMPLES: Final = 1_024
"""How finely the middle is known: a sample stands for at most this part of the size to split at."""
ROW_BYTES: Final = 16


class Measure:
    """The size of one partition."""

    def __init__(self, split_bytes: int) -> None:
        """`split_bytes`: the size from which a partition is to be split; 0 for never."""
        self.size_bytes = 0
        """As the last whole pass found it."""
        self._split_bytes = split_bytes
        self._rows: Iterator[Sequence[Row]] | None = None
        self._began_ns = 0
        self._lsn = -1
        self._counted = 0
        self._samples: list[tuple[int, bytes]] = []

    def step(self, settled: Settled, group: Group, now_ns: int) -> bytes | None:
        """Go on counting; a key at which the partition is to be split, when a pass finds it large."""
        if not self._split_bytes:
            return None
        if self._rows is None:
            lsn = group.replica.applied_lsn
            if now_ns - self._began_ns < REST_NS or lsn == self._lsn:
                return None
            self._began_ns = now_ns
            self._lsn = lsn
            self._counted = 0
            self._samples = []
            self._rows = iter(settled.all_rows(SPACE, group.start, group.end or None))
        for _ in range(BATCHES_A_STEP):
            batch = next(self._rows, None)
            if batch is None:
                self._rows = None
                self.size_bytes = self._counted
                return self._middle(group)
            self._count(batch)
        return None

    def _count(self, batch: Sequence[Row]) -> None:
        grain = max(1, self._split_bytes // SAMPLES)
        last = self._samples[-1][0] if self._samples else 0
        for key, _, value in batch:
            self._counted += len(key) + len(value or b"") + ROW_BYTES
            if self._counted - last >= grain:
                last = self._counted
                self._samples.append((last, key))

    def _middle(self, group: Group) -> bytes | None:
        if self.size_bytes < self._split_bytes:
            return None
        half = self.size_bytes // 2
        key = next((key for counted, key in self._samples if counted >= half), b"")
        return key if key > group.start else None
