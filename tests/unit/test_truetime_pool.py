"""The pool of a client: time to live, session floors, and no stamp twice."""

from hypothesis import given
from hypothesis import strategies as st

from truetime import Batch, Pool, timestamp

BASE = timestamp.pack(timestamp.EPOCH_NS + 10**15, 5)
TTL_NS = 500_000
LO_NS = timestamp.time_ns(BASE) - 1_000_000


def batch(base: int = BASE, count: int = 4, step_ticks: int = 1) -> Batch:
    """A batch as an oracle would grant it."""
    return Batch(base, step_ticks, count, TTL_NS, LO_NS)


def test_an_empty_pool_has_no_stamp() -> None:
    """Before the first batch the client has to fetch one."""
    assert Pool().take(0) == 0
    assert Pool().remaining(0) == 0


def test_stamps_leave_in_order_and_each_once() -> None:
    """A batch gives exactly its own stamps."""
    pool = Pool()
    assert pool.offer(batch(step_ticks=2), requested_at_ns=0, arrived_at_ns=100)
    stamps = [pool.take(200) for _ in range(5)]
    assert stamps == [BASE + i * (2 << timestamp.TICK_SHIFT) for i in range(4)] + [0]


def test_the_ttl_counts_from_before_the_request_less_the_drift() -> None:
    """With rho = 1000 ppm a TTL of 500 us ends after 499.5 us on the client's clock."""
    pool = Pool(drift_ppm=1_000)
    assert pool.offer(batch(), requested_at_ns=1_000, arrived_at_ns=2_000)
    assert pool.remaining(500_499) == 4
    assert pool.take(500_499) == BASE
    assert pool.take(500_500) == 0
    assert pool.remaining(500_500) == 0


def test_a_batch_that_arrives_too_late_is_not_used_but_tells_the_time() -> None:
    """An expired batch gives no stamp; its lo still helps with the commit wait."""
    pool = Pool()
    assert not pool.offer(batch(), requested_at_ns=0, arrived_at_ns=TTL_NS)
    assert pool.take(TTL_NS) == 0
    assert pool.passed.lower_ns(TTL_NS) == LO_NS


def test_a_batch_delivered_twice_is_handed_out_once() -> None:
    """The copy of a batch, and any older one, is refused."""
    pool = Pool()
    assert pool.offer(batch(), 0, 100)
    first = pool.take(200)
    assert not pool.offer(batch(), 0, 300)
    assert not pool.offer(batch(base=BASE - (8 << timestamp.TICK_SHIFT)), 0, 300)
    assert pool.take(400) > first


def test_a_session_floor_is_passed_strictly() -> None:
    """Stamps at or below what the session has seen are skipped."""
    pool = Pool()
    pool.offer(batch(), 0, 100)
    stride = batch().stride
    assert pool.take(200, floor=BASE) == BASE + stride
    assert pool.take(200, floor=BASE + 2 * stride - 1) == BASE + 2 * stride
    assert pool.take(200, floor=BASE + 3 * stride) == 0
    assert pool.take(200) == BASE + 3 * stride


@given(
    st.integers(1, 20),
    st.integers(1, 5),
    st.lists(st.one_of(st.just(0), st.integers(-10, 120)), max_size=30),
)
def test_floors_in_any_order_never_repeat_a_stamp(
    count: int, step_ticks: int, floors_ticks: list[int]
) -> None:
    """Whatever the sessions have seen: in order, unique, of the batch, above the floor."""
    pool, offered = Pool(), batch(count=count, step_ticks=step_ticks)
    pool.offer(offered, 0, 1)
    members = {offered.base + i * offered.stride for i in range(count)}
    given_out: list[int] = []
    for ticks in floors_ticks:
        floor = BASE + (ticks << timestamp.TICK_SHIFT)
        if stamp := pool.take(2, floor):
            assert stamp > floor
            given_out.append(stamp)
    assert given_out == sorted(set(given_out))
    assert members.issuperset(given_out)
