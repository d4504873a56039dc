"""The memory pool of one instance: pages in tiers, and the index of what they hold (after MemServe).

Accounting is `kv_pool.pool`'s; this class moves the bytes that the accounting moves, seals them and looks
at the seals. An address is a `kv_pool.pool.block_pool.Slot`: tier, number, generation. It means something
inside one instance only; with the instance's name it does in a fleet.

What the index says is true of the bytes: a page gets into it after its bytes are complete and sealed; a
page whose seal is gone or whose tokens differ is not matched, whatever its name; and bytes that
come up from a lower tier are compared with their checksum before anybody sees them. Pages
that fail are forgotten and counted, and the prompt is computed anew from there.

Pages of several namespaces may lie side by side: blocks are named inside their namespace, so none is ever taken for
one of another. Where a call names no namespace, it is about the pool's own.

Not for several threads: one thread (the engine's) has all calls.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Struct

import k2store
from kv_pool.blocks import NAME_BYTES, ROOT_NAME, Chain, Names, chain, root, split_names
from kv_pool.pool.block_pool import BlockPool, Census, Gone, Slot
from kv_pool.pool.eviction import Eviction, LeastRecent
from serving.pages.geometry import Geometry
from serving.pages.store import PageStore, Seal

DEVICE: Final = 0


class Block(Struct, frozen=True):
    """What lies in a slot, by the index.

    namespace  of the block
    parent     name of the block before it; `ROOT_NAME` at depth 0
    tokens     32 bits each, little-endian
    """

    namespace: bytes
    name: bytes
    parent: bytes
    depth: int
    tokens: bytes


class Watcher(Protocol):
    """Who is told of what comes into the index and what leaves it, in order, while it happens."""

    def stored(self, block: Block, slot: Slot) -> None:
        """A block is in a slot, sealed."""
        ...

    def moved(self, name: bytes, source: Slot, destination: Slot | None) -> None:
        """A block left a slot for one in a lower tier, or (None) for good."""
        ...


class Held(Struct, frozen=True):
    """The beginning of a prompt, held on the device.

    chain  its names, and the digest from which `MemPool.insert` goes on
    pages  where it lies
    """

    chain: Chain
    pages: tuple[Slot, ...]


@dataclass
class Counts:
    """What has happened so far, in pages: moved down a tier, brought to the device, forgotten for want
    of room, and found damaged."""

    swapped_out: int = 0
    swapped_in: int = 0
    evicted: int = 0
    damaged: int = 0


class MemPool:
    """See the module.

    namespace  digest of what must be equal for pages to be equal (`kv_pool.namespace`)
    stores     of each tier, the fastest first
    evictions  policies, one for each tier; least recently used first, unless told otherwise
    """

    def __init__(
        self,
        namespace: bytes,
        stores: Sequence[PageStore],
        evictions: Sequence[Eviction] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        policies = evictions or [LeastRecent() for _ in stores]
        self.stores = tuple(stores)
        self.counts = Counts()
        self._namespace = namespace
        self._root = Chain(b"", root(namespace))
        self._blocks = BlockPool(
            [(store.pages, policy) for store, policy in zip(stores, policies, strict=True)]
        )
        self._records: dict[tuple[int, int], Block] = {}
        self._watcher = watcher
        assert len({store.geometry for store in stores}) == 1, "pages of all tiers are alike"

    @property
    def geometry(self) -> Geometry:
        """The shape of the pages."""
        return self.stores[DEVICE].geometry

    @property
    def page_tokens(self) -> int:
        """Tokens of a page."""
        return self.geometry.page_tokens

    @property
    def empty_chain(self) -> Chain:
        """Where every prompt begins."""
        return self._root

    # ------------------------------------------------------------------------------ memory

    def alloc_mem(self, count: int, tier: int = DEVICE) -> tuple[Slot, ...]:
        """So many pages, whose bytes are the caller's to write; `k2store.Overloaded` without room.

        Room is made of cached pages. Either all are given or none.
        """
        put = self._blocks.take(count, tier)
        self._carry_out(put.gone)
        if len(put.slots) < count:
            self._blocks.give_back(put.slots)
            raise k2store.Overloaded(
                f"{count} pages are wanted in tier {tier}, {len(put.slots)} can be had",
                limit="pages",
            )
        return put.slots

    def free_mem(self, pages: Sequence[Slot]) -> None:
        """Give back pages of `alloc_mem` that were not inserted."""
        for page in pages:
            self.stores[page.tier].void(page.number)
        self._blocks.give_back(pages)

    def swap_out(self, count: int, tier: int = DEVICE) -> int:
        """Move up to `count` cached pages down a tier, those worth least; gives how many left."""
        gone = self._blocks.evict(count, tier)
        self._carry_out(gone)
        # Blocks that had to leave the tier below to make room there are not counted.
        return sum(1 for one in gone if one.slot.tier == tier)

    def swap_in(self, names: Names) -> tuple[Slot, ...]:
        """Bring the blocks of a prompt's beginning to the device, as many as are there and find
        room, and hold them; gives where they are. `release` lets them go.
        """
        there = self._blocks.hold(names)
        held = names[: len(there) * NAME_BYTES]
        try:
            up = self._bring_up(held, there)
            on_device = self._blocks.hold(held[: up * NAME_BYTES])
        finally:
            self._blocks.let_go(held, there)
        assert all(slot.tier == DEVICE for slot in on_device), "what was brought up is up"
        return on_device

    # ------------------------------------------------------------------------------- index

    def insert(
        self,
        behind: Chain,
        tokens: Sequence[int],
        pages: Sequence[Slot],
        namespace: bytes | None = None,
    ) -> tuple[Chain, tuple[Slot, ...]]:
        """Let pages be found that hold the tokens which follow on `behind`; their bytes are complete.

        namespace  the one that `behind` is a chain of

        The caller holds all of `behind` on the device, and has the pages from `alloc_mem`. Afterwards it
        holds the pages that are given back: those that it gave, or where the same
        block is there already, that one's.
        """
        assert len(tokens) == len(pages) * self.page_tokens, "pages are inserted whole"
        behind_all = chain(behind.tail, tokens, self.page_tokens)
        parent = behind.names[-NAME_BYTES:] or ROOT_NAME
        depth = behind.blocks
        kept: list[Slot] = []
        for number, (name, page) in enumerate(
            zip(split_names(behind_all.names), pages, strict=True)
        ):
            start = number * self.page_tokens
            held = _packed(tokens[start : start + self.page_tokens])
            record = Block(namespace or self._namespace, name, parent, depth, held)
            slot = self._blocks.name(page, name, parent, depth)
            if slot != page:
                self.stores[page.tier].void(page.number)
            else:
                self._records[slot.tier, slot.number] = record
                self.stores[slot.tier].seal(slot.number, slot.generation)
                self._tell_stored(record, slot)
            assert self._records[slot.tier, slot.number] == record, "one name, one block"
            kept.append(slot)
            parent, depth = name, depth + 1
        return Chain(behind.names + behind_all.names, behind_all.tail), tuple(kept)

    def match(self, tokens: Sequence[int], names: Names | None = None) -> tuple[Slot, ...]:
        """Where the whole blocks of a prompt's beginning lie, in any tier; they may go any time.

        names  of its whole blocks, where somebody has them already
        """
        if names is None:
            names = chain(self._root.tail, tokens, self.page_tokens).names
        return self._known(tokens, names)

    def acquire(self, tokens: Sequence[int], namespace: bytes | None = None) -> Held:
        """Hold what there is of a prompt's beginning on the device, brought up from lower tiers.

        `release` lets the pages go.
        """
        tail = self._root.tail if namespace is None else root(namespace)
        names = chain(tail, tokens, self.page_tokens).names
        known = len(self._known(tokens, names))
        pages = self.swap_in(names[: known * NAME_BYTES]) if known else ()
        return Held(chain(tail, tokens[: len(pages) * self.page_tokens], self.page_tokens), pages)

    def delete(self, tokens: Sequence[int]) -> int:
        """Forget the whole blocks of a prompt in all tiers, from its end on; gives how many went.

        A block that is held, or that another prompt goes on from, stays, and so does all before it.
        """
        names = split_names(chain(self._root.tail, tokens, self.page_tokens).names)
        deleted = 0
        for tier in range(len(self.stores)):
            for name in reversed(names):
                gone = self._blocks.drop(name, tier)
                if gone is not None:
                    self._carry_out([gone])
                    deleted += 1
        return deleted

    def held_pages(self, tokens: Sequence[int]) -> int:
        """How many blocks of a prompt's beginning are on the device and held by somebody: to hold them
        once more takes no room."""
        known = self.match(tokens)
        names = [self._records[slot.tier, slot.number].name for slot in known]
        return sum(
            1
            for name, slot in zip(names, known, strict=True)
            if slot.tier == DEVICE and self._blocks.references(name, DEVICE)
        )

    # ----------------------------------------------------------------------------- holding

    def hold(self, pages: Sequence[Slot]) -> None:
        """Keep pages of the index on the device that are held already, once more."""
        for page in pages:
            record = self._records[page.tier, page.number]
            found = self._blocks.hold(record.name)
            assert found == (page,), "a page that is held has not moved"

    def release(self, pages: Sequence[Slot]) -> None:
        """Let go of pages, in the index or not: each as often as it was had."""
        # The last first: a page that nothing follows can go, so its time of leaving is offered once.
        for page in reversed(pages):
            record = self._records.get((page.tier, page.number))
            if record is None:
                self.free_mem([page])
            else:
                self._blocks.let_go(record.name, [page])

    def seal_of(self, page: Slot) -> Seal | None:
        """The seal of a page of the index; None when the slot is another's by now."""
        seal = self.stores[page.tier].seal_of(page.number)
        return seal if seal is not None and seal.generation == page.generation else None

    # --------------------------------------------------------------------------- watching

    def census(self, tier: int = DEVICE) -> Census:
        """What the pages of a tier are for."""
        return self._blocks.census(tier)

    def check_integrity(self) -> None:
        """Free, cached and active pages are all pages, and the index agrees with the seals.

        For tests and idle moments: looks at every page, though not at its bytes.
        """
        named = 0
        for tier, store in enumerate(self.stores):
            census = self._blocks.census(tier)
            assert census.total == store.pages, "free + cached + held + taken = total"
            named += census.cached + census.held
            for page in range(store.pages):
                if store.seal_of(page) is not None:
                    assert (tier, page) in self._records, "what is sealed is in the index"
        assert len(self._records) == named, "what is in the index has a record, and nothing else"

    def close(self) -> None:
        """Give up what tiers have on disk and in shared memory."""
        for store in self.stores:
            store.close()

    # ---------------------------------------------------------------------------- inside

    def _known(self, tokens: Sequence[int], names: Names) -> tuple[Slot, ...]:
        """Slots of the blocks whose names, tokens and seals are as they should be."""
        slots = []
        for number, name in enumerate(split_names(names)):
            slot = self._blocks.find(name)
            if slot is None or self.seal_of(slot) is None:
                break
            start = number * self.page_tokens
            mine = _packed(tokens[start : start + self.page_tokens])
            if self._records[slot.tier, slot.number].tokens != mine:
                break
            slots.append(slot)
        return tuple(slots)

    def _bring_up(self, names: Names, there: Sequence[Slot]) -> int:
        """Have held blocks on the device as well; gives how many of them, from the first on, are."""
        if all(slot.tier == DEVICE for slot in there):
            return self._blocks.use(names)
        put = self._blocks.put(names, DEVICE, parent=ROOT_NAME)
        self._carry_out(put.gone)
        good = 0
        for source, destination in zip(there, put.slots, strict=False):
            if source.tier != DEVICE and not self._copy(source, destination):
                break
            if source.tier != DEVICE:
                self.counts.swapped_in += 1
                self._tell_stored(self._records[DEVICE, destination.number], destination)
            good += 1
        for name, destination in reversed(
            list(zip(split_names(names), put.slots, strict=False))[good:]
        ):
            # Behind damaged bytes nothing was copied, so what has a place there is only a place.
            gone = self._blocks.drop(name, DEVICE)
            assert gone is not None, "nobody holds what nobody has seen"
            assert gone.slot == destination
            self._records.pop((DEVICE, destination.number), None)
        return good

    def _carry_out(self, gone: Sequence[Gone]) -> None:
        """Move the bytes of blocks that had to go, in the order in which the slots became free."""
        for one in gone:
            source, to = one.slot, one.to
            if to is not None and self.seal_of(to) is None:
                self.counts.swapped_out += 1
                to = to if self._copy(source, to) else None
            self.counts.evicted += to is None
            # What had lost its seal was lost to everybody then.
            if self.seal_of(source) is not None:
                self._void(source, to)
            del self._records[source.tier, source.number]

    def _copy(self, source: Slot, destination: Slot) -> bool:
        """Copy a page and its record; whether the bytes are still those that were sealed.

        Damaged bytes lose their seal at both ends, so that nobody is given them again.
        """
        self._records[destination.tier, destination.number] = self._records[
            source.tier, source.number
        ]
        before = self.seal_of(source)
        if before is None:
            return False
        upper = self.stores[destination.tier]
        upper.tensor[destination.number].copy_(self.stores[source.tier].tensor[source.number])
        after = upper.seal(destination.number, destination.generation)
        if after.checksum == before.checksum:
            return True
        self.counts.damaged += 1
        upper.void(destination.number)
        self._void(source, None)
        return False

    def _void(self, source: Slot, destination: Slot | None) -> None:
        """The bytes in a slot are nobody's any more; they are at another place, or nowhere."""
        self.stores[source.tier].void(source.number)
        if self._watcher is not None:
            name = self._records[source.tier, source.number].name
            self._watcher.moved(name, source, destination)

    def _tell_stored(self, record: Block, slot: Slot) -> None:
        if self._watcher is not None:
            self._watcher.stored(record, slot)


def _packed(tokens: Sequence[int]) -> bytes:
    return array("I", tokens).tobytes()
