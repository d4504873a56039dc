"""One door to all checkers: `check(history, model=...)`."""

from __future__ import annotations

import time
from importlib import import_module

import msgspec

from jepsen_like.history import History
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.verdict import Verdict

MODELS: dict[str, str] = {
    "register": "jepsen_like.linearizability.checkers:check_register",
    "cas-register": "jepsen_like.linearizability.checkers:check_register",
    "mutex": "jepsen_like.linearizability.checkers:check_mutex",
    "kv-append": "jepsen_like.linearizability.checkers:check_strings",
}
"""Model name -> the function `(operations, options) -> Verdict` that decides it, loaded when first used."""


def check(
    history: History,
    *,
    model: str,
    consistency: str = "strict-serializable",
    initial: object = UNSET,
    timeout_s: float | None = None,
) -> Verdict:
    """Judges a history. Raises `HistoryError` when the history does not fit the model, ValueError for no such model."""
    place = MODELS.get(model)
    if place is None:
        raise ValueError(f"no model {model!r}; there are {', '.join(sorted(MODELS))}")
    module, name = place.split(":")
    decide = getattr(import_module(module), name)
    started = time.perf_counter()
    options = Options(
        consistency=consistency,
        initial=initial,
        timeout_s=timeout_s,
        clock=time.monotonic,
        nil_is_a_value=history.nil_is_a_value,
    )
    operations = history.operations
    verdict: Verdict = decide(operations, options)
    return msgspec.structs.replace(
        verdict, operations=len(operations), seconds=time.perf_counter() - started
    )
