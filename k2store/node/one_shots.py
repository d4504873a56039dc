"""One-shot transactions of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from k2store.errors import K2Error, Rejected, Unavailable
from k2store.node.commits import all_fit, mutation_columns, too_much
from k2store.node.limits import Malformed, key_refused, operations_refused, txn_refused
from k2store.v1 import session_pb2 as wire
from mvcc.conditions import Compare, Condition, Kind, Operand, Scalar
from mvcc.messages import OneShot, OneShots
from truetime import Interval

if TYPE_CHECKING:
    from k2store.node.session import Session

_COMPARE_MAX: Final = max(Compare)


def one_shot_columns(session: Session, calls: wire.OneShotColumns, now: Interval) -> None:
    """Run the one-shots of a frame."""
    count = len(calls.request)
    if count != len(calls.txn):
        raise Malformed("the columns of `one_shots` differ in length")
    if not count:
        return
    condition_counts = _counts(calls.condition_count, count)
    read_counts = _counts(calls.read_count, count)
    write_counts = _counts(calls.write_count, count)
    keys, values = mutation_columns(calls.write_key, calls.write_value, calls.write_deleted)
    deadlines = session.deadlines(calls.timeout_ms, count, now)
    if sum(write_counts) != len(keys):
        raise Malformed("the counts of `one_shots` do not add up")
    if _together(session, calls, condition_counts, write_counts, keys, values, deadlines):
        return
    conditions, chosen = conditions_of(calls)
    if sum(condition_counts) != len(chosen) or sum(read_counts) != len(calls.read_key):
        raise Malformed("the counts of `one_shots` do not add up")
    if _sharing(
        session, calls, condition_counts, write_counts, conditions, chosen, keys, values, deadlines
    ):
        return
    writes = list(zip(keys, values, strict=True))
    reads = list(calls.read_key)
    c = r = w = 0
    for request, txn, nc, nr, nw, deadline in zip(
        calls.request,
        calls.txn,
        condition_counts,
        read_counts,
        write_counts,
        deadlines,
        strict=True,
    ):
        message = OneShot(
            session.base | request,
            txn,
            session.seen,
            deadline,
            [conditions[place] for place in chosen[c : c + nc]],
            reads[r : r + nr],
            writes[w : w + nw],
        )
        c, r, w = c + nc, r + nr, w + nw
        _alone(session, request, message)


def _together(
    session: Session,
    calls: wire.OneShotColumns,
    condition_counts: Sequence[int],
    write_counts: Sequence[int],
    keys: list[bytes],
    values: list[bytes | None],
    deadlines: list[int],
) -> bool:
    """Hand the group over as columns where nothing in it needs a look at single operations."""
    engine = session.engine
    single = engine.host.single
    if (
        single is None
        or engine.draining
        or calls.predicates
        or calls.condition_index
        or calls.read_key
        or not all_fit(session, keys, values)
    ):
        return False
    txns = list(calls.txn)
    kinds, condition_keys = (
        [int(kind) for kind in calls.condition_kind],
        list(calls.condition_key),
    )
    count = len(kinds)
    versions = list(calls.condition_version) or [0] * count
    wanted = list(calls.condition_value) or [b""] * count
    if not count == sum(condition_counts) == len(condition_keys) == len(versions) == len(wanted):
        raise Malformed("the condition columns of `one_shots` differ in length")
    limits = session.engine.limits
    if not session.owns(txns) or count > limits.operations_max:
        return False
    if count and (
        min(kinds) < Kind.ABSENT
        or max(kinds) >= Kind.FIELD
        or max(map(len, condition_keys)) > limits.key_bytes_max
    ):
        return False
    message = OneShots(
        session.number,
        session.seen,
        list(calls.request),
        txns,
        deadlines,
        list(condition_counts),
        kinds,
        condition_keys,
        versions,
        wanted,
        list(write_counts),
        keys,
        values,
    )
    engine.host.deliver(single, message)
    return True


def _sharing(
    session: Session,
    calls: wire.OneShotColumns,
    condition_counts: Sequence[int],
    write_counts: Sequence[int],
    conditions: list[Condition],
    chosen: list[int],
    keys: list[bytes],
    values: list[bytes | None],
    deadlines: list[int],
) -> bool:
    """The same for one-shots with conditions on fields: each condition is looked at once."""
    engine = session.engine
    single = engine.host.single
    limits = engine.limits
    if (
        single is None
        or not chosen
        or engine.draining
        or calls.read_key
        or len(chosen) + len(keys) > limits.operations_max
        or not all_fit(session, keys, values)
    ):
        return False
    txns = list(calls.txn)
    if not session.owns(txns):
        return False
    for condition in conditions:
        kind = condition.kind
        if (
            not Kind.ABSENT <= kind <= Kind.FIELD
            or len(condition.key) > limits.key_bytes_max
            or (kind == Kind.FIELD and not 0 < condition.compare <= _COMPARE_MAX)
        ):
            return False
    message = OneShots(
        session.number,
        session.seen,
        list(calls.request),
        txns,
        deadlines,
        list(condition_counts),
        [],
        [],
        [],
        [],
        list(write_counts),
        keys,
        values,
        conditions,
        chosen,
    )
    engine.host.deliver(single, message)
    return True


def _alone(session: Session, request: int, message: OneShot) -> None:
    engine = session.engine
    error = _error_of(session, message)
    if error is not None:
        session.fail(request, error)
        return
    single = engine.host.single
    if single is not None:
        engine.host.deliver(single, message)
        return
    of = engine.route.of
    touched = {of(key) for key, _ in message.writes}
    touched.update(of(key) for key in message.reads)
    for condition in message.conditions:
        if condition.kind == Kind.NO_ROW:
            touched.update(engine.route.covering(condition.key, condition.end))
        else:
            touched.add(of(condition.key))
    if len(touched) > 1:
        session.fail(
            request,
            Rejected(
                "the keys of a one-shot lie in several partitions; use an interactive transaction",
                field="one_shot",
            ),
        )
        return
    engine.host.deliver(touched.pop() if touched else of(b""), message)


def _error_of(session: Session, message: OneShot) -> K2Error | None:
    limits = session.engine.limits
    if not session.owns((message.txn,)):
        return txn_refused(message.txn)
    if session.engine.draining:
        return Unavailable("the node is draining; connect to another", retry_after_s=0.1)
    operations = len(message.conditions) + len(message.reads) + len(message.writes)
    if operations > limits.operations_max:
        return operations_refused(operations, limits.operations_max)
    for key in message.reads:
        if len(key) > limits.key_bytes_max:
            return key_refused(key, limits.key_bytes_max)
    for condition in message.conditions:
        if condition.kind not in Kind._value2member_map_ or not condition.kind:
            return Rejected("a condition of no known kind", field="condition")
        if len(condition.key) > limits.key_bytes_max:
            return key_refused(condition.key, limits.key_bytes_max)
        if condition.kind >= Kind.FIELD and not 0 < condition.compare <= _COMPARE_MAX:
            return Rejected("a comparison of no known kind", field="condition")
    return too_much(session, message.writes)


def _counts(column: Sequence[int], count: int) -> Sequence[int]:
    if not column:
        return [0] * count
    if len(column) != count:
        raise Malformed("the columns of `one_shots` differ in length")
    return column


def conditions_of(calls: wire.OneShotColumns) -> tuple[list[Condition], list[int]]:
    """The conditions of a frame, and for each place where one is stated which of them it is."""
    conditions = _conditions(calls)
    chosen = list(calls.condition_index)
    if not chosen:
        return conditions, list(range(len(conditions)))
    if max(chosen) >= len(conditions):
        raise Malformed("`condition_index` of `one_shots` names a condition that is not there")
    return conditions, chosen


def _conditions(calls: wire.OneShotColumns) -> list[Condition]:
    kinds = calls.condition_kind
    keys = calls.condition_key
    count = len(kinds)
    if count != len(keys):
        raise Malformed("the condition columns of `one_shots` differ in length")
    versions: Sequence[int] = calls.condition_version or [0] * count
    values: Sequence[bytes] = calls.condition_value or [b""] * count
    if count != len(versions) or count != len(values):
        raise Malformed("the condition columns of `one_shots` differ in length")
    if not calls.predicates:
        if any(kind >= Kind.FIELD for kind in kinds):
            raise Malformed("a field condition without its predicate")
        return [
            Condition(kind, key, version, value)
            for kind, key, version, value in zip(kinds, keys, versions, values, strict=True)
        ]
    parts = [_predicate(one) for one in calls.predicates]
    if calls.predicate_index:
        if max(calls.predicate_index) >= len(parts):
            raise Malformed("`predicate_index` of `one_shots` names a predicate that is not there")
        parts = [parts[place] for place in calls.predicate_index]
    if len(parts) != sum([kind >= Kind.FIELD for kind in kinds]):
        raise Malformed("as many predicates as conditions that have one")
    predicates = iter(parts)
    conditions = []
    for kind, key, version, value in zip(kinds, keys, versions, values, strict=True):
        if kind < Kind.FIELD:
            conditions.append(Condition(kind, key, version, value))
            continue
        conditions.append(Condition(kind, key, 0, b"", *next(predicates)))
    return conditions


def _predicate(
    predicate: wire.FieldPredicate,
) -> tuple[bytes, str | int, int, Operand, Scalar]:
    """A predicate as the last fields of a condition: end, field, comparison, operand, constant."""
    field: str | int = predicate.name
    if predicate.WhichOneof("field") == "index":
        field = predicate.index
    chosen = predicate.WhichOneof("constant")
    constant: Scalar = getattr(predicate, chosen) if chosen is not None else None
    operand = Operand.CONSTANT
    if predicate.own == wire.OWN_OPERAND_STAMP:
        operand = Operand.OWN_STAMP
    elif predicate.own == wire.OWN_OPERAND_TIME_NS:
        operand = Operand.OWN_TIME
    return predicate.end, field, predicate.comparison, operand, constant
