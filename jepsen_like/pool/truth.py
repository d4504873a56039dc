"""What the rows of a directory say, worked out the slow way: the twin that learners are held against.

It reads rows as plain msgpack and shares nothing with the learner: positions of fields stand here once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

import k2store

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.learner import Learner

NAME: Final = 16
_INCARNATION, _STATE, _EPOCHS = 0, 2, 3
_RUN_INCARNATION, _RUN_EPOCH, _NAMES, _LIVE, _PHASE = 0, 1, 4, 5, 6
_FENCED, _READY = 2, 1

Place: TypeAlias = tuple[str, int, bytes]
"""A worker, a tier and a namespace."""
Held: TypeAlias = Mapping[Place, frozenset[bytes]]
"""The runs that count, each as its names, by place."""


def held(rows: Mapping[bytes, bytes]) -> dict[Place, frozenset[bytes]]:
    """Every run that counts."""
    found: dict[Place, set[bytes]] = {}
    for key, value in rows.items():
        parts = key.split(b"/", 4)
        if len(parts) < 5 or parts[0] != b"d" or parts[3] != b"run":
            continue
        prefix = b"/".join(parts[:3]) + b"/"
        if prefix + b"id" not in rows:
            continue
        identity = msgspec.msgpack.decode(rows[prefix + b"id"])
        run = msgspec.msgpack.decode(value)
        namespace, tier = parts[4][:NAME], parts[4][NAME]
        counts = (
            identity[_STATE] != _FENCED
            and run[_PHASE] == _READY
            and run[_LIVE] > 0
            and run[_RUN_INCARNATION] == identity[_INCARNATION]
            and run[_RUN_EPOCH] == identity[_EPOCHS + tier]
        )
        if counts:
            place = (b"/".join(parts[1:3]).decode(), tier, namespace)
            found.setdefault(place, set()).add(run[_NAMES][: NAME * run[_LIVE]])
    return {place: frozenset(runs) for place, runs in found.items()}


def shown(learner: Learner) -> dict[Place, frozenset[bytes]]:
    """What a learner shows, in the same words."""
    found: dict[Place, set[bytes]] = {}
    for worker, tier, namespace, run in learner.valid_runs():
        found.setdefault((str(worker), tier, namespace), set()).add(bytes(run.live_names()))
    return {place: frozenset(runs) for place, runs in found.items()}


def depths(there: Held, namespace: bytes, names: bytes) -> dict[tuple[str, int], int]:
    """How many blocks of a prompt's beginning each tier of each worker has, block by block."""
    found = {}
    for (worker, tier, where), runs in there.items():
        if where != namespace:
            continue
        blocks = {run[at : at + NAME] for run in runs for at in range(0, len(run), NAME)}
        depth = 0
        while names[NAME * depth : NAME * (depth + 1)] in blocks:
            depth += 1
        if depth:
            found[worker, tier] = depth
    return found


class Look:
    """A learner at one moment: how far each feed was, what it showed, what it answered."""

    def __init__(self, tree: Tree, prompts: Iterable[tuple[bytes, bytes]]) -> None:
        learner = tree.learner
        self._ranges = tree.feeds
        self.cursors = {feed: learner.cursor(feed) for feed in self._ranges}
        self.shown = shown(learner)
        self.matched = {
            (namespace, names): {
                (str(holder.worker), holder.tier): blocks
                for holder, blocks in learner.match(namespace, names).depths.items()
            }
            for namespace, names in prompts
        }

    async def differences(self, database: k2store.Database) -> list[str]:
        """Where it differs from the store at the same stamps; raises the store's own errors."""
        rows: dict[bytes, bytes] = {}
        for feed, where in self._ranges.items():
            async with database.snapshot(at=self.cursors[feed]) as view:
                rows |= {row.key: row.value for row in await view.scan(where).all()}
        there = held(rows)
        problems = [
            f"learner: at {self.cursors} it shows {len(self.shown.get(place, ()))} runs of {place[0]} in "
            f"tier {place[1]}, the store has {len(there.get(place, ()))}"
            for place in sorted({*there, *self.shown})
            if there.get(place) != self.shown.get(place)
        ]
        for (namespace, names), matched in self.matched.items():
            expected = depths(there, namespace, names)
            if matched != expected:
                problems.append(f"learner: it matches {matched}, the store says {expected}")
        return problems
