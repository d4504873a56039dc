"""`k2 pool serve`: the pool in the words of other indexers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from typing import TYPE_CHECKING, Final

import click

from k2store.cli.reach import StoreVerb, database
from k2store.cli.verb import output
from k2store.errors import K2Error, Rejected
from kv_pool.edge.cli.relay import adapters_of
from kv_pool.namespace import Namespace, Scheme

if TYPE_CHECKING:
    from kv_pool.edge.pool import Pool

FENCE_S: Final = 1.0


@click.command("serve", cls=StoreVerb)
@click.option("--region", required=True, metavar="NAME", help="Where the engines are.")
@click.option(
    "--listen",
    default="127.0.0.1:8090",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to answer HTTP.",
)
@click.option(
    "--exposed",
    is_flag=True,
    help="Allow an address that others reach: there is no encryption and no authentication.",
)
@click.option("--republish", default="", metavar="ADDRESS", help="Publish events here, too.")
@click.option("--republish-replay", default="", metavar="ADDRESS", help="And replay them here.")
@click.option("--revision", default="", metavar="DIGEST", help="Of registered engines' weights.")
@click.option("--dtype", default="", metavar="TYPE", help="Of registered engines' numbers.")
@click.option("--layout", default="", metavar="NAME", help="Of registered engines' blocks.")
@click.option(
    "--scheme",
    type=click.Choice([scheme.value for scheme in Scheme]),
    default=Scheme.VLLM_SHA256.value,
    show_default=True,
    help="How registered engines name blocks, unless their type says.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME=SHA256",
    help="Digest of an adapter's content; blocks of others are passed over.",
)
async def serve(
    *,
    region: str,
    listen: str,
    exposed: bool,
    republish: str,
    republish_replay: str,
    revision: str,
    dtype: str,
    layout: str,
    scheme: str,
    adapters: tuple[str, ...],
) -> None:
    """Answer queries as Mooncake's Conductor and Dynamo's indexer do, until it is interrupted.

    /register, /unregister, /workers, /query, /query_by_hash, /dump, /health. Engines that are registered are
    relayed into the pool; workers of the region that have stopped renewing are fenced. With --republish the
    whole directory is published as one stream of engine events.
    """
    from kv_pool.edge.facade import Facade
    from kv_pool.edge.http_server import HttpServer
    from kv_pool.edge.pool import Pool
    from kv_pool.edge.republisher import Republisher

    if not (exposed or _is_loopback(listen)):
        raise Rejected(f"{listen} can be reached by others: say --exposed", field="listen")
    base = Namespace(
        tenant="default",
        model="unnamed",
        revision=revision,
        dtype=dtype,
        layout=layout,
        block_tokens=16,
        scheme=Scheme(scheme),
    )
    async with contextlib.AsyncExitStack() as stack:
        db = await stack.enter_async_context(database())
        pool = await stack.enter_async_context(Pool(db, region))
        tree = await stack.enter_async_context(pool.learner())
        facade = await stack.enter_async_context(Facade(pool, tree, base, adapters_of(adapters)))
        document: dict[str, object] = {}
        if republish:
            told = await stack.enter_async_context(Republisher(tree, republish, republish_replay))
            document |= {"events": told.events, "replay": told.replay}
        server = HttpServer(facade.handle)
        document["listen"] = await server.listen(listen)
        stack.push_async_callback(server.close)
        said = ", ".join([f"{name} {value}" for name, value in document.items() if value])
        output().record(document, said)
        await _fence_now_and_then(pool)


async def _fence_now_and_then(pool: Pool) -> None:
    while True:
        await asyncio.sleep(FENCE_S)
        # A store that is away has nobody fenced; the next round looks again.
        with contextlib.suppress(K2Error):
            for worker in await pool.fence_expired():
                output().note(f"{worker} has stopped renewing and is fenced")


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
