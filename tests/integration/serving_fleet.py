"""Workers of a tiny model for the tests of instances, in this process or in ones of their own; and what they say.

``python -m tests.integration.serving_fleet ADDRESS SETTINGS PLACE MODEL`` is a worker: JSON of its settings, ready
when it says a line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

import k2store
from kv_pool.edge.pool import Pool
from kv_pool.namespace import Namespace
from kv_pool.routing.cost import CostModel
from serving.engine.request import Request
from serving.instance.instance import Instance, InstanceSettings, open_instance
from serving.instance.links import Links, Way
from serving.instance.messages import Granted
from serving.router.fleet import Fleet, FleetSettings, nobody
from serving.transport import Carrier, Endpoint, SharedCarrier, TcpCarrier
from serving.transport.link import Link
from tests.unit.serving_engines import GEOMETRY, lively, text_of
from tests.unit.serving_models import smollm2

NAMESPACE = Namespace(
    tenant="",
    model="lively",
    revision="1",
    dtype="float32",
    layout=GEOMETRY.layout,
    block_tokens=GEOMETRY.page_tokens,
)
SLOW_TOKENS_PER_S = 1.0
"""What the cost model is told, so that fetching always pays: the tiny model computes faster than pages travel."""


class Fleets:
    """Opens workers, pools and routers on a node or a cluster, and closes them together."""

    def __init__(self, stack: AsyncExitStack, connect) -> None:
        self._stack = stack
        self._connect = connect

    async def worker(self, name: str, region: str = "fra", model=None, **settings) -> Instance:
        """A worker in this process, of the tiny model unless another one is given."""
        db = await self._stack.enter_async_context(self._connect(region))
        said = {"prefill_tokens_per_s": SLOW_TOKENS_PER_S, "pages": 64, **settings}
        return await self._stack.enter_async_context(
            open_instance(
                db,
                InstanceSettings(region=region, name=name, **said),
                model or lively(),
                namespace=NAMESPACE,
                decode=text_of,
            )
        )

    async def pool(self, region: str = "fra") -> Pool:
        """A look at the directory."""
        db = await self._stack.enter_async_context(self._connect(region))
        return await self._stack.enter_async_context(Pool(db, region))

    async def router(self, region: str = "fra", **settings) -> Fleet:
        """A router in this process."""
        pool = await self.pool(region)
        tree = await self._stack.enter_async_context(pool.learner())
        carriers: list[Carrier] = [SharedCarrier(os.urandom(8).hex()), TcpCarrier("127.0.0.1:0")]
        endpoints = [
            await self._stack.enter_async_context(Endpoint(carrier, "router", []))
            for carrier in carriers
        ]
        links = Links(region, endpoints, nobody)
        links.start()
        self._stack.push_async_callback(links.stop)
        cost = CostModel(block_tokens=16, block_bytes=GEOMETRY.page_bytes)
        fleet = Fleet(pool, tree, links, NAMESPACE.digest(), cost, FleetSettings(**settings))
        keeping = asyncio.create_task(fleet.keep_house())
        self._stack.callback(keeping.cancel)
        return fleet


@asynccontextmanager
async def fleets(connect) -> AsyncIterator[Fleets]:
    """`connect`: a region's database, for ``async with``."""
    async with AsyncExitStack() as stack:
        yield Fleets(stack, connect)


async def said(generate, prompt: tuple[int, ...], count: int = 12, **request):
    """Tokens and usage of an answer."""
    asked = Request(tokens=prompt, max_tokens=count, **request)
    async with generate(asked) as stream:
        outcomes = [outcome async for outcome in stream]
    tokens = [outcome.token for outcome in outcomes if outcome.token is not None]
    return tokens, outcomes[-1].usage


async def agree(*instances: Instance) -> None:
    """What each of them has published is seen by all of them."""
    for instance in instances:
        await instance.idle()
    at = max([await now(instance.pool) for instance in instances])
    for instance in instances:
        await instance.tree.caught_up(at)


async def now(pool: Pool) -> int:
    """A stamp behind everything that was committed so far."""
    async with pool.db.snapshot(strong=True) as view:
        await view.get(b"d/")
        return view.at


@contextmanager
def worker_process(
    address: str,
    name: str,
    *,
    region: str = "fra",
    stops: str = "",
    model: str = "lively",
    **settings,
) -> Iterator[subprocess.Popen]:
    """A worker in a process of its own.

    stops  where it stops itself (SIGSTOP), for somebody to kill it there; see `_stop_at`
    model  the tiny one, or ``smollm2``
    """
    said = {"prefill_tokens_per_s": SLOW_TOKENS_PER_S, "pages": 64, **settings}
    encoded = msgspec.json.encode(InstanceSettings(region=region, name=name, **said)).decode()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.serving_fleet", address, encoded, stops, model],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def stopped(process: subprocess.Popen) -> None:
    """Return when a process has stopped itself."""
    while True:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        assert state != "Z", "it ended before it came there"
        await asyncio.sleep(0.01)


def _stop_at(place: str, instance: Instance) -> None:
    """Have this process stop itself where the scene wants it killed.

    publish  blocks are complete, and the directory has not been told
    piece    in the middle of sending pages that somebody reads
    read     in the middle of reading pages of somebody
    write    in the middle of writing pages to somebody
    grant    pages are granted, and whoever is to write them is not told
    """

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    async def stop_at_once(*arguments, **options) -> None:
        stop()

    for endpoint in instance.links.endpoints:
        carrier = endpoint._carrier
        if place in {"read", "write"}:
            move = getattr(carrier, place)

            async def one_page(here, peer, number, pairs, mode, move=move) -> None:
                await move(here, peer, number, pairs[:1], mode)
                stop()

            setattr(carrier, place, one_page)
    match place:
        case "" | "read" | "write":
            pass
        case "publish":
            setattr(instance.session, place, stop_at_once)
        case "piece":
            send = Link.send_piece

            async def one_piece(*arguments) -> None:
                await send(*arguments)
                stop()

            Link.send_piece = one_piece  # type: ignore[assignment, method-assign]
        case "grant":
            say = Way.say

            async def all_but_granted(way, message) -> None:
                if isinstance(message, Granted):
                    stop()
                await say(way, message)

            Way.say = all_but_granted  # type: ignore[assignment, method-assign]
        case _:
            raise AssertionError(place)


async def _serve(address: str, settings: InstanceSettings, place: str, named: str) -> None:
    model = smollm2().model if named == "smollm2" else lively()
    async with (
        k2store.connect(address) as db,
        open_instance(db, settings, model, namespace=NAMESPACE, decode=text_of) as instance,
    ):
        _stop_at(place, instance)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        raise await instance.failed


if __name__ == "__main__":
    asyncio.run(
        _serve(
            sys.argv[1],
            msgspec.json.decode(sys.argv[2], type=InstanceSettings),
            sys.argv[3],
            sys.argv[4],
        )
    )
