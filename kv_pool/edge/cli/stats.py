"""`k2 pool stats`: workers, and what they hold."""

from __future__ import annotations

import click

from k2store.cli.reach import StoreVerb, stamp_fields
from k2store.cli.verb import output
from kv_pool import keys
from kv_pool.edge.cli.asking import learner, state_word
from kv_pool.keys import Worker
from kv_pool.records import TIERS, Lease, Tier, decode


@click.command("stats", cls=StoreVerb)
async def stats() -> None:
    """Show every worker: its life, its lease, and its blocks in each tier."""
    async with learner() as (pool, tree):
        counts = tree.counts()
        held: dict[Worker, list[int]] = {}
        for worker, tier, _, run in tree.learner.valid_runs():
            held.setdefault(worker, [0] * TIERS)[tier] += run.live
        known = tree.known_workers()
        leases = await pool.db.get_many([keys.lease(worker) for worker in known])
        earliest_ns = pool.bounds.earliest_ns()
        workers = []
        for worker in known:
            identity = tree.identity(worker)
            assert identity is not None, "who is known has registered"
            value = leases[keys.lease(worker)]
            expiry_ns = 0 if value is None else decode(Lease, value).expiry_ns
            blocks = held.get(worker, [0] * TIERS)
            workers.append(
                {
                    "worker": str(worker),
                    "state": state_word(identity.state),
                    "suspect": identity.suspect,
                    "incarnation": identity.incarnation,
                    "lease_s": round(max(0, expiry_ns - earliest_ns) / 1e9, 3),
                    **{tier.name.lower(): blocks[tier] for tier in Tier},
                }
            )
        staleness_s = tree.staleness_s
        as_of = tree.as_of
    if output().as_json:
        document = {
            "workers": workers,
            "rows": counts.rows,
            "blocks": counts.blocks,
            "stretches": counts.stretches,
            "malformed": counts.malformed,
            "staleness_s": staleness_s,
        }
        output().document(document | stamp_fields(as_of), "")
        return
    output().note(
        f"{counts.blocks} blocks in {counts.rows} rows of {counts.workers} workers, "
        f"{staleness_s:.3f} s behind at most"
    )
    columns = ["worker", "state", "suspect", "incarnation", "lease_s"]
    columns += [tier.name.lower() for tier in Tier]
    output().table("workers", columns, [[each[name] for name in columns] for each in workers])
