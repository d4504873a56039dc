"""Random transactions, one-shots, batches, crashes and late messages against the serial order.

Whatever happens, every answer that was ever given must agree with one execution of the committed
transactions one after the other in the order of their stamps.
"""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct, field

from mvcc.conditions import Condition, Kind
from mvcc.coordinator import Open
from mvcc.messages import (
    NOBODY,
    CommitsAlone,
    Committed,
    Failed,
    Forget,
    Forgets,
    OneShot,
    OneShots,
    Outcome,
    Read,
    Reads,
    Refused,
    Rows,
    Scan,
    Status,
    Value,
    Written,
)
from mvcc.state import Change
from mvcc.transactions import Verdict
from tests.model.mvcc_driver import MS, NEVER_NS, Driver, Truth, picture
from truetime.timestamp import offset

KEYS = [bytes([letter]) for letter in b"abcdef"]
SPLITS = ([b""], [b"", b"c"], [b"", b"c", b"e"])

key_of = st.sampled_from(KEYS)
value_of = st.one_of(st.none(), st.integers(0, 3).map(lambda n: b"v%d" % n))
writes_of = st.dictionaries(key_of, value_of, min_size=1, max_size=3)
few = st.integers(0, 10**6)


class Asked(Struct):
    """A question whose answer must agree with the serial order."""

    stamp: int
    txn: bytes
    own: dict[bytes, bytes | None]
    key: bytes = b""
    end: bytes = b""
    limit: int = 0
    reverse: bool = False
    keys: list[bytes] | None = None
    conditions: list[Condition] | None = None


class Client(Struct):
    """A transaction as its client sees it."""

    txn: bytes
    stamp: int
    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    anchor: bytes = b""
    commit: int = 0
    failed: bool = False
    told: Verdict | None = None


class Serial(RuleBasedStateMachine):
    """The world of random histories."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver([b""])
        self.open: list[Client] = []
        self.ended: list[Client] = []
        self.asked: dict[int, Asked] = {}
        self.numbers = 0
        self.safe: list[int] = []
        self.questions: set[int] = set()

    @initialize(splits=st.sampled_from(SPLITS), seed=few, mode=st.integers(0, 3))
    def make(self, splits: list[bytes], seed: int, mode: int) -> None:
        """One to three partitions; in some runs history is short, or the read cache small."""
        self.driver = Driver(
            splits,
            seed=seed,
            retention_ns=(3_000 if mode == 1 else 10_000_000) * MS,
            range_marks_max=3 if mode == 2 else 10_000,
            chains_max=2 if mode == 3 else 1_000,
            heartbeat_expiry_ns=200 * MS,
            lifetime_ns_max=2_000 * MS,
            janitor_idle_ns=30 * MS,
            push_again_ns=20 * MS,
            replicated=True,
        )
        self.driver.pass_time(100 * MS)
        self.safe = [0] * len(splits)

    # -- clients -----------------------------------------------------------------------------------

    def name(self) -> bytes:
        """A new transaction id."""
        self.numbers += 1
        return b"client-1" + self.numbers.to_bytes(6, "big") + b"\0\0"

    def stamp(self, level: int = 0) -> int:
        """A fresh stamp, now and then a retry's."""
        stamp = self.driver.oracle.next_stamp()
        if not stamp:
            self.driver.pass_time(1 * MS)
            stamp = self.driver.oracle.next_stamp()
        return offset(stamp, level)

    def pick(self, index: int) -> Client:
        """One of the open transactions."""
        return self.open[index % len(self.open)]

    def usable(self, client: Client) -> bool:
        """Whether the node would still let the transaction read."""
        known = self.driver.coordinator.open.get(client.txn)
        refused = isinstance(known, Open) and known.refusal is not None
        return not client.failed and known is not None and not refused

    def reading(self, client: Client) -> bool:
        """Whether an answer is outstanding, for which the client waits before it goes on."""
        return any(
            asked.txn == client.txn and request not in self.driver.answers
            for request, asked in self.asked.items()
        )

    @rule(level=st.sampled_from([0, 0, 0, 1]))
    @precondition(lambda self: len(self.open) < 5)
    def begin(self, level: int) -> None:
        """Begin a transaction."""
        client = Client(self.name(), self.stamp(level))
        self.driver.coordinator.begin(client.txn, client.stamp, 1, self.driver.now)
        self.open.append(client)

    @rule(index=few, key=key_of)
    @precondition(lambda self: self.open)
    def read(self, index: int, key: bytes) -> None:
        """Read a key in a transaction."""
        client = self.pick(index)
        if not self.usable(client):
            return
        request = self.ask(Asked(client.stamp, client.txn, dict(client.writes), key))
        self.driver.send(key, Read(request, key, client.stamp, client.txn, NEVER_NS))

    @rule(index=few, start=key_of, end=key_of, limit=st.integers(1, 3), reverse=st.booleans())
    @precondition(lambda self: self.open)
    def scan(self, index: int, start: bytes, end: bytes, limit: int, reverse: bool) -> None:
        """Scan a range in a transaction; one partition's part of it."""
        client = self.pick(index)
        if not self.usable(client):
            return
        self._scan(client.stamp, client.txn, dict(client.writes), start, end, limit, reverse)

    def _scan(
        self,
        stamp: int,
        txn: bytes,
        own: dict[bytes, bytes | None],
        start: bytes,
        end: bytes,
        limit: int,
        reverse: bool,
    ) -> None:
        state = self.driver.node_of(start).partition.state
        if state.end:
            end = min(end, state.end)
        request = self.ask(Asked(stamp, txn, own, start, end, limit, reverse))
        self.driver.send(start, Scan(request, start, end, stamp, txn, limit, reverse, NEVER_NS))

    @rule(index=few, writes=writes_of)
    @precondition(lambda self: self.open)
    def write_early(self, index: int, writes: dict[bytes, bytes | None]) -> None:
        """Send writes ahead of the commit."""
        client = self.pick(index)
        driver = self.driver
        transaction = driver.coordinator.opened(client.txn, 1)
        if transaction is None or self.reading(client):
            return
        client.anchor = client.anchor or next(iter(writes))
        client.writes.update(writes)
        request = driver.request()
        driver.coordinator.write(transaction, request, list(writes.items()), NEVER_NS)
        driver.run()
        if isinstance(driver.answers.get(request), Refused):
            client.failed = True  # it can only be given up, or told so by its commit

    @rule(index=few, writes=st.one_of(st.just({}), writes_of))
    @precondition(lambda self: self.open)
    def commit(self, index: int, writes: dict[bytes, bytes | None]) -> None:
        """Commit, with the last writes."""
        client = self.pick(index)
        driver = self.driver
        if self.reading(client):
            return
        self.open.remove(client)
        self.ended.append(client)
        transaction = driver.coordinator.opened(client.txn, 1)
        if transaction is None:  # it has outlived its time
            client.told = Verdict.ABORTED
            return
        client.writes.update(writes)
        client.anchor = client.anchor or next(iter(writes), b"")
        client.commit = driver.request()
        driver.coordinator.commit(transaction, client.commit, list(writes.items()), NEVER_NS)
        driver.run()

    @rule(index=few)
    @precondition(lambda self: self.open)
    def roll_back(self, index: int) -> None:
        """Give a transaction up."""
        client = self.pick(index)
        self.open.remove(client)
        self.ended.append(client)
        client.told = Verdict.ABORTED
        transaction = self.driver.coordinator.opened(client.txn, 1)
        if transaction is not None:
            self.driver.coordinator.rollback(transaction)
            self.driver.run()

    @rule(key=key_of, back_ms=st.sampled_from([0, 0, 5, 60, 120]))
    def read_snapshot(self, key: bytes, back_ms: int) -> None:
        """Read outside of any transaction, now or in the past."""
        stamp = self.past(back_ms)
        request = self.ask(Asked(stamp, NOBODY, {}, key))
        self.driver.send(key, Read(request, key, stamp, NOBODY, NEVER_NS))

    @rule(start=key_of, end=key_of, back_ms=st.sampled_from([0, 60]), limit=st.integers(1, 4))
    def scan_snapshot(self, start: bytes, end: bytes, back_ms: int, limit: int) -> None:
        """Scan outside of any transaction."""
        self._scan(self.past(back_ms), NOBODY, {}, start, end, limit, False)

    def past(self, back_ms: int) -> int:
        """A stamp some time ago."""
        stamp = self.stamp()
        return stamp - ((back_ms * MS // 256) << 12)

    def ask(self, asked: Asked) -> int:
        """Note a question."""
        request = self.driver.request()
        self.asked[request] = asked
        return request

    # -- one-shots and batches ---------------------------------------------------------------------

    @rule(
        seed=few,
        writes=writes_of,
        reads=st.lists(key_of, max_size=2),
        kinds=st.lists(st.sampled_from([Kind.ABSENT, Kind.PRESENT, Kind.VALUE]), max_size=2),
        where=key_of,
    )
    def one_shot(
        self,
        seed: int,
        writes: dict[bytes, bytes | None],
        reads: list[bytes],
        kinds: list[Kind],
        where: bytes,
    ) -> None:
        """Conditions, reads and writes in one message, to one partition."""
        random = Random(seed)
        node = self.driver.node_of(where)
        mine = [key for key in KEYS if node.partition.state.owns(key)]
        moved = {random.choice(mine): value for value in writes.values()}
        reads = [random.choice(mine) for _ in reads]
        conditions = [Condition(kind, random.choice(mine), value=b"v1") for kind in kinds]
        client = Client(self.name(), 0, moved, next(iter(moved)))
        client.commit = self.ask(Asked(0, client.txn, {}, keys=reads, conditions=conditions))
        self.ended.append(client)
        message = OneShot(
            client.commit, client.txn, 0, NEVER_NS, conditions, reads, list(moved.items())
        )
        self.driver.send(client.anchor, message)

    @rule(seed=few, count=st.integers(1, 5), where=key_of, twice=st.booleans())
    def batch_of_one_shots(self, seed: int, count: int, where: bytes, twice: bool) -> None:
        """Several one-shots as columns; one of them may be there twice."""
        random = Random(seed)
        state = self.driver.node_of(where).partition.state
        mine = [key for key in KEYS if state.owns(key)]
        columns = OneShots(0, 0, [], [], [], [], [], [], [], [], [], [], [])
        single = random.random() < 0.5
        for _ in range(count):
            key = random.choice(mine)
            moved: dict[bytes, bytes | None] = {key: b"v%d" % random.randint(0, 3)}
            if not single and random.random() < 0.5:
                moved[random.choice(mine)] = None
            kinds = [random.choice([Kind.ABSENT, Kind.PRESENT, Kind.VALUE])]
            if not single:
                kinds = kinds[: random.randint(0, 1)]
            conditions = [Condition(kind, key, value=b"v1") for kind in kinds]
            client = Client(self.name(), 0, moved, key)
            client.commit = self.ask(Asked(0, client.txn, {}, keys=[], conditions=conditions))
            self.ended.append(client)
            columns.requests.append(client.commit)
            columns.txns.append(client.txn)
            columns.deadlines_ns.append(NEVER_NS)
            columns.condition_counts.append(len(conditions))
            columns.kinds.extend(kinds)
            columns.condition_keys.extend(condition.key for condition in conditions)
            columns.condition_versions.extend(0 for _ in conditions)
            columns.condition_values.extend(condition.value for condition in conditions)
            columns.write_counts.append(len(moved))
            columns.keys.extend(moved)
            columns.values.extend(moved.values())
        self.driver.send(where, columns)
        if twice:  # the answers of the second copy must be those of the first
            again = [self.copy_of(request) for request in columns.requests]
            self.driver.send(
                where,
                OneShots(
                    columns.owner,
                    columns.floor,
                    again,
                    columns.txns,
                    columns.deadlines_ns,
                    columns.condition_counts,
                    columns.kinds,
                    columns.condition_keys,
                    columns.condition_versions,
                    columns.condition_values,
                    columns.write_counts,
                    columns.keys,
                    columns.values,
                ),
            )

    def copy_of(self, request: int) -> int:
        """A second request for the same thing."""
        return self.ask(self.asked[request])

    @rule(seed=few, count=st.integers(1, 5), where=key_of)
    def batch_of_commits(self, seed: int, count: int, where: bytes) -> None:
        """Several commits that wrote nothing before, as columns."""
        random = Random(seed)
        state = self.driver.node_of(where).partition.state
        mine = [key for key in KEYS if state.owns(key)]
        columns = CommitsAlone(0, [], [], [], [], [], [])
        single = random.random() < 0.5
        for _ in range(count):
            moved: dict[bytes, bytes | None] = {random.choice(mine): b"v%d" % random.randint(0, 3)}
            if not single and random.random() < 0.5:
                moved[random.choice(mine)] = None
            client = Client(self.name(), self.stamp(), moved, next(iter(moved)))
            client.commit = self.driver.request()
            self.ended.append(client)
            columns.requests.append(client.commit)
            columns.txns.append(client.txn)
            columns.stamps.append(client.stamp)
            columns.counts.append(len(moved))
            columns.keys.extend(moved)
            columns.values.extend(moved.values())
        self.driver.send(where, columns)

    @rule(seed=few, count=st.integers(1, 6), where=key_of)
    def batch_of_reads(self, seed: int, count: int, where: bytes) -> None:
        """Several reads as columns, of transactions and of nobody."""
        random = Random(seed)
        state = self.driver.node_of(where).partition.state
        mine = [key for key in KEYS if state.owns(key)]
        columns = Reads(0, [], [], [], [], [])
        for _ in range(count):
            key = random.choice(mine)
            if self.open and random.random() < 0.5:
                client = random.choice(self.open)
                if not self.usable(client):
                    continue
                asked = Asked(client.stamp, client.txn, dict(client.writes), key)
            else:
                asked = Asked(self.past(random.choice([0, 10])), NOBODY, {}, key)
            columns.requests.append(self.ask(asked))
            columns.txns.append(asked.txn)
            columns.stamps.append(asked.stamp)
            columns.keys.append(key)
            columns.deadlines_ns.append(NEVER_NS)
        self.driver.send(where, columns)

    def follower(self, index: int) -> int:
        """The number of one of the partitions that have a replica which follows."""
        numbers = sorted(self.driver.followers)
        return numbers[index % len(numbers)]

    @rule(seed=few, index=few, form=st.sampled_from(["read", "scan", "batch"]))
    def ask_a_replica(self, seed: int, index: int, form: str) -> None:
        """Reads of the past at a replica that follows, below and above what it shows."""
        random = Random(seed)
        index = self.follower(index)
        state = self.driver.followers[index].partition.state
        mine = [key for key in KEYS if state.owns(key)]
        stamp = max(state.shown - random.choice([-1, 0, 0, 1, 50 * MS << 12]), 1)
        if form == "scan":
            low, high = random.choice(mine), state.end or b"z"
            limit, reverse = random.randint(1, 3), random.random() < 0.5
            request = self.ask(Asked(stamp, NOBODY, {}, low, high, limit, reverse))
            message: Scan | Reads | Read = Scan(
                request, low, high, stamp, NOBODY, limit, reverse, NEVER_NS
            )
        elif form == "batch":
            keys = random.choices(mine, k=3)
            requests = [self.ask(Asked(stamp, NOBODY, {}, key)) for key in keys]
            message = Reads(0, requests, [NOBODY] * 3, [stamp] * 3, keys, [NEVER_NS] * 3)
        else:
            key = random.choice(mine)
            request = self.ask(Asked(stamp, NOBODY, {}, key))
            message = Read(request, key, stamp, NOBODY, NEVER_NS)
        self.driver.ask_follower(index, message)
        requests = message.requests if isinstance(message, Reads) else [message.request]
        for request in requests:
            answer = self.driver.answers[request]
            refused = isinstance(answer, Refused)
            assert refused == (stamp > state.shown or stamp < state.horizon)

    # -- the world ---------------------------------------------------------------------------------

    @rule(index=few, count=st.one_of(st.none(), st.integers(1, 3)))
    def replicate(self, index: int, count: int | None) -> None:
        """A replica applies some of what is durable."""
        index = self.follower(index)
        before = self.driver.followers[index].partition.state.shown
        self.driver.replicate(index, count)
        assert self.driver.followers[index].partition.state.shown >= before

    @rule(index=few, count=st.integers(1, 3))
    def persist(self, index: int, count: int) -> None:
        """Some entries of a partition become durable."""
        self.driver.persist(index % len(self.driver.nodes), count)

    @rule(index=few, keep=st.booleans())
    @precondition(lambda self: self.driver.mail)
    def deliver(self, index: int, keep: bool) -> None:
        """A message arrives, perhaps not for the last time."""
        self.driver.deliver(index % len(self.driver.mail), keep=keep)

    @rule(index=few)
    @precondition(lambda self: self.driver.mail)
    def lose(self, index: int) -> None:
        """A message is lost."""
        del self.driver.mail[index % len(self.driver.mail)]

    @rule(key=st.sampled_from(KEYS[1:]))
    @precondition(
        lambda self: (
            len(self.driver.nodes) < 5
            and any(node.partition.state.undecided for node in self.driver.nodes)
        )
    )
    def split(self, key: bytes) -> None:
        """A partition is split, whatever is under way in it."""
        self.driver.split(key)

    @rule(index=few)
    def checkpoint_a_replica(self, index: int) -> None:
        """A replica's next life begins here."""
        self.driver.checkpoint_follower(self.follower(index))

    @rule(index=few, older=st.booleans())
    def rebuild_a_replica(self, index: int, older: bool) -> None:
        """A replica dies and comes back as it was, although its store is ahead of its checkpoint."""
        index = self.follower(index)
        follower = self.driver.followers[index]
        partition = self.driver.rebuild(index, older=older)
        assert picture(partition) == picture(follower.partition)
        partition.show(follower.partition.state.closed)
        assert partition.state.shown >= follower.partition.state.shown
        partition.watch(True)
        partition.state.feed = follower.partition.take_changes()
        follower.partition = partition

    @rule(by_ms=st.sampled_from([1, 5, 30, 70, 300, 900]), width_us=st.integers(0, 500))
    def pass_time(self, by_ms: int, width_us: int) -> None:
        """Time passes, with a round of upkeep."""
        self.driver.pass_time(by_ms * MS, width_us * 1_000)
        self.driver.tick()

    @rule()
    def collect(self) -> None:
        """A pass of garbage collection begins."""
        for node in self.driver.nodes:
            node.partition.collect()
        self.driver.run()

    @rule()
    def checkpoint(self) -> None:
        """Everything becomes durable, and later lives begin here."""
        self.driver.checkpoint()

    @rule(index=few)
    def depose(self, index: int) -> None:
        """A partition gets another leader, in the middle of everything."""
        index %= len(self.driver.nodes)
        self.driver.depose(index)
        if index < len(self.safe):
            self.safe[index] = 0

    @rule(wait=st.booleans())
    def crash(self, wait: bool) -> None:
        """The node dies and comes back; its clients find out what became of their commits."""
        self.learn()
        for client in self.open:
            client.told = Verdict.ABORTED
        self.ended += self.open
        self.open = []
        self.driver.crash()
        self.safe = [0] * len(self.driver.nodes)
        if wait:
            self.driver.pass_time(60 * MS)
        self.settle_doubts()

    @rule()
    def reconnect(self) -> None:
        """The session ends; what is open is rolled back, what is in doubt is asked about."""
        self.learn()
        for client in self.open:
            client.told = Verdict.ABORTED
        self.ended += self.open
        self.open = []
        self.driver.coordinator.leave(1, b"client-1")
        self.driver.run()
        self.settle_doubts()

    def settle_doubts(self) -> None:
        """Ask for the outcome of every commit that was not answered."""
        self.learn()
        for client in self.ended:
            if client.told is not None or not client.commit:
                continue
            transaction = self.driver.coordinator.opened(client.txn, 1)
            if transaction is not None:
                self.driver.coordinator.rollback(transaction)
            if not client.anchor:
                client.told = Verdict.ABORTED  # it has written nothing
                continue
            client.commit = self.driver.request()
            status = Status(client.commit, client.txn, client.stamp, True, anchor=client.anchor)
            self.questions.add(client.commit)
            self.driver.send(client.anchor, status)
        self.driver.run()

    @rule(count=st.integers(1, 5), together=st.booleans())
    def forget(self, count: int, together: bool) -> None:
        """Clients say that they have their answers."""
        self.learn()
        told = [
            client.txn
            for client in self.ended
            if client.told is not None and not self.reading(client)
        ][-count:]
        for node in self.driver.nodes:
            if together:
                node.partition.receive(Forgets(told), self.driver.now)
            else:
                for txn in told:
                    node.partition.receive(Forget(txn), self.driver.now)
        self.driver.run()

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def safe_time_never_falls(self) -> None:
        """In one life, what was safe to read at stays safe."""
        self.safe += [0] * (len(self.driver.nodes) - len(self.safe))
        for index, node in enumerate(self.driver.nodes):
            safe, _ = node.partition.safe()
            assert safe >= self.safe[index]
            self.safe[index] = safe

    def learn(self) -> None:
        """Clients read their answers."""
        for client in self.ended:
            answer = self.driver.answers.get(client.commit)
            if client.told is not None or answer is None:
                continue
            if isinstance(answer, Committed):
                client.told = Verdict.COMMITTED
                assert client.stamp in (0, answer.stamp)
                client.stamp = answer.stamp
            elif isinstance(answer, Outcome):
                if answer.verdict in (Verdict.COMMITTED, Verdict.ABORTED):
                    client.told = Verdict(answer.verdict)
                    client.stamp = client.stamp or answer.stamp
            else:
                assert isinstance(answer, Refused | Failed), answer
                if client.commit not in self.questions:
                    client.told = Verdict.ABORTED

    def teardown(self) -> None:
        """At the end everything is resolved, and everything that was ever said was true."""
        self.reconnect()
        driver = self.driver
        for _ in range(12):
            driver.quiet()
            driver.pass_time(60 * MS)
            driver.tick()
        driver.quiet()
        self.learn()
        for node in driver.nodes:
            assert not node.partition.state.undecided, "every intent is resolved in the end"
            assert not node.partition.state.parked
        truth = Truth(driver)
        assert not truth.aborted & truth.committed.keys(), "an outcome is one"
        stamps = list(truth.committed.values())
        assert len(set(stamps)) == len(stamps), "no two transactions share a stamp"
        self.check_clients(truth)
        self.check_questions(truth)
        self.check_store(truth)
        self.check_replicas(truth)

    def check_clients(self, truth: Truth) -> None:
        """Acknowledged means durable, aborted means without any trace, and whole."""
        for client in self.ended:
            if client.told == Verdict.COMMITTED and client.writes:
                assert truth.committed[client.txn] == client.stamp
            if client.told == Verdict.ABORTED:
                assert client.txn not in truth.committed
            if client.txn in truth.committed:
                written = truth.writes[client.txn]
                assert {key: value for key, (_, value) in written.items()} == client.writes

    def check_questions(self, truth: Truth) -> None:
        """Every answer equals the serial execution's."""
        history = truth.history()
        for request, asked in self.asked.items():
            answer = self.driver.answers.get(request)
            if isinstance(answer, Value):
                assert (answer.version, answer.value) == self.expected(history, asked, asked.key)
            elif isinstance(answer, Rows):
                self.check_rows(history, asked, answer)
            elif isinstance(answer, Committed) and asked.keys is not None:
                before = Asked(answer.stamp - 1, NOBODY, {})
                for key, found in zip(asked.keys, answer.values or (), strict=bool(asked.keys)):
                    assert found == self.expected(history, before, key)
                assert all(self.holds(history, before, one) for one in asked.conditions or ())
            elif isinstance(answer, Failed) and asked.conditions is not None:
                before = Asked(answer.stamp - 1, NOBODY, {})
                assert not self.holds(history, before, asked.conditions[answer.condition])
            else:
                assert answer is None or isinstance(answer, Refused | Written | Committed | Outcome)

    def expected(
        self, history: dict[bytes, list[tuple[int, bytes | None]]], asked: Asked, key: bytes
    ) -> tuple[int, bytes | None]:
        """What a read must have seen."""
        if key in asked.own:
            value = asked.own[key]
            return (0, None) if value is None else (asked.stamp, value)
        return Truth.at(history.get(key, []), asked.stamp - (1 if asked.txn else 0))

    def holds(
        self,
        history: dict[bytes, list[tuple[int, bytes | None]]],
        asked: Asked,
        condition: Condition,
    ) -> bool:
        """Whether a condition is true at a stamp."""
        _, value = self.expected(history, asked, condition.key)
        if condition.kind == Kind.ABSENT:
            return value is None
        if condition.kind == Kind.PRESENT:
            return value is not None
        return value == condition.value

    def check_rows(
        self,
        history: dict[bytes, list[tuple[int, bytes | None]]],
        asked: Asked,
        answer: Rows,
    ) -> None:
        """A page holds every row of the part of the range that it says it covers."""
        low, high = asked.key, asked.end
        if answer.resume is not None:
            low, high = (answer.resume, high) if asked.reverse else (low, answer.resume)
        rows = []
        for key in KEYS:
            version, value = self.expected(history, asked, key)
            if low <= key < high and value is not None:
                rows.append((key, version, value))
        assert answer.rows == (rows[::-1] if asked.reverse else rows)
        assert len(rows) <= asked.limit

    def check_store(self, truth: Truth) -> None:
        """What is stored is the history, above the horizon entirely, below it the newest."""
        driver = self.driver
        history = truth.history()
        for key in KEYS:
            state = driver.node_of(key).partition.state
            state.settle()
            stored = dict(driver.settled.versions(1, key))
            whole = dict(history.get(key, []))
            assert stored.items() <= whole.items()
            kept = {stamp for stamp in whole if stamp > state.horizon}
            assert kept <= stored.keys()
            request = driver.request()
            floor = max(state.horizon, 1)
            driver.send(key, Read(request, key, floor, NOBODY, NEVER_NS))
            answer = driver.answers[request]
            assert isinstance(answer, Value)
            assert (answer.version, answer.value) == Truth.at(history.get(key, []), floor)

    def check_replicas(self, truth: Truth) -> None:
        """A replica that has applied everything holds what its leader holds, and its feed had every
        change once.
        """
        driver = self.driver
        history = truth.history()
        told: list[Change] = []
        for index, node in enumerate(driver.nodes):
            driver.replicate(index)
            follower = driver.followers[index]
            leader, state = node.partition.state, follower.partition.state
            assert not state.undecided
            assert not any(chain.intents for chain in state.chains.values())
            assert state.lsn == leader.lsn
            assert (state.horizon, state.record_edge) == (leader.horizon, leader.record_edge)
            told += follower.partition.take_changes()
            state.settle()
            for key in filter(state.owns, KEYS):
                stored = dict(state.settled.versions(1, key))
                whole = dict(history.get(key, []))
                assert stored.items() <= whole.items()
                assert {stamp for stamp in whole if stamp > state.horizon} <= stored.keys()
        assert sorted(told) == sorted(
            (stamp, key, value) for key, versions in history.items() for stamp, value in versions
        )


def test_every_history_is_serial_in_the_order_of_stamps() -> None:
    """No answer, outcome or stored version contradicts the serial execution by stamp."""
    run_state_machine_as_test(
        Serial,
        settings=settings(
            stateful_step_count=60,
            suppress_health_check=list(HealthCheck),
        ),
    )
