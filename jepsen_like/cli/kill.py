"""`k2 check kill`: kill -9 of a real node under load, again and again."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from random import Random

import click


@click.command()
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1), help="Kills, at least."
)
@click.option("--seed", type=int, help="Of the moments of the kills; a random one otherwise.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("/var/tmp"),  # noqa: S108 - a folder of our own is made in it
    show_default=True,
    help="Where the node's data lies meanwhile.",
)
@click.option(
    "--cluster", is_flag=True, help="Three nodes of a cluster, of which leaders are killed."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@click.option("-q", "--quiet", is_flag=True, help="No line a round.")
@click.pass_context
def kill(
    ctx: click.Context,
    rounds: int,
    seed: int | None,
    data: Path,
    *,
    cluster: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Load a node, kill it, restart it, and compare what it holds with what clients were told.

    With --cluster the nodes are three, and who is killed leads; the others go on.

    Exit status: 0 when nothing is lost or left unknown, 5 otherwise.
    """
    from jepsen_like.kill.campaign import Attacked, Campaign, Result
    from jepsen_like.kill.cluster import ClusterServer
    from jepsen_like.kill.server import NodeFailed, Server

    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    if seed is None:
        seed = Random().getrandbits(32)
    with tempfile.TemporaryDirectory(prefix="k2-kill-", dir=data) as folder:
        result = Result()

        def run(campaign: Campaign[Attacked]) -> None:
            nonlocal result
            result = campaign.result
            try:
                asyncio.run(campaign.run(rounds))
            except* NodeFailed as failed:
                result.violations.append(str(failed.exceptions[0]))

        if cluster:
            nodes = ClusterServer(Path(folder) / "nodes")
            run(Campaign(nodes, Random(seed), crash=ClusterServer.kill_a_leader, tell=tell))
        else:
            server = Server(Path(folder) / "data", Path(folder) / "node.log")
            run(Campaign(server, Random(seed), tell=tell))
    if as_json:
        import msgspec

        click.echo(json.dumps({"valid": result.valid, "seed": seed} | msgspec.to_builtins(result)))
    else:
        for violation in result.violations:
            click.echo(f"  {violation}")
        click.echo(
            f"{'valid' if result.valid else 'INVALID'}: {result.kills} kills, "
            f"{result.acknowledged} writes acknowledged, {result.unknown} left unknown: "
            f"{result.committed} had committed, {result.aborted} had not (seed {seed})"
        )
    ctx.exit(0 if result.valid else 5)
