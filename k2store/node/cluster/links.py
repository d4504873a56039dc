"""The streams between nodes: each node dials every other one and sends on what it has dialled.

So a pair of nodes has two streams, one for each direction. What arrives on a stream that a newer
one of the same node has replaced is ignored: a request that was given up as lost cannot come alive
behind its sender's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from k2store.control.map import NodeInfo
from k2store.node.cluster.frames import (
    Forwarded,
    Frame,
    Hint,
    Joiner,
    Page,
    Pull,
    Report,
    encode,
    parts,
)
from k2store.rpc.transport import (
    PEER_NAME,
    Connection,
    ConnectionClosed,
    Dialer,
    SendQueueFull,
    TransportError,
)
from mvcc.messages import Answer, BatchAnswer, Message
from replication import HomeMessage
from replication import Message as LogMessage

NODE_KEY: Final = "k2-node"
INCARNATION_KEY: Final = "k2-incarnation"
STARTS_KEY: Final = "k2-starts"
"""How often the folder of the node was started; each incarnation counts one more."""
RECEIVER_KEY: Final = "k2-receiver"
"""Whom the stream is for: behind the address may stand somebody else by now."""

DIAL_S_MAX: Final = 3.0
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 0.5
QUEUED_BYTES_MAX: Final = 12 << 20
"""Bytes waiting for one peer after which log messages to it are left out; they are sent again."""


class Link:
    """The stream to one other node, and what has gathered for it in this turn.

    Implements the transport's ``Handler`` for what it has dialled, on which nothing arrives.
    """

    def __init__(self, info: NodeInfo) -> None:
        self.info = info
        self.frames = 0
        self.bytes = 0
        self.left_out = 0
        self.outdated = ""
        """An incarnation of the other node that has begun on an old copy of its folder."""
        self.changed = asyncio.Event()
        """Set when the stream has ended."""
        self._connection: Connection | None = None
        self._frame: Frame | None = None

    @property
    def up(self) -> bool:
        """Whether the stream stands, as far as is known."""
        return self._connection is not None and not self._connection.closed

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return 0 if self._connection is None else self._connection.queued_bytes

    # -- gathering ---------------------------------------------------------------------------------

    def _gathering(self) -> Frame:
        if self._frame is None:
            self._frame = Frame(0, [], [], [], [], [], [], [], [])
        return self._frame

    def log(self, partition: int, message: LogMessage) -> None:
        """A message between replicas of one log."""
        self._gathering().logs.append((partition, message))

    def request(self, forwarded: Forwarded) -> None:
        """A request for a partition that the other node leads."""
        self._gathering().requests.append(forwarded)

    def answer(self, answer: Answer | BatchAnswer) -> None:
        """The answer to a request of the other node."""
        self._gathering().answers.append(answer)

    def carry(self, key: bytes, message: Message) -> None:
        """A message of a partition here to one there."""
        self._gathering().carried.append((key, message))

    def hint(self, hint: Hint) -> None:
        """Advice for closing time."""
        self._gathering().hints.append(hint)

    def home(self, keyspace: str, message: HomeMessage) -> None:
        """About the home of a keyspace."""
        self._gathering().homes.append((keyspace, message))

    def report(self, report: Report) -> None:
        """How far history is final here."""
        self._gathering().report = report

    def pull(self, pull: Pull) -> None:
        """A question for rows."""
        self._gathering().pulls.append(pull)

    def page(self, page: Page) -> None:
        """Rows."""
        self._gathering().pages.append(page)

    @property
    def gathered(self) -> bool:
        """Whether there is something to send."""
        return self._frame is not None

    def flush(self, lo_ns: int, *, accuses: bool = False) -> None:
        """Send what has gathered. What cannot be sent is lost, as on any network."""
        frame, self._frame = self._frame, None
        connection = self._connection
        if frame is None or connection is None:
            return
        frame.lo_ns = lo_ns
        frame.accuses = accuses
        frame.outdated = self.outdated
        data = encode(frame)
        if frame.logs and connection.queued_bytes + len(data) > QUEUED_BYTES_MAX:
            # What logs say is said again; what was asked and answered is not.
            self.left_out += len(frame.logs)
            frame.logs = []
            data = encode(frame)
        self.frames += 1
        self.bytes += len(data)
        try:
            for part in parts(data):
                connection.send(part)
        except (SendQueueFull, ConnectionClosed) as error:
            connection.close(str(error))

    # -- the stream --------------------------------------------------------------------------------

    async def dial(self, dialer: Dialer, metadata: Mapping[str, str]) -> None:
        """Open the stream; raises TransportError or TimeoutError."""
        self.changed.clear()
        async with asyncio.timeout(DIAL_S_MAX):
            self._connection = await dialer.connect(self.info.address, metadata, self)

    def close(self, reason: str) -> None:
        """End the stream."""
        if self._connection is not None:
            self._connection.close(reason)
        self.changed.set()

    def on_connect(self, connection: Connection) -> None:
        """The stream stands."""

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """The other side answers on its own stream."""

    def on_close(self, connection: Connection, reason: str) -> None:
        """The stream has ended."""
        if connection is self._connection:
            self._connection = None
        self.changed.set()


class Links:
    """All streams to and from other nodes.  Implements the transport's ``Handler`` for those that
    others have dialled.

    `arrived` is called with a node and a whole frame, `lost` with a node of which a stream has
    ended: what was asked of it may never be answered.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        arrived: Callable[[int, bytes], None],
        lost: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self._dialer = dialer
        self._arrived = arrived
        self._lost = lost
        self._changed = changed
        self._metadata: Mapping[str, str] = {}
        self._links: dict[int, Link] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._incoming: dict[int, tuple[Connection, Joiner]] = {}
        self._lives: dict[int, tuple[int, str]] = {}
        """Of each other node the latest incarnation, and how often its folder had been started."""
        self._own = 0

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    @property
    def standing(self) -> int:
        """How many other nodes this one is connected with."""
        return sum(link.up for link in self._links.values())

    def introduce(self, own: int, incarnation: bytes, starts: int) -> None:
        """Who this node is, and how often its folder was started (0: nobody counts)."""
        self._own = own
        self._metadata = {
            NODE_KEY: str(own),
            INCARNATION_KEY: incarnation.hex(),
            STARTS_KEY: str(starts),
        }

    def to(self, node: int | None) -> Link | None:
        """The stream to a node, if it stands."""
        link = self._links.get(node) if node is not None else None
        return link if link is not None and link.up else None

    def follow(self, nodes: Iterable[NodeInfo]) -> None:
        """Dial these nodes and no others."""
        wanted = {node.id: node for node in nodes if node.id != self._own}
        for node, link in list(self._links.items()):
            if wanted.get(node) != link.info:
                self._tasks.pop(node).cancel()
                del self._links[node]
                link.close("the node has moved or gone")
        for node, info in wanted.items():
            if node not in self._links:
                link = self._links[node] = Link(info)
                self._tasks[node] = asyncio.get_running_loop().create_task(self._keep(link))

    async def _keep(self, link: Link) -> None:
        delay_s = RETRY_S_MIN
        while True:
            try:
                receiver = {RECEIVER_KEY: str(link.info.id)}
                await link.dial(self._dialer, {**self._metadata, **receiver})
            except (TransportError, TimeoutError):
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_S_MAX)
                continue
            delay_s = RETRY_S_MIN
            self._changed()
            await link.changed.wait()
            self._lost(link.info.id)
            self._changed()
            await asyncio.sleep(delay_s)  # who is refused at once need not ask at once

    def flush(self, lo_ns: int, accuses: Callable[[int], bool]) -> None:
        """Send what has gathered for everybody; `accuses` says whose clocks are ahead."""
        for node, link in self._links.items():
            if link.gathered:
                link.flush(lo_ns, accuses=accuses(node))

    def close(self) -> None:
        """End all streams."""
        for task in self._tasks.values():
            task.cancel()
        for link in self._links.values():
            link.close("the node stops")
        for connection, _ in self._incoming.values():
            connection.close("the node stops")

    # -- streams that others have dialled ----------------------------------------------------------

    def on_connect(self, connection: Connection) -> None:
        """Another node has dialled this one; an older stream of it is over."""
        node = _node_of(connection)
        if node is None:
            connection.close("the stream does not say which node it comes from")
            return
        receiver = connection.metadata.get(RECEIVER_KEY, "")
        if receiver != str(self._own):
            # A node that has lost its disk comes back as another one, at the same address; what
            # the old one has promised and acknowledged binds nobody here.
            connection.close(f"this is node {self._own}, not {receiver or 'one without a name'}")
            return
        name = connection.metadata.get(PEER_NAME)
        link = self._links.get(node)
        if name is not None and link is not None and link.info.name != name:
            connection.close(f"node {node} is {link.info.name}, the certificate says {name}")
            return
        if self._is_outdated(node, connection):
            connection.close(f"the folder of node {node} is an old copy")
            return
        older = self._incoming.get(node)
        self._incoming[node] = (connection, Joiner())
        if older is not None:
            older[0].close("replaced by a newer stream of the same node")
        # Also where no older one stood: until now the other node could not answer, and what it
        # would have said to what it was asked meanwhile is gone.
        self._lost(node)

    def _is_outdated(self, node: int, connection: Connection) -> bool:
        """Whether a node has been met in a later life than the one that dials now.

        The control plane knows that as well, unless it was away at both starts. It is told by
        name: what arrives late from a life that is over must not end the present one.
        """
        life = connection.metadata.get(INCARNATION_KEY, "")
        starts = _number(connection.metadata.get(STARTS_KEY, ""))
        latest, known = self._lives.get(node, (0, ""))
        if starts and starts <= latest and life != known:
            link = self._links.get(node)
            if link is not None:
                link.outdated = life
            return True
        self._lives[node] = (starts, life)
        return False

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        """A part of a frame."""
        node = _node_of(connection)
        known = self._incoming.get(node) if node is not None else None
        if node is None or known is None or known[0] is not connection:
            return
        try:
            whole = known[1].take(frame)
        except ValueError as error:
            connection.close(str(error))
            return
        if whole is not None:
            self._arrived(node, whole)

    def on_close(self, connection: Connection, reason: str) -> None:
        """A stream from another node has ended."""
        node = _node_of(connection)
        known = self._incoming.get(node) if node is not None else None
        if node is not None and known is not None and known[0] is connection:
            del self._incoming[node]
            self._lost(node)


def _node_of(connection: Connection) -> int | None:
    text = connection.metadata.get(NODE_KEY, "")
    return _number(text) if text.isdecimal() and len(text) < 10 else None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
