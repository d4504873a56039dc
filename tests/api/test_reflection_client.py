"""A client that knows nothing but gRPC reflection uses the store: no generated code of ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.rpc_node import running_node

STORE = "k2store.v1.StoreService"


class GenericClient:
    """What a generic tool builds from reflection: a pool of its own, messages, calls by name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        # The type hints of this stub know no asynchronous channels.
        stub: Any = reflection_pb2_grpc.ServerReflectionStub
        self._reflection = stub(channel)
        self._pool = descriptor_pool.DescriptorPool()
        self._known: dict[str, Any] = {}

    async def _ask(self, **question: Any) -> Any:
        async def requests() -> Any:
            yield reflection_pb2.ServerReflectionRequest(**question)

        call = self._reflection.ServerReflectionInfo(requests())
        async for answer in call:
            return answer
        raise AssertionError("reflection answered nothing")

    async def services(self) -> list[str]:
        """The names of all services on the port."""
        answer = await self._ask(list_services="")
        return sorted(one.name for one in answer.list_services_response.service)

    async def learn(self, symbol: str) -> None:
        """Fetch the file that defines a symbol, and the files it imports."""
        self._add(await self._ask(file_containing_symbol=symbol))
        while missing := self._missing():
            self._add(await self._ask(file_by_filename=missing))
        for file in self._ordered():
            self._pool.Add(file)

    def call(self, service: str, method: str, **fields: object) -> Any:
        """Call a method by name with a request of these fields."""
        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        request = message_factory.GetMessageClass(found.input_type)(**fields)
        answer = message_factory.GetMessageClass(found.output_type)
        kind = "unary_stream" if found.server_streaming else "unary_unary"
        stub = getattr(self._channel, kind)(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return stub(request)

    def _add(self, answer: Any) -> None:
        for content in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(content)
            self._known[file.name] = file

    def _missing(self) -> str | None:
        wanted = {name for file in self._known.values() for name in file.dependency}
        return min(wanted - self._known.keys(), default=None)

    def _ordered(self) -> list[Any]:
        done: dict[str, Any] = {}

        def visit(name: str) -> None:
            if name not in done:
                for needed in self._known[name].dependency:
                    visit(needed)
                done[name] = self._known[name]

        for name in self._known:
            visit(name)
        return list(done.values())


def test_a_generic_client_puts_gets_and_watches(tmp_path: Path) -> None:
    """Built from reflection alone, a client writes, reads, scans and receives the commits."""

    async def run() -> None:
        async with (
            asyncio.timeout(20),
            running_node(tmp_path) as node,
            grpc.aio.insecure_channel(node.address) as channel,
        ):
            client = GenericClient(channel)
            assert {STORE, "k2store.v1.AdminService", "grpc.health.v1.Health"} <= set(
                await client.services()
            )
            await client.learn(STORE)
            first = await client.call(STORE, "Put", key=b"model/a", value=b"1")
            watch = client.call(STORE, "Watch", start=b"model/", end=b"model0", since=first.at - 1)
            second = await client.call(STORE, "Put", key=b"model/b", value=b"2")
            await client.call(STORE, "Put", key=b"other", value=b"3")
            third = await client.call(STORE, "Delete", key=b"model/a")

            got = await client.call(STORE, "Get", key=b"model/b")
            assert (got.found, got.value, got.version) == (True, b"2", second.at)
            page = await client.call(STORE, "Scan")
            assert [row.key for row in page.rows] == [b"model/b", b"other"]

            commits: list[tuple[int, list[tuple[bytes, bytes, bool]]]] = []
            resolved = 0
            async for event in watch:
                assert event.at > resolved, "nothing comes behind a mark"
                if event.resolved:
                    resolved = event.at
                    if resolved >= third.at:
                        break
                else:
                    changes = [(one.key, one.value, one.deleted) for one in event.changes]
                    commits.append((event.at, changes))
            assert commits == [
                (first.at, [(b"model/a", b"1", False)]),
                (second.at, [(b"model/b", b"2", False)]),
                (third.at, [(b"model/a", b"", True)]),
            ]
            watch.cancel()

    asyncio.run(run())


def test_a_watch_behind_the_horizon_says_where_to_begin(tmp_path: Path) -> None:
    """Watching from before history fails with OUT_OF_RANGE, in words and details."""

    async def run() -> None:
        async with (
            asyncio.timeout(20),
            running_node(tmp_path) as node,
            grpc.aio.insecure_channel(node.address) as channel,
        ):
            client = GenericClient(channel)
            await client.learn(STORE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in client.call(STORE, "Watch", since=1):
                    pass
            assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE

    asyncio.run(run())


def test_reflection_can_be_turned_off(tmp_path: Path) -> None:
    """With `node.reflection = false` the service is not there, and the store still is."""

    async def run() -> None:
        async with (
            running_node(tmp_path, node__reflection=False) as node,
            grpc.aio.insecure_channel(node.address) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await GenericClient(channel).services()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())
