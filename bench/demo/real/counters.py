"""What processes say of themselves at ``/metrics``, over all their lives."""

from __future__ import annotations

import urllib.request
from typing import Final

SCRAPE_S: Final = 10.0

Figures = dict[str, float]
"""By name and labels, as they are written there."""


def scrape(address: str) -> Figures:
    """What a process says now. Raises `OSError` when it does not answer."""
    found: Figures = {}
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=SCRAPE_S) as page:
        for line in page.read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                found[name] = float(value)
    return found


class Counted:
    """Figures of a process that may end and begin anew: what an earlier life counted is not lost."""

    def __init__(self) -> None:
        self._before: Figures = {}
        self._now: Figures = {}

    def take(self, now: Figures) -> None:
        """What it says now."""
        for name, value in self._now.items():
            counts = name.partition("{")[0].endswith("_total")
            # A counter that has gone back counts for another life.
            if counts and now.get(name, 0.0) < value:
                self._before[name] = self._before.get(name, 0.0) + value
        self._now = now

    def sum(self, name: str, *said: str) -> float:
        """A figure, over labels that are not named: `said` is text such as ``by="tcp"``."""
        total = 0.0
        for figures in (self._before, self._now):
            for key, value in figures.items():
                if key.partition("{")[0] == name and all(one in key for one in said):
                    total += value
        return total

    def by_label(self, name: str, label: str) -> dict[str, int]:
        """A counter by the value of its label."""
        found: dict[str, int] = {}
        for figures in (self._before, self._now):
            for key, value in figures.items():
                if key.partition("{")[0] == name and value:
                    said = key.partition(f'{label}="')[2].partition('"')[0]
                    found[said] = found.get(said, 0) + int(value)
        return found
