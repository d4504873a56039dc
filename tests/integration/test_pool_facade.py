"""The pool in the words of other indexers, over real sockets: HTTP queries, and events published anew."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
import xxhash

from k2store.testing import LocalNode, local_node
from kv_pool.blocks import alias, chain, root
from kv_pool.edge.engine_sockets import EngineSockets
from kv_pool.edge.facade import Facade
from kv_pool.edge.http_server import BODY_BYTES_MAX, HttpServer
from kv_pool.edge.pool import Pool
from kv_pool.edge.relay import Relay
from kv_pool.edge.republisher import Republisher
from kv_pool.edge.scopes import Scopes
from kv_pool.keys import Worker
from kv_pool.namespace import Namespace, Scheme
from kv_pool.records import Tier
from tests.integration.engine_process import EngineProcess, removed, stored
from tests.integration.test_pool_relay import BASE, Scene, engine_hash, names

FACADE = Namespace(
    tenant="default",
    model="unnamed",
    revision="",
    dtype="",
    layout="",
    block_tokens=16,
    scheme=Scheme.VLLM_SHA256,
)


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


class Client:
    """One keep-alive connection to a facade."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(address, timeout=10)

    def close(self) -> None:
        """End it."""
        self._connection.close()

    async def __call__(self, method: str, path: str, body: object = None):
        """Status and document of an answer."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, data if body is not None else None)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    async def until(self, method: str, path: str, body: object, wanted) -> None:
        """Ask until the answer is as wanted."""
        told = None
        try:
            async with asyncio.timeout(15):
                while (told := await self(method, path, body)) != (200, wanted):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{path}: {told}, not {wanted}")


@contextlib.asynccontextmanager
async def serving(node: LocalNode):
    """A facade over a node; gives pool, learner and a client."""
    async with (
        node.connect() as db,
        Pool(db, "fra") as pool,
        pool.learner() as tree,
        Facade(pool, tree, FACADE, {"adapter-a": bytes(32)}) as facade,
    ):
        server = HttpServer(facade.handle)
        client = Client(await server.listen("127.0.0.1:0"))
        try:
            yield pool, tree, client
        finally:
            client.close()
            await server.close()


def registration(engine: EngineProcess, instance: object, **more: object) -> dict[str, object]:
    """A body of /register."""
    return {
        "endpoint": engine.events,
        "replay_endpoint": engine.replay,
        "type": "vLLM",
        "instance_id": instance,
        **more,
    }


def test_an_engine_is_registered_queried_and_unregistered(
    node: LocalNode, engine: EngineProcess
) -> None:
    """Both dialects: the engine's blocks are found by hash, in tokens or in blocks, by medium and by rank;
    afterwards its life is over at once."""

    async def scene() -> None:
        async with serving(node) as (_, tree, client):
            said = registration(engine, "node1", modelname="m1", block_size=16, dp_rank=1)
            status, told = await client("POST", "/register", said)
            assert (status, told["instance_id"]) == (200, "node1")
            assert (await client("POST", "/register", said))[0] == 422
            worker = Worker("fra", "node1.dp1")
            async with asyncio.timeout(10):
                while tree.identity(worker) is None:
                    await asyncio.sleep(0.02)
            engine.say(stored(*map(engine_hash, range(3))))
            engine.say(stored(engine_hash(3), parent=engine_hash(2), medium="CPU"))
            hashes = [engine_hash(block).hex() for block in range(5)]
            asked = {"model": "m1", "seq_hashes": hashes, "block_size": 16}
            found = {"longest_matched": 64, "GPU": 48, "CPU": 0, "DISK": 0, "DP": {"1": 64}}
            await client.until("POST", "/query_by_hash", asked, {"default": {"node1": found}})
            status, told = await client(
                "POST", "/query_by_hash", {"model_name": "m1", "block_hashes": hashes}
            )
            assert (status, told["scores"]) == (200, {"node1": {"1": 4}})
            for other in (
                {"tenant_id": "t"},
                {"model": "m2"},
                {"instance_id": "x"},
                {"cache_salt": "s"},
            ):
                assert (await client("POST", "/query_by_hash", asked | other))[1] in (
                    {"default": {}},
                    {"t": {}},
                )
            assert (await client("POST", "/query_by_hash", asked | {"lora_name": "adapter-b"}))[
                1
            ] == {"default": {}}
            status, told = await client("POST", "/query", {"model": "m1", "token_ids": [1] * 64})
            assert (status, "by hash" in told["error"]) == (422, True)
            workers = [
                one for one in (await client("GET", "/workers"))[1] if one["instance_id"] == "node1"
            ]
            assert workers[0]["endpoints"] == {"1": engine.events}
            assert workers[0]["ranks"]["1"]["connected"] is True
            dumped = [
                one for one in (await client("GET", "/dump"))[1] if one["worker_id"] == "node1"
            ]
            first = next(one for one in dumped if one["storage_tier"] == "device")
            blocks = first["event"]["data"]["stored"]["blocks"]
            assert [one["block_hash"] for one in blocks] == hashes[:3]
            status, told = await client("POST", "/unregister", {"instance_id": "node1"})
            assert (status, told["removed_instances"]) == (200, ["node1|default|1"])
            await client.until("POST", "/query_by_hash", asked, {"default": {}})
            assert (await client("POST", "/unregister", {"instance_id": "node1"}))[0] == 404
            assert (await client("GET", "/health"))[1]["status"] == "ok"

    asyncio.run(scene())


def test_tokens_are_named_where_names_are_known(node: LocalNode) -> None:
    """Blocks under our own names and under rolling XXH3 are found by tokens, whoever published them, in
    whatever region."""

    async def scene() -> None:
        async with serving(node) as (pool, tree, client):
            tokens = list(range(1, 40))
            ours = Namespace(
                tenant="default", model="m3", revision="r", dtype="d", layout="l", block_tokens=8
            )
            standard = Namespace(
                tenant="default",
                model="m4",
                revision="r",
                dtype="d",
                layout="l",
                block_tokens=8,
                scheme=Scheme.XXH3,
            )
            rolled = []
            before = b""
            for at in range(0, 32, 8):
                body = b"".join([token.to_bytes(4, "little") for token in tokens[at : at + 8]])
                own = xxhash.xxh3_64_intdigest(body)
                if before:
                    own = xxhash.xxh3_64_intdigest(before + own.to_bytes(8, "little"))
                before = own.to_bytes(8, "little")
                rolled.append(own)
            async with Pool(pool.db, "iad") as far, far.worker("far") as worker:
                digest = await far.declare(ours)
                await worker.publish(digest, chain(root(digest), tokens[:24], 8).names, Tier.HOST)
                digest = await far.declare(standard)
                done = await worker.publish(digest, b"".join(map(alias, rolled)), Tier.DISK)
                await tree.caught_up(done.at)
            found = {"longest_matched": 24, "GPU": 0, "CPU": 24, "DISK": 0, "DP": {"0": 24}}
            asked = {"model": "m3", "token_ids": tokens, "block_size": 8}
            assert await client("POST", "/query", asked) == (200, {"default": {"iad/far": found}})
            found = {"longest_matched": 32, "GPU": 0, "CPU": 0, "DISK": 32, "DP": {"0": 32}}
            asked = {"model": "m4", "token_ids": tokens}
            assert await client("POST", "/query", asked) == (200, {"default": {"iad/far": found}})
            asked = {"model_name": "m4", "block_hashes": [*rolled[:2], 5]}
            assert (await client("POST", "/query_by_hash", asked))[1]["scores"] == {
                "iad/far": {"0": 2}
            }
            assert (await client("POST", "/query", asked | {"token_ids": [-1] * 8}))[0] == 422

    asyncio.run(scene())


@pytest.mark.parametrize(
    "method, path, body, status",
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/query", None, 405),
        ("POST", "/query", b"{", 422),
        ("POST", "/query", b"\xff\xfe", 422),
        ("POST", "/query", {"model": "m"}, 422),
        ("POST", "/query", {"token_ids": [1]}, 422),
        ("POST", "/query_by_hash", {"model": "m"}, 422),
        ("POST", "/query_by_hash", {"model": "m", "seq_hashes": ["xy"]}, 422),
        ("POST", "/query_by_hash", {"model": "m", "seq_hashes": [2**64]}, 422),
        ("POST", "/register", {"instance_id": "a b", "endpoint": "tcp://h:1"}, 422),
        ("POST", "/register", {"instance_id": "a", "endpoint": "http://h:1"}, 422),
        ("POST", "/register", {"instance_id": "a", "endpoint": "tcp://h:1", "dp_rank": -1}, 422),
        ("POST", "/register", {"instance_id": "a", "endpoint": "tcp://h:1", "block_size": 0}, 422),
        ("POST", "/register", {"instance_id": "a", "endpoint": "tcp://h:1", "lora_name": "?"}, 422),
        ("POST", "/unregister", {"instance_id": "a"}, 404),
    ],
)
def test_what_cannot_be_done_is_refused(
    node: LocalNode, method: str, path: str, body: object, status: int
) -> None:
    """A wrong path, method or body is answered with a status and a reason, and the next request on the
    same connection is served."""

    async def scene() -> None:
        async with serving(node) as (_, _, client):
            told = await client(method, path, body)
            assert told[0] == status
            assert told[1]["error"]
            assert (await client("GET", "/health"))[0] == 200

    asyncio.run(scene())


def test_no_bytes_end_the_server(node: LocalNode) -> None:
    """Random bytes, heads without end, bodies beyond the limit and connections that are left open:
    others are served all the while."""
    rng = random.Random(11)

    def throw(address: str, data: bytes) -> bytes:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            try:
                raw.sendall(data)
                return raw.recv(4096)
            except OSError:
                return b""

    async def scene() -> None:
        async with serving(node) as (_, _, client):
            heads = [rng.randbytes(rng.randrange(1, 200)) + b"\r\n\r\n" for _ in range(40)]
            heads.append(b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000)
            for head in heads:
                answer = await asyncio.to_thread(throw, client.address, head)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
            large = b"POST /query HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n"
            answer = await asyncio.to_thread(
                throw, client.address, large + bytes(BODY_BYTES_MAX + 100_000)
            )
            assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
            host, _, port = client.address.partition(":")
            with socket.create_connection((host, int(port))):
                assert (await client("GET", "/health"))[0] == 200
            waits = b"POST /query HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            answer = await asyncio.to_thread(throw, client.address, waits)
            assert answer.startswith(b"HTTP/1.1 100")

    asyncio.run(scene())


def test_a_follower_of_the_republished_stream_believes_the_same(
    node: LocalNode, engine: EngineProcess
) -> None:
    """A relay that follows what is republished holds what the directory holds of the source: stored,
    evicted, cleared and fenced blocks, what was published before it came, and full digests."""

    async def scene() -> None:
        async with (
            node.connect() as db,
            Pool(db, "fra") as pool,
            pool.learner() as tree,
            pool.worker("source") as source,
        ):
            digest = await pool.declare(BASE)
            await source.publish(digest, names(*range(800, 805)), Tier.DEVICE)
            async with Republisher(tree, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*") as told:
                async with asyncio.timeout(10):
                    while not told.number_of(source.worker, "m"):
                        await asyncio.sleep(0.01)
                with EngineSockets(told.events, told.replay, "kv@fra/source@m") as sockets:
                    mirror = Relay(pool, Worker("fra", "mirror"), sockets, Scopes(BASE, {}))
                    task = asyncio.create_task(mirror.run())
                    try:
                        await _mirrored(Scene(pool, tree, mirror), source)
                    finally:
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())


async def _mirrored(at: Scene, source) -> None:
    digest = BASE.digest()
    await at.connected()
    # Whoever comes late learns of what was before when something is said.
    await source.publish(digest, names(810), Tier.DEVICE)
    await at.until(lambda: at.blocks(*range(800, 806)) == 5)
    await source.publish(digest, names(*range(800, 809)), Tier.DEVICE)
    await at.until(lambda: at.blocks(*range(800, 810)) == 9)
    await source.evict(Tier.DEVICE, names(808))
    await at.until(lambda: at.blocks(*range(800, 810)) == 8)
    await source.publish(digest, names(820), Tier.HOST)
    await at.until(lambda: at.blocks(820) == 1)
    await source.clear(Tier.DEVICE)
    await at.until(lambda: at.blocks(800) == 0)
    assert at.blocks(820) == 1
    await source.leave()
    await at.until(lambda: at.blocks(820) == 0)
    assert at.relay.figures.gaps == 1


def test_the_verb_serves_and_republishes(node: LocalNode, engine: EngineProcess) -> None:
    """`k2 pool serve` as a process: an engine registered by HTTP is matched, and told as events with the
    digests that it gave; an address that others reach must be asked for."""
    command = [
        sys.executable,
        "-c",
        "from k2store.cli import main; main()",
        "pool",
        "serve",
        "--json",
    ]
    command += ["--region", "fra", "--address", node.address]
    exposed = subprocess.run(
        [*command, "--listen", "0.0.0.0:0"], capture_output=True, text=True, check=False
    )
    assert exposed.returncode == 2
    assert "--exposed" in exposed.stderr
    command += ["--listen", "127.0.0.1:0", "--republish", "tcp://127.0.0.1:*"]
    process = subprocess.Popen(
        [*command, "--republish-replay", "tcp://127.0.0.1:*"], stdout=subprocess.PIPE, text=True
    )

    async def scene(ready, client: Client) -> None:
        said = registration(engine, 7, modelname="m9", block_size=16)
        assert (await client("POST", "/register", said))[0] == 200
        with EngineSockets(ready["events"], ready["replay"], "kv@fra/7.dp0@m9") as sockets:
            presence = sockets.presence()
            assert await anext(presence)
            async with asyncio.timeout(15):
                while not any(
                    rank["connected"]
                    for one in (await client("GET", "/workers"))[1]
                    for rank in one["ranks"].values()
                ):
                    await asyncio.sleep(0.05)
            engine.say(stored(engine_hash(900), engine_hash(901)))
            asked = {"model_name": "m9", "block_hashes": [engine_hash(900).hex()]}
            async with asyncio.timeout(15):
                while not (await client("POST", "/query_by_hash", asked))[1]["scores"]:
                    await asyncio.sleep(0.05)
            engine.say(removed(engine_hash(901)))
            kinds = []
            batches = sockets.batches()
            async with asyncio.timeout(15):
                while len(kinds) < 2:
                    _, payload = await anext(batches)
                    kinds += [
                        (event["type"], event["block_hashes"])
                        for event in msgspec.msgpack.decode(payload)[1]
                    ]
            assert kinds == [
                ("BlockStored", [engine_hash(900), engine_hash(901)]),
                ("BlockRemoved", [engine_hash(901)]),
            ]
            await batches.aclose()
            await presence.aclose()

    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with contextlib.closing(Client(ready["listen"])) as client:
            asyncio.run(scene(ready, client))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()
