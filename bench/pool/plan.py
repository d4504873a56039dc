"""What the bench asks of its process of members, and what that answers: a JSON document a line."""

from __future__ import annotations

from msgspec import Struct

from bench.samples import Spread


class Publish(Struct, frozen=True, tag="publish"):
    """Publish the chains of the trace, again and again under new namespaces, for some time."""

    in_flight: int
    seconds: float
    warm_up_s: float


class Acquire(Struct, frozen=True, tag="acquire"):
    """Match prompts, claim what is held of them, and let go, for some time."""

    in_flight: int
    seconds: float
    warm_up_s: float


class Fence(Struct, frozen=True, tag="fence"):
    """Have a worker publish so many blocks and die, and fence it; so many times."""

    blocks: int
    times: int


class Warm(Struct, frozen=True, tag="warm"):
    """Have one worker publish every block of the trace, and open a learner on that."""


class Rate(Struct, frozen=True, tag="rate"):
    """One measurement at one number of requests in flight.

    per_s         publishes, or pairs of acquire and release, a second
    blocks_per_s  blocks that were published or claimed
    latency       of one publish or acquire, as the caller meets it
    commit_wait   the time for which the node held an answer for the clock alone
    server_us, client_us      CPU time of a unit, all threads
    server_busy, client_busy  share of a core that each process used
    others_cores  cores that other processes kept busy meanwhile
    """

    in_flight: int
    seconds: float
    count: int
    per_s: float
    blocks_per_s: float
    latency: Spread
    commit_wait: Spread
    server_us: float
    client_us: float
    server_busy: float
    client_busy: float
    others_cores: float


class Fenced(Struct, frozen=True, tag="fenced"):
    """Fences of workers with so many blocks: the time of each, and of it the wait for the clock.

    rows_written  by one fence
    granted       claims on blocks of the dead that were granted afterwards: none
    """

    blocks: int
    fence_ms: list[float]
    commit_wait_ms: list[float]
    rows_written: int
    granted: int


class Warmed(Struct, frozen=True, tag="warmed"):
    """From asking for a learner until it answers from everything that is there.

    orphans  blocks of prompts that it should find and does not
    """

    seconds: float
    blocks: int
    orphans: int


Request = Publish | Acquire | Fence | Warm
Answer = Rate | Fenced | Warmed
