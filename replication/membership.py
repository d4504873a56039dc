"""Who holds a log: voters, whose majority decides, and learners, who only follow.

A membership is a value that stands in the log itself and counts from the moment it is appended.
It changes by one voter at a time, because a majority before and a majority after such a step
always share a voter; two steps at once would allow two majorities that do not.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Membership(Struct, frozen=True, array_like=True):
    """Identities of replicas, each list sorted; nobody is in both."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()

    @property
    def everyone(self) -> tuple[int, ...]:
        """Voters and learners, sorted."""
        return tuple(sorted((*self.voters, *self.learners)))

    def well_formed(self) -> bool:
        """Whether the lists are sorted, without repetition, disjoint, and somebody votes."""
        everyone = (*self.voters, *self.learners)
        return (
            bool(self.voters)
            and len(set(everyone)) == len(everyone)
            and list(self.voters) == sorted(self.voters)
            and list(self.learners) == sorted(self.learners)
        )

    def step_to(self, new: Membership) -> bool:
        """Whether ``new`` is at most one voter away; a new voter must have been a learner."""
        joined = set(new.voters) - set(self.voters)
        left = set(self.voters) - set(new.voters)
        return len(joined) + len(left) <= 1 and joined <= set(self.learners)

    def with_learner(self, replica: int) -> Membership:
        """The membership in which ``replica`` follows without a vote."""
        voters = tuple(each for each in self.voters if each != replica)
        return Membership(voters, tuple(sorted({*self.learners, replica})))

    def with_voter(self, replica: int) -> Membership:
        """The membership in which ``replica`` votes."""
        learners = tuple(each for each in self.learners if each != replica)
        return Membership(tuple(sorted({*self.voters, replica})), learners)

    def without(self, replica: int) -> Membership:
        """The membership without ``replica``."""
        return Membership(
            tuple(each for each in self.voters if each != replica),
            tuple(each for each in self.learners if each != replica),
        )


def encode(membership: Membership) -> bytes:
    """The payload of a log entry of kind MEMBERS."""
    return msgspec.msgpack.encode(membership)


def decode(payload: bytes) -> Membership:
    """Inverse of ``encode``; ``msgspec.ValidationError`` or ``DecodeError`` for anything else."""
    return msgspec.msgpack.decode(payload, type=Membership)
