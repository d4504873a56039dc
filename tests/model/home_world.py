"""A small world for the home lease of one partition: regions, clocks, disks, cuts and promotions.

Only the world knows the true time. Each region is one machine with a voice; its own quorum is taken
as reliable. The one rule that all others serve is checked as it happens: once somebody has been
promoted to an incarnation, no lower one serves or acknowledges ever again. When faults have ended,
some home must serve.

Times are 125 times shorter than in life: a lease lasts some 40 ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from replication.home import HomeLease, HomeNoteKind, HomePersist, HomeSettings
from replication.home_messages import HomeMessage
from truetime import Interval

MS = 1_000_000
START_NS = 10**18
FAULTS_NS = 900 * MS
QUIET_NS = 600 * MS
LATE_NS = 200 * MS
LEASE_LONGEST_NS = 48 * MS


class Broken(AssertionError):
    """A rule of home leases does not hold."""


@dataclass
class Region:
    """One region: its clock, its voice's disk, and the home it believes to be."""

    identity: int
    half_ns: int
    jumpy: bool
    lease: HomeLease
    saved: int = 0
    home: int = 0
    offset_ns: int = 0
    alive: bool = True
    life: int = 0
    paused_until_ns: int = 0
    flights: list[HomePersist] = field(default_factory=list)


class HomeWorld:
    """Three or five regions and everything that happens to them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.ambush = seed % 2 == 1
        self.now_ns = START_NS
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.sequence = 0
        self.count: Counter[str] = Counter()
        self.promoted = 1
        self.granted = 1
        self.granted_ns = 0
        self.last_served_ns = 0
        self.cut: set[tuple[int, int]] = set()
        self.noise = 1.0
        self.quiet = False
        self.voices = tuple(range(1, self.random.choice((3, 3, 5)) + 1))
        self.regions: dict[int, Region] = {}
        for identity in self.voices:
            half_ns, jumpy = self.draw(0, 8 * MS), self.random.random() < 0.4
            region = Region(identity, half_ns, jumpy, None)  # type: ignore[arg-type]
            self.regions[identity] = region
            self.begin(region)
            self.at(self.draw(0, 4 * MS), self.work, region)
        self.regions[1].home = 1
        self.regions[1].lease.hold(1, self.clock(self.regions[1]))

    def draw(self, least: int, most: int) -> int:
        """A number from ``least`` to ``most``."""
        return least + int(self.random.random() * (most - least + 1))

    def at(self, delay_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Let something happen later."""
        self.sequence += 1
        heappush(self.events, (self.now_ns + delay_ns, self.sequence, action, arguments))

    def clock(self, region: Region) -> Interval:
        """An interval around the truth, anywhere it may lie."""
        half_ns = region.half_ns
        if region.jumpy:
            region.offset_ns = self.draw(-half_ns, half_ns)
        else:
            step_ns = half_ns // 50 + 1
            offset_ns = region.offset_ns + self.draw(-step_ns, step_ns)
            region.offset_ns = max(-half_ns, min(half_ns, offset_ns))
        middle_ns = self.now_ns + region.offset_ns
        return Interval(middle_ns - half_ns, middle_ns + half_ns)

    def run(self) -> None:
        """Faults, then quiet."""
        end_ns = START_NS + FAULTS_NS + QUIET_NS
        self.at(self.draw(0, 60 * MS), self.fault)
        self.at(FAULTS_NS, self.heal)
        while self.events and self.events[0][0] <= end_ns:
            self.now_ns, _, action, arguments = heappop(self.events)
            action(*arguments)
        late = self.last_served_ns > end_ns - LATE_NS
        self.require(late, "stall: nobody serves late in the quiet part")

    def require(self, holds: bool, what: str) -> None:
        """A rule."""
        if not holds:
            raise Broken(f"at {(self.now_ns - START_NS) / 1e6:.3f} ms: {what}")

    # -- one region --------------------------------------------------------------------------------

    def begin(self, region: Region) -> None:
        """A life begins with what the disk holds."""
        settings = HomeSettings(
            lease_ns=self.draw(36, 48) * MS,
            lease_longest_ns=LEASE_LONGEST_NS,
            renew_ns=10 * MS,
            resend_ns=8 * MS,
            patience_ns=self.draw(60, 140) * MS,
        )
        now = self.clock(region)
        region.lease = HomeLease(region.identity, self.voices, region.saved, settings, now)
        self.at(self.draw(0, 4 * MS), self.tick, region, region.life)

    def running(self, region: Region, action: Callable[..., None], *arguments: Any) -> bool:
        """Whether a region can act now; what meets a paused one happens when it wakes."""
        if region.alive and region.paused_until_ns > self.now_ns:
            self.at(region.paused_until_ns - self.now_ns, action, *arguments)
            return False
        return region.alive

    def tick(self, region: Region, life: int) -> None:
        """A timer."""
        if life == region.life and self.running(region, self.tick, region, life):
            region.lease.tick(self.clock(region))
            self.drain(region)
            self.at(self.draw(2 * MS, 5 * MS), self.tick, region, life)

    def drain(self, region: Region) -> None:
        """Take what a machine has ready."""
        ready = region.lease.ready()
        if ready.persist is not None:
            region.flights.append(ready.persist)
            if len(region.flights) == 1:
                self.at(self.draw(50_000, 6 * MS), self.flushed, region, region.life)
        for send in ready.sends:
            self.post(region.identity, send.to, send.message)
        for note in ready.notes:
            self.count[note.kind.name.lower()] += 1
            if note.kind is HomeNoteKind.PROMOTION_WANTED:
                delay_ns = self.draw(MS, 4 * MS)
                self.at(delay_ns, self.grant, region, region.life, note.incarnation)
            elif note.kind is HomeNoteKind.PROMOTED:
                self.promoted = max(self.promoted, note.incarnation)
                region.home = note.incarnation
                now = self.clock(region)
                region.lease.let_go(now)
                region.lease.hold(note.incarnation, now)
                self.drain(region)

    def flushed(self, region: Region, life: int) -> None:
        """The oldest flush of a disk has ended."""
        if life != region.life or not self.running(region, self.flushed, region, life):
            return
        persist = region.flights.pop(0)
        region.saved = persist.incarnation
        if region.flights:
            self.at(self.draw(50_000, 6 * MS), self.flushed, region, life)
        region.lease.persisted(persist.token, self.clock(region))
        self.drain(region)

    def work(self, region: Region) -> None:
        """A read or an acknowledgement is tried wherever a home believes it leads."""
        self.at(self.draw(MS, 4 * MS), self.work, region)
        if not region.alive or region.paused_until_ns > self.now_ns:
            return
        if region.lease.holds(self.clock(region)):
            self.require(region.home >= self.promoted, f"{region.home} after {self.promoted}")
            self.count["served"] += 1
            self.last_served_ns = self.now_ns

    def grant(self, region: Region, life: int, above: int) -> None:
        """The control plane gives an incarnation to one life, or refuses."""
        fresh = self.now_ns - self.granted_ns < 90 * MS
        if life == region.life and region.alive and not fresh:
            self.promote(region, life, above)

    def promote(self, region: Region, life: int, above: int) -> None:
        """A promotion begins."""
        self.granted = max(self.granted, above) + 1
        self.granted_ns = self.now_ns
        self.begin_promotion(region, life, self.granted)

    def begin_promotion(self, region: Region, life: int, incarnation: int) -> None:
        """The grant reaches the life it was given to."""
        if life != region.life:
            return
        if self.running(region, self.begin_promotion, region, life, incarnation):
            region.lease.promote(incarnation, self.clock(region))
            self.count["promotions"] += 1
            self.drain(region)

    # -- the network -------------------------------------------------------------------------------

    def post(self, origin: int, to: int, message: HomeMessage) -> None:
        """Send a message: it may be lost, late, overtaken or doubled."""
        for _ in range(2 if self.random.random() < 0.05 * self.noise else 1):
            if self.random.random() < 0.03 * self.noise:
                continue
            delay_ns = self.draw(100_000, 3 * MS)
            if self.random.random() < 0.05 * self.noise:
                delay_ns = self.draw(MS, 90 * MS)
            self.at(delay_ns, self.deliver, origin, to, message)

    def deliver(self, origin: int, to: int, message: HomeMessage) -> None:
        """A message arrives."""
        region = self.regions[to]
        if (origin, to) in self.cut:
            return
        if self.running(region, self.deliver, origin, to, message):
            region.lease.receive(message, self.clock(region))
            self.drain(region)

    # -- faults ------------------------------------------------------------------------------------

    def fault(self) -> None:
        """Something goes wrong, and later something else."""
        if self.quiet:
            return
        self.at(self.draw(5 * MS, 50 * MS), self.fault)
        region = self.regions[self.random.choice(self.voices)]
        holders = [e for e in self.regions.values() if e.lease.holds(self.clock(e))]
        if holders and self.random.random() < 0.4:
            region = self.random.choice(holders)
        kinds = [self.crash, self.pause, self.cut_off, self.force]
        if self.ambush and holders:
            kinds = [self.spring]
            region = holders[0]
        self.random.choice(kinds)(region)

    def crash(self, region: Region) -> None:
        """A machine dies in the middle of its flushes, and comes back."""
        if not region.alive:
            return
        self.count["crashes"] += 1
        region.alive = False
        region.life += 1
        for persist in region.flights[: self.draw(0, len(region.flights))]:
            region.saved = persist.incarnation
        region.flights = []
        quick = self.ambush or self.random.random() < 0.5
        self.at(self.draw(MS, (6 if quick else 120) * MS), self.restart, region)

    def restart(self, region: Region) -> None:
        """A machine comes back; where it was home, it believes that it still is."""
        if region.alive:
            return
        region.alive = True
        region.paused_until_ns = 0
        self.begin(region)
        if region.home:
            region.lease.hold(region.home, self.clock(region))
        self.drain(region)

    def pause(self, region: Region) -> None:
        """A process stands still, and does not know it."""
        region.paused_until_ns = self.now_ns + self.draw(5 * MS, 150 * MS)

    def cut_off(self, region: Region) -> None:
        """Nobody hears a region, and it hears nobody; or only one of both."""
        others = [each for each in self.voices if each != region.identity]
        away = {(region.identity, each) for each in others}
        back = {(each, region.identity) for each in others}
        pairs = self.random.choice((away, back, away | back, away | back))
        self.cut |= pairs
        self.count["cuts"] += 1
        self.at(self.draw(40 * MS, 200 * MS), self.mend, pairs)

    def mend(self, pairs: set[tuple[int, int]]) -> None:
        """These directions work again."""
        self.cut -= pairs

    def force(self, region: Region) -> None:
        """An operator wants another home, whether or not there is a reason."""
        self.promote(region, region.life, 0)

    def spring(self, region: Region) -> None:
        """Cut a serving home off, restart the other voices, and promote one of them at once."""
        if self.cut:
            return
        self.count["ambushes"] += 1
        self.cut_off(region)
        others = [each for each in self.regions.values() if each is not region]
        for each in others:
            if self.random.random() < 0.5:
                self.at(self.draw(0, 6 * MS), self.crash, each)
        self.at(self.draw(0, 15 * MS), self.force, self.random.choice(others))

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.quiet = True
        self.cut.clear()
        self.noise = 0.2
        for region in self.regions.values():
            region.paused_until_ns = min(region.paused_until_ns, self.now_ns)
            self.restart(region)
