"""The log port over preallocated segment files.

Owns the tail: appending, syncing, beginning and dropping segments.  What is on the disk is
described in docs/storage.md; reading it back after a stop is :mod:`k2store.storage.recovery`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec

from k2store.storage.disk import Disk, File
from k2store.storage.failures import Damaged, StorageFailed
from k2store.storage.frame import (
    CHECKPOINT,
    PLAIN,
    SEGMENT_HEADER_BYTES,
    TURN_BYTES_MAX,
    TURN_HEADER_BYTES,
    SegmentHeader,
    decode_turn_header,
    encode_segment_header,
    encode_turn,
    frame_bytes,
)
from k2store.storage.ports import PendingSync, Turn
from k2store.storage.recovery import (
    SPARE,
    WATERMARK_NAME,
    Recovered,
    Segment,
    recover,
    segment_name,
)
from k2store.storage.watermark import Watermark

Entropy = Callable[[int], bytes]

_SPARES_MAX = 2


class SegmentSync:
    """A sync of the current segment; runs once, in whichever thread comes first."""

    def __init__(self, file: File, lsn: int, chain: bytes) -> None:
        self._file = file
        self._once = threading.Lock()
        self._done = False
        self.lsn = lsn
        self.chain = chain
        self.error: OSError | None = None

    def run(self) -> None:
        """Wait for the disk."""
        with self._once:
            if self._done:
                return
            self._done = True
            try:
                self._file.datasync()
            except OSError as error:
                self.error = error


class SegmentedLog:
    """See :class:`k2store.storage.ports.Log`."""

    def __init__(
        self, disk: Disk, recovered: Recovered, segment_bytes: int, entropy: Entropy
    ) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._entropy = entropy
        self._segments = recovered.segments
        self._tail = recovered.segments[-1]
        self._run = recovered.run + 1
        self._spare_numbers = itertools.count(1)
        self._spares: list[str] = []
        self._pending: SegmentSync | None = None
        self._moved_on = False
        self._failed: str | None = None
        self._preparing = threading.Lock()
        self._closed = False
        self.hash = recovered.chain
        self.next_lsn = self._tail.last_lsn + 1
        self.durable_lsn = self._tail.last_lsn
        self.checkpoint_lsn = recovered.checkpoint_lsn
        self.cut_bytes = recovered.cut_bytes
        self._watermark = Watermark(disk.map(WATERMARK_NAME), recovered.mark)

    @classmethod
    def open(cls, disk: Disk, store: bytes, segment_bytes: int, entropy: Entropy) -> SegmentedLog:
        """Recover a log and make what was found durable.  Damaged, FormatUnknown, StorageFailed."""
        try:
            recovered = recover(disk, store)
        except OSError as error:
            raise Damaged(f"the log cannot be read: {error}", file=error.filename) from error
        log = cls(disk, recovered, segment_bytes, entropy)
        try:
            log._settle_in(recovered)
        except OSError as error:
            log._fail("open", error)
        return log

    def _settle_in(self, recovered: Recovered) -> None:
        """After a kill, turns that were recovered may be in the operating system's memory only;
        from here on they count as durable, so they must be."""
        self._tail.file.datasync()
        self._watermark.write(
            msgspec.structs.replace(
                recovered.mark,
                first_lsn=self.first_lsn,
                segment=self._tail.header.number,
                run=self._run,
                lsn=self.durable_lsn,
                hash=self.hash,
            )
        )
        for name in self._disk.names():
            if name.startswith("making"):
                self._disk.remove(name)
        numbers = [int(name[len(SPARE) :]) for name in recovered.spares]
        self._spare_numbers = itertools.count(1 + max(numbers, default=0))
        for name in recovered.spares + recovered.leftovers:
            file = self._disk.open(name)
            file.close()
            self._recycle(name, file.size)

    # ---- state
    @property
    def first_lsn(self) -> int:
        """The oldest turn kept."""
        return self._segments[0].header.first_lsn

    @property
    def segment_full(self) -> bool:
        """Whether a new segment should begin soon."""
        return self._moved_on or self._tail.end * 4 >= self._tail.header.size * 3

    @property
    def size_bytes(self) -> int:
        """Disk space taken."""
        used = sum(segment.header.size for segment in self._segments)
        return used + len(self._spares) * self._segment_bytes

    @property
    def failed(self) -> str | None:
        """Why nothing is accepted any more."""
        return self._failed

    # ---- appending
    def append(self, payload: bytes) -> int:
        """Add a turn."""
        self._check()
        if len(payload) > TURN_BYTES_MAX:
            raise ValueError(f"a turn of {len(payload)} bytes; at most {TURN_BYTES_MAX}")
        room = frame_bytes(len(payload))
        try:
            if self._tail.end + room > self._tail.header.size:
                self._begin(None, room)
                self._moved_on = True
            return self._write(self._tail, payload, PLAIN)
        except OSError as error:
            self._fail("append", error)

    def _write(self, tail: Segment, payload: bytes, kind: int) -> int:
        lsn = self.next_lsn
        frame, chain = encode_turn(
            payload, lsn, self.durable_lsn, self._run, kind, self.hash, tail.header.salt
        )
        tail.file.write(tail.end, frame)
        tail.end += frame_bytes(len(payload))
        tail.last_lsn = lsn
        self.hash = chain
        self.next_lsn = lsn + 1
        return lsn

    def sync(self, meanwhile: Callable[[], object] | None = None) -> int:
        """Make everything appended durable."""
        self._check()
        if self._pending is not None:
            self.finish_sync(self._pending)
        if self.durable_lsn + 1 == self.next_lsn:
            return self.durable_lsn
        try:
            if meanwhile is None:
                self._tail.file.datasync()
            else:
                self._tail.file.datasync_beside(meanwhile)
        except OSError as error:
            self._fail("sync", error)
        self._durable(self.next_lsn - 1, self.hash)
        return self.durable_lsn

    def begin_sync(self) -> PendingSync:
        """Fix what a sync in a thread covers."""
        self._check()
        assert self._pending is None, "a sync is already under way"
        self._pending = SegmentSync(self._tail.file, self.next_lsn - 1, self.hash)
        return self._pending

    def finish_sync(self, pending: PendingSync) -> int:
        """Take the result of a sync in a thread."""
        assert isinstance(pending, SegmentSync)
        self._check()
        pending.run()  # waits for the thread, or does its work if it never started
        if pending is self._pending:
            self._pending = None
            if pending.error is not None:
                self._fail("sync", pending.error)
            self._durable(pending.lsn, pending.chain)
        return self.durable_lsn

    def _durable(self, lsn: int, chain: bytes) -> None:
        if lsn > self.durable_lsn:
            self.durable_lsn = lsn
            self._watermark.advance(lsn, chain)

    # ---- segments
    def begin_segment(self, checkpoint: bytes) -> int:
        """Start a segment with a checkpoint."""
        self._check()
        if len(checkpoint) > TURN_BYTES_MAX:
            raise ValueError(f"a checkpoint of {len(checkpoint)} bytes; at most {TURN_BYTES_MAX}")
        lsn = self.next_lsn
        try:
            self._begin(checkpoint, frame_bytes(len(checkpoint)))
        except OSError as error:
            self._fail("begin_segment", error)
        self.checkpoint_lsn = lsn
        self._moved_on = False
        return lsn

    def _begin(self, checkpoint: bytes | None, room: int) -> None:
        """Everything before is synced first, so a log has unsynced turns in its last segment
        only; recovery relies on it."""
        self.sync()
        name, file = self._blank(SEGMENT_HEADER_BYTES + room)
        number = self._tail.header.number + 1
        header = SegmentHeader(
            self._tail.header.store, number, file.size, self.next_lsn, self.hash, self._entropy(16)
        )
        segment = Segment(file, header)
        file.write(0, encode_segment_header(header))
        if checkpoint is not None:
            self._write(segment, checkpoint, CHECKPOINT)
        file.datasync()
        self._disk.rename(name, segment_name(number))
        self._disk.sync_directory()
        self.durable_lsn = self.next_lsn - 1
        self._segments.append(segment)
        self._tail = segment
        self._watermark.write(
            msgspec.structs.replace(
                self._watermark.mark, segment=number, lsn=self.durable_lsn, hash=self.hash
            )
        )

    def _blank(self, room: int) -> tuple[str, File]:
        """A file for a segment under some other name: a spare one if there is one."""
        if room <= self._segment_bytes and self._spares:
            name = self._spares.pop()
            return name, self._disk.open(name)
        size = max(self._segment_bytes, (room + 4095) & ~4095)
        return "making", self._disk.create("making", size)

    def prepare_segment(self) -> None:
        """Make a spare segment."""
        with self._preparing:
            if self._spares or self._failed is not None or self._closed:
                return
            try:
                self._disk.create("making-spare", self._segment_bytes).close()
                name = f"{SPARE}{next(self._spare_numbers)}"
                self._disk.rename("making-spare", name)
            except OSError:
                return  # begin_segment will try again in the owner's thread and report
            self._spares.append(name)

    def drop_before(self, lsn: int) -> int:
        """Forget whole segments."""
        self._check()
        if lsn > self.durable_lsn + 1:
            raise ValueError(f"turn {lsn} is beyond what is durable ({self.durable_lsn})")
        count = 0
        while count + 1 < len(self._segments) and self._segments[count].last_lsn < lsn:
            count += 1
        if count == 0:
            return 0
        dropped, self._segments = self._segments[:count], self._segments[count:]
        try:
            # The durable note comes first: a missing segment must always mean loss.
            self._watermark.write(
                msgspec.structs.replace(self._watermark.mark, first_lsn=self.first_lsn)
            )
            for segment in dropped:
                segment.file.close()
                self._recycle(segment.name, segment.header.size)
            self._disk.sync_directory()
        except OSError as error:
            self._fail("drop_before", error)
        return count

    def _recycle(self, name: str, size: int) -> None:
        if size != self._segment_bytes or len(self._spares) >= _SPARES_MAX:
            self._disk.remove(name)
            return
        spare = f"{SPARE}{next(self._spare_numbers)}"
        self._disk.rename(name, spare)
        self._spares.append(spare)

    # ---- reading
    def replay(self, from_lsn: int | None = None) -> Iterator[Turn]:
        """Turns in order."""
        start = from_lsn if from_lsn is not None else max(self.checkpoint_lsn, self.first_lsn)
        if not self.first_lsn <= start <= self.next_lsn:
            raise ValueError(f"turn {start} is not in [{self.first_lsn}, {self.next_lsn}]")
        return self._replay(start)

    def _replay(self, start: int) -> Iterator[Turn]:
        for segment in list(self._segments):
            if segment.last_lsn < start:
                continue
            try:
                data = segment.file.read(0, segment.end)
            except OSError as error:
                raise Damaged(f"the log cannot be read: {error}", file=segment.name) from error
            offset = SEGMENT_HEADER_BYTES
            for lsn in range(segment.header.first_lsn, segment.last_lsn + 1):
                turn = decode_turn_header(data, offset, segment.header.salt)
                if turn is None or turn.lsn != lsn:
                    raise Damaged(
                        f"log segment {segment.name}, offset {offset}: turn {lsn} was intact when"
                        " the log was opened and is not now",
                        file=segment.name,
                        offset=offset,
                        lsn=lsn,
                        acknowledged_lsn=self.durable_lsn,
                    )
                if lsn >= start:
                    body = offset + TURN_HEADER_BYTES
                    yield Turn(lsn, turn.checkpoint, data[body : body + turn.length])
                offset += frame_bytes(turn.length)

    # ---- ending
    def close(self) -> None:
        """Release the files."""
        if self._closed:
            return
        self._closed = True
        with self._preparing:
            pass  # a segment that is being prepared in another thread is finished first
        if self._pending is not None:
            self._pending.run()
        for segment in self._segments:
            segment.file.close()
        self._watermark.close()
        self._failed = self._failed or "the log is closed"

    def _check(self) -> None:
        if self._failed is not None:
            raise StorageFailed(self._failed, operation="log")

    def _fail(self, operation: str, error: OSError) -> NoReturn:
        self._failed = (
            f"the log failed in {operation} ({error}); nothing after turn {self.durable_lsn} is"
            " certain, and the process must stop and open the store again"
        )
        raise StorageFailed(self._failed, operation=operation, file=self._tail.name) from error
