"""Clients that wait until a stamp is safe here: reads of the local copy that are as fresh as wanted.

Who takes a stamp that true time has not passed yet, waits until everything at or below it is final
on this node, and reads there, has read everything that was acknowledged before it began, without
asking anybody far away (docs/protocol.md §4.3). The price is the visibility delay instead of a
round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2store.errors import Deadline, Overloaded, Rejected
from k2store.v1 import session_pb2 as wire
from truetime import Interval
from truetime.timestamp import describe

if TYPE_CHECKING:
    from k2store.node.engine import Engine
    from k2store.node.session import Session


class SafeWaits:
    """All who wait for the safe time of one node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[tuple[int, int, Session, int]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, session: Session, call: wire.SafeCall, now: Interval) -> None:
        """Answer when the stamp is safe here; one of 0 is taken from the clock first."""
        engine = self._engine
        at = call.at or engine.stamp(session.seen, now)
        if not at:
            session.fail(call.request, engine.uncertain())
        elif at > engine.furthest(now):
            error = Rejected("the stamp lies further ahead than any clock gives", field="at")
            session.fail(call.request, error)
        elif len(self._waiting) >= engine.limits.in_flight_max:
            overloaded = Overloaded(
                f"{len(self._waiting)} clients wait for the safe time of this node",
                limit="limits.in_flight",
                retry_after_s=0.05,
            )
            session.fail(call.request, overloaded)
        else:
            deadline_ns = now.lo_ns + session.timeout(call.timeout_ms)
            self._waiting.append((at, deadline_ns, session, call.request))

    def look(self) -> None:
        """Answer those whose stamp has become safe, and those whose time is over."""
        if not self._waiting:
            return
        engine = self._engine
        safe, lo_ns = engine.host.safe(), engine.now.lo_ns
        left = []
        for waiter in self._waiting:
            at, deadline_ns, session, request = waiter
            if session.closed:
                continue
            if at <= safe:
                session.out.rest().safe_answers.add(request=request, at=at)
                session.out.count += 1
                engine.touch(session)
            elif deadline_ns <= lo_ns:
                error = Deadline(
                    f"nothing above {describe(safe)} is final here yet; `k2 status` says what "
                    "holds it back"
                )
                session.fail(request, error)
            else:
                left.append(waiter)
        self._waiting = left
