"""`k2 restore`: the rows of a backup, back into a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from k2store.cli.progress import progress
from k2store.cli.reach import StoreVerb, database
from k2store.cli.verb import output

if TYPE_CHECKING:
    from k2store.backup.file import Backup


@click.command("restore", cls=StoreVerb)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace rows that differ, and delete rows that the backup does not have.",
)
@click.option("--verify-only", is_flag=True, help="Examine the file and touch no store.")
async def restore(*, file: Path, overwrite: bool, verify_only: bool) -> None:
    """Verify FILE, every byte of it, and write its rows to the store.

    The store must be empty in the backup's range, or hold rows of this backup only, so a restore
    that was interrupted can be repeated; else exit code 4, and nothing is written. A damaged file
    is refused with exit code 5. Rows are written in batches, not in one transaction, and carry the
    stamps of the restore.
    """
    from k2store.backup.load import load

    found = _verified(file)
    header = found.header
    told: dict[str, object] = {
        "file": str(file),
        "backup_at": header.stamp,
        "backup_time": header.time,
        "rows": header.rows,
        "bytes": header.data_bytes,
    }
    if verify_only:
        output().document(told, f"{file} is whole: {header.rows} rows as of {header.time}")
        return
    async with database() as db:
        with progress("restore", header.rows, "rows") as advance:
            done = await load(db, found, overwrite=overwrite, on_rows=advance)
    output().document(
        told | msgspec.to_builtins(done),
        f"{file}: {done.written} rows written, {done.replaced} replaced, {done.deleted} deleted, "
        f"{done.already_there} were there; the store holds {header.rows} rows as of {header.time}",
    )


def _verified(file: Path) -> Backup:
    from k2store.backup.file import verified

    size = file.stat().st_size if file.is_file() else None
    with progress("verify", size, "bytes") as advance:
        return verified(file, on_bytes=advance)
