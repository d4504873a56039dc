"""Retention policies in running workers: flat memory, and a directory that takes nothing of theirs for exact."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from bench.serve.fleet import fleet
from k2store.testing import LocalNode, local_node
from kv_pool.blocks import chain, root
from kv_pool.namespace import Kind
from serving.instance.instance import Instance
from serving.instance.steps import Role, Step
from serving.sparse.publication import residency_namespace
from serving.sparse.retention import RetentionCounts
from tests.integration.serving_fleet import NAMESPACE, agree, fleets, said
from tests.unit.serving_engines import PAGE_TOKENS, answer_of, prompt_of
from tests.unit.serving_retained import BUDGET, plain, policy_of

K2 = str(Path(sys.executable).parent / "k2")
RAAS = {"retain": "raas", "budget": BUDGET}
SPARSE = residency_namespace(NAMESPACE, policy_of("raas"))


@pytest.fixture(scope="module")
def node() -> Iterator[LocalNode]:
    """A node process."""
    with local_node(clock__bound="200us") as running:
        yield running


def on(node: LocalNode):
    """Workers on the node."""
    return fleets(lambda region: node.connect())


async def retained(instance: Instance) -> RetentionCounts:
    """What a worker's policy has done."""
    return await instance.front.call(lambda engine: engine.retained)


def test_what_was_kept_is_told_as_sparse_and_as_nothing_else(node: LocalNode) -> None:
    """After a long answer the directory has the prompt as exact and what the policy kept of the answer as sparse, in
    a namespace that names the policy and goes on from the exact one. Who asks for exact blocks of the conversation
    is given the prompt, and computes the rest right."""
    prompt = prompt_of(40)

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("sparse", **RAAS)
            other = await fleet.worker("exact")
            # The last page is just full, and no layer lets go of the page that it writes.
            tokens, _ = await said(one.generate, prompt, 121)
            assert tokens == plain("raas", prompt, 121)
            counts = await retained(one)
            assert counts.pages_max == BUDGET // PAGE_TOKENS
            assert 0 < counts.kept_blocks <= BUDGET // PAGE_TOKENS
            await agree(one, other)
            rows = list(other.tree.learner.valid_runs([one.worker]))
            held = {namespace: 0 for _, _, namespace, _ in rows}
            for _, _, namespace, run in rows:
                held[namespace] += run.live
            exact = NAMESPACE.digest()
            assert held == {exact: 2, SPARSE.digest(): counts.kept_blocks}
            known = other.tree.learner.namespace(SPARSE.digest())
            assert known is not None
            assert (known.kind, known.parent) == (Kind.SPARSE, exact)
            assert known.retention == policy_of("raas").retention
            whole = (*prompt, *tokens)
            assert other.tree.workers(exact, other.names(whole)) == {one.worker: 2}
            answer, usage = await said(other.generate, whole)
            assert (answer, usage.cached) == (answer_of(whole, 12), 32)
            assert other.exchange.counts.fetched_blocks == 2
            await one.check_integrity()
            await other.check_integrity()

    asyncio.run(scene())


def test_kept_blocks_can_be_claimed_where_they_are(node: LocalNode) -> None:
    """A row of the sparse namespace is a fact: who claims it is told where its pages lie, until it lets go."""
    prompt = prompt_of(48, 2)

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("claimed", retain="window", budget=BUDGET)
            tokens, _ = await said(one.generate, prompt, 130)
            await one.idle()
            pool = await fleet.pool()
            window = residency_namespace(NAMESPACE, policy_of("window")).digest()
            names = chain(root(window), (*prompt, *tokens), PAGE_TOKENS).names
            # 129 rows were decoded, in nine pages; the newest two of them that are full are whole.
            kept = names[-2 * 16 :]
            async with pool.learner() as tree:
                await agree(one)
                await tree.caught_up(one.tree.as_of)
                cover = tree.cover(one.worker, window, kept)
                assert cover is not None
                assert cover.blocks == 2
                async with pool.claim(cover):
                    assert await one.residency.retire([kept[:16]]) == 0
                    assert len(one.residency.locate(kept)) == 2
            assert await one.residency.retire([kept[:16], kept[16:]]) == 2
            await one.check_integrity()

    asyncio.run(scene())


def test_memory_is_flat_and_without_a_limit_nothing_changes(node: LocalNode) -> None:
    """A four times longer answer holds no more pages in any layer; with an unlimited budget the answer is that of a
    worker without a policy."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("flat", **RAAS)
            for count in (100, 400):
                await said(one.generate, prompt_of(40, 3), count)
                assert (await retained(one)).pages_max == BUDGET // PAGE_TOKENS
            endless = await fleet.worker("endless", retain="raas")
            tokens, _ = await said(endless.generate, prompt_of(40, 3), 100)
            assert tokens == answer_of(prompt_of(40, 3), 100)
            for each in (one, endless):
                await each.check_integrity()

    asyncio.run(scene())


def test_a_decode_worker_retains_behind_a_prompt_that_another_one_computed(node: LocalNode) -> None:
    """Prefill there, decode here under a policy: the answer is the policy's, and only the prompt's blocks go back."""
    prompt = prompt_of(70, 5)

    async def scene() -> None:
        async with on(node) as fleet:
            prefill = await fleet.worker("p", role=Role.PREFILL, step=Step.CACHING_3)
            decode = await fleet.worker("d", role=Role.DECODE, step=Step.CACHING_3, **RAAS)
            await agree(prefill, decode)
            tokens, _ = await said(decode.generate, prompt, 90)
            assert tokens == plain("raas", prompt, 90)
            assert prefill.exchange.counts.prefills_served == 1
            await agree(prefill, decode)
            held = decode.tree.workers(NAMESPACE.digest(), decode.names((*prompt, *tokens)))
            assert held == {prefill.worker: 4, decode.worker: 4}
            await prefill.check_integrity()
            await decode.check_integrity()

    asyncio.run(scene())


def told(url: str, model: str, tokens: int) -> str:
    """A greedy answer."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as api:
        done = api.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Count to forty, and then go on."}],
            max_tokens=tokens,
            temperature=0,
        )
    return done.choices[0].message.content or ""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_as_anybody_starts_them_retain() -> None:
    """`k2 fleet worker --retain`: with a budget pages are flat; without one the answer is that of a worker without a
    policy; a budget without a policy, and a policy that could keep nothing, are usage errors."""
    workers = [
        ("a", ["--retain", "raas", "--budget", "48"]),
        ("b", ["--retain", "raas"]),
        ("c", []),
    ]
    with fleet("toy", workers) as running:
        urls = {name: f"http://{address}/v1" for name, address in running.workers.items()}
        for count in (100, 400):
            assert len(told(urls["a"], "toy", count)) == count
            assert running.counted("k2_worker_retained_pages_max", only="a") == 3
        assert told(urls["b"], "toy", 100) == told(urls["c"], "toy", 100)
        assert running.counted("k2_worker_retained_pages_max", only="b") in {7, 8}
        assert running.counted("k2_worker_retained_pages") == 0
    for options in (
        ["--budget", "48"],
        ["--retain", "quest"],
        ["--retain", "h2o", "--budget", "3"],
    ):
        done = subprocess.run(
            [K2, "serve", "--listen", "127.0.0.1:0", *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "budget" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_real_model_retains_in_a_worker_of_its_own() -> None:
    """`k2 serve --retain raas` with SmolLM2: without a limit it says what a worker without a policy says."""
    answers = []
    for options in (["--retain", "raas"], []):
        command = [K2, "serve", "--listen", "127.0.0.1:0", "--threads", "1", "--json", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                ready = json.loads(process.stdout.readline())
                answers.append(told(ready["url"], ready["model"], 24))
            finally:
                process.terminate()
    assert answers[0] == answers[1] != ""
