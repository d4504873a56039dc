"""The writes of one transaction, kept in the client until they travel.

They travel with the commit, or earlier when there are many. Until the end the transaction sees
its own writes through this buffer, on top of what the node shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store.client.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2store.client.ranges import KeyRange


def overlay(
    rows: Iterable[Record],
    layers: Iterable[dict[bytes, bytes | None]],
    covered: KeyRange,
    *,
    reverse: bool,
) -> list[Record]:
    """Rows of a page as the transaction sees them.

    `covered` is the part of the key space the page has looked at; `layers` are the transaction's
    writes, older first. Rows it has written itself carry version 0.
    """
    merged = {row.key: row for row in rows}
    for layer in layers:
        for key, value in layer.items():
            if covered.contains(key):
                if value is None:
                    merged.pop(key, None)
                else:
                    merged[key] = Record(key, value, 0)
    return [merged[key] for key in sorted(merged, reverse=reverse)]
