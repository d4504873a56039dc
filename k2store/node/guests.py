"""Services of packages above the store that a node serves on its own port, beside the store.

A node knows them by the names of entry points in the group ``k2.services`` only, and only those that
``node.services`` asks for are imported. What each of their methods needs of its caller stands with all others in
`k2store.rpc.gate`. A guest talks to the store as any client in this process does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, Protocol

from k2store.errors import Rejected

if TYPE_CHECKING:
    import grpc.aio

    from k2store.client.database import Database

GROUP: Final = "k2.services"

Regions = Callable[[], Sequence[str]]
"""The regions of the cluster, as the node knows them at the moment."""


class Guest(AbstractAsyncContextManager[object], Protocol):
    """A service; inside ``async with`` it works, whether or not the store answers yet."""

    @property
    def service(self) -> str:
        """Its full name on the wire."""
        ...

    def add(self, server: grpc.aio.Server) -> None:
        """Let a server serve it."""
        ...


def invited(names: str, database: Database, region: str, regions: Regions) -> list[Guest]:
    """The guests that a setting names, comma between; `Rejected` for one that nobody offers."""
    wanted = [name for word in names.split(",") if (name := word.strip())]
    if not wanted:
        return []
    offered = {one.name: one for one in entry_points(group=GROUP)}
    return [_make(offered, name, database, region, regions) for name in dict.fromkeys(wanted)]


def _make(
    offered: dict[str, EntryPoint], name: str, database: Database, region: str, regions: Regions
) -> Guest:
    point = offered.get(name)
    if point is None:
        known = ", ".join(sorted(offered)) or "none"
        raise Rejected(
            f"node.services: nobody offers a service {name!r}; there are: {known}",
            field="node.services",
        )
    guest: Guest = point.load()(database, region, regions)
    return guest
