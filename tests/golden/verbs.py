"""What golden scripts can say: one small function for each verb.

Words in capitals stand for transactions: ``T1 read x`` is the step ``read`` of transaction T1.
Times are milliseconds since the beginning of the script; ``@T1`` is the stamp of T1.
"""

from __future__ import annotations

from collections.abc import Callable

from k2store.node.held import Held
from mvcc.conditions import Compare, Condition, Kind, Operand
from mvcc.messages import (
    NOBODY,
    CommitAlone,
    End,
    Failed,
    Forget,
    Heartbeat,
    OneShot,
    Read,
    Refused,
    Scan,
    Status,
    Write,
)
from mvcc.partition import Partition
from mvcc.refusals import Rule
from tests.golden import wording
from tests.golden.scene import BASE_NS, MS, NEVER_NS, Mail, Node, Scene, Txn, to_value
from truetime import Oracle
from truetime.timestamp import offset, pack

Verb = Callable[[Scene, list[str]], None]
Step = Callable[[Scene, str, Txn, list[str]], None]
VERBS: dict[str, Verb] = {}
STEPS: dict[str, Step] = {}


def run(scene: Scene, words: list[str]) -> list[str]:
    """Run one command; returns what it brought about."""
    scene.lines = []
    if words[0] in VERBS:
        VERBS[words[0]](scene, words[1:])
    else:
        name, step, *rest = words
        if step != "begin" and name not in scene.txns:
            _introduce(scene, name, 0)
        STEPS[step](scene, name, scene.txns.get(name) or _introduce(scene, name, 0), rest)
    scene.collect()
    return scene.lines


def verb(function: Verb) -> Verb:
    """Register a verb under the name of its function."""
    VERBS[function.__name__.strip("_")] = function
    return function


def step(function: Step) -> Step:
    """Register a step of a transaction under the name of its function."""
    STEPS[function.__name__.strip("_")] = function
    return function


# -- words -----------------------------------------------------------------------------------------


def option(words: list[str], name: str, default: str = "") -> str:
    """Take ``name VALUE`` out of the words."""
    if name not in words:
        return default
    at = words.index(name)
    value = words[at + 1]
    del words[at : at + 2]
    return value


def flag(words: list[str], name: str) -> bool:
    """Take a lone word out of the words."""
    if name in words:
        words.remove(name)
        return True
    return False


def nanoseconds(text: str) -> int:
    """``12.5ms`` or ``3s`` as a span."""
    unit = MS if text.endswith("ms") else 1000 * MS
    return int(float(text.removesuffix("ms").removesuffix("s")) * unit)


def stamp_of(scene: Scene, text: str) -> int:
    """``@T1``, or a time with its oracle (``12ms/2``), oracle 1 unless said."""
    text = text.removeprefix("@")
    if text in scene.txns:
        return scene.txns[text].stamp
    time, _, number = text.partition("/")
    return pack(BASE_NS + nanoseconds(time), int(number or 1))


def writes_of(words: list[str]) -> list[tuple[bytes, bytes | None]]:
    """``x=1 y=-``."""
    pairs = [word.split("=", 1) for word in words]
    return [(key.encode(), to_value(value)) for key, value in pairs]


def bounds_of(word: str) -> tuple[bytes, bytes]:
    """``a..m``, ``a..`` or ``..``."""
    start, end = word.split("..")
    return start.encode(), end.encode()


def condition_of(scene: Scene, word: str) -> Condition:
    """``absent:x present:x version:x:@T1 value:x:1 field:x:size:<:5 norow:a..m:until:>:time``."""
    kind, key, *rest = word.split(":")
    if kind == "version":
        return Condition(Kind.VERSION, key.encode(), version=stamp_of(scene, rest[0]))
    if kind == "value":
        return Condition(Kind.VALUE, key.encode(), value=rest[0].encode())
    if kind in ("absent", "present"):
        return Condition(Kind[kind.upper()], key.encode())
    name, sign, operand = rest
    compares = dict(zip(["=", "!=", "<", "<=", ">", ">="], list(Compare)[1:], strict=True))
    own = {"stamp": Operand.OWN_STAMP, "time": Operand.OWN_TIME}
    constant = int(operand) if operand.isdigit() else operand
    start, end = bounds_of(key) if kind == "norow" else (key.encode(), b"")
    return Condition(
        Kind.NO_ROW if kind == "norow" else Kind.FIELD,
        start,
        end=end,
        field=int(name) if name.isdigit() else name,
        compare=compares[sign],
        operand=own.get(operand, Operand.CONSTANT),
        constant=None if operand in own else constant,
    )


def conditions_of(scene: Scene, words: list[str]) -> list[Condition]:
    """Take every ``if CONDITION`` out of the words."""
    found = []
    while "if" in words:
        found.append(condition_of(scene, option(words, "if")))
    return found


def deadline_of(words: list[str]) -> int:
    """Take ``deadline TIME`` out of the words."""
    text = option(words, "deadline")
    return BASE_NS + nanoseconds(text) if text else NEVER_NS


def _introduce(scene: Scene, name: str, stamp: int) -> Txn:
    number = len(scene.txns) + 1
    txn = b"client-1" + number.to_bytes(6, "big") + (0).to_bytes(2, "big")
    scene.txns[name] = Txn(txn, stamp)
    scene.names.add_id(name, txn)
    if stamp:
        scene.names.add(name, txn, stamp)
    return scene.txns[name]


# -- the world -------------------------------------------------------------------------------------


@verb
def partition(scene: Scene, words: list[str]) -> None:
    """``partition p1 a..m``: a partition of the keys from a up to m."""
    start, end = bounds_of(words[1] if len(words) > 1 else "..")
    scene.add_partition(words[0], start, end)


@verb
def settings(scene: Scene, words: list[str]) -> None:
    """``settings retention_ns=5s range_marks_max=3``: for partitions made from now on."""
    for word in words:
        name, value = word.split("=")
        scene.settings[name] = int(value) if value.isdigit() else nanoseconds(value)


@verb
def at(scene: Scene, words: list[str]) -> None:
    """``at 10ms`` or ``at 10ms..12ms``: what the clock says from now on."""
    lo, _, hi = words[0].partition("..")
    lo_ns = BASE_NS + nanoseconds(lo)
    scene.set_clock(lo_ns, BASE_NS + nanoseconds(hi) if hi else lo_ns)


@verb
def oracle(scene: Scene, words: list[str]) -> None:
    """``oracle 2 stamp``, ``oracle 2 restart``: another source of stamps, or its new life."""
    number = int(words[0])
    here = scene.oracles.setdefault(number, Oracle(number, scene.oracle_settings))
    if words[1] == "restart":
        here = scene.oracles[number] = Oracle.restore(
            number, scene.oracle_settings, here.reserved_until_ns
        )
    elif words[1] == "reserve":
        here.reserve(BASE_NS + nanoseconds(words[2]))
    else:
        stamp = here.stamp(scene.now.lo_ns, scene.now.hi_ns)
        refusal = here.refusal(scene.now.lo_ns, scene.now.hi_ns)
        scene.say(scene.names.time(stamp) if stamp or refusal is None else refusal.reason)


@verb
def hold(scene: Scene, words: list[str]) -> None:
    """From now on the driver holds back what rule T3 forbids to tell yet."""
    scene.held = Held()


@verb
def durable(scene: Scene, words: list[str]) -> None:
    """``durable [p1]``: everything appended so far is on disk."""
    for node in [scene.nodes[word] for word in words] or list(scene.nodes.values()):
        if node.appended:
            node.durable += node.appended
            node.appended = []
            node.partition.durable(node.durable[-1].lsn, scene.now)
            scene.bring_forth(node)


@verb
def deliver(scene: Scene, words: list[str]) -> None:
    """``deliver [copy] [2]``: the mail, or one message of it, arrives; a copy may come again."""
    copy = flag(words, "copy")
    for mail in _chosen(scene, words):
        if not copy:
            scene.mail.remove(mail)
        node = scene.nodes[mail.to]
        if node.alive:
            node.partition.receive(mail.message, scene.now)


@verb
def drop(scene: Scene, words: list[str]) -> None:
    """``drop [2]``: the mail, or one message of it, is lost."""
    for mail in _chosen(scene, words):
        scene.mail.remove(mail)


def _chosen(scene: Scene, words: list[str]) -> list[Mail]:
    return [scene.mail[int(word) - 1] for word in words] or list(scene.mail)


@verb
def settle(scene: Scene, words: list[str]) -> None:
    """Until nothing is left to do: entries become durable and messages arrive."""
    while scene.mail or any(node.appended for node in scene.nodes.values()):
        durable(scene, [])
        scene.collect()
        deliver(scene, [])
        scene.collect()


@verb
def tick(scene: Scene, words: list[str]) -> None:
    """``tick [oldest @T1] [protected 3ms]``: one round of upkeep everywhere."""
    oldest = option(words, "oldest")
    protected = option(words, "protected")
    for node in scene.nodes.values():
        if node.alive:
            node.partition.tick(
                scene.now,
                stamp_of(scene, oldest) if oldest else 0,
                stamp_of(scene, protected) if protected else 0,
            )


@verb
def collect(scene: Scene, words: list[str]) -> None:
    """``collect [protected 3ms]``: begin a pass of garbage collection."""
    protected = option(words, "protected")
    for node in scene.nodes.values():
        node.partition.collect(stamp_of(scene, protected) if protected else 0)


@verb
def crash(scene: Scene, words: list[str]) -> None:
    """``crash p1``: what is not durable is lost."""
    for node in _nodes(scene, words):
        node.alive = False
        node.appended = []


@verb
def restart(scene: Scene, words: list[str]) -> None:
    """``restart p1``: from the checkpoint and the durable entries."""
    for node in _nodes(scene, words):
        scene.restart(node)


@verb
def checkpoint(scene: Scene, words: list[str]) -> None:
    """``checkpoint p1``: later restarts begin here."""
    for node in _nodes(scene, words):
        node.partition.state.settle()
        node.checkpoint = node.partition.checkpoint()


@verb
def stop(scene: Scene, words: list[str]) -> None:
    """``stop p1``: it may not serve any more."""
    for node in _nodes(scene, words):
        node.partition.stop(Rule.NOT_LEADER)


@verb
def split(scene: Scene, words: list[str]) -> None:
    """``split p1 at m as p2``: the keys from m on become p2 when that is durable."""
    scene.unborn.append(words[4])
    if not scene.nodes[words[0]].partition.split(words[2].encode(), len(scene.nodes)):
        scene.unborn.pop()
        scene.say("cannot be split")


@verb
def replica(scene: Scene, words: list[str]) -> None:
    """``replica r1 of p1``: follows the log of p1, with a store of its own."""
    scene.add_replica(words[0], scene.nodes[words[2]])


@verb
def replay(scene: Scene, words: list[str]) -> None:
    """``replay r1 [2]``: the replica applies the next (all) entries that are durable."""
    following = scene.replicas[words[0]]
    reached = following.partition.state.lsn
    left = [entry for entry in following.leader.durable if entry.lsn >= reached]
    for entry in left[: int(words[1]) if len(words) > 1 else None]:
        following.partition.replay(entry)


@verb
def show(scene: Scene, words: list[str]) -> None:
    """``show r1 [20ms]``: the closed timestamp that came along; up to where r1 may be read."""
    partition = scene.replicas[words[0]].partition
    closed = stamp_of(scene, words[1]) if len(words) > 1 else 0
    scene.say(f"shown up to {scene.names.time(partition.show(closed))}")


@verb
def ask(scene: Scene, words: list[str]) -> None:
    """``ask r1 x 15ms``, ``ask r1 a..m 15ms [txn T1]``: a read or a scan of a replica."""
    txn = option(words, "txn")
    reader = scene.txns[txn].txn if txn else NOBODY
    name, what, when = words
    partition, stamp = scene.replicas[name].partition, stamp_of(scene, when)
    request = scene.request(f"{name} {what} {when}", outside=True)
    if ".." in what:
        start, end = bounds_of(what)
        message: Scan | Read = Scan(request, start, end, stamp, reader, 100, False, NEVER_NS)
    else:
        message = Read(request, what.encode(), stamp, reader, NEVER_NS)
    partition.receive(message, scene.now)


@verb
def watch(scene: Scene, words: list[str]) -> None:
    """``watch p1``, ``watch r1``: it gathers what is committed."""
    _machine(scene, words[0]).watch(True)


@verb
def changes(scene: Scene, words: list[str]) -> None:
    """``changes r1``: what was committed since the last time."""
    found = sorted(_machine(scene, words[0]).take_changes())
    said = [
        f"{key.decode()}={wording.show(value)}{scene.names.stamp(s)}" for s, key, value in found
    ]
    scene.say(" ".join(said) or "nothing")


def _machine(scene: Scene, name: str) -> Partition:
    return scene.nodes[name].partition if name in scene.nodes else scene.replicas[name].partition


@verb
def takeover(scene: Scene, words: list[str]) -> None:
    """``takeover r1``: the replica begins to serve in place of the one it followed."""
    following = scene.replicas.pop(words[0])
    node = following.leader
    node.partition, node.alive, node.appended = following.partition, True, []
    node.partition.start(scene.now)


def _nodes(scene: Scene, words: list[str]) -> list[Node]:
    return [scene.nodes[word] for word in words] or list(scene.nodes.values())


@verb
def marks(scene: Scene, words: list[str]) -> None:
    """What may not be written, read or asked any more."""
    for node in _nodes(scene, words):
        state = node.partition.state
        safe, pinned_by = node.partition.safe()
        time = scene.names.time
        pinned = f" held by {scene.names.txn(pinned_by)}" if pinned_by else ""
        scene.say(
            f"{node.name}: closed {time(state.closed)} safe {time(safe)}{pinned}"
            f" low water {time(state.low_water)} horizon {time(state.horizon)}"
            f" edge {time(state.record_edge)}"
        )


@verb
def versions(scene: Scene, words: list[str]) -> None:
    """``versions x``: what stands under a key, newest first, intents in brackets."""
    for word in words:
        key = word.encode()
        state = scene.node_of(key).partition.state
        state.settle()
        chain = state.chains.get(key)
        intents = [(i.stamp, f"({wording.show(i.value)})") for i in (chain and chain.intents) or ()]
        found = [(s, wording.show(v)) for s, v in state.settled.versions(state.space, key)]
        stand = sorted([*intents, *found], reverse=True)
        scene.say(f"{word}: " + (" ".join(f"{v}{scene.names.stamp(s)}" for s, v in stand) or "-"))


@verb
def known(scene: Scene, words: list[str]) -> None:
    """Which transactions each partition remembers."""
    for node in _nodes(scene, words):
        names = [scene.names.txn(txn) for txn in node.partition.state.transactions]
        scene.say(f"{node.name}: {' '.join(names) or 'none'}")


@verb
def read(scene: Scene, words: list[str]) -> None:
    """``read x 10ms``: a snapshot read of nobody's."""
    stamp = stamp_of(scene, words[1])
    request = scene.request(f"read {words[0]}", outside=True)
    key = words[0].encode()
    scene.send(key, Read(request, key, stamp, NOBODY, NEVER_NS))


@verb
def scan(scene: Scene, words: list[str]) -> None:
    """``scan a..m 10ms [limit 2] [reverse]``: a snapshot scan of nobody's, in one partition."""
    _scan(scene, words[0], stamp_of(scene, words[1]), NOBODY, "scan", words[2:])


def _scan(scene: Scene, bounds: str, stamp: int, txn: bytes, label: str, words: list[str]) -> None:
    start, end = bounds_of(bounds)
    limit = int(option(words, "limit", "100"))
    request = scene.request(f"{label} {bounds}", outside=not txn)
    reverse = flag(words, "reverse")
    deadline_ns = deadline_of(words)
    scene.send(start, Scan(request, start, end, stamp, txn, limit, reverse, deadline_ns))


# -- steps of a transaction, sent straight to the partitions ---------------------------------------


@step
def begin(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 begin [12ms/2] [retry 1]``: with a fresh stamp, or with this one."""
    level = int(option(words, "retry", "0"))
    stamp = stamp_of(scene, words[0]) if words else scene.oracle.next_stamp()
    txn.stamp = offset(stamp, level)
    scene.names.add(name, txn.txn, txn.stamp)
    scene.say(f"{name} is at {scene.names.time(txn.stamp)}")


@step
def _read(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    deadline_ns = deadline_of(words)
    key = words[0].encode()
    request = scene.request(f"{name} read {words[0]}")
    scene.send(key, Read(request, key, txn.stamp, txn.txn, deadline_ns))


@step
def _scan_(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    _scan(scene, words[0], txn.stamp, txn.txn, f"{name} scan", words[1:])


@step
def write(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 write x=1 [seq 1] [anchor k] [if absent:x]``: an early write, one partition's."""
    conditions = conditions_of(scene, words)
    anchor = option(words, "anchor").encode()
    again = option(words, "seq")
    deadline_ns = deadline_of(words)
    pairs = writes_of(words)
    node = scene.node_of(pairs[0][0])
    sent = len(txn.sequences.get(node.name, []))
    txn.anchor = anchor or txn.anchor or pairs[0][0]
    numbered = []
    for key, value in pairs:
        txn.sequence += 0 if again else 1
        numbered.append((key, value, int(again) if again else txn.sequence))
    sequences = txn.sequences.setdefault(node.name, [])
    sequences += [number for _, _, number in numbered if number not in sequences]
    keys = [key for key, _ in pairs]
    first, last = txn.participants.get(node.name, (keys[0], keys[0]))
    txn.participants[node.name] = min(first, *keys), max(last, *keys)
    request = scene.request(f"{name} write {' '.join(words)}")
    scene.send(
        pairs[0][0],
        Write(request, txn.txn, txn.stamp, txn.anchor, numbered, conditions, deadline_ns),
    )
    if any(isinstance(answer, Refused | Failed) for answer in node.partition.state.answers):
        del sequences[sent:]  # a commit counts on what was accepted


@step
def commit(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 commit x=1``: everything it writes is in one partition."""
    pairs = writes_of(words)
    key = pairs[0][0] if pairs else txn.anchor
    sequences = txn.sequences.get(scene.node_of(key).name, [])
    request = scene.request(f"{name} commit")
    scene.send(key, CommitAlone(request, txn.txn, txn.stamp, pairs, list(sequences)))


@step
def end(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 end commit``, ``T1 end abort``: at the anchor, for all it has written to."""
    request = scene.request(f"{name} end")
    participants = list(txn.participants.values())
    commits = words[0] == "commit"
    scene.send(txn.anchor, End(request, txn.txn, txn.stamp, txn.anchor, commits, participants))


@step
def oneshot(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``S oneshot if absent:x read y x=1 [deadline 50ms] [floor @T1]``."""
    conditions = conditions_of(scene, words)
    deadline_ns = deadline_of(words)
    floor = option(words, "floor")
    reads = []
    while "read" in words:
        reads.append(option(words, "read").encode())
    pairs = writes_of(words)
    keys = [key for key, _ in pairs] + reads + [condition.key for condition in conditions]
    seen = stamp_of(scene, floor) if floor else 0
    request = scene.request(f"{name} oneshot")
    scene.send(keys[0], OneShot(request, txn.txn, seen, deadline_ns, conditions, reads, pairs))


@step
def status(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 status [decide] [at x]``: what became of it."""
    decide = flag(words, "decide")
    key = option(words, "at").encode() or txn.anchor
    request = scene.request(f"{name} status")
    scene.send(key, Status(request, txn.txn, txn.stamp, decide))


@step
def forget(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """The client has its answer."""
    for node in scene.nodes.values():
        node.partition.receive(Forget(txn.txn), scene.now)


@step
def heartbeat(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """A sign of life."""
    scene.send(txn.anchor, Heartbeat(txn.txn))


# -- the same through the coordinator --------------------------------------------------------------


@step
def client(scene: Scene, name: str, txn: Txn, words: list[str]) -> None:
    """``T1 client begin``, ``... write x=1``, ``... commit y=2``, ``... rollback``."""
    coordinator = scene.coordinator
    assert coordinator is not None
    what, *rest = words
    if what == "begin":
        begin(scene, name, txn, rest)
        coordinator.begin(txn.txn, txn.stamp, 1, scene.now)
        return
    transaction = coordinator.opened(txn.txn, 1)
    assert transaction is not None, name
    request = scene.request(f"{name} {what}")
    if what == "rollback":
        coordinator.rollback(transaction, request)
    elif what == "write":
        coordinator.write(transaction, request, writes_of(rest), NEVER_NS)
    else:
        coordinator.commit(transaction, request, writes_of(rest), NEVER_NS)


@verb
def coordinator(scene: Scene, words: list[str]) -> None:
    """``coordinator tick``, ``coordinator leave``: its upkeep; its client's session is over."""
    assert scene.coordinator is not None
    if words[0] == "tick":
        scene.coordinator.tick(scene.now)
    else:
        scene.coordinator.leave(1)
