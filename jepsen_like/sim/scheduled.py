"""Schedules of plans: what goes wrong in a run, in the format that real processes understand."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from jepsen_like.nemesis import BadSchedule, Schedule
from jepsen_like.sim.cluster.plan import ClusterPlan
from jepsen_like.sim.plan import SERVER, Load, Plan

P = TypeVar("P", bound=Load)

NEAR = "local"
FAR = "far"


def hosts_of(plan: Load) -> dict[str, str]:
    """Every machine that a fault may happen to, with its region."""
    if isinstance(plan, ClusterPlan):
        return {**plan.nodes, **plan.places}
    assert isinstance(plan, Plan)
    watchers = [f"watcher-{number}" for number in range(len(plan.watchers))]
    return {
        SERVER: NEAR,
        **{name: FAR if name in plan.far else NEAR for name in plan.clients},
        **dict.fromkeys(watchers, NEAR),
    }


def schedule_of(plan: Load) -> Schedule:
    """What goes wrong in a plan."""
    return Schedule(duration_ns=plan.duration_ns, hosts=hosts_of(plan), faults=plan.schedule)


def with_schedule(plan: P, schedule: Schedule) -> P:
    """The plan with what a schedule says; BadSchedule where it speaks of hosts that are not there."""
    here = Schedule(duration_ns=schedule.duration_ns, hosts=hosts_of(plan), faults=())
    faults = []
    for fault in schedule.faults:
        pairs = here.pairs(fault)
        if fault.pairs and not pairs:
            raise BadSchedule(f"{fault.name} happens to no link of this run")
        faults.append(replace(fault, pairs=pairs))
    missing = {fault.target for fault in faults if fault.name not in ("split", "move")}
    missing -= {"", *here.hosts}
    if missing:
        raise BadSchedule(f"this run has no host {', '.join(sorted(missing))}")
    return replace(plan, schedule=tuple(faults), duration_ns=schedule.duration_ns)
