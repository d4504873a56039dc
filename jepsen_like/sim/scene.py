"""One seed: build the machines, let them run, heal them, read everything, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import IO, TypeVar

import msgspec

from jepsen_like.sim.plan import SERVER, Load, Plan, draw
from jepsen_like.sim.stage import RESTART_NS, Result, Stage, told
from k2store.testing.simulation import (
    SIMULATOR_PROBES,
    Environment,
    Fault,
    Process,
    Simulation,
    SimulationError,
)
from k2store.testing.simulation.node import FAIL_STOP, PORT, Node

P = TypeVar("P", bound=Load)


def run(
    seed: int,
    only: Sequence[str] = (),
    *,
    plan: Plan | None = None,
    trace_sink: IO[str] | None = None,
    honest: bool = True,
) -> Result:
    """Run a seed, or the plan that is given instead of the one drawn from it."""
    return staged(plan or draw(seed, only, honest=honest), Scene, trace_sink)


def staged(
    plan: P,
    make: Callable[[P, Simulation], Stage],
    trace_sink: IO[str] | None,
    look: Callable[[Stage, Result], None] | None = None,
) -> Result:
    """Run a plan on the stage that is made for it; `look` sees the stage when it is judged."""
    began_s = time.perf_counter()
    result = Result(
        plan.seed,
        plan,
        failures=[],
        anomalies=[],
        inside=[],
        fault_kinds={},
        probes=dict.fromkeys(SIMULATOR_PROBES, 0),
    )
    with Simulation(plan.seed, conditions=plan.conditions(), trace_sink=trace_sink) as simulation:
        stage = make(plan, simulation)
        try:
            stage.play()
            stage.judge(result)
        except SimulationError as error:
            result.failures.append(told(error))
            stage.judge_fragment(result)
        stage.count(result)
        if look is not None:
            look(stage, result)
        result.trace = simulation.trace.hash
        result.virtual_ns = simulation.loop.now_ns
        result.steps = simulation.loop.steps
    result.seconds = time.perf_counter() - began_s
    return result


class Scene(Stage):
    """One node, its clients and its watchers."""

    def __init__(self, plan: Plan, simulation: Simulation) -> None:
        self.plan = plan
        super().__init__(plan, simulation)

    def _nodes(self) -> Sequence[Node]:
        return [Node(self.plan.node)]

    def _servers(self) -> Sequence[Process]:
        main = self.nodes[0].main
        machine = self._machine(SERVER)
        return [self.simulation.process(machine, main, fail_stop=FAIL_STOP, restart_ns=RESTART_NS)]

    def _region(self, name: str) -> str:
        return "far" if name in self.plan.far else "local"

    def _address(self, environment: Environment) -> str:
        return f"k2://{SERVER}:{PORT}"

    def _borders(self) -> Sequence[bytes]:
        return self.plan.node.split_keys

    async def _prepare(self) -> None:
        """A node by itself needs nobody."""

    def _settle(self) -> None:
        """There is no other copy to compare with."""


def without(plan: P, schedule: Sequence[Fault]) -> P:
    """The same plan with other faults."""
    return msgspec.structs.replace(plan, schedule=tuple(schedule))
