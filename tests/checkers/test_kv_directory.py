"""The checker of a KV pool's directory: each promise, kept and broken, and what is excused."""

from __future__ import annotations

from typing import Literal

import pytest

from jepsen_like import History, HistoryError, check
from jepsen_like.history import Event

Step = tuple[str, dict, int | None]
RUN = {"worker": "a", "incarnation": 1, "run": "r", "tier": 1, "generation": 5, "blocks": 4}
PLACE = {"worker": "a", "run": "r", "generation": 5}
BORN: Step = ("register", {"worker": "a", "incarnation": 1}, 10)
THERE: Step = ("publish", RUN | {"slots": [1, 2, 3, 4]}, 20)


def history(*steps: Step) -> History:
    """Operations one after the other; without a stamp nobody knows what came of them."""
    events: list[Event] = []
    for process, (f, value, stamp) in enumerate(steps):
        kind: Literal["info", "ok"] = "info" if stamp is None else "ok"
        events.append(Event(len(events), "invoke", process, f, value))
        events.append(Event(len(events), kind, process, f, value, stamp=stamp))
    return History(events)


def held(stamp: int | None, *, blocks: int = 4, until: int = 1_000, **place) -> Step:
    """A claim."""
    one = {"incarnation": 1} | PLACE | place | {"blocks": blocks}
    return ("acquire", {"claim": f"c{stamp}", "until": until, "held": [one]}, stamp)


def evicted(stamp: int | None, keep: int = 0, **more) -> Step:
    """A pool's eviction."""
    return ("evict", PLACE | {"keep": keep} | more, stamp)


def final(*rows: dict, claims: tuple[str, ...] = ()) -> Step:
    """What is there in the end."""
    return ("final", {"runs": list(rows), "claims": list(claims)}, 900)


ROW = PLACE | {"blocks": 4}
B_RUN = RUN | {"worker": "b", "generation": 8}
LANDED: Step = ("land", {"to": B_RUN, "claim": "task", "until": 60}, 40)
B_PLACE = {"worker": "b", "run": "r", "generation": 8, "keep": 0}
LEAVES: Step = ("retire", PLACE | {"other": "b"}, 70)
CASES: list[tuple[str, tuple[Step, ...], tuple[str, ...]]] = [
    ("moved between regions", (held(30), LANDED, LEAVES), ()),
    (
        "landed, and evicted while the task holds it",
        (held(30), LANDED, ("evict", B_PLACE, 50)),
        ("evicted-while-claimed",),
    ),
    (
        "left for a copy that went when the task let go of it",
        (held(30), LANDED, ("evict", B_PLACE, 65), LEAVES),
        ("zero-copies",),
    ),
    (
        "left for a copy whose worker has just died",
        (held(30), LANDED, ("register", {"worker": "b", "incarnation": 2}, 65), LEAVES),
        (),
    ),
    (
        "left for a copy that may have landed",
        (held(30), ("land", LANDED[1], None), LEAVES),
        (),
    ),
    (
        "an engine that was asked twice says only once what it broke",
        (
            held(30),
            ("report", PLACE | {"keep": 0, "voided": []}, None),
            ("report", PLACE | {"keep": 0, "voided": []}, 50),
        ),
        (),
    ),
    ("claimed, released, evicted", (held(30), ("release", {"claim": "c30"}, 40), evicted(50)), ()),
    ("claimed until it ran out", (held(30, until=45), evicted(50)), ()),
    ("evicted while claimed", (held(30), evicted(50)), ("evicted-while-claimed",)),
    ("shortened behind the claim", (held(30, blocks=2), evicted(50, 2)), ()),
    ("shortened under the claim", (held(30, blocks=3), evicted(50, 2)), ("evicted-while-claimed",)),
    ("maybe released", (held(30), ("release", {"claim": "c30"}, None), evicted(50)), ()),
    ("claimed after the eviction", (evicted(30), held(40)), ("phantom",)),
    ("claimed more than there is", (evicted(30, 2), held(40, blocks=3)), ("phantom",)),
    ("claimed another generation", (held(40, generation=6),), ("phantom",)),
    (
        "perhaps that generation came later",
        (("publish", RUN | {"generation": 6}, None), held(40, generation=6)),
        (),
    ),
    (
        "fenced, then claimed",
        (("fence", {"worker": "a", "incarnation": 2}, 30), held(40)),
        ("phantom",),
    ),
    ("perhaps fenced", (("fence", {"worker": "a", "incarnation": 2}, None), held(40)), ()),
    ("cleared, then claimed", (("clear", {"worker": "a", "tier": 1}, 30), held(40)), ("phantom",)),
    ("another tier was cleared", (("clear", {"worker": "a", "tier": 0}, 30), held(40)), ()),
    (
        "the dead publish",
        (("register", {"worker": "a", "incarnation": 2}, 30), ("publish", RUN, 40)),
        ("published-by-the-dead",),
    ),
    (
        "an incarnation goes back",
        (
            ("register", {"worker": "a", "incarnation": 3}, 30),
            ("register", {"worker": "a", "incarnation": 2}, 40),
        ),
        ("incarnation-went-back",),
    ),
    (
        "an engine tells",
        (held(30), ("report", PLACE | {"keep": 0, "voided": ["c30"]}, 40)),
        (),
    ),
    (
        "an engine does not tell",
        (held(30), ("report", PLACE | {"keep": 0, "voided": []}, 40)),
        ("void-not-reported",),
    ),
    (
        "renewed after it was void",
        (
            held(30),
            ("report", PLACE | {"keep": 0, "voided": ["c30"]}, 40),
            ("renew", {"claim": "c30", "until": 2_000}, 50),
        ),
        ("renewed-lost",),
    ),
    (
        "renewed after it ran out",
        (held(30, until=40), ("renew", {"claim": "c30", "until": 2_000}, 50)),
        ("renewed-lost",),
    ),
    (
        "renewed in time and held",
        (held(30, until=60), ("renew", {"claim": "c30", "until": 99}, 50), evicted(70)),
        ("evicted-while-claimed",),
    ),
    (
        "moved",
        (("migrate", {"from": PLACE, "to": B_RUN}, 30), held(40, worker="b", generation=8)),
        (),
    ),
    (
        "claimed at its old place",
        (("migrate", {"from": PLACE, "to": B_RUN}, 30), held(40)),
        ("phantom",),
    ),
    ("claimed on its way out", (("retire", PLACE, 30), held(40)), ("phantom",)),
    ("claimed before it left", (held(30), ("retire", PLACE, 40)), ()),
    ("left for nothing", (("retire", PLACE | {"other": "b"}, 30),), ("zero-copies",)),
    (
        "left for another copy",
        (("publish", B_RUN, 25), ("retire", PLACE | {"other": "b"}, 30)),
        (),
    ),
    ("the last copy went", (evicted(30, guarded=True),), ("last-copy-evicted",)),
    ("one of two copies went", (("publish", B_RUN, 25), evicted(30, guarded=True)), ()),
    (
        "the other copy is shorter",
        (("publish", B_RUN | {"blocks": 3}, 25), evicted(30, guarded=True)),
        ("last-copy-evicted",),
    ),
    (
        "two runs in one slot",
        (("publish", RUN | {"run": "s", "slots": [4, 5]}, 30),),
        ("double-owned",),
    ),
    (
        "a slot that is free again",
        (evicted(25, 3), ("publish", RUN | {"run": "s", "slots": [4, 5]}, 30)),
        (),
    ),
    ("kept", (final(ROW),), ()),
    ("lost", (final(),), ("lost",)),
    ("perhaps evicted", (evicted(None), final()), ()),
    ("leaked", (evicted(30), final(ROW)), ("leaked",)),
    ("twice in the end", (final(ROW, ROW),), ("double-owned",)),
    (
        "a released claim is there in the end",
        (held(30), ("release", {"claim": "c30"}, 40), final(ROW, claims=("c30",))),
        ("claim-leaked",),
    ),
]


@pytest.mark.parametrize("name, steps, anomalies", CASES, ids=[case[0] for case in CASES])
def test_each_promise(name: str, steps: tuple[Step, ...], anomalies: tuple[str, ...]) -> None:
    """What is broken is found by name, and nothing else is; what is kept or excused is left alone."""
    verdict = check(history(BORN, THERE, *steps), model="kv-directory")
    assert verdict.anomalies == anomalies
    assert verdict.valid is not False or anomalies


def test_stamps_decide_the_order() -> None:
    """Operations are judged in the order of their stamps, whoever heard of them first."""
    valid = history(BORN, THERE, evicted(50), held(30, until=40))
    assert check(valid, model="kv-directory").valid is True


def test_nothing_acquired_proves_nothing() -> None:
    """Without a claim the verdict is unknown."""
    assert check(history(BORN, THERE), model="kv-directory").valid == "unknown"


def test_what_is_no_such_history_is_refused() -> None:
    """Unknown operations, missing stamps and missing fields are named."""
    for steps, what in (
        ((("read", {}, 1),), "does not know"),
        ((("publish", {"worker": "a"}, 1),), "no name 'run'"),
        ((("publish", RUN | {"blocks": "4"}, 1),), "no number 'blocks'"),
        ((("migrate", {}, 1),), "a from and a to"),
        ((("evict", None, 1),), "not a map"),
    ):
        with pytest.raises(HistoryError, match=what):
            check(history(*steps), model="kv-directory")
    events = [Event(0, "invoke", 0, "release", {"claim": "c"}), Event(1, "ok", 0, "release")]
    with pytest.raises(HistoryError, match="no stamp"):
        check(History(events), model="kv-directory")
