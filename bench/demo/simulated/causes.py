"""Why blocks were computed again that an endless cache which knows everything at once would have had.

Every block is computed once; whatever is computed after that is short of the ideal, and for each such block there is
one reason, found from what the learner knew when the prompt was matched and from the journals::

    known to the learner      refused     a claim or a fetch of it failed, or the worker was lost
                              cheaper     the policy took computing for quicker than waiting or fetching
    not known to it           unseen      published in the same region, and not shown here yet
                              far         published in another region, and not shown here yet
                              evicted     it was there, and had to make room
                              lost        it was there, and died with its worker
                              computing   the prompt that computes it first had not published it yet
                              unkept      that one found no room for it, or could not publish it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.demo.simulated.messages import Outcome
from bench.demo.timeline import Copy, Timeline
from kv_pool.blocks import NAME_BYTES
from kv_pool.edge.trace import Namer, Request

CAUSES: Final = {
    "computing": "computed by an earlier prompt at that moment, not published yet (concurrency)",
    "unseen": "published in the region, not shown by its learner yet",
    "far": "published in another region, not shown here yet (WAN)",
    "cheaper": "known, and taken for quicker to compute than to wait for or fetch",
    "evicted": "evicted for lack of room",
    "unkept": "never published: no room, or a publish that was refused",
    "lost": "lost with a worker that was killed",
    "refused": "known, and a claim or a fetch failed (phantoms and faults)",
}


def ideal_of(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> int:
    """Blocks that an endless cache would have hit over the prompts that were served."""
    references = 0
    distinct: set[int] = set()
    for outcome in outcomes:
        blocks = requests[outcome.number].hash_ids
        references += len(blocks)
        distinct.update(blocks)
    return references - len(distinct)


def causes(
    requests: Sequence[Request], outcomes: Sequence[Outcome], timeline: Timeline
) -> dict[str, int]:
    """Blocks that were computed again, by cause."""
    namer = Namer()
    found = dict.fromkeys(CAUSES, 0)
    computed: set[bytes] = set()
    for outcome in sorted(outcomes, key=lambda one: one.ended_ns):
        names = namer.names_of(requests[outcome.number].hash_ids)
        blocks = len(names) // NAME_BYTES
        for place in range(blocks - outcome.computed, blocks):
            name = names[place * NAME_BYTES : (place + 1) * NAME_BYTES]
            if name in computed:
                found[_cause(outcome, place, timeline.copies.get(name, []))] += 1
            computed.add(name)
    return found


def _cause(outcome: Outcome, place: int, copies: list[Copy]) -> str:
    if place < outcome.known:
        troubled = outcome.denied or outcome.broken or outcome.rerouted
        return "refused" if troubled else "cheaper"
    at_ns = outcome.matched_ns
    there = [copy for copy in copies if copy.since_ns <= at_ns < copy.until_ns]
    if there:
        near = any(copy.worker.startswith(f"{outcome.region}/") for copy in there)
        return "unseen" if near else "far"
    before = [copy for copy in copies if copy.since_ns <= at_ns]
    if before:
        return max(before, key=lambda copy: copy.until_ns).gone
    return "computing" if copies else "unkept"
