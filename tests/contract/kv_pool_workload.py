"""Workers, claimers and movers at once on one directory, with a history of what they were told.

The history is in the words of the checker (`jepsen_like`, model ``kv-directory``), which knows nothing
of the directory.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from jepsen_like import History, Recorder
from kv_pool import keys
from kv_pool.directory import evicting, membership, moving, pinning, publishing, sweeping
from kv_pool.directory.membership import Registration
from kv_pool.directory.publishing import Published, Stretch
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.records import Id, Phase, decode, decode_run
from kv_pool.shots import Refused, Store
from tests.contract.kv_pool_store import NAMESPACE, soon
from truetime import timestamp

WORKERS = tuple(Worker("fra", one) for one in "abc")
POOL, ENGINE = 1, 0
RUNS = 4


class Load:
    """What is shared: the store, the history, and what each worker knows of itself."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.rng = random.Random(seed)
        self.recorder = Recorder()
        self.lives: dict[Worker, Registration] = {}
        self.numbers = 0
        self.slots = 0
        self.process = 0

    def number(self) -> int:
        """One that nobody had."""
        self.numbers += 1
        return self.numbers

    async def told(self, f: str, value: dict, call, answer=None):
        """Do something and note what was asked and what came of it."""
        self.process += 1
        process = self.process
        self.recorder.invoke(process, f, value)
        outcome = await call
        if isinstance(outcome, Refused):
            self.recorder.fail(process, outcome.reason.name)
            return None
        given = value if answer is None else answer(outcome)
        stamp = getattr(outcome, "token", None) or getattr(outcome, "at", None)
        self.recorder.ok(process, given, stamp=stamp)
        return outcome

    async def rows(self) -> tuple[int, dict[bytes, bytes]]:
        """Everything there is, and its stamp."""

        async def look(txn):
            await txn.get(b"-")
            return {row.key: row.value async for row in txn.scan(b"", b"", 4096)}

        done = await self.store.transact(look)
        return done.at, done.value

    async def learner(self) -> Learner:
        """A fresh one; by the time it is used it is out of date."""
        at, rows = await self.rows()
        learner = Learner()
        learner.begin("all")
        learner.load("all", sorted(rows.items()))
        learner.finish("all", at)
        return learner

    async def register(self, worker: Worker) -> None:
        """A new life."""
        registration = await membership.register(
            self.store, worker, self.rng.randbytes(16), soon(600)
        )
        self.process += 1
        value = {"worker": str(worker), "incarnation": registration.identity.incarnation}
        self.recorder.invoke(self.process, "register", value)
        self.recorder.ok(self.process, value, stamp=registration.at)
        self.lives[worker] = registration

    def stretch(self, run: int, tier: int, blocks: int = 4) -> Stretch:
        """A run of some blocks, always the same ones under the same first name."""
        names = b"".join(bytes([run, place]) * 8 for place in range(blocks))
        return Stretch(namespace=NAMESPACE, tier=tier, names=names, depth=0, number=self.number())

    def published(self, worker: Worker, run: int, tier: int, generation: int) -> dict:
        """The words for a published run; its slots were free."""
        self.slots += 4
        return {
            "worker": str(worker),
            "incarnation": self.lives[worker].identity.incarnation,
            "run": f"{tier}/{run}",
            "tier": tier,
            "content": str(run),
            "generation": generation,
            "blocks": 4,
            "slots": list(range(self.slots, self.slots + 4)),
        }

    async def publish(self) -> None:
        """A worker publishes one of its runs, sometimes in two steps."""
        worker = self.rng.choice(WORKERS)
        mine, run, tier = self.lives[worker], self.rng.randrange(RUNS), self.rng.choice([0, 1, 1])
        stretch = self.stretch(run, tier)
        value = self.published(worker, run, tier, mine.generation(stretch.number))
        if self.rng.random() < 0.5:
            await self.told("publish", value, publishing.publish(self.store, mine, stretch))
            return
        if self.rng.random() < 0.5:
            await self.grow(mine, stretch, value)
            return
        reserved = await publishing.reserve(self.store, mine, stretch, soon(600))
        if isinstance(reserved, Published):
            if self.rng.random() < 0.3:
                await publishing.abort(self.store, mine, stretch, reserved)
            else:
                await self.told(
                    "publish", value, publishing.commit(self.store, mine, stretch, reserved)
                )

    async def grow(self, mine: Registration, whole: Stretch, value: dict) -> None:
        """Publish the first half of a run, and the rest at its end."""
        half = msgspec.structs.replace(whole, names=whole.names[:32])
        begun = value | {"blocks": 2, "slots": value["slots"][:2]}
        published = publishing.publish(self.store, mine, half)
        if await self.told("publish", begun, published) is not None:
            await asyncio.sleep(0)
            grown = publishing.extend(self.store, mine, whole, 2)
            await self.told("publish", value, grown)

    async def sweep(self) -> None:
        """Remains are removed; nothing that counts changes."""
        await sweeping.sweep(self.store, self.rng.choice(WORKERS), rows=16)

    async def claim(self) -> None:
        """Somebody claims what a learner knew a while ago, holds it, and gives it back."""
        learner = await self.learner()
        run, tier = self.rng.randrange(RUNS), self.rng.randrange(2)
        await asyncio.sleep(0)
        names = self.stretch(run, tier).names
        cover = learner.cover(self.rng.choice(WORKERS), NAMESPACE, names)
        if cover is None:
            return
        number = self.rng.randbytes(16)
        expiry_ns = soon(600)
        until = timestamp.ceiling(expiry_ns)
        claim = await self.told(
            "acquire",
            {},
            pinning.acquire(self.store, cover, "me", number, expiry_ns, blocks_min=1),
            lambda claim: {
                "claim": number.hex(),
                "until": until,
                "held": [
                    {
                        "worker": str(claim.worker),
                        "incarnation": claim.incarnation,
                        "run": f"{held.part[16]}/{run}",
                        "generation": held.run.generation,
                        "blocks": held.blocks,
                    }
                    for held in claim.held
                ],
            },
        )
        if claim is None:
            return
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)
        if self.rng.random() < 0.3:
            self.process += 1
            process = self.process
            self.recorder.invoke(process, "renew", {"claim": number.hex(), "until": until})
            renewed = await pinning.renew(self.store, claim, expiry_ns)
            if isinstance(renewed, Refused):
                self.recorder.fail(process, renewed.reason.name)
            else:
                self.recorder.info(process, "its stamp is not told")
        await self.told("release", {"claim": number.hex()}, pinning.release(self.store, claim))

    async def evict(self) -> None:
        """A worker makes room: it asks for a pool's run, or tells of an engine's."""
        _, rows = await self.rows()
        worker = self.rng.choice(WORKERS)
        mine = self.lives[worker]
        found = [
            (key[len(worker.prefix) + 4 :], decode_run(value))
            for key, value in sorted(rows.items())
            if key.startswith(worker.prefix + keys.RUN)
        ]
        if not found:
            return
        part, run = self.rng.choice(found)
        if run.incarnation != mine.identity.incarnation or run.phase == Phase.RESERVED:
            return
        name = f"{part[16]}/{part[17]}"
        keep = self.rng.choice([0, 0, 2]) if run.live > 2 else 0
        value = {"worker": str(worker), "run": name, "generation": run.generation, "keep": keep}
        if part[16] == ENGINE:
            gone = frozenset(range(keep, 64))  # It may have grown since.
            told = evicting.report(self.store, mine, part, run.generation, gone, self.number())
            await self.told(
                "report",
                value,
                told,
                lambda told: value | {"voided": [one.number.hex() for one in told.voided]},
            )
        elif self.rng.random() < 0.2:
            del value["keep"]
            retired = evicting.retire(self.store, mine, part, run)
            await self.told("retire", value, retired)
        elif self.rng.random() < 0.3 and not keep:
            value["guarded"] = True
            await self.told(
                "evict", value, evicting.evict_guarded(self.store, mine, part, run, WORKERS)
            )
        else:
            await self.told(
                "evict",
                value,
                evicting.trim(self.store, mine, part, run, keep),
                lambda trimmed: value | {"keep": trimmed.keep},
            )

    async def move(self) -> None:
        """A run goes from one worker to another in one transaction."""
        learner = await self.learner()
        source, target = self.rng.sample(WORKERS, 2)
        number = self.rng.randrange(RUNS)
        stretch = self.stretch(number, POOL)
        part = keys.run_id(NAMESPACE, POOL, stretch.names[:16])
        run = learner.run(source, part)
        mine = self.lives[target]
        if run is None or run.live != 4 or run.phase != Phase.READY:
            return
        reserved = await publishing.reserve(self.store, mine, stretch, soon(600))
        if not isinstance(reserved, Published):
            return
        moved = moving.migrate(self.store, mine, stretch, reserved, source, part, run)
        outcome = await self.told(
            "migrate",
            {
                "from": {
                    "worker": str(source),
                    "run": f"{POOL}/{number}",
                    "generation": run.generation,
                },
                "to": self.published(target, number, POOL, mine.generation(stretch.number)),
            },
            moved,
        )
        if outcome is None:
            await publishing.abort(self.store, mine, stretch, reserved)

    async def disturb(self) -> None:
        """A worker starts anew, is fenced, or clears a tier."""
        worker = self.rng.choice(WORKERS)
        choice = self.rng.randrange(3)
        mine = self.lives[worker]
        if choice == 0:
            await self.register(worker)
        elif choice == 1:
            tier = self.rng.randrange(2)
            cleared = await self.told(
                "clear",
                {"worker": str(worker), "tier": tier},
                membership.clear(self.store, mine, tier),
            )
            if cleared is not None:
                self.lives[worker] = cleared
        else:
            await membership.renew(self.store, mine, soon(-1))
            await self.told(
                "fence",
                {"worker": str(worker), "incarnation": mine.identity.incarnation + 1},
                membership.fence(self.store, worker, mine.identity),
            )
            await self.register(worker)

    async def final(self) -> None:
        """What is there in the end."""
        at, rows = await self.rows()
        runs, claims = [], []
        for key, value in rows.items():
            prefix, rest = keys.split_worker(key)
            if rest.startswith(keys.RUN):
                run, worker = decode_run(value), keys.worker_of(prefix)
                identity = decode(Id, rows[keys.identity(worker)])
                whole = msgspec.structs.replace(run, phase=int(Phase.READY))
                if run.phase != Phase.RESERVED and whole.is_valid(identity, rest[20]):
                    runs.append(
                        {
                            "worker": str(worker),
                            "run": f"{rest[20]}/{rest[21]}",
                            "generation": run.generation,
                            "blocks": run.live,
                        }
                    )
            elif rest.startswith(keys.PIN):
                claims.append(key[-16:].hex())
        self.process += 1
        self.recorder.invoke(self.process, "final")
        self.recorder.ok(self.process, {"runs": runs, "claims": claims}, stamp=at)


async def run_load(store: Store, seed: int, *, steps: int, tasks: int) -> History:
    """So many clients at once, each doing so many things; gives the history."""
    load = Load(store, seed)
    for worker in WORKERS:
        await load.register(worker)

    async def client() -> None:
        for _ in range(steps):
            kind = load.rng.choices(
                [load.publish, load.claim, load.evict, load.move, load.sweep, load.disturb],
                [6, 6, 4, 2, 1, 0.4],
            )[0]
            await kind()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(client())
    await load.final()
    return load.recorder.history()
