"""`k2 pool relay`: an engine's events become a worker's rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click
import msgspec

from k2store.cli.reach import StoreVerb, database
from k2store.cli.verb import output
from k2store.errors import Rejected
from kv_pool.namespace import Namespace, Scheme

if TYPE_CHECKING:
    from kv_pool.directory.evicting import Voided
    from kv_pool.edge.relay import Relay

NOTE_S: Final = 10.0


@click.command("relay", cls=StoreVerb)
@click.option("--engine", required=True, metavar="ADDRESS", help="Its events, tcp://host:port.")
@click.option("--replay", default="", metavar="ADDRESS", help="Its replays, if it offers them.")
@click.option("--topic", default="", metavar="TEXT", help="Only topics that begin with this.")
@click.option("--worker", required=True, metavar="REGION/NAME", help="Who the engine is.")
@click.option("--model", required=True, metavar="NAME", help="Its model.")
@click.option("--revision", required=True, metavar="DIGEST", help="Revision of the weights.")
@click.option("--dtype", required=True, metavar="TYPE", help="Type of the cached numbers.")
@click.option("--layout", required=True, metavar="NAME", help="Order of a block's axes.")
@click.option("--tenant", default="", metavar="NAME", help="Whose prompts; all share without.")
@click.option(
    "--scheme",
    type=click.Choice([scheme.value for scheme in Scheme]),
    default=Scheme.VLLM_SHA256.value,
    show_default=True,
    help="How the engine names blocks.",
)
@click.option("--seed", default="", metavar="HEX", help="Seed of the engine's names.")
@click.option(
    "--block-tokens",
    type=click.IntRange(min=1, max=65_536),
    default=16,
    show_default=True,
    metavar="N",
    help="Tokens of a block, for events that do not say.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME=SHA256",
    help="Digest of an adapter's content; blocks of others are passed over.",
)
@click.option(
    "--endpoint-of",
    "endpoints",
    multiple=True,
    metavar="ADDRESS",
    help="Where the engine's blocks are served; may be repeated.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.FloatRange(min=0.3),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the worker lives without a renewal.",
)
async def relay(
    *,
    engine: str,
    replay: str,
    topic: str,
    worker: str,
    model: str,
    revision: str,
    dtype: str,
    layout: str,
    tenant: str,
    scheme: str,
    seed: str,
    block_tokens: int,
    adapters: tuple[str, ...],
    endpoints: tuple[str, ...],
    ttl_s: float,
) -> None:
    """Make an unmodified vLLM or SGLang a member of the pool, until it is interrupted.

    Follows the engine's event socket, fills gaps from its replay socket, and renews the worker's lease
    while the engine's transport answers. A claim that the engine breaks by evicting is printed, a line
    each.
    """
    from kv_pool.edge.cli.asking import worker_of
    from kv_pool.edge.engine_sockets import EngineSockets
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.relay import Relay
    from kv_pool.edge.scopes import Scopes

    who = worker_of(worker)
    try:
        base = Namespace(
            tenant=tenant,
            model=model,
            revision=revision,
            dtype=dtype,
            layout=layout,
            block_tokens=block_tokens,
            scheme=Scheme(scheme),
            seed=bytes.fromhex(seed),
        )
    except ValueError as error:
        raise Rejected(str(error), field="namespace") from None
    with EngineSockets(engine, replay, topic) as sockets:
        async with database() as db, Pool(db, who.region) as pool:
            relaying = Relay(
                pool,
                who,
                sockets,
                Scopes(base, adapters_of(adapters)),
                ttl_s=ttl_s,
                endpoints=endpoints,
                voided=_tell_voided,
            )
            telling = asyncio.create_task(_tell(relaying))
            try:
                await relaying.run()
            finally:
                telling.cancel()


def adapters_of(said: tuple[str, ...]) -> Mapping[str, bytes]:
    """Digests of adapters by name; `Rejected` for what is not NAME=SHA256."""
    found = {}
    for each in said:
        name, _, digest = each.partition("=")
        try:
            found[name] = bytes.fromhex(digest)
        except ValueError:
            found[name] = b""
        if not name or len(found[name]) != 32:
            raise Rejected(f"{each!r} is not NAME=SHA256", field="adapter")
    return found


def _tell_voided(voided: Voided) -> None:
    pin = voided.pin
    output().record(
        {
            "voided": voided.number.hex(),
            "holder": pin.holder,
            "blocks": pin.blocks,
            "run": voided.part.hex(),
        },
        f"voided: {pin.blocks} blocks of {voided.part.hex()}, claimed by {pin.holder}",
    )


async def _tell(relaying: Relay) -> None:
    while True:
        await asyncio.sleep(NOTE_S)
        figures = msgspec.structs.asdict(relaying.figures)
        output().note(", ".join([f"{name} {value}" for name, value in figures.items()]))
