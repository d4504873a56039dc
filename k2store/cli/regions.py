"""`k2 regions`: the regions of a cluster, their nodes, and the keyspaces at home in them.

The verbs talk to the control plane, whichever it is: `--control`, or `cluster.control`, or else the
node at `client.endpoint`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal

import click

from k2store.cli.notation import parse, show
from k2store.cli.verb import Verb, output, settings
from k2store.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from k2store.control import Control, Keyspace, Map

FORM: Final = "NAME[:PREFIX]:SURVIVE:HOME[:PROMOTE]"

control_option = click.option(
    "--control",
    metavar="ADDRESS",
    help="The control plane, k2://host:port or etcd://host:port,... (cluster.control).",
)


@click.group("regions")
def regions() -> None:
    """Make and show the regions of a cluster, and the keyspaces at home in them."""


@regions.command("init", cls=Verb)
@control_option
@click.option(
    "--keyspace",
    "keyspaces",
    metavar=FORM,
    multiple=True,
    required=True,
    help="A keyspace; may be repeated. PREFIX is NAME/ unless given, and none for `default`.",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Wait until so many nodes have joined.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait for them no longer.",
)
def init(*, control: str | None, keyspaces: tuple[str, ...], nodes: int, timeout_s: float) -> None:
    """Make keyspaces and their partitions, once the nodes that shall hold them have joined.

    SURVIVE is `zone` (voters in the region HOME) or `region` (voters in three regions, HOME among
    them); PROMOTE is `operator` or `automatic`. The keyspace `default` takes every key that no
    other one's prefix begins, and must be among the first. What exists just so is left as it is.
    """
    wanted = [keyspace_of(text) for text in keyspaces]
    made = asyncio.run(_init(control, wanted, nodes, timeout_s))
    _print(made, partitions_of(made), "partitions")


@regions.command("status", cls=Verb)
@control_option
def status(*, control: str | None) -> None:
    """Show nodes, keyspaces and partitions as the control plane has them."""
    present = asyncio.run(_load(control))
    if output().as_json:
        output().document(document(present), "")
        return
    output().note(f"map version {present.version}")
    for name, table in (
        ("nodes", nodes_of(present)),
        ("keyspaces", keyspaces_of(present)),
        ("partitions", partitions_of(present)),
    ):
        output().table(name, *table)


@regions.command("keyspaces", cls=Verb)
@control_option
def keyspaces(*, control: str | None) -> None:
    """Show the keyspaces: their prefix, what they survive, their home."""
    present = asyncio.run(_load(control))
    output().table("keyspaces", *keyspaces_of(present))


@regions.command("promote", cls=Verb)
@control_option
@click.argument("lost")
@click.option("--to", metavar="REGION", help="The new home; else the one that has seen most.")
@click.option(
    "--it-is-off",
    is_flag=True,
    required=True,
    help="Your word that LOST is off: powered down, or fenced from every client.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait for the surviving nodes no longer.",
)
def promote(
    *, control: str | None, lost: str, to: str | None, it_is_off: bool, timeout_s: float
) -> None:
    """Give everything at home in the region LOST another home.

    A home that is merely cut off goes on serving its own region, so this needs your word that it
    does not. All partitions of the lost home are cut at one stamp, the last that the new home has
    seen whole; what the lost region acknowledged after it is lost, and the command says how much
    time that is. Keyspaces that survive a region need no promotion.
    """
    from k2store.cli.promotion import promote_region

    assert it_is_off
    done = asyncio.run(promote_region(opened(control), settings().settings, lost, to, timeout_s))
    output().document(done.document(), done.text())


@regions.command("return", cls=Verb)
@control_option
@click.argument("region")
def return_(*, control: str | None, region: str) -> None:
    """Let a region that was declared off take part again. What is at home elsewhere stays there."""
    present = asyncio.run(_return(control, region))
    _print(present, nodes_of(present), "nodes")


def keyspace_of(text: str) -> Keyspace:
    """The keyspace that a word of the form NAME[:PREFIX]:SURVIVE:HOME[:PROMOTE] names."""
    from k2store.control.map import DEFAULT, Keyspace

    parts = text.split(":")
    promote: Literal["operator", "automatic"] = "operator"
    if parts[-1] in {"operator", "automatic"}:
        promote = "automatic" if parts.pop() == "automatic" else "operator"
    if len(parts) not in {3, 4} or parts[-2] not in {"zone", "region"}:
        raise Rejected(f"{text!r} is not {FORM}", field="keyspace")
    survive: Literal["zone", "region"] = "zone" if parts[-2] == "zone" else "region"
    name, home = parts[0], parts[-1]
    if len(parts) == 4:
        prefix = parse(parts[1])
    else:
        prefix = b"" if name == DEFAULT else f"{name}/".encode()
    return Keyspace(name, prefix, survive, home, promote)


def document(present: Map) -> dict[str, object]:
    """The map as `--json` prints it: keys as text, nodes by id."""
    import msgspec

    told = msgspec.to_builtins(present, builtin_types=(bytes,))
    assert isinstance(told, dict), "a struct is told as a mapping"
    for node in told["nodes"]:
        node["disk"] = node["disk"].hex()
    return told


Table = tuple[Sequence[str], Sequence[Sequence[object]]]


def nodes_of(present: Map) -> Table:
    """A row a node, by region and id."""
    off = {one.name for one in present.regions if one.off}
    rows = [
        (one.region, "off" if one.region in off else "", one.id, one.name, one.address)
        for one in sorted(present.nodes, key=lambda one: (one.region, one.id))
    ]
    return ("region", "state", "node", "name", "address"), rows


def keyspaces_of(present: Map) -> Table:
    """A row a keyspace, in the order of their prefixes."""
    rows = [
        (
            one.name,
            show(one.prefix),
            one.survive,
            one.home,
            one.promote,
            sum(partition.keyspace == one.name for partition in present.partitions),
        )
        for one in sorted(present.keyspaces, key=lambda one: one.prefix)
    ]
    return ("keyspace", "prefix", "survive", "home", "promote", "partitions"), rows


def partitions_of(present: Map) -> Table:
    """A row a partition, in the order of their keys; members by name, who is gone by number."""
    names = {one.id: one.name for one in present.nodes}

    def named(ids: Sequence[int]) -> str:
        return " ".join(names.get(one, f"#{one}") for one in ids)

    rows = [
        (
            one.id,
            show(one.start),
            show(one.end) or "…",
            one.keyspace,
            named(one.voters),
            named(one.learners),
            named((one.leader,)) if one.leader else "any",
            one.generation,
        )
        for one in present.partitions
    ]
    columns = (
        "partition",
        "start",
        "end",
        "keyspace",
        "voters",
        "learners",
        "leader",
        "generation",
    )
    return columns, rows


def _print(present: Map, table: Table, name: str) -> None:
    if output().as_json:
        output().document(document(present), "")
    else:
        output().table(name, *table)


@asynccontextmanager
async def opened(address: str | None) -> AsyncIterator[Control]:
    """The control plane of a command, closed afterwards."""
    from k2store.control.opening import operator_control

    control = operator_control(settings().settings, address)
    try:
        yield control
    finally:
        await control.close()


async def _load(address: str | None) -> Map:
    async with opened(address) as control:
        return await control.load()


async def _return(address: str | None, region: str) -> Map:
    from k2store.control import change, with_region

    async with opened(address) as control:
        if (await control.load()).region(region) is None:
            raise Rejected(f"no region is called {region}", field="region")
        return await change(control, lambda present: with_region(present, region, off=False))


async def _init(
    address: str | None, keyspaces: Sequence[Keyspace], nodes: int, timeout_s: float
) -> Map:
    from k2store.control import change, placed, with_keyspaces

    async with opened(address) as control:
        await control.load()  # A wrong address or token is told at once, not waited for.
        await _wait_for(control, nodes, timeout_s)
        return await change(control, lambda present: placed(with_keyspaces(present, keyspaces)))


async def _wait_for(control: Control, nodes: int, timeout_s: float) -> None:
    joined = -1
    try:
        async with asyncio.timeout(timeout_s):
            async for present in control.watch():
                if len(present.nodes) != joined:
                    joined = len(present.nodes)
                    output().note(f"{joined} of {nodes} nodes have joined")
                if joined >= nodes:
                    return
    except TimeoutError:
        raise Unavailable(
            f"{max(joined, 0)} of {nodes} nodes have joined after {timeout_s:g} s; nothing was made"
        ) from None
    raise Unavailable("the control plane was closed while nodes were waited for")
