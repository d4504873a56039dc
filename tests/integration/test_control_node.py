"""The control plane that a node keeps on its own port: who may ask, and what survives the node."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from msgspec.structs import replace

import k2store
from k2store.config import Settings, load
from k2store.control import Keyspace, Map, change, join, with_keyspaces, with_region
from k2store.control.embedded import EmbeddedControl
from k2store.control.opening import advertised, node_control, operator_control
from k2store.control.remote import RemoteControl
from k2store.errors import Corruption, Deadline, OutcomeUnknown, Rejected, Unavailable
from k2store.node.cluster.agent import Agent
from k2store.node.cluster.host import ClusterHost
from k2store.node.process import NodeProcess
from k2store.rpc import certificates
from k2store.storage import StorageFailed
from k2store.testing.control import MemoryControl
from tests.integration.rpc_node import Authority, keeper, running_node

LOCAL = Keyspace("default", b"", "zone", "local")
READER, OPERATOR = "reader-secret-1", "operator-secret-3"


def said(**values: object) -> Settings:
    """Settings with two underscores for the dot."""
    overrides = {name.replace("__", ".", 1): value for name, value in values.items()}
    return load(env={}, overrides=overrides).settings


async def history(db: k2store.Database) -> list[bytes | None]:
    """The values that a key has had."""
    return [one.value for one in await db.history(b"k")]


async def rows(db: k2store.Database) -> list[bytes]:
    """The keys of a scan."""
    async with db.snapshot(strong=True) as view:
        return [one.key async for one in view.scan(k2store.prefix(b""))]


def test_a_node_keeps_the_map_beside_its_store(tmp_path: Path) -> None:
    """Map and epochs survive the node; the store on the same port works as ever."""

    async def main() -> None:
        async with keeper(tmp_path) as node:
            control = RemoteControl(node.address)
            first = await change(control, lambda present: with_keyspaces(present, [LOCAL]))
            async with k2store.connect(f"k2://{node.address}") as db:
                await db.put(b"k", b"v")
            epoch = await control.grant_epoch(1, 1, b"another life", 0)
            await control.close()
        async with keeper(tmp_path) as node:
            control = RemoteControl(node.address)
            again = await control.load()
            assert again.partitions == first.partitions
            assert again.keyspaces == first.keyspaces
            # What has changed is that the folder was started once more.
            (before,), (node_now,) = first.nodes, again.nodes
            assert (node_now.id, node_now.disk) == (before.id, before.disk)
            assert node_now.starts == before.starts + 1
            assert await control.grant_epoch(1, 1, b"another life", 0) > epoch
            async with k2store.connect(f"k2://{node.address}") as db:
                assert await db.get(b"k") == b"v"
            await control.close()

    asyncio.run(main())


def test_a_member_without_partitions_fails_calls_and_goes_on(tmp_path: Path) -> None:
    """Before there are keyspaces every call ends typed and in time; then the same node serves."""

    async def main() -> None:
        async with keeper(tmp_path) as node:
            async with k2store.connect(f"k2://{node.address}", timeout=0.5) as db:
                calls = (
                    lambda: db.get(b"k"),
                    lambda: db.put(b"k", b"v"),
                    lambda: history(db),
                    lambda: rows(db),
                )
                for call in calls:
                    with pytest.raises((Unavailable, Deadline, OutcomeUnknown)):
                        await call()
            control = RemoteControl(node.address)
            await change(control, lambda present: with_keyspaces(present, [LOCAL]))
            await control.close()
            async with k2store.connect(f"k2://{node.address}") as db:
                await db.put(b"k", b"v")
                assert await history(db) == [b"v"]
                assert await rows(db) == [b"k"]

    asyncio.run(main())


def test_a_node_refuses_a_control_plane_that_has_forgotten(tmp_path: Path) -> None:
    """A keeper whose folder was lost would give ids and epochs again: the node says so and ends."""

    async def main() -> None:
        async with keeper(tmp_path):
            pass
        shutil.rmtree(tmp_path / "data" / "control")
        with pytest.raises(Corruption, match="has lost its data"):
            async with keeper(tmp_path):
                pass

    asyncio.run(main())


def test_a_disk_that_was_replaced_does_not_come_back(tmp_path: Path) -> None:
    """Once another disk has taken the name, the old folder is refused, and takes nothing back."""

    async def main() -> None:
        async with keeper(tmp_path) as node:
            control = RemoteControl(node.address)
            (old,) = (await control.load()).nodes
            new = await join(control, old.name, old.region, "elsewhere:1", b"another disk")
            await control.close()
        with pytest.raises(Rejected, match="whose place another disk"):
            async with keeper(tmp_path):
                pass
        forgotten = EmbeddedControl(tmp_path / "data" / "control")
        assert (await forgotten.load()).nodes == (new,)
        await forgotten.close()

    asyncio.run(main())


def test_a_map_that_cannot_be_followed_is_told_and_followed_again() -> None:
    """What ends a watch for good (a revoked token, damage) is told, and tried again after a while."""

    class Troubled(MemoryControl):
        """Its first watch fails."""

        watches = 0

        async def watch(self) -> AsyncIterator[Map]:
            self.watches += 1
            if self.watches == 1:
                raise Rejected("the token is not known here", field="token")
            async for found in super().watch():
                yield found

    class Host:
        """What an agent needs of a host."""

        map: Map | None = None

        def set_map(self, present: Map) -> None:
            self.map = present

    async def main() -> None:
        control, host, told = Troubled(), Host(), []
        agent = Agent(control, cast(ClusterHost, host), trouble=told.append)
        agent.start()
        async with asyncio.timeout(20):
            while host.map is None:
                await asyncio.sleep(0.01)
        assert told == ["the token is not known here"]
        agent.stop()

    asyncio.run(main())


@pytest.mark.parametrize("error", [OSError(27, "File too large"), StorageFailed("no room")])
def test_a_map_that_the_disk_refuses_ends_the_node(error: Exception) -> None:
    """Following on without it, or not at all, would leave a node that looks alive and is not."""

    class Host:
        """What an agent needs of a host and its engine."""

        def __init__(self) -> None:
            self.engine = self
            self.failed = asyncio.Event()
            self.why: BaseException | None = None

        def set_map(self, present: Map) -> None:
            raise AssertionError(present)

        def fail(self, error: BaseException) -> None:
            self.why = error
            self.failed.set()

    async def main() -> None:
        def refuse(present: Map) -> None:
            raise error

        host = Host()
        agent = Agent(MemoryControl(), cast(ClusterHost, host), keep=refuse)
        agent.start()
        async with asyncio.timeout(20):
            await host.failed.wait()
        assert host.why is error
        agent.stop()

    asyncio.run(main())


def test_a_node_that_keeps_none_says_so(tmp_path: Path) -> None:
    """Asking the wrong node is Rejected, at once and by name; watching it too."""

    async def main() -> None:
        async with running_node(tmp_path) as node:
            control = RemoteControl(node.address)
            with pytest.raises(Rejected, match=f"{node.address} keeps no control plane"):
                await control.load()
            with pytest.raises(Rejected, match="keeps no control plane"):
                await anext(control.watch())
            await control.close()

    asyncio.run(main())


def test_readers_may_look_and_only_operators_change(tmp_path: Path) -> None:
    """With tokens: reading and watching need READ; changing and epochs need ADMIN."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{READER} router read\n{OPERATOR} operator read,write,admin\n")

    async def main() -> None:
        authority = Authority(tmp_path, "authority")
        certified = authority.settings("node")
        credentials = authority.credentials("client")
        async with keeper(tmp_path, auth__tokens=str(tokens), **certified) as node:
            reader = RemoteControl(node.address, credentials=credentials, token=READER)
            operator = RemoteControl(node.address, credentials=credentials, token=OPERATOR)
            nobody = RemoteControl(node.address, credentials=credentials)
            present = await anext(reader.watch())
            wanted = replace(present, version=present.version + 1)
            with pytest.raises(Rejected, match="lacks the permission admin"):
                await reader.update(wanted)
            with pytest.raises(Rejected, match="lacks the permission admin"):
                await reader.grant_epoch(1, 1, b"life", 0)
            with pytest.raises(Rejected, match="bearer token"):
                await nobody.load()
            with pytest.raises(Rejected, match="bearer token"):
                await anext(nobody.watch())
            await change(operator, lambda present: with_region(present, "fra"))
            assert (await reader.load()).version == present.version + 1
            for control in (reader, operator, nobody):
                await control.close()

    asyncio.run(main())


def test_nodes_and_operators_reach_it_over_mutual_tls(tmp_path: Path) -> None:
    """A node shows the certificate of `[tls]`, a command that of `[client]`; others get nowhere."""
    authority = Authority(tmp_path, "authority")
    client = authority.issue("client")
    tls = authority.settings("server")

    async def main() -> None:
        async with keeper(tmp_path, **tls) as node:
            address = f"k2://{node.address}"
            member = node_control(said(cluster__control=address, **tls))
            command = operator_control(
                said(
                    client__authority=authority.file,
                    client__certificate=client.certificate,
                    client__key=client.key,
                ),
                address,
            )
            plain = operator_control(said(client__deadline="500ms"), address)
            before = await member.load()
            await change(command, lambda present: with_region(present, "fra"))
            assert (await member.load()).version == before.version + 1
            with pytest.raises(Unavailable):
                await plain.load()
            for control in (member, command, plain):
                await control.close()

    asyncio.run(main())


def test_an_epoch_is_granted_to_the_node_itself(tmp_path: Path) -> None:
    """With certificates nobody asks in another's name: neither a client nor another node."""
    authority = certificates.Authority(tmp_path / "certificates")
    files = {
        "node-1": authority.node("node-1", ["localhost"]),
        "node-2": authority.node("node-2", ["localhost"]),
        "client": authority.client("client"),
    }
    root = authority.certificate

    def credentials(name: str) -> grpc.ChannelCredentials:
        pair = files[name]
        return grpc.ssl_channel_credentials(
            root.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
        )

    async def main() -> None:
        async with keeper(
            tmp_path,
            tls__certificate=str(files["node-1"].certificate),
            tls__key=str(files["node-1"].key),
            tls__authority=str(root),
        ) as node:
            opened = {
                name: RemoteControl(node.address, credentials=credentials(name)) for name in files
            }
            await change(opened["client"], lambda present: with_keyspaces(present, [LOCAL]))
            assert await opened["node-1"].grant_epoch(1, 1, b"life", 0) > 0
            for name, asked in (("client", 1), ("node-2", 1), ("node-1", 2), ("node-2", 2)):
                with pytest.raises(Rejected, match="to the node itself"):
                    await opened[name].grant_epoch(1, asked, b"life", 0)
            for control in opened.values():
                await control.close()

    asyncio.run(main())


def test_its_health_is_told(tmp_path: Path) -> None:
    """Probes see the service of the node that keeps it, and of no other."""

    async def asked(node: NodeProcess) -> object:
        async with grpc.aio.insecure_channel(node.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            request = health_pb2.HealthCheckRequest(service="k2store.v1.ControlService")
            try:
                return (await check(request)).status
            except grpc.aio.AioRpcError as failure:
                return failure.code()

    async def main() -> None:
        async with keeper(tmp_path / "one") as node:
            assert await asked(node) == health_pb2.HealthCheckResponse.SERVING
        async with running_node(tmp_path / "two") as node:
            assert await asked(node) is grpc.StatusCode.NOT_FOUND

    asyncio.run(main())


@pytest.mark.parametrize(
    "values, says",
    [
        ({}, "this node is alone"),
        ({"cluster__control": "k2://a:1,b:2"}, "one keeps the control plane"),
        ({"cluster__control": "zk://a:1"}, "is not an address"),
        ({"cluster__control": "etcd://a"}, "is not host:port"),
        (
            {"cluster__control": "k2://a:1", "tls__certificate": "/none", "tls__key": "/none"},
            "read",
        ),
    ],
)
def test_settings_that_name_no_control_plane_are_refused(
    values: dict[str, object], says: str
) -> None:
    """What cannot work is told before anything is asked."""

    async def main() -> None:
        node_control(said(**values))

    with pytest.raises(Rejected, match=says):
        asyncio.run(main())


def test_a_node_names_an_address_that_others_can_reach() -> None:
    """What is told, else where it listens, but not every address of the machine."""
    assert advertised(said(), "10.0.0.7:7400") == "10.0.0.7:7400"
    assert advertised(said(cluster__advertise="fra-1:1"), "0.0.0.0:7400") == "fra-1:1"
    for everywhere in ("0.0.0.0:7400", "[::]:7400", ":7400"):
        with pytest.raises(Rejected, match=r"cluster\.advertise"):
            advertised(said(), everywhere)
