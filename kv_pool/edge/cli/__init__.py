"""`k2 pool`: look into the prompt tree and the block directory, replay a trace, relay an engine.

One verb a module; this one has the group.
"""

from __future__ import annotations

import click

from kv_pool.edge.cli.blocks import blocks
from kv_pool.edge.cli.keyspaces import keyspaces
from kv_pool.edge.cli.match import match
from kv_pool.edge.cli.relay import relay
from kv_pool.edge.cli.replay import replay
from kv_pool.edge.cli.serve import serve
from kv_pool.edge.cli.stats import stats
from kv_pool.edge.cli.tree import tree


@click.group("pool")
def pool() -> None:
    """Look into the prompt tree and the block directory."""


for _verb in (blocks, keyspaces, match, relay, replay, serve, stats, tree):
    pool.add_command(_verb)
