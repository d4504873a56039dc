"""Each anomaly of Adya's and Elle's definitions, by hand, with its exact name and the models it rules out."""

from __future__ import annotations

import pytest

from jepsen_like import History, check
from jepsen_like.explain.verify import objections
from jepsen_like.history import Event
from jepsen_like.transactions.models import boundary, canonical, prohibited_anomalies
from tests.checkers.histories import around, serial, sessions, together, txn

LIST_APPEND: dict[str, tuple[History, str, tuple[str, ...], tuple[str, ...]]] = {
    # name: history, consistency, exact anomalies, weakest models violated
    "G0": (
        together(
            txn("append x 1, append y 1"), txn("append x 2, append y 2"), txn("r x 1 2, r y 2 1")
        ),
        "strict-serializable",
        ("G0",),
        ("read-uncommitted",),
    ),
    "G1a": (
        together(txn("append x 1", "fail"), txn("r x 1")),
        "serializable",
        ("G1a",),
        ("read-committed",),
    ),
    "G1b": (
        together(txn("append x 1, append x 2"), txn("r x 1")),
        "read-committed",
        ("G1b",),
        ("read-committed",),
    ),
    "G1b and G-single-item": (
        together(txn("append x 1, append x 2"), txn("r x 1")),
        "strict-serializable",
        ("G-single-item", "G1b"),
        ("read-committed",),
    ),
    "G1c": (
        together(txn("append x 1, r y 1"), txn("append x 2, append y 1"), txn("r x 1 2, r y 1")),
        "strict-serializable",
        ("G1c",),
        ("read-committed",),
    ),
    "G1c by reads alone": (
        together(txn("append x 1, r y 1"), txn("append y 1, r x 1")),
        "read-committed",
        ("G1c",),
        ("read-committed",),
    ),
    "G-single-item": (
        together(txn("append x 1, append y 1"), txn("append x 2, r y"), txn("r x 1 2")),
        "strict-serializable",
        ("G-single-item",),
        ("consistent-view", "repeatable-read"),
    ),
    "G-single-item, read skew": (
        together(txn("append x 1, append y 1"), txn("r x, r y 1")),
        "snapshot-isolation",
        ("G-single-item",),
        ("consistent-view", "repeatable-read"),
    ),
    "G-nonadjacent-item, long fork": (
        together(txn("append x 1"), txn("append y 1"), txn("r x 1, r y"), txn("r x, r y 1")),
        "snapshot-isolation",
        ("G-nonadjacent-item",),
        ("repeatable-read", "snapshot-isolation"),
    ),
    "G2-item, write skew": (
        together(txn("append x 1, r y"), txn("append y 1, r x")),
        "serializable",
        ("G2-item",),
        ("repeatable-read",),
    ),
    "lost-update": (
        together(txn("r x, append x 1"), txn("r x, append x 2"), txn("r x 1 2")),
        "snapshot-isolation",
        ("G-single-item", "lost-update"),
        ("cursor-stability", "update-atomic"),
    ),
    "lost-update whose order nobody saw": (
        together(txn("r x, append x 1"), txn("r x, append x 2")),
        "strict-serializable",
        ("G2-item", "lost-update"),
        ("cursor-stability", "update-atomic"),
    ),
    "internal": (
        together(txn("append x 1, r x 2 1, r x 1"), txn("append x 2")),
        "read-atomic",
        ("incompatible-order", "internal"),
        ("read-committed",),
    ),
    "internal, own append unseen": (
        together(txn("append x 1, r x"), txn("r y, append y 1")),
        "strict-serializable",
        ("internal",),
        ("read-atomic",),
    ),
    "future-read": (
        together(txn("r x 1, append x 1")),
        "serializable",
        ("future-read",),
        ("read-committed",),
    ),
    "dirty-update": (
        together(txn("append x 1", "fail"), txn("append x 2"), txn("r x 1 2")),
        "serializable",
        ("G1a", "dirty-update"),
        ("read-committed",),
    ),
    "incompatible-order": (
        together(txn("append x 1"), txn("append x 2"), txn("r x 1 2"), txn("r x 2")),
        "read-committed",
        ("incompatible-order",),
        ("read-committed",),
    ),
    "duplicate-elements": (
        together(txn("append x 1"), txn("append x 2"), txn("r x 1 2 1")),
        "read-uncommitted",
        ("duplicate-elements",),
        ("read-uncommitted",),
    ),
    "garbage-read": (
        together(txn("append x 1"), txn("r x 1 7")),
        "read-uncommitted",
        ("garbage-read",),
        ("read-uncommitted",),
    ),
    "G0-process": (
        sessions(
            [txn("append x 1"), txn("append y 1")],
            [txn("append y 2"), txn("append x 2")],
            [txn("r x 2 1, r y 1 2"), txn("r z")],
        ),
        "strong-session-read-uncommitted",
        ("G0-process",),
        ("strong-session-read-uncommitted",),
    ),
    "G1c-process": (
        sessions([txn("r x 1"), txn("append y 1")], [txn("r y 1"), txn("append x 1")]),
        "strong-session-read-committed",
        ("G1c-process",),
        ("strong-session-read-committed",),
    ),
    "G-single-item-process": (
        serial(
            txn("append x 1"),
            txn("append x 2"),
            txn("r x 1"),
            txn("r x 1 2"),
            processes=[0, 1, 1, 2],
        ),
        "strong-session-snapshot-isolation",
        ("G-single-item-process",),
        ("strong-session-snapshot-isolation",),
    ),
    "G-nonadjacent-item-process": (
        serial(
            txn("r x, r z 1"),
            txn("append x 1"),
            txn("r z"),
            txn("append z 1"),
            processes=[0, 1, 1, 2],
        ),
        "strong-session-snapshot-isolation",
        ("G-nonadjacent-item-process",),
        ("strong-session-snapshot-isolation",),
    ),
    "G2-item-process": (
        serial(txn("append x 1"), txn("r y, r z"), txn("append y 1, r x"), processes=[0, 0, 1]),
        "strong-session-serializable",
        ("G2-item-process",),
        ("strong-session-serializable",),
    ),
    "G0-realtime": (
        serial(txn("append x 1"), txn("append x 2"), txn("r x 2 1")),
        "strong-read-uncommitted",
        ("G0-realtime",),
        ("strong-read-uncommitted",),
    ),
    "G1c-realtime": (
        serial(txn("r x 1"), txn("append x 1")),
        "strict-serializable",
        ("G1c-realtime",),
        ("strong-read-committed",),
    ),
    "G-single-item-realtime": (
        serial(txn("append x 1"), txn("append x 2"), txn("r x 1"), txn("r x 1 2")),
        "strict-serializable",
        ("G-single-item-realtime",),
        ("strong-snapshot-isolation",),
    ),
    "G-nonadjacent-item-realtime": (
        around([txn("append x 1"), txn("r z")], txn("r x, r z 1"), txn("append z 1")),
        "strong-snapshot-isolation",
        ("G-nonadjacent-item-realtime",),
        ("strong-snapshot-isolation",),
    ),
    "G2-item-realtime": (
        around([txn("append x 1"), txn("r y")], txn("append y 1, r x")),
        "strict-serializable",
        ("G2-item-realtime",),
        ("strict-serializable",),
    ),
}


@pytest.mark.parametrize("name", LIST_APPEND)
def test_list_append_anomaly(name: str) -> None:
    """The history shows exactly the anomalies named, and they rule out exactly the models named."""
    history, consistency, anomalies, violated = LIST_APPEND[name]
    verdict = check(history, model="list-append", consistency=consistency)
    assert verdict.valid is False
    assert sorted(verdict.anomalies) == sorted(anomalies)
    assert verdict.violated == violated
    for finding in verdict.findings:
        assert not objections(finding, history.operations.__getitem__, lambda: history.operations)


def _reg(text: str, outcome: str = "ok") -> tuple[list[list[object]], str]:
    return txn(text, outcome, lists=False)


RW_REGISTER: dict[str, tuple[History, str, tuple[str, ...], tuple[str, ...]]] = {
    "G1a": (
        together(_reg("w x 1", "fail"), _reg("r x 1")),
        "serializable",
        ("G1a",),
        ("read-committed",),
    ),
    "G1b": (
        together(_reg("w x 1, w x 2"), _reg("r x 1"), _reg("r y, w y 1")),
        "read-committed",
        ("G1b",),
        ("read-committed",),
    ),
    "G1c": (
        together(_reg("w x 1, r y 1"), _reg("w y 1, r x 1")),
        "read-committed",
        ("G1c",),
        ("read-committed",),
    ),
    "G-single-item": (
        together(_reg("w x 1, w y 1"), _reg("r x, r y 1")),
        "snapshot-isolation",
        ("G-single-item",),
        ("consistent-view", "repeatable-read"),
    ),
    "G-nonadjacent-item": (
        together(_reg("w x 1"), _reg("w y 1"), _reg("r x 1, r y"), _reg("r x, r y 1")),
        "snapshot-isolation",
        ("G-nonadjacent-item",),
        ("repeatable-read", "snapshot-isolation"),
    ),
    "G2-item": (
        together(_reg("r x, w y 1"), _reg("r y, w x 1")),
        "serializable",
        ("G2-item",),
        ("repeatable-read",),
    ),
    "lost-update": (
        together(_reg("r x, w x 1"), _reg("r x, w x 2")),
        "snapshot-isolation",
        ("lost-update",),
        ("cursor-stability", "update-atomic"),
    ),
    "internal": (
        together(_reg("w x 1, r x 2"), _reg("w x 2")),
        "read-atomic",
        ("internal",),
        ("read-atomic",),
    ),
    "future-read": (
        together(_reg("r x 1, w x 1")),
        "serializable",
        ("future-read",),
        ("read-committed",),
    ),
    "cyclic-versions": (
        together(_reg("r x 2, w x 1"), _reg("r x 1, w x 2")),
        "serializable",
        ("G1c", "cyclic-versions"),
        ("read-uncommitted",),
    ),
    "G-single-item-realtime": (
        serial(_reg("w x 1"), _reg("w x 2"), _reg("r x 1")),
        "strict-serializable",
        ("G-single-item-realtime",),
        ("strong-snapshot-isolation",),
    ),
    "G-single-item-process": (
        serial(_reg("w x 1"), _reg("w x 2"), _reg("r x 1"), processes=[0, 0, 0]),
        "strong-session-serializable",
        ("G-single-item-process",),
        ("strong-session-snapshot-isolation",),
    ),
    "G1c-realtime": (
        serial(_reg("r x 1"), _reg("w x 1")),
        "strict-serializable",
        ("G1c-realtime",),
        ("strong-read-committed",),
    ),
}


@pytest.mark.parametrize("name", RW_REGISTER)
def test_rw_register_anomaly(name: str) -> None:
    """Registers show exactly the anomalies named, and they rule out exactly the models named."""
    history, consistency, anomalies, violated = RW_REGISTER[name]
    verdict = check(history, model="rw-register", consistency=consistency)
    assert verdict.valid is False
    assert sorted(verdict.anomalies) == sorted(anomalies)
    assert verdict.violated == violated
    for finding in verdict.findings:
        assert not objections(finding, history.operations.__getitem__, lambda: history.operations)


ALLOWED = (
    ("G2-item, write skew", "snapshot-isolation"),
    ("G-nonadjacent-item, long fork", "read-committed"),
    ("G-single-item", "read-committed"),
    ("G-single-item-realtime", "serializable"),
    ("G-single-item-process", "serializable"),
    ("G0-realtime", "serializable"),
    ("G1c-realtime", "snapshot-isolation"),
    ("G0-process", "serializable"),
    ("G2-item-realtime", "strong-session-serializable"),
    ("G1a", "read-uncommitted"),
    ("lost-update whose order nobody saw", "read-committed"),
    ("internal, own append unseen", "repeatable-read"),
)


@pytest.mark.parametrize("name, consistency", ALLOWED)
def test_weaker_models_allow_it(name: str, consistency: str) -> None:
    """What a model does not forbid is not held against it."""
    history = LIST_APPEND[name][0]
    verdict = check(history, model="list-append", consistency=consistency)
    assert verdict.valid in (True, "unknown")
    assert verdict.anomalies == ()


def test_completions_without_invocations_have_no_real_time() -> None:
    """Micro-histories of answers alone, all by one process, show data anomalies and nothing of time."""
    events = [
        Event(0, "ok", 0, "txn", [["append", "x", 1], ["r", "y", []]]),
        Event(1, "ok", 0, "txn", [["append", "y", 1], ["r", "x", []]]),
    ]
    verdict = check(History(events), model="list-append")
    assert verdict.anomalies == ("G2-item",)
    sessions_count = check(
        History(events), model="list-append", consistency="strong-session-serializable"
    )
    assert sessions_count.anomalies == ("G-single-item-process", "G2-item")


def test_nothing_constrained_is_unknown() -> None:
    """Appends that nobody read, and reads that no other transaction touches, prove nothing."""
    only_writes = together(txn("append x 1"), txn("append y 1"))
    assert check(only_writes, model="list-append").valid == "unknown"
    assert check(together(_reg("w x 1"), _reg("w y 1")), model="rw-register").valid == "unknown"
    alone = together(txn("append x 1, r x 1"))
    assert check(alone, model="list-append").valid == "unknown"
    assert check(History([]), model="list-append").valid == "unknown"


def test_equal_appends_cannot_be_told_apart() -> None:
    """A value appended twice to a key makes version orders a guess: unknown, not wrong."""
    history = together(txn("append x 1"), txn("append x 1"), txn("r x 1"))
    assert check(history, model="list-append").valid == "unknown"
    twice = together(_reg("w x 1"), _reg("w x 1"), _reg("r x 1"))
    assert check(twice, model="rw-register").valid == "unknown"


def test_crashed_transactions_count_only_when_seen() -> None:
    """What an unknown transaction appended may be missing; once read, it binds."""
    unseen = together(txn("append x 1", "info"), txn("r x"), txn("append y 1"), txn("r y 1"))
    assert check(unseen, model="list-append").valid is True
    torn = serial(txn("append x 1, append y 1", "info"), txn("r x 1"), txn("r y"))
    assert check(torn, model="list-append").valid is False


def test_boundary_names_the_weakest_models() -> None:
    """The models of a boundary are minimal, and aliases mean the models they name."""
    assert boundary(["G0"])[0] == ("read-uncommitted",)
    assert "strict-serializable" in boundary(["G0"])[1]
    assert canonical("PL-SI") == "snapshot-isolation"
    assert canonical("PL-3") == "serializable"
    assert "lost-update" in prohibited_anomalies("parallel-snapshot-isolation")
    assert "G2-item" not in prohibited_anomalies("snapshot-isolation")
    with pytest.raises(ValueError, match="no consistency model"):
        canonical("eventually-maybe")
