"""Histories written by hand: transactions in a few letters, and where they stand in time.

`txn("append x 1, r y 1 2, r z")` appends 1 to x, reads y as [1 2] and z as nothing. `serial` lets them run one after
the other, `together` all at once.
"""

from __future__ import annotations

from jepsen_like.history import Event, History

Txn = tuple[list[list[object]], str]


def txn(text: str, outcome: str = "ok", *, lists: bool = True) -> Txn:
    """A transaction from its text; reads give lists, or single values when `lists` is false."""
    mops: list[list[object]] = []
    for part in text.split(","):
        f, key, *rest = part.split()
        numbers = [int(n) for n in rest]
        if f != "r":
            mops.append([f, key, numbers[0]])
        elif lists:
            mops.append(["r", key, numbers])
        else:
            mops.append(["r", key, numbers[0] if numbers else None])
    return mops, outcome


def _asked(mops: list[list[object]]) -> list[list[object]]:
    return [[f, key, None if f == "r" else value] for f, key, value in mops]


def together(*transactions: Txn) -> History:
    """All at once, each by a process of its own: nothing comes before anything."""
    events: list[Event] = []
    for process, (mops, _) in enumerate(transactions):
        events.append(Event(len(events), "invoke", process, "txn", _asked(mops)))
    for process, (mops, outcome) in enumerate(transactions):
        events.append(Event(len(events), outcome, process, "txn", mops))  # type: ignore[arg-type]
    return History(events)


def serial(*transactions: Txn, processes: list[int] | None = None) -> History:
    """One after the other, by the given processes or by one each."""
    events: list[Event] = []
    for number, (mops, outcome) in enumerate(transactions):
        process = number if processes is None else processes[number]
        events.append(Event(len(events), "invoke", process, "txn", _asked(mops)))
        events.append(Event(len(events), outcome, process, "txn", mops))  # type: ignore[arg-type]
    return History(events)


def sessions(*scripts: list[Txn]) -> History:
    """Each script by one process, with no order of real time between processes that could matter.

    The first transaction of every process begins before any ends, and so on round by round; so of real time
    there is the order within a process, and rounds.
    """
    events: list[Event] = []
    for step in range(max(map(len, scripts))):
        for kind in ("invoke", "end"):
            for process, script in enumerate(scripts):
                if step < len(script):
                    mops, outcome = script[step]
                    if kind == "invoke":
                        events.append(Event(len(events), "invoke", process, "txn", _asked(mops)))
                    else:
                        events.append(
                            Event(len(events), outcome, process, "txn", mops)  # type: ignore[arg-type]
                        )
    return History(events)


def around(inner: list[Txn], *outer: Txn) -> History:
    """The inner transactions one after the other, the outer ones under way all the time."""
    events: list[Event] = []
    for process, (mops, _) in enumerate(outer):
        events.append(Event(len(events), "invoke", 100 + process, "txn", _asked(mops)))
    for process, (mops, outcome) in enumerate(inner):
        events.append(Event(len(events), "invoke", process, "txn", _asked(mops)))
        events.append(Event(len(events), outcome, process, "txn", mops))  # type: ignore[arg-type]
    for process, (mops, outcome) in enumerate(outer):
        events.append(Event(len(events), outcome, 100 + process, "txn", mops))  # type: ignore[arg-type]
    return History(events)
