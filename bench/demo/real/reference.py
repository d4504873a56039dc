"""The same questions to a worker that keeps nothing and asks nobody: greedy answers must be the same, to the letter."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from bench.demo.course import Fault
from bench.demo.member import Member
from bench.demo.real.people import Turn
from bench.demo.real.plan import MODEL
from bench.serve.client import ask
from k2store.testing.child import K2
from k2store.testing.keeper import Keeper

ENOUGH_S: Final = 15.0
"""After so long no further answer is compared; one is in any case."""


class Sameness(Struct, frozen=True):
    """How many answers were compared, and those that were others there: what was asked, both answers."""

    compared: int = 0
    different: tuple[tuple[str, str, str], ...] = ()

    @property
    def identical(self) -> bool:
        """Whether any was compared, and all were the same."""
        return self.compared > 0 and not self.different


def sample(turns: Sequence[Turn], faults: Sequence[Fault], count: int) -> list[Turn]:
    """Which answers: those that a fault fell into and second turns elsewhere first, then others of all times."""

    def troubled(turn: Turn) -> bool:
        return any(turn.began_ns <= one.began_ns <= turn.ended_ns for one in faults)

    ordered = sorted(turns, key=lambda turn: turn.began_ns)
    first = [turn for turn in ordered if troubled(turn)]
    moved = [turn for turn in ordered if turn.is_elsewhere]
    step = max(1, len(ordered) // max(1, count))
    wanted = [*first[: count // 2], *moved[:: max(1, 2 * len(moved) // count)], *ordered[::step]]
    found: list[Turn] = []
    for turn in wanted:
        if turn not in found:
            found.append(turn)
    return found[:count]


async def compare_answers(turns: Sequence[Turn], folder: Path) -> Sameness:
    """Ask some turns again."""
    different = []
    compared = 0
    # It computes every prompt whole.
    command = [*K2, "serve", "--json", "--forget", "--threads", "1", "--listen", "127.0.0.1:0"]
    with Keeper() as keeper:
        worker = Member("reference", command, folder / "reference.log", keeper)
        try:
            said = json.loads(await worker.start())
            address = said["url"].removeprefix("http://").removesuffix("/v1")
            until_s = time.monotonic() + ENOUGH_S
            for turn in turns:
                if compared and time.monotonic() > until_s:
                    break
                told = await asyncio.to_thread(
                    ask, address, MODEL, turn.messages, max(1, turn.generated)
                )
                compared += 1
                assert told.cached_tokens == 0, "it keeps nothing"
                if told.text != turn.answer:
                    different.append((turn.messages[-1]["content"], turn.answer, told.text))
        finally:
            worker.end()
            worker.reap()
    return Sameness(compared, tuple(different))
