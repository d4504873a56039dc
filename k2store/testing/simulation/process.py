"""Machines, the processes on them, and the ways both stop and start.

A *machine* has a name in the network, a disk and a clock, and outlives its processes. A *process*
runs one coroutine function, its `main`, over and over: each start is an *incarnation* with a
domain of its own on the loop and an `Environment` of its own. Everything a program may touch is
in the environment; when the incarnation dies, all of it goes dead.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NoReturn, TypeVar, cast

from k2store.rpc.transport import Connection, Handler, Listening
from k2store.storage.memory_disk import MemoryDisk
from k2store.storage.options import StorageOptions
from k2store.storage.store import MemoryMachine, OpenStore, open_memory_store
from k2store.testing.simulation.clock import HostClock, SimClock
from k2store.testing.simulation.disk import Mount, Names, SimDisk
from k2store.testing.simulation.domain import BLOCKING_NS, Domain, DomainKilled, State
from k2store.testing.simulation.loop import Loop, UnhandledError
from k2store.testing.simulation.network import Host, Network
from k2store.testing.simulation.probes import Buggify
from k2store.testing.simulation.randomness import stream
from k2store.testing.simulation.trace import Trace
from k2store.testing.simulation.transport import SimTransport

T = TypeVar("T")

DiskAfter = Literal["same", "lost", "stale"]
"""What a process finds on its machine's disk when it starts again."""


class ProcessEnded(Exception):
    """The awaited incarnation was killed before its main returned."""


class Environment:
    """Everything one incarnation of a process may touch.

    `transport` is its `Dialer` and `Listener`, `disk` its directory, `clock` its `Clock`;
    `asyncio` itself is the rest. `stopping` is set when the process is asked to end in good order.
    """

    def __init__(self, process: Process, domain: Domain, incarnation: int) -> None:
        machine = process.machine
        self.name = process.name
        self.incarnation = incarnation
        self.loop: Loop = machine.loop
        self.domain = domain
        self.clock = SimClock(machine.clock)
        self.transport = SimTransport(machine.network, machine.host, domain)
        self.disk: Mount = machine.disk.mount()
        self.machine = machine
        self.trace: Trace = machine.network.trace
        self.probe: Callable[[str], None] = machine.network.probes.hit
        self.buggify: Buggify = process.buggify
        self.stopping = asyncio.Event()
        self._process = process
        self._entropy = self.random("entropy")

    def random(self, purpose: str) -> random.Random:
        """This incarnation's stream of chance for one purpose; calling again begins it anew."""
        return stream(self._process.seed, self.name, self.incarnation, purpose)

    def entropy(self, count: int) -> bytes:
        """Bytes for identities, from a stream of their own."""
        return self._entropy.randbytes(count)

    def open_store(self, options: StorageOptions | None = None) -> OpenStore:
        """Open the store on this machine's disk: the real log, and settled rows in memory."""
        return open_memory_store(
            self.machine.memory,
            options,
            now_ns=lambda: self.clock.read()[1],
            entropy=self.entropy,
        )

    async def offload(self, call: Callable[[], T]) -> T:
        """Run a blocking call of the disk as a thread would: its latency passes, others run."""
        return await self.loop.run_in_executor(None, call)

    async def connect(
        self,
        address: str,
        metadata: Mapping[str, str] | None = None,
        handler: Handler | None = None,
    ) -> Connection:
        """`transport.connect`, for short."""
        return await self.transport.connect(address, metadata or {}, handler)

    async def listen(self, port: int, handler: Handler) -> Listening:
        """`transport.listen` on this machine."""
        return await self.transport.listen(f"{self.machine.host.name}:{port}", handler)

    def crash(self, point: str) -> NoReturn:
        """Die here and now, as if killed at this point."""
        self.trace.event("crash", self.name, point)
        self.probe("process.crashed_itself")
        self._process.kill()
        self._process.restart_later()
        raise DomainKilled(point)


Main = Callable[[Environment], Awaitable[Any]]


class Machine:
    """A host of the network with its clock and what it stores: a disk, and settled rows."""

    def __init__(
        self, network: Network, host: Host, clock: HostClock, disk: SimDisk, rng: random.Random
    ) -> None:
        self.network = network
        self.host = host
        self.clock = clock
        self.disk = disk
        self.memory = MemoryMachine()
        """Settled rows and the store's identity; its disk is the mount of whoever runs."""
        self.disk_latency_ns = BLOCKING_NS
        """How long a blocking call of the disk takes, for those who wait for it."""
        self._rng = rng
        self._kept: tuple[Names, MemoryMachine] | None = None

    @property
    def loop(self) -> Loop:
        """The loop all is on."""
        return self.network.loop

    def keep_copy(self) -> None:
        """Copy what would survive a power cut now, for a later start with a stale disk."""
        memory = MemoryMachine(
            table=copy.deepcopy(self.memory.table), identity=self.memory.identity
        )
        memory.table.kill(None)
        self._kept = (self.disk.snapshot(), memory)

    def begin(self, disk: DiskAfter, mount: Mount) -> None:
        """A process starts: choose what it finds stored, and give it access."""
        if not self.host.powered:
            self.clock.reboot()
            self.host.powered = True
        if disk == "lost":
            self.disk.wipe()
            self.memory = MemoryMachine()
        elif disk == "stale":
            names, memory = self._kept or ({}, MemoryMachine())
            self.disk.restore(names)
            self.memory = memory
            self._kept = None
        # The store uses no more of it than the port, which a mount implements as well.
        self.memory.disk = cast(MemoryDisk, mount)

    def end(self, *, silently: bool) -> None:
        """A process is gone: killed, or `silently`, together with the machine's power."""
        host = self.host
        host.domain = None
        host.datagrams = None
        host.acceptors.clear()
        for endpoint in list(host.endpoints):
            endpoint.die(silently=silently)
        self.memory.table.kill(self._rng)
        self.disk.process_died()

    def behave(self) -> None:
        """Take back every fault ordered from the disk."""
        self.disk.behave()
        self.disk_latency_ns = BLOCKING_NS
        self.memory.table.flushes_to_fail = 0


class Process:
    """A program on a machine, through all its incarnations."""

    def __init__(
        self,
        machine: Machine,
        main: Main,
        *,
        seed: int,
        buggify: Buggify,
        fail_stop: tuple[type[BaseException], ...] = (),
        restart_ns: int | None = None,
    ) -> None:
        """`fail_stop`: exceptions with which `main` may end without failing the run.

        `restart_ns`: how long after such an end, or after `Environment.crash`, a supervisor
        starts it again; None: nobody does.
        """
        self.machine = machine
        self.name = machine.host.name
        self.main = main
        self.seed = seed
        self.buggify = buggify
        self.incarnation = 0
        self.environment: Environment | None = None
        self.finished = False
        """True once a main has returned: nobody starts it again."""
        self.exits: list[BaseException] = []
        """Expected exceptions with which incarnations ended, oldest first."""
        self._fail_stop = fail_stop
        self._restart_ns = restart_ns
        self._domain: Domain | None = None
        self._ended: asyncio.Future[Any] | None = None

    @property
    def alive(self) -> bool:
        """True while an incarnation runs or stands still."""
        return self._domain is not None

    @property
    def paused(self) -> bool:
        """True while it stands still."""
        return self._domain is not None and self._domain.state is State.PAUSED

    def start(self, disk: DiskAfter = "same") -> Environment:
        """Begin a new incarnation."""
        assert self._domain is None, f"{self.name} runs already"
        machine, loop = self.machine, self.machine.loop
        self.incarnation += 1
        machine.network.trace.event("start", self.name, self.incarnation, disk)
        domain = self._domain = loop.domain(f"{self.name}#{self.incarnation}")
        domain.blocking_ns = lambda: machine.disk_latency_ns
        machine.host.domain = domain
        self._ended = loop.create_future()
        # Whether anybody asks for the end is the test's business.
        self._ended.add_done_callback(_look, context=loop.world.context)
        environment = domain.context.run(Environment, self, domain, self.incarnation)
        self.environment = environment
        machine.begin(disk, environment.disk)
        task = loop.create_task(
            _main(self.main, environment),
            name=f"{domain.name}/main",
            context=domain.context.copy(),
        )
        task.add_done_callback(self._main_done, context=loop.world.context)
        return environment

    async def wait(self) -> Any:
        """Wait for the present incarnation's end: its result, its exception, or ProcessEnded."""
        assert self._ended is not None, f"{self.name} was never started"
        return await asyncio.shield(self._ended)

    def stop(self) -> None:
        """Ask it to end in good order (SIGTERM); it may take its time."""
        if self.environment is not None:
            self.machine.network.trace.event("stop", self.name)
            self.environment.stopping.set()

    def kill(self) -> bool:
        """End it at once (SIGKILL): no handler, no `finally` runs. False if it did not run."""
        if self._domain is None:
            return False
        self.machine.network.trace.event("kill", self.name)
        self.machine.network.probes.hit("process.killed")
        self._bury(silently=False)
        self._end(ProcessEnded(f"{self.name} was killed"))
        return True

    def power_cut(self) -> None:
        """Take the machine's power: the process dies, and what is not on the platter is lost."""
        self.machine.network.trace.event("power cut", self.name)
        self.machine.network.probes.hit("process.power_cut")
        self.machine.host.powered = False
        if self._domain is not None:
            self._bury(silently=True)
            self._end(ProcessEnded(f"{self.name} lost its power"))
        self.machine.disk.power_cut()

    def pause(self) -> bool:
        """Let it stand still (SIGSTOP); its timers and frames wait. False if it did not run."""
        if self._domain is None or self._domain.state is not State.RUNNING:
            return False
        self.machine.network.trace.event("pause", self.name)
        self.machine.network.probes.hit("process.paused")
        self.machine.loop.pause(self._domain)
        return True

    def resume(self) -> int:
        """Let it go on (SIGCONT); gives how many callbacks had come due meanwhile."""
        if self._domain is None:
            return 0
        late = self.machine.loop.resume(self._domain)
        self.machine.network.trace.event("resume", self.name, late)
        if late:
            self.machine.network.probes.hit("process.woke_late")
        return late

    def restart(self, disk: DiskAfter = "same") -> Environment:
        """Kill it if it runs, and start it."""
        self.kill()
        return self.start(disk)

    def _bury(self, *, silently: bool) -> None:
        """End the incarnation: nothing of it acts any more."""
        domain, machine = self._domain, self.machine
        assert domain is not None
        assert self.environment is not None
        self._domain = None
        machine.loop.kill(domain)
        domain.bury(self.environment)
        self.environment.disk.detach()
        machine.end(silently=silently)

    def _end(self, error: BaseException | None, result: Any = None) -> None:
        """Tell those who wait for this incarnation."""
        assert self._ended is not None
        if error is not None:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(result)

    def _main_done(self, task: asyncio.Task[Any]) -> None:
        """The main of an incarnation has returned or raised."""
        if self.environment is None or self._domain is not self.environment.domain:
            return
        # Nobody cancels a main: if it was, something within it was, and nobody has noticed.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.machine.network.trace.event("end", self.name, type(error).__name__)
        self._bury(silently=False)
        if error is None:
            self.finished = True
            self._end(None, task.result())
            return
        self._end(error)
        if isinstance(error, self._fail_stop):
            self.exits.append(error)
            self.restart_later()
            return
        failure = UnhandledError(f"{self.name} ended with {error!r}")
        failure.__cause__ = error
        self.machine.loop.fail(failure)

    def restart_later(self) -> None:
        """Let the supervisor start it again, if it has one."""
        if self._restart_ns is None:
            return
        loop = self.machine.loop
        loop.schedule(loop.now_ns + self._restart_ns, loop.world.context, self._revive)

    def _revive(self) -> None:
        if self._domain is None and self.machine.host.powered:
            self.start()


async def _main(main: Main, environment: Environment) -> Any:
    return await main(environment)


def _look(future: asyncio.Future[Any]) -> None:
    """Take notice of a failure, so that nobody complains that nobody did."""
    if not future.cancelled():
        future.exception()
