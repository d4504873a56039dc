"""A node that comes back with an old copy of its disk, as from a snapshot of a virtual machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from k2store.testing.simulation import SECOND_NS, Action, Fault, Simulation

if TYPE_CHECKING:
    from k2store.testing.control import MemoryPlane
    from k2store.testing.simulation.cluster import ClusterNode


def old_disk(plane: MemoryPlane, nodes: Sequence[ClusterNode]) -> Action:
    """The action for a store that consists of these nodes."""

    def learner() -> str | None:
        """A node without a vote anywhere, None where all have one."""
        voters = {voter for one in plane.map.partitions for voter in one.voters}
        known = {one.name: one.id for one in plane.map.nodes}
        found = [node.name for node in nodes if known.get(node.name, 0) not in {0, *voters}]
        return found[-1] if found else None

    def stale(simulation: Simulation, fault: Fault) -> Generator[None, None, str | None]:
        """Halfway bring a node back with its disk as it was at the beginning.

        One that votes may not come back so: it would have forgotten what it acknowledged. Its
        operator gives it an empty disk at once, as he does when a node finds out by itself.
        """
        name, version, loop = learner(), plane.map.version, simulation.loop
        process = None if name is None else simulation.processes[name]
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
