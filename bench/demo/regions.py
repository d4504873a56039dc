"""The store of a run: one node a region, with each region's part of the directory at home there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.testing.wan import Kind

ORDER: Final = ("fra", "iad", "sin", "nrt", "gru", "pdx", "bom", "lhr", "syd")
"""Regions in the order in which they are taken."""
CLOCK_BOUND: Final = "500us"
CLOSE_INTERVAL: Final = "100ms"


def cluster(regions: Sequence[str], wan: Kind | Literal["auto"], folder: Path) -> LocalCluster:
    """Nodes as processes, for ``with``; their data lie in `folder`."""
    others = regions[min(1, len(regions) - 1)]
    return local_cluster(
        regions,
        wan=wan,
        tls=False,
        path=folder / "regions",
        keyspaces=(
            *[f"{region}:d/{region}/:zone:{region}" for region in regions],
            # At home where no control plane is, so that a fault there shows a takeover.
            f"default:region:{others}",
        ),
        clock__bound=CLOCK_BOUND,
        cluster__close_interval=CLOSE_INTERVAL,
        storage__sync=True,
    )
