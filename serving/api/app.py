"""The application: routes, and what happens between a request and its answer."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Final, Protocol

import msgspec
from msgspec import Struct

import k2store
from serving.api.answers import Chat, Completion, Head, NoSuchModel, refusal
from serving.api.exchange import Exchange, Gone, Message, Receive, Send
from serving.api.metrics import CONTENT_TYPE, Metrics
from serving.api.requests import Asked, ChatRequest, CompletionRequest, of_chat, of_completion, read
from serving.engine.request import Outcome, Request
from serving.model import Tokenizer


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of the API.

    body_bytes_max    of a request
    body_timeout_s    within which it arrives
    answer_tokens     of a chat's answer, where the request does not say
    connections_max   at a time; further ones are refused
    keep_alive_s      that a connection may be silent between two requests
    """

    body_bytes_max: int = 4 * 1024 * 1024
    body_timeout_s: float = 30.0
    answer_tokens: int = 1_024
    connections_max: int = 512
    keep_alive_s: float = 30.0


class Backend(Protocol):
    """Who answers: an engine (`serving.engine.front.Front` has this shape), or a router over several."""

    @property
    def failure(self) -> k2store.K2Error | None:
        """Why nothing can be answered any more."""
        ...

    def generate(self, request: Request) -> AbstractAsyncContextManager[AsyncIterable[Outcome]]:
        """Outcomes of a new request, which is cancelled when the block is left before its end."""
        ...


class Served(Struct, frozen=True):
    """What is served: a model by the name that callers use, and its tokenizer."""

    name: str
    tokenizer: Tokenizer


class Api:
    """An ASGI application; see the package.

    figures   gives the page of /metrics
    now_s     seconds since the Unix epoch, for the `created` of answers
    key       what callers must show as ``Authorization: Bearer``; empty for no key
    """

    def __init__(
        self,
        served: Served,
        backend: Backend,
        metrics: Metrics,
        figures: Callable[[], Awaitable[bytes]],
        now_s: Callable[[], int],
        *,
        limits: Limits | None = None,
        key: str = "",
    ) -> None:
        self._served = served
        self._backend = backend
        self._timings = metrics.timings
        self._figures = figures
        self._now_s = now_s
        self._limits = limits or Limits()
        self._key = f"Bearer {key}".encode() if key else b""
        self._since_s = now_s()
        self._routes: Final[dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]]] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("GET", "/v1/models"): self._models,
            ("GET", f"/v1/models/{served.name}"): self._model,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        assert scope["type"] == "http", "the server offers nothing but HTTP"
        exchange = Exchange(scope, receive, send)
        try:
            await self._route(exchange)
        except Gone:
            return
        except k2store.K2Error as error:
            await _refuse(exchange, error)

    async def _route(self, exchange: Exchange) -> None:
        route = self._routes.get((exchange.method, exchange.path))
        if route is None:
            known = exchange.path in {path for _, path in self._routes}
            status = HTTPStatus.METHOD_NOT_ALLOWED if known else HTTPStatus.NOT_FOUND
            told = f"{exchange.method} {exchange.path} is not served here"
            await _answer(exchange, status, _error(told))
        elif not self._may(exchange):
            await _answer(exchange, HTTPStatus.UNAUTHORIZED, _error("the API key is not right"))
        else:
            await route(exchange)

    def _may(self, exchange: Exchange) -> bool:
        """Whether the caller showed the key, where one is asked for."""
        if not self._key or not exchange.path.startswith("/v1/"):
            return True
        return hmac.compare_digest(exchange.header(b"authorization"), self._key)

    # ------------------------------------------------------------------------------- answers

    async def _chat(self, exchange: Exchange) -> None:
        body = read(ChatRequest, await self._body(exchange))
        self._check_model(body.model)
        asked = of_chat(body, self._served.tokenizer, self._limits.answer_tokens)
        await self._serve(exchange, asked, Chat(self._head(Chat.prefix)))

    async def _completions(self, exchange: Exchange) -> None:
        body = read(CompletionRequest, await self._body(exchange))
        self._check_model(body.model)
        asked = of_completion(body, self._served.tokenizer)
        await self._serve(exchange, asked, Completion(self._head(Completion.prefix)))

    async def _serve(self, exchange: Exchange, asked: Asked, form: Chat | Completion) -> None:
        work = self._stream if asked.streams else self._whole
        await exchange.while_present(work(exchange, asked, form))

    async def _whole(self, exchange: Exchange, asked: Asked, form: Chat | Completion) -> None:
        began_s = time.monotonic()
        async with self._backend.generate(asked.request) as stream:
            outcomes = [outcome async for outcome in self._timed(stream, began_s)]
        await _answer(exchange, HTTPStatus.OK, form.whole(outcomes))

    async def _stream(self, exchange: Exchange, asked: Asked, form: Chat | Completion) -> None:
        began_s = time.monotonic()
        async with self._backend.generate(asked.request) as stream:
            # Only now: who is refused gets an answer with a status of its own.
            await exchange.begin_events()
            opening = form.opening()
            if opening is not None:
                await exchange.event(opening)
            async for outcome in self._timed(stream, began_s):
                # A step may have nothing to show yet: half a character, or what could become a stop.
                if outcome.text or outcome.finish or outcome.logprob is not None:
                    await exchange.event(form.piece(outcome))
                if outcome.finish and asked.includes_usage:
                    await exchange.event(form.usage(outcome.usage))
        await exchange.end_events()

    async def _timed(
        self, stream: AsyncIterable[Outcome], began_s: float
    ) -> AsyncIterable[Outcome]:
        """The same outcomes, with their times taken."""
        before_s = began_s
        first = True
        async for outcome in stream:
            now_s = time.monotonic()
            histogram = self._timings.first_token if first else self._timings.next_token
            histogram.observe(now_s - before_s)
            before_s, first = now_s, False
            yield outcome
        self._timings.request.observe(time.monotonic() - began_s)

    # ------------------------------------------------------------------------------ the rest

    async def _models(self, exchange: Exchange) -> None:
        await _answer(exchange, HTTPStatus.OK, {"object": "list", "data": [self._card()]})

    async def _model(self, exchange: Exchange) -> None:
        await _answer(exchange, HTTPStatus.OK, self._card())

    async def _health(self, exchange: Exchange) -> None:
        failure = self._backend.failure
        if failure is not None:
            raise failure
        await _answer(exchange, HTTPStatus.OK, {"status": "ok"})

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.answer(HTTPStatus.OK, await self._figures(), CONTENT_TYPE)

    def _card(self) -> dict[str, object]:
        return {
            "id": self._served.name,
            "object": "model",
            "created": self._since_s,
            "owned_by": "k2store",
        }

    def _head(self, prefix: str) -> Head:
        identity = prefix + secrets.token_hex(12)
        decode = self._served.tokenizer.decode
        return Head(identity, self._now_s(), self._served.name, lambda token: decode([token]))

    def _check_model(self, name: str) -> None:
        if name != self._served.name:
            raise NoSuchModel(
                f"{name!r} is not served here, {self._served.name!r} is", field="model"
            )

    async def _body(self, exchange: Exchange) -> bytes:
        return await exchange.body(self._limits.body_bytes_max, self._limits.body_timeout_s)


async def _refuse(exchange: Exchange, error: k2store.K2Error) -> None:
    """Tell an error: as the answer, or where that has begun as the last event of the stream."""
    status, told = refusal(error)
    if exchange.begun:
        await exchange.event(told)
        await exchange.end_events()
        return
    later = getattr(error, "retry_after_s", None)
    headers = ((b"retry-after", str(max(1, round(later))).encode()),) if later else ()
    await exchange.answer(status, msgspec.json.encode(told), headers=headers)


async def _answer(exchange: Exchange, status: HTTPStatus, value: object) -> None:
    await exchange.answer(status, msgspec.json.encode(value))


def _error(message: str) -> dict[str, object]:
    told = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return {"error": told}
