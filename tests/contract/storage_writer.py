"""A process that writes to a store as a node does and says on stdout what it acknowledged.

Run as ``python -m tests.contract.storage_writer PATH SEED``; it ends only by being killed.  What a
turn or a row holds follows from its number, so that a reader can verify all of it.
"""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random
from threading import Thread

from k2store.storage import OpenStore, StorageOptions, open_store

OPTIONS = StorageOptions(segment_bytes=1 << 17, memtable_bytes=1 << 16, cache_bytes=1 << 20)


def payload_of(lsn: int) -> bytes:
    """The payload of turn ``lsn``: 8 to 3,000 bytes."""
    digest = sha256(b"%d" % lsn).digest()
    return b"%08d" % lsn + digest * (digest[0] * digest[1] % 93)


def key_of(lsn: int) -> bytes:
    """The key that turn ``lsn`` writes."""
    return b"key %d" % (lsn % 50)


def write(store: OpenStore, seed: int) -> None:
    """For ever: turns in groups, a sync, an acknowledgement; settled rows and checkpoints
    behind."""
    random = Random(seed)
    flushing: Thread | None = None
    while True:
        for _ in range(random.randrange(1, 4)):
            store.log.append(payload_of(store.log.next_lsn))
        if random.randrange(4) == 0:
            pending = store.log.begin_sync()
            worker = Thread(target=pending.run)
            worker.start()
            store.log.append(payload_of(store.log.next_lsn))
            worker.join()
            acknowledged = store.log.finish_sync(pending)
        else:
            acknowledged = store.log.sync()
        sys.stdout.write(f"{acknowledged}\n")
        sys.stdout.flush()
        for lsn in range(store.settled.applied_lsn + 1, acknowledged + 1):
            store.settled.settle(1, [(key_of(lsn), lsn, payload_of(lsn))])
            store.settled.mark_applied(lsn)
        if store.log.segment_full:
            store.log.begin_segment(payload_of(store.log.next_lsn))
            flushing = Thread(target=store.settled.flush)
            flushing.start()
        if flushing is not None and not flushing.is_alive():
            flushing = None
            store.log.drop_before(store.settled.flush() + 1)


def verify(path: Path, acknowledged: int) -> int:
    """Open the store and check every turn and row in it; give the last turn that is there."""
    store = open_store(path, OPTIONS)
    try:
        last = store.log.next_lsn - 1
        assert last >= acknowledged, f"turn {acknowledged} was acknowledged, {last} is the last"
        for turn in store.log.replay(store.log.first_lsn):
            assert turn.payload == payload_of(turn.lsn), f"turn {turn.lsn} is not what was written"
        applied = store.settled.applied_lsn
        assert applied >= store.log.first_lsn - 1
        rows = {
            stamp: (key, value)
            for batch in store.settled.all_rows(1)
            for key, stamp, value in batch
        }
        for lsn in range(1, applied + 1):
            assert rows.get(lsn) == (key_of(lsn), payload_of(lsn)), f"the row of turn {lsn}"
        # A later life appends after unacknowledged turns, so they count from now on.
        return last
    finally:
        store.close()


def last_acknowledged(writer: subprocess.Popen[str], lines_max: int = 1 << 60) -> int:
    """Read whole lines of a writer's output, up to a count or its end; give the last number, 0
    without any."""
    assert writer.stdout is not None
    last = 0
    for _, line in zip(range(lines_max), iter(writer.stdout.readline, ""), strict=False):
        if line.endswith("\n"):
            last = int(line)
    return last


if __name__ == "__main__":
    write(open_store(Path(sys.argv[1]), OPTIONS), int(sys.argv[2]))
