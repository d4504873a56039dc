"""Applies a schedule to a real cluster, each fault at its time, and keeps what each has shown."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeAlias

import msgspec

from jepsen_like.nemesis.drivers import DRIVERS
from jepsen_like.nemesis.schedule import Fault
from jepsen_like.nemesis.world import Broken, Running, Unable, World
from k2store import K2Error

THREADS: Final = 24
WATCH_S: Final = 0.2

State: TypeAlias = Literal["effective", "idle", "skipped", "broken"]
"""Effective: its evidence is there. Idle: nothing shows that it did anything. Skipped: it could not
be made, and why. Broken: what must not happen has happened."""


class Applied(msgspec.Struct, frozen=True):
    """One fault that is over. Times in ns on the clock of the machine."""

    fault: Fault
    state: State
    told: str
    """The evidence, or the reason."""
    began_ns: int
    ended_ns: int


class Nemesis:
    """One schedule on one world."""

    def __init__(self, world: World) -> None:
        self.applied: list[Applied] = []
        """Faults that are over, in that order."""
        self.broken: list[str] = []
        """What no fault may lead to."""
        self._world = world
        self._threads = ThreadPoolExecutor(THREADS, "fault")

    async def run(self) -> None:
        """All faults; returns when the last one is over."""
        world = self._world
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for fault in world.schedule.faults:
                    group.create_task(self._one(fault))
                group.create_task(asyncio.sleep(world.schedule.duration_ns / 1e9))
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            self._threads.shutdown(wait=False)

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_ns / 1e9)
        began_ns = time.time_ns()
        state, told = await self._apply(fault)
        if state == "broken":
            self.broken.append(f"{fault.name} of {fault.target or fault.pairs}: {told}")
        self.applied.append(Applied(fault, state, told, began_ns, time.time_ns()))

    async def _apply(self, fault: Fault) -> tuple[State, str]:
        driver = DRIVERS.get(fault.name)
        if driver is None:
            return "skipped", "real processes cannot be given this"
        loop = asyncio.get_running_loop()
        running = driver(self._world, fault)
        try:
            await loop.run_in_executor(self._threads, _begun, running)
            await asyncio.sleep(fault.for_ns / 1e9)
            evidence = await loop.run_in_executor(self._threads, _ended, running)
        except Unable as unable:
            return "skipped", str(unable)
        except (Broken, K2Error, OSError) as error:
            return "broken", str(error)
        return ("idle", "") if evidence is None else ("effective", evidence)

    async def _watch(self) -> None:
        """No node ends but by a fault. One that does is told of, and started again."""
        world = self._world
        while True:
            await asyncio.sleep(WATCH_S)
            for node in world.cluster.nodes.values():
                if node.running or world.claimed(node.name):
                    continue
                said = node.log().rstrip().rpartition("\n")[2]
                self.broken.append(f"{node.name} ended by itself: {said}")
                try:
                    await asyncio.to_thread(node.kill)
                    await asyncio.to_thread(world.start, node)
                except (Broken, K2Error) as error:
                    self.broken.append(str(error))


def _begun(running: Running) -> None:
    next(running)


def _ended(running: Running) -> str | None:
    try:
        next(running)
    except StopIteration as over:
        evidence: str | None = over.value
        return evidence
    raise AssertionError("a fault has two halves")
