"""The prompt tree against sets of blocks, for stretches that come and go in any order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_pool.blocks import NAME_BYTES
from kv_pool.tree import PromptTree, common

HOLDERS = 5


def name(node: tuple[int, ...]) -> bytes:
    """A name for a block, by the whole path to it: what a hash chain gives."""
    return b"".join(one.to_bytes(1, "big") for one in node).rjust(NAME_BYTES, b"\xff")


def names_of(path: tuple[int, ...], start: int = 0) -> bytes:
    """The packed names of a prompt's blocks from the given one on."""
    return b"".join(name(path[: end + 1]) for end in range(start, len(path)))


class World:
    """A tree and its naive twin: for each holder the set of its blocks."""

    def __init__(self) -> None:
        self.tree = PromptTree()
        self.stretches: list[list[tuple[tuple[int, ...], int]]] = [[] for _ in range(HOLDERS)]
        self.blocks: list[set[bytes]] = [set() for _ in range(HOLDERS)]

    def add(self, holder: int, path: tuple[int, ...], start: int) -> None:
        """Add a stretch unless the holder has one of its blocks already."""
        mine = {name(path[: end + 1]) for end in range(start, len(path))}
        if start >= len(path) or mine & self.blocks[holder]:
            return
        self.tree.add(names_of(path, start), 1 << holder)
        self.stretches[holder].append((path, start))
        self.blocks[holder] |= mine

    def drop(self, holder: int, which: int) -> None:
        """Take one of the holder's stretches away."""
        if self.stretches[holder]:
            path, start = self.stretches[holder].pop(which % len(self.stretches[holder]))
            self.tree.discard(names_of(path, start), 1 << holder)
            self.blocks[holder] -= {name(path[: end + 1]) for end in range(start, len(path))}

    def check(self, path: tuple[int, ...], mask: int) -> None:
        """Every question gives what the sets give."""
        wanted = [0] * HOLDERS
        for holder in range(HOLDERS):
            while (
                mask >> holder & 1
                and wanted[holder] < len(path)
                and name(path[: wanted[holder] + 1]) in self.blocks[holder]
            ):
                wanted[holder] += 1
        names = names_of(path)
        found = [0] * HOLDERS
        stops = self.tree.walk(names, mask)
        assert stops == sorted(stops)
        for depth, who in stops:
            assert depth > 0
            for holder in range(HOLDERS):
                if who >> holder & 1:
                    assert found[holder] == 0
                    found[holder] = depth
        assert found == wanted
        longest = max(wanted)
        holders = sum(1 << one for one in range(HOLDERS) if longest and wanted[one] == longest)
        assert self.tree.depth(names, mask) == (longest, holders)
        for holder in range(HOLDERS):
            alive = 0
            for depth, who in self.tree.path(names):
                if not who >> holder & 1:
                    break
                alive = depth
            assert not mask >> holder & 1 or alive == wanted[holder]


PATHS = st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, HOLDERS - 1), PATHS, st.integers(0, 8)),
        st.tuples(st.just("drop"), st.integers(0, HOLDERS - 1), st.integers(0, 99)),
        st.tuples(st.just("check"), PATHS, st.integers(0, 2**HOLDERS - 1)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(deadline=None)
def test_the_tree_is_the_sets(steps: list[tuple]) -> None:
    """Whatever the order of coming and going, holes included, depths are those of the sets."""
    world = World()
    for step in steps:
        match step:
            case ("add", holder, path, start):
                world.add(holder, path, start)
            case ("drop", holder, which):
                world.drop(holder, which)
            case ("check", path, mask):
                world.check(path, mask)


@pytest.mark.parametrize("seed", range(8))
def test_long_random_histories(seed: int) -> None:
    """Hundreds of steps on deeper prompts, every question asked along the way; nothing is left."""
    rng = random.Random(seed)
    world = World()
    for _ in range(600):
        path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 14)))
        if rng.random() < 0.6:
            world.add(rng.randrange(HOLDERS), path, rng.choice([0, 0, 1, 3, 7]))
        else:
            world.drop(rng.randrange(HOLDERS), rng.randrange(100))
        world.check(path + (0, 1), 2**HOLDERS - 1)
    for holder in range(HOLDERS):
        while world.stretches[holder]:
            world.drop(holder, 0)
    assert world.tree.runs == {}


def test_prefixes_make_few_runs() -> None:
    """Chains published in order are stored once, and end where they branch or end: no overlap."""
    rng = random.Random(3)
    tree = PromptTree()
    blocks: set[bytes] = set()
    for holder in range(HOLDERS):
        for _ in range(200):
            path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 12)))
            known, _ = tree.depth(names_of(path), 1 << holder)
            if known < len(path):
                tree.add(names_of(path, known), 1 << holder)
                blocks |= {name(path[: end + 1]) for end in range(len(path))}
    assert sum(len(names) for names, _ in tree.runs.values()) == NAME_BYTES * len(blocks)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 25), st.integers(0, 3))
def test_common_counts_whole_names(same: list[bool], length: int, at: int) -> None:
    """The common stretch ends with the first name that differs, or with the shorter side."""
    run = b"".join(bytes([number]) * NAME_BYTES for number in range(len(same)))
    names = b"".join(
        bytes([number if number < len(same) and same[number] else 99]) * NAME_BYTES
        for number in range(length)
    )
    wanted = 0
    while wanted < min(len(same), length) and same[wanted]:
        wanted += 1
    assert common(b"\xaa" * NAME_BYTES * at + names, at * NAME_BYTES, run) == wanted * NAME_BYTES


def test_overlapping_stretches_are_never_credited_too_much() -> None:
    """A holder that breaks the rule of disjoint stretches gets no block it does not have, and
    nothing of it stays when its stretches are gone."""
    rng = random.Random(5)
    for _ in range(300):
        tree = PromptTree()
        path = tuple(rng.randrange(2) for _ in range(10))
        stretches = []
        for _ in range(4):
            start = rng.randrange(10)
            stretches.append((rng.randrange(2), start, rng.randrange(start + 1, 11)))
        for holder, start, end in stretches:
            tree.add(names_of(path[:end], start), 1 << holder)
        for holder in range(2):
            mine = {
                place
                for who, start, end in stretches
                if who == holder
                for place in range(start, end)
            }
            has = next(depth for depth in range(11) if depth not in mine)
            assert tree.depth(names_of(path), 1 << holder)[0] <= has
        for holder, start, end in stretches:
            tree.discard(names_of(path[:end], start), 1 << holder)
        assert tree.runs == {}
