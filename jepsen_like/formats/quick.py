"""List-append files straight into columns, without an object per event.

A file of a million transactions is two million lines. The maps of JSON are decoded by a typed decoder that leaves
`:value` alone; of EDN, whose keys come in the same order on every line, a pattern made from the first line takes
the fields apart. The micro-operations of all completions of a block are then decoded in one go. For EDN they are
first turned into JSON by one table look-up per byte: `[[:append 5 1] [:r 3 nil]]` becomes `[[1,5,1],[0,3,[]]]`.
Lines that do not look like that are read the slow way, one by one; the result is the same.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import msgspec

from jepsen_like.formats import bulk, edn, json_text
from jepsen_like.formats.maps import events_of, flatten
from jepsen_like.history import History, HistoryError, Kind, Process
from jepsen_like.transactions.columns import Filler, MicroOperations, Transactions

BLOCK_BYTES = 1 << 22

_FIELD = re.compile(rb":([a-z-]+) (\[.*\]|[^\s,{}\[\]\"]+)")
_MICRO = bytes.maketrans(b"aril ", b"10[],")
_DROPPED = b":pend"
_PATTERNS = {
    b"type": rb":type :(?P<type>invoke|ok|fail|info)",
    b"value": rb":value (?P<value>\[.*\]|nil)",
    b"process": rb":process (?P<process>\d+)",
    b"index": rb":index (?P<index>\d+)",
}


class _Line(msgspec.Struct, gc=False):
    type: Kind
    process: int | str | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    index: int | None = None


class _Entry(msgspec.Struct, gc=False):
    """One line: the value undecoded, or decoded when the line had to be read the slow way."""

    kind: Kind
    process: Process
    index: int
    raw: bytes | msgspec.Raw | None
    value: object = None


Decode = Callable[[list[bytes | msgspec.Raw]], Iterable[object]]


def transactions_of(history: History) -> Transactions:
    """The columns of a history that is in memory."""
    pump = _Pump(_decode_json)
    pump.feed([_Entry(e.type, e.process, e.index, None, e.value) for e in history.events])
    return pump.close()


def transactions_in(data: bytes, kind: str) -> Transactions:
    """The columns of a file in EDN or JSON."""
    try:
        return bulk.transactions_in(data, kind)
    except bulk.NotPlain:
        pass
    with _no_collection():
        start = data[:4096].lstrip()
        if kind == "json" and start.startswith(b"{"):
            return _pour(data, _json_entries, _decode_json)
        if kind == "edn" and start.startswith((b"{", b"#jepsen")):
            pattern = _pattern_of(start.partition(b"\n")[0])
            return _pour(data, lambda block, at: _edn_entries(block, at, pattern), _decode_edn)
        values = json_text.read_all(data) if kind == "json" else edn.read_all(data.decode())
        return transactions_of(History(events_of(flatten(values))))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small lists that hold no cycles are no work for the garbage collector."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Pump:
    """Feeds lines in order; the micro-operations of a block of completions are decoded together."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._filler = Filler()
        self._asked: dict[Process, _Entry] = {}

    def feed(self, entries: list[_Entry]) -> None:
        """Takes the next lines of the history."""
        asked = self._asked
        sources: list[_Entry] = []
        for entry in entries:
            if entry.kind == "invoke":
                asked[entry.process] = entry
            else:
                before = asked.pop(entry.process, entry)
                told = entry.value is not None or (
                    entry.raw is not None and bytes(entry.raw) not in _EMPTY
                )
                sources.append(entry if told else before)
        values = iter(self._values(sources))
        filler = self._filler
        for entry in entries:
            if entry.kind == "invoke":
                filler.invoke(entry.process, entry.index, None)
            else:
                filler.complete(entry.kind, entry.process, entry.index, next(values))

    def close(self) -> Transactions:
        """The columns of everything fed."""
        left = list(self._asked.values())
        values = self._values(left)
        return self._filler.close({e.index: v for e, v in zip(left, values, strict=True)})

    def _values(self, sources: list[_Entry]) -> list[MicroOperations]:
        decoded = iter(self._decode([e.raw for e in sources if e.raw is not None]))
        return [_micro(next(decoded) if e.raw is not None else e.value, e.index) for e in sources]


_EMPTY = (b"null", b"nil")


def _micro(value: object, index: int) -> MicroOperations:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise HistoryError(f"event {index}: the value is not a list of micro-operations")
    return cast("MicroOperations", value)


def _pour(
    data: bytes, entries_of: Callable[[bytes, int], list[_Entry]], decode: Decode
) -> Transactions:
    pump = _Pump(decode)
    position = 0
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + BLOCK_BYTES)
        end = len(data) if end < 0 else end + 1
        entries = entries_of(data[at:end], position)
        position += len(entries)
        pump.feed([e for e in entries if e.process != "nemesis"])
        at = end
    return pump.close()


def _json_entries(block: bytes, position: int) -> list[_Entry]:
    try:
        lines = msgspec.json.Decoder(_Line).decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HistoryError(f"after line {position}: not an operation in JSON: {error}") from error
    return [
        _Entry(
            line.type,
            line.process,
            position + i if line.index is None else line.index,
            line.value,
        )
        for i, line in enumerate(lines)
    ]


def _decode_json(raws: list[bytes | msgspec.Raw]) -> Iterable[object]:
    if not raws:
        return []
    try:
        return msgspec.json.decode(b"[" + b",".join(raws) + b"]", type=list[object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HistoryError(f"a transaction is not JSON: {error}") from error


def _pattern_of(line: bytes) -> re.Pattern[bytes]:
    """A pattern for lines with the keys of `line` in their order; it may match nothing."""
    names = [match[1] for match in _FIELD.finditer(line)]
    parts = [_PATTERNS.get(name, rb":" + re.escape(name) + rb" [^\s,{}\[\]\"]+") for name in names]
    if not {b"type", b"value", b"process"} <= set(names) or len(set(names)) != len(names):
        return re.compile(rb"(?!)")
    return re.compile(rb"\s*\{" + rb",?\s+".join(parts) + rb"\}\s*\Z")


def _edn_entries(block: bytes, position: int, pattern: re.Pattern[bytes]) -> list[_Entry]:
    entries: list[_Entry] = []
    indexed = "index" in pattern.groupindex
    for line in block.splitlines():
        match = pattern.match(line)
        if match is not None:
            here = position + len(entries)
            index = int(match["index"]) if indexed else here
            kind = cast("Kind", match["type"].decode())
            entries.append(_Entry(kind, int(match["process"]), index, match["value"]))
        elif line.strip():
            entries.extend(_slow_entries(line, position + len(entries)))
    return entries


def _slow_entries(line: bytes, position: int) -> list[_Entry]:
    try:
        events = events_of(edn.read_all(line.decode()))
    except (HistoryError, UnicodeDecodeError) as error:
        raise HistoryError(f"line {position + 1}: {error}") from error
    if not events:
        return [_Entry("info", "nemesis", position, None)]
    return [
        _Entry(e.type, e.process, e.index if e.index > 0 else position, None, e.value)
        for e in events
    ]


def _decode_edn(raws: list[bytes | msgspec.Raw]) -> Iterable[object]:
    if not raws:
        return []
    text = b" ".join(raws)
    plain = text.count(b":") == text.count(b"[:append ") + text.count(b"[:r ")
    if plain and b'"' not in text and b"," not in text and b"  " not in text:
        try:
            return msgspec.json.decode(
                b"[" + text.translate(_MICRO, _DROPPED) + b"]", type=list[object]
            )
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return [next(iter(edn.read_all(bytes(raw).decode()))) for raw in raws]
