"""The chains that every contender is given: who publishes which prompt, and which blocks are new to him.

The prompts of a trace are dealt to 16 workers by a seeded draw, one after the other. A worker that gets
a prompt publishes the blocks that it has not had before; since an id stands for its whole prefix, those
are one stretch at the end. On the conversation trace this makes 12,024 publishes of 21.7 blocks on the average.

A trace has blocks of 512 tokens. Engines like smaller ones: with 16 tokens a block each id becomes 32
blocks that follow each other.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.edge.trace import BLOCK_TOKENS, Request

WORKERS: Final = 16
SEED: Final = 1
_TAG: Final = b"k2.bench"


class Prompt(Struct, frozen=True, gc=False):
    """A prompt with the worker that gets it.

    names  of its blocks, packed
    new    the first of its blocks that the worker has not had; their count if there is none
    """

    worker: int
    names: Names
    new: int

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return len(self.names) // NAME_BYTES

    @property
    def new_names(self) -> Names:
        """What the worker publishes."""
        return self.names[self.new * NAME_BYTES :]


def deal(
    requests: Sequence[Request], block_tokens: int = BLOCK_TOKENS, workers: int = WORKERS
) -> list[Prompt]:
    """The prompts in the order of the trace, each with its worker."""
    parts = BLOCK_TOKENS // block_tokens
    chance = Random(SEED)
    known: dict[int, Names] = {}
    had: list[set[int]] = [set() for _ in range(workers)]
    prompts = []
    for request in requests:
        worker = chance.randrange(workers)
        mine = had[worker]
        new = 0
        for new, block in enumerate(request.hash_ids):  # noqa: B007 - where it ends is what is wanted
            if block not in mine:
                break
        else:
            new = len(request.hash_ids)
        mine.update(request.hash_ids)
        for block in request.hash_ids:
            if block not in known:
                known[block] = _names(block, parts)
        names = b"".join([known[block] for block in request.hash_ids])
        prompts.append(Prompt(worker, names, new * parts))
    return prompts


def _names(block: int, parts: int) -> Names:
    """Names of the blocks that an id of the trace stands for."""
    return b"".join(
        [
            hashlib.sha256(_TAG + number.to_bytes(8, "big")).digest()[:NAME_BYTES]
            for number in range(block * parts, (block + 1) * parts)
        ]
    )


def renamed(names: Names, round_: int) -> Names:
    """The same blocks under other names, differently in each round: so a trace serves many times."""
    other = hashlib.sha256(_TAG + round_.to_bytes(8, "big")).digest()[:NAME_BYTES]
    mask = int.from_bytes(other * (len(names) // NAME_BYTES), "big")
    return (int.from_bytes(names, "big") ^ mask).to_bytes(len(names), "big")


_HEAD: Final = struct.Struct("<III")


def write(prompts: Sequence[Prompt], path: Path) -> None:
    """Put prompts into a file, from which also a program without this package can read them.

    Each is its worker, its number of blocks and the first new one, 32 bits each with the lowest byte first, and
    16 bytes for each block.
    """
    with path.open("wb") as file:
        for prompt in prompts:
            file.write(_HEAD.pack(prompt.worker, prompt.blocks, prompt.new) + prompt.names)


def read(path: Path) -> list[Prompt]:
    """What `write` has put there."""
    prompts = []
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            worker, blocks, new = _HEAD.unpack(head)
            prompts.append(Prompt(worker, file.read(blocks * NAME_BYTES), new))
    return prompts
