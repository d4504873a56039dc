"""A one-shot whose condition did not hold, of which another copy may still come."""

from __future__ import annotations

from mvcc.conditions import Condition, Kind
from mvcc.messages import Committed, Failed, OneShot, Outcome, Refused, Status
from mvcc.refusals import Rule
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver

TXN = b"client-1" + bytes(8)
OTHER = b"client-2" + bytes(8)


def shot(driver: Driver, txn: bytes, conditions: list[Condition]) -> object:
    """The answer to a one-shot that writes key a."""
    request = driver.request()
    driver.send(b"a", OneShot(request, txn, 0, NEVER_NS, conditions, [], [(b"a", b"v")]))
    driver.quiet()
    return driver.answers[request]


def test_a_refusal_that_was_asked_for_outlasts_its_leader() -> None:
    """Whoever asks for the verdict has it for good: the next leader refuses a copy that would succeed."""
    driver = Driver([b""], replicated=True)
    driver.pass_time(100 * MS)
    present = [Condition(Kind.PRESENT, b"a")]
    assert isinstance(shot(driver, TXN, present), Failed)
    asked = driver.request()
    driver.send(b"a", Status(asked, TXN, 0, True, 1, b"a"))
    driver.quiet()
    answer = driver.answers[asked]
    assert isinstance(answer, Outcome)
    assert answer.verdict == Verdict.ABORTED
    assert isinstance(shot(driver, TXN, present), Failed | Refused)
    assert isinstance(shot(driver, OTHER, []), Committed)
    driver.depose(0)
    late = shot(driver, TXN, present)
    assert isinstance(late, Refused)
    assert late.refusal.rule == Rule.ABORTED
