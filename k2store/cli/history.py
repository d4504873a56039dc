"""`k2 history`: the versions of one key over time."""

from __future__ import annotations

import click

from k2store.cli.reach import KEY, STAMP, StoreVerb, database, shown, stamp_fields
from k2store.cli.verb import output
from truetime.timestamp import describe


@click.command("history", cls=StoreVerb)
@click.argument("key", type=KEY)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many versions.")
@click.option("--at", type=STAMP, metavar="STAMP|TIME", help="Begin with the newest of then.")
async def history(*, key: bytes, limit: int | None, at: int | None) -> None:
    """Print the versions of KEY that are kept, newest first.

    A line a version: its stamp, its time, and the value or that it was deleted. Versions are kept
    for `transactions.retention`, and the newest one for ever.
    """
    async with database() as db:
        versions = await db.history(key, at=at, limit=limit)
    for version in versions:
        value = shown(version.value)
        text = "(deleted)" if value is None else value
        output().record(
            stamp_fields(version.at) | {"value": value},
            f"{version.at}  {describe(version.at)}  {text}",
        )
    if not versions:
        output().note("no version is kept")
