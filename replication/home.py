"""Home leases: a home that is merely cut off stops before another region takes its place.

A keyspace that survives zones has its voters in one region, the home. When that region is lost,
another may be promoted. If nobody can say that the home is really off, the two must not serve at
the same time, and no seal fences the old home: its quorum is all inside. So its leaders serve, and
acknowledge, only while a majority of *regions* has promised not to join a promotion::

    home, incarnation 1          voice of region B        voice of region C
      |-- renew ------------------->|------------------------>|
      |<---------- renewed, until --|-------------------------|    holds while now.hi < the end that
      |                             |                         |    a majority has promised
      x  cut off                    |  wants a promotion      |
         serves until its end       |  incarnation 2          |
         |                          |-- stop ---------------->|
         |                          |<------- stopped, until -|    durable first; never again to 1
         x  stops                   |                         |
                                    |  promoted when now.lo is past the ends of a majority

One replica in each region is its *voice* about a partition: a promise belongs to whoever keeps it
on a disk, and no single node speaks for all partitions of a region. The rules are those of voters'
leases (:mod:`replication.voter`), for the same reasons:

- a voice counts the end itself, from the earliest that its own clock says now may be;
- that it is bound to an incarnation is durable before anybody hears of it, and a promise to a lower
  one is never given again;
- it reports the largest end it ever promised, to whichever incarnation. Ends are not on the disk: a
  restarted voice reports the latest it can have promised, counted once.

Any two majorities of voices share one. If it was asked to stop first, it promised the old home
nothing more; if later, it reported its promise and the candidate waited. The home's own region has
a voice like every other, which a leader at home must ask like every other. So it may count in a
promotion as well: its answer binds it, as home and as candidate.

What follows a promotion, choosing the cut and raising low water, is not this machine's, and neither
is granting incarnations: each to one life of one replica, ever, rising along the partition. The
voices of a partition are fixed; changing them would need steps as for voters.
"""

from __future__ import annotations

import enum

from msgspec import Struct, field

from replication.home_messages import (
    HomeFenced,
    HomeMessage,
    HomeRenew,
    HomeRenewed,
    HomeSend,
    HomeStop,
    HomeStopped,
)
from replication.quorum import majority, reached
from truetime.interval import Interval

_MS = 1_000_000


class HomeSettings(Struct, frozen=True):
    """Lengths, all in nanoseconds.

    ``lease_longest_ns`` must not be below any ``lease_ns`` ever in force for the partition.
    ``patience_ns``: after so long without a sign of the home a voice wants a promotion.
    """

    lease_ns: int = 5_000 * _MS
    lease_longest_ns: int = 6_000 * _MS
    renew_ns: int = 1_500 * _MS
    resend_ns: int = 500 * _MS
    patience_ns: int = 8_000 * _MS

    @property
    def dead_after_ns(self) -> int:
        """After this a promotion that has not come about is given up, for liveness only."""
        return 5 * self.lease_longest_ns


class HomeNoteKind(enum.IntEnum):
    """What the driver should know."""

    PROMOTION_WANTED = 1
    """No home is heard; ask the control plane for an incarnation above this one, then promote."""
    PROMOTED = 2
    """The home of every lower incarnation serves no more; this one may go on."""
    GAVE_UP = 3
    """The promotion to this incarnation has ended without success."""
    FENCED = 4
    """A later incarnation has been heard of; the present home will lose its lease."""


class HomeNote(Struct, frozen=True, gc=False):
    """One thing that happened."""

    kind: HomeNoteKind
    incarnation: int


class HomePersist(Struct, frozen=True, gc=False):
    """``incarnation`` must be durable before what follows; report it with ``token``."""

    token: int
    incarnation: int


class HomeReady(Struct, gc=False):
    """What a machine has for its driver; ``sends`` may leave at once."""

    persist: HomePersist | None
    sends: list[HomeSend]
    notes: list[HomeNote]


class _Hold(Struct):
    """A leader at home: the ends that voices have promised to its incarnation."""

    incarnation: int
    asked_ns: int
    ends_ns: dict[int, int] = field(default_factory=dict)
    fenced: bool = False


class _Promotion(Struct):
    """A candidate: the ends that voices have reported."""

    incarnation: int
    started_ns: int
    asked_ns: int
    ends_ns: dict[int, int] = field(default_factory=dict)
    promoted: bool = False


class HomeLease:
    """One replica's part in the home lease of one partition: voice, leader at home, candidate.

    ``voices``: one replica of each region. ``incarnation``: what is on this replica's disk, 0 for a
    new one. A replica that has lost it must not be a voice any more.
    """

    def __init__(
        self,
        identity: int,
        voices: tuple[int, ...],
        incarnation: int,
        settings: HomeSettings,
        now: Interval,
    ) -> None:
        assert settings.lease_ns <= settings.lease_longest_ns, settings
        assert len(set(voices)) == len(voices) > 0, voices
        self.identity = identity
        self.voices = voices
        self.settings = settings
        self.now = now
        self.incarnation = incarnation
        """What this replica is bound to."""
        self._taken = incarnation
        self._durable = incarnation
        self._flights: list[HomePersist] = []
        self._token = 0
        # What an earlier life may have promised is bounded here, once: computed anew at each stop,
        # the bound would move and no candidate would see it pass.
        self._end_ns = now.hi_ns + settings.lease_longest_ns if incarnation else 0
        self._waiting: dict[int, HomeRenew | HomeStop] = {}  # until the promise is durable
        self._heard_ns = now.lo_ns
        self._hold: _Hold | None = None
        self._promotion: _Promotion | None = None
        self._sends: list[HomeSend] = []
        self._notes: list[HomeNote] = []

    # -- the machine -------------------------------------------------------------------------------

    def receive(self, message: HomeMessage, now: Interval) -> None:
        """Take one message about this partition's home."""
        self.now = now
        match message:
            case HomeRenew() | HomeStop():
                self._asked(message)
            case HomeRenewed():
                self._renewed(message)
            case HomeStopped():
                self._stopped(message)
            case HomeFenced():
                self._hear_of(message.incarnation)

    def tick(self, now: Interval) -> None:
        """Let time pass; every 100 ms is enough."""
        self.now = now
        settings = self.settings
        hold, promotion = self._hold, self._promotion
        if hold is not None:
            due_ns = settings.renew_ns if self.holds(now) else settings.resend_ns
            if now.lo_ns - hold.asked_ns >= due_ns:
                self._ask(hold)
        if promotion is not None and not promotion.promoted:
            if now.lo_ns - promotion.started_ns > settings.dead_after_ns:
                self._give_up()
            elif now.lo_ns - promotion.asked_ns >= settings.resend_ns:
                self._ask(promotion)
        self._proceed()
        if self._promotion is None and not self.holds(now):
            self._listen()

    def ready(self) -> HomeReady:
        """Take what has gathered."""
        persist = None
        if self.incarnation > self._taken:
            self._token += 1
            persist = HomePersist(self._token, self.incarnation)
            self._taken = self.incarnation
            self._flights.append(persist)
        result = HomeReady(persist, self._sends, self._notes)
        self._sends = []
        self._notes = []
        return result

    def persisted(self, token: int, now: Interval) -> None:
        """Everything up to the persist with this token is durable."""
        self.now = now
        while self._flights and self._flights[0].token <= token:
            self._durable = self._flights.pop(0).incarnation
        if self._durable == self.incarnation:
            waiting, self._waiting = self._waiting, {}
            for message in waiting.values():
                self._answer(message)

    # -- the node above ----------------------------------------------------------------------------

    def hold(self, incarnation: int, now: Interval) -> bool:
        """This replica leads the partition in its home, which is ``incarnation``.

        False if a later one is known here, or this one is still to be promoted to.
        """
        self.now = now
        own = self._promotion
        if own is not None and own.incarnation == incarnation and not own.promoted:
            return False
        if incarnation < self.incarnation:
            return False
        self._hold = _Hold(incarnation, now.lo_ns)
        self._ask(self._hold)
        return True

    def let_go(self, now: Interval) -> None:
        """This replica leads no more, or wants no promotion any more."""
        self.now = now
        self._hold = None
        self._promotion = None
        self._heard_ns = now.lo_ns

    def holds(self, now: Interval) -> bool:
        """Whether a leader at home may serve a read or acknowledge a write at this moment.

        To be asked in the turn that answers, as :meth:`replication.replica.Replica.serves` is.
        """
        return now.hi_ns < self.lease_end_ns

    @property
    def lease_end_ns(self) -> int:
        """When the lease ends that a majority of regions has promised; 0 without."""
        return 0 if self._hold is None else reached(self.voices, self._hold.ends_ns)

    def promote(self, incarnation: int, now: Interval) -> bool:
        """Try to become the home as an incarnation granted to this life; False if it is used."""
        assert self.identity in self.voices, (self.identity, self.voices)
        self.now = now
        if incarnation <= self.incarnation:
            return False
        self._promotion = _Promotion(incarnation, now.lo_ns, now.lo_ns)
        self._ask(self._promotion)
        return True

    @property
    def promoted(self) -> int:
        """The incarnation this replica has been promoted to; 0 if it has not."""
        own = self._promotion
        return own.incarnation if own is not None and own.promoted else 0

    # -- asking ------------------------------------------------------------------------------------

    def _ask(self, asker: _Hold | _Promotion) -> None:
        asker.asked_ns = self.now.lo_ns
        for voice in self.voices:
            if isinstance(asker, _Hold):
                self._send(voice, HomeRenew(asker.incarnation, self.identity))
            elif voice not in asker.ends_ns:
                self._send(voice, HomeStop(asker.incarnation, self.identity))

    def _renewed(self, message: HomeRenewed) -> None:
        own = self._hold
        if own is not None and message.incarnation == own.incarnation:
            end_ns = own.ends_ns.get(message.sender, 0)
            own.ends_ns[message.sender] = max(end_ns, message.end_ns)

    def _stopped(self, message: HomeStopped) -> None:
        own = self._promotion
        if own is not None and message.incarnation == own.incarnation:
            own.ends_ns.setdefault(message.sender, message.end_ns)
            self._proceed()

    def _proceed(self) -> None:
        """Be promoted when the ends of some majority have passed; who answers late delays nobody.

        An end that has passed stays so, and who has stopped promises nothing more.
        """
        own = self._promotion
        if own is None or own.promoted:
            return
        ends_ns = sorted(own.ends_ns[voice] for voice in self.voices if voice in own.ends_ns)
        needed = majority(len(self.voices))
        if len(ends_ns) >= needed and self.now.lo_ns > ends_ns[needed - 1]:
            own.promoted = True
            self._note(HomeNoteKind.PROMOTED, own.incarnation)

    def _hear_of(self, incarnation: int) -> None:
        """A later incarnation exists: a promotion to a lower one cannot be completed with it.

        A leader at home may go on until its lease ends; the promises stand.
        """
        if self._promotion is not None and self._promotion.incarnation < incarnation:
            self._give_up()
        own = self._hold
        if own is not None and own.incarnation < incarnation and not own.fenced:
            own.fenced = True
            self._note(HomeNoteKind.FENCED, incarnation)

    def _give_up(self) -> None:
        assert self._promotion is not None
        self._note(HomeNoteKind.GAVE_UP, self._promotion.incarnation)
        self._promotion = None
        self._heard_ns = self.now.lo_ns

    def _listen(self) -> None:
        """Want a promotion when the home this voice is bound to has been silent for too long.

        A leader at home hears itself here, unless its own voice is bound to a later incarnation: if
        that came to nothing, somebody has to go on to the next.
        """
        silent_ns = self.now.lo_ns - self._heard_ns
        if self.identity in self.voices and silent_ns > self.settings.patience_ns:
            self._heard_ns = self.now.lo_ns
            self._note(HomeNoteKind.PROMOTION_WANTED, self.incarnation)

    # -- the voice ---------------------------------------------------------------------------------

    def _asked(self, message: HomeRenew | HomeStop) -> None:
        """Bind this voice to the asker's incarnation, and answer when that is durable."""
        if self.identity not in self.voices:
            return
        if message.incarnation < self.incarnation:
            self._send(message.sender, HomeFenced(self.incarnation, self.identity))
            return
        self._heard_ns = self.now.lo_ns
        if message.incarnation > self.incarnation:
            self.incarnation = message.incarnation
            self._waiting.clear()
            self._hear_of(message.incarnation)
        if self._durable == self.incarnation:
            self._answer(message)
        else:
            self._waiting[message.sender] = message

    def _answer(self, message: HomeRenew | HomeStop) -> None:
        assert self._durable == self.incarnation == message.incarnation, message
        if isinstance(message, HomeStop):
            answer = HomeStopped(message.incarnation, self.identity, self._end_ns)
            self._send(message.sender, answer)
            return
        # From the earliest that now may be, never from hi: a restarted voice's hi may be less.
        end_ns = self.now.lo_ns + self.settings.lease_ns
        self._end_ns = max(self._end_ns, end_ns)
        self._send(message.sender, HomeRenewed(message.incarnation, self.identity, end_ns))

    def _send(self, to: int, message: HomeMessage) -> None:
        """Put a message into the next ``HomeReady``; this replica's own arrive at once."""
        if to == self.identity:
            self.receive(message, self.now)
        else:
            self._sends.append(HomeSend(to, message))

    def _note(self, kind: HomeNoteKind, incarnation: int) -> None:
        self._notes.append(HomeNote(kind, incarnation))
