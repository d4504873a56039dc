"""What a node says of itself: the answer of GetStatus, and the figures behind the metrics.

Counting is done where things happen, in plain integers; everything here is computed when somebody
asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from msgspec import Struct

from k2store.errors import ClockUncertain, Corruption
from k2store.node.engine import FENCED, Engine
from k2store.v1 import admin_pb2
from mvcc.partition import Partition
from mvcc.refusals import Rule

SERVING: Final = "SERVING"
DRAINING: Final = "DRAINING"
RECOVERING: Final = "RECOVERING"
QUARANTINED: Final = "QUARANTINED"
FAILED: Final = "FAILED"
STATES: Final = (RECOVERING, SERVING, DRAINING, QUARANTINED, FAILED)


class Reading(Struct, frozen=True):
    """All figures of one node at one moment."""

    status: admin_pb2.GetStatusResponse
    counts: Mapping[str, int]
    refusals: Mapping[str, int]
    waits: int
    pushes: int
    held: int
    replayed: int


def read(engine: Engine, uptime_s: float) -> Reading:
    """Look at every part of a node."""
    refusals = {
        rule.name.lower(): sum(one.state.refusals[rule] for one in engine.partitions)
        for rule in Rule
        if rule
    }
    return Reading(
        status=status(engine, uptime_s),
        counts=engine.counts | {"commits": _commits(engine)},
        refusals=refusals,
        waits=sum(partition.state.waits for partition in engine.partitions),
        pushes=sum(partition.state.pushes for partition in engine.partitions),
        held=len(engine.held),
        replayed=engine.replayed,
    )


def state(engine: Engine) -> str:
    """One of STATES."""
    if isinstance(engine.failed, Corruption):
        return QUARANTINED
    if engine.failed is not None:
        return FAILED
    if engine.draining:
        return DRAINING
    return SERVING if engine.handler_ready() else RECOVERING


def status(engine: Engine, uptime_s: float) -> admin_pb2.GetStatusResponse:
    """The node's state, as `k2 status` shows it."""
    limits = engine.limits
    told = admin_pb2.GetStatusResponse(
        node=engine.settings.name,
        region=engine.settings.region,
        incarnation=engine.incarnation,
        state=state(engine),
        version=software_version(),
        uptime_s=uptime_s,
        partitions=[_partition(partition) for partition in engine.partitions],
        durable_turn=engine.log.durable_lsn,
        log_bytes=engine.log.size_bytes,
        settled_bytes=engine.settled.size_bytes,
        sessions=len(engine.sessions),
        transactions=len(engine.coordinator.open),
        clock=clock(engine),
        limits=[
            admin_pb2.LimitStatus(name=name, value=value, limit=limit)
            for name, value, limit in (
                (
                    "limits.open_transactions",
                    len(engine.coordinator.open),
                    limits.open_transactions_max,
                ),
                (
                    "limits.in_flight",
                    max((one.outstanding for one in engine.sessions.values()), default=0),
                    limits.in_flight_max,
                ),
            )
        ],
    )
    engine.host.describe(told)
    return told


def clock(engine: Engine) -> admin_pb2.GetClockResponse:
    """The node's clock, as `k2 clock` shows it."""
    source = engine.clock.source
    answer = admin_pb2.GetClockResponse(
        source=source.name,
        assumed=source.assumed,
        ahead_ns_max=engine.settings.oracle.ahead_max_ns,
        commits=_commits(engine),
        commit_wait_ns_total=engine.held.waited_ns_total,
        commit_wait_ns_max=engine.held.waited_ns_max,
        detail=source.detail,
    )
    try:
        answer.lo_ns, answer.hi_ns = engine.clock.read()
    except ClockUncertain as error:
        answer.refusal = error.message
    else:
        if engine.host.fenced:
            answer.refusal = FENCED
            return answer
        refusal = engine.oracle.refusal(answer.lo_ns, answer.hi_ns)
        if refusal is not None:
            answer.refusal = refusal.message
    return answer


def _commits(engine: Engine) -> int:
    return sum(partition.state.commits for partition in engine.partitions)


def software_version() -> str:
    """The installed version of K2store."""
    try:
        return version("k2store")
    except PackageNotFoundError:
        return "0+unknown"


def _partition(partition: Partition) -> admin_pb2.PartitionStatus:
    inside = partition.state
    safe, pinned_by = partition.safe()
    return admin_pb2.PartitionStatus(
        partition=inside.partition,
        start=inside.start,
        end=inside.end,
        safe=safe,
        pinned_by=pinned_by,
        closed=inside.closed,
        horizon=inside.horizon,
        keys_in_memory=len(inside.chains),
        transactions=len(inside.transactions),
        intents=sum(len(local.keys) for local in inside.undecided.values()),
    )
