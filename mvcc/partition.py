"""A partition as a machine: ``receive`` messages, ``tick`` time, take what is ``ready``, report
what is ``durable``.

The driver's duties, in this order:

1. any number of :meth:`Partition.receive` and :meth:`Partition.tick`;
2. :meth:`Partition.ready`: its entry, if there is one, must be appended to the partition's log;
   its answers and messages may leave at once, because nothing in them rests on an entry that is
   not durable;
3. when the entry is durable where it must be: :meth:`Partition.durable`, and
   :meth:`Partition.ready` again for the answers that waited.

An answer of kind ``Committed`` or ``Failed``, an ``Outcome`` that says committed, and every read
outside a transaction must be held until true time has passed its stamp (rule T3): the partition
says what is true, the driver when it may be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from mvcc import (
    anchor,
    batches,
    cutting,
    one_shot,
    reads,
    recovery,
    splitting,
    stopping,
    upkeep,
    writes,
)
from mvcc.bounds import belongs
from mvcc.cases import Case
from mvcc.messages import (
    Answer,
    BatchAnswer,
    CommitAlone,
    CommitsAlone,
    Confirm,
    End,
    Forget,
    Forgets,
    Heartbeat,
    Message,
    OneShot,
    OneShots,
    Push,
    Pushed,
    Read,
    Reads,
    Resolve,
    Scan,
    Status,
    Write,
)
from mvcc.records import Checkpoint, Entry
from mvcc.refusals import Rule
from mvcc.settled import Settled
from mvcc.state import Change, Flight, PartitionSettings, Send, State
from mvcc.transactions import Local
from truetime import Interval, Oracle

_HANDLERS: dict[type, Callable[[State, Any], None]] = {
    Read: reads.read,
    Scan: reads.scan,
    Write: writes.write,
    CommitAlone: writes.commit_alone,
    OneShot: one_shot.one_shot,
    End: anchor.end,
    Heartbeat: anchor.heartbeat,
    Push: anchor.push,
    Pushed: anchor.pushed,
    Resolve: anchor.resolve,
    Confirm: anchor.confirm,
    Status: anchor.status,
    Forget: anchor.forget,
    Reads: batches.reads,
    CommitsAlone: batches.commits_alone,
    OneShots: batches.one_shots,
    Forgets: batches.forgets,
}


_WITHOUT_SERVING = frozenset([Read, Scan, Reads])


class Ready(Struct, gc=False):
    """What a partition has for its driver."""

    entry: Entry | None
    answers: list[Answer | BatchAnswer]
    sends: list[Send]


class Partition:
    """One partition of the key space: [start, end), where end b"" is unbounded."""

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
        self.state = State(
            partition,
            start,
            end,
            space=space,
            settled=settled,
            oracle=oracle,
            settings=settings,
        )
        self._sweep = upkeep.Sweep()
        self._collection = upkeep.Collection()

    # -- recovery ----------------------------------------------------------------------------------

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint; before any entry."""
        recovery.restore(self.state, saved)

    def replay(self, entry: Entry) -> None:
        """Apply a durable entry; those the checkpoint covers are passed over."""
        recovery.replay(self.state, entry)

    def start(self, now: Interval) -> None:
        """Begin to serve."""
        if self.state.undecided:
            self.state.cases[Case.STARTED_WITH_OPEN] += 1
        recovery.start(self.state, now)

    def checkpoint(self) -> Checkpoint:
        """What a new log segment begins with."""
        return recovery.checkpoint(self.state)

    # -- the machine -------------------------------------------------------------------------------

    def receive(self, message: Message, now: Interval) -> None:
        """Take one message."""
        state = self.state
        if now is not state.now:
            state.see(now)
        self._take(message)

    def _take(self, message: Message) -> None:
        state = self.state
        if not state.serving and type(message) not in _WITHOUT_SERVING:
            stopping.turn_away(state, message, Rule.NOT_LEADER)
        elif not belongs(state, message):
            stopping.turn_away(state, message, Rule.WRONG_PARTITION)
        else:
            _HANDLERS[type(message)](state, message)

    def tick(self, now: Interval, oldest_open: int, protected: int = 0) -> None:
        """Let time pass.  A replica that does not serve deletes, forgets and evicts, and
        writes nothing.

        ``oldest_open``: the smallest stamp of an open transaction that may still write here
        (0: none).  ``protected``: the oldest snapshot that must stay readable (0: none).
        """
        state = self.state
        state.see(now)
        if state.serving:
            upkeep.close(state, oldest_open)
            upkeep.tick(state)
        self._sweep.step(state)
        self._collection.step(state)
        upkeep.evict(state)

    def collect(self, protected: int = 0) -> None:
        """Raise the horizon; ticks delete what lies below it once checkpoints have passed it."""
        upkeep.raise_horizon(self.state, protected)

    def wake(self, now: Interval) -> None:
        """Run again what was woken by a verdict or waited for the clock."""
        state = self.state
        state.see(now)
        while state.parked:
            parked, state.parked = state.parked, []
            due = False
            for wake_ns, message in parked:
                if wake_ns <= now.lo_ns:
                    due = True
                    self._take(message)
                else:
                    state.parked.append((wake_ns, message))
            if not due:
                return

    @property
    def quiescent(self) -> bool:
        """Whether everything gathered is durable, so that a checkpoint may be taken."""
        state = self.state
        return not state.records and not state.awaiting and state.durable_lsn == state.lsn - 1

    @property
    def parked(self) -> bool:
        """Whether :meth:`wake` has something to do, now or soon."""
        return bool(self.state.parked)

    @property
    def gathered(self) -> bool:
        """Whether :meth:`ready` has something to give."""
        state = self.state
        return bool(state.records or state.answers or state.sends)

    def ready(self) -> Ready:
        """Take what has gathered."""
        state = self.state
        entry = None
        if state.records:
            entry = Entry(state.partition, state.lsn, state.closed, state.records)
            state.records = []
            state.lsn += 1
        result = Ready(entry, state.answers, state.sends)
        state.answers = []
        state.sends = []
        return result

    def durable(self, lsn: int, now: Interval) -> None:
        """Entries up to ``lsn`` are where they must be: finish what waited for them."""
        state = self.state
        if now is not state.now:
            state.see(now)
        assert state.durable_lsn <= lsn < state.lsn, (state.durable_lsn, lsn, state.lsn)
        state.durable_lsn = lsn
        awaiting = state.awaiting
        while awaiting and awaiting[0][0] <= lsn:
            what = awaiting.popleft()[1]
            if isinstance(what, Flight):
                batches.land(state, what)
            elif isinstance(what, Local):
                state.finish(what)
            elif isinstance(what, tuple):
                state.sends.append(what)
            elif isinstance(what, Checkpoint):
                state.leaving = None
                state.children.append(what)
            else:
                state.answers.append(what)

    def stop(self, rule: Rule = Rule.NOT_LEADER) -> None:
        """Serve nobody any more: whoever waits is answered, what cannot be known here as unknown.

        After the answers are taken the machine is thrown away.
        """
        stopping.stop(self.state, rule)

    # -- splitting ---------------------------------------------------------------------------------

    def split(self, key: bytes, child: int) -> bool:
        """Split this partition at ``key``; the right half becomes partition ``child``.

        Only a serving leader can, at a key strictly inside, and one split after the other; returns
        whether it was possible.  The partition ends at ``key`` from now on: requests for the right
        half are refused.
        """
        return splitting.split(self.state, key, child)

    def take_children(self) -> list[tuple[int, Checkpoint]]:
        """Partitions that this one has brought forth: at a leader when the split is durable, at a
        replica when it was replayed.

        The driver keeps each checkpoint, and one of this partition, before it takes a second one of
        the child.  A replay of the same split after that brings the same child forth again, which
        is to be passed over.
        """
        return splitting.let_go(self.state)

    # -- promotion ---------------------------------------------------------------------------------

    def cut_checkpoint(self, stamp: int, now: Interval) -> Checkpoint:
        """What a promoted region begins with: this replica, which does not serve, as it was at
        ``stamp``, which must be safe here and not below the horizon.

        It begins a log of its own, at entry 1, so that replicas which have applied more or less
        agree.  ``now`` is read after the lost region has certainly stopped.  The versions of
        :meth:`rows_above` must be deleted before anybody lives by the checkpoint; then this machine
        is thrown away.
        """
        return cutting.cut(self.state, stamp, now)

    def rows_above(self, stamp: int) -> Iterator[list[tuple[bytes, int]]]:
        """(key, stamp) of the settled versions above ``stamp``, in bounded batches."""
        return cutting.rows_above(self.state, stamp)

    # -- what others may know ----------------------------------------------------------------------

    def show(self, closed: int) -> int:
        """Reads outside transactions may be answered here up to the stamp returned, although this
        replica does not serve.

        ``closed``: the closed timestamp that came with an entry already applied, or that was sent
        for a position of the log already reached (docs/protocol.md §4.1).
        """
        state = self.state
        assert not state.serving
        state.closed = max(state.closed, closed)
        safe = state.safe()[0]
        if safe < state.closed:
            state.cases[Case.SAFE_BELOW_CLOSED] += 1
        state.shown = max(state.shown, safe)
        return state.shown

    def safe(self) -> tuple[int, bytes]:
        """The stamp up to which everything is final, and the transaction that holds it back (b"" if
        none).
        """
        return self.state.safe()

    def watch(self, on: bool) -> None:  # noqa: FBT001 - the name says it
        """Gather changes for the feed, or stop."""
        self.state.watched = on
        if not on:
            self.state.feed = []

    def take_changes(self) -> list[Change]:
        """Changes committed since the last call, in no particular order."""
        changes, self.state.feed = self.state.feed, []
        return changes
