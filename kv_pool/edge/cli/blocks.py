"""`k2 pool blocks`: the runs of one worker, as the directory has them."""

from __future__ import annotations

import click

from k2store.cli.reach import StoreVerb, database
from k2store.cli.verb import output
from k2store.errors import Rejected
from kv_pool import keys
from kv_pool.edge.cli.asking import phase_word, state_word, tier_word, worker_of
from kv_pool.keys import RUN_BYTES
from kv_pool.namespace import DIGEST_BYTES
from kv_pool.records import Id, Pin, decode, decode_run


@click.command("blocks", cls=StoreVerb)
@click.argument("worker", metavar="REGION/NAME")
@click.option("--all", "everything", is_flag=True, help="Also rows that count for nothing.")
async def blocks(*, worker: str, everything: bool) -> None:
    """Show the runs of a worker, all at one stamp: where they stand, and how often they are claimed.

    `claims` counts pins, those that have run out and are not swept yet included.
    """
    whose = worker_of(worker)
    async with database() as db, db.snapshot(strong=True) as view:
        value = await view.get(keys.identity(whose))
        if value is None:
            raise Rejected(f"no worker {whose} has registered", field="worker")
        identity = decode(Id, value)
        claims: dict[bytes, int] = {}
        async for record in view.scan(whose.prefix + keys.PIN):
            at = len(whose.prefix) + len(keys.PIN)
            part = record.key[at : at + RUN_BYTES]
            run_pin = decode(Pin, record.value)
            claims[part] = claims.get(part, 0) + (run_pin.blocks > 0)
        rows = []
        async for record in view.scan(whose.prefix + keys.RUN):
            part = record.key[len(whose.prefix) + len(keys.RUN) :]
            tier, run = part[DIGEST_BYTES], decode_run(record.value)
            valid = run.is_valid(identity, tier)
            if valid or everything:
                rows.append(
                    (
                        part[:DIGEST_BYTES].hex(),
                        tier_word(tier),
                        part[DIGEST_BYTES + 1 :].hex(),
                        run.depth,
                        run.live,
                        phase_word(run.phase),
                        valid,
                        claims.get(part, 0),
                    )
                )
    output().note(
        f"{whose}: {state_word(identity.state)}, incarnation {identity.incarnation}"
        f"{', suspect' if identity.suspect else ''}"
    )
    columns = ("namespace", "tier", "first", "depth", "blocks", "phase", "valid", "claims")
    output().table("runs", columns, rows)
