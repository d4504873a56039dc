"""A worker's blocks in its tiers: slots, references, and making room.

Each tier has so many *slots*. A block in a tier has one; a slot that is used anew has another *generation*,
so an address that was noted before an eviction is not taken for the block that lies there now.

Blocks go leaf by leaf: one that another block in the same tier follows stays until that one is gone,
so what is held of a prompt is always its beginning. What has references (running requests, claims)
stays. A block that goes from one tier comes to the next one below, if it is not there and `demotes`::

    put ──▶ tier 0 ──(least worth, no references, no block behind)──▶ tier 1 ──▶ ... ──▶ gone

A block that is still being computed has no name. It *takes* a slot, which stays its own until it is
given back or the block is named::

    take ──▶ taken ──name──▶ a block with one reference
               └──give_back──▶ free

Invariants: used and free slots of a tier are all its slots; no slot has two blocks; counts of blocks
behind are those of the blocks that are there.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names, split_names
from kv_pool.pool.eviction import Eviction


class Slot(Struct, frozen=True):
    """Where a block lies."""

    tier: int
    number: int
    generation: int


class Gone(Struct, frozen=True):
    """A block left a slot; `to` is where it is now, None for nowhere."""

    name: bytes
    slot: Slot
    to: Slot | None


class Put(Struct, frozen=True):
    """What a `put` did: slots of the blocks in order, as many as found room; and what had to go."""

    slots: tuple[Slot, ...]
    gone: tuple[Gone, ...]


class Census(Struct, frozen=True):
    """Slots of a tier by what they are for; together they are all of them.

    free    nothing lies there
    cached  a block that nobody holds: it goes when room is needed
    held    a block with references
    taken   a block without a name
    """

    free: int
    cached: int
    held: int
    taken: int

    @property
    def total(self) -> int:
        """All slots of the tier."""
        return self.free + self.cached + self.held + self.taken


class _Block(Struct):
    """A block in a tier."""

    name: bytes
    parent: bytes
    depth: int
    slot: Slot
    worth: float = 0.0
    uses: int = 0
    references: int = 0


class _Tier:
    """One tier: its blocks, free slots, and a heap of worths, old entries among them.

    `behind` counts the blocks that follow a block, whether that one is there or not.
    """

    __slots__ = (
        "behind",
        "blocks",
        "eviction",
        "free",
        "generations",
        "heap",
        "number",
        "taken",
        "tick",
    )

    def __init__(self, number: int, slots: int, eviction: Eviction) -> None:
        self.number = number
        self.eviction = eviction
        self.blocks: dict[bytes, _Block] = {}
        self.behind: dict[bytes, int] = {}
        self.free = list(range(slots - 1, -1, -1))
        self.generations = [0] * slots
        self.heap: list[tuple[float, bytes]] = []
        self.taken: dict[int, Slot] = {}
        self.tick = 0

    def use(self, block: _Block) -> None:
        """The block is used now."""
        self.tick += 1
        block.uses += 1
        block.worth = self.eviction.worth(block.name, block.depth, block.uses, self.tick)
        self.offer(block)

    def offer(self, block: _Block) -> None:
        """Let a block be found when room is needed, if it may go."""
        if self.may_go(block):
            heapq.heappush(self.heap, (block.worth, block.name))
            if len(self.heap) > 2 * len(self.blocks) + 64:
                self._tidy()

    def may_go(self, block: _Block) -> bool:
        """Whether nobody holds the block and none follows it."""
        return not block.references and block.name not in self.behind

    def least(self) -> _Block | None:
        """The block that goes first."""
        while self.heap:
            worth, name = self.heap[0]
            block = self.blocks.get(name)
            if block is not None and block.worth == worth and self.may_go(block):
                return block
            heapq.heappop(self.heap)
        return None

    def allot(self) -> Slot:
        """A free slot, under a generation that it never had."""
        number = self.free.pop()
        self.generations[number] += 1
        return Slot(self.number, number, self.generations[number])

    def add(self, name: bytes, parent: bytes, depth: int, slot: Slot | None = None) -> _Block:
        """A block in a slot, in a free one unless told which."""
        block = _Block(name, parent, depth, slot or self.allot())
        self.blocks[name] = block
        self.behind[parent] = self.behind.get(parent, 0) + 1
        return block

    def remove(self, block: _Block) -> None:
        """The block's slot is free; the one before it may go now."""
        del self.blocks[block.name]
        self.free.append(block.slot.number)
        left = self.behind.pop(block.parent) - 1
        if left:
            self.behind[block.parent] = left
        elif block.parent in self.blocks:
            self.offer(self.blocks[block.parent])

    def _tidy(self) -> None:
        """Forget entries that say nothing any more."""
        self.heap = [
            (block.worth, block.name) for block in self.blocks.values() if self.may_go(block)
        ]
        heapq.heapify(self.heap)


class BlockPool:
    """See the module. `tiers`: slots and policy of each, the fastest first."""

    def __init__(self, tiers: Sequence[tuple[int, Eviction]], *, demotes: bool = True) -> None:
        self._tiers = [
            _Tier(number, slots, eviction) for number, (slots, eviction) in enumerate(tiers)
        ]
        self._demotes = demotes

    def depth(self, names: Names) -> int:
        """How many blocks of a prompt's beginning are there, in any tier."""
        depth = 0
        for at in range(0, len(names), NAME_BYTES):
            if self.find(names[at : at + NAME_BYTES]) is None:
                break
            depth += 1
        return depth

    def find(self, name: bytes) -> Slot | None:
        """Where a block lies, in the fastest tier that has it."""
        for tier in self._tiers:
            block = tier.blocks.get(name)
            if block is not None:
                return block.slot
        return None

    def counts(self) -> tuple[tuple[int, int], ...]:
        """Used and free slots of each tier."""
        return tuple([(len(tier.blocks) + len(tier.taken), len(tier.free)) for tier in self._tiers])

    def census(self, tier: int) -> Census:
        """What the slots of a tier are for; looks at every block."""
        place = self._tiers[tier]
        held = sum(1 for block in place.blocks.values() if block.references)
        return Census(len(place.free), len(place.blocks) - held, held, len(place.taken))

    def references(self, name: bytes, tier: int) -> int:
        """How often a block of a tier is held; 0 where it is not."""
        block = self._tiers[tier].blocks.get(name)
        return block.references if block is not None else 0

    def take(self, count: int, tier: int = 0) -> Put:
        """Have slots for blocks without a name, as many of `count` as found room."""
        place = self._tiers[tier]
        slots: list[Slot] = []
        gone: list[Gone] = []
        while len(slots) < count and (place.free or self._make_room(place, gone)):
            slot = place.allot()
            place.taken[slot.number] = slot
            slots.append(slot)
        return Put(tuple(slots), tuple(gone))

    def give_back(self, slots: Sequence[Slot]) -> None:
        """Taken slots are free."""
        for slot in slots:
            place = self._tiers[slot.tier]
            assert place.taken.get(slot.number) == slot, "what is given back was taken"
            del place.taken[slot.number]
            place.free.append(slot.number)

    def name(self, slot: Slot, name: bytes, parent: bytes, depth: int) -> Slot:
        """The block in a taken slot has a name now, and one reference; gives where it lies.

        If the tier has a block of that name, that one gets the reference and the taken slot is free.
        """
        place = self._tiers[slot.tier]
        assert place.taken.get(slot.number) == slot, "what is named was taken"
        block = place.blocks.get(name)
        if block is not None:
            self.give_back([slot])
        else:
            del place.taken[slot.number]
            block = place.add(name, parent, depth, slot)
        block.references += 1
        place.use(block)
        return block.slot

    def evict(self, count: int, tier: int = 0) -> tuple[Gone, ...]:
        """Let up to `count` blocks go from a tier, those that are worth least."""
        gone: list[Gone] = []
        for _ in range(count):
            if not self._make_room(self._tiers[tier], gone):
                break
        return tuple(gone)

    def put(self, names: Names, tier: int = 0, *, parent: bytes = b"", depth: int = 0) -> Put:
        """Have consecutive blocks in a tier; what is there already is used.

        Blocks come from the first on, as far as room can be made without touching any of these.
        """
        place = self._tiers[tier]
        wanted = split_names(names)
        slots: list[Slot] = []
        gone: list[Gone] = []
        kept: list[_Block] = []
        for name in wanted:
            block = place.blocks.get(name)
            if block is None:
                if not place.free and not self._make_room(place, gone):
                    break
                block = place.add(name, parent, depth)
            # Held until all are there, so that none of them makes room for another.
            block.references += 1
            kept.append(block)
            slots.append(block.slot)
            parent, depth = name, depth + 1
        # The last first: of a prompt that was used as a whole the end is to go before the beginning.
        for block in reversed(kept):
            block.references -= 1
            place.use(block)
        return Put(tuple(slots), tuple(gone))

    def use(self, names: Names) -> int:
        """The blocks of a prompt's beginning are used, wherever they are; gives how many."""
        found: list[tuple[_Tier, _Block]] = []
        for name in split_names(names):
            here = [(tier, tier.blocks[name]) for tier in self._tiers if name in tier.blocks]
            if not here:
                break
            found.append(here[0])
        for tier, block in reversed(found):
            tier.use(block)
        return len(found)

    def hold(self, names: Names) -> tuple[Slot, ...]:
        """Keep the blocks of a prompt's beginning where they are, until they are let go; where."""
        slots = []
        for name in split_names(names):
            slot = self.find(name)
            if slot is None:
                break
            self._tiers[slot.tier].blocks[name].references += 1
            slots.append(slot)
        return tuple(slots)

    def let_go(self, names: Names, slots: Sequence[Slot]) -> None:
        """Give back what `hold` gave for these names."""
        for name, slot in zip(split_names(names), slots, strict=False):
            tier = self._tiers[slot.tier]
            block = tier.blocks.get(name)
            assert block is not None, "what is held stays"
            assert block.slot == slot, "what is held stays where it is"
            assert block.references > 0, "what is let go was held"
            block.references -= 1
            tier.offer(block)

    def next_to_go(self, count: int, tier: int = 0) -> list[bytes]:
        """So many blocks of a tier that would go next, each before the ones that it follows.

        Nothing changes: who must ask somebody first takes these to ask about, and drops what may go.
        """
        place = self._tiers[tier]
        behind: dict[bytes, int] = {}
        heap = [(one.worth, one.name) for one in place.blocks.values() if place.may_go(one)]
        heapq.heapify(heap)
        found: list[bytes] = []
        while heap and len(found) < count:
            block = place.blocks[heapq.heappop(heap)[1]]
            found.append(block.name)
            left = behind.get(block.parent, place.behind[block.parent]) - 1
            behind[block.parent] = left
            before = place.blocks.get(block.parent)
            if before is not None and not left and not before.references:
                heapq.heappush(heap, (before.worth, before.name))
        return found

    def drop(self, name: bytes, tier: int) -> Gone | None:
        """Remove one block from a tier; None when it is not there, is held, or has some behind it."""
        place = self._tiers[tier]
        block = place.blocks.get(name)
        if block is None or not place.may_go(block):
            return None
        place.remove(block)
        return Gone(name, block.slot, None)

    def _make_room(self, tier: _Tier, gone: list[Gone]) -> bool:
        """Free one slot; what goes may push others out of the tiers below."""
        block = tier.least()
        if block is None:
            return False
        tier.eviction.gone(block.worth)
        to: Slot | None = None
        below = tier.number + 1
        if self._demotes and below < len(self._tiers):
            lower = self._tiers[below]
            there = lower.blocks.get(block.name)
            if there is not None:
                to = there.slot
            elif lower.free or self._make_room(lower, gone):
                moved = lower.add(block.name, block.parent, block.depth)
                moved.uses = block.uses - 1
                lower.use(moved)
                to = moved.slot
        tier.remove(block)
        gone.append(Gone(block.name, block.slot, to))
        return True
