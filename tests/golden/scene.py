"""The world of the golden scripts: partitions, a coordinator, a log, the mail, and a clock.

Nothing happens here unless a command says so: entries become durable, messages arrive and time
passes only on command. So a script can hold any moment still and look at it.
"""

from __future__ import annotations

from random import Random

import msgspec
from msgspec import Struct, field

from k2store.node.held import Held
from k2store.storage import MemoryMachine, open_memory_store
from mvcc.coordinator import Coordinator, Route
from mvcc.messages import (
    Answer,
    Commits,
    Committed,
    Failed,
    Message,
    Outcome,
    Rows,
    Span,
    Value,
    Values,
)
from mvcc.partition import Partition
from mvcc.records import Checkpoint, Entry
from mvcc.settled import Settled
from mvcc.state import PartitionSettings
from mvcc.transactions import Verdict
from tests.golden.wording import Names, describe_answer, describe_entry, describe_message
from truetime import Interval, Oracle, OracleSettings
from truetime.timestamp import EPOCH_NS, floor

BASE_NS = EPOCH_NS + 256 * 10**12
MS = 1_000_000
SPACE = 1
NEVER_NS = BASE_NS + 10**15


class Txn(Struct):
    """A transaction as its coordinator knows it."""

    txn: bytes
    stamp: int
    sequence: int = 0
    anchor: bytes = b""
    sequences: dict[str, list[int]] = field(default_factory=dict)
    participants: dict[str, Span] = field(default_factory=dict)


class Node(Struct):
    """One partition with its log: what is durable, and what is only appended."""

    name: str
    start: bytes
    end: bytes
    partition: Partition
    durable: list[Entry] = field(default_factory=list)
    appended: list[Entry] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    alive: bool = True


class Replica(Struct):
    """A machine that follows the log of a partition, with a store of its own."""

    leader: Node
    partition: Partition


class Mail(Struct):
    """A message under way."""

    origin: str
    to: str
    message: Message


class Scene:
    """Everything a script can touch."""

    def __init__(self) -> None:
        chance = Random(7)
        self.store = open_memory_store(
            MemoryMachine(), now_ns=lambda: BASE_NS, entropy=chance.randbytes
        )
        self.settings: dict[str, int] = {"retention_ns": 10**12}
        self.now = Interval(BASE_NS, BASE_NS)
        self.oracle_settings = OracleSettings(reservation_ns=10**13)
        self.oracle = Oracle(1, self.oracle_settings)
        self.oracle.reserve(NEVER_NS)
        self.oracles: dict[int, Oracle] = {1: self.oracle}
        self.nodes: dict[str, Node] = {}
        self.replicas: dict[str, Replica] = {}
        self.txns: dict[str, Txn] = {}
        self.names = Names(BASE_NS)
        self.unborn: list[str] = []
        self.mail: list[Mail] = []
        self.labels: dict[int, str] = {}
        self.outside: set[int] = set()
        self.requests = 0
        self.held: Held | None = None
        self.coordinator: Coordinator | None = None
        self.lines: list[str] = []

    # -- looking things up -------------------------------------------------------------------------

    def node_of(self, key: bytes) -> Node:
        """The partition that owns a key."""
        for node in self.nodes.values():
            if node.start <= key and (not node.end or key < node.end):
                return node
        raise KeyError(key)

    def request(self, label: str, *, outside: bool = False) -> int:
        """A new request number; ``outside``: a read of no transaction, to which T3 applies."""
        self.requests += 1
        self.labels[self.requests] = label
        if outside:
            self.outside.add(self.requests)
        return self.requests

    def say(self, line: str) -> None:
        """Write a line below the present command."""
        self.lines.append(line)

    # -- partitions --------------------------------------------------------------------------------

    def make(
        self, number: int, start: bytes, end: bytes, settled: Settled | None = None
    ) -> Partition:
        """A partition that knows nothing yet."""
        return Partition(
            number,
            start,
            end,
            space=SPACE,
            settled=settled or self.store.settled,
            oracle=self.oracle,
            settings=PartitionSettings(replicated=False, **self.settings),
        )

    def add_partition(self, name: str, start: bytes, end: bytes) -> None:
        """A new partition, serving, as if started long ago."""
        partition = self.make(len(self.nodes), start, end)
        long_ago_ns = BASE_NS - 10**9
        partition.start(Interval(long_ago_ns, long_ago_ns))
        partition.state.see(self.now)
        self.nodes[name] = Node(name, start, end, partition)
        if next(iter(self.nodes.values())).start == b"":
            self.coordinator = Coordinator(
                self._route(), lifetime_ns_max=10**10, heartbeat_ns=500 * MS
            )

    def _route(self) -> Route:
        places = sorted((node.start, number) for number, node in enumerate(self.nodes.values()))
        return Route([start for start, _ in places], [number for _, number in places])

    def bring_forth(self, parent: Node) -> None:
        """Begin the partitions whose split is durable."""
        for _, saved in parent.partition.take_children():
            name = self.unborn.pop(0)
            partition = self.make(
                saved.partition, saved.start, saved.end, parent.partition.state.settled
            )
            partition.restore(saved)
            partition.start(self.now)
            parent.end = saved.start
            self.nodes[name] = Node(name, saved.start, saved.end, partition, checkpoint=saved)
            if self.coordinator is not None:
                self.coordinator.route = self._route()
            self.say(f"{name} begins")

    def add_replica(self, name: str, leader: Node) -> None:
        """A replica that has applied nothing yet."""
        store = open_memory_store(
            MemoryMachine(), now_ns=lambda: BASE_NS, entropy=Random(8).randbytes
        )
        number = leader.partition.state.partition
        partition = self.make(number, leader.start, leader.end, store.settled)
        self.replicas[name] = Replica(leader, partition)

    def restart(self, node: Node) -> None:
        """The partition comes back from its checkpoint and its durable entries."""
        before = node.partition.state
        partition = self.make(before.partition, node.start, node.end, before.settled)
        if node.checkpoint is not None:
            partition.restore(node.checkpoint)
        for entry in node.durable:
            partition.replay(entry)
        partition.start(self.now)
        node.partition = partition
        node.appended = []
        node.alive = True

    def send(self, key: bytes, message: Message) -> None:
        """Hand a message to the partition of a key, now."""
        self.node_of(key).partition.receive(message, self.now)

    # -- what commands bring about -----------------------------------------------------------------

    def set_clock(self, lo_ns: int, hi_ns: int) -> None:
        """Time passes."""
        self.now = Interval(lo_ns, hi_ns)
        self.oracle.open_turn(lo_ns, hi_ns)
        if self.held is not None:
            for answer, _ in self.held.release(floor(lo_ns), lo_ns):
                self.say(describe_answer(self.names, self.labels, answer))

    def collect(self) -> None:
        """Write down what the machines have ready, until they have nothing more."""
        moved = True
        while moved:
            moved = False
            for node in self.nodes.values():
                if node.alive:
                    if node.partition.parked:
                        node.partition.wake(self.now)
                    moved |= self._collect_partition(node)
            for name, replica in self.replicas.items():
                moved |= self._collect_replica(name, replica)
            if self.coordinator is not None:
                moved |= self._collect_coordinator(self.coordinator)

    def _collect_partition(self, node: Node) -> bool:
        ready = node.partition.ready()
        if ready.entry is not None:
            node.appended.append(ready.entry)
            self.say(describe_entry(self.names, node.name, ready.entry))
        for answer in ready.answers:
            assert not isinstance(answer, Values | Commits), "scripts send nothing in batches"
            self._answer(answer)
        for key, message in ready.sends:
            self._post(node.name, self.node_of(key), message)
        return bool(ready.entry or ready.answers or ready.sends)

    def _collect_replica(self, name: str, replica: Replica) -> bool:
        ready = replica.partition.ready()
        assert ready.entry is None, "a replica that follows writes nothing"
        for answer in ready.answers:
            assert not isinstance(answer, Values | Commits), "scripts send nothing in batches"
            self._answer(answer)
        for key, message in ready.sends:
            self._post(name, self.node_of(key), message)
        return bool(ready.answers or ready.sends)

    def _collect_coordinator(self, coordinator: Coordinator) -> bool:
        sends, coordinator.sends = coordinator.sends, []
        answers, coordinator.answers = coordinator.answers, []
        nodes = list(self.nodes.values())
        for index, message in sends:
            self._post("coordinator", nodes[index], message)
        for answer in answers:
            self._answer(answer)
        return bool(sends or answers)

    def _post(self, origin: str, to: Node, message: Message) -> None:
        self.mail.append(Mail(origin, to.name, message))
        self.say(f"{origin} → {to.name}: {describe_message(self.names, message)}")

    def _answer(self, answer: Answer) -> None:
        if answer.request < 0:
            assert self.coordinator is not None
            said = describe_answer(self.names, {answer.request: "coordinator is told"}, answer)
            self.say(said)
            self.coordinator.receive(answer)
            return
        said = describe_answer(self.names, self.labels, answer)
        stamp = self._reveals(answer)
        if self.held is not None and stamp >= floor(self.now.lo_ns):
            self.held.hold(stamp, answer, self.now.lo_ns)
            said += f" -- held until {self.names.time(stamp)} has passed"
        self.say(said)

    def _reveals(self, answer: Answer) -> int:
        """The stamp that true time must have passed before the answer is told; 0 for none."""
        if isinstance(answer, Committed | Failed):
            return answer.stamp
        if isinstance(answer, Outcome) and answer.verdict == Verdict.COMMITTED:
            return answer.stamp
        if isinstance(answer, Value | Rows) and answer.request in self.outside:
            return answer.stamp
        return 0


def to_value(text: str) -> bytes | None:
    """A value as scripts write it: ``-`` is a deletion, JSON becomes a msgpack record."""
    if text == "-":
        return None
    if text[:1] in ("{", "["):
        return msgspec.msgpack.encode(msgspec.json.decode(text))
    return text.encode()
