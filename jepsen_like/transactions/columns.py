"""Transactions over lists in columns: what a million of them need in memory is numbers, not objects.

Owns the layout and the pass that fills it. Values that reads returned are not kept one by one: for every key the
longest list seen so far is kept, and a read is *a prefix of it*. A read that is no prefix and has none starts a
branch of its own. Every read can be given back exactly, and the comparison of all reads with all reads, which
finds incompatible orders, is done on the way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from jepsen_like.history import NEVER, UNSEEN, HistoryError, Kind, Operation, Process
from jepsen_like.values import freeze, show

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]

READ_NAMES = frozenset(("r", ":r", "read", 0))
APPEND_NAMES = frozenset(("append", ":append", 1))
OK, INFO, FAIL = 0, 1, 2
READ, APPEND = 0, 1
FAR = np.iinfo(np.int64).max


class Transactions:
    """Columns of a list-append history, transactions in the order of their first events.

    Per transaction: `process` (a number, -1 for none), `start` and `end` (positions, `UNSEEN` and `FAR` when not
    known), `outcome` and `index` (as in the file). Per micro-operation, in order: `mop_txn`, `mop_kind`,
    `mop_key`, `mop_value` (an append: its value; a read: its branch, -1 for the empty list) and `mop_size` (a
    read: its length, -1 when its result is not known). `names` has the values behind their numbers, None when
    values are integers and stand for themselves.
    """

    def __init__(
        self,
        *,
        process: Ints,
        processes: Sequence[Process],
        start: Ints,
        end: Ints,
        outcome: Bytes,
        index: Ints,
        mops: Ints,
        kind: Bytes,
        key: Ints,
        keys: Sequence[Hashable],
        value: Ints,
        size: Ints,
        branches: Branches,
        names: Sequence[Hashable] | None,
    ) -> None:
        order = np.argsort(np.where(start == UNSEEN, end, start), kind="stable")
        self.count = len(start)
        self.process = process[order]
        self.processes = processes
        self.start = start[order]
        self.end = end[order]
        self.outcome = outcome[order]
        self.index = index[order]
        was_first = (np.cumsum(mops) - mops)[order]
        mops = mops[order]
        self.first_mop = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(mops)))
        self.mop_txn = np.repeat(np.arange(self.count, dtype=np.int64), mops)
        moved = np.repeat(was_first - self.first_mop[:-1], mops) + np.arange(len(kind))
        self.mop_kind = kind[moved]
        self.mop_key = key[moved]
        self.keys = keys
        self.mop_value = value[moved]
        self.mop_size = size[moved]
        self.branches = branches
        self._names = names
        self._longest: Ints | None = None
        self._by_key: dict[int, list[int]] = {}

    def branches_of(self, key: int) -> list[int]:
        """The branches of a key."""
        if not self._by_key:
            for branch, owner in enumerate(self.branches.key.tolist()):
                self._by_key.setdefault(owner, []).append(branch)
        return self._by_key.get(key, [])

    def longest_reader(self, branch: int) -> int:
        """A transaction that read the whole of a branch."""
        if self._longest is None:
            reads = np.flatnonzero((self.mop_kind == READ) & (self.mop_size > 0))
            whole = reads[
                self.mop_size[reads] == np.diff(self.branches.first)[self.mop_value[reads]]
            ]
            self._longest = np.full(len(self.branches), -1, dtype=np.int64)
            self._longest[self.mop_value[whole]] = self.mop_txn[whole]
        return int(self._longest[branch])

    def value(self, number: int) -> Hashable:
        """The value behind its number."""
        return number if self._names is None else self._names[number]

    def read_list(self, mop: int) -> list[Hashable]:
        """What a read returned, element by element."""
        assert self.mop_kind[mop] == READ
        size = int(self.mop_size[mop])
        if size <= 0:
            return []
        elements = self.branches.elements(int(self.mop_value[mop]))[:size]
        return [self.value(int(e)) for e in elements]

    def micro_operations(self, number: int) -> list[tuple[str, Hashable, object]]:
        """The transaction as a list of `("append", key, value)` and `("r", key, list | None)`."""
        result: list[tuple[str, Hashable, object]] = []
        for mop in range(int(self.first_mop[number]), int(self.first_mop[number + 1])):
            key = self.keys[int(self.mop_key[mop])]
            if self.mop_kind[mop] == APPEND:
                result.append(("append", key, self.value(int(self.mop_value[mop]))))
            else:
                unknown = self.mop_size[mop] < 0
                result.append(("r", key, None if unknown else self.read_list(mop)))
        return result

    def operation(self, number: int) -> Operation:
        """The transaction as an operation of a history."""
        process = int(self.process[number])
        end = int(self.end[number])
        value = self.micro_operations(number)
        return Operation(
            number=number,
            process=None if process < 0 else self.processes[process],
            f="txn",
            argument=value,
            result=value,
            outcome=("ok", "info", "fail")[self.outcome[number]],
            start=int(self.start[number]),
            end=NEVER if end == FAR else end,
            index=int(self.index[number]),
        )


class Branches:
    """Version lists: of each branch its key and its longest list, all lists in one array."""

    def __init__(self, key: Ints, size: Ints, flat: Ints) -> None:
        self.key = key
        self.first = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(size)))
        self.flat = flat
        assert self.first[-1] == len(flat)

    def __len__(self) -> int:
        return len(self.key)

    def elements(self, branch: int) -> Ints:
        """The numbers of the elements of a branch."""
        return self.flat[self.first[branch] : self.first[branch + 1]]


def _intern(raw: list[object]) -> tuple[Ints, list[Hashable]]:
    if not raw:
        return np.zeros(0, dtype=np.int64), []
    numbers = _integers(raw)
    if numbers is not None:
        names, inverse = np.unique(numbers, return_inverse=True)
        return inverse.astype(np.int64, copy=False), [int(n) for n in names]
    table: dict[Hashable, int] = {}
    dense = np.array([table.setdefault(freeze(k), len(table)) for k in raw], dtype=np.int64)
    return dense, list(table)


def _integers(raw: list[object]) -> Ints | None:
    """The list as an array when it holds nothing but integers that fit."""
    if not set(map(type, raw)) <= {int}:
        return None
    try:
        return np.array(raw, dtype=np.int64)
    except OverflowError:
        return None


MicroOperations = Iterable[Sequence[object]]


class Filler:
    """Takes events in order and fills the columns."""

    def __init__(self) -> None:
        self.process: list[int] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.outcome: list[int] = []
        self.index: list[int] = []
        self.mops: list[int] = []
        self.kind: list[int] = []
        self.key: list[object] = []
        self.value: list[object] = []
        self.size: list[int] = []
        self.branch_lists: list[list[object]] = []
        self.branch_ids: dict[object, list[int]] = {}
        self.process_names: list[Process] = []
        self._process_numbers: dict[Process, int] = {}
        self.open: dict[Process, tuple[int, int, object]] = {}
        self.position = 0

    def invoke(self, process: Process, index: int, value: object) -> None:
        """Notes an invocation; `value` is used if no completion brings a better one."""
        if process in self.open:
            raise HistoryError(
                f"event {index}: process {process!r} invokes while its operation "
                f"at event {self.open[process][1]} is still open"
            )
        self.open[process] = (self.position, index, value)
        self.position += 1

    def complete(self, kind: Kind, process: Process, index: int, value: MicroOperations) -> None:
        """Notes a completion with its micro-operations."""
        asked = self.open.pop(process, None)
        start = UNSEEN if asked is None else asked[0]
        if kind == "ok":
            self._transaction(OK, process, start, self.position, index, value)
        elif kind == "info":
            self._transaction(INFO, process, start, FAR, index, value)
        else:
            self._transaction(FAIL, process, start, self.position, index, value)
        self.position += 1

    def close(self, mops_of: dict[int, MicroOperations]) -> Transactions:
        """The columns. Operations still open count as unknown; `mops_of` has their micro-operations."""
        for process, (start, index, _) in self.open.items():
            self._transaction(INFO, process, start, FAR, index, mops_of[index])
        self.open = {}
        return self._columns()

    def _columns(self) -> Transactions:
        key, keys = _intern(self.key)
        number_of = {name: number for number, name in enumerate(keys)}
        kind = np.array(self.kind, dtype=np.int8)
        flat: list[object] = [v for branch in self.branch_lists for v in branch]
        written = [v for v, k in zip(self.value, self.kind, strict=True) if k == APPEND]
        numbers = _integers(written + flat)
        names: list[Hashable] | None = None
        if numbers is None:
            table: dict[Hashable, int] = {}
            dense = [table.setdefault(freeze(v), len(table)) for v in written + flat]
            numbers, names = np.array(dense, dtype=np.int64), list(table)
        value = np.full(len(kind), -1, dtype=np.int64)
        value[kind == APPEND] = numbers[: len(written)]
        branch_of_read = [v for v, k in zip(self.value, self.kind, strict=True) if k == READ]
        value[kind == READ] = np.array(branch_of_read, dtype=np.int64)
        branch_key = np.zeros(len(self.branch_lists), dtype=np.int64)
        for name, branches in self.branch_ids.items():
            branch_key[branches] = number_of[freeze(name)]
        sizes = np.array([len(branch) for branch in self.branch_lists], dtype=np.int64)
        return Transactions(
            process=np.array(self.process, dtype=np.int64),
            processes=self.process_names,
            start=np.array(self.start, dtype=np.int64),
            end=np.array(self.end, dtype=np.int64),
            outcome=np.array(self.outcome, dtype=np.int8),
            index=np.array(self.index, dtype=np.int64),
            mops=np.array(self.mops, dtype=np.int64),
            kind=kind,
            key=key,
            keys=keys,
            value=value,
            size=np.array(self.size, dtype=np.int64),
            branches=Branches(branch_key, sizes, numbers[len(written) :]),
            names=names,
        )

    def _transaction(
        self,
        outcome: int,
        process: Process,
        start: int,
        end: int,
        index: int,
        value: MicroOperations,
    ) -> None:
        before = len(self.kind)
        key_of, kind_of, value_of, size_of = self.key, self.kind, self.value, self.size
        lists, ids = self.branch_lists, self.branch_ids
        try:
            for f, key, v in value:
                if f in READ_NAMES:
                    kind_of.append(READ)
                    if outcome != OK:
                        value_of.append(-1)
                        size_of.append(-1)
                    elif not v:
                        value_of.append(-1)
                        size_of.append(0)
                    else:
                        length = len(v)  # type: ignore[arg-type]
                        known = ids.get(key)
                        # Nearly every read agrees with the first branch of its key: decide that here.
                        if known is not None and lists[known[0]][:length] == v:
                            value_of.append(known[0])
                        else:
                            value_of.append(self._branch(key, v))
                        size_of.append(length)
                elif f in APPEND_NAMES:
                    kind_of.append(APPEND)
                    value_of.append(v)
                    size_of.append(-1)
                else:
                    raise HistoryError(
                        f"event {index}: list-append knows 'r' and 'append', not {show(f)}"
                    )
                key_of.append(key)
        except (TypeError, ValueError) as error:
            raise HistoryError(
                f"event {index}: {show(value)} is not a list of [f key value]"
            ) from error
        self.process.append(self._process_number(process))
        self.start.append(start)
        self.end.append(end)
        self.outcome.append(outcome)
        self.index.append(index)
        self.mops.append(len(self.kind) - before)

    def _branch(self, key: object, v: object) -> int:
        if not isinstance(v, list):
            raise HistoryError(f"a read of {show(key)} returned {show(v)}, which is not a list")
        known = self.branch_ids.setdefault(key, [])
        for branch in known:
            longest = self.branch_lists[branch]
            if len(v) > len(longest):
                if v[: len(longest)] == longest:
                    self.branch_lists[branch] = v
                    return branch
            elif longest[: len(v)] == v:
                return branch
        self.branch_lists.append(v)
        known.append(len(self.branch_lists) - 1)
        return known[-1]

    def _process_number(self, process: Process) -> int:
        if process is None:
            return -1
        number = self._process_numbers.get(process)
        if number is None:
            number = self._process_numbers[process] = len(self.process_names)
            self.process_names.append(process)
        return number
