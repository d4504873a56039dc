"""Batches are a faster way to the same end: the same load in columns and one by one."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from k2store.storage.ports import LATEST
from mvcc.conditions import Compare, Condition, FieldError, Kind, Operand, holds, matches
from mvcc.messages import (
    NOBODY,
    CommitAlone,
    CommitsAlone,
    Committed,
    Failed,
    Message,
    OneShot,
    OneShots,
    Read,
    Reads,
    Refused,
    Rows,
    Scan,
    Status,
    Value,
)
from mvcc.refusals import Rule
from tests.model.mvcc_driver import MS, NEVER_NS, Driver
from truetime.timestamp import time_ns

KEYS = [b"a", b"b", b"c", b"d"]
Write = tuple[bytes, bytes | None]


def txn_of(number: int) -> bytes:
    """A transaction id."""
    return b"client-1" + number.to_bytes(8, "big")


def commits(
    driver: Driver, requests: list[int], stamps: list[int], writes: list[list[Write]]
) -> tuple[Message, list[Message]]:
    """The same commits, together and apart."""
    txns = [txn_of(request) for request in requests]
    together = CommitsAlone(
        0,
        requests,
        txns,
        stamps,
        [len(each) for each in writes],
        [key for each in writes for key, _ in each],
        [value for each in writes for _, value in each],
    )
    apart: list[Message] = [
        CommitAlone(request, txn, stamp, each, [])
        for request, txn, stamp, each in zip(requests, txns, stamps, writes, strict=True)
    ]
    return together, apart


@given(seed=st.integers(0, 10**6))
def test_commits_and_reads_in_columns_do_what_single_ones_do(seed: int) -> None:
    """Answers, versions, marks and memory are the same, whatever is in the way."""
    worlds = [Driver([b""], seed=1), Driver([b""], seed=1)]
    random = Random(seed)
    used: set[int] = set()
    for world in worlds:
        world.pass_time(100 * MS)
    for _ in range(6):
        count = random.randint(1, 4)
        single = random.random() < 0.6
        first = worlds[0].oracle.next_stamp()
        worlds[1].oracle.next_stamp()
        # Up to three milliseconds back or one ahead: older and newer than what others have read.
        stamps = [first + (random.randint(-12_000, 4_000) << 12) for _ in range(count)]
        stamps = [stamp for stamp in stamps if stamp not in used]
        used.update(stamps)
        count = len(stamps)
        requests = [worlds[0].request() for _ in range(count)]
        worlds[1].requests = worlds[0].requests
        if random.random() < 0.5:
            writes: list[list[Write]] = [
                [
                    (random.choice(KEYS), random.choice([None, b"v%d" % number]))
                    for _ in range(1 if single else random.randint(1, 3))
                ]
                for number in range(count)
            ]
            stamps = sorted({*stamps}, key=stamps.index)
            requests, writes = requests[: len(stamps)], writes[: len(stamps)]
            together, apart = commits(worlds[0], requests, stamps, writes)
        else:
            keys = [random.choice(KEYS) for _ in range(count)]
            nobody = [NOBODY] * count
            together = Reads(0, requests, nobody, stamps, keys, [NEVER_NS] * count)
            apart = [
                Read(request, key, stamp, NOBODY, NEVER_NS)
                for request, key, stamp in zip(requests, keys, stamps, strict=True)
            ]
        worlds[0].send(b"a", together)
        for message in apart:
            worlds[1].send(b"a", message)
        if random.random() < 0.6:
            for world in worlds:
                world.quiet()
        if random.random() < 0.3:
            for world in worlds:
                world.nodes[0].partition.state.settle()
        for world in worlds:
            world.pass_time(MS)
    for world in worlds:
        world.quiet()
    assert worlds[0].answers == worlds[1].answers
    pictures = []
    for world in worlds:
        state = world.nodes[0].partition.state
        state.settle()
        rows = [row for batch in world.settled.all_rows(1) for row in batch]
        marks = {key: (chain.stamp, chain.value, chain.read) for key, chain in state.chains.items()}
        assert not any(chain.intents or chain.old for chain in state.chains.values())
        pictures.append((rows, marks, set(state.transactions)))
    assert pictures[0] == pictures[1]
    for world in worlds:
        world.crash()
    states = [world.nodes[0].partition.state for world in worlds]
    assert set(states[0].transactions) == set(states[1].transactions)
    assert [list(world.settled.all_rows(1)) for world in worlds].count(
        list(worlds[0].settled.all_rows(1))
    ) == 2


@given(seed=st.integers(0, 10**6), single=st.booleans())
def test_one_shots_in_columns_are_as_if_one_after_the_other(seed: int, single: bool) -> None:
    """On one key each exactly one of many compare-and-puts succeeds, and each id has one outcome."""
    random = Random(seed)
    driver = Driver([b""], seed=seed)
    driver.pass_time(100 * MS)
    wins: dict[bytes, int] = dict.fromkeys(KEYS, 0)
    answered = []
    for _ in range(4):
        columns = OneShots(0, 0, [], [], [], [], [], [], [], [], [], [], [])
        for _ in range(random.randint(1, 5)):
            key = random.choice(KEYS)
            request = driver.request()
            columns.requests.append(request)
            columns.txns.append(txn_of(request))
            columns.deadlines_ns.append(NEVER_NS)
            columns.condition_counts.append(1)
            columns.kinds.append(Kind.ABSENT)
            columns.condition_keys.append(key)
            columns.condition_versions.append(0)
            columns.condition_values.append(b"")
            columns.write_counts.append(1 if single else 2)
            columns.keys.extend([key] if single else [key, key + b"'"])
            columns.values.extend([b"v"] if single else [b"v", b"w"])
            answered.append((request, key))
        driver.send(b"a", columns)
        again = driver.request()
        key, txn = columns.condition_keys[0], columns.txns[0]
        copy = OneShot(again, txn, 0, NEVER_NS, [Condition(Kind.ABSENT, key)], [], [(key, b"v")])
        driver.send(b"a", copy)
        if random.random() < 0.5:
            driver.quiet()
        driver.pass_time(MS)
        driver.quiet()
        first, second = driver.answers[columns.requests[0]], driver.answers[again]
        assert isinstance(second, type(first))
        assert getattr(first, "stamp", 0) == getattr(second, "stamp", 0)
    for request, key in answered:
        wins[key] += isinstance(driver.answers[request], Committed)
    assert all(wins[key] == 1 for key in {key for _, key in answered})


def some_condition(random: Random, now_ns: int) -> Condition:
    """A condition on one of the keys; fields are numbers, times, or not there."""
    key = random.choice(KEYS)
    kind = random.choice([Kind.FIELD] * 6 + [Kind.ABSENT, Kind.PRESENT, Kind.VALUE, Kind.NO_ROW])
    if kind == Kind.VALUE:
        return Condition(kind, key, 0, msgspec.msgpack.encode([1, now_ns]))
    if kind not in (Kind.FIELD, Kind.NO_ROW):
        return Condition(kind, key)
    compare = random.choice(list(Compare)[1:])
    end = key + b"~" if kind == Kind.NO_ROW else b""
    field = random.choice([0, 0, 1, 7])
    if field == 1:
        operand = random.choice([Operand.OWN_TIME, Operand.OWN_STAMP])
        return Condition(kind, key, 0, b"", end, field, compare, operand)
    constant = random.choice([0, 1, 2, "text"])
    return Condition(kind, key, 0, b"", end, field, compare, Operand.CONSTANT, constant)


@given(seed=st.integers(0, 10**6))
def test_one_shots_on_shared_conditions_are_serial(seed: int) -> None:
    """Whatever is shared, refused or in the way: in the order of the stamps, every one-shot that
    committed found all of its conditions true, and every one that failed the one it names false."""
    random = Random(seed)
    driver = Driver([b""], seed=seed)
    driver.pass_time(100 * MS)
    shots: dict[int, tuple[list[Condition], list[Write]]] = {}
    for _ in range(6):
        now_ns = time_ns(driver.oracle.next_stamp())
        conditions = [some_condition(random, now_ns) for _ in range(random.randint(1, 4))]
        columns = OneShots(0, 0, [], [], [], [], [], [], [], [], [], [], [], conditions, [])
        for _ in range(random.randint(1, 6)):
            request = driver.request()
            chosen = [random.randrange(len(conditions)) for _ in range(random.randint(1, 3))]
            when_ns = now_ns + random.randint(-2, 2) * MS
            value = random.choice([[1, when_ns], [2, when_ns], [0], None, 5])
            row = None if value is None else msgspec.msgpack.encode(value)
            keys = random.sample(KEYS, random.choice([1, 1, 2]))
            columns.requests.append(request)
            columns.txns.append(txn_of(request))
            columns.deadlines_ns.append(NEVER_NS)
            columns.condition_counts.append(len(chosen))
            columns.chosen.extend(chosen)
            columns.write_counts.append(len(keys))
            columns.keys.extend(keys)
            columns.values.extend([row] * len(keys))
            shots[request] = [conditions[one] for one in chosen], [(key, row) for key in keys]
        driver.send(b"a", columns)
        if random.random() < 0.7:
            driver.quiet()
        driver.pass_time(MS)
    driver.quiet()
    rows: dict[bytes, tuple[int, bytes | None]] = dict.fromkeys(KEYS, (0, None))
    told = {request: driver.answers[request] for request in shots}
    stamped = [
        (answer.stamp, request)
        for request, answer in told.items()
        if isinstance(answer, Committed | Failed)
    ]
    assert len({stamp for stamp, _ in stamped}) == len(stamped)
    for stamp, request in sorted(stamped):
        conditions, writes = shots[request]
        answer = told[request]
        if isinstance(answer, Failed):
            assert not true_at(conditions[answer.condition], rows, stamp)
            continue
        assert all(true_at(condition, rows, stamp) for condition in conditions)
        rows.update({key: (stamp, value) for key, value in writes})
    for answer in told.values():
        if isinstance(answer, Refused):
            assert answer.refusal.rule == Rule.FIELD


def true_at(condition: Condition, rows: dict[bytes, tuple[int, bytes | None]], stamp: int) -> bool:
    """Whether a condition holds over plain rows; a range has its one key."""
    version, value = rows[condition.key]
    if condition.kind == Kind.NO_ROW:
        try:
            return value is None or not matches(condition, value, stamp, time_ns(stamp))
        except FieldError:
            return True
    return holds(condition, version, value, stamp, time_ns(stamp))


def test_a_shared_condition_is_looked_at_once() -> None:
    """Twenty one-shots on one row that is not in memory ask the settled store for it once, and for
    each row that must not be there."""
    driver = Driver([b""])
    driver.pass_time(5_000 * MS)
    holder = driver.request()
    row = msgspec.msgpack.encode([7])
    driver.send(b"a", OneShot(holder, txn_of(holder), 0, NEVER_NS, [], [], [(b"id", row)]))
    driver.quiet()
    state = driver.nodes[0].partition.state
    state.settle()
    del state.chains[b"id"]
    driver.pass_time(MS)
    looked_up = count_lookups(driver)
    requests = [driver.request() for _ in range(20)]
    keys = [b"run%d" % request for request in requests]
    mine = Condition(Kind.FIELD, b"id", 0, b"", b"", 0, Compare.EQUAL, Operand.CONSTANT, 7)
    conditions = [mine, *(Condition(Kind.ABSENT, key) for key in keys)]
    chosen = [place for number in range(1, 21) for place in (0, number)]
    txns, values = [txn_of(request) for request in requests], [b"v"] * 20
    shots = OneShots(
        0, 0, requests, txns, [NEVER_NS] * 20, [2] * 20, [], [], [], [], [1] * 20, [], []
    )
    shots.keys.extend(keys)
    shots.values.extend(values)
    shots.conditions.extend(conditions)
    shots.chosen.extend(chosen)
    driver.send(b"a", shots)
    driver.quiet()
    assert looked_up == [b"id", *keys]
    stamps = [
        answer.stamp
        for request in requests
        if isinstance(answer := driver.answers[request], Committed)
    ]
    assert len(stamps) == 20
    # Nobody may write under what was read.
    assert state.chains[b"id"].read == max(stamps)
    assert state.chains[b"id"].reader == txn_of(requests[-1])


def test_a_transaction_twice_in_one_batch_is_answered_when_durable() -> None:
    """The copy joins the first: no answer before the entry is durable, and then the same one."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    one, two = driver.request(), driver.request()
    twice = CommitsAlone(
        0, [one, two], [txn_of(1)] * 2, [stamp] * 2, [1, 1], [b"a", b"a"], [b"v", b"v"]
    )
    driver.send(b"a", twice)
    assert not driver.answers
    driver.quiet()
    assert isinstance(driver.answers[one], Committed)
    assert isinstance(driver.answers[two], Committed)


@given(single=st.booleans(), ahead=st.booleans())
def test_one_shots_in_columns_are_stamped_above_later_reads(single: bool, ahead: bool) -> None:
    """A read that lies ahead of the clock is never written under."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp() + (2_000 << 12 if ahead else 0)
    reader = driver.request()
    driver.send(b"a", Read(reader, b"a", stamp, NOBODY, NEVER_NS))
    request = driver.request()
    keys = [b"a"] if single else [b"a", b"b"]
    values: list[bytes | None] = [b"v"] * len(keys)
    columns = OneShots(
        0, 0, [request], [txn_of(1)], [NEVER_NS], [0], [], [], [], [], [len(keys)], keys, values
    )
    driver.send(b"a", columns)
    driver.quiet()
    answer = driver.answers[request]
    assert isinstance(answer, Committed)
    assert answer.stamp > stamp


@given(
    deleted=st.booleans(),
    conditional=st.booleans(),
    below=st.booleans(),
    count=st.integers(1, 3),
)
def test_a_blind_put_reads_nothing_and_hides_nothing(
    deleted: bool, conditional: bool, below: bool, count: int
) -> None:
    """A put without conditions does not look up what it covers, and until it is durable, and after
    it, everybody sees the version that was there.
    """
    driver = Driver([b""])
    driver.pass_time(5_000 * MS)
    old: bytes | None = None if deleted else b"old"
    put(driver, b"a", old)
    driver.quiet()
    state = driver.nodes[0].partition.state
    state.settle()
    was = state.chains.pop(b"a")
    driver.pass_time(MS)
    looked_up = count_lookups(driver)
    new = put(driver, b"a", b"new", count)
    assert not looked_up
    stamp = state.transactions[txn_of(new)]
    assert isinstance(stamp, int)
    assert new not in driver.answers
    reader, asker = driver.request(), driver.request()
    if below:
        driver.send(b"a", Read(reader, b"a", stamp - 1, NOBODY, NEVER_NS))
        assert driver.answers[reader] == Value(
            reader, stamp - 1, 0 if deleted else was.stamp, was.value
        )
    if conditional:  # waits for the put, and then sees it
        condition = Condition(Kind.VALUE, b"a", 0, b"new")
        driver.send(
            b"a", OneShot(asker, txn_of(asker), 0, NEVER_NS, [condition], [], [(b"a", b"newer")])
        )
        assert asker not in driver.answers
    driver.quiet()
    assert isinstance(driver.answers[new], Committed)
    if conditional:
        assert isinstance(driver.answers[asker], Committed)
    for at, expected in ((stamp, (stamp, b"new")), (stamp - 1, (was.stamp, was.value))):
        reader = driver.request()
        driver.send(b"a", Read(reader, b"a", at, NOBODY, NEVER_NS))
        version, value = expected
        version = 0 if value is None else version
        assert driver.answers[reader] == Value(reader, at, version, value)


def test_a_put_that_may_be_older_than_what_is_stored_looks_it_up() -> None:
    """Right after a start, versions ahead of the clock may be stored: none is covered unseen."""
    driver = Driver([b""])
    driver.pass_time(5_000 * MS)
    looked_up = count_lookups(driver)
    state = driver.nodes[0].partition.state
    state.newest_commit = driver.oracle.next_stamp() + (1_000 << 12)
    put(driver, b"a", b"v")
    put(driver, b"b", b"v", 2)
    assert looked_up == [b"a", b"b", b"b1"]


def put(driver: Driver, key: bytes, value: bytes | None, count: int = 1) -> int:
    """Send a one-shot put without conditions, of so many keys, as columns; its request."""
    request = driver.request()
    keys = [key, *(key + b"%d" % number for number in range(1, count))]
    txns, values = [txn_of(request)], [value] * count
    columns = OneShots(
        0, 0, [request], txns, [NEVER_NS], [0], [], [], [], [], [count], keys, values
    )
    driver.send(key, columns)
    return request


def count_lookups(driver: Driver) -> list[bytes]:
    """The keys that the settled store is asked for, from now on."""
    asked: list[bytes] = []
    newest = driver.settled.newest

    def counting(space: int, key: bytes, stamp: int = LATEST) -> tuple[int, bytes | None] | None:
        asked.append(key)
        return newest(space, key, stamp)

    driver.settled.newest = counting  # type: ignore[method-assign]
    return asked


def test_an_aborted_transaction_in_a_batch_stays_aborted() -> None:
    """What was given up before it arrived is refused, in columns as well."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    question, commit, shot = driver.request(), driver.request(), driver.request()
    driver.send(b"a", Status(question, txn_of(1), stamp, True))
    driver.send(b"a", CommitsAlone(0, [commit], [txn_of(1)], [stamp], [1], [b"a"], [b"v"]))
    driver.send(
        b"a",
        OneShots(0, 0, [shot], [txn_of(1)], [NEVER_NS], [0], [], [], [], [], [1], [b"b"], [b"v"]),
    )
    driver.quiet()
    for request in (commit, shot):
        answer = driver.answers[request]
        assert isinstance(answer, Refused)
        assert answer.refusal.rule == Rule.ABORTED


def test_a_scan_waits_for_a_batch_under_way() -> None:
    """Rows that are decided but not durable are neither shown nor left out."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    batch = CommitsAlone(0, [driver.request()], [txn_of(1)], [stamp], [1], [b"a"], [b"v"])
    driver.send(b"a", batch)
    later, before = driver.request(), driver.request()
    driver.send(b"a", Scan(later, b"", b"", stamp + 1, NOBODY, 9, False, NEVER_NS))
    driver.send(b"a", Scan(before, b"", b"", stamp - 1, NOBODY, 9, False, NEVER_NS))
    assert driver.answers[before] == Rows(before, stamp - 1, [], None)
    assert later not in driver.answers
    driver.quiet()
    assert driver.answers[later] == Rows(later, stamp + 1, [(b"a", stamp, b"v")], None)


def test_a_leader_that_stops_refuses_who_waits_for_a_batch() -> None:
    """A read behind a batch that is not durable is refused when the leader stops."""
    driver = Driver([b""])
    driver.pass_time(100 * MS)
    stamp = driver.oracle.next_stamp()
    batch = CommitsAlone(0, [driver.request()], [txn_of(1)], [stamp], [1], [b"a"], [b"v"])
    driver.send(b"a", batch)
    request = driver.request()
    driver.send(b"a", Read(request, b"a", stamp + 4096, NOBODY, NEVER_NS))
    assert request not in driver.answers
    driver.nodes[0].partition.stop()
    driver.run()
    assert isinstance(driver.answers[request], Refused)
