"""Writes histories, in our own form or in those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from jepsen_like.formats import native
from jepsen_like.history import Event, History

_FORMS = {".edn": "edn", ".json": "json", ".jsonl": "json"}


def write(path: Path, history: History, form: str | None = None) -> None:
    """Writes `native`, `edn` or `json`; without a form the name's ending decides."""
    form = form or _FORMS.get(path.suffix, "native")
    if form == "native":
        native.write(path, history)
        return
    with path.open("wb") as file:
        for event in history.events:
            line = _edn(event) if form == "edn" else _json(event)
            file.write(line + b"\n")


def _value(event: Event) -> object:
    return event.value if event.key is None else [event.key, event.value]


def _kind(event: Event) -> str:
    """A compare that failed is a failed operation to Jepsen."""
    return (
        "fail" if event.f == "cas" and event.type == "ok" and event.value is False else event.type
    )


def _json(event: Event) -> bytes:
    return msgspec.json.encode(
        {
            "index": event.index,
            "type": _kind(event),
            "process": event.process,
            "f": event.f,
            "value": _value(event),
            "time": event.time_ns,
        }
    )


def _edn(event: Event) -> bytes:
    text = (
        f"{{:index {event.index}, :type :{_kind(event)}, :process {_term(event.process)}, :f :{event.f}, "
        f":value {_term(_value(event), micro=event.f in ('txn', 'read', 'write'))}, :time {event.time_ns}}}"
    )
    return text.encode()


def _term(value: object, *, micro: bool = False) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if isinstance(value, Mapping):
        names = ((f":{k}" if str(k).isidentifier() else _term(k), v) for k, v in value.items())
        return "{" + ", ".join(f"{k} {_term(v)}" for k, v in names) + "}"
    if isinstance(value, Sequence):
        if micro and len(value) == 3 and value[0] in ("r", "w", "append"):
            return f"[:{value[0]} {_term(value[1])} {_term(value[2])}]"
        return "[" + " ".join(_term(v, micro=micro) for v in value) + "]"
    return str(value)
