"""One run: the loop, the network, the machines, and what they share, made from one seed."""

from __future__ import annotations

import gc
import random
from collections.abc import Awaitable, Iterable, Mapping
from types import TracebackType
from typing import IO, Final, Self, TypeVar

from k2store.testing.simulation.clock import BOUND_NS_DEFAULT, HostClock
from k2store.testing.simulation.disk import SimDisk
from k2store.testing.simulation.loop import Loop
from k2store.testing.simulation.network import Conditions, Network
from k2store.testing.simulation.probes import SIMULATOR_PROBES, Buggify, Probes
from k2store.testing.simulation.process import Machine, Main, Process
from k2store.testing.simulation.randomness import stream
from k2store.testing.simulation.trace import Trace

T = TypeVar("T")

START_NS: Final = 1_767_225_600_000_000_000
"""True time at the start of every run: 2026-01-01T00:00:00Z."""
COLLECT_ALL_RUNS: Final = 16


class Simulation:
    """A context manager around one run.

    Inside, Python's garbage collector is off, so that nothing is finalised at a moment that
    depends on memory; at the end the loop is closed and the collector runs.
    """

    _ended = 0
    """Runs of this process that are over."""

    def __init__(
        self,
        seed: int,
        *,
        conditions: Conditions | None = None,
        probes: Mapping[str, str] = SIMULATOR_PROBES,
        trace_sink: IO[str] | None = None,
    ) -> None:
        """`probes` are the declared ones; `trace_sink` receives every event as a line."""
        self.seed = seed
        # asyncio declares sockets and subprocesses abstract; we mean to be without them.
        self.loop = Loop(self.random("order"))  # type: ignore[abstract]
        self.trace = Trace(lambda: self.loop.now_ns, trace_sink)
        self.probes = Probes(probes)
        self.buggify = Buggify(seed)
        self.network = Network(self.loop, self.random, self.trace, self.probes, conditions)
        self.machines: dict[str, Machine] = {}
        self.processes: dict[str, Process] = {}
        self._collecting = False

    def __enter__(self) -> Self:
        self._collecting = gc.isenabled()
        gc.disable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.loop.close()
        if self._collecting:
            gc.enable()
        # All that the run has made is young, for nothing was collected meanwhile. But whoever has
        # the run in hand still refers to it, so it grows old now; every few runs the old go too.
        Simulation._ended += 1
        gc.collect(1 if Simulation._ended % COLLECT_ALL_RUNS else 2)

    def random(self, *names: str | int) -> random.Random:
        """A stream of chance of this run, at its beginning."""
        return stream(self.seed, *names)

    def true_ns(self) -> int:
        """True time, in ns since the Unix epoch."""
        return START_NS + self.loop.now_ns

    def machine(
        self,
        name: str,
        region: str = "local",
        *,
        offset_ns: int = 0,
        drift_ppb: int = 0,
        bound_ns: int = BOUND_NS_DEFAULT,
        honest: bool = True,
        grain_ns: int = 0,
    ) -> Machine:
        """Add a machine; see `HostClock` for what its clock can be."""
        chance = self.random("machine", name)
        clock = HostClock(
            self.true_ns,
            self.probes,
            offset_ns=offset_ns,
            drift_ppb=drift_ppb,
            bound_ns=bound_ns,
            honest=honest,
            boot_ns=chance.randrange(1 << 50),
            grain_ns=grain_ns,
        )
        disk = SimDisk(self.random("disk", name), self.trace, self.probes, label=name)
        host = self.network.host(name, region)
        self.machines[name] = machine = Machine(self.network, host, clock, disk, chance)
        return machine

    def process(
        self,
        machine: Machine | str,
        main: Main,
        *,
        fail_stop: tuple[type[BaseException], ...] = (),
        restart_ns: int | None = None,
        start: bool = True,
    ) -> Process:
        """Put a program on a machine (a name makes a new one) and start it."""
        if isinstance(machine, str):
            machine = self.machine(machine)
        process = Process(
            machine,
            main,
            seed=self.seed,
            buggify=self.buggify,
            fail_stop=fail_stop,
            restart_ns=restart_ns,
        )
        assert process.name not in self.processes, f"{process.name} has a process already"
        self.processes[process.name] = process
        if start:
            process.start()
        return process

    def run(self, awaitable: Awaitable[T], limit_ns: int | None = None) -> T:
        """Run until the awaitable is done; see `Loop.run`."""
        return self.loop.run(awaitable, limit_ns)

    def run_for(self, duration_ns: int) -> None:
        """Let virtual time pass."""
        self.loop.run_until(self.loop.now_ns + duration_ns)

    def wait_for(self, processes: Iterable[Process], limit_ns: int | None = None) -> list[object]:
        """Run until the mains of all these processes have returned; gives what they returned."""

        async def all_of_them() -> list[object]:
            return [await process.wait() for process in processes]

        return self.run(all_of_them(), limit_ns)

    def check(self) -> None:
        """Raise if anything failed that nobody has looked at; for the end of a run."""
        gc.collect(0)
        self.loop.check()

    def heal(self) -> None:
        """End every fault: network whole, disks and clocks well, all processes running."""
        self.buggify.enabled = False
        self.network.heal_everything()
        for machine in self.machines.values():
            machine.behave()
            machine.clock.correct()
        for process in self.processes.values():
            process.resume()
            if not process.alive and process.incarnation and not process.finished:
                process.start()
