"""Where a request goes: the workers of a role, what is known of them, and a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from kv_pool.keys import Worker
from kv_pool.routing.cost import CostModel
from kv_pool.routing.facts import Facts, LearnerFacts, Load, Request
from kv_pool.routing.parts import Setting
from kv_pool.routing.router import Router
from serving.instance.place import place_of
from serving.instance.steps import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kv_pool.edge.following import Tree
    from truetime import Interval

POLICY: Final = "cost"


class Placement(Struct, frozen=True):
    """Who answers, and who computes the prompt for it (None: nobody else); and how much of the prompt is
    believed to be there already, in blocks."""

    worker: Worker
    prefill: Worker | None
    blocks: int


class _OfRole:
    """Facts of the workers of some roles, but for those that `avoids` names; `region` None is everywhere."""

    def __init__(
        self,
        tree: Tree,
        region: str | None,
        roles: frozenset[Role],
        loads: Mapping[Worker, Load],
        avoids: Callable[[Worker], bool],
    ) -> None:
        self._tree = tree
        self._region = region
        self._roles = roles
        self._avoids = avoids
        self._all = LearnerFacts(tree.learner, loads)

    def facts(self, request: Request, now: Interval) -> Facts:
        """What is known now."""
        facts = self._all.facts(request, now)
        workers = tuple([worker for worker in facts.workers if self._takes(worker)])
        return Facts(workers, facts.depths, facts.loads, facts.age_s)

    def _takes(self, worker: Worker) -> bool:
        if self._region not in {None, worker.region} or self._avoids(worker):
            return False
        place = place_of(self._tree.identity(worker))
        return place is not None and place.role in self._roles


class Placing:
    """Places requests in one region, and elsewhere while there is nobody in it.

    policy   for who computes prompts: a name of `kv_pool.routing.policies`
    spills   whether colocated workers of other regions are asked at all
    cost     what work costs, for that policy and for the loads
    avoids   workers that are not to be asked now
    """

    def __init__(
        self,
        tree: Tree,
        region: str,
        loads: Mapping[Worker, Load],
        avoids: Callable[[Worker], bool],
        *,
        policy: str = POLICY,
        spills: bool = True,
        cost: CostModel,
    ) -> None:
        setting = Setting(cost=cost)

        def router(policy: str, *roles: Role, where: str | None = region) -> Router:
            return Router(policy, _OfRole(tree, where, frozenset(roles), loads, avoids), setting)

        self._colocated = router(policy, Role.COLOCATED)
        self._prefill = router(policy, Role.PREFILL)
        self._anywhere = router(policy, Role.COLOCATED, where=None) if spills else None
        # An answer is quickest where the fewest others are; what it has of the prompt saves transfer only.
        self._decode = router("least-load", Role.DECODE)

    def place(self, request: Request, now: Interval) -> Placement | None:
        """Where a request goes; None when nobody takes it.

        Decode workers come first where there are any: what is colocated beside them is a reserve.
        """
        decode = self._decode.route(request, now)
        if decode is not None:
            prefill = self._prefill.route(request, now)
            if prefill is None:
                return Placement(decode.worker, None, decode.depth)
            return Placement(decode.worker, prefill.worker, prefill.depth)
        found = self._colocated.route(request, now)
        if found is None and self._anywhere is not None:
            # Far away is slower than here, and quicker than never.
            found = self._anywhere.route(request, now)
        return None if found is None else Placement(found.worker, None, found.depth)
