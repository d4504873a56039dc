"""Reading a log after a stop: what is there, what was cut off, what is missing.

The one decision made here is whether the end of the readable turns is a *torn tail* (turns nobody
was told about, dropped in silence) or *damage* (raised as :class:`Damaged`).  It is damage when

* a segment that is not the last one is not complete, or is missing, short or alien;
* the last readable turn is before the watermark's, or its chain differs from the watermark's;
* a readable frame further on says that a turn we could not read had been durable.

Anything else that does not read as the next turn was never acknowledged.
"""

from __future__ import annotations

import re

import msgspec

from k2store.storage.disk import Disk, File
from k2store.storage.failures import Damaged
from k2store.storage.frame import (
    GENESIS,
    SEGMENT_HEADER_BYTES,
    TURN_MAGIC,
    SegmentHeader,
    decode_segment_header,
    decode_turn_header,
    encode_segment_header,
    frame_bytes,
    verified_turns,
)
from k2store.storage.watermark import WATERMARK_BYTES, Mark, Watermark

WATERMARK_NAME = "watermark"
_SEGMENT_NAME = re.compile(r"([0-9]{16})\.segment")
SPARE = "spare-"
_SPARE_NAME = re.compile(SPARE + r"[0-9]+")


class Segment:
    """A segment of the open log."""

    def __init__(self, file: File, header: SegmentHeader) -> None:
        self.file = file
        self.header = header
        self.last_lsn = header.first_lsn - 1
        self.end = SEGMENT_HEADER_BYTES
        """Where the next turn goes."""

    @property
    def name(self) -> str:
        """Of its file."""
        return segment_name(self.header.number)


class Recovered(msgspec.Struct):
    """A log as it was found."""

    segments: list[Segment]
    spares: list[str]
    leftovers: list[str]
    """Segments whose drop was interrupted."""
    chain: bytes
    checkpoint_lsn: int
    run: int
    mark: Mark
    cut_bytes: int
    """How much was cut off as a torn tail, at least (0: the log ended cleanly)."""


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"{number:016d}.segment"


def create_log(disk: Disk, store: bytes, segment_bytes: int, salt: bytes) -> None:
    """An empty log, durable on return."""
    disk.create(WATERMARK_NAME, WATERMARK_BYTES).close()
    cell = disk.map(WATERMARK_NAME)
    mark = Mark(store, 0, first_lsn=1, segment=1, run=0, lsn=0, hash=GENESIS)
    Watermark(cell, mark).write(mark)
    cell.close()
    file = disk.create(segment_name(1), segment_bytes)
    header = SegmentHeader(store, 1, segment_bytes, first_lsn=1, base=GENESIS, salt=salt)
    file.write(0, encode_segment_header(header))
    file.datasync()
    file.close()
    disk.sync_directory()


def recover(disk: Disk, store: bytes) -> Recovered:
    """Read and verify everything; raises Damaged, FormatUnknown or OSError.  Changes nothing."""
    names = disk.names()
    mark = _read_mark(disk, names, store)
    opened: dict[int, Segment | None] = {}
    try:
        return _recover(disk, names, store, mark, opened)
    except BaseException:
        for segment in opened.values():
            if segment is not None:
                segment.file.close()
        raise


def _recover(
    disk: Disk, names: list[str], store: bytes, mark: Mark, opened: dict[int, Segment | None]
) -> Recovered:
    segments = _open_segments(disk, names, store, mark, opened)
    first, last = segments[0], segments[-1]
    chain = first.header.base
    run = mark.run
    checkpoint_lsn = cut_bytes = 0
    mark_chain = chain if mark.lsn == first.header.first_lsn - 1 else None
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        if segment.header.base != chain:
            raise _damaged(segment, mark, "the file does not continue the one before", offset=0)
        found = _scan(segment, chain, mark.lsn)
        chain = found.chain
        run = max(run, found.run)
        checkpoint_lsn = found.checkpoint_lsn or checkpoint_lsn
        mark_chain = found.mark_chain or mark_chain
        if following is not None:
            if segment.last_lsn + 1 != following.header.first_lsn:
                raise _damaged(segment, mark, "a turn in the middle of the log is damaged")
        elif segment.last_lsn < mark.lsn:
            raise _damaged(segment, mark, "acknowledged turns are damaged or missing")
        else:
            cut_bytes = _inspect_tail(segment, found.data, mark)
    if mark_chain != mark.hash:
        raise _damaged(last, mark, "the log is not the one whose turns were acknowledged")
    spares = [name for name in names if _SPARE_NAME.fullmatch(name)]
    leftovers = [segment_name(n) for n in _numbers(names) if n < first.header.number]
    return Recovered(segments, spares, leftovers, chain, checkpoint_lsn, run, mark, cut_bytes)


def _read_mark(disk: Disk, names: list[str], store: bytes) -> Mark:
    if WATERMARK_NAME not in names:
        raise Damaged("the log's watermark file is missing", file=WATERMARK_NAME)
    cell = disk.map(WATERMARK_NAME)
    mark = Watermark.read(cell)
    cell.close()
    if mark is None:
        raise Damaged("the log's watermark file is damaged", file=WATERMARK_NAME)
    if mark.store != store:
        raise Damaged("the log's watermark belongs to another store", file=WATERMARK_NAME)
    return mark


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(found[1]) for name in names if (found := _SEGMENT_NAME.fullmatch(name)))


def _open_segments(
    disk: Disk, names: list[str], store: bytes, mark: Mark, opened: dict[int, Segment | None]
) -> list[Segment]:
    """The segments that must be there, in order; those before the watermark's first turn are
    leftovers of an interrupted drop.  Fills ``opened``, None for an unreadable header."""
    for number in _numbers(names):
        file = disk.open(segment_name(number))
        header = decode_segment_header(file.read(0, SEGMENT_HEADER_BYTES))
        opened[number] = None if header is None else Segment(file, header)
        if header is None:
            file.close()
    start = min(
        (n for n, s in opened.items() if s is not None and s.header.first_lsn == mark.first_lsn),
        default=None,
    )
    if start is None:
        raise Damaged(
            f"the segment that begins with turn {mark.first_lsn} is missing or its header is"
            f" damaged; turns up to {mark.lsn} were acknowledged",
            lsn=mark.first_lsn,
            acknowledged_lsn=mark.lsn,
        )
    segments: list[Segment] = []
    for number in range(start, max(mark.segment, *opened) + 1):
        segment = opened.get(number)
        if segment is None:
            what = "is missing" if number not in opened else "has a damaged header"
            raise Damaged(
                f"log segment {segment_name(number)} {what}; turns up to {mark.lsn} were"
                " acknowledged",
                file=segment_name(number),
                offset=0,
                acknowledged_lsn=mark.lsn,
            )
        header = segment.header
        if header.store != store or header.number != number:
            raise _damaged(segment, mark, "the file belongs to another store or place", offset=0)
        if segment.file.size != header.size:
            raise _damaged(
                segment,
                mark,
                f"the file has {segment.file.size} bytes instead of {header.size}",
                offset=segment.file.size,
            )
        segments.append(segment)
    for number, leftover in opened.items():
        if number < start and leftover is not None:
            leftover.file.close()
    return segments


class _Found(msgspec.Struct):
    chain: bytes
    mark_chain: bytes | None
    checkpoint_lsn: int
    run: int
    data: bytes


def _scan(segment: Segment, chain: bytes, mark_lsn: int) -> _Found:
    """Walk the turns of a segment as far as they verify; sets its ``last_lsn`` and ``end``."""
    data = segment.file.read(0, segment.header.size)
    found = _Found(chain, None, 0, 0, data)
    first_lsn, salt = segment.header.first_lsn, segment.header.salt
    for end, run, checkpoint, turn_chain in verified_turns(data, first_lsn, chain, salt):
        segment.end = end
        segment.last_lsn = lsn = segment.last_lsn + 1
        found.chain, found.run = turn_chain, run
        if checkpoint:
            found.checkpoint_lsn = lsn
        if lsn == mark_lsn:
            found.mark_chain = turn_chain
    return found


def _inspect_tail(segment: Segment, data: bytes, mark: Mark) -> int:
    """Look at what follows the last readable turn.  Bytes that begin like a turn of this segment
    but do not verify are a torn tail, unless one of them proves that what we lost was durable."""
    furthest = segment.end
    proven = 0
    at = data.find(TURN_MAGIC, segment.end)
    while at >= 0:
        turn = decode_turn_header(data, at, segment.header.salt) if at % 8 == 0 else None
        if turn is not None:
            proven = max(proven, turn.durable_lsn)
            furthest = min(at + frame_bytes(turn.length), len(data))
        at = data.find(TURN_MAGIC, at + 1)
    if proven > segment.last_lsn:
        mark = msgspec.structs.replace(mark, lsn=proven)
        raise _damaged(segment, mark, "later turns prove that what is damaged here was durable")
    return furthest - segment.end


def _damaged(segment: Segment, mark: Mark, why: str, offset: int | None = None) -> Damaged:
    at = segment.end if offset is None else offset
    return Damaged(
        f"log segment {segment.name}, offset {at}: {why}.  Readable up to turn"
        f" {segment.last_lsn}; turns up to {mark.lsn} were acknowledged",
        file=segment.name,
        offset=at,
        lsn=segment.last_lsn + 1,
        acknowledged_lsn=mark.lsn,
    )
