"""Checks a file: reads it the fitting way, judges it, and keeps both times apart."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from jepsen_like.checking import check
from jepsen_like.formats import load, load_transactions, sniff
from jepsen_like.history import HistoryError
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
    if model == "register" and initial in (UNSET, None):
        quick = _plain_registers(path)
        if quick is not None:
            return quick
    return check(
        load(path), model=model, consistency=consistency, initial=initial, timeout_s=timeout_s
    )


def _plain_registers(path: Path) -> Verdict | None:
    """A verdict from columns, when the file is plain and every value is written once; else None.

    Only *valid* is concluded from columns: what is wrong is told by the operations themselves.
    """
    from jepsen_like.formats.bulk_register import NotPlain, calls_in
    from jepsen_like.linearizability.zones import NotUniqueError, find_clash

    data = path.read_bytes()
    kind = sniff(data)
    if kind not in ("edn", "json"):
        return None
    try:
        calls, operations = calls_in(data, kind)
        started = time.perf_counter()
        if calls.write.all() or find_clash(calls, -1) is not None:
            return None
    except (NotPlain, NotUniqueError, HistoryError):
        return None
    return Verdict(True, operations=operations, seconds=time.perf_counter() - started)
