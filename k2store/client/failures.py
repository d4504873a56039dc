"""Failures on the session's wire become exceptions of the error tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store import errors

if TYPE_CHECKING:
    from k2store.v1 import session_pb2 as wire


def error_of(failure: wire.Failure) -> errors.K2Error:
    """The exception that a `Failure` names; an unknown name becomes `Unavailable`."""
    message = failure.message or failure.reason
    after_s = failure.retry_after_ms / 1000 if failure.retry_after_ms else None
    other = failure.other.hex() or None
    match failure.reason:
        case "Conflict":
            return errors.Conflict(
                message,
                rule=failure.rule or None,
                key=failure.key or None,
                other=other,
                other_stamp=failure.stamp or None,
                retry_after_s=after_s,
            )
        case "ConditionFailed":
            return errors.ConditionFailed(
                message,
                rule=failure.rule or None,
                key=failure.key or None,
                condition=failure.condition,
                at=failure.stamp or None,
            )
        case "Expired":
            return errors.Expired(message, what=failure.field or None)
        case "Overloaded":
            return errors.Overloaded(message, limit=failure.field or None, retry_after_s=after_s)
        case "OutcomeUnknown":
            return errors.OutcomeUnknown(message, transaction=other)
        case "TooOld":
            return errors.TooOld(message, horizon=failure.stamp or None)
        case "ClockUncertain":
            return errors.ClockUncertain(message, retry_after_s=after_s)
        case "Rejected":
            return errors.Rejected(message, field=failure.field or None)
        case "Deadline":
            return errors.Deadline(message)
        case "Corruption":
            return errors.Corruption(message, what=failure.field or None)
        case _:
            return errors.Unavailable(message, retry_after_s=after_s)
