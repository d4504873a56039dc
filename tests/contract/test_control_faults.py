"""Control planes under faults: killed, hung, cut in half, with answers that get lost."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio
import pytest

from k2store.config import load
from k2store.control import Control, Map, MapChanged, change, with_region
from k2store.control import etcd as etcd_module
from k2store.control.embedded import EmbeddedControl
from k2store.control.etcd import EtcdControl
from k2store.control.opening import EtcdAddress, node_control, parse_etcd
from k2store.control.remote import RemoteControl
from k2store.control.service import ControlMethods
from k2store.errors import Corruption, OutcomeUnknown, Rejected, Unavailable
from k2store.storage.failures import StoreLocked
from k2store.testing.control import MemoryControl
from k2store.v1 import control_pb2, control_pb2_grpc
from tests.contract.control_planes import founded, next_map
from tests.contract.control_server import Server
from tests.contract.etcd_cluster import EtcdCluster, etcd_cluster, free_ports, installed
from tests.integration.rpc_node import Authority

T = TypeVar("T")
LIMIT_S = 90

needs_etcd = pytest.mark.skipif(not installed(), reason="etcd is not installed")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body under a limit."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main()

    asyncio.run(limited())


class Load:
    """Clients that ask for epochs and change the map, and a watcher, all through faults."""

    def __init__(self, controls: list[Control]) -> None:
        self.controls = controls
        self.epochs: list[int] = []
        self.rounds = Counter[int]()
        self.stored: set[str] = set()
        self.seen: list[Map] = []
        self.failures = 0

    async def stubborn(self, step: Callable[[], Awaitable[T]]) -> T:
        """Try until it comes through."""
        while True:
            try:
                return await step()
            except (Unavailable, OutcomeUnknown, MapChanged):
                self.failures += 1
                await asyncio.sleep(0.01)

    async def work(self, number: int, until: Callable[[], bool]) -> None:
        """One client."""
        control = self.controls[number]
        while not until():
            life = b"life-%d" % number
            grant = partial(control.grant_epoch, 1, 1 + number % 3, life, 0)
            self.epochs.append(await self.stubborn(grant))
            name = f"w{number}-{self.rounds[number]}"
            await self.stubborn(partial(change, control, partial(with_region, name=name)))
            self.stored.add(name)
            self.rounds[number] += 1

    async def follow(self) -> None:
        """The watcher: ends with the map that has everything."""
        async with aclosing(self.controls[-1].watch()) as maps:  # type: ignore[type-var]
            async for found in maps:
                self.seen.append(found)
                if found.region("the-end") is not None:
                    return

    async def under(self, faults: Callable[[], Awaitable[None]]) -> None:
        """Everything at once; then look at what came of it."""
        over = False

        async def strike() -> None:
            nonlocal over
            await faults()
            over = True

        async with asyncio.TaskGroup() as group:
            following = group.create_task(self.follow())
            group.create_task(strike())
            async with asyncio.TaskGroup() as workers:
                for number in range(len(self.controls) - 1):
                    workers.create_task(self.work(number, lambda: over))
            end = partial(change, self.controls[0], partial(with_region, name="the-end"))
            await self.stubborn(end)
            await following
        self.judge(await self.controls[0].load())

    def judge(self, last: Map) -> None:
        """No epoch twice, no acknowledged change lost, the watch rose and saw the last map."""
        twice = [epoch for epoch, times in Counter(self.epochs).items() if times > 1]
        assert not twice, twice
        assert self.stored <= {one.name for one in last.regions}
        versions = [one.version for one in self.seen]
        assert versions == sorted(set(versions))
        assert self.seen[-1] == last

    def progress(self) -> Callable[[], Awaitable[None]]:
        """A function that waits until every client has done something more."""

        async def more() -> None:
            before = Counter(self.rounds)
            workers = range(len(self.controls) - 1)
            while any(self.rounds[one] <= before[one] for one in workers):
                await asyncio.sleep(0.005)

        return more


def test_a_killed_keeper_forgets_no_grant_and_no_map(tmp_path: Path) -> None:
    """kill -9 of the process under load, three times: no epoch twice, no stored map lost."""

    async def main() -> None:
        server = Server(tmp_path / "control")
        await asyncio.to_thread(server.start)
        controls: list[Control] = [RemoteControl(server.address) for _ in range(5)]
        try:
            await founded(controls[0])
            load = Load(controls)
            more = load.progress()

            async def strike() -> None:
                for _ in range(3):
                    await more()
                    server.kill()
                    await asyncio.to_thread(server.start)
                await more()

            await load.under(strike)
            assert load.failures > 0, "no client noticed that the keeper was gone"
        finally:
            for control in controls:
                await control.close()
            server.kill()

    run(main)


def test_an_absent_keeper_is_told_with_what_was_asked(tmp_path: Path) -> None:
    """Nobody at the address: each call says what it wanted and of whom; a watch waits."""

    async def main() -> None:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        control = RemoteControl(address, deadline_s=0.5)
        with pytest.raises(Unavailable, match=rf"{address} did not answer load"):
            await control.load()
        with pytest.raises(Unavailable, match="grant_epoch"):
            await control.grant_epoch(1, 1, b"life", 0)
        with pytest.raises(OutcomeUnknown, match="may or may not be stored"):
            await control.update(Map(version=1))

        async def told() -> list[Map]:
            return [one async for one in control.watch()]

        watching = asyncio.create_task(told())
        await asyncio.sleep(0.2)
        assert not watching.done()
        await control.close()
        assert await watching == []

    run(main)


def test_a_hung_keeper_does_not_hold_callers_beyond_their_deadline(tmp_path: Path) -> None:
    """A port that takes connections and says nothing ends calls with Unavailable."""

    async def main() -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        controls: list[Control] = [
            RemoteControl(address, deadline_s=0.3),
            EtcdControl([address], deadline_s=0.3),
        ]
        for control in controls:
            with pytest.raises(Unavailable):
                await control.load()
            await control.close()
        silent.close()

    run(main)


class Forgetful(ControlMethods):
    """Stores the map and loses the answer."""

    async def Update(self, request, context):  # noqa: N802 - gRPC names it
        """Do it, and break off."""
        await super().Update(request, context)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")


def test_a_lost_answer_is_unknown_and_the_step_finds_its_work_done() -> None:
    """An update whose answer is lost is OutcomeUnknown; taking the step again changes nothing."""

    async def main() -> None:
        plane = MemoryControl()
        server = grpc.aio.server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(Forgetful(plane), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        control = RemoteControl(f"127.0.0.1:{port}")
        step = partial(with_region, name="fra")
        with pytest.raises(OutcomeUnknown):
            await change(control, step)
        assert (await change(control, step)).version == 1
        await control.close()
        await server.stop(None)

    run(main)


class Stumbling(ControlMethods):
    """Breaks the first streams in the ways in which streams break."""

    ways = (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, None)
    streams = 0

    async def WatchMap(self, request, context):  # noqa: N802 - gRPC names it
        """One map, then an end that nobody meant."""
        self.streams += 1
        if self.streams > len(self.ways):
            async for answer in super().WatchMap(request, context):
                yield answer
        async for answer in super().WatchMap(request, context):
            yield answer
            code = self.ways[self.streams - 1]
            if code is None:
                raise RuntimeError("a fault of the server")
            await context.abort(code, "a stream was reset")


def test_a_watch_outlives_every_way_in_which_a_stream_breaks() -> None:
    """Resets, refusals for load and faults of the server cost a watch nothing but time."""

    async def main() -> None:
        plane = MemoryControl()
        methods = Stumbling(plane)
        server = grpc.aio.server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(methods, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        control = RemoteControl(f"127.0.0.1:{port}")
        seen = []
        async with aclosing(control.watch()) as maps:  # type: ignore[type-var]
            async for found in maps:
                seen.append(found.version)
                if len(seen) == len(Stumbling.ways) + 2:
                    break
                await change(plane, partial(with_region, name=f"r{found.version}"))
        assert seen == [0, 1, 2, 3, 4]
        assert methods.streams == len(Stumbling.ways) + 1
        await control.close()
        await server.stop(None)
        await plane.close()

    run(main)


class Counting(ControlMethods):
    """Counts the streams that were begun."""

    streams = 0

    async def WatchMap(self, request, context):  # noqa: N802 - gRPC names it
        """As ever."""
        self.streams += 1
        async for answer in super().WatchMap(request, context):
            yield answer


def test_a_silent_watch_begins_anew_and_tells_nothing_twice() -> None:
    """A watch that hears nothing asks again; the same map is no news."""

    async def main() -> None:
        plane = MemoryControl()
        methods = Counting(plane)
        server = grpc.aio.server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(methods, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        control = RemoteControl(f"127.0.0.1:{port}", silence_s_max=0.02)

        told: asyncio.Queue[int] = asyncio.Queue()

        async def follow() -> None:
            async for found in control.watch():
                await told.put(found.version)

        following = asyncio.create_task(follow())
        while methods.streams < 4:
            await asyncio.sleep(0.005)
        await change(plane, partial(with_region, name="fra"))
        assert [await told.get(), await told.get()] == [0, 1]
        assert told.empty()
        await control.close()
        await following
        await server.stop(None)
        await plane.close()

    run(main)


def test_nonsense_on_the_wire_is_refused_and_hurts_nobody() -> None:
    """Documents that are none, or of another format, end INVALID_ARGUMENT; so do other ids."""

    async def main() -> None:
        plane = MemoryControl()
        present = await founded(plane)
        server = grpc.aio.server()
        control_pb2_grpc.add_ControlServiceServicer_to_server(ControlMethods(plane), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            for document in (
                b"",
                b"\x00\xff",
                b"[]",
                b'{"format":1}',
                b'{"format":99,"map":{}}',
                b'{"format":1,"map":{"version":5,"nodes":7}}',
                b'{"format":1,"map":{"version":5,"next_node":2}}',
                b'{"format":1,"map":{"version":"5"}}',
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Update(control_pb2.UpdateRequest(map=document))
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, document
            request = control_pb2.GrantEpochRequest(
                partition=1, node=1, incarnation=b"x" * 100, above=(1 << 64) - 1
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GrantEpoch(request)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await server.stop(None)
        assert await plane.load() == present

    run(main)


def test_a_folder_has_one_keeper(tmp_path: Path) -> None:
    """A second one is refused while the first lives; the map and the epochs come back after it."""

    async def main() -> None:
        control = EmbeddedControl(tmp_path / "control")
        present = await founded(control)
        epoch = await control.grant_epoch(1, 1, b"life", 40)
        with pytest.raises(StoreLocked):
            EmbeddedControl(tmp_path / "control")
        await control.close()
        again = EmbeddedControl(tmp_path / "control")
        assert await again.load() == present
        assert await again.grant_epoch(1, 2, b"other", 0) == epoch + 1
        await again.close()

    run(main)


def test_a_caller_that_gives_up_leaves_nothing_half_done(tmp_path: Path) -> None:
    """An update that is cancelled while it is written counts: memory and disk agree afterwards."""

    async def main() -> None:
        control = EmbeddedControl(tmp_path / "control")
        present = await founded(control)
        for number in range(20):
            storing = asyncio.create_task(control.update(next_map(present, f"r{number}")))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            storing.cancel()
            with suppress(asyncio.CancelledError):
                await storing
            present = await control.load()
        await control.close()
        again = EmbeddedControl(tmp_path / "control")
        assert await again.load() == present
        await again.close()

    run(main)


def test_damage_to_a_keepers_folder_is_noticed(tmp_path: Path) -> None:
    """A store whose files were cut or changed does not open as an empty one."""

    async def main() -> None:
        control = EmbeddedControl(tmp_path / "control")
        await founded(control)
        await control.close()
        manifest = next((tmp_path / "control").glob("MANIFEST-*"))
        manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])
        with pytest.raises(Corruption):
            EmbeddedControl(tmp_path / "control")

    run(main)


# ------------------------------------------------------------------------------------- etcd


@pytest.mark.parametrize(
    "address, means",
    [
        ("etcd://a:1,b:2", EtcdAddress(("a:1", "b:2"), "k2store/", tls=False)),
        ("etcds://[::1]:2379/prod/eu", EtcdAddress(("[::1]:2379",), "prod/eu/", tls=True)),
        ("etcd://a", None),
        ("etcd://", None),
        ("etcd://a:0", None),
        ("etcd://a:1,", None),
        ("k2://a:1", None),
        ("etcd://a:1/\n", None),
    ],
)
def test_addresses_of_etcd(address: str, means: EtcdAddress | None) -> None:
    """An address is taken apart into members and prefix, or refused."""
    if means is None:
        with pytest.raises(Rejected):
            parse_etcd(address)
    else:
        assert parse_etcd(address) == means


@pytest.fixture(params=[3], ids=["three members"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path):
    """Real etcd members of the test's own."""
    with etcd_cluster(tmp_path / "etcd", request.param) as started:
        yield started


def clients(cluster: EtcdCluster, count: int) -> list[Control]:
    """Clients whose first member differs."""
    endpoints = cluster.endpoints
    return [
        EtcdControl(endpoints[one % 3 :] + endpoints[: one % 3], silence_s_max=2, deadline_s=20)
        for one in range(count)
    ]


@pytest.mark.etcd
@pytest.mark.slow
@needs_etcd
def test_etcd_survives_the_loss_of_any_member(cluster: EtcdCluster) -> None:
    """kill -9 of the leader, then of each member in turn, under load: nothing is lost or doubled."""

    async def main() -> None:
        controls = clients(cluster, 5)
        await founded(controls[0])
        load = Load(controls)
        more = load.progress()

        async def strike() -> None:
            await more()
            leader = await asyncio.to_thread(cluster.leader)
            for member in (leader, *range(3)):
                cluster.kill(member)
                await more()
                cluster.start(member)
                await asyncio.to_thread(cluster.wait_healthy, member)
            await more()

        await load.under(strike)
        for control in controls:
            await control.close()

    run(main)


@pytest.mark.etcd
@pytest.mark.slow
@needs_etcd
def test_a_hung_member_of_etcd_is_left_for_another(cluster: EtcdCluster) -> None:
    """A stopped member, the leader even, holds calls no longer than one attempt, and no watch."""

    async def main() -> None:
        controls = clients(cluster, 4)
        await founded(controls[0])
        load = Load(controls)
        more = load.progress()

        async def strike() -> None:
            await more()
            leader = await asyncio.to_thread(cluster.leader)
            for member in (leader, (leader + 1) % 3):
                cluster.pause(member)
                await more()
                cluster.resume(member)
                await more()

        await load.under(strike)
        for control in controls:
            await control.close()

    run(main)


@pytest.mark.etcd
@pytest.mark.slow
@needs_etcd
def test_etcd_without_a_majority_is_unavailable_and_comes_back(cluster: EtcdCluster) -> None:
    """One member of three answers nothing, not even reads that could be old, until others return."""

    async def main() -> None:
        control = EtcdControl(cluster.endpoints, deadline_s=3)
        present = await founded(control)
        cluster.kill(0)
        cluster.kill(1)
        for call in (
            control.load,
            partial(control.grant_epoch, 1, 1, b"life", 0),
            partial(control.update, next_map(present, "x")),
        ):
            with pytest.raises((Unavailable, OutcomeUnknown), match="etcd at"):
                await call()
        cluster.start(0)
        await asyncio.to_thread(cluster.wait_healthy, 0)
        patient = EtcdControl(cluster.endpoints, deadline_s=20)
        assert (await patient.load()).version in {present.version, present.version + 1}
        assert await patient.grant_epoch(1, 1, b"life", 0) >= 1
        await control.close()
        await patient.close()

    run(main)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory):
    """One member, for what needs no more."""
    with etcd_cluster(tmp_path_factory.mktemp("single"), 1) as started:
        yield started


class Interrupted(EtcdControl):
    """Loses the answer of its next transaction that writes."""

    losses = 0
    followed_by: Control | None = None

    async def _transact(self, unchanged, put) -> bool:
        stored = await super()._transact(unchanged, put)
        if self.losses:
            self.losses -= 1
            if self.followed_by is not None:
                await change(self.followed_by, partial(with_region, name="other"))
            raise etcd_module._MemberFailed("the connection was lost")
        return stored


@pytest.mark.etcd
@needs_etcd
def test_an_update_of_etcd_whose_answer_is_lost_is_found_again(single: EtcdCluster) -> None:
    """The client looks: its own map is success; one that came after leaves the outcome unknown."""

    async def main() -> None:
        other = EtcdControl(single.endpoints, prefix="lost/")
        control = Interrupted(single.endpoints, prefix="lost/")
        present = await founded(other)
        control.losses = 1
        wanted = next_map(present, "mine")
        await control.update(wanted)
        assert await other.load() == wanted
        control.losses = 1
        control.followed_by = other
        with pytest.raises(OutcomeUnknown, match="not known"):
            await control.update(next_map(wanted, "mine too"))
        control.losses = 1
        control.followed_by = None
        first = await control.grant_epoch(1, 1, b"life", 0)
        assert first == 2, "the epoch whose answer was lost is nobody's"
        await control.close()
        await other.close()

    run(main)


@pytest.mark.etcd
@needs_etcd
def test_damage_in_etcd_is_told_and_a_compacted_watch_goes_on(single: EtcdCluster) -> None:
    """A key that somebody overwrote is Corruption; compaction costs a watch nothing."""

    def etcdctl(*words: str) -> str:
        done = subprocess.run(
            ["etcdctl", "--endpoints", single.endpoints[0], *words],
            capture_output=True,
            check=True,
            text=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )
        return done.stdout

    async def main() -> None:
        control = EtcdControl(single.endpoints, prefix="damaged/", silence_s_max=0.1)
        present = await founded(control)
        async with aclosing(control.watch()) as maps:  # type: ignore[type-var]
            assert await anext(maps) == present
            for number in range(3):
                present = await change(control, partial(with_region, name=f"c{number}"))
            revision = str(
                int(etcdctl("get", "-w", "fields", "x").split('"Revision" : ')[1].split()[0])
            )
            etcdctl("compact", revision)
            while (found := await anext(maps)) != present:
                assert found.version < present.version
            present = await change(control, partial(with_region, name="after"))
            assert await anext(maps) == present
        etcdctl("put", "damaged/epoch/0000000001", "seven")
        with pytest.raises(Corruption, match="holds no epoch"):
            await control.grant_epoch(1, 1, b"life", 0)
        etcdctl("put", "damaged/map", "{}")
        with pytest.raises(Corruption, match="cannot be read"):
            await control.load()
        await control.close()

    run(main)


@pytest.mark.etcd
@needs_etcd
def test_etcd_is_reached_over_mutual_tls(tmp_path: Path) -> None:
    """`etcds://` shows the node's certificate; a client without one gets no answer."""
    authority = Authority(tmp_path, "authority")
    member, node = authority.issue("member"), authority.issue("node")
    values = {
        "client.deadline": "10s",
        "tls.certificate": node.certificate,
        "tls.key": node.key,
        "tls.authority": authority.file,
    }

    async def main() -> None:
        with etcd_cluster(tmp_path / "etcd", 1, certified=(*member, authority.file)) as cluster:
            address = cluster.endpoints[0]
            named = load(env={}, overrides=values | {"cluster.control": f"etcds://{address}"})
            control = node_control(named.settings)
            present = await founded(control)
            assert await control.load() == present
            plain = EtcdControl([address], deadline_s=0.5)
            with pytest.raises(Unavailable):
                await plain.load()
            bare = grpc.ssl_channel_credentials(Path(authority.file).read_bytes())
            stranger = EtcdControl([address], credentials=bare, deadline_s=0.5)
            with pytest.raises(Unavailable):
                await stranger.load()
            for one in (control, plain, stranger):
                await one.close()

    run(main)
