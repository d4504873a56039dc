"""Valid histories by the thousand without one false alarm, and provable errors without one miss."""

from __future__ import annotations

import itertools
from functools import partial
from random import Random

import pytest

from jepsen_like import History, check
from jepsen_like.explain.verify import objections
from jepsen_like.generate import MODELS, PERTURBATIONS, Settings, generate, perturb

HISTORIES_A_MODEL = {
    "list-append": 900,
    "rw-register": 600,
    "multi-register": 500,
    "cas-register": 1200,
}
HISTORIES_OTHERWISE = 800
OPTIONS = list(
    itertools.product(
        (1, 3, 9),  # processes
        (1, 4),  # keys
        (0, 2, 6),  # spread of values
        ((0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.15, 0.15)),  # crashed, refused
        (False, True),  # equal times
    )
)
CONSISTENCIES = (
    "strict-serializable", "strong-session-serializable", "serializable", "snapshot-isolation",
    "read-committed",
)  # fmt: skip


def _settings(number: int, operations: int) -> Settings:
    processes, keys, spread, (crash, fail), equal = OPTIONS[number % len(OPTIONS)]
    return Settings(
        operations=operations,
        processes=processes,
        keys=keys,
        spread=spread,
        crash=crash,
        fail=fail,
        equal_times=equal,
    )


@pytest.mark.parametrize("model", sorted(MODELS))
def test_no_false_alarm(model: str) -> None:
    """Hundreds of valid histories of a model, across all options, and none is called invalid.

    Over all models these are more than 10,000.
    """
    total = sum(HISTORIES_A_MODEL.get(name, HISTORIES_OTHERWISE) for name in MODELS)
    assert total >= 10_000
    random = Random(f"valid {model}")
    unknown = 0
    count = HISTORIES_A_MODEL.get(model, HISTORIES_OTHERWISE)
    for number in range(count):
        history = generate(model, _settings(number, random.randint(8, 24)), random)
        consistency = CONSISTENCIES[number % len(CONSISTENCIES)]
        verdict = check(history, model=model, consistency=consistency)
        assert verdict.valid is not False, (number, consistency, verdict, history.events)
        unknown += verdict.valid == "unknown"
    assert unknown < count / 2


@pytest.mark.parametrize("processes", [1, 1000])
def test_one_client_and_a_thousand(processes: int) -> None:
    """A single process, and a process for nearly every operation, are ordinary histories."""
    random = Random(processes)
    for model in ("list-append", "rw-register", "register", "set-full"):
        settings = Settings(operations=400, processes=processes, keys=20, spread=0)
        assert check(generate(model, settings, random), model=model).valid is True


CASES = [(model, name) for model, names in PERTURBATIONS.items() for name in names]


@pytest.mark.parametrize("model, name", CASES)
def test_every_provable_error_is_found(model: str, name: str) -> None:
    """One semantic change with a provable verdict, and the checker says invalid each time."""
    random = Random(f"{model} {name}")
    found = 0
    for number in range(120):
        # Unique values, no refusals: then every change is a proof.
        settings = Settings(operations=40, processes=1 + number % 5, keys=3, spread=0)
        changed = perturb(generate(model, settings, random), model, random, name)
        if changed is None:
            continue
        verdict = check(changed, model=model)
        assert verdict.valid is False, (number, verdict, changed.events)
        found += 1
    assert found >= 20


def test_every_edge_of_every_cycle_is_proved_again() -> None:
    """Explanations of perturbed histories hold up before a verifier that knows only the raw operations."""
    random = Random(11)
    proved = 0
    for model, name in (
        ("list-append", "forget-completed"),
        ("list-append", "drop-element"),
        ("rw-register", "swap"),
    ):
        for _ in range(60):
            history = generate(
                model, Settings(operations=30, processes=4, keys=2, spread=0), random
            )
            changed = (
                _swapped(history, random)
                if name == "swap"
                else perturb(history, model, random, name)
            )
            if changed is None:
                continue
            operations = changed.operations
            for finding in check(changed, model=model).findings:
                problems = objections(finding, operations.__getitem__, partial(list, operations))
                assert not problems, (problems, finding, changed.events)
                proved += len(finding.steps)
    assert proved > 100


def _swapped(history: History, random: Random) -> History:
    """The answers of two transactions' reads of one key change places."""
    import msgspec

    events = list(history.events)
    reads = [
        (position, mop, value[1])
        for position, event in enumerate(events)
        if event.type == "ok" and isinstance(event.value, list)
        for mop, value in enumerate(event.value)
        if value[0] == "r"
    ]
    one = random.choice(reads)
    two = random.choice([r for r in reads if r[2] == one[2]])
    values = {}
    for position, mop, _ in (one, two):
        value = values.setdefault(position, [list(m) for m in events[position].value])  # type: ignore[attr-defined]
        assert value[mop][0] == "r"
    a, b = values[one[0]][one[1]], values[two[0]][two[1]]
    a[2], b[2] = b[2], a[2]
    for position, value in values.items():
        events[position] = msgspec.structs.replace(events[position], value=value)
    return History(events)


def test_the_verifier_is_not_easily_pleased() -> None:
    """A cycle whose edge is bent, or whose name is another, meets objections."""
    import msgspec

    from tests.checkers.histories import together, txn

    history = together(txn("append x 1, r y"), txn("append y 1, r x"))
    (finding,) = check(history, model="list-append").findings
    operations = history.operations
    renamed = msgspec.structs.replace(finding, name="G0")
    assert objections(renamed, operations.__getitem__, lambda: operations)
    for changed in ({"kind": "wr"}, {"kind": "realtime"}, {"kind": "process"}, {"next_value": 9}):
        step = msgspec.structs.replace(finding.steps[0], **changed)
        bent = msgspec.structs.replace(finding, steps=(step, *finding.steps[1:]))
        assert objections(bent, operations.__getitem__, lambda: operations), changed


@pytest.mark.parametrize("model", ["list-append", "register", "cas-register", "rw-register"])
def test_renaming_and_shifting_change_nothing(model: str) -> None:
    """Other process names, times and event numbers give the same verdict, for valid and wrong histories."""
    import msgspec

    random = Random(f"metamorphic {model}")
    for _ in range(40):
        history = generate(model, Settings(operations=30, processes=4, spread=0), random)
        wrong = perturb(history, model, random)
        for version in (history, wrong):
            if version is None:
                continue
            renamed = History(
                msgspec.structs.replace(
                    event, process=f"client {event.process}", time_ns=None, index=event.index + 1000
                )
                for event in version.events
            )
            one, two = check(version, model=model), check(renamed, model=model)
            assert (one.valid, one.anomalies) == (two.valid, two.anomalies)
