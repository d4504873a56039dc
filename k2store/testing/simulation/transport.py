"""A process's door to the network: listening, and asking for connections until somebody answers.

Implements the `Dialer` and `Listener` ports over the streams of `streams.py`. A request that a
cut or a dark machine swallows is sent again, as TCP does; one that meets a machine on which
nobody listens is refused at once.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Final

from k2store.rpc.transport import ConnectFailed, Connection, Handler
from k2store.testing.simulation.domain import SECOND_NS, Domain, State
from k2store.testing.simulation.network import Host, Network
from k2store.testing.simulation.streams import Endpoint, Pipe

CONNECT_RETRY_NS: Final = 1 * SECOND_NS
"""Time to the first repetition of an unanswered request; it doubles with each more."""
_FIRST_PORT: Final = 40_000


class Acceptor:
    """An open door; implements `k2store.rpc.transport.Listening`."""

    def __init__(self, network: Network, host: Host, domain: Domain, port: str, handler: Handler):
        self.address = f"{host.name}:{port}"
        self.domain = domain
        self.handler = handler
        self._host = host
        self._network = network

    async def close(self, grace_s: float = 0.0) -> None:
        """Take no more connections; end those that stand."""
        if self._host.acceptors.get(self.address) is self:
            del self._host.acceptors[self.address]
        loop = self._network.loop
        end_ns = loop.now_ns + round(grace_s * SECOND_NS)
        while loop.now_ns < end_ns and self._endpoints():  # noqa: ASYNC110
            # Virtual time: asking now and then costs nothing.
            await asyncio.sleep(min(0.05, (end_ns - loop.now_ns) / SECOND_NS))
        for endpoint in self._endpoints():
            endpoint.close("the server closed")

    def _endpoints(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._host.endpoints if endpoint.door is self]


class SimTransport:
    """One process's door to the network; implements the `Dialer` and `Listener` ports."""

    def __init__(self, network: Network, host: Host, domain: Domain) -> None:
        self._network = network
        self._host = host
        self._domain = domain
        self._next_port = _FIRST_PORT

    async def listen(self, address: str, handler: Handler) -> Acceptor:
        """Accept connections at an address of this host."""
        name, _, port = address.rpartition(":")
        if name != self._host.name:
            raise OSError(errno.EADDRNOTAVAIL, f"{address} is not an address of {self._host.name}")
        if port == "0":
            port, self._next_port = str(self._next_port), self._next_port + 1
        acceptor = Acceptor(self._network, self._host, self._domain, port, handler)
        if acceptor.address in self._host.acceptors:
            raise OSError(errno.EADDRINUSE, f"{address} is taken")
        if self._domain.state is not State.DEAD:
            self._host.acceptors[acceptor.address] = acceptor
        return acceptor

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        """Open a stream to an address."""
        target = self._network.hosts.get(address.rpartition(":")[0])
        if target is None:
            raise ConnectFailed(address, "no such host")
        endpoint = Endpoint(self._network, self._domain, address, dict(metadata), handler)
        endpoint.opening = self._network.loop.create_future()
        attempt = _Attempt(self._network, self._host, target, endpoint)
        attempt.knock_later()
        try:
            await endpoint.opening
        except BaseException:
            attempt.abandon()
            raise
        return endpoint


class _Attempt:
    """A connection that is being asked for, again and again until somebody answers."""

    def __init__(self, network: Network, source: Host, target: Host, endpoint: Endpoint) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._endpoint = endpoint
        self._link = network.link(source.name, target.name)
        self._give_up_ns = network.loop.now_ns + network.conditions.connect_ns
        self._wait_ns = CONNECT_RETRY_NS
        self._joined = False
        self._abandoned = False

    def knock_later(self) -> None:
        """Send the request; it is looked at when it arrives."""
        loop = self._network.loop
        loop.schedule(self._link.arrival_ns(loop.now_ns, 64), loop.world.context, self._knock)

    def abandon(self) -> None:
        """Nobody waits any more: leave no connection behind."""
        self._abandoned = True
        if self._joined:
            self._endpoint.close("connecting was given up")

    def _knock(self) -> None:
        if self._abandoned or self._endpoint.domain.state is State.DEAD:
            return
        if self._link.cuts or self._link.lost() or not self._target.powered:
            self._link.took += 1
            self._retry()
            return
        acceptor = self._target.acceptors.get(self._endpoint.peer)
        if acceptor is None or acceptor.domain.state is State.DEAD:
            self._network.probes.hit("network.connect_refused")
            self._answer("connection refused")
            return
        self._join(acceptor)

    def _retry(self) -> None:
        loop = self._network.loop
        due_ns = loop.now_ns + self._wait_ns
        self._wait_ns *= 2
        if due_ns > self._give_up_ns:
            self._network.probes.hit("network.connect_timed_out")
            self._fail("timed out")
        else:
            loop.schedule(due_ns, loop.world.context, self._knock)

    def _answer(self, reason: str) -> None:
        back = self._network.link(self._target.name, self._source.name)
        loop = self._network.loop
        loop.schedule(
            back.arrival_ns(loop.now_ns, 64), self._endpoint.domain.context, self._fail, reason
        )

    def _fail(self, reason: str) -> None:
        opening = self._endpoint.opening
        if opening is not None and not opening.done():
            opening.set_exception(ConnectFailed(self._endpoint.peer, reason))

    def _join(self, acceptor: Acceptor) -> None:
        """Build the stream; its first item tells the server."""
        self._joined = True
        network, near = self._network, self._endpoint
        far = Endpoint(network, acceptor.domain, self._source.name, near.metadata, acceptor.handler)
        near.other, far.other = far, near
        near.outgoing = far.incoming = Pipe(network, self._source, self._target)
        near.incoming = far.outgoing = Pipe(network, self._target, self._source)
        near.outgoing.receiver, near.incoming.receiver = far, near
        self._source.endpoints[near] = None
        self._target.endpoints[far] = None
        far.door = acceptor
        network.trace.event("connect", self._source.name, near.peer)
        near.outgoing.open_here()
