"""What goes back: OpenAI's objects, whole or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from msgspec import Struct

import k2store
from serving.engine.request import Logprob, Outcome, Usage

Json = dict[str, object]


class NoSuchModel(k2store.Rejected):
    """A request for a model that is not served here."""


class Head(Struct, frozen=True):
    """What all pieces of an answer have in common.

    identity    of this answer
    created_s   seconds since the Unix epoch
    model       as it is called here
    token_text  the text of one token
    """

    identity: str
    created_s: int
    model: str
    token_text: Callable[[int], str]

    def frame(self, kind: str, choices: Sequence[Json], usage: Usage | None) -> Json:
        """An object of the API."""
        told: Json = {
            "id": self.identity,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "choices": list(choices),
        }
        return told | {"usage": usage_of(usage) if usage is not None else None}


class Chat:
    """Answers of /v1/chat/completions."""

    prefix: Final = "chatcmpl-"

    def __init__(self, head: Head) -> None:
        self._head = head

    def opening(self) -> Json | None:
        """The first piece of a stream: who speaks."""
        return self._piece({"role": "assistant", "content": ""}, None, None)

    def piece(self, outcome: Outcome) -> Json:
        """What a step added."""
        delta: Json = {"content": outcome.text} if outcome.text else {}
        finish = outcome.finish.value if outcome.finish else None
        return self._piece(delta, finish, self._logprobs([outcome]))

    def usage(self, usage: Usage) -> Json:
        """The last piece of a stream, where it was asked for."""
        return self._head.frame("chat.completion.chunk", [], usage)

    def whole(self, outcomes: Sequence[Outcome]) -> Json:
        """The answer in one piece."""
        last = outcomes[-1]
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": _text(outcomes), "refusal": None},
            "logprobs": self._logprobs(outcomes),
            "finish_reason": last.finish,
        }
        return self._head.frame("chat.completion", [choice], last.usage)

    def _piece(self, delta: Json, finish: str | None, logprobs: Json | None) -> Json:
        choice: Json = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        return self._head.frame("chat.completion.chunk", [choice], None)

    def _logprobs(self, outcomes: Sequence[Outcome]) -> Json | None:
        told = [
            self._one(Logprob(one.token, one.logprob))
            | {"top_logprobs": [self._one(other) for other in one.top]}
            for one in outcomes
            if one.token is not None and one.logprob is not None
        ]
        return {"content": told, "refusal": None} if told else None

    def _one(self, logprob: Logprob) -> Json:
        text = self._head.token_text(logprob.token)
        return {"token": text, "logprob": logprob.logprob, "bytes": list(text.encode())}


class Completion:
    """Answers of /v1/completions."""

    prefix: Final = "cmpl-"

    def __init__(self, head: Head) -> None:
        self._head = head
        self._offset = 0

    def opening(self) -> Json | None:
        """A stream begins with its text."""
        return None

    def piece(self, outcome: Outcome) -> Json:
        """What a step added."""
        return self._head.frame("text_completion", [self._choice([outcome])], None)

    def usage(self, usage: Usage) -> Json:
        """The last piece of a stream, where it was asked for."""
        return self._head.frame("text_completion", [], usage)

    def whole(self, outcomes: Sequence[Outcome]) -> Json:
        """The answer in one piece."""
        return self._head.frame("text_completion", [self._choice(outcomes)], outcomes[-1].usage)

    def _choice(self, outcomes: Sequence[Outcome]) -> Json:
        return {
            "index": 0,
            "text": _text(outcomes),
            "logprobs": self._logprobs(outcomes),
            "finish_reason": outcomes[-1].finish,
        }

    def _logprobs(self, outcomes: Sequence[Outcome]) -> Json | None:
        told = [one for one in outcomes if one.token is not None and one.logprob is not None]
        if not told:
            return None
        text_of = self._head.token_text
        tokens = [text_of(one.token) for one in told if one.token is not None]
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [one.logprob for one in told],
            "top_logprobs": [
                {text_of(each.token): each.logprob for each in one.top} for one in told
            ],
            "text_offset": offsets,
        }


def usage_of(usage: Usage) -> Json:
    """Tokens of an answer, those from the cache told apart."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }


def refusal(error: k2store.K2Error) -> tuple[HTTPStatus, Json]:
    """An error in the API's form."""
    match error:
        case NoSuchModel():
            status, kind = HTTPStatus.NOT_FOUND, "invalid_request_error"
        case k2store.Rejected():
            status, kind = HTTPStatus.BAD_REQUEST, "invalid_request_error"
        case k2store.Overloaded():
            status, kind = HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error"
        case k2store.Unavailable() | k2store.Deadline():
            status, kind = HTTPStatus.SERVICE_UNAVAILABLE, "server_error"
        case _:
            status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, "server_error"
    told: Json = {
        "message": error.message,
        "type": kind,
        "param": error.details().get("field"),
        "code": "model_not_found" if status is HTTPStatus.NOT_FOUND else None,
    }
    return status, {"error": told}


def _text(outcomes: Sequence[Outcome]) -> str:
    return "".join([one.text for one in outcomes])
