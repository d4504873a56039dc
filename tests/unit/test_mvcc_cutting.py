"""A replica cut at a safe stamp is the state of that stamp, and nothing of what came later."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcc.messages import (
    NOBODY,
    CommitAlone,
    CommitsAlone,
    Committed,
    Outcome,
    Read,
    Refused,
    Status,
    Value,
)
from mvcc.partition import Partition
from mvcc.refusals import Rule
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, SPACE, Driver, Truth
from tests.unit.test_mvcc_recovery import KEYS, load


def promoted(driver: Driver, index: int, stamp: int) -> Partition:
    """Cut a replica, and begin to serve with what is left."""
    old = driver.followers[index].partition
    saved = old.cut_checkpoint(stamp, driver.now)
    for doomed in old.rows_above(stamp):
        old.state.settled.forget(SPACE, doomed)
    assert not list(old.rows_above(stamp))
    partition = driver.successor(index)
    partition.restore(saved)
    partition.start(driver.now)
    return partition


def ask(driver: Driver, partition: Partition, message: Read | CommitAlone | Status) -> object:
    """Send one message to a partition outside of the driver and take its answer."""
    partition.receive(message, driver.now)
    for _ in range(2):
        ready = partition.ready()
        if ready.entry is not None:
            partition.durable(ready.entry.lsn, driver.now)
        for answer in ready.answers:
            return answer
    raise AssertionError("no answer")


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_a_cut_is_a_prefix_in_stamp_order_in_all_partitions(seed: int, share: float) -> None:
    """Reads see the committed transactions up to the cut, each as a whole; nothing else is left."""
    random = Random(seed)
    driver = Driver([b"", b"m"], seed=seed, slack_ns_min=1 * MS)
    driver.pass_time(100 * MS)
    for first in range(0, 12, 3):
        load(driver, random, 3, first)
        driver.pass_time(random.randint(0, 5) * MS)
        driver.tick()
        if random.random() < 0.7:
            driver.quiet()
        for index in (0, 1):
            driver.replicate(index, random.choice([None, 2]))
    truth = Truth(driver)
    safe = min(one.partition.state.shown for one in driver.followers.values())
    first_stamp = min(truth.committed.values(), default=safe)
    stamp = safe - int(share * max(safe - first_stamp, 0))
    driver.pass_time(200 * MS)
    partitions = [promoted(driver, index, stamp) for index in (0, 1)]
    history = truth.history()
    for key in KEYS:
        partition = partitions[driver.route.of(key)]
        before = [version for version in history.get(key, []) if version[0] <= stamp]
        answer = ask(driver, partition, Read(1, key, partition.state.lo, NOBODY, NEVER_NS))
        assert isinstance(answer, Value)
        assert (answer.version, answer.value) == Truth.at(before, stamp)
        stored = partition.state.settled.versions(SPACE, key)
        assert stored == before[::-1]
    for partition in partitions:
        assert not partition.state.undecided
        assert all(
            (local if isinstance(local, int) else local.stamp) <= stamp
            for local in partition.state.transactions.values()
        )


def test_what_lay_above_a_cut_is_unknown_for_good() -> None:
    """An acknowledged commit that was lost is neither committed nor aborted, and stays so; one that
    was kept is known; and what is new can be written.
    """
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    kept, lost, new = (b"client-1" + bytes([number]) * 8 for number in (1, 2, 3))
    stamps = []
    for txn in (kept, lost):
        stamps.append(driver.oracle.next_stamp())
        columns = ([driver.request()], [txn], [stamps[-1]], [1], [b"k"])
        driver.send(b"k", CommitsAlone(0, *columns, [txn]))
        driver.quiet()
        driver.pass_time(10 * MS)
    driver.nodes[0].partition.state.closed = stamps[1] + 10
    driver.replicate(0)
    partition = promoted(driver, 0, stamps[0] + 10)
    assert ask(driver, partition, Status(1, kept, stamps[0], True)) == Outcome(
        1, Verdict.COMMITTED, stamps[0]
    )
    assert ask(driver, partition, Status(2, lost, stamps[1], True)) == Outcome(
        2, Verdict.UNKNOWN, 0
    )
    late = ask(driver, partition, CommitAlone(3, lost, stamps[1], [(b"k", b"late")], []))
    assert isinstance(late, Refused)
    assert late.refusal.rule == Rule.LOW_WATER
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    done = ask(driver, partition, CommitAlone(4, new, stamp, [(b"k", b"new")], []))
    assert done == Committed(4, stamp, None)
    assert partition.state.settled.versions(SPACE, b"k") == [(stamps[0], kept)]


def test_a_stamp_that_is_not_safe_is_not_cut_at() -> None:
    """Above the safe time a transaction may be there in part."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    driver.tick()
    driver.replicate(0)
    partition = driver.followers[0].partition
    assert partition.state.shown
    with pytest.raises(AssertionError):
        partition.cut_checkpoint(partition.state.shown + 1, driver.now)
