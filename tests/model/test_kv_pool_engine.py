"""An engine that loses, repeats and restarts, and what the pool believes about it."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from kv_pool.blocks import alias
from kv_pool.events.engine import Begin, Clear, Engine, Suspect
from kv_pool.events.member import Member
from kv_pool.events.stream import Mark, Passed, Stream
from kv_pool.events.wire import Batch, Removed, Scope, Stored, decode_batch
from kv_pool.ledger import Publish, Report
from kv_pool.records import State
from tests.contract.kv_pool_store import NAMESPACE, A, Follower, MemoryStore, soon
from tests.model.test_kv_pool_tree import name

PLAIN = Scope()


class Publisher:
    """An engine with a cache of its own: stores prompts, evicts leaves, says so in batches."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.tiers: dict[str, set[tuple[int, ...]]] = {"GPU": set(), "CPU": set()}
        self.kept: list[bytes] = []

    def step(self) -> tuple[int, bytes]:
        """One batch, and its number."""
        rng = self.rng
        events = []
        for _ in range(rng.randrange(1, 4)):
            medium = rng.choice(["GPU", "GPU", "CPU"])
            mine = self.tiers[medium]
            everywhere = self.tiers["GPU"] | self.tiers["CPU"]
            if rng.random() < 0.7:
                path = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 9)))
                start = 0
                while start < len(path) and path[: start + 1] in everywhere:
                    start += 1
                blocks = [path[: end + 1] for end in range(start, len(path))]
                if blocks:
                    mine.update(blocks)
                    events.append(
                        {
                            "type": "BlockStored",
                            "block_hashes": [name(one) for one in blocks],
                            "parent_block_hash": name(path[:start]) if start else None,
                            "block_size": 16,
                            "medium": medium,
                        }
                    )
            elif mine and rng.random() < 0.97:
                gone = rng.sample(sorted(mine), min(len(mine), rng.randrange(1, 4)))
                mine.difference_update(gone)
                events.append(
                    {
                        "type": "BlockRemoved",
                        "block_hashes": [name(one) for one in gone],
                        "medium": medium,
                    }
                )
            else:
                for blocks_there in self.tiers.values():
                    blocks_there.clear()
                events.append({"type": "AllBlocksCleared"})
        self.kept.append(msgspec.msgpack.encode([0.0, events, 0]))
        return len(self.kept) - 1, self.kept[-1]

    def restart(self) -> None:
        """The process is another one."""
        self.kept.clear()
        for blocks in self.tiers.values():
            blocks.clear()


def boots(rng: random.Random):
    """Boot ids."""
    return lambda: rng.randbytes(16)


@pytest.mark.parametrize("seed", range(10))
def test_the_pool_believes_what_the_engine_has(seed: int) -> None:
    """With batches lost and replayed and the engine restarting, the learner never gives a block that
    the engine does not have while the worker is sound, and with every gap repaired it gives all."""
    asyncio.run(history(seed, lossy=False))


@pytest.mark.parametrize("seed", range(10))
def test_a_gap_that_stays_costs_hits_only(seed: int) -> None:
    """Where gaps stay the pool knows less than the engine has, and never more."""
    asyncio.run(history(seed, lossy=True))


async def history(seed: int, *, lossy: bool) -> None:
    """A random history, checked after each batch."""
    rng = random.Random(seed)
    publisher = Publisher(rng)
    store = MemoryStore()
    follower = Follower(store)
    member = Member(store, A, boots(rng), lambda: soon(600))
    await member.begin()
    stream = Stream(can_replay=not lossy)
    engine = Engine(lambda scope, tokens: NAMESPACE)
    for _ in range(150):
        if rng.random() < 0.02:
            publisher.restart()
        sequence, payload = publisher.step()
        if rng.random() < 0.15:
            continue  # Lost on the way.
        stream.receive(sequence, payload, 0)
        ready = stream.ready()
        steps = list(ready.steps)
        if ready.replay_from is not None:
            for one, kept in enumerate(publisher.kept):
                stream.replayed(one, kept)
            stream.replay_ended()
            steps += stream.ready().steps
        for step in steps:
            actions = (
                engine.apply(decode_batch(step.payload), 0)
                if isinstance(step, Passed)
                else engine.mark(step)
            )
            carried = await member.carry(actions)
            assert carried.refused is None
        learner = follower.follow()
        identity = learner.identity(A)
        assert identity is not None
        assert identity.state == State.LIVE
        assert not identity.suspect
        check(rng, publisher, learner, engine, complete=not lossy)
    assert stream.gaps > 0
    assert engine.figures.strange == 0
    assert engine.orphans == sum(len(each) for each in engine._waiting.values())


def check(rng, publisher, learner, engine, *, complete: bool) -> None:
    """Depths in each tier are those of the engine's own cache, or less if gaps stayed."""
    for _ in range(5):
        path = tuple(rng.randrange(2) for _ in range(10))
        prompt = b"".join(name(path[: end + 1]) for end in range(len(path)))
        match = {one.tier: depth for one, depth in learner.match(NAMESPACE, prompt).depths.items()}
        for tier, medium in enumerate(("GPU", "CPU")):
            has = 0
            while has < len(path) and path[: has + 1] in publisher.tiers[medium]:
                has += 1
            if complete and not engine.figures.parked:
                assert match.get(tier, 0) == has
            else:
                assert match.get(tier, 0) <= has


def stored(*numbers: int, parent: int | None = None, tier: int = 0, scope: Scope = PLAIN) -> Stored:
    """An event."""
    names = b"".join(alias(one) for one in numbers)
    return Stored(names, None if parent is None else alias(parent), tier, 16, scope)


def test_orphans_are_attached_when_their_parents_come() -> None:
    """Stretches that came early are published behind their predecessors, in order, once."""
    engine = Engine(lambda scope, tokens: NAMESPACE)
    assert engine.apply(Batch((stored(5, 6, parent=4), stored(3, 4, parent=2))), 0) == []
    assert engine.orphans == 2
    actions = engine.apply(Batch((stored(1, 2),)), 1)
    published = [one for one in actions if isinstance(one, Publish)]
    assert [one.added[15] for one in published] == [1, 3, 5]
    assert [one.extends for one in published] == [0, 2, 4]
    assert (engine.orphans, engine.figures.attached) == (0, 2)


def test_orphans_wait_for_a_bounded_time_and_number() -> None:
    """Who waits too long is dropped, and who is one too many pushes the oldest out."""
    engine = Engine(lambda scope, tokens: NAMESPACE, orphans_max=2, orphan_ns=10)
    for number in (10, 20, 30):
        engine.apply(Batch((stored(number, parent=number - 1),)), number)
    assert (engine.orphans, engine.figures.dropped) == (2, 1)
    engine.tick(30)
    assert (engine.orphans, engine.figures.dropped) == (1, 2)
    assert engine.apply(Batch((stored(9), stored(19))), 31) != []
    assert engine.orphans == 1
    engine.tick(40)
    assert (engine.orphans, engine.figures.dropped) == (0, 3)


def test_orphans_that_are_removed_do_not_come_back() -> None:
    """Of a stretch that waits, what is behind a removed block is not published later."""
    engine = Engine(lambda scope, tokens: NAMESPACE)
    engine.apply(Batch((stored(3, 4, 5, parent=2), Removed((alias(4),), 0))), 0)
    actions = engine.apply(Batch((stored(1, 2),)), 0)
    assert [one.added for one in actions if isinstance(one, Publish)] == [
        alias(1) + alias(2),
        alias(3),
    ]
    engine.apply(Batch((stored(8, parent=7), Removed((alias(8),), 0))), 0)
    assert engine.orphans == 0


def test_scopes_have_their_namespaces() -> None:
    """Adapters, salts and groups are resolved by the caller; what has no namespace is passed over."""
    seen = []

    def resolve(scope: Scope, tokens: int) -> bytes | None:
        seen.append(scope)
        return None if scope.adapter == "unknown" else NAMESPACE

    engine = Engine(resolve)
    assert engine.apply(Batch((stored(1, scope=Scope("unknown")),)), 0) == []
    assert engine.figures.foreign == 1
    grouped = (stored(1, scope=Scope(group=1)), stored(1), stored(1))
    assert len(engine.apply(Batch(grouped), 0)) == 2
    [report] = engine.apply(Batch((Removed((alias(1),), 0, 1),)), 0)
    assert isinstance(report, Report)
    assert engine.blocks == 1
    assert seen == [Scope("unknown"), Scope(group=1), PLAIN]


def test_marks_become_actions() -> None:
    """What a stream says beside its batches voids what was believed, and says so to the directory."""
    engine = Engine(lambda scope, tokens: NAMESPACE)
    engine.apply(Batch((stored(1), stored(9, parent=8))), 0)
    assert engine.mark(Mark.SUSPECT) == [Suspect(suspected=True)]
    assert engine.blocks == 1
    assert engine.mark(Mark.FORGET) == [Clear()]
    assert (engine.blocks, engine.orphans) == (0, 0)
    assert engine.mark(Mark.SOUND) == [Suspect(suspected=False)]
    assert engine.mark(Mark.NEW_LIFE) == [Begin()]


@pytest.mark.parametrize("first", [0, 3])
def test_after_a_restart_in_place_one_batch_ends_the_old_life(first: int) -> None:
    """No transport notices an engine that is replaced behind its address. Numbers go backwards, though, and with the
    first batch, be it the first that was sent or not, nothing of the dead counts; and none of the new is ignored."""

    async def scene() -> None:
        store = MemoryStore()
        follower = Follower(store)
        member = Member(store, A, boots(random.Random(1)), lambda: soon(600))
        await member.begin()
        stream, engine = Stream(can_replay=False), Engine(lambda scope, tokens: NAMESPACE)

        async def arrives(sequence: int, *blocks: int) -> None:
            event = {
                "type": "BlockStored",
                "block_hashes": [alias(one) for one in blocks],
                "parent_block_hash": None,
                "block_size": 16,
            }
            stream.receive(sequence, msgspec.msgpack.encode([0.0, [event], 0]), 0)
            for step in stream.ready().steps:
                actions = (
                    engine.apply(decode_batch(step.payload), 0)
                    if isinstance(step, Passed)
                    else engine.mark(step)
                )
                assert (await member.carry(actions)).refused is None

        def depth(block: int) -> int:
            return follower.follow().match(NAMESPACE, alias(block)).blocks

        for sequence in range(20):
            await arrives(sequence, sequence)
        assert [depth(block) for block in range(20)] == [1] * 20
        before = follower.follow().identity(A)
        await arrives(first, 100)
        after = follower.follow().identity(A)
        assert before is not None
        assert after is not None
        assert after.incarnation == before.incarnation + 1
        assert [depth(block) for block in range(20)] == [0] * 20
        for sequence in range(first + 1, 30):
            await arrives(sequence, 100 + sequence)
        assert [depth(100 + sequence) for sequence in range(first + 1, 30)] == [1] * (29 - first)
        assert [depth(block) for block in range(20)] == [0] * 20
        assert stream.lives == 2

    asyncio.run(scene())
