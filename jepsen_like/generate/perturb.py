"""One change to a valid history after which it is provably wrong.

Each perturbation knows when its change is a proof; where a history offers no such place it gives None. That is
stricter than "change something and hope": a checker must flag every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from jepsen_like.history import NEVER, Event, History, Operation


def _replaced(history: History, position: int, value: object) -> History:
    events = list(history.events)
    events[position] = msgspec.structs.replace(events[position], value=value)
    return History(events, nil_is_a_value=history.nil_is_a_value)


def _reads(history: History) -> list[Operation]:
    return [o for o in history.operations if o.f in ("read", "get") and o.outcome == "ok"]


def invent_value(history: History, random: Random) -> History | None:
    """A register read returns a value that nobody ever wrote."""
    reads = _reads(history)
    if not reads:
        return None
    return _replaced(history, random.choice(reads).end, 10**9)


def stale_read(history: History, random: Random) -> History | None:
    """A register read returns what a completed write had overwritten before the read began.

    A proof when the old value was written once, ended before the new write began, and the new write ended before
    the read began.
    """
    writes: dict[object, list[Operation]] = {}
    for operation in history.operations:
        if operation.f == "cas":
            return None
        if operation.f == "write" and operation.outcome != "fail":
            writes.setdefault(operation.key, []).append(operation)
    reads = _reads(history)
    random.shuffle(reads)
    for read in reads:
        mine = writes.get(read.key, [])
        for new in mine:
            if new.end >= read.start:
                continue
            for old in mine:
                once = sum(w.argument == old.argument for w in mine) == 1
                if once and old.end < new.start and old.argument != new.argument:
                    return _replaced(history, read.end, old.argument)
    return None


def drop_element(history: History, random: Random) -> History | None:
    """A read of a list loses an element from its middle though a longer read keeps it."""
    places: list[tuple[int, int, int]] = []
    for operation in history.operations:
        for mop, (f, _, value) in enumerate(_mops(operation)):
            if (
                f == "r"
                and isinstance(value, list)
                and len(value) >= 2
                and operation.outcome == "ok"
            ):
                places.extend((operation.end, mop, at) for at in range(len(value) - 1))
    if not places:
        return None
    position, mop, at = random.choice(places)
    value = [list(m) for m in _mops_of(history.events[position])]
    elements = value[mop][2]
    assert isinstance(elements, list)
    key, dropped = value[mop][1], elements[at]
    value[mop][2] = elements[:at] + elements[at + 1 :]
    kept = any(
        f == "r" and k == key and isinstance(v, list) and dropped in v and other.end != position
        for other in history.operations
        if other.outcome == "ok"
        for f, k, v in _mops(other)
    )
    return _replaced(history, position, value) if kept else None


def double_element(history: History, random: Random) -> History | None:
    """A read of a list has one element twice."""
    places = [
        (operation.end, mop)
        for operation in history.operations
        if operation.outcome == "ok"
        for mop, (f, _, value) in enumerate(_mops(operation))
        if f == "r" and isinstance(value, list) and value
    ]
    if not places:
        return None
    position, mop = random.choice(places)
    value = [list(m) for m in _mops_of(history.events[position])]
    elements = value[mop][2]
    assert isinstance(elements, list)
    value[mop][2] = [*elements, random.choice(elements)]
    return _replaced(history, position, value)


def fail_what_was_read(history: History, random: Random) -> History | None:
    """A transaction whose write was read by another is said to have failed."""
    read: set[tuple[object, object]] = set()
    for operation in history.operations:
        if operation.outcome == "ok":
            own = {(k, v) for f, k, v in _mops(operation) if f != "r" and not isinstance(v, list)}
            for f, key, value in _mops(operation):
                if f == "r":
                    seen = value if isinstance(value, list) else [value]
                    read |= {(key, v) for v in seen} - own
    places = [
        operation.end
        for operation in history.operations
        if operation.outcome == "ok" and operation.end != NEVER
        for f, key, value in _mops(operation)
        if f != "r" and (key, value) in read
    ]
    if not places:
        return None
    position = random.choice(places)
    events = list(history.events)
    events[position] = msgspec.structs.replace(events[position], type="fail")
    return History(events)


def forget_completed(history: History, random: Random) -> History | None:
    """A read of a whole list is emptied though an append had completed before it began."""
    appended: list[tuple[object, int]] = [
        (key, operation.end)
        for operation in history.operations
        if operation.outcome == "ok"
        for f, key, _ in _mops(operation)
        if f == "append"
    ]
    places = [
        (operation.end, mop)
        for operation in history.operations
        if operation.outcome == "ok"
        for mop, (f, key, value) in enumerate(_mops(operation))
        if f == "r" and value and any(k == key and end < operation.start for k, end in appended)
    ]
    if not places:
        return None
    position, mop = random.choice(places)
    value = [list(m) for m in _mops_of(history.events[position])]
    value[mop][2] = []
    return _replaced(history, position, value)


def lose_element(history: History, random: Random) -> History | None:
    """The last read of a set lacks an element whose addition had ended before the read began."""
    reads = [r for r in _reads(history) if isinstance(r.result, list)]
    if not reads:
        return None
    last = max(reads, key=lambda r: r.end)
    done = [
        o.argument
        for o in history.operations
        if o.f in ("add", "write") and o.outcome == "ok" and o.end < last.start
    ]
    if not done or any(r.start > last.start for r in reads):
        return None
    gone = random.choice(done)
    assert isinstance(last.result, list)
    return _replaced(history, last.end, [v for v in last.result if v != gone])


def miscount(history: History, random: Random) -> History | None:
    """A read of a counter is larger than everything ever added."""
    reads = _reads(history)
    if not reads:
        return None
    total = sum(
        o.argument for o in history.operations if o.f == "add" and isinstance(o.argument, int)
    )
    return _replaced(history, random.choice(reads).end, total + 1)


def make_money(history: History, random: Random) -> History | None:
    """A read of a bank, not the first, sees one coin more."""
    reads = sorted((r for r in _reads(history) if isinstance(r.result, dict)), key=lambda r: r.end)
    if len(reads) < 2:
        return None
    read = random.choice(reads[1:])
    assert isinstance(read.result, dict)
    balances = dict(read.result)
    account = random.choice(sorted(balances))
    balances[account] += 1
    return _replaced(history, read.end, balances)


def dequeue_twice(history: History, random: Random) -> History | None:
    """A dequeue gives what another dequeue gave."""
    taken = [o for o in history.operations if o.f == "dequeue" and o.outcome == "ok"]
    if len(taken) < 2:
        return None
    one, two = random.sample(taken, 2)
    return _replaced(history, one.end, two.result)


def fork(history: History, random: Random) -> History | None:
    """Two reads of one group are made to see two inserts in different orders."""
    groups: dict[frozenset[object], list[Operation]] = {}
    for operation in history.operations:
        mops = _mops(operation)
        if operation.outcome == "ok" and len(mops) >= 2 and all(f == "r" for f, _, _ in mops):
            groups.setdefault(frozenset(key for _, key, _ in mops), []).append(operation)
    pairs = [found for found in groups.values() if len(found) >= 2]
    if not pairs:
        return None
    one, two = random.sample(random.choice(pairs), 2)
    keys = sorted({key for _, key, _ in _mops(one)}, key=str)[:2]
    changed = history
    for operation, seen in ((one, keys[0]), (two, keys[1])):
        value = [
            [f, k, (1 if k == seen else None) if k in keys else v] for f, k, v in _mops(operation)
        ]
        changed = _replaced(changed, operation.end, value)
    return changed


def double_acquire(history: History, random: Random) -> History | None:
    """A lock is granted again right after it was granted, while nobody was asking to release it."""
    places = [
        o.end
        for o in history.operations
        if o.f == "acquire" and o.outcome == "ok"
        and not any(
            r.f == "release" and r.outcome != "fail" and r.start < o.end and r.end > o.start
            for r in history.operations
        )
    ]  # fmt: skip
    if not places:
        return None
    position = random.choice(places)
    events = list(history.events)
    stranger = 10**6
    extra = [Event(0, "invoke", stranger, "acquire"), Event(0, "ok", stranger, "acquire")]
    events[position + 1 : position + 1] = extra
    return History(msgspec.structs.replace(e, index=i) for i, e in enumerate(events))


Mop = tuple[object, object, object]


def _mops_of(event: Event) -> list[Mop]:
    if not isinstance(event.value, Sequence) or isinstance(event.value, str):
        return []
    return [
        (m[0], m[1], m[2])
        for m in event.value
        if isinstance(m, Sequence) and not isinstance(m, str) and len(m) == 3
    ]


def _mops(operation: Operation) -> list[Mop]:
    value = operation.value
    if not isinstance(value, Sequence) or isinstance(value, str):
        return []
    return [
        (m[0], m[1], m[2])
        for m in value
        if isinstance(m, Sequence) and not isinstance(m, str) and len(m) == 3
    ]


Perturbation = Callable[[History, Random], History | None]

PERTURBATIONS: dict[str, dict[str, Perturbation]] = {
    "register": {"invent-value": invent_value, "stale-read": stale_read},
    "cas-register": {"invent-value": invent_value},
    "kv-append": {},
    "mutex": {"double-acquire": double_acquire},
    "multi-register": {"fail-what-was-read": fail_what_was_read},
    "list-append": {
        "drop-element": drop_element,
        "double-element": double_element,
        "fail-what-was-read": fail_what_was_read,
        "forget-completed": forget_completed,
    },
    "rw-register": {"fail-what-was-read": fail_what_was_read},
    "set": {"lose-element": lose_element},
    "set-full": {"lose-element": lose_element},
    "causal-reverse": {},
    "counter": {"miscount": miscount},
    "bank": {"make-money": make_money},
    "queue": {"dequeue-twice": dequeue_twice},
    "long-fork": {"fork": fork},
}
"""Model -> name -> the change."""


def perturb(
    history: History, model: str, random: Random, name: str | None = None
) -> History | None:
    """The history with one provable error, or None when it offers no place for one."""
    offered = PERTURBATIONS[model]
    names = [name] if name is not None else random.sample(sorted(offered), len(offered))
    for chosen in names:
        changed = offered[chosen](history, random)
        if changed is not None:
            return changed
    return None
