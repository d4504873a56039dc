"""The services that stand beside the session on a node's port, and their health.

Health is told for each service by its full name and for the node as a whole (the empty name).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from k2store.rpc.gate import check_declared
from k2store.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    pool_pb2,
    store_pb2,
    store_pb2_grpc,
)

STORE: Final[str] = store_pb2.DESCRIPTOR.services_by_name["StoreService"].full_name
ADMIN: Final[str] = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
CONTROL: Final[str] = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name

AddService = Callable[[grpc.aio.Server], None]


class Health:
    """What `grpc.health.v1` answers for this node."""

    def __init__(self, *, control: bool = False) -> None:
        """`control`: the node keeps the control plane of its cluster."""
        self.servicer = health_aio.HealthServicer()
        self._beside = (ADMIN, CONTROL) if control else (ADMIN,)

    async def serving(self) -> None:
        """Everything can be used."""
        for name in ("", STORE, *self._beside):
            await self.servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def draining(self) -> None:
        """The store takes no new work; the services beside it still answer."""
        for name in ("", STORE):
            await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def starting(self) -> None:
        """Nothing can be used yet."""
        for name in ("", STORE, *self._beside):
            await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)


def services(
    store: store_pb2_grpc.StoreServiceServicer,
    admin: admin_pb2_grpc.AdminServiceServicer,
    health: Health,
    *,
    with_reflection: bool,
    control: control_pb2_grpc.ControlServiceServicer | None = None,
    guests: Mapping[str, AddService] = MappingProxyType({}),
) -> tuple[AddService, ...]:
    """Functions that add the services to a server; raises Rejected for an undeclared method.

    `control`: for the node that keeps the control plane of its cluster. `guests`: services of others,
    by full name.
    """
    check_declared(methods())
    adders: list[AddService] = [
        lambda server: store_pb2_grpc.add_StoreServiceServicer_to_server(store, server),
        lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server),
        lambda server: health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server),
    ]
    names = [STORE, ADMIN, HEALTH]
    if control is not None:
        names.append(CONTROL)
        adders.append(
            lambda server: control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
        )
    names += guests
    adders += guests.values()
    if with_reflection:
        names.append(reflection.SERVICE_NAME)
        adders.append(lambda server: reflection.enable_server_reflection(names, server))
    return tuple(adders)


def methods() -> Iterable[str]:
    """The full name of every method that a node can serve."""
    for file in (store_pb2, admin_pb2, control_pb2, pool_pb2, health_pb2, reflection_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"
