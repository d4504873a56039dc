"""The oracle: gives each transaction its stamp, inside rules T1 and T2.

              lo                        hi        lo + D
    ──────────┼─────────────────────────┼─────────────┼──────▶ time
                                        └── stamps ───┘
                     T1: not below hi ──┘             └── T2: not above lo + D

It counts upwards in ticks. When stamps are asked for faster than ticks pass, or when the clock
was set back, the next free tick runs into ``lo + D`` and the oracle refuses until time has
caught up. Uniqueness across restarts rests on a **reservation**: the oracle never emits above a
bound that its driver has made durable, and a restarted oracle begins above the last bound.

An oracle is told the time; it never reads a clock and never writes a disk.

A node that both stamps transactions itself and grants batches should use two oracles with two
ids: a batch lies a whole TTL ahead, and would push the node's own stamps ahead with it.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from truetime.interval import Interval
from truetime.timestamp import (
    EPOCH_NS,
    ORACLE_MAX,
    TICK_NS,
    TICK_SHIFT,
    TIME_SHIFT,
    Stamp,
    from_tick,
    time_ns,
)

_ROUND_UP_NS: Final = EPOCH_NS - TICK_NS + 1  # subtracted before the shift: rounds up to a tick
_TICK: Final = 1 << TICK_SHIFT  # one tick as a distance between stamps

# The answer of the fast path when no stamp may be given now; no stamp of an oracle is 0.
REFUSED: Final[Stamp] = 0


class OracleSettings(Struct, frozen=True, gc=False):
    """Settings of one oracle; ``check_settings`` says whether they fit together.

    ttl_ns               how long a client may hand out a batch
    ahead_max_ns         D: how far a stamp may lie ahead of true time when it is handed out
    uncertainty_max_ns   refuse to give stamps while the clock's ``hi - lo`` exceeds this
    step_ticks           distance between two stamps of a batch
    count_max            largest batch
    reservation_ns       how far beyond ``now + D`` a reservation reaches; a node that was killed
                         waits up to this long before its first stamp
    """

    ttl_ns: int = 500_000
    ahead_max_ns: int = 1_500_000
    uncertainty_max_ns: int = 700_000
    step_ticks: int = 1
    count_max: int = 1_000
    reservation_ns: int = 500_000_000

    @property
    def ahead_needed_ns(self) -> int:
        """The smallest D with which a full batch can always be granted."""
        batch_ns = self.count_max * self.step_ticks * TICK_NS
        return self.uncertainty_max_ns + self.ttl_ns + batch_ns


class SettingsRefusal(Struct, frozen=True, gc=False):
    """Why a node must not start with these settings."""

    setting: str
    value: int
    needed: int
    message: str


def check_settings(settings: OracleSettings) -> SettingsRefusal | None:
    """None when the settings fit: D >= 2 x half-width + TTL + count x step.

    With less, the oracle would refuse although its clock is as good as promised. The largest
    half-width counted is half of ``uncertainty_max_ns``.
    """
    smallest = {
        "ttl_ns": 0,
        "uncertainty_max_ns": 1,
        "step_ticks": 1,
        "count_max": 1,
        "reservation_ns": 1,
    }
    for setting, needed in smallest.items():
        value: int = getattr(settings, setting)
        if value < needed:
            return SettingsRefusal(
                setting, value, needed, f"{setting} is {value}; it must be at least {needed}"
            )
    needed = settings.ahead_needed_ns
    if settings.ahead_max_ns < needed:
        return SettingsRefusal(
            "ahead_max_ns",
            settings.ahead_max_ns,
            needed,
            f"ahead_max_ns is {settings.ahead_max_ns} ns; it must be at least {needed} ns: "
            f"uncertainty_max_ns {settings.uncertainty_max_ns} + ttl_ns {settings.ttl_ns} "
            f"+ count_max {settings.count_max} x step {settings.step_ticks * TICK_NS} ns",
        )
    return None


class Reason(StrEnum):
    """Why an oracle gives no stamp."""

    UNCERTAIN = "uncertain"  # the clock's interval is too wide
    AHEAD = "ahead"  # the next free stamp lies above lo + D
    UNRESERVED = "unreserved"  # a reservation must become durable first


class Refusal(Struct, frozen=True, gc=False):
    """No stamp now. ``retry_after_ns`` is None where time alone does not help."""

    reason: Reason
    retry_after_ns: int | None
    message: str


class Batch(Struct, frozen=True, gc=False):
    """Stamps ``base``, ``base + stride``, ... for one client, good for ``ttl_ns``.

    The client counts the TTL from *before* it sent the request (``pool.Pool``). ``lo_ns`` is a
    lower bound of the true time at the grant, from which the client works out T3.
    """

    base: Stamp
    step_ticks: int
    count: int
    ttl_ns: int
    lo_ns: int

    @property
    def stride(self) -> int:
        """Distance between two neighbouring stamps, as integers."""
        return self.step_ticks << TICK_SHIFT

    @property
    def last(self) -> Stamp:
        """The largest stamp of the batch."""
        return self.base + (self.count - 1) * self.stride


class Oracle:
    """One source of unique stamps. Life: ``restore`` (or a new one), ``reserve``, stamps.

    Three ways to take stamps, cheapest first; all answer ``REFUSED`` (0) instead of a stamp
    when none may be given, and ``refusal`` then says why and for how long:

    ``open_turn`` and ``next_stamp``   one clock reading for all requests of one turn of a node
    ``stamp``, ``stamp_at_least``      one clock reading a stamp, the latter above a floor
    ``grant``                          a batch for a client, or the refusal itself
    """

    __slots__ = (
        "_ahead_from_ns",
        "_last",
        "_low_bits",
        "_reserved",
        "_turn_limit",
        "_uncertainty_max_ns",
        "oracle_id",
        "settings",
    )

    def __init__(self, oracle_id: int, settings: OracleSettings) -> None:
        assert 1 <= oracle_id <= ORACLE_MAX, oracle_id
        assert check_settings(settings) is None, settings
        self.oracle_id = oracle_id
        self.settings = settings
        self._uncertainty_max_ns = settings.uncertainty_max_ns
        self._ahead_from_ns = EPOCH_NS - settings.ahead_max_ns
        self._low_bits = from_tick(0, oracle_id)
        self._last: Stamp = self._low_bits  # the largest that was, or may have been, emitted
        self._reserved: Stamp = self._low_bits  # nothing is emitted above it
        self._turn_limit: Stamp = 0  # nothing is emitted above it in the present turn

    @classmethod
    def restore(cls, oracle_id: int, settings: OracleSettings, reserved_until_ns: int) -> "Oracle":
        """The oracle of a restarted node: everything up to the durable bound counts as used.

        It refuses until a new, higher reservation is durable, and for as long as ``lo + D``
        lies below the old bound, for example because the clock was set back meanwhile.
        """
        oracle = cls(oracle_id, settings)
        oracle.reserve(reserved_until_ns)
        oracle._last = oracle._reserved
        return oracle

    # ── one stamp ────────────────────────────────────────────────────────────────────────

    def stamp(self, lo_ns: int, hi_ns: int) -> Stamp:
        """The next stamp for a transaction that begins now, or ``REFUSED``.

        Where the stamp follows from ``hi`` the test against ``lo + D`` is implied by the one
        of the width, because D is larger than the widest interval (``check_settings``).
        """
        stamp = (hi_ns - _ROUND_UP_NS) >> TIME_SHIFT << TICK_SHIFT | self._low_bits
        if stamp <= self._last:
            stamp = self._last + _TICK
            if stamp > self._limit(lo_ns):
                return REFUSED
        if stamp > self._reserved or hi_ns - lo_ns > self._uncertainty_max_ns:
            return REFUSED
        self._last = stamp
        return stamp

    def stamp_at_least(self, floor: Stamp, lo_ns: int, hi_ns: int) -> Stamp:
        """Like ``stamp``, and strictly above ``floor``: what a session or a key has seen.

        Refused, and nothing used up, while a stamp above ``floor`` would break T2.
        """
        stamp = self._next(hi_ns, floor)
        if (
            stamp > self._reserved
            or hi_ns - lo_ns > self._uncertainty_max_ns
            or stamp > self._limit(lo_ns)
        ):
            return REFUSED
        self._last = stamp
        return stamp

    # ── many stamps from one reading ─────────────────────────────────────────────────────

    def open_turn(self, lo_ns: int, hi_ns: int) -> bool:
        """Begin to stamp the transactions that had reached the node before the clock was read.

        ``hi`` is not below the time at which any of them began, which is all that the proof
        of real-time order needs. A transaction that arrives later needs a later turn: never
        call ``next_stamp`` after waiting for anything. False when the turn gives no stamps.
        """
        if hi_ns - lo_ns > self._uncertainty_max_ns:
            self._turn_limit = 0
            return False
        first = (hi_ns - _ROUND_UP_NS) >> TIME_SHIFT << TICK_SHIFT | self._low_bits
        self._last = max(self._last, first - _TICK)
        self._turn_limit = min(self._reserved, self._limit(lo_ns))
        return self._last < self._turn_limit

    def next_stamp(self) -> Stamp:
        """The next stamp of the present turn, or ``REFUSED`` when there are no more."""
        stamp = self._last + _TICK
        if stamp > self._turn_limit:
            return REFUSED
        self._last = stamp
        return stamp

    def next_stamps(self, count: int) -> range:
        """The next stamps of the present turn, ``count`` of them or as many as there are."""
        first = self._last + _TICK
        fitting = min(count, (self._turn_limit - first) // _TICK + 1)
        if fitting <= 0:
            return range(0)
        self._last = first + (fitting - 1) * _TICK
        return range(first, self._last + 1, _TICK)

    # ── batches ──────────────────────────────────────────────────────────────────────────

    def grant(self, count: int, now: Interval) -> Batch | Refusal:
        """Up to ``count`` stamps for a client, as many as fit below ``lo + D``."""
        settings = self.settings
        base = self._next(now.hi_ns + settings.ttl_ns, floor=0)
        refusal = self._refuse(base, now.lo_ns, now.hi_ns)
        if refusal is not None:
            return refusal
        stride = settings.step_ticks * _TICK
        fitting = (min(self._reserved, self._limit(now.lo_ns)) - base) // stride + 1
        granted = min(max(count, 1), settings.count_max, fitting)
        assert granted >= 1, granted
        self._last = base + (granted - 1) * stride
        return Batch(base, settings.step_ticks, granted, settings.ttl_ns, now.lo_ns)

    def refusal(self, lo_ns: int, hi_ns: int, floor: Stamp = 0) -> Refusal | None:
        """Why ``stamp_at_least(floor, lo_ns, hi_ns)`` is refused; None when it is not."""
        return self._refuse(self._next(hi_ns, floor), lo_ns, hi_ns)

    # ── the reservation ──────────────────────────────────────────────────────────────────

    @property
    def reserved_until_ns(self) -> int:
        """No stamp above this time is emitted."""
        return time_ns(self._reserved)

    @property
    def last(self) -> Stamp:
        """No stamp up to this one is emitted any more."""
        return self._last

    def needs_reservation(self, now: Interval) -> int | None:
        """The bound that the driver should make durable now and then pass to ``reserve``.

        None while at least half of the present reservation is left, and while the clock is too
        uncertain to give stamps: its ``hi`` would then reserve a future that is never reached.
        """
        settings = self.settings
        if now.width_ns > settings.uncertainty_max_ns:
            return None
        horizon_ns = now.hi_ns + settings.ahead_max_ns
        if horizon_ns + settings.reservation_ns // 2 <= self.reserved_until_ns:
            return None
        return horizon_ns + settings.reservation_ns

    def reserve(self, until_ns: int) -> None:
        """``until_ns`` is durable. A bound below the present one changes nothing."""
        tick = (until_ns - EPOCH_NS) >> TIME_SHIFT
        self._reserved = max(self._reserved, from_tick(tick, self.oracle_id))

    def close(self) -> int:
        """Give no more stamps; the bound to make durable so that a restart need not wait."""
        self._reserved = self._last
        self._turn_limit = 0
        return self.reserved_until_ns

    # ── the rules, spelled out ───────────────────────────────────────────────────────────

    def _next(self, not_before_ns: int, floor: Stamp) -> Stamp:
        """The first stamp that T1, uniqueness and ``floor`` allow."""
        tick = max((not_before_ns - _ROUND_UP_NS) >> TIME_SHIFT, (floor >> TICK_SHIFT) + 1)
        return max(tick << TICK_SHIFT | self._low_bits, self._last + _TICK)

    def _limit(self, lo_ns: int) -> Stamp:
        """The last stamp that T2 allows."""
        return (lo_ns - self._ahead_from_ns) >> TIME_SHIFT << TICK_SHIFT | self._low_bits

    def _refuse(self, stamp: Stamp, lo_ns: int, hi_ns: int) -> Refusal | None:
        width_ns = hi_ns - lo_ns
        if width_ns > self._uncertainty_max_ns:
            return Refusal(
                Reason.UNCERTAIN,
                None,
                f"the clock is uncertain by {width_ns} ns; "
                f"at most {self._uncertainty_max_ns} ns are allowed",
            )
        ahead_ns = time_ns(stamp) - lo_ns
        if ahead_ns > self.settings.ahead_max_ns:
            return Refusal(
                Reason.AHEAD,
                ahead_ns - self.settings.ahead_max_ns,
                f"the next stamp lies {ahead_ns} ns ahead of the clock's lower edge; "
                f"at most {self.settings.ahead_max_ns} ns are allowed",
            )
        if stamp > self._reserved:
            return Refusal(
                Reason.UNRESERVED,
                None,
                "the next stamp lies above the durable reservation",
            )
        return None
