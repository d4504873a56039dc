"""Linked documents in running workers: compiled once anywhere, found by content, fetched like any page, never exact."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from bench.serve.fleet import fleet
from k2store.testing import LocalNode, local_node
from k2store.testing.cluster import LocalCluster, local_cluster
from kv_pool.keys import Worker
from serving.instance.instance import Instance
from serving.linking import chunk_namespace
from serving.linking.linker import LinkCounts
from tests.integration.serving_fleet import (
    NAMESPACE,
    agree,
    fleets,
    now,
    said,
    stopped,
    worker_process,
)
from tests.unit.serving_chunks import DOCUMENTS, HEAD, WHOLE, reference, told
from tests.unit.serving_engines import GEOMETRY, answer_of

K2 = str(Path(sys.executable).parent / "k2")
REGIONS = ("fra", "iad")
KEYSPACES = (*[f"{each}:d/{each}/:zone:{each}" for each in REGIONS], "default:region:fra")
CHUNKS = chunk_namespace(NAMESPACE).digest()
PARTS = (HEAD, *DOCUMENTS)
BLOCKS = sum(-(-len(part) // 16) for part in PARTS)


@pytest.fixture(scope="module")
def node() -> Iterator[LocalNode]:
    """A node process."""
    with local_node(clock__bound="200us") as running:
        yield running


def on(node: LocalNode):
    """Workers on the node."""
    return fleets(lambda region: node.connect())


async def links(instance: Instance) -> LinkCounts:
    """What a worker has linked."""
    return await instance.front.call(lambda engine: engine.links)


async def asked(instance: Instance, documents=DOCUMENTS, count: int = 12):
    """Tokens and usage of an answer about documents."""
    tokens, chunks = told(*documents)
    return await said(instance.generate, tokens, count, chunks=chunks)


def test_a_chunk_is_compiled_once_and_linked_by_all(node: LocalNode) -> None:
    """One worker compiles; others find the chunks by content, claim, fetch and check them, over shared memory and
    TCP, and link them in another order; each answers as the library does, and nobody computes a chunk twice."""
    turned = DOCUMENTS[::-1]

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("one", link=4)
            tokens, usage = await asked(one)
            assert (tokens, usage.cached) == (reference(DOCUMENTS, 4, 12), 0)
            for other in [
                await fleet.worker("two", link=4),
                await fleet.worker("three", link=4, shares_memory=False),
            ]:
                await agree(one, other)
                tokens, usage = await asked(other, turned)
                assert tokens == reference(turned, 4, 12)
                counts = await links(other)
                assert (counts.compiled, counts.found) == (0, len(PARTS))
                assert counts.recomputed_tokens == 4 * len(DOCUMENTS) + 7
                assert other.exchange.counts.fetched_chunks == len(PARTS)
                assert other.exchange.counts.fetched_blocks == BLOCKS
                assert usage.cached == len(HEAD) + sum(len(part) - 4 for part in DOCUMENTS)
                # Here already: nothing is asked of anybody.
                await asked(other)
                assert other.exchange.counts.fetched_blocks == BLOCKS
                await other.check_integrity()
            await one.check_integrity()

    asyncio.run(scene())


def test_nothing_of_a_linked_prompt_is_exact(node: LocalNode) -> None:
    """The directory has the chunks in their own namespace, and no block of the prompt or its answer in any; a worker
    that does not link computes the same prompt and gets nothing; with k as long as the chunks all say the same."""
    tokens, chunks = told(*DOCUMENTS)
    exact = answer_of(tokens, 24)

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("linked", link=0)
            first, _ = await asked(one, count=24)
            assert first == reference(DOCUMENTS, 0, 24)
            assert first != exact
            plain = await fleet.worker("plain")
            whole = await fleet.worker("whole", link=WHOLE)
            await agree(one, plain, whole)
            rows = list(plain.tree.learner.valid_runs([one.worker]))
            assert {namespace for _, _, namespace, _ in rows} == {CHUNKS}
            assert sum(run.live for _, _, _, run in rows) == BLOCKS == one.residency.blocks
            known = plain.tree.learner.namespace(CHUNKS)
            assert known is not None
            assert known.layout != GEOMETRY.layout
            names = one.names((*tokens, *first))
            for each in (NAMESPACE.digest(), CHUNKS):
                assert plain.tree.workers(each, names) == {}
            again, usage = await said(plain.generate, tokens, 24, chunks=chunks)
            assert (again, usage.cached) == (exact, 0)
            assert plain.exchange.counts.fetched_blocks == 0
            # Its exact blocks are no chunks: who links does not take them, and who computes does.
            await agree(plain, whole)
            answer, _ = await asked(whole, count=24)
            assert answer == exact
            assert whole.exchange.counts.fetched_blocks == BLOCKS
            other = await fleet.worker("other")
            await agree(plain, other)
            answer, usage = await said(other.generate, tokens, 24, chunks=chunks)
            assert (answer, usage.cached) == (exact, len(tokens) // 16 * 16)
            for each in (one, plain, whole, other):
                await each.check_integrity()

    asyncio.run(scene())


def test_a_chunk_whose_holder_is_killed_is_compiled(node: LocalNode) -> None:
    """Kill -9 of the holder in the middle of the pages of a chunk: the answer is the same, and no page is lost."""

    async def scene() -> None:
        async with on(node) as fleet:
            with worker_process(
                node.address, "victim", stops="piece", link=4, shares_memory=False
            ) as process:
                router = await fleet.router()
                reader = await fleet.worker("reader", link=4, shares_memory=False)
                victim = Worker("fra", "victim")
                tokens, chunks = told(*DOCUMENTS)
                await router._tree.caught_up(await now(router._pool))
                on_victim = lambda request: router.generate(request, victim)  # noqa: E731
                answer, _ = await said(on_victim, tokens, chunks=chunks)
                assert answer == reference(DOCUMENTS, 4, 12)
                while not reader.tree.cover(victim, CHUNKS, _names(reader, HEAD)):
                    await reader.tree.caught_up(reader.tree.as_of + 1)
                asking = asyncio.create_task(asked(reader))
                await stopped(process)
                process.kill()
                answer, _ = await asking
                assert answer == reference(DOCUMENTS, 4, 12)
                assert sum(reader.exchange.counts.fetches_failed.values()) >= 1
                assert (await links(reader)).compiled >= 1
                await reader.check_integrity()

    asyncio.run(scene())


def _names(instance: Instance, chunk: tuple[int, ...]) -> bytes:
    linker = instance._linker
    assert linker is not None
    return linker.names(chunk)


def test_chunks_leave_the_directory_and_come_back(node: LocalNode) -> None:
    """Where little may be published, chunks that were used least leave the directory and stay a private hit; what is
    used again is published again."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("small", link=4, pages=40, published_share=0.2)
            await asked(one, DOCUMENTS)
            await one.idle()
            assert one.residency.blocks == 8 < BLOCKS
            assert one.residency.counts.retired == BLOCKS - 8
            tokens, _ = await asked(one, DOCUMENTS[:1])
            assert tokens == reference(DOCUMENTS[:1], 4, 12)
            assert (await links(one)).compiled == len(PARTS)
            await one.idle()
            pool = await fleet.pool()
            async with pool.learner(fragments=True) as tree:
                await tree.caught_up(await now(pool))
                cover = tree.cover(one.worker, CHUNKS, _names(one, DOCUMENTS[0]))
                assert cover is not None
                assert cover.blocks == 2
            await one.check_integrity()

    asyncio.run(scene())


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_chunks_of_another_region_are_linked() -> None:
    """Compiled in Frankfurt, found and fetched in Virginia, claimed where their holder is at home."""

    async def scene(cluster: LocalCluster) -> None:
        async with fleets(cluster.connect) as fleet:
            fra = await fleet.worker("w", "fra", regions=REGIONS, lease_s=20.0, link=4)
            iad = await fleet.worker("w", "iad", regions=REGIONS, lease_s=20.0, link=4)
            await asked(fra)
            await fra.idle()
            await iad.tree.caught_up(await now(fra.pool), timeout=30)
            tokens, _ = await asked(iad, DOCUMENTS[::-1])
            assert tokens == reference(DOCUMENTS[::-1], 4, 12)
            assert iad.exchange.counts.fetched_chunks == len(PARTS)
            assert (await links(iad)).compiled == 0
            await fra.check_integrity()
            await iad.check_integrity()

    with local_cluster(REGIONS, wan="proxy", keyspaces=KEYSPACES) as cluster:
        asyncio.run(scene(cluster))


TEXTS = [
    "The lighthouse keeper counts the ships each night and writes their number on the door.\n\nIt is blue.",
    "A baker in the harbour sells bread at five in the morning, and nothing else until noon.",
    "Two rivers meet behind the station; one of them is older than the town.",
]


def about(url: str, model: str, texts: list, tokens: int = 24) -> tuple[str, int]:
    """A greedy answer about documents that OpenAI's library sends, and cached tokens."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as api:
        done = api.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is said here?"}],
            max_tokens=tokens,
            temperature=0,
            extra_body={"documents": texts},
        )
    usage = done.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    return done.choices[0].message.content or "", usage.prompt_tokens_details.cached_tokens or 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_as_anybody_starts_them_share_documents() -> None:
    """Three processes behind `k2 fleet`: one compiles, one links what it fetches, one does not link. With all rows
    computed anew the three say the same to OpenAI's library; the router passes documents on."""
    link = ["--link", "512", "--prefill-rate", "1"]
    workers = [("a", link), ("b", link), ("c", ["--prefill-rate", "1"])]
    with fleet("toy", workers, policy="least-load") as running:
        urls = {name: f"http://{address}/v1" for name, address in running.workers.items()}
        first, cached = about(urls["a"], "toy", TEXTS)
        assert (len(first), cached) == (24, 0)
        chunks = running.counted("k2_worker_linked_chunks_total", only="a", how="compiled")
        assert chunks == len(TEXTS) + 1
        published = running.counted("k2_fleet_published_blocks", only="a")
        exact, _ = about(urls["c"], "toy", TEXTS)
        assert exact == first
        assert running.counted("k2_fleet_fetched_blocks_total", only="c") == 0
        about(urls["b"], "toy", [{"title": "", "text": text} for text in TEXTS[::-1]])
        assert running.counted("k2_fleet_fetched_chunks_total", only="b") == chunks
        assert running.counted("k2_fleet_fetched_blocks_total", only="b") == published
        assert running.counted("k2_worker_compiled_tokens_total", only="b") == 0
        again, _ = about(urls["b"], "toy", TEXTS)
        assert again == first
        assert about(f"http://{running.router}/v1", "toy", TEXTS)[0] == first


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_real_model_links_documents_in_a_worker_of_its_own() -> None:
    """`k2 serve --link` with SmolLM2: documents in another order are found; rows computed anew are the formula; with
    all rows computed the answer is that of a worker that does not link."""
    answers = []
    for rows in (512, 8, None):
        command = [K2, "serve", "--listen", "127.0.0.1:0", "--threads", "1", "--json"]
        command += [] if rows is None else ["--link", str(rows)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready = json.loads(process.stdout.readline())
                url, model = ready["url"], ready["model"]
                answer, cached = about(url, model, TEXTS, 12)
                assert cached == 0
                answers.append(answer)
                _, cached = about(url, model, TEXTS[::-1], 2)
                told = figures(url)
            finally:
                process.terminate()
        if rows is None:
            assert told["k2_worker_linked_prompts_total"] == 0
            continue
        chunks = len(TEXTS) + 1
        assert told['k2_worker_linked_chunks_total{how="compiled"}'] == chunks
        assert told['k2_worker_linked_chunks_total{how="found"}'] == chunks
        linked = told["k2_worker_linked_tokens_total"]
        assert told["k2_worker_compiled_tokens_total"] == linked / 2
        tails = told["k2_worker_prompt_tokens_total"] - linked
        if rows == 8:
            assert told["k2_worker_recomputed_tokens_total"] == tails + 2 * 8 * len(TEXTS)
            assert cached == linked / 2 - 8 * len(TEXTS)
    assert answers[0] == answers[2]


def figures(url: str) -> dict[str, float]:
    """What a worker says of itself."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=60) as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
