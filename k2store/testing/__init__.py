"""Tools for testing what is built on K2store, and K2store itself.

::

    with k2store.testing.local_node() as node:  # a node process of its own, a fresh folder
        with node.blocking() as db:
            ...
    async with k2store.testing.local_node() as node:  # the same in async code
        async with node.connect() as db:
            ...
    with k2store.testing.local_cluster(("fra", "iad", "sin")) as cluster:
        ...  # nodes in emulated regions, and faults for them
    with k2store.testing.embedded() as db:
        ...  # the engine in this process, real storage

``k2store.testing.plugin`` gives pytest the fixtures ``k2_node``, ``k2_db`` and ``k2_blocking_db``;
it is found by itself where k2store is installed. ``k2store.testing.simulation`` is the deterministic
simulator in which K2store tests itself. See docs/testing.md.

A node needs the ``server`` extra. Importing this package imports none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2store.testing.cluster import LocalCluster as LocalCluster
    from k2store.testing.cluster import local_cluster as local_cluster
    from k2store.testing.embedded import embedded as embedded
    from k2store.testing.local import LocalNode as LocalNode
    from k2store.testing.local import local_node as local_node

_HOMES = {
    "LocalCluster": "cluster",
    "LocalNode": "local",
    "embedded": "embedded",
    "local_cluster": "cluster",
    "local_node": "local",
}

__all__ = ["LocalCluster", "LocalNode", "embedded", "local_cluster", "local_node"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'k2store.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"k2store.testing.{home}"), name)
    globals()[name] = value
    return value
