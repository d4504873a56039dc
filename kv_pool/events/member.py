"""A member of the pool that an engine's events keep up to date.

Carries the actions of an `Engine` out as transactions, in order. An unmodified engine becomes a member by
this: somebody reads its sockets, renews its lease as long as they answer, and hands actions here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Struct

from kv_pool import keys
from kv_pool.directory import evicting, membership, publishing
from kv_pool.directory.evicting import Voided
from kv_pool.directory.membership import Registration
from kv_pool.events.engine import Action, Begin, Clear, Suspect
from kv_pool.keys import Worker
from kv_pool.ledger import Publish, Report
from kv_pool.records import Id, Tier
from kv_pool.shots import Refused, Store


class Carried(Struct):
    """What came of some actions.

    at       stamp of the last transaction
    voided   claims that the engine broke
    refused  the first refusal, at which the rest was left undone: the registration is no longer good
    """

    at: int = 0
    voided: tuple[Voided, ...] = ()
    refused: Refused | None = None


class Member:
    """See the module.

    boots      gives 16 new random bytes each time the engine has started anew
    expiry_ns  gives the moment until which a lease that is taken now runs
    """

    def __init__(
        self,
        store: Store,
        worker: Worker,
        boots: Callable[[], bytes],
        expiry_ns: Callable[[], int],
        endpoints: tuple[str, ...] = (),
    ) -> None:
        self._store = store
        self._worker = worker
        self._boots = boots
        self._expiry_ns = expiry_ns
        self._endpoints = endpoints
        self.registration: Registration | None = None

    async def begin(self) -> Registration:
        """Become a member, in a new life."""
        self.registration = await membership.register(
            self._store, self._worker, self._boots(), self._expiry_ns(), self._endpoints
        )
        return self.registration

    async def renew(self) -> Refused | None:
        """Renew the lease; refused for who has been fenced: begin again, and have the engine's
        blocks told anew."""
        registration = self.registration or await self.begin()
        outcome = await membership.renew(self._store, registration, self._expiry_ns())
        return outcome if isinstance(outcome, Refused) else None

    async def carry(self, actions: Iterable[Action]) -> Carried:
        """Carry actions out, each after the one before; a refusal ends it."""
        carried = Carried()
        for action in actions:
            if isinstance(action, Begin):
                carried.at = (await self.begin()).at
                continue
            registration = self.registration or await self.begin()
            match action:
                case Publish(extends=extends):
                    stretch = action.stretch(registration)
                    published = await (
                        publishing.extend(self._store, registration, stretch, extends)
                        if extends
                        else publishing.publish(self._store, registration, stretch)
                    )
                    if isinstance(published, Refused):
                        carried.refused = published
                        return carried
                    carried.at = published.at
                case Report():
                    part = keys.run_id(action.namespace, action.tier, action.first)
                    told = await evicting.report(
                        self._store,
                        registration,
                        part,
                        registration.generation(action.run_number),
                        action.gone,
                        action.number,
                    )
                    if isinstance(told, Refused):
                        carried.refused = told
                        return carried
                    carried.at = told.at
                    carried.voided += told.voided
                case Clear():
                    cleared = await membership.clear(self._store, registration, *Tier)
                    if isinstance(cleared, Refused):
                        carried.refused = cleared
                        return carried
                    self.registration, carried.at = cleared, cleared.at
                case Suspect(suspected):
                    incarnation = registration.identity.incarnation
                    identity = await membership.suspect(
                        self._store, self._worker, incarnation, suspected=suspected
                    )
                    if not isinstance(identity, Id):
                        carried.refused = identity
                        return carried
                    self.registration = msgspec.structs.replace(registration, identity=identity)
        return carried
