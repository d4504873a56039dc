"""Asks a chat of an OpenAI-compatible address, and takes the time to the first token."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.processes import BenchError

TIMEOUT_S: Final = 300.0
Message = dict[str, str]


class Told(NamedTuple):
    """An answer: its text, seconds to its first token, and tokens of the prompt, of those cached, and generated."""

    text: str
    first_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def ask(
    address: str, model: str, messages: Sequence[Message], max_tokens: int, session: str = ""
) -> Told:
    """Stream an answer, greedily."""
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"content-type": "application/json", "x-session-id": session}
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    began_s = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise BenchError(f"{address} answers {answer.status}: {answer.read(500)!r}")
        return _read(answer, began_s)
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, began_s: float) -> Told:
    text, first_s = "", 0.0
    usage: dict[str, object] = {}
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        if "error" in event:
            raise BenchError(f"an answer broke off: {event['error']}")
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            if (piece or choice["finish_reason"]) and not first_s:
                first_s = time.monotonic() - began_s
            text += piece
        usage = event.get("usage") or usage
    if not usage:
        raise BenchError("an answer broke off without a word")
    details = usage["prompt_tokens_details"]
    assert isinstance(details, dict), "usage tells what was cached"
    return Told(
        text,
        first_s,
        int(str(usage["prompt_tokens"])),
        int(details["cached_tokens"]),
        int(str(usage["completion_tokens"])),
    )
