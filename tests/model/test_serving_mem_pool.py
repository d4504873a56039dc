"""The memory pool against what each page must hold: no step loses a page or serves another's bytes."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

import k2store
from kv_pool.pool.block_pool import Slot
from kv_pool.pool.eviction import EVICTIONS, Outlook
from serving.pages.geometry import Geometry
from serving.pages.mem_pool import Block, MemPool
from serving.pages.store import PageStore

GEOMETRY = Geometry(layers=2, kv_heads=1, head_dim=2, page_tokens=2)
PATHS = st.lists(st.integers(0, 1), min_size=1, max_size=6)
OUTLOOK = Outlook(lambda depth: 1.0 + depth, lambda name: name[0] % 2)


def contents(tokens: list[int]) -> bytes:
    """What the page must hold that ends with these tokens."""
    digest = hashlib.sha256(repr(tokens).encode()).digest()
    return (digest * (GEOMETRY.page_bytes // len(digest) + 1))[: GEOMETRY.page_bytes]


def tokens_of(path: list[int]) -> list[int]:
    """Two tokens for each step of a path, so that a step is a page."""
    return [token for step in path for token in (step, step + 10)]


class Request:
    """Somebody who holds the pages of a prompt: `named` in the index, `taken` not yet."""

    def __init__(self, tokens: list[int], named: tuple[Slot, ...], taken: tuple[Slot, ...]) -> None:
        self.tokens = tokens
        self.named = named
        self.taken = taken


class Pools(RuleBasedStateMachine):
    """Requests come, compute, share and go; tiers are pushed out and bytes below are damaged."""

    requests = Bundle("requests")

    @initialize(
        policy=st.sampled_from(sorted(EVICTIONS)), host=st.integers(1, 5), disk=st.integers(0, 4)
    )
    def begin(self, policy: str, host: int, disk: int) -> None:
        """A device of eight pages over smaller tiers, or none below the host."""
        sizes = [8, host] + ([disk] if disk else [])
        self.stores = [PageStore(GEOMETRY, size) for size in sizes]
        policies = [EVICTIONS[policy](OUTLOOK) for _ in sizes]
        self.watched: dict[Slot, bytes] = {}
        self.pool = MemPool(b"n" * 16, self.stores, policies, self)
        self.active: list[Request] = []
        self.damaged = 0

    def stored(self, block: Block, slot: Slot) -> None:
        """As the watcher: nothing lies where something comes."""
        assert block.namespace == b"n" * 16
        assert slot not in self.watched
        self.watched[slot] = block.name

    def moved(self, name: bytes, source: Slot, destination: Slot | None) -> None:
        """As the watcher: what goes was there."""
        assert self.watched.pop(source) == name
        if destination is not None:
            assert self.watched.setdefault(destination, name) == name

    @rule(target=requests, path=PATHS, compute=st.integers(0, 6))
    def arrive(self, path: list[int], compute: int) -> object:
        """A prompt comes: what is known is held and right, some of the rest is computed."""
        tokens = tokens_of(path)
        held = self.pool.acquire(tokens)
        for number, page in enumerate(held.pages):
            assert page.tier == 0
            ends = 2 * (number + 1)
            assert bytes(self.stores[0].read(page.number)) == contents(tokens[:ends])
        missing = len(path) - len(held.pages)
        try:
            taken = self.pool.alloc_mem(missing)
        except k2store.Overloaded:
            self.pool.release(held.pages)
            return multiple()
        start = len(held.pages)
        for number, page in enumerate(taken):
            ends = 2 * (start + number + 1)
            self.stores[0].write(page.number, contents(tokens[:ends]))
        ready = min(compute, missing)
        computed = tokens[2 * start : 2 * (start + ready)]
        chain, named = self.pool.insert(held.chain, computed, taken[:ready])
        assert chain.blocks == start + ready
        request = Request(tokens, held.pages + named, taken[ready:])
        self.active.append(request)
        return request

    @rule(request=consumes(requests), insert=st.booleans())
    def leave(self, request: Request, insert: bool) -> None:
        """A request ends: its bytes did not change meanwhile, and everything is let go."""
        for number, page in enumerate(request.named):
            ends = 2 * (number + 1)
            assert bytes(self.stores[0].read(page.number)) == contents(request.tokens[:ends])
        self.active.remove(request)
        if insert:
            again = self.pool.acquire(request.tokens[: 2 * len(request.named)])
            assert again.pages == request.named
            self.pool.release(again.pages)
        self.pool.release(request.named + request.taken)

    @rule(count=st.integers(0, 9), tier=st.integers(0, 1))
    def push_out(self, count: int, tier: int) -> None:
        """Cached pages go down; as many as there are."""
        cached = self.pool.census(tier).cached
        assert self.pool.swap_out(count, tier) <= min(count, cached)

    @rule(path=PATHS)
    def forget(self, path: list[int]) -> None:
        """A prompt is deleted as far as nobody needs it."""
        self.pool.delete(tokens_of(path))

    @rule(tier=st.integers(1, 2), page=st.integers(0, 4))
    def damage(self, tier: int, page: int) -> None:
        """A bit turns in a lower tier. Nobody may ever see it (`arrive` looks)."""
        if tier < len(self.stores) and page < self.stores[tier].pages:
            self.stores[tier].read(page)[0] ^= 1
            self.damaged += 1

    @invariant()
    def balance(self) -> None:
        """Free, cached and active make all; what requests hold is held; watchers know what is there."""
        if not hasattr(self, "pool"):
            return
        self.pool.check_integrity()
        census = self.pool.census()
        assert census.held == len({page for each in self.active for page in each.named})
        assert census.taken == sum(len(each.taken) for each in self.active)
        assert self.pool.counts.damaged <= self.damaged
        sealed = {
            (tier, page)
            for tier, store in enumerate(self.stores)
            for page in range(store.pages)
            if store.seal_of(page) is not None
        }
        assert sealed == {(slot.tier, slot.number) for slot in self.watched}


Pools.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPools = Pools.TestCase


def filled(pool: MemPool, path: list[int]) -> tuple[Slot, ...]:
    """Have a prompt computed and inserted; gives its pages, held."""
    tokens = tokens_of(path)
    pages = pool.alloc_mem(len(path))
    for number, page in enumerate(pages):
        pool.stores[0].write(page.number, contents(tokens[: 2 * (number + 1)]))
    return pool.insert(pool.empty_chain, tokens, pages)[1]


def test_damage_below_is_found_and_healed() -> None:
    """Bytes that changed on the host are not given out; computed anew, the prompt is whole again."""
    stores = [PageStore(GEOMETRY, 3), PageStore(GEOMETRY, 3)]
    pool = MemPool(b"n" * 16, stores)
    pool.release(filled(pool, [0, 1, 0]))
    assert pool.swap_out(3) == 3
    where = pool.match(tokens_of([0, 1, 0]))
    assert [slot.tier for slot in where] == [1, 1, 1]
    stores[1].read(where[1].number)[3] ^= 0x40
    held = pool.acquire(tokens_of([0, 1, 0]))
    assert len(held.pages) == held.chain.blocks == 1
    assert pool.counts.damaged == 1
    pool.check_integrity()
    rest = pool.alloc_mem(2)
    for number, page in enumerate(rest):
        stores[0].write(page.number, contents(tokens_of([0, 1, 0])[: 2 * (number + 2)]))
    _, named = pool.insert(held.chain, tokens_of([1, 0]), rest)
    pool.release(held.pages + named)
    pool.swap_out(3)
    again = pool.acquire(tokens_of([0, 1, 0]))
    assert len(again.pages) == 3
    assert bytes(stores[0].read(again.pages[1].number)) == contents(tokens_of([0, 1]))
    assert pool.counts.damaged == 1


def test_an_old_address_is_nobodys() -> None:
    """After a slot was used anew, the address that was noted before finds nothing."""
    pool = MemPool(b"n" * 16, [PageStore(GEOMETRY, 1)])
    [first] = filled(pool, [0])
    seal = pool.seal_of(first)
    assert seal is not None
    assert seal.generation == first.generation
    pool.release([first])
    [second] = filled(pool, [1])
    assert second.number == first.number
    assert pool.seal_of(first) is None
    assert pool.seal_of(second) is not None


def test_equal_blocks_become_one() -> None:
    """Two who computed the same block hold one page afterwards; the other page is free."""
    pool = MemPool(b"n" * 16, [PageStore(GEOMETRY, 4)])
    first, second = filled(pool, [0, 1]), filled(pool, [0, 1])
    assert first == second
    census = pool.census()
    assert (census.free, census.held, census.taken) == (2, 2, 0)
    pool.release(first)
    assert pool.census().held == 2
    pool.release(second)
    assert pool.census().cached == 2


def test_memory_is_given_whole_or_not_at_all() -> None:
    """Without room for all pages none is taken, and the refusal names the limit."""
    pool = MemPool(b"n" * 16, [PageStore(GEOMETRY, 3)])
    held = filled(pool, [0, 1])
    with pytest.raises(k2store.Overloaded) as caught:
        pool.alloc_mem(2)
    assert caught.value.limit == "pages"
    assert pool.census().free == 1
    pool.release(held)
    assert len(pool.alloc_mem(3)) == 3


def test_a_page_is_one_stretch_of_memory() -> None:
    """What is written through the tensor is what the bytes of the page say, and the other way round."""
    store = PageStore(GEOMETRY, 3)
    store.tensor[1] = torch.arange(16.0).view(GEOMETRY.page_shape)
    assert torch.frombuffer(store.read(1), dtype=torch.float32).tolist() == list(range(16))
    assert not any(bytes(store.read(0)) + bytes(store.read(2)))
    store.write(2, store.read(1))
    assert store.tensor[2].flatten().tolist() == list(range(16))
