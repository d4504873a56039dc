"""What processes of the demo say to each other, and what they are told when they begin.

Times are of the machine's monotonic clock, ns, which all processes share.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from kv_pool.routing.cost import CostModel


class Setting(Struct, frozen=True, kw_only=True):
    """What a process is told on its standard input.

    name       of the process, such as ``fra/w1``
    listen     where it answers
    endpoint   the same, as others of its region dial it
    client     address of the store's nodes of its region
    journal    file for what it asks the store for
    namespace  digest of the prompts' namespace
    speed      how many times as fast as recorded everything goes
    """

    name: str
    region: str
    regions: tuple[str, ...]
    listen: str
    endpoint: str
    client: str
    journal: str
    namespace: bytes
    speed: float
    cost: CostModel
    ttl_s: float
    slots: int = 0
    policy: str = ""
    workers: dict[str, str] = {}


class Prompt(Struct, frozen=True, array_like=True):
    """One request: its number in the trace, when it comes, and what it is."""

    number: int
    at_ms: int
    tokens: int
    blocks: tuple[int, ...]
    session: str


# ------------------------------------------------------------------------------- conductor → router


class Begin(Struct, frozen=True, tag=1):
    """Take these prompts, each in its time, from `origin_ns` on."""

    origin_ns: int
    prompts: list[Prompt]


class Look(Struct, frozen=True, tag=2):
    """Tell what has happened since the last look."""


class Compare(Struct, frozen=True, tag=3):
    """Show everything up to a stamp, then compare the learner with a scan of the store."""

    at: int
    prompts: int


class Quiesce(Struct, frozen=True, tag=4):
    """Finish what is under way in the background."""


class Done(Struct, frozen=True, tag=5):
    """It was done."""


class Outcome(Struct, frozen=True, tag=6, kw_only=True):
    """What became of a prompt.

    worker    who served it; empty when nobody did
    known     blocks that the learner knew of, at whichever holder had most
    believed  blocks that the learner believed at the chosen worker, or at the one to fetch from
    claimed   blocks that the claim found
    denied    claims that were refused, or shorter than what was believed
    broken    claims and fetches that failed since somebody could not be reached
    local, fetched, computed, unkept  blocks; `unkept` found no room
    as_of     stamp of the learner's answer; it said to lag behind by `stale_ns` at most
    prefill_ns  how long the (simulated) prefill took, its queue included
    """

    number: int
    region: str
    worker: str
    arrived_ns: int
    matched_ns: int
    ended_ns: int
    as_of: int
    stale_ns: int
    match_ns: int
    known: int = 0
    believed: int = 0
    claimed: int = 0
    denied: int = 0
    broken: int = 0
    unclaimed: int = 0
    rerouted: int = 0
    local: int = 0
    fetched: int = 0
    far: bool = False
    computed: int = 0
    unkept: int = 0
    prefill_ns: int = 0


class Seen(Struct, frozen=True, tag=7, kw_only=True):
    """An answer to `Look`.

    acquires_ns  how long claims took, this region's workers; `far_acquires_ns` those elsewhere
    shown        of each region's feed: (moment, stamp up to which it is shown from then on)
    members      of every region: worker → (incarnation, whether it is live), as the learner says
    """

    outcomes: list[Outcome]
    acquires_ns: list[int]
    far_acquires_ns: list[int]
    shown: dict[str, list[tuple[int, int]]]
    members: dict[str, tuple[int, bool]]
    stale_s: float
    waiting: int
    done: bool
    failure: str = ""
    fenced: list[str] = []


class Shown(Struct, frozen=True, tag=8, kw_only=True):
    """An answer to `Compare`: rows and prompts that were looked at, and every difference."""

    rows: int
    prompts: int
    differences: list[str]
    at: int


# ------------------------------------------------------------------------------- router → worker


class Fetch(Struct, frozen=True):
    """Blocks to fetch first: from whom, at which address, from which place of the prompt on."""

    source: str
    address: str
    start: int
    blocks: int
    far: bool


class Serve(Struct, frozen=True, tag=9):
    """Serve a prompt: its names packed, its tokens, and what to fetch for it."""

    names: bytes
    tokens: int
    fetch: Fetch | None = None


class Served(Struct, frozen=True, tag=10, kw_only=True):
    """How a prompt was served; counts of blocks as in `Outcome`.

    churn_per_s  share of its blocks that the worker has lately evicted in a second
    """

    local: int
    fetched: int
    computed: int
    unkept: int
    broken: int
    prefill_ns: int
    churn_per_s: float


# ------------------------------------------------------------------------------- worker → worker


class Give(Struct, frozen=True, tag=11):
    """Give the pages of these blocks, from the first on as far as they are there."""

    names: bytes


class Pages(Struct, frozen=True, tag=12):
    """Pages in order."""

    pages: list[bytes]


# ------------------------------------------------------------------------------- conductor → worker


class Stock(Struct, frozen=True, tag=13):
    """Tell what you have."""


class Stocked(Struct, frozen=True, tag=14, kw_only=True):
    """An answer to `Stock`: blocks and free slots, evictions, what was fetched, and pages that were wrong."""

    incarnation: int
    blocks: int
    free: int
    evicted: int
    pinned: int
    fetched: int
    given: int
    wrong_pages: int
    publishing: int
    failure: str = ""


class Probe(Struct, frozen=True, tag=15):
    """Publish a block that no prompt has, and evict it."""


Message: TypeAlias = (
    Begin
    | Look
    | Compare
    | Quiesce
    | Done
    | Seen
    | Shown
    | Serve
    | Served
    | Give
    | Pages
    | Stock
    | Stocked
    | Probe
)
