"""What a run is to do."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from k2store.testing.wan import Kind

MODEL: Final = "smollm2-135m-instruct"
PROMPTS: Final = 60
"""Where nobody says how many: about a minute of two cores."""
BEGIN_S: Final = 55.0
"""Where nobody says how many, no conversation is begun so long after the first prompt: on a machine that is busy."""
TURN_S: Final = 20.0
"""Where nobody says how many, no turn is asked so long after that."""
WORKERS: Final = 1
WORKERS_MAX: Final = 4
LEASE_S: Final = 6.0
"""Of a worker: three of them share two cores with everything else."""
PAGES: Final = 768
"""Of a worker, of 16 tokens; enough for all that a run computes."""


class Plan(Struct, frozen=True, kw_only=True):
    """See the options of the verb.

    prompts        how many, all turns counted
    begin_s        no conversation is begun later than this, and no turn asked `TURN_S` later; None for no limit
    people         of each region, who ask at the same time
    think_s        between an answer and the next turn
    answer_tokens  longest answer
    samples        answers that are compared with those of a worker that keeps nothing
    """

    regions: tuple[str, ...]
    workers_per_region: int
    prompts: int
    begin_s: float | None
    faults: bool
    wan: Kind | Literal["auto"]
    seed: int
    people: int = 2
    think_s: float = 2.0
    answer_tokens: int = 16
    samples: int = 6

    @property
    def workers(self) -> list[str]:
        """Names of all workers."""
        return [
            f"{region}/w{number}"
            for region in self.regions
            for number in range(1, self.workers_per_region + 1)
        ]
