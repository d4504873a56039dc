"""Conditions that many one-shots of a batch share.

Whoever holds something in the store states with each of its transactions that it still holds it: the same
few conditions on the same few rows, again and again.  In a batch each of them is one object.  Its
chain is looked up once, its row decoded once for all fields, and a comparison with a constant made
once, as long as the row has the same value; only comparisons with the stamp are made each time.

Nothing here decides that a condition fails: what does not plainly hold goes to the function that
knows all the rules (:mod:`mvcc.one_shot`).
"""

from __future__ import annotations

from mvcc.conditions import COMPARISONS, Condition, FieldError, Kind, Operand, field_of, record_of
from mvcc.state import State
from mvcc.versions import Chain
from truetime.timestamp import time_ns

_ABSENT, _PRESENT, _VERSION, _VALUE, _FIELD = (
    Kind.ABSENT,
    Kind.PRESENT,
    Kind.VERSION,
    Kind.VALUE,
    Kind.FIELD,
)
_CONSTANT, _OWN_TIME = Operand.CONSTANT, Operand.OWN_TIME


class _Known:
    """A condition with what was found: its chain, and of the chain's value the field, or whether it
    holds for every stamp.
    """

    __slots__ = ("chain", "condition", "holds", "left", "value")

    def __init__(self, condition: Condition, chain: Chain) -> None:
        self.condition = condition
        self.chain = chain
        self.value: bytes | None = None
        self.holds: bool | None = None
        self.left: object = None


class SharedConditions:
    """The conditions of one batch; lives as long as the batch is taken in."""

    __slots__ = ("_conditions", "_known", "_records", "_state")

    def __init__(self, state: State, conditions: list[Condition]) -> None:
        self._state = state
        self._conditions = conditions
        self._known: list[_Known | None] = [None] * len(conditions)
        self._records: dict[bytes, tuple[bytes, object]] = {}

    def hold(self, chosen: list[int], stamp: int) -> bool:
        """Whether all of these plainly hold at a stamp, and no undecided write is in the way."""
        known = self._known
        for index in chosen:
            one = known[index]
            if one is None:
                one = self._look(index)
            chain = one.chain
            if chain.intents is not None or chain.stamp > stamp:
                return False
            if chain.value is not one.value or one.holds is None:
                self._compare(one)
            if not one.holds:
                return False
            if one.left is not None and not _compares(one, stamp):
                return False
        return True

    def note(self, chosen: list[int], stamp: int, txn: bytes) -> None:
        """They were read at this stamp."""
        known = self._known
        for index in chosen:
            one = known[index]
            assert one is not None, "what is noted was looked at"
            chain = one.chain
            if stamp > chain.read:
                chain.read = stamp
                chain.reader = txn

    def _look(self, index: int) -> _Known:
        condition = self._conditions[index]
        chain = self._state.chains.get(condition.key)
        if chain is None:
            chain = self._state.load(condition.key)
        one = self._known[index] = _Known(condition, chain)
        return one

    def _compare(self, one: _Known) -> None:
        """Find out whether a condition holds for the value that its chain has now."""
        condition = one.condition
        value = one.value = one.chain.value
        kind = condition.kind
        one.left = None
        if kind == _FIELD:
            one.holds = value is not None and self._field_holds(one, value)
        elif kind == _ABSENT:
            one.holds = value is None
        elif kind == _PRESENT:
            one.holds = value is not None
        elif kind == _VERSION:
            one.holds = value is not None and one.chain.stamp == condition.version
        else:
            # A range is looked at by those who know how to note that.
            one.holds = kind == _VALUE and value is not None and value == condition.value

    def _field_holds(self, one: _Known, value: bytes) -> bool:
        condition = one.condition
        try:
            found = self._records.get(condition.key)
            if found is None or found[0] is not value:
                found = self._records[condition.key] = (value, record_of(value))
            left = field_of(found[1], condition.field)
            if condition.operand == _CONSTANT:
                return bool(COMPARISONS[condition.compare](left, condition.constant))
        except (FieldError, TypeError):
            return False
        # To be compared with each stamp; without a field there is nothing that could hold.
        one.left = left
        return left is not None


def _compares(one: _Known, stamp: int) -> bool:
    """Whether a field compares with a transaction's own place in time as stated."""
    condition = one.condition
    right = time_ns(stamp) if condition.operand == _OWN_TIME else stamp
    try:
        return bool(COMPARISONS[condition.compare](one.left, right))
    except TypeError:
        return False
