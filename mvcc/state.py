"""The one mutable object of a partition, and the few steps that every rule is built from.

The rules themselves are functions over this state, one module each: :mod:`mvcc.reads`,
:mod:`mvcc.writes`, :mod:`mvcc.one_shot`, :mod:`mvcc.anchor`, :mod:`mvcc.upkeep`,
:mod:`mvcc.recovery`, :mod:`mvcc.stopping`, :mod:`mvcc.splitting`, :mod:`mvcc.cutting`.  Each
function is one atomic section: nothing here waits, so what is tested at its start holds at its end
(docs/protocol.md §5.8 case 24).
"""

from __future__ import annotations

from collections import deque
from itertools import chain as chain_rows
from typing import TypeAlias

from msgspec import Struct

from mvcc.cases import Case
from mvcc.messages import (
    Answer,
    BatchAnswer,
    Committed,
    Failed,
    Message,
    Outcome,
    Pushed,
    Refused,
    Resolve,
    Span,
)
from mvcc.ranges import UNBOUNDED, RangeMarks
from mvcc.records import Checkpoint, Record
from mvcc.refusals import Refusal, Rule
from mvcc.settled import Settled
from mvcc.transactions import (
    ABORTED,
    ABORTING,
    COMMITTED,
    COMMITTING,
    FAILED,
    Local,
    Verdict,
    Waiter,
)
from mvcc.versions import UNREAD, Chain
from truetime import Interval, Oracle
from truetime.timestamp import ceiling, floor, successor

Send: TypeAlias = tuple[bytes, Message]
"""(a key of the partition it is for, the message)."""

Change: TypeAlias = tuple[int, bytes, bytes | None]
"""(stamp, key, value or None): one change of a committed transaction."""


class PartitionSettings(Struct, frozen=True, kw_only=True):
    """Settings of a partition; times in nanoseconds (docs/configuration.md has their defaults)."""

    ahead_ns_max: int = 51_500_000
    """H: how far a stamp may lie ahead of true time, offsets of retries included."""
    slack_ns_min: int = 50_000_000
    """How far the closed timestamp stays behind the clock when nothing is open."""
    lifetime_ns_max: int = 10_000_000_000
    """Longest life of a read-write transaction; the closed timestamp is never further behind."""
    heartbeat_expiry_ns: int = 2_000_000_000
    """An undecided transaction that was silent for so long is aborted."""
    push_after_ns: int = 20_000_000
    """How long a waiter leaves an undecided transaction alone before its anchor is asked."""
    push_again_ns: int = 250_000_000
    """How often the anchor is asked again, and a verdict is sent again."""
    janitor_idle_ns: int = 500_000_000
    """An undecided transaction nobody waits for is asked about after so much silence."""
    replicated: bool = False
    """Whether others follow the log: they are told what is forgotten here."""
    deadline_ns_max: int = 300_000_000_000
    """The longest deadline that a request can have anywhere."""
    retention_ns: int = 3_600_000_000_000
    """How long history and outcomes stay readable."""
    range_marks_max: int = 10_000
    """Boundaries in the read cache of ranges before it is evicted into the low-water mark."""
    chains_max: int = 4_000_000
    """Keys kept in memory before clean ones are dropped to the settled store."""
    scan_rows_max: int = 1_000
    """Longest page of a scan, rows."""
    page_bytes_max: int = 1 << 20
    """Longest page of a scan and largest result of a one-shot, bytes; one row always fits."""


class Flight(Struct, gc=False):
    """Commits of one batch between their decision and its durability.

    The first three columns have one entry a transaction, the others one a write.  ``spelled_out``:
    transactions that somebody asked about or waits for meanwhile.
    """

    lsn: int
    owner: int
    requests: list[int]
    txns: list[bytes]
    stamps: list[int]
    write_txns: list[bytes]
    write_stamps: list[int]
    keys: list[bytes]
    values: list[bytes | None]
    chains: list[Chain]
    spelled_out: list[Local]


Awaiting: TypeAlias = Local | Answer | Send | Flight | Checkpoint
"""What is finished when its log entry is durable."""


class State:
    """Everything one partition holds in memory."""

    def __init__(
        self,
        partition: int,
        start: bytes,
        end: bytes,
        *,
        space: int,
        settled: Settled,
        oracle: Oracle,
        settings: PartitionSettings,
    ) -> None:
        self.partition = partition
        self.start = start
        self.end = end
        self.space = space
        self.settled = settled
        self.oracle = oracle
        self.settings = settings
        self.serving = False
        # While it does not serve: reads outside transactions up to this stamp may be answered.
        self.shown = 0

        # Marks. Each of them only rises.
        self.closed = 0
        self.low_water = 0
        self.low_water_rule = Rule.LOW_WATER
        self.horizon = 0
        self.record_edge = 0
        # The horizons of the last two checkpoints: what lies below the older one may be deleted, for
        # no rebuild begins before it.
        self.collectable = 0
        self.collectable_next = 0
        # Nothing below this stamp was superseded since the last pass of the collection (0: nothing).
        self.superseded = 0
        self.newest_commit = 0

        # Versions, read cache, transactions.
        self.chains: dict[bytes, Chain] = {}
        self.ranges = RangeMarks()
        # A plain stamp stands for a transaction that a batch committed (:mod:`mvcc.batches`).
        self.transactions: dict[bytes, Local | int] = {}
        self.undecided: dict[bytes, Local] = {}
        self.unconfirmed: dict[bytes, Local] = {}
        # Forgotten here, and in a replicated partition still to be forgotten by the others.
        self.dropped: list[bytes] = []
        self.dropped_ns = 0
        self.parked: list[tuple[int, Waiter]] = []  # one-shots the oracle had no stamp for

        # The right half of a split that is not durable yet, and those to be given out.
        self.leaving: Checkpoint | None = None
        self.children: list[Checkpoint] = []

        # Committed and durable, not yet in the settled store.
        self.unsettled: list[tuple[bytes, int, bytes | None]] = []
        self.landed: list[Flight] = []
        self.with_old: list[Chain] = []
        self.round = 1

        # The feed, while somebody watches.
        self.watched = False
        self.feed: list[Change] = []

        # The log: records of the entry being gathered, and who waits for which entry.
        self.lsn = 1
        self.durable_lsn = 0
        self.records: list[Record] = []
        self.awaiting: deque[tuple[int, Awaiting]] = deque()

        # Results of this turn.
        self.answers: list[Answer | BatchAnswer] = []
        self.sends: list[Send] = []

        # The present reading of the clock, as stamps.
        self.now = Interval(0, 0)
        self.lo = 0
        self.future = 0

        # Counters, by what happened.
        self.refusals = [0] * len(Rule)
        self.commits = 0
        self.waits = 0
        self.pushes = 0
        self.cases = [0] * len(Case)

    def count_on(self, before: State) -> None:
        """Go on with the counters of the machine that this one is built in the place of."""
        self.refusals, self.cases = before.refusals, before.cases
        self.commits, self.waits, self.pushes = before.commits, before.waits, before.pushes

    # -- time --------------------------------------------------------------------------------------

    def see(self, now: Interval) -> None:
        """Take a clock reading; later steps of this turn use it."""
        self.now = now
        self.lo = floor(now.lo_ns)
        self.future = ceiling(now.hi_ns + self.settings.ahead_ns_max)

    # -- keys --------------------------------------------------------------------------------------

    def owns(self, key: bytes) -> bool:
        """Whether the key belongs to this partition."""
        return self.start <= key and (self.end == UNBOUNDED or key < self.end)

    def beyond(self, spans: list[Span]) -> list[Span]:
        """What of the spans must be told by message: not the part from an own key up to the end of
        this partition.
        """
        others = []
        for first, last in spans:
            if not self.owns(first):
                others.append((first, last))
            elif self.end != UNBOUNDED and last >= self.end:
                others.append((self.end, last))
        return others

    def load(self, key: bytes) -> Chain:
        """Bring a key's newest version into memory; nothing in memory knows the key."""
        if not self.serving:
            self.settle()  # replay passes by keys that are not in memory
        newest = self.settled.newest(self.space, key)
        chain = Chain(0, None) if newest is None else Chain(newest[0], newest[1])
        self.chains[key] = chain
        return chain

    def version_at(self, key: bytes, chain: Chain, stamp: int) -> tuple[int, bytes | None]:
        """The newest committed version at or below ``stamp``: (its stamp, its value), (0, None)."""
        if chain.stamp <= stamp and chain.round != UNREAD:
            return chain.stamp, chain.value
        newest = self.settled.newest(self.space, key, stamp) or (0, None)
        if chain.old is not None:
            for version, value in reversed(chain.old):
                if version <= stamp:
                    # A late commit may lie below versions that have been settled long ago.
                    return (version, value) if version > newest[0] else newest
        return newest

    def read_mark(self, key: bytes, chain: Chain) -> tuple[int, bytes]:
        """The largest stamp that has read the key, alone or in a range, and who."""
        if self.ranges:
            mark, reader = self.ranges.mark(key)
            if mark > chain.read:
                return mark, reader
        return chain.read, chain.reader

    # -- answers -----------------------------------------------------------------------------------

    def refuse(self, rule: Rule, key: bytes = b"", other: bytes = b"", stamp: int = 0) -> Refusal:
        """Make (and count) a refusal."""
        self.refusals[rule] += 1
        return Refusal(rule, key, other, stamp)

    def when_durable(self, lsn: int, what: Awaiting) -> None:
        """Finish ``what`` once log entry ``lsn`` is durable; entries become durable in order."""
        self.awaiting.append((lsn, what))

    # -- verdicts ----------------------------------------------------------------------------------

    def apply(self, local: Local, *, committed: bool) -> None:
        """Turn a transaction's intents into versions, or drop them, and wake who waited for it."""
        txn = local.txn
        for key in local.keys:
            chain = self.chains[key]
            intent = chain.lift(txn)
            assert intent is not None, key
            if committed:
                value = intent.value
                self.note_commits(intent.stamp, intent.stamp)
                if chain.commit(intent.stamp, value, self.round):
                    self.with_old.append(chain)
                self.unsettled.append((key, intent.stamp, value))
                if self.watched:
                    self.feed.append((intent.stamp, key, value))
        self.undecided.pop(txn, None)

    def finish(self, local: Local) -> None:
        """A decision has become durable: apply it and tell everybody who asked."""
        committed = local.state == COMMITTING
        if committed:
            local.state = COMMITTED
            self.commits += 1
        else:
            assert local.state == ABORTING, local.state
            local.state = ABORTED
        self.apply(local, committed=committed)
        self.tell(local)

    def tell(self, local: Local) -> None:
        """Answer requests, questions, pushes and waiters of a decided transaction."""
        verdict = local.verdict
        if local.requests is not None:
            for request in local.requests:
                self.answers.append(answer_for(local, request))
            local.requests = None
        if local.questions is not None:
            stamp = local.stamp if verdict == Verdict.COMMITTED else 0
            for request in local.questions:
                self.answers.append(Outcome(request, verdict, stamp))
            local.questions = None
        if local.pushes is not None:
            for origin in local.pushes:
                self.sends.append((origin, Pushed(local.txn, local.stamp, verdict)))
            local.pushes = None
        if local.participants is not None and local.unconfirmed is None:
            self.send_verdict(local)
        if local.waiters is not None:
            for waiter in local.waiters:
                self.parked.append((0, waiter))
            local.waiters = None

    def send_verdict(self, local: Local) -> None:
        """Tell the other participants, and go on until each has confirmed."""
        assert local.participants is not None
        others = self.beyond(local.participants)
        if not others:
            return
        local.unconfirmed = others
        local.pushed_ns = self.now.lo_ns
        self.unconfirmed[local.txn] = local
        self.resend_verdict(local)

    def resend_verdict(self, local: Local) -> None:
        """Send the verdict to the participants that have not confirmed it."""
        for span in local.unconfirmed or ():
            self.send_span(local, span)

    def send_span(self, local: Local, span: Span) -> None:
        """Send the verdict to the owner of the first key of a span."""
        first, last = span
        committed = local.state == COMMITTED
        message = Resolve(local.txn, local.stamp, committed, first, last, local.anchor)
        self.sends.append((first, message))

    def note_commits(self, oldest: int, newest: int) -> None:
        """Remember that versions with stamps from ``oldest`` to ``newest`` have come."""
        self.superseded = self.superseded or oldest
        if newest > self.newest_commit:
            self.newest_commit = newest

    # -- settling ----------------------------------------------------------------------------------

    @property
    def unsettled_count(self) -> int:
        """How many versions wait to be settled."""
        return len(self.unsettled) + sum([len(flight.keys) for flight in self.landed])

    def settle(self) -> int:
        """Hand everything committed to the settled store; returns how many versions."""
        rows, landed = self.unsettled, self.landed
        if not rows and not landed:
            return 0
        columns = (zip(one.keys, one.write_stamps, one.values, strict=True) for one in landed)
        self.settled.settle(self.space, chain_rows(rows, *columns))
        settled = len(rows) + sum(len(one.keys) for one in landed)
        self.landed = []
        for chain in self.with_old:
            chain.old = None
        self.with_old = []
        self.unsettled = []
        self.round += 1
        return settled

    # -- safe time ---------------------------------------------------------------------------------

    def safe(self) -> tuple[int, bytes]:
        """Every read at or below this stamp is final, and which transaction holds it back (b"" if
        none).
        """
        safe, pinned_by = self.closed, b""
        if not (self.undecided or self.awaiting or self.leaving or self.children):
            return safe, pinned_by
        for local in self.undecided.values():
            if local.keys and local.stamp <= safe:
                safe, pinned_by = local.stamp - 1, local.txn
        for flight in self.flights():
            oldest = min(flight.stamps)
            if oldest <= safe:
                safe, pinned_by = oldest - 1, flight.txns[flight.stamps.index(oldest)]
        leaving = [] if self.leaving is None else [self.leaving]
        for half in (*leaving, *self.children):
            for pending in half.pending:
                if pending.stamp <= safe:
                    safe, pinned_by = pending.stamp - 1, pending.txn
        return safe, pinned_by

    # -- batches -----------------------------------------------------------------------------------

    def flights(self) -> list[Flight]:
        """Batches of commits whose log entry is not durable yet."""
        return [what for _, what in self.awaiting if isinstance(what, Flight)]

    def known(self, txn: bytes) -> Local | None:
        """What is known of a transaction, in full: one that a batch committed is spelled out."""
        local = self.transactions.get(txn)
        if not isinstance(local, int):
            return local
        for flight in self.flights():
            if txn in flight.txns:
                spelled = Local(txn, local, COMMITTING, b"", [], lsn=flight.lsn)
                flight.spelled_out.append(spelled)
                break
        else:
            self.cases[Case.SPELLED_OUT] += 1
            spelled = Local(txn, local, COMMITTED, b"", [])
        self.transactions[txn] = spelled
        return spelled

    def drop(self, txn: bytes) -> None:
        """Forget an ended transaction; the caller has tested that it may be."""
        local = self.transactions.pop(txn)
        failed = isinstance(local, Local) and local.state == FAILED  # known here only
        if self.serving and self.settings.replicated and not failed:
            self.dropped.append(txn)

    def finish_spelled_out(self, local: Local) -> None:
        """A transaction of a batch that was spelled out meanwhile has become durable."""
        local.state = COMMITTED
        self.tell(local)

    def blocking(self, txn: bytes) -> Local:
        """The undecided transaction that owns an intent."""
        local = self.known(txn)
        assert local is not None, txn
        assert not local.decided, txn
        return local

    def raise_low_water(self, stamp: int, rule: Rule) -> None:
        """Refuse writes below ``stamp`` from now on."""
        if stamp > self.low_water:
            self.low_water = stamp
            self.low_water_rule = rule


def answer_for(local: Local, request: int) -> Answer:
    """The answer to an End, CommitAlone or OneShot of a decided transaction."""
    if local.state == COMMITTED:
        return Committed(request, local.stamp, local.values)
    if local.failed is not None:
        failed = local.failed
        return Failed(request, failed.stamp, failed.condition, failed.key)
    return Refused(request, Refusal(Rule.ABORTED, b"", local.txn, successor(local.stamp)))
