"""The network: hosts, the links between them, and what a link does to what crosses it.

Owns addresses, delays and cuts. Streams of frames (`streams.py`) and datagrams are what crosses;
neither knows why it is late.

A *link* is one direction between two hosts. What arrives over it takes

    waiting for the link + size / bandwidth + base of the two regions + jitter (+ a rare tail)

and a link can be *cut* (nothing arrives, by any number of overlapping cuts), *clogged* until a
moment, *slowed*, or made *lossy*. On a lossy link a stream's frame comes late, by one
retransmission for each loss, while a datagram does not come at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from k2store.testing.simulation.domain import Domain
from k2store.testing.simulation.loop import Loop
from k2store.testing.simulation.probes import Probes
from k2store.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from k2store.testing.simulation.streams import Endpoint, Pipe
    from k2store.testing.simulation.transport import Acceptor

MICROSECOND_NS: Final = 1_000
MILLISECOND_NS: Final = 1_000_000
RETRANSMIT_NS: Final = 200 * MILLISECOND_NS
"""Time to the first retransmission of a lost segment, as in TCP; it doubles with each more."""


class Conditions(msgspec.Struct, frozen=True):
    """What holds for every link of a network, as drawn for one seed."""

    near_ns: int = 250 * MICROSECOND_NS
    """One-way latency inside a region."""
    far_ns: int = 40 * MILLISECOND_NS
    """One-way latency between regions that `between_ns` does not list."""
    between_ns: dict[str, int] = {}
    """One-way latency of pairs of regions, as "fra/iad" in alphabetical order."""
    jitter: float = 0.2
    """Largest ordinary delay beyond the base, as a share of the base."""
    tail: float = 0.001
    """Share of arrivals that are very late."""
    tail_ns: int = 300 * MILLISECOND_NS
    """How late those are at most."""
    bytes_per_s: int = 1_250_000_000
    """Bandwidth of a link."""
    stream_silence_ns: int = 15_000 * MILLISECOND_NS
    """A stream whose link stays cut for so long is reset at both ends (keep-alive)."""
    connect_ns: int = 20_000 * MILLISECOND_NS
    """How long a host asks for a connection before it gives up."""


class Link:
    """One direction between two hosts."""

    __slots__ = (
        "_jitter_ns",
        "_now",
        "_random",
        "_tail",
        "_tail_ns",
        "base_ns",
        "bytes_per_s",
        "clogged_until_ns",
        "cuts",
        "duplicate",
        "extra_ns",
        "free_ns",
        "loss",
        "reorder",
        "stalled",
        "took",
    )

    def __init__(self, base_ns: int, conditions: Conditions, rng: random.Random) -> None:
        self.base_ns = base_ns
        self.bytes_per_s = conditions.bytes_per_s
        self.extra_ns = 0
        self.cuts = 0
        self.clogged_until_ns = 0
        self.loss = 0.0
        self.duplicate = 0.0
        self.reorder = 0.0
        self.free_ns = 0
        self.took = 0
        """How many arrivals were stopped, lost or delayed by something beyond the conditions."""
        self.stalled: dict[Pipe, None] = {}
        """Streams that have something to deliver once the link is whole again."""
        self._random = rng.random
        self._jitter_ns = conditions.jitter * base_ns
        self._tail = conditions.tail
        self._tail_ns = conditions.tail_ns

    def arrival_ns(self, now_ns: int, size: int) -> int:
        """When something of this size that leaves now arrives, if nothing stops it."""
        start_ns = max(now_ns, self.free_ns)
        if self.clogged_until_ns > start_ns:
            start_ns = self.clogged_until_ns
            self.took += 1
        self.free_ns = start_ns + size * 1_000_000_000 // self.bytes_per_s
        chance = self._random()
        delay_ns = self.base_ns + self.extra_ns + int(chance * self._jitter_ns)
        if self.extra_ns:
            self.took += 1
        if chance < self._tail:
            delay_ns += int(self._random() * self._tail_ns)
        return self.free_ns + delay_ns

    def lost(self) -> bool:
        """Draw whether one transmission is lost."""
        if self.loss and self._random() < self.loss:
            self.took += 1
            return True
        return False

    def retransmissions_ns(self) -> int:
        """Delay that losses add to a frame of a stream."""
        delay_ns, wait_ns = 0, RETRANSMIT_NS
        while self.loss and self._random() < self.loss and delay_ns < 10 * RETRANSMIT_NS:
            self.took += 1
            delay_ns += wait_ns
            wait_ns *= 2
        return delay_ns

    def chance(self, probability: float) -> bool:
        """Draw a datagram's fate."""
        if probability and self._random() < probability:
            self.took += 1
            return True
        return False


class Host:
    """A machine with a name, in a region. It outlives the processes that run on it."""

    def __init__(self, name: str, region: str) -> None:
        self.name = name
        self.region = region
        self.domain: Domain | None = None
        """The process on it; None while none runs."""
        self.powered = True
        """False after a power cut: it answers nothing at all, not even with a refusal."""
        self.acceptors: dict[str, Acceptor] = {}
        """What listens, by address."""
        self.datagrams: Callable[[str, bytes], None] | None = None
        self.endpoints: dict[Endpoint, None] = {}
        """Streams that end here."""

    def __repr__(self) -> str:
        return f"<host {self.name}>"


Pair = tuple[str, str]
"""A directed pair of host names: from, to."""


class Network:
    """All hosts and links of a run."""

    def __init__(
        self,
        loop: Loop,
        rng: Callable[..., random.Random],
        trace: Trace,
        probes: Probes,
        conditions: Conditions | None = None,
    ) -> None:
        """`rng(*names)` gives a stream of chance; every link has its own."""
        self.loop = loop
        self.trace = trace
        self.probes = probes
        self.conditions = conditions or Conditions()
        self.hosts: dict[str, Host] = {}
        self.delivered = 0
        """Frames and datagrams that reached a process."""
        self.chance = rng("network").random
        """Draws what happens to frames under way when a stream ends."""
        self._rng = rng
        self._links: dict[Pair, Link] = {}

    def host(self, name: str, region: str = "local") -> Host:
        """Add a machine."""
        if name in self.hosts:
            raise ValueError(f"host {name} is there already")
        if ":" in name:
            raise ValueError("a host's name has no colon")
        self.hosts[name] = host = Host(name, region)
        return host

    def link(self, source: str, target: str) -> Link:
        """The direction from one host to another."""
        link = self._links.get((source, target))
        if link is None:
            link = Link(
                self._base_ns(self.hosts[source], self.hosts[target]),
                self.conditions,
                self._rng("link", source, target),
            )
            self._links[source, target] = link
        return link

    def send_datagram(self, source: str, address: str, payload: bytes) -> None:
        """Send something that may be lost, doubled or overtaken."""
        target = address.partition(":")[0]
        host = self.hosts.get(target)
        if host is None:
            return
        link = self.link(source, target)
        if link.lost():
            self.probes.hit("network.datagram_lost")
            return
        copies = 1
        if link.chance(link.duplicate):
            self.probes.hit("network.datagram_doubled")
            copies = 2
        for _ in range(copies):
            arrival_ns = link.arrival_ns(self.loop.now_ns, len(payload))
            if link.chance(link.reorder):
                self.probes.hit("network.datagram_overtaken")
                arrival_ns += link.base_ns * 2
            self.loop.schedule(
                arrival_ns,
                self.loop.world.context,
                self._deliver_datagram,
                link,
                source,
                host,
                payload,
            )

    def cut(self, pairs: Iterable[Pair]) -> None:
        """Let nothing arrive over these directions. Cuts add up: each is healed on its own."""
        for source, target in pairs:
            link = self.link(source, target)
            link.cuts += 1
            if link.cuts == 1:
                self._watch_silence(source, target)

    def heal(self, pairs: Iterable[Pair]) -> None:
        """Take back one `cut` of these directions. What waited arrives after a retransmission."""
        for source, target in pairs:
            link = self.link(source, target)
            assert link.cuts > 0, f"{source} to {target} is not cut"
            link.cuts -= 1
            if link.cuts == 0:
                for pipe in list(link.stalled):
                    pipe.revive()
                link.stalled.clear()

    def heal_everything(self) -> None:
        """Take back every cut, clog, slowdown and loss."""
        for (source, target), link in self._links.items():
            while link.cuts:
                self.heal([(source, target)])
            link.clogged_until_ns = 0
            link.extra_ns = 0
            link.loss = link.duplicate = link.reorder = 0.0
            link.bytes_per_s = self.conditions.bytes_per_s
            link.free_ns = min(link.free_ns, self.loop.now_ns)

    def took(self, pairs: Iterable[Pair]) -> int:
        """How many arrivals these directions have stopped, lost or delayed so far."""
        return sum(self.link(source, target).took for source, target in pairs)

    def reset(self, one: str, other: str) -> int:
        """Reset every stream between two hosts, as a middlebox might; gives how many."""
        ends = [end for end in self.hosts[one].endpoints if end.incoming.source.name == other]
        for end in ends:
            end.reset("connection reset")
        return len(ends)

    def _base_ns(self, source: Host, target: Host) -> int:
        if source is target:
            return 20 * MICROSECOND_NS
        if source.region == target.region:
            return self.conditions.near_ns
        pair = "/".join(sorted((source.region, target.region)))
        return self.conditions.between_ns.get(pair, self.conditions.far_ns)

    def _deliver_datagram(self, link: Link, source: str, host: Host, payload: bytes) -> None:
        if link.cuts:
            link.took += 1
            self.probes.hit("network.cut_stopped")
        elif host.domain is not None and host.datagrams is not None:
            self.delivered += 1
            self.trace.event("datagram", source, host.name, payload)
            context = host.domain.context
            self.loop.schedule(self.loop.now_ns, context, host.datagrams, source, payload)

    def _watch_silence(self, source: str, target: str) -> None:
        def ask() -> None:
            # The same cut or a later one that left no time to speak in between: both are silence
            # to a keep-alive, so it is enough that the link is cut when we ask.
            if self.link(source, target).cuts:
                for end in list(self.hosts[target].endpoints):
                    if end.incoming.source.name == source:
                        self.probes.hit("network.silence_reset")
                        end.reset("keep-alive timed out")

        due_ns = self.loop.now_ns + self.conditions.stream_silence_ns
        self.loop.schedule(due_ns, self.loop.world.context, ask)
