"""What a worker takes of a machine's memory: its weights, which all workers map, and what it has for itself.

Two workers, short chats to one of them, each about something else, so that pages turn over: what is its own must not
grow with the requests that it has answered. A process touches its pages one after the other, so it grows until
each was used once: figures count from the first look, when all of them were, and the pool is small for that.

Sizes are the kernel's (``/proc/PID/smaps_rollup``). *Own* is what no other process has; what is resident beside it,
such as weights and libraries, is *mapped* by others, too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final, NamedTuple

from bench.serve.client import Message, ask
from bench.serve.fleet import Fleet, fleet
from bench.serve.part import Findings, Options, Table

MODEL: Final = "smollm2-135m-instruct"
MODEL_QUICK: Final = "toy"
REQUESTS: Final = 1000
REQUESTS_QUICK: Final = 100
LOOKS: Final = 10
"""How often it is looked, after as many requests each time."""
PAGES: Final = 48
ANSWER_TOKENS: Final = 2
REQUEST_SECONDS: Final = 0.4
WORKERS: Final = ("asked", "idle")
MEGABYTE: Final = 1 << 20

_THINGS: Final = ("apples", "bridges", "tides", "bees", "newspapers", "bread", "storks", "glass")
_PLACES: Final = ("Bergen", "Lagos", "Lima", "Osaka", "Perth", "Quito", "Riga", "Tunis")


class Look(NamedTuple):
    """A worker after some requests: bytes resident, and of those its own."""

    requests: int
    resident_bytes: int
    own_bytes: int

    @property
    def mapped_bytes(self) -> int:
        """Resident, and other processes' as well."""
        return self.resident_bytes - self.own_bytes


def measure(options: Options) -> Findings:
    """Look at a worker while it answers, and at its neighbour."""
    model = MODEL_QUICK if options.quick else MODEL
    step = (REQUESTS_QUICK if options.quick else REQUESTS) // LOOKS
    rng = random.Random(options.seed)
    with fleet(model, [(name, ["--pages", str(PAGES)]) for name in WORKERS]) as running:
        # Whose libraries and weights it has in common with the first, as it has used them itself.
        ask(running.workers["idle"], model, _chat(rng), ANSWER_TOKENS)
        looks = []
        for number in range(1, LOOKS + 1):
            options.begin(f"memory: {number * step} requests", step * REQUEST_SECONDS)
            for _ in range(step):
                ask(running.workers["asked"], model, _chat(rng), ANSWER_TOKENS)
            looks.append(look(running, "asked", number * step))
        idle = look(running, "idle", 1)
        evicted = int(running.counted("k2_worker_pages_evicted_total", only="asked"))
    return _findings(looks, idle, evicted)


def look(running: Fleet, name: str, requests: int) -> Look:
    """What the kernel says of a worker now."""
    process = running.processes[name].pid
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        kind, size, *_ = line.split()
        sizes[kind.removesuffix(":")] = int(size) * 1024
    return Look(requests, sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"])


def _chat(rng: random.Random) -> list[Message]:
    """A question that hardly anybody has asked before."""
    said = f"{rng.randrange(10**6)} {rng.choice(_THINGS)} in {rng.choice(_PLACES)}: how many?"
    return [{"role": "user", "content": said}]


def _findings(looks: list[Look], idle: Look, evicted: int) -> Findings:
    first, last = looks[0], looks[-1]
    document = {
        "workers": len(WORKERS),
        "pages": PAGES,
        "requests": last.requests,
        "pages_evicted": evicted,
        "looks": [one._asdict() for one in looks],
        "own_growth_bytes": last.own_bytes - first.own_bytes,
        "idle_worker": idle._asdict(),
    }
    rows = [
        (
            who,
            one.requests,
            *[
                f"{size / MEGABYTE:.1f}"
                for size in (one.resident_bytes, one.own_bytes, one.mapped_bytes)
            ],
        )
        for who, one in [*[("asked", one) for one in looks], ("idle", idle)]
    ]
    grown = (last.own_bytes - first.own_bytes) / MEGABYTE
    return Findings(
        {"memory": document},
        [
            Table(
                f"Memory of two workers, {PAGES} pages each: from request {first.requests} to {last.requests} "
                f"what is its own grew by {grown:.1f} MiB",
                ("worker", "requests", "resident MiB", "own", "mapped"),
                rows,
            )
        ],
    )
