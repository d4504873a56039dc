"""How golden transcripts word stamps, values, records, answers and messages."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mvcc.messages import (
    Answer,
    CommitAlone,
    Committed,
    Confirm,
    End,
    Failed,
    Heartbeat,
    Message,
    Outcome,
    Push,
    Pushed,
    Refused,
    Resolve,
    Rows,
    Span,
    Value,
    Write,
    Written,
)
from mvcc.records import (
    CommittedAlone,
    CommittedTogether,
    Decided,
    Edge,
    Entry,
    Horizon,
    Planted,
    Record,
    Resolved,
    Split,
)
from mvcc.refusals import Refusal, Rule
from mvcc.transactions import Verdict
from truetime.timestamp import oracle, retry, time_ns


class Names:
    """Names of transactions and stamps."""

    def __init__(self, base_ns: int) -> None:
        self._base_ns = base_ns
        self._by_stamp: dict[int, str] = {}
        self._by_txn: dict[bytes, str] = {}

    def add(self, name: str, txn: bytes, stamp: int) -> None:
        """From now on the stamp and the id are written as the name."""
        self._by_stamp[stamp] = name
        self._by_txn[txn] = name

    def add_id(self, name: str, txn: bytes) -> None:
        """A transaction whose stamp nobody knows yet."""
        self._by_txn[txn] = name

    def txn(self, txn: bytes) -> str:
        """A transaction."""
        return self._by_txn.get(txn, "nobody")

    def time(self, stamp: int) -> str:
        """A stamp as its time, with its oracle unless that is 1 or none."""
        if not stamp:
            return "0"
        if time_ns(stamp) < self._base_ns:
            return "long ago"
        if stamp + 1 in self._by_stamp:
            return f"before {self._by_stamp[stamp + 1]}"
        if stamp - 1 in self._by_stamp:
            return f"after {self._by_stamp[stamp - 1]}"
        text = f"{round((time_ns(stamp) - self._base_ns) / 1e6, 3):g}ms"
        if oracle(stamp) > 1:
            text += f"/{oracle(stamp)}"
        return text + (f".{retry(stamp)}" if retry(stamp) else "")

    def stamp(self, stamp: int) -> str:
        """A stamp: the transaction that has it, else its time."""
        name = self._by_stamp.get(stamp)
        return f"@{name}" if name is not None else f"@{self.time(stamp)}"


def show(value: bytes | None) -> str:
    """A value."""
    if value is None:
        return "-"
    if value[:1] and 0x80 <= value[0] <= 0x9F:
        return msgspec.json.encode(msgspec.msgpack.decode(value)).decode()
    return value.decode()


def describe_answer(names: Names, labels: Mapping[int, str], answer: Answer) -> str:
    """An answer, below the name of its request."""
    return f"{labels[answer.request]}: {_answer(names, answer)}"


def _answer(names: Names, answer: Answer) -> str:
    if isinstance(answer, Value):
        found = f"{show(answer.value)} {names.stamp(answer.version)}" if answer.version else "none"
        return f"{found} (as of {names.stamp(answer.stamp)})"
    if isinstance(answer, Rows):
        rows = " ".join(f"{k.decode()}={show(v)}{names.stamp(s)}" for k, s, v in answer.rows)
        more = "" if answer.resume is None else f" more at {answer.resume.decode()}"
        return f"[{rows}]{more} (as of {names.stamp(answer.stamp)})"
    if isinstance(answer, Committed):
        values = ""
        if answer.values is not None:
            read = (f"{show(v)}{names.stamp(s)}" if s else "none" for s, v in answer.values)
            values = f" having read {' '.join(read)}"
        return f"committed {names.stamp(answer.stamp)}{values}"
    if isinstance(answer, Failed):
        key, stamp = answer.key.decode(), names.stamp(answer.stamp)
        return f"condition {answer.condition} on {key} failed {stamp}"
    if isinstance(answer, Outcome):
        stamp = f" {names.stamp(answer.stamp)}" if answer.stamp else ""
        return f"outcome {Verdict(answer.verdict).name}{stamp}"
    if isinstance(answer, Refused):
        return f"refused {_refusal(names, answer.refusal)}"
    assert isinstance(answer, Written), answer
    return "written"


def _refusal(names: Names, refusal: Refusal) -> str:
    parts = [Rule(refusal.rule).name]
    if refusal.key:
        parts.append(f"on {refusal.key.decode()}")
    if refusal.other:
        parts.append(f"by {names.txn(refusal.other)}")
    if refusal.stamp:
        parts.append(f"pass {names.stamp(refusal.stamp)}")
    return " ".join(parts)


def describe_entry(names: Names, partition: str, entry: Entry) -> str:
    """A log entry."""
    records = "; ".join(_record(names, record) for record in entry.records)
    return f"{partition} log {entry.lsn}: {records}"


def _record(names: Names, record: Record) -> str:
    if isinstance(record, Planted):
        writes = " ".join(f"{k.decode()}={show(v)}#{n}" for k, v, n in record.writes)
        return f"{names.txn(record.txn)} planted {writes} (anchor {record.anchor.decode()})"
    if isinstance(record, CommittedAlone):
        writes = " ".join(f"{k.decode()}={show(v)}" for k, v in record.writes)
        alone = f"{names.txn(record.txn)} committed alone {names.stamp(record.stamp)} {writes}"
        return alone.rstrip()
    if isinstance(record, CommittedTogether):
        rows = zip(record.txns, record.stamps, record.keys, record.values, strict=True)
        said = [f"{names.txn(t)}{names.stamp(s)} {k.decode()}={show(v)}" for t, s, k, v in rows]
        return f"committed together {', '.join(said)}"
    if isinstance(record, Decided):
        verdict = "commit" if record.committed else "abort"
        keys = _spans(record.participants)
        return f"{names.txn(record.txn)} decided {verdict} for {keys or 'nobody else'}"
    if isinstance(record, Resolved):
        verdict = "commit" if record.committed else "abort"
        return f"{names.txn(record.txn)} resolved {verdict}"
    if isinstance(record, Horizon):
        return f"horizon {names.stamp(record.stamp)}"
    if isinstance(record, Split):
        return f"split at {record.key.decode()}"
    assert isinstance(record, Edge), record
    return f"edge {names.stamp(record.stamp)}"


def describe_message(names: Names, message: Message) -> str:
    """A message between machines."""
    if isinstance(message, Write):
        writes = " ".join(f"{k.decode()}={show(v)}#{n}" for k, v, n in message.writes)
        return f"write {names.txn(message.txn)} {writes}"
    if isinstance(message, CommitAlone):
        writes = " ".join(f"{k.decode()}={show(v)}" for k, v in message.writes)
        return f"commit alone {names.txn(message.txn)} {writes}".rstrip()
    if isinstance(message, End):
        verdict = "commit" if message.commit else "abort"
        keys = _spans(message.participants)
        return f"end {names.txn(message.txn)} {verdict} for {keys}"
    if isinstance(message, Heartbeat):
        return f"heartbeat {names.txn(message.txn)}"
    if isinstance(message, Push):
        return f"push {names.txn(message.txn)} for {message.origin.decode()}"
    if isinstance(message, Pushed):
        return f"pushed {names.txn(message.txn)} {Verdict(message.verdict).name}"
    if isinstance(message, Resolve):
        verdict = "commit" if message.committed else "abort"
        return f"resolve {names.txn(message.txn)} {verdict} at {_spans([(message.participant, message.last)])}"
    assert isinstance(message, Confirm), message
    end = f" up to {message.end.decode()}" if message.end else ""
    return f"confirm {names.txn(message.txn)} at {message.participant.decode()}{end}"


def _spans(spans: list[Span]) -> str:
    """``a m-x``: spans, where one of a single key is that key."""
    return " ".join(
        first.decode() + (f"-{last.decode()}" if last != first else "") for first, last in spans
    )
