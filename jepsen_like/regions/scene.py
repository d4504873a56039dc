"""The cluster of a run: nodes apart, disks whose power can be cut, clocks that can be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from k2store.testing.cluster import LocalCluster, local_cluster
from k2store.testing.disk_image import DiskImage, open_disks

REGIONS: Final = ("fra", "iad", "sin")
BOUND_NS: Final = 8_000_000
"""Width of every clock's interval: wide enough for an offset inside it to be measured."""
IMAGE_BYTES: Final = 192 << 20
_SETTINGS: Final[Mapping[str, Any]] = {
    "clock__source": "file",
    "clock__bound": f"{BOUND_NS}ns",
    "clock__bound_max": "12ms",
    "clock__ahead_max": "20ms",
    # Small, so that logs reach for new files while a disk is full.
    "storage__segment": "1MiB",
    "storage__write_buffer": "1MiB",
}


class Scene(NamedTuple):
    """A cluster that runs.

    disks     of the nodes, by name; empty where there can be none
    disks_why  why there are none
    """

    cluster: LocalCluster
    disks: Mapping[str, DiskImage]
    disks_why: str


@contextmanager
def scene(
    regions: Sequence[str] = REGIONS,
    nodes_per_region: int = 3,
    *,
    folder: Path | None = None,
    images: Path | None = None,
    **settings: Any,
) -> Iterator[Scene]:
    """A cluster for a run.

    folder  keeps settings and logs of the nodes; a temporary one unless given
    images  where the disks' images lie; in memory unless given
    """
    names = [
        f"{region}-{number}" for region in regions for number in range(1, nodes_per_region + 1)
    ]
    with ExitStack() as stack:
        disks: Mapping[str, DiskImage] = {}
        why = ""
        try:
            disks = stack.enter_context(open_disks(names, folder=images, size_bytes=IMAGE_BYTES))
        except OSError as error:
            why = str(error)
        cluster = stack.enter_context(
            local_cluster(
                regions,
                nodes_per_region=nodes_per_region,
                apart="nodes",
                path=folder,
                disks=next(iter(disks.values())).path.parent if disks else None,
                **{**_SETTINGS, **settings},
            )
        )
        yield Scene(cluster, disks, why)
