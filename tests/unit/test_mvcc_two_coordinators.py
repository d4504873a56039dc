"""Two coordinators of one attempt: the verdict belongs to the anchor of the one whose intents stand."""

from __future__ import annotations

from mvcc.messages import End, Outcome, Write, Written
from mvcc.transactions import ACTIVE, Local, Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver

TXN = b"client-1" + bytes(8)


def test_an_end_for_another_anchor_decides_nothing() -> None:
    """Else a record would stand where no confirmation comes, and two anchors could decide."""
    driver = Driver([b"", b"m"])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"z", b"v", 2)]
    written = driver.request()
    driver.send(b"z", Write(written, TXN, stamp, b"a", writes, [], NEVER_NS))
    driver.quiet()
    assert isinstance(driver.answers[written], Written)
    ended = driver.request()
    driver.send(b"z", End(ended, TXN, stamp, b"z", True, [(b"z", b"z"), (b"a", b"a")]))
    driver.quiet()
    answer = driver.answers[ended]
    assert isinstance(answer, Outcome)
    assert answer.verdict == Verdict.UNKNOWN
    state = driver.nodes[1].partition.state
    local = state.transactions[TXN]
    assert isinstance(local, Local)
    assert local.state == ACTIVE
    # Nobody says anything more: its own anchor gives the verdict, and nothing is left.
    for _ in range(200):
        driver.pass_time(100 * MS)
        driver.tick()
        driver.quiet()
    assert not any(node.partition.state.undecided for node in driver.nodes)
    assert not any(node.partition.state.unconfirmed for node in driver.nodes)
