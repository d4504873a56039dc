"""A small world for replicas of one log: clocks, disks, a network, a control plane, and faults.

Only the world knows the true time. Everything is drawn from one seed, and every rule that the log
promises is checked as it happens: reads and acknowledgements against the largest LSN anybody has
been told of before (a log-ordered register, judged by real time), one entry for each (epoch, LSN),
what is committed never replaced, equal states at equal LSNs, nobody serving after a later epoch
has served, a new leader's low water above all its predecessors served or closed, and closed stamps
that no later write goes below.

Times are 25 times shorter than in life: a lease lasts some 40 ms, so that 0.7 s of faults hold many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any
from zlib import crc32

from replication import (
    GENESIS,
    Append,
    CampaignNow,
    CloseBeat,
    Entry,
    Install,
    Kind,
    Membership,
    NoteKind,
    Persist,
    Refusal,
    Replica,
    ReplicaSettings,
    Role,
    Saved,
    Snapshot,
)
from truetime import Interval
from truetime.timestamp import EPOCH_NS, decode, encode, pack

MS = 1_000_000
START_NS = EPOCH_NS + 10**15
FAULTS_NS = 700 * MS
QUIET_NS = 600 * MS
LATE_NS = 250 * MS
LEASE_LONGEST_NS = 48 * MS
H_NS = 5 * MS
FAR_NS = 8 * MS
"""One way to a region far away: an answer from there takes longer than the leader's patience."""


class Broken(AssertionError):
    """A rule of the log does not hold."""


@dataclass
class Node:
    """One machine: its clock, its disk, and the replica that runs on it."""

    identity: int
    half_ns: int
    jumpy: bool
    saved: Saved
    replica: Replica
    offset_ns: int = 0
    lie_ns: int = 0
    alive: bool = True
    life: int = 0
    paused_until_ns: int = 0
    flights: list[Persist] = field(default_factory=list)
    slow: bool = False
    state: int = 0
    state_lsn: int = 0
    closed: int = 0
    stamp: int = 0
    safe: int = 0
    low_water: int = 0
    writes: dict[int, tuple[bytes, int]] = field(default_factory=dict)


class World:
    """A group of replicas and everything that happens to them.

    ``ambush``: faults conspire against leaders. ``lie_ns``: the clocks of ambushed
    leaders fall behind by so much more than they admit, which no lease survives.
    """

    def __init__(self, seed: int, *, ambush: bool = False, lie_ns: int = 0) -> None:
        self.random = Random(seed)
        self.ambush = ambush
        self.lie_ns = lie_ns
        self.now_ns = START_NS
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.sequence = 0
        self.count: Counter[str] = Counter()
        # What has been promised to somebody.
        self.floor = 0
        self.committed: dict[int, bytes] = {}
        self.stamps: dict[int, int] = {}
        self.created: dict[tuple[int, int], bytes] = {}
        self.states: dict[int, int] = {0: 0}
        self.closed_at: dict[int, int] = {}
        self.served_epoch = 0
        self.read_stamp: dict[int, int] = {}
        self.closed_stamp: dict[int, int] = {}
        # The world.
        self.cut: set[tuple[int, int]] = set()
        self.arrival_ns: dict[tuple[int, int], int] = {}
        self.noise = 1.0
        self.quiet = False
        self.epoch = 0
        self.granted_ns = 0
        self.number = 0
        self.last_write_ns = 0
        self.last_read_ns = 0
        voters = self.random.choice((1, 2, 3, 3, 3, 3, 4, 5))
        spares = self.draw(0, 2)
        self.far = self.random.choice((0, 0, voters + spares))
        members = Membership(tuple(range(1, voters + 1)))
        self.nodes: dict[int, Node] = {}
        for identity in range(1, voters + spares + 1):
            membership = members if identity <= voters else Membership()
            saved = Saved(Snapshot(GENESIS, membership, 0, b""))
            half_ns = self.draw(0, 8 * MS)
            node = Node(identity, half_ns, self.random.random() < 0.4, saved, None)  # type: ignore[arg-type]
            node.replica = Replica(identity, saved, self.settings(), self.clock(node))
            self.nodes[identity] = node
            self.at(self.draw(0, 4 * MS), self.tick, node, 0)
            self.at(self.draw(0, 4 * MS), self.work, node)

    def draw(self, least: int, most: int) -> int:
        """A number from ``least`` to ``most``, quicker than ``randint``."""
        return least + int(self.random.random() * (most - least + 1))

    def settings(self) -> ReplicaSettings:
        """Each life of a replica may be configured differently, within what was ever allowed."""
        return ReplicaSettings(
            lease_ns=self.draw(36, 48) * MS,
            lease_longest_ns=LEASE_LONGEST_NS,
            renew_ns=10 * MS,
            resend_ns=12 * MS,
            install_ns=24 * MS,
            patience_ns=self.draw(60, 140) * MS,
            ahead_max_ns=H_NS,
            # Far away, where much is under way, every message is a flush of its own: not too many.
            batch_entries_max=self.random.choice((8, 64) if self.far else (2, 8, 64)),
            batch_bytes_max=self.random.choice((3_000, 100_000) if self.far else (1, 600, 100_000)),
            window_entries_max=64 if self.far else self.random.choice((4, 64)),
            window_bytes_max=100_000 if self.far else self.random.choice((1_200, 100_000)),
            uncommitted_entries_max=64,
            join_lag_entries_max=16,
            hand_over_ns=self.draw(20, 80) * MS,
            trail_bytes_max=100_000 if self.far else self.random.choice((0, 2_000, 100_000)),
        )

    # -- time --------------------------------------------------------------------------------------

    def at(self, delay_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self.sequence += 1
        heappush(self.events, (self.now_ns + delay_ns, self.sequence, action, arguments))

    def clock(self, node: Node) -> Interval:
        """What a node's clock shows: an interval around the truth, anywhere it may lie."""
        half_ns = node.half_ns
        if node.jumpy:
            node.offset_ns = self.draw(-half_ns, half_ns)
        else:
            node.offset_ns += self.draw(-half_ns // 50 - 1, half_ns // 50 + 1)
            node.offset_ns = max(-half_ns, min(half_ns, node.offset_ns))
        middle_ns = self.now_ns + node.offset_ns + node.lie_ns
        return Interval(middle_ns - half_ns, middle_ns + half_ns)

    def run(self) -> None:
        """Faults, then quiet; then everybody must agree and somebody must have been served."""
        end_faults_ns = START_NS + FAULTS_NS
        end_ns = end_faults_ns + QUIET_NS
        self.at(self.draw(0, 60 * MS), self.fault)
        self.at(FAULTS_NS, self.heal)
        while self.events and self.events[0][0] <= end_ns:
            self.now_ns, _, action, arguments = heappop(self.events)
            action(*arguments)
        self.finish(end_ns)

    # -- one node ----------------------------------------------------------------------------------

    def running(self, node: Node, action: Callable[..., None], *arguments: Any) -> bool:
        """Whether a node can act now; what meets a paused one happens when it wakes."""
        if node.paused_until_ns > self.now_ns and node.alive:
            self.at(node.paused_until_ns - self.now_ns, action, *arguments)
            return False
        return node.alive

    def tick(self, node: Node, life: int) -> None:
        """The node's timer."""
        if life == node.life and self.running(node, self.tick, node, life):
            node.replica.tick(self.clock(node))
            self.drain(node)
            self.at(self.draw(4 * MS, 7 * MS), self.tick, node, life)

    def drain(self, node: Node) -> None:
        """Take what a replica has ready."""
        ready = node.replica.ready()
        if ready.persist is not None:
            self.observe(ready.persist.entries)
            node.flights.append(ready.persist)
            slow = 20 if node.slow else 1
            if len(node.flights) == 1:
                self.at(self.draw(50_000, 2 * MS) * slow, self.flushed, node, node.life)
        if ready.restore is not None:
            node.state = int.from_bytes(ready.restore.state, "big")
            node.state_lsn = ready.restore.position.lsn
            self.check_state(node)
            self.count["restored"] += 1
        for entry in ready.committed:
            self.apply(node, entry)
        for send in ready.sends:
            self.witness(node, send.message)
            self.post(node.identity, send.to, send.message)
        for note in ready.notes:
            self.hear(node, note.kind, note.epoch, note.stamp)
        self.look(node)

    def witness(self, node: Node, message: Any) -> None:
        """What a replica sends says which of its ways a history has taken."""
        if isinstance(message, CampaignNow):
            self.count["handed"] += 1
        elif isinstance(message, Install):
            self.count["installs"] += 1
        elif isinstance(message, Append):
            base_lsn = node.replica.state.log.base.lsn
            self.count["trailed"] += bool(message.entries) and message.previous.lsn < base_lsn

    def observe(self, entries: tuple[Entry, ...]) -> None:
        """One entry for each (epoch, LSN), wherever it turns up."""
        for entry in entries:
            first = self.created.setdefault((entry.epoch, entry.lsn), entry.hash)
            self.require(first == entry.hash, f"two entries {entry.epoch}/{entry.lsn}")

    def flushed(self, node: Node, life: int) -> None:
        """The oldest flush of a disk has ended."""
        if life != node.life or not self.running(node, self.flushed, node, life):
            return
        persist = node.flights.pop(0)
        node.saved = node.saved.then(persist)
        if node.flights:
            slow = 20 if node.slow else 1
            self.at(self.draw(50_000, 2 * MS) * slow, self.flushed, node, life)
        node.replica.persisted(persist.token, self.clock(node))
        self.drain(node)

    def apply(self, node: Node, entry: Entry) -> None:
        """A replica hands out a committed entry."""
        self.require(entry.lsn == node.state_lsn + 1, f"gap before {entry.lsn}")
        known = self.committed.setdefault(entry.lsn, entry.hash)
        self.require(known == entry.hash, f"committed {entry.lsn} was replaced")
        node.state = crc32(entry.payload, node.state)
        node.state_lsn = entry.lsn
        self.check_state(node)
        if entry.kind == Kind.DATA:
            self.stamps[entry.lsn] = decode(entry.payload[:8])
        if entry.lsn in node.writes:
            payload, floor = node.writes.pop(entry.lsn)
            if payload == entry.payload:
                self.require(entry.lsn > floor, f"write {entry.lsn} below the floor {floor}")
                self.floor = max(self.floor, entry.lsn)
                self.count["writes"] += 1
                self.last_write_ns = self.now_ns
        if self.random.random() < 0.05 and entry.lsn == node.replica.applied_lsn:
            node.replica.compact(entry.lsn, node.state.to_bytes(4, "big"))
            self.count["snapshots"] += 1

    def check_state(self, node: Node) -> None:
        """Equal states at equal LSNs, however they were reached."""
        state = self.states.setdefault(node.state_lsn, node.state)
        self.require(state == node.state, f"states differ at {node.state_lsn}")

    def look(self, node: Node) -> None:
        """Note what a replica would let be read from its applied state."""
        safe = node.replica.safe(None)
        self.require(safe >= node.safe, "safe time went back")
        node.safe = safe
        lsn = node.state_lsn
        self.closed_at[lsn] = max(self.closed_at.get(lsn, 0), safe)

    def hear(self, node: Node, kind: NoteKind, epoch: int, stamp: int) -> None:
        """A note of a replica."""
        self.require(kind not in (NoteKind.LOST, NoteKind.DAMAGED), f"note {kind!r}")
        self.count[kind.name.lower()] += 1
        if kind == NoteKind.EPOCH_WANTED:
            late = self.random.random() < 0.1 and not self.quiet
            delay_ns = self.draw(MS, 80 * MS if late else 4 * MS)
            self.at(delay_ns, self.grant, node, node.life, epoch)
        elif kind == NoteKind.SERVES:
            for table in (self.read_stamp, self.closed_stamp):
                earlier = max((s for e, s in table.items() if e < epoch), default=0)
                self.require(stamp > earlier, f"low water of {epoch} is not above {earlier}")
            node.low_water = stamp

    def grant(self, node: Node, life: int, above: int) -> None:
        """The control plane gives an epoch to one life of one replica, or refuses."""
        fresh = self.now_ns - self.granted_ns < 70 * MS and not self.ambush
        refused = fresh or (not self.quiet and self.random.random() < 0.1)
        if life == node.life and node.alive and not refused:
            self.epoch = max(self.epoch, above) + 1
            self.granted_ns = self.now_ns
            self.at(self.draw(0, 2 * MS), self.campaign, node, life, self.epoch)

    def campaign(self, node: Node, life: int, epoch: int) -> None:
        """The epoch reaches the replica it was granted to, if that still lives."""
        if life == node.life and self.running(node, self.campaign, node, life, epoch):
            node.replica.campaign(epoch, self.clock(node))
            self.count["campaigns"] += 1
            self.drain(node)

    # -- the network -------------------------------------------------------------------------------

    def post(self, origin: int, to: int, message: Any) -> None:
        """Send a message: it may be lost, late, overtaken or doubled."""
        if isinstance(message, Append | CloseBeat):
            closed = [message.closed] if isinstance(message, CloseBeat) else []
            if isinstance(message, Append):
                closed = [each.closed for each in message.entries if each.epoch == message.epoch]
            largest = max(closed, default=0)
            self.closed_stamp[message.epoch] = max(self.closed_stamp.get(message.epoch, 0), largest)
        for _ in range(2 if self.random.random() < 0.03 * self.noise else 1):
            if self.random.random() < 0.03 * self.noise:
                continue
            delay_ns = self.draw(100_000, 2 * MS)
            if self.far in (origin, to):  # many are under way at a time, and keep their order
                arrival_ns = max(
                    self.now_ns + FAR_NS + delay_ns, self.arrival_ns.get((origin, to), 0)
                )
                self.arrival_ns[origin, to] = arrival_ns + 1
                delay_ns = arrival_ns - self.now_ns
            if self.random.random() < 0.04 * self.noise:
                delay_ns = self.draw(MS, 90 * MS)
            self.at(delay_ns, self.deliver, origin, to, message)

    def deliver(self, origin: int, to: int, message: Any) -> None:
        """A message arrives."""
        node = self.nodes[to]
        if (origin, to) in self.cut:
            return
        if self.running(node, self.deliver, origin, to, message):
            node.replica.receive(message, self.clock(node))
            self.drain(node)

    # -- clients -----------------------------------------------------------------------------------

    def work(self, node: Node) -> None:
        """Reads and writes are tried at every node, for any may believe it leads."""
        self.at(self.draw(2 * MS, 6 * MS), self.work, node)
        if not node.alive or node.paused_until_ns > self.now_ns:
            return
        self.read(node)
        if node.replica.role is Role.LEADER:
            for _ in range(self.random.choice((0, 1, 1, 3))):
                self.write(node)
            if self.random.random() < 0.3:
                now = self.clock(node)
                node.closed = max(node.closed, pack(now.lo_ns - self.slack_ns(), 0))
                node.replica.close(node.closed, now)
            self.drain(node)

    def slack_ns(self) -> int:
        """How far behind time is closed; sometimes far ahead, which the lease must bound."""
        return self.random.choice((2 * MS, 5 * MS, -200 * MS)) if self.ambush else 2 * MS

    def read(self, node: Node) -> None:
        """A strong read, if the replica says that it may serve."""
        if node.replica.role is not Role.LEADER:
            return
        now = self.clock(node)
        if not node.replica.serves(now):
            return
        epoch = node.replica.epoch
        self.require(node.state_lsn >= self.floor, f"read {node.state_lsn} below {self.floor}")
        self.require(epoch >= self.served_epoch, f"{epoch} serves after {self.served_epoch}")
        self.floor = node.state_lsn
        self.served_epoch = epoch
        stamp = pack(self.now_ns + H_NS, 0) - 1  # no stamp lies further ahead of true time
        self.read_stamp[epoch] = max(self.read_stamp.get(epoch, 0), stamp)
        self.count["reads"] += 1
        self.last_read_ns = self.now_ns

    def write(self, node: Node) -> None:
        """A write above everything this leader has closed."""
        now = self.clock(node)
        self.number += 1
        closed = max(node.closed, pack(now.lo_ns - 2 * MS, 0))
        stamp = max(pack(now.hi_ns, 1), closed + 1, node.stamp + 1, node.low_water + 1)
        payload = encode(stamp) + self.number.to_bytes(8, "big")
        room = node.replica.room(now)
        lsn = node.replica.propose(payload, node.closed, now)
        self.require((room > 0) == (not isinstance(lsn, Refusal)), f"room {room}, but {lsn!r}")
        if node.replica.state.log.last.lsn == lsn and node.replica.role is Role.LEADER:
            node.stamp = stamp
            node.writes[lsn] = (payload, self.floor)

    def change(self, node: Node) -> None:
        """Ask a leader for another membership."""
        if not node.alive or node.paused_until_ns > self.now_ns:
            return
        old = node.replica.membership
        outside = [each for each in self.nodes if each not in old.everyone]
        options = [old.with_learner(each) for each in outside]
        options += [old.with_voter(each) for each in old.learners] * 3
        if len(old.voters) > 1:
            options += [old.without(each) for each in old.voters]
        if not options:
            return
        lsn = node.replica.change(self.random.choice(options), self.clock(node))
        if node.replica.state.log.membership_lsn == lsn:
            self.count["changes"] += 1
        self.drain(node)

    # -- faults ------------------------------------------------------------------------------------

    def fault(self) -> None:
        """Something goes wrong, and later something else."""
        if self.quiet:
            return
        self.at(self.draw(5 * MS, 30 * MS if self.ambush else 60 * MS), self.fault)
        node = self.nodes[self.random.choice(sorted(self.nodes))]
        leaders = [each for each in self.nodes.values() if each.replica.role is Role.LEADER]
        if leaders and self.random.random() < 0.4:
            node = self.random.choice(leaders)
        kinds = [self.crash, self.pause, self.cut_off, self.cut_one, self.force, self.drag]
        kinds += [self.hand] * 2
        if self.ambush:
            kinds = [self.crash, self.spring, self.spring, self.spring, self.hand]
        self.random.choice(kinds)(node)
        for each in leaders:
            if self.random.random() < 0.5:
                self.change(each)

    def crash(self, node: Node) -> None:
        """A machine dies in the middle of its flushes, and comes back."""
        if not node.alive:
            return
        self.count["crashes"] += 1
        node.alive = False
        node.life += 1
        for persist in node.flights[: self.draw(0, len(node.flights))]:
            node.saved = node.saved.then(persist)
            node.flights.pop(0)
        if node.flights and self.random.random() < 0.5:
            torn = node.flights[0]
            kept = self.draw(0, len(torn.entries))
            node.saved = node.saved.then(
                Persist(torn.token, torn.promise, torn.cut_lsn, torn.snapshot, torn.entries[:kept])
            )
        node.flights = []
        node.writes = {}
        quick = self.ambush or self.random.random() < 0.5
        self.at(self.draw(MS, (8 if quick else 120) * MS), self.restart, node)

    def restart(self, node: Node) -> None:
        """A machine comes back with what its disk holds."""
        if node.alive:
            return
        self.count["restarts"] += 1
        node.alive = True
        node.paused_until_ns = 0
        node.state = node.state_lsn = node.safe = node.closed = node.stamp = node.low_water = 0
        node.replica = Replica(node.identity, node.saved, self.settings(), self.clock(node))
        self.drain(node)
        self.at(MS, self.tick, node, node.life)

    def pause(self, node: Node) -> None:
        """A process stands still, and does not know it."""
        node.paused_until_ns = self.now_ns + self.draw(5 * MS, 150 * MS)
        self.count["pauses"] += 1

    def cut_off(self, node: Node) -> None:
        """Nobody hears a node, and it hears nobody."""
        others = [each for each in self.nodes if each != node.identity]
        pairs = {(node.identity, each) for each in others} | {(e, node.identity) for e in others}
        self.cut_pairs(pairs)

    def cut_one(self, node: Node) -> None:
        """Some directions between a node and others are cut."""
        pairs = [(node.identity, e) for e in self.nodes] + [(e, node.identity) for e in self.nodes]
        self.cut_pairs(set(self.random.sample(pairs, self.draw(1, len(pairs)))))

    def cut_pairs(self, pairs: set[tuple[int, int]], least_ms: int = 10) -> None:
        """Cut some directions for a while."""
        self.cut |= pairs
        self.count["cuts"] += 1
        self.at(self.draw(least_ms * MS, 150 * MS), self.mend, pairs)

    def mend(self, pairs: set[tuple[int, int]]) -> None:
        """These directions work again."""
        self.cut -= pairs

    def hand(self, node: Node) -> None:
        """An operator hands the lead of this node to another, or stops it in good order."""
        if not node.alive or node.paused_until_ns > self.now_ns:
            return
        if self.random.random() < 0.2:
            node.replica.stand_down(self.clock(node))
        else:
            heir = self.random.choice(sorted(self.nodes))
            if node.replica.hand_over(heir, self.clock(node)) is None:
                self.count["hand_overs"] += 1
        self.drain(node)

    def force(self, node: Node) -> None:
        """An operator moves the leadership, whether or not there is a reason."""
        self.epoch += 1
        self.campaign(node, node.life, self.epoch)

    def drag(self, node: Node) -> None:
        """A disk becomes slow, or quick again."""
        node.slow = not node.slow

    def spring(self, node: Node) -> None:
        """Cut a leader from all voters, or from some and restart others; let another take over."""
        leaders = [each for each in self.nodes.values() if each.replica.serves(self.clock(each))]
        if not leaders or self.cut:
            return
        self.count["ambushes"] += 1
        victim = leaders[0]
        victim.lie_ns = -self.lie_ns
        others = [each for each in self.nodes.values() if each is not victim]
        self.random.shuffle(others)
        alone = self.random.random() < 0.5
        some = others if alone else others[: self.draw(0, len(others))]
        pairs = {(victim.identity, each.identity) for each in some}
        pairs |= {(each.identity, victim.identity) for each in some}
        self.cut_pairs(pairs, least_ms=40)
        for each in others:
            if not alone and (each not in some or self.random.random() < 0.3):
                self.at(self.draw(0, 6 * MS), self.crash, each)
        voters = victim.replica.membership.voters
        heirs = [each for each in others if each.identity in voters] or others
        heir = self.random.choice(heirs or [victim])
        self.at(self.draw(0, 15 * MS), self.force, heir)

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.quiet = True
        self.cut.clear()
        self.noise = 0.2
        for node in self.nodes.values():
            node.slow = False
            node.paused_until_ns = min(node.paused_until_ns, self.now_ns)
            self.restart(node)

    # -- the end -----------------------------------------------------------------------------------

    def require(self, holds: bool, what: str) -> None:
        """A rule."""
        if not holds:
            raise Broken(f"at {(self.now_ns - START_NS) / 1e6:.3f} ms: {what}")

    def finish(self, end_ns: int) -> None:
        """After the quiet part: progress, agreement, and closed stamps that were kept."""
        late_ns = end_ns - LATE_NS
        self.require(self.last_write_ns > late_ns, "stall: no write late in the quiet part")
        self.require(self.last_read_ns > late_ns, "stall: no read late in the quiet part")
        newest = max(self.nodes.values(), key=lambda each: each.state_lsn)
        for identity in newest.replica.membership.everyone:
            behind = self.floor - self.nodes[identity].state_lsn
            self.require(behind < 60, f"replica {identity} is {behind} entries behind")
        smallest = 2**64
        for lsn in range(max(self.committed), 0, -1):
            closed = self.closed_at.get(lsn, 0)
            self.require(closed < smallest, f"a write at or below what was closed at {lsn}")
            smallest = min(smallest, self.stamps.get(lsn, smallest))
