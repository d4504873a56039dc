"""Valid histories: a serial object, clients that reach it with delay, and an observer."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from jepsen_like.history import Event, History, Kind


class Settings(msgspec.Struct, frozen=True):
    """What a generated history is like.

    `spread` is how many values there are to choose from (small: values repeat; 0: every value is new); `crash` and
    `fail` are the shares of operations whose outcome stays unknown or that are refused.
    """

    operations: int = 100
    processes: int = 5
    keys: int = 3
    spread: int = 5
    crash: float = 0.0
    fail: float = 0.0
    mops_max: int = 4
    equal_times: bool = False


class _World(msgspec.Struct):
    """The serial object and what its clients count."""

    random: Random
    settings: Settings
    values: dict[int, object] = {}
    lists: dict[int, list[int]] = {}
    written: int = 0
    stamp: int = 0

    def key(self) -> int:
        return self.random.randrange(self.settings.keys)

    def value(self) -> int:
        self.written += 1
        spread = self.settings.spread
        return self.written if spread == 0 else self.random.randrange(spread)

    def fresh(self) -> int:
        self.written += 1
        return self.written


class _Request(msgspec.Struct):
    f: str
    value: object
    apply: Callable[[], object]
    key: object = None


Ask = Callable[[_World], _Request]


def _register(world: _World, *, cas: bool) -> _Request:
    key = world.key()
    f = world.random.choice(("read", "write", "cas") if cas else ("read", "write"))
    values = world.values
    if f == "read":
        return _Request(f, None, lambda: values.get(key), key)
    if f == "write":
        value = world.value()

        def write() -> object:
            values[key] = value
            return value

        return _Request(f, value, write, key)
    old, new = world.value(), world.value()

    def compare() -> object:
        if values.get(key) != old:
            return False
        values[key] = new
        return [old, new]

    return _Request(f, [old, new], compare, key)


def _string(world: _World) -> _Request:
    key = world.key()
    f = world.random.choice(("get", "get", "append", "put"))
    values = world.values
    if f == "get":
        return _Request(f, None, lambda: values.get(key, ""), key)
    text = f"<{world.value()}>"

    def change() -> object:
        values[key] = text if f == "put" else f"{values.get(key, '')}{text}"
        return text

    return _Request(f, text, change, key)


def _mutex(world: _World) -> _Request:
    f = world.random.choice(("acquire", "release"))
    values = world.values

    def turn() -> object:
        if bool(values.get(0)) == (f == "acquire"):
            return REFUSED
        values[0] = f == "acquire"
        return None

    return _Request(f, None, turn)


REFUSED = object()
"""What an object answers that will not do what was asked: the operation fails."""


def _transaction(world: _World, *, write: str) -> _Request:
    asked: list[list[object]] = []
    for _ in range(world.random.randint(1, world.settings.mops_max)):
        key = world.key()
        asked.append(
            ["r", key, None] if world.random.random() < 0.5 else [write, key, world.fresh()]
        )

    def run() -> object:
        done: list[list[object]] = []
        for f, key, value in asked:
            assert isinstance(key, int)
            if f == "append":
                assert isinstance(value, int)
                world.lists.setdefault(key, []).append(value)
            elif f == "w":
                world.values[key] = value
            elif write == "append":
                value = list(world.lists.get(key, []))
            else:
                value = world.values.get(key)
            done.append([f, key, value])
        return done

    return _Request("txn", asked, run)


def _set(world: _World) -> _Request:
    elements = world.lists.setdefault(0, [])
    if world.random.random() < 0.4:
        return _Request("read", None, lambda: list(elements))
    value = world.fresh()

    def add() -> object:
        elements.append(value)
        return value

    return _Request("add", value, add)


def _counter(world: _World) -> _Request:
    if world.random.random() < 0.5:
        return _Request("read", None, lambda: world.values.get(0, 0))
    amount = world.random.randint(1, 5)

    def add() -> object:
        now = world.values.get(0, 0)
        assert isinstance(now, int)
        world.values[0] = now + amount
        return amount

    return _Request("add", amount, add)


def _queue(world: _World) -> _Request:
    waiting = world.lists.setdefault(0, [])
    if world.random.random() < 0.5:
        return _Request("dequeue", None, lambda: waiting.pop(0) if waiting else REFUSED)
    value = world.fresh()

    def put() -> object:
        waiting.append(value)
        return value

    return _Request("enqueue", value, put)


def _bank(world: _World) -> _Request:
    accounts = max(2, world.settings.keys)
    for account in range(accounts):
        world.values.setdefault(account, 10)
    if world.random.random() < 0.5:
        return _Request("read", None, lambda: {str(a): world.values[a] for a in range(accounts)})
    source, target = world.random.sample(range(accounts), 2)
    amount = world.random.randint(1, 5)

    def move() -> object:
        have, there = world.values[source], world.values[target]
        assert isinstance(have, int)
        assert isinstance(there, int)
        if have < amount:
            return REFUSED
        world.values[source], world.values[target] = have - amount, there + amount
        return asked

    asked = {"from": source, "to": target, "amount": amount}
    return _Request("transfer", asked, move)


def _long_fork(world: _World) -> _Request:
    if world.random.random() < 0.5:
        key = world.fresh()

        def insert() -> object:
            world.values[key] = 1
            return [["w", key, 1]]

        return _Request("write", [["w", key, 1]], insert)
    group = max(2, world.settings.keys)
    first = world.random.randrange(world.written // group + 1) * group
    keys = list(range(first, first + group))
    world.random.shuffle(keys)
    asked = [["r", key, None] for key in keys]
    return _Request("read", asked, lambda: [["r", key, world.values.get(key)] for key in keys])


def _causal_reverse(world: _World) -> _Request:
    request = _set(world)
    return _Request("write" if request.f == "add" else "read", request.value, request.apply)


MODELS: dict[str, Ask] = {
    "register": lambda world: _register(world, cas=False),
    "cas-register": lambda world: _register(world, cas=True),
    "multi-register": lambda world: _transaction(world, write="w"),
    "mutex": _mutex,
    "kv-append": _string,
    "list-append": lambda world: _transaction(world, write="append"),
    "rw-register": lambda world: _transaction(world, write="w"),
    "set": _set,
    "set-full": _set,
    "counter": _counter,
    "queue": _queue,
    "bank": _bank,
    "long-fork": _long_fork,
    "causal-reverse": _causal_reverse,
}
"""Model -> how a client makes up its next request."""


class _Flight(msgspec.Struct):
    process: int
    request: _Request
    applied: bool = False
    answer: object = None


def generate(model: str, settings: Settings, random: Random) -> History:
    """A history that is valid under the strongest promise of the model. Deterministic in `random`."""
    world = _World(random, settings, {}, {})
    ask = MODELS[model]
    events: list[Event] = []
    free = list(range(settings.processes))
    next_process = settings.processes
    flights: list[_Flight] = []
    asked = 0
    time_ns = 0

    def note(kind: Kind, flight: _Flight, value: object, stamp: int | None = None) -> None:
        nonlocal time_ns
        time_ns += 0 if settings.equal_times else random.randrange(1, 1000)
        events.append(
            Event(
                len(events),
                kind,
                flight.process,
                flight.request.f,
                value,
                time_ns,
                flight.request.key,
                stamp,
            )
        )

    while asked < settings.operations or flights:
        if asked < settings.operations and free and (not flights or random.random() < 0.4):
            process = free.pop(random.randrange(len(free)))
            flight = _Flight(process, ask(world))
            flights.append(flight)
            note("invoke", flight, flight.request.value)
            asked += 1
            continue
        flight = random.choice(flights)
        if not flight.applied:
            fate = random.random()
            refused = fate < settings.fail
            lost = settings.fail <= fate < settings.fail + settings.crash
            if lost and random.random() < 0.5:
                # It never arrives, and nobody will ever know.
                flights.remove(flight)
                note("info", flight, None)
                free.append(next_process)
                next_process += 1
                continue
            world.stamp += 1
            flight.answer = REFUSED if refused else flight.request.apply()
            flight.applied = True
            if lost:
                flights.remove(flight)
                note("info", flight, None)
                free.append(next_process)
                next_process += 1
            continue
        flights.remove(flight)
        free.append(flight.process)
        if flight.answer is REFUSED:
            note("fail", flight, flight.request.value)
        else:
            note("ok", flight, flight.answer)
    return History(events)
