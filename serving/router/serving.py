"""A router's HTTP API, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from kv_pool.edge.journal import Recording
from kv_pool.edge.pool import Pool
from kv_pool.routing.cost import CostModel
from serving.api.app import Api, Served
from serving.api.metrics import Metrics
from serving.api.server import answer, now_s
from serving.engine.assembly import geometry_of, namespace_of
from serving.instance.links import Links
from serving.router.fleet import Fleet, FleetSettings, nobody
from serving.router.session import Sessions, session
from serving.transport import Carrier, Endpoint, SharedCarrier, TcpCarrier

if TYPE_CHECKING:
    import socket

    import k2store
    from kv_pool.edge.following import Tree
    from kv_pool.edge.journal import Journal
    from serving.model import LoadedModel


async def serve_router(
    db: k2store.Database,
    sock: socket.socket,
    loaded: LoadedModel,
    *,
    region: str,
    settings: FleetSettings,
    dial: Mapping[str, str],
    journal: Journal | None,
    prefill_tokens_per_s: float,
    on_ready: Callable[[], None],
) -> None:
    """Answer at a listening socket until SIGTERM or SIGINT.

    dial     workers that are reached elsewhere than they say
    journal  takes down what is asked of the directory: fences of workers
    """
    geometry = geometry_of(loaded.model)
    cost = CostModel(
        base_s=0.0,
        linear_s=1.0 / prefill_tokens_per_s,
        attention_s=0.0,
        block_tokens=geometry.page_tokens,
        block_bytes=geometry.page_bytes,
    )
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(Pool(db, region))
        if journal is not None:
            pool.store = Recording(pool.store, journal)
        tree = await stack.enter_async_context(pool.learner())
        word = db.rng.getrandbits(128).to_bytes(16, "big").hex()
        carriers: list[Carrier] = [SharedCarrier(word), TcpCarrier("127.0.0.1:0", dial=dial)]
        endpoints = [
            await stack.enter_async_context(Endpoint(carrier, f"router of {region}", []))
            for carrier in carriers
        ]
        links = Links(region, endpoints, nobody)
        links.start()
        stack.push_async_callback(links.stop)
        namespace = namespace_of(loaded, geometry).digest()
        fleet = Fleet(pool, tree, links, namespace, cost, settings, session)
        keeping = asyncio.get_running_loop().create_task(fleet.keep_house())
        stack.callback(keeping.cancel)
        metrics = Metrics()

        async def figures() -> bytes:
            return metrics.text(list(_figures(fleet, tree)))

        api = Api(Served(loaded.name, loaded.tokenizer), fleet, metrics, figures, now_s)
        on_ready()
        await answer(sock, Sessions(api))


def _figures(fleet: Fleet, tree: Tree) -> Iterator[Metric]:
    counts = fleet.counts
    counted = {
        "requests": ("Requests taken on.", counts.requests),
        "failed": ("Requests that got no answer, or not all of it.", counts.failed),
        "resumed": ("Answers that went on at another worker.", counts.resumed),
        "retried": ("Requests that were given to another worker.", counts.retried),
        "spilled": ("Requests that a worker of another region was given.", counts.spilled),
        "prompt_tokens": ("Tokens of prompts.", counts.prompt_tokens),
        "cached_tokens": ("Of them, found computed.", counts.cached_tokens),
    }
    for name, (what, value) in counted.items():
        yield CounterMetricFamily(f"k2_router_{name}", what, value)
    yield GaugeMetricFamily(
        "k2_router_staleness_seconds", "By how much the learner may lag.", tree.staleness_s
    )
    load = GaugeMetricFamily(
        "k2_router_load_seconds", "Work that a worker was given.", labels=["worker"]
    )
    for worker, given in fleet.loads.items():
        load.add_metric([str(worker)], given.queued_s)
    yield load
