"""Streams of frames over the simulated network: the transport port, with its unpleasant endings.

A stream is two *pipes*, one in each direction. A pipe keeps its frames in one queue from `send`
to the handler, and every frame schedules one arrival, which delivers whatever is then at the head
of the queue. So frames stay in order although arrivals are delayed, held back by a paused process
or repeated after a cut.

How a stream can end:

- `close`: what was sent still arrives, then the end does;
- a reset, or the death of a process: of the frames under way an arbitrary first part arrives;
- a power cut: nothing says so; the other end finds out by its keep-alive, or when the machine is
  back and answers a frame with a reset.
"""

from __future__ import annotations

import asyncio
import enum
import zlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from k2store.rpc.transport import (
    FRAME_BYTES_MAX,
    SEND_QUEUE_BYTES_MAX,
    ConnectFailed,
    ConnectionClosed,
    Handler,
    SendQueueFull,
)
from k2store.testing.simulation.domain import Domain, State
from k2store.testing.simulation.network import RETRANSMIT_NS, Host, Network

if TYPE_CHECKING:
    from k2store.testing.simulation.transport import Acceptor


class Mark(enum.Enum):
    """What travels in a pipe beside frames."""

    OPEN = "open"
    ACCEPT = "accept"
    END = "end"


class Pipe:
    """One direction of a stream."""

    receiver: Endpoint

    def __init__(self, network: Network, source: Host, target: Host) -> None:
        self.source = source
        self.target = target
        self.queued_bytes = 0
        self.broken = False
        """True once nothing more may be queued."""
        self._local = False
        """True when what is queued, the end last, no longer has to cross the link."""
        self._network = network
        self._loop = network.loop
        self._link = network.link(source.name, target.name)
        self._flight: deque[bytes | Mark] = deque()
        self._arrives_ns = 0
        self._stalled = 0
        self._drains: list[asyncio.Future[None]] = []

    def send(self, item: bytes | Mark) -> None:
        """Queue an item and schedule one arrival."""
        if self.broken:
            return
        if self.receiver.domain.state is State.DEAD:
            self._answer_of_the_dead(item)
            return
        size = 64
        if item.__class__ is bytes:
            size += len(item)
            self.queued_bytes += len(item)
        link = self._link
        arrives_ns = link.arrival_ns(self._loop.now_ns, size)
        if link.loss:
            arrives_ns += link.retransmissions_ns()
        if arrives_ns > self._arrives_ns:
            self._arrives_ns = arrives_ns
        self._flight.append(item)
        self._loop.schedule(self._arrives_ns, self.receiver.domain.context, self.arrive)

    def open_here(self) -> None:
        """Put the first item, a request that has already crossed the link, before the receiver."""
        self._flight.append(Mark.OPEN)
        self._loop.schedule(self._loop.now_ns, self.receiver.domain.context, self.arrive)

    def arrive(self) -> None:
        """Deliver the head of the queue, in the receiver's domain."""
        if not self._flight:
            return
        if self._link.cuts and not self._local:
            self._link.took += 1
            self._link.stalled[self] = None
            self._stalled += 1
            self._network.probes.hit("network.cut_stopped")
            return
        item = self._flight.popleft()
        if item.__class__ is bytes:
            self.receiver.take(item)
        else:
            self.receiver.mark(item)

    def revive(self) -> None:
        """The link is whole again: what a cut stopped arrives one retransmission later."""
        stalled, self._stalled = self._stalled, 0
        due_ns = self._loop.now_ns + RETRANSMIT_NS
        for _ in range(stalled):
            self._loop.schedule(due_ns, self.receiver.domain.context, self.arrive)

    def consumed(self, size: int) -> None:
        """The receiver is done with a frame: its bytes no longer count against the sender."""
        self.queued_bytes -= size
        if self._drains and not self.full:
            self.wake()

    @property
    def under_way(self) -> int:
        """Frames that have not arrived, on a link that lets them."""
        if self._link.cuts or self.broken:
            return 0
        return sum(item.__class__ is bytes for item in self._flight)

    @property
    def full(self) -> bool:
        """True while half of the allowance, or more, is under way."""
        return self.queued_bytes >= SEND_QUEUE_BYTES_MAX // 2

    async def change(self) -> None:
        """Return when the queue has drained, or the stream has ended."""
        future = self._loop.create_future()
        self._drains.append(future)
        await future

    def truncate(self) -> None:
        """The stream is broken: lose an arbitrary last part of what is under way."""
        if self.broken:
            return
        self.broken = True
        flight = self._flight
        keep = int(self._network.chance() * (len(flight) + 1))
        if keep < len(flight):
            self._network.probes.hit("network.window_lost")
        while len(flight) > keep:
            item = flight.pop()
            if isinstance(item, bytes):
                self.queued_bytes -= len(item)

    def tell_end(self, *, here: bool, after: bool = False) -> None:
        """Let the receiver meet the end after what still arrives.

        `here`: the receiver finds it out by itself, whatever the link does, and what a cut holds
        back is lost. `after`: not before the last of it would have arrived anyway.
        """
        if here:
            if self._link.cuts:
                self._flight.clear()
            self._local = True
            self._link.stalled.pop(self, None)
        self._flight.append(Mark.END)
        due_ns = self._loop.now_ns + (0 if here else self._link.base_ns)
        if after:
            due_ns = max(due_ns, self._arrives_ns)
        for _ in range(1 if after else len(self._flight)):
            self._loop.schedule(due_ns, self.receiver.domain.context, self.arrive)

    def discard(self) -> None:
        """Drop everything: nobody receives any more."""
        self.broken = True
        self.clear()

    def clear(self) -> None:
        """Drop what is under way."""
        self._flight.clear()
        self._link.stalled.pop(self, None)
        self.wake()

    def wake(self) -> None:
        """Let those who wait for room look again."""
        for future in self._drains:
            if not future.done():
                future.set_result(None)
        self._drains.clear()

    def _answer_of_the_dead(self, item: bytes | Mark) -> None:
        """A frame for a process that died without a word: its machine, if up, sends a reset."""
        if isinstance(item, bytes):
            self.queued_bytes += len(item)
        if self.target.powered and not self._link.cuts:
            self.discard()
            self._network.probes.hit("network.reset_by_reborn")
            self.receiver.outgoing.tell_end(here=False)


class Endpoint:
    """One end of a stream; implements `k2store.rpc.transport.Connection`."""

    outgoing: Pipe
    incoming: Pipe
    other: Endpoint

    def __init__(
        self,
        network: Network,
        domain: Domain,
        peer: str,
        metadata: Mapping[str, str],
        handler: Handler | None,
    ) -> None:
        self.domain = domain
        self.peer = peer
        self.metadata = metadata
        self.closed = False
        self.door: Acceptor | None = None
        """What accepted this end; None at the dialling end."""
        self.opening: asyncio.Future[None] | None = None
        """Pending while the dialling side waits to be accepted."""
        self._network = network
        self._handler = handler
        self._reason = ""
        self._inbox: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None

    @property
    def queued_bytes(self) -> int:
        """Bytes sent that the other side has not taken yet."""
        return self.outgoing.queued_bytes

    def send(self, frame: bytes) -> None:
        """Queue one frame."""
        if self.closed:
            raise ConnectionClosed(self.peer, self._reason)
        if len(frame) > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {len(frame)} bytes; the limit is {FRAME_BYTES_MAX}")
        if self.outgoing.queued_bytes + len(frame) > SEND_QUEUE_BYTES_MAX:
            self._network.probes.hit("network.send_queue_full")
            raise SendQueueFull(self.peer, self.outgoing.queued_bytes)
        self.outgoing.send(frame)

    async def drain(self) -> None:
        """Wait until the peer has caught up."""
        while self.outgoing.full and not self.closed:
            await self.outgoing.change()
        if self.closed:
            raise ConnectionClosed(self.peer, self._reason)

    async def receive(self) -> bytes:
        """The next frame, for connections without a handler."""
        if self._handler is not None:
            raise ValueError("this connection gives its frames to a handler")
        while not self._inbox:
            if self.closed:
                raise ConnectionClosed(self.peer, self._reason)
            if self._reader is not None:
                raise ValueError("somebody else is receiving on this connection")
            self._reader = self._network.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._inbox.popleft()
        self.incoming.consumed(len(frame))
        return frame

    def close(self, reason: str = "closed here") -> None:
        """End the stream; what was sent still arrives."""
        if self.closed or self.domain.state is State.DEAD:
            return
        self.outgoing.send(Mark.END)
        self.incoming.discard()
        self._end(reason)
        if self._handler is not None:
            self._network.loop.schedule(
                self._network.loop.now_ns,
                self.domain.context,
                self._handler.on_close,
                self,
                reason,
            )

    def reset(self, reason: str) -> None:
        """Break the stream for both ends."""
        self._network.trace.event("reset", self.peer, self.other.peer, reason)
        for pipe in (self.outgoing, self.incoming):
            pipe.truncate()
            pipe.tell_end(here=True)

    def break_delivering(self, reason: str) -> int:
        """Break the stream: this end knows at once, the other after what is under way to it.

        Gives how many frames still arrive there although they seem lost here.
        """
        self._network.trace.event("break", self.peer, self.other.peer, reason)
        arriving = self.outgoing.under_way
        self.outgoing.broken = True
        self.outgoing.tell_end(here=False, after=True)
        self.incoming.truncate()
        self.incoming.tell_end(here=True)
        return arriving

    def die(self, *, silently: bool) -> None:
        """The process at this end is gone: killed, or `silently`, with its whole machine."""
        self.outgoing.truncate()
        if silently:
            self.incoming.clear()
            network = self._network
            due_ns = network.loop.now_ns + network.conditions.stream_silence_ns
            network.loop.schedule(due_ns, self.other.domain.context, self.other.silence)
        else:
            self.incoming.discard()
            self.outgoing.tell_end(here=False)
        self.closed = True
        self._reason = "the process is dead"
        self._detach()

    def silence(self) -> None:
        """Our keep-alive: the machine at the other end has been silent for too long."""
        if not self.closed:
            self._network.probes.hit("network.silence_reset")
            self._lost("keep-alive timed out")

    def take(self, frame: bytes) -> None:
        """A frame arrived, in our domain."""
        if self.closed:
            return
        network = self._network
        network.delivered += 1
        network.trace.event(
            "frame", self.incoming.source.name, self.incoming.target.name, zlib.crc32(frame)
        )
        if self._handler is None:
            self._inbox.append(frame)
            self._wake()
            return
        try:
            self._handler.on_frame(self, frame)
        except Exception as error:  # noqa: BLE001  # of any kind: it fails the run
            network.loop.call_exception_handler(
                {"message": f"on_frame of the connection with {self.peer}", "exception": error}
            )
            self.close("the handler failed")
        self.incoming.consumed(len(frame))

    def mark(self, mark: bytes | Mark) -> None:
        """Something other than a frame arrived, in our domain."""
        if self.closed:
            return
        if mark is Mark.END:
            self._lost("closed by the peer" if not self.incoming.broken else "connection reset")
            return
        if self._handler is not None:
            self._handler.on_connect(self)
        if mark is Mark.OPEN:
            self.outgoing.send(Mark.ACCEPT)
        elif self.opening is not None and not self.opening.done():
            self.opening.set_result(None)

    def _lost(self, reason: str) -> None:
        """The other side, or the way to it, has ended the stream."""
        if not self.outgoing.broken:
            # Of a broken stream each direction has its own end under way: leave it there.
            self.outgoing.discard()
        self._end(reason)
        if self.opening is not None and not self.opening.done():
            self.opening.set_exception(ConnectFailed(self.peer, reason))
        elif self._handler is not None:
            self._handler.on_close(self, reason)

    def _end(self, reason: str) -> None:
        self.closed = True
        self._reason = reason
        self._detach()
        self.outgoing.wake()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _detach(self) -> None:
        self.incoming.target.endpoints.pop(self, None)
