"""`k2 check failover`: how long a partition is without a leader, over many simulated kills."""

from __future__ import annotations

import click

LIMIT_S = 2.0


@click.command()
@click.option(
    "--kills", default=150, show_default=True, type=click.IntRange(1), help="Leaders to kill."
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the first run."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@click.pass_context
def failover(ctx: click.Context, kills: int, seed: int, *, as_json: bool) -> None:
    """Kill leaders of a simulated partition, and say how long it took until writes went on.

    Three voters in one region, three replicas in another, settings as they are by default.
    Exit status: 0 when the 99th percentile is at most two seconds of virtual time, else 5.
    """
    import msgspec

    from jepsen_like.sim.cluster.failover import KILLS_A_RUN, Failover, distribution, measure

    found: list[Failover] = []
    while len(found) < kills:
        found += measure(seed, min(KILLS_A_RUN, kills - len(found)))
        seed += 1
    home = distribution([one.home_s for one in found])
    far = distribution([one.far_s for one in found])
    if as_json:
        figures = {"home": msgspec.to_builtins(home), "far": msgspec.to_builtins(far)}
        click.echo(msgspec.json.encode(figures).decode())
    else:
        for where, figures_ in (("home", home), ("far away", far)):
            click.echo(
                f"{figures_.kills} kills, first write of a client {where}: p50 {figures_.p50_s:.2f} s, "
                f"p99 {figures_.p99_s:.2f} s, at most {figures_.max_s:.2f} s"
            )
    ctx.exit(0 if max(home.p99_s, far.p99_s) <= LIMIT_S else 5)
