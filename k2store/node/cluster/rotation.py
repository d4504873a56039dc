"""Leaving a full segment of the node's log behind: a checkpoint of every partition at one moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from k2store.node.cluster.turns import NodeCheckpoint, encode, kept
from k2store.storage import StorageFailed
from replication import Persist

if TYPE_CHECKING:
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost

HOLD_NS_MAX: Final = 500_000_000
"""How long requests wait for the checkpoint of another partition than their own."""


class Rotation:
    """The segments of one node's log."""

    def __init__(self, host: ClusterHost) -> None:
        self._host = host
        self._log = host.engine.store.log
        self._settled = host.engine.store.settled
        self._flushing = False
        self._since_ns = 0
        self.due = False
        """What leaders are asked waits until everything proposed stands."""
        self.wanted = False
        """A segment is to be begun before this one is full."""

    def prepare(self) -> None:
        """Have a spare segment lie ready."""
        self._flushing = True
        preparing = asyncio.get_running_loop().run_in_executor(None, self._log.prepare_segment)
        preparing.add_done_callback(self._prepared)

    @property
    def possible(self) -> bool:
        """Whether a segment can be begun now."""
        return not self._flushing

    def look(self) -> None:
        """Begin another segment when this one is full, or when one is wanted."""
        if (self._log.segment_full or self.wanted) and not self._flushing and not self.due:
            self.due = True
            self.wanted = False
            self._since_ns = self._host.engine.clock.monotonic_ns()
        if self.due:
            self.step()

    def step(self) -> None:
        """Hold back what leaders are asked until everything proposed stands, then begin a segment.

        It takes one round trip to the majority; requests wait for it. A partition whose majority
        does not answer keeps its older checkpoint and all entries since, so that the others go on.
        """
        waited_ns = self._host.engine.clock.monotonic_ns() - self._since_ns
        quiescent = all(group.quiescent for group in self._host.groups.values())
        if not quiescent and waited_ns < HOLD_NS_MAX:
            return
        self._host.advance()
        self.due = False
        self.checkpoint()
        for group in self._host.groups.values():
            if not group.heir:
                self._host.let_in(group)
        self._flushing = True
        task = asyncio.get_running_loop().run_in_executor(None, self._flush)
        task.add_done_callback(self._flushed)
        self._host.engine.schedule()

    def checkpoint(self) -> None:
        """Begin a segment with the state of every partition."""
        written: list[tuple[Group, Persist]] = []
        for group in self._host.groups.values():
            if group.quiescent and group.replica.applied_lsn > group.base.lsn:
                group.compact()
            ready = group.replica.ready()
            for send in ready.sends:
                self._host.send_log(group.number, send)
            assert not ready.committed, "nothing stands that was not applied"
            if ready.persist is not None:
                written.append((group, ready.persist))
            self._host.touch(group)
        saved = NodeCheckpoint(
            self._host.oracle.reserved_until_ns,
            [kept(number, group.replica.saved()) for number, group in self._host.groups.items()],
            self._host.home_leases.durable(),
            list(self._host.frozen.values()),
        )
        turn = self._log.begin_segment(encode(saved))
        self._settled.mark_applied(turn - 1)
        for group, persist in written:
            group.replica.persisted(persist.token, self._host.engine.now)

    def _flush(self) -> int:
        applied = self._settled.flush()
        self._log.prepare_segment()
        return applied

    def _prepared(self, task: asyncio.Future[None]) -> None:
        self._flushing = False
        error = task.exception()
        if error is not None and not self._host.engine.stopped:
            self._host.engine.fail(error)

    def _flushed(self, task: asyncio.Future[int]) -> None:
        self._flushing = False
        if self._host.engine.stopped:
            return
        error = task.exception()
        if error is None:
            try:
                self._log.drop_before(task.result() + 1)
            except StorageFailed as failed:
                error = failed
        if error is not None:
            self._host.engine.fail(error)
