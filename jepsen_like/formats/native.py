"""Our own format: a magic line, then records of msgpack, each after its length.

    b"K2HISTORY 1\\n"   header   { u32 big endian length, msgpack map }*

The header is a record too: `{"nil_is_a_value": bool}`. A record is an event by field names, without fields that
hold their default, so that fields can be added later. Records can be appended while a run goes on; a torn last
record is an error unless the reader is told to forgive it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jepsen_like.history import Event, History, HistoryError

MAGIC = b"K2HISTORY 1\n"
RECORD_BYTES_MAX = 64 << 20


class _Record(msgspec.Struct, omit_defaults=True):
    type: str
    f: str
    process: int | str | None = None
    value: object = None
    time_ns: int | None = None
    key: object = None
    stamp: int | None = None
    error: object = None
    index: int = -1


class _Header(msgspec.Struct):
    nil_is_a_value: bool = True


def write(path: Path, history: History) -> None:
    """Writes a history to a file."""
    encode = msgspec.msgpack.Encoder().encode
    with path.open("wb") as file:
        file.write(MAGIC)
        _put(file.write, encode(_Header(nil_is_a_value=history.nil_is_a_value)))
        for event in history.events:
            record = _Record(
                event.type,
                event.f,
                event.process,
                event.value,
                event.time_ns,
                event.key,
                event.stamp,
                event.error,
                event.index,
            )
            _put(file.write, encode(record))


def _put(write_bytes: object, body: bytes) -> None:
    assert callable(write_bytes)
    write_bytes(struct.pack(">I", len(body)) + body)


def read(data: bytes, *, forgive_torn_end: bool = False) -> History:
    """The history in the bytes of a file."""
    if not data.startswith(MAGIC):
        raise HistoryError("the file does not begin like a history of ours")
    records = _records(memoryview(data)[len(MAGIC) :], forgive_torn_end=forgive_torn_end)
    header_bytes = next(records, None)
    if header_bytes is None:
        raise HistoryError("the header is missing")
    decoder = msgspec.msgpack.Decoder(_Record)
    events: list[Event] = []
    try:
        header = msgspec.msgpack.decode(header_bytes, type=_Header)
        for position, body in enumerate(records):
            record = decoder.decode(body)
            if record.type not in ("invoke", "ok", "fail", "info"):
                raise HistoryError(f"record {position}: type is {record.type!r}")
            events.append(
                Event(
                    record.index if record.index >= 0 else position,
                    record.type,  # type: ignore[arg-type]
                    record.process,
                    record.f,
                    record.value,
                    record.time_ns,
                    record.key,
                    record.stamp,
                    record.error,
                )
            )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HistoryError(f"record {len(events)}: {error}") from error
    return History(events, nil_is_a_value=header.nil_is_a_value)


def _records(view: memoryview, *, forgive_torn_end: bool) -> Iterator[memoryview]:
    at = 0
    while at < len(view):
        if at + 4 <= len(view):
            (length,) = struct.unpack_from(">I", view, at)
            if length > RECORD_BYTES_MAX:
                raise HistoryError(f"byte {at}: a record of {length} bytes is longer than allowed")
            if at + 4 + length <= len(view):
                yield view[at + 4 : at + 4 + length]
                at += 4 + length
                continue
        if forgive_torn_end:
            return
        raise HistoryError(f"byte {at}: the last record is torn")
