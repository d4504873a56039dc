"""The coordinator: what a node keeps of the transactions that clients run through it
(docs/protocol.md §5.5).

A transaction whose writes all fall to one partition is committed by that partition in one step, and
the coordinator only remembers that it is open.  With several participants it does the usual
rounds::

      writes ──► Write to every participant, in parallel      intents, durable
      commit ──► last writes likewise; when all are acknowledged:
                 End(commit) to the anchor                     the record: the point of commit
      answer ◄── Committed from the anchor

It is stateless in the sense that matters: whatever it forgets in a crash can be learned from the
anchor's record, and what it leaves undone is finished by the anchor (:mod:`mvcc.anchor`).

Requests to partitions that the coordinator makes for itself carry negative numbers; the driver
hands their answers back.
"""

from __future__ import annotations

from bisect import bisect_right

from msgspec import Struct

from mvcc.messages import (
    Answer,
    CommitAlone,
    Committed,
    End,
    Heartbeat,
    Message,
    Outcome,
    Refused,
    Write,
    Written,
)
from mvcc.refusals import Refusal, Rule
from mvcc.transactions import Verdict
from truetime import Interval
from truetime.timestamp import RETRY_MAX, floor, offset, time_ns

Mutation = tuple[bytes, bytes | None]

OPEN = 0
COMMITTING = 1
ENDING = 2
ROLLING_BACK = 3


class Route:
    """Which partition owns a key: partitions in order of their first key, the first one b"".

    ``ids``: their numbers; 0, 1, 2... unless given.  A number stays with its partition when others
    are split.
    """

    __slots__ = ("_ids", "_starts")

    def __init__(self, starts: list[bytes], ids: list[int] | None = None) -> None:
        assert starts[0] == b"", starts
        assert starts == sorted(starts), starts
        self._starts = starts
        self._ids = list(range(len(starts))) if ids is None else ids
        assert len(self._ids) == len(starts), (starts, ids)

    def __len__(self) -> int:
        return len(self._starts)

    def of(self, key: bytes) -> int:
        """The number of the partition that owns ``key``."""
        return self._ids[bisect_right(self._starts, key) - 1]

    def covering(self, start: bytes, end: bytes) -> list[int]:
        """The numbers of the partitions that [start, end) touches, in key order; ``end`` b"" is
        unbounded.
        """
        first = bisect_right(self._starts, start) - 1
        last = len(self._starts) if not end else max(bisect_right(self._starts, end), first + 1)
        if end and last - 1 > first and self._starts[last - 1] == end:
            last -= 1
        return self._ids[first:last]


class Part(Struct, gc=False):
    """What a transaction has written ahead of its commit in one partition: first and last key, and
    the sequence numbers sent.
    """

    first: bytes
    last: bytes
    sequences: list[int]


class Open(Struct, gc=False):
    """One transaction of a client.

    ``owner`` is the driver's number of the session.  ``participants``: for each partition written
    ahead of the commit its span and the sequence numbers sent.  ``waiting``: coordinator
    requests that are not acknowledged yet, each with the client's request of an early write (0: of
    the commit).  ``request``: whom to answer when the commit is through.
    """

    txn: bytes
    stamp: int
    owner: int
    begun_ns: int
    phase: int = OPEN
    sequence: int = 0
    anchor: bytes = b""
    participants: dict[int, Part] | None = None
    waiting: dict[int, int] | None = None
    request: int = 0
    refusal: Refusal | None = None
    heartbeat_ns: int = 0
    expired: bool = False


class Coordinator:
    """Open transactions of one node, and the rounds of those with several participants."""

    def __init__(self, route: Route, *, lifetime_ns_max: int, heartbeat_ns: int) -> None:
        self.route = route
        # A plain stamp stands for a transaction that has written nothing ahead of its commit.
        self.open: dict[bytes, Open | int] = {}
        self.answers: list[Answer] = []
        self.sends: list[tuple[int, Message]] = []
        self._lifetime_ns_max = lifetime_ns_max
        self._heartbeat_ns = heartbeat_ns
        self._numbers = 0
        self._requests: dict[int, bytes] = {}

    # -- begin -------------------------------------------------------------------------------------

    def begin(self, txn: bytes, stamp: int, owner: int, now: Interval) -> Open:
        """Note a transaction; ``stamp`` is fresh from the oracle (or its own, if it began
        elsewhere).
        """
        transaction = Open(txn, stamp, owner, now.lo_ns)
        self.open[txn] = transaction
        return transaction

    def opened(self, txn: bytes, owner: int) -> Open | None:
        """An open transaction, in full: one that is noted by its bare stamp is spelled out."""
        known = self.open.get(txn)
        if isinstance(known, int):
            known = self.open[txn] = Open(txn, known, owner, time_ns(known))
        return known

    @staticmethod
    def place(txn: bytes, stamp: int) -> int:
        """The stamp of an attempt: from the third on it is placed a little in the future."""
        level = min(max(txn[15] - 1, 0), RETRY_MAX)
        return offset(stamp, level) if level else stamp

    def oldest(self) -> int:
        """The smallest stamp of an open transaction; 0 when none is open."""
        return min(
            (known if isinstance(known, int) else known.stamp for known in self.open.values()),
            default=0,
        )

    def forget(self, txn: bytes) -> None:
        """The client is through with the transaction (a read-only one has ended)."""
        transaction = self.open.get(txn)
        if isinstance(transaction, int) or (
            transaction is not None and transaction.participants is None
        ):
            del self.open[txn]

    # -- writes and commit -------------------------------------------------------------------------

    def write(
        self, transaction: Open, request: int, writes: list[Mutation], deadline_ns: int
    ) -> None:
        """Send writes ahead of the commit; ``request`` is answered with Written when all are
        durable.
        """
        if transaction.phase != OPEN or transaction.refusal is not None:
            refusal = transaction.refusal or Refusal(Rule.ENDED, other=transaction.txn)
            self.answers.append(Refused(request, refusal))
            return
        self._send_writes(transaction, request, writes, deadline_ns)

    def commit(
        self, transaction: Open, request: int, writes: list[Mutation], deadline_ns: int
    ) -> None:
        """Commit with the last writes; ``request`` is answered with Committed or Refused."""
        if transaction.phase != OPEN:
            self.answers.append(Refused(request, Refusal(Rule.ENDED, other=transaction.txn)))
            return
        transaction.phase = COMMITTING
        transaction.request = request
        touched = {self.route.of(key) for key, _ in writes}
        for part in (transaction.participants or {}).values():
            # A partition may have been split since.
            touched.update(self.route.covering(part.first, part.last + b"\0"))
        alone = len(touched) <= 1 and touched.issuperset(transaction.participants or ())
        if alone and not transaction.waiting and transaction.refusal is None:
            self._commit_alone(transaction, writes, touched)
            return
        if writes and transaction.refusal is None:
            self._send_writes(transaction, 0, writes, deadline_ns)
        self._advance(transaction)

    def _commit_alone(self, transaction: Open, writes: list[Mutation], touched: set[int]) -> None:
        if not touched:
            del self.open[transaction.txn]
            self.answers.append(Committed(transaction.request, transaction.stamp, None))
            return
        (index,) = touched
        if transaction.participants is None:
            # Nothing stands anywhere yet: the partition answers the client, there is nothing to
            # clean up.
            del self.open[transaction.txn]
            number, sequences = transaction.request, []
        else:
            number, sequences = self._number(transaction), transaction.participants[index].sequences
            transaction.phase = ENDING
        message = CommitAlone(number, transaction.txn, transaction.stamp, writes, sequences)
        self.sends.append((index, message))

    def _send_writes(
        self, transaction: Open, request: int, writes: list[Mutation], deadline_ns: int
    ) -> None:
        if transaction.participants is None:
            transaction.participants = {}
            transaction.anchor = writes[0][0]
        groups: dict[int, list[tuple[bytes, bytes | None, int]]] = {}
        for key, value in writes:
            transaction.sequence += 1
            groups.setdefault(self.route.of(key), []).append((key, value, transaction.sequence))
        if transaction.waiting is None:
            transaction.waiting = {}
        for index, group in groups.items():
            keys = [key for key, _, _ in group]
            first, last = min(keys), max(keys)
            part = transaction.participants.setdefault(index, Part(first, last, []))
            part.first = min(part.first, first)
            part.last = max(part.last, last)
            part.sequences.extend(sequence for _, _, sequence in group)
            number = self._number(transaction)
            transaction.waiting[number] = request
            message = Write(
                number,
                transaction.txn,
                transaction.stamp,
                transaction.anchor,
                group,
                [],
                deadline_ns,
            )
            self.sends.append((index, message))

    def _advance(self, transaction: Open) -> None:
        """Go on to the decision when every write is acknowledged, or when one was refused."""
        if transaction.phase != COMMITTING or transaction.waiting:
            return
        assert transaction.participants, "a commit without participants is answered at once"
        self._end(transaction, commit=transaction.refusal is None)

    def _end(self, transaction: Open, *, commit: bool) -> None:
        transaction.phase = ENDING
        assert transaction.participants is not None
        number = self._number(transaction)
        message = End(
            number,
            transaction.txn,
            transaction.stamp,
            transaction.anchor,
            commit,
            [(part.first, part.last) for part in transaction.participants.values()],
        )
        self.sends.append((self.route.of(transaction.anchor), message))

    def rollback(self, transaction: Open, request: int = 0) -> None:
        """End without effect; a request (not 0) is answered with an Outcome."""
        if transaction.phase != OPEN:
            if request:
                refusal = Refusal(Rule.ENDED, other=transaction.txn)
                self.answers.append(Refused(request, refusal))
            return
        if transaction.participants is None:
            del self.open[transaction.txn]
            if request:
                self.answers.append(Outcome(request, Verdict.ABORTED, 0))
            return
        transaction.request = request
        self._end(transaction, commit=False)
        transaction.phase = ROLLING_BACK

    # -- answers of partitions ---------------------------------------------------------------------

    def receive(self, answer: Answer) -> None:
        """Take the answer to one of the coordinator's own requests."""
        txn = self._requests.pop(answer.request, None)
        transaction = self.open.get(txn) if txn is not None else None
        if not isinstance(transaction, Open):
            return
        if transaction.waiting is not None and answer.request in transaction.waiting:
            self._acknowledge(transaction, answer)
            return
        if transaction.phase == ROLLING_BACK:
            del self.open[transaction.txn]
            if transaction.request:
                self.answers.append(Outcome(transaction.request, Verdict.ABORTED, 0))
            return
        if isinstance(answer, Refused) and transaction.participants and not transaction.refusal:
            # The partition would not commit it alone, and its earlier intents still stand there.
            transaction.refusal = answer.refusal
            self._end(transaction, commit=False)
            return
        del self.open[transaction.txn]
        request = transaction.request
        if not request:
            return
        if isinstance(answer, Committed):
            self.answers.append(Committed(request, answer.stamp, None))
        elif transaction.refusal is not None:
            self.answers.append(Refused(request, transaction.refusal))
        elif isinstance(answer, Refused):
            self.answers.append(Refused(request, answer.refusal))
        else:
            assert isinstance(answer, Outcome), answer
            self.answers.append(Outcome(request, answer.verdict, answer.stamp))

    def _acknowledge(self, transaction: Open, answer: Answer) -> None:
        assert transaction.waiting is not None
        request = transaction.waiting.pop(answer.request)
        if isinstance(answer, Refused):
            if transaction.refusal is None:
                transaction.refusal = answer.refusal
            if request:
                # One answer a client request, whatever the other partitions say.
                for number, other in list(transaction.waiting.items()):
                    if other == request:
                        transaction.waiting[number] = 0
                self.answers.append(answer_to(request, answer))
        elif request and request not in transaction.waiting.values():
            assert isinstance(answer, Written), answer
            self.answers.append(Written(request))
        if transaction.phase == OPEN and transaction.expired and not transaction.waiting:
            self.rollback(transaction)
        else:
            self._advance(transaction)

    def _number(self, transaction: Open) -> int:
        self._numbers -= 1
        self._requests[self._numbers] = transaction.txn
        return self._numbers

    # -- upkeep ------------------------------------------------------------------------------------

    def tick(self, now: Interval) -> None:
        """Send heartbeats and end what has lived too long."""
        expired = floor(now.lo_ns - self._lifetime_ns_max)
        for txn, transaction in list(self.open.items()):
            if isinstance(transaction, int):
                if transaction < expired:
                    del self.open[txn]
            elif transaction.phase == OPEN and (
                now.lo_ns - transaction.begun_ns > self._lifetime_ns_max
            ):
                self.end(transaction)
            elif (
                transaction.participants is not None
                and now.lo_ns - transaction.heartbeat_ns > self._heartbeat_ns
            ):
                transaction.heartbeat_ns = now.lo_ns
                anchor = self.route.of(transaction.anchor)
                self.sends.append((anchor, Heartbeat(transaction.txn)))

    def leave(self, owner: int, client: bytes = b"") -> None:
        """A session has gone: end what it has open, except commits on their way.

        ``client`` is the first half of its transactions' ids.
        """
        for txn, transaction in list(self.open.items()):
            if isinstance(transaction, int):
                if client and txn.startswith(client):
                    del self.open[txn]
            elif transaction.owner == owner and transaction.phase == OPEN:
                self.end(transaction)

    def end(self, transaction: Open) -> None:
        """End a transaction from this side: too old, or its client is gone."""
        transaction.expired = True
        if not transaction.waiting:
            self.rollback(transaction)


def answer_to(request: int, refused: Refused) -> Refused:
    """The same refusal for another request."""
    return Refused(request, refused.refusal)
