"""What regions say to each other about the home of one partition: plain values, as msgpack.

Any of them may be lost, repeated, delayed or overtaken. Their tags follow those of
:mod:`replication.messages`, so that one stream may carry both.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class HomeRenew(Struct, frozen=True, gc=False, array_like=True, tag=20):
    """From a leader at home: promise another lease to this incarnation of the home."""

    incarnation: int
    sender: int


class HomeRenewed(Struct, frozen=True, gc=False, array_like=True, tag=21):
    """The sender joins no promotion until ``end_ns``, counted on its own clock."""

    incarnation: int
    sender: int
    end_ns: int


class HomeStop(Struct, frozen=True, gc=False, array_like=True, tag=22):
    """From a candidate: promise nothing to lower incarnations any more, and say what you have."""

    incarnation: int
    sender: int


class HomeStopped(Struct, frozen=True, gc=False, array_like=True, tag=23):
    """That is durable; ``end_ns`` is the largest end the sender may ever have promised."""

    incarnation: int
    sender: int
    end_ns: int


class HomeFenced(Struct, frozen=True, gc=False, array_like=True, tag=24):
    """Refused: the sender is bound to ``incarnation``, which is later."""

    incarnation: int
    sender: int


HomeMessage: TypeAlias = HomeRenew | HomeRenewed | HomeStop | HomeStopped | HomeFenced


class HomeSend(Struct, frozen=True, gc=False):
    """A message and the replica it goes to."""

    to: int
    message: HomeMessage
