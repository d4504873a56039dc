"""What a watch tells of what partitions hand on: in stamp order, once, and nothing too early."""

from __future__ import annotations

from heapq import heappush
from typing import cast

from k2store.node.feed import Watch
from k2store.node.session import Session


def watch(*changes: tuple[int, bytes, bytes | None]) -> Watch:
    """A live watch of the keys that begin with k, to which these changes have come in this order."""
    found = Watch(cast("Session", None), 1, b"k", b"l", 5, 5)
    found.live = True
    for change in changes:
        heappush(found.heap, change)
    return found


def test_what_is_safe_is_told_in_order_and_as_whole_commits() -> None:
    """Changes of one stamp are one commit; what is not safe yet waits."""
    one = watch((9, b"k3", b"x"), (7, b"k2", None), (7, b"k1", b"a"), (20, b"k1", b"z"))
    one.take_safe(10)
    assert list(one.queue) == [(7, [(b"k1", b"a"), (b"k2", None)]), (9, [(b"k3", b"x")])]
    assert (one.cursor, one.queued_events) == (10, 3)
    one.take_safe(20)
    assert one.queue[-1] == (20, [(b"k1", b"z")])


def test_what_a_deposed_leader_had_handed_on_is_told_once() -> None:
    """A change that comes from the leader and then from the log, before it is safe or after it was told,
    is told once."""
    one = watch((7, b"k1", b"a"), (7, b"k1", b"a"), (8, b"k1", None), (8, b"k1", None))
    one.take_safe(8)
    assert list(one.queue) == [(7, [(b"k1", b"a")]), (8, [(b"k1", None)])]
    heappush(one.heap, (7, b"k1", b"a"))
    one.take_safe(9)
    assert len(one.queue) == 2
    assert one.heap == []


def test_a_safe_time_that_goes_back_takes_nothing_back() -> None:
    """A copy that has come lowers the safe time of a range: the watch stands where it stood."""
    one = watch((7, b"k1", b"a"))
    one.take_safe(8)
    heappush(one.heap, (9, b"k1", b"b"))
    one.take_safe(6)
    assert (one.cursor, len(one.queue)) == (8, 1)
    one.take_safe(9)
    assert len(one.queue) == 2
