"""A worker's session: it registers, lives as long as it renews, and keeps its own book.

::

    async with pool.worker("gpu-7") as worker:
        await worker.publish(namespace, names, Tier.DEVICE)  # a prompt's blocks, known ones skipped
        evicted = await worker.evict(Tier.DEVICE, names)  # asked; what is claimed stays

A *chain* is published whole: the book (`kv_pool.ledger`) says which of its blocks are new and behind which
run they go, and each new stretch is one transaction. Chains of different prompts are published at the
same time; only what goes behind a run that is still under way waits for it.

The lease is renewed three times per time to live. A late renewal is as good, as long as nobody has fenced
the worker meanwhile; `is_certain` says whether nobody can have. Once the directory refuses because somebody
has, the life is over: every call raises `Fenced`, `lost` is set, and nothing that this session still
sends takes effect, since the incarnation is another by then.

A publish whose outcome could not be learned is sent again with every renewal: it is idempotent, and the
book must agree with the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

import k2store
from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, Names, split_names
from kv_pool.directory import evicting, membership, publishing
from kv_pool.directory.membership import Registration
from kv_pool.directory.publishing import Published, Stretch
from kv_pool.edge.refusals import Denied, Fenced, of_worker
from kv_pool.keys import Worker
from kv_pool.ledger import Ledger, Publish
from kv_pool.records import Id, Run
from kv_pool.shots import Reason, Refused

if TYPE_CHECKING:
    from kv_pool.edge.pool import Pool

_BILLION: Final = 1_000_000_000
_RENEWALS_PER_TTL: Final = 3
_TRIES: Final = 3
"""How often a publish is sent whose outcome is not known, before its caller is told."""

_SAYS_NOTHING: Final = frozenset(Reason) - {Reason.FENCED, Reason.UNKNOWN, Reason.CLEARED}
"""Refusals of a second copy that the first one may have escaped."""
_PASSES: Final = frozenset({Reason.EXPIRED, Reason.NOT_LIVE, Reason.SUSPECT, Reason.QUOTA})
"""Refusals that a later copy may escape."""


class Chain(Struct, frozen=True):
    """What came of a publish: how many blocks were new, and the stamp from which all are known."""

    new_blocks: int
    at: int


class Evicted(Struct, frozen=True):
    """What came of asking to evict: names that are gone, names that stay because of claims."""

    gone: Names
    pinned: Names


class Reserved(Struct, frozen=True):
    """Blocks that are announced, until a deadline; given to `WorkerSession.commit` or `abort`."""

    stretches: tuple[tuple[Publish, Stretch, Published], ...]
    deadline_ns: int


class WorkerSession:
    """See the module; made by `Pool.worker`."""

    def __init__(
        self, pool: Pool, worker: Worker, ttl_s: float, endpoints: tuple[str, ...], boot: bytes
    ) -> None:
        self._pool = pool
        self._store = pool.store
        self._ttl_ns = int(ttl_s * _BILLION)
        self._endpoints = endpoints
        self._boot = boot
        self._ledger = Ledger()
        self._runs: dict[bytes, Run] = {}
        self._under_way: dict[bytes, asyncio.Future[None]] = {}
        self._doubtful: dict[bytes, tuple[Publish, Registration]] = {}
        self._settling = asyncio.Lock()
        self._registration: Registration | None = None
        self._expiry_ns = 0
        self._failure: Fenced | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.worker = worker
        self.lost = asyncio.Event()

    def __repr__(self) -> str:
        return f"<WorkerSession {self.worker} {len(self._ledger)} blocks>"

    # ------------------------------------------------------------------------------- life

    async def __aenter__(self) -> WorkerSession:
        mark_ns = self._pool.bounds.mark()
        self._expiry_ns = self._pool.bounds.earliest_ns() + self._ttl_ns
        self._registration = await membership.register(
            self._store, self.worker, self._boot, self._expiry_ns, self._endpoints
        )
        self._pool.bounds.measure(self._registration.at, mark_ns)
        self._renewal = asyncio.get_running_loop().create_task(
            self._renew(), name=f"lease of {self.worker}"
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the session; the worker lives until its lease runs out, or until `leave`."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    @property
    def registration(self) -> Registration:
        """Who the worker is; `Fenced` when its life is over."""
        if self._failure is not None:
            raise self._failure
        if self._registration is None:
            raise k2store.Rejected(
                "open the session first: async with pool.worker(...)", field="worker"
            )
        return self._registration

    @property
    def blocks(self) -> int:
        """How many blocks the worker has, in all tiers."""
        return len(self._ledger)

    @property
    def is_certain(self) -> bool:
        """Whether the lease certainly runs at this moment."""
        return self._failure is None and self._pool.bounds.latest_ns() < self._expiry_ns

    def has(self, tier: int, name: bytes) -> bool:
        """Whether a block is in a tier, by the worker's own book."""
        return self._ledger.has(tier, name)

    async def leave(self) -> None:
        """End the worker's life at once: all of its blocks are void."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        at = await self._pool.end_life(self.registration)
        self._lose(Refused(Reason.FENCED, at))

    async def drain(self) -> None:
        """Take no new blocks; what is there is served until it is elsewhere or gone."""
        registration = self.registration
        self._become(
            await membership.drain(self._store, self.worker, registration.identity.incarnation)
        )

    async def resume(self) -> None:
        """Call the draining off."""
        registration = self.registration
        self._become(
            await membership.resume(self._store, self.worker, registration.identity.incarnation)
        )

    async def clear(self, *tiers: int) -> int:
        """Everything in these tiers is gone: one row. Gives the stamp.

        Blocks of other tiers that follow on cleared ones go on being known.
        """
        cleared = await membership.clear(self._store, self.registration, *tiers)
        if isinstance(cleared, Refused):
            raise self._refusal("clear", cleared)
        self._registration = cleared
        for part, (one, _) in list(self._doubtful.items()):
            if one.tier in tiers:
                del self._doubtful[part]
                self._forget([one])
        for tier in tiers:
            for part in [part for part in self._runs if part[16] == tier]:
                self._ledger.remove(tier, split_names(self._runs.pop(part).live_names()))
        return cleared.at

    # ------------------------------------------------------------------------- publishing

    async def publish(
        self,
        namespace: bytes,
        names: Names,
        tier: int,
        *,
        parent: bytes | None = None,
        content: Names = b"",
    ) -> Chain:
        """Make the blocks of a prompt known, as far as they are not; whole stretches or nothing.

        names    consecutive blocks, packed
        parent   the block before the first one, if they do not begin the prompt
        content  their content names (`kv_pool.blocks.content_names`), for who looks for them by these

        Raises `Fenced` when the worker's life is over, `Denied` when the directory refuses, and the
        store's own errors. After an `OutcomeUnknown` or `Unavailable` the session goes on
        sending what it has begun.
        """
        registration = self.registration
        publishes = self._ledger.store(namespace, tier, names, parent, content=content)
        if publishes is None:
            assert parent is not None
            raise k2store.Rejected(
                f"the block {parent.hex()} before the chain is not here", field="parent"
            )
        if not publishes:
            return Chain(0, registration.at)
        # Who comes behind these looks for them from now on, before the first of them has left.
        waiting = [self._begin(one) for one in publishes]
        try:
            if len(publishes) == 1:
                stamps = [await self._carry(publishes[0], waiting[0], registration)]
            else:
                carried = [
                    self._carry(one, future, registration)
                    for one, future in zip(publishes, waiting, strict=True)
                ]
                stamps = await asyncio.gather(*carried)
        except asyncio.CancelledError:
            for one, future in zip(publishes, waiting, strict=True):
                if not future.done():  # Its task was cancelled before it ran.
                    self._doubtful.setdefault(_part(one), (one, registration))
                    self._end(one, future)
            raise
        return Chain(sum([len(one.names) // NAME_BYTES for one in publishes]), max(stamps))

    async def reserve(
        self, namespace: bytes, names: Names, tier: int, *, within_s: float
    ) -> Reserved:
        """Announce the blocks of a prompt that are under way, until `within_s` from now.

        Nobody is handed them before `commit`, and nothing can be published behind them.
        """
        registration = self.registration
        deadline_ns = self._pool.bounds.earliest_ns() + int(within_s * _BILLION)
        publishes = self._ledger.store(namespace, tier, names, None) or []
        made: list[tuple[Publish, Stretch, Published]] = []
        for one in publishes:
            stretch = one.stretch(registration)
            try:
                outcome = await publishing.reserve(self._store, registration, stretch, deadline_ns)
            except k2store.K2Error:
                # Whatever stands of it ends with its deadline.
                self._forget(publishes)
                raise
            if isinstance(outcome, Refused):
                self._forget(publishes)
                raise self._refusal("reserve", outcome)
            made.append((one, stretch, outcome))
        return Reserved(tuple(made), deadline_ns)

    async def commit(self, reserved: Reserved) -> Chain:
        """What was announced is there. `Denied` when the announcement stands no more."""
        at = self.registration.at
        blocks = 0
        for one, stretch, announced in reserved.stretches:
            outcome = await publishing.commit(self._store, self.registration, stretch, announced)
            if isinstance(outcome, Refused):
                self._forget(
                    [one for one, _, _ in reserved.stretches if _part(one) not in self._runs]
                )
                raise self._refusal("commit", outcome)
            self._note(one, outcome)
            at = max(at, outcome.at)
            blocks += len(one.names) // NAME_BYTES
        return Chain(blocks, at)

    async def abort(self, reserved: Reserved) -> None:
        """What was announced will not come."""
        self._forget([one for one, _, _ in reserved.stretches])
        for _, stretch, announced in reversed(reserved.stretches):
            outcome = await publishing.abort(self._store, self.registration, stretch, announced)
            if isinstance(outcome, Refused):
                raise self._refusal("abort", outcome)

    # --------------------------------------------------------------------------- evicting

    async def evict(self, tier: int, names: Names) -> Evicted:
        """Ask to drop blocks; of each run what lies behind the first of them goes, too.

        Bytes of what is `gone` may be used again when this returns. What somebody has claimed
        stays and is named as `pinned`; what lies behind all claims goes.
        """
        registration = self.registration
        await self._settle()
        ends: dict[bytes, int] = {}
        for name in split_names(names):
            where = self._ledger.where(tier, name)
            if where is not None:
                part = keys.run_id(where.namespace, tier, where.first)
                ends[part] = min(ends.get(part, where.blocks), where.place)
        for part in ends.keys() & self._under_way.keys():
            await asyncio.shield(self._under_way[part])
        # What is only announced, or was refused meanwhile, is not there to be evicted.
        ends = {part: keep for part, keep in ends.items() if part in self._runs}
        gone: list[Names] = []
        pinned: list[Names] = []
        # The deepest first: what is held of a prompt stays its beginning, if this is cut short.
        for part in sorted(ends, key=lambda part: self._runs[part].depth, reverse=True):
            run, keep = self._runs[part], ends[part]
            outcome = await evicting.trim(self._store, registration, part, run, keep)
            if not isinstance(outcome, Refused):
                left = outcome.keep
                self._drop(tier, part, left)
            elif outcome.reason is Reason.PINNED:
                left = run.live
            else:
                raise self._refusal("evict", outcome)
            names_there = run.live_names()
            pinned.append(names_there[keep * NAME_BYTES : left * NAME_BYTES])
            gone.append(names_there[left * NAME_BYTES :])
        return Evicted(b"".join(gone), b"".join(pinned))

    # ------------------------------------------------------------------------------ inside

    def _begin(self, one: Publish) -> asyncio.Future[None]:
        """A stretch is under way from now on, until `_end`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[_part(one)] = future
        return future

    def _end(self, one: Publish, future: asyncio.Future[None]) -> None:
        if self._under_way.get(_part(one)) is future:
            del self._under_way[_part(one)]
        if not future.done():
            future.set_result(None)

    async def _carry(
        self, one: Publish, future: asyncio.Future[None], registration: Registration
    ) -> int:
        """Publish a stretch, after the one that it goes behind; gives the stamp."""
        try:
            if one.parent is not None:
                before = keys.run_id(one.namespace, one.parent.tier, one.parent.first)
                if before in self._under_way:
                    await asyncio.shield(self._under_way[before])
            return await self._send(one, registration)
        except asyncio.CancelledError:
            # The book has it, whether it has left or not.
            self._doubtful.setdefault(_part(one), (one, registration))
            raise
        finally:
            self._end(one, future)

    async def _send(self, one: Publish, registration: Registration) -> int:
        """`registration`: as it was when the blocks came to be there. What was cleared since then is
        refused, and not published anew."""
        _ = self.registration
        part = _part(one)
        doubt = one, registration
        doubted = part in self._doubtful
        stretch = one.stretch(registration)
        for attempt in range(1, _TRIES + 1):
            mark_ns = self._pool.bounds.mark()
            try:
                outcome = await publishing.publish(self._store, registration, stretch)
                if doubted and isinstance(outcome, Refused) and outcome.reason in _SAYS_NOTHING:
                    # What was sent before may be there all the same.
                    there = await publishing.find(self._store, registration, stretch)
                    outcome = there or outcome
            except k2store.OutcomeUnknown:
                doubted = True
                if attempt < _TRIES:
                    continue
                self._doubtful[part] = doubt
                raise
            except (k2store.K2Error, asyncio.CancelledError):
                self._doubtful[part] = doubt
                raise
            break
        if doubted and isinstance(outcome, Refused) and outcome.reason in _PASSES:
            # A copy that is still under way may take when this has passed.
            self._doubtful[part] = doubt
            raise self._refusal("publish", outcome)
        self._doubtful.pop(part, None)
        if isinstance(outcome, Refused):
            self._forget([one])
            raise self._refusal("publish", outcome)
        self._pool.bounds.measure(outcome.at, mark_ns)
        self._note(one, outcome)
        return outcome.at

    async def _settle(self) -> None:
        """Send again what is in doubt, in the order of the prompt.

        One at a time: of two who send the same, one might be refused and forget what the other one is given.
        What is refused and stays in doubt keeps nobody from going on: until it is known its blocks are
        neither gone nor claimed.
        """
        async with self._settling:
            doubts = sorted(self._doubtful.values(), key=lambda it: (it[0].depth, it[0].number))
            for one, registration in doubts:
                if _part(one) in self._doubtful:
                    with contextlib.suppress(Denied):
                        await self._send(one, registration)

    def _note(self, one: Publish, outcome: Published) -> None:
        for first, run in outcome.runs:
            self._runs[keys.run_id(one.namespace, one.tier, first)] = run

    def _drop(self, tier: int, part: bytes, keep: int) -> None:
        run = self._runs[part]
        self._ledger.remove(tier, split_names(run.live_names()[keep * NAME_BYTES :]))
        if keep:
            self._runs[part] = msgspec.structs.replace(run, live=keep)
        else:
            del self._runs[part]

    def _forget(self, publishes: list[Publish]) -> None:
        """What was not published is not here."""
        for one in publishes:
            self._ledger.remove(one.tier, split_names(one.names))

    def _become(self, outcome: Id | Refused) -> None:
        if isinstance(outcome, Refused):
            raise self._refusal("drain", outcome)
        registration = self.registration
        self._registration = Registration(registration.worker, outcome, registration.at)

    def _refusal(self, what: str, refused: Refused) -> Denied | Fenced:
        error = of_worker(f"{what} of {self.worker}", refused)
        if isinstance(error, Fenced):
            self._lose(refused)
        return error

    def _lose(self, refused: Refused) -> None:
        if self._failure is None:
            self._failure = Fenced(f"the life of {self.worker} is over", refused)
            self.lost.set()

    async def _renew(self) -> None:
        """Renew until the life is over; gives up when the lease has run out for certain."""
        pause_s = self._ttl_ns / _BILLION / _RENEWALS_PER_TTL
        while self._failure is None:
            await asyncio.sleep(pause_s)
            bounds = self._pool.bounds
            mark_ns = bounds.mark()
            expiry_ns = bounds.earliest_ns() + self._ttl_ns
            try:
                async with asyncio.timeout(pause_s):
                    outcome = await membership.renew(self._store, self.registration, expiry_ns)
            except (k2store.K2Error, TimeoutError):
                # Nobody is told yet: a late renewal is as good until somebody has fenced us.
                continue
            if isinstance(outcome, Refused):
                self._refusal("renewal", outcome)
                return
            bounds.measure(outcome.at, mark_ns)
            self._expiry_ns = expiry_ns
            try:
                await self._settle()
            except k2store.K2Error:
                continue


def _part(one: Publish) -> bytes:
    return keys.run_id(one.namespace, one.tier, one.names[:NAME_BYTES])
