"""What a run is to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from bench import trace as traces
from k2store.errors import Rejected
from k2store.testing.wan import Kind
from kv_pool.edge.trace import Request
from kv_pool.routing.cost import CostModel

REPLAY_S: Final = 40.0
"""For how long prompts come when nobody says how many."""
RATE_PER_S_MAX: Final = 60.0
"""How many prompts come in a second when nobody says how fast: what two cores carry with ease."""
RATE_PER_S_MIN: Final = 5.0
SYNC_SHARE: Final = 0.15
"""Fewer come where the disk, which all nodes share, would sync for more than this part of the time, counting
one sync a prompt; there are several."""
SPEED_MAX: Final = 10_000.0
WORKERS_MAX: Final = 8
"""Workers of a region."""
POLICY: Final = "cost-pull-stale"
TTL_S: Final = 3.0
"""A worker's lease."""
POOL_BLOCKS: Final = 2_000
"""Slots of a worker where nobody says how many: the default run evicts."""


class Plan(Struct, frozen=True, kw_only=True):
    """See the options of the verb.

    requests    prompts in the order of the trace
    pool_slots  of each worker
    speed       how many times as fast as recorded prompts come and prefills take
    """

    requests: list[Request]
    trace: str | None
    regions: tuple[str, ...]
    workers_per_region: int
    pool_blocks: int | None
    pool_slots: int
    speed: float
    faults: bool
    wan: Kind | Literal["auto"]
    seed: int
    cost: CostModel = CostModel()
    policy: str = POLICY

    @property
    def workers(self) -> list[str]:
        """Names of all workers."""
        return [
            f"{region}/w{number}"
            for region in self.regions
            for number in range(1, self.workers_per_region + 1)
        ]

    @property
    def replay_s(self) -> float:
        """How long prompts keep coming."""
        return self.requests[-1].timestamp / 1000 / self.speed


def prompts(file: Path | None, count: int | None, seed: int) -> list[Request]:
    """The first prompts of a trace, or of one that is made up; times count from the first. None: all."""
    if file is None:
        found = traces.generate(seed)[:count]
    else:
        try:
            found = list(traces.read(file, count))
        except ValueError as error:
            raise Rejected(str(error), field="trace") from None
    found = [one for one in found if one.hash_ids]
    if not found:
        raise Rejected(f"{file} holds no prompt", field="trace")
    first_ms = min([one.timestamp for one in found])
    return [
        Request(one.timestamp - first_ms, max(1, one.input_length), one.output_length, one.hash_ids)
        for one in sorted(found, key=lambda one: one.timestamp)
    ]


def rate_for(sync_s: float) -> float:
    """How many prompts come in a second where the disk takes so long for a sync."""
    return max(RATE_PER_S_MIN, min(RATE_PER_S_MAX, SYNC_SHARE / sync_s))


def speed_for(requests: Sequence[Request], rate_per_s: float) -> float:
    """The speed at which so many prompts come in a second."""
    span_s = requests[-1].timestamp / 1000
    return min(SPEED_MAX, max(1.0, span_s * rate_per_s / len(requests)))


def in_time(requests: Sequence[Request], speed: float) -> list[Request]:
    """The prompts that come within `REPLAY_S`, and the first in any case."""
    end_ms = REPLAY_S * 1000 * speed
    return [one for one in requests if one.timestamp <= end_ms]


def slots_for(requests: Sequence[Request], pool_blocks: int | None) -> int:
    """Slots of a pool; one without limit has room for every block of the trace."""
    if pool_blocks is not None:
        return pool_blocks
    return len({block for request in requests for block in request.hash_ids})
