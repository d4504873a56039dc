"""One engine: its events in, actions for the directory out.

The engine's blocks are kept in a `Ledger`. A stretch whose predecessor is not known (its event came
late, or was lost) is *parked*: when the predecessor comes it is published behind it, and when it does
not come in time it is dropped, which costs hits and is counted. Blocks of adapters, groups or salts
for which the caller names no namespace are passed over and counted.

Who uses it carries the actions out in order, as `kv_pool.directory` transactions of the worker's
present registration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES
from kv_pool.events.stream import Mark
from kv_pool.events.wire import Batch, Cleared, Removed, Scope, Stored
from kv_pool.ledger import Ledger, Publish, Report

ORPHANS_MAX: Final = 4_096
"""How many stretches wait for their predecessors, at most; the oldest go first."""
ORPHAN_NS: Final = 10_000_000_000
"""How long one waits."""


class Clear(Struct, frozen=True):
    """Everything that the worker has published is void, in every tier."""


class Begin(Struct, frozen=True):
    """The engine has started anew: register with a new boot id before anything else."""


class Suspect(Struct, frozen=True):
    """What the worker has is a guess from now on, or no longer."""

    suspected: bool


Action = Publish | Report | Clear | Begin | Suspect
Resolve = Callable[[Scope, int], bytes | None]
"""The namespace for a scope and a number of tokens a block; None for what is not served."""


class Figures(Struct):
    """What an engine has said so far.

    dropped  orphans whose predecessor did not come in time, or for which there was no room
    foreign  stretches of scopes without a namespace
    strange  events that were not understood
    """

    blocks_stored: int = 0
    blocks_removed: int = 0
    parked: int = 0
    attached: int = 0
    dropped: int = 0
    foreign: int = 0
    strange: int = 0


class Engine:
    """See the module."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        orphans_max: int = ORPHANS_MAX,
        orphan_ns: int = ORPHAN_NS,
    ) -> None:
        self._resolve = resolve
        self._orphans_max = orphans_max
        self._orphan_ns = orphan_ns
        self._ledger = Ledger(extends=True)
        self._namespaces: dict[tuple[Scope, int], bytes | None] = {}
        self._waiting: dict[bytes, list[Stored]] = {}
        self._deadlines: deque[tuple[int, Stored]] = deque()
        self._orphans = 0
        self.figures = Figures()

    @property
    def blocks(self) -> int:
        """Blocks in all tiers."""
        return len(self._ledger)

    @property
    def orphans(self) -> int:
        """Stretches that wait."""
        return self._orphans

    def apply(self, batch: Batch, now_ns: int) -> list[Action]:
        """A batch, in its turn."""
        self.figures.strange += batch.strange
        actions: list[Action] = []
        for event in batch.events:
            match event:
                case Stored():
                    self._store(event, now_ns, actions)
                case Removed():
                    self._remove(event, actions)
                case Cleared():
                    self._forget()
                    actions.append(Clear())
        return actions

    def mark(self, mark: Mark) -> list[Action]:
        """What the stream says beside its batches."""
        match mark:
            case Mark.NEW_LIFE:
                self._forget()
                return [Begin()]
            case Mark.FORGET:
                self._forget()
                return [Clear()]
            case Mark.SUSPECT:
                return [Suspect(suspected=True)]
            case Mark.SOUND:
                return [Suspect(suspected=False)]

    def tick(self, now_ns: int) -> None:
        """Time has passed: who has waited long enough is dropped."""
        while self._deadlines and self._deadlines[0][0] <= now_ns:
            self._drop_oldest()

    def _store(self, event: Stored, now_ns: int, actions: list[Action]) -> None:
        key = (event.scope, event.block_tokens)
        if key not in self._namespaces:
            self._namespaces[key] = self._resolve(event.scope, event.block_tokens)
        namespace = self._namespaces[key]
        if namespace is None:
            self.figures.foreign += 1
            return
        # What has been parked may follow on what is stored, and more on that: a list, no recursion.
        arrived = [event]
        for one in arrived:
            group = _group(one.scope.group)
            publishes = self._ledger.store(
                namespace, one.tier, one.names, one.parent, group=group, engine=one.engine
            )
            if publishes is None:
                self._park(one, now_ns)
                continue
            self.figures.attached += one is not event
            self.figures.blocks_stored += sum([len(each.added) // NAME_BYTES for each in publishes])
            actions.extend(publishes)
            if self._waiting:
                for at in range(0, len(one.names), NAME_BYTES):
                    behind = self._waiting.pop(group + one.names[at : at + NAME_BYTES], ())
                    self._orphans -= len(behind)
                    arrived.extend(behind)

    def _remove(self, event: Removed, actions: list[Action]) -> None:
        group = _group(event.group)
        if self._waiting:
            self._remove_parked(event, group)
        reports = self._ledger.remove(event.tier, event.names, group=group)
        self.figures.blocks_removed += sum([len(report.gone) for report in reports])
        actions.extend(reports)

    def _park(self, event: Stored, now_ns: int) -> None:
        assert event.parent is not None, "what begins a prompt has no predecessor to wait for"
        if self._orphans >= self._orphans_max:
            self._drop_oldest()
        self._waiting.setdefault(_group(event.scope.group) + event.parent, []).append(event)
        self._deadlines.append((now_ns + self._orphan_ns, event))
        self._orphans += 1
        self.figures.parked += 1

    def _remove_parked(self, event: Removed, group: bytes) -> None:
        """Of what waits, the blocks behind one that is gone wait in vain: cut there."""
        gone = frozenset(event.names)
        for mark in list(self._waiting):
            kept = []
            for stretch in self._waiting[mark]:
                if stretch.tier != event.tier or _group(stretch.scope.group) != group:
                    kept.append(stretch)
                    continue
                end = 0
                while (
                    end < len(stretch.names) and stretch.names[end : end + NAME_BYTES] not in gone
                ):
                    end += NAME_BYTES
                if end == len(stretch.names):
                    kept.append(stretch)
                elif end:
                    kept.append(self._shorten(stretch, end))
            self._orphans -= len(self._waiting[mark]) - len(kept)
            if kept:
                self._waiting[mark] = kept
            else:
                del self._waiting[mark]

    def _shorten(self, stretch: Stored, end: int) -> Stored:
        width = len(stretch.engine) * NAME_BYTES // len(stretch.names)
        shorter = Stored(
            stretch.names[:end],
            stretch.parent,
            stretch.tier,
            stretch.block_tokens,
            stretch.scope,
            stretch.engine[: end // NAME_BYTES * width],
        )
        for place, (deadline_ns, waiting) in enumerate(self._deadlines):
            if waiting is stretch:
                self._deadlines[place] = (deadline_ns, shorter)
        return shorter

    def _drop_oldest(self) -> None:
        """Give up on the one that has waited longest, if it still waits."""
        while self._deadlines:
            _, stretch = self._deadlines.popleft()
            assert stretch.parent is not None, "orphans have a predecessor"
            mark = _group(stretch.scope.group) + stretch.parent
            waiting = self._waiting.get(mark, [])
            left = [one for one in waiting if one is not stretch]
            if len(left) == len(waiting):
                continue
            self.figures.dropped += 1
            self._orphans -= 1
            if left:
                self._waiting[mark] = left
            else:
                del self._waiting[mark]
            return

    def _forget(self) -> None:
        self._ledger.clear()
        self._waiting.clear()
        self._deadlines.clear()
        self._orphans = 0


def _group(number: int) -> bytes:
    """A mark of a group; nothing for the first, which most engines have alone."""
    return number.to_bytes(4, "big") if 0 < number < 2**32 else b""
