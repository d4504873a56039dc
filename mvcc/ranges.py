"""Read marks of ranges: the part of the read cache that scans and range conditions write.

A step function from keys to the largest stamp that has scanned over them, kept as sorted
boundaries.  It protects absent keys inside a scanned range as well as present ones, so there are no
phantoms (docs/protocol.md §5.8 case 2).
"""

from __future__ import annotations

from sortedcontainers import SortedDict

UNBOUNDED = b""
"""As an upper end: no bound."""


class RangeMarks:
    """``mark(key)`` is the largest stamp of any :meth:`note` whose [start, end) covers the key."""

    def __init__(self) -> None:
        # boundary -> (stamp, reader) that holds from it to the next boundary; b"" is always there.
        self._marks: SortedDict[bytes, tuple[int, bytes]] = SortedDict({b"": (0, b"")})

    def __len__(self) -> int:
        """How many boundaries there are."""
        return len(self._marks) - 1

    def __bool__(self) -> bool:
        """Whether any range is marked; one scan over everything has no boundary but is a mark."""
        return len(self._marks) > 1 or self._marks[b""][0] > 0

    def note(self, start: bytes, end: bytes, stamp: int, reader: bytes) -> None:
        """Raise the marks of [start, end) to at least ``stamp``."""
        if end != UNBOUNDED and end <= start:
            return
        marks = self._marks
        self._split(start)
        if end != UNBOUNDED:
            self._split(end)
        entry = (stamp, reader)
        upper = end if end != UNBOUNDED else None
        for boundary in list(marks.irange(start, upper, inclusive=(True, False))):
            if marks[boundary][0] < stamp:
                marks[boundary] = entry
        self._merge(start)
        if end != UNBOUNDED:
            self._merge(end)

    def mark(self, key: bytes) -> tuple[int, bytes]:
        """The largest stamp that has scanned over ``key``, and who."""
        index = self._marks.bisect_right(key) - 1
        stamp, reader = self._marks.peekitem(index)[1]
        return stamp, reader

    def forget(self, closed: int) -> None:
        """Drop marks at or below ``closed``: nobody may write there any more."""
        marks = self._marks
        previous: tuple[int, bytes] | None = None
        for boundary in list(marks):
            if marks[boundary][0] <= closed:
                marks[boundary] = (0, b"")
            if previous is not None and marks[boundary] == previous:
                del marks[boundary]
            else:
                previous = marks[boundary]

    def evict(self) -> int:
        """Forget everything; returns the largest stamp forgotten, to which the low-water mark must
        rise.
        """
        largest = int(max(stamp for stamp, _ in self._marks.values()))
        self._marks.clear()
        self._marks[b""] = (0, b"")
        return largest

    def _split(self, key: bytes) -> None:
        if key not in self._marks:
            self._marks[key] = self.mark(key)

    def _merge(self, key: bytes) -> None:
        marks = self._marks
        index = marks.index(key)
        if index and marks.peekitem(index - 1)[1] == marks[key]:
            del marks[key]
