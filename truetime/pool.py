"""The pool: a client hands out the stamps of a granted batch, without asking anybody.

      asked            granted           arrives              expires
    ────┼─────────────────┼─────────────────┼────────────────────┼──────▶ monotonic time
        └────────────────────── less than ttl·(1-rho) ───────────┘

The batch lies ``ttl`` above the oracle's ``hi``. Counting the TTL from *before* the request was
sent keeps T1 without any synchronised clock: UT(handout) < UT(asked) + ttl <= hi + ttl <= base.
A batch may arrive expired, when a turn takes longer than its TTL; then the pool says so and the
client lets the node stamp the transaction instead.

Stamps are taken when a transaction begins and never before: a stamp put aside for a queued
transaction grows old while the machine sleeps or the process stalls.
"""

from typing import Final

from truetime.commit_wait import DRIFT_PPM_DEFAULT, Passed, elapsed_at_least_ns
from truetime.oracle import Batch
from truetime.timestamp import Stamp

EMPTY: Final[Stamp] = 0


class Pool:
    """The stamps one client process holds. Times are of a suspend-aware monotonic clock."""

    __slots__ = ("_batch", "_drift_ppm", "_expires_at_ns", "_newest_base", "_used", "passed")

    def __init__(self, drift_ppm: int = DRIFT_PPM_DEFAULT) -> None:
        self.passed = Passed(drift_ppm)  # every batch also says what time it is at least
        self._drift_ppm = drift_ppm
        self._batch: Batch | None = None
        self._expires_at_ns = 0
        self._newest_base: Stamp = 0
        self._used = 0

    def offer(self, batch: Batch, requested_at_ns: int, arrived_at_ns: int) -> bool:
        """Put a batch that arrived in use; False when it is too old, or not newer than another.

        ``requested_at_ns`` was read before the request was sent. A batch that is delivered
        twice must not be handed out twice, hence only a larger base is ever accepted.
        """
        assert requested_at_ns <= arrived_at_ns, (requested_at_ns, arrived_at_ns)
        self.passed.observe(batch.lo_ns, arrived_at_ns)
        expires_at_ns = requested_at_ns + elapsed_at_least_ns(batch.ttl_ns, self._drift_ppm)
        if arrived_at_ns >= expires_at_ns or batch.base <= self._newest_base:
            return False
        self._batch = batch
        self._newest_base = batch.base
        self._expires_at_ns = expires_at_ns
        self._used = 0
        return True

    def take(self, monotonic_ns: int, floor: Stamp = 0) -> Stamp:
        """A stamp above ``floor`` for a transaction that begins now; ``EMPTY`` (0): fetch a batch.

        ``floor`` is the largest stamp the session has seen. Stamps at or below it are skipped;
        when the whole batch is below it, nothing is used up and others may go on using it.
        """
        batch = self._batch
        if batch is None or monotonic_ns >= self._expires_at_ns:
            return EMPTY
        index = self._used
        if floor >= batch.base:
            index = max(index, (floor - batch.base) // batch.stride + 1)
        if index >= batch.count:
            return EMPTY
        self._used = index + 1
        return batch.base + index * batch.stride

    def remaining(self, monotonic_ns: int) -> int:
        """How many stamps can still be taken now."""
        if self._batch is None or monotonic_ns >= self._expires_at_ns:
            return 0
        return self._batch.count - self._used
