"""`k2 get`: the value of one key, now or at a past stamp."""

from __future__ import annotations

import sys

import click

from k2store.cli.exits import Exit
from k2store.cli.reach import KEY, STAMP, StoreVerb, database, text_of, view_of
from k2store.cli.verb import output
from truetime.timestamp import describe


@click.command("get", cls=StoreVerb)
@click.argument("key", type=KEY)
@click.option("--at", type=STAMP, metavar="STAMP|TIME", help="Read as of then.")
@click.option("--raw", is_flag=True, help="Write the value's bytes as they are, and nothing else.")
async def get(*, key: bytes, at: int | None, raw: bool) -> None:
    """Read one key.

    Exit code 1 when it has no value.
    """
    async with database() as db:
        if at is None:
            record = await db.get_record(key)
        else:
            async with view_of(db, at) as view:
                record = await view.get_record(key)
    if record is None:
        if output().as_json:
            output().document({"key": text_of(key), "value": None}, "")
        else:
            output().note(f"{text_of(key)} has no value")
        click.get_current_context().exit(Exit.FAILED)
    if raw:
        sys.stdout.buffer.write(record.value)
        sys.stdout.flush()
        return
    document: dict[str, object] = {
        "key": text_of(key),
        "value": text_of(record.value),
        "version": record.version,
        "time": describe(record.version),
    }
    output().document(document, text_of(record.value))
