"""Where a worker is and what it does, as its row in the directory says it.

The row has a list of addresses (`kv_pool.records.Id.endpoints`). Those of pages are as the transports write them;
that of the HTTP interface says the role as well: ``http://10.0.0.7:8000/?role=decode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

import k2store
from kv_pool.keys import Worker
from kv_pool.records import Id, State
from serving.instance.steps import Role


class Place(Struct, frozen=True):
    """Role, HTTP address as ``host:port`` (empty for none), and addresses of pages."""

    role: Role
    http: str
    pages: tuple[str, ...]

    def endpoints(self) -> tuple[str, ...]:
        """For the worker's row."""
        return (f"http://{self.http}/?role={self.role}", *self.pages)


def place_of(identity: Id | None) -> Place | None:
    """What a row says; None for a worker that takes nothing, or says nothing of the kind."""
    if identity is None or identity.state == State.FENCED or identity.suspect:
        return None
    return parse(identity.endpoints)


def parse(endpoints: Sequence[str]) -> Place | None:
    """What a list of addresses says; None where no role is among them."""
    for endpoint in endpoints:
        try:
            parts = urlsplit(endpoint)
            said = parse_qs(parts.query).get("role", [])
        except ValueError:
            continue
        if parts.scheme == "http" and len(said) == 1 and said[0] in Role.__members__.values():
            pages = tuple([other for other in endpoints if other != endpoint])
            return Place(Role(said[0]), parts.netloc, pages)
    return None


def worker_named(name: str) -> Worker:
    """The worker of ``region/name``; `k2store.Rejected` for what names none."""
    region, _, own = name.partition("/")
    try:
        return Worker(region, own)
    except ValueError as error:
        raise k2store.Rejected(str(error), field="worker") from None
