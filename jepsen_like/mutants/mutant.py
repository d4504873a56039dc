"""What a mutant is: which rule it breaks, by which changes to which sources, and where it shows."""

from __future__ import annotations

import enum

import msgspec


class Stage(enum.StrEnum):
    """Where a mutant is run."""

    NODE = "node"
    """Seeds of one node."""
    CLUSTER = "cluster"
    """Seeds of regions of nodes."""
    CONTESTED = "contested"
    """Seeds of regions whose leads are contested, and whose clocks are far apart."""
    POOL = "pool"
    """Seeds of a pool of KV blocks."""
    SCRIPTS = "scripts"
    """Golden scripts, models and tests, from a checkout of the project."""


class Change(msgspec.Struct, frozen=True):
    """One passage of one module, and what stands there instead."""

    module: str
    old: str
    new: str


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """The store with one rule left out."""

    name: str
    rule: str
    """What is broken, and the place in docs/protocol.md, docs/replication.md or docs/kv_pool.md that asks for it."""
    changes: tuple[Change, ...]
    stages: tuple[Stage, ...]
    """Where to look, in this order, until it is caught."""
    workloads: tuple[str, ...] = ()
    """Seeds run only these; empty: whatever each seed draws."""
    scripts: tuple[str, ...] = ()
    """For `Stage.SCRIPTS`: what pytest is to run, from the root of the project."""
    asserts: bool = True
    """False: on seeds the store runs without its own assertions, which would end it before a client sees
    anything."""
    unseen: str = ""
    """Why what clients see does not tell, where it does not; elsewhere it alone must be able to."""

    @property
    def visible(self) -> bool:
        """Whether an anomaly shows in the histories of clients."""
        return not self.unseen
