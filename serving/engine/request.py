"""What a caller asks of the engine, and what it gets back, token by token."""

from __future__ import annotations

import enum

from msgspec import Struct

import k2store

LOGPROBS_MAX = 20
STOPS_MAX = 16
TOP_K_OFF = 0


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen.

    temperature        0 chooses the likeliest
    top_k              among so many likeliest; 0 for all
    top_p              among the likeliest that together have this probability
    seed               equal seeds choose equally, wherever and in whatever batch the request runs
    presence_penalty   subtracted from the logit of every token that was generated before
    frequency_penalty  subtracted once for each time
    """

    temperature: float = 0.0
    top_k: int = TOP_K_OFF
    top_p: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    def check(self) -> None:
        """`k2store.Rejected` for values that mean nothing."""
        _within("temperature", self.temperature, 0.0, 2.0)
        _within("top_p", self.top_p, 0.0, 1.0)
        _within("top_k", self.top_k, 0, 2**31)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if self.top_p == 0.0:
            raise k2store.Rejected("top_p is above 0", field="top_p")


class Request(Struct, frozen=True, kw_only=True):
    """One generation.

    tokens       the prompt, at least one token
    max_tokens   generate at most so many
    stop         strings that end the text; they are not part of it
    ends         tokens that end it, such as the model's end of turn
    logprobs     None, or how many likeliest alternatives are told with each token
    parks        stop after the first token and keep the pages until `Engine.release` (a prefill worker)
    chunks       lengths of the chunks that the prompt begins with (documents, and what stands before them), for an
                 engine that links; something follows them. To any other engine they mean nothing
    """

    tokens: tuple[int, ...]
    max_tokens: int = 256
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    ends: frozenset[int] = frozenset()
    logprobs: int | None = None
    parks: bool = False
    chunks: tuple[int, ...] = ()

    def check(self, vocabulary: int, context_tokens: int) -> None:
        """`k2store.Rejected` for a request that no engine with this model can serve."""
        self.sampling.check()
        if not self.tokens:
            raise k2store.Rejected("a prompt has at least one token", field="prompt")
        if min(self.tokens) < 0 or max(self.tokens) >= vocabulary:
            raise k2store.Rejected(f"tokens are 0 to {vocabulary - 1:,}", field="prompt")
        if len(self.tokens) >= context_tokens:
            raise k2store.Rejected(
                f"a prompt has fewer than {context_tokens:,} tokens here, not {len(self.tokens):,}",
                field="prompt",
            )
        _within("max_tokens", self.max_tokens, 1, 2**31)
        if self.logprobs is not None:
            _within("logprobs", self.logprobs, 0, LOGPROBS_MAX)
        if self.chunks and (min(self.chunks) < 1 or sum(self.chunks) >= len(self.tokens)):
            raise k2store.Rejected(
                "chunks have tokens, and the prompt goes on behind them", field="documents"
            )
        if len(self.stop) > STOPS_MAX or not all(self.stop):
            raise k2store.Rejected(
                f"there are at most {STOPS_MAX} stop strings, none empty", field="stop"
            )


class Finish(enum.StrEnum):
    """Why a sequence ended; the first two are the API's words.

    STOP       an end token or a stop string
    LENGTH     as many tokens as were asked for, or as the model can have
    CANCELLED  the caller went away
    """

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Logprob(Struct, frozen=True):
    """The logarithm of a token's probability, by the model alone: before temperature and penalties."""

    token: int
    logprob: float


class Usage(Struct, frozen=True):
    """What a sequence took.

    prompt      tokens of the prompt
    cached      of them, whose keys and values were there already
    completion  tokens generated
    """

    prompt: int
    cached: int
    completion: int


class Outcome(Struct, frozen=True):
    """What a step did for one sequence.

    number        of the sequence
    token         that was generated; None when the step only ended the sequence
    text          what may be shown now: nothing while it could still turn out to be a stop string
    finish        why it has ended; None while it goes on
    usage         so far
    logprob, top  of the token and of its likeliest alternatives, if asked for
    """

    number: int
    token: int | None
    text: str
    finish: Finish | None
    usage: Usage
    logprob: float | None = None
    top: tuple[Logprob, ...] = ()


def _within(field: str, value: float, least: float, most: float) -> None:
    """`Rejected` for a number out of range; what is no number is in no range."""
    if not least <= value <= most:
        raise k2store.Rejected(f"{field} is {least:g} to {most:g}, not {value}", field=field)
