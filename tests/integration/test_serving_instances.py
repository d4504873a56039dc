"""Workers that use each other's pages: the same tokens from wherever, nothing leaked, whoever is killed when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import k2store
from k2store.testing import LocalNode, local_node
from kv_pool.keys import Worker
from serving.engine.request import Request, Sampling
from serving.instance.steps import Role, Step
from serving.transport import Mode
from tests.integration.serving_fleet import (
    agree,
    fleets,
    now,
    said,
    stopped,
    worker_process,
)
from tests.unit.serving_engines import answer_of, prompt_of, text_of


@pytest.fixture(scope="module")
def node() -> Iterator[LocalNode]:
    """A node process."""
    with local_node(clock__bound="200us") as running:
        yield running


def on(node: LocalNode):
    """Workers on the node."""
    return fleets(lambda region: node.connect())


def test_tokens_are_the_same_wherever_keys_and_values_come_from(node: LocalNode) -> None:
    """Greedy tokens are those of a plain loop, whether the prompt was computed, hit, swapped in, or read from
    another worker over shared memory or TCP; and what is said to be cached is."""
    prompt = prompt_of(100)
    expected = answer_of(prompt, 12)

    async def scene() -> None:
        async with on(node) as fleet:
            first = await fleet.worker("one", host_pages=16)
            tokens, usage = await said(first.generate, prompt)
            assert (tokens, usage.cached) == (expected, 0)
            tokens, usage = await said(first.generate, prompt)
            assert (tokens, usage.cached) == (expected, 96)
            await first.idle()
            # Out of the directory and down to the host, up again for who asks.
            assert await first.residency.shed(64) == 6
            assert await first.front.call(lambda engine: engine.pool.swap_out(6)) == 6
            tokens, usage = await said(first.generate, prompt)
            assert (tokens, usage.cached) == (expected, 96)
            assert first.mem_pool.counts.swapped_in == 6
            others = [
                await fleet.worker("two"),
                await fleet.worker("three", shares_memory=False),
            ]
            for other in others:
                await agree(first, other)
                tokens, usage = await said(other.generate, prompt)
                assert (tokens, usage.cached) == (expected, 96)
                assert other.exchange.counts.fetched_blocks == 6
            for each in (first, *others):
                await each.check_integrity()

    asyncio.run(scene())


def test_only_what_is_missing_is_fetched(node: LocalNode) -> None:
    """A longer prompt moves its new blocks alone; pages move as one call each."""

    async def scene() -> None:
        async with on(node) as fleet:
            one, two = await fleet.worker("delta-1"), await fleet.worker("delta-2")
            await said(one.generate, prompt_of(70))
            await agree(one, two)
            await said(two.generate, prompt_of(70))
            await said(one.generate, prompt_of(170))
            await agree(one, two)
            tokens, usage = await said(two.generate, prompt_of(170))
            assert tokens == answer_of(prompt_of(170), 12)
            assert usage.cached == 160
            assert two.exchange.counts.fetched_blocks == 4 + 6
            calls = sum([endpoint.counts.read_calls for endpoint in two.links.endpoints])
            assert calls == 10
            await one.check_integrity()
            await two.check_integrity()

    asyncio.run(scene())


def test_pages_in_pieces_take_twice_the_layers_of_calls(node: LocalNode) -> None:
    """The same prompt read by three workers, each in another mode: the same tokens and bytes, and 2 x layers times
    fewer calls where a page is one."""
    prompt = prompt_of(100, 6)

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("whole")
            await said(one.generate, prompt)
            await one.idle()
            counts = {}
            for mode in Mode:
                two = await fleet.worker(f"cut-{mode.name}", mode=mode)
                await agree(one, two)
                tokens, usage = await said(two.generate, prompt)
                assert (tokens, usage.cached) == (answer_of(prompt, 12), 96)
                read = [endpoint.counts for endpoint in two.links.endpoints]
                moved = sum([each.read_bytes for each in read])
                assert moved == 6 * two.mem_pool.geometry.page_bytes
                counts[mode] = sum([each.read_calls for each in read])
            pieces = 2 * one.mem_pool.geometry.layers
            assert counts == {
                Mode.BY_LAYER: 6 * pieces,
                Mode.BY_REQUEST: 6 * pieces,
                Mode.AGGREGATED: 6,
            }

    asyncio.run(scene())


def test_a_prefix_that_is_cheaper_to_compute_is_computed(node: LocalNode) -> None:
    """The cost model declines where the bandwidth is below the break-even, and that is published."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("dear-1")
            two = await fleet.worker("dear-2", prefill_tokens_per_s=1e12)
            await said(one.generate, prompt_of(70))
            await agree(one, two)
            tokens, usage = await said(two.generate, prompt_of(70))
            assert (tokens, usage.cached) == (answer_of(prompt_of(70), 12), 0)
            assert two.exchange.counts.fetches_declined == 1
            page = two.mem_pool.geometry
            per_token = page.page_bytes / page.page_tokens
            assert two.economy.break_even_bytes_per_s == pytest.approx(per_token * 1e12)
            assert one.economy.break_even_bytes_per_s == pytest.approx(per_token)

    asyncio.run(scene())


def test_damaged_and_reused_pages_are_computed_anew(node: LocalNode) -> None:
    """A page whose bytes changed behind its seal, and one that is somebody else's by now, are found out by who reads
    them: what comes before is used, the rest computed, and the tokens are right."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("bad-1")
            prompt = prompt_of(100, 3)
            await said(one.generate, prompt)
            await one.idle()
            where = one.residency.locate(one.names(prompt))
            store = one.mem_pool.stores[0]
            store.read(where[3].page)[5] ^= 1
            two = await fleet.worker("bad-2")
            await agree(one, two)
            tokens, usage = await said(two.generate, prompt)
            assert (tokens, usage.cached) == (answer_of(prompt, 12), 48)
            store.memory.seal(where[0].page, where[0].generation + 1)
            three = await fleet.worker("bad-3", shares_memory=False)
            await two.residency.shed(64)
            await agree(one, two, three)
            tokens, usage = await said(three.generate, prompt)
            assert (tokens, usage.cached) == (answer_of(prompt, 12), 0)
            assert three.exchange.counts.fetches_failed == {"Stale": 1}
            await two.check_integrity()
            await three.check_integrity()

    asyncio.run(scene())


def test_a_small_pool_retires_what_is_used_least(node: LocalNode) -> None:
    """With more prompts than pages the directory holds what was used last, requests always find room, what is claimed
    stays, and no page is lost."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("small", pages=16)
            watcher = await fleet.pool()
            async with watcher.learner() as tree:
                for seed in range(12):
                    prompt = prompt_of(60, seed)
                    tokens, _ = await said(one.generate, prompt)
                    assert tokens == answer_of(prompt, 12)
                    await one.idle()
                    assert one.residency.blocks <= 8
                assert one.residency.counts.retired > 20
                last, claimed = one.names(prompt_of(60, 11)), one.names(prompt_of(60, 10))
                await tree.caught_up(await now(watcher))
                namespace = one.exchange.namespace
                assert tree.workers(namespace, last) == {one.worker: 3}
                cover = tree.cover(one.worker, namespace, claimed)
                claim = await watcher.acquire(cover, ttl_s=120)
                for seed in range(20, 26):
                    await said(one.generate, prompt_of(60, seed))
                    await one.idle()
                assert len(one.residency.locate(claimed)) == 3
                assert one.residency.counts.pinned
                await watcher.release(claim)
                for seed in range(30, 36):
                    await said(one.generate, prompt_of(60, seed))
                    await one.idle()
                assert one.residency.locate(claimed) == ()
                # What is used again is published again, the claim or not.
                await said(one.generate, prompt_of(60, 10))
                await one.idle()
                assert len(one.residency.locate(claimed)) == 3
            # A prompt that needs almost all pages gets them, at the expense of the directory.
            tokens, _ = await said(one.generate, prompt_of(230))
            assert tokens == answer_of(prompt_of(230), 12)
            await one.check_integrity()

    asyncio.run(scene())


def test_what_left_the_directory_comes_back_when_it_is_used(node: LocalNode) -> None:
    """A prompt that was retired and is still in the cache is published again by the next one that begins with it, and
    what follows on it is published behind it."""

    async def scene() -> None:
        async with on(node) as fleet:
            one = await fleet.worker("again")
            await said(one.generate, prompt_of(60))
            await one.idle()
            assert await one.residency.shed(64) == 4
            assert one.residency.locate(one.names(prompt_of(60))) == ()
            _, usage = await said(one.generate, prompt_of(100))
            assert usage.cached == 48
            await one.idle()
            assert len(one.residency.locate(one.names(prompt_of(100)))) == 6
            await one.check_integrity()

    asyncio.run(scene())


def test_a_client_that_goes_away_disturbs_nobody(node: LocalNode) -> None:
    """A client that leaves while a prefill worker computes: its pages come back, and another client's prompt that is
    under way over the same link is not touched."""

    async def scene() -> None:
        async with on(node) as fleet:
            prefill = await fleet.worker("gone-p", role=Role.PREFILL)
            decode = await fleet.worker("gone-d", role=Role.DECODE)
            await agree(prefill, decode)
            await said(decode.generate, prompt_of(30))
            (peer,) = decode.links.endpoints[0].peers
            for delay_s in (0.0, 0.001, 0.003, 0.01, 0.03):
                leaving = asyncio.create_task(said(decode.generate, prompt_of(300, 1), 200))
                staying = asyncio.create_task(said(decode.generate, prompt_of(300, 2)))
                await asyncio.sleep(delay_s)
                leaving.cancel()
                tokens, _ = await staying
                assert tokens == answer_of(prompt_of(300, 2), 12)
            await decode.exchange.settled()
            await prefill.exchange.settled()
            assert decode.links.endpoints[0].peers == [peer]
            assert decode.exchange.counts.prefills_failed == 0
            await agree(prefill, decode)
            await prefill.check_integrity()
            await decode.check_integrity()

    asyncio.run(scene())


def turns(count: int):
    """Prompts of a conversation and the answers that they must get, turn by turn."""
    told = prompt_of(45, 5)
    for turn in range(count):
        expected = answer_of(told, 12)
        new = 45 if turn == 0 else 10
        yield turn, told, new, expected
        told = (*told, *expected, *prompt_of(10, turn))


def test_the_four_steps_of_prefill_and_decode(node: LocalNode) -> None:
    """Two prefill and two decode workers behind a router, four conversations, each step of MemServe: the tokens are the
    plain ones, a turn computes again what the step says and no more, and only what is missing is sent."""
    recomputed: dict[Step, list[int]] = {}
    sent: dict[Step, int] = {}

    async def scene(step: Step) -> None:
        async with on(node) as fleet:
            options = {"step": step, "fetches": False, "pages": 128}
            prefill = [
                await fleet.worker(f"{step}-p{n}", role=Role.PREFILL, **options) for n in "12"
            ]
            decode = [await fleet.worker(f"{step}-d{n}", role=Role.DECODE, **options) for n in "12"]
            router = await fleet.router(policy="longest-prefix")
            await agree(*prefill, *decode)
            await router._tree.caught_up(prefill[0].tree.as_of)
            per_turn = []
            for _, prompt, new, expected in turns(5):
                before = sum([one.exchange.counts.prompt_tokens_computed for one in decode])
                tokens, usage = await said(router.generate, prompt)
                assert tokens == expected
                await agree(*decode, *prefill)
                await router._tree.caught_up(prefill[0].tree.as_of)
                after = sum([one.exchange.counts.prompt_tokens_computed for one in decode])
                assert usage.cached == len(prompt) - (after - before)
                per_turn.append(after - before - new)
            recomputed[step] = per_turn
            sent[step] = sum([one.exchange.counts.sent_blocks for one in prefill])
            returned = sum([one.exchange.counts.returned_blocks for one in decode])
            assert (returned > 0) == step.decode_returns
            assert all(one.exchange.counts.prefills_failed == 0 for one in decode)
            for one in (*prefill, *decode):
                await one.check_integrity()
            calls = sum(
                [endpoint.counts.write_calls for one in prefill for endpoint in one.links.endpoints]
            )
            assert calls == sent[step]

    for step in Step:
        asyncio.run(scene(step))
    basic, one, two, three = (recomputed[step] for step in Step)
    assert basic == [0, 57, 79, 101, 123]
    # What is computed again is the answer, or less than a page of it; and what did not fill a page before.
    assert max(one) < 12 + 16
    assert one == two
    assert max(three) < 16
    assert sum(basic) > sum(one) > sum(three)
    assert all(a >= b >= c for a, b, c in zip(basic, one, three, strict=True))
    assert sent[Step.BASIC] == sent[Step.CACHING_1] > sent[Step.CACHING_2]


async def known(instance, worker: Worker) -> None:
    """Return when an instance knows a worker."""
    while instance.role_of(worker) is None:
        await instance.tree.caught_up(instance.tree.as_of + 1)


async def has(instance, worker: Worker, prompt: tuple[int, ...]) -> None:
    """Return when an instance knows that a worker has all whole blocks of a prompt."""
    names = instance.names(prompt)
    while (
        instance.tree.workers(instance.exchange.namespace, names).get(worker, 0) < len(names) // 16
    ):
        await instance.tree.caught_up(instance.tree.as_of + 1)


async def until_it_reads(here, by_victim, process, last: tuple[int, ...]):
    """Ask a worker for prompts of another one until it is killed: it reads as soon as its learner, which nobody
    sees, knows of a prompt before it is asked. Then what the other one says to the last prompt."""
    for attempt in range(1, 40):
        asked = prompt_of(100, 50 + attempt)
        await said(here.generate, asked)
        await here.idle()
        await asyncio.sleep(0.05 * attempt)
        tokens, _ = await said(by_victim, asked)
        assert tokens == answer_of(asked, 12)
        if process.poll() is not None:
            return await said(here.generate, last)
    raise AssertionError("it never reads")


@pytest.mark.parametrize("place", ["publish", "piece", "read", "write", "grant"])
def test_a_worker_killed_in_the_middle(node: LocalNode, place: str) -> None:
    """Kill -9 between data and publish, in the middle of sending or reading pages, and of a migration on either
    side: the answer comes from elsewhere and is right, nothing of the dead can be claimed, no page is lost."""
    prompt = prompt_of(100, 8)
    expected = answer_of(prompt, 12)

    async def scene() -> None:
        async with on(node) as fleet:
            victim = Worker("fra", f"victim-{place}")
            # Sending pages in frames is what TCP does; a reader of shared memory needs nobody.
            options: dict = {"shares_memory": False} if place == "piece" else {}
            here = await fleet.worker(f"here-{place}", **options)
            router = await fleet.router(avoid_s=1.0)
            options |= {"stops": place, "lease_s": 2.0}
            with worker_process(node.address, victim.name, **options) as process:
                await known(here, victim)
                await router._tree.caught_up(here.tree.as_of)

                def by_victim(request: Request):
                    return router.generate(request, victim)

                if place == "grant":
                    await said(here.generate, prompt)
                    await here.idle()
                elif place in {"piece", "write"}:
                    await said(by_victim, prompt)
                    await has(here, victim, prompt)
                match place:
                    case "publish":
                        doing = said(by_victim, prompt)
                    case "read":
                        doing = until_it_reads(here, by_victim, process, prompt)
                    case "piece":
                        doing = said(here.generate, prompt)
                    case "write":
                        doing = router.move(prompt, victim, here.worker)
                    case "grant":
                        doing = here.exchange.migrate(victim, prompt)
                going = asyncio.create_task(doing)
                await stopped(process)
                process.kill()
                if place in {"write", "grant"}:
                    with pytest.raises(k2store.Unavailable):
                        await going
                else:
                    assert (await going)[0] == expected
            tokens, _ = await said(router.generate, prompt)
            assert tokens == expected
            while here.role_of(victim) is not None:
                await here.tree.caught_up(here.tree.as_of + 1)
            assert victim not in here.tree.workers(here.exchange.namespace, here.names(prompt))
            tokens, usage = await said(router.generate, prompt)
            assert (tokens, usage.cached) == (expected, 96)
            await here.check_integrity()

    asyncio.run(scene())


@pytest.mark.parametrize("region", ["fra", "iad"])
def test_an_answer_goes_on_elsewhere(node: LocalNode, region: str) -> None:
    """A worker killed in the middle of an answer: another one goes on behind the tokens that were told, the client gets
    each token once and no other, with chance as without, and text is whole. It may be of another region, where the
    own one has none left; a router that is told not to spill says that there is nobody."""
    prompt = prompt_of(60, 9)
    # Far more than is under way when the worker is killed.
    count = 300
    sampling = Sampling(temperature=0.9, seed=5)

    async def scene() -> None:
        async with on(node) as fleet:
            here = await fleet.worker(f"rest-{region}", region)
            router = await fleet.router()
            alone = await said(here.generate, prompt, count, sampling=sampling)
            name = f"half-{region}"
            with worker_process(node.address, name, lease_s=2.0) as process:
                half = Worker("fra", name)
                await known(here, half)
                await router._tree.caught_up(here.tree.as_of)
                request = Request(tokens=prompt, max_tokens=count, sampling=sampling)
                told, text = [], ""
                async with router.generate(request, half) as answer:
                    async for outcome in answer:
                        told.append(outcome.token)
                        text += outcome.text
                        if len(told) == 5:
                            process.kill()
            assert told == alone[0]
            assert text == text_of(told)
            assert router.counts.resumed >= 1
            assert router.counts.failed == 0
            assert router.counts.spilled == (region != "fra")
            await here.check_integrity()
            if region != "fra":
                stays = await fleet.router(spills=False, wait_s=0.2)
                await stays._tree.caught_up(router._tree.as_of)
                with pytest.raises(k2store.Unavailable):
                    await said(stays.generate, prompt)

    asyncio.run(scene())
