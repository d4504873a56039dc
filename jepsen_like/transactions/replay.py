"""The white-box replay: transactions in order of the commit timestamps they reported.

Every committed transaction says when it committed. Put in that order, each must read what the ones before it left,
and the order must agree with real time: what began after another's end has the larger stamp. Much stronger and
cheaper than any black-box check, and not independent of the store: a scheme that is wrong but true to itself
passes. So it is run in addition, never instead.

Transactions of unknown outcome are placed by their stamp if they have one; without a stamp they are placed only if
somebody read what they wrote, right before the first reader.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from jepsen_like.history import NEVER, HistoryError, Operation
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.transactions.judge import needs
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict

Mop = tuple[str, Hashable, object]
FINDINGS_MAX = 64


def check_replay(operations: Sequence[Operation], options: Options) -> Verdict:
    """Replays lists (`append`) and registers (`w`), reads by `r`."""
    placed = [o for o in operations if o.stamp is not None and o.outcome != "fail"]
    unplaced = [o for o in operations if o.stamp is None and o.outcome == "info"]
    if any(o.stamp is None and o.outcome == "ok" for o in operations):
        return Verdict("unknown", reason="a committed transaction reported no commit timestamp")
    placed.sort(key=lambda o: (o.stamp or 0, o.number))
    findings = _doubles(placed)
    _, realtime = needs(options.consistency)
    if realtime:
        findings += _real_time(placed)
    contradictions, reads = _replay(placed, unplaced, options.initial)
    findings += contradictions
    if findings:
        names = tuple(sorted({f.name for f in findings}))
        return Verdict(
            False,
            names,
            ("strict-serializable",),
            (),
            tuple(findings[:FINDINGS_MAX]),
            findings[0].why,
        )
    if not reads:
        return Verdict("unknown", reason="no completed read constrains anything")
    return Verdict(True)


def _doubles(placed: Sequence[Operation]) -> list[Finding]:
    findings: list[Finding] = []
    for one, two in zip(placed, placed[1:], strict=False):
        if one.stamp == two.stamp:
            why = f"T{one.number} and T{two.number} both say that they committed at {one.stamp}."
            findings.append(Finding("equal-stamps", why, (one.number, two.number)))
    return findings


def _real_time(placed: Sequence[Operation]) -> list[Finding]:
    """Nothing may have ended before the start of something with a smaller stamp."""
    findings: list[Finding] = []
    latest: Operation | None = None
    for operation in placed:
        if latest is not None and operation.end != NEVER and operation.end < latest.start:
            why = (
                f"T{operation.number} ended (event {operation.index}) before T{latest.number} began, yet it "
                f"committed later: {operation.stamp} after {latest.stamp}."
            )
            findings.append(
                Finding("stamp-against-realtime", why, (latest.number, operation.number))
            )
        if latest is None or operation.start > latest.start:
            latest = operation
    return findings


def _mops(operation: Operation) -> list[Mop]:
    value = operation.value
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise HistoryError(f"event {operation.index}: {show(value)} is not a list of [f key value]")
    mops: list[Mop] = []
    for entry in value:
        if not isinstance(entry, Sequence) or isinstance(entry, str | bytes) or len(entry) != 3:
            raise HistoryError(f"event {operation.index}: {show(entry)} is not [f key value]")
        if entry[0] not in ("r", "w", "append"):
            raise HistoryError(
                f"event {operation.index}: replay knows r, w and append, not {show(entry[0])}"
            )
        mops.append((entry[0], freeze(entry[1]), entry[2]))
    return mops


class _World:
    """What registers and lists hold at one point of the replay."""

    __slots__ = ("base", "lists", "registers")

    def __init__(self, base: Hashable) -> None:
        self.base = base
        self.registers: dict[Hashable, Hashable] = {}
        self.lists: dict[Hashable, list[Hashable]] = {}

    def write(self, f: str, key: Hashable, value: object) -> None:
        """Apply a write; a read changes nothing."""
        if f == "w":
            self.registers[key] = freeze(value)
        elif f == "append":
            self.lists.setdefault(key, []).append(freeze(value))

    def compare(self, key: Hashable, value: object) -> tuple[object, object]:
        """What a read of the key had to give and what it gave, in comparable form."""
        if key in self.lists or isinstance(value, list | tuple):
            return tuple(self.lists.get(key, ())), freeze(value) if value is not None else ()
        return self.registers.get(key, self.base), freeze(value)


def _replay(
    placed: Sequence[Operation], unplaced: Sequence[Operation], initial: object
) -> tuple[list[Finding], int]:
    world = _World(None if initial is UNSET else freeze(initial))
    lost = {
        (key, freeze(value)): operation
        for operation in unplaced
        for f, key, value in _mops(operation)
        if f != "r"
    }
    applied: set[int] = set()
    findings: list[Finding] = []
    reads = 0
    for operation in placed:
        own = _mops(operation)
        if operation.outcome == "ok":
            for source in _sources(own, lost):
                if source.number not in applied:
                    applied.add(source.number)
                    for mop in _mops(source):
                        world.write(*mop)
        for f, key, value in own:
            if f != "r":
                world.write(f, key, value)
            elif operation.outcome == "ok":
                reads += 1
                expected, got = world.compare(key, value)
                if got != expected:
                    why = (
                        f"T{operation.number} at {operation.stamp} read {show(key)} as {show(value)}; in order "
                        f"of commit timestamps it held {show(expected)}."
                    )
                    findings.append(Finding("replay-mismatch", why, (operation.number,), key=key))
    return findings, reads


def _sources(
    mops: Sequence[Mop], lost: Mapping[tuple[Hashable, Hashable], Operation]
) -> Iterator[Operation]:
    """The transactions of unknown outcome and place whose writes these reads show."""
    for f, key, value in mops:
        if f == "r":
            for seen in value if isinstance(value, list | tuple) else (value,):
                source = lost.get((key, freeze(seen)))
                if source is not None:
                    yield source
