"""What every log promises, on real files and on simulated ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from k2store.storage import OpenStore, StorageFailed
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
