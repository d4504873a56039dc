"""The host of a cluster's node: what of a turn concerns logs, leaders and other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from k2store.errors import Unavailable
from k2store.node.cluster import incoming, placing, pulling, telling, upkeep
from k2store.node.cluster.fence import Fence
from k2store.node.cluster.forwarding import (
    PEER_OWNER,
    Forwarding,
    deadline_of,
    divided,
    is_final,
    owner_of,
    refusals,
)
from k2store.node.cluster.frames import Forwarded, Report, decode
from k2store.node.cluster.group import ENDS_LEAD, Group, data_lost
from k2store.node.cluster.home_leases import HomeLeases
from k2store.node.cluster.homes import Homes
from k2store.node.cluster.links import Links
from k2store.node.cluster.measuring import Measure
from k2store.node.cluster.placing import NOBODY
from k2store.node.cluster.rotation import Rotation
from k2store.node.cluster.turns import (
    Frozen,
    Home,
    Step,
    Turn,
    encode,
    kept,
    recover,
    step_of,
)
from k2store.node.solo import wait_for_stamps
from k2store.node.spaces import SPACE
from k2store.rpc.transport import Dialer
from k2store.v1 import admin_pb2
from mvcc.coordinator import Route
from mvcc.messages import (
    OWNER_BITS,
    Answer,
    BatchAnswer,
    CommitAlone,
    Commits,
    CommitsAlone,
    End,
    Forgets,
    Message,
    Read,
    Reads,
    Scan,
    Values,
    Write,
)
from mvcc.partition import Partition
from mvcc.records import Entry
from mvcc.refusals import Rule
from replication import (
    HomeSettings,
    NoteKind,
    Persist,
    Ready,
    ReplicaSettings,
    Saved,
    Send,
)
from replication import Message as LogMessage
from truetime import Interval, Oracle
from truetime.timestamp import floor

if TYPE_CHECKING:
    from k2store.control.map import Map
    from k2store.node.engine import Engine

HAND_OVER_REST_S: Final = 0.5
"""How long a node that ends must have had no lead that somebody else could take."""
WAITING_MAX: Final = 65_536
"""Requests of one partition that wait for a leader before more are refused."""


class ClusterSettings(Struct, frozen=True, kw_only=True):
    """What a member of a cluster must know beside the engine's settings; times in nanoseconds."""

    node: int
    """The own id, as the control plane has given it."""
    starts: int = 0
    """How often the node's folder was started, this time included; 0: nobody counts."""
    replica: ReplicaSettings = ReplicaSettings()
    patience_step_ns: int = 300_000_000
    """How much longer each further voter waits for a lost leader, so that one goes first."""
    home: HomeSettings = HomeSettings()
    split_bytes: int = 0
    """From which size on a partition is split; 0: never."""
    copy_page_bytes: int = 1 << 20
    """Keys and values after which a page of a whole copy ends; a key is never divided."""
    close_interval_ns: int = 100_000_000
    """How often time is closed where nothing is written: the epoch of visibility."""


class ClusterHost:
    """Implements :class:`k2store.node.host.Host` over replicated logs."""

    def __init__(self, engine: Engine, settings: ClusterSettings, dialer: Dialer) -> None:
        self.engine = engine
        self.settings = settings
        self.node = settings.node
        self.map: Map | None = None
        self.want_epoch: Callable[[int, int], None] = lambda partition, above: None
        """How a partition's replica asks for an epoch above one; the agent sets it."""
        self.want_split: Callable[[int, bytes], None] = lambda partition, key: None
        """How a leader asks for a new partition at a key; the agent sets it."""
        self.want_promotion: Callable[[str, int], None] = lambda keyspace, above: None
        """How a keyspace's voice asks to replace a silent home; the agent sets it."""
        self.want_cut: Callable[[str, int], None] = lambda keyspace, incarnation: None
        """What follows when the old home serves no more; the agent sets it."""
        self.want_hand_over: Callable[[int, int], None] = partial(placing.bequeath, self)
        """How a leader asks whether a voter could take its lead now; the agent sets it."""
        self.reports: dict[int, tuple[Report, int]] = {}
        """What each other node has last said of its safe times, and when it came."""
        self.links = Links(dialer, arrived=self._arrived, lost=self._lost, changed=engine.schedule)
        self.forwarding = Forwarding(engine.settings.partition.lifetime_ns_max)
        self.pulls = pulling.Pulls(self)
        self.homes = Homes()
        self._partition_settings = msgspec.structs.replace(
            engine.settings.partition, replicated=True
        )
        self.fence = Fence()
        self.groups: dict[int, Group] = {}
        found = recover(engine.store)
        self.retired: set[int] = set()
        """Partitions that another one has followed, kept until that one is here."""
        self.frozen = found.frozen
        """Partitions whose home was declared off, and how far their copies are final."""
        self.stopped: set[int] = set()
        """Partitions between two homes."""
        self.partitions: list[Partition] = []
        self.route = Route([b""], [NOBODY])
        self.began = 0
        self.turns_synced = 0
        self.final_reads = 0
        """Messages that were answered from a copy which does not lead."""
        self._log = engine.store.log
        self._settled = engine.store.settled
        self._inbox: list[tuple[int, bytes]] = []
        self._late: list[tuple[int, LogMessage]] = []
        self._lost_nodes: list[int] = []
        self._moved: dict[int, None] = {}
        self.rotation = Rotation(self)
        self.leaders: dict[int, int | None] = {}
        self._hinted_ns = 0

        self.replayed = found.replayed
        self.home_leases = HomeLeases(self, settings.home, found.homes)
        self.reported_ns = 0
        self.oracle = (
            Oracle.restore(self.node, engine.settings.oracle, found.reserved_until_ns)
            if found.reserved_until_ns
            else Oracle(self.node, engine.settings.oracle)
        )
        self._saved = found.replicas

    # -- life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the logs that this node has; the map and other nodes bring the rest."""
        engine = self.engine
        await wait_for_stamps(engine)
        self.began = floor(engine.now.hi_ns)
        self.forwarding.introduce(self.node, engine.incarnation)
        self.links.introduce(self.node, engine.incarnation, self.settings.starts)
        for number, saved in sorted(self._saved.items()):
            self._take_up(number, saved)
        self._saved = {}
        self.arrange()
        self.rotation.prepare()

    def _take_up(self, number: int, saved: Saved) -> Group:
        settings = self.settings.replica
        rank = self._rank(number, saved)
        settings = msgspec.structs.replace(
            settings, patience_ns=settings.patience_ns + rank * self.settings.patience_step_ns
        )
        group = Group(number, self.node, saved, settings, self._make, self.engine.now)
        group.measure = Measure(self.settings.split_bytes)
        self.groups[number] = group
        frozen = self.frozen.get(number)
        if frozen is not None:
            group.thaw(frozen.applied_lsn, frozen.closed, self.engine.now)
        horizon = self._settled.get_meta(pulling.horizon_name(number))
        if horizon is not None:
            state = group.partition.state
            state.horizon = max(state.horizon, int.from_bytes(horizon, "big"))
        self._moved[number] = None
        return group

    def _rank(self, number: int, saved: Saved) -> int:
        """Different for every voter of a partition, and another order for each partition."""
        voters = saved.snapshot.membership.voters
        if self.node not in voters:
            return len(voters)
        return (voters.index(self.node) - number) % len(voters)

    def _make(self, number: int, start: bytes, end: bytes) -> Partition:
        return Partition(
            number,
            start,
            end,
            space=SPACE,
            settled=self._settled,
            oracle=self.oracle,
            settings=self._partition_settings,
        )

    def begin(self, number: int, saved: Saved) -> Group:
        """A log begins on this node; durable when this returns."""
        self._write(Turn(0, [], [kept(number, saved)], []))
        group = self._take_up(number, saved)
        group.partition.watch(self.engine.feed.gathering)
        self.arrange()
        return group

    def end(self, number: int) -> None:
        """A log ends on this node, with everything in it."""
        group = self.groups.pop(number)
        self.retired.discard(number)
        self.frozen.pop(number, None)
        group.stop()
        self._collect_answers(group)
        self._moved.pop(number, None)
        self._write(Turn(0, [], [], [number]))
        self.arrange()

    def arrange(self) -> None:
        """Partitions have come, gone, or changed their borders."""
        present = (one for one in self.groups.values() if one.number not in self.retired)
        groups = sorted(present, key=lambda one: one.start)
        self.partitions = [group.partition for group in groups]
        self.route = placing.route_of(groups)
        self.engine.coordinator.route = self.route

    def stop(self) -> None:
        """Leave the others, and a clean log."""
        for group in self.groups.values():
            group.replica.stand_down(self.engine.now)
        self.advance()
        self._flush_links()
        self.abandon()
        self.reserve(self.oracle.close())
        if self.rotation.possible and all(group.quiescent for group in self.groups.values()):
            self.rotation.checkpoint()
            self._settled.flush()

    def abandon(self) -> None:
        """End all streams: a process that has failed would wait for them, and never end."""
        self.links.close()

    # -- what the engine asks ----------------------------------------------------------------------

    @property
    def single(self) -> int | None:
        """The number of the only partition, if there is only one."""
        return self.partitions[0].state.partition if len(self.partitions) == 1 else None

    def partition(self, number: int) -> Partition:
        """The local copy of a partition; raises Unavailable while there is none."""
        group = self.groups.get(number)
        if group is None:
            raise Unavailable(
                "this node has no copy of the partition of that key yet", retry_after_s=0.1
            )
        return group.partition

    def see(self, now: Interval) -> None:
        """Leases are looked at with every reading of the clock."""
        if self.engine.standing:
            # Without a clock nobody knows whether a lease still runs.
            for group in self.groups.values():
                if group.leading:
                    group.partition.state.serving = False
            return
        for group in self.groups.values():
            if group.leading:
                group.partition.state.serving = group.replica.serves(
                    now
                ) and self.home_leases.allows(group, now)

    def deliver(self, number: int, message: Message) -> None:
        """Run a message of a session here, send it to the leader, or have it wait for one."""
        if isinstance(message, Reads):
            message = self._whole_reads(number, message)
            if not message.requests:
                return
        if self._torn(number, message):
            self.refuse(message, Rule.HOMES)
        else:
            self.run(number, message)

    def _whole_reads(self, number: int, message: Reads) -> Reads:
        """Reads without those of transactions that could be lost in part, which are refused."""
        if not self.homes.several or not any(message.txns):
            return message
        allows = self.homes.allows
        torn = {
            index
            for index, txn in enumerate(message.txns)
            if txn and not allows(txn, number, writes=False)
        }
        if not torn:
            return message
        refused, whole = divided(message, torn)
        self.refuse(refused, Rule.HOMES)
        return whole

    def _torn(self, number: int, message: Message) -> bool:
        """Whether the transaction of a message could be lost in part with a region."""
        allows = self.homes.allows
        if isinstance(message, Read | Scan):
            return not allows(message.txn, number, writes=False)
        if isinstance(message, Write | CommitAlone):
            return not allows(message.txn, number, writes=True)
        return False  # commits in columns go only where there is a single partition

    def touch(self, group: Group) -> None:
        """Something has moved in the group's log."""
        self._moved[group.number] = None

    def run(self, number: int, message: Message) -> None:
        group = self.groups.get(number)
        if group is None:
            self.refuse(message, Rule.NOT_LEADER)
        elif group.leading:
            if self.rotation.due or group.heir or group.full:
                group.held.append(message)
            else:
                group.partition.receive(message, self.engine.now)
                self._moved[number] = None
        elif is_final(message, group.partition.state.shown):
            self.final_reads += 1
            group.partition.receive(message, self.engine.now)
        elif isinstance(message, Reads) and not all(message.txns):
            self._deliver_mixed(group, message)
        else:
            self._send(group, message)

    def _deliver_mixed(self, group: Group, message: Reads) -> None:
        """Reads of which some can be answered here."""
        shown = group.partition.state.shown
        final = {
            index
            for index, (txn, stamp) in enumerate(zip(message.txns, message.stamps, strict=True))
            if not txn and stamp <= shown
        }
        here, there = divided(message, final)
        if here.requests:
            group.partition.receive(here, self.engine.now)
        if there.requests:
            self._send(group, there)

    def _send(self, group: Group, message: Message) -> None:
        leader = group.replica.leader
        link = self.links.to(leader)
        if link is None or leader is None:
            self._wait_for_leader(group, message)
            return
        if not isinstance(message, Read | Reads | Scan):
            group.told = True
        if isinstance(message, Write | CommitAlone | CommitsAlone | End):
            group.interest_ns = self.engine.now.lo_ns
        sent = self.forwarding.send(message, group.number, leader, self.engine.now.lo_ns)
        link.request(Forwarded(group.number, group.end, sent))

    def _wait_for_leader(self, group: Group, message: Message) -> None:
        now_ns = self.engine.now.lo_ns
        lifetime_ns = self.engine.settings.partition.lifetime_ns_max
        if len(group.waiting) >= WAITING_MAX:
            self.refuse(message, Rule.NOT_LEADER)
        else:
            group.waiting.append((deadline_of(message, now_ns + lifetime_ns), message))

    def refuse(self, message: Message, rule: Rule) -> None:
        self.engine.dispatch(self.sift(refusals(message, rule)))

    def carry(self, key: bytes, message: Message) -> None:
        """Between partitions; who is asked again and again may lose a message."""
        number = self.route.of(key)
        group = self.groups.get(number)
        if group is None:
            return
        if group.leading:
            self.run(number, message)
            return
        link = self.links.to(group.replica.leader)
        if link is not None:
            link.carry(key, message)

    def forget(self, txns: list[bytes]) -> None:
        """Leaders keep outcomes; to those elsewhere the word goes in their next frame."""
        message = Forgets(txns)
        told: set[int] = set()
        for group in self.groups.values():
            if group.leading:
                group.partition.receive(message, self.engine.now)
                continue
            if not group.told:
                continue
            leader = group.replica.leader
            link = self.links.to(leader)
            if link is not None and leader is not None and leader not in told:
                told.add(leader)
                link.request(Forwarded(NOBODY, b"", message))

    async def hand_over(self, deadline_s: float) -> None:
        """Give every lead to another voter before this node ends, until `deadline_s` of the loop."""
        loop = asyncio.get_running_loop()
        self.reported_ns = 0  # the others must know before they give a lead back
        last_s = loop.time()
        while loop.time() < min(deadline_s, last_s + HAND_OVER_REST_S):
            if placing.bequeath_all(self):
                last_s = loop.time()
                self.engine.schedule()
            await asyncio.sleep(0.01)

    def leave(self, owner: int) -> None:
        """Drop what a session that has ended has waiting for leaders."""
        for group in self.groups.values():
            if group.waiting:
                group.waiting = [one for one in group.waiting if owner_of(one[1]) != owner]
            if group.held:
                group.held = [one for one in group.held if owner_of(one) != owner]

    def sift(self, answers: Sequence[Answer | BatchAnswer]) -> Sequence[Answer | BatchAnswer]:
        """The answers that sessions here have asked for; the others go on their way back."""
        mine: list[Answer | BatchAnswer] = []
        for answer in answers:
            owner = (
                answer.owner
                if isinstance(answer, Values | Commits)
                else answer.request >> OWNER_BITS
            )
            if owner < PEER_OWNER:
                mine.append(answer)
                continue
            link = self.links.to(owner - PEER_OWNER)
            if link is not None:
                link.answer(answer)
        return mine

    # -- what other nodes say ----------------------------------------------------------------------

    def _arrived(self, node: int, data: bytes) -> None:
        self._inbox.append((node, data))
        self.engine.schedule()

    def _lost(self, node: int) -> None:
        self._lost_nodes.append(node)
        self.engine.schedule()

    def begin_turn(self) -> None:
        """Take the frames of other nodes."""
        lost, self._lost_nodes = self._lost_nodes, []
        for node in lost:
            self.engine.dispatch(self.forwarding.give_up_node(node))
        late, self._late = self._late, []
        for number, message in late:
            self.log_message(number, message)
        inbox, self._inbox = self._inbox, []
        for node, data in inbox:
            try:
                frame = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.engine.counts["peer_garbage"] = self.engine.counts.get("peer_garbage", 0) + 1
                continue
            incoming.take(self, node, frame)

    @property
    def silenced(self) -> set[int]:
        """Partitions whose logs nobody is listened to about."""
        return self.stopped | self.retired if self.retired else self.stopped

    def is_off(self, node: int) -> bool:
        """Whether a node stands in a region that was declared off: nothing of it counts."""
        region = None if self.map is None else self.map.region(self.map.region_of(node) or "")
        return region is not None and region.off

    def log_message(self, number: int, message: LogMessage) -> None:
        """A message of another replica; a snapshot without its content is fetched first."""
        group = self.groups.get(number)
        if group is None or number in self.silenced or self.pulls.intercept(group, message):
            return
        group.replica.receive(message, self.engine.now)
        self._moved[number] = None

    def later(self, number: int, message: LogMessage) -> None:
        """Take a message of a log in a turn of its own."""
        self._late.append((number, message))
        self.engine.schedule()

    # -- logs --------------------------------------------------------------------------------------

    def set_map(self, present: Map) -> None:
        """A newer map of the cluster."""
        placing.set_map(self, present)
        self.engine.schedule()

    def campaign(self, number: int, epoch: int) -> None:
        """The control plane has granted an epoch."""
        group = self.groups.get(number)
        if group is not None:
            group.replica.campaign(epoch, self.engine.now)
            self._moved[number] = None
            self.engine.schedule()

    def persist(self, entries: Sequence[Entry]) -> bool:
        """Propose what the leaders' machines have made, and let everything move that can."""
        now = self.engine.now
        for entry in entries:
            self.groups[entry.partition].propose(entry, now)
            self._moved[entry.partition] = None
        return self.advance()

    def advance(self) -> bool:
        """Persist, send and apply until every log stands still; True if machines have changed."""
        changed = False
        self.home_leases.advance()
        while self._moved:
            moved, self._moved = self._moved, {}
            steps: list[Step] = []
            written: list[tuple[Group, Persist]] = []
            for number in moved:
                group = self.groups.get(number)
                if group is None:
                    continue
                ready = group.replica.ready()
                if ready.persist is not None:
                    steps.append(step_of(number, ready.persist))
                    written.append((group, ready.persist))
                if self._act(group, ready):
                    changed = True
            if steps:
                # What other disks must write leaves before this one is waited for.
                self._flush_links()
                self._write(Turn(0, steps, [], []))
                self.engine.see()
                for group, persist in written:
                    group.replica.persisted(persist.token, self.engine.now)
                    self._moved[group.number] = None
        return changed

    def freeze(self, numbers: Iterable[int]) -> None:
        """Remember durably how far these partitions are final here: their home is gone, and no
        leader will say so again.
        """
        found = []
        for number in numbers:
            group = self.groups.get(number)
            if group is None or group.leading or number in self.frozen:
                continue
            state = group.partition.state
            found.append(Frozen(number, group.replica.applied_lsn, state.closed))
        if found:
            self._write(Turn(0, [], [], [], [], found))
            self.frozen.update((one.partition, one) for one in found)

    def write_homes(self, homes: list[Home]) -> None:
        """Make durable what this node's voices are bound to."""
        self._write(Turn(0, [], [], [], homes))

    def promote(self, keyspace: str, incarnation: int) -> None:
        """The control plane has granted an incarnation of a keyspace's home."""
        self.home_leases.promote(keyspace, incarnation)
        self.engine.schedule()

    def _act(self, group: Group, ready: Ready) -> bool:
        """Send, apply and note what a replica has ready; True if its machine has changed."""
        for send in ready.sends:
            self.send_log(group.number, send)
        before = group.partition
        ends = bool({note.kind for note in ready.notes} & ENDS_LEAD)
        if group.leading and (ends or (ready.committed and self._has_moved(group))):
            # The machine that ends has not heard what stands now; the next one is told of it.
            self._depose(group, len(ready.committed))
        changed = group.absorb(ready, self.engine.now)
        for note in ready.notes:
            if note.kind == NoteKind.EPOCH_WANTED:
                self.want_epoch(group.number, note.epoch)
            elif note.kind == NoteKind.STAYED:
                group.heir = 0
                self.let_in(group)
            elif note.kind == NoteKind.LOST:
                self.engine.fail(data_lost(group.number))
        if group.leading and ends:
            self._depose(group, 0)  # it had the lead for no longer than this
        if ready.restore is not None:
            group.partition.watch(self.engine.feed.gathering)
            self.engine.feed.interrupted(group.start, group.end)
        if group.partition is not before:
            self.arrange()
        for child, saved in group.partition.take_children():
            placing.adopt(self, group, child, saved)
            self.arrange()
        return changed

    def _has_moved(self, group: Group) -> bool:
        """Whether the keyspace may have another home: then what stands may lie above its cut, nobody
        is told that it does, and the lead ends.
        """
        if self.home_leases.allows(group, self.engine.now):
            return False
        self.home_leases.refused += 1
        group.replica.stand_down(self.engine.now)
        self._moved[group.number] = None
        return True

    def _depose(self, group: Group, ahead: int) -> None:
        """End a leader's machine; the last `ahead` entries that stand are still to be applied."""
        held, group.held = group.held, []
        group.heir = 0
        group.stop()
        self._collect_answers(group)
        changes = group.partition.take_changes()
        group.depose(ahead)
        group.partition.state.feed = changes
        for message in held:  # nobody has begun with them
            self.run(group.number, message)

    def _collect_answers(self, group: Group) -> None:
        ready = group.partition.ready()
        self.engine.dispatch(self.sift(ready.answers))
        for key, message in ready.sends:
            self.carry(key, message)

    def send_log(self, number: int, send: Send) -> None:
        link = self.links.to(send.to)
        if link is not None:
            link.log(number, pulling.by_reference(send.message))

    def _write(self, turn: Turn) -> None:
        self._log.append(encode(turn))
        self._log.sync()
        self.engine.counts["syncs"] += 1

    def reserve(self, until_ns: int) -> None:
        """Make the oracle's reservation durable."""
        self._write(Turn(until_ns, [], [], []))
        self.oracle.reserve(until_ns)

    # -- time --------------------------------------------------------------------------------------

    def tick(self, now: Interval, oldest_open: int, protected: int) -> None:
        """Upkeep of logs and machines."""
        off = self.is_off(self.node) or self.engine.standing
        for group in list(self.groups.values()):
            if off or group.number in self.silenced:
                group.replica.stand_down(now)
            else:
                group.replica.tick(now)
            self._moved[group.number] = None
            upkeep.tick_machine(self, group, now, oldest_open, protected)
            upkeep.look_for_leader(self, group, now)
        self.engine.dispatch(self.forwarding.give_up_late(now.lo_ns))
        upkeep.hint(self, now, oldest_open)
        self.home_leases.tick(now)
        upkeep.report(self)
        self.homes.forget_others(self.engine.coordinator.open)
        placing.follow_map(self, now)
        self.pulls.tick(now.lo_ns)

    def report(self) -> Report:
        """How far history is final here."""
        version = 0 if self.map is None else self.map.version
        safe = {number: group.safe() for number, group in self.groups.items()}
        return Report(version, safe, self.engine.draining)

    def draining(self, node: int) -> bool:
        """Whether another node is about to end."""
        report = self.reports.get(node)
        return report is not None and report[0].draining

    def heard(self, node: int) -> bool:
        """Whether another node has said something lately."""
        report = self.reports.get(node)
        return report is not None and self.engine.now.lo_ns - report[1] < upkeep.HINT_LIFE_NS

    def collect(self, protected: int) -> None:
        """Begin a pass of the collection where this node leads; followers hear of it in the log."""
        for group in self.groups.values():
            if group.leading and group.partition.state.serving:
                group.partition.collect(protected)

    def shows(self, number: int, stamp: int) -> bool:
        """Whether this node leads the partition, or time is closed over the stamp here."""
        group = self.groups.get(number)
        return group is not None and (group.leading or stamp <= group.safe())

    def _show(self) -> None:
        """Let clients know of a safe time that has risen since the last tick."""
        seen = min(
            (one.seen for one in self.groups.values() if one.number not in self.retired),
            default=0,
        )
        if seen > self.engine.safe:
            self.engine.safe = seen

    def safe(self) -> int:
        """The least of all partitions: the region's safe time as this node knows it.

        It is 0 while there are keys of which no copy is here.
        """
        if NOBODY in self.route.covering(b"", b""):
            return 0
        return min(
            (one.safe() for one in self.groups.values() if one.number not in self.retired),
            default=0,
        )

    def safe_in(self, start: bytes, end: bytes) -> int:
        """The least of the partitions that a range touches; 0 while one of them is not here."""
        touched = [self.groups.get(number) for number in self.route.covering(start, end)]
        return min([0 if group is None else group.safe() for group in touched])

    def _flush_links(self) -> None:
        monotonic_ns = self.engine.clock.monotonic_ns()
        self.links.flush(self.engine.now.lo_ns, lambda node: self.fence.accuses(node, monotonic_ns))

    @property
    def fenced(self) -> bool:
        """Whether the own clock contradicts most of the others'."""
        if not self.fence.suspicious:
            return False
        return self.fence.tripped(self.links.standing, self.engine.clock.monotonic_ns())

    def describe(self, status: admin_pb2.GetStatusResponse) -> None:
        """Add what this node knows of its cluster."""
        telling.describe(self, status)

    # -- segments ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Let frames leave; leave a full segment once no machine is ahead of its log."""
        for group in self.groups.values():
            if group.leading and group.heir:
                self._hand_over(group)
        self.rotation.look()
        self._show()
        self._flush_links()

    def let_in(self, group: Group) -> None:
        """Go on with what was held back."""
        held, group.held = group.held, []
        for message in held:
            self.run(group.number, message)

    def _hand_over(self, group: Group) -> None:
        """Once everything proposed stands, let the heir have the lead."""
        if group.handing or not group.quiescent:
            return
        group.handing = True
        if group.replica.hand_over(group.heir, self.engine.now) is not None:
            group.heir = 0
            self.let_in(group)
        self._moved[group.number] = None
        self.engine.schedule()


def cluster_host(settings: ClusterSettings, dialer: Dialer) -> Callable[[Engine], ClusterHost]:
    """What an engine takes to become a member of a cluster."""
    return lambda engine: ClusterHost(engine, settings, dialer)
