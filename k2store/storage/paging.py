"""Walking rows with a RocksDB cursor: one visible version a key, bounded work a page."""

from __future__ import annotations

from rocksdict import RdictIter

from k2store.storage.ports import Page, Row
from k2store.storage.row import AFTER_END, END, STAMP_BYTES, split_row

TOMBSTONE = b""
VALUE = b"\x01"
"""What precedes a value as stored."""
_STEPS_BEFORE_SEEK = 8  # a seek costs about ten steps


def stored_value(stored: bytes) -> bytes | None:
    """The value of a row, None for a tombstone."""
    return stored[1:] if stored else None


def page_up(
    cursor: RdictIter,
    upper: bytes,
    inverted: bytes,
    limits: tuple[int, int],
    *,
    tombstones: bool,
) -> Page:
    """Keys ascending, up to before row ``upper``; each begins at its newest version."""
    rows_max, examined_max = limits
    rows: list[Row] = []
    current = b""  # the key at hand
    given = False  # whether its version was found
    steps = examined = 0
    while cursor.valid():
        row: bytes = cursor.key()
        if row >= upper:
            break
        head = row[:-STAMP_BYTES]
        if head != current:
            if current and (examined >= examined_max or len(rows) >= rows_max):
                return Page(rows, split_row(row)[0])
            current, given, steps = head, False, 0
        examined += 1
        if given:
            steps += 1
            if steps > _STEPS_BEFORE_SEEK:
                cursor.seek(head[: -len(END)] + AFTER_END)
                continue
        elif row[-STAMP_BYTES:] >= inverted:
            given, steps = True, 0
            value = stored_value(cursor.value())
            if value is not None or tombstones:
                rows.append((*split_row(row), value))
        else:
            steps += 1
            if steps > _STEPS_BEFORE_SEEK:
                cursor.seek(head + inverted)
                continue
        cursor.next()
    return Page(rows, None)


def page_down(
    cursor: RdictIter,
    lower: bytes,
    inverted: bytes,
    limits: tuple[int, int],
    *,
    tombstones: bool,
) -> Page:
    """Keys descending, down to row ``lower``; each begins at its oldest version."""
    rows_max, examined_max = limits
    rows: list[Row] = []
    examined = 0
    done: bytes | None = None
    while cursor.valid():
        row: bytes = cursor.key()
        if row < lower:
            break
        if done is not None and (examined >= examined_max or len(rows) >= rows_max):
            return Page(rows, done)
        head = row[:-STAMP_BYTES]
        best, value, steps = b"", TOMBSTONE, 0
        while row.startswith(head) and row[-STAMP_BYTES:] >= inverted:
            best, value = row, cursor.value()
            steps += 1
            if steps > _STEPS_BEFORE_SEEK:
                cursor.seek(head + inverted)
                best, value = cursor.key(), cursor.value()
                break
            cursor.prev()
            if not cursor.valid():
                break
            row = cursor.key()
        examined += steps + 1
        done = split_row(head + inverted)[0]
        if best and (value or tombstones):
            rows.append((*split_row(best), stored_value(value)))
        if not cursor.valid():  # the end, or damage: the status must not be lost to another seek
            break
        if row.startswith(head):  # newer versions are left above; else we stand on the next key
            cursor.seek_for_prev(head)
    return Page(rows, None)
