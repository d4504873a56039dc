"""What every log promises, on real files and on simulated ones."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2store.storage import OpenStore, StorageFailed
from k2store.storage.sync_thread import SyncThread
from tests.contract.storage_machines import KINDS, SMALL, Machine, SimulatedMachine, machine_of


@pytest.fixture(params=KINDS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """Each kind of machine, empty."""
    return machine_of(request.param, tmp_path / "store")


@pytest.fixture
def store(machine: Machine) -> Iterator[OpenStore]:
    """A store on it."""
    opened = machine.open()
    yield opened
    opened.close()


def payloads(store: OpenStore, from_lsn: int | None = None) -> list[bytes]:
    """What replay gives."""
    return [turn.payload for turn in store.log.replay(from_lsn)]


def test_a_new_log_is_empty(store: OpenStore) -> None:
    """A new log begins with turn 1 and has nothing to replay."""
    log = store.log
    assert (log.first_lsn, log.next_lsn, log.durable_lsn, log.checkpoint_lsn) == (1, 1, 0, 0)
    assert payloads(store) == []
    assert log.failed is None
    assert not log.segment_full


def test_turns_are_numbered_and_durable_after_a_sync(store: OpenStore) -> None:
    """Appending numbers turns without gaps; only a sync moves the durable number."""
    assert [store.log.append(b"a"), store.log.append(b""), store.log.append(b"c")] == [1, 2, 3]
    assert store.log.durable_lsn == 0
    assert store.log.sync() == 3
    assert store.log.sync() == 3
    assert payloads(store) == [b"a", b"", b"c"]


def test_synced_turns_are_there_after_a_stop(machine: Machine) -> None:
    """A stopped and reopened log gives the same turns and continues their chain and numbers."""
    store = machine.open()
    for number in range(300):
        store.log.append(b"%d" % number * (number % 50))
        if number % 7 == 0:
            store.log.sync()
    store.log.sync()
    before, chain = payloads(store), store.log.hash
    machine.stop(store)
    store = machine.open()
    assert payloads(store) == before
    assert (store.log.hash, store.log.next_lsn, store.log.durable_lsn) == (chain, 301, 300)
    assert store.log.append(b"next") == 301
    machine.stop(store)


def test_appended_turns_survive_the_process(machine: Machine) -> None:
    """What was appended but not synced outlives the process (not the machine), and is durable
    once the log is open again."""
    store = machine.open()
    store.log.append(b"never synced")
    machine.stop(store)
    store = machine.open()
    assert payloads(store) == [b"never synced"]
    assert store.log.durable_lsn == 1
    store.close()


def test_the_chain_tells_histories_apart() -> None:
    """The chain depends on every payload and on their order and borders."""

    def chain(*turns: bytes) -> bytes:
        log = SimulatedMachine().open().log
        for turn in turns:
            log.append(turn)
        return log.hash

    assert chain(b"x", b"y") == chain(b"x", b"y")
    assert len({chain(b"x", b"y"), chain(b"y", b"x"), chain(b"xy"), chain(b"x"), chain()}) == 5


def test_a_full_segment_asks_for_a_checkpoint_and_goes_on(store: OpenStore) -> None:
    """The hint comes at three quarters; without a checkpoint the log moves on by itself."""
    log = store.log
    while not log.segment_full:
        log.append(bytes(1000))
    assert SMALL.segment_bytes * 3 // 4 <= 4096 + (log.next_lsn - 1) * 1056 <= SMALL.segment_bytes
    for _ in range(200):
        log.append(bytes(1000))
    assert log.segment_full
    assert log.checkpoint_lsn == 0
    assert len(payloads(store)) == log.next_lsn - 1


def test_a_turn_may_be_larger_than_a_segment(machine: Machine) -> None:
    """Turns and checkpoints beyond a segment's size are kept whole, and so are their followers."""
    store = machine.open()
    big = bytes(range(256)) * 1024
    store.log.append(b"small")
    store.log.append(big)
    store.log.append(b"after")
    store.log.begin_segment(big + b"!")
    store.log.append(b"last")
    store.log.sync()
    everything = payloads(store, 1)
    assert everything == [b"small", big, b"after", big + b"!", b"last"]
    machine.stop(store)
    store = machine.open()
    assert payloads(store, 1) == everything
    store.close()


def test_a_checkpoint_begins_a_segment_and_replay(machine: Machine) -> None:
    """Replay starts with the newest checkpoint, which is durable on return, before and after a
    stop."""
    store = machine.open()
    store.log.append(b"old")
    assert store.log.begin_segment(b"state") == 2
    assert store.log.durable_lsn == store.log.checkpoint_lsn == 2
    store.log.append(b"new")
    store.log.sync()
    for _ in range(2):
        turns = list(store.log.replay())
        assert [(turn.lsn, turn.checkpoint, turn.payload) for turn in turns] == [
            (2, True, b"state"),
            (3, False, b"new"),
        ]
        machine.stop(store)
        store = machine.open()
        assert store.log.checkpoint_lsn == 2
    store.close()


def test_dropping_forgets_whole_segments_only(machine: Machine) -> None:
    """Segments before a turn are dropped, the rest stays, also after a stop."""
    store = machine.open()
    store.log.append(b"a")
    store.log.begin_segment(b"one")
    store.log.append(b"b")
    second = store.log.begin_segment(b"two")
    assert store.log.drop_before(1) == 0
    assert store.log.drop_before(second - 1) == 1
    assert store.log.first_lsn == 2
    assert store.log.drop_before(second) == 1
    assert store.log.drop_before(second + 1) == 0
    assert store.log.first_lsn == second
    store.settled.mark_applied(second - 1)
    store.settled.flush()
    machine.stop(store)
    store = machine.open()
    assert store.log.first_lsn == second
    assert payloads(store) == [b"two"]
    with pytest.raises(ValueError, match="is not in"):
        store.log.replay(second - 1)
    store.close()


def test_dropping_beyond_the_durable_turn_is_refused(store: OpenStore) -> None:
    """Nobody can have settled what is not durable."""
    store.log.append(b"a")
    with pytest.raises(ValueError, match="beyond what is durable"):
        store.log.drop_before(2)


def test_dropped_segments_are_used_again(machine: Machine) -> None:
    """In a steady state of checkpoints and drops the log does not grow, and what recycled files
    held before never comes back."""
    store = machine.open()
    sizes = set()
    for round_number in range(12):
        for number in range(40):
            store.log.append(b"round %d turn %d " % (round_number, number) * 20)
        begun = store.log.begin_segment(b"checkpoint %d" % round_number)
        store.settled.mark_applied(begun - 1)
        store.log.drop_before(store.settled.flush() + 1)
        sizes.add(store.log.size_bytes)
        if round_number % 4 == 3:
            machine.stop(store)
            store = machine.open()
            assert payloads(store) == [b"checkpoint %d" % round_number]
    assert max(sizes) <= 3 * SMALL.segment_bytes
    store.close()


def test_a_prepared_segment_is_used(store: OpenStore) -> None:
    """A spare made ahead of time is what the next checkpoint takes."""
    worker = threading.Thread(target=store.log.prepare_segment)
    worker.start()
    worker.join()
    store.log.prepare_segment()
    ready = store.log.size_bytes
    assert ready == 2 * SMALL.segment_bytes
    store.log.begin_segment(b"x")
    assert store.log.size_bytes == ready


def test_a_sync_may_run_in_a_thread(store: OpenStore) -> None:
    """A sync begun here and run elsewhere covers what was appended before it began, no more."""
    store.log.append(b"covered")
    pending = store.log.begin_sync()
    store.log.append(b"later")
    worker = threading.Thread(target=pending.run)
    worker.start()
    worker.join()
    assert store.log.finish_sync(pending) == pending.lsn == store.log.durable_lsn == 1
    assert store.log.sync() == 2


def test_work_may_be_done_while_the_disk_syncs(store: OpenStore) -> None:
    """It is done once, in the same thread, and the sync covers what was appended before; without
    anything to sync there is nothing to wait for, and it is not called."""
    done: list[threading.Thread] = []

    def work() -> None:
        assert store.log.durable_lsn == len(done)
        store.settled.settle(1, [(b"k%d" % len(done), 5, b"v")])
        done.append(threading.current_thread())

    for lsn in (1, 2, 3):
        store.log.append(b"turn")
        assert store.log.sync(work) == lsn
    assert store.log.sync(work) == 3
    assert done == [threading.current_thread()] * 3
    assert [key for batch in store.settled.newest_rows(1) for key, _, _ in batch] == [
        b"k0",
        b"k1",
        b"k2",
    ]


def test_work_beside_a_sync_that_fails_is_heard_of(store: OpenStore) -> None:
    """What it raises comes out once the sync is over, and the next sync does its own work."""

    def fail() -> None:
        raise ZeroDivisionError

    store.log.append(b"a")
    with pytest.raises(ZeroDivisionError):
        store.log.sync(fail)
    assert store.log.sync() == 1
    store.log.append(b"b")
    assert store.log.sync(lambda: None) == 2


def test_a_sync_beside_work_raises_what_the_system_says() -> None:
    """The error of the call comes out in the owner's thread, once, and after the work."""
    beside = SyncThread()
    done: list[int] = []
    reading, writing = os.pipe()
    try:
        for count in (1, 2):
            with pytest.raises(OSError, match="Invalid argument"):
                beside.run(reading, lambda: done.append(1))
            assert len(done) == count
    finally:
        os.close(reading)
        os.close(writing)


def test_the_thread_that_syncs_ends_with_its_owner(tmp_path: Path) -> None:
    """It is begun with the first sync beside work, there is one a disk, and none is left behind."""

    def threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "k2-sync"]

    before = len(threads())
    machine = machine_of("files", tmp_path / "store")
    store = machine.open()
    for _ in range(2):
        store.log.append(b"a")
        store.log.sync(lambda: None)
    (thread,) = threads()[before:]
    machine.stop(store)
    del store
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_pending_sync_does_not_stand_in_the_way(store: OpenStore) -> None:
    """Syncing, moving on to another segment and closing do the work of a sync that never ran."""
    store.log.append(b"a")
    pending = store.log.begin_sync()
    assert store.log.sync() == 1
    assert store.log.finish_sync(pending) == 1
    store.log.append(b"b")
    pending = store.log.begin_sync()
    store.log.append(bytes(SMALL.segment_bytes - 4096 - 64))
    assert store.log.durable_lsn == 2
    assert store.log.finish_sync(pending) == 2
    store.log.begin_sync()
    store.close()


def test_a_closed_log_refuses(store: OpenStore) -> None:
    """After closing nothing is accepted, and closing again does nothing."""
    store.close()
    store.close()
    with pytest.raises(StorageFailed, match="closed"):
        store.log.append(b"x")
    with pytest.raises(StorageFailed):
        store.log.sync()


def test_a_turn_has_a_largest_size(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload over the limit is refused and leaves no trace."""
    monkeypatch.setattr("k2store.storage.log.TURN_BYTES_MAX", 10)
    with pytest.raises(ValueError, match="at most 10"):
        store.log.append(bytes(11))
    with pytest.raises(ValueError, match="at most 10"):
        store.log.begin_segment(bytes(11))
    assert store.log.append(bytes(10)) == 1
