"""One contract for every control plane: what callers may rely on, whichever they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from k2store.control import Control, Map, MapChanged, NodeInfo, change, join, with_region
from k2store.control.embedded import EmbeddedControl
from k2store.control.etcd import EtcdControl
from k2store.control.remote import RemoteControl
from k2store.errors import Rejected, Unavailable
from k2store.testing.control import MemoryControl, MemoryPlane
from tests.contract.control_planes import Open, founded, next_map
from tests.contract.control_server import served
from tests.contract.etcd_cluster import etcd_cluster, installed


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One etcd of one member; every test has a prefix of its own."""
    with etcd_cluster(tmp_path_factory.mktemp("etcd"), 1) as cluster:
        yield cluster.endpoints


@asynccontextmanager
async def memory(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Open]:
    """The one for tests."""
    plane = MemoryPlane()
    yield lambda: MemoryControl(plane)


@asynccontextmanager
async def embedded(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Open]:
    """RocksDB in this process: every handle is the one object."""
    control = EmbeddedControl(folder / "control")
    yield lambda: control


@asynccontextmanager
async def remote(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Open]:
    """The same behind a real gRPC port."""
    async with served(folder / "control") as address:
        yield lambda: RemoteControl(address)


@asynccontextmanager
async def in_etcd(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Open]:
    """A real etcd."""
    endpoints = request.getfixturevalue("etcd")
    yield lambda: EtcdControl(endpoints, prefix=f"{folder}/", deadline_s=20)


PLANES = {"memory": memory, "embedded": embedded, "remote": remote, "etcd": in_etcd}
NEEDS_ETCD = [
    pytest.mark.etcd,
    pytest.mark.skipif(not installed(), reason="etcd is not installed"),
]
KINDS = [pytest.param(name, marks=NEEDS_ETCD if name == "etcd" else []) for name in PLANES]


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest, tmp_path: Path):
    """A context in which handles on a fresh control plane can be opened and are closed after."""
    if request.param == "etcd":
        request.getfixturevalue("etcd")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Open]:
        async with PLANES[request.param](request, tmp_path) as open_one, AsyncExitStack() as stack:

            def open_and_close() -> Control:
                control = open_one()
                stack.push_async_callback(control.close)
                return control

            yield open_and_close

    return opened


def test_it_begins_empty_and_keeps_what_is_stored(plane) -> None:
    """Version 0 is empty; a stored map is what every handle loads."""

    async def main() -> None:
        async with plane() as open_one:
            first, second = open_one(), open_one()
            assert await first.load() == Map()
            wanted = await founded(first)
            assert await second.load() == wanted
            assert wanted.version == 4

    asyncio.run(main())


def test_an_update_must_follow_the_present_map(plane) -> None:
    """Any version but the next is MapChanged; a map that contradicts itself is Rejected."""

    async def main() -> None:
        async with plane() as open_one:
            control = open_one()
            present = await founded(control)
            for version in (0, present.version, present.version + 2):
                with pytest.raises(MapChanged):
                    await control.update(replace(next_map(present, "x"), version=version))
            for broken in (
                replace(next_map(present, "x"), partitions=()),
                replace(next_map(present, "x"), next_node=2),
                replace(next_map(present, "fra")),
            ):
                with pytest.raises(Rejected):
                    await control.update(broken)
            assert await control.load() == present

    asyncio.run(main())


def test_of_concurrent_updates_exactly_one_wins(plane) -> None:
    """Ten handles store ten different successors at once: one stands, nine hear MapChanged."""

    async def main() -> None:
        async with plane() as open_one:
            controls = [open_one() for _ in range(10)]
            present = await founded(controls[0])
            for turn in range(3):
                results = await asyncio.gather(
                    *(
                        control.update(next_map(present, f"r{turn}-{number}"))
                        for number, control in enumerate(controls)
                    ),
                    return_exceptions=True,
                )
                winners = [number for number, result in enumerate(results) if result is None]
                assert len(winners) == 1, results
                assert all(isinstance(one, MapChanged) for one in results if one is not None)
                present = await controls[0].load()
                assert present.regions[-1].name == f"r{turn}-{winners[0]}"

    asyncio.run(main())


def test_concurrent_changes_all_take_effect(plane) -> None:
    """Steps that collide are taken again on the map of the winner, so none is lost."""

    async def main() -> None:
        async with plane() as open_one:
            controls = [open_one() for _ in range(5)]
            await founded(controls[0])

            async def add(number: int) -> None:
                await change(controls[number], lambda present: with_region(present, f"r{number}"))

            await asyncio.gather(*(add(number) for number in range(5)))
            present = await controls[0].load()
            assert {one.name for one in present.regions} >= {f"r{number}" for number in range(5)}
            assert present.version == 4 + 5

    asyncio.run(main())


def test_nodes_that_join_at_once_get_ids_of_their_own(plane) -> None:
    """Joining is idempotent for a name and a disk, and no two nodes share an id."""

    async def main() -> None:
        async with plane() as open_one:
            controls = [open_one() for _ in range(6)]

            async def enter(number: int) -> NodeInfo:
                disk = f"disk-{number}".encode()
                return await join(controls[number], f"n{number}", "fra", f"h{number}:1", disk)

            first = await asyncio.gather(*(enter(number) for number in range(6)))
            assert sorted(one.id for one in first) == [1, 2, 3, 4, 5, 6]
            version = (await controls[0].load()).version
            assert await asyncio.gather(*(enter(number) for number in range(6))) == first
            assert (await controls[0].load()).version == version
            again = await join(controls[0], "n1", "fra", "h1:1", b"another disk")
            assert again.id == 7

    asyncio.run(main())


def test_no_epoch_is_granted_twice(plane) -> None:
    """Forty grants at once over five handles: all differ, and each handle's own ones rise."""

    async def main() -> None:
        async with plane() as open_one:
            controls = [open_one() for _ in range(5)]
            await founded(controls[0])

            async def ask(number: int) -> list[int]:
                life = b"life-%d" % number
                return [
                    await controls[number].grant_epoch(1, 1 + number % 3, life, 0) for _ in range(8)
                ]

            asked = await asyncio.gather(*(ask(number) for number in range(5)))
            granted = [epoch for epochs in asked for epoch in epochs]
            assert len(set(granted)) == 40
            assert min(granted) >= 1
            for epochs in asked:
                assert epochs == sorted(epochs)

    asyncio.run(main())


def test_epochs_lie_above_what_is_asked_and_belong_to_a_partition(plane) -> None:
    """`above` is a floor; partitions count apart; what the map does not know gets none."""

    async def main() -> None:
        async with plane() as open_one:
            control = open_one()
            await founded(control)
            one = await control.grant_epoch(1, 1, b"life", 0)
            far = await control.grant_epoch(1, 2, b"life", one + 1000)
            assert far > one + 1000
            assert await control.grant_epoch(1, 1, b"life", 0) > far
            assert await control.grant_epoch(2, 1, b"life", 0) < far
            for partition, node, life, above in (
                (9, 1, b"life", 0),
                (1, 9, b"life", 0),
                (1, 1, b"", 0),
                (1, 1, b"life", -1),
            ):
                with pytest.raises(Rejected):
                    await control.grant_epoch(partition, node, life, above)
            await change(control, lambda present: with_region(present, "fra", off=True))
            with pytest.raises(Rejected, match="off"):
                await control.grant_epoch(1, 1, b"life", 0)
            assert await control.grant_epoch(1, 3, b"life", 0) > far

    asyncio.run(main())


def test_a_watch_begins_with_the_present_and_ends_with_the_last(plane) -> None:
    """Watches see only rising versions, and what was stored last, whatever they skip."""

    async def main() -> None:
        async with plane() as open_one:
            writer, watcher = open_one(), open_one()
            present = await founded(writer)
            last = present.version + 20
            seen: list[Map] = []

            async def follow() -> None:
                async for found in watcher.watch():
                    seen.append(found)
                    if found.version == last:
                        return

            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(follow())
                while not seen:
                    await asyncio.sleep(0.001)
                for number in range(20):
                    await change(writer, partial(with_region, name=f"w{number}"))
            versions = [one.version for one in seen]
            assert versions[0] == present.version
            assert versions == sorted(set(versions))
            assert seen[-1] == await writer.load()

    asyncio.run(main())


def test_a_watch_of_an_empty_plane_waits_for_the_first_map(plane) -> None:
    """Version 0 is told too, so that who waits for members knows that there are none."""

    async def main() -> None:
        async with plane() as open_one:
            control = open_one()
            watch = control.watch()
            async with asyncio.timeout(30):
                assert await anext(watch) == Map()
                node = await join(control, "n1", "fra", "h1:1", b"disk")
                assert (await anext(watch)).nodes == (node,)
            await watch.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "plane", [one for one in KINDS if one.values != ("embedded",)], indirect=True
)
def test_a_closed_handle_ends_its_watches_and_answers_nothing(plane) -> None:
    """After close, calls raise Unavailable, and who watches is let go; other handles go on."""

    async def main() -> None:
        async with plane() as open_one:
            control, other = open_one(), open_one()
            await founded(control)

            async def follow() -> int:
                return len([one async for one in control.watch()])

            watching = asyncio.create_task(follow())
            await asyncio.sleep(0.05)
            await control.close()
            async with asyncio.timeout(10):
                assert await watching <= 1
            with pytest.raises(Unavailable):
                await control.load()
            with pytest.raises(Unavailable):
                await control.grant_epoch(1, 1, b"life", 0)
            assert (await other.load()).version == 4

    asyncio.run(main())


@pytest.mark.parametrize(
    "plane", [one for one in KINDS if one.values != ("embedded",)], indirect=True
)
def test_a_handle_can_be_closed_at_any_moment(plane) -> None:
    """While it connects, loads or begins to watch: the watcher is let go, and nothing breaks."""

    async def main() -> None:
        async with plane() as open_one:
            present = await founded(open_one())
            for moment in range(80):
                control = open_one()

                async def follow(control: Control = control) -> list[Map]:
                    return [one async for one in control.watch()]

                watching = asyncio.create_task(follow())
                for _ in range(moment % 20):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.0005 * (moment // 20))
                await control.close()
                async with asyncio.timeout(10):
                    assert await watching in ([], [present])

    asyncio.run(main())
