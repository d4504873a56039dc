"""A deterministic simulator: real asyncio programs on simulated machines, from one seed.

Programs written against ports run unchanged: the transport (`k2store.rpc.transport`), the clock
(`k2store.clock`) and the disk (`k2store.storage.disk`) are simulated, and so is asyncio's event
loop. Their codecs, their tasks, their time-outs and their logs are the real ones::

                       seed
                        │ one stream of chance for each user (randomness)
      ┌─────────┬───────┴───┬─────────────┐
    loop     network      disks        schedule of faults
    order    delays      what tears    what, when, to whom (swarm, faults)
      │         │            │             │
      ▼         ▼            ▼             ▼
    process on machine ─ frames ─ process on machine          one domain for each incarnation
      │                                                      (loop, process, streams)
      └──► trace: one hash over all that happened; probes: what the run has reached

Two runs of a seed give the same trace, in any process, on any day. So a failure is its seed: run
it again with a debugger, or let `shrink` leave out faults until only those remain that matter.

What makes that hold is written where it is done. What would break it in the code under test is
refused (threads, sockets, executors) or shows up as a trace that differs (sets of strings,
addresses, the process's own clock).

A run, in short::

    async def node(environment):  # real code, given its ports
        await environment.listen(7400, handler)
        await environment.stopping.wait()


    async def client(environment):
        connection = await environment.connect("a:7400")
        connection.send(b"hello")
        return await connection.receive()


    with Simulation(seed) as simulation:
        simulation.process("a", node)
        user = simulation.process("user", client)
        engine = Engine(simulation, schedule)
        answers = simulation.wait_for([user], limit_ns=60 * SECOND_NS)
        engine.stop()
        simulation.check()
"""

from k2store.testing.simulation.clock import HostClock, SimClock
from k2store.testing.simulation.disk import SimDisk
from k2store.testing.simulation.domain import SECOND_NS
from k2store.testing.simulation.faults import (
    ACTIONS,
    Action,
    Applied,
    Engine,
    Fault,
    decode,
    encode,
)
from k2store.testing.simulation.loop import (
    Deadlock,
    Livelock,
    Loop,
    OutOfTime,
    SimulationError,
    UnhandledError,
)
from k2store.testing.simulation.network import MILLISECOND_NS, Conditions, Network
from k2store.testing.simulation.probes import SIMULATOR_PROBES, Buggify, Probes
from k2store.testing.simulation.process import (
    Environment,
    Machine,
    Main,
    Process,
    ProcessEnded,
)
from k2store.testing.simulation.randomness import derive, stream
from k2store.testing.simulation.repeating import Repeating
from k2store.testing.simulation.shrink import shrink
from k2store.testing.simulation.simulation import START_NS, Simulation
from k2store.testing.simulation.swarm import Knobs, draw_knobs, draw_schedule
from k2store.testing.simulation.trace import Trace
from k2store.testing.simulation.transport import SimTransport

__all__ = [
    "ACTIONS",
    "Action",
    "Applied",
    "Buggify",
    "Conditions",
    "Deadlock",
    "Engine",
    "Environment",
    "Fault",
    "HostClock",
    "Knobs",
    "Livelock",
    "Loop",
    "MILLISECOND_NS",
    "Machine",
    "Main",
    "Network",
    "OutOfTime",
    "Probes",
    "Process",
    "ProcessEnded",
    "Repeating",
    "SECOND_NS",
    "SIMULATOR_PROBES",
    "START_NS",
    "SimClock",
    "SimDisk",
    "SimTransport",
    "Simulation",
    "SimulationError",
    "Trace",
    "UnhandledError",
    "decode",
    "derive",
    "draw_knobs",
    "draw_schedule",
    "encode",
    "shrink",
    "stream",
]
