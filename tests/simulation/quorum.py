"""A replicated register, small enough to read and real enough to be worth breaking.

Servers keep the newest (number, writer, value) in the store's real log, sync once a turn and only
then answer. Clients read from a majority, and write to a majority before they return, reads
included (Attiya, Bar-Noy, Dolev, "Sharing Memory Robustly in Message-Passing Systems", 1995). So
whatever happens to fewer than a majority, an operation that begins after another has ended sees
a tag that is not smaller.

As a program it prints, for each seed given, the hash of the run's trace.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from k2store.rpc.transport import Connection, TransportError
from k2store.storage.failures import StorageFailed
from k2store.testing.simulation import (
    MILLISECOND_NS,
    SECOND_NS,
    Applied,
    Conditions,
    Engine,
    Environment,
    Fault,
    Knobs,
    Simulation,
    draw_knobs,
    draw_schedule,
)

PORT = 7400
REGIONS = ("fra", "iad", "nrt")
# Five servers over three regions; each may fail while the majority of the others stands.
KINDS = (
    "isolate",
    "one-way",
    "bridge",
    "ring",
    "flap",
    "slow-link",
    "lossy-link",
    "clog",
    "reset",
    "kill",
    "power-cut",
    "pause",
    "fail-sync",
    "slow-disk",
    "clock-step",
)

Tag = tuple[int, str]


class Ask(msgspec.Struct, array_like=True):
    """A request: store this if it is newer, and say what is newest."""

    number: int
    tag: Tag
    value: int


class Answer(msgspec.Struct, array_like=True):
    """What is newest, durably."""

    number: int
    tag: Tag
    value: int


class Operation(msgspec.Struct):
    """One line of the history."""

    client: str
    kind: str
    began_ns: int
    ended_ns: int
    tag: Tag
    value: int


ask_decoder = msgspec.msgpack.Decoder(Ask)
answer_decoder = msgspec.msgpack.Decoder(Answer)
encode = msgspec.msgpack.Encoder().encode


class Server:
    """Answers a turn's questions after one sync of the log."""

    def __init__(self, environment: Environment, *, careless: bool) -> None:
        self.environment = environment
        self.careless = careless
        self.store = environment.open_store()
        self.tag: Tag = (0, "")
        self.value = 0
        for turn in self.store.log.replay():
            if turn.payload:
                kept = answer_decoder.decode(turn.payload)
                self.tag, self.value = kept.tag, kept.value
        self.turn: list[tuple[Connection, Ask]] = []
        self.failure = environment.loop.create_future()

    def on_connect(self, connection: Connection) -> None:
        """Nothing to prepare."""

    def on_close(self, connection: Connection, reason: str) -> None:
        """Nothing to clean up."""

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """Gather what arrives in one turn of the loop."""
        self.turn.append((connection, ask_decoder.decode(frame)))
        if len(self.turn) == 1:
            self.environment.loop.call_soon(self.answer)

    def answer(self) -> None:
        """Keep the newest, make it durable, then answer everybody."""
        turn, self.turn = self.turn, []
        newest = max(turn, key=lambda entry: entry[1].tag)[1]
        try:
            if newest.tag > self.tag:
                self.tag, self.value = newest.tag, newest.value
                self.store.log.append(encode(Answer(0, self.tag, self.value)))
                if not self.careless:
                    self.store.log.sync()
        except StorageFailed as error:
            if not self.failure.done():
                self.failure.set_exception(error)
            return
        for connection, ask in turn:
            if not connection.closed:
                connection.send(encode(Answer(ask.number, self.tag, self.value)))


def server(*, careless: bool = False):
    """A server's main; a careless one answers before it has synced."""

    async def main(environment: Environment) -> None:
        program = Server(environment, careless=careless)
        await environment.listen(PORT, program)
        await program.failure

    return main


class Link:
    """A client's connection to one server, made again whenever it breaks."""

    def __init__(self, environment: Environment, address: str) -> None:
        self.environment = environment
        self.address = address
        self.connection: Connection | None = None
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.numbers = 0
        self.keeper = environment.loop.create_task(self.keep())

    def on_connect(self, connection: Connection) -> None:
        """The way is open."""
        self.connection = connection

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """An answer wakes whoever asked."""
        answer = answer_decoder.decode(frame)
        waiter = self.waiting.pop(answer.number, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def on_close(self, connection: Connection, reason: str) -> None:
        """What is unanswered stays so."""
        self.connection = None
        self.waiting.clear()

    async def keep(self) -> None:
        """Connect again and again."""
        while True:
            if self.connection is None:
                try:
                    async with asyncio.timeout(3):
                        await self.environment.connect(self.address, handler=self)
                except (TransportError, TimeoutError):
                    self.environment.trace.event("no connection", self.address)
            await asyncio.sleep(0.1)

    async def ask(self, tag: Tag, value: int) -> Answer:
        """Ask this server; never ends if the answer is lost."""
        while self.connection is None:
            await asyncio.sleep(0.02)
        self.numbers += 1
        waiter: asyncio.Future[Answer] = self.environment.loop.create_future()
        self.waiting[self.numbers] = waiter
        self.connection.send(encode(Ask(self.numbers, tag, value)))
        return await waiter


async def ask_majority(links: Sequence[Link], tag: Tag, value: int) -> Answer:
    """The newest of a majority's answers; asks again those that do not answer in time."""
    needed = len(links) // 2 + 1
    while True:
        # A set, as asyncio.wait wants it: its order must not matter, and does not.
        tasks = {asyncio.ensure_future(link.ask(tag, value)) for link in links}
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(2):
                while len(answers) < needed:
                    done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    answers += [task.result() for task in done]
            return max(answers, key=lambda answer: answer.tag)
        except TimeoutError:
            continue
        finally:
            for task in tasks:
                task.cancel()


def client(name: str, servers: Sequence[str], count: int, history: list[Operation]):
    """A client's main: that many operations, half of them writes of values nobody else writes."""

    async def main(environment: Environment) -> int:
        links = [Link(environment, f"{server}:{PORT}") for server in servers]
        chance = environment.random("operations")
        for number in range(count):
            began_ns = environment.loop.now_ns
            newest = await ask_majority(links, (0, ""), 0)
            tag, value, kind = newest.tag, newest.value, "read"
            if chance.random() < 0.5:
                tag, value, kind = (tag[0] + 1, name), number, "write"
            await ask_majority(links, tag, value)
            history.append(Operation(name, kind, began_ns, environment.loop.now_ns, tag, value))
            await asyncio.sleep(chance.random() * 0.1)
        return count

    return main


def violations(history: Sequence[Operation]) -> list[tuple[Operation, Operation]]:
    """Pairs in which a later operation saw less than an earlier one had ensured."""
    by_end = sorted(history, key=lambda operation: operation.ended_ns)
    found, place = [], 0
    ensured: Operation | None = None
    for later in sorted(history, key=lambda operation: operation.began_ns):
        while place < len(by_end) and by_end[place].ended_ns < later.began_ns:
            if ensured is None or by_end[place].tag > ensured.tag:
                ensured = by_end[place]
            place += 1
        if ensured is not None and later.tag < ensured.tag:
            found.append((ensured, later))
    return found


class Outcome(msgspec.Struct):
    """What a run came to."""

    trace: str
    history: list[Operation]
    schedule: list[Fault]
    applied: list[Applied]
    probes: dict[str, int]
    steps: int
    delivered: int
    virtual_ns: int


def run(
    seed: int,
    *,
    servers: int = 5,
    clients: int = 3,
    operations: int = 30,
    schedule: list[Fault] | None = None,
    careless: bool = False,
    trace_sink: Any = None,
) -> Outcome:
    """One run; the schedule is drawn from the seed unless it is given."""
    history: list[Operation] = []
    names = [f"server-{number}" for number in range(servers)]
    users = [f"client-{number}" for number in range(clients)]
    conditions = Conditions(stream_silence_ns=3 * SECOND_NS, connect_ns=2 * SECOND_NS)
    with Simulation(seed, conditions=conditions, trace_sink=trace_sink) as simulation:
        for number, name in enumerate(names):
            simulation.process(
                simulation.machine(name, REGIONS[number % 3]),
                server(careless=careless),
                fail_stop=(StorageFailed,),
                restart_ns=500 * MILLISECOND_NS,
            )
        mains = [
            simulation.process(
                simulation.machine(name, REGIONS[number % 3]),
                client(name, names, operations, history),
            )
            for number, name in enumerate(users)
        ]
        if schedule is None:
            chance = simulation.random("schedule")
            knobs: Knobs = draw_knobs(chance, KINDS)
            schedule = draw_schedule(chance, names, names + users, 5 * SECOND_NS, knobs)
        engine = Engine(simulation, schedule)
        simulation.run_for(8 * SECOND_NS)
        engine.stop()
        simulation.wait_for(mains, limit_ns=120 * SECOND_NS)
        simulation.check()
        return Outcome(
            simulation.trace.hash,
            history,
            schedule,
            engine.applied,
            simulation.probes.counts,
            simulation.loop.steps,
            simulation.network.delivered,
            simulation.loop.now_ns,
        )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(run(int(argument)).trace + "\n")
