"""The coordinator: routes, places of retries, and one answer for each request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcc.coordinator import Coordinator, Mutation, Route
from mvcc.messages import Committed, Heartbeat, Outcome, Refused, Written
from mvcc.refusals import Rule
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver
from truetime.timestamp import OFFSET_TICKS, offset, retry, tick

KEYS = [b"", b"a", b"b", b"c", b"d", b"e", b"f"]


@given(
    starts=st.sets(st.sampled_from(KEYS[1:])),
    start=st.sampled_from(KEYS),
    end=st.sampled_from(KEYS),
)
def test_a_route_finds_the_owner_of_each_key(starts: set[bytes], start: bytes, end: bytes) -> None:
    """Each key has one owner, and a range is covered by exactly the owners of keys in it."""
    bounds = [b"", *sorted(starts)]
    route = Route(bounds)
    assert len(route) == len(bounds)
    owners = {key: max(i for i, bound in enumerate(bounds) if bound <= key) for key in KEYS}
    assert all(route.of(key) == owner for key, owner in owners.items())
    if end and end <= start:
        return
    touched = {
        index
        for index, bound in enumerate(bounds)
        if (not end or bound < end) and (index + 1 == len(bounds) or bounds[index + 1] > start)
    }
    assert set(route.covering(start, end)) == touched


@pytest.mark.parametrize(
    ("attempt", "level"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (200, 3)]
)
def test_later_attempts_are_placed_further_ahead(attempt: int, level: int) -> None:
    """From the third attempt on a stamp lies ahead, and never further than F."""
    txn = b"client-1" + bytes(6) + attempt.to_bytes(2, "big")
    stamp = 99 << 12 | 5 << 2
    placed = Coordinator.place(txn, stamp)
    assert placed == offset(stamp, level)
    assert retry(placed) == level
    assert tick(placed) - tick(stamp) == OFFSET_TICKS[level]


class Session:
    """A client of one coordinator over two partitions."""

    def __init__(self) -> None:
        self.driver = Driver([b"", b"m"])
        self.driver.pass_time(100 * MS)
        self.coordinator = self.driver.coordinator
        self.numbers = 0

    def begin(self, owner: int = 1) -> bytes:
        """A new transaction."""
        self.numbers += 1
        txn = b"client-%d" % owner + self.numbers.to_bytes(6, "big") + b"\0\0"
        stamp = self.driver.oracle.next_stamp()
        self.coordinator.begin(txn, stamp, owner, self.driver.now)
        return txn

    def do(self, what: str, txn: bytes, writes: list[Mutation] | None = None) -> int:
        """Ask the coordinator; the request number."""
        transaction = self.coordinator.opened(txn, 1)
        assert transaction is not None
        request = self.driver.request()
        if what == "write":
            self.coordinator.write(transaction, request, writes or [], NEVER_NS)
        elif what == "commit":
            self.coordinator.commit(transaction, request, writes or [], NEVER_NS)
        else:
            self.coordinator.rollback(transaction, request)
        self.driver.run()
        return request

    def answer(self, request: int) -> object:
        """What was answered by now."""
        return self.driver.answers.get(request)


def test_a_commit_over_two_partitions_is_answered_once_and_late() -> None:
    """Not before the record is durable at the anchor; and then the transaction is over."""
    session = Session()
    txn = session.begin()
    request = session.do("commit", txn, [(b"a", b"1"), (b"x", b"1")])
    session.driver.persist(0)
    assert session.answer(request) is None, "one participant is still writing"
    session.driver.persist(1)
    assert session.answer(request) is None, "the record is not durable"
    assert txn in session.coordinator.open
    session.driver.persist(0)
    assert isinstance(session.answer(request), Committed)
    assert txn not in session.coordinator.open


def test_requests_during_a_commit_are_refused() -> None:
    """A second commit, a write and a rollback meet a transaction that has ended."""
    session = Session()
    txn = session.begin()
    first = session.do("commit", txn, [(b"a", b"1"), (b"x", b"1")])
    for what in ("commit", "write", "rollback"):
        answer = session.answer(session.do(what, txn, [(b"b", b"2")]))
        assert isinstance(answer, Refused)
        assert answer.refusal.rule == Rule.ENDED
    session.driver.quiet()
    assert isinstance(session.answer(first), Committed)


def test_a_rollback_is_answered_with_an_outcome() -> None:
    """With and without intents standing somewhere, a rollback says ABORTED."""
    session = Session()
    for writes in ([], [(b"a", b"1")], [(b"a", b"1"), (b"x", b"1")]):
        txn = session.begin()
        if writes:
            session.do("write", txn, list(writes))
            session.driver.quiet()
        request = session.do("rollback", txn)
        session.driver.quiet()
        assert session.answer(request) == Outcome(request, Verdict.ABORTED, 0)
        assert txn not in session.coordinator.open
    for node in session.driver.nodes:
        assert not node.partition.state.undecided


def test_an_early_write_to_two_partitions_is_acknowledged_when_both_have_it() -> None:
    """One answer, when the last partition has it on disk."""
    session = Session()
    txn = session.begin()
    request = session.do("write", txn, [(b"a", b"1"), (b"x", b"1")])
    session.driver.persist(1)
    assert session.answer(request) is None
    session.driver.persist(0)
    assert isinstance(session.answer(request), Written)


def test_a_silent_coordinator_sends_heartbeats_for_those_who_wrote() -> None:
    """Once a heartbeat interval, to the anchor, for transactions with intents only."""
    session = Session()
    session.begin()
    writer = session.begin()
    session.do("write", writer, [(b"x", b"1")])
    session.coordinator.tick(session.driver.now)
    assert session.coordinator.sends == [(1, Heartbeat(writer))]
    session.coordinator.sends.clear()
    session.coordinator.tick(session.driver.now)
    assert not session.coordinator.sends


def test_a_session_that_leaves_takes_its_own_transactions_only() -> None:
    """Open ones of the owner end, also those noted by their bare stamp; a commit under way goes on."""
    session = Session()
    coordinator, driver = session.coordinator, session.driver
    mine, committing, bare = session.begin(), session.begin(), b"client-1" + bytes(8)
    other = session.begin(owner=2)
    coordinator.open[bare] = driver.oracle.next_stamp()
    session.do("write", mine, [(b"a", b"1")])
    request = session.do("commit", committing, [(b"b", b"1"), (b"x", b"1")])
    coordinator.leave(1, b"client-1")
    driver.run()
    driver.quiet()
    assert set(coordinator.open) == {other}
    assert isinstance(session.answer(request), Committed)


def test_the_oldest_open_stamp_is_known() -> None:
    """What the closed timestamp must stay below: the smallest stamp of anything open."""
    session = Session()
    assert session.coordinator.oldest() == 0
    first, second = session.begin(), session.begin()
    stamps = []
    for txn in (first, second):
        transaction = session.coordinator.opened(txn, 1)
        assert transaction is not None
        stamps.append(transaction.stamp)
    assert session.coordinator.oldest() == stamps[0]
    session.coordinator.forget(first)
    assert session.coordinator.oldest() == stamps[1]


def test_a_transaction_that_lives_too_long_is_ended() -> None:
    """Readers are dropped, writers are rolled back, and what they wrote is gone."""
    session = Session()
    reader, writer = session.begin(), session.begin()
    session.do("write", writer, [(b"a", b"1"), (b"x", b"1")])
    session.driver.pass_time(session.driver.settings.lifetime_ns_max + MS)
    session.coordinator.tick(session.driver.now)
    session.driver.run()
    session.driver.quiet()
    assert not session.coordinator.open
    assert reader not in session.driver.nodes[0].partition.state.transactions
    for node in session.driver.nodes:
        assert not node.partition.state.undecided
