"""Files: every form gives the same history back, and no bytes whatever bring a traceback."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like import Event, History, HistoryError, Recorder, check
from jepsen_like.files import check_file
from jepsen_like.formats import bulk, load, load_transactions, native, quick, sniff
from jepsen_like.formats.write import write
from jepsen_like.generate import MODELS, Settings, generate


def test_own_records_come_back_whole(tmp_path: Path) -> None:
    """What is written in our own form is read back event by event, stamps and errors included."""
    recorder = Recorder(clock=iter(range(100)).__next__)
    recorder.invoke(0, "txn", [["append", "x", 1], ["r", "y", None]])
    recorder.ok(0, [["append", "x", 1], ["r", "y", [3]]], stamp=77)
    recorder.invoke(1, "write", {"a": [1, None, True]}, key="k")
    recorder.fail(1, "refused")
    recorder.invoke(2, "cas", [1, 2])
    recorder.info(2, "timed out")
    history = recorder.history()
    path = tmp_path / "h"
    native.write(path, history)
    assert load(path).events == history.events
    assert [o.outcome for o in load(path).operations] == ["ok", "fail", "info"]
    assert load(path).operations[0].stamp == 77


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"long-fork"}))
@pytest.mark.parametrize("form", ["native", "edn", "json"])
def test_every_form_gives_the_same_verdict(model: str, form: str, tmp_path: Path) -> None:
    """A generated history is as valid in EDN and JSON as in memory."""
    settings = Settings(operations=60, processes=4, crash=0.05, fail=0.05)
    history = generate(model, settings, Random(model))
    path = tmp_path / "h"
    write(path, history, form)
    assert check_file(path, model=model).valid == check(history, model=model).valid


def test_one_vector_or_one_map_a_line(tmp_path: Path) -> None:
    """Maps line by line, in one vector, in one list or array, with comments and records: all one history."""
    one = "{:type :invoke, :f :read, :process 0, :value nil}"
    two = "{:type :ok, :f :read, :process 0, :value 3}"
    texts = [
        f"{one}\n{two}\n",
        f"[{one}\n {two}]",
        f"({one} {two})",
        f'; a comment with "quotes\nand\n{one} {two}'.replace("and\n", "; more\n"),
        f"#jepsen.history.Op{one}\n#jepsen.history.Op{two}",
        '{"type":"invoke","f":"read","process":0,"value":null}\n{"type":"ok","f":"read","process":0,"value":3}',
        '[{"type":"invoke","f":"read","process":0},{"type":":ok","f":":read","process":0,"value":3}]',
    ]
    path = tmp_path / "h"
    for text in texts:
        path.write_text(text)
        history = load(path)
        assert [(e.type, e.f, e.process, e.value) for e in history.events] == [
            ("invoke", "read", 0, None),
            ("ok", "read", 0, 3),
        ], text


def test_the_nemesis_is_no_client(tmp_path: Path) -> None:
    """What the nemesis did is not part of the history of clients."""
    path = tmp_path / "h.edn"
    path.write_text(
        "{:type :info, :f :start, :process :nemesis, :value nil}\n"
        "{:type :invoke, :f :read, :process 0, :value nil}\n"
        '{:type :info, :f :start, :process :nemesis, :value [:isolated {"n1" #{"n2"}}]}\n'
        "{:type :ok, :f :read, :process 0, :value 1}\n"
    )
    assert [e.process for e in load(path).events] == [0, 0]


@pytest.mark.parametrize("form", ["edn", "json"])
def test_bulk_and_slow_readers_agree(form: str) -> None:
    """Columns made of bytes are the columns made of objects, crashes, failures and odd orders included."""
    random = Random(form)
    for seed in range(40):
        settings = Settings(
            operations=50, processes=1 + seed % 6, keys=1 + seed % 3, crash=0.1, fail=0.1
        )
        history = generate("list-append", settings, random)
        events = list(history.events)
        if seed % 2:
            # Reverse what a read saw, so that branches appear.
            events = [
                _reversed(e) if e.type == "ok" and random.random() < 0.2 else e for e in events
            ]
        text = _text(History(events), form)
        one, two = bulk.transactions_in(text, form), quick.transactions_of(History(events))
        assert one.count == two.count
        for name in ("start", "end", "outcome", "mop_txn", "mop_kind", "mop_size"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), name
        for number in range(one.count):
            assert one.micro_operations(number) == two.micro_operations(number)


def _reversed(event: Event) -> Event:
    import msgspec

    assert isinstance(event.value, list)
    value = [[f, k, v[::-1] if f == "r" else v] for f, k, v in event.value]
    return msgspec.structs.replace(event, value=value)


def _text(history: History, form: str) -> bytes:
    from jepsen_like.formats import write as writer

    line = writer._edn if form == "edn" else writer._json
    # A crash says again what was asked, as Jepsen writes it.
    asked = {}
    lines = []
    for event in history.events:
        if event.type == "invoke":
            asked[event.process] = event.value
        elif event.value is None:
            import msgspec

            event = msgspec.structs.replace(event, value=asked[event.process])
        lines.append(line(event))
    return b"\n".join(lines) + b"\n"


MALFORMED = [
    b"",
    b"   \n",
    b"hello",
    b"{",
    b"[{:type :invoke",
    b"{:type :invoke :f}",
    b"{:type :maybe, :f :read, :process 0}",
    b"{:type :invoke, :f :read, :process [1]}",
    b'{"type": "invoke", "f": 3, "process": 0}',
    b'{"type": "invoke"',
    b"[1, 2, 3]",
    b"{:type :invoke, :f :read, :process 0}\n{:type :invoke, :f :read, :process 0}",
    b"\xff\xfe\x00",
    b'{:type :invoke, :f :read, :process 0, :value "\xff"}',
    b"K2HISTORY 1\n",
    b"K2HISTORY 1\n\x00\x00\x00\x05abc",
    b"K2HISTORY 1\n\x00\x00\x00\x01\x80\xff\xff\xff\xff",
    b"K2HISTORY 1\n\x00\x00\x00\x01\x80\x00\x00\x00\x01\xc1",
    b"INFO  jepsen.util - 0\tnonsense",
    b"INFO  jepsen.util - 0\t:maybe\t:read\tnil",
    b"{:type :ok, :f :txn, :process 0, :value 5}",
    b"{:type :ok, :f :txn, :process 0, :value [[:r]]}",
    b"{:type :ok, :f :txn, :process 0, :value [[:dance 1 2]]}",
    b"[" * 5000,
    b"{:a " * 5000,
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_files_are_refused_with_a_reason(data: bytes, tmp_path: Path) -> None:
    """A broken file raises the one declared error, for transactions and registers alike, or is unknown."""
    path = tmp_path / "h"
    path.write_bytes(data)
    refused = 0
    for model in ("list-append", "rw-register", "cas-register", "bank", "set-full"):
        reason = None
        try:
            verdict = check_file(path, model=model)
        except HistoryError as error:
            reason = str(error)
            refused += 1
        else:
            assert verdict.valid == "unknown" or data.startswith(b"{:type :ok")
        assert reason != ""
    assert refused


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_readers(data: bytes) -> None:
    """Whatever stands in a file, reading it gives a history or the declared error."""
    for prefix in (b"", b"{:type :ok, ", b'{"type": "ok", ', native.MAGIC):
        try:
            kind = sniff(prefix + data)
            if kind == "native":
                native.read(prefix + data)
            elif kind != "etcd":
                quick.transactions_in(prefix + data, kind)
        except (HistoryError, UnicodeDecodeError):
            pass


def test_a_torn_end_can_be_forgiven(tmp_path: Path) -> None:
    """Records of a run that was killed are readable up to the tear, if asked for."""
    recorder = Recorder()
    recorder.invoke(0, "read")
    recorder.ok(0, 1)
    path = tmp_path / "h"
    native.write(path, recorder.history())
    torn = path.read_bytes()[:-3]
    with pytest.raises(HistoryError, match="torn"):
        native.read(torn)
    assert len(native.read(torn, forgive_torn_end=True).events) == 1


def test_histories_merge_by_time_and_never_invent_order() -> None:
    """At equal times invocations come first: operations overlap instead of following each other."""
    one, two = Recorder(), Recorder()
    one.invoke("a", "write", 1, time_ns=1)
    one.ok("a", time_ns=5)
    two.invoke("b", "read", time_ns=5)
    two.ok("b", None, time_ns=9)
    merged = History.merge([one.history(), two.history()])
    assert [e.type for e in merged.events] == ["invoke", "invoke", "ok", "ok"]
    assert check(merged, model="register").valid is True


def test_the_recorder_refuses_what_makes_no_sense() -> None:
    """A process has one open operation, and none after its outcome got lost."""
    recorder = Recorder()
    recorder.invoke(0, "read")
    with pytest.raises(HistoryError, match="open operation"):
        recorder.invoke(0, "read")
    recorder.info(0)
    with pytest.raises(HistoryError, match="retired"):
        recorder.invoke(0, "read")
    with pytest.raises(HistoryError, match="no open operation"):
        recorder.ok(1)


def test_columns_know_every_read(tmp_path: Path) -> None:
    """Columns give each transaction back as it was recorded."""
    history = generate("list-append", Settings(operations=80, spread=0), Random(5))
    path = tmp_path / "h.edn"
    write(path, history)
    txns = load_transactions(path)
    for number, operation in enumerate(history.operations):
        assert [list(m) for m in txns.micro_operations(number)] == operation.result
