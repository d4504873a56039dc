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
    "backup": Place("k2store.cli.backup:backup", "Write the store, as of one stamp, to a file."),
    "certificates": Place(
        "k2store.cli.certificates:certificates", "Make and show the certificates of a cluster."
    ),
    "clock": Place("k2store.cli.clock:clock", "Show the clock: source, bound, commit wait."),
    "config": Place("k2store.cli.config:config", "Show and check the settings in force."),
    "delete": Place("k2store.cli.delete:delete", "Delete a key."),
    "dev": Place("k2store.cli.dev:dev", "Run nodes to try things on, with a live table."),
    "doctor": Place("k2store.cli.doctor:doctor", "Examine this machine: versions, clock, disk."),
    "get": Place("k2store.cli.get:get", "Read a key, now or as of then."),
    "history": Place("k2store.cli.history:history", "Show the versions of a key over time."),
    "move": Place("k2store.cli.move:move", "Give a partition another leader."),
    "node": Place("k2store.cli.node:node", "Run a node, or drain one."),
    "put": Place("k2store.cli.put:put", "Write a key, under a condition if asked."),
    "regions": Place("k2store.cli.regions:regions", "Make and show the regions of a cluster."),
    "restore": Place("k2store.cli.restore:restore", "Write the rows of a backup to a store."),
    "scan": Place("k2store.cli.scan:scan", "Read the rows of a range, all at one stamp."),
    "split": Place("k2store.cli.move:split", "Let a new partition begin at a key."),
    "status": Place("k2store.cli.status:status", "Show what a node is doing and how full it is."),
    "txn": Place("k2store.cli.txn:txn", "Run a small script as one transaction."),
    "watch": Place("k2store.cli.watch:watch", "Follow the commits of a range."),
}

SUMMARIES: Final[Mapping[str, str]] = {
    "bench": "Measure on real processes, beside a peer if asked.",
    "chat": "Talk to a model that is served over the OpenAI API.",
    "check": "Run workloads under faults and judge their histories.",
    "demo": "The main job: block publishes and prefix reads against a node.",
    "fleet": "Run workers that share their pages, and the router before them.",
    "pool": "Look into the prompt tree and the block directory.",
    "serve": "Serve a model over the OpenAI API.",
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
