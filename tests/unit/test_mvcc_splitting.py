"""A split gives every part of a partition's state to the side it belongs to."""

from __future__ import annotations

from mvcc.conditions import Condition, Kind
from mvcc.messages import (
    NOBODY,
    CommitAlone,
    CommitsAlone,
    Confirm,
    End,
    OneShot,
    Push,
    Pushed,
    Read,
    Refused,
    Resolve,
    Scan,
    Status,
    Write,
)
from mvcc.refusals import Rule
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver

ONE = b"client-1one-----"
TWO = b"client-1two-----"


def started(starts: list[bytes]) -> Driver:
    """Partitions whose start lies a while back."""
    driver = Driver(starts)
    driver.pass_time(100 * MS)
    return driver


def plant(driver: Driver, txn: bytes, anchor: bytes, *keys: bytes) -> int:
    """Early writes of one transaction, durable; returns its stamp."""
    stamp = driver.oracle.next_stamp()
    for sequence, key in enumerate(keys, 1):
        write = Write(driver.request(), txn, stamp, anchor, [(key, b"v", sequence)], [], NEVER_NS)
        driver.send(key, write)
    driver.quiet()
    return stamp


def split(driver: Driver, key: bytes) -> None:
    """Split, durably, at leader and replica."""
    assert driver.split(key)
    driver.persist(driver.route.of(key))
    driver.run()


def test_leader_and_replica_bring_forth_the_same_child() -> None:
    """Open and ended transactions, marks and bounds of the child are a function of the log."""
    driver = started([b""])
    plant(driver, ONE, b"a", b"a", b"x")
    plant(driver, TWO, b"y", b"y")
    done = driver.oracle.next_stamp()
    commit = CommitAlone(driver.request(), b"client-1done----", done, [(b"z", b"v")], [])
    driver.send(b"z", commit)
    driver.nodes[0].partition.state.closed = done - 50
    assert driver.split(b"m")
    driver.persist(0)
    child = driver.nodes[1].checkpoint
    assert child is not None
    driver.replicate(0)
    assert driver.followers[1].checkpoints == [child]
    assert (child.start, child.end, child.lsn, child.partition) == (b"m", b"", 1, 1)
    assert [pending.txn for pending in child.pending] == [ONE, TWO]
    assert [ended.txn for ended in child.ended] == [b"client-1done----"]
    assert child.closed == done - 50
    assert list(driver.nodes[0].partition.state.transactions) == [ONE, b"client-1done----"]


def test_outcomes_of_batches_are_known_on_both_sides() -> None:
    """A transaction that is remembered by its bare stamp is known to the child as well."""
    driver = started([b""])
    stamps = [driver.oracle.next_stamp(), driver.oracle.next_stamp()]
    requests = [driver.request(), driver.request()]
    values: list[bytes | None] = [b"v", b"v"]
    batch = CommitsAlone(0, requests, [ONE, TWO], stamps, [1, 1], [b"a", b"x"], values)
    driver.send(b"a", batch)
    driver.quiet()
    split(driver, b"m")
    for node in driver.nodes:
        known = [node.partition.state.known(txn) for txn in (ONE, TWO)]
        assert [None if one is None else one.stamp for one in known] == stamps
        assert all(one is not None and one.verdict == Verdict.COMMITTED for one in known)


def test_what_leaves_holds_the_safe_time_until_it_is_taken() -> None:
    """Between a split and the child's beginning the parent still answers for the right half."""
    driver = started([b""])
    stamp = plant(driver, ONE, b"x", b"x")
    partition = driver.nodes[0].partition
    partition.state.closed = stamp + 50
    assert partition.split(b"m", 1)
    assert partition.safe() == (stamp - 1, ONE)
    ready = partition.ready()
    assert ready.entry is not None
    partition.durable(ready.entry.lsn, driver.now)
    assert partition.safe() == (stamp - 1, ONE)
    ((child, saved),) = partition.take_children()
    assert child == 1
    assert saved.pending[0].txn == ONE
    assert partition.safe() == (stamp + 50, b"")


def test_only_a_serving_leader_splits_and_only_inside() -> None:
    """Not at its borders, not outside, not twice at a time, and not a replica."""
    driver = started([b"", b"m"])
    first, second = (node.partition for node in driver.nodes)
    for key in (b"", b"m", b"x"):
        assert not first.split(key, 2)
    assert not second.split(b"m", 2)
    assert not second.split(b"a", 2)
    assert not driver.followers[0].partition.split(b"c", 2)
    assert first.split(b"c", 2)
    assert not first.split(b"b", 3)
    assert not first.quiescent


def test_pushers_of_a_record_that_moves_ask_again_there() -> None:
    """The parent neither holds nor aborts what it is no longer the anchor of."""
    driver = started([b"", b"t"])
    stamp = plant(driver, ONE, b"n", b"n", b"a")
    for txn, anchor in ((ONE, b"n"), (TWO, b"o"), (b"client-1stays---", b"b")):
        driver.send(anchor, Push(txn, stamp, anchor, b"z"))
    assert driver.split(b"m")
    assert driver.mail == [
        (b"z", Pushed(ONE, stamp, Verdict.UNKNOWN)),
        (b"z", Pushed(TWO, stamp, Verdict.UNKNOWN)),
    ]
    driver.mail.clear()
    driver.persist(0)
    driver.pass_time(3_000 * MS)
    for _ in range(3):
        driver.nodes[0].partition.tick(driver.now, 0)
    driver.run()
    told = {message.txn for _, message in driver.mail if isinstance(message, Pushed)}
    assert told == {b"client-1stays---"}


def test_a_record_moves_with_its_anchor_and_goes_on_there() -> None:
    """The child tells the participants what the parent has decided, and hears their confirmations;
    the parent does not.
    """
    driver = started([b"", b"t"])
    stamp = plant(driver, ONE, b"n", b"n", b"a", b"z")
    request = driver.request()
    driver.send(b"n", End(request, ONE, stamp, b"n", True, [(b"a", b"n"), (b"z", b"z")]))
    assert driver.split(b"m")
    driver.persist(0)
    assert not driver.mail
    assert not driver.nodes[0].partition.state.unconfirmed
    assert driver.answers[request]
    driver.pass_time(300 * MS)
    driver.tick()
    assert driver.mail == [(b"z", Resolve(ONE, stamp, True, b"z", b"z", b"n"))]
    driver.deliver(0)
    driver.persist(1)
    assert driver.mail == [(b"n", Confirm(ONE, b"z", b"n", b""))]
    driver.deliver(0)
    assert not driver.nodes[2].partition.state.unconfirmed
    for node in driver.nodes:
        node.partition.state.settle()
    assert all(driver.settled.newest(1, key) == (stamp, b"v") for key in (b"a", b"n", b"z"))


def test_a_question_about_a_record_that_moves_is_not_answered_by_the_parent() -> None:
    """It would know nothing and abort what the child may commit."""
    driver = started([b""])
    stamp = plant(driver, ONE, b"n", b"n")
    assert driver.split(b"m")
    request = driver.request()
    driver.send(b"n", Status(request, ONE, stamp, True, anchor=b"n"))
    refused = driver.answers[request]
    assert isinstance(refused, Refused)
    assert refused.refusal.rule == Rule.WRONG_PARTITION
    assert ONE not in driver.nodes[0].partition.state.transactions


def test_who_waits_for_the_right_half_is_refused_and_others_go_on() -> None:
    """A scan that began in the left half is told where to go on, a read of the right half is
    refused, and nobody waits for what has left.
    """
    driver = started([b""])
    stamp = plant(driver, ONE, b"x", b"x")
    read, scan, last = driver.request(), driver.request(), driver.request()
    driver.send(b"x", Read(read, b"x", stamp + 50, NOBODY, NEVER_NS))
    driver.send(b"a", Scan(scan, b"a", b"", stamp + 50, NOBODY, 10, False, NEVER_NS))
    driver.send(b"a", Scan(last, b"a", b"", stamp + 50, NOBODY, 10, True, NEVER_NS))
    assert not driver.answers.keys() & {read, scan, last}
    plant(driver, TWO, b"b", b"b")
    both = driver.request()
    absent = [Condition(Kind.ABSENT, b"b")]
    shot = OneShot(both, b"client-1shot----", 0, NEVER_NS, absent, [], [(b"y", b"v")])
    driver.send(b"b", shot)
    assert both not in driver.answers
    assert driver.split(b"m")
    for request in (read, last, both):
        refused = driver.answers[request]
        assert isinstance(refused, Refused)
        assert refused.refusal.rule == Rule.WRONG_PARTITION
    assert driver.answers[scan].resume == b"m"  # type: ignore[union-attr]


def test_the_childs_marks_cover_the_parents_reads() -> None:
    """A read of the right half before the split is not written under after it."""
    driver = started([b""])
    late = driver.nodes[0].partition.state.future
    request = driver.request()
    driver.send(b"x", Read(request, b"x", late, NOBODY, NEVER_NS))
    assert driver.split(b"m")
    driver.persist(0)
    child = driver.nodes[1].checkpoint
    assert child is not None
    assert child.low_water >= late


def test_a_leader_that_stops_before_the_split_is_durable_brings_nothing_forth() -> None:
    """Whether there was a split only the next leader knows."""
    driver = started([b""])
    assert driver.split(b"m")
    partition = driver.nodes[0].partition
    partition.stop()
    driver.persist(0)
    assert not partition.take_children()
    assert len(driver.nodes) == 1
