"""`k2 check cluster`: regions of real node processes under faults."""

from __future__ import annotations

import asyncio
from random import Random

import click


@click.command()
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1), help="How many runs.")
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(1), help="Of load, a run."
)
@click.option("--regions", default="fra,iad,sin", show_default=True, help="Where the nodes stand.")
@click.option(
    "--nodes-per-region", default=3, show_default=True, type=click.IntRange(1), help="Nodes."
)
@click.option(
    "--clients", default=8, show_default=True, type=click.IntRange(1), help="Clients a region."
)
@click.option("--seed", type=int, help="Of the faults; a random one otherwise.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run, and the sum.")
@click.pass_context
def cluster(
    ctx: click.Context,
    runs: int,
    seconds: float,
    regions: str,
    nodes_per_region: int,
    clients: int,
    seed: int | None,
    *,
    as_json: bool,
) -> None:
    """Load a cluster of real processes in emulated regions, kill, pause and cut, and judge it.

    Exit status: 0 when every run is valid, 5 otherwise.
    """
    import msgspec

    from jepsen_like.regions import Campaign, Result
    from k2store.testing.cluster import local_cluster

    seed = Random().getrandbits(32) if seed is None else seed
    rng = Random(seed)
    results: list[Result] = []
    for _ in range(runs):
        places = tuple(regions.split(","))
        with local_cluster(places, nodes_per_region=nodes_per_region) as nodes:
            result = asyncio.run(Campaign(nodes, Random(rng.random()), clients).run(seconds))
        results.append(result)
        if as_json:
            click.echo(msgspec.json.encode(result).decode())
            continue
        faults = ", ".join(f"{name} {count}" for name, count in result.faults.items())
        click.echo(
            f"{'valid' if result.valid else 'INVALID'}: {result.commits} commits in "
            f"{result.seconds:.0f} s, faults: {faults or 'none'}; "
            f"writes again after {result.recovery_s:.1f} s"
        )
        for what in result.anomalies:
            click.echo(f"  {what}")
    valid = all(result.valid for result in results)
    if as_json:
        recoveries = sorted(result.recovery_s for result in results)
        document = {
            "runs": len(results),
            "transactions": sum(result.transactions for result in results),
            "txn_per_s": round(sum(result.txn_per_s for result in results) / len(results), 1),
            "faults": sum(sum(result.faults.values()) for result in results),
            "valid": valid,
            "recovery_s_p99": recoveries[min(len(recoveries) - 1, len(recoveries) * 99 // 100)],
            "seed": seed,
        }
        click.echo(msgspec.json.encode(document).decode())
    ctx.exit(0 if valid else 5)
