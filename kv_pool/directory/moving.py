"""Moving: a copy is at its new place before it is gone from the old one.

Inside a region, the bytes go to an announced run (`kv_pool.directory.publishing.reserve`) and then one
transaction turns both rows: the destination is ready, the source on its way out. Whoever looks at
any stamp sees exactly one of them::

    source        READY ───────────────┬──▶ DRAINING ──(no claims)──▶ evicted
    destination   RESERVED ──(bytes)───┴──▶ READY

Between regions one transaction may not span both homes. There a *task* goes through steps, each of
which anybody may take up after a crash; for a short while both copies are there, never none::

    LANDED     destination ready, and claimed by the task so that it stays
    RETIRED    source on its way out, after a read of the source's region has shown the destination
    (no row)   the claim is given back

A copy is the same without the source's part: reserve, bytes, commit. A move whose bytes do not come
ends with the `abort` of its announcement; its source has stayed as it was.
"""

from __future__ import annotations

import enum

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.directory.evicting import Retired, may_leave, retiring
from kv_pool.directory.membership import Registration, may_publish
from kv_pool.directory.publishing import Published, Stretch
from kv_pool.keys import Worker
from kv_pool.learner import Learner
from kv_pool.records import ENCODE, Phase, Pin, Run, decode
from kv_pool.shots import Compare, Done, Own, Reason, Refused, Rules, Store, Transaction
from truetime import timestamp


class Step(enum.IntEnum):
    """How far a move between regions is."""

    LANDED = 0
    RETIRED = 1


class Move(Struct, frozen=True, array_like=True):
    """A task: the row of a move between regions. It lies in the destination's region.

    part        of the runs' keys at both ends
    number      of the claim with which the task holds the destination
    at          stamp of the landing; 0 in the row, which is written by the landing itself
    generation  of the run that has landed
    expiry_ns   until when the task holds it, nanoseconds since the Unix epoch
    """

    step: int
    source_region: str
    source_name: str
    source_generation: int
    destination_region: str
    destination_name: str
    part: bytes
    number: bytes
    at: int = 0
    generation: int = 0
    expiry_ns: int = 0

    @property
    def source(self) -> Worker:
        """Where the copy was."""
        return Worker(self.source_region, self.source_name)

    @property
    def destination(self) -> Worker:
        """Where the copy is going."""
        return Worker(self.destination_region, self.destination_name)


async def migrate(
    store: Store,
    destination: Registration,
    stretch: Stretch,
    reserved: Published,
    source: Worker,
    source_part: bytes,
    source_run: Run,
) -> Published | Refused:
    """The bytes are over, inside a region: make the destination ready and the source leave."""
    if len(reserved.runs) != 1:
        raise ValueError("a run is moved as one run")
    first, run = reserved.runs[0]
    key = keys.run(destination.worker, stretch.namespace, stretch.tier, first)
    source_key = source.prefix + keys.RUN + source_part
    rules = Rules()
    may_publish(rules, destination, stretch.tier)
    _announced(rules, key, run)
    rules.field(Reason.CHANGED, source_key, Run, "generation", source_run.generation)
    rules.field(Reason.CHANGED, source_key, Run, "phase", int(Phase.READY))
    rules.field(Reason.CHANGED, source_key, Run, "live", source_run.live)
    may_leave(rules, source, source_part)
    ready = msgspec.structs.replace(run, phase=int(Phase.READY), deadline_ns=0)
    rules.write(key, ENCODE(ready))
    leaving = msgspec.structs.replace(source_run, phase=int(Phase.DRAINING))
    rules.write(source_key, ENCODE(leaving))

    async def turn(txn: Transaction) -> Reason | None:
        return await rules.apply(txn)

    done = await store.transact(turn)
    if done.value is not None:
        return Refused(done.value, done.at)
    return Published(done.at, ((first, ready),))


async def land(
    store: Store,
    destination: Registration,
    stretch: Stretch,
    reserved: Published,
    task: str,
    source: Worker,
    source_run: Run,
    number: bytes,
    expiry_ns: int,
) -> Move | Refused:
    """The bytes are over, between regions: the destination is ready, and held by the task so that it neither
    goes nor leaves."""
    if len(reserved.runs) != 1:
        raise ValueError("a run is moved as one run")
    first, run = reserved.runs[0]
    part = keys.run_id(stretch.namespace, stretch.tier, first)
    key = destination.worker.prefix + keys.RUN + part
    rules = Rules()
    may_publish(rules, destination, stretch.tier)
    _announced(rules, key, run)
    rules.write(key, ENCODE(msgspec.structs.replace(run, phase=int(Phase.READY), deadline_ns=0)))
    pin = Pin(f"task/{task}", expiry_ns, run.live, run.generation, offered_ns=expiry_ns)
    rules.write(keys.pin(destination.worker, part, number), ENCODE(pin))
    move = Move(
        Step.LANDED,
        source.region,
        source.name,
        source_run.generation,
        destination.worker.region,
        destination.worker.name,
        part,
        number,
        generation=run.generation,
        expiry_ns=expiry_ns,
    )
    task_key = keys.task(destination.worker.region, task)
    rules.write(task_key, ENCODE(move))

    async def turn(txn: Transaction) -> Reason | None:
        return await rules.apply(txn)

    done = await store.transact(turn)
    if done.value is not None:
        return Refused(done.value, done.at)
    return msgspec.structs.replace(move, at=done.at)


def is_seen(learner: Learner, move: Move) -> bool:
    """Whether a learner fed in the source's region shows the destination ready: only then may the
    source be retired, since even a promotion of that region keeps what its replica has shown."""
    if learner.as_of < move.at:
        return False
    run = learner.run(move.destination, move.part)
    identity = learner.identity(move.destination)
    if run is None or identity is None or run.generation != move.generation:
        return False
    return run.is_valid(identity, move.part[16])


async def retire_source(
    store: Store, source: Registration, move: Move, run: Run, learner: Learner
) -> Retired | Refused:
    """Put the source on its way out; refused as LAST_COPY until its region has seen the other.

    Refused as LOST once the task may hold the destination no more: what the learner shows may have been
    evicted there meanwhile, and no transaction of the source's home can look.
    """
    if not is_seen(learner, move):
        return Refused(Reason.LAST_COPY, learner.as_of)
    if run.generation != move.source_generation:
        return Refused(Reason.CHANGED, learner.as_of)
    rules, after = retiring(source, move.part, run)

    async def turn(txn: Transaction) -> Reason | None:
        # The stamp is known after the first read.
        await txn.get(keys.identity(source.worker))
        if timestamp.time_ns(txn.at) >= move.expiry_ns:
            return Reason.LOST
        return await rules.apply(txn)

    done = await store.transact(turn)
    return Retired(done.at, after) if done.value is None else Refused(done.value, done.at)


async def advance(store: Store, task: str, move: Move, step: Step) -> Move | Refused:
    """Note how far a move is."""
    key = keys.task(move.destination.region, task)
    rules = Rules()
    rules.field(Reason.TASK, key, Move, "step", int(step) - 1)
    rules.field(Reason.TASK, key, Move, "number", move.number)
    after = msgspec.structs.replace(move, step=int(step))
    rules.write(key, ENCODE(after))
    outcome = await rules.shoot(store)
    return outcome if isinstance(outcome, Refused) else after


async def finish(store: Store, task: str, move: Move) -> Done | Refused:
    """The source is on its way out: give the destination free, and forget the task."""
    key = keys.task(move.destination.region, task)

    async def end(txn: Transaction) -> Reason | None:
        value = await txn.get(key)
        if value is None:
            return None
        there = decode(Move, value)
        if there.number != move.number or there.step != Step.RETIRED:
            return Reason.TASK
        txn.delete(key)
        txn.delete(keys.pin(move.destination, move.part, move.number))
        return None

    done = await store.transact(end)
    return Done(done.at) if done.value is None else Refused(done.value, done.at)


def _announced(rules: Rules, key: bytes, run: Run) -> None:
    """The announcement still stands."""
    rules.field(Reason.CHANGED, key, Run, "generation", run.generation)
    rules.field(Reason.CHANGED, key, Run, "phase", int(Phase.RESERVED))
    rules.field(Reason.CHANGED, key, Run, "deadline_ns", Own.TIME_NS, Compare.GREATER)
