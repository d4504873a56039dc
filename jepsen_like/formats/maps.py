"""From operation maps to events: the vocabulary that EDN and JSON histories share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jepsen_like.history import Event, HistoryError, Kind, Process
from jepsen_like.values import show

_KINDS: dict[str, Kind] = {"invoke": "invoke", "ok": "ok", "fail": "fail", "info": "info"}


def events_of(maps: Iterable[object]) -> list[Event]:
    """The events of clients. What the nemesis did is left out; a missing index is the position in the file."""
    events: list[Event] = []
    for position, entry in enumerate(maps):
        if not isinstance(entry, Mapping):
            raise HistoryError(f"entry {position}: {show(entry)[:80]} is not a map of an operation")
        event = _event(entry, position)
        if event is not None:
            events.append(event)
    return events


def flatten(values: Iterable[object]) -> Iterable[object]:
    """The maps themselves, whether they stand one by one or inside one list."""
    found = list(values)
    if len(found) == 1 and isinstance(found[0], list):
        return found[0]
    return found


def _event(entry: Mapping[object, object], position: int) -> Event | None:
    told = _bare(entry.get("type"))
    kind = _KINDS.get(told) if isinstance(told, str) else None
    if kind is None:
        raise HistoryError(
            f"entry {position}: type is {show(entry.get('type'))}, not invoke, ok, fail or info"
        )
    process = _process(entry.get("process"), position)
    if process == "nemesis":
        return None
    f = _bare(entry.get("f"))
    if f is not None and not isinstance(f, str):
        raise HistoryError(f"entry {position}: f is {show(f)}, not a name")
    index = entry.get("index")
    time = entry.get("time")
    stamp = entry.get("stamp")
    return Event(
        index=index if isinstance(index, int) else position,
        type=kind,
        process=process,
        f=f or "txn",
        value=entry.get("value"),
        time_ns=time if isinstance(time, int) else None,
        key=entry.get("key"),
        stamp=stamp if isinstance(stamp, int) else None,
        error=entry.get("error"),
    )


def _process(process: object, position: int) -> Process:
    process = _bare(process)
    if process is None or isinstance(process, int | str):
        return process
    raise HistoryError(f"entry {position}: process is {show(process)}, not a number or a name")


def _bare(name: object) -> object:
    return name.removeprefix(":") if isinstance(name, str) else name
