"""Recorded histories with known verdicts, and the traps in reading them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from jepsen_like import Event, History, Recorder, check
from jepsen_like.files import check_file
from jepsen_like.formats import load

DATA = Path(os.environ.get("K2_DATA", Path(__file__).parents[3] / "shared" / "data"))
ETCD_LINEARIZABLE = {2, 5, 7, 18, 25, 31, 38, 45, 48, 49}
ETCD_SECONDS_MAX = 1.0
STRING_SECONDS_MAX = 2.0


class MissingDataWarning(UserWarning):
    """The recorded histories are not where they should be; only generated ones were checked."""


def _folder(name: str) -> Path | None:
    folder = DATA / "histories" / name
    if folder.is_dir():
        return folder
    with warnings.catch_warnings():
        # Loud, but not an error: a checkout without the data can still run its tests.
        warnings.simplefilter("always", MissingDataWarning)
        warnings.warn(f"{folder} is missing; set K2_DATA", MissingDataWarning, stacklevel=2)
    return None


def test_every_etcd_verdict_is_right_and_fast() -> None:
    """All 50 logs of a compare-and-set register get their known verdict, in a second altogether."""
    folder = _folder("etcd")
    if folder is None:
        _generated_register_stands_in()
        return
    seconds = 0.0
    for number in range(50):
        verdict = check_file(folder / f"etcd_{number:03}.log", model="cas-register")
        assert verdict.valid == (number in ETCD_LINEARIZABLE), number
        seconds += verdict.seconds
    assert seconds <= ETCD_SECONDS_MAX


def test_every_string_verdict_is_right_and_fast() -> None:
    """The four logs of get, put and append on strings get their known verdict."""
    folder = _folder("kv")
    if folder is None:
        _generated_register_stands_in()
        return
    seconds = 0.0
    for name, expected in (
        ("c01-ok", True),
        ("c01-bad", False),
        ("c10-ok", True),
        ("c10-bad", False),
    ):
        verdict = check_file(folder / f"{name}.txt", model="kv-append")
        assert verdict.valid is expected, name
        seconds += verdict.seconds
    assert seconds <= STRING_SECONDS_MAX


def _generated_register_stands_in() -> None:
    recorder = Recorder()
    recorder.invoke(0, "write", 1)
    recorder.ok(0)
    recorder.invoke(0, "read")
    recorder.ok(0, 2)
    assert check(recorder.history(), model="cas-register").valid is False


def test_a_missing_corpus_is_told() -> None:
    """Without the recorded data the tests say so loudly instead of passing in silence."""
    with pytest.warns(MissingDataWarning, match="K2_DATA"):
        assert _folder("no-such-corpus") is None


def test_a_failed_compare_is_an_answer(tmp_path: Path) -> None:
    """In an etcd log `:fail :cas` is a definite no: the register cannot have held the value compared with."""
    log = tmp_path / "one.log"
    lines = [
        "INFO  jepsen.util - 0\t:invoke\t:write\t1",
        "INFO  jepsen.util - 0\t:ok\t:write\t1",
        "INFO  jepsen.util - 1\t:invoke\t:cas\t[1 2]",
        "INFO  jepsen.util - 1\t:fail\t:cas\t[1 2]",
    ]
    log.write_text("\n".join(lines) + "\n")
    assert check(load(log), model="cas-register").valid is False
    log.write_text("\n".join(line.replace("[1 2]", "[3 2]") for line in lines) + "\n")
    assert check(load(log), model="cas-register").valid is True


def test_a_timed_out_failure_says_nothing(tmp_path: Path) -> None:
    """A read that failed by timeout constrains nothing, and an unknown write may happen at any later time."""
    log = tmp_path / "one.log"
    log.write_text(
        "INFO  jepsen.util - 0\t:invoke\t:write\t1\n"
        "INFO  jepsen.util - 0\t:info\t:write\t:timed-out\n"
        "INFO  jepsen.util - 1\t:invoke\t:read\tnil\n"
        "INFO  jepsen.util - 1\t:fail\t:read\t:timed-out\n"
        "INFO  jepsen.util - 2\t:invoke\t:read\tnil\n"
        "INFO  jepsen.util - 2\t:ok\t:read\tnil\n"
        "INFO  jepsen.util - 2\t:invoke\t:read\tnil\n"
        "INFO  jepsen.util - 2\t:ok\t:read\t1\n"
    )
    assert check(load(log), model="register").valid is True


def test_nil_is_unknown_to_knossos_and_a_value_to_etcd(tmp_path: Path) -> None:
    """A nil read after a write is nothing in a Knossos history, and a stale read in an etcd log."""
    edn = tmp_path / "one.edn"
    edn.write_text(
        "{:process 0, :type :invoke, :f :write, :value 1}\n"
        "{:process 0, :type :ok, :f :write, :value 1}\n"
        "{:process 0, :type :invoke, :f :read, :value nil}\n"
        "{:process 0, :type :ok, :f :read, :value nil}\n"
    )
    assert check_file(edn, model="register").valid == "unknown"
    log = tmp_path / "one.log"
    log.write_text(
        "INFO  jepsen.util - 0\t:invoke\t:write\t1\n"
        "INFO  jepsen.util - 0\t:ok\t:write\t1\n"
        "INFO  jepsen.util - 0\t:invoke\t:read\tnil\n"
        "INFO  jepsen.util - 0\t:ok\t:read\tnil\n"
    )
    assert check_file(log, model="register").valid is False


def test_crashed_operations_are_never_forced() -> None:
    """A crashed write need not happen, and a crashed compare-and-set cannot where its compare fails."""
    recorder = Recorder()
    recorder.invoke(0, "write", 1)
    recorder.info(0)
    recorder.invoke(1, "cas", [5, 6])
    recorder.info(1)
    for process in (2, 3):
        recorder.invoke(process, "read")
        recorder.ok(process, None)
    assert check(recorder.history(), model="cas-register").valid is True


def test_initial_values_count() -> None:
    """A first read is judged by the initial value: nil unless another is given."""
    recorder = Recorder()
    recorder.invoke(0, "read")
    recorder.ok(0, 7)
    assert check(recorder.history(), model="register").valid is False
    assert check(recorder.history(), model="register", initial=7).valid is True


def test_time_that_runs_out_is_unknown() -> None:
    """A search that may not go on says unknown and why."""
    events: list[Event] = []
    clients = 16
    for process in range(clients):
        events.append(
            Event(len(events), "invoke", process, "cas", [process % 3, (process + 1) % 3])
        )
    for process in range(100, 100 + clients):
        events.append(Event(len(events), "invoke", process, "write", process % 3))
    for process in range(100, 100 + clients):
        events.append(Event(len(events), "ok", process, "write", process % 3))
    for process in range(clients):
        events.append(Event(len(events), "ok", process, "cas", True))
    events.append(Event(len(events), "invoke", 99, "read"))
    events.append(Event(len(events), "ok", 99, "read", 4))
    verdict = check(History(events), model="cas-register", timeout_s=0.0)
    assert verdict.valid == "unknown"
    assert "gave up" in verdict.reason
