"""What of a worker's pages is in the directory, and how it gets there and out again.

::

    bytes complete ──▶ sealed ──▶ held ──▶ published ──▶ visible to everybody
                                                │
    the engine may use the page again ◀── released ◀── evicted in the directory, unless claimed

A page that is in the directory is *held* here, so that the engine cannot use it for anything else while somebody may
have a claim on it. What is used least goes out of the directory first, ahead of need: the engine always finds
some pages that nobody outside knows of. Such a page is still a hit for this worker's own prompts, and when it is used
it is published again.

The directory is told after the bytes are complete and before they go, never the other way round: whoever has a claim
finds the bytes. If this worker dies, its lease runs out and all it had is void with one row.

Blocks go into the namespace that the pool has them under, so compiled chunks (`serving.linking`) are never taken for
prefixes. Those of one namespace may be told with their content names, for who looks for them by their tokens alone.

Two threads meet here. `stored` and `moved` are called by the engine's, in the middle of a step; everything else
happens on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import k2store
from kv_pool.blocks import NAME_BYTES, ROOT_NAME, Names, content_names, split_names
from kv_pool.pool.block_pool import Slot
from kv_pool.records import Tier
from serving.pages.mem_pool import Block
from serving.transport import Address

if TYPE_CHECKING:
    from kv_pool.edge.session import WorkerSession

_BATCH: Final = 256
"""Blocks that one round publishes, at most."""


_PASSING: Final = (
    k2store.Unavailable,
    k2store.Deadline,
    k2store.OutcomeUnknown,
    k2store.ClockUncertain,
    k2store.Overloaded,
)
"""Failures after which the worker goes on: the store cannot be asked now, or has not answered."""


class Holding(Protocol):
    """What is done with pages in the engine's thread."""

    @property
    def page_tokens(self) -> int:
        """Tokens of a page."""
        ...

    def hold(self, slots: Sequence[Slot]) -> None:
        """Keep pages of the index; called in the engine's thread."""
        ...

    async def release(self, slots: Sequence[Slot]) -> None:
        """Let go of pages, once each; called on the loop."""
        ...


@dataclass
class ResidencyCounts:
    """Blocks that were published, retired to make room, refused by the directory; and those that
    were to be retired and stayed because of a claim."""

    published: int = 0
    retired: int = 0
    refused: int = 0
    pinned: int = 0


class _Stored(NamedTuple):
    """A block that is to be published: held already; `content` is its content name, or empty."""

    namespace: bytes
    parent: bytes
    name: bytes
    content: bytes
    slot: Slot


@dataclass
class _Stretch:
    """Consecutive blocks that are published together; `parent` is before the first one."""

    namespace: bytes
    parent: bytes
    names: list[bytes] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)


class _Block:
    """A block that is held for the directory."""

    __slots__ = ("is_published", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.is_published = False


class Residency:
    """See the module.

    namespace   of prompts
    blocks_max  of this worker that are in the directory at a time; less than its pages, so that there
                are always some for requests that run
    fragments   the namespace of blocks that are to be found by content, if there is one
    """

    def __init__(
        self, session: WorkerSession, namespace: bytes, blocks_max: int, fragments: bytes = b""
    ) -> None:
        assert blocks_max > 0, blocks_max
        self._session = session
        self._namespace = namespace
        self._fragments = fragments
        self._blocks_max = blocks_max
        self._holder: Holding | None = None
        self._blocks: OrderedDict[bytes, _Block] = OrderedDict()
        self._stored: deque[_Stored] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._failed: Callable[[BaseException], None] | None = None
        self.counts = ResidencyCounts()

    def start(self, holder: Holding, failed: Callable[[BaseException], None]) -> None:
        """Begin to publish, before anything is stored; `failed` hears of what ends that for good."""
        self._holder = holder
        self._failed = failed
        self._task = self._loop.create_task(self._run(), name="residency")
        self._task.add_done_callback(self._over)

    async def stop(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def _holding(self) -> Holding:
        assert self._holder is not None, "it was started"
        return self._holder

    # ----------------------------------------------------------------- in the engine's thread

    def stored(self, block: Block, slot: Slot) -> None:
        """A block is sealed in the pool; what is on the device is published."""
        if slot.tier != Tier.DEVICE:
            return
        self._holding.hold((slot,))
        tokens = array("I", block.tokens)
        content = self._content(block.namespace, tokens)
        self._stored.append(_Stored(block.namespace, block.parent, block.name, content, slot))
        self._loop.call_soon_threadsafe(self._wake)

    def seen(self, names: Names, slots: Sequence[Slot]) -> None:
        """The blocks of a prompt's beginning were used, and are held: what has left the directory comes back."""
        self._seen(self._namespace, names, b"", slots)

    def seen_chunk(self, tokens: Sequence[int], names: Names, slots: Sequence[Slot]) -> None:
        """The same of the blocks with these tokens, which are found by content."""
        self._seen(self._fragments, names, self._content(self._fragments, tokens), slots)

    def _content(self, namespace: bytes, tokens: Sequence[int]) -> Names:
        """Content names of some blocks, where they are found by those."""
        if namespace != self._fragments:
            return b""
        return content_names(namespace, tokens, self._holding.page_tokens)

    def _seen(self, namespace: bytes, names: Names, content: Names, slots: Sequence[Slot]) -> None:
        parent = ROOT_NAME
        missing = False
        for number, (name, slot) in enumerate(zip(split_names(names), slots, strict=True)):
            # Looked at from another thread: who is wrong about it is corrected where it is published.
            if name not in self._blocks:
                self._holding.hold((slot,))
                own = content[number * NAME_BYTES : (number + 1) * NAME_BYTES]
                self._stored.append(_Stored(namespace, parent, name, own, slot))
                missing = True
            parent = name
        if missing:
            self._loop.call_soon_threadsafe(self._wake)

    def moved(self, name: bytes, source: Slot, destination: Slot | None) -> None:
        """A block has left its slot: none that the directory knows, since those are held."""

    # ---------------------------------------------------------------------------- on the loop

    @property
    def blocks(self) -> int:
        """How many blocks are held for the directory."""
        return len(self._blocks)

    def locate(self, names: Names) -> tuple[Address, ...]:
        """Where the blocks of a prompt's beginning lie, as far as they are published."""
        found = []
        for name in split_names(names):
            block = self._blocks.get(name)
            if block is None or not block.is_published:
                break
            found.append(Address(block.slot.number, block.slot.generation))
        return tuple(found)

    def slots_of(self, names: Names) -> list[int]:
        """Numbers of the pages in which blocks lie that are in the directory, or on their way there."""
        return [self._blocks[name].slot.number for name in split_names(names)]

    def use(self, names: Names) -> None:
        """The blocks of a prompt were used: those at its beginning are to go last."""
        for name in reversed(split_names(names)):
            if name in self._blocks:
                self._blocks.move_to_end(name)

    async def settled(self) -> None:
        """Return when all that was stored so far is published, or refused."""
        await self._idle.wait()

    async def shed(self, count: int) -> int:
        """Take up to `count` blocks out of the directory, those that were used least; gives how many."""
        names: list[bytes] = []
        for name, block in self._blocks.items():
            if len(names) == count:
                break
            if block.is_published:
                names.append(name)
        return await self.retire(names) if names else 0

    async def retire(self, names: Sequence[bytes]) -> int:
        """Take these blocks out of the directory, with what lies behind them; gives how many went."""
        evicted = await self._session.evict(Tier.DEVICE, b"".join(names))
        for name in split_names(evicted.pinned):
            if name in self._blocks:
                self._blocks.move_to_end(name)
        self.counts.pinned += len(evicted.pinned) // NAME_BYTES
        pinned = frozenset(split_names(evicted.pinned))
        # Also what the directory has refused to take in after all, when an answer came late.
        asked = [name for name in names if name not in pinned]
        gone = [
            name
            for name in dict.fromkeys([*split_names(evicted.gone), *asked])
            if name in self._blocks and not self._session.has(Tier.DEVICE, name)
        ]
        await self._let_go(gone)
        self.counts.retired += len(gone)
        return len(gone)

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None and self._failed:
            self._failed(error)

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._stored:
                await self._publish_some()
            if len(self._blocks) > self._blocks_max:
                # Whoever cannot be asked now is asked again after the next blocks.
                with contextlib.suppress(*_PASSING, k2store.Conflict):
                    await self.shed(len(self._blocks) - self._blocks_max)
            if not self._stored:
                self._idle.set()

    async def _publish_some(self) -> None:
        """Publish what has gathered: stretches of prompts, each whole or not at all."""
        stretches: dict[bytes, _Stretch] = {}
        again: list[Slot] = []
        batch = [self._stored.popleft() for _ in range(min(_BATCH, len(self._stored)))]
        for one in _parents_first(batch):
            if one.name in self._blocks:
                # It is here already, or on its way, and held once for that.
                again.append(one.slot)
                continue
            self._blocks[one.name] = _Block(one.slot)
            stretch = stretches.pop(one.parent, None) or _Stretch(one.namespace, one.parent)
            stretch.names.append(one.name)
            stretch.contents.append(one.content)
            stretches[one.name] = stretch
        publishing: list[Awaitable[None]] = [
            self._publish(stretch) for stretch in stretches.values()
        ]
        await asyncio.gather(*publishing)
        if again:
            await self._holding.release(tuple(again))

    async def _publish(self, stretch: _Stretch) -> None:
        names = stretch.names
        try:
            await self._session.publish(
                stretch.namespace,
                b"".join(names),
                Tier.DEVICE,
                parent=None if stretch.parent == ROOT_NAME else stretch.parent,
                content=b"".join(stretch.contents),
            )
        except (k2store.Conflict, k2store.Rejected):
            # What is before these blocks is not in the directory, or not any more: they stay private. Unless
            # an earlier copy of the same may stand: then the session's book still has them.
            refused = [name for name in names if not self._session.has(Tier.DEVICE, name)]
            self.counts.refused += len(refused)
            await self._let_go(refused)
            names = [name for name in names if name in self._blocks]
        except _PASSING:
            # The session goes on sending what it has begun, and its book has these blocks: so they stay
            # held, and are handed out once that is known to stand.
            pass
        for name in names:
            self._blocks[name].is_published = True
        self.counts.published += len(names)

    async def _let_go(self, names: list[bytes]) -> None:
        slots = [self._blocks.pop(name).slot for name in names]
        if slots:
            await self._holding.release(tuple(slots))


def _parents_first(batch: Sequence[_Stored]) -> list[_Stored]:
    """Blocks behind those that they follow: what has come back into the directory is told after what follows on it."""
    waiting: dict[bytes, list[_Stored]] = {}
    names = {one.name for one in batch}
    ordered: list[_Stored] = []
    for one in batch:
        if one.parent in names:
            waiting.setdefault(one.parent, []).append(one)
        else:
            ordered.append(one)
    for one in ordered:
        # The list grows while it is walked.
        ordered += waiting.pop(one.name, [])
    return ordered
