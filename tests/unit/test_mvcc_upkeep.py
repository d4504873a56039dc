"""Upkeep: collection, eviction, forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from mvcc.messages import (
    NOBODY,
    CommitAlone,
    CommitsAlone,
    Committed,
    End,
    Forgets,
    OneShot,
    Outcome,
    Read,
    Refused,
    Status,
    Value,
    Write,
)
from mvcc.records import Dropped
from mvcc.refusals import Rule
from mvcc.settled import Row
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import BASE_NS, MS, NEVER_NS, Driver
from truetime.timestamp import pack

KEYS = [b"a", b"b", b"c"]


def at_ms(time_ms: int) -> int:
    """A stamp of oracle 5, well after the start."""
    return pack(BASE_NS + (100 + time_ms) * MS, 5)


def commit(driver: Driver, key: bytes, value: bytes | None, stamp: int) -> None:
    """Commit one write, durably."""
    txn = b"client-1" + stamp.to_bytes(8, "big")
    request = driver.request()
    driver.send(key, CommitAlone(request, txn, stamp, [(key, value)], []))
    driver.quiet()
    assert isinstance(driver.answers[request], Committed)


def seen(driver: Driver, key: bytes, stamp: int) -> tuple[int, bytes | None] | Rule:
    """What a snapshot read answers."""
    request = driver.request()
    answer = driver.ask(key, Read(request, key, stamp, NOBODY, NEVER_NS), request)
    if isinstance(answer, Refused):
        return Rule(answer.refusal.rule)
    assert isinstance(answer, Value)
    return answer.version, answer.value


def in_small_batches(driver: Driver, size: int) -> None:
    """Let the settled store hand out its rows a few at a time."""
    whole = driver.settled.all_rows

    def all_rows(space: int, start: bytes, end: bytes | None) -> Iterator[Sequence[Row]]:
        rows = [row for batch in whole(space, start, end) for row in batch]
        for first in range(0, len(rows), size):
            yield rows[first : first + size]

    driver.settled.all_rows = all_rows  # type: ignore[method-assign, assignment]


@given(
    commits=st.lists(
        st.tuples(st.sampled_from(KEYS), st.booleans(), st.integers(1, 40)),
        max_size=14,
        unique_by=lambda item: item[2],
    ),
    size=st.integers(1, 4),
    horizon=st.integers(1, 45),
)
def test_collection_changes_no_read_at_or_above_the_horizon(
    commits: list[tuple[bytes, bool, int]], size: int, horizon: int
) -> None:
    """At every moment of a pass, whatever its batches, reads above the horizon see what they saw."""
    driver = Driver([b""], retention_ns=1_000 * MS)
    driver.pass_time(110 * MS)
    for key, deleted, time in commits:
        commit(driver, key, None if deleted else b"v%d" % time, at_ms(time))
    driver.pass_time(2_000 * MS)
    driver.tick()
    in_small_batches(driver, size)
    partition = driver.nodes[0].partition
    floor = at_ms(horizon)
    stamps = [floor, *(at_ms(time) for _, _, time in commits if time >= horizon), at_ms(1_000)]
    before = {(key, stamp): seen(driver, key, stamp) for key in KEYS for stamp in stamps}
    partition.state.settle()
    stored = [row for batch in driver.settled.all_rows(1, b"", None) for row in batch]
    partition.collect(floor)
    driver.checkpoint()
    driver.tick()
    assert partition.state.collectable == 0, "the checkpoint may be lost yet"
    driver.checkpoint()
    for _ in range(len(commits) + 3):
        driver.tick()
        driver.quiet()
        partition.state.chains.clear()
        assert {place: seen(driver, *place) for place in before} == before
    if horizon > 1 and partition.state.horizon == floor:
        assert seen(driver, b"a", floor - 1) == Rule.HORIZON
    left = [row for batch in driver.settled.all_rows(1, b"", None) for row in batch]
    assert set(left) <= set(stored)
    below = [row for row in left if row[1] <= floor]
    assert len({row[0] for row in below}) == len(below), "one version a key stays below"
    assert all(value is not None for _, _, value in below), "and no deletion does"


def test_eviction_drops_keys_but_not_what_protects_them() -> None:
    """Over the limit, clean keys leave memory; a fresh read mark or an intent keeps its key."""
    driver = Driver([b""], chains_max=2)
    driver.pass_time(1_100 * MS)
    for number in range(6):
        commit(driver, b"k%d" % number, b"v", at_ms(1_000 + number))
    seen(driver, b"k0", at_ms(1_020))
    state = driver.nodes[0].partition.state
    driver.tick()
    assert b"k0" in state.chains
    assert len(state.chains) <= 3
    request = driver.request()
    early = CommitAlone(request, b"client-1" + bytes(8), at_ms(1_010), [(b"k0", b"w")], [])
    refused = driver.ask(b"k0", early, request)
    assert isinstance(refused, Refused)
    assert refused.refusal.rule == Rule.READ_BY
    assert seen(driver, b"k5", at_ms(1_020)) == (at_ms(1_005), b"v")
    driver.pass_time(1_000 * MS)
    for _ in range(4):
        driver.tick()
    assert len(state.chains) <= 2, "once time is closed above its mark a key may go"


def test_outcomes_end_with_their_retention() -> None:
    """Before it, a question is answered; after it, the answer is that nobody knows."""
    driver = Driver([b""], retention_ns=1_000 * MS)
    driver.pass_time(110 * MS)
    stamp = at_ms(5)
    commit(driver, b"k", b"v", stamp)
    txn = b"client-1" + stamp.to_bytes(8, "big")

    def outcome() -> int:
        request = driver.request()
        answer = driver.ask(b"k", Status(request, txn, stamp, True), request)
        assert answer is not None
        return getattr(answer, "verdict")  # noqa: B009 - an Outcome

    assert outcome() == Verdict.COMMITTED
    driver.pass_time(2_000 * MS)
    driver.tick()
    driver.tick()
    driver.quiet()
    assert not driver.nodes[0].partition.state.transactions
    assert outcome() == Verdict.UNKNOWN
    driver.crash()
    assert outcome() in (Verdict.UNKNOWN, Verdict.COMMITTED), "replay may know it still"


def test_a_batch_on_its_way_is_not_forgotten() -> None:
    """However short the retention, a commit whose entry is not durable stays known."""
    driver = Driver([b""], retention_ns=100 * MS)
    driver.pass_time(110 * MS)
    stamp = at_ms(5)
    txn = b"client-1" + stamp.to_bytes(8, "big")
    request = driver.request()
    driver.send(b"k", CommitsAlone(0, [request], [txn], [stamp], [1], [b"k"], [b"v"]))
    driver.pass_time(1_000 * MS)
    for _ in range(3):
        driver.tick()
    question = driver.request()
    assert driver.ask(b"k", Status(question, txn, stamp, True), question) is None
    driver.quiet()
    assert driver.answers[question] == Outcome(question, Verdict.COMMITTED, stamp)


def test_a_replay_brings_nothing_back_that_a_deletion_covered() -> None:
    """A commit below a deletion may come later in the log than the deletion.  When a rebuild replays
    the one and not the other, the deletion must still stand.
    """
    driver = Driver([b""], retention_ns=1_000 * MS)
    driver.pass_time(110 * MS)
    commit(driver, b"k", None, at_ms(20))
    driver.checkpoint()
    commit(driver, b"k", b"late", at_ms(10))
    driver.pass_time(2_000 * MS)
    driver.tick()
    driver.nodes[0].partition.collect()
    driver.quiet()
    for _ in range(3):
        driver.tick()
        driver.quiet()
    driver.settled.flush()
    driver.crash()
    assert seen(driver, b"k", at_ms(1_500)) == (0, None)


def test_replicas_forget_what_the_leader_has_forgotten() -> None:
    """Outcomes whose clients have them go everywhere, in bulk; one that is still waited for stays."""
    driver = Driver([b"", b"m"], replicated=True)
    driver.pass_time(110 * MS)
    txns = [b"client-1" + number.to_bytes(8, "big") for number in range(5)]
    stamps = [at_ms(number) for number in range(5)]
    requests = [driver.request() for _ in txns]
    keys = [b"a", b"b", b"c", b"d", b"e"]
    values: list[bytes | None] = [b"v"] * 5
    driver.send(b"a", CommitsAlone(0, requests, txns, stamps, [1] * 5, keys, values))
    driver.quiet()
    both = b"client-1both-two"
    writes: list[tuple[bytes, bytes | None, int]] = [(b"f", b"v", 1)]
    driver.send(b"f", Write(driver.request(), both, at_ms(9), b"f", writes, [], NEVER_NS))
    driver.send(
        b"x", Write(driver.request(), both, at_ms(9), b"f", [(b"x", b"v", 1)], [], NEVER_NS)
    )
    driver.quiet()
    driver.send(
        b"f", End(driver.request(), both, at_ms(9), b"f", True, [(b"f", b"f"), (b"x", b"x")])
    )
    driver.persist(0)
    driver.send(b"a", Forgets([*txns[:4], both]))
    driver.replicate(0)
    follower = driver.followers[0].partition.state
    assert set(follower.transactions) == {*txns, both}
    driver.pass_time(1_100 * MS)
    driver.tick()
    driver.persist(0)
    driver.replicate(0)
    assert set(follower.transactions) == {txns[4], both}, "a participant does not know it yet"
    driver.quiet()
    driver.pass_time(1_100 * MS)
    driver.tick()
    driver.persist(0)
    driver.replicate(0)
    assert set(follower.transactions) == {txns[4]}
    assert not follower.unconfirmed
    records = [record for entry in driver.nodes[0].ever for record in entry.records]
    assert sum(isinstance(record, Dropped) for record in records) == 2


def test_what_began_anew_is_not_forgotten_by_replicas() -> None:
    """A copy of a one-shot that comes after its outcome was forgotten has an outcome again, on
    replicas as well.
    """
    driver = Driver([b""], replicated=True)
    driver.pass_time(110 * MS)
    txn = b"client-1" + bytes(8)
    for copy in range(2):
        one_shot = OneShot(driver.request(), txn, 0, NEVER_NS, [], [], [(b"a", b"v")])
        driver.send(b"a", one_shot)
        driver.quiet()
        if copy == 0:
            driver.send(b"a", Forgets([txn]))
            assert txn not in driver.nodes[0].partition.state.transactions
    driver.pass_time(1_100 * MS)
    driver.tick()
    driver.quiet()
    driver.replicate(0)
    assert txn in driver.nodes[0].partition.state.transactions
    assert txn in driver.followers[0].partition.state.transactions


def test_a_one_shot_that_was_declared_aborted_stays_so() -> None:
    """A copy that another node still has comes after the client was told, and after a takeover."""
    driver = Driver([b""], replicated=True)
    driver.pass_time(110 * MS)
    txn = b"client-1" + bytes(8)
    question = driver.request()
    answer = driver.ask(b"a", Status(question, txn, 0, True), question)
    assert answer is None, "nobody is told before it is durable"
    driver.quiet()
    assert driver.answers[question] == Outcome(question, Verdict.ABORTED, 0)
    driver.send(b"a", Forgets([txn]))
    for step in range(3):
        driver.pass_time(1_100 * MS)
        driver.tick()
        driver.quiet()
        if step == 1:
            driver.checkpoint()
            driver.depose(0)
            driver.pass_time(110 * MS)
        late = driver.request()
        copy = OneShot(late, txn, 0, NEVER_NS, [], [], [(b"a", b"v")])
        assert isinstance(driver.ask(b"a", copy, late), Refused)
    assert seen(driver, b"a", at_ms(1)) == (0, None)


def test_replicas_delete_by_the_leaders_horizon() -> None:
    """A follower raises its horizon with the log, and after its own checkpoints it deletes."""
    driver = Driver([b""], retention_ns=1_000 * MS)
    driver.pass_time(110 * MS)
    for time in (10, 20, 30):
        commit(driver, b"a", b"v%d" % time, at_ms(time))
    driver.pass_time(2_000 * MS)
    driver.tick()
    driver.nodes[0].partition.collect()
    driver.run()
    driver.quiet()
    driver.replicate(0)
    state = driver.followers[0].partition.state
    assert state.horizon == driver.nodes[0].partition.state.horizon
    assert len(state.settled.versions(1, b"a")) == 0  # nobody has settled it yet
    driver.checkpoint_follower(0)
    assert len(state.settled.versions(1, b"a")) == 3
    driver.tick()
    assert len(state.settled.versions(1, b"a")) == 3
    driver.checkpoint_follower(0)
    for _ in range(3):
        driver.tick()
    assert state.settled.versions(1, b"a") == [(at_ms(30), b"v30")]
