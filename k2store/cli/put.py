"""`k2 put`: write one key, under a condition if asked."""

from __future__ import annotations

from typing import BinaryIO

import click

from k2store.cli.reach import KEY, STAMP, VALUE, StoreVerb, database, stamp_fields, text_of
from k2store.cli.verb import output


@click.command("put", cls=StoreVerb)
@click.argument("key", type=KEY)
@click.argument("value", type=VALUE, required=False)
@click.option(
    "--file", "source", type=click.File("rb"), metavar="FILE", help="Take the value from a file."
)
@click.option("--if-absent", is_flag=True, help="Only if the key has no value.")
@click.option("--if-version", type=STAMP, metavar="STAMP", help="Only over this version.")
@click.option("--if-value", type=VALUE, metavar="VALUE", help="Only over this value.")
async def put(
    *,
    key: bytes,
    value: bytes | None,
    source: BinaryIO | None,
    if_absent: bool,
    if_version: int | None,
    if_value: bytes | None,
) -> None:
    """Write VALUE to KEY, and print the stamp of the commit.

    Exit code 4 when the condition does not hold. `--file -` reads the standard input.
    """
    from k2store.client.conditions import absent, value_is, version_is

    if source is not None and value is None:
        value = source.read()
    elif source is not None or value is None:
        raise click.UsageError("give a VALUE or --file, one of them")
    conditions = [
        *([absent(key)] if if_absent else []),
        *([version_is(key, if_version)] if if_version is not None else []),
        *([value_is(key, if_value)] if if_value is not None else []),
    ]
    if len(conditions) > 1:
        raise click.UsageError("give one of --if-absent, --if-version and --if-value")
    async with database() as db:
        at = await db.put(key, value, conditions=conditions)
    output().document({"key": text_of(key)} | stamp_fields(at), str(at))
