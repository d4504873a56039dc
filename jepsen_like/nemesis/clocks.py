"""Faults of clocks, by the file that a node's clock follows.

What was done is measured from outside: the interval that the node tells, against the time of this
machine, which is true time here.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from jepsen_like.nemesis.schedule import Fault
from jepsen_like.nemesis.turning import turning
from jepsen_like.nemesis.world import Unable

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World
    from k2store.testing.cluster import ClusterNode

MEASURING_S: Final = 3.0
"""At most. On a busy machine most answers come too late to say much."""
EXACT_NS: Final = 500_000
"""Half the time of an answer that is good enough."""
STROBE_S: Final = 0.2
PATIENCE_S: Final = 15.0
RIGHT: Final = "offset 0 ns"
FENCED: Final = "contradicts"


class Measured(msgspec.Struct, frozen=True):
    """A node's clock: how far ahead of true time, how exactly that is known, and its bound; ns."""

    ahead_ns: int
    doubt_ns: int
    bound_ns: int
    refusal: str
    detail: str


def measure(world: World, node: ClusterNode) -> Measured | None:
    """Ask a node for its clock, several times; the quickest answer counts. None without any."""
    # Another fault may have stopped it.
    world.until(lambda: world.clock(node) is not None, PATIENCE_S)
    best: Measured | None = None
    until_s = time.monotonic() + MEASURING_S
    while time.monotonic() < until_s and (best is None or best.doubt_ns > EXACT_NS):
        before_ns = time.time_ns()
        clock = world.clock(node)
        after_ns = time.time_ns()
        if clock is None:
            continue
        middle_ns = (clock.lo_ns + clock.hi_ns) // 2
        found = Measured(
            middle_ns - (before_ns + after_ns) // 2,
            (after_ns - before_ns) // 2,
            clock.hi_ns - clock.lo_ns,
            clock.refusal,
            clock.detail,
        )
        if best is None or found.doubt_ns < best.doubt_ns:
            best = found
    return best


def _change(node: ClusterNode, **what: float | bool) -> None:
    if node.clock is None:
        raise Unable("clocks follow no file here")
    node.clock.change(**what)  # type: ignore[arg-type]


def _skew(world: World, node: ClusterNode) -> str | None:
    """What shows that a clock is wrong: as measured, or as the node says where that takes too long."""
    found = measure(world, node)
    if found is None:
        return None
    if abs(found.ahead_ns) > found.doubt_ns:
        return f"{found.ahead_ns / 1e6:+.2f} ms, known to {found.doubt_ns / 1e6:.2f} ms"
    return None if RIGHT in found.detail else found.detail


def step(world: World, fault: Fault) -> Running:
    """Set `amount` ns ahead, or behind."""
    node = world.node(fault)
    _change(node, offset_ns=int(fault.amount))
    yield
    seen = _skew(world, node)
    _change(node, offset_ns=0)
    return seen


def drift(world: World, fault: Fault) -> Running:
    """Too fast, or slow, by `amount` parts in 10^9; for no longer than it shall last."""
    node = world.node(fault)
    _change(node, drift_ppm=fault.amount / 1000)
    # In a thread of its own: one that came late would find the clock beyond its bound.
    steady = threading.Timer(fault.for_ns / 1e9, _change, (node,), {"drift_ppm": 0})
    steady.start()
    yield
    steady.join()
    seen = _skew(world, node)
    _change(node, offset_ns=0, drift_ppm=0)
    return seen


def freeze(world: World, fault: Fault) -> Running:
    """Stands still."""
    node = world.node(fault)
    _change(node, frozen=True)
    yield
    seen = _skew(world, node)
    _change(node, frozen=False, offset_ns=0)
    return seen


def doubt(world: World, fault: Fault) -> Running:
    """Says that it knows `amount` times less."""
    node = world.node(fault)
    before = measure(world, node)
    if before is None or not before.bound_ns:
        raise Unable(f"{node.name} does not tell its clock")
    _change(node, bound_ns=int(before.bound_ns * fault.amount))
    yield
    after = measure(world, node)
    _change(node, bound_ns=before.bound_ns)
    if after is None or after.bound_ns <= before.bound_ns:
        return None
    says = f", and says: {after.refusal}" if after.refusal else ""
    return f"bound {after.bound_ns / 1e6:.1f} ms instead of {before.bound_ns / 1e6:.1f}{says}"


def strobe(world: World, fault: Fault) -> Running:
    """Jumps ahead and back by up to `amount` ns."""
    node, rng = world.node(fault), random.Random(fault.at_ns)
    seen: list[int] = []

    def turn() -> None:
        offset_ns = int(rng.choice((-1, 1)) * abs(fault.amount))
        _change(node, offset_ns=offset_ns)
        seen.append(offset_ns)

    with turning(STROBE_S, turn):
        yield
    _change(node, offset_ns=0)
    directions = len({offset_ns > 0 for offset_ns in seen})
    return f"{len(seen)} jumps in both directions" if directions == 2 else None


def violation(world: World, fault: Fault) -> Running:
    """Wrong by `amount` ns, which is more than it says. Most others notice, and it gives no stamps."""
    node = world.node(fault)
    _change(node, offset_ns=int(fault.amount))
    fenced: list[str] = []

    def look() -> None:
        clock = world.clock(node)
        if clock is not None and FENCED in clock.refusal:
            fenced.append(clock.refusal)

    with turning(STROBE_S, look):
        yield
    seen = _skew(world, node)
    _change(node, offset_ns=0)
    return f"{seen}; {fenced[0]}" if seen and fenced else None
