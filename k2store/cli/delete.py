"""`k2 delete`: take a key's value away, under a condition if asked."""

from __future__ import annotations

import click

from k2store.cli.reach import KEY, STAMP, VALUE, StoreVerb, database, stamp_fields, text_of
from k2store.cli.verb import output


@click.command("delete", cls=StoreVerb)
@click.argument("key", type=KEY)
@click.option("--if-present", is_flag=True, help="Only if the key has a value.")
@click.option("--if-version", type=STAMP, metavar="STAMP", help="Only this version.")
@click.option("--if-value", type=VALUE, metavar="VALUE", help="Only this value.")
async def delete(
    *, key: bytes, if_present: bool, if_version: int | None, if_value: bytes | None
) -> None:
    """Delete KEY, whether it has a value or not, and print the stamp of the commit.

    Exit code 4 when the condition does not hold. Earlier versions stay readable at their stamps
    until they are older than `transactions.retention`.
    """
    from k2store.client.conditions import present, value_is, version_is

    conditions = [
        *([present(key)] if if_present else []),
        *([version_is(key, if_version)] if if_version is not None else []),
        *([value_is(key, if_value)] if if_value is not None else []),
    ]
    if len(conditions) > 1:
        raise click.UsageError("give one of --if-present, --if-version and --if-value")
    async with database() as db:
        at = await db.delete(key, conditions=conditions)
    output().document({"key": text_of(key)} | stamp_fields(at), str(at))
