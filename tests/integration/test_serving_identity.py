"""The real model and a conversation of two turns: greedy tokens are those of one engine that caches nothing, token by
token, wherever keys and values were when they were needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from k2store.testing.cluster import LocalCluster, local_cluster
from kv_pool.keys import Worker
from serving.engine.assembly import Tiers, engine_over
from serving.engine.engine import Engine
from serving.engine.request import Request
from serving.engine.settings import EngineSettings
from serving.instance.steps import Role, Step
from serving.model import Message, prompt_tokens
from tests.integration.serving_fleet import agree, fleets, now, said, worker_process
from tests.unit.serving_models import smollm2

REGIONS = ("fra", "iad")
KEYSPACES = (*[f"{each}:d/{each}/:zone:{each}" for each in REGIONS], "default:region:fra")
ANSWER = 10
PAGES = 16
Turn = tuple[tuple[int, ...], list[int]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A node in each of two regions, with the WAN between them."""
    with local_cluster(REGIONS, wan="proxy", tls=False, keyspaces=KEYSPACES) as running:
        yield running


def ask(engine: Engine, prompt: tuple[int, ...]) -> tuple[list[int], int]:
    """An engine's answer, and how much of the prompt it had."""
    engine.submit(Request(tokens=prompt, max_tokens=ANSWER))
    tokens, cached = [], 0
    while engine.has_work:
        for outcome in engine.step():
            if outcome.token is not None:
                tokens.append(outcome.token)
            cached = outcome.usage.cached
    engine.check_integrity()
    return tokens, cached


@cache
def turns() -> tuple[Turn, Turn]:
    """Two prompts, the second of which goes on behind the first one's answer, and what an engine says that keeps
    nothing."""
    engine = engine_over(smollm2(), Tiers(device=PAGES), EngineSettings(keeps_prefixes=False))
    asked = [Message("user", "Name the capital of France and one river in it, in one sentence.")]
    first = tuple(prompt_tokens(smollm2().tokenizer, asked))
    told, cached = ask(engine, first)
    assert cached == 0
    more = prompt_tokens(smollm2().tokenizer, [Message("user", "And of Spain?")])
    second = (*first, *told, *more)
    answer, cached = ask(engine, second)
    assert cached == 0
    assert len(told) == len(answer) == ANSWER
    assert told != answer
    return (first, told), (second, answer)


def known(turn: int) -> int:
    """Tokens of a turn's prompt that lie in whole pages which it, or all before it, has filled: for the second turn
    the first one's prompt and answer, but for the last token, which has no keys."""
    first, _ = turns()[0]
    return (len(first) - 1 if turn == 0 else len(first) + ANSWER - 1) // 16 * 16


@pytest.mark.slow
@pytest.mark.parametrize("lowest", ["host", "disk"])
def test_swapped_in(lowest: str, tmp_path: Path) -> None:
    """From the host's memory, and from the disk: both turns, each after all pages went down to that tier."""
    host, disk = (16, 0) if lowest == "host" else (1, 16)
    engine = engine_over(
        smollm2(), Tiers(device=PAGES, host=host, disk=disk, disk_path=tmp_path / "pages")
    )
    for turn, (prompt, expected) in enumerate(turns()):
        assert ask(engine, prompt) == (expected, known(1) if turn else 0)
        held = engine.pool.census().cached
        assert engine.pool.swap_out(held) == held
        tiers = {slot.tier for slot in engine.pool.match(prompt)}
        assert tiers == ({1} if lowest == "host" else {1, 2})
        before = engine.pool.counts.swapped_in
        expected_cached = (len(prompt) - 1) // 16 * 16
        assert ask(engine, prompt) == (expected, expected_cached)
        assert engine.pool.counts.swapped_in - before == expected_cached // 16
        # The next turn finds all of this below, too.
        engine.pool.swap_out(engine.pool.census().cached)
    engine.pool.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_pulled_from_another_process_and_another_region(cluster: LocalCluster) -> None:
    """A process in Frankfurt has answered the first turn: a worker there goes on from its pages over shared memory, one
    that may not share memory over TCP, and one in the other region over TCP; each when the process alone has them."""
    (first, told), (second, answer) = turns()
    apart = Worker("fra", "apart")
    blocks = known(1) // 16

    async def begun() -> None:
        """The process answers the first turn."""
        async with fleets(cluster.connect) as fleet:
            router = await fleet.router("fra")
            while router._tree.identity(apart) is None:
                await router._tree.caught_up(await now(router._pool), timeout=30)
            asked = Request(tokens=first, max_tokens=ANSWER)
            async with router.generate(asked, apart) as outcomes:
                assert [one.token async for one in outcomes] == told

    async def goes_on(name: str, region: str, *, shares: bool) -> None:
        """A worker answers the second turn from the pages of the process."""
        async with fleets(cluster.connect) as fleet:
            worker = await fleet.worker(
                name,
                region,
                smollm2().model,
                pages=PAGES,
                lease_s=30.0,
                regions=REGIONS,
                shares_memory=shares,
            )
            names = worker.names(second)
            while worker.tree.workers(worker.exchange.namespace, names) != {apart: blocks}:
                await worker.tree.caught_up(await now(worker.pool), timeout=30)
            tokens, usage = await said(worker.generate, second, ANSWER)
            assert (tokens, usage.cached) == (answer, known(1))
            assert worker.exchange.counts.fetched_blocks == blocks
            *shared, tcp = [endpoint.counts.read_calls for endpoint in worker.links.endpoints]
            is_near = shares and region == "fra"
            assert (sum(shared), tcp) == ((blocks, 0) if is_near else (0, blocks))
            await worker.check_integrity()

    address = cluster.address("fra")
    with worker_process(address, "apart", model="smollm2", lease_s=30.0, pages=32, regions=REGIONS):
        asyncio.run(begun())
        asyncio.run(goes_on("near", "fra", shares=True))
        asyncio.run(goes_on("wire", "fra", shares=False))
        asyncio.run(goes_on("far", "iad", shares=True))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", Step)
def test_through_prefill_and_decode_workers(cluster: LocalCluster, step: Step) -> None:
    """Both turns, the prompt computed by a prefill worker and the answer by a decode worker, in each step of MemServe:
    the second turn finds what the step keeps."""

    async def scene() -> None:
        async with fleets(cluster.connect) as fleet:
            options: dict = {
                "model": smollm2().model,
                "step": step,
                "fetches": False,
                "pages": PAGES,
                "lease_s": 30.0,
            }
            prefill = await fleet.worker(f"{step}-p", role=Role.PREFILL, **options)
            decode = await fleet.worker(f"{step}-d", role=Role.DECODE, **options)
            await agree(prefill, decode)
            found = []
            for prompt, expected in turns():
                tokens, usage = await said(decode.generate, prompt, ANSWER)
                assert tokens == expected
                found.append(usage.cached)
                await agree(decode, prefill)
            prompt_alone = (len(turns()[0][0])) // 16 * 16
            kept = {Step.BASIC: 0, Step.CACHING_3: known(1)}.get(step, prompt_alone)
            assert found == [0, kept]
            assert decode.exchange.counts.prefills_failed == 0
            assert prefill.exchange.counts.prefills_served == 2
            for one in (prefill, decode):
                await one.check_integrity()

    asyncio.run(scene())
