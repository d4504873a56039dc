"""Faults as data: what goes wrong when, for how long, and whether it took effect.

A *schedule* is a list of faults that can be written down, read back, shortened and run again.
An *engine* applies it to a simulation. Every fault is an action in two halves, begin and end;
the second half returns *evidence* that it did something: packets stopped, callbacks late, an
operation refused. A fault without evidence has tested nothing, and the run can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from k2store.testing.simulation import hardship
from k2store.testing.simulation.network import MILLISECOND_NS, Link, Pair
from k2store.testing.simulation.process import DiskAfter, Process
from k2store.testing.simulation.simulation import Simulation

AMBUSH_NS: Final = 3_000 * MILLISECOND_NS
"""How long a fault waits for its state before it begins anyway."""
AMBUSH_LOOK_NS: Final = MILLISECOND_NS


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that goes wrong. Which fields mean something depends on the name."""

    at_ns: int
    """When it begins, in ns since the start of the schedule."""
    name: str
    """One of `ACTIONS`."""
    for_ns: int = 0
    """How long it lasts."""
    target: str = ""
    """The process or machine it happens to."""
    pairs: tuple[Pair, ...] = ()
    """The directions of the network it happens to."""
    amount: float = 0
    """How much: ns, bytes, a probability or a count, as the action says."""
    when: str = ""
    """A state that it waits for, where somebody looks: it begins as soon as the state is met."""


class Applied(msgspec.Struct, frozen=True):
    """A fault that has ended, and what shows that it happened; None: nothing does."""

    fault: Fault
    evidence: str | None
    met: tuple[str, ...] = ()
    """States of the system in which it began or ended."""


def encode(schedule: list[Fault]) -> bytes:
    """The schedule as JSON, one fault a line."""
    return b"[" + b",\n ".join(msgspec.json.encode(fault) for fault in schedule) + b"]\n"


def decode(text: bytes) -> list[Fault]:
    """Read a schedule back; raises msgspec.DecodeError, ValueError for an unknown action."""
    schedule = msgspec.json.decode(text, type=list[Fault])
    for fault in schedule:
        if fault.name not in ACTIONS:
            raise ValueError(f"unknown fault {fault.name!r}")
    return schedule


Running = Generator[None, None, str | None]


class Engine:
    """Applies one schedule to one simulation."""

    def __init__(
        self,
        simulation: Simulation,
        schedule: list[Fault],
        actions: Mapping[str, Action] = MappingProxyType({}),
        look: Callable[[Fault], Iterable[str]] = lambda _: (),
    ) -> None:
        """Sets a timer for every fault, from now on; `actions` are known beside `ACTIONS`.

        `look` names the states that the part of the system is in which a fault happens to.
        """
        self._look = look
        self._actions = {**ACTIONS, **actions}
        self.applied: list[Applied] = []
        """Faults that have ended, in that order."""
        self._simulation = simulation
        self._running: dict[int, tuple[Fault, Running, set[str]]] = {}
        loop = simulation.loop
        for number, fault in enumerate(schedule):
            due_ns = loop.now_ns + fault.at_ns
            latest_ns = due_ns + (AMBUSH_NS if fault.when else 0)
            loop.schedule(due_ns, loop.world.context, self._begin, number, fault, latest_ns)
        self._stopped = False

    def stop(self) -> None:
        """End all faults that last and begin no more; then heal whatever they have left."""
        self._stopped = True
        for number in list(self._running):
            self._end(number)
        self._simulation.heal()

    def without_evidence(self) -> list[Fault]:
        """Ended faults that nothing shows to have happened."""
        return [applied.fault for applied in self.applied if applied.evidence is None]

    def _begin(self, number: int, fault: Fault, latest_ns: int) -> None:
        if self._stopped:
            return
        loop = self._simulation.loop
        met = set(self._look(fault))
        if fault.when and fault.when not in met and loop.now_ns < latest_ns:
            due_ns = loop.now_ns + AMBUSH_LOOK_NS
            loop.schedule(due_ns, loop.world.context, self._begin, number, fault, latest_ns)
            return
        self._simulation.trace.event("fault", fault.name, fault.target, fault.for_ns)
        running = self._actions[fault.name](self._simulation, fault)
        self._running[number] = (fault, running, met)
        next(running)
        loop.schedule(loop.now_ns + fault.for_ns, loop.world.context, self._end, number)

    def _end(self, number: int) -> None:
        entry = self._running.pop(number, None)
        if entry is None:
            return
        fault, running, met = entry
        met.update(self._look(fault))
        try:
            next(running)
        except StopIteration as end:
            evidence: str | None = end.value
        else:
            raise AssertionError(f"the action {fault.name} has more than two halves")
        self._simulation.trace.event("fault ended", fault.name, fault.target, evidence or "")
        self.applied.append(Applied(fault, evidence, tuple(sorted(met))))


# Network


def _cut(simulation: Simulation, fault: Fault) -> Running:
    before = simulation.network.took(fault.pairs)
    simulation.network.cut(fault.pairs)
    yield
    stopped = simulation.network.took(fault.pairs) - before
    simulation.network.heal(fault.pairs)
    return f"{stopped} arrivals stopped" if stopped else None


def _flap(simulation: Simulation, fault: Fault) -> Running:
    """Cut and heal every `amount` ns; ends healed."""
    network, loop = simulation.network, simulation.loop
    before, down, over = network.took(fault.pairs), False, False

    def turn() -> None:
        nonlocal down
        if over:
            return
        (network.heal if down else network.cut)(fault.pairs)
        down = not down
        loop.schedule(loop.now_ns + max(1, int(fault.amount)), loop.world.context, turn)

    turn()
    yield
    over = True
    stopped = network.took(fault.pairs) - before
    if down:
        network.heal(fault.pairs)
    return f"{stopped} arrivals stopped" if stopped else None


def _links(change: Callable[[Link, float, int], None], undo: Callable[[Link], None]) -> Action:
    """An action that changes something about links, and changes it back."""

    def action(simulation: Simulation, fault: Fault) -> Running:
        network = simulation.network
        before = network.took(fault.pairs)
        until_ns = simulation.loop.now_ns + fault.for_ns
        for source, target in fault.pairs:
            change(network.link(source, target), fault.amount, until_ns)
        yield
        for source, target in fault.pairs:
            undo(network.link(source, target))
        touched = network.took(fault.pairs) - before
        return f"{touched} arrivals touched" if touched else None

    return action


def _slow(link: Link, amount: float, _: int) -> None:
    link.extra_ns = int(amount)


def _not_slow(link: Link) -> None:
    link.extra_ns = 0


def _lossy(link: Link, amount: float, _: int) -> None:
    link.loss = link.duplicate = link.reorder = amount


def _not_lossy(link: Link) -> None:
    link.loss = link.duplicate = link.reorder = 0.0


def _clog(link: Link, _: float, until_ns: int) -> None:
    link.clogged_until_ns = until_ns


def _not_clogged(link: Link) -> None:
    link.clogged_until_ns = 0


def _reset(simulation: Simulation, fault: Fault) -> Running:
    count = sum(simulation.network.reset(one, other) for one, other in fault.pairs)
    yield
    return f"{count} streams reset" if count else None


# Processes


def _process(simulation: Simulation, fault: Fault) -> Process:
    return simulation.processes[fault.target]


def _start_again(process: Process, disk: DiskAfter = "same") -> str | None:
    # Somebody else, a supervisor or another fault, may have started it meanwhile.
    if process.alive or process.finished:
        return "started meanwhile"
    process.start(disk)
    return f"incarnation {process.incarnation}"


def _kill(simulation: Simulation, fault: Fault) -> Running:
    process = _process(simulation, fault)
    killed = process.kill()
    yield
    return _start_again(process) if killed else None


def _power_cut(simulation: Simulation, fault: Fault) -> Running:
    process = _process(simulation, fault)
    running = process.alive
    if running:
        process.power_cut()
    yield
    return _start_again(process) if running else None


def _lose_disk(simulation: Simulation, fault: Fault) -> Running:
    process = _process(simulation, fault)
    killed = process.kill()
    yield
    return _start_again(process, "lost") if killed else None


def _stale_disk(simulation: Simulation, fault: Fault) -> Running:
    """Copy the disk now; at the end kill the process and start it from the copy."""
    process = _process(simulation, fault)
    process.machine.keep_copy()
    yield
    return _start_again(process, "stale") if process.kill() else None


def _pause(simulation: Simulation, fault: Fault) -> Running:
    process = _process(simulation, fault)
    paused = process.pause()
    yield
    late = process.resume()
    return f"{late} callbacks late" if paused and late else None


# Disks


def _ordered(order: Callable[[Process, int], None]) -> Action:
    """An action that orders a disk to fail the next `amount` times."""

    def action(simulation: Simulation, fault: Fault) -> Running:
        process = _process(simulation, fault)
        disk = process.machine.disk
        before = disk.faults
        order(process, max(1, int(fault.amount)))
        yield
        met = disk.faults - before
        process.machine.behave()
        return f"{met} operations" if met else None

    return action


def _flip_bit(simulation: Simulation, fault: Fault) -> Running:
    where = _process(simulation, fault).machine.disk.flip_bit()
    yield
    return where


def _slow_disk(simulation: Simulation, fault: Fault) -> Running:
    """Syncs that are waited for take `amount` ns."""
    machine = _process(simulation, fault).machine
    before = machine.disk.syncs
    machine.disk_latency_ns = int(fault.amount)
    yield
    syncs = machine.disk.syncs - before
    machine.behave()
    return f"{syncs} syncs" if syncs else None


def _fail_flush(simulation: Simulation, fault: Fault) -> Running:
    """Let the next flush of settled rows fail."""
    process = _process(simulation, fault)
    machine = process.machine
    table, exits = machine.memory.table, len(process.exits)
    table.flushes_to_fail += 1
    life = table.life
    yield
    # A process that met it has noticed, or is about to end of it; a kill takes the order back.
    met = not table.flushes_to_fail and (table.life == life or len(process.exits) > exits)
    machine.behave()
    return "a flush failed" if met else None


def _fill(process: Process, _: int) -> None:
    process.machine.disk.capacity_bytes = process.machine.disk.used_bytes


# Clocks


def _step_clock(simulation: Simulation, fault: Fault) -> Running:
    """Set the clock `amount` ns ahead of true time (or behind)."""
    clock = _process(simulation, fault).machine.clock
    clock.set_offset(int(fault.amount))
    yield
    offset_ns = clock.offset_ns
    clock.correct()
    return f"{offset_ns} ns ahead"


def _drift_clock(simulation: Simulation, fault: Fault) -> Running:
    """Let the clock run `amount` parts in 10^9 too fast (or slow)."""
    clock = _process(simulation, fault).machine.clock
    clock.set_drift(int(fault.amount))
    yield
    offset_ns = clock.offset_ns
    clock.correct()
    return f"{offset_ns} ns ahead" if offset_ns else None


def _freeze_clock(simulation: Simulation, fault: Fault) -> Running:
    clock = _process(simulation, fault).machine.clock
    clock.freeze()
    yield
    offset_ns = clock.offset_ns
    clock.correct()
    return f"{offset_ns} ns ahead" if offset_ns else None


def _doubt_clock(simulation: Simulation, fault: Fault) -> Running:
    """Multiply the advertised bound by `amount`."""
    clock = _process(simulation, fault).machine.clock
    clock.doubt = fault.amount
    yield
    # Another doubt may have begun meanwhile, and ends with this one.
    clock.doubt = 1.0
    return f"bound of {int(clock.bound_ns * fault.amount)} ns"


Action = Callable[[Simulation, Fault], Running]

ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "isolate": _cut,
        "halves": _cut,
        "one-way": _cut,
        "bridge": _cut,
        "ring": _cut,
        "flap": _flap,
        "slow-link": _links(_slow, _not_slow),
        "lossy-link": _links(_lossy, _not_lossy),
        "clog": _links(_clog, _not_clogged),
        "reset": _reset,
        "kill": _kill,
        "power-cut": _power_cut,
        "lose-disk": _lose_disk,
        "stale-disk": _stale_disk,
        "pause": _pause,
        "starve-cpu": hardship.starve,
        "duplicate": hardship.duplicate,
        "majority": _cut,
        "corrupt": hardship.corrupt,
        "clock-strobe": hardship.strobe_clock,
        "fail-sync": _ordered(lambda process, count: process.machine.disk.fail_syncs(count)),
        "fail-read": _ordered(lambda process, count: process.machine.disk.fail_reads(count)),
        "misdirect": _ordered(lambda process, count: process.machine.disk.misdirect_writes(count)),
        "disk-full": _ordered(_fill),
        "fail-flush": _fail_flush,
        "flip-bit": _flip_bit,
        "slow-disk": _slow_disk,
        "clock-step": _step_clock,
        "clock-drift": _drift_clock,
        "clock-freeze": _freeze_clock,
        "clock-doubt": _doubt_clock,
    }
)
"""Everything that can go wrong, by name."""
