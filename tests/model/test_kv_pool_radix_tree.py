"""The drop-in radix tree against dictionaries of blocks, for any events."""

from __future__ import annotations

import json
import random

import pytest

from kv_pool.radix_tree import RadixTree


def local(path: tuple[int, ...]) -> int:
    """A block's own hash: of its tokens alone."""
    return 1_000 + path[-1]


def engine(path: tuple[int, ...]) -> int:
    """An engine's hash: of the whole prefix."""
    number = 1
    for one in path:
        number = number * 3 + one + 1
    return number


def event(data: object, rank: int = 0) -> bytes:
    """An event as JSON."""
    return json.dumps({"event_id": 1, "data": data, "dp_rank": rank}).encode()


def stored(path: tuple[int, ...], start: int, rank: int = 0) -> bytes:
    """Blocks of a prompt from the given one on."""
    blocks = [
        {"block_hash": engine(path[: end + 1]), "tokens_hash": local(path[: end + 1])}
        for end in range(start, len(path))
    ]
    parent = engine(path[:start]) if start else None
    return event({"stored": {"parent_hash": parent, "blocks": blocks}}, rank)


def removed(*paths: tuple[int, ...], rank: int = 0) -> bytes:
    """Blocks that are gone."""
    return event({"removed": {"block_hashes": [engine(path) for path in paths]}}, rank)


class World:
    """A tree and its naive twin."""

    def __init__(self) -> None:
        self.tree = RadixTree()
        self.blocks: dict[tuple[int, int], set[tuple[int, ...]]] = {}

    def check(self, path: tuple[int, ...], tree: RadixTree | None = None) -> None:
        """Scores are the lengths of prefixes in the sets."""
        wanted = {}
        for holder, blocks in self.blocks.items():
            depth = 0
            while depth < len(path) and path[: depth + 1] in blocks:
                depth += 1
            if depth:
                wanted[holder] = depth
        sequence = [local(path[: end + 1]) for end in range(len(path))]
        found = (tree or self.tree).find_matches(sequence)
        assert found.scores == wanted
        assert found.frequencies == []
        early = (tree or self.tree).find_matches(sequence, early_exit=True).scores
        assert set(early) == set(wanted)
        assert all(depth <= wanted[holder] for holder, depth in early.items())

    def step(self, rng: random.Random) -> None:
        """Something happens."""
        holder = (rng.randrange(3), rng.randrange(2))
        worker, rank = holder
        blocks = self.blocks.setdefault(holder, set())
        choice = rng.random()
        if choice < 0.55:
            path = tuple(rng.randrange(3) for _ in range(rng.randrange(1, 8)))
            start = 0
            while start < len(path) and path[: start + 1] in blocks:
                start += 1
            if start and rng.random() < 0.3:
                start -= 1
            self.tree.apply_event(worker, stored(path, start, rank))
            blocks |= {path[: end + 1] for end in range(start, len(path))}
        elif choice < 0.95 and blocks:
            gone = rng.sample(sorted(blocks), min(len(blocks), rng.randrange(1, 4)))
            self.tree.apply_event(worker, removed(*gone, rank=rank))
            blocks -= set(gone)
        elif choice < 0.97:
            self.tree.remove_worker(worker)
            self.forget(worker)
        elif choice < 0.98:
            self.tree.clear_all_blocks(worker)
            self.forget(worker)
        else:
            self.tree.apply_event(worker, event("cleared"))
            self.forget(worker)

    def forget(self, worker: int) -> None:
        """A worker has nothing."""
        for holder, blocks in self.blocks.items():
            if holder[0] == worker:
                blocks.clear()


@pytest.mark.parametrize("seed", range(15))
def test_scores_are_those_of_the_sets(seed: int) -> None:
    """Whatever is stored, removed, cleared and forgotten, scores are exact; at the end nothing stays."""
    rng = random.Random(seed)
    world = World()
    for _ in range(400):
        world.step(rng)
        world.check(tuple(rng.randrange(3) for _ in range(rng.randrange(10))))
    for worker in range(3):
        world.tree.remove_worker(worker)
    assert world.tree.dump_tree_as_events() == []
    assert world.tree._root.behind == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_dump_makes_an_equal_tree(seed: int) -> None:
    """The events of a dump, applied to an empty tree in order, give equal answers; a dump names each
    block of a worker once."""
    rng = random.Random(seed)
    world = World()
    for _ in range(300):
        world.step(rng)
    again = RadixTree()
    names = []
    for line in world.tree.dump_tree_as_events():
        said = json.loads(line)
        again.apply_event(said["worker_id"], json.dumps(said["event"]).encode())
        rank = said["event"]["dp_rank"]
        blocks = said["event"]["data"]["stored"]["blocks"]
        names += [(said["worker_id"], rank, block["block_hash"]) for block in blocks]
    assert len(names) == len(set(names))
    for _ in range(200):
        world.check(tuple(rng.randrange(3) for _ in range(8)), again)


def test_runs_grow_and_stay_few() -> None:
    """Blocks that come one by one from one worker are one run."""
    tree = RadixTree()
    path = (0, 1, 2, 0, 1, 2)
    for end in range(len(path)):
        tree.apply_event(1, stored(path[: end + 1], end))
    assert len(tree.dump_tree_as_events()) == 1


def test_failures_are_those_of_the_other() -> None:
    """No event, no such parent, no such block: the errors that callers of the other tree expect."""
    tree = RadixTree()
    for junk in (b"", b"junk", b"{}", event({}), event({"stored": {"blocks": [{}]}}), b"\xff"):
        with pytest.raises(ValueError, match="deserialize"):
            tree.apply_event(1, junk)
    with pytest.raises(RuntimeError, match="parent block"):
        tree.apply_event(1, stored((0, 1), 1))
    with pytest.raises(RuntimeError, match="find block"):
        tree.apply_event(1, removed((0,)))
    for bad in (-1, 2**64):
        with pytest.raises(OverflowError):
            tree.find_matches([bad])
    tree.remove_worker(5)
    tree.clear_all_blocks(5)
    assert tree.find_matches([]).scores == {}
