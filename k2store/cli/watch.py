"""`k2 watch`: the commits of a range as they happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from k2store.cli.reach import (
    KEY,
    STAMP,
    StoreVerb,
    chosen_range,
    database,
    shown,
    stamp_fields,
    text_of,
)
from k2store.cli.verb import output
from truetime.timestamp import describe

if TYPE_CHECKING:
    from k2store.client.watch import Changes


@click.command("watch", cls=StoreVerb)
@click.argument("prefix", type=KEY, required=False)
@click.option("--start", type=KEY, metavar="KEY", help="First key, instead of a prefix.")
@click.option("--end", type=KEY, metavar="KEY", help="The key before which to stop.")
@click.option("--since", type=STAMP, metavar="STAMP|TIME", help="Begin after then, not now.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="End after so many commits.")
@click.option(
    "--resolved", is_flag=True, help="Also print the stamps up to which nothing more will come."
)
async def watch(
    *,
    prefix: bytes | None,
    start: bytes | None,
    end: bytes | None,
    since: int | None,
    limit: int | None,
    resolved: bool,
) -> None:
    """Print the commits of PREFIX, or from --start to --end, in the order of their stamps.

    Each commit is whole, and none is left out or repeated: `--since` with the last stamp printed
    goes on where another run has ended. With --json, an object a line and commit.
    """
    from k2store.client.watch import Changes

    where = chosen_range(prefix, start, end)
    seen = 0
    async with database() as db, db.watch(where, since=since) as events:
        async for event in events:
            if isinstance(event, Changes):
                _print(event)
                seen += 1
                if seen == limit:
                    return
            elif resolved:
                document: dict[str, object] = {"type": "resolved"}
                output().record(
                    document | stamp_fields(event.at), f"{describe(event.at)}  resolved"
                )


def _print(changes: Changes) -> None:
    out = output()
    if out.as_json:
        records = [
            {"key": text_of(change.key), "value": shown(change.value)} for change in changes.records
        ]
        document: dict[str, object] = {"type": "changes"}
        out.record(document | stamp_fields(changes.at) | {"records": records}, "")
        return
    for change in changes.records:
        key, value = text_of(change.key), shown(change.value)
        what = f"delete {key}" if value is None else f"put {key}\t{value}"
        out.record({}, f"{changes.at}  {what}")
