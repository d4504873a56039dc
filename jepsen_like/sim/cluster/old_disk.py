"""A node that comes back with an old copy of its disk, as from a snapshot of a virtual machine."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from k2store.testing.simulation import SECOND_NS, Action, Fault, Simulation

if TYPE_CHECKING:
    from k2store.testing.control import MemoryPlane


def old_disk(plane: MemoryPlane) -> Action:
    """The action for a store under this control plane."""

    def votes(name: str) -> bool:
        """Whether a node has a vote anywhere, or is not known yet."""
        voters = {voter for one in plane.map.partitions for voter in one.voters}
        known = {one.name: one.id for one in plane.map.nodes}
        return known.get(name, 0) in {0, *voters}

    def stale(simulation: Simulation, fault: Fault) -> Generator[None, None, str | None]:
        """Halfway bring a node back with its disk as it was at the beginning.

        One that votes may not come back so: it would have forgotten what it acknowledged. Its
        operator gives it an empty disk at once, as he does when a node finds out by itself.
        """
        name, version, loop = fault.target, plane.map.version, simulation.loop
        process = None if votes(name) else simulation.processes[name]
        over = came_back = False
        if process is not None:
            process.machine.keep_copy()

        def come_back() -> None:
            nonlocal came_back
            if over or process is None or plane.map.version != version or not process.kill():
                return
            came_back = True
            process.start("stale")
            operate()

        def operate() -> None:
            assert process is not None
            if process.machine.memory.quarantine is not None:
                process.kill()
                process.start("lost")
            loop.schedule(loop.now_ns + SECOND_NS // 2, loop.world.context, operate)

        loop.schedule(loop.now_ns + fault.for_ns // 2, loop.world.context, come_back)
        yield
        over = True
        return f"{name} came back with an old disk" if came_back else None

    return stale
