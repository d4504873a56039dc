"""The error tree to and from `Failure` of session frames.

One table, `WIRE_FIELDS`, says for every class which field of the exception is which field of the
message; both directions read it. Nothing here imports gRPC, so the light client and the simulator
can use it.

What does not survive the way is stated by the message's own comments: an index of 0 and "no
index" look the same, a delay is rounded up to a millisecond, and a transaction named in an
exception (text, hexadecimal) is bytes on the wire. A class that the table does not name travels as
its nearest base class that has a name, and a reason the receiver does not know becomes a plain
K2Error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from k2store import errors
from k2store.errors import K2Error
from k2store.v1 import session_pb2

_BY_NAME: Final[Mapping[str, type[K2Error]]] = MappingProxyType(
    {kind.__name__: kind for kind in (*errors.CLASSES, K2Error)}
)

WIRE_FIELDS: Final[Mapping[type[K2Error], Mapping[str, str]]] = MappingProxyType(
    {
        errors.Conflict: {
            "rule": "rule",
            "key": "key",
            "other": "other",
            "other_stamp": "stamp",
            "retry_after_s": "retry_after_ms",
        },
        errors.ConditionFailed: {
            "rule": "rule",
            "key": "key",
            "condition": "condition",
            "at": "stamp",
        },
        errors.Expired: {"what": "field"},
        errors.Unavailable: {"retry_after_s": "retry_after_ms"},
        errors.Overloaded: {"limit": "field", "retry_after_s": "retry_after_ms"},
        errors.OutcomeUnknown: {"transaction": "other"},
        errors.TooOld: {"horizon": "stamp"},
        errors.ClockUncertain: {"retry_after_s": "retry_after_ms"},
        errors.Rejected: {"field": "field"},
        errors.Deadline: {},
        errors.Corruption: {"what": "field"},
        K2Error: {},
    }
)
"""For every class: its fields, and the fields of `Failure` that carry them."""


def wire_class(error: K2Error) -> type[K2Error]:
    """The class of the tree that the error travels as: its own, or its nearest base."""
    return next(kind for kind in type(error).__mro__ if kind in WIRE_FIELDS)


def class_named(reason: str) -> type[K2Error]:
    """The class with that name; K2Error for a name from a newer version."""
    return _BY_NAME.get(reason, K2Error)


def to_failure(error: K2Error, request: int = 0) -> session_pb2.Failure:
    """The message for an error that answers `request` (0: the whole session)."""
    kind = wire_class(error)
    failure = session_pb2.Failure(request=request, reason=kind.__name__, message=error.message)
    for name, wire_name in WIRE_FIELDS[kind].items():
        value = getattr(error, name)
        if value is None:
            continue
        if wire_name == "other":
            value = transaction_bytes(value)
        elif wire_name == "retry_after_ms":
            # 2.007 * 1000 is a little above 2007.
            value = min(math.ceil(round(value * 1000, 6)), 0xFFFF_FFFF)
        setattr(failure, wire_name, value)
    return failure


def from_failure(failure: session_pb2.Failure) -> K2Error:
    """The exception that a message stands for, ready to be raised."""
    kind = class_named(failure.reason)
    message = failure.message or f"the node answered {failure.reason or 'a failure'}"
    fields: dict[str, object] = {}
    for name, wire_name in WIRE_FIELDS[kind].items():
        value = getattr(failure, wire_name)
        if wire_name == "condition":
            fields[name] = value
        elif not value:
            continue
        elif wire_name == "other":
            fields[name] = value.hex()
        elif wire_name == "retry_after_ms":
            fields[name] = value / 1000
        else:
            fields[name] = value
    return kind(message, **fields)


def transaction_bytes(name: str) -> bytes:
    """A transaction as the tree names it (hexadecimal) as bytes; other text as its UTF-8."""
    try:
        return bytes.fromhex(name)
    except ValueError:
        return name.encode()
