"""`k2 pool keyspaces`: what a store over several regions must be founded with to hold a pool."""

from __future__ import annotations

import click

from k2store.cli.verb import Verb, output
from kv_pool.edge.layout import keyspaces as layout


@click.command("keyspaces", cls=Verb)
@click.argument("regions", nargs=-1, required=True, metavar="REGION...")
def keyspaces(*, regions: tuple[str, ...]) -> None:
    """Print the keyspaces of a pool over these regions, as `k2 regions init` takes them.

    The first region is the home of what survives the loss of any.
    """
    words = [one.word() for one in layout(regions)]
    output().document({"keyspaces": words}, " ".join([f"--keyspace {word}" for word in words]))
