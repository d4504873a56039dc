"""A partition that stops leaves no requester without an answer, and tells nobody wrong."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mvcc.messages import (
    NOBODY,
    CommitAlone,
    CommitsAlone,
    Committed,
    End,
    Forgets,
    Heartbeat,
    Message,
    OneShot,
    OneShots,
    Outcome,
    Push,
    Pushed,
    Read,
    Reads,
    Refused,
    Resolve,
    Scan,
    Status,
    Write,
    Written,
)
from mvcc.refusals import Rule
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver, Truth

KEYS = [b"a", b"b", b"c"]


class Load:
    """Requests of every kind to one partition."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.driver = Driver([b""], seed=seed)
        self.driver.pass_time(100 * MS)
        self.asked: list[int] = []
        self.commits: dict[int, bytes] = {}
        self.written: list[tuple[bytes, int]] = []

    def request(self, txn: bytes = b"") -> int:
        """A number; with ``txn`` it asks for a commit."""
        number = self.driver.request()
        self.asked.append(number)
        if txn:
            self.commits[number] = txn
        return number

    def txn(self) -> bytes:
        """A new transaction."""
        return b"client-1" + (self.driver.requests + 1).to_bytes(6, "big") + bytes(2)

    def message(self) -> Message:
        """One message of any kind that can be asked."""
        random, txn = self.random, self.txn()
        stamp = self.driver.oracle.next_stamp()
        key = random.choice(KEYS)
        old, old_stamp = random.choice(self.written or [(txn, stamp)])
        match random.randrange(9):
            case 0:
                return Read(self.request(), key, stamp, NOBODY, NEVER_NS)
            case 1:
                return Scan(self.request(), b"", b"", stamp, NOBODY, 9, False, NEVER_NS)
            case 2:
                self.written.append((txn, stamp))
                return Write(self.request(), txn, stamp, key, [(key, b"w", 1)], [], NEVER_NS)
            case 3:
                return End(self.request(old), old, old_stamp, key, True, [(key, key)])
            case 4:
                return Status(self.request(), old, old_stamp, random.random() < 0.5)
            case 5:
                return OneShot(self.request(txn), txn, 0, NEVER_NS, [], [key], [(key, b"o")])
            case 6:
                return CommitAlone(self.request(txn), txn, stamp, [(key, b"c")], [])
            case 7:
                requests = [self.request() for _ in KEYS]
                return Reads(0, requests, [NOBODY] * 3, [stamp] * 3, KEYS, [NEVER_NS] * 3)
            case _:
                return self.batch()

    def batch(self) -> Message:
        """Commits or one-shots as columns; now and then a commit is asked for twice."""
        random = self.random
        txns = [self.txn()]
        requests = [self.request(txns[0])]
        txns.append(self.txn())
        requests.append(self.request(txns[1]))
        keys, values = random.sample(KEYS, 2), [b"x", b"y"]
        if random.random() < 0.5:
            none: list[bytes] = []
            return OneShots(
                0, 0, requests, txns, [NEVER_NS] * 2, [0, 0], [], none, [], none, [1, 1], keys,
                [*values],
            )  # fmt: skip
        stamps = [self.driver.oracle.next_stamp() for _ in txns]
        self.written += list(zip(txns, stamps, strict=True))
        return CommitsAlone(0, requests, txns, stamps, [1, 1], keys, [*values])


@given(seed=st.integers(0, 10**6))
def test_whoever_has_asked_is_answered_once(seed: int) -> None:
    """Every request has an answer when the leader has stopped; a refused commit has left no trace,
    and none is said to be done that is not durable.
    """
    load = Load(seed)
    driver, random = load.driver, load.random
    for _ in range(random.randint(5, 30)):
        driver.send(b"a", load.message())
        if random.random() < 0.2:
            driver.persist(0, random.randint(1, 3))
        if random.random() < 0.1:
            driver.pass_time(random.randint(1, 100) * MS)
    partition = driver.nodes[0].partition
    partition.stop(Rule.NOT_LEADER)
    driver.run()
    assert set(load.asked) == set(driver.answers)
    assert not partition.state.records
    for _ in range(10):  # later ones are turned away
        driver.send(b"a", load.message())
    assert set(load.asked) == set(driver.answers)
    driver.persist(0)  # it is no longer of interest here
    committed = Truth(driver).committed
    for request, txn in load.commits.items():
        answer = driver.answers[request]
        if isinstance(answer, Committed):
            assert txn in committed
        elif isinstance(answer, Refused) and answer.refusal.rule == Rule.NOT_LEADER:
            assert txn not in committed or _answered_elsewhere(load, txn)
        else:
            assert isinstance(answer, Refused | Outcome)


def _answered_elsewhere(load: Load, txn: bytes) -> bool:
    """Whether the transaction was asked for before, so that this was a repetition turned away."""
    return sum(one == txn for one in load.commits.values()) > 1


def test_what_only_waits_for_the_log_is_unknown_or_refused() -> None:
    """A commit that may be durable is unknown, an early write is refused, a push is sent back."""
    driver = Driver([b"", b"m"])
    driver.pass_time(100 * MS)
    txn, stamp = b"client-1" + bytes(8), driver.oracle.next_stamp()
    early, last, asked = driver.request(), driver.request(), driver.request()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"a", b"1", 1)]
    driver.send(b"a", Write(early, txn, stamp, b"a", writes, [], NEVER_NS))
    driver.send(b"a", End(last, txn, stamp, b"a", True, [(b"a", b"a"), (b"m", b"m")]))
    driver.send(b"a", Push(txn, stamp, b"a", b"m"))
    driver.send(b"a", Status(asked, txn, stamp, False))
    assert not driver.answers
    assert not driver.mail
    driver.nodes[0].partition.stop()
    driver.run()
    assert driver.answers[last] == Outcome(last, Verdict.UNKNOWN, 0)
    assert driver.answers[asked] == Outcome(asked, Verdict.UNKNOWN, 0)
    refused = driver.answers[early]
    assert isinstance(refused, Refused)
    assert refused.refusal.rule == Rule.NOT_LEADER
    assert driver.mail == [(b"m", Pushed(txn, stamp, Verdict.UNKNOWN))]


def test_a_push_that_nobody_could_answer_is_sent_again_at_once() -> None:
    """The participant keeps its intent, and asks at its next tick, not when its patience ends."""
    driver = Driver([b"", b"m"], push_again_ns=10_000 * MS)
    driver.pass_time(100 * MS)
    txn, stamp = b"client-1" + bytes(8), driver.oracle.next_stamp()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"x", b"1", 1)]
    driver.send(b"x", Write(driver.request(), txn, stamp, b"a", writes, [], NEVER_NS))
    driver.quiet()
    driver.pass_time(600 * MS)
    driver.tick()
    assert driver.mail == [(b"a", Push(txn, stamp, b"a", b"x"))]
    driver.nodes[0].partition.stop()
    driver.deliver(0)
    assert driver.mail == [(b"x", Pushed(txn, stamp, Verdict.UNKNOWN))]
    driver.deliver(0)
    driver.tick()
    assert driver.mail == [(b"a", Push(txn, stamp, b"a", b"x"))]
    assert driver.nodes[1].partition.state.undecided


def test_messages_between_partitions_change_nothing_where_nobody_serves() -> None:
    """A verdict, a confirmation, a sign of life and a forgotten outcome wait for the next leader."""
    driver = Driver([b"", b"m"])
    driver.pass_time(100 * MS)
    txn, stamp = b"client-1" + bytes(8), driver.oracle.next_stamp()
    request = driver.request()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"a", b"1", 1)]
    driver.send(b"a", Write(request, txn, stamp, b"x", writes, [], NEVER_NS))
    driver.quiet()
    assert driver.answers[request] == Written(request)
    driver.replicate(0)
    state = driver.followers[0].partition.state
    for message in (
        Resolve(txn, stamp, True, b"a", b"a", b"x"),
        Pushed(txn, stamp, Verdict.COMMITTED),
        Heartbeat(txn),
        Forgets([txn]),
    ):
        driver.ask_follower(0, message)
        assert list(state.undecided) == [txn]
        assert not state.sends
