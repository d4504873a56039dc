"""`k2 pool tree`: the prompt tree, as the runs of all workers make it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from k2store.cli.reach import StoreVerb
from k2store.cli.verb import output
from kv_pool.blocks import NAME_BYTES, ROOT_NAME
from kv_pool.edge.cli.asking import Digest, learner, tier_word

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree


class _Node(Struct):
    """Runs of one key on several holders; they may differ in length."""

    namespace: bytes
    first: bytes
    parent: bytes
    depth: int
    blocks: int
    names: bytes
    holders: list[str]


@click.command("tree", cls=StoreVerb)
@click.option("--namespace", type=Digest(), metavar="HEX", help="Only this namespace.")
@click.option("--depth", "depth_max", type=click.IntRange(min=0), metavar="N", help="No deeper.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="At most so many runs.",
)
async def tree(*, namespace: bytes | None, depth_max: int | None, limit: int) -> None:
    """Print the runs that prompts go through, each under the one it goes on from.

    A line a run: its first block, how many blocks it has, and who has how much of it.
    """
    async with learner() as (_, replica):
        nodes = _nodes(replica, namespace)
        shown = 0
        for level, node in _walk(nodes):
            if depth_max is not None and node.depth > depth_max:
                continue
            if shown == limit:
                output().note(f"{len(nodes) - shown} more runs; --limit shows them")
                break
            shown += 1
            holders = ", ".join(node.holders)
            output().record(
                {
                    "namespace": node.namespace.hex(),
                    "first": node.first.hex(),
                    "parent": node.parent.hex(),
                    "depth": node.depth,
                    "blocks": node.blocks,
                    "holders": node.holders,
                },
                f"{'  ' * level}{node.first.hex()[:12]} at {node.depth}, {node.blocks} blocks: {holders}",
            )
        if not nodes:
            output().note("no blocks")


def _nodes(replica: Tree, namespace: bytes | None) -> dict[tuple[bytes, bytes], _Node]:
    nodes: dict[tuple[bytes, bytes], _Node] = {}
    for worker, tier, digest, run in replica.learner.valid_runs():
        if namespace not in {None, digest}:
            continue
        names = run.live_names()
        first = names[:NAME_BYTES]
        node = nodes.get((digest, first))
        if node is None:
            node = nodes[digest, first] = _Node(digest, first, run.parent, run.depth, 0, b"", [])
        if run.live > node.blocks:
            node.blocks, node.names = run.live, names
        node.holders.append(f"{worker} {tier_word(tier)} {run.live}")
    return nodes


def _walk(nodes: dict[tuple[bytes, bytes], _Node]) -> Iterator[tuple[int, _Node]]:
    """Every node once, parents before what goes on from them; level of indentation and node."""
    inside: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
    for key, node in nodes.items():
        for at in range(0, len(node.names), NAME_BYTES):
            inside.setdefault((node.namespace, node.names[at : at + NAME_BYTES]), key)
    behind: dict[tuple[bytes, bytes] | None, list[_Node]] = {}
    for node in sorted(nodes.values(), key=lambda node: (node.namespace, node.depth, node.first)):
        before = None if node.parent == ROOT_NAME else inside.get((node.namespace, node.parent))
        behind.setdefault(before, []).append(node)
    waiting = [(0, node) for node in reversed(behind.get(None, []))]
    seen: set[tuple[bytes, bytes]] = set()
    while waiting:
        level, node = waiting.pop()
        key = (node.namespace, node.first)
        if key in seen:
            continue
        seen.add(key)
        yield level, node
        waiting += [(level + 1, each) for each in reversed(behind.get(key, []))]
