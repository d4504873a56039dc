"""The HTTP API as its clients see it: OpenAI's own library, curl-like bytes, and those who go away."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

import k2store
from serving.api.app import Limits
from serving.api.metrics import ROWS
from serving.api.requests import ChatRequest, CompletionRequest, of_chat, of_completion, read
from serving.engine.engine import Engine
from serving.engine.request import Finish
from serving.engine.sequence import Phase
from serving.engine.settings import EngineSettings
from serving.model import Message, prompt_tokens
from tests.integration.serving_api import (
    NAME,
    answer_to,
    ask,
    eventually,
    loaded,
    post,
    raw,
    run,
    server,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
SAID: list[Any] = [{"role": "user", "content": "Tell me about the sea, in three short lines."}]


def tokens_of_chat(said: list[Any]) -> tuple[int, ...]:
    """The prompt that a conversation becomes."""
    messages = [Message(one["role"], one["content"]) for one in said]
    return tuple(prompt_tokens(loaded().tokenizer, messages))


def text_of(tokens: list[int]) -> str:
    """Text of tokens, those of an answer in one piece."""
    return loaded().tokenizer.decode(tokens)


def has(count: int, engine: Engine) -> bool:
    """Whether one of so many sequences runs and the others wait."""
    sequences = engine.sequences()
    return (sequences[Phase.RUNNING], sequences[Phase.WAITING]) == (1, count - 1)


def client(base: str, key: str = "none") -> AsyncOpenAI:
    """OpenAI's library, which retries nothing here."""
    return AsyncOpenAI(base_url=base, api_key=key, max_retries=0)


def test_a_chat_streams_through_openais_library() -> None:
    """Pieces join to the model's answer; the second turn tells how much came from the cache."""

    async def main() -> None:
        async with server() as running, client(running.base) as api:
            text, usage, finish = "", None, None
            stream = await api.chat.completions.create(
                model=NAME,
                messages=SAID,
                temperature=0,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for piece in stream:
                for choice in piece.choices:
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
                usage = piece.usage or usage
            prompt = tokens_of_chat(SAID)
            assert text == text_of(answer_to(prompt, 24))
            assert finish == "length"
            assert usage is not None
            assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), 24)
            longer = [*SAID, {"role": "assistant", "content": text}, SAID[0]]
            second: Any = await api.chat.completions.create(
                model=NAME, messages=longer, temperature=0, max_completion_tokens=8
            )
            details = second.usage.prompt_tokens_details
            assert details.cached_tokens >= len(prompt) // 16 * 16
            expected = text_of(answer_to(tokens_of_chat(longer), 8))
            assert second.choices[0].message.content == expected

    run(main)


def test_completions_take_text_and_tokens() -> None:
    """A prompt as text, as tokens, and either in a list of one is the same prompt; a stream joins to it."""

    async def main() -> None:
        text = "Once upon a time there was"
        tokens = loaded().tokenizer.encode(text)
        expected = text_of(answer_to(tuple(tokens), 12))
        async with server() as running, client(running.base) as api:
            for prompt in (text, tokens, [text], [tokens]):
                found = await api.completions.create(
                    model=NAME, prompt=prompt, temperature=0, max_tokens=12
                )
                assert found.choices[0].text == expected
                assert found.choices[0].finish_reason == "length"
            stream = await api.completions.create(
                model=NAME, prompt=text, temperature=0, max_tokens=12, stream=True
            )
            assert "".join([piece.choices[0].text async for piece in stream]) == expected
            stop = expected[6:9]
            found = await api.completions.create(
                model=NAME, prompt=text, temperature=0, max_tokens=12, stop=[stop, "never"]
            )
            assert found.choices[0].text == expected[: expected.index(stop)]
            assert found.choices[0].finish_reason == "stop"

    run(main)


def test_logprobs_come_in_both_forms() -> None:
    """Chats tell tokens with bytes and alternatives, completions tell columns; both tell the same numbers."""

    async def main() -> None:
        async with server() as running, client(running.base) as api:
            prompt = tokens_of_chat(SAID)
            chat: Any = await api.chat.completions.create(
                model=NAME,
                messages=SAID,
                temperature=0,
                max_tokens=5,
                logprobs=True,
                top_logprobs=3,
            )
            plain: Any = await api.completions.create(
                model=NAME, prompt=list(prompt), temperature=0, max_tokens=5, logprobs=3
            )
            told = chat.choices[0].logprobs.content
            columns = plain.choices[0].logprobs
            assert [one.token for one in told] == columns.tokens
            assert [one.logprob for one in told] == pytest.approx(columns.token_logprobs)
            assert all(one.top_logprobs[0].token == one.token for one in told)
            assert all(len(one.top_logprobs) == 3 for one in told)
            assert all(0 >= one.logprob >= one.top_logprobs[2].logprob for one in told)
            assert bytes(told[0].bytes) == told[0].token.encode()
            stream = await api.chat.completions.create(
                model=NAME,
                messages=SAID,
                temperature=0,
                max_tokens=5,
                logprobs=True,
                stream=True,
            )
            pieces: Any = [one.choices[0].logprobs async for one in stream if one.choices]
            streamed = [one for each in pieces if each for one in each.content]
            assert [one.logprob for one in streamed] == [one.logprob for one in told]

    run(main)


def test_seeds_repeat_and_their_absence_does_not() -> None:
    """Equal seeds give equal answers at temperature 1; without one, answers differ."""

    async def main() -> None:
        async with server() as running, client(running.base) as api:

            async def answer(seed: int | None) -> str | None:
                found = await api.chat.completions.create(
                    model=NAME, messages=SAID, max_tokens=16, seed=seed
                )
                return found.choices[0].message.content

            assert await answer(7) == await answer(7)
            assert len({await answer(None) for _ in range(4)}) > 1

    run(main)


def test_models_are_told() -> None:
    """There is one model, under its name; another is not found."""

    async def main() -> None:
        async with server() as running, client(running.base) as api:
            assert [one.id async for one in await api.models.list()] == [NAME]
            assert (await api.models.retrieve(NAME)).id == NAME
            with pytest.raises(openai.NotFoundError):
                await api.models.retrieve("other")

    run(main)


def test_errors_have_openais_form() -> None:
    """What is wrong with a request is told as the library expects it, with the field's name."""

    async def main() -> None:
        async with server(pages=8) as running, client(running.base) as api:
            create: Any = api.chat.completions.create
            with pytest.raises(openai.NotFoundError) as missing:
                await create(model="other", messages=SAID)
            assert missing.value.code == "model_not_found"
            for wrong, field in (
                ({"temperature": 3}, "temperature"),
                ({"max_tokens": 0}, "max_tokens"),
                ({"top_p": -1}, "top_p"),
                ({"n": 2}, "n"),
                ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
                ({"response_format": {"type": "json_object"}}, "response_format"),
                ({"messages": []}, "messages"),
                ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
                ({"messages": [{"role": "user", "content": "word " * 300}]}, "prompt"),
                ({"stop": [""]}, "stop"),
                ({"seed": "x"}, "seed"),
                ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
                ({"top_logprobs": 2}, "top_logprobs"),
            ):
                with pytest.raises(openai.BadRequestError) as refused:
                    await create(**({"model": NAME, "messages": SAID} | wrong))
                assert refused.value.param == field, wrong
                with pytest.raises(openai.BadRequestError):
                    await create(**({"model": NAME, "messages": SAID, "stream": True} | wrong))
            with pytest.raises(openai.BadRequestError) as refused:
                await api.completions.create(model=NAME, prompt=["a", "b"])
            assert refused.value.param == "prompt"

    run(main)


def test_bytes_that_are_no_request_are_refused() -> None:
    """Bodies that are too large, no JSON, too deep or of another shape, and unknown paths and methods."""

    async def main() -> None:
        async with server(limits=Limits(body_bytes_max=100_000)) as running:
            path = "/v1/chat/completions"
            for body in (b"", b"{", b"[1]", b"\xff", b"[" * 50_000, b'{"model": 3}', b"null"):
                status, _, told = await ask(running.port, post(path, body))
                assert status == 400, body
                assert msgspec.json.decode(told)["error"]["type"] == "invalid_request_error"
            status, _, told = await ask(running.port, post(path, b"x" * 100_001))
            assert (status, b"at most 100,000 bytes" in told) == (400, True)
            assert (await ask(running.port, post("/v1/nothing", b"")))[0] == 404
            assert (await ask(running.port, post("/v1/models", b"")))[0] == 405
            get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await ask(running.port, get))[0] == 200
        async with server(limits=Limits(body_timeout_s=0.01)) as running:
            slow = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
            status, _, told = await ask(running.port, slow)
            assert (status, b"arrives within" in told) == (400, True)

    run(main)


def test_a_key_is_asked_for_where_there_is_one() -> None:
    """Without the key nothing is answered below /v1; health and metrics are."""

    async def main() -> None:
        async with server(key="open sesame") as running:
            async with client(running.base, "wrong") as api:
                with pytest.raises(openai.AuthenticationError):
                    await api.models.list()
            async with client(running.base, "open sesame") as api:
                assert [one.id async for one in await api.models.list()] == [NAME]
            get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await ask(running.port, get))[0] == 200

    run(main)


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_goes_away_is_cancelled(streams: bool) -> None:
    """When the connection ends in the middle of an answer, its sequence ends and its pages are free."""

    async def main() -> None:
        async with server() as running:
            body = {"model": NAME, "messages": SAID, "stream": streams, "max_tokens": 900}
            _, writer = await raw(running.port, post("/v1/chat/completions", body))
            await eventually(running.front, lambda one: one.counts.generated_tokens > 3)
            writer.close()
            await eventually(running.front, lambda one: one.counts.finished[Finish.CANCELLED] == 1)
            sequences = await running.front.call(Engine.sequences)
            assert sum(sequences.values()) == 0

    run(main)


def test_one_too_many_is_told_to_come_later() -> None:
    """When as many wait as may, the next caller gets 429 and the time to come back; the others are served."""

    async def main() -> None:
        settings = EngineSettings(sequences_max=1, waiting_max=1)
        async with server(settings=settings) as running, client(running.base) as api:
            body = {"model": NAME, "messages": SAID, "max_tokens": 900, "stream": True}
            request = post("/v1/chat/completions", body)
            writers = []
            for sequences in (1, 2):
                writers.append((await raw(running.port, request))[1])
                await eventually(running.front, partial(has, sequences))
            with pytest.raises(openai.RateLimitError) as refused:
                await api.chat.completions.create(model=NAME, messages=SAID)
            assert refused.value.response.headers["retry-after"] == "1"
            for writer in writers:
                writer.close()
            await eventually(running.front, lambda one: not any(one.sequences().values()))
            await api.chat.completions.create(model=NAME, messages=SAID, max_tokens=2)

    run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_is_told_to_everybody() -> None:
    """An answer under way ends with an error event, later requests get 503, and health says so."""

    async def main() -> None:
        async with server() as running:
            body = {"model": NAME, "messages": SAID, "stream": True, "max_tokens": 900}
            reader, writer = await raw(running.port, post("/v1/chat/completions", body))
            await reader.readuntil(b"data: ")

            def breaks(_: Engine) -> None:
                raise AssertionError("an invariant")

            with pytest.raises(k2store.Unavailable):
                await running.front.call(breaks)
            rest = await reader.readuntil(b"[DONE]")
            assert b'"error"' in rest
            writer.close()
            status, _, told = await ask(running.port, post("/v1/chat/completions", body))
            assert (status, b"server_error" in told) == (503, True)
            get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            assert (await ask(running.port, get))[0] == 503

    run(main)


def test_metrics_are_told_and_documented() -> None:
    """Every metric is on the page after a request, with its tokens counted, and in the documentation."""

    async def main() -> None:
        async with server() as running, client(running.base) as api:
            for _ in range(2):
                await api.chat.completions.create(
                    model=NAME, messages=SAID, max_tokens=4, temperature=0
                )
            get = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
            status, head, body = await ask(running.port, get)
            assert (status, b"text/plain" in head) == (200, True)
            page = body.decode()
            documents = DOCS.read_text(encoding="utf-8")
            timings = ("first_token", "next_token", "request")
            names = [row.name for row in ROWS] + [f"k2_worker_{one}_seconds" for one in timings]
            for name in names:
                assert f"\n{name}" in page, name
                assert f"`{name}`" in documents, name
            prompt = len(tokens_of_chat(SAID))
            cached = (prompt - 1) // 16 * 16
            assert f"k2_worker_prompt_tokens_total {2 * prompt}.0" in page
            assert f"k2_worker_cached_tokens_total {cached}.0" in page
            assert f"k2_worker_computed_tokens_total {2 * prompt - cached + 6}.0" in page
            assert 'k2_worker_finished_total{reason="length"} 2.0' in page
            assert "k2_worker_first_token_seconds_count 2.0" in page
            assert "k2_worker_next_token_seconds_count 6.0" in page

    run(main)


def test_limits_are_documented() -> None:
    """Every limit of the engine and the API stands in the documentation."""
    documents = DOCS.read_text(encoding="utf-8")
    fields = [*EngineSettings.__struct_fields__, *Limits.__struct_fields__]
    assert [name for name in fields if f"| `{name}` |" not in documents] == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__, "other"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(FIELDS, VALUES, max_size=4), st.booleans())
def test_whatever_is_in_a_body_is_understood_or_refused(
    fields: dict[str, object], chats: bool
) -> None:
    """Any JSON in any field gives a request that the engine can judge, or a `Rejected`: never another error."""
    base: dict[str, object] = {"model": NAME}
    base |= {"messages": SAID} if chats else {"prompt": "x"}
    body = msgspec.json.encode(base | fields)
    try:
        if chats:
            asked = of_chat(read(ChatRequest, body), loaded().tokenizer, 9)
        else:
            asked = of_completion(read(CompletionRequest, body), loaded().tokenizer)
        asked.request.check(loaded().tokenizer.vocabulary, 1_024)
    except k2store.Rejected:
        return
    assert asked.request.tokens


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_requests_leave_nothing_behind() -> None:
    """Memory and pages after a thousand requests are those after three hundred: short chats over HTTP,
    every fourth of which is given up in the middle."""

    async def main() -> None:
        async with server(pages=40) as running:
            sizes = []
            for number in range(1_000):
                said = [{"role": "user", "content": f"{number % 50} bottles. {number}"}]
                body = {"model": NAME, "messages": said, "max_tokens": 3, "temperature": 0}
                body |= {"stream": number % 2 == 0}
                request = post("/v1/chat/completions", body, "Connection: close")
                reader, writer = await raw(running.port, request)
                if number % 4 == 0:
                    await reader.read(1)
                else:
                    assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
                if number % 100 == 99:
                    await eventually(running.front, lambda one: not any(one.sequences().values()))
                    await running.front.call(Engine.check_integrity)
                    sizes.append(anonymous_bytes())
            census = await running.front.call(lambda one: one.pool.census())
            assert census.held + census.taken == 0
            assert census.free + census.cached == 40
            counts = await running.front.call(lambda one: one.counts)
            assert counts.requests == 1_000
            assert sum(counts.finished.values()) == 1_000
        # Allocators keep some slack; 700 requests that each left a page's worth of anything would
        # show as several megabytes.
        assert max(sizes[3:]) - sizes[2] < 2 * 1024 * 1024, sizes

    asyncio.run(main())


def anonymous_bytes() -> int:
    """Memory of this process that is not backed by files."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux tells the anonymous memory of a process")
