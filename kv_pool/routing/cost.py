"""What work costs: a stated model, to be fitted to the machines it stands for.

Prefill of ``n`` tokens of which ``c`` are cached takes ::

    base + linear * (n - c) + attention * (n² - c²) / 2

where the last term counts the pairs of positions that new tokens look at. Pulling blocks takes their bytes over the
bandwidth, and a latency. The idea to choose by the sum of what waits and what is new, and to pull only
where that is quicker than computing, is MemServe's (Hu et al., 2024).
"""

from __future__ import annotations

from msgspec import Struct


class CostModel(Struct, frozen=True, kw_only=True):
    """Seconds, tokens and bytes. The defaults stand for no machine in particular: a model of some 70
    billion weights at 10,000 tokens a second, whose attention costs as much as all else at 53,000.

    base_s                of a prefill, whatever its length
    linear_s              for each token computed
    attention_s           for each pair of positions
    block_tokens          tokens of a block
    block_bytes           bytes of a block, all layers
    pull_bytes_per_s      from one worker to another of the same region
    pull_latency_s        before the first byte comes
    far_bytes_per_s       from a worker of another region, and `far_latency_s` before that
    """

    base_s: float = 0.010
    linear_s: float = 0.0001
    attention_s: float = 3.77e-9
    block_tokens: int = 512
    block_bytes: int = 512 * 131_072
    pull_bytes_per_s: float = 12.5e9
    pull_latency_s: float = 0.002
    far_bytes_per_s: float = 1.25e9
    far_latency_s: float = 0.1

    def prefill_s(self, tokens: int, cached_blocks: int) -> float:
        """How long a prefill takes; its last token is computed in any case."""
        cached = min(cached_blocks * self.block_tokens, tokens - 1)
        pairs = (tokens * tokens - cached * cached) / 2
        return self.base_s + self.linear_s * (tokens - cached) + self.attention_s * pairs

    def pull_s(self, blocks: int, *, far: bool = False) -> float:
        """How long blocks travel; `far`: from another region."""
        size = blocks * self.block_bytes
        if far:
            return self.far_latency_s + size / self.far_bytes_per_s
        return self.pull_latency_s + size / self.pull_bytes_per_s
