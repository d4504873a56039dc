"""The oracle against its rules, for any sequence of clock readings, requests and restarts."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from truetime import Batch, Interval, Oracle, OracleSettings, timestamp

SETTINGS = OracleSettings(
    ttl_ns=3_000,
    ahead_max_ns=30_000,
    uncertainty_max_ns=12_000,
    step_ticks=2,
    count_max=20,
    reservation_ns=60_000,
)
START_NS = timestamp.EPOCH_NS + 10**15


class OracleMachine(RuleBasedStateMachine):
    """One oracle whose clock may show anything: only T1 and T2 against *that* clock count."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle(3, SETTINGS)
        self.durable_ns: int | None = None
        self.clock = Interval(START_NS, START_NS + 1_000)
        self.given: list[int] = []
        self.turn: Interval | None = None

    @rule(move_ns=st.integers(-100_000, 100_000), width_ns=st.integers(0, 15_000))
    def clock_moves(self, move_ns: int, width_ns: int) -> None:
        lo_ns = self.clock.lo_ns + move_ns
        self.clock = Interval(lo_ns, lo_ns + width_ns)

    @rule()
    def reserve(self) -> None:
        wanted_ns = self.oracle.needs_reservation(self.clock)
        if wanted_ns is not None:
            self.durable_ns = max(wanted_ns, self.durable_ns or 0)
            self.oracle.reserve(wanted_ns)

    @rule(orderly=st.booleans())
    def restart(self, orderly: bool) -> None:
        if orderly:
            self.durable_ns = self.oracle.close()
        self.turn = None
        if self.durable_ns is None:
            self.oracle = Oracle(3, SETTINGS)
        else:
            self.oracle = Oracle.restore(3, SETTINGS, self.durable_ns)

    @rule()
    def one(self) -> None:
        refusal = self.oracle.refusal(self.clock.lo_ns, self.clock.hi_ns)
        stamp = self.oracle.stamp(self.clock.lo_ns, self.clock.hi_ns)
        assert (stamp == 0) == (refusal is not None)
        self.take(stamp, self.clock)

    @rule(above_ns=st.integers(-5_000, 40_000))
    def above_a_floor(self, above_ns: int) -> None:
        floor = timestamp.pack(self.clock.lo_ns + above_ns, 700)
        refusal = self.oracle.refusal(self.clock.lo_ns, self.clock.hi_ns, floor)
        stamp = self.oracle.stamp_at_least(floor, self.clock.lo_ns, self.clock.hi_ns)
        assert (stamp == 0) == (refusal is not None)
        assert stamp == 0 or stamp > floor
        self.take(stamp, self.clock)

    @rule()
    def open_turn(self) -> None:
        opened = self.oracle.open_turn(self.clock.lo_ns, self.clock.hi_ns)
        self.turn = self.clock
        assert opened == (self.oracle.refusal(self.clock.lo_ns, self.clock.hi_ns) is None)

    @rule(count=st.integers(1, 5))
    def next_of_the_turn(self, count: int) -> None:
        for _ in range(count):
            stamp = self.oracle.next_stamp()
            if stamp:
                assert self.turn is not None
                self.take(stamp, self.turn)

    @rule(count=st.integers(0, 40))
    def batch(self, count: int) -> None:
        answer = self.oracle.grant(count, self.clock)
        if isinstance(answer, Batch):
            assert 1 <= answer.count <= max(1, min(count, SETTINGS.count_max))
            assert timestamp.time_ns(answer.base) >= self.clock.hi_ns + SETTINGS.ttl_ns
            for index in range(answer.count):
                self.take(answer.base + index * answer.stride, self.clock)

    def take(self, stamp: int, clock: Interval) -> None:
        """A stamp was given while the clock showed ``clock``."""
        if not stamp:
            return
        assert clock.width_ns <= SETTINGS.uncertainty_max_ns
        assert timestamp.time_ns(stamp) >= clock.hi_ns
        assert timestamp.time_ns(stamp) <= clock.lo_ns + SETTINGS.ahead_max_ns
        assert (timestamp.oracle(stamp), timestamp.retry(stamp)) == (3, 0)
        assert self.durable_ns is not None
        assert timestamp.time_ns(stamp) <= self.durable_ns
        self.given.append(stamp)

    @invariant()
    def stamps_only_grow(self) -> None:
        assert self.given == sorted(set(self.given))


TestOracle = OracleMachine.TestCase
TestOracle.settings = settings(stateful_step_count=40)
