"""The checkers of one promise: each finds its anomalies by name, and leaves alone what is allowed."""

from __future__ import annotations

import pytest

from jepsen_like import History, Recorder, check
from jepsen_like.history import Event

Call = tuple[str, object, object]


def serial(*calls: Call) -> History:
    """Calls (f, argument, answer) one after the other; an answer of ... is a crash, of Exception a refusal."""
    events: list[Event] = []
    for process, (f, argument, answer) in enumerate(calls):
        events.append(Event(len(events), "invoke", process, f, argument))
        if answer is ...:
            events.append(Event(len(events), "info", process, f, argument))
        elif answer is Exception:
            events.append(Event(len(events), "fail", process, f, argument))
        else:
            events.append(Event(len(events), "ok", process, f, answer))
    return History(events)


CASES: list[tuple[str, str, History, object, tuple[str, ...]]] = [
    # model, what it shows, history, verdict, anomalies
    ("set", "kept", serial(("add", 1, 1), ("add", 2, ...), ("read", None, [1])), True, ()),
    ("set", "lost", serial(("add", 1, 1), ("add", 2, 2), ("read", None, [2])), False, ("lost",)),
    ("set", "from nowhere", serial(("add", 1, 1), ("read", None, [1, 9])), False, ("unexpected",)),
    ("set", "never read", serial(("add", 1, 1)), "unknown", ()),
    ("set-full", "stable", serial(("add", 1, 1), ("read", None, [1])), True, ()),
    (
        "set-full",
        "lost",
        serial(("add", 1, 1), ("read", None, [1]), ("read", None, [])),
        False,
        ("lost",),
    ),
    ("set-full", "lost at once", serial(("add", 1, 1), ("read", None, [])), False, ("lost",)),
    (
        "set-full",
        "stale",
        serial(("add", 1, 1), ("read", None, []), ("read", None, [1])),
        False,
        ("stale",),
    ),
    ("set-full", "never read", serial(("add", 1, 1)), "unknown", ()),
    (
        "set-full",
        "crashed and never seen",
        serial(("add", 1, ...), ("read", None, [])),
        "unknown",
        (),
    ),
    (
        "set-full",
        "refused yet seen",
        serial(("add", 1, Exception), ("read", None, [1])),
        False,
        ("unexpected",),
    ),
    (
        "set-full",
        "seen, so known, then lost",
        serial(("add", 1, ...), ("read", None, [1]), ("read", None, [])),
        False,
        ("lost",),
    ),
    ("counter", "in bounds", serial(("add", 2, 2), ("read", None, 2)), True, ()),
    ("counter", "too small", serial(("add", 2, 2), ("read", None, 1)), False, ("out-of-bounds",)),
    ("counter", "too large", serial(("add", 2, 2), ("read", None, 3)), False, ("out-of-bounds",)),
    (
        "counter",
        "crashed may count",
        serial(("add", 2, ...), ("read", None, 0), ("read", None, 2)),
        True,
        (),
    ),
    (
        "counter",
        "refused does not",
        serial(("add", 2, Exception), ("read", None, 2)),
        False,
        ("out-of-bounds",),
    ),
    ("counter", "going down", serial(("add", 5, 5), ("add", -3, -3), ("read", None, 2)), True, ()),
    ("counter", "never read", serial(("add", 2, 2)), "unknown", ()),
    ("queue", "fine", serial(("enqueue", 1, 1), ("dequeue", None, 1)), True, ()),
    (
        "queue",
        "from nowhere",
        serial(("enqueue", 1, 1), ("dequeue", None, 2)),
        False,
        ("unexpected",),
    ),
    ("queue", "too early", serial(("dequeue", None, 1), ("enqueue", 1, 1)), False, ("unexpected",)),
    (
        "queue",
        "twice",
        serial(("enqueue", 1, 1), ("dequeue", None, 1), ("dequeue", None, 1)),
        False,
        ("duplicated",),
    ),
    (
        "queue",
        "lost",
        serial(("enqueue", 1, 1), ("enqueue", 2, 2), ("drain", None, [1])),
        False,
        ("lost",),
    ),
    (
        "queue",
        "not drained",
        serial(("enqueue", 1, 1), ("enqueue", 2, 2), ("dequeue", None, 1)),
        True,
        (),
    ),
    ("queue", "recovered", serial(("enqueue", 1, ...), ("drain", None, [1])), True, ()),
    (
        "bank",
        "conserved",
        serial(
            ("read", None, {"a": 5, "b": 5}), ("transfer", {}, {}), ("read", None, {"a": 4, "b": 6})
        ),
        True,
        (),
    ),
    (
        "bank",
        "made",
        serial(("read", None, {"a": 5, "b": 5}), ("read", None, {"a": 6, "b": 5})),
        False,
        ("wrong-total",),
    ),
    (
        "bank",
        "in debt",
        serial(("read", None, {"a": 5, "b": 5}), ("read", None, {"a": 11, "b": -1})),
        False,
        ("negative-value",),
    ),
    ("bank", "no balance", serial(("read", None, {"a": 5, "b": None})), False, ("nil-balance",)),
    (
        "bank",
        "a stranger",
        serial(("read", None, {"a": 5}), ("read", None, {"a": 5, "z": 0})),
        False,
        ("unexpected-key",),
    ),
    (
        "long-fork",
        "a chain",
        serial(
            ("write", [["w", 0, 1]], [["w", 0, 1]]),
            ("read", [["r", 0, None], ["r", 1, None]], [["r", 0, 1], ["r", 1, None]]),
            ("read", [["r", 0, None], ["r", 1, None]], [["r", 1, 1], ["r", 0, 1]]),
        ),
        True,
        (),
    ),
    (
        "long-fork",
        "a fork",
        serial(
            ("read", [["r", 0, None], ["r", 1, None]], [["r", 0, 1], ["r", 1, None]]),
            ("read", [["r", 0, None], ["r", 1, None]], [["r", 1, 1], ["r", 0, None]]),
        ),
        False,
        ("long-fork",),
    ),
    (
        "long-fork",
        "a fork across groups",
        serial(
            ("read", [], [["r", 0, 1], ["r", 1, None], ["r", 2, None]]),
            ("read", [], [["r", 0, None], ["r", 1, 1], ["r", 3, 1]]),
        ),
        False,
        ("long-fork",),
    ),
    (
        "causal-reverse",
        "reversed",
        serial(("write", 1, 1), ("write", 2, 2), ("read", None, [2])),
        False,
        ("causal-reverse",),
    ),
    (
        "causal-reverse",
        "in order",
        serial(("write", 1, 1), ("write", 2, 2), ("read", None, [1]), ("read", None, [1, 2])),
        True,
        (),
    ),
    (
        "mutex",
        "held twice",
        serial(("acquire", None, None), ("acquire", None, None)),
        False,
        ("not-linearizable",),
    ),
    ("mutex", "given back unheld", serial(("release", None, None)), False, ("not-linearizable",)),
    (
        "mutex",
        "in turn",
        serial(("acquire", None, None), ("release", None, None), ("acquire", None, None)),
        True,
        (),
    ),
    (
        "multi-register",
        "torn",
        serial(
            ("txn", [["w", "x", 1], ["w", "y", 1]], [["w", "x", 1], ["w", "y", 1]]),
            ("txn", [["r", "x", None], ["r", "y", None]], [["r", "x", 1], ["r", "y", 2]]),
        ),
        False,
        ("not-linearizable",),
    ),
]


@pytest.mark.parametrize(
    "model, name, history, valid, anomalies", CASES, ids=[f"{m}: {n}" for m, n, *_ in CASES]
)
def test_verdict(
    model: str, name: str, history: History, valid: object, anomalies: tuple[str, ...]
) -> None:
    """The history has the verdict and the anomalies that the definition of its checker gives it."""
    verdict = check(history, model=model)
    assert (verdict.valid, verdict.anomalies) == (valid, anomalies), verdict


def test_stale_elements_are_fine_without_real_time() -> None:
    """A set that only promises serializability may show an element late, and a reversal of writes."""
    late = serial(("add", 1, 1), ("read", None, []), ("read", None, [1]))
    assert check(late, model="set-full", consistency="serializable").valid is True
    reversed_ = serial(("write", 1, 1), ("write", 2, 2), ("read", None, [2]))
    assert check(reversed_, model="causal-reverse", consistency="serializable").valid is True


def test_bank_totals_may_be_given() -> None:
    """The initial balances, their sum, or leave to go below zero replace what the first read says."""
    read = serial(("read", None, {"a": 5, "b": 5}))
    assert check(read, model="bank", initial=10).valid is True
    assert check(read, model="bank", initial=11).valid is False
    assert check(read, model="bank", initial={"a": 7, "b": 3}).valid is True
    debt = serial(("read", None, {"a": 11, "b": -1}))
    assert check(debt, model="bank", initial={"total": 10, "negative": True}).valid is True


def _watch(*changes: list[object]) -> History:
    recorder = Recorder()
    for process, (value, stamp) in enumerate(((1, 10), (2, 20), (3, 30))):
        recorder.invoke(process, "write", ["k", value])
        recorder.ok(process, stamp=stamp)
    recorder.invoke(9, "watch", "k")
    recorder.ok(9, list(changes))
    return recorder.history()


def test_watch() -> None:
    """A stream is whole, ordered and true; disorder, repeats, gaps and inventions have names."""
    assert check(_watch([10, "k", 1], [20, "k", 2], [30, "k", 3]), model="watch").valid is True
    assert check(_watch([20, "k", 2], [30, "k", 3]), model="watch").valid is True
    wrong = {
        "gap": ([10, "k", 1], [30, "k", 3]),
        "out-of-order": ([20, "k", 2], [10, "k", 1], [30, "k", 3]),
        "duplicated": ([10, "k", 1], [10, "k", 1]),
        "unexpected": ([10, "k", 1], [15, "k", 7]),
        "wrong-stamp": ([11, "k", 1],),
    }
    for name, changes in wrong.items():
        assert check(_watch(*changes), model="watch").anomalies == (name,)
    assert check(_watch(), model="watch").valid == "unknown"


def _lease(*steps: tuple[int, str, object, int]) -> History:
    recorder = Recorder()
    for process, f, answer, time_ns in steps:
        argument = answer if f == "use" else "task"
        recorder.invoke(process, f, argument, key="task", time_ns=time_ns)
        recorder.ok(process, answer, time_ns=time_ns + 1)
    return recorder.history()


def test_lease() -> None:
    """One holder at a time, growing tokens, and resources that refuse the old ones."""
    turn = _lease(
        (0, "acquire", {"token": 1}, 0), (0, "release", None, 10), (1, "acquire", {"token": 2}, 20)
    )
    assert check(turn, model="lease").valid is True
    both = _lease((0, "acquire", {"token": 1}, 0), (1, "acquire", {"token": 2}, 20))
    assert check(both, model="lease").anomalies == ("double-holder",)
    expired = _lease(
        (0, "acquire", {"token": 1, "until_ns": 15}, 0), (1, "acquire", {"token": 2}, 20)
    )
    assert check(expired, model="lease").valid is True
    back = _lease(
        (0, "acquire", {"token": 5}, 0), (0, "release", None, 10), (1, "acquire", {"token": 4}, 20)
    )
    assert check(back, model="lease").anomalies == ("token-went-back",)
    stale = _lease(
        (0, "acquire", {"token": 1}, 0),
        (0, "release", None, 5),
        (1, "acquire", {"token": 2}, 10),
        (1, "use", {"token": 2}, 20),
        (0, "use", {"token": 1}, 30),
    )
    assert check(stale, model="lease").anomalies == ("stale-token",)


def _replay(*transactions: tuple[list[list[object]], int | None]) -> History:
    recorder = Recorder()
    for process, (mops, stamp) in enumerate(transactions):
        recorder.invoke(process, "txn", [[f, k, None if f == "r" else v] for f, k, v in mops])
        recorder.ok(process, mops, stamp=stamp)
    return recorder.history()


def test_replay_by_commit_timestamp() -> None:
    """In the order of their stamps transactions must read what the ones before left, and follow real time."""
    good = _replay(
        ([["append", "x", 1]], 10), ([["r", "x", [1]], ["w", "y", 2]], 20), ([["r", "y", 2]], 30)
    )
    assert check(good, model="replay").valid is True
    stale = _replay(([["w", "x", 1]], 10), ([["r", "x", None]], 20))
    assert check(stale, model="replay").anomalies == ("replay-mismatch",)
    backwards = _replay(([["w", "x", 1]], 20), ([["r", "x", None]], 10))
    assert check(backwards, model="replay").anomalies == ("stamp-against-realtime",)
    assert check(backwards, model="replay", consistency="serializable").valid is True
    twins = _replay(([["w", "x", 1]], 10), ([["r", "x", 1]], 10))
    assert "equal-stamps" in check(twins, model="replay").anomalies
    silent = _replay(([["w", "x", 1]], None), ([["r", "x", 1]], 10))
    assert check(silent, model="replay").valid == "unknown"


@pytest.mark.parametrize("model", ["set", "set-full"])
def test_what_a_set_held_at_first_is_no_surprise(model: str) -> None:
    """Elements of the initial value may be read at once, and must not be missing."""
    events = [
        Event(0, "invoke", 0, "add", 2),
        Event(1, "ok", 0, "add", 2),
        Event(2, "invoke", 0, "read"),
    ]
    whole = History([*events, Event(3, "ok", 0, "read", [1, 2])])
    assert check(whole, model=model, initial=[1]).valid is True
    assert check(whole, model=model).anomalies == ("unexpected",)
