"""Three regions of real nodes with an emulated network between them: what goes on where, when regions
are cut off, die, and come back. One cluster for all tests, each of which leaves it whole."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random

import pytest

import k2store
from jepsen_like.kill.observed import Findings, Observed
from k2store.testing.child import K2
from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.v1 import admin_pb2

REGIONS = ("fra", "iad", "sin")
KEYSPACES = ("default:zone:fra", "sin:zone:sin", "all:region:fra")
SPLITS = ("bank/4", "register/2", "all/o/bank/4", "all/o/register/2")
WAIT_S = 60.0
LONG = "30s"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node a region, 45 to 110 ms apart one way; keyspaces of every kind."""
    path = tmp_path_factory.mktemp("regions")
    with local_cluster(REGIONS, tls=False, path=path, keyspaces=KEYSPACES) as made:
        for key in SPLITS:
            k2(made, "split", key)
        until("there is a leader for every partition", lambda: len(leads(made)) == 9)
        yield made


def k2(cluster: LocalCluster, *words: str) -> dict:
    """Run a verb that asks the control plane."""
    control = cluster.node("fra-1").seat.address
    done = subprocess.run(
        [*K2, "--config", str(cluster.client_config()), *words, "--control", control, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until(what: str, holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, f"it never held that {what}"
        time.sleep(0.05)


def statuses(cluster: LocalCluster) -> dict[str, admin_pb2.GetStatusResponse]:
    """What the nodes that answer say of themselves, by name."""
    return {look.node.name: look.status for look in cluster.look() if look.status is not None}


def leads(cluster: LocalCluster) -> dict[int, str]:
    """Who leads each partition."""
    return {
        one.partition: name
        for name, status in statuses(cluster).items()
        for one in status.partitions
        if one.replica.role == admin_pb2.REPLICA_ROLE_LEADER
    }


async def value(db: k2store.Database, key: bytes) -> tuple[bytes | None, float]:
    """What a view that waits for nothing shows, and how old it admits to be, seconds."""
    async with db.snapshot(max_staleness="1h") as view:
        return await view.get(key), view.staleness_s


async def shown(db: k2store.Database, key: bytes, wanted: bytes) -> None:
    """Return when views that wait for nothing show a value."""
    async with asyncio.timeout(WAIT_S):
        while (await value(db, key))[0] != wanted:
            await asyncio.sleep(0.02)


async def answers(ask: Callable[[], Awaitable[object]]) -> object:
    """Ask until there is an answer."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await ask()
            except (k2store.Unavailable, k2store.Deadline, k2store.OutcomeUnknown):
                await asyncio.sleep(0.05)


def test_a_home_that_is_cut_off(cluster: LocalCluster) -> None:
    """It goes on serving its own region; elsewhere stale reads go on and say how old they are, keys
    of other homes are written, and its own keys are refused, never accepted twice."""

    async def main() -> None:
        async with (
            cluster.connect("fra", timeout=LONG) as home,
            cluster.connect("sin", timeout=LONG) as away,
        ):
            await home.put(b"cut", b"before")
            await shown(away, b"cut", b"before")
            began_s = time.monotonic()
            cluster.wan.isolate("fra")
            try:
                for number in range(20):
                    await home.put(b"cut", b"%d" % number)
                    assert await home.get(b"cut") == b"%d" % number
                await asyncio.sleep(2)
                # What was under way may still have arrived; what was written since has not.
                cut_s = time.monotonic() - began_s
                found, age_s = await value(away, b"cut")
                assert found in (b"before", b"0")
                assert age_s >= cut_s - 0.5
                _, age_s = await value(away, b"cut")  # the first has told how far it is now
                await asyncio.sleep(0.1)
                later, older_s = await value(away, b"cut")
                assert (later, older_s > age_s) == (found, True)
                await away.put(b"sin/own", b"goes on")
                with pytest.raises((k2store.Unavailable, k2store.OutcomeUnknown, k2store.Deadline)):
                    await away.put(b"cut", b"from elsewhere", timeout="1s")
            finally:
                cluster.wan.heal()
            last = await answers(lambda: home.put(b"cut", b"after"))
            assert isinstance(last, int)
            async with away.snapshot(since=last, timeout=LONG) as view:
                assert await view.get(b"cut") == b"after"
                assert view.at >= last

    asyncio.run(main())


def test_a_region_that_is_cut_off_holds_nobody_up(cluster: LocalCluster) -> None:
    """Its transactions are open where they began to write, and nothing is heard of it any more:
    time is closed all the same, and the other regions see what is written since."""

    waits_s: list[float] = []

    async def main() -> None:
        async with (
            cluster.connect("fra", timeout=LONG) as home,
            cluster.connect("iad", timeout=LONG) as cut,
            cluster.connect("sin", timeout=LONG) as away,
        ):
            await home.put(b"closing", b"0")
            await cut.put(b"x/closing", b"of iad")
            opened = asyncio.Event()

            async def hold() -> None:
                async for txn in cut.transactions(timeout=LONG, attempts=1):
                    async with txn:
                        await txn.get(b"closing")
                        for number in range(200):  # many enough to leave early
                            txn.put(b"x/held/%d" % number, b"")
                        await asyncio.sleep(0.5)
                        opened.set()
                        await asyncio.sleep(60)

            holding = asyncio.create_task(hold())
            await opened.wait()
            cluster.wan.isolate("iad")
            try:
                began_s = time.monotonic()
                at = await home.put(b"closing", b"1")
                async with away.snapshot(since=at, timeout=LONG) as view:
                    assert await view.get(b"closing") == b"1"
                waits_s.append(time.monotonic() - began_s)
                # From here on its word has expired, and nobody waits for it any more.
                for number in range(2, 12):
                    at = await home.put(b"closing", b"%d" % number)
                    async with away.snapshot(since=at, timeout=LONG) as view:
                        assert await view.get(b"closing") == b"%d" % number
            finally:
                cluster.wan.heal()
                holding.cancel()
                await asyncio.gather(holding, return_exceptions=True)

    asyncio.run(main())
    # A transaction may live for 10 s; its region's word counts for one.
    assert waits_s[0] < 8, "the open transaction held closing up"


def test_any_region_may_die_where_all_are_asked(cluster: LocalCluster) -> None:
    """A keyspace that survives a region accepts writes and reads while one of them is dead, its
    leaders' region, too; the region is whole again afterwards."""

    async def main() -> None:
        async with cluster.connect("fra", timeout=LONG) as db:
            for number, dead in enumerate(("sin-1", "iad-1")):
                if dead == "iad-1":
                    for partition in (
                        one for one, name in leads(cluster).items() if name == "fra-1"
                    ):
                        if partition in everywhere:
                            k2(cluster, "move", str(partition), "iad-1")
                    await asyncio.to_thread(
                        until,
                        "iad-1 leads",
                        lambda: {leads(cluster).get(one) for one in everywhere} == {"iad-1"},
                    )
                node = cluster.node(dead)
                await asyncio.to_thread(node.kill)
                for key in (b"all/a", b"all/x"):
                    await answers(partial(db.put, key, b"%d" % number))
                    assert await db.get(key) == b"%d" % number
                await asyncio.to_thread(node.start)

    everywhere = {
        partition.partition
        for partition in statuses(cluster)["fra-1"].partitions
        if partition.start.startswith(b"all/")
    }
    assert len(everywhere) == 3
    try:
        asyncio.run(main())
    finally:
        for partition in everywhere:
            k2(cluster, "move", str(partition), "any")


def test_what_clients_of_every_region_see(cluster: LocalCluster) -> None:
    """While links fail, a partition is split, and leaders move to another region, are killed there
    and come back, what clients in every region read and write is strictly serializable: no view has
    half a transaction, and watches in every region tell every commit once, in order."""
    wan = cluster.wan

    async def faults() -> None:
        await asyncio.sleep(1)
        wan.part("fra", "sin")
        await asyncio.sleep(1)
        wan.heal()
        await asyncio.to_thread(k2, cluster, "split", "all/o/stream/4")
        for partition, name in leads(cluster).items():
            if name == "fra-1" and partition in everywhere:
                await asyncio.to_thread(k2, cluster, "move", str(partition), "iad-1")
        await asyncio.to_thread(until, "iad-1 leads", lambda: "iad-1" in leads(cluster).values())
        await asyncio.to_thread(cluster.node("iad-1").kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(cluster.node("iad-1").start)
        wan.isolate("sin")
        await asyncio.sleep(1)
        wan.heal()
        await asyncio.sleep(1)

    async def main() -> Findings:
        connections = [
            partial(
                k2store.connect,
                f"k2://{cluster.wan.address(node.region, node.seat.address)}",
                timeout=LONG,
            )
            for node in cluster.nodes.values()
        ]
        return await Observed(connections, Random(8), prefix=b"all/o/").run(faults)

    everywhere = {
        partition.partition
        for partition in statuses(cluster)["fra-1"].partitions
        if partition.start.startswith(b"all/")
    }
    try:
        found = asyncio.run(main())
    finally:
        for partition in everywhere:
            k2(cluster, "move", str(partition), "any")
    assert found.problems == []
    assert found.commits >= 30
    assert found.watched >= found.commits


def test_a_cluster_that_was_down_and_a_node_that_lost_its_disk(cluster: LocalCluster) -> None:
    """Everything is killed and started again, and has what was acknowledged; a node without its disk
    joins as another one, is given everything, and votes where the lost one did."""

    async def written() -> None:
        async with cluster.connect("fra", timeout=LONG) as db:
            for key in KEPT:
                await db.put(key, b"kept " + key)

    async def found(region: str) -> None:
        async with cluster.connect(region, timeout=LONG) as db:
            for key in KEPT:

                async def read(key: bytes = key) -> bytes | None:
                    async with db.snapshot(strong=True, local=True, timeout=LONG) as view:
                        return await view.get(key)

                assert await answers(read) == b"kept " + key

    asyncio.run(written())
    for node in cluster.nodes.values():
        node.kill()
    for node in cluster.nodes.values():
        node.spawn()
    for node in cluster.nodes.values():
        node.await_ready()
    for region in REGIONS:
        asyncio.run(found(region))

    lost = cluster.node("iad-1")
    old = statuses(cluster)["iad-1"].cluster.node
    lost.kill()
    lost.wipe()
    lost.start()
    new = statuses(cluster)["iad-1"].cluster.node
    assert new != old

    def votes() -> bool:
        return all(
            new in one.replica.voters and old not in one.replica.voters
            for one in statuses(cluster)["fra-1"].partitions
            if one.start.startswith(b"all/")
        )

    until("the new node votes in place of the old one", votes)
    asyncio.run(found("iad"))


KEPT = (b"kept", b"register/2", b"all/kept", b"all/z")
