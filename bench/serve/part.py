"""What a part of `k2 bench serve` is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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

    quick    a slice that takes seconds, of which only the counts mean something
    seed     of everything that is drawn
    records  a folder where long parts keep what they have found, and go on from it; None: nowhere
    """

    quick: bool
    seed: int
    begin: Begin
    records: Path | None = None


@dataclass
class Findings:
    """What a part has found.

    document     what it adds to the one object of --json, by key
    tables       the same for people, with more in it
    interrupted  whether that is of a part of what was to be measured, since somebody wants no more
    """

    document: dict[str, object] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    interrupted: bool = False

    def add(self, document: Mapping[str, object]) -> None:
        """Take more keys; each stands once."""
        assert not self.document.keys() & document.keys()
        self.document.update(document)
