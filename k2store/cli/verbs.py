"""The table of verbs: where each is, and what the list of verbs says of it.

The text stands here so that listing the verbs imports none of them. A verb of this package is one
line in :data:`VERBS`; a verb of another package is an entry point of the group ``k2.commands``, and
:data:`SUMMARIES` may hold its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Final, NamedTuple

GROUP: Final = "k2.commands"


class Place(NamedTuple):
    """Where a verb is (``module:object``) and one line on what it does."""

    target: str
    summary: str


VERBS: Final[Mapping[str, Place]] = {
    "clock": Place("k2store.cli.clock:clock", "Show the clock: source, bound, commit wait."),
    "config": Place("k2store.cli.config:config", "Show and check the settings in force."),
    "dev": Place("k2store.cli.dev:dev", "Run a node to try things on, with a table of rates."),
    "doctor": Place("k2store.cli.doctor:doctor", "Examine this machine: versions, clock, disk."),
    "node": Place("k2store.cli.node:node", "Run a node, or drain one."),
    "status": Place("k2store.cli.status:status", "Show what a node is doing and how full it is."),
}

SUMMARIES: Final[Mapping[str, str]] = {
    "bench": "Measure on real processes, beside a peer if asked.",
    "check": "Run workloads under faults and judge their histories.",
    "demo": "The main job: block publishes and prefix reads against a node.",
    "pool": "Look into the prompt tree and the block directory.",
    "serve": "Run a serving worker.",
}


def places() -> dict[str, Place]:
    """Every verb by name; a verb of this package cannot be replaced by an entry point."""
    found = {
        entry.name: Place(
            entry.value,
            SUMMARIES.get(entry.name, f"From the package {entry.value.partition('.')[0]}."),
        )
        for entry in entry_points(group=GROUP)
    }
    return found | dict(VERBS)
