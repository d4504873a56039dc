"""Before a voter wants an epoch, a majority must agree that no leader is heard.

A voter that cannot hear a leader may be the only one: its way in is cut, or its way to the leader.
If it campaigned, it would depose a leader that everybody else hears, again and again. So when its
patience has run out it asks the other voters, and wants an epoch only when a majority, itself
included, has heard nothing for a while. Who hears a leader, leads, or campaigns does not answer.

This is about disturbance only; nothing that is safe rests on it. A voter that is bound to a later
epoch than the present leader's does not ask: it refuses that leader, so it hears none, and only a
takeover above its promise brings it back.
"""

from __future__ import annotations

from replication.messages import Listen, Silent
from replication.quorum import is_majority
from replication.state import Role, State


def tick(state: State) -> None:
    """When the patience of a voter has run out, ask the others, and again until one is heard."""
    now_ns, settings = state.now.lo_ns, state.settings
    if not _impatient(state):
        return
    if state.refused_ns and now_ns - state.refused_ns <= settings.patience_ns:
        state.want_epoch()
        return
    if state.listening_since_ns != state.heard_ns:
        state.listening_since_ns = state.heard_ns
        state.silent = {state.identity}
        state.listened_ns = 0
    if now_ns - state.listened_ns >= settings.resend_ns:
        state.listened_ns = now_ns
        for replica in state.log.membership.voters:
            if replica not in state.silent:
                state.send(replica, Listen(state.heard_ns, state.identity))
    _agree(state)


def listen(state: State, message: Listen) -> None:
    """Answer if no leader is heard here either, for half of the own patience."""
    heard = state.leader is not None and (
        state.now.lo_ns - state.heard_ns <= state.settings.patience_ns // 2
    )
    if state.role is Role.FOLLOWER and not heard:
        state.send(message.sender, Silent(message.since_ns, state.identity))


def silent(state: State, message: Silent) -> None:
    """Another voter hears nobody; it counts for the silence it was asked in."""
    if message.since_ns == state.listening_since_ns == state.heard_ns and _impatient(state):
        state.silent.add(message.sender)
        _agree(state)


def _impatient(state: State) -> bool:
    votes = state.identity in state.log.membership.voters and not state.outside
    silent_ns = state.now.lo_ns - state.heard_ns
    return state.role is Role.FOLLOWER and votes and silent_ns > state.settings.patience_ns


def _agree(state: State) -> None:
    if is_majority(state.log.membership.voters, state.silent):
        state.want_epoch()
