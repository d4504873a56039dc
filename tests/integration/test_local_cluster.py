"""`k2store.testing.cluster`: real nodes in emulated regions, faults on them, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import k2store
from k2store.config.dial import read_dial
from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.testing.cluster.local_cluster import free_ports
from k2store.testing.cluster.node import toml
from k2store.testing.wan import leftovers, namespaces

WanKind = Literal["namespaces", "proxy"] | None

REFUSAL = namespaces.refusal()
KINDS = [
    pytest.param(
        "namespaces",
        marks=[
            pytest.mark.root,
            pytest.mark.skipif(
                REFUSAL is not None, reason=f"NOT TESTED, a cluster between namespaces: {REFUSAL}"
            ),
        ],
    ),
    "proxy",
    None,
]
REGIONS = ("fra", "sin")
WAIT_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, "it never held"
        time.sleep(0.02)


def states(cluster: LocalCluster) -> dict[str, str]:
    """What `look` says of each node."""
    return {look.node.name: look.state for look in cluster.look()}


def met(cluster: LocalCluster, name: str, other: str) -> bool:
    """Whether a node says that its stream to another one stands."""
    return any(
        peer.name == other and peer.connected
        for look in cluster.look()
        if look.node.name == name and look.status is not None
        for peer in look.status.cluster.peers
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_serve_clients_where_they_stand(kind: WanKind) -> None:
    """Nodes come up in their regions and serve clients; one that stands in a region goes over the
    network, and the others' processes go when the block ends."""
    with local_cluster(REGIONS, wan=kind) as cluster:
        until(lambda: states(cluster) == {"fra-1": "SERVING", "sin-1": "SERVING"})
        regions = {look.status.region for look in cluster.look() if look.status is not None}
        assert regions == set(REGIONS)
        assert cluster.wan_kind == kind
        with cluster.blocking() as db:
            db.put(b"k", b"v")
        if kind is not None:
            # From where it stands the other region is a round trip away, its own is not asked.
            with cluster.blocking("sin") as db:
                begun = time.monotonic()
                db.put(b"fra/k", b"v")
                assert time.monotonic() - begun >= 0.160
            assert cluster.wan.statistics()["sin", "fra"].delivered > 0
            real = cluster.node("fra-1").seat.address
            dialled = cluster.wan.address("sin", real)
            assert dialled != real
            assert dialled in cluster.address("sin")
            with k2store.blocking.connect(real, tls=cluster.tls, dial={real: dialled}) as db:
                begun = time.monotonic()
                assert db.get(b"fra/k") == b"v"
                assert time.monotonic() - begun >= 0.160
        processes = [node.process for node in cluster.nodes.values()]
        folder = cluster.path
    assert not folder.exists()
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_only_certificates_of_the_cluster_get_in(tmp_path: Path) -> None:
    """Nodes want a certificate of the cluster's own authority; plain text gets nowhere."""
    with local_cluster(("fra",), wan=None) as cluster:
        assert cluster.tls is not None
        for tls in (None, k2store.Tls(authority=cluster.tls.authority)):
            refused = k2store.blocking.connect(cluster.address(), tls=tls, timeout="1s")
            with pytest.raises((k2store.Unavailable, k2store.Deadline)), refused as db:
                db.get(b"k")
        with cluster.blocking("fra") as db:
            assert db.get(b"k") is None


def test_faults_of_a_node(tmp_path: Path) -> None:
    """Killed, restarted, paused, and robbed of its disk: each is what it says, and what the
    cluster has acknowledged is there after all of them."""
    regions = ("fra", "iad", "sin")
    with local_cluster(regions, wan=None, tls=False, path=tmp_path) as cluster:
        all_serve = dict.fromkeys(cluster.nodes, "SERVING")
        one = cluster.node("sin-1")
        alone = f"k2://{one.seat.address}"
        with cluster.blocking() as db:
            db.put(b"k", b"v")
            incarnation = one.ready["incarnation"]
            assert one.kill() == -signal.SIGKILL
            assert states(cluster) == all_serve | {"sin-1": "DOWN"}
            assert db.get(b"k") == b"v"
            db.put(b"k", b"w")
        one.start()
        assert one.ready["incarnation"] != incarnation
        until(lambda: states(cluster) == all_serve)
        with k2store.blocking.connect(alone) as db:
            assert db.get(b"k") == b"w"
        one.pause()
        assert (one.state, states(cluster)["sin-1"]) == ("paused", "PAUSED")
        one.resume()
        until(lambda: states(cluster) == all_serve)
        with pytest.raises(k2store.Rejected, match="runs"):
            one.wipe()
        with pytest.raises(k2store.Rejected, match="runs already"):
            one.start()
        assert one.stop() == 0
        one.wipe()
        one.settings["limits.key"] = "16B"
        one.start()
        with k2store.blocking.connect(alone) as db:
            assert db.get(b"k") == b"w"
            with pytest.raises(k2store.Rejected):
                db.put(b"k" * 17, b"")
        one.pause()
    assert (tmp_path / "sin-1" / "data").is_dir()
    assert "node.stopped" in one.log()


def test_a_node_whose_disk_fails_ends(tmp_path: Path) -> None:
    """A member of a cluster that may not write its log any more says so and ends, streams and all."""
    with local_cluster(("fra",), nodes_per_region=2, wan=None, path=tmp_path) as cluster:
        node = cluster.node("fra-2")
        # As a disk that refuses: every write to a file fails from now on.
        resource.prlimit(node.process, resource.RLIMIT_FSIZE, (0, 0))
        with cluster.blocking() as db:

            def ended() -> bool:
                # On a slow machine the first write may be over before the node has heard of it.
                with contextlib.suppress(k2store.K2Error):
                    db.put(b"fra/key", b"value", timeout=1)
                return not node.running

            until(ended)
        assert node.stop() not in (0, None, -signal.SIGKILL)


def test_an_old_copy_of_a_disk_is_refused(tmp_path: Path) -> None:
    """A folder that was put back is told from the present one: at once, again and again, and later
    where the control plane was away. With an empty folder the node is a new member."""
    with local_cluster(("fra",), nodes_per_region=3, wan=None, path=tmp_path) as cluster:
        node, keeper = cluster.node("fra-2"), cluster.node("fra-1")
        node.stop()
        shutil.copytree(node.data, tmp_path / "old")
        node.start()
        node.stop()
        node.start()  # The present folder may be started as often as one likes.
        node.stop()
        node.wipe()
        shutil.copytree(tmp_path / "old", node.data)
        for _ in range(2):
            with pytest.raises(k2store.Unavailable, match="old copy"):
                node.start()
        keeper.kill()
        node.start()
        before = len(node.log())
        keeper.start()
        until(lambda: not node.running)
        node.stop()
        assert "old copy" in node.log()[before:]
        node.wipe()
        node.start()
        assert {one.name for one in cluster.nodes.values() if one.running} == set(cluster.nodes)


def test_an_old_copy_is_told_by_those_who_met_the_node(tmp_path: Path) -> None:
    """The control plane is away at the start of the present folder and of the old one: the others
    have met the node since, and end it."""
    with local_cluster(("fra",), nodes_per_region=3, wan=None, path=tmp_path) as cluster:
        node, keeper = cluster.node("fra-2"), cluster.node("fra-1")
        node.stop()
        shutil.copytree(node.data, tmp_path / "old")
        keeper.kill()
        node.start()
        until(lambda: met(cluster, "fra-2", "fra-3"))
        node.kill()
        node.wipe()
        shutil.copytree(tmp_path / "old", node.data)
        before = len(node.log())
        node.start()
        until(lambda: not node.running)
        assert "old copy" in node.log()[before:]


def test_a_cluster_comes_back(tmp_path: Path) -> None:
    """On the folder of an earlier one, at other addresses, a cluster has its data and its map."""
    for words in (b"first", b"second"):
        with (
            local_cluster(REGIONS, wan="proxy", path=tmp_path) as cluster,
            cluster.blocking("fra") as db,
        ):
            assert db.get(b"fra/k") == (None if words == b"first" else b"first")
            db.put(b"fra/k", words)


def test_peers_are_dialled_through_the_proxy() -> None:
    """Without namespaces each node has a file of other addresses for the nodes of other regions."""
    with local_cluster(REGIONS, wan="proxy", nodes_per_region=2) as cluster:
        assert states(cluster) == dict.fromkeys(cluster.nodes, "SERVING")
        seats = {name: node.seat.address for name, node in cluster.nodes.items()}
        table = read_dial(cluster.path / "fra-1" / "dial")
        assert set(table) == {seats["sin-1"], seats["sin-2"]}
        assert not set(table.values()) & set(seats.values())
        host, _, port = table[seats["sin-2"]].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S):
            pass


def test_a_cluster_in_async_code() -> None:
    """`async with` runs it, too, and leaves nothing."""

    async def scene() -> Path:
        async with local_cluster(("fra",), wan=None, tls=False) as cluster, cluster.connect() as db:
            await db.put(b"k", b"v")
            assert await db.get(b"k") == b"v"
            return cluster.path

    assert not asyncio.run(scene()).exists()


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A node that does not come up is named with its last words, and the others end with it."""
    cluster = local_cluster(("fra", "iad"), wan=None, path=tmp_path, clock__bound="9s")
    with pytest.raises(k2store.Unavailable, match=r"fra-1: .*clock\.bound"), cluster:
        raise AssertionError("it runs")
    assert not any(node.running for node in cluster.nodes.values())
    for wrong in (("fra", "moon"), ("Fra",)):
        with pytest.raises(k2store.Rejected):
            local_cluster(wrong)
    with pytest.raises(k2store.Rejected):
        local_cluster(nodes_per_region=15)


OWNER = """
import json, sys, time
from k2store.testing.cluster import local_cluster
kind = None if sys.argv[1] == "None" else sys.argv[1]
with local_cluster(("fra", "sin"), wan=kind) as cluster:
    cluster.node("sin-1").pause()
    numbers = [node.process for node in cluster.nodes.values()]
    print(json.dumps([str(cluster.path), numbers]), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outlives_a_killed_owner(kind: WanKind) -> None:
    """kill -9 of the owner: its nodes end, the paused one too, its folder and its network go."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(kind)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder, numbers = json.loads(owner.stdout.readline())
    spaces = set()
    if kind == "namespaces":
        spaces = {str(Path(f"/proc/{number}/ns/net").readlink()) for number in numbers}
        assert str(Path("/proc/self/ns/net").readlink()) not in spaces
    assert Path(folder).exists()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not any(alive(number) for number in numbers))
    until(lambda: not Path(folder).exists())
    names = [Path("/run/netns") / name for name in leftovers()]
    until(lambda: not {f"net:[{name.stat().st_ino}]" for name in names if name.exists()} & spaces)


def alive(number: int) -> bool:
    """Whether a process runs, and is not merely waiting to be noticed as ended."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_keeper_kills_whom_it_was_told_of() -> None:
    """Of three processes it ends the one it watches: not one it forgot, nor another of its number."""
    sleepers = [
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        for _ in ("watched", "forgotten", "other")
    ]
    watched, forgotten, other = (one.pid for one in sleepers)
    begun = Path(f"/proc/{watched}/stat").read_text().rpartition(")")[2].split()[19]
    said = f"watch {watched} {begun}\nwatch {forgotten} {begun}\nforget {forgotten}\n"
    # Not when that one began: the number has been given out again.
    said += f"watch {other} 1\nwatch 999999999\n"
    try:
        subprocess.run(
            [sys.executable, "-m", "k2store.testing.keeper"], input=said, text=True, check=True
        )
        assert sleepers[0].wait(WAIT_S) == -signal.SIGKILL
        assert [one.poll() for one in sleepers[1:]] == [None, None]
    finally:
        for one in sleepers:
            one.kill()
            one.wait()


def test_ports_are_not_of_outgoing_connections() -> None:
    """Ports for nodes are all different, can be listened at, and are never given to a dial."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_settings_files_read_back() -> None:
    """What a node is told reads back as it was said, whatever characters it has."""
    said = {"node.name": 'a"b\\c\n', "tls.insecure": True, "node.oracle": 7, "node.data": "/ä b"}
    assert tomllib.loads(toml(said)) == {
        "node": {"name": 'a"b\\c\n', "oracle": 7, "data": "/ä b"},
        "tls": {"insecure": True},
    }
