"""When a failed transaction is tried again: a plan without clock, sleep or loop.

`retries` is a generator that is driven by whoever runs the attempts: it is sent each failure
with the time it was met, and yields how long to pause before the next attempt. It returns when
there shall be none, because the failure is not of that kind or because the budget is spent. The
same plan serves coroutines, threads and simulated time.

What a failure permits is its own property (`K2Error.retry`):

    NOW       lost to somebody else: the first retry goes at once, later ones after a jittered,
              doubling pause from 10 ms, so that contenders move apart
    LATER     nobody can serve this now: from 20 ms, or when the failure says so
    RESOLVE   the outcome must be learned first; that is done before the plan is asked, so here
              it means that it could not be learned, and no retry is safe
    NEVER, CALLER   no retry
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from msgspec import Struct

from k2store.errors import K2Error, Retry


class Rng(Protocol):
    """Where jitter and names come from; `random.Random` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def getrandbits(self, bits: int, /) -> int:
        """A non-negative integer below ``2**bits``."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """A budget of attempts and the pauses between them.

    attempts_max     most attempts, the first included
    now_s, now_max_s      first and longest pause after a failure of class NOW, seconds
    later_s, later_max_s  the same for class LATER
    """

    attempts_max: int = 20
    now_s: float = 0.01
    now_max_s: float = 0.2
    later_s: float = 0.02
    later_max_s: float = 1.0


class Failed(Struct, frozen=True):
    """A failure, and the loop time at which it was met, seconds."""

    error: K2Error
    at_s: float


def retries(policy: RetryPolicy, deadline_s: float, rng: Rng) -> Generator[float, Failed, None]:
    """Yield the pause before each further attempt, in seconds; return when there is none.

    Prime it with `next`; the first value means nothing. No attempt is offered that would begin
    at or after `deadline_s`.
    """
    failed = yield 0.0
    for attempt in range(1, policy.attempts_max):
        pause_s = _pause_s(policy, failed.error, attempt, rng)
        if pause_s is None or failed.at_s + pause_s >= deadline_s:
            return
        failed = yield pause_s


def _pause_s(policy: RetryPolicy, error: K2Error, attempt: int, rng: Rng) -> float | None:
    match error.retry:
        case Retry.NOW:
            if attempt == 1:
                pause_s = 0.0
            else:
                pause_s = min(policy.now_max_s, policy.now_s * 2.0 ** (attempt - 2))
        case Retry.LATER:
            pause_s = min(policy.later_max_s, policy.later_s * 2.0 ** (attempt - 1))
        case _:
            return None
    pause_s *= 0.5 + rng.random()
    asked_s: object = getattr(error, "retry_after_s", None)
    return max(pause_s, asked_s) if isinstance(asked_s, float) else pause_s
