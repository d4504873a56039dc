"""Linearizability of one object: the search of Wing and Gong with the memory of Lowe.

An operation takes effect at one instant between its call and its return. The search walks over the returns in
order. At each return the returning operation must have taken effect; if it has not, some operation that is open
now must take effect next. Where several could, one is tried and the others are kept for later.

Three things make it fast where it can be:

* **Memory.** Two paths that reach the same return with the same open operations done and the same state have the
  same future. Open operations hold small slot numbers that are used again, so a configuration is
  `(return, mask of done slots, mask of done crashed operations, state)`: short, whatever the length of the log.
* **Absorption.** A pure action that is legal now can be placed now: it changes nothing for anybody else. This is
  *not* so for a write that happens to leave the state as it is: another place might need it later.
* **Order.** The returning operation first, then what would make it legal, then whoever must return soonest.

Operations that crashed have no return. They may take effect at any time after their call, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from jepsen_like.linearizability.objects import ILLEGAL, Action, State, Step


class Call(msgspec.Struct, frozen=True):
    """An action with its window in positions of the history; `end` is None for a crashed operation."""

    number: int
    action: Action
    start: int
    end: int | None


class Stuck(msgspec.Struct, frozen=True):
    """The farthest point any order reached: `blocked` could not take effect in `state`.

    `placed` is one longest order of operations that works; `open_calls` were under way at that point.
    """

    blocked: int
    state: State
    placed: tuple[int, ...]
    open_calls: tuple[int, ...]


class Outcome(msgspec.Struct, frozen=True):
    """`order` is a witness when linearizable; `stuck` says where it ends when not."""

    linearizable: bool
    order: tuple[int, ...] = ()
    stuck: Stuck | None = None
    configurations: int = 0


class _Plan:
    """The history of one object, laid out for the search."""

    def __init__(self, calls: Sequence[Call]) -> None:
        crashed = sorted(
            (c for c in calls if c.end is None and not c.action.pure), key=lambda c: c.start
        )
        returns = sorted((c for c in calls if c.end is not None), key=lambda c: c.end or 0)
        self.returns = returns
        self.crashed = crashed
        self.slot_bits: list[int] = []
        # For every return: the calls open then, split by whether they can change the state.
        self.pure: list[tuple[tuple[int, Call], ...]] = []
        self.changing: list[tuple[tuple[int, Call], ...]] = []
        self.crashed_before: list[int] = []
        self._lay_out()

    def _lay_out(self) -> None:
        by_start = sorted(self.returns, key=lambda c: c.start)
        bit_of: dict[int, int] = {}
        free: list[int] = []
        used = 0
        open_calls: dict[int, Call] = {}
        next_call = 0
        crashed_seen = 0
        for call in self.returns:
            end = call.end
            assert end is not None
            while next_call < len(by_start) and by_start[next_call].start < end:
                newcomer = by_start[next_call]
                if not free:
                    free.append(1 << used)
                    used += 1
                bit_of[newcomer.number] = free.pop()
                open_calls[newcomer.number] = newcomer
                next_call += 1
            while crashed_seen < len(self.crashed) and self.crashed[crashed_seen].start < end:
                crashed_seen += 1
            now = [(bit_of[c.number], c) for c in open_calls.values()]
            now.sort(key=lambda pair: pair[1].end or 0)
            self.slot_bits.append(bit_of[call.number])
            self.pure.append(tuple(p for p in now if p[1].action.pure))
            self.changing.append(tuple(p for p in now if not p[1].action.pure))
            self.crashed_before.append(crashed_seen)
            del open_calls[call.number]
            free.append(bit_of[call.number])


Prune = Callable[[State, int], bool]


def search(
    calls: Sequence[Call],
    initial: State,
    step: Step,
    *,
    slice_steps: int = 20_000,
    prune: Callable[[Sequence[Call]], Prune] | None = None,
) -> Iterator[Outcome | None]:
    """Decides one object. Yields None after every `slice_steps` configurations, and the outcome at last.

    `prune` may give a test `(state, return) -> bool` that is true when no future can work from there.
    """
    plan = _Plan(calls)
    hopeless = prune(plan.returns) if prune is not None else None
    total = len(plan.returns)
    seen: set[tuple[int, int, int, State]] = set()
    trail: list[int] = []
    best: tuple[int, int, State, tuple[int, ...]] = (
        -1,
        0,
        initial,
        (),
    )  # return, mask, state, order
    # Each frame: configuration, the trail's length before it, and its remaining successors.
    frames: list[tuple[int, Iterator[tuple[int, int, State, int]], int]] = []
    at, mask, done_crashed, state = 0, 0, 0, initial
    steps = 0
    while True:
        at, mask = _absorb(plan, at, mask, state, step, trail)
        if at == total:
            yield Outcome(True, tuple(trail), None, len(seen))
            return
        fresh = (at, mask, done_crashed, state) not in seen
        if fresh:
            seen.add((at, mask, done_crashed, state))
            steps += 1
            if at > best[0]:
                best = (at, mask, state, tuple(trail))
            if steps % slice_steps == 0:
                yield None
            if hopeless is None or not hopeless(state, at):
                successors = _successors(plan, at, mask, done_crashed, state, step)
                frames.append((at, iter(successors), len(trail)))
        while frames:
            level, successors_left, length = frames[-1]
            successor = next(successors_left, None)
            if successor is not None:
                del trail[length:]
                mask, done_crashed, state, number = successor
                trail.append(number)
                at = level
                break
            frames.pop()
        else:
            yield Outcome(False, (), _stuck(plan, best), len(seen))
            return


def _absorb(
    plan: _Plan, at: int, mask: int, state: State, step: Step, trail: list[int]
) -> tuple[int, int]:
    total = len(plan.returns)
    while at < total:
        for bit, call in plan.pure[at]:
            if not mask & bit and step(state, call.action) is not ILLEGAL:
                mask |= bit
                trail.append(call.number)
        bit = plan.slot_bits[at]
        if not mask & bit:
            break
        while at < total and mask & plan.slot_bits[at]:
            mask ^= plan.slot_bits[at]
            at += 1
    return at, mask


def _successors(
    plan: _Plan, at: int, mask: int, done_crashed: int, state: State, step: Step
) -> list[tuple[int, int, State, int]]:
    blocked = plan.returns[at]
    first: list[tuple[int, int, State, int]] = []
    helpful: list[tuple[int, int, State, int]] = []
    others: list[tuple[int, int, State, int]] = []
    for bit, call in plan.changing[at]:
        if mask & bit:
            continue
        after = step(state, call.action)
        if after is ILLEGAL:
            continue
        successor = (mask | bit, done_crashed, after, call.number)
        if call is blocked:
            first.append(successor)
        elif step(after, blocked.action) is not ILLEGAL:
            helpful.append(successor)
        else:
            others.append(successor)
    tried: set[Action] = set()
    for i in range(plan.crashed_before[at]):
        call = plan.crashed[i]
        # Of equal crashed actions the one called first can stand for all the others.
        if done_crashed >> i & 1 or call.action in tried:
            continue
        tried.add(call.action)
        after = step(state, call.action)
        # A crashed action that changes nothing helps nobody: it need not happen.
        if after is ILLEGAL or after == state:
            continue
        successor = (mask, done_crashed | 1 << i, after, call.number)
        helps = step(after, blocked.action) is not ILLEGAL
        (helpful if helps else others).append(successor)
    return first + helpful + others


def _stuck(plan: _Plan, best: tuple[int, int, State, tuple[int, ...]]) -> Stuck:
    at, mask, state, placed = best
    waiting = [call.number for bit, call in plan.pure[at] + plan.changing[at] if not mask & bit]
    return Stuck(plan.returns[at].number, state, placed, tuple(sorted(waiting)))
