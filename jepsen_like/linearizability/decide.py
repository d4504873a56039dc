"""Decides all parts of a history, a slice of work for each in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from jepsen_like.linearizability.calls import Part
from jepsen_like.linearizability.search import Outcome, search

Decision = tuple[Part, Outcome]


def decide(
    parts: Sequence[Part], expired: Callable[[], bool]
) -> tuple[bool | None, list[Decision]]:
    """Whether every part is linearizable, with what was found: the first wrong part, or all right ones.

    None means that the time ran out first; the decisions then are those made until then.
    """
    waiting: deque[tuple[Part, Iterator[Outcome | None]]] = deque(
        (part, search(part.calls, part.initial, part.step, slice_steps=2_000)) for part in parts
    )
    decided: list[Decision] = []
    while waiting:
        part, running = waiting.popleft()
        outcome = next(running)
        if outcome is None:
            if expired():
                return None, decided
            waiting.append((part, running))
            continue
        if not outcome.linearizable:
            return False, [(part, outcome)]
        decided.append((part, outcome))
    return True, decided
