"""`k2 dev`: a store to try things on, in three regions on this machine or as one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from k2store.cli.verb import Verb

if TYPE_CHECKING:
    from k2store.testing.wan import Kind


@click.command("dev", cls=Verb)
@click.option(
    "--regions",
    default="fra,iad,sin",
    show_default=True,
    metavar="NAME[,NAME...]",
    help="Regions, by the nearest airport.",
)
@click.option(
    "--nodes-per-region",
    type=click.IntRange(1, 14),
    default=1,
    show_default=True,
    metavar="N",
    help="Nodes in each of them.",
)
@click.option(
    "--wan",
    type=click.Choice(["namespaces", "proxy"]),
    help="How regions are kept apart; without it namespaces as root, else the proxy.",
)
@click.option("--no-wan", is_flag=True, help="No distance between regions.")
@click.option("--single", is_flag=True, help="One node and no regions.")
@click.option(
    "--data", metavar="DIR", help="Folder of the data; without it, one that is thrown away."
)
@click.option("--listen", metavar="HOST:PORT", help="With --single: its gRPC port (node.listen).")
@click.option("--admin", metavar="HOST:PORT", help="With --single: its HTTP port (admin.listen).")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks at the nodes.",
)
def dev(
    *,
    regions: str,
    nodes_per_region: int,
    wan: Kind | None,
    no_wan: bool,
    single: bool,
    data: str | None,
    listen: str | None,
    admin: str | None,
    interval_s: float,
) -> None:
    """Run a cluster on this machine, oceans apart; Ctrl-C stops it.

    Each node is a process of its own, in its region of an emulated network with the delays between
    the real places. As root the regions are network namespaces, otherwise a proxy delays bytes.
    Nodes and clients speak mutual TLS. The first node keeps the control plane. Each region has a
    keyspace at home in it, with its name as prefix; all other keys survive the loss of any region.

    On a terminal a table of the nodes is drawn. With --json the first line says how to reach them,
    and a line a node follows at every interval.
    """
    if single:
        from k2store.cli import dev_single

        dev_single.run(data=data, listen=listen, admin=admin, interval_s=interval_s)
        return
    if listen is not None or admin is not None:
        raise click.UsageError("--listen and --admin go with --single")
    if no_wan and wan is not None:
        raise click.UsageError("give --wan or --no-wan, not both")
    from k2store.cli import dev_regions

    dev_regions.run(
        [name.strip() for name in regions.split(",")],
        nodes_per_region=nodes_per_region,
        wan=None if no_wan else wan or "auto",
        data=data,
        interval_s=interval_s,
    )
