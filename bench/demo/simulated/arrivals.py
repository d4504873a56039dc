"""Which prompt comes to which region.

No published trace says where prompts come from. So conversations are given homes by a hash of their first block behind
the one that all prompts share, and one prompt in `ROAMING` comes to the next region instead: somebody travels, or
another region has taken over. All regions share one clock of arrivals.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from bench.demo.simulated.messages import Prompt
from kv_pool.edge.trace import Request

ROAMING: Final = 10


def arrivals(requests: Sequence[Request], regions: Sequence[str]) -> dict[str, list[Prompt]]:
    """The prompts of each region, in order."""
    found: dict[str, list[Prompt]] = {region: [] for region in regions}
    for number, request in enumerate(requests):
        session = request.hash_ids[min(1, len(request.hash_ids) - 1)]
        home = zlib.crc32(b"session %d" % session)
        away = zlib.crc32(b"prompt %d" % number) % ROAMING == 0
        region = regions[(home + away) % len(regions)]
        found[region].append(
            Prompt(number, request.timestamp, request.input_length, request.hash_ids, str(session))
        )
    return found
