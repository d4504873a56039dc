"""Backups: every row of a store at one stamp, as one file that proves it is whole.

::

    store at stamp S ── scan ──▶ FILE.partial ── sync, rename ──▶ FILE
                                                                    │ verify: every byte
    store ◀── one-shots of the differences ◀── compare ◀────────────┘

*A backup is a snapshot read.* It takes a stamp and scans at it: it disturbs no writer, and what it
holds is what a reader at that stamp saw, however long the scan takes (within
``transactions.retention``).

*A file is whole or refused.* Its header tells the counts, its end carries a hash over every byte
before it, and a file gets its name only when it is complete and synced. A reader verifies
everything before it uses anything.

*A restore moves a store to the file's rows.* It compares first, in one ordered pass, and then writes
only what differs. So it can be repeated after a crash and goes on where it was; a store that holds
anything which is not in the file is refused unless the caller says that it may be replaced.

What a backup does not hold: earlier versions (history before the stamp) and the stamps themselves;
restored rows carry the stamps of the restore. Bytes of the file: `k2store.backup.file`.
"""

from __future__ import annotations
