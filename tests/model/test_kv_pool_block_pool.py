"""Block pools: slots balance whatever happens, and evictions are those of a naive twin."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bench.trace import generate, read
from kv_pool.blocks import split_names
from kv_pool.pool.block_pool import BlockPool, Census, Slot
from kv_pool.pool.eviction import EVICTIONS, CostAware, LastCopyAware, LeastRecent, Outlook
from tests.model.test_kv_pool_tree import name, names_of

FILE = Path(
    os.environ.get("K2_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
).joinpath("conversation_trace.jsonl")
OUTLOOK = Outlook(lambda depth: 1.0 + depth / 10, lambda name: name[0] % 2)


class Naive:
    """One tier with LRU by leaves, as a dictionary of last uses."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.used: dict[tuple[int, ...], int] = {}
        self.held: list[tuple[int, ...]] = []
        self.tick = 0

    def put(self, path: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Have a prompt; gives what had to go."""
        gone = []
        prompt = [path[: end + 1] for end in range(len(path))]
        have = []
        for block in prompt:
            if block not in self.used:
                if len(self.used) == self.slots:
                    going = [
                        one
                        for one in self.used
                        if one not in have
                        and one not in self.held
                        and not any(
                            len(other) == len(one) + 1 and other[: len(one)] == one
                            for other in self.used
                        )
                    ]
                    if not going:
                        break
                    least = min(going, key=lambda one: self.used[one])
                    del self.used[least]
                    gone.append(least)
                self.used[block] = 0
            have.append(block)
        for block in reversed(have):
            self.tick += 1
            self.used[block] = self.tick
        return gone


@pytest.mark.parametrize("seed", range(10))
def test_evictions_are_those_of_the_twin(seed: int) -> None:
    """One tier with LRU evicts exactly what the naive twin evicts, in the same order, holds included; and
    who asks beforehand is told just that."""
    rng = random.Random(seed)
    slots = rng.randrange(3, 20)
    pool, naive = BlockPool([(slots, LeastRecent())]), Naive(slots)
    holds: list[tuple[tuple[int, ...], tuple[Slot, ...]]] = []
    for _ in range(400):
        path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 7)))
        choice = rng.random()
        if choice < 0.15 and len(holds) < 2:
            held = pool.hold(names_of(path))
            holds.append((path, held))
            naive.held += [path[: end + 1] for end in range(len(held))]
        elif choice < 0.3 and holds:
            path, held = holds.pop(rng.randrange(len(holds)))
            pool.let_go(names_of(path), held)
            for end in range(len(held)):
                naive.held.remove(path[: end + 1])
        else:
            kept = pool.hold(names_of(path))
            next_to_go = pool.next_to_go(slots)
            pool.let_go(names_of(path), kept)
            put = pool.put(names_of(path))
            gone = [name(one) for one in naive.put(path)]
            assert [one.name for one in put.gone] == gone
            assert next_to_go[: len(gone)] == gone
        assert pool.counts() == ((len(naive.used), slots - len(naive.used)),)
        for block in naive.used:
            assert pool.find(name(block)) is not None


@pytest.mark.parametrize("policy", EVICTIONS)
@pytest.mark.parametrize("demotes", [True, False])
def test_slots_balance(policy: str, demotes: bool) -> None:
    """In several tiers under every policy: no slot has two blocks, none is lost, generations grow,
    what is held stays where it is, and what is there of a prompt in a tier has its beginning in the
    pool."""
    rng = random.Random(policy)
    sizes = (6, 9, 12)
    pool = BlockPool([(size, EVICTIONS[policy](OUTLOOK)) for size in sizes], demotes=demotes)
    generations: dict[tuple[int, int], int] = {}
    known: set[tuple[int, ...]] = set()
    holds: list[tuple[bytes, tuple[Slot, ...]]] = []
    for _ in range(600):
        path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 8)))
        names = names_of(path)
        known |= {path[: end + 1] for end in range(len(path))}
        choice = rng.random()
        if choice < 0.6:
            put = pool.put(names, rng.choice([0, 0, 1]))
            assert len(put.slots) <= len(path)
        elif choice < 0.75:
            assert pool.use(names) == pool.depth(names)
        elif choice < 0.85 and len(holds) < 2:
            holds.append((names, pool.hold(names)))
        elif holds:
            held_names, slots = holds.pop()
            pool.let_go(held_names, slots)
        else:
            pool.drop(name(path), 0)
        for (used, free), size in zip(pool.counts(), sizes, strict=True):
            assert used + free == size
        taken = [slot for slot in (pool.find(name(one)) for one in sorted(known)) if slot]
        assert len({(slot.tier, slot.number) for slot in taken}) == len(taken)
        for slot in taken:
            place = (slot.tier, slot.number)
            assert slot.generation >= generations.get(place, 0)
            generations[place] = slot.generation
        for held_names, slots in holds:
            for held_name, slot in zip(split_names(held_names), slots, strict=False):
                found = pool.find(held_name)
                assert found is not None
                assert found.tier <= slot.tier


def test_blocks_go_down_and_out() -> None:
    """Without room a block goes to the tier below, pushes another out there, and is found again."""
    pool = BlockPool([(2, LeastRecent()), (2, LeastRecent())])
    pool.put(names_of((0,)))
    pool.put(names_of((1,)))
    put = pool.put(names_of((2,)))
    assert [(one.name, one.to and one.to.tier) for one in put.gone] == [(name((0,)), 1)]
    pool.put(names_of((3,)))
    put = pool.put(names_of((4,)))
    assert [(one.name, one.to and one.to.tier) for one in put.gone] == [
        (name((0,)), None),
        (name((2,)), 1),
    ]
    assert pool.find(name((0,))) is None
    assert pool.depth(names_of((1,))) == 1
    full = BlockPool([(1, LeastRecent())])
    full.hold(names_of((0,)))
    full.put(names_of((0,)))
    held = full.hold(names_of((0,)))
    assert full.put(names_of((1,))).slots == ()
    full.let_go(names_of((0,)), held)
    assert len(full.put(names_of((1,))).slots) == 1
    assert len(BlockPool([(2, LeastRecent())]).put(names_of((0, 1, 0))).slots) == 2


def test_costly_blocks_stay_and_age() -> None:
    """Cost-aware eviction keeps what is dear over what is recent, and lets it go in the end."""
    pool = BlockPool([(2, CostAware(lambda depth: 10.0 if depth else 1.0))])
    pool.put(name((7, 7)), parent=name((7,)), depth=1)
    for number in range(5):
        pool.put(names_of((number,)))
        assert pool.find(name((7, 7))) is not None
    for number in range(20):
        pool.put(names_of((number,)))
    assert pool.find(name((7, 7))) is None


def test_last_copies_stay_longer() -> None:
    """A block that nobody else has outlives younger ones that somebody has, for the grace given."""
    lonely = name((9,))
    policy = LastCopyAware(LeastRecent(), lambda one: int(one != lonely), 5)
    pool = BlockPool([(2, policy)])
    pool.put(lonely)
    survived = 0
    for number in range(20):
        pool.put(name((number,)) if number != 9 else name((99,)))
        survived += pool.find(lonely) is not None
    assert 4 <= survived <= 7


@pytest.mark.parametrize("slots, share", [(1_000, 0.045), (10_000, 0.212), (50_000, 0.355)])
def test_hits_by_size_are_those_of_the_literature(slots: int, share: float) -> None:
    """Replayed in order, LRU pools of some sizes hit the shares measured on the published trace, give
    or take one point (leaves go first here), or three on a made-up one."""
    real = FILE.exists()
    pool = BlockPool([(slots, LeastRecent())])
    hits = references = 0
    for request in read(FILE) if real else generate(0):
        names = b"".join(block.to_bytes(16, "big") for block in request.hash_ids)
        hits += pool.depth(names)
        references += len(request.hash_ids)
        pool.put(names)
    assert hits / references == pytest.approx(share, abs=0.01 if real else 0.03)


def test_a_slot_is_taken_before_its_block_has_a_name() -> None:
    """Taken slots count as used and never go; named, a block is held; a second of its name is one too many."""
    pool = BlockPool([(3, LeastRecent())])
    pool.put(names_of((0,)))
    taken = pool.take(3)
    assert len(taken.slots) == 3
    assert [one.name for one in taken.gone] == [name((0,))]
    assert pool.counts() == ((3, 0),)
    assert pool.take(1).slots == ()
    assert pool.evict(1) == ()
    first = pool.name(taken.slots[0], name((1,)), b"", 0)
    assert first == taken.slots[0]
    assert pool.name(taken.slots[1], name((1,)), b"", 0) == first
    assert pool.references(name((1,)), 0) == 2
    assert pool.references(name((2,)), 0) == 0
    assert pool.census(0) == Census(free=1, cached=0, held=1, taken=1)
    pool.give_back(taken.slots[2:])
    pool.let_go(name((1,)) * 2, [first, first])
    assert pool.census(0) == Census(free=2, cached=1, held=0, taken=0)
    assert [one.slot for one in pool.evict(5)] == [first]
    assert pool.census(0).total == pool.census(0).free == 3
    [again] = pool.take(1).slots
    assert again.number == first.number
    assert again.generation > first.generation
