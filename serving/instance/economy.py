"""Whether to fetch keys and values or to compute them: what both cost here, as measured.

Computing a block takes time that this worker knows from what it has computed; moving one takes time that it knows from
what it has moved over the same link. The bandwidth at which both take equally long is the *break-even* bandwidth:
over a slower link it is a loss to fetch, however well the cache is filled. It is a figure of the model and the
machine alone, and is published with the worker's metrics.

Both sides are estimates that follow what is observed, unless the rate of computing was stated; a link that nobody has
used yet is taken for one of the kind that its region suggests.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_WEIGHT: Final = 0.2
"""How much one observation moves an estimate."""


class Link(Struct):
    """What is known of the way to a peer: bytes a second, and seconds before the first of them comes."""

    bytes_per_s: float
    latency_s: float


NEAR: Final = Link(1e9, 0.002)
FAR: Final = Link(1e8, 0.15)
"""What a link inside a region, and one between two, is taken for before it was used."""


class Verdict(Struct, frozen=True):
    """What the model says of some blocks: seconds for either way."""

    fetch_s: float
    compute_s: float

    @property
    def fetches(self) -> bool:
        """Whether fetching is quicker."""
        return self.fetch_s < self.compute_s


class Economy:
    """See the module.

    page_bytes, page_tokens  of a block
    prefill_tokens_per_s     how fast prompts are computed, to begin with
    attention_s              for each pair of positions, beyond that
    learns                   the rate follows what is observed
    """

    def __init__(
        self,
        page_bytes: int,
        page_tokens: int,
        prefill_tokens_per_s: float,
        *,
        attention_s: float = 0.0,
        learns: bool = True,
    ) -> None:
        assert page_bytes > 0, page_bytes
        assert prefill_tokens_per_s > 0, prefill_tokens_per_s
        self._page_bytes = page_bytes
        self._page_tokens = page_tokens
        self._attention_s = attention_s
        self._learns = learns
        self._links: dict[str, Link] = {}
        self.prefill_tokens_per_s = prefill_tokens_per_s

    @property
    def break_even_bytes_per_s(self) -> float:
        """A link must be faster than this for fetching a long prefix to pay."""
        return self._page_bytes / self._page_tokens * self.prefill_tokens_per_s

    def link(self, peer: str, *, is_near: bool) -> Link:
        """What is known of the way to a peer."""
        known = self._links.get(peer)
        if known is None:
            kind = NEAR if is_near else FAR
            known = self._links[peer] = Link(kind.bytes_per_s, kind.latency_s)
        return known

    def judge(self, link: Link, blocks: int, behind: int) -> Verdict:
        """So many blocks, which follow on so many others: fetch or compute?"""
        tokens = blocks * self._page_tokens
        before = behind * self._page_tokens
        pairs = tokens * before + tokens * tokens / 2
        return Verdict(
            link.latency_s + blocks * self._page_bytes / link.bytes_per_s,
            tokens / self.prefill_tokens_per_s + self._attention_s * pairs,
        )

    def computed(self, tokens: int, took_s: float) -> None:
        """A prefill of so many tokens took so long; short ones say too little to be heard."""
        if self._learns and tokens >= 2 * self._page_tokens and took_s > 0:
            rate = tokens / took_s
            self.prefill_tokens_per_s += _WEIGHT * (rate - self.prefill_tokens_per_s)

    def fetched(self, link: Link, pages: int, asked_s: float, read_s: float) -> None:
        """So many pages came over a link: after a question of so long, in so long."""
        link.latency_s += _WEIGHT * (asked_s - link.latency_s)
        if pages and read_s > 0:
            # Means of times, not of rates: the time is what is paid.
            per_byte = read_s / (pages * self._page_bytes)
            link.bytes_per_s = 1 / ((1 - _WEIGHT) / link.bytes_per_s + _WEIGHT * per_byte)
