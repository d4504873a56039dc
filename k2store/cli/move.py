"""`k2 move` and `k2 split`: who leads a partition, and where one ends and the next begins."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import click

from k2store.cli.notation import parse, show
from k2store.cli.regions import control_option, opened
from k2store.cli.verb import Verb, output
from k2store.errors import Rejected

if TYPE_CHECKING:
    from k2store.control import Map


@click.command("move", cls=Verb)
@control_option
@click.argument("partition", type=click.IntRange(min=1))
@click.argument("node")
def move(*, control: str | None, partition: int, node: str) -> None:
    """Have NODE (a name, or an id; `any` for no wish) lead PARTITION.

    It must be one of the partition's voters. The present leader hands over as soon as the other
    one has everything; what is asked meanwhile waits.
    """
    present = asyncio.run(_move(control, partition, node))
    _told(present, partition)


@click.command("split", cls=Verb)
@control_option
@click.argument("key")
def split(*, control: str | None, key: str) -> None:
    """Let a new partition begin at KEY. Its leader splits the log while it goes on serving."""
    present = asyncio.run(_split(control, parse(key)))
    _told(present, present.partition_at(parse(key)).id)


async def _move(address: str | None, partition: int, node: str) -> Map:
    from k2store.control import change, moved

    async with opened(address) as control:
        present = await control.load()
        wanted = 0 if node == "any" else _node(present, node)
        return await change(control, partial(moved, partition=partition, node=wanted))


async def _split(address: str | None, key: bytes) -> Map:
    from k2store.control import change
    from k2store.control.transitions import split as split_at

    def step(present: Map) -> Map:
        found = present.partition_at(key)
        return present if found.start == key else split_at(present, found.id, key)

    async with opened(address) as control:
        return await change(control, step)


def _node(present: Map, name: str) -> int:
    found = present.node_named(name) or (
        present.node(int(name)) if name.isdecimal() and len(name) < 6 else None
    )
    if found is None:
        known = ", ".join(one.name for one in present.nodes) or "none"
        raise Rejected(f"no node is called {name}; there are: {known}", field="node")
    return found.id


def _told(present: Map, partition: int) -> None:
    info = present.partition(partition)
    assert info is not None, partition
    names = {one.id: one.name for one in present.nodes}
    leader = names.get(info.leader, "any of its voters")
    output().document(
        {
            "partition": info.id,
            "start": show(info.start),
            "end": show(info.end),
            "leader": names.get(info.leader),
            "map_version": present.version,
        },
        f"partition {info.id}, from {show(info.start) or 'the beginning'} to "
        f"{show(info.end) or 'the end'}: wanted leader {leader} (map {present.version})",
    )
