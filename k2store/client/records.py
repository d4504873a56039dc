"""What the client hands out: rows, results and outcomes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Record(Struct, frozen=True, gc=False):
    """One row: its key, its value, and the stamp of the commit that wrote it."""

    key: bytes
    value: bytes
    version: int


class Version(Struct, frozen=True, gc=False):
    """One version of a key: the stamp of its commit, and None for a deletion."""

    at: int
    value: bytes | None


class Result(Struct, frozen=True):
    """What a one-shot transaction did.

    at        its stamp; the true time has certainly passed it
    values    the value of each key read, None where there is none
    versions  the stamp of each version read, 0 where there is none
    waited_ns how long the answer was held for the clock after it was durable
    """

    at: int
    values: tuple[bytes | None, ...] = ()
    versions: tuple[int, ...] = ()
    waited_ns: int = 0


class Outcome(Struct, frozen=True):
    """What became of a transaction; ``at`` is its stamp if it committed, else 0."""

    state: Literal["committed", "aborted", "unknown"]
    at: int = 0


class Write(Struct, frozen=True, gc=False):
    """One write of a one-shot transaction; None deletes."""

    key: bytes
    value: bytes | None
