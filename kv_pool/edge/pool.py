"""The pool as a process sees it: its workers, its claims, its learner, over one database.

::

    async with k2store.connect(...) as db, Pool(db, "fra") as pool:
        async with pool.worker("gpu-7") as worker:  # be a member
            ...
        async with pool.learner() as tree:  # ask
            cover = tree.cover(worker, namespace, names)
            async with pool.claim(cover) as claim:  # claim: it stays while the block runs
                ...

`match` on the learner is a hint. A `Claim` is a fact, until it expires: see `Pool.acquire`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final

import k2store
from kv_pool import keys
from kv_pool.directory import membership, pinning, sweeping
from kv_pool.directory.pinning import Claim
from kv_pool.edge.bounds import Bounds
from kv_pool.edge.following import Tree
from kv_pool.edge.refusals import Denied
from kv_pool.edge.session import WorkerSession
from kv_pool.edge.store import DirectoryStore
from kv_pool.keys import Worker, check_name
from kv_pool.learner import Cover
from kv_pool.records import Id, Lease, State, decode
from kv_pool.shots import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from kv_pool.directory.membership import Registration
    from kv_pool.namespace import Namespace
    from kv_pool.shots import Store

_BILLION: Final = 1_000_000_000
LEASE_S: Final = membership.LEASE_NS / _BILLION
CLAIM_S: Final = 10.0
"""How long a claim lasts that states nothing else."""
PULSE_S: Final = 5.0
"""How often the upper bound of true time is measured anew, at least."""


class Pool:
    """See the module. `region`: where this process is; its workers are at home there."""

    def __init__(self, db: k2store.Database, region: str, *, name: str = "") -> None:
        try:
            self.region = check_name(region)
        except ValueError as error:
            raise k2store.Rejected(str(error), field="region") from None
        self._db = db
        self._name = name
        self._bounds: Bounds | None = None
        self._pulse: asyncio.Task[None] | None = None
        self.store: Store = DirectoryStore(db)

    def __repr__(self) -> str:
        return f"<Pool in {self.region} over {self._db!r}>"

    async def __aenter__(self) -> Pool:
        self._bounds = Bounds(self._db)
        self._name = self._name or self._random(8).hex()
        await self._measure()
        self._pulse = asyncio.get_running_loop().create_task(self._measure_now_and_then())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)

    @property
    def db(self) -> k2store.Database:
        """The database below."""
        return self._db

    @property
    def bounds(self) -> Bounds:
        """What is known of true time here."""
        if self._bounds is None:
            raise k2store.Rejected("open the pool first: async with Pool(db, region)", field="pool")
        return self._bounds

    # ---------------------------------------------------------------------------- members

    def worker(
        self, name: str, *, endpoints: tuple[str, ...] = (), ttl_s: float = LEASE_S
    ) -> WorkerSession:
        """A worker of this region, for ``async with``: registered in a new life, renewed inside.

        endpoints  where its blocks are served
        ttl_s      how long it lives without a renewal, seconds
        """
        if ttl_s < 0.1:
            raise k2store.Rejected("a worker lives at least 100 ms", field="ttl_s")
        return WorkerSession(self, self._worker(name), ttl_s, endpoints, self._random(16))

    async def identity(self, worker: Worker) -> Id | None:
        """Who a worker is now; None for one that has never registered."""
        value = await self._db.get(keys.identity(worker))
        return None if value is None else decode(Id, value)

    async def fence(self, worker: Worker) -> int:
        """End a life whose lease has run out; gives the stamp. `Denied` while it runs.

        No claim that begins after this returns can give one of the worker's blocks, in any region.
        """
        observed = await self.identity(worker)
        if observed is None:
            raise Denied(f"fence {worker}", Refused(Reason.UNKNOWN, 0))
        if observed.state == State.FENCED:
            outcome = Refused(Reason.FENCED, 0)
        else:
            done = await membership.fence(self.store, worker, observed)
            if not isinstance(done, Refused):
                return done.at
            outcome = done
        raise Denied(f"fence {worker}", outcome)

    async def end_life(self, registration: Registration) -> int:
        """End a life that is one's own, at once; gives a stamp at which it is over."""
        # A lease that has run out already may be fenced without waiting.
        over = await membership.renew(self.store, registration, self.bounds.earliest_ns())
        return over.at if isinstance(over, Refused) else await self.fence(registration.worker)

    async def fence_expired(self) -> list[Worker]:
        """Fence the workers of this region whose leases have run out; gives those."""
        prefix = f"d/{self.region}/".encode()
        fenced = []
        async for worker, identity, lease in self._members(prefix):
            if identity.state == State.FENCED or lease.expiry_ns >= self.bounds.earliest_ns():
                continue
            if not isinstance(await membership.fence(self.store, worker, identity), Refused):
                fenced.append(worker)
        return fenced

    async def sweep(self, worker: Worker) -> int:
        """Remove the rows of a worker that count for nothing, some at a time; gives how many."""
        removed, after = 0, b""
        while True:
            step = await sweeping.sweep(self.store, worker, after)
            removed += step.removed
            after = step.after
            if not after:
                return removed

    async def declare(self, namespace: Namespace) -> bytes:
        """Make a namespace known, so that learners can say what it is; gives its digest."""
        digest = namespace.digest()
        key = keys.namespace(digest)
        if await self._db.get(key) is None:
            try:
                await self._db.put(key, namespace.encode(), conditions=(k2store.absent(key),))
            except k2store.ConditionFailed:
                # Somebody else was faster, with the same value: the key is its digest.
                pass
        return digest

    # ----------------------------------------------------------------------------- claims

    async def acquire(
        self,
        cover: Cover,
        *,
        ttl_s: float = CLAIM_S,
        blocks_min: int = 0,
        holder: str = "",
    ) -> Claim:
        """Claim the rows of a cover: from the claim's token on they stay until it expires.

        blocks_min  be content with so many, if the cover is out of date; 0 for all

        `Denied` says what is there instead (`Denied.blocks`).
        """
        mark_ns = self.bounds.mark()
        expiry_ns = self.bounds.earliest_ns() + int(ttl_s * _BILLION)
        outcome = await pinning.acquire(
            self.store, cover, holder or self._name, self._random(16), expiry_ns, blocks_min
        )
        if isinstance(outcome, Refused):
            raise Denied(f"acquire {cover.blocks} blocks of {cover.worker}", outcome)
        self.bounds.measure(outcome.token, mark_ns)
        return outcome

    async def renew(self, claim: Claim, *, ttl_s: float = CLAIM_S) -> Claim:
        """Hold a claim for longer; `Denied` when it was lost."""
        expiry_ns = self.bounds.earliest_ns() + int(ttl_s * _BILLION)
        outcome = await pinning.renew(self.store, claim, expiry_ns)
        if isinstance(outcome, Refused):
            raise Denied(f"renew the claim on {claim.worker}", outcome)
        return outcome

    async def release(self, claim: Claim) -> None:
        """Give a claim back."""
        outcome = await pinning.release(self.store, claim)
        assert not isinstance(outcome, Refused), "a release states no condition"

    def holds(self, claim: Claim) -> bool:
        """Whether a claim has certainly not expired yet."""
        return self.bounds.latest_ns() < claim.expiry_ns

    @asynccontextmanager
    async def claim(
        self, cover: Cover, *, ttl_s: float = CLAIM_S, blocks_min: int = 0
    ) -> AsyncIterator[Claim]:
        """`acquire` for the length of a block, renewed meanwhile and released at its end.

        When it is lost all the same, the block is cancelled and leaves with `Denied`.
        """
        claim = await self.acquire(cover, ttl_s=ttl_s, blocks_min=blocks_min)
        lost: list[Denied] = []
        owner = asyncio.current_task()
        assert owner is not None

        async def keep() -> None:
            nonlocal claim
            while True:
                await asyncio.sleep(ttl_s / 3)
                try:
                    claim = await self.renew(claim, ttl_s=ttl_s)
                except Denied as error:
                    lost.append(error)
                except k2store.K2Error:
                    if self.holds(claim):
                        continue
                    lost.append(
                        Denied(f"the claim on {claim.worker}", Refused(Reason.LOST, claim.token))
                    )
                if lost:
                    owner.cancel()
                    return

        keeping = asyncio.get_running_loop().create_task(keep())
        try:
            yield claim
        except asyncio.CancelledError:
            if lost:
                owner.uncancel()
                raise lost[0] from None
            raise
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if not lost:
                await self.release(claim)

    # ----------------------------------------------------------------------------- asking

    def learner(self, *, regions: Sequence[str] = (), fragments: bool = False) -> Tree:
        """A replica of the directory in this process, for ``async with``.

        regions    other regions that are followed each by itself, so that none that is cut off keeps
                   news of the others back; this process's own always is
        fragments  also index blocks by content
        """
        return Tree(self, [self.region, *map(check_name, regions)], fragments=fragments)

    # ------------------------------------------------------------------------------ inside

    def _worker(self, name: str) -> Worker:
        try:
            return Worker(self.region, name)
        except ValueError as error:
            raise k2store.Rejected(str(error), field="worker") from None

    async def _members(self, prefix: bytes) -> AsyncIterator[tuple[Worker, Id, Lease]]:
        """Workers with their identity and lease, at one stamp, without reading their runs."""
        async with self._db.snapshot(strong=True) as view:
            start = prefix
            end = k2store.prefix(prefix).end
            while True:
                found = [row async for row in view.scan(k2store.KeyRange(start, end), limit=1)]
                if not found:
                    return
                owned, _ = keys.split_worker(found[0].key)
                rows = await view.get_many([owned + keys.ID, owned + keys.LEASE])
                identity, lease = rows[owned + keys.ID], rows[owned + keys.LEASE]
                if identity is not None and lease is not None:
                    yield keys.worker_of(owned), decode(Id, identity), decode(Lease, lease)
                start = k2store.prefix(owned).end

    def _random(self, count: int) -> bytes:
        return self._db.rng.getrandbits(8 * count).to_bytes(count, "big")

    async def _measure(self) -> None:
        """Take a stamp, for what it says of true time."""
        mark_ns = self.bounds.mark()
        async with self._db.snapshot(strong=True) as view:
            # A key of this region, so that no other one is asked.
            await view.get(f"d/{self.region}/".encode())
        self.bounds.measure(view.at, mark_ns)

    async def _measure_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(PULSE_S)
            try:
                await self._measure()
            except k2store.K2Error:
                continue
