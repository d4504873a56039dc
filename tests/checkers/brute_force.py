"""The naive twin of every decider: tries all orders. For a handful of operations only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from jepsen_like.history import NEVER, Event, History, Operation


def some_order_works(
    operations: Sequence[Operation],
    apply: Callable[[dict, Operation], bool],
    *,
    realtime: bool = True,
) -> bool:
    """Whether some order of all completed and any crashed operations satisfies `apply` step by step."""
    pending = [o for o in operations if o.outcome != "fail"]
    done = frozenset(o.number for o in pending if o.outcome == "ok")

    def extend(placed: frozenset[int], state: dict) -> bool:
        if done <= placed:
            return True
        for operation in pending:
            if operation.number in placed:
                continue
            blocked = realtime and any(
                o.number not in placed and o.outcome == "ok" and o.end < operation.start
                for o in pending
            )
            if blocked:
                continue
            after = dict(state)
            if apply(after, operation) and extend(placed | {operation.number}, after):
                return True
        return False

    return extend(frozenset(), {})


def apply_register(state: dict, operation: Operation) -> bool:
    """A register with read, write and compare-and-set; one per key."""
    now = state.get(operation.key)
    known = operation.outcome == "ok"
    if operation.f == "read":
        return not known or operation.result == now
    if operation.f == "write":
        state[operation.key] = operation.argument
        return True
    assert isinstance(operation.argument, list)
    old, new = operation.argument
    if known and operation.result is False:
        return now != old
    if now != old:
        return False
    state[operation.key] = new
    return True


def apply_transaction(state: dict, operation: Operation) -> bool:
    """Lists (`append`) and registers (`w`) read by `r`."""
    assert isinstance(operation.value, list)
    for f, key, value in operation.value:
        if f == "append":
            state[key] = (*state.get(key, ()), value)
        elif f == "w":
            state[key] = value
        elif operation.outcome == "ok":
            found = state.get(key)
            expected = list(found) if isinstance(found, tuple) else found
            if (expected or None) != (value or None):
                return False
    return True


def scatter(
    random: Random, requests: list[tuple[str, object, object, str]], processes: int
) -> History:
    """A history of the requests (f, argument, result, outcome) with random windows."""
    events: list[Event] = []
    running: dict[int, tuple[str, object, str]] = {}
    waiting = list(requests)
    free = list(range(processes))
    fresh = processes
    while waiting or running:
        if waiting and free and (not running or random.random() < 0.5):
            f, argument, result, outcome = waiting.pop(0)
            process = free.pop(random.randrange(len(free)))
            running[process] = (f, result, outcome)
            events.append(Event(len(events), "invoke", process, f, argument))
        else:
            process = random.choice(sorted(running))
            f, result, outcome = running.pop(process)
            events.append(Event(len(events), outcome, process, f, result))  # type: ignore[arg-type]
            if outcome == "info":
                process, fresh = fresh, fresh + 1
            free.append(process)
    return History(events)


def is_after(one: Operation, two: Operation) -> bool:
    """Whether the first began after the second had ended."""
    return two.end != NEVER and two.end < one.start
