"""What is looked at when a run has come to rest: the store itself, and what the network has counted."""

from __future__ import annotations

import time

import k2store
from k2store.testing.wan.link import LinkCounts
from kv_pool import keys
from kv_pool.edge.journal import INVOKE, OK, Note
from kv_pool.keys import PIN, RUN, WORKERS, split_worker, worker_of
from kv_pool.records import Id, decode, decode_run


async def final(db: k2store.Database) -> list[Note]:
    """What the store has in the end, as an operation of the history."""
    asked_ns = time.monotonic_ns()
    identities: dict[bytes, Id] = {}
    runs: list[dict[str, object]] = []
    claims: list[str] = []
    async with db.snapshot(strong=True) as view:
        async for row in view.scan(k2store.prefix(WORKERS)):
            prefix, rest = split_worker(row.key)
            if rest == keys.ID:
                identities[prefix] = decode(Id, row.value)
            elif rest.startswith(PIN):
                claims.append(row.key[-keys.PIN_BYTES :].hex())
            elif rest.startswith(RUN):
                part, run = rest[len(RUN) :], decode_run(row.value)
                if run.is_valid(identities[prefix], part[16]):
                    runs.append(
                        {
                            "worker": str(worker_of(prefix)),
                            "run": part[16:].hex(),
                            "generation": run.generation,
                            "blocks": run.live,
                        }
                    )
        stamp = view.at
    value: dict[str, object] = {"runs": runs, "claims": claims}
    return [
        Note(INVOKE, "conductor", "final", {}, asked_ns),
        Note(OK, "conductor", "final", value, time.monotonic_ns(), stamp),
    ]


def between(before: LinkCounts, after: LinkCounts) -> LinkCounts:
    """What was counted between two looks."""
    counts = {
        name: getattr(after, name) - getattr(before, name)
        for name in LinkCounts.__struct_fields__
        if name != "late_s_max"
    }
    return LinkCounts(**counts, late_s_max=after.late_s_max)
