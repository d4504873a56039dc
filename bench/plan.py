"""What the bench asks of the load process, and what it answers: a JSON document a line."""

from __future__ import annotations

from msgspec import Struct

from bench.samples import Spread


class Connect(Struct, frozen=True, tag="connect"):
    """Take a new connection; the answer tells that one key has been read through it.

    process  the node's, whose CPU time is measured
    """

    address: str
    process: int
    key: str


class Fill(Struct, frozen=True, tag="fill"):
    """Write every resident key once."""


class Measure(Struct, frozen=True, tag="measure"):
    """Run one workload: warm up, then measure."""

    workload: str
    in_flight: int
    seconds: float
    warm_up_s: float


class Done(Struct, frozen=True, tag="done"):
    """A request that is no measurement is done."""

    seconds: float


class Measured(Struct, frozen=True, tag="measured"):
    """One run of one workload.

    per_s        units of work a second: transactions, reads or rows
    latency      of one answer, as the caller meets it
    without_wait the same without the time the node held the answer for the clock alone
    commit_wait  that time
    gap_max_ms   longest time in which no answer came
    server_us, client_us  CPU time a unit of work
    failures     attempts that failed and were followed by another one, by cause
    others_cores cores that other processes kept busy meanwhile; stolen_cores: that the host took
    """

    workload: str
    in_flight: int
    seconds: float
    count: int
    per_s: float
    latency: Spread
    without_wait: Spread
    commit_wait: Spread
    gap_max_ms: float
    server_us: float
    client_us: float
    server_busy: float
    client_busy: float
    failures: dict[str, int]
    others_cores: float
    stolen_cores: float


Request = Connect | Fill | Measure
Answer = Done | Measured
