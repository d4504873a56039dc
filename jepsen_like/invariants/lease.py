"""Leases: one holder of a name at a time, and fencing tokens that only grow.

    acquire  name   ok with {"token": t}            fail: somebody else has it
    release  name   ok: given back
    use      name   with {"token": t}; ok: a fenced resource took it, fail: it was refused

Holding *for certain* lasts from the answer of acquire to the call of release, or, when the answer names an
`until_ns`, to that moment of bounded-clock time, whichever is first. Two certain holdings of one name must not
overlap; a later acquire must give a larger token; a resource must not take a token smaller than one it took before.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import msgspec

from jepsen_like.history import NEVER, HistoryError, Operation
from jepsen_like.invariants.outcome import verdict_of
from jepsen_like.options import Options
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict


class _Holding(msgspec.Struct):
    acquired: Operation
    token: int | None
    until_ns: int | None
    ended: int = NEVER


def check_lease(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds double holders and tokens that go back."""
    del options
    by_name: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        if operation.f not in ("acquire", "release", "use"):
            raise HistoryError(
                f"event {operation.index}: lease knows acquire, release and use, not {operation.f!r}"
            )
        by_name.setdefault(_name(operation), []).append(operation)
    findings: list[Finding] = []
    constrained = 0
    for name, mine in by_name.items():
        holdings = _holdings(mine)
        constrained += len(holdings)
        findings += _overlaps(name, holdings)
        findings += _tokens(name, holdings)
        findings += _uses(name, mine)
    vacuous = "" if constrained > 1 else "no lease was held twice"
    return verdict_of(findings, ("linearizable",), vacuous=vacuous)


def _name(operation: Operation) -> Hashable:
    if operation.key is not None:
        return freeze(operation.key)
    value = operation.argument
    return freeze(value.get("name")) if isinstance(value, Mapping) else freeze(value)


def _field(value: object, name: str) -> int | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, int) else None


def _holdings(operations: Sequence[Operation]) -> list[_Holding]:
    holdings: list[_Holding] = []
    for operation in operations:
        if operation.f == "acquire" and operation.outcome == "ok":
            result = operation.result
            holdings.append(
                _Holding(operation, _field(result, "token"), _field(result, "until_ns"))
            )
        elif operation.f == "release" and operation.outcome != "fail":
            for holding in reversed(holdings):
                mine = holding.acquired.process == operation.process
                if mine and holding.ended == NEVER and holding.acquired.end <= operation.start:
                    holding.ended = operation.start
                    break
    holdings.sort(key=lambda h: h.acquired.end)
    return holdings


def _overlaps(name: Hashable, holdings: Sequence[_Holding]) -> list[Finding]:
    findings: list[Finding] = []
    for one, two in zip(holdings, holdings[1:], strict=False):
        began_ns = two.acquired.end_ns
        expired = one.until_ns is not None and began_ns is not None and one.until_ns <= began_ns
        # A client that fell silent may have lost its lease unseen, unless it said until when it holds.
        if two.acquired.end < one.ended and not expired:
            why = (
                f"Process {two.acquired.process} was given {show(name)} (event {two.acquired.index}) while "
                f"process {one.acquired.process} held it since event {one.acquired.index}."
            )
            numbers = (one.acquired.number, two.acquired.number)
            findings.append(Finding("double-holder", why, numbers, key=name))
    return findings


def _tokens(name: Hashable, holdings: Sequence[_Holding]) -> list[Finding]:
    findings: list[Finding] = []
    for one, two in zip(holdings, holdings[1:], strict=False):
        apart = one.acquired.end < two.acquired.start
        if apart and one.token is not None and two.token is not None and two.token <= one.token:
            why = (
                f"The token of {show(name)} went from {one.token} (event {one.acquired.index}) to "
                f"{two.token} (event {two.acquired.index})."
            )
            numbers = (one.acquired.number, two.acquired.number)
            findings.append(Finding("token-went-back", why, numbers, key=name))
    return findings


def _uses(name: Hashable, operations: Sequence[Operation]) -> list[Finding]:
    findings: list[Finding] = []
    taken = [o for o in operations if o.f == "use" and o.outcome == "ok"]
    taken.sort(key=lambda o: o.end)
    highest: Operation | None = None
    for use in taken:
        token = _field(use.argument, "token")
        best = None if highest is None else _field(highest.argument, "token")
        if token is None:
            continue
        if highest is None or best is None or token > best:
            highest = use
        elif token < best and highest.end < use.start:
            why = (
                f"The resource of {show(name)} took token {token} (event {use.index}) after token "
                f"{best} (event {highest.index})."
            )
            findings.append(Finding("stale-token", why, (highest.number, use.number), key=name))
    return findings
