"""Rare situations are counted where they are met, and only there."""

from __future__ import annotations

from k2store.testing.simulation.cluster_probes import CLUSTER_CASE_PROBES, CLUSTER_PROBES
from k2store.testing.simulation.node_probes import CASE_PROBES, NODE_PROBES
from mvcc.cases import Case
from mvcc.messages import Push, Write, Written
from mvcc.state import State
from tests.model.mvcc_driver import BASE_NS, MS, NEVER_NS, Driver
from truetime.timestamp import pack

TXN = b"client-1" + bytes(8)
STAMP = pack(BASE_NS + 100 * MS, 5)


def state_of(driver: Driver) -> State:
    """The state of the only partition."""
    (node,) = driver.nodes
    return node.partition.state


def begun() -> Driver:
    """One partition, some time after its start."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    return driver


def write(driver: Driver, sequence: int) -> None:
    """A write of one transaction to one key, until it is answered."""
    request = driver.request()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"a", b"%d" % sequence, sequence)]
    driver.send(b"a", Write(request, TXN, STAMP, b"a", writes, [], NEVER_NS))
    driver.quiet()
    assert isinstance(driver.answers[request], Written)


def test_every_case_is_a_probe_of_the_simulator() -> None:
    """None is counted for nobody, none twice, and each has a meaning that is told."""
    assert not set(CASE_PROBES) & set(CLUSTER_CASE_PROBES)
    assert {*CASE_PROBES, *CLUSTER_CASE_PROBES} == set(Case)
    assert set(CASE_PROBES.values()) <= set(NODE_PROBES)
    assert set(CLUSTER_CASE_PROBES.values()) <= set(CLUSTER_PROBES)


def test_rewrites_repetitions_and_overtaken_writes_are_told_apart() -> None:
    """A first write is no case at all; what follows is one each."""
    driver = begun()
    write(driver, 2)
    cases = state_of(driver).cases
    assert sum(cases) == 0
    write(driver, 3)
    write(driver, 3)
    write(driver, 1)
    found = {case: count for case, count in zip(Case, cases, strict=True) if count}
    assert found == {Case.OWN_REWRITTEN: 1, Case.WRITE_REPEATED: 1, Case.WRITE_OVERTAKEN: 1}


def test_a_write_that_comes_after_a_push_is_noticed() -> None:
    """The anchor is asked before it has heard of the transaction, then its first write comes."""
    driver = begun()
    driver.send(b"a", Push(TXN, STAMP, b"a", b"a"))
    assert state_of(driver).cases[Case.PUSH_ON_UNKNOWN] == 1
    write(driver, 1)
    assert state_of(driver).cases[Case.WRITE_AFTER_PUSH] == 1


def test_a_machine_that_is_built_anew_goes_on_counting() -> None:
    """What a deposed leader has counted is not forgotten with its machine."""
    before, after = state_of(begun()), state_of(begun())
    before.waits, before.cases[Case.EXPIRED] = 3, 2
    after.count_on(before)
    assert (after.waits, after.cases[Case.EXPIRED]) == (3, 2)
