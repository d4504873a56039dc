"""Durations and sizes as people write them, and the integers they stand for.

A quantity is a subclass of ``int`` that remembers how to write itself, so code computes with plain
nanoseconds and bytes while messages and files keep the units.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import ClassVar, Final, Self

_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)\s*")


class Quantity(int):
    """A whole number of the smallest unit, read and written with units."""

    units: ClassVar[dict[str, int]]
    """Unit to its worth in the smallest one, from small to large."""
    example: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The quantity that ``text`` names; ``ValueError`` says what was expected.

        Parts add up (``"1m30s"``), fractions are exact (``"1.5ms"``) and must come out whole.
        """
        position = 0
        total = Fraction(0)
        stripped = text.strip()
        while position < len(stripped):
            part = _PART.match(stripped, position)
            if part is None or part[2] not in cls.units:
                break
            total += Fraction(part[1]) * cls.units[part[2]]
            position = part.end()
        if not stripped or position < len(stripped) or total.denominator != 1:
            if stripped == "0":
                return cls(0)
            units = ", ".join(cls.units)
            raise ValueError(f'expected a number with a unit ({units}), such as "{cls.example}"')
        return cls(total.numerator)

    def __str__(self) -> str:
        """The shortest exact form: the largest unit that leaves a whole number."""
        for unit, worth in reversed(self.units.items()):
            if self and self % worth == 0:
                return f"{self // worth}{unit}"
        return f"{int(self)}{next(iter(self.units))}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}.parse({str(self)!r})"


class Duration(Quantity):
    """A span of time; the integer is nanoseconds."""

    units: ClassVar[dict[str, int]] = {
        "ns": 1,
        "us": 1_000,
        "ms": 1_000_000,
        "s": 1_000_000_000,
        "m": 60_000_000_000,
        "h": 3_600_000_000_000,
        "d": 86_400_000_000_000,
    }
    example: ClassVar[str] = "500ms"

    @property
    def seconds(self) -> float:
        """The span in seconds, as the event loop wants it."""
        return int(self) / 1_000_000_000


class Size(Quantity):
    """An amount of memory or disk; the integer is bytes."""

    units: ClassVar[dict[str, int]] = {
        "B": 1,
        "KiB": 1 << 10,
        "MiB": 1 << 20,
        "GiB": 1 << 30,
        "TiB": 1 << 40,
    }
    example: ClassVar[str] = "64MiB"
