"""A request on its way: its tokens, the pages that it holds, and how far it has come."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kv_pool.blocks import Chain, Names
from kv_pool.pool.block_pool import Slot
from serving.engine.request import Request, Usage
from serving.engine.text import TextStream
from serving.linking.linker import Placing


class Phase(enum.Enum):
    """Where a sequence is; see the picture of the package."""

    WAITING = "waiting"
    FETCHING = "fetching"
    RUNNING = "running"
    PARKED = "parked"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """State of one request in one engine.

    number    its name in the engine
    tokens    prompt and what was generated
    computed  how many of them have keys and values in `pages`, but for `redo`
    redo      rows before `computed` that are to be computed for their place
    linked    its prompt is put together of chunks: its pages are its own and get no name
    placing   the chunks are on their way to the pages
    pages     on the device, held; the first `chain.blocks` are in the index, the others are its own
    chain     names of the pages that are in the index
    names     of the whole blocks that it began with, once somebody asked
    cached    tokens of the prompt that were found computed when it first began
    asked     the remote provider has been asked
    begun     a token was generated here
    """

    number: int
    request: Request
    tokens: list[int]
    chain: Chain
    text: TextStream | None
    phase: Phase = Phase.WAITING
    computed: int = 0
    pages: list[Slot] = field(default_factory=list)
    names: Names = b""
    cached: int | None = None
    asked: bool = False
    begun: bool = False
    linked: bool = False
    redo: list[int] = field(default_factory=list)
    placing: Placing | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.tokens)

    @property
    def generated(self) -> list[int]:
        """What was generated."""
        return self.tokens[self.prompt_tokens :]

    @property
    def missing(self) -> int:
        """Tokens without keys and values, or with those of another place."""
        return len(self.tokens) - self.computed + len(self.redo)

    @property
    def decoded(self) -> int:
        """Rows behind the prompt that are computed; below 0 while rows of the prompt are missing."""
        return self.computed - len(self.redo) - self.prompt_tokens

    def rows(self, count: int) -> list[int]:
        """The next rows to compute, so many of those that are missing."""
        again = self.redo[:count]
        return [*again, *range(self.computed, self.computed + count - len(again))]

    def advance(self, count: int) -> None:
        """So many rows were computed."""
        again = min(count, len(self.redo))
        del self.redo[:again]
        self.computed += count - again

    @property
    def is_decoding(self) -> bool:
        """Whether the next step generates, whatever else runs."""
        return self.missing == 1

    def usage(self) -> Usage:
        """What it took so far."""
        return Usage(self.prompt_tokens, self.cached or 0, len(self.tokens) - self.prompt_tokens)
