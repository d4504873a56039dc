"""A whole partition for a replica whose log ends before the leader's begins.

A snapshot travels between replicas without its content. Who receives one fetches it: the state of
the machine, and the rows of the partition, page by page, from the node that sent the snapshot; then
the snapshot goes to the replica as if it had come whole::

    Install (position, no content) ──► Pull from "" ──► Page: state, rows of a .. f, resume g
                                       Pull from g  ──► Page: rows of g .. z
                                       flush; Install (position, state) ──► Replica

Rows are copied while the sender goes on. That does no harm: what it commits meanwhile lies above
the safe time of the snapshot's position, and the log brings it again. What it collects meanwhile
lies below its horizon, so the receiver raises its own horizon first, durably. For the same reasons
a copy that is broken off half-way leaves a partition that is older than its rows, and right.

So the sender may take later snapshots meanwhile, and a copy need not be faster than they come: it
goes on while the sender's log still has the entries behind the position. While somebody copies, the
log keeps more of them than else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from k2store.node.cluster.frames import Page, Pull, Row
from k2store.node.cluster.group import decode_checkpoint
from k2store.node.spaces import SPACE
from replication import GENESIS, Fetched, Install, Position
from replication import Message as LogMessage

if TYPE_CHECKING:
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost

ASK_AGAIN_NS: Final = 1_000_000_000
"""A page that has not come for so long is asked for again."""
GIVE_UP_NS: Final = 10_000_000_000
"""A copy without progress for so long is given up; the leader offers another snapshot."""
ROW_BYTES: Final = 16
TRAIL_BYTES_MAX: Final = 64 << 20
"""How much of a log is kept in memory for those who copy a partition."""
TRAIL_NS: Final = 60_000_000_000
"""How long after the last page: the rows are flushed before the copy asks for what came since."""


def horizon_name(partition: int) -> bytes:
    """Under what a partition's horizon is kept while its rows are being replaced."""
    return b"horizon/%d" % partition


def by_reference(message: LogMessage) -> LogMessage:
    """A message without the content of the snapshot in it."""
    if isinstance(message, Install | Fetched) and message.snapshot is not None:
        return replace(message, snapshot=replace(message.snapshot, state=b""))
    return message


def serve(host: ClusterHost, node: int, pull: Pull) -> None:
    """Answer a question for rows."""
    group = host.groups.get(pull.partition)
    link = host.links.to(node)
    if group is None or link is None:
        return
    log = group.replica.state.log
    state = group.partition.state
    first = not pull.start
    known = log.snapshot.position if first else log.position(pull.position.lsn)
    end = decode_checkpoint(log.snapshot.state).end if first else pull.end
    if known != pull.position or end != state.end:
        if end != state.end:
            # The partition was split since: the rows that the snapshot has beyond its present end
            # go their own way. A snapshot of the half that is left will be offered.
            host.rotation.wanted = True
        link.page(Page(pull.partition, GENESIS, pull.start, b"", 0, b"", []))
        return
    group.pulled_ns = host.engine.now.lo_ns
    log.trail_bytes_max = TRAIL_BYTES_MAX
    state.settle()
    start = max(pull.start, state.start)
    rows: list[Row] = []
    size = 0
    resume = b""
    page_bytes = host.settings.copy_page_bytes
    for batch in host.engine.settled.all_rows(SPACE, start, state.end or None):
        for key, stamp, value in batch:
            if size > page_bytes and key != rows[-1][0]:
                resume = key
                break
            rows.append((key, stamp, value))
            size += len(key) + len(value or b"") + ROW_BYTES
        if resume:
            break
    content = log.snapshot.state if first else b""
    link.page(Page(pull.partition, pull.position, start, resume, state.horizon, content, rows))


def let_go(group: Group, now_ns: int) -> None:
    """Keep no more of a log than else once nobody copies its partition."""
    if group.pulled_ns and now_ns - group.pulled_ns > TRAIL_NS:
        group.pulled_ns = 0
        group.replica.state.log.trail_bytes_max = group.replica.state.settings.trail_bytes_max


class _Copy(Struct):
    """One partition being copied, and the message that waits for it."""

    source: int
    position: Position
    message: Install | Fetched
    start: bytes = b""
    end: bytes = b""
    state: bytes = b""
    asked_ns: int = 0
    progress_ns: int = 0
    flushing: bool = False


class Pulls:
    """The partitions that are being copied to this node."""

    def __init__(self, host: ClusterHost) -> None:
        self._host = host
        self._copies: dict[int, _Copy] = {}
        self.rows = 0
        self.finished = 0

    def __len__(self) -> int:
        return len(self._copies)

    def intercept(self, group: Group, message: LogMessage) -> bool:
        """Whether the message must wait for a copy; true also for those that are not needed."""
        if not isinstance(message, Install | Fetched) or message.snapshot is None:
            return False
        position = message.snapshot.position
        if message.snapshot.state or position.lsn <= group.base.lsn:
            return False
        if group.replica.state.log.position(position.lsn) == position:
            return False  # the log shows that it is there already
        copy = self._copies.get(group.number)
        if copy is not None and (copy.position == position or copy.state):
            if copy.position == position:
                copy.message = message
            return True  # what has begun goes on until its sender refuses
        now_ns = self._host.engine.now.lo_ns
        self._copies[group.number] = copy = _Copy(
            message.sender, position, message, progress_ns=now_ns
        )
        self._ask(group.number, copy)
        return True

    def _ask(self, number: int, copy: _Copy) -> None:
        copy.asked_ns = self._host.engine.now.lo_ns
        link = self._host.links.to(copy.source)
        if link is not None:
            link.pull(Pull(number, copy.position, copy.start, copy.end))

    def receive(self, node: int, page: Page) -> None:
        """Rows have come."""
        copy = self._copies.get(page.partition)
        group = self._host.groups.get(page.partition)
        if copy is None or group is None or copy.flushing or node != copy.source:
            return
        if page.position != copy.position:
            del self._copies[page.partition]
            return
        if page.start != copy.start and (copy.start or not page.state):
            return  # the answer to an earlier question
        settled = self._host.engine.settled
        state = group.partition.state
        if page.horizon > state.horizon:
            state.horizon = page.horizon
            settled.put_meta({horizon_name(page.partition): page.horizon.to_bytes(8, "big")})
        if page.state:
            copy.state = page.state
            copy.end = decode_checkpoint(page.state).end
        # Not the end as it is known here: what a split took away since may have been copied already.
        end = page.resume or copy.end
        # In one step: what is served until the copy is whole must not lose rows to a crash in between.
        settled.replace_range(SPACE, page.start, end or None, page.rows)
        self.rows += len(page.rows)
        copy.progress_ns = self._host.engine.now.lo_ns
        copy.start = page.resume
        if page.resume:
            self._ask(page.partition, copy)
            return
        copy.flushing = True
        task = asyncio.get_running_loop().run_in_executor(None, settled.flush)
        task.add_done_callback(lambda done: self._flushed(page.partition, copy, done))

    def _flushed(self, number: int, copy: _Copy, task: asyncio.Future[int]) -> None:
        engine = self._host.engine
        if engine.stopped or self._copies.get(number) is not copy:
            return
        error = task.exception()
        if error is not None:
            engine.fail(error)
            return
        del self._copies[number]
        self.finished += 1
        message = copy.message
        assert message.snapshot is not None
        whole = replace(message, snapshot=replace(message.snapshot, state=copy.state))
        self._host.later(number, whole)

    def tick(self, now_ns: int) -> None:
        """Ask again; give up what does not go on."""
        for number, copy in list(self._copies.items()):
            if copy.flushing:
                continue
            if now_ns - copy.progress_ns > GIVE_UP_NS:
                del self._copies[number]
            elif now_ns - copy.asked_ns > ASK_AGAIN_NS:
                self._ask(number, copy)
