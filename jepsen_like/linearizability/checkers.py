"""The models that are single objects: register, cas-register, mutex and kv-append."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from jepsen_like.history import HistoryError, Operation
from jepsen_like.linearizability.calls import (
    Part,
    initial_registers,
    is_keyed,
    parts_of,
    read_multi,
    read_mutex,
    read_register,
    read_string,
)
from jepsen_like.linearizability.decide import decide
from jepsen_like.linearizability.objects import (
    UNSET,
    multi_step,
    mutex_step,
    register_step,
    string_step,
)
from jepsen_like.linearizability.zones import FAR, Calls, Clash, NotUniqueError, find_clash
from jepsen_like.options import Options
from jepsen_like.values import freeze, show
from jepsen_like.verdict import Finding, Verdict

NOT_LINEARIZABLE = "not-linearizable"
PLACED_SHOWN = 8
"""How many of the operations before the point where no order goes on are part of the explanation."""


def check_register(operations: Sequence[Operation], options: Options) -> Verdict:
    """Registers with read, write and compare-and-set, one or many (values `[key value]` or keys)."""
    initial = None if options.initial is UNSET else freeze(options.initial)
    read = read_register(nil_is_a_value=options.nil_is_a_value)
    parts = parts_of(operations, read, initial, register_step, keyed=is_keyed(operations))
    hard: list[Part] = []
    clash = None
    for part in parts:
        try:
            clash = clash or find_clash(calls_of(part), 0)
        except NotUniqueError:
            hard.append(part)
    if clash is not None:
        return clash_verdict(clash, operations)
    if not hard and any(part.constrained for part in parts):
        return Verdict(True)
    return judge(hard or parts, operations, options)


def calls_of(part: Part) -> Calls:
    """The calls of a register in columns, values by number; raises NotUniqueError where zones do not apply."""
    numbers: dict[Hashable, int] = {part.initial: 0}
    rows: list[tuple[int, int, bool, int, int]] = []
    for call in part.calls:
        if call.action.verb not in ("read", "write"):
            raise NotUniqueError
        value = numbers.setdefault(call.action.first, len(numbers))
        end = FAR if call.end is None else call.end
        rows.append((call.number, value, call.action.verb == "write", call.start, end))
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    key = np.zeros(len(rows), dtype=np.int64)
    return Calls(table[:, 0], key, table[:, 1], table[:, 2] > 0, table[:, 3], table[:, 4])


def clash_verdict(clash: Clash, operations: Sequence[Operation]) -> Verdict:
    """The verdict of zones that exclude each other."""
    told = "; ".join(_told(operations[number]) for number in clash.numbers)
    why = f"No order of these operations is possible: {told}. For {clash.reason}."
    finding = Finding(NOT_LINEARIZABLE, why, clash.numbers, key=operations[clash.numbers[0]].key)
    return Verdict(False, (NOT_LINEARIZABLE,), ("linearizable",), (), (finding,), why)


def _told(operation: Operation) -> str:
    return f"{operation.f} {show(operation.value)} by process {operation.process} (event {operation.index})"


def check_mutex(operations: Sequence[Operation], options: Options) -> Verdict:
    """A lock with acquire and release. The initial value is free unless it is given as true."""
    held = options.initial not in (UNSET, None, False, "free")
    parts = parts_of(operations, read_mutex, held, mutex_step, keyed=False)
    return judge(parts, operations, options)


def check_multi_register(operations: Sequence[Operation], options: Options) -> Verdict:
    """Several registers read and written together. `--initial` is a map of values, or one value for all."""
    read = read_multi(nil_is_a_value=options.nil_is_a_value)
    initial = initial_registers(options.initial)
    step = multi_step(_default(options.initial))
    parts = parts_of(operations, read, initial, step, keyed=False)
    return judge(parts, operations, options)


def _default(initial: object) -> Hashable:
    return None if initial is UNSET or isinstance(initial, Mapping) else freeze(initial)


def check_strings(operations: Sequence[Operation], options: Options) -> Verdict:
    """String keys with get, put and append, the empty string at first."""
    initial = "" if options.initial in (UNSET, None) else options.initial
    if not isinstance(initial, str):
        raise HistoryError(f"the initial value of kv-append is a string, not {show(initial)}")
    parts = parts_of(operations, read_string, initial, string_step, keyed=is_keyed(operations))
    return judge(parts, operations, options)


def judge(parts: Sequence[Part], operations: Sequence[Operation], options: Options) -> Verdict:
    """The verdict over all parts."""
    answer, decisions = decide(parts, options.expired)
    if answer is False:
        part, outcome = decisions[0]
        stuck = outcome.stuck
        assert stuck is not None
        blocked = operations[stuck.blocked]
        where = "" if part.key is None else f" of key {show(part.key)}"
        why = (
            f"After {len(stuck.placed)} operations{where} no order goes on: {blocked.f} "
            f"{show(blocked.value)} by process {blocked.process} (event {blocked.index}) cannot happen in "
            f"any state that is left, for instance {show(stuck.state)}."
        )
        around = (stuck.blocked, *stuck.open_calls, *stuck.placed[-PLACED_SHOWN:])
        finding = Finding(NOT_LINEARIZABLE, why, tuple(dict.fromkeys(around)), key=part.key)
        return Verdict(False, (NOT_LINEARIZABLE,), ("linearizable",), (), (finding,), why)
    if answer is None:
        return Verdict(
            "unknown", reason=f"gave up after {options.timeout_s} s, {len(decisions)} keys decided"
        )
    if not any(part.constrained for part in parts):
        return Verdict(
            "unknown", reason="no completed read, condition or failed compare constrains anything"
        )
    return Verdict(True)
