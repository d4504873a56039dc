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

    ``stamp`` and ``stamp_at_least`` are the fast path: they take the two edges of the clock as
    plain integers and answer ``REFUSED`` (0) when no stamp may be given; ``refusal`` then says
    why and for how long. ``grant`` answers a batch or the refusal itself.
    """

    __slots__ = (
        "_ahead_from_ns",
        "_last_tick",
        "_low_bits",
        "_reserved_tick",
        "_uncertainty_max_ns",
        "oracle_id",
        "settings",
    )

    def __init__(self, oracle_id: int, settings: OracleSettings) -> None:
        assert 1 <= oracle_id <= ORACLE_MAX, oracle_id
        self.oracle_id = oracle_id
        self.settings = settings
        self._uncertainty_max_ns = settings.uncertainty_max_ns
        self._ahead_from_ns = EPOCH_NS - settings.ahead_max_ns
        self._low_bits = from_tick(0, oracle_id)
        self._last_tick = 0  # the largest tick ever emitted, or that may have been
        self._reserved_tick = 0  # nothing is emitted above it

    @classmethod
    def restore(cls, oracle_id: int, settings: OracleSettings, reserved_until_ns: int) -> "Oracle":
        """The oracle of a restarted node: everything up to the durable bound counts as used.

        It refuses until a new, higher reservation is durable, and for as long as ``lo + D``
        lies below the old bound, for example because the clock was set back meanwhile.
        """
        oracle = cls(oracle_id, settings)
        oracle.reserve(reserved_until_ns)
        oracle._last_tick = oracle._reserved_tick
        return oracle

    # ── the fast path ────────────────────────────────────────────────────────────────────

    def stamp(self, lo_ns: int, hi_ns: int) -> Stamp:
        """The next stamp for a transaction that begins now, or ``REFUSED``."""
        tick = (hi_ns - _ROUND_UP_NS) >> TIME_SHIFT
        if tick <= self._last_tick:
            tick = self._last_tick + 1
        if (
            tick > self._reserved_tick
            or hi_ns - lo_ns > self._uncertainty_max_ns
            or (tick << TIME_SHIFT) > lo_ns - self._ahead_from_ns
        ):
            return REFUSED
        self._last_tick = tick
        return tick << TICK_SHIFT | self._low_bits

    def stamp_at_least(self, floor: Stamp, lo_ns: int, hi_ns: int) -> Stamp:
        """Like ``stamp``, and strictly above ``floor``: what a session or a key has seen.

        Refused, and nothing used up, while a stamp above ``floor`` would break T2.
        """
        tick = (hi_ns - _ROUND_UP_NS) >> TIME_SHIFT
        if tick <= self._last_tick:
            tick = self._last_tick + 1
        floor_tick = floor >> TICK_SHIFT
        if tick <= floor_tick:
            tick = floor_tick + 1
        if (
            tick > self._reserved_tick
            or hi_ns - lo_ns > self._uncertainty_max_ns
            or (tick << TIME_SHIFT) > lo_ns - self._ahead_from_ns
        ):
            return REFUSED
        self._last_tick = tick
        return tick << TICK_SHIFT | self._low_bits

    # ── batches ──────────────────────────────────────────────────────────────────────────

    def grant(self, count: int, now: Interval) -> Batch | Refusal:
        """Up to ``count`` stamps for a client, as many as fit below ``lo + D``."""
        settings = self.settings
        base_tick = self._next_tick(now.hi_ns + settings.ttl_ns, floor=0)
        refusal = self._refuse(base_tick, now.lo_ns, now.hi_ns)
        if refusal is not None:
            return refusal
        limit_tick = min(self._reserved_tick, (now.lo_ns - self._ahead_from_ns) >> TIME_SHIFT)
        fitting = (limit_tick - base_tick) // settings.step_ticks + 1
        granted = min(max(count, 1), settings.count_max, fitting)
        assert granted >= 1, granted
        self._last_tick = base_tick + (granted - 1) * settings.step_ticks
        return Batch(
            base=base_tick << TICK_SHIFT | self._low_bits,
            step_ticks=settings.step_ticks,
            count=granted,
            ttl_ns=settings.ttl_ns,
            lo_ns=now.lo_ns,
        )

    def refusal(self, lo_ns: int, hi_ns: int, floor: Stamp = 0) -> Refusal | None:
        """Why ``stamp_at_least(floor, lo_ns, hi_ns)`` is refused; None when it is not."""
        return self._refuse(self._next_tick(hi_ns, floor), lo_ns, hi_ns)

    # ── the reservation ──────────────────────────────────────────────────────────────────

    @property
    def reserved_until_ns(self) -> int:
        """No stamp above this time is emitted."""
        return EPOCH_NS + (self._reserved_tick << TIME_SHIFT)

    @property
    def last(self) -> Stamp:
        """The largest stamp that was, or may have been, emitted."""
        return self._last_tick << TICK_SHIFT | self._low_bits

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
        if tick > self._reserved_tick:
            self._reserved_tick = tick

    def close(self) -> int:
        """Give no more stamps; the bound to make durable so that a restart need not wait."""
        self._reserved_tick = self._last_tick
        return self.reserved_until_ns

    # ── the rules, spelled out ───────────────────────────────────────────────────────────

    def _next_tick(self, not_before_ns: int, floor: Stamp) -> int:
        return max(
            (not_before_ns - _ROUND_UP_NS) >> TIME_SHIFT,
            self._last_tick + 1,
            (floor >> TICK_SHIFT) + 1,
        )

    def _refuse(self, tick: int, lo_ns: int, hi_ns: int) -> Refusal | None:
        width_ns = hi_ns - lo_ns
        if width_ns > self._uncertainty_max_ns:
            return Refusal(
                Reason.UNCERTAIN,
                None,
                f"the clock is uncertain by {width_ns} ns; "
                f"at most {self._uncertainty_max_ns} ns are allowed",
            )
        stamp_ns = time_ns(tick << TICK_SHIFT)
        over_ns = stamp_ns - self.settings.ahead_max_ns - lo_ns
        if over_ns > 0:
            return Refusal(
                Reason.AHEAD,
                over_ns,
                f"the next stamp lies {stamp_ns - lo_ns} ns ahead of the clock; "
                f"at most {self.settings.ahead_max_ns} ns are allowed",
            )
        if tick > self._reserved_tick:
            return Refusal(
                Reason.UNRESERVED,
                None,
                "the next stamp lies above the durable reservation",
            )
        return None
