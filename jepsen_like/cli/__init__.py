"""`k2 check`: the checkers on the command line.

The group loads its subcommands when they are asked for, so that `k2 --help` stays light. A further subcommand is
one more line in `COMMANDS`.
"""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, str] = {
    "history": "jepsen_like.cli.history:history",
    "gen": "jepsen_like.cli.generate:generate",
    "sim": "jepsen_like.cli.sim:sim",
    "kill": "jepsen_like.cli.kill:kill",
    "cluster": "jepsen_like.cli.cluster:cluster",
    "pool": "jepsen_like.cli.pool:pool",
    "mutants": "jepsen_like.cli.mutants:mutants",
    "replay": "jepsen_like.cli.swarm:replay",
    "shrink": "jepsen_like.cli.swarm:shrink",
    "swarm": "jepsen_like.cli.swarm:swarm",
    "failover": "jepsen_like.cli.failover:failover",
    "report": "jepsen_like.cli.report:report",
}
"""Name of a subcommand -> the click command, as "module:object"."""


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the table, and of commands added in other ways."""
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command; None when there is none of the name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, name="check")
def check() -> None:
    """Judge histories: was what clients saw what the store promised?"""
