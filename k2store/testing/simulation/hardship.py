"""Faults that go on doing something while they last: a starved processor, answers that are lost
again and again, a clock that jumps, a disk that rots.

The actions are entered in `k2store.testing.simulation.faults.ACTIONS` with all others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

from k2store.testing.simulation.network import MILLISECOND_NS

if TYPE_CHECKING:
    from k2store.testing.simulation.faults import Fault
    from k2store.testing.simulation.simulation import Simulation

Running = Generator[None, None, str | None]

SLICE_NS: Final = 20 * MILLISECOND_NS
"""A starved process runs for its share of each."""
SHARE_DEFAULT: Final = 0.1
LOOK_NS: Final = 5 * MILLISECOND_NS
BROKEN_MAX: Final = 8
"""Streams that one fault breaks at most."""
STROBE_NS: Final = 30 * MILLISECOND_NS


class _Every:
    """Calls something at once and then again and again, until `over` is set."""

    def __init__(self, simulation: Simulation, pause_ns: int, call: Callable[[], None]) -> None:
        self.over = False
        self._loop = simulation.loop
        self._pause_ns = pause_ns
        self._call = call
        self._turn()

    def _turn(self) -> None:
        if self.over:
            return
        self._call()
        loop = self._loop
        loop.schedule(loop.now_ns + self._pause_ns, loop.world.context, self._turn)


def starve(simulation: Simulation, fault: Fault) -> Running:
    """Let a process run for a share of the time only (`amount`), in short slices."""
    process, loop = simulation.processes[fault.target], simulation.loop
    share = min(0.9, fault.amount or SHARE_DEFAULT)
    late = 0

    def go_on() -> None:
        nonlocal late
        late += process.resume()

    def hold() -> None:
        # One that somebody else has stopped is that one's to let go on.
        if process.pause():
            left_ns = round(SLICE_NS * (1 - share))
            loop.schedule(loop.now_ns + left_ns, loop.world.context, go_on)

    every = _Every(simulation, SLICE_NS, hold)
    yield
    every.over = True
    go_on()
    return f"{late} callbacks late" if late else None


def duplicate(simulation: Simulation, fault: Fault) -> Running:
    """Break streams so that all that was under way to the second of each pair still arrives.

    The first is told at once that its stream is broken, so it asks again, and the second hears
    everything twice.
    """
    network = simulation.network
    count = broken = 0

    def look() -> None:
        nonlocal count, broken
        if broken >= BROKEN_MAX:
            return
        for source, target in fault.pairs:
            for end in list(network.hosts[source].endpoints):
                if end.outgoing.target.name != target or not end.outgoing.under_way:
                    continue
                count += end.break_delivering("connection reset")
                broken += 1
                return

    every = _Every(simulation, LOOK_NS, look)
    yield
    every.over = True
    return f"{count} frames arrived of {broken} broken streams" if count else None


def strobe_clock(simulation: Simulation, fault: Fault) -> Running:
    """Set the clock `amount` ns ahead and behind, in turns."""
    clock = simulation.processes[fault.target].machine.clock
    steps = 0

    def jump() -> None:
        nonlocal steps
        steps += 1
        clock.set_offset(int(fault.amount) * (1 if steps % 2 else -1))

    every = _Every(simulation, STROBE_NS, jump)
    yield
    every.over = True
    clock.correct()
    return f"{steps} steps"


def corrupt(simulation: Simulation, fault: Fault) -> Running:
    """Change `amount` stored bits while the process is down; where it notices, it gets a new disk.

    Until then it refuses to serve, however often its supervisor starts it.
    """
    process = simulation.processes[fault.target]
    machine = process.machine
    killed = process.kill()
    where = [machine.disk.flip_bit() for _ in range(max(1, int(fault.amount)))] if killed else []
    if killed:
        process.start()
    yield
    flipped = [one for one in where if one is not None]
    noticed = machine.memory.quarantine is not None
    if noticed:
        process.kill()
        process.start("lost")
    if not flipped:
        return None
    return f"{', '.join(flipped)} {'noticed' if noticed else 'harmless'}"
