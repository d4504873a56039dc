"""Where requests are placed: the prompt tree beside a session's home and the least load, on real processes.

Conversations about documents that several of them share come in by a Poisson process. Three workers keep what they have
computed, within limits, and none fetches from another one: so what is cached depends on the placing alone. Each
policy gets fresh workers and the same arrivals, in rounds: policies of a round are compared with each other.

There are more documents than a worker has room to publish, and room for each of them somewhere. Each was asked about
once before the clock starts, through the same router: what is measured is how well a policy finds what is there, and
not how long a document takes the first time, which is the same for all. The load is told: conversations, turns,
documents, tokens, arrivals a second, pages of a worker; and how busy the machine was, for its cores are what the
workers wait for.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.samples import rounded, spread
from bench.serve.client import Message, Told, ask
from bench.serve.fleet import fleet
from bench.serve.part import Findings, Options, Table
from bench.serve.talks import Talk, documents, talk_each, talks_over

MODEL: Final = "smollm2-135m-instruct"
MODEL_QUICK: Final = "toy"
POLICIES: Final = {"prompt-tree": "cost", "session": "session", "least-load": "least-load"}
"""Our name of each policy, and that of `kv_pool.routing`."""
WORKERS: Final = ("w1", "w2", "w3")


class Scale(NamedTuple):
    """How much: conversations, turns, documents, sentences of each, tokens of an answer, seconds between two
    arrivals and before the next turn, pages of a worker, rounds."""

    talks: int
    turns: int
    documents: int
    sentences: int
    answer_tokens: int
    gap_s: float
    think_s: float
    pages: int
    rounds: int


FULL: Final = Scale(16, 3, 6, 34, 6, 2.0, 2.0, 256, 3)
QUICK: Final = Scale(4, 2, 2, 4, 8, 0.1, 0.1, 400, 1)


class Run(NamedTuple):
    """What a policy did in a round."""

    told: list[Told]
    took_s: float
    machine_load: float

    @property
    def cached_ratio(self) -> float:
        """Share of the prompts' tokens that were found computed."""
        return sum([one.cached_tokens for one in self.told]) / self.prompt_tokens

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""
        return sum([one.prompt_tokens for one in self.told])


def measure(options: Options) -> Findings:
    """All policies, in rounds."""
    scale = QUICK if options.quick else FULL
    model = MODEL_QUICK if options.quick else MODEL
    found: dict[str, list[Run]] = {name: [] for name in POLICIES}
    for number in range(scale.rounds):
        seed = options.seed + number
        # Another order in each round, so that none is always the first on a cool machine.
        for name in sorted(POLICIES, key=lambda name: (list(POLICIES).index(name) + number) % 3):
            expected_s = 45 + scale.talks * scale.gap_s + scale.turns * scale.think_s
            options.begin(f"round {number + 1} of {scale.rounds}: {name}", expected_s)
            found[name].append(_run(model, POLICIES[name], scale, seed))
    return _findings(found, scale)


def _run(model: str, policy: str, scale: Scale, seed: int) -> Run:
    rng = random.Random(seed)
    texts = documents(scale.documents, scale.sentences, seed)
    conversations = talks_over(texts, scale.talks, scale.turns, seed)
    starts_s = []
    at_s = 0.0
    for _ in conversations:
        at_s += rng.expovariate(1 / scale.gap_s)
        starts_s.append(at_s)
    workers = [(name, ["--no-fetch", "--pages", str(scale.pages)]) for name in WORKERS]
    with fleet(model, workers, policy=policy) as running:
        before = talk_each(texts)
        _all(running.router, model, before, [0.0] * len(before), scale)
        began_s = time.monotonic()
        told = _all(running.router, model, conversations, starts_s, scale)
        return Run(told, time.monotonic() - began_s, os.getloadavg()[0])


def _all(
    address: str,
    model: str,
    conversations: Sequence[Talk],
    starts_s: Sequence[float],
    scale: Scale,
) -> list[Told]:
    """Every conversation in a thread of its own; raises what went wrong in any of them."""
    told: list[Told] = []
    failures: list[BaseException] = []
    began_s = time.monotonic()

    def talk(one: Talk, start_s: float) -> None:
        try:
            time.sleep(max(0.0, began_s + start_s - time.monotonic()))
            messages: list[Message] = [{"role": "system", "content": one.system}]
            for number, said in enumerate(one.asks):
                if number:
                    time.sleep(scale.think_s)
                messages.append({"role": "user", "content": said})
                answer = ask(address, model, messages, scale.answer_tokens, one.name)
                messages.append({"role": "assistant", "content": answer.text})
                told.append(answer)
        except BaseException as error:  # noqa: BLE001 - told to the thread that waits
            failures.append(error)

    threads = [
        threading.Thread(target=talk, args=pair, daemon=True)
        for pair in zip(conversations, starts_s, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return told


def _findings(found: dict[str, list[Run]], scale: Scale) -> Findings:
    ratios = {name: [run.cached_ratio for run in runs] for name, runs in found.items()}
    times = {
        name: [spread(array("q", [int(one.first_s * 1e9) for one in run.told])) for run in runs]
        for name, runs in found.items()
    }
    p50 = {name: statistics.median([one.p50_ms for one in each]) for name, each in times.items()}
    p99 = {name: statistics.median([one.p99_ms for one in each]) for name, each in times.items()}
    tree = times["prompt-tree"]
    wins = {
        name: sum([ours.p99_ms < theirs.p99_ms for ours, theirs in zip(tree, each, strict=True)])
        for name, each in times.items()
        if name != "prompt-tree"
    }
    runs = found["prompt-tree"]
    requests = len(runs[0].told)
    rows = [
        (
            name,
            " ".join([f"{ratio:.3f}" for ratio in ratios[name]]),
            rounded(p50[name]),
            rounded(p99[name]),
            " ".join([f"{one.p99_ms:.0f}" for one in times[name]]),
            f"{wins[name]} of {scale.rounds}" if name in wins else "",
        )
        for name in found
    ]
    columns = ("policy", "cached", "TTFT p50 ms", "p99 ms", "p99 by round", "tree is quicker")
    load = {
        "requests": requests,
        "conversations_per_s": rounded(1 / scale.gap_s),
        "turns": scale.turns,
        "documents": scale.documents,
        "tokens_a_prompt": round(runs[0].prompt_tokens / requests),
        "workers": len(WORKERS),
        "pages_a_worker": scale.pages,
        "rounds": scale.rounds,
        "cores": os.cpu_count(),
        "took_s": {name: [rounded(run.took_s) for run in each] for name, each in found.items()},
        "machine_load": {
            name: [rounded(run.machine_load) for run in each] for name, each in found.items()
        },
    }
    return Findings(
        {
            "cached_token_ratio": {
                name: rounded(statistics.mean(each)) for name, each in ratios.items()
            },
            "ttft_p50_ms": {name: rounded(value) for name, value in p50.items()},
            "ttft_p99_ms": {name: rounded(value) for name, value in p99.items()},
            "routing_load": load,
            "routing_p99_ms_by_round": {
                name: [rounded(one.p99_ms) for one in each] for name, each in times.items()
            },
            "routing_p99_wins": wins,
        },
        [Table(f"Placing requests: {load}", columns, rows)],
    )
