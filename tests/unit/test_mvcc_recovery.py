"""Recovery: state is a function of the checkpoint, the later entries and the settled store."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mvcc.messages import NOBODY, CommitAlone, End, Read, Refused, Span, Value, Write
from mvcc.records import Checkpoint, Entry
from mvcc.refusals import Rule
from tests.model.mvcc_driver import MS, NEVER_NS, Driver, picture

KEYS = [b"a", b"b", b"m", b"n"]


def spans(driver: Driver, keys: list[bytes]) -> list[Span]:
    """First and last key in each partition."""
    mine: dict[int, list[bytes]] = {}
    for key in sorted(keys):
        mine.setdefault(driver.route.of(key), []).append(key)
    return [(part[0], part[-1]) for part in mine.values()]


def load(driver: Driver, random: Random, count: int, first: int) -> None:
    """Random transactions: some commit, some abort, some are left open; two partitions."""
    for number in range(first, first + count):
        txn = b"client-1" + number.to_bytes(8, "big")
        stamp = driver.oracle.next_stamp()
        keys = random.sample(KEYS, random.randint(1, 3))
        writes: list[tuple[bytes, bytes | None]] = [
            (key, random.choice([None, b"v%d" % number])) for key in keys
        ]
        if random.random() < 0.4 and len({driver.route.of(key) for key in keys}) == 1:
            driver.send(keys[0], CommitAlone(driver.request(), txn, stamp, writes, []))
            continue
        for sequence, (key, value) in enumerate(writes * random.randint(1, 2), 1):
            write = (key, value, sequence)
            message = Write(driver.request(), txn, stamp, keys[0], [write], [], NEVER_NS)
            driver.send(key, message)
        fate = random.choice(["commit", "abort", "open"])
        if fate != "open":
            participants = spans(driver, keys)
            end = End(driver.request(), txn, stamp, keys[0], fate == "commit", participants)
            driver.send(keys[0], end)
        if random.random() < 0.3:
            driver.quiet()
        driver.pass_time(random.randint(1, 3) * MS)


@given(seed=st.integers(0, 10**6), checkpoint=st.booleans())
def test_a_restart_brings_back_everything_durable(seed: int, checkpoint: bool) -> None:
    """After a crash, with or without a checkpoint in between, all is as it was, marks apart."""
    random = Random(seed)
    driver = Driver([b"", b"m"], seed=seed)
    driver.pass_time(100 * MS)
    load(driver, random, 6, 0)
    if checkpoint:
        driver.checkpoint()
    load(driver, random, 6, 6)
    driver.quiet()
    before = [picture(node.partition) for node in driver.nodes]
    closed = [node.partition.state.closed for node in driver.nodes]
    low_water = [node.partition.state.low_water for node in driver.nodes]
    driver.crash()
    assert [picture(node.partition) for node in driver.nodes] == before
    for node, old_closed, old_low_water in zip(driver.nodes, closed, low_water, strict=True):
        assert node.partition.state.low_water >= max(old_closed, old_low_water)


@given(seed=st.integers(0, 10**6))
def test_what_was_not_durable_leaves_no_trace(seed: int) -> None:
    """A crash that loses entries gives the state of the entries that are left."""
    random = Random(seed)
    driver = Driver([b"", b"m"], seed=seed)
    driver.pass_time(100 * MS)
    load(driver, random, 5, 0)
    driver.quiet()
    driver.pass_time(60 * MS)
    before = [picture(node.partition) for node in driver.nodes]
    txn = b"client-1lost-one"
    stamp = driver.oracle.next_stamp()
    late = driver.request()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"x", b"lost", 1)]
    driver.send(b"x", Write(driver.request(), txn, stamp, b"x", writes, [], NEVER_NS))
    driver.send(b"a", CommitAlone(late, b"client-1lost-two", stamp + 4096, [(b"a", b"lost")], []))
    assert late not in driver.answers
    driver.crash()
    assert [picture(node.partition) for node in driver.nodes] == before


def test_records_survive_their_encoding() -> None:
    """Entries and checkpoints come back from msgpack as they were, of every kind that occurs."""
    driver = Driver([b"", b"m"], seed=3, retention_ns=100 * MS)
    driver.pass_time(100 * MS)
    load(driver, Random(3), 40, 0)
    driver.quiet()
    for _ in range(6):
        driver.pass_time(3_000 * MS)
        driver.tick()
        driver.quiet()
    for node in driver.nodes:
        node.partition.collect()
    driver.run()
    entry_codec = msgspec.msgpack.Decoder(Entry)
    checkpoint_codec = msgspec.msgpack.Decoder(Checkpoint)
    kinds = set()
    for node in driver.nodes:
        for entry in node.ever + node.appended:
            assert entry_codec.decode(msgspec.msgpack.encode(entry)) == entry
            kinds |= {type(record).__name__ for record in entry.records}
    assert kinds >= {"Planted", "CommittedAlone", "Decided", "Resolved", "Edge", "Horizon"}
    driver.quiet()
    for node in driver.nodes:
        saved = node.partition.checkpoint()
        assert checkpoint_codec.decode(msgspec.msgpack.encode(saved)) == saved


def test_an_earlier_lifes_reads_are_protected() -> None:
    """Whatever an earlier life has read at, at most H ahead, nobody writes below it afterwards."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    reader = driver.nodes[0].partition.state.future - 1
    request = driver.request()
    answer = driver.ask(b"k", Read(request, b"k", reader, NOBODY, NEVER_NS), request)
    assert isinstance(answer, Value)
    driver.crash()
    request = driver.request()
    commit = CommitAlone(request, b"client-1" + bytes(8), reader - 4096, [(b"k", b"v")], [])
    refused = driver.ask(b"k", commit, request)
    assert isinstance(refused, Refused)
    assert refused.refusal.rule == Rule.LOW_WATER
    assert refused.refusal.stamp > reader


def test_a_repeated_write_after_a_restart_needs_no_other_entry() -> None:
    """What a checkpoint holds is durable: a repeated write is answered at once."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    txn, stamp = b"client-1" + bytes(8), driver.oracle.next_stamp()
    writes: list[tuple[bytes, bytes | None, int]] = [(b"k", b"v", 1)]
    driver.send(b"k", Write(driver.request(), txn, stamp, b"k", writes, [], NEVER_NS))
    driver.checkpoint()
    driver.crash()
    request = driver.request()
    again = Write(request, txn, stamp, b"k", writes, [], NEVER_NS)
    assert driver.ask(b"k", again, request) is not None
    assert not driver.nodes[0].appended
