"""What a part of `k2 bench serve` is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Begin = Callable[[str, float], None]
"""Told what begins, and about how many seconds it will take."""


class Table(NamedTuple):
    """Rows under columns, for people."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Options:
    """How much is measured.

    quick  a slice that takes seconds, of which only the counts mean something
    seed   of everything that is drawn
    """

    quick: bool
    seed: int
    begin: Begin


@dataclass
class Findings:
    """What a part has found.

    document  what it adds to the one object of --json, by key
    tables    the same for people, with more in it
    """

    document: dict[str, object] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def add(self, document: Mapping[str, object]) -> None:
        """Take more keys; each stands once."""
        assert not self.document.keys() & document.keys()
        self.document.update(document)
