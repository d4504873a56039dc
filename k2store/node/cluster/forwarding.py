"""Requests that another node answers: numbers of our own, and whose they are.

A request that leaves gets a number of this node, under an owner that names this node, so that its
answer finds the way back without anything being remembered on the other side::

    session 7, request 12  ──► owner PEER + 3, request 4711 ──► leader's node
    session 7, request 12  ◄── owner PEER + 3, request 4711 ◄── leader's node

What was asked of a node whose stream has ended, or that leads no more, may never be answered: reads
are refused then, and what would have changed something has an unknown outcome, which its client
resolves.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from mvcc.messages import (
    OWNER_BITS,
    Answer,
    BatchAnswer,
    CommitAlone,
    Commits,
    CommitsAlone,
    End,
    Message,
    OneShot,
    OneShots,
    Outcome,
    Read,
    Reads,
    Refused,
    Scan,
    Status,
    Values,
    Write,
)
from mvcc.refusals import Refusal, Rule
from mvcc.transactions import Verdict

PEER_OWNER: Final = 1 << 18
"""Owners from here on are nodes; sessions have smaller numbers."""

_REQUEST_MASK: Final = (1 << OWNER_BITS) - 1

Single: TypeAlias = Read | Scan | Write | CommitAlone | OneShot | End | Status
Batch: TypeAlias = Reads | CommitsAlone | OneShots


class Pending(Struct, gc=False):
    """One request under way: whom to answer, and what to say if no answer comes."""

    token: int
    partition: int
    node: int
    harmless: bool
    deadline_ns: int


class Forwarding:
    """Everything under way to other nodes."""

    def __init__(self, lifetime_ns: int) -> None:
        self._lifetime_ns = lifetime_ns
        self._pending: dict[int, Pending] = {}
        self._number = 0
        self._owner = PEER_OWNER
        self.forwarded = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._pending)

    def introduce(self, own: int, incarnation: bytes) -> None:
        """Which node this is, and in which life.

        Numbers begin elsewhere in each life: another node may still answer what an earlier one
        asked, and that answer belongs to nobody.
        """
        self._owner = PEER_OWNER + own
        self._number = int.from_bytes(incarnation) & (_REQUEST_MASK >> 1)

    def send(self, message: Message, partition: int, node: int, now_ns: int) -> Message:
        """The message as it leaves."""
        if isinstance(message, Reads):
            numbers = self._note(
                message.owner,
                message.requests,
                partition,
                node,
                harmless=True,
                deadlines_ns=message.deadlines_ns,
            )
            return replace(message, owner=self._owner, requests=numbers)
        if isinstance(message, CommitsAlone | OneShots):
            until_ns = now_ns + self._lifetime_ns
            numbers = self._note(
                message.owner,
                message.requests,
                partition,
                node,
                harmless=False,
                deadlines_ns=[until_ns] * len(message.requests),
            )
            return replace(message, owner=self._owner, requests=numbers)
        if isinstance(message, Single):
            # A write that may stand is no harm either: its transaction is aborted.
            harmless = isinstance(message, Read | Scan | Status | Write)
            deadline_ns = getattr(message, "deadline_ns", now_ns + self._lifetime_ns)
            self._number += 1
            self.forwarded += 1
            self._pending[self._number] = Pending(
                message.request, partition, node, harmless, deadline_ns
            )
            return replace(message, request=self._owner << OWNER_BITS | self._number)
        return message

    def _note(
        self,
        owner: int,
        requests: Sequence[int],
        partition: int,
        node: int,
        *,
        harmless: bool,
        deadlines_ns: Sequence[int],
    ) -> list[int]:
        first = self._number + 1
        self._number += len(requests)
        self.forwarded += len(requests)
        numbers = list(range(first, self._number + 1))
        base = owner << OWNER_BITS
        for number, request, deadline_ns in zip(numbers, requests, deadlines_ns, strict=True):
            self._pending[number] = Pending(base | request, partition, node, harmless, deadline_ns)
        return numbers

    # -- answers -----------------------------------------------------------------------------------

    def receive(self, answers: Iterable[Answer | BatchAnswer]) -> list[Answer | BatchAnswer]:
        """Answers as those who asked expect them; those that were given up on are dropped."""
        found: list[Answer | BatchAnswer] = []
        for answer in answers:
            if isinstance(answer, Values):
                found.extend(self._values(answer))
            elif isinstance(answer, Commits):
                found.extend(self._commits(answer))
            else:
                pending = self._pending.pop(answer.request & _REQUEST_MASK, None)
                if pending is not None:
                    found.append(replace(answer, request=pending.token))
        return found

    def _values(self, answer: Values) -> list[Values]:
        known = [self._pending.pop(number, None) for number in answer.requests]
        kept = [index for index, pending in enumerate(known) if pending is not None]
        if not kept:
            return []
        tokens = [pending.token for pending in known if pending is not None]
        return [
            Values(
                tokens[0] >> OWNER_BITS,
                [token & _REQUEST_MASK for token in tokens],
                [answer.stamps[index] for index in kept],
                [answer.versions[index] for index in kept],
                [answer.values[index] for index in kept],
            )
        ]

    def _commits(self, answer: Commits) -> list[Commits]:
        known = [self._pending.pop(number, None) for number in answer.requests]
        kept = [index for index, pending in enumerate(known) if pending is not None]
        if not kept:
            return []
        tokens = [pending.token for pending in known if pending is not None]
        return [
            Commits(
                tokens[0] >> OWNER_BITS,
                [token & _REQUEST_MASK for token in tokens],
                [answer.stamps[index] for index in kept],
            )
        ]

    # -- giving up ---------------------------------------------------------------------------------

    def give_up_node(self, node: int) -> list[Answer]:
        """What was asked of a node whose stream has ended."""
        return self._give_up([n for n, one in self._pending.items() if one.node == node])

    def give_up_partition(self, partition: int, leader: int) -> list[Answer]:
        """What was asked of a node that does not lead the partition any more."""
        return self._give_up(
            [
                number
                for number, one in self._pending.items()
                if one.partition == partition and one.node != leader
            ]
        )

    def give_up_late(self, now_ns: int) -> list[Answer]:
        """What is past its deadline."""
        return self._give_up([n for n, one in self._pending.items() if one.deadline_ns < now_ns])

    def _give_up(self, numbers: Iterable[int]) -> list[Answer]:
        answers: list[Answer] = []
        for number in numbers:
            pending = self._pending.pop(number)
            self.lost += 1
            if pending.harmless:
                answers.append(Refused(pending.token, Refusal(Rule.NOT_LEADER)))
            else:
                answers.append(Outcome(pending.token, Verdict.UNKNOWN, 0))
        return answers


def is_final(message: Message, shown: int) -> bool:
    """Whether a message only reads, outside of any transaction, what can change no more."""
    if isinstance(message, Reads):
        return max(message.stamps) <= shown and not any(message.txns)
    return isinstance(message, Read | Scan) and message.stamp <= shown and not message.txn


def refusals(message: Message, rule: Rule) -> list[Answer]:
    """The refusal of every request in a message."""
    if isinstance(message, Batch):
        base = message.owner << OWNER_BITS
        return [Refused(base | request, Refusal(rule)) for request in message.requests]
    if isinstance(message, Single):
        return [Refused(message.request, Refusal(rule))]
    return []


def divided(message: Reads, chosen: Container[int]) -> tuple[Reads, Reads]:
    """The reads at the chosen indexes, and the others."""
    every = range(len(message.requests))
    one, other = (
        Reads(
            message.owner,
            [message.requests[index] for index in some],
            [message.txns[index] for index in some],
            [message.stamps[index] for index in some],
            [message.keys[index] for index in some],
            [message.deadlines_ns[index] for index in some],
        )
        for some in (
            [index for index in every if index in chosen],
            [index for index in every if index not in chosen],
        )
    )
    return one, other


def owner_of(message: Message) -> int:
    """Whose session or node a request is; -1 for the coordinator's own, and for no request."""
    if isinstance(message, Batch):
        return message.owner
    return message.request >> OWNER_BITS if isinstance(message, Single) else -1


def deadline_of(message: Message, otherwise_ns: int) -> int:
    """Until when an answer is waited for."""
    if isinstance(message, Reads | OneShots):
        return max(message.deadlines_ns)
    return getattr(message, "deadline_ns", otherwise_ns)
