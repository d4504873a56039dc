"""The oracle: what it gives, what it refuses and why, and what a restart may not repeat."""

import msgspec
import pytest

from truetime import (
    Batch,
    Interval,
    Oracle,
    OracleSettings,
    Reason,
    Refusal,
    check_settings,
    timestamp,
)

SETTINGS = OracleSettings()
START_NS = timestamp.EPOCH_NS + 1_000_000 * timestamp.TICK_NS
WIDTH_NS = 500_000


def interval(at_ns: int = 0, width_ns: int = WIDTH_NS) -> Interval:
    """A clock that is ``at_ns`` after the start of the test."""
    return Interval(START_NS + at_ns - width_ns // 2, START_NS + at_ns + (width_ns + 1) // 2)


def ready_oracle(settings: OracleSettings = SETTINGS) -> Oracle:
    """An oracle with a reservation that no test exhausts."""
    oracle = Oracle(17, settings)
    oracle.reserve(START_NS + 3600 * 10**9)
    return oracle


def test_a_stamp_is_the_first_tick_that_is_not_before_hi() -> None:
    """T1 costs no more than the clock's own doubt and the rounding to a tick."""
    now = interval()
    stamp = ready_oracle().stamp(now.lo_ns, now.hi_ns)
    assert stamp == timestamp.pack(now.hi_ns, 17)


def test_stamps_of_one_moment_count_up_until_the_bound_d() -> None:
    """With the clock standing still, ticks are given out up to lo + D and then refused."""
    oracle, now = ready_oracle(), interval()
    given: list[int] = []
    while stamp := oracle.stamp(now.lo_ns, now.hi_ns):
        given.append(stamp)
    assert given == sorted(set(given))
    spare_ns = SETTINGS.ahead_max_ns - WIDTH_NS
    assert len(given) in range(spare_ns // timestamp.TICK_NS - 1, spare_ns // timestamp.TICK_NS + 2)
    refusal = oracle.refusal(now.lo_ns, now.hi_ns)
    assert refusal is not None
    assert refusal.reason is Reason.AHEAD
    assert refusal.retry_after_ns is not None
    later = interval(refusal.retry_after_ns)
    assert oracle.stamp(later.lo_ns, later.hi_ns) > given[-1]
    just_before = interval(refusal.retry_after_ns - 1)
    fresh = ready_oracle()
    while fresh.stamp(now.lo_ns, now.hi_ns):
        pass
    assert fresh.stamp(just_before.lo_ns, just_before.hi_ns) == 0


def test_a_wide_clock_gets_no_stamp_from_any_way() -> None:
    """Above uncertainty_max all four ways refuse, and at it none does."""
    wide = interval(width_ns=SETTINGS.uncertainty_max_ns + 1)
    oracle = ready_oracle()
    assert oracle.stamp(wide.lo_ns, wide.hi_ns) == 0
    assert oracle.stamp_at_least(0, wide.lo_ns, wide.hi_ns) == 0
    assert not oracle.open_turn(wide.lo_ns, wide.hi_ns)
    assert oracle.next_stamp() == 0
    refusal = oracle.grant(1, wide)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNCERTAIN
    assert refusal.retry_after_ns is None
    assert "uncertain by 700001 ns" in refusal.message
    widest = interval(width_ns=SETTINGS.uncertainty_max_ns)
    assert oracle.stamp(widest.lo_ns, widest.hi_ns)
    assert oracle.open_turn(widest.lo_ns, widest.hi_ns)


def test_a_stamp_above_a_floor_or_a_refusal_with_the_time_to_wait() -> None:
    """The floor of a session is passed strictly, and only as far as T2 allows."""
    oracle, now = ready_oracle(), interval()
    floor = timestamp.pack(now.lo_ns + SETTINGS.ahead_max_ns - 1_000, 900)
    stamp = oracle.stamp_at_least(floor, now.lo_ns, now.hi_ns)
    assert stamp > floor
    assert timestamp.time_ns(stamp) <= now.lo_ns + SETTINGS.ahead_max_ns
    too_far = timestamp.pack(now.lo_ns + SETTINGS.ahead_max_ns + 5_000, 900)
    before = oracle.last
    assert oracle.stamp_at_least(too_far, now.lo_ns, now.hi_ns) == 0
    assert oracle.last == before
    refusal = oracle.refusal(now.lo_ns, now.hi_ns, too_far)
    assert refusal is not None
    assert refusal.retry_after_ns is not None
    later = interval(refusal.retry_after_ns)
    assert oracle.stamp_at_least(too_far, later.lo_ns, later.hi_ns) > too_far


def test_a_turn_continues_where_the_other_ways_stopped() -> None:
    """Turn, single stamps and batches of one oracle never share a stamp."""
    oracle, now = ready_oracle(), interval()
    single = oracle.stamp(now.lo_ns, now.hi_ns)
    assert oracle.open_turn(now.lo_ns, now.hi_ns)
    turn = [oracle.next_stamp() for _ in range(3)]
    batch = oracle.grant(4, now)
    assert isinstance(batch, Batch)
    after = oracle.stamp(now.lo_ns, now.hi_ns)
    assert single < turn[0] < turn[1] < turn[2] < batch.base < batch.last < after
    assert turn[1] - turn[0] == 1 << timestamp.TICK_SHIFT


def test_a_turn_ends_at_the_bound_d() -> None:
    """A turn never gives a stamp above lo + D, and begins no earlier than hi."""
    oracle, now = ready_oracle(), interval()
    assert oracle.open_turn(now.lo_ns, now.hi_ns)
    given: list[int] = []
    while stamp := oracle.next_stamp():
        given.append(stamp)
    assert timestamp.time_ns(given[0]) >= now.hi_ns
    assert 0 <= now.lo_ns + SETTINGS.ahead_max_ns - timestamp.time_ns(given[-1]) < 256


def test_a_batch_lies_a_ttl_above_hi_and_below_d() -> None:
    """The base leaves room for the TTL (T1); the last stamp stays below lo + D (T2)."""
    settings = OracleSettings(step_ticks=3, count_max=100)
    now = interval()
    batch = ready_oracle(settings).grant(1_000_000, now)
    assert isinstance(batch, Batch)
    assert batch.count == 100
    assert 0 <= timestamp.time_ns(batch.base) - (now.hi_ns + settings.ttl_ns) < 256
    assert batch.last == batch.base + 99 * batch.stride
    assert timestamp.time_ns(batch.last) <= now.lo_ns + settings.ahead_max_ns
    assert batch.lo_ns == now.lo_ns


def test_batches_shrink_towards_the_bound_and_are_then_refused() -> None:
    """Grants at one moment get what still fits; the refusal says when more will."""
    oracle, now = ready_oracle(), interval()
    counts: list[int] = []
    while isinstance(answer := oracle.grant(1_000, now), Batch):
        counts.append(answer.count)
        assert timestamp.time_ns(answer.last) <= now.lo_ns + SETTINGS.ahead_max_ns
    assert counts[0] == 1_000
    assert 0 < counts[-1] <= 1_000
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.AHEAD
    assert answer.retry_after_ns is not None
    assert isinstance(oracle.grant(1, interval(answer.retry_after_ns)), Batch)


def test_nothing_is_given_before_a_reservation_is_durable() -> None:
    """A new oracle asks for a reservation and gives stamps only inside it."""
    oracle, now = Oracle(17, SETTINGS), interval()
    assert oracle.stamp(now.lo_ns, now.hi_ns) == 0
    refusal = oracle.refusal(now.lo_ns, now.hi_ns)
    assert refusal is not None
    assert refusal.reason is Reason.UNRESERVED
    wanted_ns = oracle.needs_reservation(now)
    assert wanted_ns == now.hi_ns + SETTINGS.ahead_max_ns + SETTINGS.reservation_ns
    oracle.reserve(wanted_ns)
    assert oracle.needs_reservation(now) is None
    assert oracle.stamp(now.lo_ns, now.hi_ns)
    half_way = interval(SETTINGS.reservation_ns // 2 + 1)
    assert oracle.needs_reservation(half_way) is not None


def test_an_exhausted_reservation_stops_every_way() -> None:
    """No way to take a stamp passes the reserved time."""
    oracle, now = Oracle(17, SETTINGS), interval()
    oracle.reserve(now.hi_ns + 2_000)
    while stamp := oracle.stamp(now.lo_ns, now.hi_ns):
        assert timestamp.time_ns(stamp) <= oracle.reserved_until_ns
    assert oracle.stamp_at_least(0, now.lo_ns, now.hi_ns) == 0
    assert not oracle.open_turn(now.lo_ns, now.hi_ns)
    assert oracle.next_stamp() == 0
    assert isinstance(oracle.grant(1, now), Refusal)


def test_an_uncertain_clock_reserves_nothing() -> None:
    """A hi far in the future would lock the oracle out after the next restart."""
    wide = interval(width_ns=3600 * 10**9)
    assert Oracle(17, SETTINGS).needs_reservation(wide) is None


def test_a_restart_gives_only_stamps_above_the_old_reservation() -> None:
    """A killed node waits until its old reservation has passed, and says how long."""
    oracle, now = Oracle(17, SETTINGS), interval()
    durable_ns = oracle.needs_reservation(now)
    assert durable_ns is not None
    oracle.reserve(durable_ns)
    old = oracle.stamp(now.lo_ns, now.hi_ns)
    again = Oracle.restore(17, SETTINGS, durable_ns)
    assert again.stamp(now.lo_ns, now.hi_ns) == 0
    refusal = again.refusal(now.lo_ns, now.hi_ns)
    assert refusal is not None
    assert refusal.reason is Reason.AHEAD
    assert refusal.retry_after_ns is not None
    assert refusal.retry_after_ns <= SETTINGS.reservation_ns + WIDTH_NS + timestamp.TICK_NS
    later = interval(refusal.retry_after_ns)
    wanted_ns = again.needs_reservation(later)
    assert wanted_ns is not None
    again.reserve(wanted_ns)
    new = again.stamp(later.lo_ns, later.hi_ns)
    assert timestamp.time_ns(new) > durable_ns - timestamp.TICK_NS
    assert new > old


def test_a_clock_set_back_over_a_restart_repeats_nothing() -> None:
    """After a step back the restored oracle refuses for as long as the step was."""
    step_ns = 3600 * 10**9
    oracle = Oracle.restore(17, SETTINGS, START_NS)
    back = interval(-step_ns)
    assert oracle.needs_reservation(back) is None
    refusal = oracle.refusal(back.lo_ns, back.hi_ns)
    assert refusal is not None
    assert refusal.retry_after_ns is not None
    assert abs(refusal.retry_after_ns - step_ns) < 2 * SETTINGS.ahead_max_ns


def test_an_orderly_stop_lets_the_next_life_start_at_once() -> None:
    """The bound that close() answers covers all that was given, and hardly more."""
    oracle, now = ready_oracle(), interval()
    old = oracle.stamp(now.lo_ns, now.hi_ns)
    durable_ns = oracle.close()
    assert oracle.stamp(now.lo_ns, now.hi_ns) == 0
    again = Oracle.restore(17, SETTINGS, durable_ns)
    wanted_ns = again.needs_reservation(now)
    assert wanted_ns is not None
    again.reserve(wanted_ns)
    assert again.stamp(now.lo_ns, now.hi_ns) == old + (1 << timestamp.TICK_SHIFT)


def test_default_settings_fit() -> None:
    """A node with the defaults starts."""
    assert check_settings(SETTINGS) is None


@pytest.mark.parametrize(
    "change, setting",
    [
        ({"ahead_max_ns": SETTINGS.ahead_needed_ns - 1}, "ahead_max_ns"),
        ({"ttl_ns": 1_000_000}, "ahead_max_ns"),
        ({"uncertainty_max_ns": 1_000_000}, "ahead_max_ns"),
        ({"step_ticks": 100}, "ahead_max_ns"),
        ({"count_max": 10_000}, "ahead_max_ns"),
        ({"ttl_ns": -1}, "ttl_ns"),
        ({"uncertainty_max_ns": 0}, "uncertainty_max_ns"),
        ({"step_ticks": 0}, "step_ticks"),
        ({"count_max": 0}, "count_max"),
        ({"reservation_ns": 0}, "reservation_ns"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(change: dict[str, int], setting: str) -> None:
    """D < 2 x half-width + TTL + count x step, or a senseless value, is refused with figures."""
    refusal = check_settings(msgspec.structs.replace(SETTINGS, **change))
    assert refusal is not None
    assert refusal.setting == setting
    assert refusal.value < refusal.needed
    assert str(refusal.needed) in refusal.message


def test_the_smallest_d_that_is_accepted_always_grants_a_full_batch() -> None:
    """check_settings asks for no less than is needed, at the widest allowed clock."""
    settings = msgspec.structs.replace(SETTINGS, ahead_max_ns=SETTINGS.ahead_needed_ns)
    assert check_settings(settings) is None
    for shift_ns in range(0, 256, 17):
        now = interval(shift_ns, width_ns=settings.uncertainty_max_ns)
        batch = ready_oracle(settings).grant(settings.count_max, now)
        assert isinstance(batch, Batch)
        assert batch.count == settings.count_max
