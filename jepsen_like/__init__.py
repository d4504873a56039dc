"""Judges of recorded histories: was what the clients saw what the store promised?

A history is the list of what clients asked and what they were told, in the order one observer saw it:

    from jepsen_like import Recorder, check

    recorder = Recorder(clock=time.monotonic_ns)
    recorder.invoke(0, "txn", [["append", "x", 1], ["r", "y", None]])   # before the request leaves
    recorder.ok(0, [["append", "x", 1], ["r", "y", [3]]], stamp=commit_stamp)  # after the answer came
    recorder.invoke(1, "write", 7, key="k")
    recorder.fail(1)         # certainly not applied      recorder.info(1): nobody knows; the process id retires
    verdict = check(recorder.history(), model="list-append", consistency="strict-serializable")
    assert verdict.valid is True, verdict.reason          # True, False or "unknown"

What `f` and `value` hold, by model:

    register, cas-register   read -> v | nil;  write v;  cas [old new] -> True/False (False: the compare failed)
                             many registers: key="..." on invoke
    multi-register           f "txn", value [["r"|"w", key, v], ...]
    kv-append                get -> string;  put v;  append v;   key="..."
    mutex                    acquire;  release
    list-append, rw-register f "txn", value [["r", key, list|v|nil], ["append"|"w", key, v], ...]
    set, set-full            add v;  read -> [v, ...]
    counter                  add n;  read -> n
    queue                    enqueue v;  dequeue -> v;  drain -> [v, ...]
    bank                     transfer {from, to, amount};  read -> {account: balance}
    long-fork                write [["w", k, 1]];  read [["r", k, 1|nil], ...]
    causal-reverse           write v;  read -> [v, ...]
    watch                    write [key, v];  watch key -> [[stamp, v], ...] in order of arrival
    lease                    acquire name -> {token, until_ns};  release name;  use name with token
    kv-directory             publish, acquire, evict, migrate, ...: see `jepsen_like.invariants.kv_directory`
    replay                   f "txn" as above with `stamp`: replays by commit timestamp (an addition, never instead)

A list whose events all come from one process-wide observer is in real-time order by construction; use
`History.merge` for parts that share only a clock. `nil_is_a_value=False` on a `History` says that a read of nil
means "not known", as Knossos writes it; what the `Recorder` writes is always meant.

    history     what was seen                 formats     files: EDN, JSON, logs of etcd and key-value stores, ours
    verdict     what is said of it            checking    the one door to all checkers
    linearizability, transactions, invariants the checkers themselves
    explain     words and pictures, and a verifier that shares nothing with the checkers
    cli         `k2 check`
"""

from __future__ import annotations

from jepsen_like.checking import check
from jepsen_like.history import Event, History, HistoryError, Operation, Recorder
from jepsen_like.verdict import Finding, Step, Verdict

__all__ = [
    "Event",
    "Finding",
    "History",
    "HistoryError",
    "Operation",
    "Recorder",
    "Step",
    "Verdict",
    "check",
]
