"""What happens to a log whose bytes are not what was written: never a silent loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from k2store.errors import Corruption
from k2store.storage import (
    FormatUnknown,
    OpenStore,
    Quarantined,
    StorageFailed,
    StorageOptions,
    lift_quarantine,
)
from tests.contract.storage_machines import SMALL, FileMachine, SimulatedMachine

TINY = StorageOptions(segment_bytes=1 << 14, memtable_bytes=1 << 16, cache_bytes=1 << 16)


def write_history(store: OpenStore, *, unsynced: int = 2) -> list[bytes]:
    """Three segments of small turns, each synced, and a few that are not; give the acknowledged
    ones."""
    turns = [b"turn %d " % number + bytes([number]) * (number * 5 % 70) for number in range(1, 49)]
    for number, turn in enumerate(turns, 1):
        if number in {17, 33}:
            store.log.begin_segment(turn)
        else:
            store.log.append(turn)
            store.log.sync()
    for number in range(unsynced):
        store.log.append(b"never acknowledged %d" % number)
    return turns


def replayed(store: OpenStore) -> list[bytes]:
    """Everything the log gives."""
    return [turn.payload for turn in store.log.replay(store.log.first_lsn)]


def outcome(open_: Callable[[], OpenStore], acknowledged: list[bytes]) -> str:
    """Open and judge: 'refused', or 'whole' when everything acknowledged is there in order."""
    try:
        store = open_()
    except (Corruption, FormatUnknown):
        return "refused"
    try:
        found = replayed(store)
    finally:
        store.close()
    assert found[: len(acknowledged)] == acknowledged, "acknowledged turns were lost in silence"
    return "whole"


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    """For every byte in use of every file, one flipped bit there is refused or loses nothing, and
    a flip inside an acknowledged turn is always refused."""
    machine = SimulatedMachine(TINY)
    acknowledged = write_history(machine.open())
    machine.machine.kill(machine.random)
    disk = machine.machine.disk
    verdicts: dict[str, dict[str, int]] = {}
    for name in disk.names():
        content = disk.open(name).load()
        used = len(content.rstrip(b"\0")) + 8
        tally = verdicts.setdefault(name, {"refused": 0, "whole": 0})
        for offset in range(min(used, len(content))):
            if 200 <= offset < 4096 and name != "watermark":
                continue  # the rest of a header's block, zeros that nobody reads
            bit = machine.random.randrange(8)
            saved = disk.snapshot()
            disk.flip(name, offset, bit)
            tally[outcome(machine.open, acknowledged)] += 1
            machine.machine.quarantine = None
            disk.restore(saved)
    for name in ("0000000000000001.segment", "0000000000000002.segment"):
        # Only the padding between turns (up to 7 bytes each) and the empty rest may be harmless.
        assert verdicts[name]["refused"] > 16 * 60
        assert verdicts[name]["whole"] < 16 * 7 + 200 - 112 + 8 + 8
    assert verdicts["watermark"]["whole"] > 0


@pytest.mark.parametrize("seed", range(40))
def test_real_files_notice_flips(tmp_path: Path, seed: int) -> None:
    """The same on real files, at random places, with the settled rows beside."""
    machine = FileMachine(tmp_path / "store", TINY)
    store = machine.open()
    acknowledged = write_history(store)
    machine.stop(store)
    random = Random(seed)
    file = random.choice(sorted((machine.path / "log").iterdir()))
    content = bytearray(file.read_bytes())
    at = random.randrange(len(content.rstrip(b"\0")))
    content[at] ^= 1 << random.randrange(8)
    file.write_bytes(content)
    assert outcome(machine.open, acknowledged) in {"refused", "whole"}


@pytest.mark.parametrize("seed", range(300))
def test_a_power_cut_loses_only_what_was_never_acknowledged(seed: int) -> None:
    """Whatever sectors survive of what was not synced, the log opens by itself, gives a prefix of
    what was appended, and all that was synced is in it; several cuts in a row."""
    machine = SimulatedMachine(TINY, seed)
    random = machine.random
    kept: list[bytes] = []
    for _ in range(3):
        store = machine.open()
        found = replayed(store)
        assert found[: len(kept)] == kept
        written = list(found)
        kept = list(found)  # what recovery shows is durable from then on
        for number in range(random.randrange(40)):
            turn = b"seed %d turn %d " % (seed, number) + random.randbytes(random.randrange(900))
            if random.randrange(12) == 0:
                store.log.begin_segment(turn)
                written.append(turn)
                kept = list(written)
            else:
                store.log.append(turn)
                written.append(turn)
                if random.randrange(3) == 0:
                    store.log.sync()
                    kept = list(written)
        machine.machine.power_cut(random)
        survivors = replayed(machine.open())
        machine.machine.kill(random)
        assert survivors == written[: len(survivors)]
        assert len(survivors) >= len(kept)
        kept = survivors


def test_a_turn_cut_off_never_comes_back() -> None:
    """After a torn tail was cut, appending the very same turn again does not revive the torn
    one's successors that still lie on the disk."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    store.log.append(b"acknowledged")
    store.log.sync()
    first = store.log.append(b"torn")
    store.log.append(b"successor")
    machine.stop(store)
    disk = machine.machine.disk
    name = "0000000000000001.segment"
    at = disk.open(name).load().index(b"torn")
    disk.flip(name, at, 0)
    store = machine.open()
    assert replayed(store) == [b"acknowledged"]
    assert store.log.append(b"torn") == first
    store.log.sync()
    machine.stop(store)
    assert replayed(machine.open()) == [b"acknowledged", b"torn"]


@pytest.mark.parametrize("seed", range(20))
def test_what_a_restart_found_outlives_a_power_cut(seed: int) -> None:
    """Turns that a killed process left in the page cache count as durable once the log is open
    again, so a power cut right after the restart does not take them."""
    machine = SimulatedMachine(TINY, seed)
    store = machine.open()
    for number in range(10):
        store.log.append(b"never synced %d" % number)
    machine.stop(store)
    found = replayed(machine.open())
    assert len(found) == 10
    machine.machine.power_cut(machine.random)
    assert replayed(machine.open()) == found


def test_another_history_of_the_same_length_is_refused() -> None:
    """A log that reads well and is long enough, but is not the one whose turns were
    acknowledged, does not open."""
    contents = []
    for word in (b"this", b"that"):
        machine = SimulatedMachine(TINY, seed=5)  # one seed: the same store, the same salts
        store = machine.open()
        store.log.append(word)
        store.log.sync()
        machine.stop(store)
        contents.append(machine.machine.disk.snapshot())
    machine.machine.disk.restore({**contents[0], "watermark": contents[1]["watermark"]})
    with pytest.raises(Corruption, match="not the one whose turns were acknowledged"):
        machine.open()


def test_the_watermark_catches_the_very_last_turn() -> None:
    """A flip in the last acknowledged turn, after which nothing was written, is refused."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    acknowledged = write_history(store, unsynced=0)
    machine.stop(store)
    disk = machine.machine.disk
    name = "0000000000000003.segment"
    disk.flip(name, disk.open(name).load().index(acknowledged[-1]), 3)
    with pytest.raises(Corruption) as caught:
        machine.open()
    assert caught.value.file == name  # type: ignore[attr-defined]
    assert caught.value.lsn == caught.value.acknowledged_lsn == 48  # type: ignore[attr-defined]
    assert "turns up to 48 were acknowledged" in str(caught.value)


def test_later_turns_prove_what_was_durable() -> None:
    """With a watermark that a power cut left far behind, a damaged turn is still refused: the
    turns after it say that it had been durable."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    disk = machine.machine.disk
    old = disk.open("watermark").load()
    for number in range(5):
        store.log.append(b"turn %d" % number)
        store.log.sync()
    machine.stop(store)
    disk.open("watermark").store(0, old)
    name = "0000000000000001.segment"
    disk.flip(name, disk.open(name).load().index(b"turn 2"), 0)
    with pytest.raises(Corruption, match="Readable up to turn 2; turns up to 4 were ack"):
        machine.open()


def test_a_value_that_looks_like_a_turn_is_no_proof() -> None:
    """Bytes of a real frame inside a payload do not turn a torn tail into damage."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    for number in range(5):
        store.log.append(b"turn %d" % number)
        store.log.sync()
    name = "0000000000000001.segment"
    disk = machine.machine.disk
    frames = disk.open(name).load()[4096 : 4096 + 5 * 64]
    other = SimulatedMachine(TINY, seed=2)
    store = other.open()
    store.log.append(b"acknowledged")
    store.log.sync()
    store.log.append(b"padding!" * 2 + frames)
    other.stop(store)
    disk = other.machine.disk
    disk.flip(name, disk.open(name).load().index(b"padding!"), 0)
    assert replayed(other.open()) == [b"acknowledged"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("harm", ["lost", "short", "swapped"])
def test_a_harmed_segment_is_refused(number: int, harm: str) -> None:
    """A lost, shortened or exchanged segment is noticed, the last one too."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    write_history(store)
    machine.stop(store)
    disk = machine.machine.disk
    name = f"{number:016d}.segment"
    if harm == "lost":
        disk.lose(name)
    elif harm == "short":
        disk.truncate(name, TINY.segment_bytes - 512)
    else:
        other = f"{number % 3 + 1:016d}.segment"
        disk.rename(name, "aside")
        disk.rename(other, name)
        disk.rename("aside", other)
    with pytest.raises(Corruption):
        machine.open()


@pytest.mark.parametrize("seed", range(20))
def test_an_interrupted_drop_is_finished(seed: int) -> None:
    """A power cut in the middle of dropping segments leaves a log that opens, whether the files
    went or not."""
    machine = SimulatedMachine(TINY, seed)
    store = machine.open()
    write_history(store, unsynced=0)
    store.settled.mark_applied(32)
    store.log.sync()
    machine.machine.disk.syncs_to_fail = 0
    real = machine.machine.disk.sync_directory
    machine.machine.disk.sync_directory = lambda: machine.machine.power_cut(machine.random)  # type: ignore[method-assign]
    store.settled.flush()
    store.log.drop_before(33)
    machine.machine.disk.sync_directory = real  # type: ignore[method-assign]
    store = machine.open()
    assert store.log.first_lsn == 33
    store.log.begin_segment(b"goes on")
    assert len(replayed(store)) == 17


@pytest.mark.parametrize("method", ["append", "sync", "begin_segment", "drop_before"])
def test_a_failing_disk_poisons_the_log(method: str) -> None:
    """The first refusal of the disk is final: nothing is acknowledged after it, even though the
    disk would take it again."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    log = store.log
    write_history(store, unsynced=1)
    durable = log.durable_lsn
    disk = machine.machine.disk
    if method == "append":
        disk.writes_to_fail = 1
    else:
        disk.syncs_to_fail = 1
    attempts: dict[str, Callable[[], int]] = {
        "append": lambda: log.append(b"x"),
        "sync": log.sync,
        "begin_segment": lambda: log.begin_segment(b"x"),
        "drop_before": lambda: log.drop_before(17),
    }
    with pytest.raises(StorageFailed):
        attempts[method]()
    assert log.failed is not None
    assert log.durable_lsn == durable
    for attempt in attempts.values():
        with pytest.raises(StorageFailed, match="must stop"):
            attempt()


def test_a_failed_sync_in_a_thread_poisons_the_log() -> None:
    """The failure is raised where the result is taken, not in the thread."""
    machine = SimulatedMachine(TINY)
    log = machine.open().log
    log.append(b"x")
    pending = log.begin_sync()
    machine.machine.disk.syncs_to_fail = 1
    pending.run()
    with pytest.raises(StorageFailed):
        log.finish_sync(pending)
    assert log.durable_lsn == 0
    with pytest.raises(StorageFailed):
        log.append(b"y")


@pytest.mark.parametrize("seed", range(30))
def test_a_failed_sync_acknowledges_nothing(seed: int) -> None:
    """After a failed sync the page cache lies: a later sync would succeed without the data.  The
    poisoned log never tells anybody, so the power cut that follows loses nothing acknowledged."""
    machine = SimulatedMachine(TINY, seed)
    store = machine.open()
    acknowledged = write_history(store)
    machine.machine.disk.syncs_to_fail = 1
    with pytest.raises(StorageFailed):
        store.log.sync()
    with pytest.raises(StorageFailed):
        store.log.sync()
    machine.machine.power_cut(machine.random)
    assert outcome(machine.open, acknowledged) == "whole"


def test_a_full_disk_fails_stop_and_loses_nothing() -> None:
    """When no further segment fits, the log stops with a typed error; what was acknowledged is
    there when it is opened again with room."""
    machine = SimulatedMachine(TINY)
    store = machine.open()
    machine.machine.disk.capacity_bytes = 3 * TINY.segment_bytes
    acknowledged: list[bytes] = []

    def fill() -> None:
        for number in range(1000):
            turn = b"turn %d" % number * 30
            store.log.append(turn)
            store.log.sync()
            acknowledged.append(turn)

    with pytest.raises(StorageFailed, match="no space left"):
        fill()
    assert len(acknowledged) > 80
    machine.stop(store)
    machine.machine.disk.capacity_bytes = None
    assert outcome(machine.open, acknowledged) == "whole"


def test_damage_quarantines_the_store(tmp_path: Path) -> None:
    """A start that found damage makes every later start refuse, with the reason, until an
    operator lifts the quarantine; then the data is verified anew."""
    machine = FileMachine(tmp_path / "store", TINY)
    store = machine.open()
    write_history(store)
    machine.stop(store)
    file = machine.path / "log" / "0000000000000001.segment"
    whole = file.read_bytes()
    broken = bytearray(whole)
    broken[whole.index(b"turn 3")] ^= 1
    file.write_bytes(broken)
    with pytest.raises(Corruption, match="acknowledged"):
        machine.open()
    file.write_bytes(whole)
    with pytest.raises(Quarantined, match="k2 restore") as caught:
        machine.open()
    assert "0000000000000001.segment" in caught.value.reason
    assert lift_quarantine(machine.path) == caught.value.reason
    assert lift_quarantine(machine.path) is None
    machine.open().close()


def test_a_running_node_can_quarantine_its_store(tmp_path: Path) -> None:
    """Damage found while serving closes the store for later starts as well, files or memory."""
    simulated = SimulatedMachine(TINY)
    for machine in (FileMachine(tmp_path / "store", TINY), simulated):
        store = machine.open()
        store.quarantine("a row did not verify")
        machine.stop(store)
        with pytest.raises(Quarantined, match="a row did not verify"):
            machine.open()


def test_the_log_and_the_settled_rows_must_meet() -> None:
    """Rows settled beyond the end of the log, or a log that begins after them, are damage."""
    machine = SimulatedMachine(SMALL)
    store = machine.open()
    store.log.append(b"x")
    store.settled.mark_applied(2)
    store.settled.flush()
    machine.stop(store)
    with pytest.raises(Corruption, match="the log ends with 1"):
        machine.open()

    machine = SimulatedMachine(SMALL)
    store = machine.open()
    store.log.append(b"x")
    begun = store.log.begin_segment(b"checkpoint")
    store.log.drop_before(begun)
    machine.stop(store)
    with pytest.raises(Corruption, match="the log begins with 2"):
        machine.open()
