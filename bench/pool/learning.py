"""The learner alone in a process: ``python -m bench.pool.learning CHAINS BLOCK_TOKENS ROUNDS``.

The rows that 16 workers publish are applied as a feed brings them, one commit a publish; then every
prompt is matched. Prints one JSON object (`Learned`).
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench.pool.chains import WORKERS, Prompt, read
from bench.samples import quantile
from kv_pool import keys, tree
from kv_pool.blocks import NAME_BYTES, split_names
from kv_pool.directory.membership import Registration
from kv_pool.directory.publishing import rows_of
from kv_pool.events.engine import Engine
from kv_pool.events.wire import decode_batch
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.ledger import Ledger, Publish
from kv_pool.namespace import Namespace
from kv_pool.records import ENCODE, Id, Phase, State, Tier

FEED: Final = "bench"
LEARNERS: Final = 3
"""How often the rows are applied to a fresh learner; the median counts."""


class Learned(Struct, frozen=True, kw_only=True):
    """What was measured of the learner.

    match, longest         one call, timed alone, over all prompts and rounds
    scores                 sum of all depths of all matches: equal for whoever is right
    apply_blocks_per_s     rows as the feed brings them: decoded, indexed, matchable
    msgpack_blocks_per_s   engines' batches: decoded, entered in the workers' books, made rows, applied
    bytes_per_block        memory of the learner a block that is held, each holder's counted
    bytes_per_distinct     the same for each block once, however many hold it
    row_bytes              of the mean row that a publish writes
    compiled               whether the hot modules are machine code
    """

    match_p50_us: float
    match_p99_us: float
    longest_p50_us: float
    longest_p99_us: float
    scores: int
    prompts: int
    apply_blocks_per_s: float
    msgpack_blocks_per_s: float
    bytes_per_block: float
    bytes_per_distinct: float
    blocks: int
    distinct: int
    row_bytes: int
    compiled: bool


class Change(Struct, frozen=True, gc=False):
    """One key of a commit, as a watch gives it."""

    key: bytes
    value: bytes | None


Commit = tuple[int, list[Change]]


class Directory:
    """16 workers and what they publish: as commits of the store, and as batches of their engines."""

    def __init__(self, prompts: list[Prompt], block_tokens: int) -> None:
        self._prompts = prompts
        self._block_tokens = block_tokens
        self.namespace = Namespace(
            tenant="bench",
            model="trace",
            revision="0",
            dtype="none",
            layout="none",
            block_tokens=block_tokens,
        ).digest()
        identity = Id(1, bytes(16), State.LIVE)
        self.workers = [Worker("local", f"w{number}") for number in range(WORKERS)]
        self.registrations = [Registration(worker, identity, 1) for worker in self.workers]
        self.blocks = sum([prompt.blocks - prompt.new for prompt in prompts])

    def registered(self) -> list[tuple[bytes, bytes]]:
        """The rows of the workers themselves."""
        return [(keys.identity(one.worker), ENCODE(one.identity)) for one in self.registrations]

    def commits(self) -> list[Commit]:
        """Each publish as a commit."""
        ledgers = [Ledger() for _ in self.workers]
        found: list[Commit] = []
        for prompt in self._prompts:
            publishes = ledgers[prompt.worker].store(
                self.namespace, Tier.DEVICE, prompt.names, None
            )
            assert publishes is not None, "a prompt begins at its beginning"
            if publishes:
                rows = [row for one in publishes for row in self.rows(prompt.worker, one)]
                found.append((len(found) + 2, rows))
        return found

    def rows(self, worker: int, publish: Publish) -> list[Change]:
        """The rows of a stretch, as its transaction writes them."""
        registration = self.registrations[worker]
        runs = rows_of(registration, publish.stretch(registration), Phase.READY)
        return [
            Change(
                keys.run(registration.worker, publish.namespace, publish.tier, first), ENCODE(run)
            )
            for first, run in runs
        ]

    def batches(self) -> list[tuple[int, bytes]]:
        """Each publish as a batch of the worker's engine, in vLLM's form: with the tokens of all blocks."""
        encode = msgspec.msgpack.Encoder().encode
        found = []
        for prompt in self._prompts:
            names = split_names(prompt.new_names)
            if names:
                at = prompt.new * NAME_BYTES
                event = {
                    "type": "BlockStored",
                    "block_hashes": names,
                    "parent_block_hash": prompt.names[at - NAME_BYTES : at] if at else None,
                    "token_ids": [50_000] * (self._block_tokens * len(names)),
                    "block_size": self._block_tokens,
                    "medium": "GPU",
                }
                found.append((prompt.worker, encode([0.0, [event], 0])))
        return found


def applied(directory: Directory, commits: list[Commit]) -> Learner:
    """A learner that has followed from the beginning."""
    learner = Learner()
    learner.begin(FEED)
    learner.load(FEED, directory.registered())
    learner.finish(FEED, 1)
    for at, changes in commits:
        learner.apply(FEED, at, changes)
    return learner


def from_engines(directory: Directory, batches: list[tuple[int, bytes]]) -> Learner:
    """A learner that is fed what the engines say, through the books of the workers."""
    learner = applied(directory, [])
    engines = [Engine(lambda _scope, _tokens: directory.namespace) for _ in directory.workers]
    at = 1
    for worker, payload in batches:
        for action in engines[worker].apply(decode_batch(payload), 0):
            assert isinstance(action, Publish), action
            at += 1
            learner.apply(FEED, at, directory.rows(worker, action))
    return learner


def timed(
    ask: Callable[[bytes, bytes], object], namespace: bytes, names: list[bytes]
) -> array[int]:
    """How long each call takes, ns."""
    clock = time.perf_counter_ns
    taken = array("q")
    note = taken.append
    for one in names:
        began = clock()
        ask(namespace, one)
        note(clock() - began)
    return taken


def measure(prompts: list[Prompt], block_tokens: int, rounds: int) -> Learned:
    """Everything about the learner."""
    directory = Directory(prompts, block_tokens)
    commits = directory.commits()
    batches = directory.batches()
    names = [prompt.names for prompt in prompts]
    distinct = len({name for prompt in prompts for name in split_names(prompt.new_names)})
    gc.collect()
    gc.freeze()
    # What its objects take, counted: resident memory also has holes that others left.
    tracemalloc.start()
    learner = applied(directory, commits)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert learner.counts().blocks == directory.blocks, "every block is counted"
    ours, engines = [], []
    for _ in range(LEARNERS):
        began = time.perf_counter()
        applied(directory, commits)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        other = from_engines(directory, batches)
        engines.append(time.perf_counter() - began)
        assert other.counts().blocks == directory.blocks, "engines tell every block"
    matches, longest = array("q"), array("q")
    for _ in range(rounds):
        matches.extend(timed(learner.match, directory.namespace, names))
        longest.extend(timed(learner.longest, directory.namespace, names))
    scores = sum([sum(learner.match(directory.namespace, one).depths.values()) for one in names])
    match_ns, longest_ns = sorted(matches), sorted(longest)
    return Learned(
        match_p50_us=quantile(match_ns, 0.5) / 1e3,
        match_p99_us=quantile(match_ns, 0.99) / 1e3,
        longest_p50_us=quantile(longest_ns, 0.5) / 1e3,
        longest_p99_us=quantile(longest_ns, 0.99) / 1e3,
        scores=scores,
        prompts=len(prompts),
        apply_blocks_per_s=directory.blocks / sorted(ours)[LEARNERS // 2],
        msgpack_blocks_per_s=directory.blocks / sorted(engines)[LEARNERS // 2],
        bytes_per_block=grown / directory.blocks,
        bytes_per_distinct=grown / distinct,
        blocks=directory.blocks,
        distinct=distinct,
        row_bytes=sum([len(row.value or b"") for _, rows in commits for row in rows])
        // max(1, len(commits)),
        compiled=not tree.__file__.endswith(".py"),
    )


def main() -> None:
    """Measure and print."""
    file, block_tokens, rounds = sys.argv[1:]
    found = measure(read(Path(file)), int(block_tokens), int(rounds))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
