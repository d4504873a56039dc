"""The nemesis of real processes: what is drawn, and that each mechanism shows what it did.

Mechanisms are tried on real processes, files and links, one by one; all of them together on a whole
cluster are in `tests/integration/test_check_cluster.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jepsen_like.nemesis import clocks, control_groups, disks, links, tracing
from jepsen_like.nemesis import nemesis as applying
from jepsen_like.nemesis.clocks import Measured
from jepsen_like.nemesis.drawing import DESTROYING, DISHONEST, SECOND_NS, STOPPING, Plan, draw
from jepsen_like.nemesis.drivers import DRIVERS
from jepsen_like.nemesis.links import Layer, Links
from jepsen_like.nemesis.nemesis import Nemesis
from jepsen_like.nemesis.processes import THROTTLED_S, state_of
from jepsen_like.nemesis.schedule import KINDS, Fault, Schedule, read, write
from jepsen_like.nemesis.turning import turning
from jepsen_like.nemesis.world import Broken, Running, Unable, World
from k2store.testing.disk_image import open_disks
from k2store.testing.disk_image import refusal as disk_refusal
from k2store.testing.wan import Wan, open_wan

WAIT_S = 10.0
NODES = tuple(f"{region}-{number}" for region in ("fra", "iad", "sin") for number in (1, 2, 3))
HOSTS = {name: name[:3] for name in NODES} | {f"client-{name}": name for name in ("fra", "iad")}
PLAN = Plan(hosts=HOSTS, nodes=NODES, keeper="fra-1", borders=("fra/x",), bound_ns=8_000_000)


def until(holds: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it never does."""
    patience = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < patience, "it never held"
        time.sleep(0.02)


@contextlib.contextmanager
def program(text: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program as a process of its own, ended with the block."""
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


# -- drawing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_schedules_have_every_kind_and_lose_one_copy_at_a_time(seed: int) -> None:
    """In a minute every kind comes, nodes are stopped one a region, and the keeper keeps its disk."""
    schedule = draw(random.Random(seed), PLAN, 60 * SECOND_NS)
    assert read(write(schedule)) == schedule
    missing = set(DRIVERS) - {fault.name for fault in schedule.faults} - set(DISHONEST)
    assert len(missing) <= 4, missing  # now and then no node is free
    stopping = [fault for fault in schedule.faults if fault.name in STOPPING]
    for one, other in zip(stopping, stopping[1:], strict=False):
        if one.target == other.target:
            assert other.at_ns > one.at_ns + one.for_ns
    destroying = sorted(fault.at_ns for fault in schedule.faults if fault.name in DESTROYING)
    assert all(
        later - one >= 10 * SECOND_NS
        for one, later in zip(destroying, destroying[1:], strict=False)
    )
    assert "fra-1" not in {fault.target for fault in schedule.faults if fault.name in DESTROYING}
    assert max(fault.at_ns + fault.for_ns for fault in schedule.faults) <= schedule.duration_ns


@pytest.mark.parametrize("seed", range(30))
def test_honest_clocks_stay_inside_their_bound(seed: int) -> None:
    """No drawn offset or drift leads beyond half of the bound, and no clock has two at a time."""
    schedule = draw(random.Random(seed), PLAN, 60 * SECOND_NS)
    ends: dict[str, int] = {}
    for fault in schedule.faults:
        if not fault.name.startswith("clock-"):
            continue
        assert fault.at_ns >= ends.get(fault.target, 0)
        ends[fault.target] = fault.at_ns + fault.for_ns
        offset_ns = abs(fault.amount)
        if fault.name == "clock-drift":
            offset_ns *= fault.for_ns / 1e9
        assert fault.name == "clock-doubt" or offset_ns < PLAN.bound_ns / 2


def test_dishonest_schedules_violate_the_bound() -> None:
    """Where clocks may break their word one does, by far more than its bound."""
    plan = Plan(
        **{name: getattr(PLAN, name) for name in PLAN.__struct_fields__} | {"honest": False}
    )
    schedule = draw(random.Random(1), plan, 60 * SECOND_NS)
    amounts = [abs(fault.amount) for fault in schedule.faults if fault.name == "clock-violation"]
    assert amounts
    assert min(amounts) > 10 * PLAN.bound_ns


def test_every_driver_has_a_name_that_schedules_know() -> None:
    """And what the issue of faults asks for is among them."""
    asked = (
        "kill pause power-cut disk-full fail-sync corrupt clock-step clock-drift clock-violation"
    )
    asked += (
        " one-way majority bridge ring flap slow-link lossy-link duplicate slow-disk starve-cpu"
    )
    asked += " starve-memory move split lose-disk stale-disk"
    assert set(asked.split()) <= set(DRIVERS) <= set(KINDS)


# -- processes -------------------------------------------------------------------------------------


def test_the_kernel_tells_who_stands_still() -> None:
    """T while a process is stopped, and not before or after."""
    with program("import time; time.sleep(60)") as process:
        assert state_of(process.pid) != "T"
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: state_of(process.pid) == "T")
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: state_of(process.pid) != "T")


_IDLE = """
import time
print("begun", flush=True)
time.sleep(0.3)
print("still there", flush=True)
time.sleep(60)
"""


def _needs_group(controller: str) -> None:
    try:
        folder = control_groups.own(controller)
        probe = folder / f"k2-probe-{os.getpid()}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED, control groups of {controller}: {error}")


def test_a_starved_process_is_throttled() -> None:
    """A process that wants all of a processor is kept from running, and an idle one is not."""
    _needs_group("cpu")
    with (
        program("while True: pass") as process,
        control_groups.processor(process.pid, 0.05) as group,
    ):
        until(lambda: group.throttled()[1] > THROTTLED_S)
    with program(_IDLE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with control_groups.processor(process.pid, 0.05) as group:
            process.stdout.readline()
            assert group.throttled()[1] < THROTTLED_S


def test_a_process_without_memory_is_refused_some() -> None:
    """One that grows beyond its limit has met it; one that does not has not."""
    _needs_group("memory")
    grows = "import time\nheld = []\nwhile True: held.append(bytearray(1 << 16)); time.sleep(0.001)"
    with program(grows) as process, control_groups.memory(process.pid, 1 << 20) as group:
        until(lambda: group.failures() > 0)
    with program(_IDLE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with control_groups.memory(process.pid, 64 << 20) as group:
            process.stdout.readline()
            assert group.failures() == 0


# -- disks -----------------------------------------------------------------------------------------

_SYNCS = """
import os, time
file = os.open("{path}", os.O_CREAT | os.O_WRONLY)
while True:
    os.write(file, b"x")
    try:
        os.fdatasync(file)
    except OSError as error:
        print(error.errno, flush=True)
    time.sleep(0.01)
"""


def test_syncs_fail_and_are_counted(tmp_path: Path) -> None:
    """The process sees EIO, and the tracer tells how often it did that."""
    if (reason := tracing.refusal()) is not None:
        pytest.skip(f"NOT TESTED, failing system calls: {reason}")
    with program(_SYNCS.format(path=tmp_path / "file")) as process:
        assert process.stdout is not None
        until((tmp_path / "file").exists)
        with tracing.syncs(process.pid, "error=EIO") as traced:
            assert int(process.stdout.readline()) == errno.EIO
            until(lambda: traced.count("INJECTED") > 0)
        with tracing.syncs(process.pid, "delay_enter=1000") as traced:
            until(lambda: traced.count("DELAYED") > 0)
            assert traced.count("INJECTED") == 0


def test_a_process_that_is_gone_cannot_be_traced() -> None:
    """Which is told, and not taken for a fault without effect."""
    if (reason := tracing.refusal()) is not None:
        pytest.skip(f"NOT TESTED, failing system calls: {reason}")
    with program("pass") as process:
        process.wait()
    with pytest.raises(OSError, match="strace"), tracing.syncs(process.pid, "error=EIO"):
        pass


@pytest.mark.root
def test_a_disk_that_is_full_and_one_that_lost_its_power(tmp_path: Path) -> None:
    """Full for everybody until it is freed; after a cut what was synced is there, the rest is not."""
    if (reason := disk_refusal()) is not None:
        pytest.skip(f"NOT TESTED, disks of their own: {reason}")
    with open_disks(("one",), size_bytes=16 << 20) as made:
        disk = made["one"]
        assert disk.fill() > 1 << 20
        with pytest.raises(OSError, match="No space left"):
            (disk.path / "more").write_bytes(bytes(1 << 16))
        disk.free()
        (disk.path / "more").write_bytes(bytes(1 << 16))
        with (disk.path / "kept").open("wb") as file:
            file.write(b"synced")
            file.flush()
            os.fsync(file.fileno())
        disk.cut()
        with pytest.raises(OSError, match=r"."):
            (disk.path / "late").write_bytes(b"x")
        assert disk.restore()
        assert (disk.path / "kept").read_bytes() == b"synced"


@pytest.mark.parametrize("seed", range(20))
def test_damage_turns_over_bits_of_what_was_written(tmp_path: Path, seed: int) -> None:
    """Exactly so many bits of one file differ, none of them in preallocated zeros."""
    before = {"log/a": b"\x01" * 500 + bytes(500), "settled/b": b"\xff" * 300, "empty": b""}
    for name, content in before.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    name, places = disks.damage(tmp_path, random.Random(seed), 1)
    changed = {one for one, content in before.items() if (tmp_path / one).read_bytes() != content}
    assert changed == {name}
    after = (tmp_path / name).read_bytes()
    differing = [
        index
        for index, (old, new) in enumerate(zip(before[name], after, strict=True))
        if old != new
    ]
    assert differing == places
    assert (before[name][places[0]] ^ after[places[0]]).bit_count() == 1
    assert places[0] < len(before[name].rstrip(b"\0"))


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead_ns", "detail", "shows"),
    [
        (400_000, "offset 0 ns, drift 0 ppm", None),
        (-2_000_000, "offset 0 ns, drift 0 ppm", "-2.00 ms"),
        (400_000, "offset 3000 ns, drift 0 ppm", "offset 3000 ns"),
    ],
)
def test_a_skew_is_measured_or_told(
    monkeypatch: pytest.MonkeyPatch, ahead_ns: int, detail: str, shows: str | None
) -> None:
    """An offset smaller than half the time of the answer may be none, unless the node says so."""
    found = Measured(ahead_ns, 500_000, 8_000_000, "", detail)
    monkeypatch.setattr(clocks, "measure", lambda world, node: found)
    seen = clocks._skew(cast("Any", None), cast("Any", None))
    assert (seen is None) if shows is None else (seen is not None and shows in seen)


# -- links -----------------------------------------------------------------------------------------


class Passing:
    """Bytes that pass from one place to another and back, through the proxy."""

    def __init__(self, wan: Wan, server: socket.socket) -> None:
        real = f"127.0.0.1:{server.getsockname()[1]}"
        wan.place("iad", real)
        host, _, port = wan.address("fra", real).rpartition(":")
        self.near = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.far, _ = server.accept()

    def send(self) -> None:
        """One piece in each direction."""
        self.near.sendall(b"x")
        self.far.sendall(b"y")


@contextlib.contextmanager
def linked() -> Iterator[tuple[Wan, World, Passing]]:
    """Two places with a connection, and a world that knows their links."""
    with (
        open_wan(("fra", "iad"), kind="proxy", jitter_ms=0) as wan,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        passing = Passing(wan, server)
        schedule = Schedule(duration_ns=1, hosts={"a": "fra", "b": "iad"}, faults=())
        world = cast(
            "World",
            SimpleNamespace(
                schedule=schedule, links=Links(wan, {"a": "fra", "b": "iad"}), cluster=None
            ),
        )
        with passing.near, passing.far:
            yield wan, world, passing


BOTH = (("a", "b"), ("b", "a"))


def ended(running: Running) -> str | None:
    """The evidence of a fault that ends now."""
    try:
        next(running)
    except StopIteration as over:
        return cast("str | None", over.value)
    raise AssertionError("a fault has two halves")


@pytest.mark.parametrize(
    ("driver", "amount"),
    [(links.cut, 0), (links.slow, 2e7), (links.lossy, 1.0)],
    ids=["cut", "slow", "lossy"],
)
def test_a_fault_of_links_shows_what_it_met(driver: Any, amount: float) -> None:
    """With something on the links there is evidence; without anything there is none."""
    with linked() as (wan, world, passing):
        fault = Fault(0, "one-way", 1, "", (("a", "b"),), amount)
        idle = driver(world, fault)
        next(idle)
        assert ended(idle) is None
        calm = wan.rule("fra", "iad")
        running = driver(world, fault)
        next(running)
        assert wan.rule("fra", "iad") != calm
        assert wan.rule("iad", "fra") == calm
        before = world.links.counts([("fra", "iad")])
        passing.send()
        until(lambda: world.links.counts([("fra", "iad")]) != before)
        until(lambda: _met(world) or driver is links.slow)
        assert ended(running) is not None
        assert wan.rule("fra", "iad") == calm


def _met(world: World) -> bool:
    counts = world.links.counts([("fra", "iad")])
    return counts.cut > 0 or counts.lost > 0


def test_layers_of_faults_end_one_by_one() -> None:
    """Two faults on one direction: each takes away only what it has brought."""
    with linked() as (wan, world, _):
        way = [("fra", "iad")]
        cut, slow = Layer(cut=True), Layer(extra_s=0.5)
        calm = wan.rule("fra", "iad")
        world.links.put(way, cut)
        world.links.put(way, slow)
        assert wan.rule("fra", "iad").cut
        assert wan.rule("fra", "iad").delay_s == pytest.approx(calm.delay_s + 0.5)
        world.links.take(way, cut)
        assert not wan.rule("fra", "iad").cut
        assert wan.rule("fra", "iad").delay_s == pytest.approx(calm.delay_s + 0.5)
        world.links.take(way, slow)
        assert wan.rule("fra", "iad") == calm


def test_a_link_that_flaps_is_cut_and_open_and_ends_open() -> None:
    """Both are shown: what met the cut, and what passed between."""
    with linked() as (wan, world, passing):
        running = links.flap(world, Fault(0, "flap", 1, "", BOTH, 1e8))
        next(running)

        def met_both() -> bool:
            passing.send()
            counts = world.links.counts([("fra", "iad"), ("iad", "fra")])
            return counts.cut > 0 and counts.delivered > 3

        until(met_both)
        told = ended(running)
        assert told is not None
        assert "met a cut" in told
        assert not wan.rule("fra", "iad").cut


def test_turning_ends_with_its_block() -> None:
    """At least once, and never again afterwards."""
    turns: list[int] = []
    with turning(0.01, lambda: turns.append(1)) as turned:
        until(lambda: turned.count > 2)
    assert turned.count == len(turns)
    assert not [thread for thread in threading.enumerate() if thread.name == "fault"]


# -- applying --------------------------------------------------------------------------------------


def _effective(world: World, fault: Fault) -> Running:
    yield
    return "it was seen"


def _idle(world: World, fault: Fault) -> Running:
    yield
    return None


def _unable(world: World, fault: Fault) -> Running:
    raise Unable("not here")
    yield


def _broken(world: World, fault: Fault) -> Running:
    yield
    raise Broken("it did not come back")


def test_each_fault_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Effective, idle, skipped and broken are told apart; what is broken is a finding."""
    drivers = {"kill": _effective, "pause": _idle, "stop": _unable, "power-cut": _broken}
    monkeypatch.setattr(applying, "DRIVERS", drivers)
    names = (*drivers, "misdirect")
    schedule = Schedule(
        duration_ns=50_000_000,
        hosts=HOSTS,
        faults=tuple(Fault(0, name, 1_000_000, "fra-1") for name in names),
    )
    world = cast("World", SimpleNamespace(schedule=schedule, cluster=SimpleNamespace(nodes={})))
    nemesis = Nemesis(world)
    asyncio.run(nemesis.run())
    assert {one.fault.name: one.state for one in nemesis.applied} == {
        "kill": "effective",
        "pause": "idle",
        "stop": "skipped",
        "power-cut": "broken",
        "misdirect": "skipped",
    }
    assert nemesis.broken == ["power-cut of fra-1: it did not come back"]
