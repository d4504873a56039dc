"""Reads the log lines of Jepsen's etcd test: one compare-and-set register.

    INFO  jepsen.util - 3 <tab> :invoke <tab> :cas <tab> [4 1]

Read with care: a `:fail` of a cas is the definite answer *no* of a completed operation. A `:fail` of anything
else carries nothing. `:info` stays open to the end. Nil is a value, the initial one.
"""

from __future__ import annotations

import re

from jepsen_like.formats import edn
from jepsen_like.history import Event, HistoryError, Kind

_LINE = re.compile(r"INFO\s+jepsen\.util\s+-\s+(\S+)\s+:(\w+)\s+:(\w+)\s+(.*?)\s*\Z")
_KINDS: dict[str, Kind] = {"invoke": "invoke", "ok": "ok", "fail": "fail", "info": "info"}


def read_all(text: str) -> list[Event]:
    """The events of the log; lines of other kinds are passed over."""
    events: list[Event] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match is None:
            if "jepsen.util" in line and ":nemesis" not in line:
                raise HistoryError(f"line {number}: cannot read {line.strip()[:80]!r}")
            continue
        process, kind, f, rest = match.groups()
        if not process.isdigit():
            continue
        if kind not in _KINDS:
            raise HistoryError(f"line {number}: type is :{kind}, not invoke, ok, fail or info")
        value = next(iter(edn.read_all(rest)), None)
        error: object = None
        told = _KINDS[kind]
        if told == "fail" and f == "cas" and isinstance(value, list):
            told, value = "ok", False
        elif told in ("fail", "info"):
            value, error = None, value
        events.append(Event(number - 1, told, int(process), f, value, error=error))
    return events
