"""Keyspaces that a pool over several regions needs: what changes in one transaction has one home.

::

    d/<region>/  workers of a region, their runs and claims    at home there, survives a zone
    o/<region>/  moves that end there                          at home there: a move lands in one transaction
    q/<region>/  bytes of tenants that nobody was granted yet  at home there: a worker takes its own
    n/ p/        namespaces, and owners of precious runs       survive the loss of a region

A store of one region needs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

import k2store
from kv_pool import keys

KINDS: Final = (("workers", keys.WORKERS), ("moves", keys.TASKS), ("quotas", keys.QUOTAS))
"""What a region keeps by itself: the second part of the keyspace's name, and how its keys begin."""
DEFAULT: Final = "default"


class Keyspace(Struct, frozen=True):
    """A keyspace, as `k2 regions init` makes it; the default one has no prefix."""

    name: str
    prefix: str
    survive: Literal["zone", "region"]
    home: str

    def word(self) -> str:
        """For ``k2 regions init --keyspace``."""
        parts = (self.name, self.prefix, self.survive, self.home)
        return ":".join(part for part in parts if part)


def keyspaces(regions: Sequence[str]) -> list[Keyspace]:
    """The keyspaces of a pool over these regions; the first one is the home of what survives any of them.

    `Rejected` for names that cannot stand in a key.
    """
    try:
        names = [keys.check_name(region) for region in dict.fromkeys(regions)]
    except ValueError as error:
        raise k2store.Rejected(str(error), field="region") from None
    if not names:
        raise k2store.Rejected("a pool has at least one region", field="region")
    own = [
        Keyspace(f"{region}-{kind}", f"{prefix.decode()}{region}/", "zone", region)
        for region in names
        for kind, prefix in KINDS
    ]
    return [Keyspace(DEFAULT, "", "region" if len(names) > 2 else "zone", names[0]), *own]
