"""The stamp: one unsigned 64-bit integer whose order is the order of transactions.

    63                                            12 11         2 1   0
    ┌───────────────────────────────────────────────┬────────────┬─────┐
    │ tick: 256 ns since 2020-01-01T00:00:00Z (UTC) │ oracle id  │retry│
    └───────────────────────────────────────────────┴────────────┴─────┘
      52 bits: until July 2056                        1..1023      0..3

Integer order is the total order (time, oracle, retry level). Oracle 0 gives no stamps to
transactions; it marks *boundaries* between ticks, such as a closed timestamp. Time is UTC
without smearing. This module knows the layout and the codecs; it does not know any clock.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

Stamp: TypeAlias = int

TICK_NS: Final = 256
EPOCH_NS: Final = 1_577_836_800_000_000_000  # 2020-01-01T00:00:00Z; a multiple of TICK_NS
ORACLE_MAX: Final = 1023
RETRY_MAX: Final = 3
BOUNDARY_ORACLE: Final = 0

ZERO: Final[Stamp] = 0
MAX: Final[Stamp] = 2**64 - 1

TICK_SHIFT: Final = 12  # from a tick to its place in the stamp
TIME_SHIFT: Final = 8  # from nanoseconds to ticks
_ORACLE_SHIFT: Final = 2
_TICK_MAX: Final = 2**52 - 1

# How far into the future a retry of each level is placed, in ticks. These are constants of
# the format and not settings: (tick + offset, level) is unique because ticks are unique and
# the offset of a level never changes, not even between two runs of a node.
OFFSET_TICKS: Final = (0, 48_828, 97_656, 195_312)
OFFSET_MAX_NS: Final = OFFSET_TICKS[RETRY_MAX] * TICK_NS  # F, just under 50 ms

_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})"
    r"(?:/(\d{1,4})(?:\.([0-3]))?)?",
    re.ASCII,
)
_DECIMAL: Final = re.compile(r"\d{1,20}", re.ASCII)
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)


def pack(time_ns: int, oracle: int, retry: int = 0) -> Stamp:
    """The earliest stamp of ``oracle`` that is not before ``time_ns`` (rounded up to a tick)."""
    return from_tick((time_ns - EPOCH_NS + TICK_NS - 1) >> TIME_SHIFT, oracle, retry)


def from_tick(tick: int, oracle: int, retry: int = 0) -> Stamp:
    """A stamp from its three parts."""
    assert 0 <= tick <= _TICK_MAX, tick
    assert 0 <= oracle <= ORACLE_MAX, oracle
    assert 0 <= retry <= RETRY_MAX, retry
    return tick << TICK_SHIFT | oracle << _ORACLE_SHIFT | retry


def floor(time_ns: int) -> Stamp:
    """The latest boundary that is not after ``time_ns``."""
    return from_tick((time_ns - EPOCH_NS) >> TIME_SHIFT, BOUNDARY_ORACLE)


def ceiling(time_ns: int) -> Stamp:
    """The earliest boundary that is not before ``time_ns``."""
    return pack(time_ns, BOUNDARY_ORACLE)


def boundary(time_ns: int) -> Stamp:
    """The boundary at ``time_ns``, rounded down: below every stamp given out from then on."""
    return floor(time_ns)


def tick(stamp: Stamp) -> int:
    """The tick of a stamp."""
    return stamp >> TICK_SHIFT


def time_ns(stamp: Stamp) -> int:
    """The time of a stamp, nanoseconds since the Unix epoch."""
    return EPOCH_NS + (stamp >> TICK_SHIFT << TIME_SHIFT)


def oracle(stamp: Stamp) -> int:
    """The oracle that gave the stamp, 0 for a boundary."""
    return stamp >> _ORACLE_SHIFT & ORACLE_MAX


def retry(stamp: Stamp) -> int:
    """The retry level, 0 for a stamp that lies at its own tick."""
    return stamp & RETRY_MAX


def is_boundary(stamp: Stamp) -> bool:
    """Whether the stamp belongs to no transaction."""
    return oracle(stamp) == BOUNDARY_ORACLE


def predecessor(stamp: Stamp) -> Stamp:
    """The largest stamp below this one."""
    assert stamp > ZERO
    return stamp - 1


def successor(stamp: Stamp) -> Stamp:
    """The smallest stamp above this one."""
    assert stamp < MAX
    return stamp + 1


def offset(stamp: Stamp, level: int) -> Stamp:
    """A plain stamp moved into the future for the ``level``-th retry of a transaction.

    The writes of a retry then land ahead of present readers; the price is a longer commit
    wait. Level 0 changes nothing. The stamp must come straight from an oracle or a pool.
    """
    assert retry(stamp) == 0, stamp
    assert 0 <= level <= RETRY_MAX, level
    return stamp + (OFFSET_TICKS[level] << TICK_SHIFT) | level


def encode(stamp: Stamp) -> bytes:
    """Eight bytes whose byte order is the order of stamps."""
    return stamp.to_bytes(8, "big")


def decode(data: bytes) -> Stamp:
    """Inverse of ``encode``; ``ValueError`` unless there are exactly eight bytes."""
    if len(data) != 8:
        raise ValueError(f"a stamp has 8 bytes, not {len(data)}")
    return int.from_bytes(data, "big")


def encode_descending(stamp: Stamp) -> bytes:
    """Eight bytes whose byte order is the reverse order: newest first in an ordered store."""
    return (MAX - stamp).to_bytes(8, "big")


def decode_descending(data: bytes) -> Stamp:
    """Inverse of ``encode_descending``; ``ValueError`` unless there are exactly eight bytes."""
    return MAX - decode(data)


def describe(stamp: Stamp) -> str:
    """Human form, for example ``2026-11-21T05:58:34.123456768Z/17`` (``.2`` for retry level 2)."""
    seconds, nanoseconds = divmod(time_ns(stamp), 1_000_000_000)
    day = _UNIX + timedelta(seconds=seconds)
    level = f".{retry(stamp)}" if retry(stamp) else ""
    return f"{day:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z/{oracle(stamp)}{level}"


def parse(text: str) -> Stamp:
    """A stamp from its human form, from a bare RFC 3339 time (a boundary), or from decimal.

    ``ValueError`` says what is wrong: malformed, outside the range of stamps, an oracle that
    cannot exist, or a time with an oracle that no stamp can have because it is not a tick.
    """
    if _DECIMAL.fullmatch(text):
        stamp = int(text)
        if stamp > MAX:
            raise ValueError(f"{text} is larger than any stamp")
        return stamp
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a stamp: expected 2026-11-21T05:58:34.5Z, "
            "2026-11-21T05:58:34.5Z/17 or a decimal number"
        )
    date, clock, fraction, zone, oracle_text, retry_text = match.groups()
    when = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    seconds = (when - _UNIX) // timedelta(seconds=1)
    moment_ns = seconds * 1_000_000_000 + int((fraction or "").ljust(9, "0"))
    ticks, rest_ns = divmod(moment_ns - EPOCH_NS, TICK_NS)
    if not 0 <= ticks <= _TICK_MAX:
        raise ValueError(f"{text!r} lies outside the years a stamp can name, 2020 to 2056")
    if oracle_text is None:
        return from_tick(ticks, BOUNDARY_ORACLE)
    if int(oracle_text) > ORACLE_MAX:
        raise ValueError(f"oracle {oracle_text} in {text!r} is larger than {ORACLE_MAX}")
    if rest_ns:
        raise ValueError(f"no oracle gives {text!r}: the time is not a multiple of {TICK_NS} ns")
    return from_tick(ticks, int(oracle_text), int(retry_text or 0))
