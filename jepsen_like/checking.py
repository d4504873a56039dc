"""One door to all checkers: `check(history, model=...)`."""

from __future__ import annotations

import time
from importlib import import_module

import msgspec

from jepsen_like.history import History
from jepsen_like.linearizability.objects import UNSET
from jepsen_like.options import Options
from jepsen_like.verdict import Verdict

_OBJECTS = "jepsen_like.linearizability.checkers"
_TRANSACTIONS = "jepsen_like.transactions.checkers"
_REPLAY = "jepsen_like.transactions.replay"
_INVARIANTS = "jepsen_like.invariants"

MODELS: dict[str, str] = {
    "register": f"{_OBJECTS}:check_register",
    "cas-register": f"{_OBJECTS}:check_register",
    "multi-register": f"{_OBJECTS}:check_multi_register",
    "mutex": f"{_OBJECTS}:check_mutex",
    "kv-append": f"{_OBJECTS}:check_strings",
    "list-append": f"{_TRANSACTIONS}:check_list_append",
    "rw-register": f"{_TRANSACTIONS}:check_rw_register",
    "replay": f"{_REPLAY}:check_replay",
    "set": f"{_INVARIANTS}.sets:check_set",
    "set-full": f"{_INVARIANTS}.sets:check_set_full",
    "counter": f"{_INVARIANTS}.counter:check_counter",
    "queue": f"{_INVARIANTS}.queue:check_queue",
    "bank": f"{_INVARIANTS}.bank:check_bank",
    "long-fork": f"{_INVARIANTS}.long_fork:check_long_fork",
    "causal-reverse": f"{_INVARIANTS}.causal_reverse:check_causal_reverse",
    "watch": f"{_INVARIANTS}.watch:check_watch",
    "lease": f"{_INVARIANTS}.lease:check_lease",
    "kv-directory": f"{_INVARIANTS}.kv_directory:check_kv_directory",
}
"""Model name -> the function that decides it, loaded when first used.

It takes the operations (list-append: the history) and the options.
"""


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
    if model == "list-append":
        verdict: Verdict = decide(history, options)
    else:
        verdict = decide(history.operations, options)
    return msgspec.structs.replace(
        verdict, operations=len(history.operations), seconds=time.perf_counter() - started
    )
