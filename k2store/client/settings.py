"""What a client object can be told, with what it assumes otherwise."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

Span = str | float | int
"""A span of time: ``"5s"``, ``"300ms"``, or a number of seconds."""


class ClientSettings(Struct, frozen=True, kw_only=True):
    """Limits and pauses of one `Database`.

    timeout_s              deadline of a call that states none, seconds
    attempts_max           most attempts of one transaction
    operations_max         most operations without an answer; more raise `Overloaded` at once
    queued_bytes_max       bytes that may wait for the connection; more raise `Overloaded`
    frame_bytes            a frame is cut as soon as it is longer than this
    early_write_count      buffered writes of a transaction that make them leave before the commit
    early_write_bytes      the same, in bytes of keys and values
    connect_timeout_s      longest wait for one address to answer
    reconnect_pause_s      first pause after no address could be reached; doubles from there
    reconnect_pause_max_s  longest such pause
    sweep_interval_s       how often deadlines are looked at: they are late by at most this
    watch_events_max       events a watch holds for a slow reader before it ends with `Overloaded`
    watch_bytes_max        the same, in bytes of keys and values
    """

    timeout_s: float = 5.0
    attempts_max: int = 20
    operations_max: int = 8_000
    queued_bytes_max: int = 64 * 1024 * 1024
    frame_bytes: int = 1024 * 1024
    early_write_count: int = 128
    early_write_bytes: int = 256 * 1024
    connect_timeout_s: float = 3.0
    reconnect_pause_s: float = 0.02
    reconnect_pause_max_s: float = 1.0
    sweep_interval_s: float = 0.05
    watch_events_max: int = 65_536
    watch_bytes_max: int = 64 * 1024 * 1024


SPIN_NS: Final = 200_000
"""Waits for the clock shorter than this are spent on the loop instead of in a timer."""


def seconds(span: Span) -> float:
    """A span in seconds; `Rejected` when it is not a positive span of time."""
    if isinstance(span, str):
        # Only here: most programs never write a span, and the parser is not free to import.
        from k2store.config.quantity import Duration

        try:
            value = Duration.parse(span).seconds
        except ValueError as error:
            raise _refused(span, str(error)) from None
    else:
        value = float(span)
    if not 0 < value < 1e9:
        raise _refused(span, "it must be positive and finite")
    return value


def _refused(span: Span, why: str) -> Exception:
    from k2store.errors import Rejected

    return Rejected(f"{span!r} is not a span of time: {why}", field="timeout")
