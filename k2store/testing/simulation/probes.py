"""Probes and sabotage: what a run has reached, and what it is made to stumble over.

A *probe* counts that something happened. All probes are declared in one table, so a probe that
disappears is seen in review, and a swarm of runs in which a declared probe stays at zero has
tested less than it claims.

*Buggify* is asked by code at places where something rare but legal may happen: a batch of one, an
early time-out, a forced retry. For each run a quarter of the places is armed; an armed one says
yes with the probability it names.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from k2store.testing.simulation.randomness import stream

ARMED_SHARE: Final = 0.25

SIMULATOR_PROBES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "clock.frozen": "a reading of a clock that stands still",
        "clock.outside_bound": "an interval that did not contain true time",
        "clock.stepped": "a clock was set forward or back",
        "clock.widened": "an interval was stretched so that it stays true",
        "disk.create_failed_full": "a file could not be made: the disk is full",
        "disk.flipped": "a stored bit changed",
        "disk.lost_write": "a power cut lost a write that was not synced",
        "disk.lost_name": "a power cut undid a rename, creation or removal that was not synced",
        "disk.misdirected": "a write went to the wrong place",
        "disk.read_failed": "a read failed",
        "disk.sync_failed": "a sync failed",
        "disk.sync_failed_lost": "what a failed sync covered was gone after the restart",
        "disk.torn_write": "a power cut kept a part of a write",
        "network.connect_refused": "nobody listened",
        "network.connect_timed_out": "a connection was given up for lack of an answer",
        "network.cut_stopped": "a cut stopped an arrival",
        "network.datagram_doubled": "a datagram arrived twice",
        "network.datagram_lost": "a datagram was lost",
        "network.datagram_overtaken": "a datagram arrived after later ones",
        "network.reset_by_reborn": "a restarted machine reset a stream it did not know",
        "network.send_queue_full": "a sender was refused because its peer does not keep up",
        "network.silence_reset": "a keep-alive ended a stream",
        "network.window_lost": "a stream ended and lost frames under way",
        "process.crashed_itself": "a process ended itself at a crash point",
        "process.killed": "a process was killed",
        "process.paused": "a process stood still",
        "process.power_cut": "a machine lost its power",
        "process.woke_late": "a process woke with callbacks that had come due meanwhile",
    }
)
"""What the simulator itself can do to a run: name to meaning."""


class Probes:
    """Counts of one run."""

    def __init__(self, declared: Mapping[str, str]) -> None:
        """`declared` maps every probe's name to its meaning."""
        self.counts: dict[str, int] = dict.fromkeys(declared, 0)

    def hit(self, name: str) -> None:
        """Count one occurrence; KeyError if the name is not declared."""
        self.counts[name] += 1

    def missed(self) -> list[str]:
        """Declared probes that never were hit, sorted."""
        return sorted(name for name, count in self.counts.items() if count == 0)


class Buggify:
    """Whether to stumble, place by place."""

    def __init__(self, seed: int, armed_share: float = ARMED_SHARE) -> None:
        self.enabled = True
        """Cleared for the phase in which the system must recover."""
        self.fired: dict[str, int] = {}
        """How often each armed place has said yes."""
        self._seed = seed
        self._armed_share = armed_share
        self._places: dict[str, tuple[bool, random.Random]] = {}

    def __call__(self, place: str, probability: float = 0.25) -> bool:
        """True if the code at this place should do the rare thing now."""
        known = self._places.get(place)
        if known is None:
            chance = stream(self._seed, "buggify", place)
            known = self._places[place] = (chance.random() < self._armed_share, chance)
        armed, chance = known
        if not (armed and self.enabled and chance.random() < probability):
            return False
        self.fired[place] = self.fired.get(place, 0) + 1
        return True
