"""What a cluster of real nodes does, told as scripts in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import msgspec
import pytest

import k2store
from k2store.control.map import Keyspace
from k2store.control.ports import change
from k2store.control.transitions import moved, promoted, split, with_region
from k2store.testing.simulation import MILLISECOND_NS, SECOND_NS, Simulation
from k2store.testing.simulation.node import NodeKnobs
from k2store.testing.simulation.partitions import between
from replication import ReplicaSettings
from tests.simulation.cluster_scene import Scene

THREE_AND_THREE = ("fra-1", "fra-2", "fra-3", "iad-1", "iad-2", "iad-3")
HOMES = (
    Keyspace("default", b"", "zone", "fra"),
    Keyspace("iad", b"iad/", "zone", "iad"),
    Keyspace("everywhere", b"world/", "region", "fra"),
)


async def increment(database: k2store.Database, key: bytes = b"n") -> int:
    """Add one to a counter in a transaction."""
    value = 0
    async for txn in database.transactions():
        async with txn:
            value = int(await txn.get(key) or b"0") + 1
            txn.put(key, b"%d" % value)
    return value


def test_every_node_takes_everything():
    """Whatever node a client talks to, it reads and writes keys of every home."""
    with Simulation(1) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1", "sin-1"), HOMES)

        async def main(environment):
            for name in scene.nodes:
                async with scene.connect(environment, name) as database:
                    for key in (b"a", b"iad/a", b"world/a"):
                        before = await database.get(key)
                        after = await increment(database, key)
                        assert after == int(before or b"0") + 1
                        assert await database.get(key) == b"%d" % after
                        await database.put(key + b"/" + name.encode(), b"x")
            async with scene.connect(environment, "sin-1") as database:
                return [await database.get(key) for key in (b"a", b"iad/a", b"world/a")]

        assert scene.play(main) == [b"3", b"3", b"3"]


def test_outcomes_are_forgotten_on_every_node():
    """What clients far away have done is not kept once they know, neither by leaders nor followers."""
    with Simulation(14) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1"))

        async def main(environment):
            async with scene.connect(environment, "iad-1") as database:
                for number in range(200):
                    await database.put(b"k/%d" % number, b"v")
                    await increment(database)
                await asyncio.sleep(3)
                await database.put(b"last", b"v")
                await asyncio.sleep(3)

        scene.play(main)
        for node in scene.nodes.values():
            for group in node.host.groups.values():
                assert len(group.partition.state.transactions) < 20


def test_a_local_view_shows_what_was_acknowledged():
    """A strong view of a replica waits there, and shows the last commit of another region."""
    with Simulation(2) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1"))

        async def main(environment):
            async with (
                scene.connect(environment, "fra-1") as home,
                scene.connect(environment, "iad-1") as away,
            ):
                host = scene.nodes["iad-1"].host
                for number in range(20):
                    at = await home.put(b"k", b"%d" % number)
                    sent = host.forwarding.forwarded
                    async with away.snapshot(strong=True, local=True) as view:
                        assert await view.get(b"k") == b"%d" % number
                        assert view.at > at
                    async with away.snapshot(since=at) as view:
                        assert await view.get(b"k") == b"%d" % number
                        assert view.staleness_s < 1.0
                    assert host.forwarding.forwarded == sent, "nobody else was asked"

        scene.play(main)


def test_a_writer_elsewhere_that_falls_silent_holds_nobody_up():
    """When another region has written, and then not for long, its word for its transactions ends:
    what is written at home is seen there as soon as ever, at that moment, too."""
    with Simulation(32) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1"))
        delays_s = []

        async def main(environment):
            loop = environment.loop
            async with (
                scene.connect(environment, "fra-1") as home,
                scene.connect(environment, "iad-1") as away,
            ):
                await increment(away)
                began_s = loop.time()
                while loop.time() - began_s < 14:
                    at = await home.put(b"k", b"v")
                    acknowledged_s = loop.time()
                    async with away.snapshot(since=at):
                        delays_s.append(loop.time() - acknowledged_s)
                assert not any(group.hints for group in scene.nodes["fra-1"].host.groups.values())

        scene.play(main)
        assert len(delays_s) > 30
        assert max(delays_s) < 0.5, max(delays_s)


def test_leaders_are_lost_and_nothing_with_them():
    """Leaders are killed, or stand still and come back: no increment is lost or done twice."""
    with Simulation(3) as simulation:
        scene = Scene(simulation, THREE_AND_THREE)
        waits = []

        async def main(environment):
            loop = environment.loop
            async with scene.connect(environment, "iad-1") as database:
                await increment(database)
                for kill in range(6):
                    process = scene.processes[scene.leader()]
                    began_ns = loop.now_ns
                    if kill % 2:
                        process.pause()
                        scene.later(4, process.resume)
                    else:
                        process.kill()
                        scene.later(2, process.start)
                    for number in range(20):
                        await increment(database)
                        if not number:
                            waits.append((loop.now_ns - began_ns) / 1e9)
                    await asyncio.sleep(5)
                return await database.get(b"n")

        assert scene.play(main) == b"%d" % (1 + 6 * 20)
        assert max(waits) < 2.0, waits


def test_a_restarted_cluster_has_everything():
    """All nodes are killed at once, again and again; checkpoints and logs bring everything back."""
    with Simulation(4) as simulation:
        scene = Scene(simulation, THREE_AND_THREE, knobs=NodeKnobs(segment_bytes=1 << 14))

        async def main(environment):
            expected = 0
            async with scene.connect(environment, "fra-2") as database:
                for _ in range(4):
                    for _ in range(40):
                        expected = await increment(database)
                        await database.put(b"key/%d" % expected, b"%d" % expected * 20)
                    for process in scene.processes.values():
                        process.kill()
                    scene.later(
                        0.5, lambda: [process.start() for process in scene.processes.values()]
                    )
                    await asyncio.sleep(1)
                async with database.snapshot(strong=True) as view:
                    rows = [row async for row in view.scan(k2store.prefix(b"key/"))]
                assert {row.value for row in rows} == {
                    b"%d" % number * 20 for number in range(1, expected + 1)
                }
                return await database.get(b"n")

        assert scene.play(main) == b"160"
        assert any(node.host.replayed for node in scene.nodes.values())


def test_a_replica_that_was_away_for_long_takes_a_whole_state():
    """Its log ends before the others' begin: rows are copied, and reads are right afterwards."""
    with Simulation(5) as simulation:
        scene = Scene(
            simulation,
            ("fra-1", "fra-2", "fra-3", "iad-1"),
            knobs=NodeKnobs(segment_bytes=1 << 14),
            replica=ReplicaSettings(trail_bytes_max=0),
        )

        async def main(environment):
            async with scene.connect(environment, "fra-1") as database:
                await database.put(b"before", b"1")
                await asyncio.sleep(1)
                scene.processes["iad-1"].kill()
                for number in range(300):
                    await database.put(b"key/%d" % (number % 50), b"%d" % number * 30)
                    if number % 7 == 0:
                        await database.delete(b"key/%d" % (number % 50))
                await asyncio.sleep(2)
                scene.processes["iad-1"].start()
                at = await database.put(b"after", b"1")
                async with database.snapshot(at=at) as view:
                    expected = [(row.key, row.value) async for row in view.scan(b"")]
            await asyncio.sleep(3)
            async with (
                scene.connect(environment, "iad-1") as away,
                away.snapshot(since=at, local=True) as view,
            ):
                return expected, [(row.key, row.value) async for row in view.scan(b"")]

        expected, found = scene.play(main)
        assert found == expected
        assert scene.nodes["iad-1"].host.pulls.finished >= 1, "nothing was copied"


def test_a_lost_disk_is_another_member():
    """A node that comes back without its data joins anew, and becomes a voter again."""
    with Simulation(6) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3"))

        async def main(environment):
            async with scene.connect(environment, "fra-1") as database:
                await increment(database)
                victim = "fra-3"
                before = scene.nodes[victim].host.node
                scene.processes[victim].kill()
                scene.later(1, lambda: scene.processes[victim].start(disk="lost"))
                for _ in range(30):
                    await increment(database)
                    await asyncio.sleep(0.2)
                node = scene.nodes[victim].host.node
                assert node != before
                number = scene.nodes["fra-1"].host.route.of(b"")
                members = scene.nodes["fra-1"].host.groups[number].replica.membership
                assert node in members.voters, members
                assert before not in members.everyone, members
                return await database.get(b"n")

        assert scene.play(main) == b"31"


def test_a_node_that_comes_after_splits_gets_every_part():
    """A copy that begins when partitions have split again and again lives through the splits as it
    reads the logs from their beginning: it has every key, and no part twice."""
    with Simulation(31) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3", "iad-1"))
        keys = [b"a", b"g", b"m", b"t", b"z"]

        async def main(environment):
            async with scene.connect(environment, "fra-1") as database:
                for key in keys:
                    await database.put(key, b"of " + key)
                control = scene.nodes["fra-1"].control
                for key in (b"m", b"g", b"t", b"c"):
                    number = scene.plane.map.partition_at(key).id
                    await change(control, partial(split, partition=number, key=key))
                    await asyncio.sleep(2)
                    await database.put(key, b"after the split")
                for victim in ("iad-1", "fra-3"):
                    scene.processes[victim].kill()
                    await asyncio.sleep(0.5)
                    scene.processes[victim].start(disk="lost")
                    await asyncio.sleep(5)
                    host = scene.nodes[victim].host
                    assert len(host.route) == 5
                    assert sorted(host.groups) == sorted(scene.nodes["fra-1"].host.groups)
                    async with (
                        scene.connect(environment, victim) as away,
                        away.snapshot(strong=True, local=True) as view,
                    ):
                        assert [await view.get(key) for key in keys] == parts

        parts = [b"of a", b"after the split", b"after the split", b"after the split", b"of z"]
        scene.play(main)


def test_what_could_be_torn_is_refused():
    """Two homes, or a home and writes to what survives regions: refused, and nothing is written."""
    with Simulation(7) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1", "sin-1"), HOMES)

        async def main(environment):
            async with scene.connect(environment, "sin-1") as database:
                for key in (b"a", b"iad/a", b"world/a"):
                    await database.put(key, b"0")
                for reads, writes in (
                    ([b"a"], [b"iad/a"]),
                    ([], [b"a", b"iad/a"]),
                    ([b"a"], [b"world/a"]),
                    ([], [b"world/a", b"iad/a"]),
                ):
                    with pytest.raises(k2store.errors.Rejected, match="lost apart"):
                        async for txn in database.transactions():
                            async with txn:
                                for key in reads:
                                    await txn.get(key)
                                for key in writes:
                                    txn.put(key, b"torn")
                async for txn in database.transactions():
                    async with txn:
                        await txn.get(b"world/a")
                        txn.put(b"a", b"1")
                async for txn in database.transactions():
                    async with txn:  # reads alone may go anywhere
                        found = [await txn.get(key) for key in (b"a", b"iad/a", b"world/a")]
                return found

        assert scene.play(main) == [b"1", b"0", b"0"]


def test_the_lead_is_handed_over():
    """`k2 move` gives a partition another leader under load; nothing is lost and it takes no pause."""
    with Simulation(8) as simulation:
        scene = Scene(simulation, THREE_AND_THREE)

        async def main(environment):
            gaps = []
            async with scene.connect(environment, "iad-1") as database:
                await increment(database)
                done = False

                async def count():
                    while not done:
                        began_ns = environment.loop.now_ns
                        await increment(database)
                        gaps.append((environment.loop.now_ns - began_ns) / 1e9)

                counting = asyncio.create_task(count())
                for name in ("fra-1", "fra-2", "fra-3", "fra-1"):
                    number = scene.nodes["iad-1"].host.route.of(b"")
                    wanted = scene.nodes[name].host.node
                    control = scene.nodes["iad-1"].control
                    await change(control, partial(moved, partition=number, node=wanted))
                    await asyncio.sleep(3)
                    assert scene.leader() == name
                done = True
                await counting
                assert await database.get(b"n") == b"%d" % (1 + len(gaps))
            return gaps

        gaps = scene.play(main)
        assert max(gaps) < 1.0, max(gaps)  # no lease was waited for


def test_no_lead_is_given_back_while_the_control_plane_is_away():
    """The home's voter returns when nobody could grant it an epoch: who leads goes on until it can."""
    with Simulation(9) as simulation:
        scene = Scene(
            simulation,
            ("fra-1", "iad-1", "sin-1"),
            (Keyspace("default", b"", "region", "fra"),),
        )

        async def main(environment):
            async with scene.connect(environment, "sin-1") as database:
                await increment(database)
                assert scene.leader() == "fra-1"
                scene.processes["fra-1"].kill()
                await increment(database)
                stands_in = scene.leader()
                for node in scene.nodes.values():
                    node.control.away = True
                scene.processes["fra-1"].start()
                for _ in range(16):
                    await asyncio.sleep(0.5)
                    await increment(database)
                assert scene.leader() == stands_in
                assert scene.nodes[stands_in].control.refused
                for node in scene.nodes.values():
                    node.control.away = False
                await asyncio.sleep(6)
                assert scene.leader() == "fra-1"
                return await database.get(b"n")

        assert scene.play(main) == b"18"


def test_a_partition_is_split_under_load():
    """Splits go on under transactions over both halves; nothing is lost, every copy follows."""
    with Simulation(9) as simulation:
        scene = Scene(simulation, THREE_AND_THREE)
        keys = [b"a", b"g", b"m", b"t", b"z"]

        async def main(environment):
            async with scene.connect(environment, "iad-1") as database:
                for key in keys:
                    await database.put(key, b"0")
                done = False
                counted = 0

                async def count():
                    nonlocal counted
                    while not done:
                        async for txn in database.transactions():
                            async with txn:
                                for key in keys:
                                    txn.put(key, b"%d" % (int(await txn.get(key) or b"0") + 1))
                        counted += 1

                counting = asyncio.create_task(count())
                control = scene.nodes["iad-1"].control
                for key in (b"m", b"g", b"t"):
                    await asyncio.sleep(1)
                    number = scene.plane.map.partition_at(key).id
                    await change(control, partial(split, partition=number, key=key))
                await asyncio.sleep(3)
                scene.processes[scene.leader(b"t")].restart()
                await asyncio.sleep(4)
                done = True
                await counting
                found = await database.get_many(keys)
                assert set(found.values()) == {b"%d" % counted}, (found, counted)
                assert counted > 100
            return [
                sorted(group.start for group in node.host.groups.values())
                for node in scene.nodes.values()
            ]

        starts = scene.play(main)
        assert all(found == [b"", b"g", b"m", b"t"] for found in starts), starts


@pytest.mark.parametrize("founder_dies", [False, True])
def test_a_lost_home_is_promoted_by_its_operator(founder_dies):
    """Another region goes on from one cut for all partitions; the old home comes back as a replica.

    It does so as well if the node with the best copies dies before it has begun with them.
    """
    with Simulation(10) as simulation:
        scene = Scene(simulation, (*THREE_AND_THREE, "sin-1"))

        async def main(environment):
            control = scene.nodes["sin-1"].control
            async with scene.connect(environment, "sin-1") as database:
                for key in (b"m", b"t"):
                    number = scene.plane.map.partition_at(key).id
                    await change(control, partial(split, partition=number, key=key))
                for _ in range(30):
                    await increment_all(database, (b"a", b"n", b"z"))
                await asyncio.sleep(1)
                for number in (1, 2, 3):
                    scene.processes[f"fra-{number}"].kill()
                await change(control, partial(with_region, name="fra", off=True))
                await asyncio.sleep(1)
                host = scene.nodes["iad-2"].host
                cut = min(group.safe() for group in host.groups.values())
                if founder_dies:
                    scene.processes["iad-2"].kill()
                await change(
                    control,
                    partial(promoted, lost="fra", home="iad", cut=cut, founder=host.node),
                )
                if founder_dies:
                    await asyncio.sleep(2)
                    scene.processes["iad-2"].start()
                for _ in range(10):
                    await increment_all(database, (b"a", b"n", b"z"))
                for number in (1, 2, 3):
                    scene.processes[f"fra-{number}"].start()
                await asyncio.sleep(3)
                await change(control, partial(with_region, name="fra", off=False))
                await asyncio.sleep(3)
                leaders = {scene.leader(key).partition("-")[0] for key in (b"a", b"n", b"z")}
                assert leaders == {"iad"}, leaders
                return set((await database.get_many((b"a", b"n", b"z"))).values())

        assert scene.play(main) == {b"40"}
        for node in scene.nodes.values():
            for group in node.host.groups.values():
                assert len(group.replica.membership.everyone) == 7, group.replica.membership


def test_a_home_that_is_cut_off_is_replaced_automatically():
    """It stops by itself before another region goes on, and what it acknowledged stays whole."""
    keyspaces = (Keyspace("default", b"", "zone", "fra", "automatic"),)
    with Simulation(11) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3", "iad-1", "sin-1"), keyspaces)
        home = [f"fra-{number}" for number in (1, 2, 3)]
        network = simulation.network

        async def main(environment):
            loop = environment.loop
            async with (
                scene.connect(environment, "sin-1") as away,
                scene.connect(environment, "fra-1", timeout_s=2.0) as inside,
            ):
                for _ in range(20):
                    await increment(away)
                await asyncio.sleep(1)
                network.cut(between(home, ("iad-1", "sin-1")))
                began_ns = loop.now_ns
                last_inside_ns = loop.now_ns
                first_away_ns = 0

                async def go_on_inside():
                    nonlocal last_inside_ns
                    with contextlib.suppress(k2store.K2Error):
                        while True:
                            await inside.put(b"inside", b"%d" % loop.now_ns)
                            last_inside_ns = loop.now_ns
                            await asyncio.sleep(0.1)

                going_on = asyncio.create_task(go_on_inside())
                while not first_away_ns:
                    with contextlib.suppress(k2store.K2Error):
                        await increment(away)
                        first_away_ns = loop.now_ns
                await going_on
                assert last_inside_ns < first_away_ns
                assert last_inside_ns - began_ns > 1e9, "it goes on while its lease lasts"
                network.heal_everything()
                await asyncio.sleep(5)
                for _ in range(5):
                    await increment(away)
                return await away.get(b"n")

        assert scene.play(main) == b"26"
        assert scene.leader().partition("-")[0] in ("iad", "sin")


async def increment_all(database: k2store.Database, keys: tuple[bytes, ...]) -> None:
    """Add one to several counters in one transaction."""
    async for txn in database.transactions():
        async with txn:
            for key in keys:
                txn.put(key, b"%d" % (int(await txn.get(key) or b"0") + 1))


@pytest.mark.parametrize("offset_ms", [-400, 400])
def test_a_clock_beyond_its_bound_is_fenced(offset_ms):
    """A leader whose clock is wrong is noticed by the others, leads no more, and comes back."""
    with Simulation(12) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3"))

        async def main(environment):
            async with scene.connect(environment, "fra-2", timeout_s=20.0) as database:
                for _ in range(5):
                    await increment(database)
                wrong = scene.leader()
                others = [name for name in scene.nodes if name != wrong]
                clock = scene.processes[wrong].machine.clock
                clock.honest = False
                clock.set_offset(offset_ms * MILLISECOND_NS)
                await asyncio.sleep(4)
                assert scene.nodes[wrong].host.fence.trips == 1
                assert scene.nodes[wrong].host.engine.standing
                assert all(not scene.nodes[name].host.engine.standing for name in others)
                async with scene.connect(environment, others[0], timeout_s=20.0) as other:
                    for _ in range(5):
                        await increment(other)
                clock.correct()
                await asyncio.sleep(6)
                assert not scene.nodes[wrong].host.engine.standing
                async with scene.connect(environment, wrong, timeout_s=20.0) as again:
                    return await increment(again)

        assert scene.play(main) == 11


def test_a_partition_that_grows_is_split_by_itself():
    """Its leader measures it and asks for a split near the middle, again and again."""
    with Simulation(13) as simulation:
        scene = Scene(simulation, ("fra-1", "iad-1"), split_bytes=40_000)

        async def main(environment):
            async with scene.connect(environment, "iad-1") as database:
                for number in range(300):
                    await database.put(b"key/%04d" % number, bytes(500))
                await asyncio.sleep(140)
                async with database.snapshot(strong=True) as view:
                    found = [row.key async for row in view.scan(k2store.prefix(b"key/"))]
                assert found == [b"key/%04d" % number for number in range(300)]

        scene.play(main)
        partitions = scene.plane.map.partitions
        assert len(partitions) >= 4, partitions
        host = scene.nodes["fra-1"].host
        sizes = [group.measure.size_bytes for group in host.groups.values()]
        assert max(sizes) < 60_000, sizes


def test_a_node_that_ends_in_good_order_hands_its_leads_over():
    """Draining takes no lease's time from anybody, and nobody gives the lead back meanwhile."""
    with Simulation(15) as simulation:
        scene = Scene(simulation, THREE_AND_THREE)
        gaps = []

        async def main(environment):
            loop = environment.loop
            async with scene.connect(environment, "iad-1") as database:
                await increment(database)
                for _ in range(3):
                    name = scene.leader()
                    number = scene.nodes["iad-1"].host.route.of(b"")
                    wanted = scene.nodes[name].host.node
                    control = scene.nodes["iad-1"].control
                    await change(control, partial(moved, partition=number, node=wanted))
                    engine = scene.nodes[name].host.engine
                    draining = asyncio.create_task(engine.drain(3.0))
                    for _ in range(50):
                        began_ns = loop.now_ns
                        await increment(database)
                        gaps.append((loop.now_ns - began_ns) / 1e9)
                    await draining
                    assert scene.leader() != name
                    scene.processes[name].restart()
                    await asyncio.sleep(3)
                return await database.get(b"n")

        assert scene.play(main) == b"151"
        assert max(gaps) < 1.0, max(gaps)


def test_a_partition_without_its_majority_holds_no_other_one_up():
    """A segment is left behind while one partition's entries are under way for ever."""
    keyspaces = (
        Keyspace("default", b"", "zone", "fra"),
        Keyspace("world", b"world/", "region", "fra"),
    )
    with Simulation(16) as simulation:
        scene = Scene(
            simulation,
            ("fra-1", "iad-1", "sin-1"),
            keyspaces,
            NodeKnobs(segment_bytes=1 << 14),
        )
        network = simulation.network

        async def main(environment):
            loop = environment.loop
            slow = 0.0
            async with scene.connect(environment, "fra-1") as database:
                await database.put(b"world/a", b"0")
                await database.put(b"a", b"0")
                for _ in range(6):
                    network.cut(between(("fra-1",), ("iad-1", "sin-1")))
                    stuck = asyncio.create_task(database.put(b"world/a", b"1"))
                    for number in range(120):
                        began_ns = loop.now_ns
                        await database.put(b"a/%d" % number, bytes(300))
                        slow = max(slow, (loop.now_ns - began_ns) / 1e9)
                    network.heal_everything()
                    await stuck
            return slow

        slow = scene.play(main)
        assert slow < 0.9, slow
        assert scene.nodes["fra-1"].host.engine.log.first_lsn > 1, "no segment was left behind"


def test_a_watch_is_told_what_stood_as_the_home_lost_its_lease():
    """What comes to stand in that moment is acknowledged to nobody; whoever watches hears of it later."""
    keyspaces = (Keyspace("default", b"", "zone", "fra", "automatic"),)
    with Simulation(13) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3", "iad-1", "sin-1"), keyspaces)
        home = [f"fra-{number}" for number in (1, 2, 3)]
        watched: list[str] = []
        network = simulation.network

        async def main(environment):
            await asyncio.sleep(2)
            leader = scene.leader()
            beside = next(name for name in home if name != leader)
            async with scene.connect(environment, beside) as database:
                told: set[tuple[str, bytes]] = set()
                marks: dict[str, int] = {}
                watched.extend(name for name in home if name != beside)

                async def write(writer):
                    for number in range(100):
                        with contextlib.suppress(k2store.K2Error):
                            await database.put(b"%d/%03d" % (writer, number), b"")

                async def follow(name):
                    async with (
                        scene.connect(environment, name) as other,
                        other.watch(k2store.prefix(b"")) as watch,
                    ):
                        async for event in watch:
                            if isinstance(event, k2store.Resolved):
                                marks[name] = event.at
                            else:
                                told.update((name, record.key) for record in event.records)

                followers = [asyncio.create_task(follow(name)) for name in watched]
                await asyncio.sleep(0.5)
                network.cut(between(home, ("iad-1", "sin-1")))
                host = scene.nodes[leader].host
                ends_ns = host.home_leases.end_ns("default")
                await asyncio.sleep((ends_ns - host.engine.now.hi_ns) / 1e9 - 0.1)
                scene.later(0.05, scene.processes[leader].pause)
                scene.later(0.35, scene.processes[leader].resume)
                scene.later(2, network.heal_everything)
                await asyncio.gather(*(write(writer) for writer in range(8)))
                async with database.snapshot(strong=True) as view:
                    rows = await view.scan(k2store.prefix(b"")).all()
                    at = view.at
                while min(marks.values()) < at:
                    await asyncio.sleep(0.1)
                for task in followers:
                    task.cancel()
                return rows, told, sum(n.host.home_leases.refused for n in scene.nodes.values())

        rows, told, refused = scene.play(main)
        assert refused, "nothing came to stand in that moment: the scene shows nothing"
        missing = {(name, row.key) for name in watched for row in rows} - told
        assert not missing, missing


def test_time_is_closed_over_no_commit_that_was_held_back():
    """A commit that waits for room in the log has an old stamp when it is let in. Followers must not be told
    that time is closed over it before the log has it: their watches would pass it by."""
    with Simulation(14) as simulation:
        scene = Scene(simulation, ("fra-1", "fra-2", "fra-3"))
        network = simulation.network
        held: list[int] = []

        async def main(environment):
            await asyncio.sleep(2)
            leader = scene.leader()
            watched, other = (name for name in scene.nodes if name != leader)
            host = scene.nodes[leader].host
            (group,) = (one for one in host.groups.values() if one.leading)
            told: set[bytes] = set()
            marks = [0]

            async def follow():
                async with (
                    scene.connect(environment, watched) as database,
                    database.watch(k2store.prefix(b"")) as watch,
                ):
                    async for event in watch:
                        if isinstance(event, k2store.Resolved):
                            marks.append(event.at)
                        else:
                            told.update(record.key for record in event.records)

            follower = asyncio.create_task(follow())
            async with scene.connect(environment, leader) as database:
                async for txn in database.transactions(attempts=1):
                    async with txn:
                        await txn.get(b"k")
                        await asyncio.sleep(1)
                        # Until the last tick before the leader closes time.
                        every_ns, tick_ns = (
                            host.settings.close_interval_ns,
                            host.engine.settings.tick_ns,
                        )
                        left_ns = every_ns - (simulation.true_ns() + tick_ns) % every_ns
                        await asyncio.sleep(left_ns / 1e9 + 0.01)
                        # What is sent from here on reaches the follower, and stands only later.
                        network.cut([(watched, leader), (other, leader), (leader, other)])
                        scene.later(0.3, network.heal_everything)
                        group.full = True
                        scene.later(0.01, lambda: held.append(len(group.held)))
                        txn.put(b"k", b"v")
            while marks[-1] < txn.at:
                await asyncio.sleep(0.1)
            follower.cancel()
            return told

        told = scene.play(main)
        assert held == [1], "nothing was held back: the scene shows nothing"
        assert told == {b"k"}


def test_who_leads_one_half_of_a_split_begins_the_other():
    """A node that was given a whole state from behind a split, and comes to lead that partition at once, has
    no copy of the other half. It begins one, or it would know no place for those keys for ever."""
    patient = ReplicaSettings(
        lease_ns=20 * SECOND_NS,
        lease_longest_ns=20 * SECOND_NS,
        patience_ns=30 * SECOND_NS,
        trail_bytes_max=1,
    )
    with Simulation(15) as simulation:
        scene = Scene(
            simulation,
            ("fra-1", "fra-2", "fra-3"),
            knobs=NodeKnobs(segment_bytes=1 << 14),
            replica=patient,
        )

        def identity(name):
            found = scene.plane.map.node_named(name)
            assert found is not None
            return found.id

        async def main(environment):
            await asyncio.sleep(2)
            control = scene.nodes["fra-1"].control
            (whole,) = scene.plane.map.partitions
            newcomer = next(name for name in scene.nodes if name != scene.leader())
            async with scene.connect(environment, scene.leader()) as database:
                await database.put(b"a", b"of the first half")
                await change(control, partial(split, partition=whole.id, key=b"m"))
                await asyncio.sleep(1)
                await database.put(b"z", b"of the other half")
                for _ in range(60):
                    # Until no log has the split any more.
                    await database.put(b"b", bytes(1000))
            half = scene.plane.map.partition_at(b"m").id
            before = identity(newcomer)
            scene.processes[newcomer].kill()
            node = scene.nodes[newcomer]
            # It looks at the map so seldom that it leads before it does.
            node.knobs = msgspec.structs.replace(node.knobs, tick_ns=4 * SECOND_NS)
            scene.processes[newcomer].start(disk="lost")
            while identity(newcomer) == before:
                await asyncio.sleep(0.05)
            others = [name for name in scene.nodes if name != newcomer]
            simulation.network.cut(between([newcomer], others))
            await change(control, partial(moved, partition=whole.id, node=identity(newcomer)))
            await asyncio.sleep(1)
            simulation.network.heal_everything()
            while not (whole.id in node.host.groups and node.host.groups[whole.id].leading):
                await asyncio.sleep(0.05)
            missing = half not in node.host.groups
            await asyncio.sleep(10)
            assert half in node.host.groups
            async with scene.connect(environment, newcomer) as database:
                return missing, [row.key async for row in database.scan(k2store.EVERYTHING)]

        missing, rows = scene.play(main)
        assert missing, "it had the other half before it led: the scene shows nothing"
        assert rows == [b"a", b"b", b"z"]
