"""The engine behind asyncio: streams, cancellation, and what happens when it fails."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

import k2store
from serving.engine.engine import Engine
from serving.engine.front import Front
from serving.engine.request import Finish, Request
from serving.engine.sequence import Phase
from serving.engine.settings import EngineSettings
from tests.unit.serving_engines import answer_of, engine_of, prompt_of


async def answer(front: Front, request: Request) -> list[int]:
    """All tokens of one request."""
    async with front.generate(request) as stream:
        return [outcome.token async for outcome in stream if outcome.token is not None]


def test_many_callers_at_a_time_get_their_own_answers() -> None:
    """Eight streams at once, each with the tokens of the model alone."""

    async def main() -> None:
        prompts = [prompt_of(20 + 7 * seed, seed) for seed in range(8)]
        async with Front(engine_of()) as front:
            found = await asyncio.gather(
                *[answer(front, Request(tokens=prompt, max_tokens=10)) for prompt in prompts]
            )
            await front.call(Engine.check_integrity)
        assert found == [answer_of(prompt, 10) for prompt in prompts]

    asyncio.run(main())


def test_a_stream_that_is_left_is_cancelled() -> None:
    """Leaving the block, or being cancelled inside it, ends the sequence and frees its pages."""

    async def main() -> None:
        engine = engine_of()
        async with Front(engine) as front:
            request = Request(tokens=prompt_of(30), max_tokens=400)
            async with front.generate(request) as stream, aclosing(aiter(stream)) as outcomes:
                await anext(outcomes)

            began = asyncio.Event()

            async def listen() -> None:
                async with front.generate(request) as stream:
                    async for _ in stream:
                        began.set()

            task = asyncio.create_task(listen())
            await began.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            counts = await front.call(lambda one: (one.sequences(), one.counts.finished))
            assert counts[0][Phase.RUNNING] == 0
            assert counts[1][Finish.CANCELLED] == 2
            await front.call(Engine.check_integrity)

    asyncio.run(main())


def test_a_caller_who_leaves_before_its_request_was_taken_leaves_nothing() -> None:
    """Cancelled while the engine is busy elsewhere, a request is either never begun or cancelled."""

    async def main() -> None:
        engine = engine_of()
        gate = threading.Event()
        async with Front(engine) as front:
            busy = asyncio.ensure_future(front.call(lambda _: gate.wait(30)))
            request = Request(tokens=prompt_of(30), max_tokens=400)
            tasks = [asyncio.create_task(answer(front, request)) for _ in range(3)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            gate.set()
            await busy
            await asyncio.gather(*tasks, return_exceptions=True)
            phases = await front.call(Engine.sequences)
            assert sum(phases.values()) == 0

    asyncio.run(main())


def test_refusals_come_back_to_their_caller() -> None:
    """A request that is rejected raises where it was made, and the engine goes on."""

    async def main() -> None:
        async with Front(engine_of(settings=EngineSettings(waiting_max=1))) as front:
            with pytest.raises(k2store.Rejected):
                await answer(front, Request(tokens=()))
            prompt = prompt_of(9)
            assert await answer(front, Request(tokens=prompt)) != []
            assert front.failure is None

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_engine_ends_all_streams() -> None:
    """When a step breaks, nobody waits for ever: open streams and later calls get `Unavailable`."""

    async def main() -> None:
        engine = engine_of()
        async with Front(engine) as front:
            request = Request(tokens=prompt_of(30), max_tokens=400)
            waiting = asyncio.create_task(answer(front, request))

            def breaks(_: Engine) -> None:
                raise AssertionError("an invariant")

            with pytest.raises(k2store.Unavailable, match="failed"):
                await front.call(breaks)
            with pytest.raises(k2store.Unavailable, match="failed"):
                await waiting
            with pytest.raises(k2store.Unavailable, match="failed"):
                await answer(front, request)
            assert front.failure is not None

    asyncio.run(main())


def test_closing_ends_all_streams() -> None:
    """A stream that is open when the front closes is told so."""

    async def main() -> None:
        async with Front(engine_of()) as front:
            request = Request(tokens=prompt_of(30), max_tokens=900)
            began = asyncio.Event()

            async def listen() -> None:
                async with front.generate(request) as stream:
                    async for _ in stream:
                        began.set()

            task = asyncio.create_task(listen())
            await began.wait()
        with pytest.raises(k2store.Unavailable, match="closed"):
            await task

    asyncio.run(main())
