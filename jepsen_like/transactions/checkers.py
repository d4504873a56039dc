"""The models that are transactions: list-append and rw-register."""

from __future__ import annotations

from collections.abc import Sequence

from jepsen_like.formats.quick import transactions_of
from jepsen_like.history import History, Operation
from jepsen_like.options import Options
from jepsen_like.transactions import list_append, register
from jepsen_like.verdict import Verdict


def check_list_append(history: History, options: Options) -> Verdict:
    """Lists with append and read."""
    return list_append.check(transactions_of(history), options.consistency, options.expired)


def check_rw_register(operations: Sequence[Operation], options: Options) -> Verdict:
    """Registers with unique writes."""
    return register.check(operations, options)
