"""From a store into a file: one scan at one stamp."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from k2store.backup.file import Header, Row, Writer
from truetime.timestamp import describe

if TYPE_CHECKING:
    from k2store.client.database import Database
    from k2store.client.ranges import KeyRange
    from k2store.client.snapshot import View


async def save(
    db: Database,
    view: View,
    where: KeyRange,
    path: Path,
    *,
    on_row: Callable[[int], None] = lambda size: None,
) -> Header:
    """Write the rows of a range, as the view shows them, to a file; gives the file's header.

    `on_row` is told the bytes of each row. The file appears under its name when it is whole; one
    that had the name before is replaced then.
    """
    with Writer(path) as writer:
        async for record in view.scan(where):
            writer.add(Row(record.key, record.value, record.version))
            on_row(len(record.key) + len(record.value))
        # A fresh view has taken its stamp with the first page.
        assert view.at, "a view that was read from has a stamp"
        welcome = db.welcome
        return writer.finish(
            Header(
                software=_software(),
                node=welcome.node,
                region=welcome.region,
                incarnation=welcome.incarnation.hex(),
                stamp=view.at,
                time=describe(view.at),
                start=where.start,
                end=where.end,
            )
        )


def _software() -> str:
    try:
        return version("k2store")
    except PackageNotFoundError:
        return "unknown"
