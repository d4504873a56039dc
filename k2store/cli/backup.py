"""`k2 backup`: everything the store holds at one stamp, as a file."""

from __future__ import annotations

from pathlib import Path

import click

from k2store.cli.progress import progress
from k2store.cli.reach import KEY, STAMP, StoreVerb, chosen_range, database, text_of, view_of
from k2store.cli.verb import output
from k2store.errors import Rejected


@click.command("backup", cls=StoreVerb)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--prefix", type=KEY, metavar="KEY", help="Only the keys that begin with this.")
@click.option("--at", type=STAMP, metavar="STAMP|TIME", help="As of then, instead of now.")
@click.option("--overwrite", is_flag=True, help="Replace a file that has the name.")
async def backup(*, file: Path, prefix: bytes | None, at: int | None, overwrite: bool) -> None:
    """Write every row of the store, as of one stamp, to FILE.

    Writers are not disturbed. FILE appears when it is whole, with a checksum over all of it; it
    holds the newest version of each key at the stamp, and no earlier ones.
    """
    from k2store.backup.save import save

    if not overwrite:
        _refuse_existing(file)
    where = chosen_range(prefix, None, None)
    async with database() as db, view_of(db, at) as view:
        with progress("backup", None, "rows") as advance:
            header = await save(db, view, where, file, on_row=lambda size: advance(1))
    document = {
        "file": str(file),
        "file_bytes": _size(file),
        "at": header.stamp,
        "time": header.time,
        "rows": header.rows,
        "bytes": header.data_bytes,
        "node": header.node,
        "prefix": text_of(prefix or b""),
    }
    output().document(
        document,
        f"{file}: {header.rows} rows, {header.data_bytes} bytes of keys and values, as of "
        f"{header.stamp} ({header.time})",
    )


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise Rejected(f"{file} exists; give another name or --overwrite", field="file")


def _size(file: Path) -> int:
    return file.stat().st_size
