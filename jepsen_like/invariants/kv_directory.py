"""The directory of a KV pool: what is handed out is there, and what is claimed stays.

    register  {"worker", "incarnation"}                                 a new life: all earlier copies are void
    fence     {"worker", "incarnation"}                                 the life is ended; the number is the next one
    clear     {"worker", "tier"}                                        everything in one tier is void
    publish   {"worker", "incarnation", "run", "tier", "generation", "blocks", "content"?, "slots"?}
    acquire   ok {"claim", "until", "held": [{"worker", "incarnation", "run", "generation", "blocks"}, ...]}
    renew     ok {"claim", "until"}
    release   {"claim"}
    evict     {"worker", "run", "generation", "keep", "guarded"?}        a pool's tier: must be refused while claimed
    report    ok {"worker", "run", "generation", "keep", "voided": [claims]}   an engine's tier: always done
    migrate   {"from": {"worker", "run", "generation"}, "to": <as publish>}    one transaction
    land      {"to": <as publish>, "claim", "until"}                     a copy that a task holds, to retire another
    retire    {"worker", "run", "generation", "other"?}                  nobody may claim it now; `other` has it
    final     ok {"runs": [{"worker", "run", "generation", "blocks"}], "claims": [ids]}   a scan at the end

Every operation that was done brings the stamp of its commit; `until` is a stamp, too: the first at which the claim
holds no more. `run` names a row of a worker; rows with equal `content` (by default: of one name) are copies of each
other. `slots` are a worker's addresses of its blocks. A reserved run counts from its commit on, which is a `publish`.

The operations are walked through in order of their stamps, which is the order the store promises. What nobody knows
(info) may have happened at any time after it was asked for, or never: it excuses, and accuses nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from jepsen_like.history import HistoryError, Operation
from jepsen_like.invariants.outcome import verdict_of
from jepsen_like.options import Options
from jepsen_like.values import show
from jepsen_like.verdict import Finding, Verdict

_KNOWN = frozenset(
    {
        *("register", "fence", "clear", "publish", "acquire", "renew", "release"),
        *("evict", "report", "migrate", "land", "retire", "final"),
    }
)


_ARRIVALS = ("publish", "migrate", "land")


class _Copy(msgspec.Struct):
    """A run at a worker. `handed_out`: whether it may still be claimed."""

    incarnation: int
    generation: int
    blocks: int
    tier: object
    content: object
    slots: tuple[object, ...]
    by: Operation
    handed_out: bool = True


class _Claim(msgspec.Struct):
    """What somebody holds: runs with their generation and blocks."""

    by: Operation
    until: int
    held: list[tuple[str, str, int, int]]
    lost: bool = False


def check_kv_directory(operations: Sequence[Operation], options: Options) -> Verdict:
    """Finds copies that were handed out without being there, claims that did not hold, lost and leaked rows."""
    del options
    for operation in operations:
        if operation.f not in _KNOWN:
            raise HistoryError(
                f"event {operation.index}: kv-directory does not know {operation.f!r}"
            )
        if operation.outcome == "ok" and operation.stamp is None:
            raise HistoryError(f"event {operation.index}: {operation.f} brings no stamp")
    walk = _Walk([one for one in operations if one.outcome == "info"])
    done = [one for one in operations if one.outcome == "ok"]
    done.sort(key=lambda one: (one.stamp or 0, one.start))
    for operation in done:
        walk.step(operation)
    acquired = any(one.f == "acquire" for one in done)
    return verdict_of(
        walk.findings,
        ("strict-serializable",),
        vacuous="" if acquired else "nothing was acquired",
    )


class _Walk:
    """The state of the directory as the stamps say, and what is wrong with it."""

    def __init__(self, unknown: Sequence[Operation]) -> None:
        self.findings: list[Finding] = []
        self._unknown = unknown
        self._incarnations: dict[str, int] = {}
        self._copies: dict[tuple[str, str], _Copy] = {}
        self._slots: dict[tuple[str, object], str] = {}
        self._claims: dict[str, _Claim] = {}
        self._released: dict[str, Operation] = {}
        self._died: set[tuple[str, str]] = set()

    def step(self, operation: Operation) -> None:
        """One operation that was done."""
        value = operation.result if isinstance(operation.result, Mapping) else operation.argument
        if not isinstance(value, Mapping):
            raise HistoryError(f"event {operation.index}: {show(value)} is not a map of fields")
        getattr(self, f"_{operation.f}")(operation, value)

    def _register(self, operation: Operation, value: Mapping[object, object]) -> None:
        worker, incarnation = _text(operation, value, "worker"), _int(value, "incarnation")
        if incarnation < self._incarnations.get(worker, 0):
            self._find(
                "incarnation-went-back",
                f"Worker {worker} became {incarnation} after {self._incarnations[worker]} "
                f"(event {operation.index}).",
                operation,
            )
        if incarnation != self._incarnations.get(worker):
            self._void(worker, lambda copy: copy.incarnation != incarnation)
        self._incarnations[worker] = incarnation

    _fence = _register

    def _clear(self, operation: Operation, value: Mapping[object, object]) -> None:
        self._void(_text(operation, value, "worker"), lambda copy: copy.tier == value.get("tier"))

    def _publish(self, operation: Operation, value: Mapping[object, object]) -> None:
        worker, run = _text(operation, value, "worker"), _text(operation, value, "run")
        incarnation = _int(value, "incarnation")
        known = self._incarnations.get(worker)
        if known is not None and incarnation < known and not self._doubt("register", worker):
            self._find(
                "published-by-the-dead",
                f"Worker {worker} published {run} as {incarnation} (event {operation.index}) though "
                f"it was {known} already.",
                operation,
            )
        slots = value.get("slots")
        addresses = tuple(slots) if isinstance(slots, Sequence) else ()
        shared: dict[str, object] = {}
        for slot in sorted(addresses, key=str):
            other_run = self._slots.get((worker, slot))
            if other_run is not None and other_run != run:
                shared.setdefault(other_run, slot)
            self._slots[worker, slot] = run
        for other_run, slot in shared.items():
            copy = self._copies.get((worker, other_run))
            if copy is None or slot not in copy.slots:
                continue
            if not self._doubt_removal(worker, other_run, copy.generation):
                self._find(
                    "double-owned",
                    f"Worker {worker} has {run} (event {operation.index}) and {other_run} (event "
                    f"{copy.by.index}) in slot {slot}.",
                    copy.by,
                    operation,
                )
        self._died.discard((worker, run))
        self._copies[worker, run] = _Copy(
            incarnation,
            _int(value, "generation"),
            _int(value, "blocks"),
            value.get("tier"),
            value.get("content", run),
            addresses,
            operation,
        )

    def _acquire(self, operation: Operation, value: Mapping[object, object]) -> None:
        claim = _Claim(operation, _int(value, "until"), [])
        held = value.get("held")
        for one in held if isinstance(held, Sequence) else ():
            worker, run = _text(operation, one, "worker"), _text(operation, one, "run")
            generation, blocks = _int(one, "generation"), _int(one, "blocks")
            claim.held.append((worker, run, generation, blocks))
            copy = self._copies.get((worker, run))
            there = (
                copy is not None
                and copy.handed_out
                and (copy.generation, copy.incarnation) == (generation, _int(one, "incarnation"))
                and copy.blocks >= blocks
            )
            if not there and not self._doubt_publish(worker, run, generation, operation):
                self._find(
                    "phantom",
                    f"Event {operation.index} was given {blocks} blocks of {run} at {worker}, generation "
                    f"{generation}, which {_said(copy)}.",
                    operation,
                )
        self._claims[_text(operation, value, "claim")] = claim

    def _renew(self, operation: Operation, value: Mapping[object, object]) -> None:
        name = _text(operation, value, "claim")
        claim = self._claims.get(name)
        if claim is None:
            return
        assert operation.stamp is not None, "what was done has a stamp"
        if claim.lost or claim.until <= operation.stamp:
            self._find(
                "renewed-lost",
                f"Claim {name} (event {claim.by.index}) was renewed at event {operation.index} though it "
                f"had {'been voided' if claim.lost else 'run out'}.",
                claim.by,
                operation,
            )
        claim.until = max(claim.until, _int(value, "until"))

    def _release(self, operation: Operation, value: Mapping[object, object]) -> None:
        name = _text(operation, value, "claim")
        self._claims.pop(name, None)
        self._released[name] = operation

    def _evict(self, operation: Operation, value: Mapping[object, object]) -> None:
        worker, run = _text(operation, value, "worker"), _text(operation, value, "run")
        generation, keep = _int(value, "generation"), _int(value, "keep")
        for name, claim in self._holders(operation, worker, run, generation, keep):
            self._find(
                "evicted-while-claimed",
                f"{run} at {worker} was evicted (event {operation.index}) while claim {name} (event "
                f"{claim.by.index}) held it.",
                claim.by,
                operation,
            )
        if value.get("guarded") and not self._is_elsewhere(worker, run):
            self._find(
                "last-copy-evicted",
                f"The last copy of {run}, at {worker}, was evicted (event {operation.index}) by somebody "
                "who was to keep it.",
                operation,
            )
        self._shorten(worker, run, generation, keep)

    def _report(self, operation: Operation, value: Mapping[object, object]) -> None:
        worker, run = _text(operation, value, "worker"), _text(operation, value, "run")
        generation, keep = _int(value, "generation"), _int(value, "keep")
        named = value.get("voided")
        voided = set(named) if isinstance(named, Sequence) else set()
        for name, claim in self._holders(operation, worker, run, generation, keep):
            claim.lost = True
            if name not in voided and not self._doubt_removal(worker, run, generation):
                self._find(
                    "void-not-reported",
                    f"The engine dropped {run} at {worker} (event {operation.index}) and did not say that "
                    f"claim {name} (event {claim.by.index}) is void.",
                    claim.by,
                    operation,
                )
        self._shorten(worker, run, generation, keep)

    def _migrate(self, operation: Operation, value: Mapping[object, object]) -> None:
        source, target = value.get("from"), value.get("to")
        if not isinstance(source, Mapping) or not isinstance(target, Mapping):
            raise HistoryError(f"event {operation.index}: migrate has a from and a to")
        self._publish(operation, target)
        self._leave(operation, source)

    def _land(self, operation: Operation, value: Mapping[object, object]) -> None:
        target = value.get("to")
        if not isinstance(target, Mapping):
            raise HistoryError(f"event {operation.index}: land has a to")
        self._publish(operation, target)
        held = (
            _text(operation, target, "worker"),
            _text(operation, target, "run"),
            _int(target, "generation"),
            _int(target, "blocks"),
        )
        name = _text(operation, value, "claim")
        self._claims[name] = _Claim(operation, _int(value, "until"), [held])

    def _retire(self, operation: Operation, value: Mapping[object, object]) -> None:
        run = _text(operation, value, "run")
        other = value.get("other")
        if isinstance(other, str):
            copy = self._copies.get((other, run))
            there = copy is not None and copy.handed_out
            # A worker may die at any moment, even between a look at it and what follows from that.
            died = copy is None and (other, run) in self._died
            if not (there or died or self._doubt_arrival(other)):
                self._find(
                    "zero-copies",
                    f"{run} left (event {operation.index}) for its copy at {other}, which "
                    f"{_said(copy)}.",
                    operation,
                )
        self._leave(operation, value)

    def _final(self, operation: Operation, value: Mapping[object, object]) -> None:
        there: set[tuple[str, str]] = set()
        rows = value.get("runs")
        for one in rows if isinstance(rows, Sequence) else ():
            place = _text(operation, one, "worker"), _text(operation, one, "run")
            if place in there:
                why = f"{place[1]} is twice at {place[0]} in the end (event {operation.index})."
                self._find("double-owned", why, operation)
            there.add(place)
            copy = self._copies.get(place)
            generation = _int(one, "generation")
            seen = (generation, _int(one, "blocks"))
            if copy is not None and (copy.generation, copy.blocks) == seen:
                continue
            excused = copy is not None and self._doubt_removal(*place, copy.generation)
            if not excused and not self._doubt_publish(*place, generation, operation):
                self._find(
                    "leaked",
                    f"{place[1]} at {place[0]}, generation {generation}, is there in the end (event "
                    f"{operation.index}), but {_said(copy)}.",
                    operation,
                )
        for place, copy in self._copies.items():
            if place not in there and not self._doubt_removal(*place, copy.generation):
                self._find(
                    "lost",
                    f"{place[1]} at {place[0]} (event {copy.by.index}) is not there in the end (event "
                    f"{operation.index}) though nobody removed it.",
                    copy.by,
                    operation,
                )
        claims = value.get("claims")
        for name in claims if isinstance(claims, Sequence) else ():
            released = self._released.get(str(name))
            if released is not None:
                self._find(
                    "claim-leaked",
                    f"Claim {name} is there in the end (event {operation.index}) though it was released "
                    f"(event {released.index}).",
                    released,
                    operation,
                )

    # What happens to copies.

    def _void(self, worker: str, matches: Callable[[_Copy], bool]) -> None:
        for place in [place for place in self._copies if place[0] == worker]:
            if matches(self._copies[place]):
                copy = self._copies.pop(place)
                self._died.add(place)
                for claim in self._claims.values():
                    if any((*place, copy.generation) == one[:3] for one in claim.held):
                        claim.lost = True

    def _leave(self, operation: Operation, value: Mapping[object, object]) -> None:
        """Nobody is handed the copy any more; it is there until it is evicted."""
        worker, run = _text(operation, value, "worker"), _text(operation, value, "run")
        copy = self._copies.get((worker, run))
        if copy is not None and copy.generation == _int(value, "generation"):
            copy.handed_out = False

    def _shorten(self, worker: str, run: str, generation: int, keep: int) -> None:
        copy = self._copies.get((worker, run))
        if copy is None or copy.generation != generation:
            return
        if keep:
            copy.blocks = min(copy.blocks, keep)
            copy.slots = copy.slots[:keep]
        else:
            del self._copies[worker, run]

    def _is_elsewhere(self, worker: str, run: str) -> bool:
        """Whether some other worker has, or may have, all of a run's blocks."""
        mine = self._copies.get((worker, run))
        if mine is None:
            return True
        for (other, _), copy in self._copies.items():
            same = copy.content == mine.content and copy.blocks >= mine.blocks
            if same and other != worker and copy.handed_out:
                return True
        return any(
            one.f in _ARRIVALS
            and isinstance(one.argument, Mapping)
            and run in (one.argument.get("run"), _inner(one.argument, "to").get("run"))
            for one in self._unknown
        )

    def _holders(
        self, operation: Operation, worker: str, run: str, generation: int, keep: int
    ) -> list[tuple[str, _Claim]]:
        """Claims that certainly cover blocks behind the first `keep` at the operation's stamp."""
        assert operation.stamp is not None, "what was done has a stamp"
        found = []
        for name, claim in self._claims.items():
            covers = any(
                one[:3] == (worker, run, generation) and one[3] > keep for one in claim.held
            )
            released = any(
                one.f == "release"
                and isinstance(one.argument, Mapping)
                and one.argument.get("claim") == name
                for one in self._unknown
            )
            if covers and not claim.lost and not released and claim.until > operation.stamp:
                found.append((name, claim))
        return found

    # What nobody knows.

    def _doubt(self, f: str, worker: str) -> bool:
        return any(
            one.f == f
            and isinstance(one.argument, Mapping)
            and worker in (one.argument.get("worker"), _inner(one.argument, "to").get("worker"))
            for one in self._unknown
        )

    def _doubt_arrival(self, worker: str) -> bool:
        """Whether something that nobody knows may have brought a copy to this worker."""
        return any(self._doubt(f, worker) for f in _ARRIVALS)

    def _doubt_publish(self, worker: str, run: str, generation: int, by: Operation) -> bool:
        """Whether a publish or migrate of this copy may have been done before `by` ended."""
        wanted = (worker, run, generation)
        for one in self._unknown:
            if one.f not in _ARRIVALS or one.start >= by.end:
                continue
            value = one.argument if isinstance(one.argument, Mapping) else {}
            target = value if one.f == "publish" else _inner(value, "to")
            if (target.get("worker"), target.get("run"), target.get("generation")) == wanted:
                return True
        return False

    def _doubt_removal(self, worker: str, run: str, generation: int) -> bool:
        """Whether something that nobody knows may have removed or shortened this copy."""
        for one in self._unknown:
            value = one.argument if isinstance(one.argument, Mapping) else {}
            if one.f in ("register", "fence", "clear") and value.get("worker") == worker:
                return True
            if one.f in ("evict", "report") and (
                value.get("worker"),
                value.get("run"),
                value.get("generation"),
            ) == (worker, run, generation):
                return True
        return False

    def _find(self, name: str, why: str, *operations: Operation) -> None:
        self.findings.append(Finding(name, why, tuple([one.number for one in operations])))


def _said(copy: _Copy | None) -> str:
    if copy is None:
        return "was not there then"
    if not copy.handed_out:
        return f"was on its way out (from event {copy.by.index})"
    return f"was {copy.blocks} blocks of generation {copy.generation} then (event {copy.by.index})"


def _inner(value: Mapping[object, object], name: str) -> Mapping[object, object]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _int(value: Mapping[object, object], name: str) -> int:
    found = value.get(name)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    raise HistoryError(f"{show(dict(value))} has no number {name!r}")


def _text(operation: Operation, value: Mapping[object, object], name: str) -> str:
    found = value.get(name)
    if isinstance(found, str):
        return found
    raise HistoryError(f"event {operation.index}: {show(dict(value))} has no name {name!r}")
