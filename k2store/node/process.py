"""A node as a process runs it: settings in, sockets open, an orderly end.

::

    settings ─▶ checks ─▶ recover ─▶ admin port ─▶ serve ─▶ gRPC port ─▶ READY
                                                                           │ drain (SIGTERM, Drain)
    closed ◀─ store closed ◀─ ports closed ◀─ open transactions finish ◀───┘
                                   ▲ at once (second signal), or the engine failed

`NodeProcess` is everything of that but the signals and the event loop, so tests and embedding
programs can run one, or several, in their own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from k2store.client.connect import connect
from k2store.config import Settings
from k2store.control.opening import EMBEDDED
from k2store.control.service import ControlMethods
from k2store.errors import Unavailable
from k2store.metrics.exposition import AdminPort
from k2store.node import report
from k2store.node.admin import AdminMethods
from k2store.node.assembly import cluster_settings, engine_of, store_of
from k2store.node.cluster.host import ClusterHost
from k2store.node.cluster.member import Member
from k2store.node.engine import Engine
from k2store.node.guests import invited
from k2store.rpc.gate import Gate, GateKeeper
from k2store.rpc.grpc_transport import GrpcListener, GrpcListening
from k2store.rpc.guard import Guard
from k2store.rpc.local import LocalTransport
from k2store.rpc.services import Health, services
from k2store.rpc.tls import check_exposure, server_credentials
from k2store.rpc.tokens import TokenFile
from k2store.rpc.unary import StoreMethods

INSIDE = "inside:1"
"""Name under which the node's own client finds the engine."""

PARTING_S = 1.0
"""How long clients that were told of the drain may take to leave by themselves, seconds."""

REVIEW_INTERVAL_S = 1.0
"""How often the token file is looked at for sessions that may not stay."""


class Ready(Struct, frozen=True):
    """What a node tells when it can be used.

    address, admin  where it listens; `admin` is empty without that port
    clock_source, clock_assumed, clock_bound_ns  where time comes from; the bound now, 0 if none
    replayed        log turns that recovery went through
    start_s         from the beginning of the start until now
    """

    node: str
    region: str
    address: str
    admin: str
    data: str
    incarnation: str
    version: str
    clock_source: str
    clock_assumed: bool
    clock_bound_ns: int
    replayed: int
    start_s: float
    process: int

    def line(self) -> str:
        """For people."""
        assumed = " (assumed)" if self.clock_assumed else ""
        bound = f"{self.clock_bound_ns / 1000:.0f} µs" if self.clock_bound_ns else "none"
        admin = f", admin http://{self.admin}" if self.admin else ""
        return (
            f"{self.node} ({self.region}) serves k2://{self.address}{admin}; "
            f"clock {self.clock_source}{assumed}, bound {bound}; "
            f"data {self.data}; up after {self.start_s:.2f} s"
        )


class NodeProcess:
    """One node with its ports: ``async with NodeProcess(settings, logger) as node``."""

    def __init__(self, settings: Settings, logger: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = logger
        self._stack = contextlib.AsyncExitStack()
        self._health = Health(control=settings.cluster.control == EMBEDDED)
        self._ended = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._began_s = 0.0
        self._listening: GrpcListening | None = None
        self._tokens: TokenFile | None = None
        self._member: Member | None = None
        self.engine: Engine
        self.ready: Ready | None = None

    async def __aenter__(self) -> Self:
        """Start; raises a K2Error that says why the node cannot serve."""
        self._began_s = asyncio.get_running_loop().time()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drain is not None and not self._drain.done():
            self._drain.cancel()
            await asyncio.wait((self._drain,))
        await self._stack.aclose()
        self._log.info("node.stopped")

    @property
    def draining(self) -> bool:
        """Whether a drain has begun."""
        return self._drain is not None

    @property
    def address(self) -> str:
        """`host:port` of the gRPC port, with the port in use."""
        assert self.ready is not None, "the node is not up"
        return self.ready.address

    def uptime_s(self) -> float:
        """Seconds since the start began."""
        return asyncio.get_running_loop().time() - self._began_s

    def reading(self) -> report.Reading:
        """All figures, now."""
        return report.read(self.engine, self.uptime_s())

    def drain(self, grace_s: float | None = None) -> None:
        """Begin to drain; `wait` returns when it is done. A second call changes nothing."""
        if self._drain is None:
            if grace_s is None:
                grace_s = self._settings.node.drain_timeout.seconds
            self._drain = asyncio.get_running_loop().create_task(self._drained(grace_s))

    def stop(self) -> None:
        """Make `wait` return at once; what is open is cut off."""
        self._ended.set()

    async def wait(self) -> None:
        """Return when the node has drained or was stopped; raises what made the engine fail."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    # ------------------------------------------------------------------------------ start

    async def _start(self) -> None:
        settings = self._settings
        check_exposure(settings.node.listen, settings.tls)
        credentials = server_credentials(settings.tls)
        if settings.auth.tokens:
            self._tokens = TokenFile(Path(settings.auth.tokens))
        gate = Gate(self._tokens, self._audit)
        if settings.cluster.control:
            await self._enter_cluster()
        else:
            self.engine = engine_of(settings, self._failed)
            self._stack.callback(self.engine.close)
        engine = self.engine
        admin = await self._open_admin_port()
        await engine.start()

        inside = LocalTransport()
        await inside.listen(INSIDE, engine)
        database = connect(f"k2://{INSIDE}", dialer=inside, name="unary methods")
        await self._stack.enter_async_context(database)
        store = StoreMethods(
            database,
            deadline_s=settings.client.deadline.seconds,
            deadline_s_max=settings.limits.deadline_max.seconds,
            lifetime_s=settings.transactions.lifetime_max.seconds,
        )
        self._stack.callback(store.close)
        guests = invited(settings.node.services, database, settings.node.region, self._regions)
        for guest in guests:
            await self._stack.enter_async_context(guest)
        kept = None if self._member is None else self._member.embedded
        listener = GrpcListener(
            credentials=credentials,
            services=services(
                store,
                AdminMethods(engine, self.uptime_s, self.drain),
                self._health,
                with_reflection=settings.node.reflection,
                guests={guest.service: guest.add for guest in guests},
                control=(
                    None
                    if kept is None
                    else ControlMethods(kept, certified=bool(settings.tls.authority))
                ),
            ),
            interceptors=(GateKeeper(gate),),
            annotate=gate.annotate,
            connections_max=settings.limits.connections,
            peers=engine.host.links if isinstance(engine.host, ClusterHost) else None,
            peers_certified=bool(settings.tls.authority),
        )
        handler = engine if self._tokens is None else Guard(engine)
        try:
            self._listening = await listener.listen(settings.node.listen, handler)
        except OSError as error:
            raise Unavailable(f"{error.strerror}; is another node running?") from error
        self._stack.push_async_callback(self._listening.close)
        if self._member is not None:
            self._member.start()
        await self._health.serving()
        if self._tokens is not None:
            review = asyncio.get_running_loop().create_task(self._review(gate, self._tokens))
            self._stack.callback(review.cancel)
        self.ready = self._describe(self._listening.address, admin)
        self._log.info("node.ready", address=self.address, replayed=engine.replayed)

    def _regions(self) -> tuple[str, ...]:
        """The regions of the cluster, as this node knows them now."""
        host = self.engine.host
        present = host.map if isinstance(host, ClusterHost) else None
        if present is None:
            return (self._settings.node.region,)
        return tuple(region.name for region in present.regions)

    async def _enter_cluster(self) -> None:
        """Open the store, learn from the control plane who this node is, make the engine so."""
        store = store_of(self._settings)
        try:
            member = await Member.enter(
                self._settings,
                store.identity.store,
                waiting=lambda why: self._log.warning("cluster.waiting", why=why),
                trouble=lambda why: self._log.error("cluster.map", why=why),
            )
        except BaseException:
            store.close()
            raise
        self._member = member
        self._stack.push_async_callback(member.leave)
        self.engine = engine_of(
            self._settings,
            self._failed,
            store=store,
            host=member.host(cluster_settings(self._settings, member.node)),
        )
        self._stack.callback(self.engine.close)
        self._log.info("cluster.joined", id=member.node)

    async def _open_admin_port(self) -> str:
        listen = self._settings.admin.listen
        if not listen:
            return ""
        port = AdminPort(self.reading, lambda: report.state(self.engine))
        try:
            address = await port.listen(listen)
        except OSError as error:
            raise Unavailable(
                f"cannot listen at admin.listen = {listen}: {error.strerror}"
            ) from error
        self._stack.push_async_callback(port.close)
        return address

    def _describe(self, address: str, admin: str) -> Ready:
        engine = self.engine
        clock = report.clock(engine)
        return Ready(
            node=engine.settings.name,
            region=engine.settings.region,
            address=address,
            admin=admin,
            data=str(Path(self._settings.node.data).resolve()),
            incarnation=engine.incarnation.hex(),
            version=report.software_version(),
            clock_source=clock.source,
            clock_assumed=clock.assumed,
            clock_bound_ns=clock.hi_ns - clock.lo_ns,
            replayed=engine.replayed,
            start_s=self.uptime_s(),
            process=os.getpid(),
        )

    # -------------------------------------------------------------------------------- end

    async def _drained(self, grace_s: float) -> None:
        """Say so, let what is open finish, let clients leave, end."""
        self._log.info(
            "node.draining", grace_s=grace_s, transactions=len(self.engine.coordinator.open)
        )
        await self._health.draining()
        await self.engine.drain(grace_s)
        assert self._listening is not None
        await self._listening.close(min(grace_s, PARTING_S))
        self._ended.set()

    def _failed(self, error: BaseException) -> None:
        """The engine has stopped itself: nothing is served any more, and the process ends."""
        self._failure = error
        self._log.error("node.failed", error=str(error), kind=type(error).__name__)
        self._ended.set()

    # --------------------------------------------------------------------------- callers

    def _audit(self, principal: str, method: str) -> None:
        self._log.info("admin.called", principal=principal, method=method)

    async def _review(self, gate: Gate, tokens: TokenFile) -> None:
        """Follow the token file: who was taken out of it loses the sessions it has."""
        problem = ""
        while True:
            await asyncio.sleep(REVIEW_INTERVAL_S)
            tokens.reload()
            if tokens.problem != problem:
                problem = tokens.problem
                if problem:
                    self._log.error("tokens.refused", problem=problem)
                else:
                    self._log.info("tokens.mended")
            assert self._listening is not None
            for connection in self._listening.expel(gate.stands):
                self._log.info("session.expelled", peer=connection.peer)
