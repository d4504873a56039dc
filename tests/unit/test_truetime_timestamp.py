"""Stamps: order, parts, codecs and the human form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truetime import timestamp

stamps = st.integers(timestamp.ZERO, timestamp.MAX)
ticks = st.integers(0, 2**52 - 1)
oracles = st.integers(0, timestamp.ORACLE_MAX)
retries = st.integers(0, timestamp.RETRY_MAX)
parts = st.tuples(ticks, oracles, retries)
times = st.integers(timestamp.EPOCH_NS, timestamp.time_ns(timestamp.MAX) - timestamp.TICK_NS)


@given(parts, parts)
def test_integer_order_is_the_order_by_time_oracle_and_retry(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    """Comparing two stamps gives the same answer as comparing (tick, oracle, retry)."""
    assert (timestamp.from_tick(*one) < timestamp.from_tick(*other)) == (one < other)


@given(stamps)
def test_parts_put_together_give_the_stamp(stamp: int) -> None:
    """Every 64-bit number is a stamp and is the sum of its parts."""
    again = timestamp.from_tick(
        timestamp.tick(stamp), timestamp.oracle(stamp), timestamp.retry(stamp)
    )
    assert again == stamp
    assert timestamp.time_ns(stamp) == timestamp.EPOCH_NS + timestamp.tick(stamp) * 256


@given(times, oracles, retries)
def test_pack_never_lies_before_the_time_and_floor_never_after(
    time_ns: int, oracle: int, retry: int
) -> None:
    """Packing rounds up by less than a tick (T1); boundaries round the way they say."""
    packed = timestamp.pack(time_ns, oracle, retry)
    assert 0 <= timestamp.time_ns(packed) - time_ns < timestamp.TICK_NS
    assert (timestamp.oracle(packed), timestamp.retry(packed)) == (oracle, retry)
    below, above = timestamp.floor(time_ns), timestamp.ceiling(time_ns)
    assert 0 <= time_ns - timestamp.time_ns(below) < timestamp.TICK_NS
    assert 0 <= timestamp.time_ns(above) - time_ns < timestamp.TICK_NS
    assert timestamp.is_boundary(below)
    assert timestamp.boundary(time_ns) == below <= above <= packed


@given(stamps, stamps)
def test_both_codecs_keep_the_order(one: int, other: int) -> None:
    """Byte order of the ascending code is stamp order, of the descending code its reverse."""
    up = [timestamp.encode(one), timestamp.encode(other)]
    down = [timestamp.encode_descending(one), timestamp.encode_descending(other)]
    assert (up[0] < up[1]) == (one < other)
    assert (down[0] < down[1]) == (one > other)
    assert timestamp.decode(up[0]) == timestamp.decode_descending(down[0]) == one


@given(st.binary(max_size=20).filter(lambda data: len(data) != 8))
def test_codes_of_another_length_are_refused(data: bytes) -> None:
    """Bytes that cannot be a stamp raise ValueError in both codecs."""
    with pytest.raises(ValueError, match="8 bytes"):
        timestamp.decode(data)
    with pytest.raises(ValueError, match="8 bytes"):
        timestamp.decode_descending(data)


@given(stamps)
def test_human_form_reads_back(stamp: int) -> None:
    """What is shown to people can be given back, without loss."""
    assert timestamp.parse(timestamp.describe(stamp)) == stamp
    assert timestamp.parse(str(stamp)) == stamp


@given(stamps.filter(lambda stamp: 0 < stamp < timestamp.MAX))
def test_neighbours_of_a_stamp(stamp: int) -> None:
    """Predecessor and successor are inverse and adjacent."""
    assert timestamp.predecessor(stamp) < stamp < timestamp.successor(stamp)
    assert timestamp.successor(timestamp.predecessor(stamp)) == stamp


@given(st.tuples(ticks, oracles, retries), st.tuples(ticks, oracles, retries))
def test_offset_stamps_of_different_plain_stamps_differ(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    """Two attempts share an offset stamp only if they share plain stamp and level."""

    def late(attempt: tuple[int, int, int]) -> int:
        tick, oracle, level = attempt
        return timestamp.offset(timestamp.from_tick(tick // 2, oracle), level)

    same = (one[0] // 2, *one[1:]) == (other[0] // 2, *other[1:])
    assert (late(one) == late(other)) == same
    assert timestamp.retry(late(one)) == one[2]


def test_offsets_grow_with_the_level_up_to_the_bound() -> None:
    """Each level doubles the one before, and the last one is F."""
    plain = timestamp.pack(timestamp.EPOCH_NS + 10**15, 9)
    ahead = [
        timestamp.time_ns(timestamp.offset(plain, level)) - timestamp.time_ns(plain)
        for level in range(timestamp.RETRY_MAX + 1)
    ]
    assert ahead[0] == 0
    assert ahead[1] * 4 == ahead[2] * 2 == ahead[3] == timestamp.OFFSET_MAX_NS


@pytest.mark.parametrize(
    "text, seconds, nanoseconds",
    [
        ("2020-01-01T00:00:00Z", 0, 0),
        ("2020-01-01T00:00:01.5Z", 1, 500_000_000),
        ("2020-01-01t02:00:01.000000256+02:00", 1, 256),
        ("2019-12-31 23:00:00-01:30", 1800, 0),
    ],
)
def test_a_bare_time_is_the_boundary_at_that_time(
    text: str, seconds: int, nanoseconds: int
) -> None:
    """RFC 3339 in its spellings names the boundary just below the stamps of that moment."""
    expected = timestamp.floor(timestamp.EPOCH_NS + seconds * 10**9 + nanoseconds)
    assert timestamp.parse(text) == expected


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "not a stamp"),
        ("yesterday", "not a stamp"),
        ("-5", "not a stamp"),
        ("２０20-01-01T00:00:00Z", "not a stamp"),
        ("2020-01-01T00:00:00", "not a stamp"),
        ("2020-01-01T00:00:00.0000000001Z", "not a stamp"),
        ("2020-01-01T00:00:00Z/17.4", "not a stamp"),
        ("2020-13-01T00:00:00Z", "month"),
        ("2020-01-01T00:00:60Z", "second"),
        ("2019-12-31T23:59:59Z", "outside the years"),
        ("2057-01-01T00:00:00Z", "outside the years"),
        ("2020-01-01T00:00:00Z/1024", "larger than 1023"),
        ("2020-01-01T00:00:00.000000001Z/17", "multiple of 256"),
        (str(2**64), "larger than any stamp"),
    ],
)
def test_text_that_is_no_stamp_is_refused_with_the_reason(text: str, complaint: str) -> None:
    """Each way to get a stamp wrong raises ValueError and says what is wrong."""
    with pytest.raises(ValueError, match=complaint):
        timestamp.parse(text)


@given(st.text("0123456789-:TZ./+ ٣x", max_size=40))
def test_arbitrary_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in any other way than ValueError."""
    try:
        stamp = timestamp.parse(text)
    except ValueError:
        return
    assert timestamp.ZERO <= stamp <= timestamp.MAX
