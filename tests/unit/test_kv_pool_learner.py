"""The learner by example: feeds, ages, barriers, and what a fence does at once."""

from __future__ import annotations

import msgspec
import pytest

from k2store.client.watch import Change
from kv_pool import keys
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.namespace import Namespace
from kv_pool.records import ENCODE, Id, Phase, Run, State
from truetime import Interval, timestamp

A, B = Worker("fra", "a"), Worker("iad", "b")
SHARED = Namespace(
    tenant="", model="llama", revision="r1", dtype="bf16", layout="nhd", block_tokens=16
)
PRIVATE = msgspec.structs.replace(SHARED, tenant="acme", parent=SHARED.digest())
STRANGER = msgspec.structs.replace(SHARED, tenant="other")


def names(*numbers: int) -> bytes:
    """Names of blocks, packed."""
    return b"".join(bytes([number]) * 16 for number in numbers)


def alive(worker: Worker, incarnation: int = 1, state: State = State.LIVE) -> tuple[bytes, bytes]:
    """The row of a worker."""
    return keys.identity(worker), ENCODE(Id(incarnation, b"", state))


def has(worker: Worker, *numbers: int, namespace: bytes = SHARED.digest(), incarnation: int = 1):
    """The row of a run."""
    run = Run(incarnation, 0, bytes(16), 0, names(*numbers), len(numbers), Phase.READY, 1)
    return keys.run(worker, namespace, 0, names(numbers[0])), ENCODE(run)


def described(namespace: Namespace) -> tuple[bytes, bytes]:
    """The row of a namespace."""
    return keys.namespace(namespace.digest()), namespace.encode()


def learner_with(*rows: tuple[bytes, bytes], at: int = 10) -> Learner:
    """A learner that has loaded rows."""
    learner = Learner()
    learner.begin("all")
    learner.load("all", rows)
    learner.finish("all", at)
    return learner


def apply(learner: Learner, at: int, *rows: tuple[bytes, bytes | None], feed: str = "all") -> None:
    """A commit."""
    learner.apply(feed, at, [Change(key, value) for key, value in rows])


def depths(learner: Learner, *numbers: int) -> dict[Worker, int]:
    """Who has how much."""
    match = learner.match(SHARED.digest(), names(*numbers))
    return {holder.worker: depth for holder, depth in match.depths.items()}


def test_the_age_is_that_of_the_slowest_feed() -> None:
    """Answers are as of the stamp that every feed has reached; staleness is counted to the latest
    moment that now can be."""
    learner = Learner()
    assert learner.as_of == 0
    for feed, start, end in (("fra", b"d/fra/", b"d/fra0"), ("iad", b"d/iad/", b"d/iad0")):
        learner.begin(feed, start, end)
        assert learner.as_of == 0
        learner.finish(feed, 5)
    learner.resolved("fra", timestamp.pack(timestamp.EPOCH_NS + 10_240, 1))
    assert learner.as_of == 5
    late = timestamp.pack(timestamp.EPOCH_NS + 5_120, 1)
    learner.resolved("iad", late)
    assert learner.as_of == late == learner.match(b"", b"").as_of
    now = Interval(timestamp.EPOCH_NS + 6_000, timestamp.EPOCH_NS + 7_120)
    assert learner.staleness_ns(now) == 2_000
    assert learner.staleness_ns(Interval(timestamp.EPOCH_NS, timestamp.EPOCH_NS)) == 0
    assert (learner.cursor("iad"), learner.cursor("new")) == (late, 0)
    learner.drop("iad")
    assert learner.as_of > late


def test_commits_are_applied_once() -> None:
    """A commit at or below what a feed has reached changes nothing: resuming may repeat."""
    learner = learner_with(alive(A), has(A, 1, 2))
    apply(learner, 10, (has(A, 1, 2)[0], None))
    assert depths(learner, 1, 2) == {A: 2}
    apply(learner, 11, (has(A, 1, 2)[0], None))
    assert depths(learner, 1, 2) == {}
    learner.resolved("all", 9)
    assert learner.as_of == 11


def test_a_snapshot_replaces_and_nobody_waits() -> None:
    """While a new snapshot comes in the old answers stay; then exactly its rows count, and only in the
    feed's range."""
    learner = Learner()
    learner.begin("fra", b"d/fra/", b"d/fra0")
    learner.load("fra", [alive(A), has(A, 1, 2)])
    learner.finish("fra", 5)
    learner.begin("iad", b"d/iad/", b"d/iad0")
    learner.load("iad", [alive(B), has(B, 1)])
    learner.finish("iad", 5)
    learner.begin("fra", b"d/fra/", b"d/fra0")
    learner.load("fra", [alive(A), has(A, 3)])
    assert depths(learner, 1, 2) == {A: 2, B: 1}
    learner.finish("fra", 9)
    assert depths(learner, 1, 2) == {B: 1}
    assert depths(learner, 3) == {A: 1}
    learner.begin("fra", b"d/fra/", b"d/fra0")
    with pytest.raises(ValueError, match="has reached 9"):
        learner.finish("fra", 8)


def test_a_fence_hides_everything_at_once() -> None:
    """One row hides all blocks of a worker; what is left is cleaned with later commits, and then the
    holder's bit serves another."""
    rows = [has(A, number, 100 + number % 100) for number in range(1, 100)]
    learner = learner_with(alive(A), alive(B), *rows, has(B, 1))
    apply(learner, 11, alive(A, 2, State.FENCED))
    assert depths(learner, 1, 101) == {B: 1}
    assert learner.counts().retired > 0
    for at in range(12, 30):
        learner.resolved("all", at)
    assert learner.counts().retired == 0
    assert learner.counts().stretches == 1
    apply(learner, 31, alive(A, 3))
    apply(learner, 32, has(A, 1, 2, incarnation=3))
    assert depths(learner, 1, 2) == {A: 2, B: 1}
    assert depths(learner, 5) == {}


def test_rows_of_another_life_count_for_nothing() -> None:
    """Runs count under the incarnation that the worker's row names, whichever came first."""
    learner = learner_with(has(A, 1))
    assert depths(learner, 1) == {}
    apply(learner, 11, alive(A, 2))
    assert depths(learner, 1) == {}
    apply(learner, 12, alive(A, 1))
    assert depths(learner, 1) == {A: 1}


def test_prompts_cross_barriers_that_are_theirs() -> None:
    """A prompt goes on from the shared namespace into one that names it as parent, with who had all
    of the beginning; into any other it does not."""
    private, stranger = PRIVATE.digest(), STRANGER.digest()
    learner = learner_with(
        *(alive(A), alive(B), has(A, 1, 2), has(B, 1)),
        *(has(A, 7, namespace=private), has(B, 7, 8, namespace=private)),
        *(described(SHARED), described(PRIVATE), described(STRANGER)),
    )
    match = learner.match_across([(SHARED.digest(), names(1, 2)), (private, names(7, 8))])
    assert {one.worker: depth for one, depth in match.depths.items()} == {A: 3, B: 1}
    assert (match.blocks, [one.worker for one in match.holders]) == (3, [A])
    short = learner.match_across([(SHARED.digest(), names(1)), (private, names(7, 8))])
    assert {one.worker: depth for one, depth in short.depths.items()} == {A: 2, B: 3}
    none = learner.match_across([(SHARED.digest(), names(9)), (private, names(7))])
    assert none.depths == {}
    empty = learner.match_across([(SHARED.digest(), b""), (private, names(7))])
    assert empty.blocks == 1
    for other in (stranger, b"unknown namespa."):
        with pytest.raises(ValueError, match="goes on"):
            learner.match_across([(SHARED.digest(), names(1)), (other, names(7))])
    assert learner.namespace(private) == PRIVATE
    apply(learner, 11, (keys.namespace(private), None))
    assert learner.namespace(private) is None


def test_what_is_malformed_is_counted_and_not_there() -> None:
    """Rows that are not what their keys say are passed over, however they are wrong."""
    learner = learner_with(alive(A), has(A, 1), has(B, 1))
    key, value = has(A, 2)
    wrong: list[tuple[bytes, bytes]] = [
        (key, b""),
        (key, value[:-1]),
        (key, has(A, 3)[1]),
        (key, ENCODE(Run(1, 0, bytes(16), 0, names(2), 5, 1, 1))),
        (key, ENCODE(Run(1, 0, bytes(3), 0, names(2), 1, 1, 1))),
        (key[:-1], value),
        (keys.WORKERS + b"fra", b""),
        (keys.WORKERS + b"\xff/\xff/run/", b""),
        (keys.WORKERS + b"-/-/id", b""),
        (keys.namespace(PRIVATE.digest()), b"\xc0"),
        (keys.namespace(PRIVATE.digest()), SHARED.encode()),
    ]
    for number, row in enumerate(wrong):
        apply(learner, 20 + number, row)
        assert learner.counts().malformed == number + 1
        assert depths(learner, 1) == {A: 1}
        assert depths(learner, 2) == {}
    apply(learner, 50, (keys.identity(A), b"junk"))
    assert depths(learner, 1) == {}
    apply(learner, 51, alive(A))
    assert depths(learner, 1) == {A: 1}
    apply(learner, 52, (b"other/key", b""), (keys.lease(A), b""), (keys.quota(A, "t"), b""))
    assert learner.counts().malformed == len(wrong) + 1


def test_keys_are_read_in_one_way() -> None:
    """Names that could break a key are refused, and a worker's prefix gives the worker back."""
    assert keys.worker_of(A.prefix) == A
    for name in ("", "a/b", "a b", "-a", "é", "a" * 129, "a\n"):
        with pytest.raises(ValueError, match="is no name"):
            Worker("fra", name)
    for prefix in (b"d/fra/a", b"x/fra/a/", b"d/fra/", b"d/fra/a/b/"):
        with pytest.raises(ValueError, match=r"\w"):
            keys.worker_of(prefix)
    with pytest.raises(ValueError, match="a run is"):
        keys.run_id(b"short", 0, bytes(16))
    with pytest.raises(ValueError, match="a pin is"):
        keys.pin(A, bytes(33), b"short")


def test_an_index_of_fragments_is_asked_for() -> None:
    """Without it the question is refused."""
    with pytest.raises(ValueError, match="no index"):
        Learner().fragments(bytes(16))
