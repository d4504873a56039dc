"""The simulated disk keeps what was synced and nothing else for sure; the real log lives on it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from k2store.errors import Corruption
from k2store.storage.disk import Cell, Disk, File
from k2store.storage.failures import StorageFailed
from k2store.testing.simulation import (
    MILLISECOND_NS,
    SIMULATOR_PROBES,
    Environment,
    Probes,
    SimDisk,
    Simulation,
    Trace,
)
from k2store.testing.simulation.disk import PAGE_BYTES, SECTOR_BYTES


def make_disk(seed: int = 1) -> tuple[SimDisk, Probes]:
    """A disk of its own."""
    probes = Probes(SIMULATOR_PROBES)
    return SimDisk(random.Random(seed), Trace(lambda: 0), probes), probes


def test_the_ports_are_implemented():
    """A mount is a Disk, its files are Files and its mappings Cells."""
    disk, _ = make_disk()
    mount: Disk = disk.mount()
    file: File = mount.create("a", 10)
    cell: Cell = mount.map("a")
    cell.store(2, b"xy")
    assert file.read(0, 100) == b"\0\0xy" + bytes(6)
    assert cell.load() == file.read(0, file.size)
    assert mount.names() == ["a"]


def test_a_power_cut_keeps_loses_and_tears_what_was_not_synced():
    """Over seeds each of two un-synced writes survives alone, and one survives in sectors."""
    seen: Counter[str] = Counter()
    for seed in range(200):
        disk, _ = make_disk(seed)
        file = disk.mount().create("a", 4 * PAGE_BYTES)
        disk.mount().sync_directory()
        file.write(0, b"synced")
        file.datasync()
        file.write(SECTOR_BYTES, b"1" * 3 * SECTOR_BYTES)
        file.write(PAGE_BYTES, b"2" * SECTOR_BYTES)
        disk.power_cut()
        file = disk.mount().open("a")
        assert file.read(0, 6) == b"synced"
        first = file.read(SECTOR_BYTES, 3 * SECTOR_BYTES)
        second = file.read(PAGE_BYTES, SECTOR_BYTES)
        sectors = {first[n * SECTOR_BYTES : (n + 1) * SECTOR_BYTES] for n in range(3)}
        assert sectors <= {b"1" * SECTOR_BYTES, bytes(SECTOR_BYTES)}
        assert second in (b"2" * SECTOR_BYTES, bytes(SECTOR_BYTES))
        seen["torn"] += len(sectors) == 2
        seen["only the later"] += not any(first) and any(second)
        seen["only the earlier"] += all(first) and not any(second)
        seen["both"] += all(first) and any(second)
        seen["none"] += not any(first) and not any(second)
    assert len(+seen) == 5


def test_the_death_of_a_process_loses_nothing():
    """What was written without a sync is there for the next process, whose handles are new."""
    disk, _ = make_disk()
    mount = disk.mount()
    file = mount.create("a", 10)
    file.write(0, b"x")
    mount.detach()
    disk.process_died()
    assert disk.mount().open("a").read(0, 1) == b"x"
    for act in (lambda: file.write(0, b"y"), file.datasync, mount.names):
        with pytest.raises(OSError, match="dead"):
            act()
    assert disk.mount().open("a").read(0, 1) == b"x"


def test_names_survive_a_power_cut_only_after_their_directory_is_synced():
    """Of several changes to names a first part survives; after a sync of the directory all do."""
    kept = set()
    for seed in range(60):
        disk, _ = make_disk(seed)
        mount = disk.mount()
        mount.create("a", 1)
        mount.sync_directory()
        mount.rename("a", "b")
        mount.create("c", 1)
        mount.remove("b")
        disk.power_cut()
        kept.add(tuple(disk.mount().names()))
    assert kept == {("a",), ("b",), ("b", "c"), ("c",)}
    disk, _ = make_disk()
    mount = disk.mount()
    mount.create("a", 1)
    mount.rename("a", "b")
    mount.sync_directory()
    disk.power_cut()
    assert disk.mount().names() == ["b"]


def test_a_sync_that_succeeds_does_not_mend_one_that_failed():
    """What a failed sync covered stays visible, is never durable, and goes with the process."""
    lost = 0
    for seed in range(40):
        disk, probes = make_disk(seed)
        mount = disk.mount()
        file = mount.create("a", PAGE_BYTES)
        mount.sync_directory()
        file.write(0, b"doomed")
        disk.fail_syncs()
        with pytest.raises(OSError, match="refused to sync"):
            file.datasync()
        assert file.read(0, 6) == b"doomed"
        file.write(SECTOR_BYTES, b"later")
        file.datasync()
        assert file.read(0, 6) == b"doomed"
        disk.process_died()
        file = disk.mount().open("a")
        assert file.read(SECTOR_BYTES, 5) == b"later"
        lost += file.read(0, 6) != b"doomed"
        assert probes.counts["disk.sync_failed"] == 1
    assert 5 < lost < 35


def test_orders_are_met_and_taken_back():
    """Full disk, failing read, misdirected write and flipped bit happen when ordered, then end."""
    disk, _ = make_disk()
    mount = disk.mount()
    file = mount.create("a", 8 * PAGE_BYTES)
    file.write(0, b"content")
    file.datasync()
    disk.capacity_bytes = disk.used_bytes
    with pytest.raises(OSError, match="no space"):
        mount.create("b", 1)
    disk.fail_reads()
    with pytest.raises(OSError, match="cannot read"):
        file.read(0, 1)
    assert file.read(0, 7) == b"content"
    disk.misdirect_writes()
    before = file.read(0, file.size)
    file.write(3 * PAGE_BYTES + 7, b"z" * 100)
    after = file.read(0, file.size)
    assert after.count(b"z") == 100
    assert after.index(b"z") % PAGE_BYTES == 0
    assert before != after
    file.datasync()
    where = disk.flip_bit()
    assert where is not None
    flipped = int.from_bytes(file.read(0, file.size)) ^ int.from_bytes(after)
    assert flipped.bit_count() == 1
    assert disk.faults == 4
    disk.fail_syncs(3)
    disk.behave()
    file.datasync()
    mount.create("b", 1)


def test_old_copies_and_new_disks():
    """A restored copy is what the platter had then; a wiped disk is empty."""
    disk, _ = make_disk()
    mount = disk.mount()
    file = mount.create("a", 10)
    mount.sync_directory()
    file.write(0, b"1")
    file.datasync()
    file.write(0, b"2")
    copy = disk.snapshot()
    file.datasync()
    disk.restore(copy)
    assert disk.mount().open("a").read(0, 1) == b"1"
    disk.wipe()
    assert disk.mount().names() == []


def write_turns(acknowledged: list[bytes], recovered: list[int], *, careless: bool):
    """A main that checks that all acknowledged turns are there, then appends more of them."""

    async def main(environment: Environment) -> None:
        store = environment.open_store()
        turns = [turn.payload for turn in store.log.replay(store.log.first_lsn)]
        assert turns[: len(acknowledged)] == acknowledged or careless
        recovered.append(len(turns))
        acknowledged[:] = turns
        chance = environment.random("payloads")
        while not environment.stopping.is_set():
            batch = [chance.randbytes(chance.randrange(600)) for _ in range(3)]
            for payload in batch:
                store.log.append(payload)
            pending = store.log.begin_sync()
            if not careless:
                await environment.offload(pending.run)
                store.log.finish_sync(pending)
            acknowledged.extend(batch)
            if careless:
                await environment.offload(pending.run)
                store.log.finish_sync(pending)

    return main


@pytest.mark.parametrize("seed", range(10))
def test_the_real_log_loses_nothing_that_it_acknowledged(seed):
    """Through twenty kills, power cuts and failed syncs every synced turn is found again."""
    acknowledged: list[bytes] = []
    recovered: list[int] = []
    with Simulation(seed) as simulation:
        process = simulation.process(
            "node",
            write_turns(acknowledged, recovered, careless=False),
            fail_stop=(StorageFailed,),
        )
        chance = simulation.random("test")
        for _ in range(20):
            simulation.run_for(chance.randrange(1, 4 * MILLISECOND_NS))
            match chance.randrange(3):
                case 0:
                    process.kill()
                case 1:
                    process.power_cut()
                case 2:
                    process.machine.disk.fail_syncs()
                    simulation.run_for(1 * MILLISECOND_NS)
                    assert isinstance(process.exits[-1], StorageFailed)
            simulation.machines["node"].behave()
            process.start()
        simulation.run_for(1 * MILLISECOND_NS)
        assert len(recovered) == 21
        assert recovered == sorted(recovered)
        assert recovered[-1] > 60


def test_a_log_that_acknowledges_before_it_syncs_is_caught():
    """After power cuts the same test finds in some seeds that acknowledged turns are gone."""
    losses = 0
    for seed in range(20):
        acknowledged: list[bytes] = []
        with Simulation(seed) as simulation:
            process = simulation.process("node", write_turns(acknowledged, [], careless=True))
            simulation.run_for(1 * MILLISECOND_NS + seed * 10_000)
            before = list(acknowledged)
            process.power_cut()
            process.start()
            simulation.run_for(1)
            losses += acknowledged[: len(before)] != before
    assert losses > 3


def test_a_flipped_bit_is_noticed_or_harmless():
    """After a bit flipped, opening either finds every acknowledged turn or reports corruption."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        acknowledged: list[bytes] = []
        with Simulation(seed) as simulation:
            process = simulation.process(
                "node", write_turns(acknowledged, [], careless=False), fail_stop=(Corruption,)
            )
            simulation.run_for(2 * MILLISECOND_NS)
            process.kill()
            assert process.machine.disk.flip_bit() is not None
            process.start()
            simulation.run_for(1)
            if process.exits:
                seen["noticed"] += 1
                process.start()
                simulation.run_for(1)
                assert len(process.exits) == 2, "it stays in quarantine"
            else:
                seen["harmless"] += 1
    assert seen["noticed"] > 10
