"""A small world in which only the test knows the time: do T1, T2 and T3 order transactions?

Several nodes with wandering clocks stamp transactions in every way there is; clients have
monotonic clocks that run wrong, batches that travel, and sessions; nodes stop, are killed, and
come back with their clocks set back. Everything is drawn from one seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from truetime import (
    OFFSET_MAX_NS,
    Batch,
    Interval,
    Oracle,
    OracleSettings,
    Passed,
    Pool,
    timestamp,
)

SETTINGS = OracleSettings(
    ttl_ns=500_000,
    ahead_max_ns=1_500_000,
    uncertainty_max_ns=600_000,
    count_max=64,
    reservation_ns=20_000_000,
)
DRIFT_PPM = 1_000
START_NS = timestamp.EPOCH_NS + 10**15


class HostClock:
    """A clock that wanders inside its bound; ``broken_ns`` takes it outside."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._half_ns = random.randint(50_000, 300_000)
        self._offset_ns = random.randint(-self._half_ns, self._half_ns)
        self.broken_ns = 0

    def now(self, ut_ns: int) -> Interval:
        """An interval that contains ``ut_ns``, unless the clock is broken."""
        step_ns = self._random.randint(-20_000, 20_000)
        self._offset_ns = max(-self._half_ns, min(self._half_ns, self._offset_ns + step_ns))
        shown_ns = ut_ns + self._offset_ns + self.broken_ns
        return Interval(shown_ns - self._half_ns, shown_ns + self._half_ns)


class Node:
    """An oracle with its clock and the one number it keeps on disk."""

    def __init__(self, oracle_id: int, random: Random) -> None:
        self.oracle_id = oracle_id
        self.clock = HostClock(random)
        self.oracle = Oracle(oracle_id, SETTINGS)
        self.durable_ns: int | None = None

    def keep_reserved(self, ut_ns: int) -> None:
        """Make the reservation durable before using it."""
        wanted_ns = self.oracle.needs_reservation(self.clock.now(ut_ns))
        if wanted_ns is not None:
            self.durable_ns = max(wanted_ns, self.durable_ns or 0)
            self.oracle.reserve(wanted_ns)

    def restart(self, random: Random, *, orderly: bool) -> None:
        """A new process with another clock error, and only what is on disk."""
        if orderly:
            self.durable_ns = self.oracle.close()
        self.clock = HostClock(random)
        if self.durable_ns is None:
            self.oracle = Oracle(self.oracle_id, SETTINGS)
        else:
            self.oracle = Oracle.restore(self.oracle_id, SETTINGS, self.durable_ns)


class Client:
    """A process with a monotonic clock that runs wrong by up to ``DRIFT_PPM``."""

    def __init__(self, random: Random) -> None:
        self._rate_ppm = random.randint(-DRIFT_PPM, DRIFT_PPM)
        self._booted_ns = random.randint(0, 10**12)
        self.pool = Pool(DRIFT_PPM)
        self.seen = 0  # the largest stamp of its session

    def monotonic_ns(self, ut_ns: int) -> int:
        """What the client's own clock shows."""
        elapsed_ns = ut_ns - START_NS
        return self._booted_ns + elapsed_ns * (1_000_000 + self._rate_ppm) // 1_000_000


@dataclass
class Transaction:
    """What the test knows about one transaction."""

    stamp: int
    begin_ns: int
    handout_ns: int
    plain: int  # the stamp before a retry's offset
    client: Client
    passed: Passed
    acknowledged_ns: int | None = None


@dataclass
class World:
    """True time, and all that happens in it."""

    seed: int
    commit_wait: bool = True
    ut_ns: int = START_NS
    random: Random = field(init=False)
    transactions: list[Transaction] = field(default_factory=list)
    ways: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.nodes = [Node(i, self.random) for i in (1, 2, 3)]
        self.clients = [Client(self.random) for _ in range(4)]

    def pass_time(self, longest_ns: int) -> int:
        """Let up to ``longest_ns`` pass; answers the new true time."""
        self.ut_ns += self.random.randint(0, longest_ns)
        return self.ut_ns

    def run(self, steps: int) -> None:
        """Take random steps."""
        actions = [self.begin_at_node, self.begin_turn, self.begin_from_pool, self.acknowledge]
        for _ in range(steps):
            self.pass_time(self.random.choice((300, 20_000, 400_000)))
            self.random.choice(actions)()
            if self.random.random() < 0.02:
                self.random.choice(self.nodes).restart(
                    self.random, orderly=self.random.random() < 0.5
                )

    def begin_at_node(self) -> None:
        """A client's first operation carries the begin; the node stamps it."""
        client, node, begin_ns = self._pick(), self._node(), self.ut_ns
        now = node.clock.now(self.pass_time(50_000))
        if self.random.random() < 0.5:
            stamp = node.oracle.stamp_at_least(client.seen, now.lo_ns, now.hi_ns)
            assert not stamp or stamp > client.seen
        else:
            stamp = node.oracle.stamp(now.lo_ns, now.hi_ns)
        self._began("node", client, stamp, begin_ns, self.ut_ns, now.lo_ns)

    def begin_turn(self) -> None:
        """Several begins reach a node before it reads its clock once."""
        node = self._node()
        begins = [(self._pick(), self.ut_ns, self.pass_time(2_000)) for _ in range(3)]
        now = node.clock.now(self.ut_ns)
        node.oracle.open_turn(now.lo_ns, now.hi_ns)
        for client, begin_ns, _ in begins:
            stamp = node.oracle.next_stamp()
            self._began("turn", client, stamp, begin_ns, self.ut_ns, now.lo_ns)

    def begin_from_pool(self) -> None:
        """A client stamps its transaction from a batch, fetching one when it must."""
        client = self._pick()
        if not client.pool.take(client.monotonic_ns(self.ut_ns), timestamp.MAX):
            requested_ns = client.monotonic_ns(self.ut_ns)
            node = self._node()
            batch = node.oracle.grant(8, node.clock.now(self.pass_time(200_000)))
            if isinstance(batch, Batch):
                arrived_ns = client.monotonic_ns(self.pass_time(200_000))
                for _ in range(self.random.choice((1, 2))):  # delivered twice now and then
                    client.pool.offer(batch, requested_ns, arrived_ns)
        for _ in range(self.random.randint(1, 4)):
            begin_ns = self.pass_time(100_000)
            stamp = client.pool.take(client.monotonic_ns(begin_ns), client.seen)
            assert not stamp or stamp > client.seen
            self._began("pool", client, stamp, begin_ns, begin_ns, 0)

    def acknowledge(self) -> None:
        """Finish a transaction as soon as its client may."""
        waiting = [t for t in self.transactions if t.acknowledged_ns is None]
        if not waiting:
            return
        one = self.random.choice(waiting)
        if self.commit_wait:
            wait_ns = one.passed.wait_ns(one.stamp, one.client.monotonic_ns(self.ut_ns))
            if wait_ns > 10**9:
                return
            while not one.passed.covers(one.stamp, one.client.monotonic_ns(self.ut_ns)):
                self.ut_ns += max(1, wait_ns // 2)
        one.acknowledged_ns = self.ut_ns

    def _pick(self) -> Client:
        return self.random.choice(self.clients)

    def _node(self) -> Node:
        node = self.random.choice(self.nodes)
        if self.random.random() < 0.8:
            node.keep_reserved(self.ut_ns)
        return node

    def _began(
        self, way: str, client: Client, stamp: int, begin_ns: int, handout_ns: int, lo_ns: int
    ) -> None:
        if not stamp:
            self.ways["refused"] = self.ways.get("refused", 0) + 1
            return
        self.ways[way] = self.ways.get(way, 0) + 1
        level = self.random.choice((0, 0, 0, 0, 0, 0, 0, 1, 2, 3))
        # Every client observes the reply that carries its stamp; a pool has seen its batch.
        client.pool.passed.observe(lo_ns, client.monotonic_ns(self.ut_ns))
        late = timestamp.offset(stamp, level)
        client.seen = max(client.seen, stamp)
        self.transactions.append(
            Transaction(late, begin_ns, handout_ns, stamp, client, client.pool.passed)
        )


def violations(transactions: list[Transaction]) -> list[str]:
    """Every broken rule, found by looking at all transactions at once."""
    found: list[str] = []
    for one in transactions:
        stamp_ns = timestamp.time_ns(one.stamp)
        if timestamp.time_ns(one.plain) < one.handout_ns:
            found.append("T1")
        if timestamp.time_ns(one.plain) > one.handout_ns + SETTINGS.ahead_max_ns:
            found.append("T2")
        if stamp_ns > one.handout_ns + SETTINGS.ahead_max_ns + OFFSET_MAX_NS:
            found.append("T2 with an offset")
        if one.acknowledged_ns is not None and one.acknowledged_ns <= stamp_ns:
            found.append("T3")
    if len({one.stamp for one in transactions}) < len(transactions):
        found.append("unique")
    # Walk through begins and acknowledgements in the order in which they happened.
    acknowledged = sorted(
        (one.acknowledged_ns, one.stamp) for one in transactions if one.acknowledged_ns is not None
    )
    largest, at = -1, 0
    for one in sorted(transactions, key=lambda t: t.begin_ns):
        while at < len(acknowledged) and acknowledged[at][0] < one.begin_ns:
            largest = max(largest, acknowledged[at][1])
            at += 1
        if one.stamp <= largest:
            found.append("real-time order")
    return found


@pytest.mark.parametrize("seed", range(40))
def test_clocks_inside_their_bound_never_break_a_rule(seed: int) -> None:
    """T1, T2, T3, uniqueness over restarts, and ack(A) before begin(B) => ts(A) < ts(B)."""
    world = World(seed)
    world.run(500)
    assert violations(world.transactions) == []
    assert min(world.ways[way] for way in ("node", "turn", "pool", "refused")) > 0
    assert sum(one.acknowledged_ns is not None for one in world.transactions) > 50


def test_the_same_seed_is_the_same_world() -> None:
    """A failure can be replayed from its seed."""
    one, other = World(7), World(7)
    one.run(300)
    other.run(300)
    assert [t.stamp for t in one.transactions] == [t.stamp for t in other.transactions]


def test_a_clock_outside_its_bound_is_noticed() -> None:
    """The checks above can fail: one node 10 ms slow breaks T1 and real-time order."""
    world = World(3)
    world.nodes[0].clock.broken_ns = -10_000_000
    found: set[str] = set()
    for _ in range(20):
        world.run(50)
        world.nodes[0].clock.broken_ns = -10_000_000
        found.update(violations(world.transactions))
    assert {"T1", "real-time order"} <= found


def test_leaving_out_the_commit_wait_is_noticed() -> None:
    """Without T3 real-time order breaks although every clock keeps its bound."""
    world = World(3, commit_wait=False)
    world.run(1_000)
    assert {"T3", "real-time order"} <= set(violations(world.transactions))


def test_forgetting_the_reservation_is_noticed() -> None:
    """An oracle that starts anew instead of from its durable bound repeats stamps."""
    node = Node(1, Random(1))
    now = Interval(START_NS, START_NS + 500_000)
    stamps: list[int] = []
    for _ in range(2):
        node.keep_reserved(START_NS)
        stamps.append(node.oracle.stamp(now.lo_ns, now.hi_ns))
        node.oracle = Oracle(1, SETTINGS)
    assert stamps[0] == stamps[1] > 0
