"""A drop-in for the `RadixTree` of NVIDIA Dynamo's Python bindings.

The same methods, events and answers, for programs that have one already. Prompts are sequences of *local*
hashes, each of one block's tokens alone; engines' own hashes only tell which block an event means::

    tree = RadixTree()
    tree.apply_event(
        7,
        b'{"event_id": 1, "data": {"stored": {"parent_hash": null, "blocks": [...]}}, "dp_rank": 0}',
    )
    tree.find_matches([11, 12, 13]).scores  # {(7, 0): 2}

Since local hashes do not stand for what is before them, this is a radix tree with edges: runs of
blocks, and under the end of each run its continuations by their first block. A holder is a bit, and
has all blocks of a run or none, as in `kv_pool.tree`.

Where it differs: a block that is removed from the middle of what a worker has does not take the rest along. The rest
is out of reach until the block is back, and its own removal is no error. Hashes are numbers below 2**64.
Not for several threads at once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

WorkerRank: TypeAlias = tuple[int, int]
"""A worker's number and the rank inside it."""

_BYTES: Final = 8


class OverlapScores:
    """Blocks of the beginning of a sequence that each worker and rank has; `frequencies` is empty."""

    __slots__ = ("frequencies", "scores")

    def __init__(self, scores: dict[WorkerRank, int]) -> None:
        self.scores = scores
        self.frequencies: list[int] = []


class _Block(Struct, frozen=True, gc=False):
    block_hash: int
    tokens_hash: int
    mm_extra_info: object = None


class _Stored(Struct, frozen=True, gc=False):
    blocks: list[_Block]
    parent_hash: int | None = None
    start_position: int | None = None


class _Removed(Struct, frozen=True, gc=False):
    block_hashes: list[int]


class _Data(Struct, frozen=True, gc=False):
    stored: _Stored | None = None
    removed: _Removed | None = None


class _Event(Struct, frozen=True, gc=False):
    event_id: int
    data: _Data | Literal["cleared"]
    dp_rank: int = 0


_EVENTS: Final = msgspec.json.Decoder(_Event)


class _Run:
    """Consecutive blocks with the same holders.

    When a run is split its first part is a new run and this one goes on as the rest. So whoever
    noted this run and a depth finds the block here or, going up, in one before it.
    """

    __slots__ = ("before", "behind", "hashes", "mask", "start")

    def __init__(self, before: _Run | None, start: int, hashes: bytes, mask: int) -> None:
        self.before = before
        self.start = start
        self.hashes = hashes
        self.mask = mask
        self.behind: dict[bytes, _Run] = {}

    @property
    def end(self) -> int:
        """The depth behind the last block."""
        return self.start + len(self.hashes) // _BYTES


class _Holder:
    """A worker's rank: its bit, and where its blocks are, by the engine's hashes."""

    __slots__ = ("bit", "name", "places")

    def __init__(self, name: WorkerRank, bit: int) -> None:
        self.name = name
        self.bit = bit
        self.places: dict[int, tuple[_Run, int]] = {}


class RadixTree:
    """See the module."""

    def __init__(self) -> None:
        self._root = _Run(None, 0, b"", 0)
        self._holders: dict[WorkerRank, _Holder] = {}
        self._free: list[int] = []
        self._names: dict[int, WorkerRank] = {}
        self._sets: dict[int, tuple[WorkerRank, ...]] = {}
        self._packs: dict[int, struct.Struct] = {}

    def find_matches(self, sequence: Sequence[int], early_exit: bool = False) -> OverlapScores:  # noqa: FBT001, FBT002 - as the other's
        """How many blocks of a sequence's beginning each worker and rank has.

        early_exit  stop where only one of them is left: its depth is what was found up to there
        """
        names = self._pack(sequence)
        size = len(names)
        run = self._root.behind.get(names[:_BYTES])
        scores: dict[WorkerRank, int] = {}
        if run is None:
            return OverlapScores(scores)
        alive = run.mask
        at = 0
        while True:
            hashes = run.hashes
            if names.startswith(hashes, at):
                at += len(hashes)
            else:
                at += _common(names, at, hashes)
                break
            if at == size or (early_exit and alive & (alive - 1) == 0):
                break
            run = run.behind.get(names[at : at + _BYTES])
            if run is None:
                break
            both = alive & run.mask
            if both != alive:
                self._score(scores, alive ^ both, at)
                if not both:
                    return OverlapScores(scores)
                alive = both
        self._score(scores, alive, at)
        return OverlapScores(scores)

    def apply_event(self, worker_id: int, kv_cache_event_bytes: bytes) -> None:
        """Blocks were stored, removed or cleared on a worker.

        Raises ``ValueError`` for bytes that are no event, and ``RuntimeError`` for a parent or a block that
        the worker does not have; what comes before it in the event is done.
        """
        try:
            event = _EVENTS.decode(kv_cache_event_bytes)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(f"Failed to deserialize KvCacheEvent: {error}") from None
        if event.data == "cleared":
            self.clear_all_blocks(worker_id)
            return
        holder = self._holder((worker_id, event.dp_rank))
        if event.data.stored is not None:
            self._store(holder, event.data.stored)
        elif event.data.removed is not None:
            self._remove(holder, event.data.removed.block_hashes)
        else:
            raise ValueError("Failed to deserialize KvCacheEvent: neither stored nor removed")

    def remove_worker(self, worker_id: int) -> None:
        """Forget a worker with all its ranks; nothing happens when there is none."""
        for name in [name for name in self._holders if name[0] == worker_id]:
            holder = self._holders.pop(name)
            self._empty(holder)
            del self._names[holder.bit]
            self._free.append(holder.bit)
            self._sets.clear()

    def clear_all_blocks(self, worker_id: int) -> None:
        """A worker has no blocks any more, in none of its ranks."""
        for name, holder in self._holders.items():
            if name[0] == worker_id:
                self._empty(holder)

    def dump_tree_as_events(self) -> list[str]:
        """Events that make an equal tree, as JSON; what is out of reach is left out."""
        lines: list[str] = []
        for name, holder in sorted(self._holders.items()):
            hashes: dict[int, dict[int, int]] = {}
            for block_hash, (noted, depth) in holder.places.items():
                hashes.setdefault(id(_at(noted, depth)), {})[depth] = block_hash
            # Runs with the block before them: parents come before what follows on them.
            waiting: list[tuple[_Run, int | None]] = [
                (run, None) for run in self._root.behind.values()
            ]
            for run, parent in waiting:
                if not run.mask & holder.bit:
                    continue
                blocks = []
                for depth in range(run.start, run.end):
                    at = (depth - run.start) * _BYTES
                    local = int.from_bytes(run.hashes[at : at + _BYTES], "little")
                    blocks.append(
                        {
                            "block_hash": hashes[id(run)][depth],
                            "tokens_hash": local,
                            "mm_extra_info": None,
                        }
                    )
                stored = {"parent_hash": parent, "start_position": None, "blocks": blocks}
                event = {"event_id": len(lines), "data": {"stored": stored}, "dp_rank": name[1]}
                line = {
                    "worker_id": name[0],
                    "storage_tier": "device",
                    "residency_domain": "worker",
                    "event": event,
                }
                lines.append(msgspec.json.encode(line).decode())
                last = hashes[id(run)][run.end - 1]
                waiting.extend([(behind, last) for behind in run.behind.values()])
        return lines

    # ------------------------------------------------------------------------------- inside

    def _pack(self, sequence: Sequence[int]) -> bytes:
        count = len(sequence)
        form = self._packs.get(count)
        if form is None:
            if len(self._packs) > 4_096:
                self._packs.clear()
            form = self._packs[count] = struct.Struct(f"<{count}Q")
        try:
            return form.pack(*sequence)
        except struct.error as error:
            raise OverflowError(f"a hash is a number below 2**64: {error}") from None

    def _score(self, scores: dict[WorkerRank, int], mask: int, at: int) -> None:
        names = self._sets.get(mask)
        if names is None:
            if len(self._sets) > 65_536:
                self._sets.clear()
            names = tuple([self._names[bit] for bit in _bits(mask)])
            self._sets[mask] = names
        scores.update(dict.fromkeys(names, at // _BYTES))

    def _holder(self, name: WorkerRank) -> _Holder:
        holder = self._holders.get(name)
        if holder is None:
            bit = self._free.pop() if self._free else 1 << len(self._holders)
            holder = self._holders[name] = _Holder(name, bit)
            self._names[bit] = name
        return holder

    def _store(self, holder: _Holder, stored: _Stored) -> None:
        run = self._root
        if stored.parent_hash is not None:
            place = holder.places.get(stored.parent_hash)
            if place is None:
                raise RuntimeError("Failed to apply event: Failed to find parent block")
            run = self._ends(_at(*place), place[1] + 1)
        names = self._pack([block.tokens_hash for block in stored.blocks])
        block_hashes = [block.block_hash for block in stored.blocks]
        at = 0
        while at < len(names):
            first = names[at : at + _BYTES]
            child = run.behind.get(first)
            start = run.end
            if child is None:
                rest = names[at:]
                if run.mask == holder.bit and not run.behind and run is not self._root:
                    # Nobody else is here: the run grows, and stays one.
                    run.hashes += rest
                    child = run
                else:
                    child = run.behind[first] = _Run(run, start, rest, holder.bit)
                shared = len(rest)
            else:
                shared = _common(names, at, child.hashes)
                child = self._ends(child, start + shared // _BYTES)
                child.mask |= holder.bit
            count = shared // _BYTES
            begin = at // _BYTES
            holder.places.update(
                zip(
                    block_hashes[begin : begin + count],
                    zip(repeat(child), range(start, start + count), strict=False),
                    strict=True,
                )
            )
            run = child
            at += shared

    def _remove(self, holder: _Holder, block_hashes: Sequence[int]) -> None:
        for block_hash in block_hashes:
            place = holder.places.pop(block_hash, None)
            if place is None:
                raise RuntimeError("Failed to apply event: Failed to find block")
            run, depth = _at(*place), place[1]
            if depth > run.start:
                self._ends(run, depth)
            run = self._ends(run, depth + 1)
            run.mask &= ~holder.bit
            self._prune(run)

    def _empty(self, holder: _Holder) -> None:
        """Take a holder out of all runs."""
        runs = {id(run): run for run in [_at(*place) for place in holder.places.values()]}
        holder.places.clear()
        for run in runs.values():
            run.mask &= ~holder.bit
        for run in runs.values():
            self._prune(run)

    def _ends(self, run: _Run, depth: int) -> _Run:
        """The run that ends at this depth, which lies in `run`: split there if it goes on."""
        cut = (depth - run.start) * _BYTES
        assert 0 < cut <= len(run.hashes) or run is self._root, "a run is split inside"
        if cut == len(run.hashes):
            return run
        before = run.before
        assert before is not None, "only the root has nothing before it, and no blocks"
        head = _Run(before, run.start, run.hashes[:cut], run.mask)
        before.behind[head.hashes[:_BYTES]] = head
        run.before = head
        run.start = depth
        run.hashes = run.hashes[cut:]
        head.behind[run.hashes[:_BYTES]] = run
        return head

    def _prune(self, run: _Run) -> None:
        """Drop a run that nobody has and nothing follows, and those before it likewise."""
        while run.before is not None and not run.mask and not run.behind:
            before = run.before
            if before.behind.get(run.hashes[:_BYTES]) is run:
                del before.behind[run.hashes[:_BYTES]]
            run = before


def _at(run: _Run, depth: int) -> _Run:
    """The run with the block at a depth: this one, or one before it since it was split."""
    while depth < run.start:
        assert run.before is not None, "what was noted is there"
        run = run.before
    return run


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low
        mask ^= low


def _common(names: bytes, at: int, hashes: bytes) -> int:
    """How many bytes of a run the names have from `at` on; whole hashes."""
    low, high = 0, min(len(hashes), len(names) - at) // _BYTES
    while low < high:
        middle = (low + high + 1) // 2
        if names.startswith(hashes[low * _BYTES : middle * _BYTES], at + low * _BYTES):
            low = middle
        else:
            high = middle - 1
    return low * _BYTES
