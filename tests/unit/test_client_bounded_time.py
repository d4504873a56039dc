"""What a client knows of true time from above: how late it can be, for how stale a view can be."""

from __future__ import annotations

import asyncio

from k2store.client.bounded_time import BoundedTime

SECOND_NS = 1_000_000_000
WIDTH_NS = 10_000_000


class Durations:
    """A clock for durations that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 5 * SECOND_NS

    def __call__(self) -> int:
        """The time since something."""
        return self.now_ns


def test_an_answer_is_no_older_than_its_question() -> None:
    """A frame that was a second under way says that it may be a second later than it says."""
    clock, loop = Durations(), asyncio.new_event_loop()
    time = BoundedTime(clock, loop, spin_ns=0)
    assert time.upper_ns() == 0
    time.asked()
    clock.now_ns += SECOND_NS
    time.observe(100 * SECOND_NS)
    time.answered(WIDTH_NS)
    assert time.lower_ns() == 100 * SECOND_NS
    assert 101 * SECOND_NS + WIDTH_NS <= time.upper_ns() < 101 * SECOND_NS + 2 * WIDTH_NS
    # A frame that nobody asked for may have been under way for ever.
    clock.now_ns += SECOND_NS
    time.observe(101 * SECOND_NS)
    assert time.upper_ns() >= 102 * SECOND_NS + WIDTH_NS
    loop.close()


def test_the_best_answer_counts() -> None:
    """A quicker answer makes the bound closer; a slower one leaves it as it is."""
    clock, loop = Durations(), asyncio.new_event_loop()
    time = BoundedTime(clock, loop, spin_ns=0)
    for slow_ns in (SECOND_NS, 1_000_000, SECOND_NS):
        time.asked()
        clock.now_ns += slow_ns
        time.observe(clock.now_ns)
        time.answered(WIDTH_NS)
    assert clock.now_ns + WIDTH_NS <= time.upper_ns() < clock.now_ns + 2 * WIDTH_NS
    loop.close()
