"""Checks a file: reads it the fitting way, judges it, and keeps both times apart."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from jepsen_like.checking import check
from jepsen_like.formats import load, load_transactions
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.verdict import Verdict


def check_file(
    path: Path,
    *,
    model: str,
    consistency: str = "strict-serializable",
    initial: object = UNSET,
    timeout_s: float | None = None,
) -> Verdict:
    """Judges the history in a file. `seconds` is the time of checking alone.

    Raises `HistoryError` for what is no history of the model, OSError when the file cannot be read.
    """
    if model == "list-append":
        from jepsen_like.transactions import list_append

        txns = load_transactions(path)
        started = time.perf_counter()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        verdict = list_append.check(
            txns, consistency, lambda: deadline is not None and time.monotonic() >= deadline
        )
        seconds = time.perf_counter() - started
        return msgspec.structs.replace(verdict, operations=txns.count, seconds=seconds)
    return check(
        load(path), model=model, consistency=consistency, initial=initial, timeout_s=timeout_s
    )
