"""Prefill and decode on different workers: the four steps of MemServe, on real processes.

Two prefill and two decode workers behind a router, conversations of several turns, one request at a time: so what is
counted is the same in every run. A turn *computes again* the tokens of its prompt that an earlier turn had computed:
all that is not new and was not found in a cache. Every answer is compared with the ones that a single worker
gives when it computes, finds and fetches the same prompts.

A page moves in one call. The last run cuts it into the pieces that a pool needs whose layers lie apart, so that what
this saves is counted on the same conversations.

MemServe: arXiv 2406.17565, section 5.
"""

from __future__ import annotations

import os
import statistics
import time
from array import array
from typing import Final, NamedTuple

from bench.samples import rounded, spread
from bench.serve.client import Message, Told, ask
from bench.serve.fleet import Fleet, fleet
from bench.serve.part import Findings, Options, Table
from bench.serve.talks import Talk, talks

MODEL: Final = "smollm2-135m-instruct"
MODEL_QUICK: Final = "toy"
STEPS: Final = ("pd-basic", "pd-caching-1", "pd-caching-2", "pd-caching-3")
WORKERS: Final = ("p1", "p2", "d1", "d2")
TALKS, TURNS, ANSWER_TOKENS = 4, 4, 24
TALKS_QUICK, TURNS_QUICK, ANSWER_TOKENS_QUICK = 2, 4, 40
LAST: Final = STEPS[-1]
PAGES: Final = "300"
SETTLED_S: Final = 2.0
"""A quick run has the toy, whose tokens are bytes: it shows that all of this works, and counts as much."""


class Turn(NamedTuple):
    """One answer: which turn it was, tokens of its prompt that no turn before it had, and what was told."""

    turn: int
    new_tokens: int
    told: Told

    @property
    def recomputed(self) -> int:
        """Tokens that were computed, although an earlier turn had computed them."""
        return max(0, self.told.prompt_tokens - self.told.cached_tokens - self.new_tokens)


class Found(NamedTuple):
    """What a step took: its turns, blocks and calls that moved pages, and bytes."""

    turns: list[Turn]
    blocks: int
    calls: int
    bytes: int


def measure(options: Options) -> Findings:
    """All steps, and what a single worker says."""
    count, turns, tokens = (
        (TALKS_QUICK, TURNS_QUICK, ANSWER_TOKENS_QUICK)
        if options.quick
        else (TALKS, TURNS, ANSWER_TOKENS)
    )
    conversations = talks(count, turns, options.seed)
    model = MODEL_QUICK if options.quick else MODEL
    options.begin("one worker: computed, found, fetched", 20.0 + 3 * count * turns)
    plain, same = _alone(model, conversations, tokens)
    found = {}
    for step in STEPS:
        options.begin(f"2 prefill, 2 decode: {step}", 20.0 + 2.0 * count * turns)
        found[step] = measured(model, step, conversations, tokens)
        same &= [turn.told.text for turn in found[step].turns] == plain
    options.begin(f"2 prefill, 2 decode: {LAST}, in pieces", 20.0 + 2.0 * count * turns)
    cut = measured(model, LAST, conversations, tokens, "by-request")
    same &= [turn.told.text for turn in cut.turns] == plain
    return _findings(found, cut, same=same)


def measured(
    model: str, step: str, conversations: list[Talk], tokens: int, mode: str = "aggregated"
) -> Found:
    """Hold the conversations in one step, and count."""
    workers = [
        (name, ["--role", role, "--step", step, "--mode", mode, "--pages", PAGES, "--no-fetch"])
        for name, role in zip(WORKERS, ["prefill"] * 2 + ["decode"] * 2, strict=True)
    ]
    with fleet(model, workers, policy="longest-prefix") as running:
        turns = _talk(running.router, model, conversations, tokens)
        return Found(turns, *_moved(running))


def _alone(model: str, conversations: list[Talk], tokens: int) -> tuple[list[str], bool]:
    """What a worker says when it computes; and whether hits and fetched pages let it say the same."""
    with fleet(model, [(name, ["--pages", "400"]) for name in ("one", "two")]) as running:
        one, two = running.workers["one"], running.workers["two"]

        def alone(address: str) -> list[str]:
            return [turn.told.text for turn in _talk(address, model, conversations, tokens)]

        computed, hit = alone(one), alone(one)
        fetched = alone(two)
        moved = running.counted("k2_fleet_fetched_blocks_total")
        return computed, computed == hit == fetched and moved > 0


def _moved(running: Fleet) -> tuple[int, int, int]:
    """Blocks, calls and bytes, when the last answer has been sent back too: nobody waits for that."""
    before = None
    while before != (found := _counted(running)):
        before = found
        time.sleep(SETTLED_S)
    return found


def _counted(running: Fleet) -> tuple[int, int, int]:
    return (
        int(running.counted("k2_fleet_sent_blocks_total")),
        int(running.counted("k2_fleet_calls_total", what="write")),
        int(running.counted("k2_fleet_moved_bytes_total", what="write")),
    )


def _talk(address: str, model: str, conversations: list[Talk], tokens: int) -> list[Turn]:
    """All conversations, a turn of each in turn."""
    told: dict[str, list[Message]] = {
        talk.name: [{"role": "system", "content": talk.system}] for talk in conversations
    }
    before: dict[str, Told] = {}
    turns = []
    for number in range(len(conversations[0].asks)):
        for talk in conversations:
            messages = told[talk.name]
            messages.append({"role": "user", "content": talk.asks[number]})
            answer = ask(address, model, messages, tokens, talk.name)
            messages.append({"role": "assistant", "content": answer.text})
            last = before.get(talk.name)
            known = 0 if last is None else last.prompt_tokens + last.completion_tokens
            turns.append(Turn(number, max(0, answer.prompt_tokens - known), answer))
            before[talk.name] = answer
    return turns


def _findings(found: dict[str, Found], cut: Found, *, same: bool) -> Findings:
    per_turn = {step: _per_turn(one.turns) for step, one in found.items()}
    times = {step: spread(_first_ns(one.turns)) for step, one in found.items()}
    rows = [
        (
            step,
            " ".join([f"{tokens:g}" for tokens in per_turn[step]]),
            found[step].blocks,
            found[step].calls,
            f"{found[step].bytes / 1e6:.1f}",
            rounded(times[step].p50_ms),
            rounded(times[step].p99_ms),
        )
        for step in found
    ]
    columns = ("step", "recomputed by turn", "blocks sent", "calls", "MB", "TTFT p50 ms", "p99 ms")
    fewer = (cut.calls / cut.bytes) / (found[LAST].calls / found[LAST].bytes)
    load = {
        "conversations": len([turn for turn in cut.turns if turn.turn == 0]),
        "turns": len(per_turn[LAST]),
        "prompt_tokens": sum([turn.told.prompt_tokens for turn in cut.turns]),
        "at_a_time": 1,
        "cores": os.cpu_count(),
        "machine_load": rounded(os.getloadavg()[0]),
    }
    return Findings(
        {
            "greedy_identical": same,
            "recomputed_tokens_per_turn": per_turn,
            "moved_blocks": {step: one.blocks for step, one in found.items()},
            "moved_bytes": {step: one.bytes for step, one in found.items()},
            "transfer_calls": {step: one.calls for step, one in found.items()},
            "transfer_calls_in_pieces": cut.calls,
            "aggregation_divides_calls_by": rounded(fewer),
            "pd_load": load,
            "pd_ttft_p50_ms": {step: rounded(one.p50_ms) for step, one in times.items()},
            "pd_ttft_p99_ms": {step: rounded(one.p99_ms) for step, one in times.items()},
        },
        [
            Table(
                f"Prefill and decode apart, {load}; all answers alike: {same}; "
                f"a page as one call: {fewer:g} times fewer",
                columns,
                rows,
            )
        ],
    )


def _per_turn(turns: list[Turn]) -> list[float]:
    """Tokens computed again in each turn, the mean of all conversations."""
    last = max([turn.turn for turn in turns])
    return [
        rounded(statistics.mean([turn.recomputed for turn in turns if turn.turn == number]))
        for number in range(last + 1)
    ]


def _first_ns(turns: list[Turn]) -> array[int]:
    return array("q", [int(turn.told.first_s * 1e9) for turn in turns])
