"""An interval that contains the true time, and how several of them are combined."""

from collections.abc import Sequence

from msgspec import Struct


class Interval(Struct, frozen=True, gc=False):
    """The contract of every clock here: ``lo_ns <= UT <= hi_ns`` when it was read.

    Both edges are nanoseconds since the Unix epoch.
    """

    lo_ns: int
    hi_ns: int

    @property
    def width_ns(self) -> int:
        """How uncertain the clock is: ``hi - lo``."""
        return self.hi_ns - self.lo_ns

    def contains(self, time_ns: int) -> bool:
        """Whether ``time_ns`` may be the true time."""
        return self.lo_ns <= time_ns <= self.hi_ns

    def intersect(self, other: "Interval") -> "Interval | None":
        """What both clocks allow; None when they contradict each other, so one is wrong."""
        lo_ns = max(self.lo_ns, other.lo_ns)
        hi_ns = min(self.hi_ns, other.hi_ns)
        return Interval(lo_ns, hi_ns) if lo_ns <= hi_ns else None

    def widen(self, by_ns: int) -> "Interval":
        """The same interval with ``by_ns`` more doubt on each side."""
        assert by_ns >= 0, by_ns
        return Interval(self.lo_ns - by_ns, self.hi_ns + by_ns)


def combine(intervals: Sequence[Interval], faulty_max: int = 0) -> Interval | None:
    """The interval that holds the true time if at most ``faulty_max`` of the sources lie.

    It runs from the first to the last point that lies in at least ``n - faulty_max`` of them
    (Marzullo, "Maintaining the Time in a Distributed System", 1984). None when no point does:
    more sources are wrong than was assumed. All intervals must speak of the same moment.
    """
    needed = len(intervals) - faulty_max
    if needed < 1:
        return None
    # Edges in order; at equal times openings come first, because intervals are closed.
    edges = sorted([(i.lo_ns, 0) for i in intervals] + [(i.hi_ns, 1) for i in intervals])
    depth = 0
    first_ns: int | None = None
    last_ns: int | None = None
    for at_ns, closes in edges:
        if closes:
            if depth == needed:
                last_ns = at_ns
            depth -= 1
        else:
            depth += 1
            if depth == needed and first_ns is None:
                first_ns = at_ns
    if first_ns is None or last_ns is None:
        return None
    return Interval(first_ns, last_ns)
