"""What happened in a run, as one document and as a page to look at.

::

    run of real processes ─┐
                           ├──▶ Record (run.json) ──▶ k2 check report ──▶ run.html
    run of a simulation ───┘    faults, operations, leaders, verdict

The page is one file without anything outside it: lanes for clients and nodes, faults as bands across
them, and what each operation came to.
"""

from __future__ import annotations

from jepsen_like.report.page import page
from jepsen_like.report.record import Record, read, record_of

__all__ = ["Record", "page", "read", "record_of"]
