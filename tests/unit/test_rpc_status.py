"""Errors cross the wire: as `Failure` in session frames and as `google.rpc` status, both ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from k2store import errors
from k2store.errors import K2Error
from k2store.rpc import failures, status

STAMPS = st.integers(1, 2**64 - 1)
TEXTS = st.text(min_size=1, max_size=40)
SENTENCES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
TRANSACTIONS = st.binary(min_size=16, max_size=16).map(bytes.hex)
DELAYS_S = st.integers(1, 4_000_000).map(lambda ms: ms / 1000)
BY_FIELD: dict[str, st.SearchStrategy[object]] = {
    "rule": TEXTS,
    "key": st.binary(min_size=1, max_size=300),
    "other": TRANSACTIONS,
    "transaction": TRANSACTIONS,
    "other_stamp": STAMPS,
    "at": STAMPS,
    "horizon": STAMPS,
    "condition": st.integers(0, 1000),
    "retry_after_s": DELAYS_S,
    "what": TEXTS,
    "limit": TEXTS,
    "field": TEXTS,
}


@st.composite
def any_error(draw: st.DrawFn) -> K2Error:
    """An error of any class of the tree with any subset of its fields."""
    kind = draw(st.sampled_from([*errors.CLASSES, K2Error]))
    fields = {
        name: draw(BY_FIELD[name] if name == "condition" else st.none() | BY_FIELD[name])
        for name in failures.WIRE_FIELDS[kind]
    }
    return kind(draw(SENTENCES), **fields)


def same(left: K2Error, right: K2Error) -> bool:
    """Whether two errors are of one class, with one message and equal fields."""
    return (type(left), left.message, left.details()) == (
        type(right),
        right.message,
        right.details(),
    )


@given(any_error(), st.integers(0, 2**64 - 1))
@example(errors.Unavailable("busy", retry_after_s=2.007), 1)
def test_failure_brings_back_the_same_error(error: K2Error, request_number: int) -> None:
    """A `Failure` message names its request and becomes the same class with the same fields."""
    message = failures.to_failure(error, request_number)
    assert message.request == request_number
    back = failures.from_failure(type(message).FromString(message.SerializeToString()))
    assert same(back, error)


@given(any_error())
def test_status_brings_back_the_same_error(error: K2Error) -> None:
    """A `google.rpc.Status` becomes the same class with the same fields."""
    sent = status.to_status(error)
    assert sent.code != code_pb2.UNKNOWN
    assert same(status.from_status(status_pb2.Status.FromString(sent.SerializeToString())), error)


def test_every_class_of_the_tree_is_in_both_tables() -> None:
    """No class can be added to the tree without a place on the wire, nor a field without one."""
    expected = {*errors.CLASSES, K2Error}
    assert set(failures.WIRE_FIELDS) == expected == set(status.CODES)
    for kind in errors.CLASSES:
        assert tuple(failures.WIRE_FIELDS[kind]) == kind.fields, kind


def test_a_class_without_a_place_travels_as_its_nearest_base() -> None:
    """A subclass that the wire does not know arrives as the class it refines."""

    class Locked(errors.Unavailable):
        """More exact than the wire."""

    back = failures.from_failure(failures.to_failure(Locked("busy", retry_after_s=2.0)))
    assert same(back, errors.Unavailable("busy", retry_after_s=2.0))
    assert type(status.from_status(status.to_status(Locked("busy")))) is errors.Unavailable


def test_a_reason_from_the_future_is_a_plain_error() -> None:
    """A class that a newer node sends is still a K2Error with its message."""
    message = failures.to_failure(errors.Rejected("new rule"))
    message.reason = "Bewildered"
    assert same(failures.from_failure(message), K2Error("new rule"))


@given(st.sampled_from(list(grpc.StatusCode)), st.binary(max_size=60), st.text(max_size=40))
@example(grpc.StatusCode.OK, b"\x08\x11", "a code that stands for nothing")
def test_any_status_of_any_peer_becomes_an_error_of_the_tree(
    code: grpc.StatusCode, details: bytes, message: str
) -> None:
    """Whatever code and trailing bytes a proxy or a stranger sends, a K2Error comes out."""
    metadata = grpc.aio.Metadata((status.DETAILS_KEY, details))
    failure = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, message)
    assert isinstance(status.from_rpc_error(failure), K2Error)


def test_details_say_when_to_come_back_and_what_was_wrong() -> None:
    """RetryInfo, BadRequest and PreconditionFailure stand where generic clients look for them."""
    retry = error_details_pb2.RetryInfo()
    overloaded = status.to_status(errors.Overloaded("full", limit="txns", retry_after_s=0.25))
    assert any(detail.Unpack(retry) for detail in overloaded.details if detail.Is(retry.DESCRIPTOR))
    assert retry.retry_delay.ToMilliseconds() == 250
    bad = error_details_pb2.BadRequest()
    rejected = status.to_status(errors.Rejected("too long", field="key"))
    assert any(detail.Unpack(bad) for detail in rejected.details if detail.Is(bad.DESCRIPTOR))
    assert bad.field_violations[0].field == "key"
    failed = error_details_pb2.PreconditionFailure()
    condition = status.to_status(errors.ConditionFailed("no", rule="absent", condition=2))
    assert any(d.Unpack(failed) for d in condition.details if d.Is(failed.DESCRIPTOR))
    assert failed.violations[0].subject == "conditions[2]"


def test_a_missing_token_and_a_missing_permission_have_their_own_codes() -> None:
    """Rejected is INVALID_ARGUMENT, except for tokens and permissions."""
    codes = [
        status.to_status(errors.Rejected("no", field=field)).code
        for field in ("key", "token", "permission")
    ]
    assert codes == [
        code_pb2.INVALID_ARGUMENT,
        code_pb2.UNAUTHENTICATED,
        code_pb2.PERMISSION_DENIED,
    ]


def test_status_fits_into_the_headers_of_any_peer() -> None:
    """The longest key and message that are allowed still make a status of less than 8 KiB."""
    error = errors.Conflict("m" * 10_000, key=b"k" * 4096, rule="r" * 4096)
    assert len(status.to_status(error).SerializeToString()) < 6000
    kept = status.to_status(errors.Conflict("m", key=b"k" * status.KEY_BYTES_MAX))
    assert status.from_status(kept).details()["key"] == b"k" * status.KEY_BYTES_MAX


def test_failures_need_no_grpc() -> None:
    """The light client's half of the table imports neither gRPC nor google.rpc."""
    code = (
        "import sys, k2store.rpc.failures;"
        "print([name for name in sys.modules if name.startswith(('grpc', 'google.rpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_of_the_wire_has_every_class() -> None:
    """docs/wire.md states class, code, retry and fields exactly as the table does."""
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text("utf-8")
    for kind, code, retry, fields in status.rows():
        assert f"| `{kind}` | {code} | {retry} | {fields} |" in page, kind
