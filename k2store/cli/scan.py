"""`k2 scan`: the rows of a range in key order, all at one stamp."""

from __future__ import annotations

import click

from k2store.cli.reach import KEY, STAMP, StoreVerb, chosen_range, database, text_of, view_of
from k2store.cli.verb import output


@click.command("scan", cls=StoreVerb)
@click.argument("prefix", type=KEY, required=False)
@click.option("--start", type=KEY, metavar="KEY", help="First key, instead of a prefix.")
@click.option("--end", type=KEY, metavar="KEY", help="The key before which to stop.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many rows.")
@click.option("--reverse", is_flag=True, help="Largest key first.")
@click.option("--at", type=STAMP, metavar="STAMP|TIME", help="Read as of then.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
async def scan(
    *,
    prefix: bytes | None,
    start: bytes | None,
    end: bytes | None,
    limit: int | None,
    reverse: bool,
    at: int | None,
    keys_only: bool,
) -> None:
    """Print the rows of PREFIX, or from --start to --end, or all of them.

    A line a row: the key, a tab, the value. With --json, an object a line, with the version too.
    """
    where = chosen_range(prefix, start, end)
    async with database() as db, view_of(db, at) as view:
        async for record in view.scan(where, limit=limit, reverse=reverse):
            key = text_of(record.key)
            document: dict[str, object] = {"key": key, "version": record.version}
            if keys_only:
                output().record(document, key)
            else:
                value = text_of(record.value)
                output().record(document | {"value": value}, f"{key}\t{value}")
