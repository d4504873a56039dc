"""A conversation with any server of the OpenAI API, with what Python brings."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from k2store.errors import K2Error, Overloaded, Rejected, Unavailable

T = TypeVar("T", bound=Struct)

ANSWER_BYTES_MAX: Final = 1 << 20
"""Of one line of a stream, or of an answer that is no stream."""


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta


class _Details(Struct):
    cached_tokens: int = 0


class Usage(Struct):
    """Tokens of one turn."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0


class _Fault(Struct):
    message: str


class _Piece(Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: _Fault | None = None


class _Refusal(Struct):
    error: _Fault


class Ask(Struct, frozen=True, kw_only=True):
    """How answers are wanted; None leaves it to the server."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None


class Conversation:
    """Turns with one model; every turn tells the server all that was said before.

    url    base of the API, such as ``http://127.0.0.1:8000/v1``
    model  by its name there; None for the first one that the server has

    A turn that fails, or is given up, is not part of the conversation.
    """

    def __init__(
        self,
        url: str,
        model: str | None,
        *,
        key: str = "",
        system: str = "",
        timeout_s: float = 120.0,
    ) -> None:
        place = urllib.parse.urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if place.scheme not in kinds or not place.hostname:
            raise Rejected(f"{url!r} is no http:// or https:// address", field="url")
        try:
            self._server = kinds[place.scheme](place.hostname, place.port, timeout=timeout_s)
        except ValueError as error:
            raise Rejected(f"{url!r}: {error}", field="url") from None
        self._url = url
        self._path = place.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._messages = [{"role": "system", "content": system}] if system else []
        self.usage: Usage | None = None
        try:
            self.model = model or self._first_model()
        except K2Error:
            self.close()
            raise

    def turn(self, text: str, ask: Ask) -> Iterator[str]:
        """Say something; gives the answer as it comes. Afterwards `usage` tells what it took."""
        messages = [*self._messages, {"role": "user", "content": text}]
        chosen = {
            name: value for name, value in msgspec.structs.asdict(ask).items() if value is not None
        }
        wanted = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = ""
        for piece in self._events(self._request("POST", "/chat/completions", wanted | chosen)):
            if piece.error is not None:
                raise Unavailable(piece.error.message)
            for choice in piece.choices:
                if choice.delta.content:
                    answer += choice.delta.content
                    yield choice.delta.content
            self.usage = piece.usage or self.usage
        self._messages = [*messages, {"role": "assistant", "content": answer}]

    def close(self) -> None:
        """Hang up."""
        self._server.close()

    def _first_model(self) -> str:
        response = self._request("GET", "/models", None)
        models = self._decoded(_Models, response.read(ANSWER_BYTES_MAX)).data
        if not models:
            raise Unavailable(f"{self._url} serves no model")
        return models[0].id

    def _request(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        sent = None if body is None else json.dumps(body).encode()
        try:
            # A new connection each time: what was left unread of an answer that was given up would
            # be taken for the beginning of the next one.
            self._server.close()
            self._server.request(method, self._path + path, sent, self._headers)
            response: http.client.HTTPResponse = self._server.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self._url} does not answer: {error}") from None
        if response.status != http.client.OK:
            raise _refused(response)
        return response

    def _events(self, response: http.client.HTTPResponse) -> Iterator[_Piece]:
        """Pieces up to the mark of the end; `Unavailable` where the stream breaks off before it."""
        while True:
            try:
                line = response.readline(ANSWER_BYTES_MAX)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"the answer broke off: {error}") from None
            if not line:
                raise Unavailable("the answer broke off")
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            yield self._decoded(_Piece, data)

    def _decoded(self, kind: type[T], body: bytes) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"{self._url} does not speak the API: {error}") from None


def _refused(response: http.client.HTTPResponse) -> K2Error:
    """What an answer other than 200 says."""
    try:
        body = msgspec.json.decode(response.read(ANSWER_BYTES_MAX), type=_Refusal)
        message = body.error.message
    except (msgspec.MsgspecError, OSError, http.client.HTTPException):
        message = f"{response.status} {response.reason}"
    if response.status == http.client.TOO_MANY_REQUESTS:
        return Overloaded(message)
    if response.status < http.client.INTERNAL_SERVER_ERROR:
        return Rejected(message)
    return Unavailable(message)
