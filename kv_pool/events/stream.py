"""A stream of numbered batches: what is missing is noticed, and nothing goes on silently.

A publisher numbers its batches from 0 and forgets old ones. A socket may drop some, and a publisher
that starts anew begins at 0 again::

                  next number                              replay is complete
    ┌───────────┐ ─────────▶ passes on      ┌───────────┐ ─────────▶ passes on what was held
    │ FOLLOWING │                           │ REPAIRING │
    └───────────┘ ─────────▶ a number is    └───────────┘ ─────────▶ forgets everything, then passes
          │        missing: suspect, hold        │        out of time, or no replay: the gap stays
          │                                      │
          └──── a smaller number: the publisher has started anew; a new life begins ────┘

While a gap is open the worker is *suspect*: matched, not claimed. A gap that stays means that nobody
knows what the engine still has, so its blocks are cleared, one row, and built up from new events: those
that were held, and before them what a replay still had of the time before.

This module knows numbers and payloads, not what is in them. Time is an argument.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from msgspec import Struct

HELD_MAX: Final = 10_000
"""How many batches are held while a gap is open: as many as an engine keeps for a replay."""
REPAIR_NS: Final = 5_000_000_000
"""How long a repair may take."""


class Mark(enum.Enum):
    """What a stream says beside the batches that it passes on.

    NEW_LIFE  the publisher has started anew: everything before is void
    SUSPECT   batches are missing
    FORGET    what was missing cannot be had: what is known of the engine is worth nothing
    SOUND     nothing is missing any more
    """

    NEW_LIFE = 1
    SUSPECT = 2
    FORGET = 3
    SOUND = 4


class Passed(Struct, frozen=True):
    """A batch in its turn."""

    sequence: int
    payload: bytes


Step = Mark | Passed


class Ready(Struct, frozen=True):
    """What to do, in order; and from which number on a replay is wanted, None for none."""

    steps: tuple[Step, ...]
    replay_from: int | None = None


class Stream:
    """One publisher's batches. `can_replay`: whether it offers replays.

    A stream may begin in the middle: what came before is a gap like any other.
    """

    def __init__(
        self, *, can_replay: bool, repair_ns: int = REPAIR_NS, held_max: int = HELD_MAX
    ) -> None:
        self._can_replay = can_replay
        self._repair_ns = repair_ns
        self._held_max = held_max
        self._next = 0
        self._held: deque[Passed] = deque()
        self._late: list[Passed] = []
        self._deadline_ns: int | None = None
        self._steps: list[Step] = []
        self._replay_from: int | None = None
        self.gaps = 0
        self.lives = 1

    @property
    def is_repairing(self) -> bool:
        """Whether a gap is open."""
        return self._deadline_ns is not None

    def receive(self, sequence: int, payload: bytes, now_ns: int) -> None:
        """A batch came from the live stream."""
        if sequence < 0:
            return
        last = self._held[-1].sequence if self._held else self._next - 1
        if sequence <= last:
            self._restart()
            last = -1
        if self._deadline_ns is not None:
            self._hold(Passed(sequence, payload))
            return
        if sequence == self._next:
            self._steps.append(Passed(sequence, payload))
            self._next = sequence + 1
            return
        self.gaps += 1
        self._steps.append(Mark.SUSPECT)
        self._deadline_ns = now_ns + self._repair_ns
        self._held.append(Passed(sequence, payload))
        if self._can_replay:
            self._replay_from = self._next
        else:
            self._give_up()

    def replayed(self, sequence: int, payload: bytes) -> None:
        """A batch came as part of a replay. One that leaves a gap is kept for when the gap stays."""
        if self._deadline_ns is None or sequence < self._next:
            return
        if sequence > self._next:
            self._keep_late(Passed(sequence, payload))
            return
        self._steps.append(Passed(sequence, payload))
        self._next = sequence + 1
        self._close_if_complete()

    def replay_ended(self) -> None:
        """No more will come of the replay."""
        if self._deadline_ns is not None:
            self._close_if_complete()
        if self._deadline_ns is not None:
            self._give_up()

    def tick(self, now_ns: int) -> None:
        """Time has passed."""
        if self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self._give_up()

    def ready(self) -> Ready:
        """What has gathered since the last call."""
        ready = Ready(tuple(self._steps), self._replay_from)
        self._steps.clear()
        self._replay_from = None
        return ready

    def _keep_late(self, batch: Passed) -> None:
        """A batch of a replay that does not reach back far enough."""
        if batch.sequence >= self._held[0].sequence:
            return
        if self._late and batch.sequence != self._late[-1].sequence + 1:
            self._late.clear()
        if len(self._late) < self._held_max:
            self._late.append(batch)

    def _restart(self) -> None:
        """The publisher has started anew; what it said before is void, a repair too."""
        self.lives += 1
        self._held.clear()
        self._late.clear()
        self._deadline_ns = None
        self._replay_from = None
        self._next = 0
        self._steps = [Mark.NEW_LIFE]

    def _hold(self, batch: Passed) -> None:
        self._held.append(batch)
        if len(self._held) > self._held_max:
            self._give_up()

    def _close_if_complete(self) -> None:
        """The gap before what is held is filled, where the next number is there."""
        while self._held and self._held[0].sequence < self._next:
            self._held.popleft()
        if self._held and self._held[0].sequence != self._next:
            return
        self._deadline_ns = None
        self._late.clear()
        self._steps.append(Mark.SOUND)
        self._release()

    def _give_up(self) -> None:
        """The gap stays."""
        self._steps.append(Mark.FORGET)
        self._steps.append(Mark.SOUND)
        self._deadline_ns = None
        self._replay_from = None
        if self._late and self._late[-1].sequence + 1 == self._held[0].sequence:
            self._held.extendleft(reversed(self._late))
        self._late.clear()
        self._next = self._held[0].sequence
        self._release()

    def _release(self) -> None:
        """Pass on what was held, up to the next hole in it: that one is known to be for good."""
        while self._held:
            batch = self._held.popleft()
            if batch.sequence != self._next:
                self.gaps += 1
                self._steps.append(Mark.FORGET)
            self._steps.append(batch)
            self._next = batch.sequence + 1
