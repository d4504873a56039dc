"""The promises of a replica: the epoch it is bound to, and the leases it has granted.

Both roles that ask for promises, leader and candidate, are bound by their own node's promise as
well. Every replica answers, learners too: whether an answer counts is judged by the asker, in the
membership of the log that it chooses or leads.
"""

from __future__ import annotations

from replication.messages import Released, Renew, Renewed, Seal, Sealed
from replication.state import State


def promise(state: State, epoch: int) -> None:
    """Bind this replica to ``epoch``: from now on nothing of a lower one is taken or answered.

    The leader and candidate on this node are bound too, so they end here. The promise is durable
    with the next ``Persist``; until then nothing is said that rests on it.
    """
    assert epoch > state.promise, (epoch, state.promise)
    state.stand_down()
    state.promise = epoch
    state.earlier_end_ns = max(state.earlier_end_ns, state.end_ns)
    state.end_ns = 0
    state.seal_sender = None
    # What was verified against an earlier leader's log says nothing about the next one's, and what
    # is still on its way to the disk must never be acknowledged to the earlier one.
    state.verified_lsn = 0
    state.acknowledged_lsn = 0


def accepts(state: State, epoch: int, sender: int) -> bool:
    """Whether a leader's message may be taken; a higher epoch raises the promise."""
    if epoch < state.promise:
        state.fence(sender)
        state.refused_ns = state.now.lo_ns
        return False
    if epoch > state.promise:
        promise(state, epoch)
    elif state.lead is not None or state.campaign is not None:
        return False  # an echo: an epoch has one candidate, and that is this replica
    state.leader = sender
    state.outside = False
    state.heard_ns = state.now.lo_ns
    return True


def lend(state: State) -> int:
    """Promise a lease to the epoch this replica is bound to; returns its end."""
    assert state.promise_durable == state.promise, (state.promise_durable, state.promise)
    # Counted from the earliest that now may be. An end named by the leader, or counted from hi,
    # may exceed what a restarted voter computes as the bound of its forgotten promises.
    end_ns = state.now.lo_ns + state.settings.lease_ns
    state.end_ns = max(state.end_ns, end_ns)
    return end_ns


def renew(state: State, message: Renew) -> None:
    """Grant the leader of the promised epoch another lease."""
    if not accepts(state, message.epoch, message.sender):
        return
    released = state.released_epoch >= state.promise  # by now its leader has no use for a lease
    if state.promise_durable == state.promise and not released:
        end_ns, verified_lsn = lend(state), state.verified_lsn
        state.send(message.sender, Renewed(state.promise, state.identity, end_ns, verified_lsn))


def release(state: State, epoch: int) -> None:
    """The leader of ``epoch`` serves no more: what was promised to that epoch binds nobody."""
    state.released_epoch = max(state.released_epoch, epoch)
    if epoch == state.promise and state.lead is None:
        state.end_ns = 0
        state.leader = None
        state.heard_ns = state.now.lo_ns


def released(state: State, message: Released) -> None:
    """Take the leader's word; see :mod:`replication.hand_over`."""
    release(state, message.epoch)


def seal(state: State, message: Seal) -> None:
    """Bind this replica to a candidate's epoch, and answer when that is durable."""
    if message.epoch < state.promise:
        state.fence(message.sender)
        return
    if message.epoch > state.promise:
        promise(state, message.epoch)
    elif state.lead is not None or state.campaign is not None:
        return
    state.heard_ns = state.now.lo_ns
    state.seal_sender = message.sender
    answer_seal(state)


def answer_seal(state: State) -> None:
    """Answer the waiting candidate, if the promise it asked for is durable."""
    if state.seal_sender is None or state.promise_durable < state.promise:
        return
    answer = sealed(state)
    if answer is not None:
        state.send(state.seal_sender, answer)
    state.seal_sender = None


def sealed(state: State) -> Sealed | None:
    """What this replica answers to a seal; None while a snapshot is on its way to the disk."""
    last = state.log.position(state.log.durable_lsn)
    if last is None:
        return None
    return Sealed(
        state.promise,
        state.identity,
        last,
        max(state.earlier_end_ns, state.end_ns),
        state.closed.known,
        state.log.membership,
    )
