"""A driver for partitions and their coordinator that does everything late, and crashes.

Entries become durable and messages between partitions arrive only when told, in any order a
network may choose; a crash loses what is not durable, and of the settled rows a part. The durable
entries of all lives are kept as the truth.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct, field

from k2store.storage import MemoryMachine, open_memory_store
from mvcc.coordinator import Coordinator, Route
from mvcc.messages import Answer, Commits, Committed, Message, Value, Values
from mvcc.partition import Partition
from mvcc.records import (
    Checkpoint,
    CommittedAlone,
    CommittedTogether,
    Decided,
    Entry,
    Horizon,
    Planted,
    Resolved,
)
from mvcc.settled import Settled
from mvcc.state import PartitionSettings
from mvcc.transactions import ACTIVE, COMMITTED, Local
from truetime import Interval, Oracle, OracleSettings
from truetime.timestamp import EPOCH_NS

BASE_NS = EPOCH_NS + 256 * 10**12
MS = 1_000_000
NEVER_NS = BASE_NS + 10**15
SPACE = 1


class Node(Struct):
    """One partition: its machine, its range at first, and what of its log is appended, durable, and
    ever was.
    """

    partition: Partition
    start: bytes
    end: bytes
    appended: list[Entry] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    ever: list[Entry] = field(default_factory=list)
    checkpoint: Checkpoint | None = None


class Follower(Struct):
    """A replica on another machine: it applies what is durable, at its own pace."""

    partition: Partition
    lsn: int = 0
    checkpoints: list[Checkpoint] = field(default_factory=list)


class Driver:
    """One node with its partitions, begun anew after each crash."""

    def __init__(
        self, starts: list[bytes], *, seed: int = 0, replicated: bool = False, **settings: int
    ) -> None:
        self.starts = starts
        self.settings = PartitionSettings(replicated=replicated, **settings)
        self.random = Random(seed)
        self.machine = MemoryMachine()
        self.lo_ns = BASE_NS
        self.life = 0
        self.answers: dict[int, Answer] = {}
        self.mail: list[tuple[bytes, Message]] = []
        self.requests = 0
        self.nodes: list[Node] = []
        self.begin_life()
        self.followers = {index: self.follow(index) for index in range(len(self.nodes))}

    # -- lives -------------------------------------------------------------------------------------

    def begin_life(self) -> None:
        """Start the partitions from what is durable."""
        self.life += 1
        self.oracle = Oracle(self.life, OracleSettings())
        self.oracle.reserve(NEVER_NS)
        self.settled = open_memory_store(
            self.machine, now_ns=lambda: self.lo_ns, entropy=self.random.randbytes
        ).settled
        if not self.nodes:
            bounds = zip(self.starts, [*self.starts[1:], b""], strict=True)
            self.nodes = [
                Node(self._make(number, *bound), *bound) for number, bound in enumerate(bounds)
            ]
        self.see()
        olds, self.nodes = self.nodes, []
        # A parent comes before its children: what it replays of them is settled first.
        for number, old in enumerate(olds):
            partition = self._from_log(number, old)
            self.nodes.append(
                Node(partition, old.start, old.end, [], old.log, old.ever, old.checkpoint)
            )
        self.route = self._route()
        self.coordinator = Coordinator(
            self.route,
            lifetime_ns_max=self.settings.lifetime_ns_max,
            heartbeat_ns=self.settings.heartbeat_expiry_ns // 4,
        )

    def _route(self) -> Route:
        """Where keys are; the right half of a split stays with its parent until that is durable."""
        order = sorted(
            range(len(self.nodes)), key=lambda one: self.nodes[one].partition.state.start
        )
        return Route([self.nodes[one].partition.state.start for one in order], order)

    def split(self, key: bytes) -> bool:
        """Split the partition of a key, if it can be done now; the child comes when it is durable."""
        underway = any(node.partition.state.leaving for node in self.nodes)
        if underway or not self.node_of(key).partition.split(key, len(self.nodes)):
            return False
        self.run()
        return True

    def _children(self, node: Node) -> None:
        """Begin the children whose split is durable."""
        for number, saved in node.partition.take_children():
            assert number == len(self.nodes)
            partition = self._make(number, saved.start, saved.end)
            partition.restore(saved)
            partition.start(self.now)
            self.nodes.append(Node(partition, saved.start, saved.end, checkpoint=saved))
            self.route = self.coordinator.route = self._route()

    def follow(self, index: int) -> Follower:
        """A new replica of a partition, with a store of its own."""
        store = open_memory_store(
            MemoryMachine(), now_ns=lambda: self.lo_ns, entropy=self.random.randbytes
        )
        state = self.nodes[index].partition.state
        partition = self._make(index, state.start, state.end, store.settled)
        partition.watch(True)
        return Follower(partition)

    def replicate(self, index: int, count: int | None = None) -> None:
        """A follower applies the next ``count`` (all) entries, and shows what may be read then."""
        follower, node = self.followers[index], self.nodes[index]
        entries = [entry for entry in node.ever if entry.lsn > follower.lsn][:count]
        for entry in entries:
            follower.partition.replay(entry)
            follower.lsn = entry.lsn
            for number, saved in follower.partition.take_children():
                before = follower.partition.state
                child = self._make(number, saved.start, saved.end, before.settled)
                child.restore(saved)
                child.watch(True)
                self.followers[number] = Follower(child, 0, [saved])
                follower.checkpoints = []
                self.checkpoint_follower(index)
        leader = node.partition.state
        closed = entries[-1].closed if entries else 0
        if follower.lsn == leader.lsn - 1 and not leader.records:
            closed = leader.closed  # a beat: it goes with this position of the log
        follower.partition.show(closed)

    def checkpoint_follower(self, index: int) -> None:
        """A follower's rebuild begins here from now on, or at the checkpoint before this one."""
        follower = self.followers[index]
        assert follower.partition.quiescent
        follower.partition.state.settle()
        follower.checkpoints = [*follower.checkpoints[-1:], follower.partition.checkpoint()]

    def successor(self, index: int) -> Partition:
        """A machine for the store of a follower, which knows nothing yet."""
        node, settled = self.nodes[index], self.followers[index].partition.state.settled
        return self._make(index, node.start, node.end, settled)

    def rebuild(self, index: int, *, older: bool) -> Partition:
        """The follower as it would come back: a checkpoint, later entries, and its store."""
        follower = self.followers[index]
        before = follower.partition.state
        before.settle()
        node = self.nodes[index]
        partition = self.successor(index)
        if follower.checkpoints:
            partition.restore(follower.checkpoints[0 if older else -1])
        for entry in node.ever:
            if entry.lsn <= follower.lsn:
                partition.replay(entry)
                partition.take_children()  # they are there already
        return partition

    def ask_follower(self, index: int, message: Message) -> None:
        """Send a message to a follower; its answers are kept like all others."""
        partition = self.followers[index].partition
        partition.receive(message, self.now)
        ready = partition.ready()
        assert ready.entry is None
        for each in ready.answers:
            self._take(each)

    def _make(
        self, number: int, start: bytes, end: bytes, settled: Settled | None = None
    ) -> Partition:
        return Partition(
            number,
            start,
            end,
            space=SPACE,
            settled=settled or self.settled,
            oracle=self.oracle,
            settings=self.settings,
        )

    def _from_log(self, number: int, node: Node) -> Partition:
        """A partition that begins to serve with what is durable of it."""
        partition = self._make(number, node.start, node.end)
        if node.checkpoint is not None:
            partition.restore(node.checkpoint)
        for entry in node.log:
            partition.replay(entry)
        partition.take_children()  # they are there already
        partition.state.settle()
        partition.start(self.now)
        return partition

    def depose(self, index: int) -> None:
        """The leader of one partition stops, and the next one begins with what is durable; everybody
        else goes on, and so do the messages under way.
        """
        node = self.nodes[index]
        node.partition.stop()
        self.run()
        node.appended.clear()
        node.partition = self._from_log(index, node)
        self.run()

    def crash(self) -> None:
        """What is not durable is lost, and the messages under way; then all begins anew."""
        self.machine.kill(self.random)
        self.mail.clear()
        self.begin_life()

    def checkpoint(self) -> None:
        """Everything becomes durable; later lives begin here."""
        self.quiet(rounds=0)
        for node in self.nodes:
            node.partition.state.settle()
            node.checkpoint = node.partition.checkpoint()
            node.log = []
        self.settled.flush()

    # -- time --------------------------------------------------------------------------------------

    def see(self, width_ns: int = 0) -> None:
        """Read the clock."""
        self.now = Interval(self.lo_ns, self.lo_ns + width_ns)
        self.oracle.open_turn(self.now.lo_ns, self.now.hi_ns)

    def pass_time(self, by_ns: int, width_ns: int = 0) -> None:
        """Time passes; who waited for the clock goes on."""
        self.lo_ns += by_ns
        self.see(width_ns)
        self.run()

    def tick(self) -> None:
        """One round of upkeep."""
        self.coordinator.tick(self.now)
        for node in self.nodes:
            node.partition.tick(self.now, self.coordinator.oldest())
        for follower in self.followers.values():
            follower.partition.tick(self.now, 0)
            assert not follower.partition.state.records
            assert not follower.partition.state.sends
        self.run()

    # -- messages ----------------------------------------------------------------------------------

    def request(self) -> int:
        """A new request number."""
        self.requests += 1
        return self.requests

    def node_of(self, key: bytes) -> Node:
        """The partition that owns a key."""
        return self.nodes[self.route.of(key)]

    def send(self, key: bytes, message: Message) -> None:
        """Hand a message to the partition of a key."""
        self.node_of(key).partition.receive(message, self.now)
        self.run()

    def ask(self, key: bytes, message: Message, request: int) -> Answer | None:
        """Send a message and return its answer, if there is one already."""
        self.send(key, message)
        return self.answers.get(request)

    def deliver(self, index: int, *, keep: bool = False) -> None:
        """One of the messages under way arrives; with ``keep`` it will arrive again."""
        key, message = self.mail[index]
        if not keep:
            del self.mail[index]
        self.send(key, message)

    def persist(self, index: int, count: int | None = None) -> None:
        """The first ``count`` (all) of a partition's appended entries become durable."""
        node = self.nodes[index]
        landed = node.appended[:count]
        if landed:
            del node.appended[: len(landed)]
            node.log += landed
            node.ever += landed
            node.partition.durable(landed[-1].lsn, self.now)
            self._children(node)
            self.run()

    def quiet(self, rounds: int = 1_000) -> None:
        """Make everything durable, and deliver everything at most ``rounds`` times."""
        for _ in range(rounds + 1):
            while any(node.appended for node in self.nodes):
                for index in range(len(self.nodes)):
                    self.persist(index)
            if not self.mail or not rounds:
                return
            for _ in range(len(self.mail)):
                self.deliver(0)
        raise AssertionError("the partitions never stop talking")

    def run(self) -> None:
        """Take what the machines have ready until there is nothing more."""
        moved = True
        while moved:
            moved = False
            coordinator = self.coordinator
            sends, coordinator.sends = coordinator.sends, []
            for index, message in sends:
                self.nodes[index].partition.receive(message, self.now)
            answers, coordinator.answers = coordinator.answers, []
            for answer in answers:
                self._answer(answer)
            moved |= bool(sends or answers)
            for node in self.nodes:
                if node.partition.parked:
                    node.partition.wake(self.now)
                ready = node.partition.ready()
                if ready.entry is not None:
                    node.appended.append(ready.entry)
                self.mail += ready.sends
                for each in ready.answers:
                    self._take(each)
                moved |= bool(ready.entry or ready.answers or ready.sends)

    def _take(self, answer: Answer | Values | Commits) -> None:
        if isinstance(answer, Values):
            for request, stamp, version, value in zip(
                answer.requests, answer.stamps, answer.versions, answer.values, strict=True
            ):
                shown = value if version else None
                self._answer(Value(request, stamp, version, shown))
        elif isinstance(answer, Commits):
            for request, stamp in zip(answer.requests, answer.stamps, strict=True):
                self._answer(Committed(request, stamp, None))
        elif answer.request < 0:
            self.coordinator.receive(answer)
        else:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        assert answer.request not in self.answers, "a request is answered once"
        self.answers[answer.request] = answer


def picture(partition: Partition) -> dict[str, object]:
    """Everything that must survive a crash."""
    state = partition.state
    state.settle()
    rows = [row for batch in state.settled.all_rows(1) for row in batch if state.owns(row[0])]
    intents = {
        (key, intent.stamp): (intent.value, intent.txn, intent.sequence)
        for key, chain in state.chains.items()
        for intent in chain.intents or ()
    }
    # Aborts may be known from memory only, and confirmations are not logged: both come again.
    transactions = {
        txn: (local.stamp, local.state) if isinstance(local, Local) else (local, COMMITTED)
        for txn, local in state.transactions.items()
        if not isinstance(local, Local) or local.state in (ACTIVE, COMMITTED)
    }
    sequences = {txn: sorted(local.sequences or ()) for txn, local in state.undecided.items()}
    anchors = {txn: local.anchor for txn, local in state.undecided.items()}
    return {
        "rows": rows,
        "intents": intents,
        "transactions": transactions,
        "sequences": sequences,
        "anchors": anchors,
        "horizon": state.horizon,
        "edge": state.record_edge,
        "lsn": state.lsn,
    }


class Truth:
    """What the durable entries of all lives say."""

    def __init__(self, driver: Driver) -> None:
        self.committed: dict[bytes, int] = {}
        self.aborted: set[bytes] = set()
        self.writes: dict[bytes, dict[bytes, tuple[int, bytes | None]]] = {}
        self.horizon = 0
        for node in driver.nodes:
            for entry in node.ever:
                for record in entry.records:
                    self._note(record)

    def _note(self, record: object) -> None:
        if isinstance(record, Planted):
            for key, value, sequence in record.writes:
                self._write(record.txn, key, value, sequence)
        elif isinstance(record, CommittedAlone):
            self.committed[record.txn] = record.stamp
            for key, value in record.writes:
                self._write(record.txn, key, value, 1 << 60)
        elif isinstance(record, CommittedTogether):
            for txn, stamp, key, value in zip(
                record.txns, record.stamps, record.keys, record.values, strict=True
            ):
                self.committed[txn] = stamp
                self._write(txn, key, value, 1 << 60)
        elif isinstance(record, Decided | Resolved):
            if record.committed:
                self.committed[record.txn] = record.stamp
            else:
                self.aborted.add(record.txn)
        elif isinstance(record, Horizon):
            self.horizon = max(self.horizon, record.stamp)

    def _write(self, txn: bytes, key: bytes, value: bytes | None, sequence: int) -> None:
        mine = self.writes.setdefault(txn, {})
        if key not in mine or mine[key][0] <= sequence:
            mine[key] = sequence, value

    def history(self) -> dict[bytes, list[tuple[int, bytes | None]]]:
        """Committed versions of each key, oldest first."""
        versions: dict[bytes, list[tuple[int, bytes | None]]] = {}
        for txn, stamp in sorted(self.committed.items(), key=lambda item: item[1]):
            for key, (_, value) in self.writes.get(txn, {}).items():
                versions.setdefault(key, []).append((stamp, value))
        return versions

    @staticmethod
    def at(versions: list[tuple[int, bytes | None]], stamp: int) -> tuple[int, bytes | None]:
        """The version that a read at ``stamp`` must see; (0, None) for none or a deletion."""
        found: tuple[int, bytes | None] = (0, None)
        for version, value in versions:
            if version <= stamp:
                found = (0, None) if value is None else (version, value)
        return found
