"""`k2 bench`: the group; a measurement is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from k2store.cli.verbs import Place

COMMANDS: Final[Mapping[str, Place]] = {
    "geo": Place("bench.geo.command:geo", "Three regions: round trips, visibility, failover."),
    "pool": Place(
        "bench.pool.command:pool", "The prompt tree and the directory, beside their peers."
    ),
    "serve": Place(
        "bench.serve.command:serve", "A real model: what reuse of its keys and values saves."
    ),
    "store": Place("bench.store:store", "One node on one core: rates, latencies, memory, restart."),
}


class Measurements(click.Group):
    """Imports a measurement when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The measurement of that name; None when there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, from the table alone."""
        with formatter.section("Measurements"):
            formatter.write_dl([(name, place.summary) for name, place in sorted(COMMANDS.items())])


@click.group(cls=Measurements, name="bench")
def bench() -> None:
    """Measure on real processes, beside a peer if asked."""
