"""A learner beside a scan of the store at the learner's own stamps: they must say the same.

What the learner shows is taken at one moment, between two of its steps, with the stamp of each region's feed. Then the
rows of each region are read from the store *at that stamp*, those that do not count are put aside by the definition
of a valid row, and how deep each holder can go along a prompt is found block by block, by trying.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import k2store
from kv_pool.blocks import Names, split_names
from kv_pool.edge.following import Tree
from kv_pool.keys import ID, RUN, WORKERS, split_worker, worker_of
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import Id, Phase, State, decode, decode_run

Place = tuple[str, bytes]
"""A worker and the part of a row's key behind ``run/``."""
Holder = tuple[str, int]
"""A worker and a tier."""


class Shown:
    """What a learner says at one moment: rows that count, and depths along some prompts."""

    def __init__(self, tree: Tree, regions: Sequence[str], namespace: bytes, prompts: list[Names]):
        self.stamps = {region: tree.in_region(region)[0] for region in regions}
        self.namespace = namespace
        self.prompts = prompts
        self.rows: dict[Place, Names] = {}
        for worker, tier, digest, run in tree.learner.valid_runs():
            names = run.live_names()
            self.rows[str(worker), digest + tier.to_bytes(1, "big") + run.names[:16]] = names
        self.depths = [
            {
                (str(holder.worker), holder.tier): blocks
                for holder, blocks in tree.match(namespace, names).depths.items()
            }
            for names in prompts
        ]


async def differences(db: k2store.Database, shown: Shown) -> tuple[int, list[str]]:
    """How many rows count in the store, and what the learner has otherwise."""
    rows: dict[Place, Names] = {}
    for region, stamp in shown.stamps.items():
        rows |= await _rows(db, region, stamp)
    found = [
        f"row {part.hex()} of {worker}: {_said(shown.rows.get((worker, part)))} shown, "
        f"{_said(rows.get((worker, part)))} in the store"
        for worker, part in sorted(rows.keys() | shown.rows.keys())
        if rows.get((worker, part)) != shown.rows.get((worker, part))
    ]
    blocks = _blocks(rows, shown.namespace)
    for number, names in enumerate(shown.prompts):
        tried = _depths(blocks, names)
        if tried != shown.depths[number]:
            found.append(f"prompt {number}: {shown.depths[number]} shown, {tried} in the store")
    return len(rows), found


async def _rows(db: k2store.Database, region: str, stamp: int) -> dict[Place, Names]:
    """The rows of a region that count, at a stamp."""
    identities: dict[bytes, Id] = {}
    found: dict[Place, Names] = {}
    async with db.snapshot(at=stamp) as view:
        async for row in view.scan(k2store.prefix(WORKERS + f"{region}/".encode())):
            prefix, rest = split_worker(row.key)
            if rest == ID:
                identities[prefix] = decode(Id, row.value)
            elif rest.startswith(RUN):
                # A worker's `id` comes before its runs.
                part, run, identity = rest[len(RUN) :], decode_run(row.value), identities[prefix]
                counts = (
                    identity.state != State.FENCED
                    and run.phase == Phase.READY
                    and run.incarnation == identity.incarnation
                    and run.epoch == identity.epoch(part[DIGEST_BYTES])
                    and run.live > 0
                )
                if counts:
                    found[str(worker_of(prefix)), part] = run.live_names()
    return found


def _blocks(rows: dict[Place, Names], namespace: bytes) -> dict[Holder, set[bytes]]:
    blocks: dict[Holder, set[bytes]] = {}
    for (worker, part), names in rows.items():
        if part.startswith(namespace):
            blocks.setdefault((worker, part[DIGEST_BYTES]), set()).update(split_names(names))
    return blocks


def _depths(blocks: dict[Holder, set[bytes]], names: Names) -> dict[Holder, int]:
    depths = {}
    for holder, held in blocks.items():
        depth = _length(names, held)
        if depth:
            depths[holder] = depth
    return depths


def _length(names: Names, held: set[bytes]) -> int:
    depth = 0
    for name in split_names(names):
        if name not in held:
            break
        depth += 1
    return depth


def _said(names: Iterable[int] | None) -> str:
    return "nothing" if names is None else f"{len(bytes(names)) // 16} blocks"
