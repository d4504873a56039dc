"""The world of the scripts about one replicated log: replicas, disks, mail and clocks stand still.

Nothing happens unless a command says so: a flush ends, a message arrives and time passes only on
command. Times are milliseconds since the beginning of the script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from replication import (
    GENESIS,
    Append,
    Appended,
    CampaignNow,
    CloseBeat,
    Differs,
    Entry,
    Fenced,
    Fetch,
    Fetched,
    Install,
    Kind,
    Listen,
    Membership,
    Message,
    Persist,
    Position,
    Refusal,
    Released,
    Renew,
    Renewed,
    Replica,
    ReplicaSettings,
    Role,
    Saved,
    Seal,
    Sealed,
    Send,
    Silent,
    Snapshot,
    chain,
)
from replication.membership import decode, encode
from replication.takeover import decode as decode_takeover
from truetime import Interval
from truetime.timestamp import EPOCH_NS, pack, time_ns
from truetime.timestamp import encode as encode_stamp

BASE_NS = EPOCH_NS + 256 * 10**12
MS = 1_000_000


@dataclass
class Node:
    """One replica with its disk, and the letters of what it has applied."""

    identity: int
    saved: Saved
    now: Interval
    replica: Replica | None = None
    flights: list[Persist] = field(default_factory=list)
    applied: str = ""


class Scene:
    """Everything a script can touch."""

    def __init__(self) -> None:
        self.settings = ReplicaSettings(trail_bytes_max=0)
        self.nodes: dict[int, Node] = {}
        self.mail: list[tuple[int, Send]] = []
        self.lines: list[str] = []
        self.terse = False

    def say(self, line: str) -> None:
        """Write a line below the present command."""
        self.lines.append(line)

    def machine(self, node: Node) -> Replica:
        """The running replica of a node."""
        assert node.replica is not None, node.identity
        return node.replica

    def start(self, node: Node, applied: Position | None = None) -> None:
        """A replica begins from its disk."""
        node.replica = Replica(node.identity, node.saved, self.settings, node.now, applied)
        node.flights = []
        node.applied = ""

    def collect(self) -> None:
        """Write down what every replica has ready."""
        for node in self.nodes.values():
            if node.replica is None:
                continue
            ready = node.replica.ready()
            name = node.identity
            if ready.persist is not None:
                node.flights.append(ready.persist)
                if not self.terse:
                    self.say(f"{name} saves {show_persist(ready.persist)}")
            if ready.restore is not None:
                node.applied = ready.restore.state.decode()
                self.say(f"{name} restores {show_position(ready.restore.position)}")
            for entry in ready.committed:
                if entry.kind == Kind.DATA:
                    node.applied += entry.payload.decode()
            if ready.committed:
                self.say(f"{name} applies {' '.join(map(show_entry, ready.committed))}")
            for send in ready.sends:
                self.mail.append((name, send))
                if not self.terse:
                    self.say(f"{name} → {send.to}: {show_message(send.message)}")
            for note in ready.notes:
                stamp = f" low water {show_stamp(note.stamp)}" if note.stamp else ""
                self.say(f"{name} says {note.kind.name} {note.epoch}{stamp}")


# -- words -----------------------------------------------------------------------------------------


def show_position(position: Position) -> str:
    """Epoch and LSN."""
    return f"{position.epoch}/{position.lsn}"


def show_stamp(stamp: int) -> str:
    """A stamp as milliseconds."""
    if stamp == 0:
        return "0"
    return f"{round((time_ns(stamp) - BASE_NS) / 1e6, 3):g}ms"


def show_time(at_ns: int) -> str:
    """A time as milliseconds."""
    return f"{round((at_ns - BASE_NS) / 1e6, 3):g}ms" if at_ns else "never"


def show_members(membership: Membership) -> str:
    """Voters, and learners if there are any."""
    text = ",".join(map(str, membership.voters)) or "nobody"
    return text + ("+" + ",".join(map(str, membership.learners)) if membership.learners else "")


def show_entry(entry: Entry) -> str:
    """Epoch, LSN, and what the entry says."""
    if entry.kind == Kind.TAKEOVER:
        content = f"takeover({show_stamp(decode_takeover(entry.payload).low_water)})"
    elif entry.kind == Kind.MEMBERS:
        content = f"members({show_members(decode(entry.payload))})"
    else:
        content = entry.payload.decode()
    closed = f"[{show_stamp(entry.closed)}]" if entry.closed else ""
    return f"{entry.epoch}/{entry.lsn}:{content}{closed}"


def show_persist(persist: Persist) -> str:
    """A step of the durable state."""
    parts = [f"#{persist.token} promise {persist.promise}"]
    if persist.cut_lsn:
        parts.append(f"cut {persist.cut_lsn}")
    if persist.snapshot is not None:
        parts.append(f"snapshot {show_position(persist.snapshot.position)}")
    parts += map(show_entry, persist.entries)
    if persist.lost:
        parts.append("lost")
    return " ".join(parts)


BARE: dict[type, str] = {
    Renew: "renew",
    Seal: "seal",
    Fenced: "fenced",
    CampaignNow: "campaign now",
    Released: "released",
}


def show_message(message: Message) -> str:
    """A message, without its sender."""
    match message:
        case Append():
            entries = " ".join(map(show_entry, message.entries)) or "nothing"
            behind = show_position(message.previous)
            return f"append@{message.epoch} {entries} behind {behind} commit {message.commit_lsn}"
        case Install():
            return f"install@{message.epoch} {show_position(message.snapshot.position)}"
        case Appended():
            return f"appended@{message.epoch} {message.lsn}"
        case Differs():
            points = " ".join(map(show_position, message.points))
            return f"differs@{message.epoch} has {points}"
        case Renewed():
            return f"renewed@{message.epoch} until {show_time(message.end_ns)}"
        case CloseBeat():
            closed = show_stamp(message.closed)
            return f"beat@{message.epoch} {closed} at {message.lsn} commit {message.commit_lsn}"
        case Sealed():
            members = show_members(message.membership)
            last, end = show_position(message.last), show_time(message.end_ns)
            return f"sealed@{message.epoch} last {last} lease {end} members {members}"
        case Fetch():
            return f"fetch@{message.epoch} has {' '.join(map(show_position, message.points))}"
        case Fetched():
            entries = " ".join(map(show_entry, message.entries)) or "nothing"
            return f"fetched@{message.epoch} {entries} behind {show_position(message.previous)}"
        case Renew() | Seal() | Fenced() | CampaignNow() | Released():
            return f"{BARE[type(message)]}@{message.epoch}"
        case Listen():
            return f"listens since {show_time(message.since_ns)}"
        case Silent():
            return f"silent since {show_time(message.since_ns)}"


# -- commands --------------------------------------------------------------------------------------

Verb = Callable[[Scene, list[str]], None]
VERBS: dict[str, Verb] = {}


def run(scene: Scene, words: list[str]) -> list[str]:
    """Run one command; returns what it brought about."""
    scene.lines = []
    scene.terse = False
    VERBS[words[0]](scene, words[1:])
    scene.collect()
    return scene.lines


def verb(function: Verb) -> Verb:
    """Register a command under the name of its function."""
    VERBS[function.__name__.strip("_")] = function
    return function


def members(text: str) -> Membership:
    """A membership from ``1,2,3`` or ``1,2,3+4``; ``nobody`` is empty."""
    if text == "nobody":
        return Membership()
    voters, _, learners = text.partition("+")
    return Membership(
        tuple(map(int, voters.split(","))), tuple(map(int, learners.split(","))) if learners else ()
    )


def instant(text: str) -> int:
    """A time from milliseconds."""
    return BASE_NS + round(float(text) * MS)


@verb
def settings(scene: Scene, words: list[str]) -> None:
    """``settings lease 1000 longest 1200 batch 2 window 4 trail 300``: before any disk."""
    given = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    scene.settings = ReplicaSettings(
        lease_ns=given.get("lease", 1000) * MS,
        lease_longest_ns=given.get("longest", 1200) * MS,
        batch_entries_max=given.get("batch", 256),
        window_entries_max=given.get("window", 1024),
        batch_bytes_max=given.get("batchbytes", 1 << 20),
        window_bytes_max=given.get("windowbytes", 4 << 20),
        join_lag_entries_max=given.get("lag", 256),
        hand_over_ns=given.get("hand", 3000) * MS,
        uncommitted_entries_max=given.get("uncommitted", 4096),
        trail_bytes_max=given.get("trail", 0),
    )


@verb
def disk(scene: Scene, words: list[str]) -> None:
    """``disk 1 members 1,2,3 promise 2 log 1:a 1:M=1,2 2:T``: a replica starts from such a disk."""
    identity = int(words[0])
    base = Snapshot(GENESIS, members(words[2]), 0, b"")
    promise = int(words[4]) if len(words) > 3 else 0
    position = GENESIS
    entries = []
    for word in words[6:]:
        epoch, _, content = word.partition(":")
        kind, payload = Kind.DATA, content.encode()
        if content == "T":  # as written before the leader was in it
            kind, payload = Kind.TAKEOVER, encode_stamp(pack(BASE_NS, 0))
        elif content.startswith("M="):
            kind, payload = Kind.MEMBERS, encode(members(content[2:]))
        entries.append(chain(position, int(epoch), kind, 0, payload))
        position = entries[-1].position
    now = Interval(BASE_NS, BASE_NS)
    node = scene.nodes[identity] = Node(identity, Saved(base, promise, tuple(entries)), now)
    scene.start(node)


@verb
def at(scene: Scene, words: list[str]) -> None:
    """``at 10 12 [2]``: the clock shows [10, 12], everywhere or at replica 2; timers run there."""
    lo_ns = instant(words[0])
    now = Interval(lo_ns, instant(words[1]) if len(words) > 1 else lo_ns)
    for node in scene.nodes.values():
        if len(words) < 3 or node.identity == int(words[2]):
            node.now = now
            if node.replica is not None:
                node.replica.tick(now)


@verb
def clock(scene: Scene, words: list[str]) -> None:
    """``clock 10 12 2``: replica 2's clock shows [10, 12], and its timer has not run yet."""
    scene.nodes[int(words[2])].now = Interval(instant(words[0]), instant(words[1]))


@verb
def campaign(scene: Scene, words: list[str]) -> None:
    """``campaign 2 5``: replica 2 was granted epoch 5."""
    node = scene.nodes[int(words[0])]
    refusal = scene.machine(node).campaign(int(words[1]), node.now)
    if refusal is not None:
        scene.say(f"refused {refusal.name}")


@verb
def propose(scene: Scene, words: list[str]) -> None:
    """``propose 1 x [closed 30]``."""
    node = scene.nodes[int(words[0])]
    closed = pack(instant(words[3]), 0) if len(words) > 2 else 0
    came = scene.machine(node).propose(words[1].encode(), closed, node.now)
    scene.say(f"refused {came.name}" if isinstance(came, Refusal) else f"at {came}")


@verb
def room(scene: Scene, words: list[str]) -> None:
    """``room 1``: how many more proposals replica 1 would take."""
    node = scene.nodes[int(words[0])]
    scene.say(str(scene.machine(node).room(node.now)))


@verb
def close(scene: Scene, words: list[str]) -> None:
    """``close 1 30``: announce a closed timestamp without an entry."""
    node = scene.nodes[int(words[0])]
    if not scene.machine(node).close(pack(instant(words[1]), 0), node.now):
        scene.say("refused")


@verb
def hand(scene: Scene, words: list[str]) -> None:
    """``hand 1 2``: replica 1 hands the lead to 2."""
    node = scene.nodes[int(words[0])]
    refusal = scene.machine(node).hand_over(int(words[1]), node.now)
    if refusal is not None:
        scene.say(f"refused {refusal.name}")


@verb
def stop(scene: Scene, words: list[str]) -> None:
    """``stop 1``: replica 1 is told to lead no more."""
    node = scene.nodes[int(words[0])]
    scene.machine(node).stand_down(node.now)


@verb
def followers(scene: Scene, words: list[str]) -> None:
    """``followers 1``: what replica 1 knows of its followers."""
    for each in scene.machine(scene.nodes[int(words[0])]).followers():
        scene.say(
            f"{each.identity}: {'voter' if each.votes else 'learner'}"
            f"{'' if each.known else ', not known'}{', installing' if each.installing else ''},"
            f" has {each.matched_lsn}, lags {each.lag_entries}, silent {each.silent_ns / MS:g}ms"
        )


@verb
def counters(scene: Scene, words: list[str]) -> None:
    """``counters 1``: what has been counted there, without zeros."""
    counted = msgspec.structs.asdict(scene.machine(scene.nodes[int(words[0])]).counters)
    scene.say(", ".join(f"{name} {count}" for name, count in counted.items() if count))


@verb
def change(scene: Scene, words: list[str]) -> None:
    """``change 1 1,2,3+4``: a new membership."""
    node = scene.nodes[int(words[0])]
    came = scene.machine(node).change(members(words[1]), node.now)
    scene.say(f"refused {came.name}" if isinstance(came, Refusal) else f"at {came}")


@verb
def flush(scene: Scene, words: list[str]) -> None:
    """``flush 1 2``: what these replicas gave to their disks becomes durable."""
    for word in words:
        node = scene.nodes[int(word)]
        flights, node.flights = node.flights, []
        for persist in flights:
            node.saved = node.saved.then(persist)
            scene.machine(node).persisted(persist.token, node.now)


@verb
def flush_first(scene: Scene, words: list[str]) -> None:
    """``flush_first 1``: only the oldest step of replica 1 becomes durable."""
    node = scene.nodes[int(words[0])]
    persist = node.flights.pop(0)
    node.saved = node.saved.then(persist)
    scene.machine(node).persisted(persist.token, node.now)


def chosen(words: list[str], origin: int, send: Send) -> bool:
    """Whether mail is meant by ``1>2 append``; ``*`` stands for anybody."""
    if not words:
        return True
    left, _, right = words[0].partition(">")
    kind = type(send.message).__name__.lower()
    return (
        left in ("*", str(origin))
        and right in ("*", str(send.to))
        and (len(words) < 2 or words[1] == kind)
    )


def take(scene: Scene, words: list[str]) -> list[tuple[int, Send]]:
    """Take mail out of the post."""
    taken = [each for each in scene.mail if chosen(words, *each)]
    scene.mail = [each for each in scene.mail if not chosen(words, *each)]
    return taken


def hand_over(scene: Scene, mail: list[tuple[int, Send]]) -> None:
    """Messages arrive, one after the other."""
    for _, send in mail:
        node = scene.nodes[send.to]
        if node.replica is not None:
            node.replica.receive(send.message, node.now)
            scene.collect()


@verb
def deliver(scene: Scene, words: list[str]) -> None:
    """``deliver [1>2 [append]]``: mail arrives; ``*`` stands for anybody."""
    hand_over(scene, take(scene, words))


@verb
def deliver_first(scene: Scene, words: list[str]) -> None:
    """``deliver_first 1>2 append``: only the first such message arrives."""
    taken = take(scene, words)
    scene.mail += taken[1:]
    hand_over(scene, taken[:1])


@verb
def deliver_last(scene: Scene, words: list[str]) -> None:
    """``deliver_last 1>2 append``: only the last such message arrives; the others are slow."""
    taken = take(scene, words)
    scene.mail += taken[:-1]
    hand_over(scene, taken[-1:])


@verb
def repeat(scene: Scene, words: list[str]) -> None:
    """``repeat 1>2 seal``: such mail arrives, and stays under way as well."""
    hand_over(scene, [each for each in scene.mail if chosen(words, *each)])


@verb
def drop(scene: Scene, words: list[str]) -> None:
    """``drop [1>2 [append]]``: mail is lost."""
    take(scene, words)


@verb
def settle(scene: Scene, words: list[str]) -> None:
    """``settle 1 2``: mail and flushes among these replicas go on until nothing is left to do.

    Only what is applied and noted is written down. Mail to and from others is lost.
    """
    scene.terse = True
    among = [int(word) for word in words]
    for _ in range(100):
        scene.collect()
        mail = [(o, s) for o, s in scene.mail if o in among and s.to in among]
        flushing = [each for each in among if scene.nodes[each].flights]
        scene.mail = []
        if not mail and not flushing:
            return
        hand_over(scene, mail)
        flush(scene, [str(each) for each in flushing])
    raise AssertionError("it never comes to rest")


@verb
def crash(scene: Scene, words: list[str]) -> None:
    """``crash 1``: what is not durable is gone; so are flushes under way."""
    node = scene.nodes[int(words[0])]
    node.replica = None
    node.flights = []


@verb
def restart(scene: Scene, words: list[str]) -> None:
    """``restart 1 [lost 2] [applied]``: from the disk, which may have lost its last entries.

    With ``applied`` the replica is told how far its state has come, and must hold that in its log.
    """
    node = scene.nodes[int(words[0])]
    applied = None
    if "applied" in words:
        applied = node.saved.entries[-1].position
    if "lost" in words:
        fewer = int(words[words.index("lost") + 1])
        kept = node.saved.entries[: len(node.saved.entries) - fewer]
        node.saved = Saved(node.saved.snapshot, node.saved.promise, kept, node.saved.lost)
    scene.start(node, applied)


@verb
def reopen(scene: Scene, words: list[str]) -> None:
    """``reopen 3``: a restart that keeps the state it has applied, and says where that stands."""
    node = scene.nodes[int(words[0])]
    replica, kept = scene.machine(node), node.applied
    scene.start(node, replica.state.log.position(replica.applied_lsn))
    node.applied = kept


@verb
def compact(scene: Scene, words: list[str]) -> None:
    """``compact 1``: a snapshot takes the place of the applied entries."""
    node = scene.nodes[int(words[0])]
    replica = scene.machine(node)
    replica.compact(replica.applied_lsn, node.applied.encode())


@verb
def trail(scene: Scene, words: list[str]) -> None:
    """``trail 1``: the entries that replica 1 keeps in memory although its snapshot covers them."""
    log = scene.machine(scene.nodes[int(words[0])]).state.log
    entries = log.after(log.start.lsn, log.base.lsn - log.start.lsn)
    content = " ".join(map(show_entry, entries)) or "nothing"
    scene.say(f"{show_position(log.start)} | {content} | {show_position(log.base)}")


@verb
def read(scene: Scene, words: list[str]) -> None:
    """``read 1``: what a strong read would answer there."""
    node = scene.nodes[int(words[0])]
    replica = scene.machine(node)
    if replica.serves(node.now):
        scene.say(f"{node.applied or 'nothing'} (lease until {show_time(replica.lease_end_ns)})")
    else:
        scene.say("refused")


@verb
def safe(scene: Scene, words: list[str]) -> None:
    """``safe 2 [pending 20]``: up to where replica 2 may answer reads on its own."""
    replica = scene.machine(scene.nodes[int(words[0])])
    pending = pack(instant(words[2]), 1) if len(words) > 1 else None
    scene.say(f"{show_stamp(replica.safe(pending))}, applied {replica.applied_lsn}")


@verb
def log(scene: Scene, words: list[str]) -> None:
    """``log 1``: role, promise and log."""
    replica = scene.machine(scene.nodes[int(words[0])])
    state = replica.state
    base = show_position(state.log.base)
    entries = state.log.after(state.log.base.lsn, 10**6)
    role = Role(replica.role).name.lower()
    content = " ".join(map(show_entry, entries)) or "nothing"
    scene.say(f"{role}, promise {replica.epoch}, commit {replica.commit_lsn}: {base} | {content}")
