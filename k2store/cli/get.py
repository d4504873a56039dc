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
@click.option(
    "--stale",
    metavar="DURATION",
    help="As stale as this is good enough: the node that is asked answers from its own copy.",
)
@click.option(
    "--local",
    is_flag=True,
    help="Strong, but from the node's own copy: wait until it is as fresh, and ask nobody else.",
)
@click.option("--since", type=STAMP, metavar="STAMP|TIME", help="Not older than that.")
@click.option("--raw", is_flag=True, help="Write the value's bytes as they are, and nothing else.")
async def get(
    *,
    key: bytes,
    at: int | None,
    stale: str | None,
    local: bool,
    since: int | None,
    raw: bool,
) -> None:
    """Read one key.

    Strong unless told otherwise: the leader of its partition answers, wherever it is.

    Exit code 1 when it has no value.
    """
    async with database() as db:
        shown: dict[str, object] = {}
        if at is not None:
            async with view_of(db, at) as view:
                record = await view.get_record(key)
        elif stale is not None or local or since is not None:
            async with db.snapshot(
                strong=stale is None, max_staleness=stale or "0s", local=local, since=since
            ) as view:
                record = await view.get_record(key)
                shown = {"at": view.at, "staleness_ms": round(view.staleness_s * 1000, 3)}
        else:
            record = await db.get_record(key)
    if record is None:
        if output().as_json:
            output().document({"key": text_of(key), "value": None} | shown, "")
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
    output().document(document | shown, text_of(record.value))
