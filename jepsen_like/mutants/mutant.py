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
    visible: bool = True
    """Whether clients can see it: then the history alone must be able to tell."""
