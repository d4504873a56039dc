"""A relay between an engine's sockets, in a process of its own, and a real node."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import k2store
from k2store.testing import LocalNode, local_node
from kv_pool.blocks import alias
from kv_pool.edge.engine_sockets import EngineSockets
from kv_pool.edge.pool import Pool
from kv_pool.edge.refusals import Denied
from kv_pool.edge.relay import Relay
from kv_pool.edge.scopes import Scopes
from kv_pool.events.wire import Scope
from kv_pool.keys import Worker
from kv_pool.namespace import Namespace, Scheme
from kv_pool.records import Tier
from tests.integration.engine_process import ENCODE, EngineProcess, removed, stored

BASE = Namespace(
    tenant="",
    model="m",
    revision="r",
    dtype="bf16",
    layout="NHD",
    block_tokens=16,
    scheme=Scheme.VLLM_SHA256,
)
DIGEST = BASE.digest()
ADAPTER = hashlib.sha256(b"adapter").digest()


def engine_hash(block: int) -> bytes:
    """A hash as an engine makes it."""
    return hashlib.sha256(b"engine %d" % block).digest()


def names(*blocks: int) -> bytes:
    """Names of blocks, packed."""
    return b"".join([alias(engine_hash(block)) for block in blocks])


@pytest.fixture(scope="module")
def node() -> Iterator[LocalNode]:
    """A node process."""
    with local_node(clock__bound="200us", transactions__slack_min="1ms") as running:
        yield running


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    """An engine that offers replays."""
    with EngineProcess() as process:
        yield process


class Scene:
    """A relay that runs, and a learner to look with."""

    def __init__(self, pool, tree, relay) -> None:
        self.pool = pool
        self.tree = tree
        self.relay = relay

    def blocks(self, *prompt: int, namespace: bytes = DIGEST) -> int:
        """How much of a prompt the engine is believed to have."""
        depths = self.tree.match(namespace, names(*prompt)).depths
        return max([d for who, d in depths.items() if who.worker == self.relay.worker], default=0)

    async def until(self, condition) -> None:
        """Wait for a condition; which one is told when it does not come."""
        try:
            async with asyncio.timeout(15):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            import inspect

            pytest.fail(f"{inspect.getsource(condition)} {self.relay.figures}")

    async def connected(self) -> None:
        """Wait until the relay has registered."""
        await self.until(lambda: self.tree.identity(self.relay.worker) is not None)
        await self.until(lambda: self.relay.figures.is_connected)


@asynccontextmanager
async def relaying(node: LocalNode, engine: EngineProcess, name: str, **options):
    """A relay for the length of a block."""
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(node.connect())
        pool = await stack.enter_async_context(Pool(db, "fra"))
        tree = await stack.enter_async_context(pool.learner())
        sockets = stack.enter_context(EngineSockets(engine.events, engine.replay))
        scopes = Scopes(BASE, {"adapter-a": ADAPTER})
        relay = Relay(pool, Worker("fra", name), sockets, scopes, **options)
        task = asyncio.create_task(relay.run())
        try:
            scene = Scene(pool, tree, relay)
            await scene.connected()
            yield scene
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_an_engine_becomes_a_member(node: LocalNode, engine: EngineProcess) -> None:
    """Stored, evicted and cleared blocks of an engine are those that the pool believes in, in both
    wire forms, with the engine's full digests kept; a claim that eviction breaks is told."""

    async def scene() -> None:
        voided = []
        async with relaying(node, engine, "e1", voided=voided.append) as at:
            engine.say(stored(*map(engine_hash, range(6))))
            await at.until(lambda: at.blocks(*range(8)) == 6)
            engine.say(["BlockStored", [engine_hash(6)], engine_hash(5), [0] * 16, 16, None, "GPU"])
            await at.until(lambda: at.blocks(*range(8)) == 7)
            cover = at.tree.cover(at.relay.worker, DIGEST, names(*range(7)))
            assert cover.pieces[0].run.engine[:32] == engine_hash(0)
            claim = await at.pool.acquire(cover)
            engine.say(removed(engine_hash(4)))
            await at.until(lambda: at.blocks(*range(8)) == 4)
            assert [one.number for one in voided] == [claim.number]
            with pytest.raises(Denied):
                await at.pool.renew(claim)
            engine.say({"type": "AllBlocksCleared"})
            await at.until(lambda: at.blocks(0) == 0)
            engine.say(stored(engine_hash(0), medium="CPU"))
            await at.until(lambda: at.blocks(0) == 1)
            holders = at.tree.match(DIGEST, names(0)).holders
            assert [one.tier for one in holders if one.worker == at.relay.worker] == [Tier.HOST]
            assert at.relay.figures.lives == 1
            assert at.tree.learner.namespace(DIGEST) == BASE

    asyncio.run(scene())


def test_scopes_are_kept_apart(node: LocalNode, engine: EngineProcess) -> None:
    """Blocks of an adapter live in a namespace with its content, those of an unknown adapter nowhere,
    and salts and groups each in their own."""

    async def scene() -> None:
        async with relaying(node, engine, "e2") as at:
            a, b, salted, grouped = map(engine_hash, range(1, 5))
            engine.say(stored(a, lora_name="adapter-a"), stored(b, lora_name="adapter-b"))
            engine.say(stored(salted, cache_salt="s"), stored(grouped, group_idx=1))
            scopes = Scopes(BASE, {"adapter-a": ADAPTER})
            apart = {
                1: scopes.resolve(Scope("adapter-a"), 16),
                3: scopes.resolve(Scope(salt="s"), 16),
                4: scopes.resolve(Scope(group=1), 16),
            }
            assert len({*apart.values(), DIGEST}) == 4
            await at.until(lambda: all(at.blocks(one, namespace=apart[one]) for one in apart))
            assert not any(at.blocks(one) for one in range(1, 5))
            assert not any(at.blocks(2, namespace=namespace) for namespace in apart.values())
            assert scopes.resolve(Scope("adapter-b"), 16) is None

    asyncio.run(scene())


def test_what_is_lost_is_replayed(node: LocalNode, engine: EngineProcess) -> None:
    """Batches that did not arrive come by the replay, in order; nothing is believed wrongly meanwhile,
    and the worker is sound afterwards."""

    async def scene() -> None:
        async with relaying(node, engine, "e3") as at:
            engine.say(stored(engine_hash(0), engine_hash(1)))
            await at.until(lambda: at.blocks(0, 1) == 2)
            engine.lose(stored(engine_hash(2), parent=engine_hash(1)))
            engine.lose(removed(engine_hash(2)), stored(engine_hash(3), parent=engine_hash(1)))
            engine.say(stored(engine_hash(4), parent=engine_hash(3)))
            await at.until(lambda: at.blocks(0, 1, 3, 4) == 4)
            assert at.blocks(0, 1, 2) == 2
            await at.until(lambda: not at.tree.identity(at.relay.worker).suspect)
            assert at.tree.identity(at.relay.worker).incarnation == 1
            assert at.relay.figures.gaps == 1

    asyncio.run(scene())


def test_a_gap_without_replay_clears_what_is_known(node: LocalNode) -> None:
    """Where no replay is offered a lost batch voids everything before it, and what comes after it is
    built up anew; what goes behind a block that nobody told of is parked."""

    async def scene() -> None:
        with EngineProcess(replays=False) as engine:
            async with relaying(node, engine, "e4") as at:
                engine.say(stored(engine_hash(0), engine_hash(1)))
                await at.until(lambda: at.blocks(0, 1) == 2)
                engine.lose(removed(engine_hash(1)))
                engine.say(stored(engine_hash(7), parent=engine_hash(1)), stored(engine_hash(9)))
                await at.until(lambda: at.blocks(9) == 1)
                assert at.blocks(0, 1) == 0
                assert at.relay.figures.orphans == 1
                engine.say(stored(engine_hash(0), engine_hash(1)))
                await at.until(lambda: at.blocks(0, 1, 7) == 3)
                assert at.relay.figures.orphans == 0

    asyncio.run(scene())


def test_garbage_never_stops_a_relay(node: LocalNode, engine: EngineProcess) -> None:
    """Frames of any number and length, payloads of random bytes, and events of unknown kinds are
    counted; what is understood between them arrives."""
    rng = random.Random(7)

    async def scene() -> None:
        async with relaying(node, engine, "e5") as at:
            for turn in range(60):
                frames = [
                    rng.randbytes(rng.choice([0, 1, 8, 9])) for _ in range(rng.randrange(1, 5))
                ]
                if len(frames) < 2 or len(frames[-2]) != 8:
                    engine.raw(*frames)
                engine.payload(rng.randbytes(rng.randrange(40)))
                engine.say({"type": "New", "x": 1}, ["Newer"], 5, None, {"type": "BlockStored"})
                engine.payload(ENCODE({"events": "no"}))
                engine.say(stored(engine_hash(100 + turn)))
            await at.until(lambda: all(at.blocks(100 + turn) == 1 for turn in range(60)))
            figures = at.relay.figures
            assert figures.unreadable >= 60
            assert figures.strange >= 240
            assert figures.lives == 1

    asyncio.run(scene())


NUMBERS = st.one_of(st.integers(0, 6), st.integers(-(2**63), 2**63 - 1))
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def told(draw) -> object:
    """An event as an engine of another version may tell it: more fields, fewer, other types, other orders."""
    block = draw(st.integers(0, 5))
    event = stored(engine_hash(block), parent=draw(st.none() | st.just(engine_hash(block + 1))))
    match draw(st.integers(0, 4)):
        case 0:
            return event | draw(st.dictionaries(st.text(max_size=8), ANYTHING, max_size=3))
        case 1:
            return event | {draw(st.sampled_from(sorted(event))): draw(ANYTHING)}
        case 2:
            return {"type": "BlockRemoved", "block_hashes": [engine_hash(block)], "new": 1}
        case 3:
            return [
                "BlockStored",
                [engine_hash(block)],
                None,
                [1] * 16,
                16,
                None,
                "GPU",
                1,
                2,
                3,
                4,
            ]
    return draw(ANYTHING)


PAYLOADS = st.one_of(
    st.binary(max_size=60),
    ANYTHING.map(ENCODE),
    st.lists(told(), max_size=4).map(lambda events: ENCODE([1.0, events, 0])),
    st.lists(told(), max_size=2).map(lambda events: ENCODE([1.0, events, 0, "more", None])),
    st.lists(told(), max_size=2).map(lambda events: ENCODE({"ts": 1.0, "events": events, "x": 1})),
)


@pytest.mark.timeout(240)
def test_no_stream_stops_a_relay(node: LocalNode, engine: EngineProcess) -> None:
    """Whatever comes over the socket, in whatever order and under whatever numbers: the relay goes on, and once the
    engine begins again at its first number what it tells is believed, and nothing of what was before."""
    lives = itertools.count()

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(NUMBERS, PAYLOADS), max_size=30))
    def stream(batches: list[tuple[int, bytes]]) -> None:
        number = next(lives)

        async def scene() -> None:
            async with relaying(node, engine, f"any{number}", ttl_s=30.0) as at:
                for sequence, payload in batches:
                    engine.raw(b"", sequence.to_bytes(8, "big", signed=True), payload)
                for sequence, block in enumerate((900, 901)):
                    batch = ENCODE([1.0, [stored(engine_hash(block))], 0])
                    # The first of them is a step back, unless nothing with a number has come.
                    engine.raw(b"", sequence.to_bytes(8, "big"), batch)
                await at.until(lambda: at.blocks(901) == 1)
                assert at.blocks(900) == 1
                assert [at.blocks(block) for block in range(6)] == [0] * 6
                identity = at.tree.identity(at.relay.worker)
                assert identity is not None
                await at.until(lambda: not at.tree.identity(at.relay.worker).suspect)

        asyncio.run(scene())

    stream()


def test_a_restarted_engine_has_a_new_life(node: LocalNode, engine: EngineProcess) -> None:
    """After kill -9 the engine is suspect at once, so nothing of it is claimed; started again on the
    same ports, its new stream counts, and nothing of the old one does."""

    async def scene() -> None:
        async with relaying(node, engine, "e6") as at:
            engine.say(stored(*map(engine_hash, range(200, 210))))
            await at.until(lambda: at.blocks(*range(200, 210)) == 10)
            before = at.tree.identity(at.relay.worker)
            cover = at.tree.cover(at.relay.worker, DIGEST, names(*range(200, 210)))
            await asyncio.to_thread(engine.kill)
            await at.until(lambda: at.tree.identity(at.relay.worker).suspect)
            assert at.tree.cover(at.relay.worker, DIGEST, names(200)) is None
            await asyncio.to_thread(engine.start)
            await at.until(
                lambda: at.tree.identity(at.relay.worker).incarnation > before.incarnation
            )
            assert at.blocks(200) == 0
            with pytest.raises(Denied):
                await at.pool.acquire(cover, blocks_min=1)
            await at.until(lambda: at.relay.figures.is_connected)
            engine.lose(stored(engine_hash(300)))
            engine.say(stored(engine_hash(301), parent=engine_hash(300)))
            await at.until(lambda: at.blocks(300, 301) == 2)
            assert at.blocks(200) == 0
            assert not at.tree.identity(at.relay.worker).suspect

    asyncio.run(scene())


def test_a_dead_engine_is_fenced(node: LocalNode, engine: EngineProcess) -> None:
    """An idle engine lives as long as its transport answers; a dead one is renewed no more, and is
    fenced when its lease has run out."""

    async def scene() -> None:
        async with relaying(node, engine, "e7", ttl_s=0.6) as at:
            engine.say(stored(engine_hash(400)))
            await at.until(lambda: at.blocks(400) == 1)
            await asyncio.sleep(1.5)
            assert at.relay.worker not in await at.pool.fence_expired()
            await asyncio.to_thread(engine.kill)
            fenced: list[Worker] = []
            async with asyncio.timeout(10):
                while at.relay.worker not in fenced:
                    fenced += await at.pool.fence_expired()
                    await asyncio.sleep(0.1)
            await at.until(lambda: at.blocks(400) == 0)
            await asyncio.to_thread(engine.start)
            await at.until(lambda: at.relay.figures.is_connected)
            engine.say(stored(engine_hash(401)))
            await at.until(lambda: at.blocks(401) == 1)

    asyncio.run(scene())


def test_a_fenced_relay_has_everything_told_anew(node: LocalNode, engine: EngineProcess) -> None:
    """Somebody else takes the name meanwhile: the relay registers again and with the next batch has
    the whole engine replayed."""

    async def scene() -> None:
        async with relaying(node, engine, "e8") as at:
            engine.say(stored(engine_hash(500), engine_hash(501)))
            await at.until(lambda: at.blocks(500, 501) == 2)
            async with at.pool.worker("e8") as other:
                await at.tree.caught_up(other.registration.at)
                assert at.blocks(500) == 0
                await at.until(lambda: at.relay.figures.lives == 2)
                engine.say(stored(engine_hash(502), parent=engine_hash(501)))
                await at.until(lambda: at.blocks(500, 501, 502) == 3)

    asyncio.run(scene())


def test_the_store_may_be_away(tmp_path: Path, engine: EngineProcess) -> None:
    """What an engine says while its node is dead is in the directory soon after it is back."""

    async def scene(own: LocalNode) -> None:
        async with relaying(own, engine, "e9", ttl_s=60) as at:
            await asyncio.to_thread(own.kill)
            for block in range(600, 640):
                engine.say(stored(engine_hash(block)))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own.start)
            await at.until(lambda: all(at.blocks(block) == 1 for block in range(600, 640)))

    with local_node(tmp_path, transactions__slack_min="1ms") as own:
        asyncio.run(scene(own))


def test_the_verb_relays(node: LocalNode, engine: EngineProcess) -> None:
    """`k2 pool relay` does it as a process: the engine's blocks are matched by others, and an
    interrupt ends it."""
    command = [sys.executable, "-c", "from k2store.cli import main; main()", "pool", "relay"]
    command += ["--engine", engine.events, "--replay", engine.replay, "--worker", "fra/verb"]
    command += ["--model", "m", "--revision", "r", "--dtype", "bf16", "--layout", "NHD"]
    command += ["--adapter", f"adapter-a={ADAPTER.hex()}", "--address", node.address]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)

    async def scene() -> None:
        async with node.connect() as db, Pool(db, "fra") as pool, pool.learner() as tree:
            worker = Worker("fra", "verb")
            async with asyncio.timeout(20):
                while tree.identity(worker) is None:
                    await asyncio.sleep(0.05)
                engine.say(stored(engine_hash(700)))
                while tree.match(DIGEST, names(700)).blocks == 0:
                    await asyncio.sleep(0.05)

    try:
        asyncio.run(scene())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def test_a_wrong_address_is_refused(node: LocalNode) -> None:
    """An address that is none ends the relay with `Rejected`."""

    async def scene() -> None:
        async with node.connect() as db, Pool(db, "fra") as pool:
            with EngineSockets("nowhere") as sockets:
                relay = Relay(pool, Worker("fra", "e10"), sockets, Scopes(BASE, {}))
                with pytest.raises(k2store.Rejected):
                    await relay.run()

    asyncio.run(scene())
