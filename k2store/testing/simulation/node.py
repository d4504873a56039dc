"""The real node as a program of the simulator: engine, sessions, log and recovery on a simulated
machine.

::

    store  = environment.open_store      the real log on the simulated disk, settled rows in memory
    clock  = environment.clock           inside its bound, or not
    wire   = environment.listen          the engine is the handler, as behind gRPC
    alarm  = the loop's timers           virtual time needs no file descriptor

Nothing of the node is replaced. What a real process adds around the engine (gRPC, signals, the
admin port) is tested on real processes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from msgspec import Struct

from k2store.errors import ClockUncertain
from k2store.node.alarm import LoopAlarm
from k2store.node.engine import Engine, EngineSettings
from k2store.node.limits import SessionLimits
from k2store.storage import StorageFailed, StorageOptions
from k2store.testing.simulation.node_probes import CASE_PROBES, NODE_PROBES
from k2store.testing.simulation.process import Environment, Main
from mvcc.refusals import Rule
from mvcc.state import PartitionSettings, State
from truetime import OracleSettings
from truetime.timestamp import floor, time_ns

PORT = 7400
CLOCK_BOUND_NS = 500_000
"""`hi - lo` of a simulated machine whose clock serves a node with the default settings."""
FAIL_STOP = (StorageFailed, ClockUncertain)
"""What may end a node: its disk refuses, or its clock is too uncertain to begin."""

_MILLISECOND_NS = 1_000_000
_SECOND_NS = 1_000 * _MILLISECOND_NS
_DEFAULT = PartitionSettings()
_CONFLICTS = (
    Rule.READ_BY,
    Rule.CLOSED,
    Rule.LOW_WATER,
    Rule.CACHE,
    Rule.BUSY,
    Rule.ABORTED,
    Rule.UNCERTAIN,
)


class NodeKnobs(Struct, frozen=True, kw_only=True):
    """What a run may turn about a node; times in nanoseconds."""

    split_keys: tuple[bytes, ...] = ()
    segment_bytes: int = 1 << 20
    tick_ns: int = 20 * _MILLISECOND_NS
    slack_ns: int = _DEFAULT.slack_ns_min
    lifetime_ns: int = 4 * _SECOND_NS
    expiry_ns: int = 1 * _SECOND_NS
    heartbeat_ns: int = 250 * _MILLISECOND_NS
    retention_ns: int = _DEFAULT.retention_ns
    collect_every_ns: int = 60 * _SECOND_NS
    range_marks_max: int = _DEFAULT.range_marks_max
    chains_max: int = _DEFAULT.chains_max
    scan_page: int = _DEFAULT.scan_rows_max
    watch_queue_max: int = 65_536
    reservation_ns: int = 500 * _MILLISECOND_NS
    stamp_batch: int = 1_000
    clock_bound_ns: int = CLOCK_BOUND_NS
    """`hi - lo` of the clocks that the node is set up for."""

    @property
    def uncertainty_ns_max(self) -> int:
        """Beyond so wide an interval the node gives no stamp."""
        return self.clock_bound_ns * 7 // 5

    @property
    def ahead_ns_max(self) -> int:
        """H: how far ahead of true time a stamp may lie, offsets of retries included."""
        wider_ns = self.uncertainty_ns_max - OracleSettings().uncertainty_max_ns
        return _DEFAULT.ahead_ns_max + max(0, wider_ns)


def draw_node_knobs(rng: random.Random, split_candidates: tuple[bytes, ...]) -> NodeKnobs:
    """Each knob tiny, as it is, or large; `split_candidates` are keys worth splitting at."""
    count = rng.choice((0, 0, 1, 2))
    splits = tuple(sorted(rng.sample(split_candidates, min(count, len(split_candidates)))))
    collects = rng.random() < 0.25
    return NodeKnobs(
        split_keys=splits,
        segment_bytes=rng.choice((1 << 14, 1 << 15, 1 << 20)),
        tick_ns=rng.choice((10, 20, 50)) * _MILLISECOND_NS,
        slack_ns=rng.choice((5, 50, 500)) * _MILLISECOND_NS,
        lifetime_ns=rng.choice((1, 4, 10)) * _SECOND_NS,
        expiry_ns=rng.choice((500, 1_000, 2_000)) * _MILLISECOND_NS,
        heartbeat_ns=rng.choice((100, 200)) * _MILLISECOND_NS,
        retention_ns=rng.choice((1, 3)) * _SECOND_NS if collects else _DEFAULT.retention_ns,
        collect_every_ns=(100 * _MILLISECOND_NS) if collects else 60 * _SECOND_NS,
        range_marks_max=rng.choice((6, 32, _DEFAULT.range_marks_max)),
        chains_max=rng.choice((2, 8, _DEFAULT.chains_max, _DEFAULT.chains_max)),
        scan_page=rng.choice((1, 3, _DEFAULT.scan_rows_max)),
        watch_queue_max=rng.choice((4, 65_536, 65_536)),
        reservation_ns=rng.choice((150, 500)) * _MILLISECOND_NS,
        stamp_batch=rng.choice((1, 100, 1_000)),
    )


def engine_settings(knobs: NodeKnobs) -> EngineSettings:
    """The knobs in the engine's own terms."""
    return EngineSettings(
        name="node",
        oracle=OracleSettings(
            uncertainty_max_ns=knobs.uncertainty_ns_max,
            ahead_max_ns=OracleSettings().ahead_max_ns + knobs.ahead_ns_max - _DEFAULT.ahead_ns_max,
            count_max=knobs.stamp_batch,
            reservation_ns=knobs.reservation_ns,
        ),
        partition=PartitionSettings(
            ahead_ns_max=knobs.ahead_ns_max,
            slack_ns_min=knobs.slack_ns,
            lifetime_ns_max=knobs.lifetime_ns,
            heartbeat_expiry_ns=knobs.expiry_ns,
            retention_ns=knobs.retention_ns,
            range_marks_max=knobs.range_marks_max,
            chains_max=knobs.chains_max,
            scan_rows_max=knobs.scan_page,
        ),
        limits=SessionLimits(scan_rows_max=knobs.scan_page, watch_queue_max=knobs.watch_queue_max),
        heartbeat_ns=knobs.heartbeat_ns,
        tick_ns=knobs.tick_ns,
        collect_every_ns=knobs.collect_every_ns,
        split_keys=knobs.split_keys,
    )


class Node:
    """One node over all its incarnations: its main, and what can be asked of it from outside."""

    def __init__(self, knobs: NodeKnobs) -> None:
        self.knobs = knobs
        self.engine: Engine | None = None
        """The engine of the latest incarnation that came up."""
        self.probes: Counter[str] = Counter()
        """Hits of `NODE_PROBES` that no counter of the machines has."""
        self.starts = 0
        self._engines: list[Engine] = []

    @property
    def main(self) -> Main:
        """What a process of the simulator runs."""
        return self._main

    async def _main(self, environment: Environment) -> None:
        store = environment.open_store(StorageOptions(segment_bytes=self.knobs.segment_bytes))
        loop = environment.loop
        ended: asyncio.Future[None] = loop.create_future()

        def failed(error: BaseException) -> None:
            if not ended.done():
                ended.set_exception(error)

        restored = store.log.checkpoint_lsn > 0
        engine = Engine(
            store,
            environment.clock,
            engine_settings(self.knobs),
            incarnation=environment.entropy(8),
            alarm=LoopAlarm,
            on_failure=failed,
        )
        self._engines.append(engine)
        self.starts += 1
        if engine.replayed:
            self.probes["node.recovered"] += 1
        if restored:
            self.probes["node.checkpoint_restored"] += 1
        await engine.start()
        await environment.listen(PORT, engine)
        self.engine = engine
        await ended

    # ------------------------------------------------------------------ questions from outside

    def unfinished(self) -> list[str]:
        """What is still open on the node: nothing, once every client has gone and time has passed."""
        engine = self.engine
        if engine is None or not engine.handler_ready():
            return ["the node does not serve"]
        return self._open_things(engine)

    def _open_things(self, engine: Engine) -> list[str]:
        found: list[str] = []
        if engine.coordinator.open:
            found.append(f"{len(engine.coordinator.open)} open transactions")
        if len(engine.held):
            found.append(f"{len(engine.held)} answers held")
        for partition in engine.partitions:
            state = partition.state
            for what, things in (
                ("undecided", state.undecided),
                # Confirmations are the leader's affair: others do not hear of them.
                ("unconfirmed", state.unconfirmed if state.serving else ()),
                ("parked", state.parked),
                ("awaiting", state.awaiting),
            ):
                if things:
                    found.append(f"partition {state.partition}: {len(things)} {what}")
            with_intents = [key for key, chain in state.chains.items() if chain.intents is not None]
            if with_intents:
                found.append(f"partition {state.partition}: intents on {with_intents[:3]}")
        return found

    def conflicts(self) -> int:
        """How often one transaction got in the way of another, over all incarnations."""
        return sum(
            state.waits + sum(state.refusals[rule] for rule in _CONFLICTS)
            for state in self._states()
        )

    def harvest(self, exits: int) -> dict[str, int]:
        """All hits of `NODE_PROBES`; `exits` is how often the process stopped of a failure."""
        hits = self.probes
        hits["node.failed_stop"] = exits
        refusals = dict.fromkeys(Rule, 0)
        for state in self._states():
            for rule in Rule:
                refusals[rule] += state.refusals[rule]
            for case, name in CASE_PROBES.items():
                hits[name] += state.cases[case]
            hits["node.waited"] += state.waits
            hits["node.horizon_raised"] += int(state.horizon > 0)
            hits["node.pushed"] += state.pushes
        for engine in self._engines:
            single = len(engine.partitions) == 1
            states = [partition.state for partition in engine.partitions]
            if single and (states[0].waits or states[0].refusals[Rule.READ_BY]):
                hits["node.batch_slow_path"] += 1
            if not single and any(state.commits for state in states):
                hits["node.many_partitions"] += 1
            hits["node.commit_waited"] += int(engine.held.waited_ns_total > 0)
            hits["node.segment_rotated"] += int(engine.log.first_lsn > 1)
            hits["node.watch_cut_off"] += engine.feed.cut_off
            hits["node.watch_served"] += engine.feed.events
        for rule, name in (
            (Rule.READ_BY, "node.refused_read_by"),
            (Rule.CLOSED, "node.refused_closed"),
            (Rule.CACHE, "node.refused_cache"),
            (Rule.BUSY, "node.refused_busy"),
            (Rule.ABORTED, "node.refused_aborted"),
            (Rule.DEADLINE, "node.refused_deadline"),
            (Rule.FUTURE, "node.refused_future"),
            (Rule.HORIZON, "node.refused_horizon"),
            (Rule.MISSING_WRITE, "node.refused_missing_write"),
        ):
            hits[name] += refusals[rule]
        unknown = set(hits) - set(NODE_PROBES)
        assert not unknown, unknown
        return {name: hits[name] for name in NODE_PROBES}

    def _states(self) -> list[State]:
        return [partition.state for engine in self._engines for partition in engine.partitions]


def stamp_time_ns(stamp: int) -> int:
    """The time a stamp stands for, in ns since the Unix epoch."""
    return time_ns(stamp)


def stamp_before_ns(now_ns: int) -> int:
    """The largest stamp that no moment from this one on can have, in ns since the Unix epoch."""
    return floor(now_ns) - 1
