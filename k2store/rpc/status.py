"""The error tree to and from gRPC status with `google.rpc` details.

Every error of a unary method carries

- a standard code (`CODES`), for clients that know nothing of K2store;
- `ErrorInfo`: reason = name of the class, domain = `k2store`, metadata = the structured fields;
- `RetryInfo` where the error says when to come back;
- `BadRequest` for a wrong argument and `PreconditionFailure` for a condition that did not hold.

`from_status` turns it back into the same class with the same fields. Without an ErrorInfo of our
domain (a proxy, gRPC itself) the code alone decides. OutcomeUnknown is DEADLINE_EXCEEDED because
that is the one code that promises nothing about whether the call took effect.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from k2store import errors
from k2store.errors import K2Error
from k2store.rpc.failures import WIRE_FIELDS, class_named, wire_class

DOMAIN: Final = "k2store"
DETAILS_KEY: Final = "grpc-status-details-bin"

MESSAGE_CHARACTERS_MAX: Final = 1024
"""Longer messages are cut: status travels in headers, which peers limit to about 8 KiB."""

KEY_BYTES_MAX: Final = 1024
"""Longer keys are left out of the details, for the same reason."""

CODES: Final[Mapping[type[K2Error], int]] = MappingProxyType(
    {
        errors.Conflict: code_pb2.ABORTED,
        errors.ConditionFailed: code_pb2.FAILED_PRECONDITION,
        errors.Expired: code_pb2.ABORTED,
        errors.Unavailable: code_pb2.UNAVAILABLE,
        errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
        errors.OutcomeUnknown: code_pb2.DEADLINE_EXCEEDED,
        errors.TooOld: code_pb2.OUT_OF_RANGE,
        errors.ClockUncertain: code_pb2.UNAVAILABLE,
        errors.Rejected: code_pb2.INVALID_ARGUMENT,
        errors.Deadline: code_pb2.DEADLINE_EXCEEDED,
        errors.Corruption: code_pb2.DATA_LOSS,
        K2Error: code_pb2.INTERNAL,
    }
)
"""The standard code of each class."""

REJECTED_CODES: Final[Mapping[str | None, int]] = MappingProxyType(
    {"token": code_pb2.UNAUTHENTICATED, "permission": code_pb2.PERMISSION_DENIED}
)
"""The code of a Rejected whose field is one of these."""

_FALLBACKS: Final[Mapping[int, type[K2Error]]] = MappingProxyType(
    {
        code_pb2.ABORTED: errors.Conflict,
        code_pb2.FAILED_PRECONDITION: errors.ConditionFailed,
        code_pb2.UNAVAILABLE: errors.Unavailable,
        code_pb2.CANCELLED: errors.Unavailable,
        code_pb2.RESOURCE_EXHAUSTED: errors.Overloaded,
        code_pb2.OUT_OF_RANGE: errors.TooOld,
        code_pb2.DEADLINE_EXCEEDED: errors.Deadline,
        code_pb2.DATA_LOSS: errors.Corruption,
        code_pb2.INVALID_ARGUMENT: errors.Rejected,
        code_pb2.UNIMPLEMENTED: errors.Rejected,
        code_pb2.NOT_FOUND: errors.Rejected,
        code_pb2.UNAUTHENTICATED: errors.Rejected,
        code_pb2.PERMISSION_DENIED: errors.Rejected,
    }
)
"""What a status without our details stands for."""


def _bytes_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _text_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_READERS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "key": _text_bytes,
        "other_stamp": int,
        "at": int,
        "horizon": int,
        "condition": int,
        "retry_after_s": float,
    }
)
"""How the text of a metadata entry becomes the field; fields not named are text."""


def to_status(error: K2Error) -> status_pb2.Status:
    """The status of an error, with its details."""
    kind = wire_class(error)
    code = CODES[kind]
    info = error_details_pb2.ErrorInfo(reason=kind.__name__, domain=DOMAIN)
    for name in WIRE_FIELDS[kind]:
        value = getattr(error, name)
        if isinstance(value, bytes):
            if len(value) <= KEY_BYTES_MAX:
                info.metadata[name] = _bytes_text(value)
        elif value is not None:
            info.metadata[name] = _cut(str(value))
    status = status_pb2.Status(message=_cut(error.message))
    status.details.add().Pack(info)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, errors.Rejected):
        code = REJECTED_CODES.get(error.field, code)
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field or "", description=_cut(error.message))
        status.details.add().Pack(bad)
    elif isinstance(error, errors.ConditionFailed):
        failed = error_details_pb2.PreconditionFailure()
        subject = "" if error.condition is None else f"conditions[{error.condition}]"
        failed.violations.add(
            type=error.rule or "condition", subject=subject, description=_cut(error.message)
        )
        status.details.add().Pack(failed)
    status.code = code
    return status


def from_status(status: status_pb2.Status) -> K2Error:
    """The exception that a status stands for, ready to be raised."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR) and _unpack(detail, info) and info.domain == DOMAIN:
            kind = class_named(info.reason)
            return kind(status.message, **_fields(kind, info.metadata))
    kind = _FALLBACKS.get(status.code, K2Error)
    # A peer may send a number that stands for nothing.
    known = status.code in code_pb2.Code.values()
    name = code_pb2.Code.Name(status.code) if known else f"code {status.code}"
    message = f"{name}: {status.message}"
    if kind is errors.Rejected:
        field = next((name for name, code in REJECTED_CODES.items() if code == status.code), None)
        return errors.Rejected(message, field=field)
    return kind(message)


def from_rpc_error(failure: grpc.RpcError) -> K2Error:
    """The exception behind a failed call of a gRPC client."""
    # Blocking and asyncio calls have types of their own for what are pairs in both.
    pairs: Iterable[Any] = failure.trailing_metadata() or ()
    for name, value in pairs:
        if name == DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break  # Not the status of a node; the code still stands.
    code: int = failure.code().value[0]
    return from_status(status_pb2.Status(code=code, message=failure.details() or ""))


async def abort(context: grpc.aio.ServicerContext[object, object], error: K2Error) -> None:
    """End the call with the error's status. Raises, as gRPC's own abort does."""
    status = to_status(error)
    await context.abort(
        _GRPC_CODES[status.code],
        status.message,
        ((DETAILS_KEY, status.SerializeToString()),),
    )


_GRPC_CODES: Final[Mapping[int, grpc.StatusCode]] = MappingProxyType(
    {code.value[0]: code for code in grpc.StatusCode}
)


def _fields(kind: type[K2Error], metadata: Mapping[str, str]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name in WIRE_FIELDS[kind]:
        if name in metadata:
            reader: Callable[[str], object] = _READERS.get(name, str)
            try:
                fields[name] = reader(metadata[name])
            except ValueError:
                continue  # A peer's nonsense in one field does not hide the error itself.
    return fields


def _unpack(detail: any_pb2.Any, info: error_details_pb2.ErrorInfo) -> bool:
    try:
        return detail.Unpack(info)
    except DecodeError:
        return False


def _cut(text: str) -> str:
    if len(text) <= MESSAGE_CHARACTERS_MAX:
        return text
    return text[: MESSAGE_CHARACTERS_MAX - 1] + "…"


def rows() -> Iterable[tuple[str, str, str, str]]:
    """The table for docs/wire.md: class, code, retry class, fields."""
    for kind, code in CODES.items():
        fields = ", ".join(f"`{name}`" for name in WIRE_FIELDS[kind]) or "–"
        yield kind.__name__, code_pb2.Code.Name(code), kind.retry.value, fields
