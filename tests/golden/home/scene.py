"""The world of the scripts about home leases: machines, disks, mail and clocks stand still.

Nothing happens unless a command says so. Times are milliseconds since the beginning of the script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replication.home import HomeLease, HomePersist, HomeSettings
from replication.home_messages import HomeMessage, HomeRenewed, HomeSend, HomeStopped
from truetime import Interval

BASE_NS = 10**18
MS = 1_000_000


@dataclass
class Node:
    """One replica with its disk."""

    identity: int
    saved: int
    now: Interval
    lease: HomeLease | None = None
    flights: list[HomePersist] = field(default_factory=list)


class Scene:
    """Everything a script can touch."""

    def __init__(self) -> None:
        self.settings = HomeSettings()
        self.voices: tuple[int, ...] = ()
        self.nodes: dict[int, Node] = {}
        self.mail: list[tuple[int, HomeSend]] = []
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Write a line below the present command."""
        self.lines.append(line)

    def lease(self, word: str) -> HomeLease:
        """The running machine of a node."""
        lease = self.nodes[int(word)].lease
        assert lease is not None, word
        return lease

    def start(self, node: Node) -> None:
        """A machine begins from its disk."""
        node.lease = HomeLease(node.identity, self.voices, node.saved, self.settings, node.now)
        node.flights = []

    def collect(self) -> None:
        """Write down what every machine has ready."""
        for node in self.nodes.values():
            if node.lease is None:
                continue
            ready, name = node.lease.ready(), node.identity
            if ready.persist is not None:
                node.flights.append(ready.persist)
                self.say(f"{name} saves {ready.persist.incarnation}")
            for send in ready.sends:
                self.mail.append((name, send))
                self.say(f"{name} → {send.to}: {show_message(send.message)}")
            for note in ready.notes:
                self.say(f"{name} says {note.kind.name} {note.incarnation}")


def show_time(at_ns: int) -> str:
    """A time as milliseconds."""
    return f"{round((at_ns - BASE_NS) / 1e6, 3):g}ms" if at_ns else "never"


def show_message(message: HomeMessage) -> str:
    """A message, without its sender."""
    name = type(message).__name__.removeprefix("Home").lower()
    end = ""
    if isinstance(message, HomeRenewed | HomeStopped):
        end = f" until {show_time(message.end_ns)}"
    return f"{name}@{message.incarnation}{end}"


def instant(text: str) -> int:
    """A time from milliseconds."""
    return BASE_NS + round(float(text) * MS)


Verb = Callable[[Scene, list[str]], None]
VERBS: dict[str, Verb] = {}


def run(scene: Scene, words: list[str]) -> list[str]:
    """Run one command; returns what it brought about."""
    scene.lines = []
    VERBS[words[0]](scene, words[1:])
    scene.collect()
    return scene.lines


def verb(function: Verb) -> Verb:
    """Register a command under the name of its function."""
    VERBS[function.__name__] = function
    return function


@verb
def settings(scene: Scene, words: list[str]) -> None:
    """``settings lease 5000 longest 6000``: from now on; for machines that start afterwards."""
    given = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    scene.settings = HomeSettings(
        lease_ns=given.get("lease", 5000) * MS, lease_longest_ns=given.get("longest", 6000) * MS
    )


@verb
def voices(scene: Scene, words: list[str]) -> None:
    """``voices 1 2 3``: one voice for each region, from empty disks."""
    scene.voices = tuple(map(int, words))
    for identity in scene.voices:
        now = Interval(BASE_NS, BASE_NS)
        node = scene.nodes[identity] = Node(identity, 0, now)
        scene.start(node)


@verb
def other(scene: Scene, words: list[str]) -> None:
    """``other 4``: a replica that is nobody's voice."""
    node = Node(int(words[0]), 0, Interval(BASE_NS, BASE_NS))
    scene.nodes[node.identity] = node
    scene.start(node)


@verb
def at(scene: Scene, words: list[str]) -> None:
    """``at 10 12 [2]``: the clock shows [10, 12], everywhere or at 2; timers run there."""
    lo_ns = instant(words[0])
    now = Interval(lo_ns, instant(words[1]) if len(words) > 1 else lo_ns)
    for node in scene.nodes.values():
        if len(words) < 3 or node.identity == int(words[2]):
            node.now = now
            if node.lease is not None:
                node.lease.tick(now)


@verb
def clock(scene: Scene, words: list[str]) -> None:
    """``clock 10 12 2``: 2's clock shows [10, 12], and its timer has not run yet."""
    scene.nodes[int(words[2])].now = Interval(instant(words[0]), instant(words[1]))


@verb
def hold(scene: Scene, words: list[str]) -> None:
    """``hold 1 5``: replica 1 leads at home, which is incarnation 5."""
    if not scene.lease(words[0]).hold(int(words[1]), scene.nodes[int(words[0])].now):
        scene.say("refused")


@verb
def release(scene: Scene, words: list[str]) -> None:
    """``release 1``: replica 1 leads no more."""
    scene.lease(words[0]).let_go(scene.nodes[int(words[0])].now)


@verb
def promote(scene: Scene, words: list[str]) -> None:
    """``promote 2 6``: replica 2 was granted incarnation 6."""
    if not scene.lease(words[0]).promote(int(words[1]), scene.nodes[int(words[0])].now):
        scene.say("refused")


@verb
def read(scene: Scene, words: list[str]) -> None:
    """``read 1``: whether replica 1 may serve and acknowledge."""
    lease = scene.lease(words[0])
    holds = "holds" if lease.holds(scene.nodes[int(words[0])].now) else "refused"
    scene.say(f"{holds}, lease until {show_time(lease.lease_end_ns)}")


@verb
def flush(scene: Scene, words: list[str]) -> None:
    """``flush 1 2``: what these gave to their disks becomes durable."""
    for word in words:
        node = scene.nodes[int(word)]
        flights, node.flights = node.flights, []
        for persist in flights:
            node.saved = persist.incarnation
            scene.lease(word).persisted(persist.token, node.now)


def take(scene: Scene, words: list[str]) -> list[tuple[int, HomeSend]]:
    """Take mail meant by ``1>2``, ``*`` standing for anybody, out of the post."""
    left, _, right = (words[0] if words else "*>*").partition(">")
    taken = [
        (origin, send)
        for origin, send in scene.mail
        if left in ("*", str(origin)) and right in ("*", str(send.to))
    ]
    scene.mail = [each for each in scene.mail if each not in taken]
    return taken


@verb
def deliver(scene: Scene, words: list[str]) -> None:
    """``deliver [1>2]``: mail arrives; ``*`` stands for anybody."""
    for _, send in take(scene, words):
        node = scene.nodes[send.to]
        if node.lease is not None:
            node.lease.receive(send.message, node.now)
            scene.collect()


@verb
def drop(scene: Scene, words: list[str]) -> None:
    """``drop [1>2]``: mail is lost."""
    take(scene, words)


@verb
def crash(scene: Scene, words: list[str]) -> None:
    """``crash 1``: what is not durable is gone."""
    node = scene.nodes[int(words[0])]
    node.lease = None
    node.flights = []


@verb
def restart(scene: Scene, words: list[str]) -> None:
    """``restart 1``: from the disk."""
    scene.start(scene.nodes[int(words[0])])
